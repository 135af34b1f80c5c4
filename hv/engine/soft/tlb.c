/*
 * The software TLB: fills, look-ups for the slow paths (access.c), invalidation.
 *
 * Three tables, by who asks: supervisor, user, supervisor with EFLAGS.AC under SMAP. Large
 * pages are held as 4 KiB pieces. tlb_list names the entries filled since the last flush, so
 * that flushing and searching cost what was used and not what could be; those with global pages
 * are listed apart, so that a CR3 write does not look at them. An entry may be on both lists.
 */
#include "hv/engine/soft/lockstep.h"
#include "hv/engine/soft/paging.h"
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"
#include "hv/engine/soft/tlb.h"

/* tlb_phys.flags */
#define TF_LISTED(global) (0x1u << (global))      /* bits 0 and 1 */
#define TF_GLOBAL   0x10u
#define TF_READONLY 0x4u
#define TF_MMIO     0x8u
#define TF_SHIFT(f) ((f) >> 8)

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

/* A bit for each GiB, modulo 64. */
static uint64_t region(uint64_t va)
{
    return 1ull << (va >> 30 & 63);
}

/*
 * Block look-ups go through xtag, so code can have been validated only for pages that were
 * executable in a fill since the generation began. INVLPG of another page leaves blocks alone: a kernel's
 * code is in the upper half, so that never is one of a user's pages.
 */
static void filter_add(struct cpu *c, bool user, uint64_t page, bool large)
{
    struct exec_filter *f = &c->exec_filter[user][page >> 63];
    f->pages[page >> 18 & 15] |= 1ull << (page >> 12 & 63);
    if (large)
        f->large |= region(page);
}

static void filter_clear(struct cpu *c, bool user)
{
    memset(c->exec_filter[user], 0, sizeof(c->exec_filter[user]));
}

