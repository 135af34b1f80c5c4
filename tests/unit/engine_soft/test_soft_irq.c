/* Where interrupts go, and what threads ask of vCPUs: routing, parked vCPUs, memory that comes and goes. */
#include "hv/engine/soft/block.h"
#include "soft_vm.h"

static struct test_vm vm;

static int setup(void **state)
{
    vm_open(&vm, 4);
    vm_tables64(&vm);
    for (unsigned i = 0; i < 4; i++) {
        struct cpu *c = vm_cpu(&vm, i);
        lapic_mmio_write(&c->lapic, 0xf0, 0x1ff);
        lapic_mmio_write(&c->lapic, 0xd0, 1u << (24 + i));     /* flat logical ID */
    }
    return 0;
}

static int teardown(void **state)
{
    vm_close(&vm);
    return 0;
}

/* Which vCPUs have `vector` requested, a bit each; clears it. */
static unsigned who(unsigned vector)
{
    unsigned set = 0;
    for (unsigned i = 0; i < 4; i++) {
        _Atomic uint32_t *w = &vm_cpu(&vm, i)->lapic.irr[vector / 32];
        if (atomic_fetch_and(w, ~(1u << vector % 32)) >> vector % 32 & 1)
            set |= 1u << i;
    }
    return set;
}

static void test_msi_destinations(void **state)
{
    static const struct { uint64_t addr; uint32_t data; unsigned want; } rows[] = {
        { 0xfee00000, 0x41, 1 }, { 0xfee02000, 0x42, 4 }, { 0xfee09000, 0x43, 0 },
        { 0xfeeff000, 0x44, 15 },                      /* physical broadcast */
        { 0xfee06004, 0x45, 6 }, { 0xfeeff004, 0x46, 15 }, { 0xfee10004, 0x47, 0 },      /* logical */
        { 0xfee01000, 0x8048, 2 },                     /* level */
        { 0xfee01000, 0x0005, 0 },                     /* vectors below 16 are illegal */
        { 0xfed00000, 0x49, 0 },                       /* not the APIC's range */
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        vm.g->ops->send_msi(vm.g, rows[i].addr, rows[i].data);
        if (who(rows[i].data & 0xff) != rows[i].want)
            fail_msg("row %u", i);
    }
}

static void test_lowest_priority_goes_to_one_each_time_and_round(void **state)
{
    unsigned seen = 0;
    for (unsigned i = 0; i < 16; i++) {
        vm.g->ops->send_msi(vm.g, 0xfee0e004, 0x150);
        unsigned w = who(0x50);
        assert_int_equal(__builtin_popcount(w), 1);
        assert_int_equal(w & ~0xeu, 0);
        seen |= w;
    }
    assert_int_equal(seen, 0xe);
    vm.g->ops->send_msi(vm.g, 0xfee0e00c, 0x51);       /* redirection hint */
    assert_int_equal(__builtin_popcount(who(0x51)), 1);
}

static void test_nmi_init_and_sipi_messages(void **state)
{
    vm.g->ops->send_msi(vm.g, 0xfee03000, 0x400);
    assert_int_equal(atomic_load(&vm_cpu(&vm, 3)->attention) & ATT_NMI, ATT_NMI);
    struct cpu *c = vm_cpu(&vm, 1);
    assert_int_equal(vm.g->ops->get_mp(vcpu_of(c)), VCPU_MP_WAIT_SIPI);
    soft_enter_guest(vcpu_of(c));
    /* A vCPU that waits for SIPI takes nothing else. */
    vm.g->ops->send_msi(vm.g, 0xfee01000, 0x400);
    assert_int_equal(cpu_attend(c), X_LEAVE);
    assert_int_equal(c->leave, LEAVE_HALT);
    vm.g->ops->send_msi(vm.g, 0xfee01000, 0x612);
    assert_int_equal(cpu_attend(c), X_OK);
    assert_int_equal(c->seg[X86_SEG_CS].sel, 0x1200);
    assert_int_equal(c->seg[X86_SEG_CS].base, 0x12000);
    assert_int_equal(c->rip, 0);
    assert_int_equal(vm.g->ops->get_mp(vcpu_of(c)), VCPU_MP_RUNNABLE);
    /* A second SIPI is ignored; INIT sends it back to waiting. */
    vm.g->ops->send_msi(vm.g, 0xfee01000, 0x634);
    assert_int_equal(cpu_attend(c), X_OK);
    assert_int_equal(c->seg[X86_SEG_CS].sel, 0x1200);
    c->gpr[R_RBX] = 5;
    vm.g->ops->send_msi(vm.g, 0xfee01000, 0x500);
    assert_int_equal(cpu_attend(c), X_LEAVE);
    assert_int_equal(vm.g->ops->get_mp(vcpu_of(c)), VCPU_MP_WAIT_SIPI);
    assert_int_equal(c->gpr[R_RBX], 0);
    soft_leave_guest(vcpu_of(c));
}

