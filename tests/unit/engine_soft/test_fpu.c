/*
 * Floating point around the instructions: availability, FXSAVE and FXRSTOR against the host and
 * in every mode's layout, environments outside 64-bit mode, reset, saved state.
 */
#include "native.h"

#define CASES 4000

/* Decodes and executes code; 0xff if it completed, else the vector. */
static unsigned exec(const char *bytes, unsigned len, enum x86_mode mode)
{
    struct x86_insn in;
    assert_int_equal(x86_decode((const uint8_t *)bytes, len, mode, &in), 0);
    assert_non_null(cpu_fpu_ops[in.op].fn);
    return cpu_fpu_ops[in.op].fn(cpu, &in) == X_OK ? 0xff : cpu->exc.vector;
}
#define EXEC(bytes) exec(bytes, sizeof(bytes) - 1, X86_MODE_64)

static int fresh(void **state)
{
    cpu->mode = MODE_CODE64 | MODE_FLAT | MODE_PE | MODE_PG | MODE_USER;
    cpu->cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_MP | CR0_ET;
    cpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_PAE;
    cpu->rflags = 0;
    fpu_reset(cpu, false);
    cpu->x87.cw = 0x37f;
    cpu->x87.tag = 0;
    memset(cpu->gpr, 0, sizeof(cpu->gpr));
    cpu->gpr[R_RSI] = (uintptr_t)data + 1024;
    return 0;
}

#define PASS 0xff

/* SDM volume 3, table 2-2 and 13.1: what each bit does to each kind of instruction. */
static void availability(void **state)
{
    static const struct { const char *name, *code; unsigned len; uint8_t em, ts, ts_nomp, no_osfxsr, mf; } t[] = {
        { "fadd", "\xd8\xc1", 2, VEC_NM, VEC_NM, VEC_NM, PASS, VEC_MF },
        { "fninit", "\xdb\xe3", 2, VEC_NM, VEC_NM, VEC_NM, PASS, PASS },
        { "fnclex", "\xdb\xe2", 2, VEC_NM, VEC_NM, VEC_NM, PASS, PASS },
        { "fnstsw", "\xdf\xe0", 2, VEC_NM, VEC_NM, VEC_NM, PASS, PASS },
        { "fnstcw", "\xd9\x3e", 2, VEC_NM, VEC_NM, VEC_NM, PASS, PASS },
        { "fldcw", "\xd9\x2e", 2, VEC_NM, VEC_NM, VEC_NM, PASS, VEC_MF },
        { "fnsave", "\xdd\x36", 2, VEC_NM, VEC_NM, VEC_NM, PASS, PASS },
        { "frstor", "\xdd\x26", 2, VEC_NM, VEC_NM, VEC_NM, PASS, VEC_MF },
        { "fwait", "\x9b", 1, PASS, VEC_NM, PASS, PASS, VEC_MF },
        { "paddb mm", "\x0f\xfc\xc1", 3, VEC_UD, VEC_NM, VEC_NM, PASS, VEC_MF },
        { "movd mm", "\x0f\x6e\xc0", 3, VEC_UD, VEC_NM, VEC_NM, PASS, VEC_MF },
        { "emms", "\x0f\x77", 2, VEC_UD, VEC_NM, VEC_NM, PASS, VEC_MF },
        { "paddb xmm", "\x66\x0f\xfc\xc1", 4, VEC_UD, VEC_NM, VEC_NM, VEC_UD, PASS },
        { "movaps", "\x0f\x28\xc1", 3, VEC_UD, VEC_NM, VEC_NM, VEC_UD, PASS },
        { "movd xmm", "\x66\x0f\x6e\xc0", 4, VEC_UD, VEC_NM, VEC_NM, VEC_UD, PASS },
        { "addps", "\x0f\x58\xc1", 3, VEC_UD, VEC_NM, VEC_NM, VEC_UD, PASS },
        { "ucomisd", "\x66\x0f\x2e\xc1", 4, VEC_UD, VEC_NM, VEC_NM, VEC_UD, PASS },
        { "cvtps2pi", "\x0f\x2d\xc1", 3, VEC_UD, VEC_NM, VEC_NM, VEC_UD, VEC_MF },
        { "movq2dq", "\xf3\x0f\xd6\xc1", 4, VEC_UD, VEC_NM, VEC_NM, VEC_UD, VEC_MF },
        { "pcmpistri", "\x66\x0f\x3a\x63\xc1\x00", 6, VEC_UD, VEC_NM, VEC_NM, VEC_UD, PASS },
        { "pextrb", "\x66\x0f\x3a\x14\xc8\x00", 6, VEC_UD, VEC_NM, VEC_NM, VEC_UD, PASS },
        { "pshufd", "\x66\x0f\x70\xc1\x1b", 5, VEC_UD, VEC_NM, VEC_NM, VEC_UD, PASS },
        { "ldmxcsr", "\x0f\xae\x16", 3, VEC_UD, VEC_NM, VEC_NM, VEC_UD, PASS },
        { "stmxcsr", "\x0f\xae\x1e", 3, VEC_UD, VEC_NM, VEC_NM, VEC_UD, PASS },
        { "fxsave", "\x0f\xae\x06", 3, VEC_NM, VEC_NM, VEC_NM, PASS, PASS },
        { "fxrstor", "\x0f\xae\x0e", 3, VEC_NM, VEC_NM, VEC_NM, PASS, PASS },
    };
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        struct { uint64_t cr0_set, cr0_clear, cr4_clear; bool pending; uint8_t want; } k[] = {
            { 0, 0, 0, false, PASS },
            { CR0_EM, 0, 0, false, t[i].em },
            { CR0_TS, 0, 0, false, t[i].ts },
            { CR0_TS, CR0_MP, 0, false, t[i].ts_nomp },
            { 0, 0, CR4_OSFXSR, false, t[i].no_osfxsr },
            { 0, 0, 0, true, t[i].mf },
            { CR0_TS, 0, 0, true, t[i].ts },              /* #NM comes before #MF */
        };
        for (size_t j = 0; j < ARRAY_SIZE(k); j++) {
            fresh(NULL);
            memset(data + 1024, 0, 512);
            cpu->cr0 = (cpu->cr0 | k[j].cr0_set) & ~k[j].cr0_clear;
            cpu->cr4 &= ~k[j].cr4_clear;
            if (k[j].pending) {
                cpu->x87.cw = 0x37e;
                cpu->x87.sw = 0x8081;
            }
            unsigned got = exec(t[i].code, t[i].len, X86_MODE_64);
            if (got != k[j].want) {
                fail_msg("%s, condition %zu: %u, not %u", t[i].name, j, got, k[j].want);
            }
        }
    }
}

