/*
 * Translator: a block from its bytes to host code, and when that happens. translate.h has the design.
 */
#include "hv/engine/soft/translate.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "hv/engine/soft/flags.h"
#include "hv/engine/soft/lockstep.h"
#include "hv/engine/soft/soft.h"

/*
 * 64, 256 and 512 runs boot a kernel in the same time; code memory after it is 12, 6 and 4 MiB. Nine blocks
 * of ten never run so often.
 */
#define THRESHOLD 256
#define PROVED 16                  /* so many times sooner if it was hot before */

int translate_threshold(void)
{
    const char *s = getenv("HV_SOFT_TRANSLATE");
    if (!s)
        return THRESHOLD;
    return strcmp(s, "off") == 0 ? -1 : strcmp(s, "lockstep") == 0 ? TRANSLATE_LOCKSTEP : (int)strtol(s, NULL, 10);
}

/* ---- flags ---- */

static void again_imm(struct emit *e, unsigned size, uint32_t v)
{
    for (unsigned i = 0; i < MIN(size, 4u); i++)
        put8(e, (uint8_t)(v >> 8 * i));
}

/* ADD (digit 0) or SUB (5) of a recipe's second operand. */
static void again_operand(struct emit *e, const struct again *a, unsigned digit, unsigned to)
{
    if (a->imm)
        emit_alu_imm(e, a->size, digit, rm_reg(to), a->value, 0);
    else
        emit_rm(e, a->size, digit * 8 + (a->size == 1 ? 2u : 3u), to, rm_reg(a->b));
}

/* c->cc into EFLAGS. */
static void load_cc(struct emit *e, unsigned scratch)
{
    emit_mov(e, 8, scratch, H_RAX);
    emit_load(e, 4, H_RAX, CPU(cc));
    emit_alu_imm(e, 1, 0, rm_reg(H_RAX), 0x7f, 0);
    put8(e, 0x9e);                                       /* SAHF */
    emit_mov(e, 8, H_RAX, scratch);
}

/* ROL (0) or ROR (1) of a recipe's register. */
static void again_rotate(struct emit *e, const struct again *a, unsigned digit)
{
    emit_rm(e, a->size, 0xc1, digit, rm_reg(a->a));
    put8(e, (uint8_t)a->value);
}

/* The flags of a recipe into EFLAGS. */
static void flags_again(struct emit *e, const struct again *a, unsigned scratch)
{
    const bool byte = a->size == 1;
    switch ((enum again_kind)a->kind) {
    case AGAIN_CMP:
        again_operand(e, a, 7, a->a);
        return;
    case AGAIN_TEST:
        emit_rm(e, a->size, a->imm ? (byte ? 0xf6u : 0xf7u) : byte ? 0x84u : 0x85u, a->imm ? 0 : a->a,
                rm_reg(a->imm ? a->a : a->b));
        if (a->imm)
            again_imm(e, a->size, (uint32_t)a->value);
        return;
    case AGAIN_ADD: case AGAIN_SUB:
        emit_mov(e, 8, scratch, a->a);
        again_operand(e, a, a->kind == AGAIN_ADD ? 5 : 0, scratch);
        again_operand(e, a, a->kind == AGAIN_ADD ? 0 : 5, scratch);
        return;
    case AGAIN_NEG:
        emit_mov(e, 8, scratch, a->a);
        emit_rm(e, a->size, byte ? 0xf6 : 0xf7, 3, rm_reg(scratch));
        emit_rm(e, a->size, byte ? 0xf6 : 0xf7, 3, rm_reg(scratch));
        return;
    case AGAIN_INC: case AGAIN_DEC:
        emit_lea(e, 8, scratch, rm_mem(a->a, a->kind == AGAIN_INC ? -1 : 1));
        put8(e, 0xf8);                                   /* CLC */
        emit_rm(e, a->size, byte ? 0xfe : 0xff, a->kind == AGAIN_INC ? 0 : 1, rm_reg(scratch));
        return;
    case AGAIN_ROL: case AGAIN_ROR:
        again_rotate(e, a, a->kind == AGAIN_ROL ? 1 : 0);
        load_cc(e, scratch);
        again_rotate(e, a, a->kind == AGAIN_ROL ? 0 : 1);
        return;
    }
}

