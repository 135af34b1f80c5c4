/*
 * Integer instructions against the host CPU (oracle.h): every form of every instruction with
 * random registers, flags and memory, alone (through its handler and its call-out) and in
 * sequences, where dead flags, fused jumps and block ends come in. Fixed seeds, to which
 * HV_SEED adds for longer hunts.
 */
#include "oracle.h"

/* ---- writing code ---- */

struct code { uint8_t buf[160]; unsigned len; bool terminal; };

static void put(struct code *k, unsigned byte) { k->buf[k->len++] = (uint8_t)byte; }
static void put_imm(struct code *k, uint64_t v, unsigned size)
{
    memcpy(k->buf + k->len, &v, size);
    k->len += size;
}

static bool wide(void) { return mode == CODE_64; }

/* Data as code sees it. */
static uint64_t data_mid(void) { return DATA_MID - oracle_base(); }

/* The prefix that gives an operand size, if any. */
static void put_osz(struct code *k, unsigned osz)
{
    if (osz == (mode == CODE_16 ? 4 : 2))
        put(k, 0x66);
}

/* Numbers near where things happen. */
static uint64_t value(void)
{
    static const uint64_t edge[] = { 0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
                                     0xffffffff, INT64_MAX, 1ull << 63, UINT64_MAX, 0xfffffffffffffffe };
    switch (rnd() % 4) {
    case 0: return edge[rnd() % ARRAY_SIZE(edge)];
    case 1: return rnd() >> (rnd() & 63);
    case 2: return -(rnd() >> (rnd() & 63));
    default: return rnd();
    }
}

/* Registers code may change: not the pointers RSP RBP R12-R15. */
static unsigned work_reg(void)
{
    static const uint8_t r[] = { 0, 1, 2, 3, 6, 7, 8, 9, 10, 11 };
    return r[rnd() % (wide() ? ARRAY_SIZE(r) : 6)];
}

enum {
    FM_BYTE = 1,          /* 8-bit operands; else 16, 32, 64 */
    FM_LOCK = 2,          /* may be LOCKed with memory */
    FM_REG = 4,           /* r/m is a register */
    FM_MEM = 8,           /* r/m is memory */
    FM_I8 = 16, FM_IZ = 32,      /* immediate: 8 bits; operand size up to 32 */
    FM_NOMODRM = 64,
    FM_OPREG = 128,       /* register in the opcode */
    FM_32ONLY = 256, FM_64ONLY = 512,
    FM_NO16 = 1024,       /* no 16-bit operands */
    FM_SRC8 = 2048,       /* r/m is 8 bits though the other is not: MOVZX */
    FM_SMALL = 4096,      /* put a small number into the register operand first: bit strings */
    FM_IMMFULL = 8192,    /* immediate as wide as the operand: MOV r64, imm64 */
    FM_ALIGN = 16384,
    FM_ONLYW = 32768,     /* REX.W form only, 64ONLY implied */
    FM_NOW = 65536,       /* no REX.W form, 32-bit default */
    FM_DIVIDE = 1 << 17,  /* make the high half small, so that not every case is #DE */
};

/* Every instruction tried here is on CPUs since Broadwell and Zen. */
static bool host_has_all(void)
{
    return __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("adx") &&
           __builtin_cpu_supports("movbe") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("lzcnt") &&
           __builtin_cpu_supports("sse4.2");
}

/*
 * Flags that the SDM leaves undefined are compared too: the engine runs the host's instruction.
 * Where it does not, it does as Intel CPUs do; on other hosts `undefined` is left out, and forms
 * that have it out of sequences.
 */
static bool host_is_intel(void)
{
    return __builtin_cpu_is("intel");
}

struct form {
    const char *name;
    uint8_t map, mandatory, opcode;
    int8_t digit;        /* -1: register operand in ModRM.reg */
    uint32_t flags;
    uint64_t undefined;
};

#define ALU(name, n, lock)                                                                        \
    { name, 0, 0, n * 8 + 0, -1, FM_BYTE | lock, 0 }, { name, 0, 0, n * 8 + 1, -1, lock, 0 },      \
    { name, 0, 0, n * 8 + 2, -1, FM_BYTE, 0 }, { name, 0, 0, n * 8 + 3, -1, 0, 0 },                \
    { name, 0, 0, n * 8 + 4, -1, FM_BYTE | FM_NOMODRM | FM_I8, 0 }, { name, 0, 0, n * 8 + 5, -1, FM_NOMODRM | FM_IZ, 0 }, \
    { name, 0, 0, 0x80, n, FM_BYTE | FM_I8 | lock, 0 }, { name, 0, 0, 0x81, n, FM_IZ | lock, 0 },    \
    { name, 0, 0, 0x83, n, FM_I8 | lock, 0 }
#define U_BIT (FL_OF | FL_SF | FL_AF | FL_PF)
#define U_AAA (FL_OF | FL_SF | FL_ZF | FL_PF)
#define U_AAM (FL_OF | FL_AF | FL_CF)
#define SHIFT(name, n)                                                                            \
    { name, 0, 0, 0xc0, n, FM_BYTE | FM_I8, n < 2 ? FL_OF : 0 }, { name, 0, 0, 0xc1, n, FM_I8, n < 2 ? FL_OF : 0 }, \
    { name, 0, 0, 0xd0, n, FM_BYTE, 0 }, { name, 0, 0, 0xd1, n, 0, 0 },                            \
    { name, 0, 0, 0xd2, n, FM_BYTE, 0 }, { name, 0, 0, 0xd3, n, 0, 0 }

