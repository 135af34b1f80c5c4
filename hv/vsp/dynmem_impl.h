/* What the files of the dynamic memory VSP share. */
#ifndef HV_VSP_DYNMEM_IMPL_H
#define HV_VSP_DYNMEM_IMPL_H

#include "hv/base/endian.h"
#include "hv/base/log.h"
#include "hv/vsp/dynmem.h"
#include "hv/vsp/dynmem_proto.h"
#include "hv/vsp/pageset.h"
#include "hv/vsp/timer.h"

#define DYNMEM_MAGIC 0x44594d31u

/*
 * Limits of one operation. Windows ignores a balloon request of more than one response can
 * hold, and wants additions of at most 2 GiB (QEMU, hv-balloon); small ones also let a new
 * target overtake.
 */
#define MAX_BALLOON_PAGES  585728u
#define MAX_OP_PAGES       (2 * GIB / HV_PAGE_SIZE)
#define HOT_ADD_ALIGN      (128 * MIB)
#define HOT_ADD_ALIGN_MAX  (1 * GIB)     /* coarser guests get none */
/* A short answer: this long before the next request, twice as long each time (dynamic-memory 3.4). */
#define BACKOFF_NS         (60 * NS_PER_SEC)
#define BACKOFF_MAX_NS     (1800 * NS_PER_SEC)
#define RETRY_HOT_ADD_NS   (30 * NS_PER_SEC)
/* Linux takes up to 5 s for each 128 MiB it adds; on a slow host more for each GiB it balloons. */
#define PATIENCE_NS        (180 * NS_PER_SEC)
/* How often it is looked whether the guest uses what it has given back. */
#define ENFORCE_NS         (1 * NS_PER_SEC)
#define ENFORCE_SLACK      (4 * MIB)
/* A guest that is short says so once a second; one that says it all the time is heard so often. */
#define URGENT_NS          (500 * NS_PER_MS)
/* Linux waits 5 s for each 128 MiB to be put online: an answer before that says that they were. */
#define ONLINED_NS         (4900 * NS_PER_MS)
/* Two reports of a guest at rest differ by no more, in pages; Linux moves its watermarks with its size. */
#define ONLINE_NOISE       (8 * MIB / HV_PAGE_SIZE)

enum dm_state { DM_CLOSED, DM_OPEN, DM_VERSIONED, DM_READY, DM_STATES };

/* What a report says, without what is in the balloon; pages. */
struct dynmem_own {
    uint64_t available, committed;
    bool rests;                        /* as in the report before */
};

struct dynmem {
    uint32_t magic;
    struct dynmem_config cfg;
    struct machine *machine;
    struct mem *mem;
    struct vmbus_channel *ch;
    struct vsp_timer timer;            /* the operation takes too long, or the back-off ends */
    struct vsp_timer enforce;          /* while the host has taken something */
    bool told_of_use;                  /* of what it has given back: said once */

    enum dm_state state;
    uint32_t version, caps;
    uint64_t hot_align;                /* bytes */
    bool hot_add_off;                  /* refused for good */
    uint32_t transaction;

    struct pageset balloon;
    gpa_t hot_next;                    /* where the next addition begins */
    gpa_t hot_mapped;                  /* RAM is there up to here, taken by the guest or not */
    uint64_t hot_added_pages;

    uint64_t target;
    enum dynmem_op op;
    uint64_t op_pages, op_got;         /* asked for; done so far */
    bool stuck;
    uint64_t backoff_until_ns, backoff_ns;

    uint64_t ready_ns;                 /* when it became DM_READY */
    uint64_t op_began_ns, last_took_ns, last_end_ns;
    enum dynmem_op last_op;            /* IDLE: none yet */
    int64_t last_pages;
    uint64_t urgent_ns;                /* when the balancer was last told of a guest that is short */

    uint64_t reports, available_pages, committed_pages, report_ns;
    uint64_t reported_assigned;        /* bytes it had at the last report */
    /* Additions and whether they came into use: watch_online(). Pages. */
    bool puts_online;                  /* the last one did: not one block at a time any more */
    struct dynmem_own own, watch;      /* by the last report; by the one before the last addition */
    uint64_t watch_pages;              /* of an addition that the next report tells of */
    uint64_t offline_pages;
    uint64_t online_pages;             /* of them, in use by the last report, if the next agrees */
};

static inline uint64_t boot_bytes(const struct dynmem *d) { return d->cfg.low_bytes + d->cfg.high_bytes; }
static inline uint64_t assigned_bytes(const struct dynmem *d)
{
    return boot_bytes(d) + (d->hot_added_pages - d->balloon.count) * HV_PAGE_SIZE;
}

/* dynmem.c */
void dynmem_event(const struct dynmem *d, bool warning, const char *hint, const char *fmt, ...) HV_PRINTF(4, 5);
int dynmem_send(struct dynmem *d, uint8_t *m, enum dm_type type, uint32_t len);

/* dynmem_ops.c: what moves memory. */
void dynmem_step(struct dynmem *d);
void dynmem_finish_op(struct dynmem *d);
void dynmem_continue_unballoon(struct dynmem *d);
/* Look every ENFORCE_NS from now on, as long as there is something to look at. */
void dynmem_watch_use(struct dynmem *d);
int dynmem_on_balloon(struct dynmem *d, const uint8_t *m, uint32_t len);
int dynmem_on_unballoon(struct dynmem *d);
int dynmem_on_hot_add(struct dynmem *d, const uint8_t *m);

/* dynmem_state.c */
extern const struct device_ops dynmem_device_ops;

#endif
