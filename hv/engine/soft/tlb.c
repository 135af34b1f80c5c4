/*
 * The software TLB and every memory access that misses it: fills, page crossings, MMIO (the
 * vCPU's own local APIC page included), pages with code in them, ROM, the dirty log.
 *
 * Three tables, by who asks: supervisor, user, supervisor with EFLAGS.AC under SMAP. Large
 * pages are held as 4 KiB pieces. tlb_list names the entries filled since the last flush, so
 * that flushing and searching cost what was used and not what could be.
 */
#include "hv/engine/soft/paging.h"
#include "hv/engine/soft/soft.h"

/* tlb_phys.flags */
#define TF_LISTED   0x1u
#define TF_GLOBAL   0x2u
#define TF_READONLY 0x4u
#define TF_MMIO     0x8u
#define TF_SHIFT(f) ((f) >> 8)

#define SEG_SYSTEM 0xff            /* seg of accesses that have no segment: faults are #GP */

/* cpu.rmw.active */
enum { RMW_NONE, RMW_BOUNCED, RMW_IN_CODE };

/* Bytes of a page with code were written. */
static void written_to_code(struct cpu *c, gpa_t gpa, unsigned len)
{
    code_written(c, gpa, len);
    /* Announced, but no block came of it (the instruction faulted): the page is data again. */
    struct soft_page *p = soft_page_at(c->soft, gpa);
    if (p && atomic_load_explicit(&p->code, memory_order_relaxed) >> c->vp & 1 && !block_page_has_code(c, gpa))
        tlb_mark_code(c, gpa, false);
}

/* Where one access within a page goes. */
struct place { uint8_t *host; gpa_t gpa; unsigned slow; };

static unsigned table_in_force(const struct cpu *c)
{
    return (unsigned)(c->tlb - c->tlb_table[0]) / TLB_SIZE;
}

static unsigned tlb_index(uint64_t va)
{
    return va >> HV_PAGE_SHIFT & (TLB_SIZE - 1);
}

static bool tag_is(uint64_t tag, uint64_t page)
{
    return tag != TLB_INVALID && (tag & HV_PAGE_MASK) == page;
}

static uint64_t tag_for(const struct tlb_entry *e, enum cpu_access acc)
{
    return acc == ACC_READ ? e->rtag : acc == ACC_WRITE ? e->wtag : e->xtag;
}

/* ---- filling ---- */

static bool is_lapic_page(const struct cpu *c, gpa_t page)
{
    /* Enabled and not in x2APIC mode. */
    return (c->lapic.base_msr & 0xc00) == 0x800 && (c->lapic.base_msr & c->phys_mask & HV_PAGE_MASK) == page;
}

/* A bit for each GiB, modulo 64. */
static uint64_t region(uint64_t va)
{
    return 1ull << (va >> 30 & 63);
}

/*
 * Block look-ups go through xtag, so code can have been validated only for pages that were
 * executable in a fill since the generation began. INVLPG of another page leaves blocks alone.
 */
static void filter_add(struct cpu *c, bool user, uint64_t page, bool large)
{
    c->exec_filter[user][page >> 18 & 15] |= 1ull << (page >> 12 & 63);
    if (large)
        c->exec_large[user] |= region(page);
}

static void filter_clear(struct cpu *c, bool user)
{
    memset(c->exec_filter[user], 0, sizeof(c->exec_filter[user]));
    c->exec_large[user] = 0;
}

static bool filter_has(const struct cpu *c, bool user, uint64_t page)
{
    return c->exec_filter[user][page >> 18 & 15] >> (page >> 12 & 63) & 1 || c->exec_large[user] & region(page);
}

/* Bytes that data breakpoint i watches: its address and length by DR7. SDM 18.2.4; 0: not on, or of another kind. */
static unsigned watch_len(const struct cpu *c, unsigned i, uint64_t *ret_va)
{
    static const uint8_t len[4] = { 1, 2, 8, 4 };
    const unsigned kind = c->dr[7] >> (16 + 4 * i) & 3, size = c->dr[7] >> (18 + 4 * i) & 3;
    if (!(c->dr[7] >> 2 * i & 3) || !(kind & 1))
        return 0;
    *ret_va = c->dr[i] & ~(uint64_t)(len[size] - 1);
    return len[size];
}

