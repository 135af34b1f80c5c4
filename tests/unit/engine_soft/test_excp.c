/*
 * Events and far transfers, called directly: frames, error codes, stack switches, double and
 * triple faults, in 64-bit, 32-bit, virtual-8086 and real mode.
 */
#include "soft_vm.h"

#define HANDLER 0x40000

static struct test_vm vm;
static struct cpu *c;

static int setup(void **state)
{
    vm_open(&vm, 1);
    vm_tables64(&vm);
    vm_start64(&vm, 0, 0x1000, 0x78008);
    c = vm_cpu(&vm, 0);
    for (unsigned v = 0; v < 64; v++)
        vm_gate64(&vm, v, HANDLER + 16 * v, 14, 0, 0);
    return 0;
}

static int teardown(void **state)
{
    vm_close(&vm);
    return 0;
}

static unsigned delivered(void)
{
    return (unsigned)(c->rip - HANDLER) / 16;
}

/* ---- 64-bit ---- */

static void test_frame64(void **state)
{
    cpu_set_rflags(c, FL_CF | FL_IF | FL_TF | FL_NT, UINT64_MAX);
    cpu_raise_err(c, VEC_GP, 0x1230);
    assert_int_equal(cpu_deliver_exc(c), X_OK);
    assert_int_equal(delivered(), VEC_GP);
    /* RSP was 8 above a 16-byte boundary: aligned down, then six words. */
    const uint64_t sp = 0x78000 - 48;
    assert_int_equal(c->gpr[R_RSP], sp);
    const uint64_t want[6] = { 0x1230, 0x1000, SEL_CODE64, FL_CF | FL_IF | FL_TF | FL_NT | FL_RF | 2, 0x78008, SEL_DATA };
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(vm_get64(&vm, sp + 8 * i), want[i]);
    assert_int_equal(cpu_rflags(c) & (FL_IF | FL_TF | FL_NT | FL_RF), 0);
    assert_int_equal(cpu_rflags(c) & FL_CF, FL_CF);
}

static void test_traps_and_interrupts_push_rf_as_it_is(void **state)
{
    assert_int_equal(cpu_deliver_irq(c, 40), X_OK);
    assert_int_equal(delivered(), 40);
    assert_int_equal(vm_get64(&vm, c->gpr[R_RSP] + 16) & FL_RF, 0);
    cpu_raise(c, VEC_DB);
    assert_int_equal(cpu_deliver_exc(c), X_OK);
    assert_int_equal(vm_get64(&vm, c->gpr[R_RSP] + 16) & FL_RF, 0);
}

static void test_trap_gates_keep_if(void **state)
{
    vm_gate64(&vm, 40, HANDLER + 16 * 40, 15, 0, 0);
    cpu_set_rflags(c, FL_IF, FL_IF);
    assert_int_equal(cpu_deliver_irq(c, 40), X_OK);
    assert_int_equal(cpu_rflags(c) & FL_IF, FL_IF);
}

static void to_user(void)
{
    c->seg[X86_SEG_CS] = seg_flat_code(SEL_UCODE64 | 3, 3, true);
    c->seg[X86_SEG_SS] = seg_flat_data(SEL_UDATA | 3, 3);
    c->cpl = 3;
    cpu_update_mode(c);
}

static void test_stack_switch64(void **state)
{
    to_user();
    cpu_raise_pf(c, 0x123456789000, 6);
    assert_int_equal(cpu_deliver_exc(c), X_OK);
    assert_int_equal(delivered(), VEC_PF);
    assert_int_equal(c->cr2, 0x123456789000);
    assert_int_equal(c->cpl, 0);
    assert_int_equal(c->seg[X86_SEG_SS].sel, 0);               /* a null selector with the new CPL */
    assert_int_equal(c->gpr[R_RSP], 0x80000 - 48);             /* RSP0 */
    assert_int_equal(vm_get64(&vm, 0x80000 - 8), SEL_UDATA | 3);
    assert_int_equal(vm_get64(&vm, 0x80000 - 16), 0x78008);
    /* And back: IRET to the outer level nulls what it may not see. */
    c->seg[X86_SEG_ES].sel = SEL_DATA;
    c->gpr[R_RSP] += 8;
    const struct x86_insn iretq = { .op = X86_OP_IRET, .opsize = 8 };
    assert_int_equal(op_iret(c, &iretq), X_OK);
    assert_int_equal(c->cpl, 3);
    assert_int_equal(c->next_rip, 0x1000);
    assert_int_equal(c->gpr[R_RSP], 0x78008);
    assert_int_equal(c->seg[X86_SEG_SS].sel, SEL_UDATA | 3);
    assert_int_equal(c->seg[X86_SEG_ES].sel, 0);
    assert_true(c->seg[X86_SEG_ES].attr & SEG_ATTR_UNUSABLE);
}

