/* Guest physical memory: regions, pins, copies, punching, what the listener is told. */
#include "hv/memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <unistd.h>

#include "hv/base/fault.h"

#define P HV_PAGE_SIZE

struct seen { unsigned maps, unmaps, writes; gpa_t gpa; uint64_t len; };

static int on_map(void *arg, gpa_t gpa, uint64_t len, void *hva, bool readonly)
{
    struct seen *s = arg;
    assert_non_null(hva);
    s->maps++;
    s->gpa = gpa;
    s->len = len;
    return 0;
}
static int on_unmap(void *arg, gpa_t gpa, uint64_t len)
{
    ((struct seen *)arg)->unmaps++;
    return 0;
}
static void on_written(void *arg, gpa_t gpa, uint64_t len)
{
    struct seen *s = arg;
    s->writes++;
    s->gpa = gpa;
    s->len = len;
}

static struct mem *fresh(struct seen *s)
{
    struct mem *m;
    assert_int_equal(mem_new("test", -1, &m, NULL), 0);
    struct mem_listener l = {.map = on_map, .unmap = on_unmap, .written = on_written, .arg = s};
    assert_int_equal(mem_set_listener(m, &l), 0);
    return m;
}

static void regions_do_not_overlap(void **state)
{
    struct seen s = {0};
    struct mem *m = fresh(&s);
    struct hv_error e = {0};
    assert_int_equal(mem_add_ram(m, 4 * P, 4 * P, &e), 0);
    assert_int_equal(mem_add_ram(m, 7 * P, P, &e), -EEXIST);
    assert_int_equal(mem_add_ram(m, 3 * P, 2 * P, &e), -EEXIST);
    assert_int_equal(mem_add_ram(m, 0, 16 * P, &e), -EEXIST);
    assert_int_equal(mem_add_ram(m, 8 * P, P, &e), 0);
    assert_int_equal(mem_add_ram(m, 0, 4 * P, &e), 0);
    assert_int_equal(mem_add_ram(m, 100, P, &e), -EINVAL);
    assert_int_equal(mem_add_ram(m, 16 * P, 0, &e), -EINVAL);
    assert_int_equal(mem_add_ram(m, UINT64_MAX & HV_PAGE_MASK, P, &e), -EINVAL);
    assert_int_equal(s.maps, 3);
    assert_int_equal(mem_ram_bytes(m), 9 * P);
    gpa_t gpa;
    uint64_t len;
    bool rom;
    assert_int_equal(mem_region(m, 0, &gpa, &len, &rom), 0);
    assert_int_equal(gpa, 0);
    assert_int_equal(mem_region(m, 2, &gpa, &len, &rom), 0);
    assert_int_equal(gpa, 8 * P);
    assert_int_equal(mem_region(m, 3, &gpa, &len, &rom), -ENOENT);
    mem_free(m);
}