static void unmasked_sse_exception_needs_osxmmexcpt(void **state)
{
    cpu->mxcsr = 0x1d80;                                /* divide by zero unmasked */
    cpu->xmm[0].f32[0] = 1;
    assert_int_equal(EXEC("\xf3\x0f\x5e\xc1"), VEC_XM);  /* divss xmm0, xmm1 */
    assert_int_equal(cpu->mxcsr, 0x1d84);
    assert_true(cpu->xmm[0].f32[0] == 1);
    cpu->cr4 &= ~CR4_OSXMMEXCPT;
    assert_int_equal(EXEC("\xf3\x0f\x5e\xc1"), VEC_UD);
    assert_true(cpu->xmm[0].f32[0] == 1);
}

/* After a guest operation with its own rounding, C code rounds as it always does. */
static void host_rounding_is_left_alone(void **state)
{
    cpu->mxcsr = 0xffc0;                                /* toward zero, FTZ, DAZ */
    assert_int_equal(EXEC("\x0f\x5e\xc1"), PASS);
    assert_int_equal(_mm_getcsr() & 0xffc0, 0x1f80);
    assert_int_equal(EXEC("\x66\x0f\x3a\x08\xc1\x00"), PASS);
    assert_int_equal(_mm_getcsr() & 0xffc0, 0x1f80);
    assert_int_equal(EXEC("\x0f\x2e\xc1"), PASS);
    assert_int_equal(_mm_getcsr() & 0xffc0, 0x1f80);
    cpu->x87.cw = 0xc00;
    assert_int_equal(EXEC("\xd9\xe8"), PASS);
    uint16_t cw;
    __asm__("fnstcw %0" : "=m"(cw));
    assert_int_equal(cw, 0x37f);
}

