/*
 * Translator: integer instructions, emitted as themselves with other registers. What is not
 * here (AH..BH but for moves, strings, VEX forms, system) is a call-out. SDM 2A, 2B.
 */
#include "hv/engine/soft/translate.h"

static bool is_reg(const struct x86_insn *in, unsigned n) { return in->opnd[n].kind == X86_OPND_GPR && in->opnd[n].reg < 16; }
static bool is_mem(const struct x86_insn *in, unsigned n) { return in->opnd[n].kind == X86_OPND_MEM; }
static bool is_imm(const struct x86_insn *in, unsigned n) { return in->opnd[n].kind == X86_OPND_IMM; }

static void put_imm(struct emit *e, unsigned size, uint64_t v)
{
    if (size == 1)
        put8(e, (uint8_t)v);
    else if (size == 2)
        put16(e, (uint16_t)v);
    else
        put32(e, (uint32_t)v);
}

static unsigned lock_of(const struct x86_insn *in) { return in->prefix & X86_PFX_LOCK ? (unsigned)OP_LOCK : 0; }

/* The memory operand, checked; size of the access. */
static struct rm mem(struct tr *t, const struct x86_insn *in, unsigned size, bool write, unsigned *ret_spare)
{
    struct addr a = addr_of(in);
    /* Across a cache line a host's own LOCK would not exclude the interpreter's, which is one at a time. */
    if (in->prefix & X86_PFX_LOCK || in->op == X86_OP_XCHG)
        a.align = (uint8_t)size;
    return addr_check(t, &a, size, write, ret_spare);
}

static bool mem_ok(const struct tr *t, const struct x86_insn *in)
{
    struct addr a = addr_of(in);
    return addr_ok(t, &a);
}

/* Byte forms have the even opcode. */
static unsigned sized(unsigned op, unsigned size) { return size == 1 ? op & ~1u : op; }

/* ---- ADD OR ADC SBB AND SUB XOR CMP, TEST ---- */

static bool alu(struct tr *t, const struct x86_insn *in, unsigned k)
{
    struct emit *e = &t->e;
    const unsigned s = in->opnd[0].size;
    const bool test = in->op == X86_OP_TEST, write = !test && k != 7, carry = k == 2 || k == 3;
    unsigned spare;
    if (is_mem(in, 0)) {
        if (!(is_reg(in, 1) || is_imm(in, 1)))
            return false;
        if (carry)
            flags_save(t);
        struct rm m = mem(t, in, s, write, &spare);
        unsigned src = is_reg(in, 1) ? reg_in(t, in->opnd[1].reg, spare) : 0;
        if (carry)
            flags_load_carry(t);
        if (is_reg(in, 1)) {
            emit_rm(e, s, sized(test ? 0x85 : k * 8 + 1, s) | lock_of(in), src, m);
        } else if (test) {
            emit_rm(e, s, sized(0xf7, s), 0, m);
            put_imm(e, s, in->imm);
        } else {
            emit_alu_imm(e, s, k, m, (int32_t)in->imm, lock_of(in));
        }
        flags_set(t);
        return true;
    }
    if (!is_reg(in, 0))
        return false;
    const unsigned d = in->opnd[0].reg;
    const bool logic = k == 1 || k == 4 || k == 6 || test, source = is_imm(in, 1) || (is_reg(in, 1) && pinned(in->opnd[1].reg));
    struct again again = { .imm = is_imm(in, 1), .size = (uint8_t)s, .a = (uint8_t)host_of(d),
                           .b = (uint8_t)host_of(in->opnd[1].reg & 15), .value = (int32_t)in->imm };
    if (write && logic) {          /* the same flags as a TEST of what it leaves */
        again.imm = false;
        again.b = again.a;
        again.value = 0;
    }
    again.kind = test || logic ? AGAIN_TEST : k == 7 ? AGAIN_CMP : k == 0 ? AGAIN_ADD : AGAIN_SUB;
    again.valid = pinned(d) && (write ? logic || (!carry && source && (again.imm || again.b != again.a)) : source);
    if (is_mem(in, 1)) {
        if (carry)
            flags_save(t);
        struct rm m = mem(t, in, s, false, &spare);
        unsigned r = reg_in(t, d, spare);
        if (carry)
            flags_load_carry(t);
        emit_rm(e, s, sized(test ? 0x85 : k * 8 + 3, s), r, m);
        if (write)
            reg_out(t, d, r);
    } else if (is_reg(in, 1)) {
        if (carry && !t->host)
            flags_load_carry(t);
        unsigned r = reg_in(t, d, T1);
        emit_rm(e, s, sized(test ? 0x85 : k * 8 + 3, s), r, reg_rm(in->opnd[1].reg));
        if (write)
            reg_out(t, d, r);
    } else if (is_imm(in, 1)) {
        if (carry && !t->host)
            flags_load_carry(t);
        unsigned r = reg_in(t, d, T1);
        if (test) {
            emit_rm(e, s, sized(0xf7, s), 0, rm_reg(r));
            put_imm(e, s, in->imm);
        } else {
            emit_alu_imm(e, s, k, rm_reg(r), (int32_t)in->imm, 0);
        }
        if (write)
            reg_out(t, d, r);
    } else {
        return false;
    }
    flags_set(t);
    t->again = again;
    t->no_carry = logic;
    return true;
}

