/* Page walks and the software TLB: permissions, error codes, A and D bits, invalidation, crossings. */
#include "soft_vm.h"

#define P  1ull
#define W  2ull
#define U  4ull
#define A  0x20ull
#define D  0x40ull
#define PS 0x80ull
#define G  0x100ull
#define NX (1ull << 63)

#define TAB(n) (0x100000ull + 0x1000 * (n))      /* page tables of the tests */
#define VA 0x00007f1234567000ull
#define IDX(va, level) ((va) >> (12 + 9 * ((level) - 1)) & 511)

static struct test_vm vm;
static struct cpu *c;

static int setup(void **state)
{
    vm_open(&vm, 1);
    vm_tables64(&vm);
    vm_start64(&vm, 0, 0x1000, 0x8000);
    c = vm_cpu(&vm, 0);
    c->cr3 = TAB(0);
    tlb_flush(c, false);
    return 0;
}

static int teardown(void **state)
{
    vm_close(&vm);
    return 0;
}

/* A 4-level path to `leaf` for va; flags[i]: of the entry at level i + 1 (0 = PTE), all tables distinct. */
static void map4(uint64_t va, uint64_t leaf, const uint64_t flags[4])
{
    vm_put64(&vm, TAB(0) + 8 * IDX(va, 4), TAB(1) | flags[3]);
    vm_put64(&vm, TAB(1) + 8 * IDX(va, 3), TAB(2) | flags[2]);
    vm_put64(&vm, TAB(2) + 8 * IDX(va, 2), TAB(3) | flags[1]);
    vm_put64(&vm, TAB(3) + 8 * IDX(va, 1), leaf | flags[0]);
}

static uint64_t entry4(uint64_t va, unsigned level)
{
    return vm_get64(&vm, TAB(4 - level) + 8 * IDX(va, level));
}

static void expect_pf(int r, uint64_t va, uint32_t err)
{
    assert_int_equal(r, X_FAULT);
    assert_int_equal(c->exc.vector, VEC_PF);
    assert_true(c->exc.has_error);
    assert_int_equal(c->exc.error, err);
    assert_int_equal(c->exc.cr2, va);
}

static void test_no_paging_is_identity(void **state)
{
    struct walk w;
    c->cr0 &= ~CR0_PG;
    assert_int_equal(paging_walk(c, 0x12345678, ACC_WRITE, TLB_SUPER, &w), X_OK);
    assert_int_equal(w.gpa, 0x12345000);
    assert_true(w.read && w.write && w.exec);
}

static void test_a_and_d_bits(void **state)
{
    const uint64_t f[4] = { P | W | U, P | W | U, P | W | U, P | W | U };
    struct walk w;
    map4(VA, 0x200000, f);
    assert_int_equal(paging_walk(c, VA + 0x123, ACC_READ, TLB_USER, &w), X_OK);
    assert_int_equal(w.gpa, 0x200000);
    assert_false(w.write);                 /* D is clear: the first write has to walk */
    for (unsigned level = 1; level <= 4; level++)
        assert_int_equal(entry4(VA, level) & (A | D), A);
    assert_int_equal(paging_walk(c, VA, ACC_WRITE, TLB_USER, &w), X_OK);
    assert_true(w.write);
    assert_int_equal(entry4(VA, 1) & (A | D), A | D);
    for (unsigned level = 2; level <= 4; level++)
        assert_int_equal(entry4(VA, level) & (A | D), A);
}

static void test_a_fault_leaves_a_and_d_alone(void **state)
{
    const uint64_t f[4] = { P | U, P | W | U, P | W | U, P | W | U };
    struct walk w;
    map4(VA, 0x200000, f);
    expect_pf(paging_walk(c, VA, ACC_WRITE, TLB_USER, &w), VA, 7);
    for (unsigned level = 1; level <= 4; level++)
        assert_int_equal(entry4(VA, level) & (A | D), 0);
}

