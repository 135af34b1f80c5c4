/*
 * Integer call-outs: MOVS STOS LODS CMPS SCAS INS OUTS and their REP forms. SDM 2B, 1 section 7.3.9.
 *
 * REP runs in bulk: as many elements as lie in the present pages of source and destination go
 * in one host operation through cpu_span(); what crosses a page, hits MMIO or code, or runs
 * downwards goes element by element. Registers are exact after every step, so a fault or a
 * pending interrupt (looked at after each CHUNK bytes) finds a restartable instruction.
 */
#include "hv/engine/soft/intops.h"

#include <stdatomic.h>

#include "hv/engine/soft/block.h"
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

#define CHUNK 65536u               /* bytes between two looks at attention; a few microseconds */
#define IO_CHUNK 4096u

struct string {
    const struct x86_insn *in;
    unsigned size;                 /* of an element */
    uint64_t left;                 /* elements to go */
    bool rep, down;
};

/* One step of up to `max` elements; *ret_n done (registers not moved yet), *ret_stop: condition met. */
typedef int step_fn(struct cpu *c, struct string *s, uint64_t max, uint64_t *ret_n, bool *ret_stop);

static uint64_t reg_offset(const struct cpu *c, const struct string *s, unsigned reg)
{
    return zext(c->gpr[reg], s->in->adsize);
}

static void reg_advance(struct cpu *c, const struct string *s, unsigned reg, uint64_t n)
{
    uint64_t by = n * s->size;
    cpu_reg_set(c, reg, s->in->adsize, c->gpr[reg] + (s->down ? -by : by));
}

/*
 * Host memory at seg:reg for up to *n elements upwards, within one page, the segment and the
 * address size; *ret NULL (X_OK) if one element has to go the slow way.
 */
static int span(struct cpu *c, const struct string *s, unsigned seg, unsigned reg, enum cpu_access acc, uint64_t *n,
                void **ret)
{
    uint64_t off = reg_offset(c, s, reg), va;
    unsigned avail;
    *ret = NULL;
    if (HV_UNLIKELY(c->user_aligned && c->cpl == 3))       /* #AC of one element comes before what the next step finds */
        return X_OK;
    int r = cpu_seg_lin(c, seg, off, s->size, acc, &va);
    if (r != X_OK)
        return r;
    if (s->down || (va & ~HV_PAGE_MASK) + s->size > HV_PAGE_SIZE)
        return X_OK;
    r = cpu_span(c, seg, va, acc, ret, &avail);
    if (r != X_OK || !*ret)
        return r;
    uint64_t fit = MIN((uint64_t)avail, *n * s->size);
    if (s->in->adsize < 8)         /* not past the wrap of the offset */
        fit = MIN(fit, ((uint64_t)1 << (s->in->adsize * 8)) - off);
    if (!(c->mode & (MODE_CODE64 | MODE_FLAT)) || (!(c->mode & MODE_CODE64) && seg >= X86_SEG_FS)) {
        const struct seg *g = &c->seg[seg];
        bool expand_down = (c->mode & (MODE_PE | MODE_VM)) == MODE_PE && (g->attr & 0xc) == 4;
        if (expand_down)
            fit = s->size;
        else
            fit = MIN(fit, (uint64_t)g->limit + 1 - off);
    }
    *n = fit / s->size;
    if (*n == 0)
        *ret = NULL;               /* the element itself wraps */
    return X_OK;
}

static int load_one(struct cpu *c, const struct string *s, unsigned seg, unsigned reg, uint64_t *ret)
{
    uint64_t va;
    int r = cpu_seg_lin(c, seg, reg_offset(c, s, reg), s->size, ACC_READ, &va);
    return r != X_OK ? r : cpu_ld_slow(c, seg, va, s->size, ret);
}

static int store_one(struct cpu *c, const struct string *s, unsigned seg, unsigned reg, uint64_t v)
{
    uint64_t va;
    int r = cpu_seg_lin(c, seg, reg_offset(c, s, reg), s->size, ACC_WRITE, &va);
    return r != X_OK ? r : cpu_st_slow(c, seg, va, s->size, v);
}

/* Runs ELEMENTS(type) for the element size. */
#define BY_ELEMENT(size, ELEMENTS)                                                                \
    do {                                                                                          \
        switch (size) {                                                                           \
        case 1: ELEMENTS(uint8_t); break;                                                         \
        case 2: ELEMENTS(uint16_t); break;                                                        \
        case 4: ELEMENTS(uint32_t); break;                                                        \
        default: ELEMENTS(uint64_t); break;                                                       \
        }                                                                                         \
    } while (0)