static void test_ist_is_used_without_a_change_of_level(void **state)
{
    vm_gate64(&vm, VEC_DF, HANDLER + 16 * VEC_DF, 14, 0, 1);
    cpu_raise_err(c, VEC_DF, 0);
    assert_int_equal(cpu_deliver_exc(c), X_OK);
    assert_int_equal(c->gpr[R_RSP], 0x88000 - 48);
}

static void test_soft_interrupts_check_the_gate(void **state)
{
    to_user();
    c->next_rip = 0x1002;
    assert_int_equal(cpu_soft_int(c, 40, false), X_FAULT);
    assert_int_equal(c->exc.vector, VEC_GP);
    assert_int_equal(c->exc.error, 40 * 8 + 2);                /* IDT, not EXT */
    vm_gate64(&vm, 40, HANDLER + 16 * 40, 14, 3, 0);
    assert_int_equal(cpu_soft_int(c, 40, false), X_OK);
    assert_int_equal(c->next_rip, HANDLER + 16 * 40);
    assert_int_equal(vm_get64(&vm, c->gpr[R_RSP]), 0x1002);
    /* A hardware event may go through any gate. */
    to_user();
    assert_int_equal(cpu_deliver_irq(c, 41), X_OK);
}

/* What the IDT entry of `vector` can be made to raise. */
enum broken { NOT_PRESENT, BAD_TYPE, UNMAPPED };

static void break_gate(unsigned vector, enum broken how)
{
    const gpa_t at = IDT_GPA + 16 * vector;
    if (how == NOT_PRESENT)
        vm.ram[at + 5] &= 0x7f;
    else if (how == BAD_TYPE)
        vm.ram[at + 5] = 0x8c;
    else
        c->idt_base = 0x7f0000000000;
}

/* SDM table 6-5, each pair through a broken gate of the first event. */
static void test_double_fault_table(void **state)
{
    static const struct { uint8_t first; bool has_error; enum broken how; uint8_t want; uint32_t error; } rows[] = {
        { VEC_UD, false, NOT_PRESENT, VEC_NP, 6 * 8 + 3 },     /* benign, then anything: the second */
        { VEC_UD, false, BAD_TYPE, VEC_GP, 6 * 8 + 3 },
        { VEC_DE, false, NOT_PRESENT, VEC_DF, 0 },             /* contributory twice */
        { VEC_GP, true, BAD_TYPE, VEC_DF, 0 },
        { VEC_TS, true, NOT_PRESENT, VEC_DF, 0 },
        { VEC_NP, true, BAD_TYPE, VEC_DF, 0 },
        { VEC_SS, true, NOT_PRESENT, VEC_DF, 0 },
        { VEC_PF, true, NOT_PRESENT, VEC_DF, 0 },              /* #PF, then contributory */
        { VEC_MF, false, NOT_PRESENT, VEC_NP, 16 * 8 + 3 },
        { VEC_XM, false, NOT_PRESENT, VEC_NP, 19 * 8 + 3 },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        vm_gate64(&vm, rows[i].first, HANDLER + 16u * rows[i].first, 14, 0, 0);
        break_gate(rows[i].first, rows[i].how);
        c->rip = 0x1000;
        c->gpr[R_RSP] = 0x78000;
        if (rows[i].first == VEC_PF)
            cpu_raise_pf(c, 0x5000, 0);
        else if (rows[i].has_error)
            cpu_raise_err(c, rows[i].first, 0);
        else
            cpu_raise(c, rows[i].first);
        assert_int_equal(cpu_deliver_exc(c), X_OK);
        if (delivered() != rows[i].want)
            fail_msg("row %u: vector %u", i, delivered());
        assert_int_equal(vm_get64(&vm, c->gpr[R_RSP]), rows[i].error);
        assert_int_equal(vm_get64(&vm, c->gpr[R_RSP] + 8), 0x1000);
        vm_gate64(&vm, rows[i].first, HANDLER + 16u * rows[i].first, 14, 0, 0);
    }
}

