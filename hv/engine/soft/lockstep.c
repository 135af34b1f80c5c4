/* Lock-step of translated blocks with the interpreter: lockstep.h. */
#include "hv/engine/soft/lockstep.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "hv/engine/soft/flags.h"
#include "hv/engine/soft/intops.h"
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/translate.h"

#define STORES 1024
#define BYTES (256 * KIB)
/* Of the runs of a block the first ones are compared, and then one in so many. */
#define FIRST 12
#define ONE_IN 1024
/* Instructions of a loop that are compared at once. */
#define ROUNDS 24
#define HEAT_LOOP (1 << 30)

struct lockstep {
    bool recording;
    jmp_buf out;                   /* this run cannot be made twice */
    unsigned stores;
    size_t used;
    struct { uint8_t *host; unsigned len; size_t at; } store[STORES];
    uint8_t before[BYTES], after[BYTES];
    struct tlb_entry empty[TLB_SIZE];        /* so that every access of the interpreter is written down */
    unsigned table;
    struct cpu from, want;         /* up to SAVED_END */
    uint64_t compared;
};

/* What a block can change lies before the local APIC, but for what other threads write. */
#define SAVED_END offsetof(struct cpu, lapic)
#define OTHERS offsetof(struct cpu, attention)
#define OTHERS_END offsetof(struct cpu, tlb)

static void copy_state(struct cpu *to, const struct cpu *from)
{
    memcpy(to, from, OTHERS);
    memcpy((char *)to + OTHERS_END, (const char *)from + OTHERS_END, SAVED_END - OTHERS_END);
}

struct lockstep *lockstep_new(void)
{
    struct lockstep *l = aligned_alloc(64, ROUND_UP(sizeof(*l), (size_t)64));
    if (!l)
        return NULL;
    memset(l, 0, sizeof(*l));
    for (size_t i = 0; i < TLB_SIZE; i++)
        l->empty[i].rtag = l->empty[i].wtag = l->empty[i].xtag = TLB_INVALID;
    return l;
}

void lockstep_free(struct lockstep *l) { free(l); }
uint64_t lockstep_count(const struct cpu *c) { return c->lock ? c->lock->compared : 0; }

int32_t lockstep_heat(const struct x86_insn *in, unsigned n, bool loop)
{
    int32_t heat = loop ? HEAT_LOOP : 0;
    for (unsigned i = 0; i < n; i++) {
        switch (in[i].op) {
        case X86_OP_POPF: case X86_OP_INS: case X86_OP_OUTS:
            return -1;
        case X86_OP_RET: case X86_OP_JMP_IND: case X86_OP_CALL_IND:
            heat = 0;              /* the interpreter goes through jump[] if there is budget left */
            break;
        case X86_OP_SWAPGS: case X86_OP_LFENCE: case X86_OP_MFENCE: case X86_OP_SFENCE: case X86_OP_RDFSBASE:
        case X86_OP_RDGSBASE: case X86_OP_WRFSBASE: case X86_OP_WRGSBASE: case X86_OP_RDPID: case X86_OP_SMSW:
        case X86_OP_STI: case X86_OP_CLI: case X86_OP_PAUSE:
            break;
        case X86_OP_MOV_SEG: case X86_OP_PUSH:
            if (in[i].opnd[0].kind == X86_OPND_SEG)
                return -1;
            break;
        default:
            if (!int_op_find(in[i].op) && cpu_sys_ops[in[i].op].fn)
                return -1;
        }
    }
    return heat;
}

unsigned lockstep_table(const struct cpu *c)
{
    return c->lock->recording ? c->lock->table : (unsigned)(c->tlb - c->tlb_table[0]) / TLB_SIZE;
}

void lockstep_access(struct cpu *c, const struct place *p, unsigned len, enum cpu_access acc)
{
    struct lockstep *l = c->lock;
    if (!l->recording || acc == ACC_EXEC)
        return;
    if (!p->host || (acc == ACC_WRITE && p->slow) || p->slow & TLB_SLOW_WATCH)
        longjmp(l->out, 1);
    if (acc != ACC_WRITE)
        return;
    if (!len)                      /* as much as there is in the page */
        len = (unsigned)(HV_PAGE_SIZE - (p->gpa & ~HV_PAGE_MASK));
    if (l->stores == STORES || BYTES - l->used < len)
        longjmp(l->out, 1);
    l->store[l->stores].host = p->host;
    l->store[l->stores].len = len;
    l->store[l->stores++].at = l->used;
    memcpy(l->before + l->used, p->host, len);
    l->used += len;
}

/* Memory as it was. What page walks marked meanwhile in a page table that the block stores to is lost, too. */
static void take_back(struct lockstep *l)
{
    for (unsigned i = l->stores; i-- > 0;)
        memcpy(l->store[i].host, l->before + l->store[i].at, l->store[i].len);
}

/* ---- comparing ---- */

