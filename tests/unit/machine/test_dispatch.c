/* Which device an access reaches, and in what pieces. */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/machine/machine.h"
#include "tests/unit/machine/fake.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

/* A device that writes down every access: "r2@3f8 " or "w1@5=aa ". */
struct probe { char log[512]; uint32_t give; unsigned bulk; };

static void note(struct probe *p, const char *fmt, ...) HV_PRINTF(2, 3);
static void note(struct probe *p, const char *fmt, ...)
{
    va_list ap;
    size_t len = strlen(p->log);
    va_start(ap, fmt);
    vsnprintf(p->log + len, sizeof(p->log) - len, fmt, ap);
    va_end(ap);
}

static uint32_t probe_in(void *dev, uint16_t port, unsigned size)
{
    struct probe *p = dev;
    note(p, "r%u@%x ", size, port);
    return p->give;
}

static void probe_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    note(dev, "w%u@%x=%x ", size, port, val);
}

static void probe_in_bulk(void *dev, uint16_t port, unsigned size, void *data, uint32_t count)
{
    struct probe *p = dev;
    p->bulk++;
    memset(data, 0x5A, (size_t)size * count);
}

static void probe_out_bulk(void *dev, uint16_t port, unsigned size, const void *data, uint32_t count)
{
    struct probe *p = dev;
    p->bulk++;
}

static uint64_t probe_read(void *dev, uint64_t off, unsigned size)
{
    note(dev, "r%u@%llx ", size, (unsigned long long)off);
    return UINT64_C(0x8877665544332211);
}

static void probe_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    note(dev, "w%u@%llx=%llx ", size, (unsigned long long)off, (unsigned long long)val);
}

static const struct port_ops byte_ops = { .in = probe_in, .out = probe_out, .max_size = 1 };
static const struct port_ops word_ops = { .in = probe_in, .out = probe_out, .max_size = 2 };
static const struct port_ops dword_ops = { .in = probe_in, .out = probe_out, .max_size = 4 };
static const struct port_ops bulk_ops = {
    .in = probe_in, .out = probe_out, .in_bulk = probe_in_bulk, .out_bulk = probe_out_bulk,
    .max_size = 2,
};
static const struct mmio_ops mem_ops = { .read = probe_read, .write = probe_write };

static uint64_t counter(struct fake *f, const char *name)
{
    for (struct stats_table *t = machine_stats(f->m)->first; t; t = t->next) {
        for (unsigned i = 0; i < t->count; i++) {
            if (!strcmp(t->desc[i].name, name)) {
                return stats_read(t, i);
            }
        }
    }
    fail_msg("no counter %s", name);
    return 0;
}

static void port_whole_and_split(void **state)
{
    struct fake f;
    struct probe b = { .give = 0x11 }, w = { .give = 0x2233 }, d = { .give = 0xAABBCCDD };
    fake_start(&f);
    machine_add_ports(f.m, 0x100, 8, &byte_ops, &b);
    machine_add_ports(f.m, 0x110, 8, &word_ops, &w);
    machine_add_ports(f.m, 0x120, 8, &dword_ops, &d);
    assert_int_equal(fake_in(&f, 0x103, 1), 0x11);
    assert_int_equal(fake_in(&f, 0x120, 4), 0xAABBCCDD);
    assert_string_equal(d.log, "r4@120 ");
    b.log[0] = 0;
    assert_int_equal(fake_in(&f, 0x102, 4), 0x11111111);
    assert_string_equal(b.log, "r1@102 r1@103 r1@104 r1@105 ");
    assert_int_equal(fake_in(&f, 0x110, 4), 0x22332233);
    assert_string_equal(w.log, "r2@110 r2@112 ");
    w.log[0] = 0;
    fake_out(&f, 0x110, 4, 0x12345678);
    assert_string_equal(w.log, "w2@110=5678 w2@112=1234 ");
    assert_int_equal(counter(&f, "unclaimed_pio_reads"), 0);
    fake_stop(&f);
}

/* A device's answer wider than the access does not leak into the guest's other bytes. */
static void port_answer_is_cut(void **state)
{
    struct fake f;
    struct probe b = { .give = 0xDEADBE11 };
    uint8_t data[4] = { 9, 9, 9, 9 };
    fake_start(&f);
    machine_add_ports(f.m, 0x100, 4, &byte_ops, &b);
    machine_pio_in(f.m, 0x100, 1, data, 1);
    assert_memory_equal(data, "\x11\x09\x09\x09", 4);
    assert_int_equal(fake_in(&f, 0x100, 2), 0x1111);
    fake_stop(&f);
}