static void test_level_eois_reach_their_pins(void **state)
{
    struct cpu *c = vm_cpu(&vm, 0);
    vm.g->ops->set_route(vm.g, 3, 0xfee00000, 0x8060, true, false);
    vm.g->ops->set_route(vm.g, 4, 0xfee00000, 0x8060, true, false);
    vm.g->ops->set_route(vm.g, 5, 0xfee00000, 0x0060, false, false);       /* edge */
    vm.g->ops->set_route(vm.g, 6, 0xfee00000, 0x8061, true, false);
    vm.g->ops->send_msi(vm.g, 0xfee00000, 0x8060);
    assert_int_equal(lapic_take(&c->lapic), 0x60);
    /* Linux masks a pin while its interrupt is in service. */
    vm.g->ops->set_route(vm.g, 3, 0xfee00000, 0x8060, true, true);
    lapic_eoi(&c->lapic);
    assert_int_equal(vm.eois[3], 1);
    assert_int_equal(vm.eois[4], 1);
    assert_int_equal(vm.eois[5] + vm.eois[6], 0);
    /* An edge interrupt of the same vector tells nobody. */
    vm.g->ops->send_msi(vm.g, 0xfee00000, 0x0060);
    assert_int_equal(lapic_take(&c->lapic), 0x60);
    lapic_eoi(&c->lapic);
    assert_int_equal(vm.eois[3], 1);
    vm.g->ops->set_route(vm.g, 1000, 0, 0, true, false);       /* no such pin: nothing */
}

/* ---- memory ---- */

static void test_map_refuses_what_overlaps(void **state)
{
    static uint8_t page[8192] __attribute__((aligned(4096)));
    assert_int_equal(vm.g->ops->map(vm.g, 0x1000, 4096, page, false), -EEXIST);
    assert_int_equal(vm.g->ops->map(vm.g, RAM_SIZE - 4096, 8192, page, false), -EEXIST);
    assert_int_equal(vm.g->ops->map(vm.g, 0x40000800, 4096, page, false), -EINVAL);
    assert_int_equal(vm.g->ops->map(vm.g, 0x40000000, 0, page, false), -EINVAL);
    assert_int_equal(vm.g->ops->map(vm.g, 0xfffffffffffff000, 8192, page, false), -EINVAL);
    assert_int_equal(vm.g->ops->unmap(vm.g, 0x40000000, 4096), -ENOENT);
    assert_int_equal(vm.g->ops->map(vm.g, RAM_SIZE, 8192, page, false), 0);
    bool ro;
    assert_ptr_equal(soft_ram(vm_cpu(&vm, 0)->soft, RAM_SIZE + 4096, &ro), page + 4096);
    assert_null(soft_ram(vm_cpu(&vm, 0)->soft, RAM_SIZE + 8192, &ro));
    assert_int_equal(vm.g->ops->unmap(vm.g, RAM_SIZE, 8192), 0);
    assert_null(soft_ram(vm_cpu(&vm, 0)->soft, RAM_SIZE, &ro));
}

static void test_hot_added_memory_replaces_mmio_at_once(void **state)
{
    static uint8_t page[4096] __attribute__((aligned(4096)));
    struct cpu *c = vm_cpu(&vm, 0);
    uint64_t v;
    vm_start64(&vm, 0, 0x1000, 0x8000);
    soft_enter_guest(vcpu_of(c));
    assert_int_equal(cpu_ld8(c, X86_SEG_DS, 0x40000000, &v), X_OK);
    assert_int_equal(v, 0xff);
    assert_int_equal(vm.mmio_reads, 1);
    page[0] = 0x5a;
    assert_int_equal(vm.g->ops->map(vm.g, 0x40000000, 4096, page, false), 0);
    assert_int_equal(cpu_attend(c), X_OK);     /* the flush is a request */
    assert_int_equal(cpu_ld8(c, X86_SEG_DS, 0x40000000, &v), X_OK);
    assert_int_equal(v, 0x5a);
    soft_leave_guest(vcpu_of(c));
    assert_int_equal(vm.g->ops->unmap(vm.g, 0x40000000, 4096), 0);
    soft_enter_guest(vcpu_of(c));
    assert_int_equal(cpu_ld8(c, X86_SEG_DS, 0x40000000, &v), X_OK);
    assert_int_equal(vm.mmio_reads, 2);
    soft_leave_guest(vcpu_of(c));
}

/* ---- who may write a page with code ---- */