static bool filter_has(const struct cpu *c, bool user, uint64_t page)
{
    const struct exec_filter *f = &c->exec_filter[user][page >> 63];
    return f->pages[page >> 18 & 15] >> (page >> 12 & 63) & 1 || f->large & region(page);
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
    uint8_t *host = tlb_is_lapic_page(c, w.gpa) ? NULL : soft_ram(c->soft, w.gpa, &readonly);

    if (!(p->flags & TF_LISTED(w.global)))
        c->tlb_list[t][w.global][c->tlb_used[t][w.global]++] = (uint16_t)i;
    p->gpa = w.gpa;
    p->flags = (p->flags & (TF_LISTED(0) | TF_LISTED(1))) | TF_LISTED(w.global) | (w.global ? TF_GLOBAL : 0) |
               (readonly ? TF_READONLY : 0) | (host ? 0 : TF_MMIO) | (uint32_t)w.shift << 8;
    if (w.shift > HV_PAGE_SHIFT)
        c->tlb_large[w.global] |= region(va);
    if (w.exec) {
        filter_add(c, t == TLB_USER, page, w.shift > HV_PAGE_SHIFT);
        c->super_exec_local |= t != TLB_USER && !w.global;
    }

    const uint64_t kind = host ? 0 : TLB_SLOW_MMIO;
    const uint64_t watched = (HV_UNLIKELY(c->dr[7] & 0xff) && page_watched(c, page) ? TLB_SLOW_WATCH : 0) |
                             (c->user_aligned && t == TLB_USER ? TLB_SLOW_ALIGN : 0);
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

int tlb_place(struct cpu *c, unsigned t, unsigned seg, uint64_t va, unsigned len, enum cpu_access acc,
              struct place *ret)
{
    const uint64_t page = va & HV_PAGE_MASK;
    const unsigned i = tlb_index(va);
    struct tlb_entry *e = &c->tlb_table[t][i];
    uint64_t tag = tag_for(e, acc);
    if (!tag_is(tag, page)) {
        if (c->efer & EFER_LMA && !cpu_canonical(va))
            return not_canonical(c, seg);
        int r = fill(c, t, va, acc);
        if (r)
            return r;
        tag = tag_for(e, acc);
    }
    gpa_t gpa = c->tlb_phys[t][i].gpa;
    /* The first write to be logged, or other vCPUs dropped their code of the page since. */
    if (acc == ACC_WRITE && (tag & TLB_SLOW_DIRTY || (tag & TLB_SLOW_CODE && !soft_page_is_code(c->soft, gpa)))) {
        e->wtag = page | (tag & (TLB_SLOW_WATCH | TLB_SLOW_ALIGN)) | soft_write_tag_bits(c, gpa, true);
        tag = e->wtag;
    }
    if (HV_UNLIKELY(tag & TLB_SLOW_WATCH))
        watch(c, va, len, acc);
    ret->slow = tag & ~HV_PAGE_MASK;
    ret->gpa = gpa | (va & ~HV_PAGE_MASK);
    ret->host = ret->slow & TLB_SLOW_MMIO ? NULL : (uint8_t *)(va + e->addend);
    if (HV_UNLIKELY(c->lock))
        lockstep_access(c, ret, len, acc);
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

/* Entry i comes off its list of local (0) or global (1) ones, with what it holds if that is of the kind. */
static void flush_entry(struct cpu *c, unsigned t, unsigned i, unsigned global)
{
    struct tlb_phys *p = &c->tlb_phys[t][i];
    p->flags &= ~TF_LISTED(global);
    if (!(p->flags & TF_GLOBAL) == !global) {
        invalidate(&c->tlb_table[t][i]);
        p->flags &= TF_LISTED(0) | TF_LISTED(1);
    }
}

/* What code may be fetched from after a flush that kept the global pages. */
static void filter_global(struct cpu *c, unsigned t)
{
    for (unsigned n = 0; n < c->tlb_used[t][1]; n++) {
        unsigned i = c->tlb_list[t][1][n];
        const struct tlb_entry *e = &c->tlb_table[t][i];
        if (c->tlb_phys[t][i].flags & TF_GLOBAL && e->xtag != TLB_INVALID)
            filter_add(c, t == TLB_USER, e->xtag & HV_PAGE_MASK, TF_SHIFT(c->tlb_phys[t][i].flags) > HV_PAGE_SHIFT);
    }
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
    for (unsigned g = 0; g < (keep_global ? 1u : 2u); g++) {
        c->tlb_large[g] = 0;
        for (unsigned t = 0; t < TLB_MODES; t++) {
            for (unsigned n = 0; n < c->tlb_used[t][g]; n++)
                flush_entry(c, t, c->tlb_list[t][g][n], g);
            c->tlb_used[t][g] = 0;
        }
    }
    if (!keep_global)
        return;
    filter_global(c, TLB_USER);
    if (super) {
        filter_global(c, TLB_SUPER);
        filter_global(c, TLB_SUPER_AC);
    }
}

void tlb_check_alignment(struct cpu *c, bool on)
{
    c->user_aligned = on;
    for (unsigned g = 0; g < 2; g++)
        for (unsigned n = 0; n < c->tlb_used[TLB_USER][g]; n++) {
            struct tlb_entry *e = &c->tlb_table[TLB_USER][c->tlb_list[TLB_USER][g][n]];
            e->rtag = e->wtag = TLB_INVALID;
        }
}

void tlb_init(struct cpu *c)
{
    for (unsigned t = 0; t < TLB_MODES; t++) {
        for (unsigned i = 0; i < TLB_SIZE; i++) {
            invalidate(&c->tlb_table[t][i]);
            c->tlb_phys[t][i].flags = 0;
        }
        c->tlb_used[t][0] = c->tlb_used[t][1] = 0;
    }
    c->tlb_large[0] = c->tlb_large[1] = 0;
    map_gen_new(c, GEN_ALL);
}

void tlb_flush_page(struct cpu *c, uint64_t va)
{
    const uint64_t page = va & HV_PAGE_MASK;
    const unsigned i = tlb_index(va);
    const bool large = (c->tlb_large[0] | c->tlb_large[1]) & region(va);
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
        for (unsigned g = 0; g < 2; g++) {
            for (unsigned n = 0; n < c->tlb_used[t][g]; n++) {
                uint16_t k = c->tlb_list[t][g][n];
                unsigned shift = TF_SHIFT(c->tlb_phys[t][k].flags);
                e = &c->tlb_table[t][k];
                uint64_t at = entry_page(e);
                if (shift > HV_PAGE_SHIFT && at != TLB_INVALID && (at ^ va) >> shift == 0)
                    invalidate(e);
            }
        }
    }
}

/* Entry i of table t, if it is for this page: the write tag as the page is now. */
static void retag(struct cpu *c, unsigned t, unsigned i, gpa_t gpa)
{
    const struct tlb_phys *p = &c->tlb_phys[t][i];
    struct tlb_entry *e = &c->tlb_table[t][i];
    if (p->gpa != gpa || p->flags & (TF_READONLY | TF_MMIO) || e->wtag == TLB_INVALID)
        return;
    e->wtag = (e->wtag & (HV_PAGE_MASK | TLB_SLOW_WATCH | TLB_SLOW_ALIGN)) | soft_write_tag_bits(c, gpa, false);
}

void tlb_mark_code(struct cpu *c, gpa_t gpa)
{
    gpa &= HV_PAGE_MASK;
    for (unsigned t = 0; t < TLB_MODES; t++) {
        for (unsigned g = 0; g < 2; g++) {
            for (unsigned n = 0; n < c->tlb_used[t][g]; n++)
                retag(c, t, c->tlb_list[t][g][n], gpa);
        }
    }
}
