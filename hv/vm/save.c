/*
 * Whole-machine state: "vm" (what the stream fits), the engine's sections, the
 * devices' sections, and RAM as "ram" sections of up to RAM_CHUNK bytes each, holding
 * runs of pages that are not all zeros: u64 gpa, u32 pages, then the pages.
 */
#include <inttypes.h>

#include "hv/base/endian.h"
#include "hv/vm/vm_private.h"

#define VM_SECTION_VERSION 2        /* 2: memory added while it ran */
#define RAM_SECTION_VERSION 1
#define RAM_CHUNK (16 * MIB)

/* One section with the non-zero runs of gpa[len]; nothing if there are none. */
static int save_chunk(struct vm *vm, struct save_writer *w, gpa_t gpa, uint64_t len, uint32_t *instance)
{
    struct mem_pin pin;
    int r = mem_pin(vm->mem, gpa, len, MEM_READ, &pin);
    if (r < 0)
        return r;
    const uint8_t *p = pin.hva;
    uint64_t pages = len / HV_PAGE_SIZE;
    bool open = false;
    for (uint64_t i = 0; i < pages;) {
        if (hv_is_zero(p + i * HV_PAGE_SIZE, HV_PAGE_SIZE)) {
            i++;
            continue;
        }
        uint64_t n = 1;
        while (i + n < pages && !hv_is_zero(p + (i + n) * HV_PAGE_SIZE, HV_PAGE_SIZE))
            n++;
        if (!open)
            save_begin(w, "ram", (*instance)++, RAM_SECTION_VERSION);
        open = true;
        save_u64(w, gpa + i * HV_PAGE_SIZE);
        save_u32(w, (uint32_t)n);
        save_bytes(w, p + i * HV_PAGE_SIZE, n * HV_PAGE_SIZE);
        i += n;
    }
    if (open)
        save_end(w);
    mem_unpin(&pin);
    return save_status(w);
}

static int save_ram(struct vm *vm, struct save_writer *w)
{
    uint32_t instance = 0;
    gpa_t gpa;
    uint64_t len;
    bool rom;
    int r = 0;
    for (unsigned i = 0; r == 0 && mem_region(vm->mem, i, &gpa, &len, &rom) == 0; i++)
        for (uint64_t off = 0; r == 0 && !rom && off < len; off += RAM_CHUNK)
            r = save_chunk(vm, w, gpa + off, MIN(RAM_CHUNK, len - off), &instance);
    return r;
}

/* RAM beyond what it booted with: count, then gpa and length of each region. */
static void save_added(struct vm *vm, struct save_writer *w)
{
    for (unsigned pass = 0; pass < 2; pass++) {
        uint32_t n = 0;
        gpa_t gpa;
        uint64_t len;
        bool rom;
        for (unsigned i = 0; mem_region(vm->mem, i, &gpa, &len, &rom) == 0; i++) {
            if (rom || gpa < vm->layout.hot_add_base || gpa >= vm->layout.hot_add_top)
                continue;
            n++;
            if (pass == 1) {
                save_u64(w, gpa);
                save_u64(w, len);
            }
        }
        if (pass == 0)
            save_u32(w, n);
    }
}

static int load_added(struct vm *vm, struct load_section *s, struct hv_error *e)
{
    int r = 0;
    for (uint32_t n = load_u32(s); r == 0 && n && !s->bad; n--) {
        gpa_t gpa = load_u64(s);
        uint64_t len = load_u64(s);
        if (s->bad || gpa < vm->layout.hot_add_base || gpa >= vm->layout.hot_add_top ||
            len > vm->layout.hot_add_top - gpa || !len || gpa % HV_PAGE_SIZE || len % HV_PAGE_SIZE)
            return hv_fail(e, HV_USAGE, vm->name, "the saved state is damaged: memory that was added");
        r = mem_add_ram(vm->mem, gpa, len, e);
    }
    return r;
}

