/* CPUID and MSRs as a guest probes them; both must agree. */
#include "soft_vm.h"

#include "hv/engine/soft/intops.h"

static struct test_vm vm;
static struct cpu *c;

static int setup(void **state)
{
    vm_open(&vm, 3);
    vm_tables64(&vm);
    vm_start64(&vm, 0, 0x1000, 0x8000);
    c = vm_cpu(&vm, 0);
    return 0;
}

static int teardown(void **state)
{
    vm_close(&vm);
    return 0;
}

static void test_cpuid_leaves(void **state)
{
    uint32_t v[4];
    cpuid_read(c, 0, 0, v);
    assert_int_equal(v[0], 0x16);
    assert_memory_equal(&v[1], "Genu", 4);
    cpuid_read(vm_cpu(&vm, 2), 1, 0, v);
    assert_int_equal(v[0], CPUID_SIGNATURE);
    assert_int_equal(v[1] >> 24, 2);           /* APIC ID */
    assert_int_equal(v[1] >> 16 & 0xff, 4);    /* IDs reserved for three CPUs */
    assert_int_equal(v[2] >> 31, 1);           /* hypervisor */
    assert_int_equal(v[2] >> 26 & 1, 0);       /* no XSAVE, no AVX */
    assert_int_equal(v[2] >> 28 & 1, 0);
    cpuid_read(vm_cpu(&vm, 2), 0xb, 1, v);
    assert_int_equal(v[0], 2);
    assert_int_equal(v[1], 3);
    assert_int_equal(v[2], 0x201);
    assert_int_equal(v[3], 2);
    /* Past the last level: its number and the APIC ID still come back. */
    cpuid_read(vm_cpu(&vm, 2), 0xb, 7, v);
    assert_int_equal(v[1], 0);
    assert_int_equal(v[2], 7);
    assert_int_equal(v[3], 2);
    cpuid_read(c, 3, 0, v);                    /* in range, not there */
    assert_int_equal(v[0] | v[1] | v[2] | v[3], 0);
    uint32_t last[4];
    cpuid_read(c, 0x16, 0, last);
    static const uint32_t outside[] = { 0x17, 0x3fffffff, 0x40000000, 0x80000009, 0x90000000, 0xffffffff };
    for (unsigned i = 0; i < ARRAY_SIZE(outside); i++) {
        cpuid_read(c, outside[i], 0, v);
        assert_memory_equal(v, last, sizeof(v));
    }
    cpuid_read(c, 0x80000002, 0, v);
    assert_memory_equal(v, "hv soft processo", 16);
}

/* What is shown is there to be executed. */
static void test_features_have_their_instructions(void **state)
{
    static const struct { uint16_t feature, op; } rows[] = {
        { CPUF_SSE3, X86_OP_HADDPS }, { CPUF_SSE3, X86_OP_FISTTP }, { CPUF_SSSE3, X86_OP_PSHUFB },
        { CPUF_SSE41, X86_OP_PMULLD }, { CPUF_SSE41, X86_OP_ROUNDSD }, { CPUF_SSE41, X86_OP_MPSADBW },
        { CPUF_SSE41, X86_OP_PHMINPOSUW }, { CPUF_SSE41, X86_OP_MOVNTDQA }, { CPUF_SSE41, X86_OP_PTEST },
        { CPUF_SSE42, X86_OP_PCMPESTRI }, { CPUF_SSE42, X86_OP_PCMPISTRM }, { CPUF_SSE42, X86_OP_CRC32 },
        { CPUF_CX8, X86_OP_CMPXCHG8B }, { CPUF_CX16, X86_OP_CMPXCHG16B }, { CPUF_POPCNT, X86_OP_POPCNT },
        { CPUF_MOVBE, X86_OP_MOVBE }, { CPUF_LZCNT, X86_OP_LZCNT }, { CPUF_BMI1, X86_OP_TZCNT },
        { CPUF_BMI1, X86_OP_ANDN }, { CPUF_BMI1, X86_OP_BEXTR }, { CPUF_BMI1, X86_OP_BLSR },
        { CPUF_BMI2, X86_OP_PDEP }, { CPUF_BMI2, X86_OP_MULX }, { CPUF_BMI2, X86_OP_RORX }, { CPUF_BMI2, X86_OP_BZHI },
        { CPUF_ADX, X86_OP_ADCX }, { CPUF_ADX, X86_OP_ADOX }, { CPUF_LAHF, X86_OP_LAHF }, { CPUF_MMX, X86_OP_EMMS },
        { CPUF_SSE2, X86_OP_MOVNTI }, { CPUF_SSE2, X86_OP_MASKMOVDQU }, { CPUF_FXSR, X86_OP_FXSAVE },
        { CPUF_CMOV, X86_OP_FCOMI }, { CPUF_RDRAND, X86_OP_RDRAND }, { CPUF_RDSEED, X86_OP_RDSEED },
        { CPUF_FSGSBASE, X86_OP_WRGSBASE }, { CPUF_RDTSCP, X86_OP_RDTSCP }, { CPUF_RDPID, X86_OP_RDPID },
        { CPUF_CLFSH, X86_OP_CLFLUSH }, { CPUF_SEP, X86_OP_SYSENTER }, { CPUF_SYSCALL, X86_OP_SYSRET },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_true(cpu_has(c, rows[i].feature));
        if (!int_op_find(rows[i].op) && !cpu_sys_ops[rows[i].op].fn && !cpu_fpu_ops[rows[i].op].fn)
            fail_msg("%s is shown and not executed", x86_op_name((enum x86_op)rows[i].op));
    }
}