/* INC DEC NEG NOT: digit of the FE/FF or F6/F7 group. */
static bool unary(struct tr *t, const struct x86_insn *in, unsigned op, unsigned digit)
{
    struct emit *e = &t->e;
    const unsigned s = in->opnd[0].size;
    const bool keeps_carry = op == 0xff, flags = in->op != X86_OP_NOT, no_carry = keeps_carry && t->no_carry;
    if (is_mem(in, 0)) {
        unsigned spare;
        if (keeps_carry)
            flags_save(t);
        struct rm m = mem(t, in, s, true, &spare);
        if (keeps_carry)
            flags_load_carry(t);
        emit_rm(e, s, sized(op, s) | lock_of(in), digit, m);
    } else if (is_reg(in, 0)) {
        if (keeps_carry && !t->host && !t->dead[t->i + 1])
            flags_load_carry(t);
        unsigned r = reg_in(t, in->opnd[0].reg, T1);
        emit_rm(e, s, sized(op, s), digit, rm_reg(r));
        reg_out(t, in->opnd[0].reg, r);
    } else {
        return false;
    }
    if (!flags)
        return true;
    flags_set(t);
    t->no_carry = no_carry;
    if (is_reg(in, 0) && pinned(in->opnd[0].reg) && (no_carry || !keeps_carry))
        t->again = (struct again){ .valid = true, .size = (uint8_t)s, .a = (uint8_t)host_of(in->opnd[0].reg),
                                   .kind = !keeps_carry ? AGAIN_NEG : digit == 0 ? AGAIN_INC : AGAIN_DEC };
    return true;
}

/*
 * Flags that the SDM leaves undefined (AF of shifts; SF ZF AF PF of multiplications) Intel's CPUs compute from
 * the result. Others may keep them, so there they are loaded first, as the interpreter does everywhere.
 */
static bool keeps_undefined(void)
{
    return !__builtin_cpu_is("intel");
}

/* ---- shifts and rotates ---- */

/*
 * By one it sets OF, by more CPUs keep OF or compute it from the result: then a second rotation changes all that
 * the first one did, and c->cc has the rest for both.
 */
bool rotate_later(const struct tr *t, const struct x86_insn *in)
{
    const struct x86_opnd *o = in->opnd;
    if ((in->op != X86_OP_ROL && in->op != X86_OP_ROR) || !is_reg(in, 0) || !pinned(o[0].reg) || o[0].size < 4 || !is_imm(in, 1) ||
        (in->imm & (o[0].size == 8 ? 63 : 31)) < 2 || keeps_undefined())
        return false;
    const bool rotated = t->again.valid && (t->again.kind == AGAIN_ROL || t->again.kind == AGAIN_ROR);
    return !t->dead[t->i + 1] && !t->host && (t->mem || rotated);
}