/* Every combination of rights on two levels against SDM 4.6 written down once more. */
static void test_permissions_exhaustively(void **state)
{
    static const uint64_t rights[8] = { 0, W, U, W | U, NX, NX | W, NX | U, NX | W | U };
    unsigned allowed = 0, refused = 0;
    for (unsigned leaf = 0; leaf < 8; leaf++)
    for (unsigned dir = 0; dir < 8; dir++)
    for (unsigned cfg = 0; cfg < 8; cfg++)
    for (unsigned as = 0; as < TLB_MODES; as++)
    for (unsigned acc = ACC_READ; acc <= ACC_EXEC; acc++) {
        const bool wp = cfg & 1, smep = cfg & 2, smap = cfg & 4;
        c->cr0 = (c->cr0 & ~CR0_WP) | (wp ? CR0_WP : 0);
        c->cr4 = (c->cr4 & ~(CR4_SMEP | CR4_SMAP)) | (smep ? CR4_SMEP : 0) | (smap ? CR4_SMAP : 0);
        const uint64_t f[4] = { P | rights[leaf], P | W | U, P | rights[dir], P | W | U };
        map4(VA, 0x200000, f);
        const uint64_t both = rights[leaf] & rights[dir], nx = (rights[leaf] | rights[dir]) & NX;
        bool ok = true;
        if (as == TLB_USER) {
            ok = both & U && !(acc == ACC_WRITE && !(both & W)) && !(acc == ACC_EXEC && nx);
        } else {
            if (both & U && smap && as == TLB_SUPER && acc != ACC_EXEC)
                ok = false;
            if (acc == ACC_WRITE && wp && !(both & W))
                ok = false;
            if (acc == ACC_EXEC && (nx || (both & U && smep)))
                ok = false;
        }
        struct walk w;
        int r = paging_walk(c, VA, (enum cpu_access)acc, as, &w);
        if (ok) {
            assert_int_equal(r, X_OK);
            allowed++;
        } else {
            expect_pf(r, VA, 1 | (acc == ACC_WRITE ? 2 : 0) | (as == TLB_USER ? 4 : 0) | (acc == ACC_EXEC ? 16 : 0));
            refused++;
        }
    }
    assert_true(allowed > 300 && refused > 300);
}

static void test_error_codes(void **state)
{
    const uint64_t f[4] = { P | W | U, P | W | U, P | W | U, P | W | U };
    struct walk w;
    expect_pf(paging_walk(c, VA, ACC_READ, TLB_SUPER, &w), VA, 0);
    expect_pf(paging_walk(c, VA, ACC_WRITE, TLB_SUPER, &w), VA, 2);
    expect_pf(paging_walk(c, VA, ACC_READ, TLB_USER, &w), VA, 4);
    expect_pf(paging_walk(c, VA, ACC_EXEC, TLB_USER, &w), VA, 0x14);
    /* I is only told where it could matter: NX or SMEP. */
    c->efer &= ~EFER_NXE;
    expect_pf(paging_walk(c, VA, ACC_EXEC, TLB_USER, &w), VA, 4);
    c->cr4 |= CR4_SMEP;
    expect_pf(paging_walk(c, VA, ACC_EXEC, TLB_USER, &w), VA, 0x14);
    /* NX without NXE is a reserved bit; so is one above MAXPHYADDR, at any level. */
    map4(VA, 0x200000 | NX, f);
    expect_pf(paging_walk(c, VA, ACC_READ, TLB_SUPER, &w), VA, 9);
    c->efer |= EFER_NXE;
    assert_int_equal(paging_walk(c, VA, ACC_READ, TLB_SUPER, &w), X_OK);
    map4(VA, 0x200000 | 1ull << 40, f);
    expect_pf(paging_walk(c, VA, ACC_WRITE, TLB_USER, &w), VA, 15);
    for (unsigned level = 1; level <= 4; level++) {
        map4(VA, 0x200000, f);
        gpa_t at = TAB(4 - level) + 8 * IDX(VA, level);
        vm_put64(&vm, at, vm_get64(&vm, at) | 1ull << 51);
        expect_pf(paging_walk(c, VA, ACC_READ, TLB_SUPER, &w), VA, 9);
    }
    /* PS is reserved in a PML4E. */
    map4(VA, 0x200000, f);
    vm_put64(&vm, TAB(0) + 8 * IDX(VA, 4), TAB(1) | P | W | U | PS);
    expect_pf(paging_walk(c, VA, ACC_READ, TLB_SUPER, &w), VA, 9);
}

