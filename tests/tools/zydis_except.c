/*
 * Where x86_decode() and Zydis 4.0 differ for a reason. Every entry is counted and printed by
 * decode_vs_zydis; one that never applies in the long run should go.
 */
#include "tests/tools/zydis_compare.h"

static bool isa_ext(const struct zcmp *c, ZydisISAExt e)
{
    return ZYAN_SUCCESS(c->status) && c->zin.meta.isa_ext == e;
}

static bool only_zydis(const char *what)
{
    return strcmp(what, "only Zydis accepts") == 0;
}

static bool other_vendors(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return only_zydis(what) && (isa_ext(c, ZYDIS_ISA_EXT_XOP) || isa_ext(c, ZYDIS_ISA_EXT_TBM) ||
                                isa_ext(c, ZYDIS_ISA_EXT_AMD3DNOW) || isa_ext(c, ZYDIS_ISA_EXT_PADLOCK));
}

static bool knc(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return only_zydis(what) && (isa_ext(c, ZYDIS_ISA_EXT_KNC) || isa_ext(c, ZYDIS_ISA_EXT_KNCE) || isa_ext(c, ZYDIS_ISA_EXT_KNCV));
}

static bool lig(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    if (strcmp(what, "vector length") != 0 || c->in.vlen != 16)
        return false;
    for (unsigned i = 0; i < c->in.nopnd; i++) {
        if ((c->in.opnd[i].kind == X86_OPND_XMM || c->in.opnd[i].kind == X86_OPND_MEM) && c->in.opnd[i].size < 16)
            return true;
    }
    return false;
}

static bool size_without_meaning(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    bool width = strcmp(what, "operand size") == 0;
    switch (c->in.op) {
    case X86_OP_ENCLS:
    case X86_OP_ENCLU:
    case X86_OP_ENCLV: return width || strcmp(what, "address size") == 0;
    case X86_OP_NOP: return width;
    case X86_OP_SYSCALL: return width && c->mode != X86_MODE_64;
    default: break;
    }
    return width && c->in.map >= 1 && (c->in.prefix & X86_PFX_66) && (c->in.prefix & (X86_PFX_REP | X86_PFX_REPNE));
}

static bool amd_registers(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return strcmp(what, "operand count") == 0 && c->in.map == 1 && c->in.opcode == 0x01 && c->in.modrm >= 0xc0 &&
           c->in.nopnd == 0;
}

static bool movsxd16(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return c->in.op == X86_OP_MOVSXD && c->in.opsize == 2 &&
           (strcmp(what, "memory size") == 0 || strcmp(what, "register size") == 0);
}

static bool selector(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return (c->in.op == X86_OP_LAR || c->in.op == X86_OP_LSL) && strcmp(what, "register size") == 0;
}

static bool notrack(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return (c->in.op == X86_OP_JMP_IND || c->in.op == X86_OP_CALL_IND) && c->mode != X86_MODE_64 &&
           strcmp(what, "segment") == 0 && c->in.seg == X86_SEG_DS;
}

static bool no_base(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return strcmp(what, "base") == 0 && c->mode == X86_MODE_64 && c->in.adsize == 4 && (c->in.rex & 1) && c->in.modrm < 0x40 &&
           (c->in.modrm & 7) == 4 && c->in.base == X86_REG_NONE;
}

static bool senduipi(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return c->in.op == X86_OP_SENDUIPI && strcmp(what, "register size") == 0;
}

static bool wbnoinvd(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return c->in.op == X86_OP_WBNOINVD && strcmp(what, "operation") == 0;
}

static bool fp16_w(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return strcmp(what, "only we accept") == 0 && c->mode != X86_MODE_64 && c->in.evex && (c->in.rex & 8) && c->in.map == 5 &&
           (c->in.opcode == 0x2a || (c->in.opcode & 0xfe) == 0x2c || (c->in.opcode & 0xfe) == 0x78 || c->in.opcode == 0x7b);
}

static bool w_er(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return strcmp(what, "only we accept") == 0 && c->mode != X86_MODE_64 &&
           (c->in.op == X86_OP_VCVTSI2SD || c->in.op == X86_OP_VCVTUSI2SD) && (c->in.evex_aaa_z_b & 16);
}

static bool cache_line(const struct zcmp *c, const uint8_t *p, const char *what)
{
    (void)p;
    return strcmp(what, "memory size") == 0 &&
           (c->in.op == X86_OP_CLFLUSH || c->in.op == X86_OP_CLFLUSHOPT || c->in.op == X86_OP_CLWB);
}

struct zexcept zexcepts[] = {
    { "other-vendors", "XOP, TBM, LWP, 3DNow! and PadLock exist on no CPU we imitate: undefined", other_vendors, 0 },
    { "knights-corner", "MVEX and its scalar companions exist on Knights Corner only", knc, 0 },
    { "scalar-length", "scalar instructions ignore L and L'L: we say 16, Zydis what is encoded", lig, 0 },
    { "cache-line", "CLFLUSH, CLFLUSHOPT, CLWB: access checks are those of a byte load; Zydis says 64", cache_line, 0 },
    { "movsxd16", "MOVSXD r16, r/m16 reads 16 bits (SDM; seen on a machine); Zydis reads 32", movsxd16, 0 },
    { "selector", "LAR and LSL use 16 bits of their source register; Zydis gives its name's size", selector, 0 },
    { "notrack", "3E before an indirect branch is NOTRACK to Zydis; without CET it is DS", notrack, 0 },
    { "no-base", "mod 0 with SIB base 101b has no base, REX.B or not (SDM; seen on a machine); Zydis 4.0 adds r13d under 67",
      no_base, 0 },
    { "senduipi", "SENDUIPI's index is a 64-bit register; Zydis 4.0 says 32", senduipi, 0 },
    { "wbnoinvd", "F3 0F 09 is WBNOINVD; Zydis 4.0 does not tell although asked to", wbnoinvd, 0 },
    { "amd-registers", "AMD's instructions under 0F 01 have fixed registers; we list none", amd_registers, 0 },
    { "no-size", "operand and address size mean nothing here", size_without_meaning, 0 },
    { "fp16-w", "W of FP16 conversions with integers is ignored outside 64-bit mode (seen on a machine)", fp16_w, 0 },
    { "sd-rounding", "VCVT(U)SI2SD takes rounding with W1 outside 64-bit mode too (seen on a machine)", w_er, 0 },
};
const size_t zexcept_count = ARRAY_SIZE(zexcepts);