static void test_the_first_code_in_a_page_slows_its_writers(void **state)
{
    struct cpu *a = vm_cpu(&vm, 0), *b = vm_cpu(&vm, 1);
    vm_start64(&vm, 0, 0x1000, 0x8000);
    vm_start64(&vm, 1, 0x1000, 0x8000);
    soft_enter_guest(vcpu_of(a));
    soft_enter_guest(vcpu_of(b));
    soft_leave_guest(vcpu_of(b));              /* as if parked: it is not waited for */
    assert_int_equal(cpu_st8(a, X86_SEG_DS, 0x300000, 1), X_OK);
    assert_int_equal(cpu_st8(b, X86_SEG_DS, 0x300000, 1), X_OK);
    assert_int_equal(tlb_at(b, 0x300000)->wtag, 0x300000);
    soft_page_set_code(a, 0x300000);
    assert_true(soft_page_is_code(a->soft, 0x300000));
    assert_int_equal(tlb_at(a, 0x300000)->wtag, 0x300000 | TLB_SLOW_CODE);
    soft_enter_guest(vcpu_of(b));
    assert_int_equal(cpu_st8(b, X86_SEG_DS, 0x300000, 2), X_OK);
    assert_int_equal(tlb_at(b, 0x300000)->wtag, 0x300000 | TLB_SLOW_CODE);
    /* Its last code gone: the next slow write makes it fast again, on every vCPU. */
    soft_page_clear_code(a, 0x300000);
    assert_false(soft_page_is_code(a->soft, 0x300000));
    assert_int_equal(cpu_st8(a, X86_SEG_DS, 0x300000, 2), X_OK);
    assert_int_equal(tlb_at(a, 0x300000)->wtag, 0x300000);
    assert_int_equal(cpu_st8(b, X86_SEG_DS, 0x300000, 3), X_OK);
    assert_int_equal(tlb_at(b, 0x300000)->wtag, 0x300000);
    soft_leave_guest(vcpu_of(a));
    soft_leave_guest(vcpu_of(b));
}

/* A flush that comes in while a block is built: the block must still go with the next INVLPG of its page. */
static void test_a_flush_while_building_leaves_no_stale_block(void **state)
{
    const uint64_t va = 0x300000, pt = 0xe000;
    struct cpu *a = vm_cpu(&vm, 0);
    bool readonly;
    vm_start64(&vm, 0, va, 0x8000);
    vm_put64(&vm, PML4_GPA + 0x2000 + 8, pt | 7);             /* the second 2 MiB in small pages */
    vm_put64(&vm, pt + 8 * 256, va | 0x107);
    memset(vm.ram + va, 0x90, 64);                             /* nop */
    memset(vm.ram + 0x301000, 0xf4, 64);                       /* hlt */
    soft_enter_guest(vcpu_of(a));
    assert_non_null(soft_ram(a->soft, va, &readonly));
    atomic_store(&soft_page_at(a->soft, va)->writer, 2);       /* vCPU 1 wrote it once: announcing code waits */
    soft_flush_post(vcpu_of(a));
    struct block *b = block_lookup(a, 0);
    assert_non_null(b);
    assert_int_equal(b->gpa, va);
    vm_put64(&vm, pt + 8 * 256, 0x301000 | 0x107);
    tlb_flush_page(a, va);
    b = block_lookup(a, 0);
    assert_non_null(b);
    assert_int_equal(b->gpa, 0x301000);
    soft_leave_guest(vcpu_of(a));
}

/* A host write that starts within a page and is longer than the cache looks up page by page. */
static void test_a_long_host_write_drops_code_of_its_first_page(void **state)
{
    struct cpu *a = vm_cpu(&vm, 0);
    vm_start64(&vm, 0, 0x1800, 0x8000);
    memset(vm.ram + 0x1800, 0x90, 64);
    soft_enter_guest(vcpu_of(a));
    struct block *b = block_lookup(a, 0);
    assert_non_null(b);
    block_drop(a, 0x1804, ((uint64_t)HV_PAGE_SIZE << BLOCK_PAGE_BITS) + 1);
    assert_int_equal(b->gen, 0);
    soft_leave_guest(vcpu_of(a));
}

static void test_reset_forgets_nmis_sent_before(void **state)
{
    struct vcpu *v = vm.g->ops->vcpu(vm.g, 0);
    soft_nmi(v);
    soft_nmi(v);
    vm.g->ops->reset(vm.g);
    assert_int_equal(atomic_load(&v->nmis), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_msi_destinations), T(test_lowest_priority_goes_to_one_each_time_and_round),
        T(test_nmi_init_and_sipi_messages), T(test_level_eois_reach_their_pins), T(test_map_refuses_what_overlaps),
        T(test_hot_added_memory_replaces_mmio_at_once), T(test_the_first_code_in_a_page_slows_its_writers),
        T(test_a_flush_while_building_leaves_no_stale_block), T(test_a_long_host_write_drops_code_of_its_first_page),
        T(test_reset_forgets_nmis_sent_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