static bool shift(struct tr *t, const struct x86_insn *in, unsigned digit)
{
    struct emit *e = &t->e;
    const unsigned s = in->opnd[0].size;
    const bool by_cl = in->opnd[1].kind == X86_OPND_GPR, by_one = !by_cl && in->opnd[1].implicit;
    const unsigned count = (unsigned)in->imm & (s == 8 ? 63 : 31);
    /* SHL SHR SAR by a known count set all flags; others keep some, or all of them. */
    const bool keeps = by_cl || !count || digit < 4 || keeps_undefined();
    const bool rotate_carry = digit == 2 || digit == 3;
    const bool later = rotate_later(t, in);
    unsigned spare, r = 0;
    struct rm m;
    if (is_mem(in, 0)) {
        m = mem(t, in, s, true, &spare);
        if (keeps)
            flags_load(t, spare);
    } else if (is_reg(in, 0)) {
        if (rotate_carry)
            flags_load(t, T1);
        else if (keeps && !later)
            flags_keep(t, T1);
        r = reg_in(t, in->opnd[0].reg, T1);
        m = rm_reg(r);
    } else {
        return false;
    }
    emit_rm(e, s, sized(by_cl ? 0xd3 : by_one ? 0xd1 : 0xc1, s), digit, m);
    if (!by_cl && !by_one)
        put8(e, (uint8_t)in->imm);
    if (is_reg(in, 0))
        reg_out(t, in->opnd[0].reg, r);
    flags_set(t);
    if (later) {
        t->host = false;
        t->again = (struct again){ .valid = true, .imm = true, .kind = digit ? AGAIN_ROR : AGAIN_ROL, .size = (uint8_t)s,
                                   .a = (uint8_t)host_of(in->opnd[0].reg), .value = (int32_t)in->imm };
    }
    return true;
}

static bool dshift(struct tr *t, const struct x86_insn *in)
{
    struct emit *e = &t->e;
    const unsigned s = in->opnd[0].size, op = in->op == X86_OP_SHLD ? 0xa4 : 0xac;
    const bool imm = is_imm(in, 2);
    unsigned spare = T2, r = 0;
    struct rm m;
    if (is_mem(in, 0)) {
        m = mem(t, in, s, true, &spare);
        flags_load(t, spare);
    } else if (is_reg(in, 0)) {
        flags_keep(t, T1);
        r = reg_in(t, in->opnd[0].reg, T1);
        m = rm_reg(r);
    } else {
        return false;
    }
    emit_rm(e, s, OP_0F | (imm ? op : op + 1), reg_in(t, in->opnd[1].reg, spare), m);
    if (imm)
        put8(e, (uint8_t)in->imm);
    if (is_reg(in, 0))
        reg_out(t, in->opnd[0].reg, r);
    flags_set(t);
    return true;
}

/* ---- moves ---- */

