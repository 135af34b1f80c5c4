/*
 * One virtual machine: guest memory, the machine and its devices, an engine, one
 * thread a vCPU, and the life cycle over them. Everything but the vCPU threads runs on
 * the loop's thread, and so must every function here be called.
 *
 *   built ──start──▶ running ◀──resume── paused        off: the guest powered off, was
 *                      │ ▲  ──pause──▶                 turned off, crashed (vm_off_reason)
 *                      │ └── reset (by guest or operator)
 *                      │ └── resetting: the memory it boots with is not granted yet (vm_finish_reset)
 *                      └────▶ off
 */
#ifndef HV_VM_VM_H
#define HV_VM_VM_H

#include "hv/base/error.h"
#include "hv/base/guid.h"
#include "hv/base/loop.h"
#include "hv/base/save.h"
#include "hv/base/stats.h"
#include "hv/settings/settings.h"

struct vm;
struct console;
struct mem;
struct machine;

#define VM_STATES(X) X(BUILT, "off") X(RUNNING, "running") X(PAUSED, "paused") \
    X(RESETTING, "resetting") X(OFF, "off")
enum vm_state {
#define VM_STATE_ENUM(name, word) VM_##name,
    VM_STATES(VM_STATE_ENUM)
#undef VM_STATE_ENUM
    VM_STATE_COUNT
};

#define VM_OFF_REASONS(X)                                                     \
    X(NONE, "none")                                                           \
    X(POWER_OFF, "power-off")      /* the guest entered S5 */                  \
    X(RESET, "reset")              /* it rebooted and on_reboot says off */    \
    X(CRASH, "crash")              /* triple fault and on_triple_fault says off */ \
    X(TURNED_OFF, "turned-off")    /* vm_turn_off() */                         \
    X(ERROR, "error")              /* the engine could not go on */            \
    X(EXIT_CODE, "exit-code")      /* a test payload wrote its exit port */
enum vm_off_reason {
#define VM_OFF_ENUM(name, word) VM_OFF_##name,
    VM_OFF_REASONS(VM_OFF_ENUM)
#undef VM_OFF_ENUM
    VM_OFF_REASON_COUNT
};

struct vm_hooks {
    /* The state changed, or the guest reset itself (state stays running). Loop thread; may call vm_*. */
    void (*changed)(void *arg);
    /* The guest reported a crash by its Hyper-V MSRs: five numbers, and the tail of its log or "". Optional. */
    void (*crashed)(void *arg, const uint64_t p[5], const char *text);
    /* The guest's heartbeat came, stopped, or came back. Loop thread; may call vm_*. May be NULL. */
    void (*guest_changed)(void *arg);
    /* What an operator should know of the guest otherwise; hint may be NULL. Loop thread. May be NULL. */
    void (*guest_event)(void *arg, bool warning, const char *message, const char *hint);
    /* What an operator should know of the guest's memory; hint may be NULL. Loop thread. May be NULL. */
    void (*memory_event)(void *arg, bool warning, const char *message, const char *hint);
    /* The guest used so many bytes that it had given back; they were taken again. From a timer of the VM: no vm_*. May be NULL. */
    void (*memory_used)(void *arg, uint64_t bytes);
    /*
     * The guest was reset, has given all its memory back, and boots with `bytes`, more than it had: true has it wait
     * in VM_RESETTING for vm_finish_reset() or its end. Loop thread. NULL: nobody has to be asked.
     */
    bool (*reset_waits)(void *arg, uint64_t bytes);
    /* On each vCPU's thread, before it enters the guest for the first time. May be NULL. */
    void (*vcpu_begins)(void *arg);
    void *arg;
};

struct vm_config {
    const char *name;                  /* for messages and process listings */
    struct guid id;
    const struct settings *settings;   /* copied */
    int kernel_fd, initrd_fd;          /* -1: none; duplicated, kept for resets */
    int kvm_fd;                        /* as engine_choose_fd() has it; 0 or -1: the engine opens its device */
    struct loop *loop;
    struct vm_hooks hooks;
};

/* Builds the machine, loads nothing yet, allocates no guest RAM beyond address space.
 * HV_UNSUPPORTED, HV_NO_RESOURCES or HV_USAGE with e filled. */
int vm_new(const struct vm_config *cfg, struct vm **ret, struct hv_error *e);
/* Ends the vCPU threads wherever they are and frees all. */
void vm_free(struct vm *vm);

/* Load the kernel and let the vCPUs run (paused: only as far as the first instruction). From VM_BUILT. */
int vm_start(struct vm *vm, bool paused, struct hv_error *e);
/* -EBUSY (HV_CONFLICT) unless running / paused. */
int vm_pause(struct vm *vm, struct hv_error *e);
int vm_resume(struct vm *vm, struct hv_error *e);
/* Hard reset; a paused VM stays paused. If the kernel cannot be loaded again the VM goes off with VM_OFF_ERROR. */
int vm_reset(struct vm *vm, struct hv_error *e);
/* Stop for good. The object stays for queries. */
void vm_turn_off(struct vm *vm);
/* Press the ACPI power button; false if the guest has not enabled its event yet. */
bool vm_power_button(struct vm *vm);

