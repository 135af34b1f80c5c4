/*
 * Translator: near jumps, calls and returns, and the stack. Ends of blocks: see the head of
 * translate.h for what is checked where. SDM 2A, 2B.
 */
#include "hv/engine/soft/translate.h"

#define BLOCK(reg, field) rm_mem(reg, (int32_t)offsetof(struct block, field))

static void sub_budget(struct tr *t, unsigned n)
{
    emit_alu_imm(&t->e, 4, 5, CPU(budget), (int32_t)n, 0);
}

/* After sub_budget(): places to patch for "leave". */
static void attention(struct tr *t, uint8_t *leave[2])
{
    leave[0] = emit_jcc_later(&t->e, 0xe);
    emit_alu_imm(&t->e, 4, 7, CPU(attention), 0, 0);
    leave[1] = emit_jcc_later(&t->e, 5);
}

static bool same_again(const struct again *a, const struct again *b)
{
    return a->valid == b->valid && a->imm == b->imm && a->kind == b->kind && a->size == b->size && a->a == b->a &&
           a->b == b->b && a->value == b->value;
}

/* The flags are as the copies of the loop begin with, or become so; EFLAGS stay. */
static bool fits_copies(struct tr *t)
{
    if (t->again_loop)
        return !t->mem && same_again(&t->loop, &t->again);
    flags_save(t);
    return true;
}

/* A jump to the start of the block: does it go to the copies? The first one decides how they begin. */
static bool to_copies(struct tr *t)
{
    if (t->last == t->n || t->insn[t->i].op == X86_OP_CALL)
        return false;
    if (t->round == 0 && t->loops == 0) {
        t->again_loop = !t->mem && t->again.valid;
        t->loop = t->again;
    }
    return fits_copies(t) && (t->round || t->loops < ARRAY_SIZE(t->loop_from));
}

/* The end of a copy that has another one behind it: nothing to do but to get there. */
static bool go_onwards(struct tr *t)
{
    t->onwards = t->round && t->round < t->rounds && t->i == t->last && fits_copies(t);
    if (t->onwards)
        x87_note(t, (int)t->i);
    return t->onwards;
}

void jump_to(struct tr *t, int32_t off, unsigned n)
{
    struct emit *e = &t->e;
    const bool self = off == t->start, copies = self && to_copies(t), lazy = copies && t->again_loop;
    x87_note(t, (int)t->i);
    if (!lazy)
        flags_save(t);
    const bool in_page = off >= 0 && off < (int32_t)HV_PAGE_SIZE;
    struct jit_slot *s = cache_data(t->k, sizeof(*s));
    *s = (struct jit_slot){ .to = &t->c->blocks->none, .off = off, .key = t->b->mode & BLOCK_KEY,
                            .page = in_page ? t->b->gpa & HV_PAGE_MASK : BLOCK_NO_PAGE };
    uint8_t *leave[4];
    unsigned leaves = 0;
    sub_budget(t, t->base + n);
    if (!in_page) {
        attention(t, leave);
        emit_load(e, 8, T1, CPU(jit.page));
        emit_lea(e, 8, T1, rm_mem(T1, off));
        emit_load_rip(e, T2, &s->to);
        emit_rm(e, 8, 0x3b, T1, BLOCK(T2, vrip));
        leave[2] = emit_jcc_later(e, 5);
        emit_load(e, 8, T1, CPU(map_gen));
        emit_rm(e, 8, 0x3b, T1, BLOCK(T2, gen));
        leave[3] = emit_jcc_later(e, 5);
        leaves = 4;
        emit_load(e, 8, T1, BLOCK(T2, vrip));
        emit_alu_imm(e, 8, 4, rm_reg(T1), -(int32_t)HV_PAGE_SIZE, 0);
        emit_store(e, 8, CPU(jit.page), T1);
        emit_rm(e, 4, 0xff, 4, BLOCK(T2, code));
    } else {
        if (off <= t->at || t->look) {
            attention(t, leave);
            leaves = 2;
        }
        if (copies && t->round == 0)
            t->loop_from[t->loops++] = emit_jmp_later(e);
        else if (self)
            emit_jmp(e, copies ? t->loop_entry : t->entry);
        else
            emit_jmp_through(e, &s->code);
    }
    for (unsigned i = 0; i < leaves; i++)
        emit_patch(e, leave[i]);
    s->code = s->miss = e->p;
    if (lazy) {
        t->host = false;
        flags_save(t);
    }
    emit_lea_rip(e, T1, s);
    emit_jmp(e, t->k->exit_slot);
}

