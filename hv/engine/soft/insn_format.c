/* Text of a decoded instruction, Intel syntax: for logs and test failures, not for reassembly. */
#include "hv/engine/soft/insn.h"

#include <inttypes.h>
#include <stdarg.h>

static const char *const op_names[X86_OP_COUNT] = {
    [X86_OP_INVALID] = "(invalid)",
#define X86_OP_ENUM(name) [X86_OP_##name] = #name,
#include "hv/engine/soft/optable.h"
#undef X86_OP_ENUM
};

const char *x86_op_name(enum x86_op op)
{
    return (unsigned)op < X86_OP_COUNT ? op_names[op] : "?";
}

struct out {
    char *buf;
    size_t size, len;
};

static void put(struct out *o, const char *fmt, ...) HV_PRINTF(2, 3);
static void put(struct out *o, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(o->buf + o->len, o->size - o->len, fmt, ap);
    va_end(ap);
    if (n > 0)
        o->len = MIN(o->len + (size_t)n, o->size - 1);
}

static void put_lower(struct out *o, const char *s)
{
    for (; *s; s++)
        put(o, "%c", *s >= 'A' && *s <= 'Z' ? *s + 32 : *s == '_' ? ' ' : *s);
}

static const char seg_names[X86_SEG_COUNT][3] = { "es", "cs", "ss", "ds", "fs", "gs" };
static const char cc_names[16][4] = { "o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g" };
static const char fcc_names[8][4] = { "b", "e", "be", "u", "nb", "ne", "nbe", "nu" };
static const char gpr_names[8][3] = { "ax", "cx", "dx", "bx", "sp", "bp", "si", "di" };

static void put_gpr(struct out *o, unsigned reg, unsigned size)
{
    static const char byte_names[20][5] = { "al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", "r8b", "r9b", "r10b", "r11b",
                                            "r12b", "r13b", "r14b", "r15b", "ah", "ch", "dh", "bh" };
    if (size == 1 && reg < 20)
        put(o, "%s", byte_names[reg]);
    else if (reg < 8)
        put(o, "%s%s", size == 8 ? "r" : size == 4 ? "e" : "", gpr_names[reg]);
    else
        put(o, "r%u%s", reg, size == 4 ? "d" : size == 2 ? "w" : "");
}

static void put_vec(struct out *o, unsigned reg, unsigned size)
{
    put(o, "%cmm%u", size == 64 ? 'z' : size == 32 ? 'y' : 'x', reg);
}

static const char *size_word(unsigned size)
{
    switch (size) {
    case 1: return "byte ";
    case 2: return "word ";
    case 4: return "dword ";
    case 6: return "fword ";
    case 8: return "qword ";
    case 10: return "tbyte ";
    case 16: return "xmmword ";
    case 32: return "ymmword ";
    case 64: return "zmmword ";
    default: return "";
    }
}

static bool is_vsib(const struct x86_insn *in)
{
    return (in->prefix & X86_PFX_VEX) && in->map == 2 &&
           ((in->opcode >= 0x90 && in->opcode <= 0x93) || (in->opcode >= 0xa0 && in->opcode <= 0xa3) ||
            in->opcode == 0xc6 || in->opcode == 0xc7);
}

static void put_mem(struct out *o, const struct x86_insn *in, const struct x86_opnd *op, uint64_t rip)
{
    const char *sep = "";

    put(o, "%s", size_word(op->size));
    bool di = (in->op == X86_OP_MOVS && op == &in->opnd[0]) || (in->op == X86_OP_CMPS && op == &in->opnd[1]);
    if (di) {                            /* the one that is not in base */
        put(o, "es:[");
        put_gpr(o, 7, in->adsize);
        put(o, "]");
        return;
    }
    if (in->seg != (in->base == 4 || in->base == 5 ? X86_SEG_SS : X86_SEG_DS))
        put(o, "%s:", seg_names[in->seg % X86_SEG_COUNT]);
    put(o, "[");
    if (in->base == X86_REG_RIP) {
        uint64_t va = rip + in->len + (uint64_t)in->disp;
        put(o, "rip%s0x%" PRIx64 "]", in->disp < 0 ? "-" : "+", in->disp < 0 ? -(uint64_t)in->disp : (uint64_t)in->disp);
        put(o, " (0x%" PRIx64 ")", in->adsize == 4 ? va & 0xffffffff : va);
        return;
    }
    if (in->base != X86_REG_NONE) {
        put_gpr(o, in->base, in->adsize);
        sep = "+";
    }
    if (in->index != X86_REG_NONE) {
        put(o, "%s", sep);
        if (is_vsib(in))
            put(o, "v%u", in->index);
        else
            put_gpr(o, in->index, in->adsize);
        if (in->adsize != 2)
            put(o, "*%u", 1u << in->scale);
        sep = "+";
    }
    uint64_t mask = in->adsize == 8 ? UINT64_MAX : in->adsize == 4 ? UINT32_MAX : UINT16_MAX;
    if (!*sep)
        put(o, "0x%" PRIx64, (uint64_t)in->disp & mask);
    else if (in->disp < 0)
        put(o, "-0x%" PRIx64, -(uint64_t)in->disp);
    else if (in->disp)
        put(o, "+0x%" PRIx64, (uint64_t)in->disp);
    put(o, "]");
}