static void mxcsr_reserved_bits(void **state)
{
    put_le32(data + 1024, 0x10000);
    assert_int_equal(EXEC("\x0f\xae\x16"), VEC_GP);
    assert_int_equal(cpu->mxcsr, 0x1f80);
    memset(data + 1024, 0, 512);
    put_le32(data + 1024 + 24, 0x80000000);
    assert_int_equal(EXEC("\x0f\xae\x0e"), VEC_GP);
    assert_int_equal(cpu->mxcsr, 0x1f80);
}

/* ---- FXSAVE, FXRSTOR ---- */

static void fx_against_the_host(void **state)
{
    static uint8_t loose[32];
    native_begin();
    set_seed(77);
    memset(loose + 6, 0xff, 18);                        /* FOP, FIP, FDP */
    memset(loose + 28, 0xff, 4);
    for (unsigned i = 0; i < CASES; i++) {
        uint8_t code[4] = { 0x48, 0x0f, 0xae };
        struct x86_insn in;
        struct regs r;
        uint8_t *addr = data + 64 + rnd() % 100 * 16;
        bool restore = one_in(2);
        unsigned skip = one_in(2);                      /* without REX.W */
        code[3] = (uint8_t)(restore << 3 | R_RSI);
        rnd_regs(&r);
        put_le16(r.fx, (uint16_t)(rnd() & 0x1f3f) | 0x40);
        put_le16(r.fx + 2, (uint16_t)rnd() & 0x7f00);
        switch (rnd() % 16) {
        case 0: addr += rnd() % 16; break;              /* #GP */
        case 1: addr = data + 4096 - 256; break;        /* two pages */
        case 2: addr = data + 2 * 4096 - 256 + 16 * (rnd() % 8); break;     /* RAM, then read-only */
        case 3: addr = data + 3 * 4096 - 256; break;
        default: break;
        }
        if (addr + 512 <= data + 2 * 4096) {
            for (unsigned j = 0; j < 512; j++) {
                addr[j] = (uint8_t)rnd();
            }
            memset(addr + 416, 0, 96);
            put_le32(addr + 24, one_in(6) ? (uint32_t)rnd() : (uint32_t)rnd() & 0xffff);
            put_le16(addr, (uint16_t)rnd());
            for (unsigned j = 0; j < 8; j++) {
                rnd_f80(addr + FX_ST(j));
            }
        }
        r.gpr[R_RSI] = (uintptr_t)addr;
        assert_int_equal(x86_decode(code + skip, 4 - skip, X86_MODE_64, &in), 0);
        compare(code + skip, &in, &r, addr, &(struct mask){ .mem = restore ? NULL : loose, .mem_len = 32 });
    }
    assert_int_equal(differences, 0);
}

static void fx_layouts(void **state)
{
    uint8_t *p = data + 1024;
    for (unsigned i = 0; i < 16; i++) {
        cpu->xmm[i].u64[0] = i + 100;
    }
    cpu->x87.fop = 0x123;
    cpu->x87.fip = 0x1122334455667788;
    cpu->x87.fdp = 0x99aabbccddeeff00;
    cpu->x87.fcs = 0x10;
    cpu->x87.fds = 0x18;
    cpu->x87.sw = 3 << 11;
    cpu->x87.st[3] = 3;
    cpu->x87.st[2] = 2;
    cpu->x87.tag = 8;
    memset(p, 0xee, 512);
    assert_int_equal(EXEC("\x48\x0f\xae\x06"), PASS);
    assert_int_equal(get_le16(p), 0x37f);
    assert_int_equal(get_le16(p + 2), 3 << 11);
    assert_int_equal(p[4], 8);
    assert_int_equal(get_le16(p + 6), 0x123);
    assert_true(get_le64(p + 8) == 0x1122334455667788);
    assert_true(get_le64(p + 16) == 0x99aabbccddeeff00);
    assert_int_equal(get_le32(p + 28), 0xffff);
    assert_int_equal(get_le16(p + 32 + 8), 0x4000);     /* ST(0) is physical register 3 */
    assert_true(get_le64(p + 32) == 0xc000000000000000);
    assert_true(get_le64(p + 32 + 7 * 16) == 0x8000000000000000);
    assert_int_equal(get_le64(p + 160 + 15 * 16), 115);
    assert_int_equal(p[416], 0xee);

    assert_int_equal(EXEC("\x0f\xae\x06"), PASS);       /* without REX.W: selectors, 32-bit offsets */
    assert_int_equal(get_le32(p + 8), 0x55667788);
    assert_int_equal(get_le32(p + 12), 0x10);
    assert_int_equal(get_le32(p + 16), 0xddeeff00);
    assert_int_equal(get_le32(p + 20), 0x18);

    /* Outside 64-bit mode: eight XMM registers, also when loading. */
    memset(p, 0xee, 512);
    cpu->mode &= ~(uint32_t)MODE_CODE64;
    assert_int_equal(exec("\x0f\xae\x06", 3, X86_MODE_32), PASS);
    assert_int_equal(get_le64(p + 160 + 7 * 16), 107);
    assert_int_equal(p[160 + 8 * 16], 0xee);
    memset(cpu->xmm, 0, sizeof(cpu->xmm));
    assert_int_equal(exec("\x0f\xae\x0e", 3, X86_MODE_32), PASS);
    assert_int_equal(cpu->xmm[7].u64[0], 107);
    assert_int_equal(cpu->xmm[8].u64[0], 0);
    assert_true(cpu->x87.st[3] == 3);
    assert_int_equal(cpu->x87.fip, 0x55667788);
    assert_int_equal(cpu->x87.fcs, 0x10);
}

