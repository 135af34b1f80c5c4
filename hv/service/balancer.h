/*
 * The balancer: how the memory of a host is shared by virtual machines under Dynamic Memory.
 *
 * dm_plan() is a pure function: settings, last reports and what earlier calls remembered go
 * in; a target, at most one operation and the values an operator reads come out, for every
 * VM. It reads no clock, does no I/O and uses no floating point; the same input gives the
 * same output bit for bit, in whatever order the VMs are listed (ties go by id). hvd feeds
 * it once a second and early when a guest is short; the planner and the simulator feed it
 * with what might be.
 *
 * All sizes are MiB, all times milliseconds of one monotonic clock.
 *
 *   demand  what the guest needs now, without buffer
 *   floor   what it cannot do without: its minimum, and what it says it could not give back
 *   need    demand within [floor, maximum]
 *   want    demand with its buffer, within [need, maximum]
 *   target  what this plan gives it: between floor and want
 */
#ifndef HV_SERVICE_BALANCER_H
#define HV_SERVICE_BALANCER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How demand is computed from a guest's report. HYBRID: what is in use, led by what is committed. */
enum dm_source { DM_HYBRID, DM_COMMIT, DM_USE, DM_SOURCE_COUNT };

enum dm_state {
    DM_STATIC, /* no dynamic memory, or no driver: keeps what it has */
    DM_BOOT,   /* driver not loaded, or loaded and still silent: keeps startup */
    DM_ACTIVE, /* reports come; older than DM_STALE_MS they are not trusted */
    DM_FROZEN, /* saving, loading, resetting: nothing moves */
    DM_STATE_COUNT
};

/* Memory status as operators see it; DM_UNKNOWN prints as nothing. */
enum dm_status { DM_UNKNOWN, DM_OK, DM_LOW, DM_WARNING, DM_STATUS_COUNT };

enum dm_action { DM_KEEP, DM_GROW, DM_SHRINK, DM_ACTION_COUNT };

/* Why a VM does not have, or is not about to have, demand plus buffer. */
enum dm_reason {
    DM_WHY_NONE,
    DM_WHY_MAX,    /* its own maximum */
    DM_WHY_HOST,   /* the host has no more: shared by weight */
    DM_WHY_MOVING, /* memory is on its way to it */
    DM_WHY_GUEST,  /* the guest refused, answered short, or cannot hot-add */
    DM_WHY_BOOT,
    DM_WHY_FROZEN,
    DM_WHY_STALE,
    DM_WHY_GIVING, /* memory is on its way from it */
    DM_WHY_STATIC,
    DM_REASON_COUNT
};

enum {
    DM_STALE_MS = 5000,        /* older reports are not acted upon */
    DM_LOST_MS = 60000,        /* a guest silent for longer counts as static */
    DM_SETTLE_MS = 60000,      /* nothing is taken for so long after boot, reset, resume; the default */
    DM_WINDOW_SLOTS = 30,      /* a peak is remembered for 30 slots of 10 s */
    DM_WINDOW_SLOT_MS = 10000,
    DM_HOT_ADD_MIB = 128,      /* hv_balloon's HA_CHUNK */
    DM_GRAIN_MIB = 2,          /* balloon operations are multiples of this */
};

/* What dm_plan() remembers of a VM from call to call. All zero: a VM never seen. */
struct dm_memo {
    uint64_t no_shrink_until;  /* after boot, reset, resume; see dm_settle() */
    uint64_t back_off_until;   /* after a short answer; see dm_answered() */
    uint64_t hot_until;        /* was close to its end: do not take its buffer */
    uint64_t warning_since;    /* 0: not in Warning */
    uint64_t last_lazy;        /* when surplus was last collected from it without need */
    uint64_t window_slot;      /* number of the newest slot of window[] */
    uint64_t averaged_at;      /* when average_pressure was last updated */
    uint32_t window[DM_WINDOW_SLOTS]; /* maxima of want, by slot number modulo the count */
    uint32_t average_pressure; /* hundredths of a per cent, time constant 60 s */
    uint8_t back_off_step;
    uint8_t status;            /* enum dm_status shown */
    uint8_t status_next;       /* and the one that one more sample will confirm */
};

struct dm_vm {
    uint8_t id[16];

    uint32_t startup, min, max; /* min <= startup <= max */
    uint32_t buffer_pct;        /* 5..2000 */
    uint32_t weight;            /* 0..10000 */
    enum dm_source source;

