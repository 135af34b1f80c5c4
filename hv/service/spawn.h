/*
 * Making a worker's process (DESIGN 9): in namespaces of its own, with a user of its own where
 * the service is root's, with nothing of the service's but the descriptors it is meant to have.
 * What the host refuses is left out, the strongest first, and said.
 */
#ifndef HV_SERVICE_SPAWN_H
#define HV_SERVICE_SPAWN_H

#include <sys/types.h>

#include "hv/base/error.h"

#define SPAWN_LISTEN_FD 3
#define SPAWN_NO_UID ((uid_t)-1)

struct spawn_config {
    const char *program;         /* opened by the service: its path may be closed to the new user */
    char *const *argv;           /* --peer-uid=UID becomes the first */
    int listen_fd;               /* becomes SPAWN_LISTEN_FD; -1: none */
    int out_fd;                  /* becomes stdout and stderr; -1: the service's stderr */
    uid_t uid;                   /* user and group to run as, SPAWN_NO_UID: the service's */
    /* Called with the new process before it does anything; a negative errno gives the start up. May be NULL. */
    int (*before)(void *arg, pid_t pid);
    void *arg;
};

struct spawn_result {
    pid_t pid;
    int pidfd;                   /* the caller's */
    unsigned namespaces;         /* CLONE_NEW* bits */
    bool own_uid;
    char why_not[200];           /* what the host refused of it, or "" */
};

/* 0, or -errno with e filled. Returns when the program runs. */
int spawn_process(const struct spawn_config *c, struct spawn_result *ret, struct hv_error *e);

/* "user, mount, pid" for the bits. */
const char *spawn_namespace_words(unsigned bits, char *buf, size_t size);

#endif