/* SDM volume 1, figures 8-9 to 8-12. */
static void environments(void **state)
{
    static const struct {
        const char *name;
        uint64_t cr0_clear, rflags;
        bool wide;
        uint8_t want[28];
    } t[] = {
        { "32-bit protected", 0, 0, true,
          { 0x7f, 3, 0xff, 0xff, 0, 0x18, 0xff, 0xff, 0x3f, 0xff, 0xff, 0xff, 0x78, 0x56, 0x34, 0x12,
            0x10, 0, 0x23, 1, 0x44, 0x33, 0x22, 0x11, 0x18, 0, 0xff, 0xff } },
        { "16-bit protected", 0, 0, false,
          { 0x7f, 3, 0, 0x18, 0x3f, 0xff, 0x78, 0x56, 0x10, 0, 0x44, 0x33, 0x18, 0 } },
        /* linear: 12345678 + 100 = 12345778, 11223344 + 180 = 112234c4 */
        { "32-bit real", CR0_PE, 0, true,
          { 0x7f, 3, 0xff, 0xff, 0, 0x18, 0xff, 0xff, 0x3f, 0xff, 0xff, 0xff, 0x78, 0x57, 0xff, 0xff,
            0x23, 0x41, 0x23, 0x01, 0xc4, 0x34, 0xff, 0xff, 0, 0x20, 0x12, 0x01 } },
        { "16-bit real", CR0_PE, 0, false,
          { 0x7f, 3, 0, 0x18, 0x3f, 0xff, 0x78, 0x57, 0x23, 0x41, 0xc4, 0x34, 0, 0x20 } },
        { "virtual-8086", 0, FL_VM, false,
          { 0x7f, 3, 0, 0x18, 0x3f, 0xff, 0x78, 0x57, 0x23, 0x41, 0xc4, 0x34, 0, 0x20 } },
    };
    uint8_t *p = data + 1024;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        unsigned len = t[i].wide ? 28 : 14;
        fresh(NULL);
        cpu->mode &= ~(uint32_t)MODE_CODE64;
        cpu->cr0 &= ~t[i].cr0_clear;
        cpu->rflags = t[i].rflags;
        cpu->x87 = (struct x87){ .cw = 0x37f, .sw = 0x1800, .tag = 8, .st = { [3] = 1 }, .fop = 0x123,
                                 .fip = 0x12345678, .fdp = 0x11223344, .fcs = 0x10, .fds = 0x18 };
        memset(p, 0xee, 32);
        assert_int_equal(t[i].wide ? exec("\xd9\x36", 2, X86_MODE_32) : exec("\x66\xd9\x36", 3, X86_MODE_32), PASS);
        assert_int_equal(p[len], 0xee);
        if (memcmp(p, t[i].want, len) != 0) {
            dump_bytes("got   ", p);
            dump_bytes("wanted", t[i].want);
            fail_msg("%s environment", t[i].name);
        }
        struct x87 was = cpu->x87;
        bool real = t[i].cr0_clear || t[i].rflags;
        fpu_reset(cpu, false);
        assert_int_equal(t[i].wide ? exec("\xd9\x26", 2, X86_MODE_32) : exec("\x66\xd9\x26", 3, X86_MODE_32), PASS);
        assert_int_equal(cpu->x87.cw, was.cw);
        assert_int_equal(cpu->x87.sw, was.sw);
        assert_int_equal(cpu->x87.tag, was.tag);
        if (t[i].wide) {
            assert_int_equal(cpu->x87.fip, real ? 0x12345778 : 0x12345678);
            assert_int_equal(cpu->x87.fdp, real ? 0x112234c4 : 0x11223344);
            assert_int_equal(cpu->x87.fop, 0x123);
        } else {
            assert_int_equal(cpu->x87.fip, real ? 0x45778 : 0x5678);
            assert_int_equal(cpu->x87.fdp, real ? 0x234c4 : 0x3344);
        }
        assert_int_equal(cpu->x87.fcs, real ? 0 : 0x10);
    }
}

