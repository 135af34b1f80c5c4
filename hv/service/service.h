/*
 * hvd, the management service: what its files share. Everything runs on one thread,
 * the loop's; nothing here blocks but short file operations.
 *
 *   registry.c   VMs on disk and in memory      methods_*.c   org.hv.Manager
 *   worker.c     one link per running VM        jobs.c        long operations
 *   events.c     what happened, streams         wait.c        conditions
 *   broker.c     opens paths for callers        host.c        memory and its limits
 *   handover.c   descriptors for a worker       record.c      what a worker leaves on disk
 *   power.c      starts and stops of the host   vmlog.c       log files of VMs
 *   journal.c    files of JSON lines
 *   guest.c      what is asked of guests     restart.c     restarts by the guest
 *   spawn.c      makes a worker's process       uids.c        users for workers
 *   balance.c    feeds the balancer             balancer.c    who gets how much memory
 *   stats.c      rows of counters               history.c     what they were
 *   apply.c      documents of many objects      change.c      what a change of settings means
 *   paging.c     restarts short of memory    metering.c    what VMs have used
 *   reader.c     foreign documents, sealed      groups.c      names for several VMs
 *   scope.c      control groups of workers
 */
#ifndef HV_SERVICE_SERVICE_H
#define HV_SERVICE_SERVICE_H

#include <jansson.h>
#include <sys/types.h>

#include "hv/base/guid.h"
#include "hv/base/loop.h"
#include "hv/base/paths.h"
#include "hv/rpc/varlink.h"
#include "hv/service/balancer.h"
#include "hv/service/spawn.h"
#include "hv/settings/settings.h"
#include "hv/settings/xml/xml.h"

#define SERVICE_MAGIC 0x48564431u
#define SERVICE_API 1
#define VM_NAME_MAX 100                 /* characters; operator-surface 2 */
#define WORKER_API_MIN 1
#define WORKER_API_ROWS 2               /* from here on it sends numbers alone where they are all that is new */
#define REPORT_INTERVAL_MS 1000

struct service;
struct job;
struct worker_link;
struct journal;
struct guest_wait;
struct restarting;
struct series;
struct meter;
struct power;
struct scopes;
struct apply;

enum svc_state { SVC_OFF, SVC_STARTING, SVC_RUNNING, SVC_PAUSED, SVC_STOPPING, SVC_STATE_COUNT };

/* What the last report says of memory, bytes, taken from vm->runtime once: it is looked at several times a second. */
struct svc_memory {
    bool known;                         /* there is one */
    bool driver, reports;               /* the guest's driver is there, and has said something */
    bool can_balloon, can_hot_add, stuck;
    int moves;                          /* the operation under way: < 0 takes, > 0 gives, 0: none */
    uint64_t assigned, resident, ballooned, offline, uptime_ms, resets;
    uint64_t paged, granted, needs;     /* of assigned, on a file; what may be in memory then; what a restart waits for */
    uint64_t demand, available, age_ms; /* the guest's words, and how old they are */
    uint64_t assigned_then;             /* what it had when it said so; as now where that is not known */
};

/* A number of a report or of a file of ours; 0 where it is not there, or no whole number above 0. */
static inline uint64_t svc_count(const json_t *o, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(o, key));
    return v > 0 ? (uint64_t)v : 0;
}

/* What the service remembers of a VM's dynamic memory while it runs. */
struct svc_balance {
    struct dm_memo memo;
    struct dm_plan plan;                /* the last, where planned */
    bool planned;
    int32_t asked;                      /* MiB on their way in (> 0) or out; 0: nothing */
    uint32_t target;                    /* MiB, with asked */
    uint64_t granted;                   /* bytes it may have, charged already; 0: what it has */
    uint64_t asked_at_ns, short_since_ns, resets;
    enum dm_status shown;
    bool said_static;
    bool waits;                         /* short, and the last plan had nothing for it */
    bool began;                         /* it runs, and its first report is still to come */
};