static const struct form forms[] = {
    ALU("add", 0, FM_LOCK), ALU("or", 1, FM_LOCK), ALU("adc", 2, FM_LOCK), ALU("sbb", 3, FM_LOCK), ALU("and", 4, FM_LOCK),
    ALU("sub", 5, FM_LOCK), ALU("xor", 6, FM_LOCK), ALU("cmp", 7, 0),
    { "test", 0, 0, 0x84, -1, FM_BYTE, 0 }, { "test", 0, 0, 0x85, -1, 0, 0 },
    { "test", 0, 0, 0xa8, -1, FM_BYTE | FM_NOMODRM | FM_I8, 0 }, { "test", 0, 0, 0xa9, -1, FM_NOMODRM | FM_IZ, 0 },
    { "test", 0, 0, 0xf6, 0, FM_BYTE | FM_I8, 0 }, { "test", 0, 0, 0xf7, 0, FM_IZ, 0 },
    { "test", 0, 0, 0xf7, 1, FM_IZ, 0 },
    { "inc", 0, 0, 0xfe, 0, FM_BYTE | FM_LOCK, 0 }, { "inc", 0, 0, 0xff, 0, FM_LOCK, 0 },
    { "dec", 0, 0, 0xfe, 1, FM_BYTE | FM_LOCK, 0 }, { "dec", 0, 0, 0xff, 1, FM_LOCK, 0 },
    { "inc", 0, 0, 0x40, -1, FM_OPREG | FM_NOMODRM | FM_32ONLY, 0 },
    { "dec", 0, 0, 0x48, -1, FM_OPREG | FM_NOMODRM | FM_32ONLY, 0 },
    { "not", 0, 0, 0xf6, 2, FM_BYTE | FM_LOCK, 0 }, { "not", 0, 0, 0xf7, 2, FM_LOCK, 0 },
    { "neg", 0, 0, 0xf6, 3, FM_BYTE | FM_LOCK, 0 }, { "neg", 0, 0, 0xf7, 3, FM_LOCK, 0 },
    { "mul", 0, 0, 0xf6, 4, FM_BYTE, 0 }, { "mul", 0, 0, 0xf7, 4, 0, 0 },
    { "imul", 0, 0, 0xf6, 5, FM_BYTE, 0 }, { "imul", 0, 0, 0xf7, 5, 0, 0 },
    { "div", 0, 0, 0xf6, 6, FM_BYTE | FM_DIVIDE, 0 }, { "div", 0, 0, 0xf7, 6, FM_DIVIDE, 0 },
    { "idiv", 0, 0, 0xf6, 7, FM_BYTE | FM_DIVIDE, 0 }, { "idiv", 0, 0, 0xf7, 7, FM_DIVIDE, 0 },
    { "imul", 1, 0, 0xaf, -1, 0, 0 }, { "imul", 0, 0, 0x69, -1, FM_IZ, 0 }, { "imul", 0, 0, 0x6b, -1, FM_I8, 0 },
    SHIFT("rol", 0), SHIFT("ror", 1), SHIFT("rcl", 2), SHIFT("rcr", 3), SHIFT("shl", 4), SHIFT("shr", 5),
    SHIFT("sal", 6), SHIFT("sar", 7),
    { "shld", 1, 0, 0xa4, -1, FM_I8, 0 }, { "shld", 1, 0, 0xa5, -1, 0, 0 },
    { "shrd", 1, 0, 0xac, -1, FM_I8, 0 }, { "shrd", 1, 0, 0xad, -1, 0, 0 },
    { "mov", 0, 0, 0x88, -1, FM_BYTE, 0 }, { "mov", 0, 0, 0x89, -1, 0, 0 }, { "mov", 0, 0, 0x8a, -1, FM_BYTE, 0 },
    { "mov", 0, 0, 0x8b, -1, 0, 0 }, { "mov", 0, 0, 0xc6, 0, FM_BYTE | FM_I8, 0 }, { "mov", 0, 0, 0xc7, 0, FM_IZ, 0 },
    { "mov", 0, 0, 0xb0, -1, FM_BYTE | FM_OPREG | FM_NOMODRM | FM_I8, 0 },
    { "mov", 0, 0, 0xb8, -1, FM_OPREG | FM_NOMODRM | FM_IMMFULL, 0 },
    { "movzx", 1, 0, 0xb6, -1, FM_SRC8, 0 }, { "movzx", 1, 0, 0xb7, -1, 0, 0 },
    { "movsx", 1, 0, 0xbe, -1, FM_SRC8, 0 }, { "movsx", 1, 0, 0xbf, -1, 0, 0 },
    { "movsxd", 0, 0, 0x63, -1, FM_64ONLY | FM_ONLYW, 0 },
    { "lea", 0, 0, 0x8d, -1, FM_MEM, 0 },
    { "xchg", 0, 0, 0x86, -1, FM_BYTE | FM_LOCK, 0 }, { "xchg", 0, 0, 0x87, -1, FM_LOCK, 0 },
    { "xchg", 0, 0, 0x90, -1, FM_OPREG | FM_NOMODRM, 0 },
    { "xadd", 1, 0, 0xc0, -1, FM_BYTE | FM_LOCK, 0 }, { "xadd", 1, 0, 0xc1, -1, FM_LOCK, 0 },
    { "cmpxchg", 1, 0, 0xb0, -1, FM_BYTE | FM_LOCK, 0 }, { "cmpxchg", 1, 0, 0xb1, -1, FM_LOCK, 0 },
    { "cmpxchg8b", 1, 0, 0xc7, 1, FM_MEM | FM_LOCK | FM_NOW, 0 },
    { "cmpxchg16b", 1, 0, 0xc7, 1, FM_MEM | FM_LOCK | FM_64ONLY | FM_ONLYW | FM_ALIGN, 0 },
    { "bswap", 1, 0, 0xc8, -1, FM_OPREG | FM_NOMODRM | FM_NO16, 0 },
    { "bt", 1, 0, 0xa3, -1, FM_SMALL, U_BIT }, { "bts", 1, 0, 0xab, -1, FM_SMALL | FM_LOCK, U_BIT },
    { "btr", 1, 0, 0xb3, -1, FM_SMALL | FM_LOCK, U_BIT }, { "btc", 1, 0, 0xbb, -1, FM_SMALL | FM_LOCK, U_BIT },
    { "bt", 1, 0, 0xba, 4, FM_I8, U_BIT }, { "bts", 1, 0, 0xba, 5, FM_I8 | FM_LOCK, U_BIT },
    { "btr", 1, 0, 0xba, 6, FM_I8 | FM_LOCK, U_BIT }, { "btc", 1, 0, 0xba, 7, FM_I8 | FM_LOCK, U_BIT },
    { "bsf", 1, 0, 0xbc, -1, 0, 0 }, { "bsr", 1, 0, 0xbd, -1, 0, 0 },
    { "tzcnt", 1, 0xf3, 0xbc, -1, 0, U_BIT }, { "lzcnt", 1, 0xf3, 0xbd, -1, 0, U_BIT }, { "popcnt", 1, 0xf3, 0xb8, -1, 0, 0 },
    { "crc32", 2, 0xf2, 0xf0, -1, FM_BYTE, 0 }, { "crc32", 2, 0xf2, 0xf1, -1, 0, 0 },
    { "movbe", 2, 0, 0xf0, -1, FM_MEM, 0 }, { "movbe", 2, 0, 0xf1, -1, FM_MEM, 0 },
    { "adcx", 2, 0x66, 0xf6, -1, FM_NO16, 0 }, { "adox", 2, 0xf3, 0xf6, -1, FM_NO16, 0 },
    { "movnti", 1, 0, 0xc3, -1, FM_MEM | FM_NO16, 0 },
    { "cbw", 0, 0, 0x98, -1, FM_NOMODRM, 0 }, { "cwd", 0, 0, 0x99, -1, FM_NOMODRM, 0 },
    { "lahf", 0, 0, 0x9f, -1, FM_NOMODRM | FM_NOW, 0 }, { "sahf", 0, 0, 0x9e, -1, FM_NOMODRM | FM_NOW, 0 },
    { "clc", 0, 0, 0xf8, -1, FM_NOMODRM | FM_NOW, 0 }, { "stc", 0, 0, 0xf9, -1, FM_NOMODRM | FM_NOW, 0 },
    { "cmc", 0, 0, 0xf5, -1, FM_NOMODRM | FM_NOW, 0 }, { "cld", 0, 0, 0xfc, -1, FM_NOMODRM | FM_NOW, 0 },
    { "nop", 0, 0, 0x90, -1, FM_NOMODRM | FM_NOW, 0 }, { "nop", 1, 0, 0x1f, 0, 0, 0 },
    { "push", 0, 0, 0x6a, -1, FM_NOMODRM | FM_I8 | FM_NOW, 0 }, { "push", 0, 0, 0x68, -1, FM_NOMODRM | FM_IZ | FM_NOW, 0 },
    { "push", 0, 0, 0x50, -1, FM_NOMODRM | FM_OPREG | FM_NOW, 0 }, { "pop", 0, 0, 0x58, -1, FM_NOMODRM | FM_OPREG | FM_NOW, 0 },
    { "push", 0, 0, 0xff, 6, FM_NOW, 0 }, { "pop", 0, 0, 0x8f, 0, FM_NOW, 0 },
    { "pushf", 0, 0, 0x9c, -1, FM_NOMODRM | FM_NOW, 0 },
    { "daa", 0, 0, 0x27, -1, FM_NOMODRM | FM_NOW | FM_32ONLY, FL_OF }, { "das", 0, 0, 0x2f, -1, FM_NOMODRM | FM_NOW | FM_32ONLY, FL_OF },
    { "aaa", 0, 0, 0x37, -1, FM_NOMODRM | FM_NOW | FM_32ONLY, U_AAA }, { "aas", 0, 0, 0x3f, -1, FM_NOMODRM | FM_NOW | FM_32ONLY, U_AAA },
    { "aam", 0, 0, 0xd4, -1, FM_NOMODRM | FM_NOW | FM_I8 | FM_32ONLY, U_AAM },
    { "aad", 0, 0, 0xd5, -1, FM_NOMODRM | FM_NOW | FM_I8 | FM_32ONLY, U_AAM },
    { "salc", 0, 0, 0xd6, -1, FM_NOMODRM | FM_NOW | FM_32ONLY, 0 },
    { "into", 0, 0, 0xce, -1, FM_NOMODRM | FM_NOW | FM_32ONLY, 0 },
    { "bound", 0, 0, 0x62, -1, FM_MEM | FM_32ONLY, 0 },
};

