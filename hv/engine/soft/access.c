/*
 * Every memory access that the hot loop's compare with the TLB refuses: page crossings, MMIO
 * (the vCPU's own local APIC page included), pages with code in them, ROM, the dirty log,
 * watched bytes; accesses of any length, and those the CPU makes for itself.
 */
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"
#include "hv/engine/soft/tlb.h"

/* cpu.rmw.active */
enum { RMW_NONE, RMW_BOUNCED, RMW_IN_CODE };

/* Bytes of a page with code were written. */
static void written_to_code(struct cpu *c, gpa_t gpa, unsigned len)
{
    code_written(c, gpa, len);
    /* Announced, but no block came of it (the instruction faulted): the page is data again. */
    struct soft_page *p = soft_page_at(c->soft, gpa);
    if (p && atomic_load_explicit(&p->code, memory_order_relaxed) >> c->vp & 1 && !block_page_has_code(c, gpa))
        soft_page_clear_code(c, gpa);
}

/* ---- MMIO ---- */

static void lapic_read(struct cpu *c, uint32_t off, uint8_t *buf, unsigned len)
{
    for (unsigned i = 0; i < len; i++) {
        uint32_t v = lapic_mmio_read(&c->lapic, (off + i) & ~3u);
        unsigned take = MIN(len - i, 4 - ((off + i) & 3));
        for (unsigned b = 0; b < take; b++)
            buf[i + b] = (uint8_t)(v >> 8 * (((off + i) & 3) + b));
        i += take - 1;
    }
}

/* len 1..8, within one page. */
static void mmio_read(struct cpu *c, gpa_t gpa, void *buf, unsigned len)
{
    c->exits_mmio++;
    if (tlb_is_lapic_page(c, gpa & HV_PAGE_MASK)) {
        lapic_read(c, gpa & ~HV_PAGE_MASK, buf, len);
        return;
    }
    struct soft *s = c->soft;
    soft_leave_guest(vcpu_of(c));
    s->cb.mmio_read(s->arg, c->vp, gpa, buf, len);
    soft_enter_guest(vcpu_of(c));
}

static void mmio_write(struct cpu *c, gpa_t gpa, const void *buf, unsigned len)
{
    c->exits_mmio++;
    if (tlb_is_lapic_page(c, gpa & HV_PAGE_MASK)) {
        uint32_t v;
        if (len == 4 && !(gpa & 3)) {
            memcpy(&v, buf, 4);
            lapic_mmio_write(&c->lapic, gpa & ~HV_PAGE_MASK, v);
            soft_timer_changed(c);
        }
        return;
    }
    struct soft *s = c->soft;
    soft_leave_guest(vcpu_of(c));
    s->cb.mmio_write(s->arg, c->vp, gpa, buf, len);
    soft_enter_guest(vcpu_of(c));
}

/* ---- moving bytes at a place ---- */

static void ram_load(void *dst, const void *src, unsigned len)
{
    switch (len) {                 /* one host access where the guest made one: no torn values */
    case 1: memcpy(dst, src, 1); break;
    case 2: memcpy(dst, src, 2); break;
    case 4: memcpy(dst, src, 4); break;
    case 8: memcpy(dst, src, 8); break;
    case 16: memcpy(dst, src, 16); break;
    default: memcpy(dst, src, len);
    }
}

static void place_read(struct cpu *c, const struct place *p, void *buf, unsigned len)
{
    if (p->host) {
        ram_load(buf, p->host, len);
        return;
    }
    for (unsigned done = 0, n; done < len; done += n) {
        n = MIN(len - done, 8u);
        mmio_read(c, p->gpa + done, (uint8_t *)buf + done, n);
    }
}