/* A restart that waits for memory, and what of a VM is on its paging file (paging.c). */
struct svc_paging {
    uint64_t waits_ns;                  /* since when the restart waits; 0: none does */
    bool answered;                      /* and has its answer, which shows in the next report */
    uint64_t granted;                   /* bytes it may have in memory, charged already; 0: what it reports */
    uint64_t began_ns;                  /* a part has been on the file since; 0: nothing is */
};

struct svc_vm {
    struct service *svc;
    char name[4 * VM_NAME_MAX + 1];
    struct guid id;
    struct settings settings;           /* as stored: what the next start takes */
    bool transient;                     /* `vm run`: no file, gone when it is off */
    uid_t owner;
    enum svc_state state;
    uint64_t revision;                  /* another one once its state, name or settings are others */
    char reason[256];                   /* why it is off, for people; "" = nothing to say */
    char exit_word[32];                 /* power-off, crash, ...: reason word of the last run */
    struct worker_link *link;           /* while a worker process lives */
    char *scope;                        /* systemd's unit around its worker; NULL: none */
    uint64_t scope_cpus;                /* it started with: what its limit is a share of */
    json_t *runtime;                    /* last report; NULL while off. Its numbers change in place */
    struct svc_memory memory;           /* and this of it */
    uint64_t last_cpu_ns, last_report_ns, last_runtime_ns;
    bool items_asked;                   /* its key-values are on their way, for those who wait */
    struct svc_balance balance;
    struct svc_paging paging;
    struct series *series;              /* what it had and needed; NULL: never ran here */
    struct meter *meter;                /* NULL: it is not metered */
    double cpu_pct;
    json_t *rated, *rated_before;       /* counters of two reports, for what it does a second (rates.c); NULL while off */
    uint64_t rated_ns, rated_elapsed_ns;
    bool ran_at_stop;                   /* when the host stopped */
    uint64_t off_since_ns;              /* transient VMs go a moment after their end */
    struct svc_vm *next;
};

/* What `hvctl host set` sets, kept in host.json. */
struct host_settings {
    uint64_t vm_memory, root_reserve;   /* bytes; 0: automatic */
    uint64_t balancer_delay_ms;         /* nothing is taken from a guest for so long after its start */
    bool balancer_off;                  /* nothing moves: everybody keeps what it has */
    char metrics[80];                   /* where hv-metrics listens, ADDR:PORT; "": nowhere */
};

struct service {
    uint32_t magic;
    struct loop *loop;
    struct varlink_server *server;
    struct hv_paths paths;
    char worker_path[512];              /* the hv-worker program */
    struct svc_vm *vms;                 /* sorted by name */
    json_t *groups;                     /* {name: [id]} */
    struct job *jobs;
    struct journal *job_journal;
    int64_t last_job, last_event;
    struct event_log *events;
    unsigned adopting;                  /* workers taken over that have not reported yet */
    bool serving;
    struct waiter *waiters;
    struct stats_stream *streams;
    struct history *history;
    uint64_t metered_ns;                /* when meters were last stored */
    struct stopping *stoppings;
    struct guest_wait *guest_waits;
    struct restarting *restarts;
    struct host_stop *host_stops;
    struct reader *readers;
    struct apply *applies;
    struct power *power;
    struct scopes *scopes;
    struct loop_timer *housekeeping, *balance_timer, *adopt_timer;
    enum hv_code failed;                /* why it ends, where it could not go on */
    bool balance_early;
    struct dm_host_memo balance_memo;
    struct dm_host_plan balance_plan;   /* the last */
    struct host_settings host;
    uint64_t idle_since_ns;
    uint64_t idle_ns;                   /* end after so long without VMs and clients; 0: never */
};

/* ---- registry.c ---- */
int registry_load(struct service *svc, struct hv_error *e);
struct svc_vm *registry_find(struct service *svc, const char *name_or_guid);
/* The same, or answers the call with not-found and near names, and returns NULL. */
struct svc_vm *registry_need(struct service *svc, struct varlink_call *call, const json_t *params);
/* Checks the name, adds and stores. */
int registry_create(struct service *svc, const char *name, const struct settings *s, bool transient, uid_t owner,
                    bool dry_run, struct svc_vm **ret, struct hv_error *e);
