/*
 * Translator: what kernels do all the time and needs no call-out at CPL 0 (interrupt flag, SWAPGS,
 * PUSHF, reading segment registers), and division, whose faults are found before the host has
 * them. SDM 2A, 2B.
 */
#include "hv/engine/soft/flags.h"
#include "hv/engine/soft/translate.h"

static struct rm seg_field(unsigned seg, size_t field)
{
    return rm_mem(H_RSP, (int32_t)(offsetof(struct cpu, seg) + seg * sizeof(struct seg) + field));
}

static void clobber_flags(struct tr *t)
{
    flags_save(t);
    t->host = false;
}

static void rflags_and(struct tr *t, uint32_t mask)
{
    clobber_flags(t);
    emit_alu_imm(&t->e, 4, 4, CPU(rflags), (int32_t)mask, 0);
}

/* Interrupts that IF = 0 held off are the call-out's business; the instruction behind it is in the block (lower.c). */
static bool sti(struct tr *t)
{
    if (t->i + 1 == t->n)
        return false;
    clobber_flags(t);
    emit_alu_imm(&t->e, 1, 7, CPU(irq_held), 0, 0);
    slow_if(t, 5);
    emit_alu_imm(&t->e, 4, 1, CPU(rflags), FL_IF, 0);
    return true;
}

static bool swapgs(struct tr *t)
{
    struct emit *e = &t->e;
    struct rm base = seg_field(X86_SEG_GS, offsetof(struct seg, base));
    emit_load(e, 8, T1, base);
    emit_load(e, 8, T2, CPU(kernel_gs_base));
    emit_store(e, 8, base, T2);
    emit_store(e, 8, CPU(kernel_gs_base), T1);
    return true;
}

/* As cpu_rflags(), without VM and RF. */
static bool pushf(struct tr *t)
{
    struct emit *e = &t->e;
    const struct addr next = { .base = R_RSP, .index = X86_REG_NONE, .disp = -8 };
    unsigned spare;
    clobber_flags(t);
    emit_rm(e, 4, OP_0F | 0xb6, T2, rm_mem(H_RSP, (int32_t)offsetof(struct cpu, cc) + 1));
    emit_alu_imm(e, 4, 4, rm_reg(T2), 0xd5, 0);
    emit_load(e, 4, T1, CPU(rflags));
    emit_alu_imm(e, 4, 4, rm_reg(T1), (int32_t)~(uint32_t)(FL_ARITH | FL_VM | FL_RF), 0);
    emit_rm(e, 4, 0x0b, T1, rm_reg(T2));
    emit_load(e, 4, T2, CPU(cc));
    emit_alu_imm(e, 4, 4, rm_reg(T2), CC_OF, 0);
    emit_rm(e, 4, 0xc1, 4, rm_reg(T2));
    put8(e, 11);
    emit_rm(e, 4, 0x0b, T1, rm_reg(T2));
    emit_alu_imm(e, 4, 1, rm_reg(T1), 2, 0);
    emit_store(e, 8, CPU(jit.temp), T1);
    struct rm m = addr_check(t, &next, 8, true, &spare);
    emit_load(e, 8, spare, CPU(jit.temp));
    emit_store(e, 8, m, spare);
    emit_lea(e, 8, H_R13, rm_mem(H_R13, -8));
    return true;
}

static bool mov_from_seg(struct tr *t, const struct x86_insn *in)
{
    const struct x86_opnd *d = &in->opnd[0];
    if (d->kind != X86_OPND_GPR || d->size < 4 || in->opnd[1].kind != X86_OPND_SEG || in->opnd[1].reg >= X86_SEG_COUNT)
        return false;
    unsigned r = pinned(d->reg) ? host_of(d->reg) : T1;
    emit_rm(&t->e, 4, OP_0F | 0xb7, r, seg_field(in->opnd[1].reg, offsetof(struct seg, sel)));
    reg_out(t, d->reg, r);
    return true;
}

/*
 * The quotient fits if the high half is below the divisor. Of IDIV only the usual is done here: a dividend that
 * is no wider than the divisor, which is neither 0 nor -1. Flags stay (SDM: undefined).
 */
static bool divide(struct tr *t, const struct x86_insn *in)
{
    struct emit *e = &t->e;
    const unsigned s = in->opnd[0].size;
    const bool mem = in->opnd[0].kind == X86_OPND_MEM, is_signed = in->op == X86_OP_IDIV;
    unsigned spare = T1;
    if (s < 4 || (!mem && in->opnd[0].kind != X86_OPND_GPR))
        return false;
    struct addr a = addr_of(in);
    if (mem && (in->adsize == 2 || !addr_ok(t, &a)))
        return false;
    clobber_flags(t);
    struct rm m = mem ? addr_check(t, &a, s, false, &spare) : reg_rm(in->opnd[0].reg);
    if (!is_signed) {
        emit_rm(e, s, 0x3b, H_RDX, m);
        slow_if(t, 3);
        emit_rm(e, s, 0xf7, 6, m);
        return true;
    }
    unsigned d = m.reg;
    if (m.mem) {
        d = spare;
        emit_load(e, s, d, m);
    }
    const unsigned x = d == T1 ? T2 : T1;
    emit_mov(e, s, x, H_RAX);
    emit_rm(e, s, 0xc1, 7, rm_reg(x));
    put8(e, (uint8_t)(s * 8 - 1));
    emit_rm(e, s, 0x3b, x, rm_reg(H_RDX));
    slow_if(t, 5);
    emit_lea(e, s, x, rm_mem(d, 1));
    emit_alu_imm(e, s, 7, rm_reg(x), 1, 0);
    slow_if(t, 6);
    emit_rm(e, s, 0xf7, 7, rm_reg(d));
    return true;
}

bool translate_sys(struct tr *t, const struct x86_insn *in)
{
    const bool cpl0 = t->b->mode & MODE_CPL0;
    switch (in->op) {
    case X86_OP_CLI:
        if (cpl0)
            rflags_and(t, (uint32_t)~FL_IF);
        return cpl0;
    case X86_OP_CLD:
        rflags_and(t, (uint32_t)~FL_DF);
        return true;
    case X86_OP_STI: return cpl0 && sti(t);
    case X86_OP_SWAPGS: return cpl0 && swapgs(t);
    case X86_OP_PUSHF: return in->opsize == 8 && pushf(t);
    case X86_OP_MOV_SEG: return mov_from_seg(t, in);
    case X86_OP_DIV: case X86_OP_IDIV: return divide(t, in);
    case X86_OP_PAUSE:
        put8(&t->e, 0xf3);
        put8(&t->e, 0x90);
        return true;
    case X86_OP_LFENCE: case X86_OP_MFENCE: case X86_OP_SFENCE:
        put8(&t->e, 0x0f);
        put8(&t->e, 0xae);
        put8(&t->e, in->op == X86_OP_LFENCE ? 0xe8 : in->op == X86_OP_MFENCE ? 0xf0 : 0xf8);
        return true;
    default: return false;
    }
}