/*
 * From VM_RESETTING: boot, paused if it was. granted bytes of what the guest boots with may be in memory, the rest
 * lies on the file paging_fd (-1: there is no rest), which has room for it and becomes the VM's, also on failure.
 * A failure turns the VM off with VM_OFF_ERROR.
 */
int vm_finish_reset(struct vm *vm, uint64_t granted, int paging_fd, struct hv_error *e);
/* From VM_RESETTING: it does not go on, and is off with VM_OFF_ERROR and this reason. */
void vm_refuse_reset(struct vm *vm, const char *reason);
/* More of a guest that is partly on a file may be in memory: bytes in all. */
void vm_grant_memory(struct vm *vm, uint64_t bytes);
/*
 * Bring memory back from the file as far as what is granted allows; stops the guest for a moment of a few
 * hundredths of a second at most. Call it ten times a second while vm_memory().paged is not 0.
 * If the file cannot be read the VM goes off with VM_OFF_ERROR.
 */
void vm_page_in(struct vm *vm);

enum vm_state vm_state(const struct vm *vm);
const char *vm_state_word(enum vm_state st);
enum vm_off_reason vm_off_reason(const struct vm *vm, const char **ret_text);   /* text: a sentence or "" */
const char *vm_off_reason_word(enum vm_off_reason r);
uint32_t vm_exit_code(const struct vm *vm);          /* with VM_OFF_EXIT_CODE */
unsigned vm_resets(const struct vm *vm);             /* how often the guest was reset since start */
uint64_t vm_uptime_ns(struct vm *vm);                /* guest run time since start or reset */
uint64_t vm_cpu_ns(struct vm *vm);                   /* CPU time of the vCPU threads */
uint64_t vm_vcpu_ns(struct vm *vm, unsigned vp_index); /* of one of them; 0 before it runs, and where there is none */
uint64_t vm_memory_assigned(struct vm *vm);          /* bytes of RAM the guest has */
uint64_t vm_memory_resident(struct vm *vm);          /* bytes of it the host holds */
/* What runs in the guest. */
struct vm_guest {
    uint32_t vmbus_version;            /* major << 16 | minor, 0: it does not speak VMBus */
    const char *heartbeat;             /* no-contact, ok, lost */
    uint64_t heartbeats;
    bool shutdown, timesync;           /* the services that are bound */
    bool well;                         /* its heart beats, or where no heartbeat is offered a service of it is bound */
    uint64_t well_ns;                  /* since so long, of guest time */
};
void vm_guest(struct vm *vm, struct vm_guest *ret);

/* ---- guest.c: integration services ---- */
#define VM_SERVICES(X)                                                                                       \
    X(HEARTBEAT, "heartbeat") X(SHUTDOWN, "shutdown") X(TIME_SYNC, "time-sync") X(KVP, "kvp") X(VSS, "vss")   \
    X(FILE_COPY, "file-copy")
enum vm_service_id {
#define VM_SERVICE_ENUM(name, word) VM_SERVICE_##name,
    VM_SERVICES(VM_SERVICE_ENUM)
#undef VM_SERVICE_ENUM
    VM_SERVICE_COUNT
};
struct vm_service {
    bool offered, open;                /* open: the guest's driver has its channel */
    bool ready;                        /* it answers; for kvp: the daemon does */
    bool stalled;                      /* its daemon hangs */
    uint32_t version;                  /* agreed on, major | minor << 16; 0: none */
};
const char *vm_service_word(enum vm_service_id id);
void vm_service(struct vm *vm, enum vm_service_id id, struct vm_service *ret);
bool vm_guest_well(struct vm *vm, uint64_t *ret_ns);
/* What the guest's key-value daemon tells of it, not older than half a minute; nothing without one. */
void vm_guest_facts(struct vm *vm, void (*fn)(void *arg, const char *key, const char *value), void *arg);

/* pool: external (the host's), guest, auto (facts), host (facts of the host). Strings live during the call. */
typedef void vm_item_fn(void *arg, const char *pool, const char *key, const char *value);
typedef void vm_done_fn(void *arg, const struct hv_error *e);      /* e NULL: done */
/*
 * Each is asked of the guest and done later (done; vm_free() may call it), or refused at once: HV_CONFLICT, of a
 * VM that is not running or a service that is off; HV_UNSUPPORTED with the cure, without a daemon.
 */
int vm_items(struct vm *vm, vm_item_fn *item, vm_done_fn *done, void *arg, struct hv_error *e);
/* An item of the host's, for the guest; value NULL: remove it. */
int vm_item_set(struct vm *vm, const char *key, const char *value, vm_done_fn *done, void *arg, struct hv_error *e);
/* Stop writes to the guest's file systems, ten minutes at most. timeout_ns: of guest time, for the freeze itself.
 * 1: it is frozen already (done is not called). */