/* Flags that are in no place are put into EFLAGS. */
static void make_flags(struct tr *t, unsigned scratch)
{
    if (t->host || t->mem)
        return;
    hv_assert(t->again.valid);
    flags_again(&t->e, &t->again, scratch);
    t->host = true;
}

void flags_clobber(struct tr *t)
{
    if (!t->again.valid)
        flags_save(t);
    t->host = false;
}

/*
 * Before an instruction: does it change what the comparison was made with? Known to write their first operand
 * at most are those listed; anything else may write any register.
 */
static bool changes_compared(const struct x86_insn *in, const struct again *a)
{
    uint32_t written = 0;
    switch (in->op) {
    case X86_OP_CMP: case X86_OP_TEST: case X86_OP_JCC: case X86_OP_NOP: case X86_OP_ENDBR64: case X86_OP_JMP:
        break;
    case X86_OP_PUSH: case X86_OP_CALL:
        written = 1u << R_RSP;
        break;
    case X86_OP_POP:
        written = 1u << R_RSP;
        /* fallthrough */
    case X86_OP_MOV: case X86_OP_MOVZX: case X86_OP_MOVSX: case X86_OP_MOVSXD: case X86_OP_LEA: case X86_OP_ADD:
    case X86_OP_SUB: case X86_OP_AND: case X86_OP_OR: case X86_OP_XOR: case X86_OP_ADC: case X86_OP_SBB:
    case X86_OP_INC: case X86_OP_DEC: case X86_OP_NEG: case X86_OP_NOT: case X86_OP_SHL: case X86_OP_SHR:
    case X86_OP_SAR: case X86_OP_ROL: case X86_OP_ROR: case X86_OP_CMOVCC: case X86_OP_SETCC: case X86_OP_BSWAP:
    case X86_OP_MOVAPS: case X86_OP_MOVUPS: case X86_OP_MOVDQA: case X86_OP_MOVDQU:
        if (in->opnd[0].kind == X86_OPND_GPR)
            written |= 1u << (in->opnd[0].reg >= 16 ? in->opnd[0].reg - 16 : in->opnd[0].reg);
        break;
    default:
        if (!cpu_fpu_ops[in->op].fn)
            return true;
        if (in->opnd[0].kind == X86_OPND_GPR)
            written = 1u << (in->opnd[0].reg & 15);
    }
    for (unsigned g = 0; g <= 12; g++) {
        if (written >> g & 1 && (host_of(g) == a->a || (!a->imm && host_of(g) == a->b)))
            return true;
    }
    return false;
}

void flags_save(struct tr *t)
{
    if (t->mem)
        return;
    make_flags(t, T1);
    emit_mov(&t->e, 8, T1, H_RAX);
    put8(&t->e, 0x9f);                                   /* LAHF */
    emit_rm(&t->e, 1, OP_0F | 0x90, 0, rm_reg(H_RAX));   /* SETO AL */
    emit_store(&t->e, 4, CPU(cc), H_RAX);
    emit_mov(&t->e, 8, H_RAX, T1);
    t->mem = true;
}

void flags_load(struct tr *t, unsigned scratch)
{
    make_flags(t, scratch);
    if (t->host)
        return;
    load_cc(&t->e, scratch);
    t->host = true;
}

void flags_load_carry(struct tr *t)
{
    if (!t->mem) {
        make_flags(t, T1);
        return;
    }
    emit_rm(&t->e, 4, OP_0F | 0xba, 4, CPU(cc));         /* BT */
    put8(&t->e, 8);
}

void flags_keep(struct tr *t, unsigned scratch)
{
    if (!t->dead[t->i + 1])
        flags_load(t, scratch);
}