int registry_store(struct svc_vm *vm, struct hv_error *e);
/* Could a VM have this name? */
int registry_check_name(struct service *svc, const char *name, struct hv_error *e);
/* The same, whatever there is already: of groups too. */
int registry_check_name_form(const char *name, struct hv_error *e);
/* Give it another name, checked, stored; after a failure it has the old one. dry_run: only check. */
int registry_rename(struct svc_vm *vm, const char *name, bool dry_run, struct hv_error *e);
/* What its document holds that the settings do not. *ret is new. */
int registry_extras(const struct svc_vm *vm, json_t **ret, struct hv_error *e);
/* Its document, with what else stands in the one on disk. *ret is NUL-terminated, free() it. */
int registry_xml(const struct svc_vm *vm, char **ret, size_t *ret_len, struct hv_error *e);
/* Store vm with other settings; fresh gets the old ones. After a failure both are as before, in memory and on disk. */
int registry_change(struct svc_vm *vm, struct settings *fresh, struct hv_error *e);
/* The same with extras in place of old_extras, which it has. NULL: they stay as they are. */
int registry_change_all(struct svc_vm *vm, struct settings *fresh, const json_t *extras, const json_t *old_extras,
                        struct hv_error *e);
/*
 * Many VMs at once, without a wait for the disk for each of them; nobody sees anything of it before the commit:
 * stage writes the document that is to come beside the one there is, sync waits until it is on disk, commit puts it in
 * place. fresh as in registry_change(), NULL for a VM of registry_make(), which commit makes one of the host's;
 * extras NULL: as they are. f is the caller's to fini. After all commits, registry_sync(). A caller that lets the loop
 * turn meanwhile looks at vm->revision.
 */
int registry_make(struct service *svc, const char *name, const struct guid *id, const struct settings *s, uid_t owner,
                  struct svc_vm **ret, struct hv_error *e);
void registry_unmake(struct svc_vm *vm);
int registry_stage(struct svc_vm *vm, const struct settings *fresh, const json_t *extras, struct hv_replacement *f,
                   struct hv_error *e);
int registry_staged_sync(const char *name, struct hv_replacement *f, struct hv_error *e);
int registry_commit(struct svc_vm *vm, struct settings *fresh, struct hv_replacement *f, struct hv_error *e);
int registry_sync(struct service *svc, struct hv_error *e);
/* Deletes the file and frees vm. */
int registry_remove(struct svc_vm *vm, struct hv_error *e);
/* Frees vm alone. */
void registry_forget(struct svc_vm *vm);
void registry_free(struct service *svc);

/* ---- groups.c ---- */
int groups_load(struct service *svc, struct hv_error *e);
void groups_free(struct service *svc);
bool group_exists(struct service *svc, const char *group);
bool group_has(struct service *svc, const char *group, const struct svc_vm *vm);
/* Is one of names (names, GUIDs, globs, @GROUP) a word for the VM called name, which may be gone? */
bool vm_is_named(struct service *svc, const json_t *names, const char *name);
/* Names of the groups it is in. New. */
json_t *groups_of(const struct svc_vm *vm);
/* Into a group that exists; stored. */
int group_add(struct service *svc, const char *group, const struct svc_vm *vm, struct hv_error *e);
/* It is about to be gone for good: out of all. */
void groups_forget(const struct svc_vm *vm);
/* Methods of org.hv.Manager. */
void group_list_method(void *arg, struct varlink_call *call, const json_t *params);
void group_create_method(void *arg, struct varlink_call *call, const json_t *params);
void group_remove_method(void *arg, struct varlink_call *call, const json_t *params);
void group_rename_method(void *arg, struct varlink_call *call, const json_t *params);
void group_set_method(void *arg, struct varlink_call *call, const json_t *params);

/* ---- vm.c ---- */
const char *svc_state_word(const struct svc_vm *vm);
json_t *svc_vm_json(struct svc_vm *vm);
/* With these groups of settings only (settings_to_json_groups()). */
json_t *svc_vm_json_groups(struct svc_vm *vm, const json_t *groups);
/* One place where a VM's state changes: events, waiters, transient clean-up. vm may be gone afterwards. */
void svc_vm_set_state(struct svc_vm *vm, enum svc_state st);