static void port_straddles(void **state)
{
    struct fake f;
    struct probe a = { .give = 0x01020304 }, b = { .give = 0x99 };
    fake_start(&f);
    machine_add_ports(f.m, 0x1FD, 3, &dword_ops, &a);   /* 1fd..1ff */
    machine_add_ports(f.m, 0x201, 1, &byte_ops, &b);
    /* 1fe+1ff to a in one piece of two, 200 to nobody, 201 to b. */
    assert_int_equal(fake_in(&f, 0x1FE, 4), 0x99FF0304);
    assert_string_equal(a.log, "r2@1fe ");
    a.log[0] = 0;
    fake_out(&f, 0x1FD, 4, 0x44332211);
    assert_string_equal(a.log, "w2@1fd=2211 w1@1ff=33 ");
    assert_int_equal(counter(&f, "unclaimed_pio_reads"), 0);
    fake_stop(&f);
}

static void port_unclaimed(void **state)
{
    struct fake f;
    struct probe last = { .give = 0x77 };
    uint32_t three[3] = { 0 };
    fake_start(&f);
    assert_int_equal(fake_in(&f, 0x300, 1), 0xFF);
    assert_int_equal(fake_in(&f, 0x300, 4), 0xFFFFFFFF);
    fake_out(&f, 0x300, 2, 5);
    assert_int_equal(counter(&f, "unclaimed_pio_reads"), 2);
    assert_int_equal(counter(&f, "unclaimed_pio_writes"), 1);
    machine_pio_in(f.m, 0x300, 4, three, 3);
    assert_int_equal(three[0] & three[1] & three[2], 0xFFFFFFFF);
    /* The address space ends at 0xffff; it does not go on at 0. */
    machine_add_ports(f.m, 0xFFFF, 1, &byte_ops, &last);
    machine_add_ports(f.m, 0, 1, &byte_ops, &last);
    assert_int_equal(fake_in(&f, 0xFFFF, 4), 0xFFFFFF77);
    assert_string_equal(last.log, "r1@ffff ");
    fake_stop(&f);
}

static void port_strings(void **state)
{
    struct fake f;
    struct probe plain = { .give = 0x41 }, bulk = { .give = 0x4142 };
    uint8_t data[16];
    fake_start(&f);
    machine_add_ports(f.m, 0x100, 1, &byte_ops, &plain);
    machine_add_ports(f.m, 0x110, 2, &bulk_ops, &bulk);
    machine_pio_in(f.m, 0x100, 1, data, 3);
    assert_memory_equal(data, "AAA", 3);
    assert_string_equal(plain.log, "r1@100 r1@100 r1@100 ");
    machine_pio_in(f.m, 0x110, 2, data, 4);
    assert_int_equal(bulk.bulk, 1);
    assert_memory_equal(data, "ZZZZZZZZ", 8);
    machine_pio_out(f.m, 0x110, 2, data, 4);
    assert_int_equal(bulk.bulk, 2);
    /* Too wide for the device: element by element, and each in pieces. */
    machine_pio_in(f.m, 0x110, 4, data, 2);
    assert_int_equal(bulk.bulk, 2);
    assert_string_equal(bulk.log, "r2@110 r2@110 ");
    assert_memory_equal(data, "\x42\x41\xff\xff\x42\x41\xff\xff", 8);   /* 112 is nobody's */
    fake_stop(&f);
}

static void mmio_finds_its_range(void **state)
{
    struct fake f;
    static struct probe p[20];
    fake_start(&f);
    memset(p, 0, sizeof(p));
    for (unsigned i = 0; i < 20; i++) {   /* registered out of order */
        unsigned n = (i * 7) % 20;
        machine_add_mmio(f.m, 0xF0000000 + n * 0x2000ull, 0x1000, &mem_ops, &p[n]);
    }
    for (unsigned n = 0; n < 20; n++) {
        gpa_t at = 0xF0000000 + n * 0x2000ull;
        assert_int_equal(readl(&f, at), 0x44332211);
        assert_string_equal(p[n].log, "r4@0 ");
        assert_int_equal(readl(&f, at + 0x1000), 0xFFFFFFFF);
        assert_int_equal(readl(&f, at - 4), 0xFFFFFFFF);
        p[n].log[0] = 0;
        writel(&f, at + 0xFFC, n);
        char want[32];
        snprintf(want, sizeof(want), "w4@ffc=%x ", n);
        assert_string_equal(p[n].log, want);
    }
    assert_int_equal(counter(&f, "unclaimed_mmio_reads"), 40);
    fake_stop(&f);
}