static void place_write(struct cpu *c, const struct place *p, const void *buf, unsigned len)
{
    if (HV_LIKELY(p->host)) {
        if (p->slow & TLB_SLOW_ROM)
            return;
        ram_load(p->host, buf, len);
        if (p->slow & TLB_SLOW_CODE)
            written_to_code(c, p->gpa, len);
        return;
    }
    for (unsigned done = 0, n; done < len; done += n) {
        n = MIN(len - done, 8u);
        mmio_write(c, p->gpa + done, (const uint8_t *)buf + done, n);
    }
}

/* ---- alignment ---- */

/*
 * #AC of user code with EFLAGS.AC under CR0.AM: SDM 6.15, table 6-7, and what CPUs do where it
 * leaves them room (16 bytes are checked by the instructions that demand it, with #GP). Before
 * #PF, after #SS or #GP of an address that is not canonical.
 */
int cpu_check_aligned(struct cpu *c, uint64_t va, unsigned len)
{
    unsigned unit = 1;
    if (HV_LIKELY(!c->user_aligned) || c->cpl != 3 || (c->efer & EFER_LMA && !cpu_canonical(va)))
        return X_OK;
    switch (len) {
    case 2: case 4: case 8: unit = len; break;
    case 10: unit = 8; break;                       /* extended precision, packed BCD */
    case 14: case 94: unit = 2; break;              /* FNSTENV, FNSAVE with 16-bit operands */
    case 28: case 108: case 512: unit = 4; break;   /* with 32-bit ones; FXSAVE */
    }
    return va & (unit - 1) ? cpu_raise_err(c, VEC_AC, 0) : X_OK;
}

static int check_alignment(struct cpu *c, unsigned t, unsigned seg, uint64_t va, unsigned len)
{
    return t == TLB_USER && seg != SEG_SYSTEM ? cpu_check_aligned(c, va, len) : X_OK;
}

/* ---- any length ---- */

#define MAX_PAGES 3
struct piece { struct place at; unsigned len; };

/* The next page's address: linear addresses are 32 bits wide outside 64-bit mode. */
static uint64_t next_page(const struct cpu *c, unsigned seg, uint64_t va)
{
    bool wide = seg == SEG_SYSTEM ? (c->efer & EFER_LMA) != 0 : (c->mode & MODE_CODE64) != 0;
    va = (va & HV_PAGE_MASK) + HV_PAGE_SIZE;
    return wide ? va : (uint32_t)va;
}

/* Check all pages of va[len] before a byte moves. Returns X_*; ret[] has *ret_count pieces. */
static int pieces(struct cpu *c, unsigned t, unsigned seg, uint64_t va, unsigned len, enum cpu_access acc,
                  struct piece ret[MAX_PAGES], unsigned *ret_count)
{
    hv_assert(len <= (MAX_PAGES - 1) * HV_PAGE_SIZE);
    unsigned n = 0;
    while (len) {
        struct piece *p = &ret[n++];
        p->len = (unsigned)MIN(len, HV_PAGE_SIZE - (va & ~HV_PAGE_MASK));
        int r = tlb_place(c, t, seg, va, p->len, acc, &p->at);
        if (r)
            return r;
        len -= p->len;
        va = next_page(c, seg, va);
    }
    *ret_count = n;
    return X_OK;
}

static int load_bytes_as(struct cpu *c, unsigned t, unsigned seg, uint64_t va, void *buf, unsigned len)
{
    struct piece p[MAX_PAGES];
    unsigned n;
    int r = check_alignment(c, t, seg, va, len);
    if (!r)
        r = pieces(c, t, seg, va, len, ACC_READ, p, &n);
    if (r)
        return r;
    uint8_t *at = buf;
    for (unsigned i = 0; i < n; at += p[i++].len)
        place_read(c, &p[i].at, at, p[i].len);
    return X_OK;
}

static int store_bytes_as(struct cpu *c, unsigned t, unsigned seg, uint64_t va, const void *buf, unsigned len)
{
    struct piece p[MAX_PAGES];
    unsigned n;
    int r = check_alignment(c, t, seg, va, len);
    if (!r)
        r = pieces(c, t, seg, va, len, ACC_WRITE, p, &n);
    if (r)
        return r;
    const uint8_t *at = buf;
    for (unsigned i = 0; i < n; at += p[i++].len)
        place_write(c, &p[i].at, at, p[i].len);
    return X_OK;
}