static bool page_watched(const struct cpu *c, uint64_t page)
{
    uint64_t va;
    for (unsigned i = 0; i < 4; i++)
        if (watch_len(c, i, &va) && (va & HV_PAGE_MASK) == page)
            return true;
    return false;
}

static void watch(struct cpu *c, uint64_t va, unsigned len, enum cpu_access acc)
{
    uint64_t at;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned n = watch_len(c, i, &at);
        const bool reads_too = (c->dr[7] >> (16 + 4 * i) & 3) == 3;
        if (n && at < va + len && va < at + n && (acc == ACC_WRITE || reads_too))
            c->watch_hit |= (uint8_t)(1u << i);
    }
}

static int fill(struct cpu *c, unsigned t, uint64_t va, enum cpu_access acc)
{
    struct walk w;
    int r = paging_walk(c, va, acc, t, &w);
    if (r)
        return r;

    const uint64_t page = va & HV_PAGE_MASK;
    const unsigned i = tlb_index(va);
    struct tlb_entry *e = &c->tlb_table[t][i];
    struct tlb_phys *p = &c->tlb_phys[t][i];
    bool readonly = false;
    uint8_t *host = is_lapic_page(c, w.gpa) ? NULL : soft_ram(c->soft, w.gpa, &readonly);

    if (!(p->flags & TF_LISTED))
        c->tlb_list[t][c->tlb_used[t]++] = (uint16_t)i;
    p->gpa = w.gpa;
    p->flags = TF_LISTED | (w.global ? TF_GLOBAL : 0) | (readonly ? TF_READONLY : 0) | (host ? 0 : TF_MMIO) |
               (uint32_t)w.shift << 8;
    if (w.shift > HV_PAGE_SHIFT)
        c->tlb_large |= region(va);
    if (w.exec) {
        filter_add(c, t == TLB_USER, page, w.shift > HV_PAGE_SHIFT);
        c->super_exec_local |= t != TLB_USER && !w.global;
    }

    const uint64_t kind = host ? 0 : TLB_SLOW_MMIO;
    const uint64_t watched = HV_UNLIKELY(c->dr[7] & 0xff) && page_watched(c, page) ? TLB_SLOW_WATCH : 0;
    e->rtag = w.read ? page | kind | watched : TLB_INVALID;
    e->xtag = w.exec ? page | kind : TLB_INVALID;
    e->wtag = TLB_INVALID;
    if (w.write)
        e->wtag = page | watched | (!host ? kind : readonly ? TLB_SLOW_ROM
                                                 : soft_write_tag_bits(c, w.gpa, acc == ACC_WRITE));
    e->addend = host ? (uintptr_t)host - page : 0;
    return X_OK;
}

static int not_canonical(struct cpu *c, unsigned seg)
{
    return cpu_raise_err(c, seg == X86_SEG_SS ? VEC_SS : VEC_GP, 0);
}

