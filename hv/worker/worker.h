/* Shared by the files of hv-worker: one process, one VM. */
#ifndef HV_WORKER_WORKER_H
#define HV_WORKER_WORKER_H

#include "hv/base/guid.h"
#include "hv/base/loop.h"
#include "hv/rpc/varlink.h"
#include "hv/settings/settings.h"
#include "hv/vm/vm.h"

#define WORKER_MAGIC 0x574b5231u
#define WORKER_API 2              /* version of org.hv.Worker */

struct console_server;

/* One stream of reports (org.hv.Worker.Watch). */
struct watcher {
    struct worker *w;
    struct varlink_call *call;
    struct loop_timer *timer;
    uint64_t interval_ns;
    bool rows;                    /* it takes numbers alone (hv/rpc/rows.h) */
    json_t *sent;                 /* runtime as it last went whole */
    struct watcher *next;
};

struct worker {
    uint32_t magic;
    struct loop *loop;
    struct varlink_server *server;
    struct vm *vm;                /* NULL before Setup */
    char name[128];
    struct guid id;
    struct settings settings;
    struct console_server *consoles;
    struct watcher *watchers;
    uid_t peer_uid;               /* hvd's user as this process' namespace shows it */
    int exit_fd;                  /* where the end is written for an hvd that was away; -1: nowhere */
    json_t *sandbox;              /* layers, after Setup */
    struct guest_call *copy;      /* the copy under way; NULL: none */
    json_t *crash;                /* what the guest said of its last crash; NULL: none since its start */
    bool ending;                  /* the VM is off: last reports are out, the process ends */
    struct loop_timer *end_timer, *enforce_timer, *paging_timer;
    unsigned strikes;             /* how often of late the guest used what it had given back */
    uint64_t last_strike_ns, last_strike_bytes;
};

/* control.c: the methods of org.hv.Worker. */
extern const struct varlink_method worker_methods[];
/* disks.c: methods about disks, and what reports say of them. */
void worker_attach_disk(void *arg, struct varlink_call *call, const json_t *params);
void worker_detach_disk(void *arg, struct varlink_call *call, const json_t *params);
void worker_resize_disk(void *arg, struct varlink_call *call, const json_t *params);
void worker_limit_disk(void *arg, struct varlink_call *call, const json_t *params);
void worker_change_medium(void *arg, struct varlink_call *call, const json_t *params);
json_t *worker_disks_json(struct worker *w);

/* guest.c: methods about the guest, what reports say of it, and the VM's hooks. */
void worker_guest_items(void *arg, struct varlink_call *call, const json_t *params);
void worker_set_guest_item(void *arg, struct varlink_call *call, const json_t *params);
void worker_freeze(void *arg, struct varlink_call *call, const json_t *params);
void worker_thaw(void *arg, struct varlink_call *call, const json_t *params);
void worker_copy_file(void *arg, struct varlink_call *call, const json_t *params);
void worker_cancel_copy(void *arg, struct varlink_call *call, const json_t *params);
json_t *worker_integration_json(struct worker *w);
void worker_guest_event(void *arg, bool warning, const char *message, const char *hint);
void worker_crashed(void *arg, const uint64_t p[5], const char *log);

/* report.c: streams. worker_changed is the VM's hook. */
void worker_watch(struct worker *w, struct varlink_call *call, uint64_t interval_ns, bool rows);
void worker_watchers_free(struct worker *w);
void worker_changed(void *arg);
json_t *worker_runtime(struct worker *w);
/* Tell every watcher of something an operator should know; hint may be NULL. */
void worker_event(struct worker *w, const char *kind, bool warning, const char *message, const char *hint);
/* The same with a severity (error, warning, info) and data (steals; NULL: none) for programs. */
void worker_event_data(struct worker *w, const char *kind, const char *severity, const char *message, const char *hint,
                       json_t *data);
/* The VM's hooks. */
void worker_guest_changed(void *arg);
void worker_memory_event(void *arg, bool warning, const char *message, const char *hint);
const char *worker_state_word(struct worker *w);

/* enforce.c: 0 or -ENOMEM; and the VM's hook. */
int worker_enforce_new(struct worker *w);
void worker_memory_used(void *arg, uint64_t bytes);

/* paging.c: methods, the VM's hook, 0 or -ENOMEM. */
void worker_finish_reset(void *arg, struct varlink_call *call, const json_t *params);
void worker_grant_memory(void *arg, struct varlink_call *call, const json_t *params);
bool worker_reset_waits(void *arg, uint64_t bytes);
int worker_paging_new(struct worker *w);

/* consoles.c: clients of COM1. */
int consoles_new(struct worker *w, struct console_server **ret);
void consoles_free(struct console_server *cs);
/* Takes fd over. -EBUSY with e naming the writer if there is one and take_over is not set. */
int consoles_add(struct console_server *cs, int fd, const char *who, bool read_only, bool take_over, bool history,
                 struct hv_error *e);
const char *consoles_writer(const struct console_server *cs);      /* NULL: nobody */
unsigned consoles_count(const struct console_server *cs);
/* The VM has ended: send what is left and close everybody. Returns true once all is out. */
bool consoles_drain(struct console_server *cs);

#endif