static void test_interrupts_are_benign(void **state)
{
    break_gate(40, NOT_PRESENT);
    assert_int_equal(cpu_deliver_irq(c, 40), X_OK);
    assert_int_equal(delivered(), VEC_NP);
    assert_int_equal(vm_get64(&vm, c->gpr[R_RSP]), 40 * 8 + 3);
}

static void test_triple_faults(void **state)
{
    break_gate(VEC_DF, NOT_PRESENT);
    break_gate(VEC_GP, NOT_PRESENT);
    cpu_raise_err(c, VEC_GP, 0);
    assert_int_equal(cpu_deliver_exc(c), X_LEAVE);
    assert_int_equal(c->leave, LEAVE_SHUTDOWN);
    /* No IDT to read at all: #PF upon #PF, then upon #DF. */
    break_gate(0, UNMAPPED);
    cpu_raise_pf(c, 0x5000, 0);
    assert_int_equal(cpu_deliver_exc(c), X_LEAVE);
    /* A limit of zero. */
    c->idt_base = IDT_GPA;
    c->idt_limit = 0;
    cpu_raise(c, VEC_UD);
    assert_int_equal(cpu_deliver_exc(c), X_LEAVE);
}

static void test_a_fault_on_the_way_changes_nothing(void **state)
{
    to_user();
    c->gpr[R_RSP] = 0x78008;
    vm_put64(&vm, TSS_GPA + 4, 0x0000900000000000ull);         /* RSP0 is not canonical: #SS */
    vm_gate64(&vm, VEC_SS, HANDLER + 16 * VEC_SS, 14, 0, 1);   /* on a stack that works */
    cpu_raise(c, VEC_UD);
    assert_int_equal(cpu_deliver_exc(c), X_OK);
    assert_int_equal(delivered(), VEC_SS);
    const uint64_t sp = c->gpr[R_RSP];
    assert_int_equal(vm_get64(&vm, sp + 8), 0x1000);
    assert_int_equal(vm_get64(&vm, sp + 16), SEL_UCODE64 | 3);
    assert_int_equal(vm_get64(&vm, sp + 32), 0x78008);
}

static void test_nmis_wait_for_the_iret(void **state)
{
    assert_int_equal(cpu_deliver_irq(c, VEC_NMI), X_OK);
    assert_true(c->nmi_blocked);
    vm.g->ops->nmi(vm.g, 0);
    vm.g->ops->nmi(vm.g, 0);
    soft_enter_guest(vcpu_of(c));
    assert_int_equal(cpu_attend(c), X_OK);
    assert_int_equal(c->rip, HANDLER + 16 * VEC_NMI);
    assert_true(c->nmi_pending);
    const struct x86_insn iretq = { .op = X86_OP_IRET, .opsize = 8 };
    assert_int_equal(op_iret(c, &iretq), X_OK);
    c->rip = c->next_rip;
    assert_int_equal(c->rip, 0x1000);
    assert_int_equal(cpu_attend(c), X_OK);
    assert_int_equal(c->rip, HANDLER + 16 * VEC_NMI);
    assert_false(c->nmi_pending);          /* only one waits */
    soft_leave_guest(vcpu_of(c));
}

/* ---- 32-bit ---- */

#define GDT32 0x3000
#define IDT32 0x4000
#define TSS32 0x5000
enum { S_CODE = 8, S_DATA = 16, S_UCODE = 24, S_UDATA = 32, S_TSS = 40, S_GATE = 48, S_CODE1 = 56, S_DATA1 = 64,
       S_DOWN = 72, S_CONF = 80 };