/* ---- MOVS ---- */

/* Ascending copy, element after element: an overlap behind the destination repeats what was just written. */
static void copy_up(void *dst, const void *src, uint64_t n, unsigned size)
{
    uintptr_t ahead = (uintptr_t)dst - (uintptr_t)src;
    if (ahead >= n * size) {
        memmove(dst, src, n * size);
        return;
    }
    if (ahead == 0)
        return;
#define COPY(type)                                                                                \
    for (uint64_t i = 0; i < n; i++) {                                                            \
        type e;                                                                                   \
        __builtin_memcpy(&e, (const uint8_t *)src + i * sizeof(e), sizeof(e));                    \
        __builtin_memcpy((uint8_t *)dst + i * sizeof(e), &e, sizeof(e));                          \
    }
    BY_ELEMENT(size, COPY);
#undef COPY
}

static int step_movs(struct cpu *c, struct string *s, uint64_t max, uint64_t *ret_n, bool *ret_stop)
{
    uint64_t n = max, v;
    void *src, *dst;
    int r = span(c, s, s->in->seg, R_RSI, ACC_READ, &n, &src);
    if (r == X_OK)
        r = span(c, s, X86_SEG_ES, R_RDI, ACC_WRITE, &n, &dst);
    if (r != X_OK)
        return r;
    if (src && dst) {
        copy_up(dst, src, n, s->size);
        *ret_n = n;
        return X_OK;
    }
    r = load_one(c, s, s->in->seg, R_RSI, &v);
    if (r == X_OK)
        r = store_one(c, s, X86_SEG_ES, R_RDI, v);
    *ret_n = 1;
    return r;
}

/* ---- STOS, LODS ---- */

static int step_stos(struct cpu *c, struct string *s, uint64_t max, uint64_t *ret_n, bool *ret_stop)
{
    uint64_t n = max, v = zext(c->gpr[R_RAX], s->size);
    void *dst;
    int r = span(c, s, X86_SEG_ES, R_RDI, ACC_WRITE, &n, &dst);
    if (r != X_OK)
        return r;
    if (!dst) {
        *ret_n = 1;
        return store_one(c, s, X86_SEG_ES, R_RDI, v);
    }
    *ret_n = n;
    if (v == zext((v & 0xff) * 0x0101010101010101ull, s->size)) {
        memset(dst, (int)(v & 0xff), n * s->size);
        return X_OK;
    }
#define FILL(type)                                                                                \
    for (uint64_t i = 0; i < n; i++) {                                                            \
        type e = (type)v;                                                                         \
        __builtin_memcpy((uint8_t *)dst + i * sizeof(e), &e, sizeof(e));                          \
    }
    BY_ELEMENT(s->size, FILL);
#undef FILL
    return X_OK;
}

/* Only the last element stays in rAX. */
static int step_lods(struct cpu *c, struct string *s, uint64_t max, uint64_t *ret_n, bool *ret_stop)
{
    uint64_t n = max, v = 0;
    void *src;
    int r = span(c, s, s->in->seg, R_RSI, ACC_READ, &n, &src);
    if (r != X_OK)
        return r;
    if (src) {
        __builtin_memcpy(&v, (uint8_t *)src + (n - 1) * s->size, s->size);
    } else {
        n = 1;
        r = load_one(c, s, s->in->seg, R_RSI, &v);
        if (r != X_OK)
            return r;
    }
    cpu_reg_set(c, R_RAX, s->size, v);
    *ret_n = n;
    return X_OK;
}

/* ---- CMPS, SCAS ---- */

static void compare(struct cpu *c, unsigned size, uint64_t a, uint64_t b)
{
    uint32_t cc = c->cc;
#define COMPARE(bits) cc_cmp##bits((uint##bits##_t)a, (uint##bits##_t)b, &cc)
    BY_SIZE(size, COMPARE);
#undef COMPARE
    c->cc = cc;
}

/* REPE goes on while equal, REPNE while not. */
static bool stops(const struct cpu *c, const struct string *s)
{
    bool equal = c->cc & CC_ZF;
    return equal != ((s->in->prefix & X86_PFX_REP) != 0);
}

