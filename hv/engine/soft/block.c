/*
 * Finding, building and dropping decoded blocks (block.h).
 *
 * Code is tracked by physical page. Before the first byte of a page is decoded the page is
 * announced (soft_page_set_code), so that every later store into it, through whatever linear
 * address, comes by code_written(); a bitmap of 64-byte granules then tells at once whether
 * it touches code. An instruction that crosses into a second page is a block of its own, so
 * that only it needs both pages mapped.
 */
#include "hv/engine/soft/block.h"

#include <errno.h>

#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/translate.h"

#define GRANULE_SHIFT 6            /* 64 granules of 64 bytes */

int block_cache_new(struct cpu *c)
{
    struct block_cache *bc = hv_alloc(sizeof(*bc));
    if (!bc)
        return -ENOMEM;
    bc->most = MIN(MAX(BLOCK_ARENA_TOTAL / c->soft->cfg.vcpus, BLOCK_ARENA_MIN), BLOCK_ARENA_MAX);
    bc->size = MIN(bc->most, BLOCK_ARENA_START);
    bc->epoch = 1;
    bc->arena = hv_alloc(bc->most);
    if (!bc->arena) {
        free(bc);
        return -ENOMEM;
    }
    for (size_t i = 0; i < ARRAY_SIZE(c->jump); i++)
        c->jump[i] = (struct jump){ .b = &bc->none };
    bc->none.gpa = bc->none.gpa2 = BLOCK_NO_PAGE;
    map_gen_new(c, GEN_ALL);
    c->blocks = bc;
    translate_init(c, translate_threshold());
    return 0;
}

void block_cache_free(struct cpu *c)
{
    if (!c->blocks)
        return;
    translate_fini(c);
    free(c->blocks->arena);
    free(c->blocks);
    c->blocks = NULL;
}

void block_drop_all(struct cpu *c)
{
    struct block_cache *bc = c->blocks;
    translate_drop_all(c);
    for (size_t i = 0; i < ARRAY_SIZE(c->jump); i++)
        c->jump[i] = (struct jump){ .b = &bc->none };
    memset(bc->hash, 0, sizeof(bc->hash));
    /* The pages lose their code in other eyes too, and the TLB may let stores pass again. */
    for (size_t i = 0; i < ARRAY_SIZE(bc->page); i++) {
        for (struct code_page *p = bc->page[i]; p; p = p->next) {
            if (p->granules) {
                p->granules = 0;
                p->first = NULL;
                soft_page_clear_code(c, p->gpa);
            }
        }
        bc->page[i] = NULL;
    }
    bc->used = 0;
    bc->patch = NULL;
    bc->epoch = (uint8_t)(bc->epoch % 127 + 1);
    bc->fresh = bc->again = 0;
    bc->flushed++;
    if (bc->forget) {
        bc->forget = false;
        bc->size = MIN(bc->most, BLOCK_ARENA_START);
        memset(bc->past, 0, sizeof(bc->past));
        if (c->code)
            cache_start(c->code);
    }
    map_gen_new(c, GEN_ALL);       /* a link in the block that is still running points into the arena */
    c->code_dropped = true;
}

/* The machine begins anew: what is built from now on was not there before, though it may look alike. */
void block_forget(struct cpu *c)
{
    c->blocks->forget = true;
}

/* A third of what was built was there before: more room, if there is. (Of the first seconds of a kernel it is an eighth.) */
static bool arena_grow(struct block_cache *bc)
{
    if (bc->size == bc->most || bc->again * 3 < bc->fresh)
        return false;
    bc->size = MIN(bc->size * 2, bc->most);
    bc->fresh = bc->again = 0;
    return true;
}

static void *arena_get(struct block_cache *bc, size_t len)
{
    len = ROUND_UP(len, 64);
    if (bc->size - bc->used < len)
        return NULL;
    void *p = bc->arena + bc->used;
    bc->used += len;
    return p;
}

/* ---- pages ---- */

static struct code_page **page_slot(struct block_cache *bc, gpa_t gpa)
{
    return &bc->page[(gpa >> HV_PAGE_SHIFT) & ((1u << BLOCK_PAGE_BITS) - 1)];
}

static struct code_page *page_find(struct block_cache *bc, gpa_t gpa)
{
    struct code_page *p = *page_slot(bc, gpa);
    while (p && p->gpa != (gpa & HV_PAGE_MASK))
        p = p->next;
    return p;
}