static void test_large_pages(void **state)
{
    struct walk w;
    const uint64_t f[4] = { 0, P | W | U | PS, P | W | U, P | W | U };
    map4(VA, 0, f);
    gpa_t pde = TAB(2) + 8 * IDX(VA, 2), pdpte = TAB(1) + 8 * IDX(VA, 3);
    vm_put64(&vm, pde, 0x400000 | P | W | U | PS | G);
    assert_int_equal(paging_walk(c, VA + 0x3123, ACC_WRITE, TLB_USER, &w), X_OK);
    assert_int_equal(w.gpa, 0x400000 + ((VA + 0x3000) & 0x1ff000));
    assert_int_equal(w.shift, 21);
    assert_true(w.global);
    assert_int_equal(vm_get64(&vm, pde) & (A | D), A | D);
    vm_put64(&vm, pde, 0x402000 | P | W | U | PS);           /* bit 13: reserved */
    expect_pf(paging_walk(c, VA, ACC_READ, TLB_USER, &w), VA, 13);
    vm_put64(&vm, pde, 0x401000 | P | W | U | PS);           /* bit 12: PAT, not reserved */
    assert_int_equal(paging_walk(c, VA, ACC_READ, TLB_USER, &w), X_OK);
    vm_put64(&vm, pdpte, 0x40000000 | P | W | U | PS);
    assert_int_equal(paging_walk(c, VA, ACC_READ, TLB_USER, &w), X_OK);
    assert_int_equal(w.gpa, 0x40000000 + (VA & 0x3ffff000));
    assert_int_equal(w.shift, 30);
    vm_put64(&vm, pdpte, 0x40200000 | P | W | U | PS);
    expect_pf(paging_walk(c, VA, ACC_READ, TLB_USER, &w), VA, 13);
}

static void legacy(uint64_t cr4, uint64_t efer)
{
    c->efer = efer;
    c->cr4 = cr4;
    c->seg[X86_SEG_CS].attr = 0xc09b;
    cpu_update_mode(c);
    tlb_flush(c, false);
}

static void test_32bit_paging(void **state)
{
    struct walk w;
    legacy(0, 0);
    const uint32_t va = 0x80402000;
    vm_put32(&vm, TAB(0) + 4 * (va >> 22), TAB(1) | P | W | U);
    vm_put32(&vm, TAB(1) + 4 * (va >> 12 & 1023), 0x300000 | P | U);
    assert_int_equal(paging_walk(c, va, ACC_READ, TLB_USER, &w), X_OK);
    assert_int_equal(w.gpa, 0x300000);
    assert_int_equal(vm_get32(&vm, TAB(1) + 4 * (va >> 12 & 1023)) & (A | D), A);
    expect_pf(paging_walk(c, va, ACC_WRITE, TLB_USER, &w), va, 7);
    expect_pf(paging_walk(c, va, ACC_WRITE, TLB_SUPER, &w), va, 3);          /* CR0.WP */
    c->cr0 &= ~CR0_WP;
    assert_int_equal(paging_walk(c, va, ACC_WRITE, TLB_SUPER, &w), X_OK);
    /* PS without CR4.PSE means nothing. */
    vm_put32(&vm, TAB(0) + 4 * (va >> 22), TAB(1) | P | W | U | PS);
    assert_int_equal(paging_walk(c, va, ACC_READ, TLB_USER, &w), X_OK);
    assert_int_equal(w.gpa, 0x300000);
}

static void test_pse36(void **state)
{
    struct walk w;
    legacy(CR4_PSE, 0);
    const uint32_t va = 0x80402000;
    vm_put32(&vm, TAB(0) + 4 * (va >> 22), 0x00c00000 | 0x5 << 13 | P | W | U | PS);
    assert_int_equal(paging_walk(c, va, ACC_WRITE, TLB_USER, &w), X_OK);
    assert_int_equal(w.gpa, 0x500c02000ull);
    assert_int_equal(w.shift, 22);
    vm_put32(&vm, TAB(0) + 4 * (va >> 22), 0x00e00000 | P | W | U | PS);     /* bit 21 */
    expect_pf(paging_walk(c, va, ACC_READ, TLB_USER, &w), va, 13);
}