static bool usable(uint32_t flags)
{
    return !(flags & (wide() ? FM_32ONLY : FM_64ONLY));
}

/* mov r32, imm32 */
static void put_set(struct code *k, unsigned reg, uint64_t v)
{
    put_osz(k, 4);
    if (reg >= 8)
        put(k, 0x41);
    put(k, 0xb8 | (reg & 7));
    put_imm(k, v, 4);
}

/* A memory operand in the window, all ways of addressing. mod and rm go where the caller says. */
static void put_mem(struct code *k, unsigned reg, bool align, bool addr16, unsigned at_rex)
{
    static const uint8_t base64[] = { 5, 12, 13, 14 };
    unsigned base = wide() ? base64[rnd() % 4] : 5;
    int32_t disp = (int32_t)(rnd() % 200) - 100;
    if (addr16) {                                      /* [bp+disp] of SS, or [disp] of DS */
        static const uint8_t mods[] = { 0, 1, 2 };
        unsigned m = mods[rnd() % 3];
        put(k, 6 | reg << 3 | m << 6);
        put_imm(k, m ? (uint64_t)(int64_t)disp : data_mid() + (uint64_t)(int64_t)disp + rnd() % 500, m == 1 ? 1 : 2);
        return;
    }
    if (align) {
        base = 14;
        disp = (int32_t)(rnd() % 16) * 16 + (one_in(16) ? 8 : 0);
    }
    unsigned rex_bits = base >> 3;
    if (wide() && !align && one_in(8)) {               /* RIP-relative: from the end of the instruction */
        put(k, 5 | reg << 3);
        put_imm(k, (uint64_t)0x52495052, 4);           /* patched by the caller: see fix_rip() */
        return;
    }
    if (!align && one_in(10)) {                        /* absolute */
        put(k, (wide() ? 4 : 5) | reg << 3);
        if (wide())
            put(k, 0x25);
        put_imm(k, data_mid() + (uint64_t)(int64_t)disp, 4);
        return;
    }
    bool small = disp == (int8_t)disp && !one_in(4);
    unsigned mod = small ? 1 : 2;
    if (wide() && !align && one_in(3)) {               /* R15 as an index */
        put(k, 4 | reg << 3 | mod << 6);
        put(k, (base & 7) | 7 << 3 | (unsigned)(rnd() & 3) << 6);
        rex_bits |= 2;
    } else if ((base & 7) == 4 || one_in(8)) {         /* SIB without index */
        put(k, 4 | reg << 3 | mod << 6);
        put(k, (base & 7) | 4 << 3);
    } else {
        put(k, (base & 7) | reg << 3 | mod << 6);
    }
    put_imm(k, (uint64_t)(int64_t)disp, small ? 1 : 4);
    if (rex_bits)
        k->buf[at_rex] |= (uint8_t)(0x40 | rex_bits);
}

