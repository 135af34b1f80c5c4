/*
 * x87 instructions against the host: every D8..DF encoding with a function in cpu_fpu_ops[],
 * on random stacks, control words and pending exceptions.
 */
#include "native.h"
#include "hv/engine/soft/x87.h"

#define CASES 420          /* an encoding */

static bool tried[X86_OP_COUNT];
static unsigned cases, pending;

/* A control word: mostly as programs set it, also any precision and rounding, and unmasked exceptions. */
static uint16_t rnd_cw(void)
{
    uint16_t cw = 0x37f;
    if (one_in(2)) {
        cw = (uint16_t)((cw & ~0xf00) | (rnd() & 0xf00));
    }
    if (one_in(3)) {
        cw = (uint16_t)((cw & ~0x3f) | (rnd() & 0x3f));
    }
    return cw;
}

static void rnd_x87(struct regs *r)
{
    uint16_t cw = rnd_cw(), sw = (uint16_t)(rnd() & 0x7f40);
    if (one_in(3)) {
        sw |= rnd() & 0x3f;
    }
    if (!one_in(8)) {
        sw &= (uint16_t)~(~cw & 0x3f);          /* nothing pending */
    }
    if (sw & ~cw & 0x3f) {
        sw |= 0x8080;
    }
    put_le16(r->fx, cw);
    put_le16(r->fx + 2, sw);
    r->fx[4] = one_in(4) ? (uint8_t)rnd() : 0xff;
    for (unsigned i = 0; i < 8; i++) {
        rnd_f80(r->fx + FX_ST(i));
        memset(r->fx + FX_ST(i) + 10, 0, 6);
    }
    pending += (sw & 0x80) != 0;
}

/* Memory operands: reals and integers of each size, BCD digits and what is no digit. */
static void rnd_mem(uint8_t *p, unsigned size)
{
    switch (size) {
    case 2: put_le16(p, one_in(4) ? 0x8000 : (uint16_t)rnd()); return;
    case 4: put_le32(p, one_in(2) ? rnd_f32() : one_in(2) ? (uint32_t)rnd() % 100 : (uint32_t)rnd()); return;
    case 8: put_le64(p, one_in(2) ? rnd_f64() : one_in(2) ? rnd() % 100 : rnd()); return;
    default: break;
    }
    if (one_in(2)) {
        rnd_f80(p);
        return;
    }
    for (unsigned i = 0; i < 9; i++) {
        p[i] = (uint8_t)(rnd() % 10 << 4 | rnd() % 10);
    }
    p[9] = one_in(2) ? 0x80 : 0;
}

/* Environments as software may build them; FIP and FDP are not compared, so any will do. */
static void rnd_env(uint8_t *p, unsigned size)
{
    unsigned env = size >= 108 ? size - 80 : size, step = env / 7;
    for (unsigned i = 0; i < size; i++) {
        p[i] = (uint8_t)rnd();
    }
    put_le16(p, one_in(2) ? rnd_cw() : (uint16_t)rnd());
    put_le16(p + step, (uint16_t)rnd());
    for (unsigned i = env; i + 10 <= size; i += 10) {
        rnd_f80(p + i);
    }
}

static bool is_env(uint16_t op)
{
    return op == X86_OP_FNSTENV || op == X86_OP_FNSAVE || op == X86_OP_FLDENV || op == X86_OP_FRSTOR;
}

