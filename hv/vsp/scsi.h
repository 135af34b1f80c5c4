/*
 * SCSI logical units on virtual disks: what a command means, for any transport. A unit is a
 * disk or a DVD drive; an empty drive has no disk.
 *
 * Everything is done on the loop's thread. Reads, writes and what waits for the disk go
 * through the queue and end later; all else ends within scsi_execute().
 */
#ifndef HV_VSP_SCSI_H
#define HV_VSP_SCSI_H

#include <sys/uio.h>

#include "hv/base/guid.h"
#include "hv/disk/queue.h"
#include "hv/vsp/scsi_proto.h"

#define SCSI_LUNS 64u                    /* a controller, as Hyper-V's */

enum scsi_kind { SCSI_DISK, SCSI_DVD };

struct scsi_unit;
/* wait_ns: of all reads and writes together, from the command to its end; time under a limit counts. */
struct scsi_counters { uint64_t reads, writes, read_bytes, written_bytes, flushes, errors, wait_ns; };

/* disk: NULL for an empty drive; stays the caller's, and open until scsi_unit_free(). */
int scsi_unit_new(enum scsi_kind kind, struct disk *disk, bool read_only, struct disk_queue *q,
                  struct scsi_unit **ret);
/* No command of it is under way (scsi_unit_busy() is 0). */
void scsi_unit_free(struct scsi_unit *u);
unsigned scsi_unit_busy(const struct scsi_unit *u);
/* The disk has another size: the guest hears of it with its next command. */
void scsi_unit_resized(struct scsi_unit *u);
/* Another disk in the drive, or none, after what is under way. -EBUSY: the guest has locked it, and force is not set. */
int scsi_unit_change(struct scsi_unit *u, struct disk *disk, bool force);
struct disk *scsi_unit_disk(const struct scsi_unit *u);
enum scsi_kind scsi_unit_kind(const struct scsi_unit *u);
bool scsi_unit_read_only(const struct scsi_unit *u);
/* At most so many commands a second that move data; 0: no limit. */
void scsi_unit_limit(struct scsi_unit *u, uint32_t iops);
/* What waits under the limit goes now: before a drain. */
void scsi_unit_release(struct scsi_unit *u);
const struct scsi_counters *scsi_unit_counters(const struct scsi_unit *u);

/* One command. The caller's memory until done. */
struct scsi_task {
    uint8_t cdb[SCSI_CDB_MAX];
    uint8_t cdb_len;                     /* bytes of cdb that are valid; the rest is zeros */
    bool to_device;                      /* direction of the data, if there is any */
    const struct iovec *iov;             /* guest memory, iov[iov_count], len bytes in all */
    unsigned iov_count;
    uint32_t len;
    void (*done)(struct scsi_task *t);
    /* The result. */
    enum scsi_status status;
    enum scsi_sense sense;
    uint32_t moved;                      /* bytes */

    /* The unit's own. */
    struct scsi_unit *unit;
    struct disk_request req;
    struct iovec *cut;                   /* iov up to what the command moves, when that is less */
    struct scsi_ranges *ranges;          /* of an UNMAP */
    bool then_flush;
    uint64_t began_ns;                   /* of a read or write; 0: it is neither */
    struct scsi_task *next;              /* waits for its turn under a limit */
    void (*go)(struct scsi_task *t);
};

/*
 * Do t on unit u; done() is called exactly once, possibly from within. present: bit n is set
 * where LUN n has a unit (REPORT LUNS). u NULL: there is no such unit; only INQUIRY and REPORT
 * LUNS are answered, false is returned for all else (and done() not called).
 */
bool scsi_execute(struct scsi_unit *u, struct scsi_task *t, uint64_t present);
/* Fixed-format sense data (SPC-4 4.5.3). */
void scsi_sense_bytes(enum scsi_sense s, uint8_t out[SCSI_SENSE_LEN]);

#endif