static void gate32(unsigned vector, uint32_t eip, unsigned type, unsigned dpl, uint16_t sel)
{
    vm_put64(&vm, IDT32 + 8 * vector, (eip & 0xffff) | (uint64_t)sel << 16 | (uint64_t)(0x80 | dpl << 5 | type) << 40 |
                                      (uint64_t)(eip & 0xffff0000) << 32);
}

static int setup32(void **state)
{
    setup(state);
    static const struct { uint16_t sel; uint64_t d; } gdt[] = {
        { S_CODE, 0x00cf9b000000ffffull }, { S_DATA, 0x00cf93000000ffffull }, { S_UCODE, 0x00cffb000000ffffull },
        { S_UDATA, 0x00cff3000000ffffull }, { S_TSS, 0x00008b0050000067ull }, { S_CODE1, 0x00cfbb000000ffffull },
        { S_DATA1, 0x00cfb3000000ffffull }, { S_DOWN, 0x00c097000000000full }, { S_CONF, 0x00cf9f000000ffffull },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(gdt); i++)
        vm_put64(&vm, GDT32 + gdt[i].sel, gdt[i].d);
    /* Call gate to S_CODE:0x41000, DPL 3, two parameters. */
    vm_put64(&vm, GDT32 + S_GATE, 0x0004ec0200081000ull);
    vm_put32(&vm, TSS32 + 4, 0x80000);
    vm_put32(&vm, TSS32 + 8, S_DATA);
    vm_put32(&vm, TSS32 + 12, 0x90000);
    vm_put32(&vm, TSS32 + 16, S_DATA1 | 1);
    for (unsigned v = 0; v < 64; v++)
        gate32(v, HANDLER + 16 * v, 14, 0, S_CODE);
    struct vcpu_regs r;
    struct vcpu *v = vcpu_of(c);
    soft_get_regs(v, &r);
    r.cr0 = CR0_PE | CR0_ET;
    r.cr4 = r.efer = 0;
    r.gdt_base = GDT32;
    r.gdt_limit = 0xff;
    r.idt_base = IDT32;
    r.idt_limit = 0x1ff;
    for (unsigned i = 0; i < 6; i++)
        r.seg[i] = vm_seg(S_DATA, 0, UINT32_MAX, 0xc093);
    r.seg[X86_SEG_CS] = vm_seg(S_CODE, 0, UINT32_MAX, 0xc09b);
    r.tr = vm_seg(S_TSS, TSS32, 0x67, 0x8b);
    r.gpr[R_RSP] = 0x78000;
    assert_int_equal(soft_set_regs(v, &r), 0);
    return 0;
}

static void to_user32(void)
{
    c->seg[X86_SEG_CS] = (struct seg){ .limit = UINT32_MAX, .attr = 0xc0fb, .sel = S_UCODE | 3 };
    c->seg[X86_SEG_SS] = (struct seg){ .limit = UINT32_MAX, .attr = 0xc0f3, .sel = S_UDATA | 3 };
    c->cpl = 3;
    cpu_update_mode(c);
}

static void test_frame32(void **state)
{
    cpu_raise_err(c, VEC_NP, 0x44);
    assert_int_equal(cpu_deliver_exc(c), X_OK);
    assert_int_equal(c->gpr[R_RSP], 0x78000 - 16);
    assert_int_equal(vm_get32(&vm, 0x78000 - 16), 0x44);
    assert_int_equal(vm_get32(&vm, 0x78000 - 12), 0x1000);
    assert_int_equal(vm_get32(&vm, 0x78000 - 8), S_CODE);
    assert_int_equal(vm_get32(&vm, 0x78000 - 4), FL_RF | 2);
}