#define JUMP(field) rm_sib(H_RSP, T2, 0, (int32_t)(offsetof(struct cpu, jump) + offsetof(struct jump, field)))

/* T2 = the distance in jump[] of the entry for T1, which is lost; else the slow path. Nothing may be committed before this. */
static void find_block(struct tr *t)
{
    struct emit *e = &t->e;
    _Static_assert(sizeof(struct jump) == 32, "the index is scaled by a shift");
    emit_mov(e, 8, T2, T1);
    emit_rm(e, 8, 0xc1, 5, rm_reg(T2));
    put8(e, 12);
    emit_rm(e, 4, 0x33, T2, rm_reg(T1));
    emit_rm(e, 4, 0xc1, 4, rm_reg(T2));
    put8(e, 5);
    emit_alu_imm(e, 4, 4, rm_reg(T2), ((1 << BLOCK_JUMP_BITS) - 1) << 5, 0);
    emit_rm(e, 8, 0x3b, T1, JUMP(rip));
    slow_if(t, 5);
    emit_load(e, 8, T1, CPU(map_gen));
    emit_rm(e, 8, 0x3b, T1, JUMP(gen));
    slow_if(t, 5);
}

/* Go to the block of the entry in T2. */
static void jump_found(struct tr *t, unsigned n)
{
    struct emit *e = &t->e;
    uint8_t *leave[2];
    x87_note(t, (int)t->i);
    sub_budget(t, t->base + n);
    if (!t->c->lock) {
        attention(t, leave);
        emit_load(e, 8, T1, JUMP(rip));
        emit_alu_imm(e, 8, 4, rm_reg(T1), -(int32_t)HV_PAGE_SIZE, 0);
        emit_store(e, 8, CPU(jit.page), T1);
        emit_rm(e, 4, 0xff, 4, JUMP(code));
        emit_patch(e, leave[0]);
        emit_patch(e, leave[1]);
    }
    emit_load(e, 8, T1, JUMP(rip));
    emit_jmp(e, t->k->exit_rip);
}

static const struct addr stack_top = { .base = R_RSP, .index = X86_REG_NONE },
                         stack_next = { .base = R_RSP, .index = X86_REG_NONE, .disp = -8 };

static void move_rsp(struct tr *t, int32_t by)
{
    emit_lea(&t->e, 8, H_R13, rm_mem(H_R13, by));
}

/* ---- stack ---- */

static bool push(struct tr *t, const struct x86_insn *in)
{
    struct emit *e = &t->e;
    const struct x86_opnd *o = &in->opnd[0];
    unsigned spare;
    if (o->kind == X86_OPND_MEM) {
        struct addr a = addr_of(in);
        if (!addr_ok(t, &a))
            return false;
        struct rm m = addr_check(t, &a, 8, false, &spare);
        emit_load(e, 8, spare, m);
        emit_store(e, 8, CPU(jit.temp), spare);
    } else if (o->kind != X86_OPND_GPR && o->kind != X86_OPND_IMM) {
        return false;
    }
    struct rm m = addr_check(t, &stack_next, 8, true, &spare);
    if (o->kind == X86_OPND_IMM) {
        emit_rm(e, 8, 0xc7, 0, m);
        put32(e, (uint32_t)in->imm);
    } else if (o->kind == X86_OPND_GPR) {
        emit_store(e, 8, m, reg_in(t, o->reg, spare));
    } else {
        emit_load(e, 8, spare, CPU(jit.temp));
        emit_store(e, 8, m, spare);
    }
    move_rsp(t, -8);
    return true;
}

static bool pop(struct tr *t, const struct x86_insn *in)
{
    const struct x86_opnd *o = &in->opnd[0];
    unsigned spare;
    if (o->kind != X86_OPND_GPR)
        return false;
    struct rm m = addr_check(t, &stack_top, 8, false, &spare);
    if (o->reg == R_RSP) {
        emit_load(&t->e, 8, H_R13, m);
        return true;
    }
    unsigned r = pinned(o->reg) ? host_of(o->reg) : spare;
    emit_load(&t->e, 8, r, m);
    reg_out(t, o->reg, r);
    move_rsp(t, 8);
    return true;
}

static bool leave_frame(struct tr *t)
{
    const struct addr a = { .base = R_RBP, .index = X86_REG_NONE };
    unsigned spare;
    struct rm m = addr_check(t, &a, 8, false, &spare);
    emit_load(&t->e, 8, spare, m);
    emit_lea(&t->e, 8, H_R13, rm_mem(H_RBP, 8));
    emit_mov(&t->e, 8, H_RBP, spare);
    return true;
}