/* Find where va leads for one access of len bytes within the page, filling the TLB; marks the page dirty for a write. */
static int place(struct cpu *c, unsigned t, unsigned seg, uint64_t va, unsigned len, enum cpu_access acc,
                 struct place *ret)
{
    const uint64_t page = va & HV_PAGE_MASK;
    const unsigned i = tlb_index(va);
    struct tlb_entry *e = &c->tlb_table[t][i];
    uint64_t tag = tag_for(e, acc);
    if (!tag_is(tag, page)) {
        if (c->efer & EFER_LMA && (uint64_t)((int64_t)(va << 16) >> 16) != va)
            return not_canonical(c, seg);
        int r = fill(c, t, va, acc);
        if (r)
            return r;
        tag = tag_for(e, acc);
    }
    gpa_t gpa = c->tlb_phys[t][i].gpa;
    /* The first write to be logged, or other vCPUs dropped their code of the page since. */
    if (acc == ACC_WRITE && (tag & TLB_SLOW_DIRTY || (tag & TLB_SLOW_CODE && !soft_page_is_code(c->soft, gpa)))) {
        e->wtag = page | (tag & TLB_SLOW_WATCH) | soft_write_tag_bits(c, gpa, true);
        tag = e->wtag;
    }
    if (HV_UNLIKELY(tag & TLB_SLOW_WATCH))
        watch(c, va, len, acc);
    ret->slow = tag & ~HV_PAGE_MASK;
    ret->gpa = gpa | (va & ~HV_PAGE_MASK);
    ret->host = ret->slow & TLB_SLOW_MMIO ? NULL : (uint8_t *)(va + e->addend);
    return X_OK;
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
    if (is_lapic_page(c, gpa & HV_PAGE_MASK)) {
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
    if (is_lapic_page(c, gpa & HV_PAGE_MASK)) {
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
        int r = place(c, t, seg, va, p->len, acc, &p->at);
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
    int r = pieces(c, t, seg, va, len, ACC_READ, p, &n);
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
    int r = pieces(c, t, seg, va, len, ACC_WRITE, p, &n);
    if (r)
        return r;
    const uint8_t *at = buf;
    for (unsigned i = 0; i < n; at += p[i++].len)
        place_write(c, &p[i].at, at, p[i].len);
    return X_OK;
}

int cpu_ld_bytes(struct cpu *c, unsigned seg, uint64_t va, void *buf, unsigned len)
{
    return load_bytes_as(c, table_in_force(c), seg, va, buf, len);
}

int cpu_st_bytes(struct cpu *c, unsigned seg, uint64_t va, const void *buf, unsigned len)
{
    return store_bytes_as(c, table_in_force(c), seg, va, buf, len);
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
        r = place(c, t, seg, va, size, ACC_READ, &p);
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
    int r = place(c, t, seg, va, size, ACC_WRITE, &p);
    if (!r)
        place_write(c, &p, &val, size);
    return r;
}

int cpu_ld_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t *ret)
{
    return load_as(c, table_in_force(c), seg, va, size, ret);
}

int cpu_st_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t val)
{
    return store_as(c, table_in_force(c), seg, va, size, val);
}

