/*
 * Page table walks: none, 32-bit with PSE and PSE-36, PAE, 4-level. SDM volume 3, chapter 4.
 *
 * A walk reads all entries first, decides, and only then sets A (every level) and D (leaf,
 * writes) with compare-and-exchange: other vCPUs and their guests edit the same tables. An
 * entry that changed meanwhile starts the walk again. Tables outside RAM read as not present.
 */
#include "hv/engine/soft/paging.h"
#include "hv/engine/soft/cpuid.h"
#include "hv/engine/soft/soft.h"

#define PTE_P  0x1ull
#define PTE_W  0x2ull
#define PTE_U  0x4ull
#define PTE_A  0x20ull
#define PTE_D  0x40ull
#define PTE_PS 0x80ull
#define PTE_G  0x100ull
#define PTE_NX (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

#define PF_P    0x1u
#define PF_W    0x2u
#define PF_U    0x4u
#define PF_RSVD 0x8u
#define PF_I    0x10u

struct entry {
    void *host;
    gpa_t gpa;
    uint64_t val;
    bool wide, readonly;
};

/* Reserved bits of a paging-structure entry at this level (1 = PTE). SDM 4.4.2, 4.5.4, table 4-15. */
static uint64_t reserved_bits(const struct cpu *c, unsigned level, bool is_long, bool leaf)
{
    uint64_t bits = PTE_ADDR & ~c->phys_mask;
    if (!(c->efer & EFER_NXE))
        bits |= PTE_NX;
    if (!is_long)
        bits |= 0x7ff0000000000000ull;
    if (level == 4)
        bits |= PTE_PS;
    if (level == 3 && leaf)
        bits |= 0x3fffe000ull;
    if (level == 3 && !cpu_has(c, CPUF_PDPE1GB))
        bits |= PTE_PS;
    if (level == 2 && leaf)
        bits |= 0x1fe000ull;
    return bits;
}

/* A 4 MiB page's directory entry: bits 20:13 are address bits 39:32. SDM 4.3, table 4-4. */
static uint64_t reserved_bits_pse(const struct cpu *c)
{
    uint64_t high = c->phys_mask >> 32 & 0xff;
    return 1u << 21 | (~high & 0xff) << 13;
}

static bool entry_read(struct cpu *c, gpa_t gpa, bool wide, struct entry *e)
{
    uint8_t *page = soft_ram(c->soft, gpa & HV_PAGE_MASK, &e->readonly);
    if (!page)
        return false;
    e->host = page + (gpa & ~HV_PAGE_MASK);
    e->gpa = gpa;
    e->wide = wide;
    e->val = wide ? __atomic_load_n((uint64_t *)e->host, __ATOMIC_RELAXED)
                  : __atomic_load_n((uint32_t *)e->host, __ATOMIC_RELAXED);
    return true;
}