/* One instruction of a form. */
static void put_form(struct code *k, const struct form *f, uint64_t va)
{
    bool byte = f->flags & FM_BYTE;
    unsigned osz = byte ? 1 : mode == CODE_16 && (f->flags & FM_NOW) ? 2 : 4;
    if (!byte) {
        unsigned pick = rnd() % 4;
        if (f->flags & FM_ONLYW)
            osz = 8;
        else if (pick == 0 && !(f->flags & (FM_NO16 | FM_NOW)))
            osz = 2;
        else if (pick >= 2 && wide() && !(f->flags & FM_NOW))
            osz = 8;
    }
    bool mem = !(f->flags & (FM_REG | FM_NOMODRM)) && ((f->flags & FM_MEM) || one_in(2));
    unsigned reg = work_reg(), rm = work_reg();
    bool narrow = byte || (f->flags & FM_SRC8);
    if ((f->flags & FM_SMALL) && mem) {                 /* mov r32, small; its high bits may make it negative */
        put_set(k, reg, rnd() % 2000);
    }
    if ((f->flags & FM_DIVIDE) && one_in(2)) {
        put(k, 0x31);                                  /* xor edx, edx (or dx, dx) */
        put(k, 0xd2);
    }
    if (!byte)
        put_osz(k, osz);
    if (mem && (f->flags & FM_LOCK) && one_in(3) && f->digit != 7 && !(f->map == 0 && (f->opcode & 2) && f->digit < 0))
        put(k, 0xf0);
    bool addr16 = mode == CODE_16;
    if (mem && addr16 && one_in(4)) {
        put(k, 0x67);
        addr16 = false;
    }
    if (mem && mode != CODE_32 && one_in(16))
        put(k, mode == CODE_64 ? 0x3e : one_in(2) ? 0x3e : one_in(2) ? 0x36 : 0x26);
    if (mem && wide() && one_in(16) && !(f->flags & FM_ALIGN))
        put(k, 0x67);
    if (f->mandatory)
        put(k, f->mandatory);
    unsigned at_rex = k->len;
    uint8_t rex = (osz == 8 ? 8 : 0);
    bool high = false;
    if (narrow && one_in(4) && reg < 4 && rm < 4 && osz != 8) {
        high = true;                                   /* AH.. where no REX prefix is */
        if (byte && f->map < 2 && f->digit < 0 && one_in(2))
            reg += 4;
        else
            rm += 4;
        if (f->flags & FM_OPREG)
            reg = (reg & 3) + 4;
    } else {
        if (f->digit < 0 && reg >= 8)
            rex |= f->flags & FM_OPREG ? 1 : 4;
        if (!mem && !(f->flags & FM_NOMODRM) && rm >= 8)
            rex |= 1;
        if (narrow && wide() && (reg >= 4 || rm >= 4))
            rex |= 0x40;
    }
    if (wide()) {
        rex = rex ? rex | 0x40 : 0;
        put(k, rex);                                   /* 0: taken out again below */
    }
    if (f->map >= 1)
        put(k, 0x0f);
    if (f->map == 2)
        put(k, 0x38);
    put(k, f->opcode | (f->flags & FM_OPREG ? reg & 7 : 0));
    unsigned imm_len = f->flags & FM_I8 ? 1 : f->flags & FM_IZ ? (osz == 2 ? 2 : 4) : f->flags & FM_IMMFULL ? osz : 0;
    unsigned modrm_at = k->len;
    if (!(f->flags & FM_NOMODRM)) {
        unsigned field = f->digit >= 0 ? (unsigned)f->digit : reg & 7;
        if (mem && !(high && wide()))
            put_mem(k, field, f->flags & FM_ALIGN, addr16, at_rex);
        else if (mem)
            put(k, 5 | field << 3), put_imm(k, 0x52495052, 4);
        else
            put(k, 0xc0 | field << 3 | (rm & 7));
    }
    if (imm_len) {
        uint64_t v = value();
        put_imm(k, v, imm_len);
    }
    if (wide() && k->buf[at_rex] == 0) {
        memmove(k->buf + at_rex, k->buf + at_rex + 1, k->len - at_rex - 1);
        k->len--;
        modrm_at--;
    }
    if (wide() && mem && (k->buf[modrm_at] & 0xc7) == 5 && !memcmp(k->buf + modrm_at + 1, "RPIR", 4)) {
        int32_t disp = (int32_t)(DATA_MID + rnd() % 64 - (va + k->len));
        memcpy(k->buf + modrm_at + 1, &disp, 4);
    }
}