static void test_pae(void **state)
{
    struct walk w;
    uint64_t pdpte[4];
    legacy(CR4_PAE, EFER_NXE);
    const uint32_t va = 0xc0405000;
    vm_put64(&vm, TAB(0), 0);
    vm_put64(&vm, TAB(0) + 8, 0);
    vm_put64(&vm, TAB(0) + 16, 0);
    vm_put64(&vm, TAB(0) + 24, TAB(1) | P);
    vm_put64(&vm, TAB(1) + 8 * (va >> 21 & 511), TAB(2) | P | W | U);
    vm_put64(&vm, TAB(2) + 8 * (va >> 12 & 511), 0x200000 | P | W | U | NX);
    assert_int_equal(paging_load_pdptes(c, TAB(0), c->pdpte), X_OK);
    assert_int_equal(paging_walk(c, va, ACC_WRITE, TLB_USER, &w), X_OK);
    assert_int_equal(w.gpa, 0x200000);
    assert_false(w.exec);
    expect_pf(paging_walk(c, va, ACC_EXEC, TLB_USER, &w), va, 0x15);
    expect_pf(paging_walk(c, 0x1000, ACC_READ, TLB_USER, &w), 0x1000, 4);
    /* Bits 62:52 are reserved here and not in 4-level paging. */
    vm_put64(&vm, TAB(2) + 8 * (va >> 12 & 511), 0x200000 | P | W | U | 1ull << 52);
    expect_pf(paging_walk(c, va, ACC_READ, TLB_USER, &w), va, 13);
    /* A PDPTE has no W or U bits: reserved, checked when CR3 is loaded. */
    vm_put64(&vm, TAB(0) + 24, TAB(1) | P | W);
    assert_int_equal(paging_load_pdptes(c, TAB(0), pdpte), X_FAULT);
    assert_int_equal(c->exc.vector, VEC_GP);
}

static void test_invlpg_drops_all_pieces_of_a_large_page(void **state)
{
    const uint64_t f[4] = { 0, P | W | U | PS, P | W | U, P | W | U };
    uint64_t v;
    map4(VA, 0, f);
    const gpa_t pde = TAB(2) + 8 * IDX(VA, 2);
    const uint64_t base = VA & ~0x1fffffull;
    vm_put64(&vm, pde, 0x400000 | P | W | U | PS);
    vm_put64(&vm, 0x400000, 1);
    vm_put64(&vm, 0x405000, 2);
    vm_put64(&vm, 0x605000, 3);
    assert_int_equal(cpu_ld64(c, X86_SEG_DS, base, &v), X_OK);
    assert_int_equal(v, 1);
    assert_int_equal(cpu_ld64(c, X86_SEG_DS, base + 0x5000, &v), X_OK);
    assert_int_equal(v, 2);
    vm_put64(&vm, pde, 0x600000 | P | W | U | PS);
    assert_int_equal(cpu_ld64(c, X86_SEG_DS, base + 0x5000, &v), X_OK);
    assert_int_equal(v, 2);                /* still cached */
    tlb_flush_page(c, base);
    assert_int_equal(cpu_ld64(c, X86_SEG_DS, base + 0x5000, &v), X_OK);
    assert_int_equal(v, 3);
}