static void test_leaf_15_gives_the_tsc(void **state)
{
    uint32_t v[4];
    cpuid_read(c, 0x15, 0, v);
    const uint64_t hz = vm.g->ops->tsc_hz(vm.g), crystal = vm.g->ops->apic_hz(vm.g);
    assert_int_equal(v[2], crystal);
    const uint64_t said = (uint64_t)v[2] * v[1] / v[0];
    assert_in_range(hz - said, 0, v[1]);
    /* Linux multiplies in 32 bits, in kHz. */
    const uint32_t khz = v[2] / 1000 * v[1] / v[0];
    assert_in_range(khz, hz / 1000 - 2 * v[1], hz / 1000);
}

static void test_dynamic_bits_follow_the_state(void **state)
{
    uint32_t v[4];
    cpuid_read(c, 1, 0, v);
    assert_int_equal(v[3] >> 9 & 1, 1);
    assert_int_equal(msr_write(c, 0x1b, 0xfee00100), X_OK);
    cpuid_read(c, 1, 0, v);
    assert_int_equal(v[3] >> 9 & 1, 0);        /* APIC off */
}

static void test_a_table_that_was_set_counts(void **state)
{
    struct cpuid_leaf *leaf;
    unsigned n;
    uint32_t v[4];
    assert_int_equal(vm.g->ops->get_cpuid(vm.g, 0, &leaf, &n), 0);
    struct cpuid_leaf *more = hv_realloc_array(leaf, n + 3, sizeof(*leaf));
    more[n] = (struct cpuid_leaf){ .leaf = 0x40000000, .eax = 0x40000001, .ebx = 0x7263694d };
    more[n + 1] = (struct cpuid_leaf){ .leaf = 0x40000001, .eax = 0x31237648 };
    more[n + 2] = (struct cpuid_leaf){ .leaf = 0x40000002 };
    for (unsigned i = 0; i < n; i++)
        if (more[i].leaf == 0x80000001)
            more[i].edx &= ~(1u << 20);        /* no NX */
    assert_int_equal(vm.g->ops->set_cpuid(vm.g, 0, more, n + 2), 0);
    free(more);
    cpuid_read(c, 0x40000001, 0, v);
    assert_int_equal(v[0], 0x31237648);
    cpuid_read(c, 0x40000002, 0, v);           /* above the range's maximum: the highest basic leaf */
    assert_true(v[0] != 0);
    assert_false(cpu_has(c, CPUF_NX));
    assert_int_equal(msr_write(c, 0xc0000080, EFER_NXE | EFER_LME | EFER_LMA), X_FAULT);
}

static void expect_gp(int r)
{
    assert_int_equal(r, X_FAULT);
    assert_int_equal(c->exc.vector, VEC_GP);
    assert_int_equal(c->exc.error, 0);
}

static void test_msr_values(void **state)
{
    /* msr, a value that is kept, one that is refused (0: none). */
    static const struct { uint32_t msr; uint64_t good, bad; } rows[] = {
        { 0x174, 0x10, 1ull << 32 }, { 0x175, 0xffff800000001000, 0x0000800000000000 },
        { 0x176, 0x7fffffffffff, 0x8000000000000000 }, { 0xc0000081, 0x0023001000000000, 0 },
        { 0xc0000082, 0xffffffff81000000, 0x1000000000000000 }, { 0xc0000084, 0x47700, 1ull << 32 },
        { 0xc0000100, 0x7f0000000000, 0x800000000000 }, { 0xc0000101, 0xffff888000000000, 0xfffe888000000000 },
        { 0xc0000102, 0xffffffff82000000, 0x8000000000000000 }, { 0xc0000103, 5, 1ull << 32 },
        { 0x277, 0x0007040600070406, 0x0207040600070406 }, { 0x2ff, 0xc06, 0x1000 },
        { 0x200, 0x80000000 | 6, 1ull << 40 }, { 0x201, 0xff80000800, 1ull << 41 }, { 0x250, 0x0606060606060606, 0x0306060606060606 },
        { 0x48, 1, 8 }, { 0x1a0, 0x1801, 1 << 1 },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t v;
        if (msr_write(c, rows[i].msr, rows[i].good) || msr_read(c, rows[i].msr, &v) || v != rows[i].good)
            fail_msg("MSR %#x", rows[i].msr);
        if (!rows[i].bad)
            continue;
        expect_gp(msr_write(c, rows[i].msr, rows[i].bad));
        assert_int_equal(msr_read(c, rows[i].msr, &v), X_OK);
        assert_int_equal(v, rows[i].good);
    }
}