static const char *different(struct cpu *want, struct cpu *got, int want_r, int got_r)
{
    if (want_r != got_r)
        return "result";
    if (want_r == X_FAULT && (want->exc.vector != got->exc.vector || want->exc.error != got->exc.error ||
                              want->exc.has_error != got->exc.has_error ||
                              (want->exc.vector == VEC_PF && want->exc.cr2 != got->exc.cr2)))
        return "exception";
    if (memcmp(want->gpr, got->gpr, sizeof(want->gpr)))
        return "general registers";
    if (want->rip != got->rip)
        return "RIP";
    if (want->budget != got->budget)
        return "instruction count";
    if (cpu_rflags(want) != cpu_rflags(got))
        return "RFLAGS";
    for (unsigned i = 0; i < 16; i++) {
        if (memcmp(&want->xmm[i], &got->xmm[i], 16))
            return "XMM registers";
    }
    const struct x87 *a = &want->x87, *b = &got->x87;
    bool same = a->cw == b->cw && a->sw == b->sw && a->tag == b->tag && a->fip == b->fip && a->fdp == b->fdp &&
                a->fop == b->fop && a->fcs == b->fcs && a->fds == b->fds;
    for (unsigned i = 0; i < 8; i++)
        same = same && !memcmp(&a->st[i], &b->st[i], 10);
    if (!same)
        return "x87";
    if (want->mxcsr != got->mxcsr || want->mode != got->mode)
        return "MXCSR or mode";
    if (want->shadow != got->shadow || want->irq_held != got->irq_held || want->halted != got->halted)
        return "interrupt state";
    for (unsigned i = 0; i < 6; i++) {
        if (want->seg[i].base != got->seg[i].base || want->seg[i].sel != got->seg[i].sel)
            return "segments";
    }
    return want->kernel_gs_base != got->kernel_gs_base ? "GS bases" : NULL;
}

static void print_state(const char *who, struct cpu *c, int r)
{
    fprintf(stderr, "%-12s result %d rip %llx rflags %llx budget %d mxcsr %x", who, r, (unsigned long long)c->rip,
            (unsigned long long)cpu_rflags(c), c->budget, c->mxcsr);
    for (unsigned i = 0; i < 16; i++)
        fprintf(stderr, "%s%016llx", i % 4 ? " " : "\n    ", (unsigned long long)c->gpr[i]);
    for (unsigned i = 0; i < 16; i++)
        fprintf(stderr, "%s%016llx%016llx", i % 2 ? " " : "\n    ", (unsigned long long)c->xmm[i].u64[1],
                (unsigned long long)c->xmm[i].u64[0]);
    fputc('\n', stderr);
}

__attribute__((noreturn))
static void report(struct cpu *c, const struct block *b, const char *what, int want_r, int got_r)
{
    struct lockstep *l = c->lock;
    fprintf(stderr, "lock-step: translated code differs from the interpreter: %s\n", what);
    bool readonly;
    const uint8_t *host = soft_ram(c->soft, b->gpa & HV_PAGE_MASK, &readonly);
    for (unsigned at = 0; host && at < b->len;) {
        struct x86_insn in;
        char text[96];
        if (x86_decode(host + (b->gpa & ~HV_PAGE_MASK) + at, b->len - at, X86_MODE_64, &in))
            break;
        fprintf(stderr, "    %llx: %s\n", (unsigned long long)(l->from.rip + at),
                x86_format(&in, l->from.rip + at, text, sizeof(text)));
        at += in.len;
    }
    print_state("before", &l->from, 0);
    print_state("interpreter", &l->want, want_r);
    print_state("translator", c, got_r);
    fflush(stderr);
    abort();
}

/* ---- running ---- */

/* By the interpreter, from and back to the present state. False: it cannot be done twice. */
static bool interpret(struct cpu *c, struct op *op, int *ret)
{
    struct lockstep *l = c->lock;
    volatile bool done = false;
    l->table = tlb_in_force(c);
    l->stores = 0;
    l->used = 0;
    l->recording = true;
    c->tlb = l->empty;
    if (!setjmp(l->out)) {
        int r;
        do
            r = op->fn(c, op, c->cc);
        while (r == X_OK && c->rip == l->from.rip && c->budget > 0 && !c->code_dropped);
        *ret = r;
        done = true;
    }
    l->recording = false;
    c->blocks->patch = NULL;
    c->rmw.active = 0;
    if (done) {
        copy_state(&l->want, c);
        for (unsigned i = 0; i < l->stores; i++)
            memcpy(l->after + l->store[i].at, l->store[i].host, l->store[i].len);
    }
    take_back(l);
    copy_state(c, &l->from);
    return done;
}

int lockstep_entry(struct cpu *c, struct op *op, uint32_t cc)
{
    struct lockstep *l = c->lock;
    struct block *b = (struct block *)(void *)op - 1;
    op_handler *enter = c->code->enter;
    const int32_t loop = b->heat & HEAT_LOOP, runs = (b->heat & ~HEAT_LOOP) + 1, some = loop ? ROUNDS : 0;
    if (b->heat < 0)
        return enter(c, op, cc);
    b->heat = (runs < HEAT_LOOP - 1 ? runs : FIRST) | loop;
    if (runs > FIRST && runs % ONE_IN)
        return enter(c, op, cc);
    c->cc = cc;
    c->code_dropped = false;       /* of blocks before this one */
    const int32_t budget = c->budget;
    c->budget = some;              /* all end at the first jump, as nothing is linked; but loops */
    copy_state(&l->from, c);
    int want = X_OK;
    const bool twice = interpret(c, op, &want);
    int got = enter(c, op, cc);
    if (twice) {
        const char *what = different(&l->want, c, want, got);
        for (unsigned i = 0; i < l->stores && !what; i++) {
            if (memcmp(l->store[i].host, l->after + l->store[i].at, l->store[i].len))
                what = "memory";
        }
        /* Strings look at attention, which may have come in between; where an x87 exception is unmasked code is left. */
        const bool unmasked = x87_can_give(&l->from) && !x87_can_give(c);
        if (what && !atomic_load(&c->attention) && !unmasked)
            report(c, b, what, want, got);
        l->compared++;
    }
    c->budget += budget - some;
    return got;
}