/* Three-operand and vector-encoded: BMI. */
static const struct { const char *name; uint8_t map, pp, opcode; int8_t digit; bool imm; } vex_forms[] = {
    { "andn", 2, 0, 0xf2, -1, false }, { "blsr", 2, 0, 0xf3, 1, false }, { "blsmsk", 2, 0, 0xf3, 2, false },
    { "blsi", 2, 0, 0xf3, 3, false }, { "bextr", 2, 0, 0xf7, -1, false }, { "bzhi", 2, 0, 0xf5, -1, false },
    { "shlx", 2, 1, 0xf7, -1, false }, { "shrx", 2, 3, 0xf7, -1, false }, { "sarx", 2, 2, 0xf7, -1, false },
    { "pdep", 2, 3, 0xf5, -1, false }, { "pext", 2, 2, 0xf5, -1, false }, { "mulx", 2, 3, 0xf6, -1, false },
    { "rorx", 3, 3, 0xf0, -1, true },
};

static void put_vex(struct code *k, unsigned i)
{
    unsigned reg = vex_forms[i].digit >= 0 ? (unsigned)vex_forms[i].digit : work_reg(), v = work_reg();
    unsigned w = wide() && one_in(2), rm = work_reg();
    if (vex_forms[i].imm)
        v = 0;
    bool mem = one_in(2);
    put(k, 0xc4);
    put(k, (reg >= 8 ? 0 : 0x80) | 0x40 | (!mem && rm >= 8 ? 0 : 0x20) | vex_forms[i].map);
    put(k, w << 7 | (~v & 15) << 3 | vex_forms[i].pp);
    put(k, vex_forms[i].opcode);
    if (mem) {
        put(k, (mode == CODE_16 ? 6 : 5) | (reg & 7) << 3 | 1 << 6);   /* [rbp+disp8] */
        put(k, (unsigned)rnd() % 100);
    } else {
        put(k, 0xc0 | (reg & 7) << 3 | (rm & 7));
    }
    if (vex_forms[i].imm)
        put(k, (unsigned)rnd());
}

/* A string instruction with its registers; counts small enough for the window. */
static void put_string(struct code *k)
{
    static const uint8_t op[] = { 0xa4, 0xaa, 0xac, 0xa6, 0xae };
    unsigned o = op[rnd() % 5] | (unsigned)one_in(2);
    unsigned osz = o & 1 ? rnd() % 3 : 0;
    put_set(k, R_RSI, data_mid() - 200 + rnd() % 400);
    put_set(k, R_RDI, one_in(3) ? data_mid() + rnd() % 4 : data_mid() - 200 + rnd() % 400);
    if (one_in(16))
        put_set(k, one_in(2) ? R_RSI : R_RDI, (one_in(2) ? DATA_VA + 0x2000 : STACK_VA) - oracle_base() - 30 + rnd() % 60);
    put_set(k, R_RCX, rnd() % 24);
    if (one_in(3))
        put(k, 0xfd);
    if (osz == 1)
        put(k, 0x66);
    if (wide() && one_in(8))
        put(k, 0x67);
    if (!one_in(3))
        put(k, one_in(2) ? 0xf3 : 0xf2);
    if (osz == 2 && wide())
        put(k, 0x48);
    put(k, o);
    put(k, 0xfc);
}