int vm_save(struct vm *vm, struct save_writer *w, struct hv_error *e)
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->state != VM_PAUSED)
        return hv_fail(e, HV_CONFLICT, vm->name, "cannot save: it is %s", vm_state_word(vm->state));
    save_begin(w, "vm", 0, VM_SECTION_VERSION);
    save_u32(w, vm->vcpus);
    save_u64(w, vm->layout.low_bytes);
    save_u64(w, vm->layout.high_bytes);
    save_u32(w, VM_PHYS_BITS);
    save_u64(w, vm->up_since_ns);
    save_u32(w, vm->resets);
    save_added(vm, w);
    save_end(w);
    vm->engine->ops->save(vm->engine, w);
    machine_save(vm->machine, w);
    int r = save_ram(vm, w);
    if (r < 0 || (r = save_status(w)) < 0)
        return hv_fail_errno(e, -r, vm->name, "cannot save");
    return 0;
}

static int damaged(struct vm *vm, const char *what, struct hv_error *e)
{
    return hv_fail(e, HV_USAGE, vm->name, "the saved state is damaged: %s", what);
}

static int load_config(struct vm *vm, const struct load_reader *r, struct hv_error *e)
{
    struct load_section s;
    if (load_find(r, "vm", 0, &s) < 0 || s.version != VM_SECTION_VERSION)
        return damaged(vm, "no section 'vm'", e);
    uint32_t vcpus = load_u32(&s);
    uint64_t low = load_u64(&s), high = load_u64(&s);
    uint32_t phys_bits = load_u32(&s);
    uint64_t up_since = load_u64(&s);
    uint32_t resets = load_u32(&s);
    if (s.bad)
        return damaged(vm, "section 'vm'", e);
    if (vcpus != vm->vcpus || low != vm->layout.low_bytes || high != vm->layout.high_bytes ||
        phys_bits != VM_PHYS_BITS)
        return hv_fail(e, HV_USAGE, vm->name,
                       "the saved state is of a machine with %" PRIu32 " vCPUs and %" PRIu64
                       "M, this one has %u and %" PRIu64 "M",
                       vcpus, (low + high) / MIB, vm->vcpus, vm->layout.ram_bytes / MIB);
    vm->up_since_ns = up_since;
    vm->resets = resets;
    int err = load_added(vm, &s, e);
    if (err == 0 && load_done(&s) < 0)
        return damaged(vm, "section 'vm'", e);
    return err;
}

static int load_ram(struct vm *vm, const struct load_reader *r, struct hv_error *e)
{
    struct load_section s;
    for (uint32_t i = 0; load_find(r, "ram", i, &s) == 0; i++) {
        if (s.version != RAM_SECTION_VERSION)
            return damaged(vm, "version of RAM", e);
        while (s.p < s.end) {
            gpa_t gpa = load_u64(&s);
            uint64_t len = (uint64_t)load_u32(&s) * HV_PAGE_SIZE;
            if (s.bad || !len || len > (uint64_t)(s.end - s.p) || (gpa & ~HV_PAGE_MASK) ||
                mem_write(vm->mem, gpa, s.p, len) < 0)
                return damaged(vm, "RAM", e);
            s.p += len;
        }
    }
    return 0;
}

int vm_load(struct vm *vm, const struct load_reader *r, struct hv_error *e)
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->state != VM_BUILT)
        return hv_fail(e, HV_CONFLICT, vm->name, "cannot load into a VM that has run");
    vm->engine->ops->reset(vm->engine);
    machine_reset(vm->machine);
    int err = load_config(vm, r, e);
    if (err == 0)
        err = load_ram(vm, r, e);
    if (err == 0)
        err = vm->engine->ops->load(vm->engine, r, e);
    if (err == 0)
        err = machine_load(vm->machine, r, e);
    if (err == 0) {
        vm->state = VM_PAUSED;
        if (vm->hooks.changed)
            vm->hooks.changed(vm->hooks.arg);
    }
    return err;
}