static void test_global_pages_survive_cr3_only(void **state)
{
    const uint64_t f[4] = { P | W | G, P | W | U, P | W | U, P | W | U };
    uint64_t v;
    map4(VA, 0x200000, f);
    vm_put64(&vm, TAB(3) + 8 * IDX(VA + 0x1000, 1), 0x201000 | P | W);
    vm_put64(&vm, 0x200000, 0x11);
    vm_put64(&vm, 0x201000, 0x22);
    assert_int_equal(cpu_ld64(c, X86_SEG_DS, VA, &v), X_OK);
    assert_int_equal(cpu_ld64(c, X86_SEG_DS, VA + 0x1000, &v), X_OK);
    vm_put64(&vm, TAB(0) + 8 * IDX(VA, 4), 0);
    assert_int_equal(cpu_set_cr3(c, TAB(0)), X_OK);
    assert_int_equal(cpu_ld64(c, X86_SEG_DS, VA, &v), X_OK);
    assert_int_equal(v, 0x11);
    expect_pf(cpu_ld64(c, X86_SEG_DS, VA + 0x1000, &v), VA + 0x1000, 0);
    assert_int_equal(cpu_set_cr4(c, c->cr4 & ~CR4_PGE), X_OK);
    expect_pf(cpu_ld64(c, X86_SEG_DS, VA, &v), VA, 0);
}

static void test_a_crossing_store_writes_nothing_if_the_second_page_faults(void **state)
{
    const uint64_t f[4] = { P | W | U, P | W | U, P | W | U, P | W | U };
    uint64_t v;
    map4(VA, 0x200000, f);
    vm_put64(&vm, 0x200ff8, 0x1111111111111111);
    expect_pf(cpu_st64(c, X86_SEG_DS, VA + 0xffc, 0x2222222222222222), VA + 0x1000, 2);
    assert_int_equal(vm_get64(&vm, 0x200ff8), 0x1111111111111111);
    vm_put64(&vm, TAB(3) + 8 * IDX(VA + 0x1000, 1), 0x300000 | P | W);
    assert_int_equal(cpu_st64(c, X86_SEG_DS, VA + 0xffc, 0x2222222233333333), X_OK);
    assert_int_equal(vm_get32(&vm, 0x200ffc), 0x33333333);
    assert_int_equal(vm_get32(&vm, 0x300000), 0x22222222);
    assert_int_equal(cpu_ld64(c, X86_SEG_DS, VA + 0xffc, &v), X_OK);
    assert_int_equal(v, 0x2222222233333333);
    void *p;
    assert_int_equal(cpu_rmw(c, X86_SEG_DS, VA + 0xffc, 8, &p), X_OK);
    *(uint64_t *)p += 1;
    assert_true(c->rmw.active);
    assert_int_equal(cpu_rmw_finish(c), X_OK);
    assert_int_equal(vm_get32(&vm, 0x200ffc), 0x33333334);
}

static void test_addresses_that_are_not_canonical(void **state)
{
    uint64_t v;
    assert_int_equal(cpu_ld64(c, X86_SEG_DS, 0x0000800000000000ull, &v), X_FAULT);
    assert_int_equal(c->exc.vector, VEC_GP);
    assert_int_equal(c->exc.error, 0);
    assert_int_equal(cpu_st8(c, X86_SEG_SS, 0xffff7fffffffffffull, 1), X_FAULT);
    assert_int_equal(c->exc.vector, VEC_SS);
}

static void test_mmio_and_rom(void **state)
{
    uint64_t v;
    static uint8_t rom[4096] __attribute__((aligned(4096))) = { 0x55, 0xaa };
    c->cr3 = PML4_GPA;
    tlb_flush(c, false);
    assert_int_equal(vm.g->ops->map(vm.g, 0xc0000000, 4096, rom, true), 0);
    memcpy(vm.mmio + 8, "abcdefgh", 8);
    assert_int_equal(cpu_ld32(c, X86_SEG_DS, MMIO_GPA + 8, &v), X_OK);
    assert_int_equal(v, 0x64636261);
    assert_int_equal(vm.mmio_reads, 1);
    assert_int_equal(vm.mmio_last_len, 4);
    void *p;
    assert_int_equal(cpu_rmw(c, X86_SEG_DS, MMIO_GPA + 8, 2, &p), X_OK);
    *(uint16_t *)p ^= 0xffff;
    assert_true(c->rmw.active);
    assert_int_equal(cpu_rmw_finish(c), X_OK);
    assert_int_equal(vm.mmio_writes, 1);
    assert_int_equal(vm.mmio[8], 'a' ^ 0xff);
    uint8_t buf[16];
    assert_int_equal(cpu_ld_bytes(c, X86_SEG_DS, MMIO_GPA, buf, 16), X_OK);
    assert_int_equal(vm.mmio_last_len, 8);

    assert_int_equal(cpu_st16(c, X86_SEG_DS, 0xc0000000, 0x1234), X_OK);
    assert_int_equal(cpu_ld16(c, X86_SEG_DS, 0xc0000000, &v), X_OK);
    assert_int_equal(v, 0xaa55);
    unsigned avail;
    assert_int_equal(cpu_span(c, X86_SEG_DS, 0xc0000010, ACC_WRITE, &p, &avail), X_OK);
    assert_null(p);
    assert_int_equal(cpu_span(c, X86_SEG_DS, 0x5010, ACC_WRITE, &p, &avail), X_OK);
    assert_ptr_equal(p, vm.ram + 0x5010);
    assert_int_equal(avail, 0xff0);
}

