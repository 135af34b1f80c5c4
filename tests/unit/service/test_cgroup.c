/* Limits of control groups, from trees of files as the kernel shows them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "hv/service/cgroup.h"
#include "tests/unit/service/tree.h"

static void expect(const char *membership, uint64_t limit, uint64_t available)
{
    struct cgroup_memory m = cgroup_memory(membership, top);
    assert_int_equal(m.limit, limit);
    assert_int_equal(m.available, available);
}

static void no_group_no_limit(void **state)
{
    expect("", UINT64_MAX, UINT64_MAX);
    expect("0::/\n", UINT64_MAX, UINT64_MAX);
    expect("0::/not/there\n", UINT64_MAX, UINT64_MAX);
    expect("nonsense\n:\n::\n0:\n", UINT64_MAX, UINT64_MAX);
}

static void the_tightest_above_counts(void **state)
{
    put("a.slice/memory.max", "1073741824\n");
    put("a.slice/memory.current", "536870912\n");
    put("a.slice/memory.stat", "anon 1\nfile 9\nactive_file 7\ninactive_file 268435456\nslab 3\n");
    put("a.slice/b.scope/memory.max", "max\n");
    put("a.slice/b.scope/memory.current", "536870912\n");
    expect("0::/a.slice/b.scope\n", 1 * GIB, 768 * MIB);
    put("a.slice/b.scope/memory.max", "2147483648\n");
    expect("0::/a.slice/b.scope\n", 1 * GIB, 768 * MIB);
    put("a.slice/b.scope/memory.max", "805306368\n");
    expect("0::/a.slice/b.scope\n", 768 * MIB, 256 * MIB);
    expect("0::/a.slice\n", 1 * GIB, 768 * MIB);
}

static void a_group_over_its_limit_has_nothing_left(void **state)
{
    put("full/memory.max", "1000000\n");
    put("full/memory.current", "2000000\n");
    expect("0::/full\n", 1000000, 0);
}

static void version_1_and_both_beside_each_other(void **state)
{
    put("memory/x/memory.limit_in_bytes", "2147483648\n");
    put("memory/x/memory.usage_in_bytes", "1073741824\n");
    put("memory/x/memory.stat", "inactive_file 5\ntotal_inactive_file 0\n");
    put("memory/memory.limit_in_bytes", "9223372036854771712\n");
    expect("9:name=systemd:/\n4:cpu,memory:/x\n0::/\n", 2 * GIB, 1 * GIB);
    expect("4:memoryless:/x\n", UINT64_MAX, UINT64_MAX);
    put("unified/u/memory.max", "1073741824\n");
    put("unified/u/memory.current", "0\n");
    expect("4:memory:/x\n0::/u\n", 1 * GIB, 1 * GIB);
}

/* A container that sees its own group as the top of what is mounted. */
static void the_mounted_top_itself(void **state)
{
    put("memory.max", "536870912\n");
    put("memory.current", "0\n");
    expect("0::/\n", 512 * MIB, 512 * MIB);
    expect("0::/../outside\n", UINT64_MAX, UINT64_MAX);
    expect("0::/deep/er\n", 512 * MIB, 512 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_group_no_limit), cmocka_unit_test(the_tightest_above_counts),
        cmocka_unit_test(a_group_over_its_limit_has_nothing_left), cmocka_unit_test(version_1_and_both_beside_each_other),
        cmocka_unit_test(the_mounted_top_itself),
    };
    return cmocka_run_group_tests(tests, make_top, drop_top);
}