/* ---- jumps ---- */

static bool target(const struct tr *t, const struct x86_insn *in, int32_t *ret)
{
    int64_t off = (int64_t)in->imm + t->next;
    *ret = (int32_t)off;
    return off == (int32_t)off;
}

static bool jcc(struct tr *t, const struct x86_insn *in)
{
    int32_t off;
    if (!target(t, in, &off))
        return false;
    flags_load(t, T1);
    if (off == t->start && go_onwards(t)) {
        struct stub *s = stub_new(t, STUB_JUMP);
        s->off = t->next;
        s->from[s->froms++] = emit_jcc_later(&t->e, in->cc ^ 1u);
        return true;
    }
    if (off == t->start) {         /* a loop: stay in line */
        const bool mem = t->mem;
        uint8_t *over = emit_jcc_later(&t->e, in->cc ^ 1u);
        jump_to(t, off, t->i + 1);
        t->host = true;
        t->mem = mem;
        emit_patch(&t->e, over);
        return true;
    }
    struct stub *s = stub_new(t, STUB_JUMP);
    s->off = off;
    s->from[s->froms++] = emit_jcc_later(&t->e, in->cc);
    return true;
}

static void return_address(struct tr *t, struct rm m)
{
    emit_load(&t->e, 8, T1, CPU(jit.page));
    emit_lea(&t->e, 8, T1, rm_mem(T1, t->next));
    emit_store(&t->e, 8, m, T1);
    move_rsp(t, -8);
}

static bool call(struct tr *t, const struct x86_insn *in)
{
    int32_t off;
    unsigned spare;
    if (!target(t, in, &off))
        return false;
    flags_save(t);
    struct rm m = addr_check(t, &stack_next, 8, true, &spare);
    return_address(t, m);
    jump_to(t, off, t->i + 1);
    return true;
}

static bool ret(struct tr *t, const struct x86_insn *in)
{
    unsigned spare;
    flags_save(t);
    struct rm m = addr_check(t, &stack_top, 8, false, &spare);
    emit_load(&t->e, 8, T1, m);
    find_block(t);
    move_rsp(t, 8 + (in->nopnd ? (int32_t)(in->imm & 0xffff) : 0));
    jump_found(t, t->i + 1);
    return true;
}

static bool indirect(struct tr *t, const struct x86_insn *in, bool calls)
{
    struct emit *e = &t->e;
    const struct x86_opnd *o = &in->opnd[0];
    unsigned spare;
    if (o->kind == X86_OPND_MEM) {
        struct addr a = addr_of(in);
        if (!addr_ok(t, &a))
            return false;
        flags_save(t);
        struct rm m = addr_check(t, &a, 8, false, &spare);
        emit_load(e, 8, T1, m);
    } else if (o->kind == X86_OPND_GPR) {
        flags_save(t);
        t->host = false;
        if (pinned(o->reg))
            emit_mov(e, 8, T1, host_of(o->reg));
        else
            emit_load(e, 8, T1, guest_slot(o->reg));
    } else {
        return false;
    }
    find_block(t);
    if (calls) {
        emit_store(e, 8, CPU(jit.temp), T2);
        struct rm m = addr_check(t, &stack_next, 8, true, &spare);
        return_address(t, m);
        emit_load(e, 8, T2, CPU(jit.temp));
    }
    jump_found(t, t->i + 1);
    return true;
}

bool translate_flow(struct tr *t, const struct x86_insn *in)
{
    int32_t off;
    switch (in->op) {
    case X86_OP_PUSH: return in->opsize == 8 && push(t, in);
    case X86_OP_POP: return in->opsize == 8 && pop(t, in);
    case X86_OP_LEAVE: return in->opsize == 8 && leave_frame(t);
    case X86_OP_JCC: return jcc(t, in);
    case X86_OP_CALL: return in->opsize == 8 && call(t, in);
    case X86_OP_RET: return in->opsize == 8 && ret(t, in);
    case X86_OP_CALL_IND: return in->opsize == 8 && in->adsize != 2 && indirect(t, in, true);
    case X86_OP_JMP_IND: return in->opsize == 8 && in->adsize != 2 && indirect(t, in, false);
    case X86_OP_JMP:
        if (!target(t, in, &off))
            return false;
        if (off != t->start || !go_onwards(t))
            jump_to(t, off, t->i + 1);
        return true;
    default: return false;
    }
}