static int step_cmps(struct cpu *c, struct string *s, uint64_t max, uint64_t *ret_n, bool *ret_stop)
{
    uint64_t n = max, a = 0, b = 0;
    void *p, *q;
    /* ES:rDI first: with a fault on both sides, that is the one CPUs report. */
    int r = span(c, s, X86_SEG_ES, R_RDI, ACC_READ, &n, &q);
    if (r == X_OK)
        r = span(c, s, s->in->seg, R_RSI, ACC_READ, &n, &p);
    if (r != X_OK)
        return r;
    if (p && q) {
        bool while_equal = s->in->prefix & X86_PFX_REP;
        uint64_t i = 0;
#define SEARCH(type)                                                                              \
        for (; i < n; i++) {                                                                      \
            type x, y;                                                                            \
            __builtin_memcpy(&x, (uint8_t *)p + i * sizeof(x), sizeof(x));                        \
            __builtin_memcpy(&y, (uint8_t *)q + i * sizeof(y), sizeof(y));                        \
            a = x;                                                                                \
            b = y;                                                                                \
            if ((x == y) != while_equal)                                                          \
                break;                                                                            \
        }
        BY_ELEMENT(s->size, SEARCH);
#undef SEARCH
        *ret_n = MIN(i + 1, n);
    } else {
        r = load_one(c, s, X86_SEG_ES, R_RDI, &b);
        if (r == X_OK)
            r = load_one(c, s, s->in->seg, R_RSI, &a);
        if (r != X_OK)
            return r;
        *ret_n = 1;
    }
    compare(c, s->size, a, b);
    *ret_stop = stops(c, s);
    return X_OK;
}

static int step_scas(struct cpu *c, struct string *s, uint64_t max, uint64_t *ret_n, bool *ret_stop)
{
    uint64_t n = max, v = zext(c->gpr[R_RAX], s->size), b = 0;
    void *q;
    int r = span(c, s, X86_SEG_ES, R_RDI, ACC_READ, &n, &q);
    if (r != X_OK)
        return r;
    if (q) {
        bool while_equal = s->in->prefix & X86_PFX_REP;
        uint64_t i = 0;
#define SEARCH(type)                                                                              \
        for (; i < n; i++) {                                                                      \
            type y;                                                                               \
            __builtin_memcpy(&y, (uint8_t *)q + i * sizeof(y), sizeof(y));                        \
            b = y;                                                                                \
            if ((y == (type)v) != while_equal)                                                    \
                break;                                                                            \
        }
        BY_ELEMENT(s->size, SEARCH);
#undef SEARCH
        *ret_n = MIN(i + 1, n);
    } else {
        r = load_one(c, s, X86_SEG_ES, R_RDI, &b);
        if (r != X_OK)
            return r;
        *ret_n = 1;
    }
    compare(c, s->size, v, b);
    *ret_stop = stops(c, s);
    return X_OK;
}

/* ---- INS, OUTS: permission is checked before memory ---- */

/*
 * The destination is checked before the device is read, since that has effects. The data goes
 * through a buffer: while the machine is called this vCPU holds no guest memory.
 */
static int step_ins(struct cpu *c, struct string *s, uint64_t max, uint64_t *ret_n, bool *ret_stop)
{
    uint16_t port = (uint16_t)c->gpr[R_RDX];
    uint64_t n = MIN(max, IO_CHUNK / s->size), v = 0;
    uint8_t buf[IO_CHUNK];
    void *dst;
    int r = cpu_io_check(c, port, s->size);
    if (r == X_OK)
        r = span(c, s, X86_SEG_ES, R_RDI, ACC_WRITE, &n, &dst);
    if (r != X_OK)
        return r;
    if (dst) {
        cpu_pio_in(c, port, s->size, buf, (uint32_t)n);
        uint64_t still = n;
        r = span(c, s, X86_SEG_ES, R_RDI, ACC_WRITE, &still, &dst);
        if (r != X_OK)
            return r;
        if (dst) {
            memcpy(dst, buf, n * s->size);
            *ret_n = n;
            return X_OK;
        }
        /* It became code meanwhile: once more, byte by byte through the slow path. */
        uint64_t va;
        r = cpu_seg_lin(c, X86_SEG_ES, reg_offset(c, s, R_RDI), (unsigned)(n * s->size), ACC_WRITE, &va);
        *ret_n = n;
        return r != X_OK ? r : cpu_st_bytes(c, X86_SEG_ES, va, buf, (unsigned)(n * s->size));
    }
    uint64_t va;
    void *p;
    r = cpu_seg_lin(c, X86_SEG_ES, reg_offset(c, s, R_RDI), s->size, ACC_WRITE, &va);
    if (r == X_OK)
        r = cpu_rmw(c, X86_SEG_ES, va, s->size, &p);       /* for its checks alone */
    c->rmw.active = 0;
    if (r != X_OK)
        return r;
    cpu_pio_in(c, port, s->size, &v, 1);
    *ret_n = 1;
    return store_one(c, s, X86_SEG_ES, R_RDI, v);
}