/* A conditional (or not) jump over one instruction; sometimes the comparison before it. */
static void put_instruction(struct code *k, uint64_t va);
static void put_jump(struct code *k, uint64_t va)
{
    struct code over = { .len = 0 };
    unsigned kind = rnd() % 10, near = mode == CODE_16 ? 2 : 4;
    if (one_in(2)) {
        static const uint8_t first[] = { 0x39, 0x3b, 0x85, 0x84, 0x38 };
        if (one_in(4)) {
            put(k, 0xff);                              /* dec r32 */
            put(k, 0xc8 | (work_reg() & 3));
        } else {
            if (wide() && one_in(2))
                put(k, 0x48);
            put(k, first[rnd() % 5]);
            put(k, 0xc0 | (work_reg() & 3) << 3 | (work_reg() & 3));
        }
    }
    put_set(&over, work_reg(), rnd());
    if (one_in(2))
        put_set(&over, work_reg(), rnd());
    bool ignored = wide() && host_is_intel() && one_in(8);
    if (ignored && kind != 4 && kind != 5)
        put(k, 0x66);                                  /* Intel CPUs ignore it on near branches of 64-bit code */
    if (kind == 0) {
        put(k, 0xeb);
        put(k, over.len);
    } else if (kind == 1) {
        put(k, 0xe0 + rnd() % 4);                      /* LOOPNE LOOPE LOOP JCXZ */
        put(k, over.len);
    } else if (kind == 2) {
        put(k, 0xe8);                                  /* call: the return address stays on the stack */
        put_imm(k, over.len, near);
    } else if (kind == 3) {
        put(k, 0x0f);
        put(k, 0x80 + rnd() % 16);
        put_imm(k, over.len, near);
    } else if (kind == 4) {                            /* push address; ret */
        put(k, 0x68);
        unsigned at = k->len;
        put_imm(k, 0, near);
        bool imm = one_in(2);
        put(k, imm ? 0xc2 : 0xc3);
        if (imm)
            put_imm(k, 8 * (rnd() % 4), 2);
        uint64_t target = va - oracle_base() + k->len + over.len;
        memcpy(k->buf + at, &target, near);
    } else if (kind == 5) {                            /* jmp, call through a register */
        put(k, 0xb8);
        unsigned at = k->len;
        put_imm(k, 0, near);
        if (ignored)
            put(k, 0x66);
        put(k, 0xff);
        put(k, one_in(2) ? 0xe0 : 0xd0);
        uint64_t target = va - oracle_base() + k->len + over.len;
        memcpy(k->buf + at, &target, near);
    } else {
        put(k, 0x70 + rnd() % 16);
        put(k, over.len);
    }
    memcpy(k->buf + k->len, over.buf, over.len);
    k->len += over.len;
}

static void put_instruction(struct code *k, uint64_t va)
{
    unsigned pick = rnd() % 40;
    if (pick < 4) {
        put_jump(k, va);
    } else if (pick == 4) {
        put_string(k);
    } else if (pick == 5) {
        if (host_is_intel())
            put_vex(k, rnd() % ARRAY_SIZE(vex_forms));
    } else if (pick == 6) {                            /* SETcc r8 or [rbp+disp8] */
        put(k, 0x0f);
        put(k, 0x90 + rnd() % 16);
        if (one_in(2)) {
            put(k, 0xc0 | (work_reg() & 3));
        } else {
            put(k, mode == CODE_16 ? 0x46 : 0x45);
            put(k, rnd() % 100);
        }
    } else if (pick == 10) {                           /* MOV accumulator, moffs and back */
        if (wide() && one_in(2))
            put(k, 0x48);
        put(k, 0xa0 + rnd() % 4);
        put_imm(k, data_mid() - 100 + rnd() % 200, mode == CODE_64 ? 8 : mode == CODE_32 ? 4 : 2);
    } else if (pick == 7) {                            /* CMOVcc r, r or r, [rbp+disp8] */
        if (wide() && one_in(2))
            put(k, 0x48);
        put(k, 0x0f);
        put(k, 0x40 + rnd() % 16);
        unsigned r = work_reg() & 3;
        if (one_in(2)) {
            put(k, 0xc0 | r << 3 | (work_reg() & 3));
        } else {
            put(k, (mode == CODE_16 ? 0x46 : 0x45) | r << 3);
            put(k, rnd() % 100);
        }
    } else if (pick == 8) {                            /* XLAT */
        put_set(k, R_RBX, data_mid() - 128);
        put(k, 0xd7);
    } else if (pick == 9) {                            /* POPF with what user mode may change safely */
        put(k, 0x68);
        put_imm(k, (rnd() & (FL_ARITH | FL_DF)) | 0x202, mode == CODE_16 ? 2 : 4);
        put(k, 0x9d);
        put(k, 0xfc);
    } else {
        const struct form *f;
        do {
            f = &forms[rnd() % ARRAY_SIZE(forms)];
        } while (!usable(f->flags) || (f->undefined && !host_is_intel()));
        put_form(k, f, va);
    }
}

/* What changes the pointers comes last. */
static void put_last(struct code *k)
{
    switch (rnd() % 4) {
    case 0:                                            /* ENTER */
        put(k, 0xc8);
        put_imm(k, rnd() % 64, 2);
        put(k, one_in(2) ? 0 : rnd() % 40);
        break;
    case 1:
        put(k, 0xc9);                                  /* LEAVE */
        break;
    case 2:
        if (one_in(2))
            put(k, 0x66);
        put(k, wide() ? 0xc9 : one_in(2) ? 0x60 : 0x61);       /* PUSHA, POPA */
        break;
    default:                                           /* POP into RBP, RSP, [rsp+disp8] */
        put(k, one_in(2) ? 0x5d : 0x5c);
        break;
    }
}

/* ---- running it ---- */

static void set_seed(uint64_t base)
{
    const char *more = getenv("HV_SEED");
    seed = base + (more ? strtoull(more, NULL, 0) << 32 : 0);
}