/* ---- handover.c ---- */
#define HANDOVER_MAX VARLINK_MAX_FDS
struct handover {
    unsigned count;
    struct { char name[48]; int fd; } item[HANDOVER_MAX];
};
/* Takes fd over, also where it fails: -E2BIG. */
int handover_add(struct handover *h, const char *name, int fd);
void handover_close(struct handover *h);
/* {name: index into fds}, and the descriptors, which stay the handover's. */
json_t *handover_json(const struct handover *h, int fds[HANDOVER_MAX]);
/* Open all that a start of this VM needs, with the rights of the peer. Empty after a failure. */
int handover_for_start(const struct svc_vm *vm, const struct varlink_peer *peer, struct handover *h, struct hv_error *e);

/* ---- uids.c: root's service only ---- */
/* A user for the worker with this socket, which exists. 0, -EUSERS when all are taken, or what the folder answers. */
int uid_lease(const char *socket, uid_t *ret);
/* The one it has, SPAWN_NO_UID: none. */
uid_t uid_of(const char *socket);
void uid_release(uid_t uid, const char *socket);

/* ---- record.c ---- */
int record_write(const char *socket, pid_t pid);
/* The process of the record: 0 and its pidfd (the caller's), -ESRCH if it is gone. */
int record_open(const char *socket, pid_t *ret_pid, int *ret_pidfd);
/* A fresh file for the worker's last word: a descriptor or -errno. And what it wrote; NULL: nothing. */
int record_exit_note(const char *socket);
json_t *record_exit(const char *socket);
/* Socket and records go; the user is free then. */
void record_remove(const char *socket);

/* ---- worker.c ---- */
/* Start the VM's worker and set it up with what is handed over, which is taken; job ends when it runs or failed. */
int worker_start(struct svc_vm *vm, const struct varlink_peer *peer, struct handover *fds, bool paused, struct job *job,
                 struct hv_error *e);
/* One call to the worker whose answer ends the job; fn may be NULL: fails or finishes the job. */
int worker_call(struct svc_vm *vm, const char *method, json_t *params, const int *fds, unsigned nfds,
                varlink_reply_fn *fn, void *arg, struct hv_error *e);
/*
 * The same on a connection of its own, for what a guest takes its time over: no other command waits for it.
 * more: replies until the last one.
 */
int worker_ask(struct svc_vm *vm, const char *method, json_t *params, bool more, const int *fds, unsigned nfds,
               varlink_reply_fn *fn, void *arg, struct hv_error *e);
/* The VM's settings as a worker takes them: without what is the service's own business. New. */
json_t *worker_settings(const struct svc_vm *vm);
/* Kill it now. */
void worker_kill(struct svc_vm *vm);
/* The same while it starts: nobody wants it any more. */
void worker_cancel_start(struct svc_vm *vm);
/*
 * Find the workers of an earlier hvd and take them over (DESIGN 10). svc->adopting counts those that have not
 * said yet what they have: nothing is to be admitted before; service_ready() is called when it is 0 again.
 */
void worker_adopt_all(struct service *svc);
void service_ready(struct service *svc);
/* What the worker's sandbox consists of, [{name, on, why}]; borrowed, NULL: not known. */
json_t *worker_sandbox(const struct svc_vm *vm);
/* The version it was built as; NULL: not known, or not running. */
const char *worker_build(const struct svc_vm *vm);
/* The same for a worker that would be started now: makes one that only says so. NULL: it cannot be run. */
json_t *worker_sandbox_probe(struct service *svc);
pid_t worker_pid(const struct svc_vm *vm);
/* The job that is starting this VM now; 0: none. */
int64_t worker_start_job(const struct svc_vm *vm);
void worker_link_free(struct worker_link *l);