/* ---- faults in the middle ---- */

static void a_fault_changes_nothing(void **state)
{
    static const struct { const char *code; unsigned len; } t[] = {
        { "\xdd\x1e", 2 },                  /* fstp qword: would pop */
        { "\xdf\x3e", 2 },                  /* fistp qword */
        { "\xdb\x3e", 2 },                  /* fstp tbyte */
        { "\xdd\x36", 2 },                  /* fnsave: would initialise */
        { "\xd9\x36", 2 },                  /* fnstenv: would mask */
        { "\x0f\xae\x06", 3 },              /* fxsave */
        { "\x0f\x7f\x06", 3 },              /* movq [rsi], mm0: would enter MMX state */
        { "\x66\x0f\x7f\x06", 4 },          /* movdqa */
        { "\xdc\x06", 2 },                  /* fadd qword */
        { "\x0f\x58\x06", 3 },              /* addps */
    };
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        static struct regs before, after;
        fresh(NULL);
        cpu->x87.sw = 5 << 11;
        cpu->x87.tag = 0x20;
        cpu->x87.st[5] = 3;
        cpu->x87.cw = 0x340;
        cpu->xmm[0].u64[0] = 7;
        cpu->gpr[R_RSI] = (uintptr_t)data + 3 * 4096 + 64;
        cpu_to_regs(cpu, &before);
        assert_int_equal(exec(t[i].code, t[i].len, X86_MODE_64), VEC_PF);
        cpu_to_regs(cpu, &after);
        assert_memory_equal(&before, &after, sizeof(before));
    }
}

static void misaligned_operands(void **state)
{
    cpu->gpr[R_RSI] = (uintptr_t)data + 1032;
    assert_int_equal(EXEC("\x0f\x28\x06"), VEC_GP);                  /* movaps */
    assert_int_equal(EXEC("\x66\x0f\xef\x06"), VEC_GP);              /* pxor */
    assert_int_equal(EXEC("\x0f\x58\x06"), VEC_GP);                  /* addps */
    assert_int_equal(EXEC("\x66\x0f\xe7\x06"), VEC_GP);              /* movntdq */
    assert_int_equal(EXEC("\x0f\xae\x06"), VEC_GP);                  /* fxsave */
    assert_int_equal(EXEC("\x0f\x10\x06"), PASS);                    /* movups */
    assert_int_equal(EXEC("\xf2\x0f\xf0\x06"), PASS);                /* lddqu */
    assert_int_equal(EXEC("\x66\x0f\x3a\x63\x06\x00"), PASS);        /* pcmpistri */
    cpu->gpr[R_RSI] = (uintptr_t)data + 3 * 4096 + 8;
    assert_int_equal(EXEC("\x0f\x28\x06"), VEC_GP);                  /* before the page fault */
}