static void random_state(struct regs *r)
{
    memset(r, 0, sizeof(*r));
    for (unsigned i = 0; i < 16; i++)
        r->gpr[i] = wide() ? value() : (uint32_t)value();
    r->gpr[R_RSP] = STACK_MID - oracle_base() + 8 * (rnd() % 8);
    r->gpr[R_RBP] = data_mid() - 64 + rnd() % 128;
    r->gpr[12] = DATA_MID - 64 + rnd() % 128;
    r->gpr[13] = DATA_MID + rnd() % 32;
    r->gpr[14] = DATA_MID;
    r->gpr[15] = rnd() % 16;
    if (one_in(12)) {                                  /* near the end of what is mapped: faults, whole or in part */
        const uint64_t edge = (one_in(2) ? DATA_VA + 0x2000 : STACK_VA) - oracle_base();
        unsigned i = one_in(2) ? R_RBP : 12 + rnd() % 3;
        r->gpr[i] = edge - 40 + rnd() % 80;
        if (one_in(4))
            r->gpr[R_RSP] = STACK_VA - oracle_base() + (one_in(2) ? 8 * (rnd() % 4) : 0x1000 - 4 * (rnd() % 8));
        if (wide() && one_in(8))
            r->gpr[i] ^= 1ull << (47 + rnd() % 17);    /* not canonical */
    }
    r->rflags = rnd() & FL_ARITH;
    if (host_is_intel() && one_in(8))                  /* AMD leaves other instructions out of the checks */
        r->rflags |= FL_AC;
}

static void random_memory(void)
{
    struct window w;
    for (unsigned i = 0; i < sizeof(w); i += 8) {
        uint64_t v = value();
        memcpy((uint8_t *)&w + i, &v, 8);
    }
    window_put(&w);
}

/* Where code goes: mostly in the middle of a page, now and then across the boundary. */
static uint64_t code_place(unsigned len)
{
    return one_in(16) ? CODE_VA + 0x1000 - rnd() % (len + 1) : CODE_VA + 64 * (rnd() % 32);
}

#define CASES_EACH 200

/* Every form alone; what differs is told once a form and fails at the end. */
static void each_form(enum oracle_mode m)
{
    oracle_begin();
    if (!host_has_all() || !oracle_mode(m))
        skip();
    set_seed(m);
    unsigned bad = 0, ran = 0;
    for (size_t i = 0; i < ARRAY_SIZE(forms) + ARRAY_SIZE(vex_forms); i++) {
        const struct form *f = i < ARRAY_SIZE(forms) ? &forms[i] : NULL;
        if (f && !usable(f->flags))
            continue;
        bool same = true;
        unsigned done = 0;
        for (unsigned n = 0; n < CASES_EACH && same; n++) {
            struct code k = { .len = 0 };
            struct regs r;
            uint64_t va = code_place(8);
            if (f)
                put_form(&k, f, va);
            else
                put_vex(&k, (unsigned)(i - ARRAY_SIZE(forms)));
            random_state(&r);
            if (n % 8 == 0)
                random_memory();
            uint64_t undefined = host_is_intel() ? 0 : f ? f->undefined : FL_AF | FL_PF | FL_SF;
            done += oracle_compare(k.buf, k.len, va, &r, undefined, &same) == VEC_BP;
        }
        if (!same)
            printf("  ^ %s, opcode %02x\n", f ? f->name : vex_forms[i - ARRAY_SIZE(forms)].name,
                   f ? f->opcode : vex_forms[i - ARRAY_SIZE(forms)].opcode);
        bad += !same;
        ran += done > CASES_EACH / 10;
        if (same && done <= CASES_EACH / 10 && !(f && (!strcmp(f->name, "into") || (mode == CODE_16 && f->opcode == 0xc3))))
            printf("%s %02x: only %u of %u cases ran to their end\n", f ? f->name : "vex", f ? f->opcode : 0, done, CASES_EACH);
    }
    printf("%u forms, %u cases\n", ran, oracle_cases);
    assert_int_equal(bad, 0);
}

static void every_form_alone_64(void **state) { each_form(CODE_64); }
static void every_form_alone_32(void **state) { each_form(CODE_32); }
static void every_form_alone_16(void **state) { each_form(CODE_16); }

static void sequences(enum oracle_mode m, unsigned cases)
{
    oracle_begin();
    if (!host_has_all() || !oracle_mode(m))
        skip();
    set_seed(1000 + m);
    for (unsigned n = 0; n < cases; n++) {
        struct code k = { .len = 0 };
        struct regs r;
        uint64_t va = code_place(40);
        for (unsigned i = 1 + rnd() % 8; i && k.len < 100; i--)
            put_instruction(&k, va);
        if (one_in(6))
            put_last(&k);
        random_state(&r);
        if (n % 8 == 0)
            random_memory();
        oracle_compare(k.buf, k.len, va, &r, 0, NULL);
    }
}

static void sequences_64(void **state) { sequences(CODE_64, 200000); }
static void sequences_32(void **state) { sequences(CODE_32, 60000); }
static void sequences_16(void **state) { sequences(CODE_16, 60000); }

/* ---- the stack of the host ---- */

#define TURNS 4000

static void *loops(void *arg)
{
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        if (!usable(forms[i].flags))
            continue;
        for (unsigned n = 0; n < 6; n++) {
            struct code k = { .len = 0 };
            struct regs r;
            do {
                k.len = 0;
                put_form(&k, &forms[i], CODE_VA);
            } while (k.len > 40);
            put(&k, 0xff);                             /* dec dword [STACK_VA]; jnz back */
            put(&k, 0x0c);
            put(&k, 0x25);
            put_imm(&k, STACK_VA, 4);
            put(&k, 0x0f);
            put(&k, 0x85);
            put_imm(&k, (uint64_t)-(int64_t)(k.len + 4), 4);
            put(&k, 0xcc);
            random_state(&r);
#ifdef __SANITIZE_ADDRESS__
            r.rflags &= ~FL_AC;                        /* slow paths have variables that it guards, and return for that */
#endif
            r.gpr[R_RBP] = r.gpr[12] = r.gpr[13] = DATA_MID - 3 + (n & 1 ? 64 : 0);
            r.rip = CODE_VA;
            memcpy((void *)CODE_VA, k.buf, k.len);
            memcpy((void *)STACK_VA, &(uint32_t){ TURNS }, 4);
            block_drop(cpu, CODE_VA, k.len);
            engine_run(&r);
        }
    }
    return NULL;
}