    enum dm_state state;
    bool can_balloon, can_hot_add;
    uint32_t assigned;      /* what the guest may touch now; the ledger charges it and what is on
                             * its way in */
    uint32_t ballooned;     /* taken by the balloon: comes back before anything is hot-added */
    uint32_t offline;       /* hot-added, not brought online by the guest */
    uint32_t committed;     /* the guest's num_committed */
    uint32_t available;     /* the guest's num_avail */
    uint32_t report_age_ms;
    int32_t in_flight;      /* asked for and not answered: > 0 on its way in, < 0 on its way out */
    uint32_t reclaim_mib_s; /* how fast this guest gave memory lately; 0: not known */

    struct dm_memo memo;
};

/* What dm_plan() remembers of the host. All zero at first. */
struct dm_host_memo {
    uint64_t jump_slot;    /* number of the newest 5-minute slot of jump[] */
    uint32_t jump[13];     /* largest rise of demand within 2 s, by slot: an hour at least */
    uint64_t demand_at[2]; /* the last two sums of demand and when they were taken */
    uint64_t demand[2];
};

struct dm_host {
    uint64_t now;       /* never falls */
    uint64_t pool;      /* for all VMs together: total less reserve, cap, overheads, static VMs
                         * that are not in vm[] */
    uint64_t free;      /* of it, what may be given away now */
    bool pressed;       /* the host itself runs short: give nothing, take surplus only */
    struct dm_host_memo memo;
};

struct dm_plan {
    uint32_t demand, floor, need, want, target;
    enum dm_action action;
    bool urgent;              /* a shrink that another VM waits for */
    uint32_t amount;          /* of the action, > 0 unless DM_KEEP */
    uint32_t hot_add;         /* of a grow: how much of it is new to the guest */
    enum dm_reason why;
    enum dm_status status;
    uint32_t pressure;        /* per cent; 0 where demand is unknown */
    uint32_t average_pressure;/* per cent */
    uint32_t band_min, band_max; /* the pressures between which nothing is done */
    int32_t buffer_now_pct;   /* of the configured buffer; DM_NO_BUFFER where unknown */
    struct dm_memo memo;      /* for the next call */
};

/* WMI's value for AvailableMemoryBuffer and MemoryAvailable where there is none. */
#define DM_NO_BUFFER INT32_MAX

struct dm_host_plan {
    uint64_t pool;            /* for the balanced VMs: less what boots, is frozen or static */
    uint64_t demand, assigned;/* sums over the balanced VMs */
    uint64_t spike_pool;      /* kept free for the next jump of demand */
    uint64_t in_flight_in, in_flight_out;
    uint64_t unmet;           /* wanted by VMs and not given now */
    bool deficit;             /* even the floors do not fit */
    uint32_t average_pressure;/* mean of the balanced VMs' average pressures, per cent */
    uint32_t current_pressure;/* 100 * demand / (assigned + free), per cent */
    struct dm_host_memo memo; /* for the next call */
};

/*
 * Plan one step for n VMs. plan[n] and *ret_host are written whole.
 * Garbage in reports is clamped; a guest can only harm its own share.
 * Returns 0 or -ENOMEM.
 */
int dm_plan(const struct dm_host *host, const struct dm_vm *vm, size_t n, struct dm_plan *plan,
            struct dm_host_plan *ret_host);

/*
 * A guest was asked for `asked` MiB and gave `got`. A short answer is normal and starts a
 * back-off, twice as long each time up to 30 minutes; a whole one ends it.
 */
void dm_answered(struct dm_memo *memo, uint64_t now, uint32_t asked, uint32_t got);

/* The VM was started, reset, resumed or moved: take nothing from it for so long. */
void dm_settle(struct dm_memo *memo, uint64_t now, uint64_t ms);

/*
 * What a Linux guest of total MiB keeps for itself whatever the host asks: the limit hv_balloon
 * applies to every request (compute_balloon_floor() in drivers/hv/hv_balloon.c).
 */
uint32_t dm_guest_floor(uint32_t total);

/*
 * A guest's demand from its report: num_committed less what is ballooned and offline, what is in
 * use, or both. At least 0, at most four times the VM's maximum.
 */
uint32_t dm_demand(const struct dm_vm *vm);

extern const char *const dm_status_words[DM_STATUS_COUNT]; /* "", "OK", "Low", "Warning" */
extern const char *const dm_reason_words[DM_REASON_COUNT]; /* "", "max", "host", ... */
extern const char *const dm_source_words[DM_SOURCE_COUNT];

#endif
