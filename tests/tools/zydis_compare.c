/* Comparison of x86_decode() with Zydis: see zydis_compare.h. */
#include "tests/tools/zydis_compare.h"

#include <ctype.h>
#include <errno.h>

#include "hv/engine/soft/decode_row.h"

/* Zydis mnemonic -> our op, and the condition if the name carries one. Filled once. */
static struct { uint16_t op; uint8_t cc; } op_of[ZYDIS_MNEMONIC_MAX_VALUE + 1];

static int op_by_name(const char *name)
{
    for (unsigned i = 1; i < X86_OP_COUNT; i++) {
        if (strcmp(x86_op_name((enum x86_op)i), name) == 0)
            return (int)i;
    }
    return 0;
}

/* Names that Zydis splits by operand size or condition. */
static const struct { const char *zydis, *ours; } aliases[] = {
    { "CDQE", "CBW" }, { "CWDE", "CBW" }, { "CDQ", "CWD" }, { "CQO", "CWD" }, { "JECXZ", "JCXZ" }, { "JRCXZ", "JCXZ" },
    { "PUSHAD", "PUSHA" }, { "POPAD", "POPA" }, { "PUSHFD", "PUSHF" }, { "PUSHFQ", "PUSHF" }, { "POPFD", "POPF" },
    { "POPFQ", "POPF" }, { "IRETD", "IRET" }, { "IRETQ", "IRET" }, { "FDISI8087_NOP", "FNOP" }, { "FENI8087_NOP", "FNOP" },
    { "FSETPM287_NOP", "FNOP" }, { "FSTPNCE", "FSTP" }, { "RDSSPD", "RDSSP" }, { "RDSSPQ", "RDSSP" },
    { "INCSSPD", "INCSSP" }, { "INCSSPQ", "INCSSP" }, { "WRSSD", "WRSS" }, { "WRSSQ", "WRSS" }, { "WRUSSD", "WRUSS" },
    { "WRUSSQ", "WRUSS" },
};
static const char *const strings[] = { "MOVS", "CMPS", "STOS", "LODS", "SCAS", "INS", "OUTS" };
static const char *const ccs[16] = { "O", "NO", "B", "NB", "Z", "NZ", "BE", "NBE", "S", "NS", "P", "NP", "L", "NL", "LE", "NLE" };
static const char *const fccs[8] = { "B", "E", "BE", "U", "NB", "NE", "NBE", "NU" };

static bool with_cc(const char *name, const char *stem, const char *const *list, unsigned n, uint8_t *ret)
{
    size_t len = strlen(stem);
    if (strncmp(name, stem, len) != 0)
        return false;
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(name + len, list[i]) == 0) {
            *ret = (uint8_t)i;
            return true;
        }
    }
    return false;
}

static void map_names(void)
{
    for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        const char *s = ZydisMnemonicGetString((ZydisMnemonic)m);
        char name[32];
        size_t n = 0;
        for (; s && s[n] && n < sizeof(name) - 1; n++)
            name[n] = (char)toupper((unsigned char)s[n]);
        name[n] = '\0';
        op_of[m].op = (uint16_t)op_by_name(name);
        if (op_of[m].op)
            continue;
        for (size_t i = 0; i < ARRAY_SIZE(aliases); i++) {
            if (strcmp(name, aliases[i].zydis) == 0)
                op_of[m].op = (uint16_t)op_by_name(aliases[i].ours);
        }
        for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
            size_t len = strlen(strings[i]);
            if (strncmp(name, strings[i], len) == 0 && name[len] && !name[len + 1] && strchr("BWDQ", name[len]))
                op_of[m].op = (uint16_t)op_by_name(strings[i]);
        }
        if (with_cc(name, "J", ccs, 16, &op_of[m].cc))
            op_of[m].op = X86_OP_JCC;
        else if (with_cc(name, "SET", ccs, 16, &op_of[m].cc))
            op_of[m].op = X86_OP_SETCC;
        else if (with_cc(name, "CMOV", ccs, 16, &op_of[m].cc))
            op_of[m].op = X86_OP_CMOVCC;
        else if (with_cc(name, "FCMOV", fccs, 8, &op_of[m].cc))
            op_of[m].op = X86_OP_FCMOVCC;
        else if (n > 2 && strcmp(name + n - 2, "64") == 0 && !op_of[m].op) {
            name[n - 2] = '\0';              /* FXSAVE64, XRSTORS64 */
            op_of[m].op = (uint16_t)op_by_name(name);
        }
    }
}