static int step_outs(struct cpu *c, struct string *s, uint64_t max, uint64_t *ret_n, bool *ret_stop)
{
    uint16_t port = (uint16_t)c->gpr[R_RDX];
    uint64_t n = MIN(max, IO_CHUNK / s->size), v;
    uint8_t buf[IO_CHUNK];
    void *src;
    int r = cpu_io_check(c, port, s->size);
    if (r == X_OK)
        r = span(c, s, s->in->seg, R_RSI, ACC_READ, &n, &src);
    if (r != X_OK)
        return r;
    if (src) {
        memcpy(buf, src, n * s->size);
        cpu_pio_out(c, port, s->size, buf, (uint32_t)n);
        *ret_n = n;
        return X_OK;
    }
    r = load_one(c, s, s->in->seg, R_RSI, &v);
    if (r != X_OK)
        return r;
    cpu_pio_out(c, port, s->size, &v, 1);
    *ret_n = 1;
    return X_OK;
}

/* ---- the loop ---- */

static const struct { uint16_t op; step_fn *step; bool rsi, rdi; } strings[] = {
    { X86_OP_MOVS, step_movs, true, true },  { X86_OP_STOS, step_stos, false, true },
    { X86_OP_LODS, step_lods, true, false }, { X86_OP_CMPS, step_cmps, true, true },
    { X86_OP_SCAS, step_scas, false, true }, { X86_OP_INS, step_ins, false, true },
    { X86_OP_OUTS, step_outs, true, false },
};

static int run_string(struct cpu *c, const struct x86_insn *in, unsigned k)
{
    struct string s = {
        .in = in, .size = in->opsize, .rep = in->prefix & (X86_PFX_REP | X86_PFX_REPNE), .down = c->rflags & FL_DF,
    };
    if ((in->op == X86_OP_INS || in->op == X86_OP_OUTS) && s.size == 8)
        s.size = 4;
    s.left = s.rep ? zext(c->gpr[R_RCX], in->adsize) : 1;
    uint32_t cc = c->cc;           /* a fault leaves the flags as they were before (SDM 2B, REP) */
    uint64_t done = 0, limit = c->mode & MODE_TF ? 1 : CHUNK / s.size;
    while (s.left) {
        uint64_t n = 0;
        bool stop = false;
        int r = strings[k].step(c, &s, MIN(s.left, limit - done), &n, &stop);
        if (r != X_OK) {
            c->cc = cc;
            return r;
        }
        if (strings[k].rsi)
            reg_advance(c, &s, R_RSI, n);
        if (strings[k].rdi)
            reg_advance(c, &s, R_RDI, n);
        s.left -= n;
        done += n;
        if (s.rep)
            cpu_reg_set(c, R_RCX, in->adsize, s.left);
        else
            return X_OK;
        if (stop)
            break;
        if (s.left && (done >= limit || atomic_load_explicit(&c->attention, memory_order_relaxed))) {
            c->next_rip = c->rip;  /* to be gone on with */
            break;
        }
    }
    /* Time passed that instructions do not count: an instruction for each 16 bytes. */
    int32_t cost = (int32_t)(done * s.size / 16);
    c->budget -= cost;
    c->blocks->budget_start -= cost;
    return X_OK;
}

#define STRING(name, k)                                                                           \
    static int op_##name(struct cpu *c, const struct x86_insn *in) { return run_string(c, in, k); }
STRING(movs, 0)
STRING(stos, 1)
STRING(lods, 2)
STRING(cmps, 3)
STRING(scas, 4)
STRING(ins, 5)
STRING(outs, 6)

static const struct int_op rows[] = {
    { X86_OP_MOVS, { op_movs, 0 } }, { X86_OP_STOS, { op_stos, 0 } }, { X86_OP_LODS, { op_lods, 0 } },
    { X86_OP_CMPS, { op_cmps, 0 } }, { X86_OP_SCAS, { op_scas, 0 } }, { X86_OP_INS, { op_ins, 0 } },
    { X86_OP_OUTS, { op_outs, 0 } },
};
const struct int_ops int_ops_string = { rows, ARRAY_SIZE(rows) };