static bool mov(struct tr *t, const struct x86_insn *in)
{
    struct emit *e = &t->e;
    const unsigned s = in->opnd[0].size;
    unsigned spare;
    if (is_mem(in, 0)) {
        if (!is_reg(in, 1) && !is_imm(in, 1))
            return false;
        struct rm m = mem(t, in, s, true, &spare);
        if (is_reg(in, 1)) {
            emit_store(e, s, m, reg_in(t, in->opnd[1].reg, spare));
        } else {
            emit_rm(e, s, sized(0xc7, s), 0, m);
            put_imm(e, s, in->imm);
        }
        return true;
    }
    if (!is_reg(in, 0))
        return false;
    const unsigned d = in->opnd[0].reg;
    if (is_mem(in, 1)) {
        struct rm m = mem(t, in, s, false, &spare);
        unsigned r = s < 4 ? reg_in(t, d, spare) : pinned(d) ? host_of(d) : spare;
        emit_rm(e, s, sized(0x8b, s), r, m);
        reg_out(t, d, r);
        return true;
    }
    unsigned r = s < 4 ? reg_in(t, d, T1) : pinned(d) ? host_of(d) : T1;
    if (is_reg(in, 1)) {
        emit_rm(e, s, sized(0x8b, s), r, reg_rm(in->opnd[1].reg));
    } else if (is_imm(in, 1)) {
        if (s >= 4) {
            emit_mov_imm(e, r, s == 4 ? (uint32_t)in->imm : in->imm);
        } else {
            emit_rm(e, s, sized(0xc7, s), 0, rm_reg(r));
            put_imm(e, s, in->imm);
        }
    } else {
        return false;
    }
    reg_out(t, d, r);
    return true;
}

static bool movx(struct tr *t, const struct x86_insn *in)
{
    struct emit *e = &t->e;
    const unsigned to = in->opnd[0].size, from = in->opnd[1].size;
    if (!is_reg(in, 0) || from >= to || (!is_reg(in, 1) && !is_mem(in, 1)))
        return false;
    const unsigned d = in->opnd[0].reg;
    unsigned op = in->op == X86_OP_MOVZX ? 0xb6 : 0xbe, spare = T1;
    op = from == 4 ? 0x63u : OP_0F | (from == 1 ? op | OP_BYTE_RM : op + 1);
    struct rm m = is_mem(in, 1) ? mem(t, in, from, false, &spare) : reg_rm(in->opnd[1].reg);
    unsigned r = to < 4 ? reg_in(t, d, spare) : pinned(d) ? host_of(d) : spare;
    emit_rm(e, to, op, r, m);
    reg_out(t, d, r);
    return true;
}

static bool lea(struct tr *t, const struct x86_insn *in)
{
    struct addr a = addr_of(in);
    const unsigned s = in->opnd[0].size, d = in->opnd[0].reg;
    if (s < 4 || in->adsize == 2 || !addr_ok(t, &a))
        return false;
    unsigned r = pinned(d) ? host_of(d) : T1;
    addr_lea(t, &a, s, r);
    reg_out(t, d, r);
    return true;
}

static bool cmov(struct tr *t, const struct x86_insn *in)
{
    const unsigned s = in->opnd[0].size, d = in->opnd[0].reg;
    unsigned spare = T1;
    struct rm m = reg_rm(in->opnd[1].reg);
    if (is_mem(in, 1))
        m = mem(t, in, s, false, &spare);
    flags_load(t, spare);
    unsigned r = reg_in(t, d, spare);
    emit_rm(&t->e, s, OP_0F | 0x40 | in->cc, r, m);
    reg_out(t, d, r);
    return true;
}

static bool setcc(struct tr *t, const struct x86_insn *in)
{
    unsigned spare = T1;
    if (!is_mem(in, 0) && !is_reg(in, 0))
        return false;
    struct rm m = is_mem(in, 0) ? mem(t, in, 1, true, &spare) : reg_rm(in->opnd[0].reg);
    flags_load(t, spare);
    emit_rm(&t->e, 1, OP_0F | 0x90 | in->cc, 0, m);
    return true;
}

static bool xchg(struct tr *t, const struct x86_insn *in)
{
    struct emit *e = &t->e;
    const unsigned s = in->opnd[0].size;
    if (!is_reg(in, 1) && !is_mem(in, 1))
        return false;
    if (is_mem(in, 0) || is_mem(in, 1)) {
        const unsigned g = in->opnd[is_mem(in, 0)].reg;
        if (!is_reg(in, is_mem(in, 0)))
            return false;
        unsigned spare;
        struct rm m = mem(t, in, s, true, &spare);
        unsigned r = reg_in(t, g, spare);
        emit_rm(e, s, sized(0x87, s), r, m);
        reg_out(t, g, r);
        return true;
    }
    if (!is_reg(in, 0))
        return false;
    const unsigned a = in->opnd[0].reg, b = in->opnd[1].reg;
    if (!pinned(a) && !pinned(b) && a == b)
        return false;
    unsigned ra = reg_in(t, a, T1), rb = reg_in(t, b, T2);
    emit_rm(e, s, sized(0x87, s), ra, rm_reg(rb));
    reg_out(t, a, ra);
    reg_out(t, b, rb);
    return true;
}