static void test_stack_switch32(void **state)
{
    to_user32();
    cpu_raise(c, VEC_UD);
    assert_int_equal(cpu_deliver_exc(c), X_OK);
    assert_int_equal(c->cpl, 0);
    assert_int_equal(c->seg[X86_SEG_SS].sel, S_DATA);
    assert_int_equal(c->gpr[R_RSP], 0x80000 - 20);
    assert_int_equal(vm_get32(&vm, 0x80000 - 4), S_UDATA | 3);
    assert_int_equal(vm_get32(&vm, 0x80000 - 8), 0x78000);
    const struct x86_insn iretd = { .op = X86_OP_IRET, .opsize = 4 };
    assert_int_equal(op_iret(c, &iretd), X_OK);
    assert_int_equal(c->cpl, 3);
    assert_int_equal(c->gpr[R_RSP], 0x78000);
}

static void test_a_bad_stack_in_the_tss_is_ts(void **state)
{
    to_user32();
    vm_put32(&vm, TSS32 + 8, S_UDATA);     /* RPL 0, DPL 3 */
    gate32(VEC_TS, HANDLER + 16 * VEC_TS, 14, 0, S_CODE1);     /* handled at CPL 1, whose stack is good */
    cpu_raise(c, VEC_UD);
    assert_int_equal(cpu_deliver_exc(c), X_OK);
    assert_int_equal(delivered(), VEC_TS);
    assert_int_equal(c->cpl, 1);
    assert_int_equal(vm_get32(&vm, c->gpr[R_RSP]), S_UDATA | 1);           /* selector, EXT */
}

static void test_conforming_handlers_keep_the_level(void **state)
{
    to_user32();
    gate32(VEC_UD, HANDLER + 16 * VEC_UD, 14, 0, S_CONF);
    cpu_raise(c, VEC_UD);
    assert_int_equal(cpu_deliver_exc(c), X_OK);
    assert_int_equal(c->cpl, 3);
    assert_int_equal(c->seg[X86_SEG_CS].sel, S_CONF | 3);
    assert_int_equal(c->gpr[R_RSP], 0x78000 - 12);
}

static void test_v86_frames(void **state)
{
    const struct x86_insn iretd = { .op = X86_OP_IRET, .opsize = 4 };
    /* IRET into virtual-8086 mode: EIP CS EFLAGS ESP SS ES DS FS GS. */
    const uint32_t frame[9] = { 0x100, 0x1111, FL_VM | FL_IF | 2, 0x200, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666 };
    memcpy(vm.ram + 0x77000, frame, sizeof(frame));
    c->gpr[R_RSP] = 0x77000;
    assert_int_equal(op_iret(c, &iretd), X_OK);
    c->rip = c->next_rip;
    assert_true(c->mode & MODE_VM);
    assert_int_equal(c->cpl, 3);
    assert_int_equal(c->rip, 0x100);
    assert_int_equal(c->seg[X86_SEG_CS].base, 0x11110);
    assert_int_equal(c->seg[X86_SEG_GS].base, 0x66660);
    assert_int_equal(c->seg[X86_SEG_DS].limit, 0xffff);
    /* INT n at IOPL 0 is for the monitor; the event comes with all segments and leaves them null. */
    assert_int_equal(cpu_soft_int(c, 0x21, false), X_FAULT);
    assert_int_equal(c->exc.vector, VEC_GP);
    assert_int_equal(cpu_deliver_exc(c), X_OK);
    assert_int_equal(c->cpl, 0);
    assert_false(c->mode & MODE_VM);
    assert_int_equal(c->gpr[R_RSP], 0x80000 - 40);
    static const uint32_t want[10] = { 0, 0x100, 0x1111, FL_VM | FL_IF | FL_RF | 2, 0x200, 0x2222, 0x3333, 0x4444,
                                       0x5555, 0x6666 };
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(vm_get32(&vm, 0x80000 - 40 + 4 * i), want[i]);
    assert_true(c->seg[X86_SEG_DS].attr & SEG_ATTR_UNUSABLE);
}