int vm_freeze(struct vm *vm, uint64_t timeout_ns, vm_done_fn *done, void *arg, struct hv_error *e);
/* 1: it is not frozen (done is not called). HV_CONFLICT: a freeze was over before its time; said once. */
int vm_thaw(struct vm *vm, vm_done_fn *done, void *arg, struct hv_error *e);
bool vm_frozen(const struct vm *vm);
struct vm_copy {
    int fd;                            /* a regular file; becomes the VM's, also on failure */
    uint64_t size;
    const char *path;                  /* absolute, in the guest */
    bool overwrite, parents;
};
int vm_copy(struct vm *vm, const struct vm_copy *c, vm_done_fn *done, void *arg, struct hv_error *e);
/* End it before its time: its done comes when the guest has removed what it had of the file. */
void vm_copy_cancel(struct vm *vm);
/* Of the copy under way, bytes; 0 of 0: there is none. */
void vm_copy_progress(const struct vm *vm, uint64_t *ret_done, uint64_t *ret_size);
/* What the guest has of memory, and what it says of it. Bytes. */
struct vm_memory {
    uint64_t assigned, visible, resident, ballooned, hot_added, available, demand, offline, target;
    uint64_t report_age_ns, reports, reported_assigned;
    uint64_t paged, granted;           /* of assigned, on the paging file; what may be in memory while it is not 0 */
    uint64_t needs;                    /* VM_RESETTING: what it boots with; else 0 */
    const char *op;                    /* idle, balloon, unballoon, hot-add */
    const char *last_op;               /* the last that moved anything; NULL: none */
    int64_t last_bytes;                /* negative: taken from the guest */
    uint64_t last_took_ns, last_ago_ns, driver_age_ns;
    bool driver, reporting, can_balloon, can_hot_add, stuck;
};
void vm_memory(struct vm *vm, struct vm_memory *ret);
/* Move the guest's memory towards this many bytes, 0: leave it. HV_UNSUPPORTED: the guest cannot. */
int vm_memory_target(struct vm *vm, uint64_t bytes, struct hv_error *e);
/* Take again what the guest holds of what it had given back. Happens by itself every second while it runs. */
void vm_memory_take_back(struct vm *vm);
/* Ask the guest to power off or restart; false if nothing in it listens. A refusal presses the power button. */
bool vm_guest_shutdown(struct vm *vm, bool restart, bool force);
/* ---- disks: units of the one SCSI controller, by LUN; from VM_BUILT on, running or not ---- */
struct disk;
struct vm_disk {
    unsigned lun;                      /* 0..63 */
    bool dvd, read_only;
    uint32_t iops;                     /* 0: no limit */
};
/* The disk becomes the VM's, also on failure; NULL: a DVD drive without a medium. The guest is told at once. */
int vm_disk_attach(struct vm *vm, const struct vm_disk *how, struct disk *d, struct hv_error *e);
/* Waits for what is under way; flushed and closed on return. */
int vm_disk_detach(struct vm *vm, unsigned lun, struct hv_error *e);
int vm_disk_resize(struct vm *vm, unsigned lun, uint64_t size, struct hv_error *e);
/* Another medium in a drive (NULL: none); d becomes the VM's. */
int vm_disk_change(struct vm *vm, unsigned lun, struct disk *d, bool force, struct hv_error *e);
int vm_disk_limit(struct vm *vm, unsigned lun, uint32_t iops, struct hv_error *e);
struct vm_disk_stats {
    const char *path;                  /* of the leaf; the VM's, until it is detached; NULL: no medium */
    bool dvd, read_only;
    uint64_t size, allocated;
    uint64_t reads, writes, read_bytes, written_bytes, flushes, errors;
    uint64_t wait_ns;                  /* of all reads and writes, together */
    unsigned queue;                    /* commands under way */
};
bool vm_disk_stats(struct vm *vm, unsigned lun, struct vm_disk_stats *ret);   /* false: nothing there */
#define VM_LUNS 64u
/* Each thread that waits for disks calls enter() once, before its next job. */
void vm_disk_threads(struct vm *vm, void (*enter)(void));

const char *vm_engine_name(const struct vm *vm);
/* The engine's code_region: what turns executable while the guest runs. *ret_len 0: nothing does. */
void vm_code_region(const struct vm *vm, const void **ret_base, size_t *ret_len);
const char *vm_kernel_name(const struct vm *vm);     /* what was booted, for people */

struct console *vm_console(struct vm *vm);           /* COM1 */
struct machine *vm_machine(struct vm *vm);
struct mem *vm_mem(struct vm *vm);
const struct settings *vm_settings(const struct vm *vm);
struct stats_registry *vm_stats(struct vm *vm);
/* Live settings (SETTING_NOW ones); others are ignored. */
int vm_apply(struct vm *vm, const struct settings *s);

/*
 * Whole state, RAM included, from a paused VM into w; and into a VM freshly built with the
 * same settings, which is then paused. A damaged stream is HV_USAGE and leaves the VM unusable.
 */
int vm_save(struct vm *vm, struct save_writer *w, struct hv_error *e);
int vm_load(struct vm *vm, const struct load_reader *r, struct hv_error *e);

#endif
