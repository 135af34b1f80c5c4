/*
 * Smart paging of one VM (dynamic-memory 2.6): a guest that restarts boots with its startup
 * memory. Where it had less and the host has no more, the upper end of that lies on a file until
 * the guest's balloon gives enough back, or more is granted:
 *
 *   reset ─▶ VM_RESETTING ─▶ vm_finish_reset(granted, file) ─▶ vm_page_in() ... ─▶ nothing is paged
 *
 * What holds all the time: memory that is neither on the file nor in the balloon <= granted.
 */
#include <errno.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/base/units.h"
#include "hv/vm/vm_private.h"
#include "hv/vsp/dynmem.h"

#define CHUNK (4 * MIB)
#define STOP_NS (20 * NS_PER_MS)       /* the guest stands still so long at once, or for one chunk */

static uint64_t boot_bytes(const struct vm *vm) { return vm->layout.low_bytes + vm->layout.high_bytes; }

bool vm_reset_waits(struct vm *vm, bool paused)
{
    const uint64_t needs = boot_bytes(vm);
    if (!vm->hooks.reset_waits || !vm->dynmem || vm_memory_assigned(vm) >= needs ||
        !vm->hooks.reset_waits(vm->hooks.arg, needs))
        return false;
    vm->state = VM_RESETTING;
    vm->reset_paused = paused;
    return true;
}

/* The last `bytes` of what it boots with, in ascending order. */
static unsigned tail(const struct vm *vm, uint64_t bytes, struct mem_range range[MEM_PAGED_RANGES])
{
    const struct layout *l = &vm->layout;
    uint64_t high = MIN(bytes, l->high_bytes), low = bytes - high;
    unsigned n = 0;
    if (low)
        range[n++] = (struct mem_range){.gpa = l->low_bytes - low, .len = low};
    if (high)
        range[n++] = (struct mem_range){.gpa = MEM_HIGH_BASE + l->high_bytes - high, .len = high};
    return n;
}

static int lay_out(struct vm *vm, uint64_t granted, int fd, struct hv_error *e)
{
    struct mem_range range[MEM_PAGED_RANGES];
    hv_autoclose int mine = fd;
    granted = ROUND_DOWN(granted, HV_PAGE_SIZE);
    if (granted >= boot_bytes(vm))
        return 0;
    if (mine < 0 || !granted)
        return hv_fail(e, HV_NO_RESOURCES, vm->name, "cannot restart: no paging file came with the little memory it is given");
    vm->granted = granted;
    return mem_page_out(vm->mem, hv_steal_fd(mine), range, tail(vm, boot_bytes(vm) - granted, range), e);
}

int vm_finish_reset(struct vm *vm, uint64_t granted, int paging_fd, struct hv_error *e)
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->state != VM_RESETTING) {
        if (paging_fd >= 0)
            close(paging_fd);
        return hv_fail(e, HV_CONFLICT, vm->name, "it waits for no memory: it is %s", vm_state_word(vm->state));
    }
    int r = lay_out(vm, granted, paging_fd, e);
    if (r < 0) {
        vm_refuse_reset(vm, e->message);
        return r;
    }
    return vm_reboot(vm, vm->reset_paused, e);
}

void vm_refuse_reset(struct vm *vm, const char *reason)
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->state == VM_RESETTING)
        vm_go_off(vm, VM_OFF_ERROR, reason);
}

void vm_grant_memory(struct vm *vm, uint64_t bytes)
{
    HV_CHECK(vm, VM_MAGIC);
    vm->granted = MAX(vm->granted, bytes);      /* what was given may be in use already */
}

/* May so much more of the file, from its lower end, be in memory? */
static bool fits(const struct vm *vm, uint64_t len)
{
    struct mem_range range[MEM_PAGED_RANGES];
    unsigned n = mem_paged_ranges(vm->mem, range);
    struct vm_memory m;
    vm_memory((struct vm *)(uintptr_t)vm, &m);
    uint64_t on_file = 0, coming = 0;           /* without what is in the balloon */
    for (unsigned i = 0; i < n; i++) {
        uint64_t part = MIN(len, range[i].len);
        on_file += range[i].len - dynmem_ballooned(vm->dynmem, range[i].gpa, range[i].len);
        coming += part - dynmem_ballooned(vm->dynmem, range[i].gpa, part);
        len -= part;
    }
    return m.assigned - MIN(on_file, m.assigned) + coming <= vm->granted;
}

void vm_page_in(struct vm *vm)
{
    HV_CHECK(vm, VM_MAGIC);
    const uint64_t began = hv_now_ns();
    bool running = vm->state == VM_RUNNING, stopped = false;
    int r = 0;
    if (!running && vm->state != VM_PAUSED)
        return;
    while (r == 0 && mem_paged(vm->mem) && fits(vm, CHUNK)) {
        if (running && !stopped) {
            vm_park(vm);
            vm_synthetic_pause(vm);
            stopped = true;
        }
        r = mem_page_in(vm->mem, CHUNK);
        if (hv_now_ns() - began > STOP_NS)
            break;
    }
    if (r < 0) {
        char text[120];
        snprintf(text, sizeof(text), "its paging file cannot be read: %s", strerror(-r));
        vm_go_off(vm, VM_OFF_ERROR, text);
        return;
    }
    if (!mem_paged(vm->mem))
        vm->granted = 0;
    if (stopped) {
        vm_synthetic_go_on(vm);
        vm_unpark(vm);
    }
}
