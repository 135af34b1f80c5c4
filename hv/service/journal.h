/*
 * A file of JSON lines that only grows at its end: what happened, for the hvd that comes next.
 * At JOURNAL_MAX bytes it becomes PATH.1 and a new one begins, so the two hold at most twice
 * that. Lines are not synced one by one: what a power cut takes are the last seconds, and a
 * line cut short is passed over.
 */
#ifndef HV_SERVICE_JOURNAL_H
#define HV_SERVICE_JOURNAL_H

#include <jansson.h>

#include "hv/base/base.h"

#define JOURNAL_MAX ((uint64_t)2 << 20)

struct journal {
    char *path;
    int fd;                      /* -1: cannot be written; tried again at the next line */
    uint64_t size;
    bool torn;                   /* the last write was cut: the next line starts on one of its own */
    bool told;                   /* the log has said that it cannot be written */
};

/* path is copied; the file need not exist. 0 or -ENOMEM. */
int journal_init(struct journal *j, const char *path);
void journal_fini(struct journal *j);
/* Each whole line, oldest first, the older file before the newer one. */
void journal_read(const struct journal *j, void (*fn)(void *arg, json_t *line), void *arg);
/* Append one. A journal that cannot be written is complained of once, and keeps nobody from working. */
void journal_add(struct journal *j, const json_t *line);

#endif
