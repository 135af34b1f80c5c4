/* Logical units: their disk, their medium, their limit. */
#include <errno.h>
#include <stdlib.h>

#include "hv/vsp/scsi_unit.h"

static void take_disk(struct scsi_unit *u, struct disk *disk)
{
    u->disk = disk;
    u->block = u->kind == SCSI_DVD ? 2048 : disk ? disk_logical_sector(disk) : 512;
    u->physical = disk ? MAX(disk_physical_sector(disk), u->block) : u->block;
    if (disk) {
        u->id = disk_id(disk);
    }
}

int scsi_unit_new(enum scsi_kind kind, struct disk *disk, bool read_only, struct disk_queue *q,
                  struct scsi_unit **ret)
{
    struct scsi_unit *u = hv_alloc(sizeof(*u));

    if (!u) {
        return -ENOMEM;
    }
    u->kind = kind;
    u->queue = q;
    u->last_waiting = &u->waiting;
    u->read_only = read_only || kind == SCSI_DVD || (disk && !disk_writable(disk));
    take_disk(u, disk);
    *ret = u;
    return 0;
}

void scsi_unit_free(struct scsi_unit *u)
{
    if (!u) {
        return;
    }
    hv_assert(u->busy == 0);
    if (u->timer) {
        loop_timer_free(disk_queue_loop(u->queue), u->timer);
    }
    free(u);
}

unsigned scsi_unit_busy(const struct scsi_unit *u)
{
    return u->busy;
}

void scsi_unit_resized(struct scsi_unit *u)
{
    u->attention = SENSE_CAPACITY_CHANGED;
}

int scsi_unit_change(struct scsi_unit *u, struct disk *disk, bool force)
{
    if (u->locked && u->disk && !force) {
        return -EBUSY;
    }
    /* Commands were checked against the old medium: also those that wait under the limit. */
    scsi_unit_release(u);
    disk_queue_drain(u->queue);
    take_disk(u, disk);
    u->ejected = false;
    u->locked = false;
    u->media_event = disk ? 2 : 3;
    u->attention = disk ? SENSE_MEDIUM_CHANGED : SENSE_NONE;
    return 0;
}

struct disk *scsi_unit_disk(const struct scsi_unit *u)
{
    return u->disk;
}

enum scsi_kind scsi_unit_kind(const struct scsi_unit *u)
{
    return u->kind;
}

bool scsi_unit_read_only(const struct scsi_unit *u)
{
    return u->read_only;
}

const struct scsi_counters *scsi_unit_counters(const struct scsi_unit *u)
{
    return &u->count;
}

/* ---- the limit ---- */

/* One command costs 1 s / iops of credit; at most a tenth of a second's worth is saved up. */
static bool pay(struct scsi_unit *u)
{
    uint64_t now = hv_now_ns(), price = NS_PER_SEC / u->iops;

    u->tokens_ns = MIN(u->tokens_ns + (now - u->last_ns), MAX(NS_PER_SEC / 10, price));
    u->last_ns = now;
    if (u->tokens_ns < price) {
        return false;
    }
    u->tokens_ns -= price;
    return true;
}

static void on_timer(void *arg)
{
    struct scsi_unit *u = arg;

    while (u->waiting && (!u->iops || pay(u))) {
        struct scsi_task *t = u->waiting;

        u->waiting = t->next;
        if (!u->waiting) {
            u->last_waiting = &u->waiting;
        }
        t->go(t);
    }
    if (u->waiting) {
        loop_timer_set(disk_queue_loop(u->queue), u->timer, u->last_ns + NS_PER_SEC / u->iops - u->tokens_ns);
    }
}

void scsi_unit_admit(struct scsi_unit *u, struct scsi_task *t, void (*go)(struct scsi_task *t))
{
    if (!u->timer || (!u->waiting && (!u->iops || pay(u)))) {
        go(t);
        return;
    }
    t->go = go;
    t->next = NULL;
    *u->last_waiting = t;
    u->last_waiting = &t->next;
    loop_timer_set(disk_queue_loop(u->queue), u->timer, u->last_ns + NS_PER_SEC / u->iops - u->tokens_ns);
}

void scsi_unit_limit(struct scsi_unit *u, uint32_t iops)
{
    u->iops = iops;
    u->last_ns = hv_now_ns();
    if (iops && !u->timer && loop_timer_new(disk_queue_loop(u->queue), on_timer, u, &u->timer) < 0) {
        u->timer = NULL;                 /* no memory for a timer: no limit */
    }
    if (u->timer) {
        on_timer(u);
    }
}

void scsi_unit_release(struct scsi_unit *u)
{
    while (u->waiting) {
        struct scsi_task *t = u->waiting;

        u->waiting = t->next;
        t->go(t);
    }
    u->last_waiting = &u->waiting;
}