/* What the host lacks is #UD, whatever CPUID the guest has been shown. */
extern unsigned vec_host;
static void host_without_extensions(void **state)
{
    unsigned had = vec_host;
    vec_host = 0;
    unsigned ssse3 = EXEC("\x66\x0f\x38\x00\xc1"), sse41 = EXEC("\x66\x0f\x38\x17\xc1"),
             sse42 = EXEC("\x66\x0f\x3a\x63\xc1\x00"), aes = EXEC("\x66\x0f\x38\xdc\xc1"),
             extract = EXEC("\x66\x0f\x3a\x14\xc0\x00"), sse2 = EXEC("\x66\x0f\xef\xc1"),
             pextrw = EXEC("\x66\x0f\xc5\xc1\x00");
    vec_host = had;
    assert_int_equal(ssse3, VEC_UD);
    assert_int_equal(sse41, VEC_UD);
    assert_int_equal(sse42, VEC_UD);
    assert_int_equal(aes, VEC_UD);
    assert_int_equal(extract, VEC_UD);
    assert_int_equal(sse2, PASS);
    assert_int_equal(pextrw, PASS);
}

/* ---- life ---- */

static void reset_and_init(void **state)
{
    cpu->xmm[3].u64[1] = 9;
    cpu->mxcsr = 0x1fa0;
    fpu_reset(cpu, true);                               /* INIT leaves it all */
    assert_int_equal(cpu->xmm[3].u64[1], 9);
    assert_int_equal(cpu->mxcsr, 0x1fa0);
    fpu_reset(cpu, false);
    assert_int_equal(cpu->xmm[3].u64[1], 0);
    assert_int_equal(cpu->mxcsr, 0x1f80);
    assert_int_equal(cpu->x87.cw, 0x40);
    assert_int_equal(cpu->x87.tag, 0xff);
}

static void save_and_load(void **state)
{
    static struct regs r, out;
    struct save_writer w;
    struct load_reader lr;
    struct load_section s;
    struct hv_error e;
    set_seed(5);
    for (unsigned i = 0; i < 200; i++) {
        rnd_regs(&r);
        put_le16(r.fx, (uint16_t)(rnd() & 0x1f3f) | 0x40);
        put_le16(r.fx + 2, (uint16_t)rnd() & 0x7f3f);
        regs_to_cpu(&r, cpu);
        cpu->x87.sw |= cpu->x87.sw & ~cpu->x87.cw & 0x3f ? 0x8080 : 0;
        cpu->x87.fip = rnd();
        cpu->x87.fcs = (uint16_t)rnd();
        cpu->x87.fds = (uint16_t)rnd();
        cpu_to_regs(cpu, &r);
        struct x87 was = cpu->x87;
        save_init(&w);
        save_begin(&w, "fpu", 0, 1);
        fpu_save_section(cpu, &w);
        save_end(&w);
        fpu_reset(cpu, false);
        assert_int_equal(load_init(&lr, w.out.buf, w.out.len, &e), 0);
        assert_int_equal(load_find(&lr, "fpu", 0, &s), 0);
        assert_int_equal(fpu_load_section(cpu, &s), 0);
        assert_int_equal(load_done(&s), 0);
        cpu_to_regs(cpu, &out);
        assert_memory_equal(&r, &out, sizeof(r));
        assert_true(cpu->x87.fip == was.fip && cpu->x87.fcs == was.fcs && cpu->x87.fds == was.fds);

        assert_int_equal(load_find(&lr, "fpu", 0, &s), 0);
        s.end--;
        assert_int_equal(fpu_load_section(cpu, &s), -EINVAL);
        char *mxcsr = w.out.buf + (w.out.len - 512 + 24);
        mxcsr[2] |= 1;
        assert_int_equal(load_find(&lr, "fpu", 0, &s), 0);
        assert_int_equal(fpu_load_section(cpu, &s), -EINVAL);
        cpu_to_regs(cpu, &out);
        assert_memory_equal(&r, &out, sizeof(r));       /* refused: untouched */
        save_fini(&w);
    }
}

#define T(f) cmocka_unit_test_setup(f, fresh)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(availability), T(unmasked_sse_exception_needs_osxmmexcpt), T(host_rounding_is_left_alone),
        T(mxcsr_reserved_bits), T(fx_against_the_host), T(fx_layouts), T(environments),
        T(a_fault_changes_nothing), T(misaligned_operands), T(host_without_extensions), T(reset_and_init),
        T(save_and_load),
    };
    return cmocka_run_group_tests(tests, native_setup, NULL);
}