static void find_dead(struct tr *t)
{
    uint32_t live = CC_ALL;
    t->dead[t->n] = false;
    for (unsigned i = t->n; i-- > 0;) {
        struct flag_use u = lower_flag_use(&t->insn[i]);
        live = u.barrier ? CC_ALL : (live & ~u.write) | u.read;
        t->dead[i] = !live;
    }
}

/* ---- stubs and call-outs ---- */

struct stub *stub_new(struct tr *t, unsigned kind)
{
    hv_assert(t->stubs < ARRAY_SIZE(t->stub));
    struct stub *s = &t->stub[t->stubs++];
    *s = (struct stub){ .kind = (uint8_t)kind, .insn = (uint8_t)t->i, .base = t->base, .host = t->host, .mem = t->mem };
    return s;
}

void slow_if(struct tr *t, unsigned cc)
{
    if (!t->slow) {
        t->slow = stub_new(t, STUB_SLOW);
        if (!t->mem)
            t->slow->lazy = t->again;
    }
    t->slow->from[t->slow->froms++] = emit_jcc_later(&t->e, cc);
}

/* Run instruction i as a call-out and go on behind this code, unless it ends the block. Flags are saved. */
static void call_out(struct tr *t, unsigned i)
{
    const struct x86_insn *in = &t->insn[i];
    const struct op_desc *d = in->op == X86_OP_STI && i + 1 < t->n ? lower_sti_inner()
                                                                   : lower_find_callout(in, t->b->mode);
    struct jit_call *k = cache_data(t->k, sizeof(*k));
    x87_note(t, (int)i - 1);
    *k = (struct jit_call){ .fn = d->fn, .off = (uint16_t)t->pos[i], .n = (uint8_t)(t->base + i + 1), .in = *in,
                            .x87 = i + 1 < t->x87_until, .end = lower_ends_block(in, t->b->mode) || in->op == X86_OP_JCC ||
                                   (in->op == X86_OP_STI && i + 1 == t->n) };
    emit_lea_rip(&t->e, T1, k);
    if (k->end) {
        emit_jmp(&t->e, t->k->call);
        return;
    }
    emit_lea_rip(&t->e, T2, t->e.p + 7 + 5);
    emit_jmp(&t->e, t->k->call);
    if (i + 1 < t->x87_until) {    /* not refused: callout() would have left */
        emit_lea_rip(&t->e, T2, t->e.p + 7 + 5);
        emit_jmp(&t->e, t->k->x87);
    }
    if (i + 1 < t->xmm_until) {
        emit_lea_rip(&t->e, T2, t->e.p + 7 + 5);
        emit_jmp(&t->e, t->k->xmm);
    }
}

static void emit_stub(struct tr *t, const struct stub *s)
{
    for (unsigned i = 0; i < s->froms; i++)
        emit_patch(&t->e, s->from[i]);
    t->i = s->insn;
    t->base = s->base;
    t->at = t->pos[s->insn];
    t->next = t->at + t->insn[s->insn].len;
    if (s->kind == STUB_JUMP) {
        t->host = s->host;
        t->mem = s->mem;
        t->again.valid = false;
        flags_save(t);
        jump_to(t, s->off, s->insn + 1u);
        return;
    }
    if (s->kind == STUB_X87) {
        emit_mov_imm(&t->e, T1, (uint64_t)(uintptr_t)t->b);
        emit_store(&t->e, 8, CPU(jit.temp), T1);
        emit_lea_rip(&t->e, T2, s->back);
        emit_jmp(&t->e, t->k->x87);
        return;
    }
    if (s->kind == STUB_XMM) {
        emit_lea_rip(&t->e, T2, s->back);
        emit_jmp(&t->e, t->k->xmm);
        return;
    }
    if (s->lazy.valid) {
        flags_again(&t->e, &s->lazy, T1);
        t->host = true;
        t->mem = false;
        flags_save(t);
    }
    call_out(t, s->insn);
    if (!s->back)
        return;
    if (s->load) {
        t->host = false;
        t->mem = true;
        flags_load(t, T1);
    }
    emit_jmp(&t->e, s->back);
}

/* ---- a block ---- */