/* NULL: the arena is full. */
static struct code_page *page_get(struct block_cache *bc, gpa_t gpa)
{
    struct code_page *p = page_find(bc, gpa);
    if (p)
        return p;
    p = arena_get(bc, sizeof(*p));
    if (!p)
        return NULL;
    struct code_page **slot = page_slot(bc, gpa);
    *p = (struct code_page){ .gpa = gpa & HV_PAGE_MASK, .next = *slot };
    *slot = p;
    return p;
}

static uint64_t granules_of(unsigned from, unsigned to)   /* offsets in a page, to exclusive */
{
    unsigned a = from >> GRANULE_SHIFT, b = (to - 1) >> GRANULE_SHIFT;
    return (b == 63 ? ~(uint64_t)0 : ((uint64_t)1 << (b + 1)) - 1) & ~(((uint64_t)1 << a) - 1);
}

/* The part of b within the page at gpa: [*from, *to), offsets; which of its lists it is on. */
static unsigned block_part(const struct block *b, gpa_t gpa, unsigned *from, unsigned *to)
{
    unsigned start = (unsigned)(b->gpa & ~HV_PAGE_MASK), end = start + b->len;
    if ((b->gpa & HV_PAGE_MASK) == gpa) {
        *from = start;
        *to = MIN(end, (unsigned)HV_PAGE_SIZE);
        return 0;
    }
    *from = 0;
    *to = end - (unsigned)HV_PAGE_SIZE;
    return 1;
}

static void page_add(struct code_page *p, struct block *b)
{
    unsigned from, to;
    unsigned i = block_part(b, p->gpa, &from, &to);
    p->granules |= granules_of(from, to);
    b->page_next[i] = p->first;
    p->first = b;
}

bool block_page_has_code(struct cpu *c, gpa_t gpa)
{
    struct code_page *p = page_find(c->blocks, gpa);
    return p && p->granules;
}

/* ---- dropping ---- */

static void hash_remove(struct block_cache *bc, struct block *b);

static void page_remove(struct block_cache *bc, gpa_t gpa, const struct block *b)
{
    struct code_page *p = page_find(bc, gpa);
    unsigned from, to;
    for (struct block **q = p ? &p->first : NULL; q && *q;) {
        unsigned i = block_part(*q, p->gpa, &from, &to);
        if (*q == b) {
            *q = b->page_next[i];
            return;
        }
        q = &(*q)->page_next[i];
    }
}

/* Drop the blocks of p with bytes in [from, to) of it. */
static void page_drop(struct cpu *c, struct code_page *p, unsigned from, unsigned to)
{
    struct block_cache *bc = c->blocks;
    uint64_t left = 0;
    for (struct block **q = &p->first; *q;) {
        struct block *b = *q;
        unsigned bfrom, bto;
        unsigned i = block_part(b, p->gpa, &bfrom, &bto);
        bool hit = bfrom < to && from < bto;
        if (b->gpa2 == p->gpa && i == 0) {
            /* Both halves in one physical page (mapped twice in a row). */
            unsigned tail = (unsigned)(b->gpa & ~HV_PAGE_MASK) + b->len - (unsigned)HV_PAGE_SIZE;
            hit |= from < tail;
            left |= hit ? 0 : granules_of(0, tail);
        }
        if (!hit) {
            left |= granules_of(bfrom, bto);
            q = &b->page_next[i];
            continue;
        }
        *q = b->page_next[i];
        gpa_t other = i ? b->gpa & HV_PAGE_MASK : b->gpa2;
        if (other != BLOCK_NO_PAGE && other != p->gpa)
            page_remove(bc, other, b);
        hash_remove(bc, b);
        b->gen = 0;
        translate_drop(c, b);
        block_jump_update(c, b);
        bc->dropped++;
        c->code_dropped = true;
    }
    p->granules = left;
    if (!left)
        soft_page_clear_code(c, p->gpa);
}

void block_drop(struct cpu *c, gpa_t gpa, uint64_t len)
{
    struct block_cache *bc = c->blocks;
    if (len == 0)
        return;
    if (len > ((uint64_t)HV_PAGE_SIZE << BLOCK_PAGE_BITS)) {   /* more pages than slots: look at what there is */
        for (size_t i = 0; i < ARRAY_SIZE(bc->page); i++) {
            for (struct code_page *p = bc->page[i]; p; p = p->next) {
                if (p->granules && p->gpa + HV_PAGE_SIZE > gpa && (p->gpa <= gpa || p->gpa - gpa < len))
                    page_drop(c, p, 0, HV_PAGE_SIZE);
            }
        }
        return;
    }
    gpa_t end = gpa + len;
    while (gpa < end) {
        gpa_t next = MIN((gpa & HV_PAGE_MASK) + HV_PAGE_SIZE, end);
        struct code_page *p = page_find(bc, gpa);
        if (p && p->granules) {
            unsigned from = (unsigned)(gpa & ~HV_PAGE_MASK), to = from + (unsigned)(next - gpa);
            if (p->granules & granules_of(from, to))
                page_drop(c, p, from, to);
        }
        gpa = next;
    }
}

