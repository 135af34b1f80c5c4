/*
 * Recordings, hvrec(5): JSON Lines in zstd. The first line is a header, every other one a message
 * of hvtop/model.h. A file is a row of frames; each begins with what is needed to read on from
 * there (names and columns of the hosts), so that a reader can jump. What is written is flushed
 * line by line: a recording that was killed reads up to its last whole line.
 */
#ifndef HVTOP_RECORD_H
#define HVTOP_RECORD_H

#include <jansson.h>

#include "hv/base/error.h"

#define RECORD_VERSION 1
#define RECORD_FRAME_SAMPLES 64
#define RECORD_FRAME_MAX ((size_t)64 << 20)      /* of one frame, decompressed; more is no recording of ours */
#define RECORD_FILE_MAX ((size_t)4 << 30)

/* ---- writing ---- */
struct recorder;

/* path is made, or replaced if it is empty or a recording. HV_CONFLICT: it is something else. */
int recorder_open(const char *path, unsigned hosts, struct recorder **ret, struct hv_error *e);
/* Messages about history are left out: what was before is not what was recorded. */
int recorder_write(struct recorder *r, const json_t *msg, struct hv_error *e);
uint64_t recorder_bytes(const struct recorder *r);
int recorder_close(struct recorder *r, struct hv_error *e);      /* NULL is fine */

/* ---- reading ---- */
struct replay;

/* A recording, or the same lines uncompressed. HV_UNSUPPORTED: a newer version's; HV_FAILED: none. */
int replay_open(const char *path, struct replay **ret, struct hv_error *e);
/* The same from memory, which stays the caller's and must outlive it. */
int replay_open_mem(const void *data, size_t len, struct replay **ret, struct hv_error *e);
void replay_close(struct replay *r);
/* How many hosts its header names, and which. */
unsigned replay_hosts(const struct replay *r);
const char *replay_host(const struct replay *r, unsigned i);
/* The next message, the caller's; NULL at the end. Lines that are no message are skipped. */
json_t *replay_next(struct replay *r);
/* The same, but samples of a host before its after_ms[host] are passed over, as quickly as may be. */
json_t *replay_next_after(struct replay *r, const uint64_t *after_ms);
/* Go on with the frame that holds time_ms, or the first. */
void replay_seek(struct replay *r, uint64_t time_ms);
/* The time of the last sample before time_ms; 0: there is none. Where it reads on is as before. */
uint64_t replay_before(struct replay *r, uint64_t time_ms);
/* Times of the first and the last sample; 0 where there is none. */
uint64_t replay_first_ms(struct replay *r);
uint64_t replay_last_ms(struct replay *r);

#endif
