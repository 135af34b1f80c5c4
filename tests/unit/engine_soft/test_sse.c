/*
 * MMX and SSE instructions against the host. The opcode maps are walked with the decoder:
 * whatever cpu_fpu_ops[] executes is tried, registers and memory, so nothing is forgotten.
 */
#include "native.h"

#define CASES 260          /* a form */

static bool tried[X86_OP_COUNT];
static unsigned cases;

/* Not to be tried here: test_x87.c and test_fpu.c have them. */
static bool elsewhere(uint16_t op)
{
    return op == X86_OP_FXSAVE || op == X86_OP_FXRSTOR || (x86_op_name((enum x86_op)op)[0] | 0x20) == 'f';
}

/* Which bytes of a masked store fault is the implementation's choice; all zeros may fault or not. */
static bool stores_masked(uint16_t op)
{
    return op == X86_OP_MASKMOVQ || op == X86_OP_MASKMOVDQU;
}

/* One random instruction of an opcode; false if it is none of ours. */
static bool one_case(const uint8_t *prefix, unsigned prefix_len, unsigned opcode, bool memory, unsigned group)
{
    uint8_t code[16] = { 0 };
    unsigned n = 0;
    struct x86_insn in;
    struct regs r;

    if (prefix_len && (prefix[0] == 0x66 || prefix[0] == 0xf3 || prefix[0] == 0xf2)) {
        code[n++] = *prefix++;
        prefix_len--;
    }
    uint8_t rex = one_in(2) ? 0x40 | (rnd() & 0xc) : 0;        /* W, R; the memory base stays RSI */
    if (!memory) {
        rex |= rex ? rnd() & 1 : 0;
    }
    if (rex) {
        code[n++] = rex;
    }
    memcpy(code + n, prefix, prefix_len);
    n += prefix_len;
    code[n++] = (uint8_t)opcode;
    uint8_t modrm = memory ? R_RSI : 0xc0 | (rnd() & 7);
    code[n++] = modrm | (uint8_t)((group < 8 ? group : rnd() & 7) << 3);
    code[n] = (uint8_t)rnd();                                   /* immediate, if there is one */

    if (x86_decode(code, sizeof(code), X86_MODE_64, &in) != 0 || in.op >= X86_OP_COUNT ||
        !cpu_fpu_ops[in.op].fn || elsewhere(in.op)) {
        return false;
    }
    rnd_regs(&r);
    uint8_t *addr = stores_masked(in.op) ? data + 64 + rnd() % 64 * 16 : rnd_addr();
    r.gpr[R_RSI] = (uintptr_t)addr;
    r.gpr[R_RDI] = (uintptr_t)addr;
    if (addr + 16 <= data + 2 * 4096) {
        rnd_vec(addr);
        if (in.op == X86_OP_LDMXCSR) {
            put_le32(addr, one_in(4) ? (uint32_t)rnd() : (uint32_t)rnd() & 0xffff);
        }
    }
    if (in.op == X86_OP_DPPS || in.op == X86_OP_DPPD) {
        r.fx[24] |= 0x80;           /* all masked: flags of the steps before a trap, see fp_trap() */
        r.fx[25] |= 0x1f;
    }
    compare(code, &in, &r, addr, &(struct mask){ .trap_pe = true });
    tried[in.op] = true;
    cases++;
    return true;
}

static void all_forms(void **state)
{
    static const struct { uint8_t len, p[3]; } map[] = {
        { 1, { 0x0f } }, { 2, { 0x0f, 0x38 } }, { 2, { 0x0f, 0x3a } },
    };
    static const uint8_t mandatory[] = { 0, 0x66, 0xf3, 0xf2 };
    native_begin();
    for (size_t m = 0; m < ARRAY_SIZE(map); m++) {
        for (size_t p = 0; p < sizeof(mandatory); p++) {
            uint8_t prefix[4];
            unsigned len = 0;
            if (mandatory[p]) {
                prefix[len++] = mandatory[p];
            }
            memcpy(prefix + len, map[m].p, map[m].len);
            len += map[m].len;
            for (unsigned opcode = 0; opcode < 256; opcode++) {
                if (m == 0 && (opcode == 0x38 || opcode == 0x3a)) {
                    continue;                                   /* the other maps */
                }
                for (unsigned form = 0; form < 16; form++) {    /* registers or memory, ModRM.reg */
                    set_seed((uint64_t)m << 40 | p << 32 | opcode << 8 | form);
                    for (unsigned i = 0; i < CASES / 8 && one_case(prefix, len, opcode, form & 1, form >> 1); i++) {
                    }
                }
            }
        }
    }
    assert_int_equal(differences, 0);
}

static void every_instruction_was_tried(void **state)
{
    unsigned missing = 0;
    for (unsigned op = 1; op < X86_OP_COUNT; op++) {
        op_fn *fn = cpu_fpu_ops[op].fn;
        if (fn && !tried[op] && !elsewhere((uint16_t)op)) {
            printf("not tried: %s\n", x86_op_name((enum x86_op)op));
            missing++;
        }
    }
    printf("%u cases\n", cases);
    assert_int_equal(missing, 0);
    assert_true(cases > 50000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms),
        cmocka_unit_test(every_instruction_was_tried),
    };
    return cmocka_run_group_tests(tests, native_setup, NULL);
}