static bool is_nop(const struct x86_insn *in)
{
    switch (in->op) {
    case X86_OP_NOP: case X86_OP_ENDBR32: case X86_OP_ENDBR64: case X86_OP_PREFETCHNTA: case X86_OP_PREFETCHT0:
    case X86_OP_PREFETCHT1: case X86_OP_PREFETCHT2: case X86_OP_PREFETCHW: case X86_OP_PREFETCH:
        return true;
    default:
        return false;
    }
}

static void one(struct tr *t)
{
    const struct x86_insn *in = &t->insn[t->i];
    const bool ends = lower_ends_block(in, t->b->mode);
    t->at = t->pos[t->i];
    t->next = t->at + in->len;
    t->slow = NULL;
    if (is_nop(in))
        return;
    if (t->again.valid && changes_compared(in, &t->again) && !rotate_later(t, in)) {
        if (!t->dead[t->i])
            make_flags(t, T1);
        else if (!t->mem)
            t->host = true;        /* whatever is there: nobody looks */
        t->again.valid = false;
    }
    if (!translate_int(t, in) && !translate_flow(t, in) && !translate_sse(t, in) && !translate_sys(t, in) &&
        !translate_x87(t, in)) {
        flags_save(t);
        call_out(t, t->i);
        t->out[t->i] = true;
        t->host = t->again.valid = t->no_carry = false;
        t->mem = true;
    } else if (t->slow && !ends) {
        t->slow->back = t->e.p;
        t->slow->load = t->host;
    }
    t->ended = ends;
}

/* Decode b once more; its bytes may be changing under our feet, in which case it is about to be dropped. */
static unsigned decode(struct cpu *c, const struct block *b, struct x86_insn *insn)
{
    uint8_t buf[BLOCK_MAX_INSNS * X86_MAX_INSN];
    bool readonly;
    const uint8_t *host = soft_ram(c->soft, b->gpa & HV_PAGE_MASK, &readonly);
    unsigned n = 0, pos = 0;
    if (!host || b->len > sizeof(buf))
        return 0;
    memcpy(buf, host + (b->gpa & ~HV_PAGE_MASK), b->len);
    while (pos < b->len && n < BLOCK_MAX_INSNS) {
        struct x86_insn *in = &insn[n++];
        int r = x86_decode(buf + pos, b->len - pos, X86_MODE_64, in);
        if (r == -EAGAIN || r == -E2BIG)
            return 0;              /* the INT3 that ended the block is the first byte of something else by now */
        if (r) {
            unsigned len = in->len;
            *in = (struct x86_insn){ .op = X86_OP_INVALID, .len = (uint8_t)MAX(len, 1u) };
        }
        in->op = (uint16_t)int_op_shown(c, in->op);
        pos += in->len;
        if (lower_ends_block(in, b->mode) || (n > 1 && lower_after_sti(&in[-1])))
            break;
    }
    return pos == b->len && insn[0].op == b->first ? n : 0;
}

/* The instructions of the block; what comes behind them is at `end`. */
static void ask_for(struct tr *t, unsigned kind, struct rm flag)
{
    emit_alu_imm(&t->e, 1, 7, flag, 0, 0);
    struct stub *s = stub_new(t, kind);
    s->from[s->froms++] = emit_jcc_later(&t->e, 4);
    s->back = t->e.p;
}

/* Instructions 0 to last; what comes behind them is at `end`. */
static void copy(struct tr *t, unsigned last, int32_t end)
{
    t->ended = t->onwards = false;
    for (t->i = 0; t->i <= last; t->i++)
        one(t);
    t->i = last;
    if (!t->ended && !t->onwards) {
        t->at = t->pos[last];
        jump_to(t, end, last + 1);
    }
}

/* The first jump back to the start; n: none. */
static unsigned find_loop(const struct tr *t)
{
    for (unsigned i = 0; i < t->n; i++) {
        const struct x86_insn *in = &t->insn[i];
        if ((in->op == X86_OP_JCC || in->op == X86_OP_JMP) && (int64_t)in->imm + t->pos[i] + in->len == t->start)
            return i;
    }
    return t->n;
}