/* ---- scope.c: a control group of systemd's for each worker ---- */
#define SCOPE_NAME_SIZE 256             /* UNIT_NAME_MAX of systemd */
/* Connects where there is somebody to connect to. -ENOMEM */
int scopes_new(struct service *svc);
void scopes_free(struct service *svc);
/* Can processors be shared out by weight and limit? why: in words, if not; valid until the next call. */
bool scopes_usable(struct service *svc, const char **ret_why);
/* Where workers are, in the form of /proc/PID/cgroup; NULL: with the service. free() it. */
char *scopes_membership(struct service *svc);
/* Ask for a scope for the VM's new worker: not waited for. */
void scope_make(struct svc_vm *vm, pid_t pid);
/* The worker of an earlier service: which one has it? */
void scope_take_over(struct svc_vm *vm, pid_t pid);
/* Its weight or limit may have changed. */
void scope_apply(struct svc_vm *vm);
/* Its worker is gone, and the scope with it. */
void scope_forget(struct svc_vm *vm);
/* The unit's name: of the VM where that fits, else of its id. */
void scope_name(const char *vm, const struct guid *id, pid_t pid, char buf[SCOPE_NAME_SIZE]);

/* ---- jobs.c ---- */
struct job *job_new(struct service *svc, const char *verb, const char *object);   /* running; NULL: no memory */
void job_done(struct job *job, const struct hv_error *e);                         /* e NULL: success */
struct job *job_find(struct service *svc, int64_t id);
int64_t job_id(const struct job *job);
const char *job_object(const struct job *job);
bool job_is_running(const struct job *job);
json_t *job_json(const struct job *job);
/* How far it is, for those who watch. */
void job_progress(struct job *job, int pct);
json_t *jobs_json(struct service *svc);
/* Answer call now or when the job changes (WaitJob). */
void job_wait(struct job *job, struct varlink_call *call);
/* How to end it before its time: fn has it end, now or soon, with job_done() and an error. Not after its end. */
void job_on_cancel(struct job *job, void (*fn)(void *arg), void *arg);
/* HV_CONFLICT: it has ended, or cannot be. */
int job_cancel(struct job *job, struct hv_error *e);
/* Called once when the job ends. */
void job_on_end(struct job *job, void (*fn)(void *arg, struct job *job), void *arg);
/* Those of the service before, once, when events are there. 0 or -ENOMEM. */
int jobs_load(struct service *svc);
/* "318 stop 40%": the newest job about object that is under way; null: none is. The caller's. */
json_t *job_of(const struct service *svc, const char *object);
void jobs_free(struct service *svc);

/* ---- events.c ---- */
/* kind: state, memory, job, disk, net, host, config. vm, hint, data (steals) may be NULL. uid -1: the service. */
void event_add(struct service *svc, const char *kind, const char *vm, const char *severity, int64_t uid, json_t *data,
               const char *hint, const char *fmt, ...) HV_PRINTF(8, 9);
void events_method(void *arg, struct varlink_call *call, const json_t *params);
int events_new(struct service *svc);
void events_free(struct service *svc);

/* ---- power.c ---- */
int power_new(struct service *svc, struct hv_error *e);
void power_free(struct service *svc);
/* vm->state is new: keep the note of what runs. */
void power_note(struct svc_vm *vm);
/* At the start, when workers are taken over: why is this VM off that ran? */
void power_look_back(struct svc_vm *vm);
/* The first service of a boot of the host: carry out on_start. */
void power_on_start(struct service *svc);
/* Starts that wait for their delay. */
bool power_pending(const struct service *svc);
/* The host is about to stop: what goes off now ran at the stop. And it did not stop, or is there again. */
void power_host_stops(struct service *svc);
void power_host_starts(struct service *svc);
bool power_host_is_stopping(const struct service *svc);
/* The methods for them, and: a VM is off, perhaps the last one. */
void host_stop_method(void *arg, struct varlink_call *call, const json_t *params);
void host_start_method(void *arg, struct varlink_call *call, const json_t *params);
void host_stop_check(struct service *svc);
void host_stops_free(struct service *svc);
/* Now and then: the host is there. */
void power_tick(struct service *svc);

/* ---- vmlog.c: STATE/log/GUID.log, GUID.log.1 when it is full ---- */
/* Open for a worker to write to, an old one that is full put aside. -errno. */
int vmlog_open(const struct svc_vm *vm);
/* Have running workers begin a fresh file where theirs is full. */
void vmlog_rotate(struct service *svc);
void vmlog_remove(const struct svc_vm *vm);