static void test_call_gate_copies_parameters(void **state)
{
    to_user32();
    c->gpr[R_RSP] = 0x78000 - 8;
    vm_put32(&vm, 0x78000 - 8, 0xaaaa);
    vm_put32(&vm, 0x78000 - 4, 0xbbbb);
    c->next_rip = 0x1007;
    const struct x86_insn call = { .op = X86_OP_CALL_FAR, .opsize = 4, .nopnd = 2, .imm = 0, .imm2 = S_GATE | 3,
                                   .opnd = { { .kind = X86_OPND_IMM, .size = 4 }, { .kind = X86_OPND_IMM2, .size = 2 } } };
    assert_int_equal(op_call_far(c, &call), X_OK);
    assert_int_equal(c->cpl, 0);
    assert_int_equal(c->next_rip, 0x41000);
    assert_int_equal(c->gpr[R_RSP], 0x80000 - 24);
    static const uint32_t want[6] = { 0x1007, S_UCODE | 3, 0xaaaa, 0xbbbb, 0x78000 - 8, S_UDATA | 3 };
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(vm_get32(&vm, 0x80000 - 24 + 4 * i), want[i]);
    /* RETF 8 takes them from both stacks. */
    const struct x86_insn ret = { .op = X86_OP_RET_FAR, .opsize = 4, .nopnd = 1, .imm = 8,
                                  .opnd = { { .kind = X86_OPND_IMM, .size = 2 } } };
    assert_int_equal(op_ret_far(c, &ret), X_OK);
    assert_int_equal(c->cpl, 3);
    assert_int_equal(c->next_rip, 0x1007);
    assert_int_equal(c->gpr[R_RSP], 0x78000);
}

static void test_segment_load_checks(void **state)
{
    static const struct { uint8_t seg; uint16_t sel; bool user; uint8_t vector; uint32_t error; } rows[] = {
        { X86_SEG_DS, S_DATA, false, 0xff, 0 },
        { X86_SEG_DS, 0, false, 0xff, 0 },
        { X86_SEG_SS, 0, false, VEC_GP, 0 },
        { X86_SEG_DS, 0x1000, false, VEC_GP, 0x1000 },         /* beyond the limit */
        { X86_SEG_DS, S_DATA | 4, false, VEC_GP, S_DATA | 4 }, /* no LDT */
        { X86_SEG_DS, S_TSS, false, VEC_GP, S_TSS },
        { X86_SEG_ES, S_CODE, false, 0xff, 0 },                /* readable code */
        { X86_SEG_SS, S_CODE, false, VEC_GP, S_CODE },
        { X86_SEG_SS, S_DATA | 3, false, VEC_GP, S_DATA },
        { X86_SEG_SS, S_UDATA | 3, false, VEC_GP, S_UDATA },
        { X86_SEG_DS, S_DATA, true, VEC_GP, S_DATA },
        { X86_SEG_DS, S_UDATA | 3, true, 0xff, 0 },
        { X86_SEG_FS, S_CONF, true, 0xff, 0 },                 /* conforming code: from everywhere */
        { X86_SEG_SS, S_DOWN, false, 0xff, 0 },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        setup32(state);
        if (rows[i].user)
            to_user32();
        int r = seg_load(c, rows[i].seg, rows[i].sel);
        assert_int_equal(r, rows[i].vector == 0xff ? X_OK : X_FAULT);
        if (r) {
            assert_int_equal(c->exc.vector, rows[i].vector);
            assert_int_equal(c->exc.error, rows[i].error);
        } else {
            assert_int_equal(c->seg[rows[i].seg].sel, rows[i].sel);
        }
        teardown(state);
    }
    setup32(state);
    /* Not present: #NP, but #SS for SS; the accessed bit is set by a load. */
    vm_put64(&vm, GDT32 + S_DATA, 0x00cf12000000ffffull);
    assert_int_equal(seg_load(c, X86_SEG_DS, S_DATA), X_FAULT);
    assert_int_equal(c->exc.vector, VEC_NP);
    assert_int_equal(seg_load(c, X86_SEG_SS, S_DATA), X_FAULT);
    assert_int_equal(c->exc.vector, VEC_SS);
    vm_put64(&vm, GDT32 + S_DATA, 0x00cf92000000ffffull);
    assert_int_equal(seg_load(c, X86_SEG_DS, S_DATA), X_OK);
    assert_int_equal(vm_get64(&vm, GDT32 + S_DATA), 0x00cf93000000ffffull);
    /* Expand-down: limit 0xffff, the segment is above it. */
    assert_int_equal(seg_load(c, X86_SEG_SS, S_DOWN), X_OK);
    struct stack k = stack_present(c);
    k.sp = 0x10004;
    assert_int_equal(stack_push(c, &k, 4, 1), X_OK);
    assert_int_equal(stack_push(c, &k, 4, 1), X_FAULT);
    assert_int_equal(c->exc.vector, VEC_SS);
}