/* Copies of the loop, if something jumps to them. */
static void copy_loop(struct tr *t)
{
    /* In lock-step up to where the interpreter gets. */
    const unsigned last = t->c->lock ? t->n - 1 : t->last;
    const int32_t end = t->pos[last] + t->insn[last].len;
    t->loop_entry = t->e.p;
    for (unsigned i = 0; i < t->loops; i++)
        emit_patch(&t->e, t->loop_from[i]);
    for (t->round = 1; t->round <= t->rounds; t->round++) {
        t->host = t->no_carry = t->again.valid = false;
        t->mem = !t->again_loop;
        if (t->again_loop)
            t->again = t->loop;
        copy(t, last, end);
        t->base += last + 1;
        if (!t->onwards)
            break;
    }
}

static void translate(struct cpu *c, struct block *b)
{
    struct code_cache *k = c->code;
    struct x86_insn insn[BLOCK_MAX_INSNS];
    unsigned table = b->mode & MODE_USER ? TLB_USER : b->mode & MODE_SUPER_AC ? TLB_SUPER_AC : TLB_SUPER;
    struct tr t = { .c = c, .k = k, .b = b, .insn = insn, .mem = true, .start = (int32_t)(b->gpa & ~HV_PAGE_MASK),
                    .e = { k->base + k->code_used, k->base + k->code_size },
                    .tlb = (int)(offsetof(struct cpu, tlb_table) + table * sizeof(c->tlb_table[0])) };
    t.n = decode(c, b, insn);
    if (!t.n) {
        k->refused++;
        return;
    }
    int32_t pos = t.start;
    for (unsigned i = 0; i < t.n; pos += insn[i++].len)
        t.pos[i] = (uint16_t)pos;
    t.look = t.n > 1 && lower_after_sti(&insn[t.n - 2]);
    find_dead(&t);
    t.entry = t.e.p;
    for (unsigned i = 0; i < t.n; i++) {
        if (translate_sse_known(&t, &insn[i]))
            t.xmm_until = i + 1;
        if (translate_x87_known(&t, &insn[i]))
            t.x87_until = i + 1;
    }
    t.last = find_loop(&t);
    if (t.last < t.n) {            /* behind every call-out too: then the copies need not ask */
        t.rounds = c->lock || t.look ? 1 : MIN(MAX(LOOP_INSNS / (t.last + 1), 1u), LOOP_COPIES);
        t.xmm_until = t.xmm_until ? t.n + 1 : 0;
        t.x87_until = t.x87_until ? t.n + 1 : 0;
    }
    if (t.x87_until)
        ask_for(&t, STUB_X87, CPU(jit.x87));
    if (t.xmm_until)
        ask_for(&t, STUB_XMM, CPU(jit.live));
    copy(&t, t.n - 1, pos);
    if (t.loops)
        copy_loop(&t);
    for (unsigned i = 0; i < t.stubs; i++)
        emit_stub(&t, &t.stub[i]);
    hv_assert(t.e.p < t.e.end);
    k->code_used = ROUND_UP((size_t)(t.e.p - k->base), (size_t)16);
    k->translated++;
    block_proved(c, b);
    b->code = t.entry;
    b->entry = k->enter;
    if (c->lock) {
        b->heat = lockstep_heat(insn, t.n, t.last < t.n);
        b->entry = lockstep_entry;
    }
    block_jump_update(c, b);
}

void translate_pending(struct cpu *c)
{
    struct code_cache *k = c->code;
    if (!k || !k->queued)
        return;
    if (!cache_has_room(k) && !cache_grow(k, c->insns)) {
        translate_drop_all(c);
        return;
    }
    if (!cache_writable(k, true))
        goto fail;
    for (unsigned i = 0; i < k->queued; i++) {
        if (k->queue[i]->gen && cache_has_room(k))
            translate(c, k->queue[i]);
    }
    k->queued = 0;
    if (cache_writable(k, false))
        return;
fail:                              /* no more executable memory from the host */
    k->threshold = -1;
    translate_drop_all(c);
}

