/* Encodings of emit.h. */
#include "hv/engine/soft/emit.h"

static void modrm(struct emit *e, unsigned reg, struct rm rm)
{
    const unsigned r = (reg & 7) << 3;
    if (!rm.mem) {
        put8(e, 0xc0 | r | (rm.reg & 7));
        return;
    }
    const unsigned b = rm.reg & 7;
    /* RBP and R13 as bases have no form without displacement, RSP and R12 none without SIB. */
    const unsigned mod = rm.disp == 0 && b != 5 ? 0 : rm.disp == (int8_t)rm.disp ? 0x40 : 0x80;
    if (rm.index != H_NONE || b == 4) {
        put8(e, mod | r | 4);
        put8(e, (unsigned)rm.scale << 6 | (rm.index == H_NONE ? 4u : rm.index & 7u) << 3 | b);
    } else {
        put8(e, mod | r | b);
    }
    if (mod == 0x40)
        put8(e, (uint8_t)rm.disp);
    else if (mod)
        put32(e, (uint32_t)rm.disp);
}

void emit_rm(struct emit *e, unsigned size, unsigned op, unsigned reg, struct rm rm)
{
    unsigned rex = (size == 8 ? 8u : 0) | (reg >> 3 & 1) << 2 | (rm.reg >> 3 & 1);
    if (rm.mem && rm.index != H_NONE)
        rex |= (rm.index >> 3 & 1u) << 1;
    /* SPL BPL SIL DIL exist with REX only. */
    const bool bytes = (size == 1 && reg >= 4) || (!rm.mem && rm.reg >= 4 && (size == 1 || op & OP_BYTE_RM));
    if (op & OP_LOCK)
        put8(e, 0xf0);
    if (size == 2 || op & OP_66)
        put8(e, 0x66);
    if (op & OP_F2)
        put8(e, 0xf2);
    if (op & OP_F3)
        put8(e, 0xf3);
    if (!(op & OP_HIGH) && (rex || bytes))
        put8(e, 0x40 | rex);
    if (op & OP_MAPS)
        put8(e, 0x0f);
    if ((op & OP_MAPS) == OP_0F38)
        put8(e, 0x38);
    else if ((op & OP_MAPS) == OP_0F3A)
        put8(e, 0x3a);
    put8(e, op & 0xff);
    modrm(e, reg, rm);
}

void emit_load(struct emit *e, unsigned size, unsigned reg, struct rm from)
{
    emit_rm(e, size, 0x8b, reg, from);
}

void emit_store(struct emit *e, unsigned size, struct rm to, unsigned reg)
{
    emit_rm(e, size, size == 1 ? 0x88 : 0x89, reg, to);
}

void emit_mov(struct emit *e, unsigned size, unsigned to, unsigned from)
{
    emit_rm(e, size, 0x8b, to, rm_reg(from));
}

void emit_lea(struct emit *e, unsigned size, unsigned to, struct rm at)
{
    emit_rm(e, size, 0x8d, to, at);
}

void emit_alu_imm(struct emit *e, unsigned size, unsigned digit, struct rm rm, int32_t imm, unsigned prefix)
{
    const bool small = imm == (int8_t)imm;
    emit_rm(e, size, (size == 1 ? 0x80 : small ? 0x83 : 0x81) | prefix, digit, rm);
    if (size == 1 || small)
        put8(e, (uint8_t)imm);
    else if (size == 2)
        put16(e, (uint16_t)imm);
    else
        put32(e, (uint32_t)imm);
}

void emit_mov_imm(struct emit *e, unsigned reg, uint64_t v)
{
    if (v == (uint32_t)v) {
        if (reg >= 8)
            put8(e, 0x41);
        put8(e, 0xb8 | (reg & 7));
        put32(e, (uint32_t)v);
    } else if (v == (uint64_t)(int64_t)(int32_t)v) {
        emit_rm(e, 8, 0xc7, 0, rm_reg(reg));
        put32(e, (uint32_t)v);
    } else {
        put8(e, 0x48 | (reg >> 3));
        put8(e, 0xb8 | (reg & 7));
        put64(e, v);
    }
}

static void rel32(struct emit *e, const void *to)
{
    put32(e, (uint32_t)((intptr_t)to - ((intptr_t)e->p + 4)));
}

void emit_jmp(struct emit *e, const void *to)
{
    put8(e, 0xe9);
    rel32(e, to);
}

uint8_t *emit_jcc_later(struct emit *e, unsigned cc)
{
    put8(e, 0x0f);
    put8(e, 0x80 | cc);
    put32(e, 0);
    return e->p - 4;
}

uint8_t *emit_jmp_later(struct emit *e)
{
    put8(e, 0xe9);
    put32(e, 0);
    return e->p - 4;
}

void emit_patch(struct emit *e, uint8_t *at)
{
    int32_t d = (int32_t)(e->p - (at + 4));
    if (at + 4 <= e->end)
        memcpy(at, &d, 4);
}

void emit_lea_rip(struct emit *e, unsigned reg, const void *to)
{
    put8(e, 0x48 | (reg >> 3) << 2);
    put8(e, 0x8d);
    put8(e, (reg & 7) << 3 | 5);
    rel32(e, to);
}

void emit_load_rip(struct emit *e, unsigned reg, const void *from)
{
    put8(e, 0x48 | (reg >> 3) << 2);
    put8(e, 0x8b);
    put8(e, (reg & 7) << 3 | 5);
    rel32(e, from);
}

void emit_jmp_through(struct emit *e, const void *pointer)
{
    put8(e, 0xff);
    put8(e, 0x25);
    rel32(e, pointer);
}