static void test_io_bitmap(void **state)
{
    to_user32();
    assert_int_equal(cpu_io_check(c, 0x80, 1), X_FAULT);       /* no map within the limit */
    c->tr.limit = 0x67 + 0x20;
    vm_put32(&vm, TSS32 + 100, 0x68 << 16);
    memset(vm.ram + TSS32 + 0x68, 0xff, 0x21);
    vm.ram[TSS32 + 0x68 + 0x10] = 0xf0;                        /* ports 0x80..0x83 */
    assert_int_equal(cpu_io_check(c, 0x80, 1), X_OK);
    assert_int_equal(cpu_io_check(c, 0x80, 4), X_OK);
    assert_int_equal(cpu_io_check(c, 0x82, 4), X_FAULT);
    assert_int_equal(c->exc.vector, VEC_GP);
    assert_int_equal(cpu_io_check(c, 0x100, 1), X_FAULT);      /* beyond the map */
    cpu_set_rflags(c, FL_IOPL, FL_IOPL);
    assert_int_equal(cpu_io_check(c, 0x100, 1), X_OK);
}

/* ---- real mode ---- */

static void test_real_mode(void **state)
{
    vm.g->ops->reset(vm.g);
    c->gpr[R_RSP] = 0x12340008;
    vm_put32(&vm, 4 * 0x21, 0x20003000);
    c->next_rip = 0x55;
    assert_int_equal(cpu_soft_int(c, 0x21, false), X_OK);
    assert_int_equal(c->next_rip, 0x3000);
    assert_int_equal(c->seg[X86_SEG_CS].base, 0x20000);
    assert_int_equal(c->gpr[R_RSP], 0x12340002);               /* SP only */
    assert_int_equal(vm_get32(&vm, 2), 0xf0000055);
    const struct x86_insn iret = { .op = X86_OP_IRET, .opsize = 2 };
    assert_int_equal(op_iret(c, &iret), X_OK);
    assert_int_equal(c->next_rip, 0x55);
    assert_int_equal(c->seg[X86_SEG_CS].base, 0xf0000);        /* by the selector now, not as after reset */
    assert_int_equal(c->gpr[R_RSP], 0x12340008);
    /* No error code is pushed; a vector beyond the IVT's limit is #GP, and then a double fault. */
    cpu_raise_err(c, VEC_GP, 0x18);
    vm_put32(&vm, 4 * VEC_GP, 0x30000777);
    assert_int_equal(cpu_deliver_exc(c), X_OK);
    assert_int_equal(c->rip, 0x777);
    assert_int_equal(c->gpr[R_RSP], 0x12340002);
    c->idt_limit = 3;
    cpu_raise(c, VEC_UD);
    assert_int_equal(cpu_deliver_exc(c), X_LEAVE);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define T32(f) cmocka_unit_test_setup_teardown(f, setup32, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_frame64), T(test_traps_and_interrupts_push_rf_as_it_is), T(test_trap_gates_keep_if),
        T(test_stack_switch64), T(test_ist_is_used_without_a_change_of_level), T(test_soft_interrupts_check_the_gate),
        T(test_double_fault_table), T(test_interrupts_are_benign), T(test_triple_faults),
        T(test_a_fault_on_the_way_changes_nothing), T(test_nmis_wait_for_the_iret),
        T32(test_frame32), T32(test_stack_switch32), T32(test_a_bad_stack_in_the_tss_is_ts),
        T32(test_conforming_handlers_keep_the_level), T32(test_v86_frames), T32(test_call_gate_copies_parameters),
        cmocka_unit_test_teardown(test_segment_load_checks, teardown), T32(test_io_bitmap), T(test_real_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
