/*
 * Translator: x87 and MMX, emitted as they are. While c->jit.x87 is set the host's x87 is the guest's, control word,
 * status, stack and all: a block with such instructions begins by asking for that, whoever calls C or
 * leaves takes it back into c->x87, and C finds the x87 as the calling convention wants it.
 *
 * Only with all exceptions masked: then the host raises none either. Otherwise the state is not given, and the block
 * is interpreted; FLDCW with a mask clear is a call-out. FIP is noted where C could look, from the place
 * of the last instruction; FOP and FDP change with unmasked exceptions only (CPUID.7.EBX bit 6). SDM 1, 8.1.
 */
#include "hv/base/endian.h"
#include "hv/engine/soft/translate.h"
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"
#include "hv/engine/soft/x87.h"

/* FNSAVE and FRSTOR, 32-bit protected mode: SDM 1, figure 8-9. */
struct image { uint8_t cw[4], sw[4], tag[4], pointers[16], st[8][10]; };
_Static_assert(sizeof(struct image) == 108, "SDM 1, figure 8-9");

static bool maskless(const struct cpu *c) { return (c->x87.cw & X87_FLAGS) != X87_FLAGS; }

bool x87_give(struct cpu *c)
{
    const struct x87 *f = &c->x87;
    struct image i;
    if (maskless(c))
        return false;
    put_le32(i.cw, f->cw | 0xffff0000u);
    put_le32(i.sw, f->sw | 0xffff0000u);
    uint32_t tags = 0xffff0000u;
    for (unsigned r = 0; r < 8; r++)
        tags |= f->tag >> r & 1 ? 0 : 3u << 2 * r;           /* empty, or not: the CPU finds out the rest */
    put_le32(i.tag, tags);
    memset(i.pointers, 0, sizeof(i.pointers));
    for (unsigned r = 0; r < 8; r++)
        memcpy(i.st[r], &f->st[(X87_TOP(f->sw) + r) & 7], 10);
    __asm__ volatile("frstor %0" : : "m"(i));
    c->jit.x87 = true;
    c->jit.x87_ran = false;
    return true;
}

void x87_take(struct cpu *c)
{
    struct x87 *f = &c->x87;
    struct image i;
    __asm__ volatile("fnsave %0" : "=m"(i));
    f->cw = get_le16(i.cw);
    f->sw = get_le16(i.sw);
    const unsigned tags = get_le16(i.tag);
    f->tag = 0;
    for (unsigned r = 0; r < 8; r++) {
        f->tag |= (uint8_t)(((tags >> 2 * r & 3) != 3) << r);
        memcpy(&f->st[(X87_TOP(f->sw) + r) & 7], i.st[r], 10);
    }
    if (c->jit.x87_ran)
        f->fcs = c->seg[X86_SEG_CS].sel;
    c->jit.x87 = false;
}

bool x87_can_give(const struct cpu *c) { return !maskless(c); }

/* ---- instructions ---- */

/* Changes FIP. */
static bool computes(const struct x86_insn *in)
{
    return cpu_fpu_ops[in->op].fn == x87_exec && !(in->op == X86_OP_FNOP && (in->opcode & 7) == 3);
}

bool translate_x87_known(const struct tr *t, const struct x86_insn *in)
{
    if (t->b->mode & MODE_NOFPU)
        return false;
    switch (in->op) {
    case X86_OP_FLDCW: case X86_OP_FNSTCW: case X86_OP_FNSTSW: case X86_OP_FWAIT: case X86_OP_FNCLEX:
        break;
    default:
        if (cpu_fpu_ops[in->op].fn != x87_exec)
            return false;
    }
    for (unsigned i = 0; i < in->nopnd; i++) {
        struct addr a = addr_of(in);
        if (in->opnd[i].kind == X86_OPND_MEM && !addr_ok_anywhere(in, &a))
            return false;
    }
    return true;
}

void x87_note(struct tr *t, int last)
{
    struct emit *e = &t->e;
    for (; last >= 0 && !t->out[last]; last--) {
        if (!computes(&t->insn[last]) || !translate_x87_known(t, &t->insn[last]))
            continue;
        emit_load(e, 8, T1, CPU(jit.page));
        emit_lea(e, 8, T1, rm_mem(T1, t->pos[last]));
        emit_store(e, 8, CPU(x87.fip), T1);
        emit_rm(e, 1, 0xc6, 0, CPU(jit.x87_ran));
        put8(e, 1);
        return;
    }
}

static bool stores(uint16_t op)
{
    switch (op) {
    case X86_OP_FST: case X86_OP_FSTP: case X86_OP_FIST: case X86_OP_FISTP: case X86_OP_FISTTP: case X86_OP_FBSTP:
    case X86_OP_FNSTCW: case X86_OP_FNSTSW:
        return true;
    default:
        return false;
    }
}

/* The word is looked at and loaded from a place of ours: nobody changes it in between. */
static bool load_control(struct tr *t, struct rm m, unsigned spare)
{
    struct emit *e = &t->e;
    emit_rm(e, 4, OP_0F | 0xb7, spare, m);
    emit_store(e, 4, CPU(jit.temp), spare);
    emit_rm(e, 4, 0xf7, 2, rm_reg(spare));               /* NOT */
    emit_rm(e, 4, 0xf7, 0, rm_reg(spare));               /* TEST */
    put32(e, X87_FLAGS);
    slow_if(t, 5);
    emit_rm(e, 4, 0xd9, 5, CPU(jit.temp));
    return true;
}

bool translate_x87(struct tr *t, const struct x86_insn *in)
{
    if (!translate_x87_known(t, in))
        return false;
    struct emit *e = &t->e;
    const unsigned opcode = 0xd8 | (in->opcode & 7);
    unsigned spare;
    if (in->op == X86_OP_FWAIT || (in->op == X86_OP_FNOP && (in->opcode & 7) == 3))
        return true;
    if (in->modrm < 0xc0) {
        unsigned size = 0;
        for (unsigned i = 0; i < in->nopnd; i++) {
            if (in->opnd[i].kind == X86_OPND_MEM)
                size = in->opnd[i].size;
        }
        struct addr a = addr_of(in);
        struct rm m = addr_check(t, &a, size, stores(in->op), &spare);
        if (in->op == X86_OP_FLDCW)
            return load_control(t, m, spare);
        emit_rm(e, 4, opcode, in->modrm >> 3 & 7, m);
        return true;
    }
    const bool sets = in->op == X86_OP_FCOMI || in->op == X86_OP_FCOMIP || in->op == X86_OP_FUCOMI || in->op == X86_OP_FUCOMIP;
    if (sets || in->op == X86_OP_FCMOVCC)
        flags_load(t, T1);
    put8(e, opcode);
    put8(e, in->modrm);
    if (sets)
        flags_set(t);
    return true;
}
