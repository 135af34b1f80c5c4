/*
 * Dynamic memory: moves a guest's memory towards a target with the balloon driver that its
 * kernel has, and passes on what it says it needs.
 *
 *   assigned = boot RAM + hot-added - ballooned
 *   target below assigned: balloon. Above: give ballooned pages back, then hot-add.
 *
 * One operation is under way at a time. A page in the balloon is punched out of the guest's
 * memory when the guest gives it and reads as zeros when it comes back; the guest can still
 * touch it meanwhile (dump tools do), which costs the host a page for up to a second.
 * Loop thread only. Protocol: dynmem_proto.h.
 */
#ifndef HV_VSP_DYNMEM_H
#define HV_VSP_DYNMEM_H

#include "hv/vmbus/vmbus.h"

struct dynmem;

struct dynmem_config {
    struct vmbus *bus;
    uint64_t low_bytes, high_bytes;    /* boot RAM at 0 and at MEM_HIGH_BASE */
    gpa_t hot_base, hot_top;           /* where memory may be added, 128 MiB aligned; equal: nowhere */
    uint64_t max_bytes;                /* most the guest may have; told to it */
    /* Something an operator should know. hint may be NULL. May be NULL. */
    void (*event)(void *arg, bool warning, const char *message, const char *hint);
    /* The balancer should hear of it now: the guest says that it is short, or an operation ended. May be NULL. */
    void (*urgent)(void *arg);
    /* The guest held so many bytes that it had given back; they were taken again. May be NULL. */
    void (*used)(void *arg, uint64_t bytes);
    void *arg;
};

#define DYNMEM_OPS(X) X(IDLE, "idle") X(BALLOON, "balloon") X(UNBALLOON, "unballoon") X(HOT_ADD, "hot-add")
enum dynmem_op {
#define DYNMEM_OP_ENUM(name, word) DYNMEM_##name,
    DYNMEM_OPS(DYNMEM_OP_ENUM)
#undef DYNMEM_OP_ENUM
    DYNMEM_OP_COUNT
};

/* Sizes in bytes. */
struct dynmem_report {
    bool driver;                       /* its driver is bound and agreed on a version */
    bool reporting;                    /* it has said what it needs (Linux: 45 s after its start) */
    uint32_t version;                  /* major << 16 | minor */
    uint64_t assigned, visible;        /* visible: boot RAM + hot-added, what the guest thinks is installed */
    uint64_t ballooned, hot_added;
    uint64_t available;                /* as the guest says: free or easily freed */
    uint64_t committed;                /* as the guest says, unchanged */
    uint64_t demand;                   /* committed less what is ballooned or offline */
    uint64_t offline;                  /* hot-added and not in use: its blocks are not online */
    uint64_t target;                   /* 0: none was set */
    uint64_t driver_age_ns;            /* since the driver agreed on what it can */
    uint64_t report_age_ns;            /* guest time since the last report */
    uint64_t reported_assigned;        /* what it had then: available and committed are of that */
    uint64_t reports;                  /* how many so far */
    /* The last operation that moved anything: how much (negative: taken), how long it took, how long ago it ended. */
    enum dynmem_op last_op;
    int64_t last_bytes;
    uint64_t last_took_ns, last_ago_ns;
    enum dynmem_op op;
    bool can_balloon, can_hot_add;     /* what the driver offers and has not refused for good */
    bool stuck;                        /* it does not answer */
};

int dynmem_new(const struct dynmem_config *cfg, struct dynmem **ret, struct hv_error *e);
void dynmem_free(struct dynmem *d);
/*
 * Move towards this many bytes, as far as the guest goes along; 0: stay where it is. Operations
 * start at once and the next when one ends. HV_USAGE: above the maximum; HV_UNSUPPORTED: there
 * is no driver, or it can not do that.
 */
int dynmem_set_target(struct dynmem *d, uint64_t bytes, struct hv_error *e);
/* A higher maximum, within the hot-add range. */
void dynmem_set_max(struct dynmem *d, uint64_t bytes);
void dynmem_report(const struct dynmem *d, struct dynmem_report *ret);
/* How much of gpa[len] is in the balloon, bytes. */
uint64_t dynmem_ballooned(const struct dynmem *d, gpa_t gpa, uint64_t len);
const char *dynmem_op_word(enum dynmem_op op);
/*
 * Does the host hold more of the guest's memory than is assigned, or being added? Then give back
 * again what the guest should not have touched. Returns the bytes that are still too many;
 * *ret_found is how many were. Happens by itself every second while something is in the balloon.
 */
uint64_t dynmem_enforce(struct dynmem *d, uint64_t *ret_found);
/* Linux' own floor: it does not let itself be ballooned below it. ram: bytes it manages. */
uint64_t dynmem_floor(uint64_t ram);

#endif