/* False if the entry is not what was read any more. */
static bool entry_set(struct cpu *c, struct entry *e, uint64_t bits)
{
    if ((e->val & bits) == bits || e->readonly)
        return true;
    soft_mark_dirty(c->soft, e->gpa & HV_PAGE_MASK);
    if (e->wide)
        return __atomic_compare_exchange_n((uint64_t *)e->host, &e->val, e->val | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    uint32_t old = (uint32_t)e->val;
    return __atomic_compare_exchange_n((uint32_t *)e->host, &old, old | (uint32_t)bits, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* SDM 4.7: error code of a page fault; more: PF_P, PF_RSVD. */
static int page_fault(struct cpu *c, uint64_t va, enum cpu_access acc, unsigned as, uint32_t more)
{
    uint32_t err = more;
    if (acc == ACC_WRITE)
        err |= PF_W;
    if (as == TLB_USER)
        err |= PF_U;
    if (acc == ACC_EXEC && (((c->efer & EFER_NXE) && (c->cr4 & CR4_PAE)) || (c->cr4 & CR4_SMEP)))
        err |= PF_I;
    return cpu_raise_pf(c, va, err);
}

int paging_walk(struct cpu *c, uint64_t va, enum cpu_access acc, unsigned as, struct walk *ret)
{
    if (!(c->cr0 & CR0_PG)) {
        *ret = (struct walk){ .gpa = va & HV_PAGE_MASK, .read = true, .write = true, .exec = true, .shift = 12 };
        return X_OK;
    }
    const bool is_long = c->efer & EFER_LMA, pae = c->cr4 & CR4_PAE;
    const unsigned bits = pae ? 9 : 10, size = pae ? 8 : 4;

    for (;;) {
        struct entry path[4];
        unsigned n = 0, level, shift;
        uint64_t rights = PTE_U | PTE_W, nx = 0;
        gpa_t table;
        bool leaf;

        if (is_long) {
            level = 4;
            table = c->cr3 & PTE_ADDR & c->phys_mask;
        } else if (pae) {
            uint64_t pdpte = c->pdpte[va >> 30 & 3];
            if (!(pdpte & PTE_P))
                return page_fault(c, va, acc, as, 0);
            level = 2;
            table = pdpte & PTE_ADDR & c->phys_mask;
        } else {
            level = 2;
            table = c->cr3 & 0xfffff000u;
        }
        for (;; level--) {
            shift = HV_PAGE_SHIFT + (level - 1) * bits;
            struct entry *e = &path[n++];
            if (!entry_read(c, table + (va >> shift & ((1u << bits) - 1)) * size, pae, e) || !(e->val & PTE_P))
                return page_fault(c, va, acc, as, 0);
            leaf = level == 1 || (e->val & PTE_PS && (pae ? level < 4 : (c->cr4 & CR4_PSE) != 0));
            uint64_t rsvd = pae ? reserved_bits(c, level, is_long, leaf)
                          : leaf && level == 2 ? reserved_bits_pse(c) : 0;
            if (e->val & rsvd)
                return page_fault(c, va, acc, as, PF_P | PF_RSVD);
            rights &= e->val;
            nx |= pae ? e->val & PTE_NX : 0;
            if (leaf)
                break;
            table = e->val & PTE_ADDR & (pae ? c->phys_mask : 0xffffffffu);
        }

        struct entry *last = &path[n - 1];
        const bool user_page = rights & PTE_U, writable = rights & PTE_W;
        bool read, write, exec = !nx;
        if (as == TLB_USER) {
            read = user_page;
            write = user_page && writable;
            exec = exec && user_page;
        } else {
            read = !user_page || as == TLB_SUPER_AC || !(c->cr4 & CR4_SMAP);
            write = read && (writable || !(c->cr0 & CR0_WP));
            exec = exec && !(user_page && (c->cr4 & CR4_SMEP));
        }
        if (!(acc == ACC_READ ? read : acc == ACC_WRITE ? write : exec))
            return page_fault(c, va, acc, as, PF_P);

        bool current = true;
        for (unsigned i = 0; current && i + 1 < n; i++)
            current = entry_set(c, &path[i], PTE_A);
        if (!current || !entry_set(c, last, acc == ACC_WRITE ? PTE_A | PTE_D : PTE_A))
            continue;

        gpa_t base = last->val & PTE_ADDR & (pae ? c->phys_mask : 0xffffffffu);
        if (shift > HV_PAGE_SHIFT)
            base &= ~((1ull << shift) - 1);
        if (!pae && shift == 22)
            base |= (last->val >> 13 & 0xff) << 32;
        *ret = (struct walk){
            .gpa = base | (va & ((1ull << shift) - 1) & HV_PAGE_MASK),
            .read = read, .exec = exec,
            .write = write && (acc == ACC_WRITE || last->val & PTE_D),
            .global = last->val & PTE_G && c->cr4 & CR4_PGE,
            .shift = (uint8_t)shift,
        };
        return X_OK;
    }
}

int paging_load_pdptes(struct cpu *c, uint64_t cr3, uint64_t ret[4])
{
    uint64_t v[4] = {0};
    for (unsigned i = 0; i < 4; i++) {
        struct entry e;
        if (entry_read(c, (cr3 & 0xffffffe0u) + i * 8, true, &e))
            v[i] = e.val;
        /* Present: bits 2:1, 8:5 and those above MAXPHYADDR are reserved. */
        if (v[i] & PTE_P && v[i] & (0x1e6ull | ~(c->phys_mask | 0xfff)))
            return cpu_raise_err(c, VEC_GP, 0);
    }
    memcpy(ret, v, sizeof(v));
    return X_OK;
}