/* Every handler ends in a jump to the next. Were it a call, loops would need a stack as long as they run. */
static void handlers_do_not_nest(void **state)
{
    oracle_begin();
    assert_true(oracle_mode(CODE_64));
    set_seed(77);
    random_memory();
    pthread_t t;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    /* A thousand nested handlers need more than either; AddressSanitizer's own frames are larger. */
#ifdef __SANITIZE_ADDRESS__
    const size_t stack = 1 << 20;
#else
    const size_t stack = 128 << 10;
#endif
    assert_int_equal(pthread_attr_setstacksize(&attr, stack), 0);
    assert_int_equal(pthread_create(&t, &attr, loops, NULL), 0);
    pthread_join(t, NULL);
    pthread_attr_destroy(&attr);
}

/*
 * Operations that take no part above, and where they are proven instead. What is not in this list
 * and has neither a case above nor one in test_sse.c or test_x87.c fails the next test.
 */
static const struct { uint16_t op; const char *why; } apart[] = {
#define OP(name, why) { X86_OP_##name, why },
#define PRIVILEGED "ring 0: test_soft.c, test_msr.c, test_excp.c, and the payloads on both engines"
#define ANSWERS_DIFFER "what it answers is the machine's own: test_soft.c, test_msr.c"
    OP(CALL_FAR, PRIVILEGED) OP(JMP_FAR, PRIVILEGED) OP(RET_FAR, PRIVILEGED) OP(IRET, PRIVILEGED) OP(INT, PRIVILEGED)
    OP(INT1, PRIVILEGED) OP(INT3, "ends every case") OP(INS, PRIVILEGED) OP(OUTS, PRIVILEGED)
    OP(RDRAND, ANSWERS_DIFFER) OP(RDSEED, ANSWERS_DIFFER)
};

/* Bytes for which the forms above have no pattern. */
static void odd_ones(void **state)
{
    static const struct { uint8_t len, code[8]; } odd[] = {
        { 2, { 0x0f, 0x0b } }, { 3, { 0x0f, 0xff, 0xc1 } }, { 3, { 0x0f, 0xb9, 0xd0 } },            /* UD2, UD0, UD1 */
        { 2, { 0xf3, 0x90 } }, { 4, { 0xf3, 0x0f, 0x1e, 0xfa } }, { 4, { 0xf3, 0x0f, 0x1e, 0xfb } }, /* PAUSE, ENDBR */
        { 3, { 0x0f, 0x0d, 0x0e } }, { 3, { 0x0f, 0x0d, 0x16 } }, { 3, { 0x0f, 0x18, 0x06 } },       /* PREFETCH... */
        { 3, { 0x0f, 0x18, 0x0e } }, { 3, { 0x0f, 0x18, 0x16 } }, { 3, { 0x0f, 0x18, 0x1e } }, { 3, { 0x0f, 0x0d, 0x06 } },
        { 3, { 0x0f, 0x1c, 0x06 } }, { 3, { 0x0f, 0x1f, 0x06 } }, { 3, { 0x0f, 0xae, 0xe8 } }, { 3, { 0x0f, 0xae, 0xf0 } },
        { 3, { 0x0f, 0xae, 0xf8 } }, { 3, { 0x0f, 0xae, 0x3e } }, { 5, { 0xf3, 0x48, 0x0f, 0x1e, 0xc8 } },
    };
    oracle_begin();
    if (!host_has_all() || !oracle_mode(CODE_64))
        skip();
    set_seed(4711);
    for (unsigned n = 0; n < 100 * ARRAY_SIZE(odd); n++) {
        const unsigned i = n % ARRAY_SIZE(odd);
        struct regs r;
        random_state(&r);
        r.gpr[R_RSI] = DATA_MID + rnd() % 64;
        oracle_compare(odd[i].code, odd[i].len, code_place(8), &r, 0, NULL);
    }
}

static void every_integer_instruction_was_tried(void **state)
{
    unsigned missing = 0;
    if (!host_has_all() || oracle_cases < 100000)
        skip();                                         /* a filter left the others out */
    /* Integers, control flow, hints; then come segments and the system, whose operands are the machine's. */
    for (unsigned op = X86_OP_ADD; op < X86_OP_MOV_SEG; op++) {
        bool explained = oracle_tried[op];
        for (unsigned i = 0; i < ARRAY_SIZE(apart); i++) {
            if (apart[i].op == op && oracle_tried[op] && op != X86_OP_INT3)
                fail_msg("%s was tried: take it out of the list", x86_op_name((enum x86_op)op));
            explained |= apart[i].op == op;
        }
        if (!explained) {
            printf("not tried: %s\n", x86_op_name((enum x86_op)op));
            missing++;
        }
    }
    printf("%u cases\n", oracle_cases);
    assert_int_equal(missing, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_alone_64),
        cmocka_unit_test(every_form_alone_32),
        cmocka_unit_test(every_form_alone_16),
        cmocka_unit_test(sequences_64),
        cmocka_unit_test(sequences_32),
        cmocka_unit_test(sequences_16),
        cmocka_unit_test(odd_ones),
        cmocka_unit_test(every_integer_instruction_was_tried),
        cmocka_unit_test(handlers_do_not_nest),
    };
    return cmocka_run_group_tests_name("interp", tests, oracle_setup, oracle_teardown);
}