static bool one_case(uint8_t opcode, uint8_t modrm)
{
    uint8_t code[4] = { 0 };
    unsigned n = 0;
    struct x86_insn in;
    struct regs r;
    static const uint8_t pointers[16] = { [6] = 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    static const uint8_t pointers32[28] = {
        [12] = 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    };

    if (one_in(3)) {
        code[n++] = one_in(2) ? 0x66 : 0x48;    /* operand size: matters for environments only */
    }
    code[n++] = opcode;
    code[n++] = modrm;
    if (x86_decode(code, sizeof(code), X86_MODE_64, &in) != 0 || !cpu_fpu_ops[in.op].fn) {
        return false;
    }
    rnd_regs(&r);
    rnd_x87(&r);
    uint8_t *addr = is_env(in.op) ? data + 256 + rnd() % 2048 : rnd_addr();
    r.gpr[R_RSI] = (uintptr_t)addr;
    unsigned size = modrm < 0xc0 ? in.opnd[0].size : 0;
    for (unsigned i = 0; i < in.nopnd; i++) {
        size = in.opnd[i].kind == X86_OPND_MEM ? in.opnd[i].size : size;
    }
    if (size && addr + size <= data + 2 * 4096) {
        if (size > 10) {
            rnd_env(addr, size);
        } else {
            rnd_mem(addr, size);
        }
    }
    struct mask m = { 0 };
    if (is_env(in.op)) {
        m.mem = in.opsize == 2 ? pointers : pointers32;
        m.mem_len = in.opsize == 2 ? 14 : 28;
    }
    compare(code, &in, &r, addr, &m);
    tried[in.op] = true;
    cases++;
    return true;
}

static void all_encodings(void **state)
{
    native_begin();
    for (unsigned opcode = 0xd8; opcode <= 0xdf; opcode++) {
        for (unsigned reg = 0; reg < 8; reg++) {
            set_seed(opcode << 8 | reg);
            for (unsigned i = 0; i < CASES && one_case((uint8_t)opcode, (uint8_t)(reg << 3 | R_RSI)); i++) {
            }
        }
        for (unsigned modrm = 0xc0; modrm <= 0xff; modrm++) {
            set_seed(opcode << 8 | modrm);
            for (unsigned i = 0; i < CASES && one_case((uint8_t)opcode, (uint8_t)modrm); i++) {
            }
        }
    }
    assert_int_equal(differences, 0);
}

static void every_instruction_was_tried(void **state)
{
    unsigned missing = 0;
    for (unsigned op = 1; op < X86_OP_COUNT; op++) {
        const char *name = x86_op_name((enum x86_op)op);
        if (cpu_fpu_ops[op].fn && (name[0] | 0x20) == 'f' && !tried[op] && op != X86_OP_FWAIT &&
            op != X86_OP_FXSAVE && op != X86_OP_FXRSTOR) {
            printf("not tried: %s\n", name);
            missing++;
        }
    }
    printf("%u cases, %u with an exception pending\n", cases, pending);
    assert_int_equal(missing, 0);
    assert_true(pending > 1000);
}

/*
 * CR0.NE clear: the exception goes to the interrupt controller of a PC, not to #MF. It is not wired; the
 * instruction executes, and the host must not notice that something was pending.
 */
static void pending_without_ne_is_ignored(void **state)
{
    static const uint8_t code[] = { 0xd8, 0xc1 };              /* fadd st0, st1 */
    struct x86_insn in;
    native_begin();
    assert_int_equal(x86_decode(code, sizeof(code), X86_MODE_64, &in), 0);
    cpu->cr0 &= ~CR0_NE;
    cpu->x87 = (struct x87){ .cw = 0x340, .sw = 0x8084, .tag = 3, .st = { 1.5L, 2.5L } };
    assert_int_equal(cpu_fpu_ops[in.op].fn(cpu, &in), X_OK);
    assert_true(cpu->x87.st[0] == 4.0L);
    assert_int_equal(cpu->x87.sw, 0x8084);
    assert_int_equal(cpu->x87.cw, 0x340);
    cpu->cr0 |= CR0_NE;
    assert_int_equal(cpu_fpu_ops[in.op].fn(cpu, &in), X_FAULT);
    assert_int_equal(cpu->exc.vector, VEC_MF);
    assert_true(cpu->x87.st[0] == 4.0L);
}

/* FIP names the last instruction that was not a control one, with its selector. */
static void pointers_follow_the_last_instruction(void **state)
{
    static const uint8_t fadd[] = { 0xdc, 0x46, 0x10 };        /* fadd qword [rsi + 16] */
    static const uint8_t fnstcw[] = { 0xd9, 0x7e, 0x20 };
    struct x86_insn in;
    native_begin();
    cpu->x87 = (struct x87){ .cw = 0x37f, .tag = 3, .st = { 1, 2 } };
    cpu->gpr[R_RSI] = (uintptr_t)data;
    cpu->rip = 0x123456789a;
    cpu->seg[X86_SEG_CS].sel = 0x33;
    cpu->seg[X86_SEG_DS].sel = 0x2b;
    assert_int_equal(x86_decode(fadd, sizeof(fadd), X86_MODE_64, &in), 0);
    assert_int_equal(cpu_fpu_ops[in.op].fn(cpu, &in), X_OK);
    cpu->rip = 0x5555;
    assert_int_equal(x86_decode(fnstcw, sizeof(fnstcw), X86_MODE_64, &in), 0);
    assert_int_equal(cpu_fpu_ops[in.op].fn(cpu, &in), X_OK);
    assert_int_equal(cpu->x87.fip, 0x123456789a);
    assert_int_equal(cpu->x87.fcs, 0x33);
    assert_int_equal(cpu->x87.fop, 0);
    assert_int_equal(cpu->x87.fdp, 0);
    /* The others of the last one that raised an unmasked exception: 1 + 2 with the invalid operand of an SNaN. */
    cpu->x87.cw = 0x37e;
    cpu->rip = 0x123456789a;
    memcpy(data + 16, "\1\0\0\0\0\0\xf0\x7f", 8);
    assert_int_equal(x86_decode(fadd, sizeof(fadd), X86_MODE_64, &in), 0);
    assert_int_equal(cpu_fpu_ops[in.op].fn(cpu, &in), X_OK);
    assert_true(cpu->x87.sw & X87_ES);
    assert_int_equal(cpu->x87.fop, 0x446);
    assert_int_equal(cpu->x87.fdp, (uintptr_t)data + 16);
    assert_int_equal(cpu->x87.fds, 0x2b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_encodings),
        cmocka_unit_test(every_instruction_was_tried),
        cmocka_unit_test(pending_without_ne_is_ignored),
        cmocka_unit_test(pointers_follow_the_last_instruction),
    };
    return cmocka_run_group_tests(tests, native_setup, NULL);
}
