/* What a logical unit is, for scsi.c and scsi_unit.c only. */
#ifndef HV_VSP_SCSI_UNIT_H
#define HV_VSP_SCSI_UNIT_H

#include "hv/vsp/scsi.h"

#define UNMAP_RANGES 64u                 /* in one UNMAP; told in VPD page B0 */

struct scsi_range { uint64_t lba; uint32_t count; };
struct scsi_ranges { unsigned at, count; struct scsi_range range[UNMAP_RANGES]; };

struct scsi_unit {
    enum scsi_kind kind;
    struct disk *disk;                   /* NULL: an empty drive */
    struct disk_queue *queue;
    bool read_only, locked, ejected;
    uint8_t media_event;                 /* MMC: 2 new medium, 3 removed */
    uint32_t block, physical;            /* bytes */
    struct guid id;
    enum scsi_sense attention;           /* unit attention for the next command */
    unsigned busy;
    struct scsi_counters count;

    /* A token bucket of one second's worth. */
    uint32_t iops;
    uint64_t tokens_ns, last_ns;
    struct scsi_task *waiting, **last_waiting;
    struct loop_timer *timer;
};

/* Call go(t) now, or when the unit's limit lets it. */
void scsi_unit_admit(struct scsi_unit *u, struct scsi_task *t, void (*go)(struct scsi_task *t));

#endif