int cpu_ld_bytes(struct cpu *c, unsigned seg, uint64_t va, void *buf, unsigned len)
{
    return load_bytes_as(c, tlb_in_force(c), seg, va, buf, len);
}

int cpu_st_bytes(struct cpu *c, unsigned seg, uint64_t va, const void *buf, unsigned len)
{
    return store_bytes_as(c, tlb_in_force(c), seg, va, buf, len);
}

/* ---- scalar slow paths ---- */

static bool crosses(uint64_t va, unsigned size)
{
    return (va & ~HV_PAGE_MASK) + size > HV_PAGE_SIZE;
}

static int load_as(struct cpu *c, unsigned t, unsigned seg, uint64_t va, unsigned size, uint64_t *ret)
{
    uint64_t v = 0;
    int r;
    if (HV_UNLIKELY(crosses(va, size))) {
        r = load_bytes_as(c, t, seg, va, &v, size);
    } else {
        struct place p;
        r = check_alignment(c, t, seg, va, size);
        if (!r)
            r = tlb_place(c, t, seg, va, size, ACC_READ, &p);
        if (!r)
            place_read(c, &p, &v, size);
    }
    if (!r)
        *ret = v;
    return r;
}

static int store_as(struct cpu *c, unsigned t, unsigned seg, uint64_t va, unsigned size, uint64_t val)
{
    if (HV_UNLIKELY(crosses(va, size)))
        return store_bytes_as(c, t, seg, va, &val, size);
    struct place p;
    int r = check_alignment(c, t, seg, va, size);
    if (!r)
        r = tlb_place(c, t, seg, va, size, ACC_WRITE, &p);
    if (!r)
        place_write(c, &p, &val, size);
    return r;
}

int cpu_ld_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t *ret)
{
    return load_as(c, tlb_in_force(c), seg, va, size, ret);
}

int cpu_st_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t val)
{
    return store_as(c, tlb_in_force(c), seg, va, size, val);
}

int cpu_rmw_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, void **ret)
{
    const unsigned t = tlb_in_force(c);
    c->rmw.half[0] = NULL;
    c->rmw.stored = false;
    int aligned = check_alignment(c, t, seg, va, size);
    if (aligned)
        return aligned;
    if (!crosses(va, size)) {
        struct place p;
        int r = tlb_place(c, t, seg, va, size, ACC_WRITE, &p);
        if (r)
            return r;
        if (p.host && !(p.slow & TLB_SLOW_ROM)) {
            /* In place, so that it is atomic; code made from these bytes goes afterwards. */
            if (p.slow & TLB_SLOW_CODE) {
                c->rmw.active = RMW_IN_CODE;
                c->rmw.va = p.gpa;
                c->rmw.size = (uint8_t)size;
            }
            *ret = p.host;
            return X_OK;
        }
        place_read(c, &p, c->rmw.buf, size);
    } else {
        struct piece p[MAX_PAGES];
        unsigned n;
        int r = pieces(c, t, seg, va, size, ACC_WRITE, p, &n);
        if (r)
            return r;
        place_read(c, &p[0].at, c->rmw.buf, p[0].len);
        place_read(c, &p[1].at, c->rmw.buf + p[0].len, p[1].len);
        if (p[0].at.host && p[1].at.host && !((p[0].at.slow | p[1].at.slow) & TLB_SLOW_ROM)) {
            for (unsigned i = 0; i < 2; i++) {
                c->rmw.half[i] = p[i].at.host;
                c->rmw.half_gpa[i] = p[i].at.gpa;
                c->rmw.half_code[i] = p[i].at.slow & TLB_SLOW_CODE;
            }
            c->rmw.first_len = (uint8_t)p[0].len;
        }
    }
    c->rmw.active = RMW_BOUNCED;
    c->rmw.seg = (uint8_t)seg;
    c->rmw.va = va;
    c->rmw.size = (uint8_t)size;
    *ret = c->rmw.buf;
    return X_OK;
}