static void mmio_odd_lengths(void **state)
{
    struct fake f;
    struct probe p = { 0 };
    uint8_t data[8];
    fake_start(&f);
    machine_add_mmio(f.m, 0x1000, 0x10, &mem_ops, &p);
    memset(data, 0, sizeof(data));
    machine_mmio_read(f.m, 0x1001, data, 7);
    assert_string_equal(p.log, "r4@1 r2@5 r1@7 ");
    assert_memory_equal(data, "\x11\x22\x33\x44\x11\x22\x11\x00", 8);
    p.log[0] = 0;
    machine_mmio_read(f.m, 0x100D, data, 8);   /* three bytes inside, five beyond */
    assert_string_equal(p.log, "r2@d r1@f ");
    assert_memory_equal(data, "\x11\x22\x11\xff\xff\xff\xff\xff", 8);
    p.log[0] = 0;
    machine_mmio_write(f.m, 0xFFE, "\x01\x02\x03\x04\x05\x06", 6);
    assert_string_equal(p.log, "w4@0=6050403 ");
    machine_add_mmio(f.m, UINT64_MAX - 3, 4, &mem_ops, &p);
    machine_mmio_read(f.m, UINT64_MAX - 3, data, 4);
    assert_memory_equal(data, "\x11\x22\x33\x44", 4);
    fake_stop(&f);
}

static int msr_read(void *dev, unsigned vp, uint32_t msr, uint64_t *ret)
{
    *ret = (uint64_t)vp << 32 | msr;
    return 0;
}

static int msr_write(void *dev, unsigned vp, uint32_t msr, uint64_t val)
{
    return val ? -EINVAL : 0;
}

static int hypercall(void *dev, unsigned vp) { return (int)vp + *(int *)dev; }

static void msrs_and_hypercalls(void **state)
{
    static const struct msr_ops ops = { msr_read, msr_write };
    struct fake f;
    uint64_t val = 7;
    int base = 40;
    fake_start(&f);
    machine_add_msrs(f.m, 0x40000100, 0x100, &ops, NULL);
    machine_add_msrs(f.m, 0x40000000, 0x80, &ops, NULL);
    assert_int_equal(machine_msr_read(f.m, 3, 0x4000007F, &val), 0);
    assert_int_equal(val, UINT64_C(0x34000007F));
    assert_int_equal(machine_msr_read(f.m, 3, 0x40000080, &val), -ENOENT);
    assert_int_equal(val, UINT64_C(0x34000007F));
    assert_int_equal(machine_msr_read(f.m, 0, 0x400001FF, &val), 0);
    assert_int_equal(machine_msr_write(f.m, 0, 0x40000100, 1), -EINVAL);
    assert_int_equal(machine_msr_write(f.m, 0, 0x40000200, 1), -ENOENT);
    assert_int_equal(machine_hypercall(f.m, 2), -ENOSYS);
    machine_add_hypercall(f.m, hypercall, &base);
    assert_int_equal(machine_hypercall(f.m, 2), 42);
    fake_stop(&f);
}

static void overlap_is_our_bug(void **state)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct fake f;
        struct probe p = { 0 };
        fclose(stderr);
        signal(SIGABRT, SIG_DFL);
        fake_start(&f);
        machine_add_ports(f.m, 0x100, 8, &byte_ops, &p);
        machine_add_ports(f.m, 0x107, 1, &byte_ops, &p);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(port_whole_and_split), cmocka_unit_test(port_answer_is_cut),
        cmocka_unit_test(port_straddles),       cmocka_unit_test(port_unclaimed),
        cmocka_unit_test(port_strings),         cmocka_unit_test(mmio_finds_its_range),
        cmocka_unit_test(mmio_odd_lengths),     cmocka_unit_test(msrs_and_hypercalls),
        cmocka_unit_test(overlap_is_our_bug),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
