/*
 * The synthetic SCSI controller (storvsc in the guest): up to 64 units on path 0, target 0.
 * Guest pages are pinned and handed to the disk's queue as they are; nothing is copied.
 * guest-abi 6.2; Linux drivers/scsi/storvsc_drv.c.
 *
 * Everything is done on the loop's thread.
 */
#ifndef HV_VSP_STORAGE_H
#define HV_VSP_STORAGE_H

#include "hv/vmbus/vmbus.h"
#include "hv/vsp/scsi.h"

struct storage;

struct storage_config {
    struct vmbus *bus;
    struct disk_queue *queue;
    unsigned number;                 /* scsi0, scsi1...: in the instance id and in messages */
    unsigned sub_channels;           /* beyond the first; 0..vCPUs-1 */
};

int storage_new(const struct storage_config *cfg, struct storage **ret, struct hv_error *e);
/* Units stay the caller's. NULL is fine. */
void storage_free(struct storage *s);

/*
 * Put a unit at lun, or (u NULL) take the one there away: waits for its commands, tells the
 * guest at once. -EBUSY: there is one already; -EINVAL: no such lun.
 */
int storage_set_unit(struct storage *s, unsigned lun, struct scsi_unit *u);
struct scsi_unit *storage_unit(const struct storage *s, unsigned lun);
/* Have the guest look again: a unit was resized, a medium changed. */
void storage_rescan(struct storage *s);
/* Has a driver finished its set-up? */
bool storage_ready(const struct storage *s);

#endif
