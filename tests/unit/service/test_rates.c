/* What VMs do a second, from two reports of their workers; what the host goes through, from files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <unistd.h>

#include "hv/service/service.h"
#include "tests/unit/service/tree.h"

static json_t *report(const char *path, int reads, int bytes, int wait_us, int exits)
{
    return json_pack("{s:[{s:s s:s s:s s:i s:i s:i s:i s:I s:i s:i s:i}] s:{s:i s:i s:n} s:[I I]}", "disks", "location", "scsi0:0", "path", path,
                     "type", "disk", "reads", reads, "writes", 0, "read_bytes", bytes, "written_bytes", 0, "wait_ns", (json_int_t)wait_us * 1000, "queue", 3,
                     "used", 100, "size", 1000, "counters", "exits", exits, "hypercalls", exits / 2, "interrupts", "vcpu_ns",
                     (json_int_t)exits * 1000000, (json_int_t)0);
}

static json_int_t number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? json_integer_value(v) : -1;
}

static void from_one_report_to_the_next(void **state)
{
    json_t *a = report("/a", 100, 4096, 1000, 1000), *b = report("/a", 300, 8192, 41000, 2000);
    json_t *o = rates_json(a, b, 2 * NS_PER_SEC), *d = json_array_get(json_object_get(o, "disks"), 0);
    assert_int_equal(number(o, "read"), 2048);
    assert_int_equal(number(o, "write"), 0);
    assert_int_equal(number(o, "iops"), 100);
    assert_int_equal(number(o, "latency_us"), 200);
    assert_int_equal(number(o, "queue"), 3);
    assert_int_equal(number(o, "disk_size"), 1000);
    assert_int_equal(number(o, "exits"), 500);
    assert_int_equal(number(o, "hypercalls"), 250);
    assert_true(json_is_null(json_object_get(o, "interrupts")));       /* null in the report */
    assert_int_equal(json_integer_value(json_array_get(json_object_get(o, "vcpu_pct"), 0)), 50);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(o, "vcpu_pct"), 1)), 0);
    assert_int_equal(json_array_size(d), 10);
    assert_int_equal(json_integer_value(json_array_get(d, 5)), 100);
    assert_string_equal(json_string_value(json_array_get(d, 1)), "/a");
    json_decref(o);
    json_decref(a);
    json_decref(b);
}

/* The first report, counters that went back, another disk, nonsense: unknown, never absurd. */
static void what_makes_no_rate(void **state)
{
    json_t *a = report("/a", 100, 4096, 1000, 1000), *back = report("/a", 5, 4, 3, 2), *other = report("/b", 300, 8192, 41000, 2000);
    json_t *nonsense = json_pack("{s:s s:[i] s:{s:s}}", "disks", "x", "vcpu_ns", -5, "counters", "exits", "many");
    const struct { const json_t *was, *is; uint64_t ns; } t[] = {
        {NULL, a, 0}, {NULL, a, NS_PER_SEC}, {a, back, NS_PER_SEC}, {a, nonsense, NS_PER_SEC}, {nonsense, a, NS_PER_SEC}, {a, a, 0},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        json_t *o = rates_json(t[i].was, t[i].is, t[i].ns);
        assert_non_null(o);
        assert_int_equal(number(o, "read"), -1);
        assert_int_equal(number(o, "exits"), -1);
        assert_int_equal(number(o, "latency_us"), -1);
        json_decref(o);
    }
    json_t *o = rates_json(a, other, NS_PER_SEC);
    assert_int_equal(number(o, "read"), -1);
    assert_int_equal(number(o, "disk_used"), 100);
    assert_int_equal(number(o, "exits"), 1000);
    json_decref(o);
    /* Idle: no request, so no latency; 0 requests are known. */
    o = rates_json(a, a, NS_PER_SEC);
    assert_int_equal(number(o, "iops"), 0);
    assert_int_equal(number(o, "latency_us"), -1);
    json_decref(o);
    json_decref(a);
    json_decref(back);
    json_decref(other);
    json_decref(nonsense);
}

static void what_the_host_goes_through(void **state)
{
    put("proc/meminfo", "MemTotal:  100 kB\nPageTables:      2048 kB\nSecPageTables: 7 kB\n");
    put("proc/pressure/cpu", "some avg10=12.57 avg60=1.00 avg300=0.00 total=5\n");
    put("proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=0\n");
    put("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:       1024 kB\nNode 0 MemFree:  512 kB\n");
    put("sys/devices/system/node/node2/meminfo", "Node 2 MemTotal:       2048 kB\nNode 2 MemFree:  1 kB\n");
    json_t *host = json_pack("{s:{}}", "memory");
    host_load_json(top, host);
    const json_t *psi = json_object_get(host, "psi"), *numa = json_object_get(host, "numa");
    assert_int_equal(number(json_object_get(host, "memory"), "page_tables"), 2048 * 1024);
    assert_true(json_real_value(json_object_get(psi, "cpu")) == 12.5);
    assert_true(json_real_value(json_object_get(psi, "memory")) == 0);
    assert_true(json_is_null(json_object_get(psi, "io")));
    assert_int_equal(json_array_size(numa), 2);
    assert_int_equal(number(json_array_get(numa, 1), "node"), 2);
    assert_int_equal(number(json_array_get(numa, 1), "total"), 2048 * 1024);
    json_decref(host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_one_report_to_the_next),
        cmocka_unit_test(what_makes_no_rate),
        cmocka_unit_test_setup_teardown(what_the_host_goes_through, make_top, drop_top),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