/* ---- wait.c ---- */
void wait_method(void *arg, struct varlink_call *call, const json_t *params);
/* A VM's state changed: look at its waiters. removed: it is about to go. */
void wait_check(struct svc_vm *vm, bool removed);
/* vm->runtime is new. */
void wait_runtime(struct svc_vm *vm);

/* ---- guest.c ---- */
typedef int guest_ready_fn(struct guest_wait *w, struct svc_vm *vm, struct hv_error *e);
typedef void guest_failed_fn(void *arg, const struct hv_error *e);
enum guest_verdict { GUEST_READY, GUEST_WAIT, GUEST_NEVER };
/* Can the guest be asked by this service ("kvp")? GUEST_NEVER: e says why not, with the cure. */
enum guest_verdict guest_verdict(const struct svc_vm *vm, const char *service, struct hv_error *e);
/* vm->runtime or its state is new: look at what waits for it. */
void guest_check(struct svc_vm *vm);
void guest_waits_free(struct service *svc);
/* Methods of org.hv.Manager. */
void guest_items(void *arg, struct varlink_call *call, const json_t *params);
void guest_set_item(void *arg, struct varlink_call *call, const json_t *params);
void guest_freeze(void *arg, struct varlink_call *call, const json_t *params);
void guest_thaw(void *arg, struct varlink_call *call, const json_t *params);
void guest_copy(void *arg, struct varlink_call *call, const json_t *params);

/* ---- stats.c ---- */
void stats_method(void *arg, struct varlink_call *call, const json_t *params);

/* ---- rates.c ---- */
#define RATES_MIN_NS (500 * NS_PER_MS)
/*
 * What a VM did between two runtimes that its worker reported, elapsed_ns apart; was NULL or elapsed_ns 0: only what
 * needs one. Pure. {read, write (bytes a second), iops, latency_us (mean of a request), queue, disk_used, disk_size,
 * disk_path (the first one's), exits, hypercalls, interrupts (a second), vcpu_pct: [], disks: [[location, path, type,
 * read, write, iops, latency_us, queue, used, size]]}; null where it is not known. The caller's.
 */
json_t *rates_json(const json_t *was, const json_t *is, uint64_t elapsed_ns);
/* vm->runtime is new. */
void rates_note(struct svc_vm *vm);
/* rates_json() of the last two that were noted; the caller's. NULL: it is off. */
json_t *rates_of(const struct svc_vm *vm);
void rates_forget(struct svc_vm *vm);

/* ---- host_load.c ---- */
/* memory.page_tables, numa: [{node, total, free}], psi: {cpu, memory, io}: shares of the last ten seconds in which
 * something waited, per cent; left out where the kernel does not say. root: "" or a tree of files for tests. */
void host_load_json(const char *root, json_t *host);

/* ---- history.c ---- */
int history_start(struct service *svc);
void history_stop(struct service *svc);
/* What a VM has now less what it had an hour ago, bytes; null where that is not known. */
json_t *history_change(const struct svc_vm *vm);
/* cpu_pct, uptime_s and the balancer's state into the host's JSON. */
void history_host_json(struct service *svc, json_t *host);
void history_method(void *arg, struct varlink_call *call, const json_t *params);

/* ---- reader.c: documents from outside, read in a sealed process ---- */
/* doc: as settings_xml_document() has it, borrowed and as hostile as the document; or NULL and e. */
typedef void read_done_fn(void *arg, json_t *doc, const struct hv_error *e);
/* text is copied; done is called later, or an error returned. */
int reader_start(struct service *svc, const char *text, size_t len, read_done_fn *done, void *arg, struct hv_error *e);
/* Ends those under way; done is not called. */
void readers_free(struct service *svc);
/* main() of the sealed process: fd is its socket. */
int reader_child(int fd);

/* ---- broker.c ---- */
/* Open path read-only with the rights of the peer. A descriptor, or -errno with e filled. */
int broker_open(const struct varlink_peer *peer, const char *path, const char *what, struct hv_error *e);
/* The same for a disk: a file or a block device, also for writing. Takes no lock. */
int broker_open_disk(const struct varlink_peer *peer, const char *path, bool writing, struct hv_error *e);