static void test_the_local_apic_page(void **state)
{
    uint64_t v;
    c->cr3 = PML4_GPA;
    tlb_flush(c, false);
    assert_int_equal(cpu_ld32(c, X86_SEG_DS, 0xfee00030, &v), X_OK);
    assert_int_equal(v & 0xff, 0x14);
    assert_int_equal(cpu_st32(c, X86_SEG_DS, 0xfee00080, 0x50), X_OK);
    assert_int_equal(lapic_get_cr8(&c->lapic), 5);
    assert_int_equal(vm.mmio_reads + vm.mmio_writes, 0);
    /* Moved: the old page is the bus's again. */
    assert_int_equal(msr_write(c, 0x1b, 0xfea00900), X_OK);
    assert_int_equal(cpu_ld32(c, X86_SEG_DS, 0xfee00080, &v), X_OK);
    assert_int_equal(vm.mmio_reads, 1);
    assert_int_equal(cpu_ld32(c, X86_SEG_DS, 0xfea00080, &v), X_OK);
    assert_int_equal(v, 0x50);
}

static void test_dirty_log(void **state)
{
    uint64_t map = 0;
    c->cr3 = PML4_GPA;
    tlb_flush(c, false);
    assert_int_equal(cpu_st8(c, X86_SEG_DS, 0x205000, 1), X_OK);
    assert_int_equal(vm.g->ops->dirty_log(vm.g, true), 0);
    soft_enter_guest(vcpu_of(c));
    assert_int_equal(cpu_st8(c, X86_SEG_DS, 0x205000, 1), X_OK);
    assert_int_equal(cpu_st8(c, X86_SEG_DS, 0x207000, 1), X_OK);
    uint64_t v;
    assert_int_equal(cpu_ld8(c, X86_SEG_DS, 0x208000, &v), X_OK);
    soft_leave_guest(vcpu_of(c));
    assert_int_equal(vm.g->ops->dirty_fetch(vm.g, 0x200000, 64, &map), 0);
    assert_int_equal(map, 1 << 5 | 1 << 7);
    assert_int_equal(vm.g->ops->dirty_fetch(vm.g, 0x200000, 64, &map), 0);
    assert_int_equal(map, 0);
    soft_enter_guest(vcpu_of(c));
    assert_int_equal(cpu_st8(c, X86_SEG_DS, 0x207000, 1), X_OK);
    soft_leave_guest(vcpu_of(c));
    assert_int_equal(vm.g->ops->dirty_fetch(vm.g, 0x200000, 64, &map), 0);
    assert_int_equal(map, 1 << 7);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_no_paging_is_identity), T(test_a_and_d_bits), T(test_a_fault_leaves_a_and_d_alone),
        T(test_permissions_exhaustively), T(test_error_codes), T(test_large_pages), T(test_32bit_paging),
        T(test_pse36), T(test_pae), T(test_invlpg_drops_all_pieces_of_a_large_page),
        T(test_global_pages_survive_cr3_only),
        T(test_a_crossing_store_writes_nothing_if_the_second_page_faults),
        T(test_addresses_that_are_not_canonical), T(test_mmio_and_rom), T(test_the_local_apic_page),
        T(test_dirty_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