/* The entry of a block that may become hot. */
static int warm(struct cpu *c, struct op *op, uint32_t cc)
{
    struct block *b = (struct block *)(void *)op - 1;
    struct code_cache *k = c->code;
    if (--b->heat > 0)
        return op->fn(c, op, cc);
    b->entry = op->fn;
    k->queue[k->queued++] = b;
    if (k->queued == CODE_QUEUE || k->threshold == 0)
        translate_pending(c);
    return b->entry(c, op, cc);
}

void translate_new_block(struct cpu *c, struct block *b)
{
    const struct code_cache *k = c->code;
    b->in = NULL;
    b->code = k ? k->interpret : NULL;
    b->entry = b->op[0].fn;
    if (!k || k->threshold < 0 || (b->mode & (MODE_CODE64 | BLOCK_ONE)) != MODE_CODE64 || b->gpa2 != BLOCK_NO_PAGE)
        return;
    b->heat = b->proved ? k->threshold / PROVED : k->threshold;
    b->entry = warm;
}

const void *translate_code(const struct cpu *c, const struct block *b)
{
    return !c->code ? NULL : b->code == c->code->interpret ? c->code->interpret_jump : b->code;
}

/* ---- links ---- */

void translate_link(struct cpu *c, struct block *b)
{
    struct jit_slot *s = c->jit.slot;
    c->jit.slot = NULL;
    if ((b->mode & BLOCK_KEY) != s->key || c->lock)
        return;
    if (s->page == BLOCK_NO_PAGE) {
        s->to = b;
        return;
    }
    if (b->code == c->code->interpret || s->code != s->miss || (b->gpa & HV_PAGE_MASK) != s->page ||
        (b->gpa & ~HV_PAGE_MASK) != (gpa_t)s->off)
        return;
    s->code = b->code;
    s->next = b->in;
    b->in = s;
}

void translate_drop(struct cpu *c, struct block *b)
{
    for (struct jit_slot *s = b->in; s; s = s->next)
        s->code = s->miss;
    b->in = NULL;
    if (c->code)
        b->code = c->code->interpret;
    b->entry = b->op[0].fn;
}

void translate_drop_all(struct cpu *c)
{
    struct code_cache *k = c->code;
    if (!k)
        return;
    struct block_cache *bc = c->blocks;
    for (size_t i = 0; i < ARRAY_SIZE(bc->hash); i++) {
        for (struct block *b = bc->hash[i]; b; b = b->hash_next) {
            translate_new_block(c, b);
            block_jump_update(c, b);
        }
    }
    cache_clear(k);
    k->flushes++;
    c->jit.slot = NULL;
}

/* ---- life ---- */

void translate_init(struct cpu *c, int threshold)
{
    const bool lock = threshold == TRANSLATE_LOCKSTEP;
    struct code_cache *k = threshold < 0 && !lock ? NULL : hv_alloc(sizeof(*k));
    if (!k)
        return;
    threshold = MAX(threshold, 0);
    size_t size = MIN(MAX(CODE_TOTAL / c->soft->cfg.vcpus, CODE_MIN), CODE_MAX);
    k->data_size = ROUND_UP(size / 3, (size_t)HV_PAGE_SIZE);
    k->code_size = size - k->data_size;
    cache_start(k);
    k->base = code_region_part(c->soft, c->vp, size);
    if (!k->base) {
        free(k);
        return;
    }
    k->threshold = threshold;
    c->jit.mxcsr_default = 0x1f80;
    cache_thunks(k);
    if (!cache_writable(k, false)) {
        free(k);
        return;
    }
    c->code = k;
    if (lock)
        c->lock = lockstep_new();
}

void translate_fini(struct cpu *c)
{
    lockstep_free(c->lock);
    c->lock = NULL;
    struct code_cache *k = c->code;
    if (!k)
        return;
    free(k);                           /* its memory is the region's */
    c->code = NULL;
}