/* XADD, CMPXCHG: the register operand is a source, and of XADD a destination too. */
static bool exchange(struct tr *t, const struct x86_insn *in, unsigned op)
{
    const unsigned s = in->opnd[0].size;
    if (!is_mem(in, 0) || !is_reg(in, 1))
        return false;
    unsigned spare;
    struct rm m = mem(t, in, s, true, &spare);
    unsigned r = reg_in(t, in->opnd[1].reg, spare);
    emit_rm(&t->e, s, OP_0F | sized(op, s) | lock_of(in), r, m);
    if (in->op == X86_OP_XADD)
        reg_out(t, in->opnd[1].reg, r);
    flags_set(t);
    return true;
}

/* ---- multiplication ---- */

static bool multiply(struct tr *t, const struct x86_insn *in)
{
    struct emit *e = &t->e;
    const unsigned s = in->opnd[0].size;
    const bool wide = in->op == X86_OP_MUL || in->nopnd == 1;
    const unsigned n = wide ? 0 : 1;           /* the operand that may be memory */
    unsigned spare = T1;
    if (!is_mem(in, n) && !is_reg(in, n))
        return false;
    struct rm m = is_mem(in, n) ? mem(t, in, in->opnd[n].size, false, &spare) : reg_rm(in->opnd[n].reg);
    if (keeps_undefined())
        flags_keep(t, spare);
    if (wide) {
        emit_rm(e, s, sized(0xf7, s), in->op == X86_OP_MUL ? 4 : 5, m);
    } else {
        const unsigned d = in->opnd[0].reg;
        unsigned r = in->nopnd == 3 && s >= 4 ? (pinned(d) ? host_of(d) : spare) : reg_in(t, d, spare);
        if (in->nopnd == 3) {
            const bool small = (int64_t)in->imm == (int8_t)in->imm;
            emit_rm(e, s, small ? 0x6b : 0x69, r, m);
            put_imm(e, small ? 1 : s, in->imm);
        } else {
            emit_rm(e, s, OP_0F | 0xaf, r, m);
        }
        reg_out(t, d, r);
    }
    flags_set(t);
    return true;
}

/* ---- bits ---- */

static bool bit_test(struct tr *t, const struct x86_insn *in, unsigned digit)
{
    struct emit *e = &t->e;
    const unsigned s = in->opnd[0].size;
    const bool imm = is_imm(in, 1), write = digit != 4;
    unsigned spare, r = 0;
    struct rm m;
    if (is_mem(in, 0)) {
        if (!imm)
            return false;          /* a bit string reaches beyond the operand */
        m = mem(t, in, s, write, &spare);
        flags_load(t, spare);
    } else if (is_reg(in, 0)) {
        flags_keep(t, T1);
        r = reg_in(t, in->opnd[0].reg, T1);
        m = rm_reg(r);
    } else {
        return false;
    }
    if (imm) {
        emit_rm(e, s, OP_0F | 0xba | lock_of(in), digit, m);
        put8(e, (uint8_t)in->imm);
    } else {
        emit_rm(e, s, OP_0F | (0x83 + digit * 8), reg_in(t, in->opnd[1].reg, T2), m);
    }
    if (write && !is_mem(in, 0))
        reg_out(t, in->opnd[0].reg, r);
    flags_set(t);
    return true;
}