static void put_opnd(struct out *o, const struct x86_insn *in, const struct x86_opnd *op, uint64_t rip)
{
    uint64_t mask = op->size >= 8 || !op->size ? UINT64_MAX : ((uint64_t)1 << op->size * 8) - 1;

    switch (op->kind) {
    case X86_OPND_GPR: put_gpr(o, op->reg, op->size); break;
    case X86_OPND_MEM: put_mem(o, in, op, rip); break;
    case X86_OPND_IMM: put(o, "0x%" PRIx64, in->imm & mask); break;
    case X86_OPND_IMM2: put(o, "0x%x", in->imm2); break;
    case X86_OPND_REL: put(o, "0x%" PRIx64, (rip + in->len + in->imm) & mask); break;
    case X86_OPND_SEG: put(o, "%s", seg_names[op->reg % X86_SEG_COUNT]); break;
    case X86_OPND_CR: put(o, "cr%u", op->reg); break;
    case X86_OPND_DR: put(o, "dr%u", op->reg); break;
    case X86_OPND_ST: put(o, "st(%u)", op->reg); break;
    case X86_OPND_MMX: put(o, "mm%u", op->reg); break;
    case X86_OPND_XMM: put_vec(o, op->reg, op->size); break;
    case X86_OPND_K: put(o, "k%u", op->reg); break;
    case X86_OPND_TMM: put(o, "tmm%u", op->reg); break;
    default: put(o, "?"); break;
    }
}

static bool is_string(const struct x86_insn *in)
{
    return in->map == 0 && !(in->prefix & X86_PFX_VEX) &&
           ((in->opcode >= 0x6c && in->opcode <= 0x6f) || (in->opcode >= 0xa4 && in->opcode <= 0xa7) ||
            (in->opcode >= 0xaa && in->opcode <= 0xaf));
}

/* 0, 1, 2, 3 for operand sizes 1, 2, 4, 8. */
static unsigned size_index(const struct x86_insn *in)
{
    return in->opsize == 8 ? 3 : in->opsize == 4 ? 2 : in->opsize == 2 ? 1 : 0;
}

static void put_mnemonic(struct out *o, const struct x86_insn *in)
{
    static const char cbw[4][5] = { "cbw", "cbw", "cwde", "cdqe" }, cwd[4][4] = { "cwd", "cwd", "cdq", "cqo" };

    switch (in->op) {
    case X86_OP_JCC: put(o, "j%s", cc_names[in->cc & 15]); return;
    case X86_OP_SETCC: put(o, "set%s", cc_names[in->cc & 15]); return;
    case X86_OP_CMOVCC: put(o, "cmov%s", cc_names[in->cc & 15]); return;
    case X86_OP_FCMOVCC: put(o, "fcmov%s", fcc_names[in->cc & 7]); return;
    case X86_OP_CBW: put(o, "%s", cbw[size_index(in)]); return;
    case X86_OP_CWD: put(o, "%s", cwd[size_index(in)]); return;
    case X86_OP_MOV_SEG:
    case X86_OP_MOV_CR:
    case X86_OP_MOV_DR: put(o, "mov"); return;
    case X86_OP_CALL_IND: put(o, "call"); return;
    case X86_OP_JMP_IND: put(o, "jmp"); return;
    case X86_OP_RET_FAR: put(o, "retf"); return;
    case X86_OP_INCSSP:
    case X86_OP_RDSSP:
    case X86_OP_IRET:
    case X86_OP_PUSHF:
    case X86_OP_POPF:
        put_lower(o, x86_op_name(in->op));
        put(o, "%s", in->opsize == 8 ? "q" : in->opsize == 4 ? "d" : "");
        return;
    default:
        put_lower(o, x86_op_name(in->op));
        if (is_string(in))
            put(o, "%c", "bwdq"[size_index(in)]);
        return;
    }
}

const char *x86_format(const struct x86_insn *in, uint64_t rip, char *buf, size_t size)
{
    struct out o = { .buf = buf, .size = size };
    bool string = is_string(in);

    if (!size)
        return buf;
    buf[0] = '\0';
    if (in->prefix & X86_PFX_LOCK)
        put(&o, "lock ");
    if (string && (in->prefix & X86_PFX_REP))
        put(&o, "rep ");
    if (string && (in->prefix & X86_PFX_REPNE))
        put(&o, "repne ");
    put_mnemonic(&o, in);
    for (unsigned i = 0; i < in->nopnd && i < ARRAY_SIZE(in->opnd); i++) {
        put(&o, i ? ", " : " ");
        put_opnd(&o, in, &in->opnd[i], rip);
        if (i == 0 && (in->evex_aaa_z_b & 7))
            put(&o, " {k%u}%s", in->evex_aaa_z_b & 7, in->evex_aaa_z_b & 8 ? "{z}" : "");
    }
    if (in->evex_aaa_z_b & 16) {
        if (in->modrm < 0xc0)
            put(&o, " {1tox}");
        else
            put(&o, " {%s-sae}", (const char *[]){ "rn", "rd", "ru", "rz" }[(in->evex_aaa_z_b >> 5) & 3]);
    }
    return buf;
}