/*
 * A new file without a name in a folder, for reading and writing, with the rights of the peer (NULL: the service's).
 * A descriptor, or -errno with e filled.
 */
int broker_open_unnamed(const struct varlink_peer *peer, const char *dir, const char *what, struct hv_error *e);

/* ---- paging.c ---- */
/* vm->runtime is new. */
void paging_report(struct svc_vm *vm);
/* Of what the guest has: bytes on the paging file. What a restart that waits boots with; 0: none waits. */
uint64_t paging_bytes(const struct svc_vm *vm);
uint64_t paging_needs(const struct svc_vm *vm);
/* What it may have in memory, where assigned is what its guest has. */
uint64_t paging_charge(const struct svc_vm *vm, uint64_t assigned);
/* What it should have beyond that: others are to give it. */
uint64_t paging_missing(const struct svc_vm *vm);

/* ---- metering.c ---- */
/* When VMs are loaded, before workers are taken over; at the end; now and then. */
void metering_load(struct service *svc);
void metering_save(struct service *svc);
void metering_tick(struct service *svc);
/* vm->runtime is new. */
void metering_report(struct svc_vm *vm);
void meter_free(struct meter *m);
/* What it has used: {since, run_s, cpu_s, ...}, null where it is not metered. New. */
json_t *metering_json(struct svc_vm *vm);
/* Method of org.hv.Manager. */
void metering_method(void *arg, struct varlink_call *call, const json_t *params);

/* ---- disks.c ---- */
/* reply: of AttachDisk; e NULL on success. */
typedef void disk_attached_fn(void *arg, const json_t *reply, const struct hv_error *e);
/* Open d and its parents as peer may, have the running worker attach them; done is called later, or an error returned. */
int disk_attach(struct svc_vm *vm, const struct setting_disk *d, const struct varlink_peer *peer, disk_attached_fn *done,
                void *arg, struct hv_error *e);
/*
 * Change one disk of a VM, running or off, and store it: DISK_ADD and DISK_MEDIUM take d as it shall be, DISK_REMOVE
 * and DISK_LIMIT its lun and max_iops. done (e NULL: it is stored) is called once, perhaps before this returns.
 */
enum disk_op { DISK_ADD, DISK_REMOVE, DISK_LIMIT, DISK_MEDIUM };
void disk_change(struct svc_vm *vm, enum disk_op op, const struct setting_disk *d, const struct varlink_peer *peer,
                 void (*done)(void *arg, const struct hv_error *e), void *arg);
/* Could peer open it now? */
int disk_check_path(const struct setting_disk *d, const struct varlink_peer *peer, struct hv_error *e);
/* Could the VM have all its disks now, and use them as its settings say? Parents are not looked for. */
int disks_check(const struct svc_vm *vm, const struct varlink_peer *peer, struct hv_error *e);
/* Methods of org.hv.Manager. */
void disk_add(void *arg, struct varlink_call *call, const json_t *params);
void disk_remove(void *arg, struct varlink_call *call, const json_t *params);
void disk_resize_vm(void *arg, struct varlink_call *call, const json_t *params);
void disk_set(void *arg, struct varlink_call *call, const json_t *params);

/* ---- host.c ---- */
/*
 * The ledger, bytes. pool: what all VMs together may have, their overheads taken off; charged: what
 * they have or were granted; free: what may still be given, within what the host itself has.
 */
struct host_memory {
    bool limited;                       /* by a control group */
    uint64_t total, available, reserve, overhead, pool, charged, untouched, free;
};
void host_memory(struct service *svc, struct host_memory *ret);
/*
 * Is there room to start this VM, as if `beside` bytes were taken? *ret_takes is what the start takes of it, overhead
 * included. HV_NO_RESOURCES with the numbers if not.
 */