/* BSF BSR TZCNT LZCNT POPCNT: op with its prefix; need: the host has it. */
static bool bit_scan(struct tr *t, const struct x86_insn *in, unsigned op, bool need)
{
    const unsigned s = in->opnd[0].size, d = in->opnd[0].reg;
    unsigned spare = T1;
    if (!need || !is_reg(in, 0) || (!is_reg(in, 1) && !is_mem(in, 1)))
        return false;
    if (!is_mem(in, 1))
        flags_keep(t, T1);
    struct rm m = is_mem(in, 1) ? mem(t, in, s, false, &spare) : reg_rm(in->opnd[1].reg);
    if (is_mem(in, 1))
        flags_keep(t, spare);
    unsigned r = reg_in(t, d, spare);
    emit_rm(&t->e, s, OP_0F | op, r, m);
    reg_out(t, d, r);
    flags_set(t);
    return true;
}

static bool bswap(struct tr *t, const struct x86_insn *in)
{
    const unsigned s = in->opnd[0].size, d = in->opnd[0].reg;
    if (s < 4)
        return false;
    unsigned r = reg_in(t, d, T1);
    put8(&t->e, 0x40 | (s == 8 ? 8u : 0) | r >> 3);
    put8(&t->e, 0x0f);
    put8(&t->e, 0xc8 | (r & 7));
    reg_out(t, d, r);
    return true;
}

/* CBW, CWD and their wider forms: no operands. */
static bool extend(struct tr *t, const struct x86_insn *in, unsigned op)
{
    if (in->opsize == 2)
        put8(&t->e, 0x66);
    else if (in->opsize == 8)
        put8(&t->e, 0x48);
    put8(&t->e, op);
    return true;
}

/* ---- AH CH DH BH: without REX, so with registers below 8 and no memory ---- */

static int alu_digit(unsigned op)
{
    static const uint16_t digit[] = { X86_OP_ADD, X86_OP_OR, X86_OP_ADC, X86_OP_SBB, X86_OP_AND, X86_OP_SUB, X86_OP_XOR,
                                      X86_OP_CMP };
    for (unsigned i = 0; i < ARRAY_SIZE(digit); i++) {
        if (digit[i] == op)
            return (int)i;
    }
    return -1;
}

/* The number an 8-bit register has there, or -1. */
static int high_number(const struct x86_opnd *o)
{
    if (o->kind != X86_OPND_GPR || o->size != 1)
        return -1;
    return o->reg >= 16 ? o->reg - 12 : o->reg < 4 ? o->reg : -1;
}

static bool high_byte(struct tr *t, const struct x86_insn *in)
{
    struct emit *e = &t->e;
    const int k = alu_digit(in->op), d = high_number(&in->opnd[0]), s = high_number(&in->opnd[1]);
    const bool test = in->op == X86_OP_TEST, mov = in->op == X86_OP_MOV;
    if (in->op == X86_OP_MOVZX || in->op == X86_OP_MOVSX) {
        const unsigned to = in->opnd[0].reg;
        if (in->opnd[0].size != 4 || to >= 8 || to == R_RSP || s < 0)
            return false;
        emit_rm(e, 4, OP_0F | OP_HIGH | (in->op == X86_OP_MOVZX ? 0xb6 : 0xbe), to, rm_reg((unsigned)s));
        return true;
    }
    if ((k < 0 && !test && !mov) || d < 0 || (s < 0 && !is_imm(in, 1)))
        return false;
    if ((k == 2 || k == 3) && !t->host)
        flags_load_carry(t);
    const unsigned dst = (unsigned)d;
    if (s >= 0) {
        emit_rm(e, 1, OP_HIGH | (mov ? 0x8au : test ? 0x84u : (unsigned)k * 8 + 2), dst, rm_reg((unsigned)s));
    } else {
        emit_rm(e, 1, OP_HIGH | (mov ? 0xc6u : test ? 0xf6u : 0x80u), mov || test ? 0 : (unsigned)k, rm_reg(dst));
        put8(e, (uint8_t)in->imm);
    }
    if (!mov)
        flags_set(t);
    return true;
}