void zcmp_init(struct zcmp *c, enum x86_mode mode)
{
    static const ZydisMachineMode machine[] = { ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                                                ZYDIS_MACHINE_MODE_LONG_64 };
    static const ZydisStackWidth stack[] = { ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32, ZYDIS_STACK_WIDTH_64 };

    if (!op_of[ZYDIS_MNEMONIC_ADD].op)
        map_names();
    c->mode = mode;
    hv_assert(ZYAN_SUCCESS(ZydisDecoderInit(&c->decoder, machine[mode], stack[mode])));
    ZydisDecoderEnableMode(&c->decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(&c->decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_TRUE);
}

/* One op of ours has several under one name of theirs. */
static unsigned expected_op(const struct zcmp *c)
{
    const ZydisDecodedInstruction *z = &c->zin;
    bool one_byte = z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;

    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MOVSD: return one_byte ? X86_OP_MOVS : X86_OP_MOVSD;
    case ZYDIS_MNEMONIC_CMPSD: return one_byte ? X86_OP_CMPS : X86_OP_CMPSD;
    case ZYDIS_MNEMONIC_MOV:
        for (unsigned i = 0; i < 2; i++) {
            if (c->zop[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
                continue;
            switch (ZydisRegisterGetClass(c->zop[i].reg.value)) {
            case ZYDIS_REGCLASS_SEGMENT: return X86_OP_MOV_SEG;
            case ZYDIS_REGCLASS_CONTROL: return X86_OP_MOV_CR;
            case ZYDIS_REGCLASS_DEBUG: return X86_OP_MOV_DR;
            default: break;
            }
        }
        return X86_OP_MOV;
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP: {
        bool call = z->mnemonic == ZYDIS_MNEMONIC_CALL;
        if (c->zop[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return call ? X86_OP_CALL : X86_OP_JMP;
        if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            return call ? X86_OP_CALL_FAR : X86_OP_JMP_FAR;
        return call ? X86_OP_CALL_IND : X86_OP_JMP_IND;
    }
    case ZYDIS_MNEMONIC_RET: return z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ? X86_OP_RET_FAR : X86_OP_RET;
    default: return op_of[z->mnemonic].op;
    }
}

static unsigned reg_number(ZydisRegister r)
{
    switch (r) {
    case ZYDIS_REGISTER_NONE: return X86_REG_NONE;
    case ZYDIS_REGISTER_RIP:
    case ZYDIS_REGISTER_EIP: return X86_REG_RIP;
    default: break;
    }
    if (ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_SEGMENT) {
        static const ZydisRegister seg[] = { ZYDIS_REGISTER_ES, ZYDIS_REGISTER_CS, ZYDIS_REGISTER_SS, ZYDIS_REGISTER_DS,
                                             ZYDIS_REGISTER_FS, ZYDIS_REGISTER_GS };
        for (unsigned i = 0; i < 6; i++) {
            if (seg[i] == r)
                return i;
        }
    }
    if (ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_GPR8) {
        /* al..bl, ah..bh, spl..dil, r8b..r15b */
        unsigned n = (unsigned)(r - ZYDIS_REGISTER_AL);
        return n < 4 ? n : n < 8 ? n + 12 : n - 4;
    }
    return (unsigned)ZydisRegisterGetId(r);
}

static unsigned kind_of(const ZydisDecodedOperand *o)
{
    switch (o->type) {
    case ZYDIS_OPERAND_TYPE_MEMORY: return X86_OPND_MEM;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: return o->imm.is_relative ? X86_OPND_REL : X86_OPND_IMM;
    case ZYDIS_OPERAND_TYPE_REGISTER: break;
    default: return X86_OPND_NONE;
    }
    switch (ZydisRegisterGetClass(o->reg.value)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64: return X86_OPND_GPR;
    case ZYDIS_REGCLASS_X87: return X86_OPND_ST;
    case ZYDIS_REGCLASS_MMX: return X86_OPND_MMX;
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM: return X86_OPND_XMM;
    case ZYDIS_REGCLASS_TMM: return X86_OPND_TMM;
    case ZYDIS_REGCLASS_SEGMENT: return X86_OPND_SEG;
    case ZYDIS_REGCLASS_CONTROL: return X86_OPND_CR;
    case ZYDIS_REGCLASS_DEBUG: return X86_OPND_DR;
    case ZYDIS_REGCLASS_MASK: return X86_OPND_K;
    default: return X86_OPND_NONE;
    }
}

static const char *compare_mem(const struct zcmp *c, const ZydisDecodedOperand *z)
{
    const struct x86_insn *in = &c->in;
    unsigned scale = z->mem.scale ? z->mem.scale : 1;
    uint64_t mask = in->adsize == 8 ? UINT64_MAX : in->adsize == 4 ? UINT32_MAX : UINT16_MAX;

    if (reg_number(z->mem.base) != in->base)
        return "base";
    if (reg_number(z->mem.index) != in->index)
        return "index";
    if (in->index != X86_REG_NONE && scale != 1u << in->scale)
        return "scale";
    if (z->mem.type != ZYDIS_MEMOP_TYPE_AGEN && reg_number(z->mem.segment) != in->seg)
        return "segment";
    if (((uint64_t)z->mem.disp.value ^ (uint64_t)in->disp) & mask)
        return "displacement";
    return NULL;
}

static const char *compare_opnd(const struct zcmp *c, const struct x86_opnd *o, const ZydisDecodedOperand *z, unsigned imm_no)
{
    const struct x86_insn *in = &c->in;
    unsigned kind = kind_of(z);

    if (kind == X86_OPND_IMM && imm_no == 1)
        kind = X86_OPND_IMM2;
    if (kind != o->kind)
        return "operand kind";
    switch (kind) {
    case X86_OPND_MEM: {
        const char *what = compare_mem(c, z);
        if (what)
            return what;
        break;
    }
    case X86_OPND_IMM: {
        uint64_t mask = o->size >= 8 || !o->size ? UINT64_MAX : ((uint64_t)1 << o->size * 8) - 1;
        return (z->imm.value.u ^ in->imm) & mask ? "immediate" : NULL;
    }
    case X86_OPND_IMM2: return (uint16_t)z->imm.value.u != in->imm2 ? "immediate" : NULL;
    case X86_OPND_REL: return z->imm.value.u != in->imm ? "immediate" : NULL;
    default:
        if (reg_number(z->reg.value) != o->reg)
            return "register";
        break;
    }
    if (kind == X86_OPND_XMM) {          /* the part used is told differently: compare the width of the name */
        ZydisRegisterClass class = ZydisRegisterGetClass(z->reg.value);
        unsigned width = class == ZYDIS_REGCLASS_ZMM ? 64 : class == ZYDIS_REGCLASS_YMM ? 32 : 16;
        return width != (o->size <= 16 ? 16 : o->size) ? "register size" : NULL;
    }
    if (kind == X86_OPND_MEM && o->size * 8u != z->size && !(o->size == 0 && z->size >= 2048))
        return "memory size";
    if (kind == X86_OPND_GPR && o->size * 8u != z->size)
        return "register size";
    return NULL;
}

/* An operand that Zydis hides: string memory, XMM0, DX of INS. */
static const char *compare_hidden(const struct zcmp *c, const struct x86_opnd *o, uint32_t *used)
{
    for (unsigned i = c->zin.operand_count_visible; i < c->zin.operand_count; i++) {
        const ZydisDecodedOperand *z = &c->zop[i];
        if ((*used & (1u << i)) || kind_of(z) != o->kind || z->size != o->size * 8u)
            continue;
        if (o->kind == X86_OPND_MEM) {
            /* The one at ES:rDI does not stand in base if there is another. */
            bool di = z->mem.segment == ZYDIS_REGISTER_ES && reg_number(z->mem.base) == 7 && c->in.base == 6;
            if (!di && compare_mem(c, z))
                continue;
        } else if (reg_number(z->reg.value) != o->reg) {
            continue;
        }
        *used |= 1u << i;
        return NULL;
    }
    return "hidden operand";
}

static const char *compare_operands(const struct zcmp *c)
{
    const struct x86_insn *in = &c->in;
    unsigned n = 0, imms = 0;
    uint32_t used = 0;

    for (unsigned i = 0; i < c->zin.operand_count_visible; i++) {
        const ZydisDecodedOperand *z = &c->zop[i];
        if (z->encoding == ZYDIS_OPERAND_ENCODING_MASK)
            continue;
        if (z->type == ZYDIS_OPERAND_TYPE_POINTER) {
            if (in->nopnd != 2 || in->opnd[0].kind != X86_OPND_IMM || in->opnd[1].kind != X86_OPND_IMM2 ||
                in->imm != z->ptr.offset || in->imm2 != z->ptr.segment)
                return "far pointer";
            return NULL;
        }
        /* ST(0) shown by Zydis where the SDM's syntax does not. */
        if (z->type == ZYDIS_OPERAND_TYPE_REGISTER && z->reg.value == ZYDIS_REGISTER_ST0 &&
            z->visibility == ZYDIS_OPERAND_VISIBILITY_IMPLICIT && (n >= in->nopnd || !in->opnd[n].implicit))
            continue;
        if (n >= in->nopnd)
            return "operand count";
        const char *what = compare_opnd(c, &in->opnd[n], z, imms);
        if (what)
            return what;
        imms += z->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
        n++;
    }
    for (; n < in->nopnd; n++) {
        if (!in->opnd[n].implicit)
            return "operand count";
        const char *what = compare_hidden(c, &in->opnd[n], &used);
        if (what)
            return what;
    }
    return NULL;
}

static const char *compare(const struct zcmp *c)
{
    const struct x86_insn *in = &c->in;

    if (in->len != c->zin.length)
        return "length";
    if (in->op != expected_op(c))
        return "operation";
    if ((in->op == X86_OP_JCC || in->op == X86_OP_SETCC || in->op == X86_OP_CMOVCC || in->op == X86_OP_FCMOVCC) &&
        in->cc != op_of[c->zin.mnemonic].cc)
        return "condition";
    if (in->adsize * 8 != c->zin.address_width)
        return "address size";
    const char *what = in->op == X86_OP_NOP ? NULL : compare_operands(c);
    if (what)
        return what;
    /* Port instructions have no 64-bit form, whatever REX.W says. */
    unsigned width = c->zin.operand_width;
    if (width == 64 && (in->op == X86_OP_INS || in->op == X86_OP_OUTS || in->op == X86_OP_IN || in->op == X86_OP_OUT))
        width = 32;
    bool vector = false;
    for (unsigned i = 0; i < in->nopnd; i++)
        vector |= in->opnd[i].kind == X86_OPND_XMM || in->opnd[i].kind == X86_OPND_MMX;
    if (c->zin.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && in->map <= 1 && !vector && in->opsize * 8 != width)
        return "operand size";
    if (in->vlen && c->zin.avx.vector_length && in->vlen * 8 != c->zin.avx.vector_length)
        return "vector length";
    return NULL;
}

enum zcmp_result zcmp_one(struct zcmp *c, const uint8_t *p, size_t len, const char **what)
{
    c->r = x86_decode(p, len, c->mode, &c->in);
    c->status = ZydisDecoderDecodeFull(&c->decoder, p, len, &c->zin, c->zop);
    bool zok = ZYAN_SUCCESS(c->status);

    *what = NULL;
    if (c->r && !zok) {
        /* Cut short or too long; that it is undefined may be noticed early by either. */
        if (c->r == -E2BIG && c->status == ZYDIS_STATUS_NO_MORE_DATA)
            *what = "kind of error";
    } else if (c->r) {
        *what = "only Zydis accepts";
    } else if (!zok) {
        *what = "only we accept";
    } else {
        *what = compare(c);
    }
    if (!*what)
        return c->r ? ZCMP_BOTH_BAD : ZCMP_SAME;
    for (size_t i = 0; i < zexcept_count; i++) {
        if (zexcepts[i].applies(c, p, *what)) {
            zexcepts[i].count++;
            return ZCMP_EXCEPTED;
        }
    }
    return ZCMP_DIFFERENT;
}

void zcmp_print(const struct zcmp *c, const uint8_t *p, size_t len, const char *what)
{
    static const char *const modes[] = { "16", "32", "64" };
    char text[256];

    printf("%s-bit, %s:", modes[c->mode], what);
    for (size_t i = 0; i < len && i < X86_MAX_INSN; i++)
        printf(" %02x", p[i]);
    if (c->r)
        printf("\n  ours:  %s (%s)", strerror(-c->r), x86_op_name(c->in.op));
    else
        printf("\n  ours:  len %u opsize %u adsize %u: %s", c->in.len, c->in.opsize, c->in.adsize,
               x86_format(&c->in, 0, text, sizeof(text)));
    if (!ZYAN_SUCCESS(c->status)) {
        printf("\n  Zydis: error %#x\n", c->status);
        return;
    }
    ZydisFormatter f;
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    text[0] = '\0';
    ZydisFormatterFormatInstruction(&f, &c->zin, c->zop, c->zin.operand_count_visible, text, sizeof(text),
                                    ZYDIS_RUNTIME_ADDRESS_NONE, NULL);
    printf("\n  Zydis: len %u opsize %u adsize %u: %s [%s]\n", c->zin.length, c->zin.operand_width / 8,
           c->zin.address_width / 8, text, ZydisISASetGetString(c->zin.meta.isa_set));
}