int host_admit(struct svc_vm *vm, uint64_t beside, uint64_t *ret_takes, struct hv_error *e);
json_t *host_json(struct service *svc);
/* Has the CPU VT-x or AMD-V? */
bool host_virtualization(void);
bool host_cpu_flag(const char *flag);     /* of /proc/cpuinfo */
/* Configured values: read at the start, or the defaults. */
void host_settings_load(struct service *svc);
/* Take what o has of the settings. What it has not stays; what makes no sense is an error. */
int host_settings_take(struct host_settings *h, const json_t *o, struct hv_error *e);
/* {vm_memory, root_reserve, balancer_delay_ms, balancer, metrics}. New. */
json_t *host_settings_json(const struct host_settings *h);
/* Those of SetHost's parameters: checked, stored, in force. ret_changed: is anything other than it was? */
int host_settings_change(struct service *svc, const json_t *params, bool *ret_changed, struct hv_error *e);

/* ---- doctor.c ---- */
json_t *host_doctor(struct service *svc);

/* ---- balance.c ---- */
int balance_start(struct service *svc);
void balance_stop(struct service *svc);
/* The next tick comes early: somebody waits. */
void balance_wake(struct service *svc);
/* vm->runtime is new / its state was `old` until now. */
void balance_report(struct svc_vm *vm);
void balance_state(struct svc_vm *vm, enum svc_state old);
/* Demand, status, why and pressures into the memory part of a VM's run-time state. */
void balance_json(const struct svc_vm *vm, json_t *memory);
/* What the balancer would do if the VM had these settings: [{name, assigned, target, status}] of the balanced VMs. */
json_t *balance_preview(struct svc_vm *vm, const struct settings *s);
/* What the balancer is doing: "off" (nothing to balance), "at rest", "adding", "reclaiming", "short". */
const char *balance_word(const struct service *svc);
/* What the ledger holds against a VM that runs, without and beside its overhead. Bytes. */
uint64_t svc_vm_charge(const struct svc_vm *vm);
uint64_t svc_vm_overhead(const struct svc_vm *vm);
uint64_t svc_overhead(const struct settings *s);

/* ---- planner.c: methods ---- */
void plan_memory(void *arg, struct varlink_call *call, const json_t *params);
void report_memory(void *arg, struct varlink_call *call, const json_t *params);

/* ---- apply.c ---- */
void apply_method(void *arg, struct varlink_call *call, const json_t *params);
/* Those that nothing was changed by yet. */
void applies_free(struct service *svc);

/* ---- methods.c ---- */
/* {key, old, new, applied} of a setting that differs. New. */
json_t *vm_change_json(const struct settings *old, const struct settings *new, const struct setting_desc *d, const char *applied);
/* Would the VM, as it is now, take this setting of fresh at once? */
bool vm_takes_now(const struct svc_vm *vm, const struct settings *fresh, const struct setting_desc *d);
/* What the worker said that it took, into the changes: the rest is for the next start. */
void vm_note_applied(json_t *changes, const json_t *applied);
extern const struct varlink_method manager_methods[];
/*
 * Admit, open what it needs with the rights of the peer, and start. *ret_job is NULL where it runs already, the job
 * of somebody else's start that is under way, or a new one.
 */
int vm_begin_start(struct svc_vm *vm, const struct varlink_peer *peer, bool paused, struct job **ret_job,
                   struct hv_error *e);
enum stop_how { STOP_ASK, STOP_FORCE, STOP_PULL };      /* FORCE: the guest's applications cannot refuse */
/*
 * STOP_PULL: off at once; else ask the guest, who has limit_ns, and turn it off then if asked to. Of a VM that is not off;
 * rules for callers (locked, paused) are the caller's.
 */
int vm_begin_stop(struct svc_vm *vm, enum stop_how how, uint64_t limit_ns, bool then_turn_off, struct job **ret_job,
                  struct hv_error *e);
/* ---- restart.c ---- */
/* Have the guest restart itself within limit_ns, or reset it; the job ends when it boots. */
int vm_begin_restart(struct svc_vm *vm, bool reset, uint64_t limit_ns, struct job **ret_job, struct hv_error *e);
/* vm->runtime or its state is new. */
void restart_check(struct svc_vm *vm);
void restarts_free(struct service *svc);

/* A VM is off: end the stop jobs that wait for it. */
void stop_check(struct svc_vm *vm);
void stops_free(struct service *svc);

#endif