void code_written(struct cpu *c, gpa_t gpa, unsigned len)
{
    block_drop(c, gpa, len);
    soft_post_drop(c, gpa, len);
}

/* ---- finding ---- */

static unsigned hash_of(gpa_t gpa, uint32_t mode)
{
    uint64_t h = (gpa ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;
    return (unsigned)(h >> (64 - BLOCK_HASH_BITS));
}

static struct block_past *past_of(struct block_cache *bc, gpa_t gpa, uint32_t mode, uint8_t *ret_mark)
{
    uint64_t h = (gpa ^ (uint64_t)(mode & BLOCK_KEY) << 40) * 0x9e3779b97f4a7c15ull;
    *ret_mark = (uint8_t)(h >> (56 - BLOCK_PAST_BITS));
    return &bc->past[h >> (64 - BLOCK_PAST_BITS)];
}

static void note_past(struct block_cache *bc, struct block *b)
{
    uint8_t mark;
    struct block_past *p = past_of(bc, b->gpa, b->mode, &mark);
    bc->fresh++;
    if (p->epoch == bc->epoch && p->mark == mark)
        return;                    /* dropped by a write, and built again: that says nothing */
    if (p->epoch && p->mark == mark) {
        bc->again++;
        b->proved = p->hot;
    }
    *p = (struct block_past){ .mark = mark, .epoch = bc->epoch & 127 };
}

void block_proved(struct cpu *c, struct block *b)
{
    uint8_t mark;
    struct block_past *p = past_of(c->blocks, b->gpa, b->mode, &mark);
    b->proved = true;
    *p = (struct block_past){ .mark = mark, .epoch = c->blocks->epoch & 127, .hot = true };
}

static void hash_remove(struct block_cache *bc, struct block *b)
{
    struct block **q = &bc->hash[hash_of(b->gpa, b->mode & BLOCK_KEY)];
    while (*q && *q != b)
        q = &(*q)->hash_next;
    if (*q)
        *q = b->hash_next;
}

/* Where execution at linear address va reads from. X_FAULT: c->exc. host NULL: no RAM there. */
static int fetch(struct cpu *c, uint64_t va, const uint8_t **ret_host, gpa_t *ret_gpa)
{
    const uint8_t *page;
    gpa_t gpa;
    int r = cpu_fetch_page(c, va, &page, &gpa);
    if (r != X_OK)
        return r;
    *ret_host = page ? page + (va & ~HV_PAGE_MASK) : NULL;
    *ret_gpa = gpa | (va & ~HV_PAGE_MASK);
    return X_OK;
}

/* Copy guest code, which other vCPUs may be changing; no memory reads as all ones, like a bus without answer. */
static void copy_code(uint8_t *to, const uint8_t *from, unsigned len)
{
    if (from)
        memcpy(to, from, len);
    else
        memset(to, 0xff, len);
}

static void announce(struct cpu *c, gpa_t gpa, bool ram)
{
    if (ram && !block_page_has_code(c, gpa))
        soft_page_set_code(c, gpa);
}

/*
 * Decode from va on into bc->insn[]; *ret_len bytes, *ret_gpa2 the second page if the (only)
 * instruction crosses. Returns the number of instructions, or 0 with c->exc filled.
 */
static unsigned decode_run(struct cpu *c, uint64_t va, const uint8_t *host, uint32_t mode, uint64_t bytes_left,
                           unsigned *ret_len, gpa_t *ret_gpa2)
{
    struct block_cache *bc = c->blocks;
    enum x86_mode xm = mode & MODE_CODE64 ? X86_MODE_64 : mode & MODE_CODE32 ? X86_MODE_32 : X86_MODE_16;
    unsigned max = mode & BLOCK_ONE ? 1 : BLOCK_MAX_INSNS;
    unsigned in_page = (unsigned)(HV_PAGE_SIZE - (va & ~HV_PAGE_MASK)), pos = 0, n = 0;
    while (n < max && pos < in_page && pos < bytes_left) {
        uint8_t buf[X86_MAX_INSN];
        struct x86_insn *in = &bc->insn[n];
        unsigned have = MIN(in_page - pos, (unsigned)X86_MAX_INSN);
        copy_code(buf, host ? host + pos : NULL, have);
        int r = x86_decode(buf, have, xm, in);
        if (r == -EAGAIN) {
            if (n > 0)
                break;             /* the one that crosses starts the next block */
            const uint8_t *host2;
            gpa_t gpa2;
            if (fetch(c, (va & HV_PAGE_MASK) + HV_PAGE_SIZE, &host2, &gpa2) != X_OK)
                return 0;
            announce(c, gpa2, host2 != NULL);
            copy_code(buf + have, host2, X86_MAX_INSN - have);
            r = x86_decode(buf, sizeof(buf), xm, in);
            *ret_gpa2 = gpa2;
            max = 1;
        }
        if (r == -E2BIG) {
            if (n == 0) {
                (void)cpu_raise_err(c, VEC_GP, 0);
                return 0;
            }
            break;
        }
        if (r != 0) {
            /* Undefined: its own op, so that what comes before it runs. */
            unsigned len = in->len;
            *in = (struct x86_insn){ .op = X86_OP_INVALID, .len = (uint8_t)MAX(len, 1u) };
        }
        in->op = (uint16_t)int_op_shown(c, in->op);
        if (pos + in->len > bytes_left) {
            if (n == 0) {
                (void)cpu_raise_err(c, VEC_GP, 0);     /* beyond the limit of CS */
                return 0;
            }
            break;
        }
        pos += in->len;
        n++;
        if (lower_ends_block(in, mode) || (n > 1 && lower_after_sti(&in[-1])))
            break;
    }
    *ret_len = pos;
    return n;
}

static struct block *build(struct cpu *c, uint64_t va, gpa_t gpa, const uint8_t *host, uint32_t mode,
                           uint64_t bytes_left)
{
    struct block_cache *bc = c->blocks;
    struct code_page *p, *p2;
    struct block *b;
    gpa_t gpa2;
    unsigned n, len, calls;
    size_t ops;
    uint8_t mark;
    __builtin_prefetch(past_of(bc, gpa, mode, &mark), 1);    /* it is there by the time the bytes are decoded */
    for (bool dropped = false;;) {
        gpa2 = BLOCK_NO_PAGE;
        announce(c, gpa, host != NULL);
        n = decode_run(c, va, host, mode, bytes_left, &len, &gpa2);
        if (n == 0)
            return NULL;
        if (gpa2 != BLOCK_NO_PAGE && (gpa & ~HV_PAGE_MASK) + len <= HV_PAGE_SIZE)
            gpa2 = BLOCK_NO_PAGE;  /* undefined before it got that far */
        ops = sizeof(struct op) * (n + 1);
        p = page_get(bc, gpa);
        p2 = gpa2 != BLOCK_NO_PAGE ? page_get(bc, gpa2) : NULL;
        b = arena_get(bc, sizeof(struct block) + ops + sizeof(struct op_callout) * n);
        if (b && p && (p2 || gpa2 == BLOCK_NO_PAGE))
            break;
        if (arena_grow(bc))
            continue;
        hv_assert(!dropped);       /* an empty arena has room for any block */
        /* Takes the announcements back too: others may write unseen until the next, so the bytes are read again. */
        block_drop_all(c);
        dropped = true;
    }
    struct op_callout *pool = (struct op_callout *)(void *)((uint8_t *)b + sizeof(*b) + ops);
    *b = (struct block){ .mode = mode, .len = (uint16_t)len, .first = bc->insn[0].op, .gpa = gpa, .gpa2 = gpa2 };
    lower_block(bc->insn, n, mode, mode & BLOCK_ONE, &bc->none, b->op, pool, &calls);
    bc->used = (size_t)ROUND_UP((uint8_t *)(pool + calls) - bc->arena, 64);

    unsigned h = hash_of(gpa, mode & BLOCK_KEY);
    b->hash_next = bc->hash[h];
    bc->hash[h] = b;
    note_past(bc, b);
    translate_new_block(c, b);
    page_add(p, b);
    if (p2 && p2 != p)
        page_add(p2, b);
    else if (p2)
        p->granules |= granules_of(0, (unsigned)(gpa & ~HV_PAGE_MASK) + len - (unsigned)HV_PAGE_SIZE);
    bc->built++;
    return b;
}

/* Is the second page of b still where it was? X_FAULT: it cannot be fetched. */
static int check_second(struct cpu *c, uint64_t va, const struct block *b, bool *ret_same)
{
    const uint8_t *host;
    gpa_t gpa2;
    int r = fetch(c, (va & HV_PAGE_MASK) + HV_PAGE_SIZE, &host, &gpa2);
    if (r == X_OK)
        *ret_same = gpa2 == b->gpa2;
    return r;
}

void block_jump_update(struct cpu *c, const struct block *b)
{
    struct jump *j = &c->jump[block_jump_slot(b->vrip)];
    if (j->b != b)
        return;
    j->code = translate_code(c, b);
    if (!b->gen)
        j->gen = 0;
}

struct block *block_lookup(struct cpu *c, uint32_t extra)
{
    struct block_cache *bc = c->blocks;
    uint32_t mode = c->mode | extra;
    uint64_t va, bytes_left = UINT64_MAX;
    if (HV_LIKELY(mode & MODE_CODE64)) {
        va = c->rip;
        if (HV_UNLIKELY((uint64_t)((int64_t)(va << 16) >> 16) != va)) {
            (void)cpu_raise_err(c, VEC_GP, 0);
            return NULL;
        }
    } else {
        const struct seg *cs = &c->seg[X86_SEG_CS];
        c->rip = (uint32_t)c->rip;
        va = (uint32_t)(cs->base + c->rip);
        if (!(mode & MODE_FLAT)) {
            if (c->rip > cs->limit) {
                (void)cpu_raise_err(c, VEC_GP, 0);
                return NULL;
            }
            bytes_left = (uint64_t)cs->limit + 1 - c->rip;
            if (cs->base != bc->cs_base || cs->limit != bc->cs_limit) {
                bc->cs_base = cs->base;
                bc->cs_limit = cs->limit;
                map_gen_new(c, GEN_ALL);       /* links and jump[] know RIPs of the old base only */
            }
        }
    }
    struct jump *slot = &c->jump[block_jump_slot(c->rip)];
    struct block *b = slot->b;
    const bool ours = slot->rip == c->rip;     /* else b is another's, and not worth a cache miss */
    if (ours && b->vrip == c->rip && b->gen == c->map_gen && b->mode == mode)
        return b;

    /*
     * Building may take in a flush that another thread asked for: the translation used is then none of
     * the new generation, whose INVLPGs would not know of it. Once more; the block is in the hash by now.
     */
    for (uint64_t gen = 0; gen != c->map_gen;) {
        const uint8_t *host;
        gpa_t gpa;
        const struct tlb_entry *t = tlb_at(c, va);
        gen = c->map_gen;
        if (t->xtag == (va & HV_PAGE_MASK)) {
            size_t i = (size_t)(t - c->tlb_table[0]);    /* the tables are one array, tlb_phys is its parallel */
            gpa = (&c->tlb_phys[0][0])[i].gpa | (va & ~HV_PAGE_MASK);
            host = (const uint8_t *)(va + t->addend);
        } else if (fetch(c, va, &host, &gpa) != X_OK) {
            return NULL;
        }
        /* Mostly the slot's block still is the one, only its translation had to be looked at again. */
        b = slot->b;
        if (ours && b->gen && b->vrip == c->rip && b->gpa == gpa && b->mode == mode && b->gpa2 == BLOCK_NO_PAGE &&
            b->len <= bytes_left)
            continue;
        uint32_t key = mode & BLOCK_KEY;
        for (b = bc->hash[hash_of(gpa, key)]; b; b = b->hash_next) {
            if (b->gpa != gpa || (b->mode & BLOCK_KEY) != key || b->len > bytes_left)
                continue;
            if (b->gpa2 != BLOCK_NO_PAGE) {
                bool same = false;
                if (check_second(c, va, b, &same) != X_OK)
                    return NULL;
                if (!same)
                    continue;
            }
            break;
        }
        if (!b) {
            b = build(c, va, gpa, host, mode, bytes_left);
            if (!b)
                return NULL;
            slot = &c->jump[block_jump_slot(c->rip)];
        }
    }
    if (b->vrip != c->rip) {       /* mapped at two addresses: it is found by the last one */
        struct jump *old = &c->jump[block_jump_slot(b->vrip)];
        if (old->b == b)
            *old = (struct jump){ .b = &bc->none };
    }
    b->mode = mode;
    b->vrip = c->rip;
    b->gen = c->map_gen;
    *slot = (struct jump){ .rip = c->rip, .gen = extra ? 0 : c->map_gen, .code = translate_code(c, b), .b = b };
    return b;
}
