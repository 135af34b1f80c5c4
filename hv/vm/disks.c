/* The VM's disks: the SCSI controller, its units, and who closes what when. */
#include <errno.h>

#include "hv/base/log.h"
#include "hv/vm/vm_private.h"
#include "hv/vsp/storage.h"

#define QUEUE_THREADS 2u                 /* flushes and discards of one disk do not hold up another's */

int vm_disks_new(struct vm *vm, struct hv_error *e)
{
    int r = disk_queue_new(vm->loop, QUEUE_THREADS, true, &vm->disk_queue);
    if (r < 0)
        return hv_fail_errno(e, -r, vm->name, "cannot serve disks");
    /* A channel a vCPU, as many as storvsc opens: each then takes its completions itself. */
    struct storage_config cfg = {.bus = vm->vmbus, .queue = vm->disk_queue, .sub_channels = vm->vcpus - 1};
    return storage_new(&cfg, &vm->storage, e);
}

void vm_disk_threads(struct vm *vm, void (*enter)(void))
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->disk_queue) {                   /* none where there is no VMBus */
        disk_queue_enter(vm->disk_queue, enter);
    }
}

/* The unit at lun, its disk flushed and closed. */
static int take_away(struct vm *vm, unsigned lun, struct hv_error *e)
{
    struct scsi_unit *u = storage_unit(vm->storage, lun);
    if (!u)
        return 0;
    storage_set_unit(vm->storage, lun, NULL);
    struct disk *d = scsi_unit_disk(u);
    scsi_unit_free(u);
    return disk_close(d, e);
}

void vm_disks_free(struct vm *vm)
{
    for (unsigned lun = 0; vm->storage && lun < SCSI_LUNS; lun++) {
        struct hv_error e = {0};
        if (take_away(vm, lun, &e) < 0)
            log_error("%s: %s: %s", vm->name, e.object, e.message);
    }
    storage_free(vm->storage);
    disk_queue_free(vm->disk_queue);
    vm->storage = NULL;
    vm->disk_queue = NULL;
}

int vm_disk_attach(struct vm *vm, const struct vm_disk *how, struct disk *d, struct hv_error *e)
{
    char address[24];
    HV_CHECK(vm, VM_MAGIC);
    snprintf(address, sizeof(address), "scsi0:%u", how->lun);
    int r = 0;
    struct scsi_unit *u = NULL;
    if (!vm->storage)
        r = hv_fail(e, HV_UNSUPPORTED, vm->name, "it has no Hyper-V interface, and so no disks");
    else if (how->lun >= SCSI_LUNS)
        r = hv_fail(e, HV_USAGE, address, "a controller has 64 addresses, scsi0:0 to scsi0:63");
    else if (storage_unit(vm->storage, how->lun))
        r = hv_fail(e, HV_CONFLICT, address, "there is a disk at this address already");
    else
        r = scsi_unit_new(how->dvd ? SCSI_DVD : SCSI_DISK, d, how->read_only, vm->disk_queue, &u);
    if (r < 0) {
        disk_close(d, NULL);
        return hv_error_is_set(e) ? r : hv_fail_errno(e, -r, address, "cannot attach");
    }
    scsi_unit_limit(u, how->iops);
    return storage_set_unit(vm->storage, how->lun, u);
}

/* The unit, or NULL with e filled. */
static struct scsi_unit *need_unit(struct vm *vm, unsigned lun, struct hv_error *e)
{
    HV_CHECK(vm, VM_MAGIC);
    struct scsi_unit *u = vm->storage ? storage_unit(vm->storage, lun) : NULL;
    if (!u) {
        char address[24];
        snprintf(address, sizeof(address), "scsi0:%u", lun);
        hv_fail(e, HV_NOT_FOUND, address, "there is no disk at this address");
    }
    return u;
}

int vm_disk_detach(struct vm *vm, unsigned lun, struct hv_error *e)
{
    return need_unit(vm, lun, e) ? take_away(vm, lun, e) : -ENOENT;
}

int vm_disk_resize(struct vm *vm, unsigned lun, uint64_t size, struct hv_error *e)
{
    struct scsi_unit *u = need_unit(vm, lun, e);
    if (!u)
        return -ENOENT;
    struct disk *d = scsi_unit_disk(u);
    if (!d || scsi_unit_kind(u) == SCSI_DVD)
        return hv_fail(e, HV_USAGE, vm->name, "a DVD drive has no size to change");
    if (size < disk_size(d))
        return hv_fail(e, HV_UNSUPPORTED, disk_file_path(disk_layer_file(disk_layer(d, 0))),
                       "a disk in use can only grow");
    disk_queue_drain(vm->disk_queue);
    int r = disk_resize(d, size, e);
    if (r < 0)
        return r;
    scsi_unit_resized(u);
    storage_rescan(vm->storage);
    return 0;
}

int vm_disk_change(struct vm *vm, unsigned lun, struct disk *d, bool force, struct hv_error *e)
{
    struct scsi_unit *u = need_unit(vm, lun, e);
    int r = u ? 0 : -ENOENT;
    if (u && scsi_unit_kind(u) != SCSI_DVD)
        r = hv_fail(e, HV_USAGE, vm->name, "only a DVD drive's medium can be changed");
    if (r == 0) {
        struct disk *old = scsi_unit_disk(u);
        r = scsi_unit_change(u, d, force);
        if (r == 0) {
            storage_rescan(vm->storage);
            disk_close(old, NULL);
            return 0;
        }
        hv_fail(e, HV_CONFLICT, vm->name, "the guest has locked the drive");
    }
    disk_close(d, NULL);
    return r;
}

int vm_disk_limit(struct vm *vm, unsigned lun, uint32_t iops, struct hv_error *e)
{
    struct scsi_unit *u = need_unit(vm, lun, e);
    if (!u)
        return -ENOENT;
    scsi_unit_limit(u, iops);
    return 0;
}

bool vm_disk_stats(struct vm *vm, unsigned lun, struct vm_disk_stats *ret)
{
    struct scsi_unit *u = vm->storage ? storage_unit(vm->storage, lun) : NULL;
    if (!u)
        return false;
    const struct scsi_counters *c = scsi_unit_counters(u);
    struct disk *d = scsi_unit_disk(u);
    *ret = (struct vm_disk_stats){.dvd = scsi_unit_kind(u) == SCSI_DVD, .read_only = scsi_unit_read_only(u),
                                  .size = d ? disk_size(d) : 0, .reads = c->reads, .writes = c->writes,
                                  .read_bytes = c->read_bytes, .written_bytes = c->written_bytes,
                                  .flushes = c->flushes, .errors = c->errors, .wait_ns = c->wait_ns,
                                  .queue = scsi_unit_busy(u),
                                  .path = d ? disk_file_path(disk_layer_file(disk_layer(d, 0))) : NULL,
                                  .allocated = d ? disk_file_allocated(disk_layer_file(disk_layer(d, 0))) : 0};
    return true;
}