static void test_read_only_and_unknown_msrs(void **state)
{
    uint64_t v;
    static const uint32_t unknown[] = { 0x12345, 0xc0010000, 0x4b564d00, 0x600, 0x40000001, 0x800 };
    for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
        expect_gp(msr_read(c, unknown[i], &v));
        expect_gp(msr_write(c, unknown[i], 0));
    }
    assert_int_equal(msr_read(c, 0xfe, &v), X_OK);
    assert_int_equal(v & 0xff, 8);
    expect_gp(msr_write(c, 0xfe, v));
    assert_int_equal(msr_read(c, 0x10a, &v), X_OK);
    assert_int_equal(v & 1, 1);                /* RDCL_NO */
    expect_gp(msr_write(c, 0x10a, 0));
    assert_int_equal(msr_write(c, 0x40000000, 7), X_OK);       /* the machine's */
    assert_int_equal(msr_read(c, 0x40000000, &v), X_OK);
    assert_int_equal(v, 7);
}

static void test_guests_that_mitigate_see_no_arch_capabilities(void **state)
{
    const struct engine_config cfg = { .vcpus = 1, .phys_bits = 40, .mitigations_guest = true };
    struct engine *g;
    uint64_t v;
    assert_int_equal(engine_soft.create(&cfg, &vm_callbacks, &vm, &g, NULL), 0);
    struct cpu *m = &g->ops->vcpu(g, 0)->cpu;
    assert_false(cpu_has(m, CPUF_ARCH_CAP));
    assert_false(cpu_has(m, CPUF_SPEC_CTRL));
    assert_int_equal(msr_read(m, 0x10a, &v), X_FAULT);
    assert_int_equal(msr_write(m, 0x48, 1), X_FAULT);
    g->ops->destroy(g);
}

static void test_tsc_and_its_adjustment(void **state)
{
    uint64_t v;
    assert_int_equal(msr_write(c, 0x10, 1ull << 40), X_OK);
    assert_int_equal(msr_read(c, 0x10, &v), X_OK);
    assert_in_range(v, 1ull << 40, (1ull << 40) + vm.g->ops->tsc_hz(vm.g));
    uint64_t adjust;
    assert_int_equal(msr_read(c, 0x3b, &adjust), X_OK);
    assert_in_range(adjust, (1ull << 40) - 20 * vm.g->ops->tsc_hz(vm.g), 1ull << 40);
    /* Taking the adjustment back takes the TSC back. */
    assert_int_equal(msr_write(c, 0x3b, 0), X_OK);
    assert_in_range(cpu_tsc(c), 0, 40 * vm.g->ops->tsc_hz(vm.g));
}

static void test_efer(void **state)
{
    uint64_t v;
    assert_int_equal(msr_read(c, 0xc0000080, &v), X_OK);
    assert_int_equal(v, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE);
    expect_gp(msr_write(c, 0xc0000080, v & ~EFER_LME));        /* while paging is on */
    expect_gp(msr_write(c, 0xc0000080, v | 1ull << 12));       /* SVME */
    assert_int_equal(msr_write(c, 0xc0000080, (v & ~EFER_LMA) & ~EFER_SCE), X_OK);
    assert_int_equal(c->efer, v & ~EFER_SCE);  /* LMA is not written */
}

static void test_control_register_combinations(void **state)
{
    expect_gp(cpu_set_cr0(c, c->cr0 & ~CR0_PE));               /* PG without PE */
    expect_gp(cpu_set_cr0(c, c->cr0 & ~CR0_PG));               /* in 64-bit code */
    expect_gp(cpu_set_cr0(c, c->cr0 | CR0_NW));                /* NW without CD */
    expect_gp(cpu_set_cr0(c, c->cr0 | 1ull << 32));
    expect_gp(cpu_set_cr4(c, c->cr4 & ~CR4_PAE));
    expect_gp(cpu_set_cr4(c, c->cr4 | CR4_OSXSAVE));           /* not shown */
    expect_gp(cpu_set_cr4(c, c->cr4 | CR4_SMAP));
    expect_gp(cpu_set_cr4(c, c->cr4 | CR4_LA57));
    expect_gp(cpu_set_cr3(c, 1ull << 40));                     /* MAXPHYADDR is 40 */
    assert_int_equal(cpu_set_cr4(c, c->cr4 | CR4_SMEP | CR4_UMIP | CR4_FSGSBASE), X_OK);
    assert_int_equal(cpu_set_cr0(c, c->cr0 & ~CR0_ET), X_OK);
    assert_true(c->cr0 & CR0_ET);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_cpuid_leaves), T(test_features_have_their_instructions), T(test_leaf_15_gives_the_tsc), T(test_dynamic_bits_follow_the_state),
        T(test_a_table_that_was_set_counts), T(test_msr_values), T(test_read_only_and_unknown_msrs),
        T(test_guests_that_mitigate_see_no_arch_capabilities), T(test_tsc_and_its_adjustment), T(test_efer),
        T(test_control_register_combinations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
