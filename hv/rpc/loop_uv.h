/* The abstract loop of hv/base/loop.h on libuv. */
#ifndef HV_RPC_LOOP_UV_H
#define HV_RPC_LOOP_UV_H

#include "hv/base/loop.h"

int loop_uv_new(struct loop **ret);
void loop_uv_free(struct loop *l);
/* Runs until loop_uv_stop(); callbacks run on this thread. */
void loop_uv_run(struct loop *l);
void loop_uv_stop(struct loop *l);                 /* any thread */
/* Signals as callbacks on the loop; restores the default on free. */
int loop_uv_signal(struct loop *l, int signum, void (*fn)(void *arg, int signum), void *arg);
/* Told once when the process behind a pidfd ends. */
int loop_uv_pidfd(struct loop *l, int pidfd, void (*fn)(void *arg), void *arg);

#endif