static void copies_span_regions_and_are_all_or_nothing(void **state)
{
    struct seen s = {0};
    struct mem *m = fresh(&s);
    assert_int_equal(mem_add_ram(m, 0, P, NULL), 0);
    assert_int_equal(mem_add_ram(m, P, P, NULL), 0);
    uint8_t in[64], out[64];
    memset(in, 0xa5, sizeof(in));
    assert_int_equal(mem_write(m, P - 32, in, sizeof(in)), 0);
    assert_int_equal(s.writes, 1);
    assert_int_equal(s.gpa, P - 32);
    assert_int_equal(s.len, 64);
    assert_int_equal(mem_read(m, P - 32, out, sizeof(out)), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(mem_write(m, 2 * P - 32, in, sizeof(in)), -EFAULT);
    assert_int_equal(mem_read(m, 2 * P - 32, out, 32), 0);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(out[i], 0);
    assert_int_equal(mem_read(m, UINT64_MAX - 3, out, 8), -EFAULT);
    mem_free(m);
}

static void a_pin_stays_in_one_region_and_reports_writes(void **state)
{
    struct seen s = {0};
    struct mem *m = fresh(&s);
    assert_int_equal(mem_add_ram(m, 0, P, NULL), 0);
    assert_int_equal(mem_add_ram(m, P, P, NULL), 0);
    struct mem_pin pin;
    assert_int_equal(mem_pin(m, P - 8, 16, MEM_READ, &pin), -EFAULT);
    assert_int_equal(mem_pin(m, 0, 0, MEM_READ, &pin), -EINVAL);
    assert_int_equal(mem_pin(m, 0, UINT64_MAX, MEM_READ, &pin), -EFAULT);
    assert_int_equal(mem_pin(m, 2 * P, 1, MEM_READ, &pin), -EFAULT);
    assert_int_equal(mem_pin(m, P + 16, 16, MEM_WRITE, &pin), 0);
    memset(pin.hva, 7, 16);
    assert_int_equal(s.writes, 0);
    assert_int_equal(mem_remove(m, P, P), -EBUSY);
    mem_unpin(&pin);
    assert_int_equal(s.writes, 1);
    assert_int_equal(s.gpa, P + 16);
    assert_int_equal(mem_remove(m, P, P), 0);
    assert_int_equal(s.unmaps, 1);
    assert_false(mem_is_ram(m, P, 1));
    mem_free(m);
}

static void punched_pages_read_as_zeros_and_leave_the_host(void **state)
{
    struct seen s = {0};
    struct mem *m = fresh(&s);
    assert_int_equal(mem_add_ram(m, 0, 512 * P, NULL), 0);
    uint64_t v = 42;
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(mem_write(m, i * P, &v, 8), 0);
    assert_true(mem_resident_bytes(m) >= 512 * P);
    assert_int_equal(mem_punch(m, 0, 256 * P), 0);
    assert_true(mem_resident_bytes(m) <= 256 * P);
    assert_int_equal(mem_read(m, 5 * P, &v, 8), 0);
    assert_int_equal(v, 0);
    assert_int_equal(mem_read(m, 300 * P, &v, 8), 0);
    assert_int_equal(v, 42);
    assert_int_equal(mem_punch(m, 511 * P, 2 * P), -EFAULT);
    assert_int_equal(mem_punch(m, 1, P), -EINVAL);
    assert_int_equal(mem_clear(m), 0);
    assert_int_equal(mem_resident_bytes(m), 0);
    mem_free(m);
}

static void rom_is_read_only_to_the_host_too(void **state)
{
    struct seen s = {0};
    struct mem *m = fresh(&s);
    static uint8_t image[8192] = {1, 2, 3};
    assert_int_equal(mem_add_rom(m, 0xfffe0000, image, sizeof(image), NULL), 0);
    uint8_t b[3];
    assert_int_equal(mem_read(m, 0xfffe0000, b, 3), 0);
    assert_memory_equal(b, image, 3);
    assert_int_equal(mem_write(m, 0xfffe0000, b, 3), -EFAULT);
    struct mem_pin pin;
    assert_int_equal(mem_pin(m, 0xfffe0000, 3, MEM_WRITE, &pin), -EFAULT);
    assert_int_equal(mem_pin(m, 0xfffe0000, 3, MEM_READ, &pin), 0);
    mem_unpin(&pin);
    assert_int_equal(s.writes, 0);
    assert_int_equal(mem_ram_bytes(m), 0);
    mem_free(m);
}

/* ---- a part on a file ---- */

#define OUT_AT (16 * P)
#define OUT_LEN (32 * P)

static int paging_file(uint64_t bytes)
{
    char path[] = "/tmp/hv-paging-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

/* 64 pages of RAM, of which [16, 48) lie on a file, in two ranges; each page begins with its number. */
static struct mem *paged_out(struct seen *s)
{
    struct mem *m = fresh(s);
    struct hv_error e = {0};
    assert_int_equal(mem_add_ram(m, 0, 40 * P, &e), 0);
    assert_int_equal(mem_add_ram(m, 40 * P, 24 * P, &e), 0);
    const struct mem_range r[] = {{OUT_AT, 24 * P}, {40 * P, 8 * P}};
    assert_int_equal(mem_page_out(m, paging_file(OUT_LEN), r, 2, &e), 0);
    for (uint64_t i = 0; i < 64; i++)
        assert_int_equal(mem_write(m, i * P, &(uint64_t){i + 1}, 8), 0);
    return m;
}

static uint64_t word(struct mem *m, uint64_t page)
{
    uint64_t v;
    assert_int_equal(mem_read(m, page * P, &v, 8), 0);
    return v;
}

static void what_is_paged_holds_no_memory_and_comes_back_as_it_was(void **state)
{
    struct seen s = {0};
    struct mem *m = paged_out(&s);
    struct mem_range r[MEM_PAGED_RANGES];
    struct mem_pin pin;
    assert_int_equal(mem_paged(m), OUT_LEN);
    assert_int_equal(mem_resident_bytes(m), 32 * P);
    assert_int_equal(mem_pin(m, OUT_AT, 24 * P, MEM_WRITE, &pin), 0);      /* held throughout, as rings are */
    assert_int_equal(mem_page_in(m, 5 * P), 0);
    assert_int_equal(mem_paged(m), 27 * P);
    assert_int_equal(mem_paged_ranges(m, r), 2);
    assert_int_equal(r[0].gpa, OUT_AT + 5 * P);
    assert_int_equal(r[0].len, 19 * P);
    assert_int_equal(r[1].gpa, 40 * P);
    assert_int_equal(mem_resident_bytes(m), 37 * P);
    ((uint64_t *)pin.hva)[0] = 1000;                     /* moved, and the same address */
    assert_int_equal(word(m, 16), 1000);
    assert_int_equal(mem_page_in(m, 20 * P), 0);         /* over the end of the first range */
    assert_int_equal(mem_paged_ranges(m, r), 1);
    assert_int_equal(r[0].gpa, 41 * P);
    assert_int_equal(mem_page_in(m, UINT64_MAX), 0);
    assert_int_equal(mem_paged(m), 0);
    assert_int_equal(mem_resident_bytes(m), 64 * P);
    for (uint64_t i = 0; i < 64; i++)
        assert_int_equal(word(m, i), i == 16 ? 1000 : i + 1);
    assert_int_equal(mem_page_in(m, P), 0);              /* nothing is left */
    mem_unpin(&pin);
    mem_free(m);
}

static void pages_given_back_read_as_zeros_whatever_they_lie_on(void **state)
{
    struct seen s = {0};
    struct mem *m = paged_out(&s);
    assert_int_equal(mem_page_in(m, 4 * P), 0);
    assert_int_equal(mem_punch(m, 12 * P, 10 * P), 0);   /* memory, moved back, and on the file */
    assert_int_equal(mem_punch(m, 46 * P, 4 * P), 0);    /* over its end */
    for (uint64_t i = 0; i < 64; i++)
        assert_int_equal(word(m, i), (i >= 12 && i < 22) || (i >= 46 && i < 50) ? 0 : i + 1);
    uint64_t before = mem_resident_bytes(m);
    assert_int_equal(mem_page_in(m, UINT64_MAX), 0);
    assert_int_equal(mem_resident_bytes(m) - before, 24 * P);      /* zeros stay holes */
    for (uint64_t i = 0; i < 64; i++)
        assert_int_equal(word(m, i), (i >= 12 && i < 22) || (i >= 46 && i < 50) ? 0 : i + 1);
    mem_free(m);
}

static void a_reset_clears_what_is_paged_and_ends_it(void **state)
{
    struct seen s = {0};
    struct mem *m = paged_out(&s);
    assert_int_equal(mem_clear(m), 0);
    assert_int_equal(mem_paged(m), 0);
    assert_int_equal(mem_resident_bytes(m), 0);
    for (uint64_t i = 0; i < 64; i++)
        assert_int_equal(word(m, i), 0);
    assert_int_equal(mem_write(m, OUT_AT, "x", 1), 0);
    assert_true(mem_resident_bytes(m) > 0);              /* in the memfd again */
    mem_free(m);
}

static void a_file_that_cannot_be_read_leaves_the_pages_on_it(void **state)
{
    struct seen s = {0};
    struct mem *m = paged_out(&s);
    fault_arm(FAULT_READ, 1, EIO);
    assert_int_equal(mem_page_in(m, 4 * P), -EIO);
    fault_arm(FAULT_READ, 0, 0);
    assert_int_equal(mem_paged(m), OUT_LEN);
    assert_int_equal(mem_page_in(m, UINT64_MAX), 0);
    for (uint64_t i = 0; i < 64; i++)
        assert_int_equal(word(m, i), i + 1);
    mem_free(m);
}

static void bad_ranges_and_files_are_refused(void **state)
{
    struct seen s = {0};
    struct mem *m = fresh(&s);
    struct hv_error e = {0};
    uint8_t rom[P] = {0};
    assert_int_equal(mem_add_ram(m, 0, 40 * P, &e), 0);
    assert_int_equal(mem_add_ram(m, 40 * P, 8 * P, &e), 0);
    assert_int_equal(mem_add_rom(m, 64 * P, rom, P, &e), 0);
    const struct mem_range across = {39 * P, 2 * P}, outside = {47 * P, 2 * P}, odd = {100, P}, in_rom = {64 * P, P},
                           good = {8 * P, 8 * P};
    assert_true(mem_page_out(m, paging_file(8 * P), &across, 1, &e) < 0);
    assert_true(mem_page_out(m, paging_file(8 * P), &outside, 1, &e) < 0);
    assert_true(mem_page_out(m, paging_file(8 * P), &odd, 1, &e) < 0);
    assert_true(mem_page_out(m, paging_file(8 * P), &in_rom, 1, &e) < 0);
    assert_true(mem_page_out(m, paging_file(8 * P), &good, 0, &e) < 0);
    assert_true(mem_page_out(m, paging_file(8 * P - 1), &good, 1, &e) < 0);        /* shorter: would end the process */
    assert_true(mem_page_out(m, open("/dev/null", O_RDWR | O_CLOEXEC), &good, 1, &e) < 0);
    assert_true(mem_page_out(m, -1, &good, 1, &e) < 0);
    assert_int_equal(mem_paged(m), 0);
    assert_int_equal(mem_page_out(m, paging_file(8 * P), &good, 1, &e), 0);
    assert_true(mem_page_out(m, paging_file(8 * P), &good, 1, &e) < 0);            /* once at a time */
    assert_int_equal(mem_paged(m), 8 * P);
    mem_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regions_do_not_overlap),
        cmocka_unit_test(copies_span_regions_and_are_all_or_nothing),
        cmocka_unit_test(a_pin_stays_in_one_region_and_reports_writes),
        cmocka_unit_test(punched_pages_read_as_zeros_and_leave_the_host),
        cmocka_unit_test(rom_is_read_only_to_the_host_too),
        cmocka_unit_test(what_is_paged_holds_no_memory_and_comes_back_as_it_was),
        cmocka_unit_test(pages_given_back_read_as_zeros_whatever_they_lie_on),
        cmocka_unit_test(a_reset_clears_what_is_paged_and_ends_it),
        cmocka_unit_test(a_file_that_cannot_be_read_leaves_the_pages_on_it),
        cmocka_unit_test(bad_ranges_and_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