int cpu_rmw_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, void **ret)
{
    const unsigned t = table_in_force(c);
    if (!crosses(va, size)) {
        struct place p;
        int r = place(c, t, seg, va, size, ACC_WRITE, &p);
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
    else if (active == RMW_BOUNCED)
        return cpu_st_bytes(c, c->rmw.seg, c->rmw.va, c->rmw.buf, c->rmw.size);
    return X_OK;
}

int cpu_span(struct cpu *c, unsigned seg, uint64_t va, enum cpu_access acc, void **ret, unsigned *avail)
{
    struct place p;
    int r = place(c, table_in_force(c), seg, va, 0, acc, &p);
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
    int r = place(c, TLB_SUPER, SEG_SYSTEM, va, 1, ACC_WRITE, &p);
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
    return load_as(c, cpl == 3 ? TLB_USER : c->cpl == 3 ? TLB_SUPER : table_in_force(c), seg, va, size, ret);
}

int tlb_st_cpl(struct cpu *c, unsigned cpl, unsigned seg, uint64_t va, unsigned size, uint64_t val)
{
    return store_as(c, cpl == 3 ? TLB_USER : c->cpl == 3 ? TLB_SUPER : table_in_force(c), seg, va, size, val);
}

int cpu_fetch_page(struct cpu *c, uint64_t va, const uint8_t **ret_page, gpa_t *ret_gpa)
{
    struct place p;
    int r = place(c, table_in_force(c), SEG_SYSTEM, va, 0, ACC_EXEC, &p);
    if (r)
        return r;
    *ret_page = p.host ? p.host - (va & ~HV_PAGE_MASK) : NULL;
    *ret_gpa = p.gpa & HV_PAGE_MASK;
    return X_OK;
}

/* ---- invalidation ---- */

/* The page an entry is for, or TLB_INVALID. */
static uint64_t entry_page(const struct tlb_entry *e)
{
    uint64_t tag = e->rtag != TLB_INVALID ? e->rtag : e->wtag != TLB_INVALID ? e->wtag : e->xtag;
    return tag != TLB_INVALID ? tag & HV_PAGE_MASK : TLB_INVALID;
}

static void invalidate(struct tlb_entry *e)
{
    e->rtag = e->wtag = e->xtag = TLB_INVALID;
}

void tlb_flush(struct cpu *c, bool keep_global)
{
    vcpu_of(c)->tlb_flushes++;
    /* Supervisor code in global pages stays valid, and its filter a superset. */
    const bool super = !keep_global || c->super_exec_local;
    map_gen_new(c, super ? GEN_ALL : GEN_USER);
    filter_clear(c, true);
    if (super) {
        filter_clear(c, false);
        c->super_exec_local = false;
    }
    c->tlb_large = 0;
    for (unsigned t = 0; t < TLB_MODES; t++) {
        unsigned kept = 0;
        for (unsigned n = 0; n < c->tlb_used[t]; n++) {
            uint16_t i = c->tlb_list[t][n];
            struct tlb_entry *e = &c->tlb_table[t][i];
            if (keep_global && c->tlb_phys[t][i].flags & TF_GLOBAL) {
                const bool large = TF_SHIFT(c->tlb_phys[t][i].flags) > HV_PAGE_SHIFT;
                c->tlb_list[t][kept++] = i;
                if (e->xtag != TLB_INVALID)
                    filter_add(c, t == TLB_USER, e->xtag & HV_PAGE_MASK, large);
                if (large)
                    c->tlb_large |= region(entry_page(e));
                continue;
            }
            invalidate(e);
            c->tlb_phys[t][i].flags = 0;
        }
        c->tlb_used[t] = kept;
    }
}

void tlb_init(struct cpu *c)
{
    for (unsigned t = 0; t < TLB_MODES; t++) {
        for (unsigned i = 0; i < TLB_SIZE; i++) {
            invalidate(&c->tlb_table[t][i]);
            c->tlb_phys[t][i].flags = 0;
        }
        c->tlb_used[t] = 0;
    }
    c->tlb_large = 0;
    map_gen_new(c, GEN_ALL);
}

void tlb_flush_page(struct cpu *c, uint64_t va)
{
    const uint64_t page = va & HV_PAGE_MASK;
    const unsigned i = tlb_index(va);
    const bool large = c->tlb_large & region(va);
    const unsigned stale = (filter_has(c, false, page) ? GEN_SUPER : 0) | (filter_has(c, true, page) ? GEN_USER : 0);
    if (stale)
        map_gen_new(c, stale);
    for (unsigned t = 0; t < TLB_MODES; t++) {
        struct tlb_entry *e = &c->tlb_table[t][i];
        if (tag_is(e->rtag, page) || tag_is(e->wtag, page) || tag_is(e->xtag, page))
            invalidate(e);
        if (!large)
            continue;
        /* The page may be a piece of a larger one: all of its pieces go. */
        for (unsigned n = 0; n < c->tlb_used[t]; n++) {
            uint16_t k = c->tlb_list[t][n];
            unsigned shift = TF_SHIFT(c->tlb_phys[t][k].flags);
            e = &c->tlb_table[t][k];
            uint64_t at = entry_page(e);
            if (shift > HV_PAGE_SHIFT && at != TLB_INVALID && (at ^ va) >> shift == 0)
                invalidate(e);
        }
    }
}

void tlb_mark_code(struct cpu *c, gpa_t gpa, bool code)
{
    gpa &= HV_PAGE_MASK;
    struct soft_page *page = soft_page_at(c->soft, gpa);
    if (!page)
        return;
    if (!code)
        atomic_fetch_and(&page->code, ~(1ull << c->vp));
    for (unsigned t = 0; t < TLB_MODES; t++) {
        for (unsigned n = 0; n < c->tlb_used[t]; n++) {
            uint16_t i = c->tlb_list[t][n];
            struct tlb_phys *p = &c->tlb_phys[t][i];
            struct tlb_entry *e = &c->tlb_table[t][i];
            if (p->gpa != gpa || p->flags & (TF_READONLY | TF_MMIO) || e->wtag == TLB_INVALID)
                continue;
            e->wtag = (e->wtag & (HV_PAGE_MASK | TLB_SLOW_WATCH)) | soft_write_tag_bits(c, gpa, false);
        }
    }
}