int cpu_rmw_finish(struct cpu *c)
{
    uint8_t active = c->rmw.active;
    c->rmw.active = RMW_NONE;
    if (active == RMW_IN_CODE)
        written_to_code(c, c->rmw.va, c->rmw.size);
    else if (active == RMW_BOUNCED && c->rmw.stored) {
        if (c->rmw.half_code[0])
            written_to_code(c, c->rmw.half_gpa[0], c->rmw.first_len);
        if (c->rmw.half_code[1])
            written_to_code(c, c->rmw.half_gpa[1], c->rmw.size - c->rmw.first_len);
    } else if (active == RMW_BOUNCED)
        return cpu_st_bytes(c, c->rmw.seg, c->rmw.va, c->rmw.buf, c->rmw.size);
    return X_OK;
}

int cpu_span(struct cpu *c, unsigned seg, uint64_t va, enum cpu_access acc, void **ret, unsigned *avail)
{
    struct place p;
    int r = tlb_place(c, tlb_in_force(c), seg, va, 0, acc, &p);
    if (r)
        return r;
    *ret = p.slow ? NULL : p.host;
    *avail = (unsigned)(HV_PAGE_SIZE - (va & ~HV_PAGE_MASK));
    return X_OK;
}

/* ---- the CPU's own accesses ---- */

int cpu_sys_ld(struct cpu *c, uint64_t va, unsigned size, uint64_t *ret)
{
    return load_as(c, TLB_SUPER, SEG_SYSTEM, va, size, ret);
}

int cpu_sys_st(struct cpu *c, uint64_t va, unsigned size, uint64_t val)
{
    return store_as(c, TLB_SUPER, SEG_SYSTEM, va, size, val);
}

int cpu_sys_rmw_or8(struct cpu *c, uint64_t va, uint8_t bits)
{
    struct place p;
    int r = tlb_place(c, TLB_SUPER, SEG_SYSTEM, va, 1, ACC_WRITE, &p);
    if (r)
        return r;
    if (p.host && !(p.slow & TLB_SLOW_ROM)) {
        __atomic_fetch_or(p.host, bits, __ATOMIC_SEQ_CST);
        if (p.slow & TLB_SLOW_CODE)
            written_to_code(c, p.gpa, 1);
    } else if (!p.host) {
        uint8_t v;
        place_read(c, &p, &v, 1);
        v |= bits;
        place_write(c, &p, &v, 1);
    }
    return X_OK;
}

int tlb_ld_cpl(struct cpu *c, unsigned cpl, unsigned seg, uint64_t va, unsigned size, uint64_t *ret)
{
    return load_as(c, cpl == 3 ? TLB_USER : c->cpl == 3 ? TLB_SUPER : tlb_in_force(c), seg, va, size, ret);
}

int tlb_st_cpl(struct cpu *c, unsigned cpl, unsigned seg, uint64_t va, unsigned size, uint64_t val)
{
    return store_as(c, cpl == 3 ? TLB_USER : c->cpl == 3 ? TLB_SUPER : tlb_in_force(c), seg, va, size, val);
}

int cpu_fetch_page(struct cpu *c, uint64_t va, const uint8_t **ret_page, gpa_t *ret_gpa)
{
    struct place p;
    int r = tlb_place(c, tlb_in_force(c), SEG_SYSTEM, va, 0, ACC_EXEC, &p);
    if (r)
        return r;
    *ret_page = p.host ? p.host - (va & ~HV_PAGE_MASK) : NULL;
    *ret_gpa = p.gpa & HV_PAGE_MASK;
    return X_OK;
}