bool translate_int(struct tr *t, const struct x86_insn *in)
{
    for (unsigned n = 0; in->nopnd == 2 && n < 2; n++) {
        if (in->opnd[n].kind == X86_OPND_GPR && in->opnd[n].reg >= 16)
            return high_byte(t, in);
    }
    for (unsigned n = 0; n < in->nopnd; n++) {
        if (in->opnd[n].kind == X86_OPND_GPR && in->opnd[n].reg >= 16)
            return false;
        if (in->opnd[n].kind == X86_OPND_MEM && (!mem_ok(t, in) || in->adsize == 2))
            return false;
    }
    if ((in->prefix & X86_PFX_VEX) != 0)
        return false;
    switch (in->op) {
    case X86_OP_ADD: return alu(t, in, 0);
    case X86_OP_OR: return alu(t, in, 1);
    case X86_OP_ADC: return alu(t, in, 2);
    case X86_OP_SBB: return alu(t, in, 3);
    case X86_OP_AND: return alu(t, in, 4);
    case X86_OP_SUB: return alu(t, in, 5);
    case X86_OP_XOR: return alu(t, in, 6);
    case X86_OP_CMP: return alu(t, in, 7);
    case X86_OP_TEST: return alu(t, in, 0);
    case X86_OP_INC: return unary(t, in, 0xff, 0);
    case X86_OP_DEC: return unary(t, in, 0xff, 1);
    case X86_OP_NOT: return unary(t, in, 0xf7, 2);
    case X86_OP_NEG: return unary(t, in, 0xf7, 3);
    case X86_OP_ROL: return shift(t, in, 0);
    case X86_OP_ROR: return shift(t, in, 1);
    case X86_OP_RCL: return shift(t, in, 2);
    case X86_OP_RCR: return shift(t, in, 3);
    case X86_OP_SHL: return shift(t, in, 4);
    case X86_OP_SHR: return shift(t, in, 5);
    case X86_OP_SAR: return shift(t, in, 7);
    case X86_OP_SHLD: case X86_OP_SHRD: return dshift(t, in);
    case X86_OP_MOV: case X86_OP_MOVNTI: return mov(t, in);
    case X86_OP_MOVZX: case X86_OP_MOVSX: case X86_OP_MOVSXD: return movx(t, in);
    case X86_OP_LEA: return lea(t, in);
    case X86_OP_CMOVCC: return cmov(t, in);
    case X86_OP_SETCC: return setcc(t, in);
    case X86_OP_XCHG: return xchg(t, in);
    case X86_OP_XADD: return exchange(t, in, 0xc1);
    case X86_OP_CMPXCHG: return exchange(t, in, 0xb1);
    case X86_OP_MUL: case X86_OP_IMUL: return multiply(t, in);
    case X86_OP_BT: return bit_test(t, in, 4);
    case X86_OP_BTS: return bit_test(t, in, 5);
    case X86_OP_BTR: return bit_test(t, in, 6);
    case X86_OP_BTC: return bit_test(t, in, 7);
    case X86_OP_BSF: return bit_scan(t, in, 0xbc, true);
    case X86_OP_BSR: return bit_scan(t, in, 0xbd, true);
    case X86_OP_TZCNT: return bit_scan(t, in, OP_F3 | 0xbc, __builtin_cpu_supports("bmi"));
    case X86_OP_LZCNT: return bit_scan(t, in, OP_F3 | 0xbd, __builtin_cpu_supports("lzcnt"));
    case X86_OP_POPCNT: return bit_scan(t, in, OP_F3 | 0xb8, __builtin_cpu_supports("popcnt"));
    case X86_OP_BSWAP: return bswap(t, in);
    case X86_OP_CBW: return extend(t, in, 0x98);
    case X86_OP_CWD: return extend(t, in, 0x99);
    default: return false;
    }
}
