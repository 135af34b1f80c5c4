/* Small things of the base room: memory, strings, GUIDs, counters, faults, strbuf. */
#include "hv/base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <setjmp.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "hv/base/endian.h"
#include "hv/base/fault.h"
#include "hv/base/guid.h"
#include "hv/base/stats.h"
#include "hv/base/strbuf.h"

static void allocations_are_checked(void **state)
{
    char *p = hv_alloc(64);

    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(p[i], 0);
    }
    free(p);
    assert_null(hv_alloc_array(SIZE_MAX / 2, 3));
    assert_null(hv_realloc_array(NULL, SIZE_MAX / 2, 3));
    p = hv_alloc(0);
    assert_non_null(p);                              /* NULL means failure, nothing else */
    p = hv_realloc_array(p, 0, 8);
    assert_non_null(p);
    free(p);
    p = hv_asprintf("%s-%d", "vm", 7);
    assert_string_equal(p, "vm-7");
    free(p);
}

static void strlcpy_always_terminates(void **state)
{
    char b[4] = "zzz";

    assert_true(hv_strlcpy(b, "abc", sizeof(b)));
    assert_string_equal(b, "abc");
    assert_false(hv_strlcpy(b, "abcd", sizeof(b)));
    assert_string_equal(b, "abc");
    assert_false(hv_strlcpy(b, "x", 0));
    assert_string_equal(b, "abc");
    assert_true(hv_strlcpy(b, "", 1));
    assert_string_equal(b, "");
}

static void clean_up_at_scope_end(void **state)
{
    int raw;
    {
        hv_autofree char *text = hv_strdup("freed");
        hv_autofree char *moved = hv_steal(text);
        assert_null(text);
        assert_string_equal(moved, "freed");
        hv_autoclose int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        raw = fd;
        assert_true(raw >= 0);
        errno = EDOM;
    }
    assert_int_equal(errno, EDOM);
    assert_int_equal(fcntl(raw, F_GETFD), -1);
}

struct box { uint32_t magic; };

static void broken_invariants_abort(void **state)
{
    struct box b = { .magic = 0x1234 };
    int status;

    HV_CHECK(&b, 0x1234);
    pid_t pid = fork();
    if (pid == 0) {
        close(STDERR_FILENO);
        HV_CHECK(&b, 0x4321);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void byte_order(void **state)
{
    uint8_t b[9] = { 0 };

    put_le32(b + 1, 0x01020304);                     /* unaligned on purpose */
    assert_int_equal(b[1], 4);
    assert_int_equal(get_be32(b + 1), 0x04030201);
    put_be64(b + 1, 0x0102030405060708);
    assert_int_equal(b[1], 1);
    assert_int_equal(get_le64(b + 1), 0x0807060504030201);
    put_be16(b, 0xabcd);
    assert_int_equal(get_le16(b), 0xcdab);
}

static void guids_are_mixed_endian(void **state)
{
    /* the storage class GUID as Linux' include/linux/hyperv.h writes its bytes (HV_SCSI_GUID) */
    static const uint8_t scsi[16] = { 0xd9, 0x63, 0x61, 0xba, 0xa1, 0x04, 0x29, 0x4d,
                                      0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f };
    char text[GUID_TEXT_SIZE];
    struct guid g, h;

    assert_int_equal(guid_parse("{BA6163D9-04a1-4d29-B605-72e2ffb1dc7f}", &g), 0);
    assert_memory_equal(g.b, scsi, 16);
    assert_string_equal(guid_format(&g, text), "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");
    assert_string_equal(guid_format_upper(&g, text), "BA6163D9-04A1-4D29-B605-72E2FFB1DC7F");
    assert_int_equal(guid_parse(text, &h), 0);
    assert_true(guid_equal(&g, &h));
    assert_false(guid_is_zero(&g));
    h.b[15] ^= 1;
    assert_false(guid_equal(&g, &h));
}

static void bad_guids_are_refused(void **state)
{
    static const char *const bad[] = {
        "", "{", "{}", "ba6163d9", "ba6163d9-04a1-4d29-b605-72e2ffb1dc7", "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f0",
        "{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f", "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}",
        "ba6163d904a14d29b60572e2ffb1dc7f", "ba6163d9-04a1-4d29-b605-72e2ffb1dc7g",
        "ba6163d9-04a14-d29-b605-72e2ffb1dc7f", " ba6163d9-04a1-4d29-b605-72e2ffb1dc7f",
        "{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}}",
    };
    struct guid g = { { 9 } };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(guid_parse(bad[i], &g), -EINVAL);
        assert_int_equal(g.b[0], 9);
    }
}

static void fresh_guids_are_version_4(void **state)
{
    char text[GUID_TEXT_SIZE];
    struct guid a, b;

    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(guid_new(&a), 0);
        assert_int_equal(guid_new(&b), 0);
        assert_false(guid_equal(&a, &b));
        guid_format(&a, text);
        assert_int_equal(text[14], '4');
        assert_non_null(strchr("89ab", text[19]));
    }
}

static void faults_fire_once_at_the_nth_call(void **state)
{
    assert_false(fault_armed);
    fault_arm(FAULT_READ, 3, EDOM);
    assert_true(fault_armed);
    assert_int_equal(fault_check(FAULT_READ), 0);
    assert_int_equal(fault_check(FAULT_WRITE), 0);   /* another kind does not count */
    assert_int_equal(fault_check(FAULT_READ), 0);
    assert_int_equal(fault_check(FAULT_READ), -EDOM);
    assert_int_equal(fault_check(FAULT_READ), 0);
    assert_int_equal(fault_calls(FAULT_READ), 4);
    fault_arm(FAULT_READ, 0, 0);
    assert_false(fault_armed);
    fault_arm(FAULT_ALLOC, 1, 0);
    assert_null(hv_alloc(1));
    assert_int_equal(errno, ENOMEM);
    fault_arm(FAULT_ALLOC, 1, 0);
    assert_null(hv_strdup("x"));
    fault_arm(FAULT_ALLOC, 1, 0);
    assert_null(hv_asprintf("x"));
    fault_arm(FAULT_ALLOC, 0, 0);
}

static void faults_from_the_environment(void **state)
{
    int status;

    setenv("HV_FAULT", "write=2:ENOSPC,sync=1", 1);
    fault_arm_from_environment();
    assert_int_equal(fault_check(FAULT_WRITE), 0);
    assert_int_equal(fault_check(FAULT_WRITE), -ENOSPC);
    assert_int_equal(fault_check(FAULT_SYNC), -EIO);
    fault_arm(FAULT_WRITE, 0, 0);
    fault_arm(FAULT_SYNC, 0, 0);
    setenv("HV_FAULT", "wriet=2", 1);
    pid_t pid = fork();
    if (pid == 0) {
        close(STDERR_FILENO);
        fault_arm_from_environment();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 2);
    unsetenv("HV_FAULT");
}

static void strbuf_grows_and_is_terminated(void **state)
{
    strbuf_auto sb = { 0 };
    size_t len = 99;

    for (unsigned i = 0; i < 1000; i++) {
        strbuf_addf(&sb, "%u,", i);
        assert_int_equal(sb.buf[sb.len], '\0');
    }
    assert_int_equal(sb.err, 0);
    assert_int_equal(sb.len, 10 * 2 + 90 * 3 + 900 * 4);
    strbuf_consume(&sb, sb.len - 4);
    assert_string_equal(sb.buf, "999,");
    strbuf_addc(&sb, '\0');
    strbuf_adds(&sb, "x");
    assert_int_equal(sb.len, 6);
    strbuf_reset(&sb);
    assert_string_equal(sb.buf, "");
    strbuf_add(&sb, "ab", 2);
    char *p = strbuf_detach(&sb, &len);
    assert_string_equal(p, "ab");
    assert_int_equal(len, 2);
    free(p);
    p = strbuf_detach(&sb, &len);                    /* of an empty one: "" */
    assert_string_equal(p, "");
    free(p);
}

static void strbuf_failures_stick(void **state)
{
    strbuf_auto sb = { 0 };

    strbuf_adds(&sb, "kept");
    fault_arm(FAULT_ALLOC, 1, 0);
    for (unsigned i = 0; i < 100; i++) {
        strbuf_adds(&sb, "0123456789");
    }
    fault_arm(FAULT_ALLOC, 0, 0);
    assert_int_equal(sb.err, ENOMEM);
    assert_true(sb.len < 100);
    assert_null(strbuf_detach(&sb, NULL));
    strbuf_add(&sb, "x", SIZE_MAX);
    assert_int_equal(sb.err, ENOMEM);
    strbuf_reset(&sb);
    assert_int_equal(sb.err, 0);
}

static void sum(void *arg, const struct stats_table *t, unsigned i, uint64_t value)
{
    strbuf_addf(arg, "%s.%s=%llu ", t->group, t->desc[i].name, (unsigned long long)value);
}

static void counters_are_listed_in_order(void **state)
{
    static const struct stats_desc desc[] = { { "reads", "", "", STATS_COUNTER }, { "len", "B", "", STATS_GAUGE } };
    static _Atomic uint64_t v1[2], v2[1];
    struct stats_table a = { "disk0", desc, 2, v1, NULL }, b = { "disk1", desc, 1, v2, NULL };
    struct stats_registry r = { 0 };
    strbuf_auto out = { 0 };

    stats_register(&r, &a);
    stats_register(&r, &b);
    stats_add(&a, 0, 3);
    stats_add(&a, 0, 4);
    stats_add(&b, 0, UINT64_MAX);
    assert_int_equal(stats_read(&a, 0), 7);
    stats_each(&r, sum, &out);
    assert_string_equal(out.buf, "disk0.reads=7 disk0.len=0 disk1.reads=18446744073709551615 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_checked),
        cmocka_unit_test(strlcpy_always_terminates),
        cmocka_unit_test(clean_up_at_scope_end),
        cmocka_unit_test(broken_invariants_abort),
        cmocka_unit_test(byte_order),
        cmocka_unit_test(guids_are_mixed_endian),
        cmocka_unit_test(bad_guids_are_refused),
        cmocka_unit_test(fresh_guids_are_version_4),
        cmocka_unit_test(faults_fire_once_at_the_nth_call),
        cmocka_unit_test(faults_from_the_environment),
        cmocka_unit_test(strbuf_grows_and_is_terminated),
        cmocka_unit_test(strbuf_failures_stick),
        cmocka_unit_test(counters_are_listed_in_order),
    };
    return cmocka_run_group_tests_name("base/base", tests, NULL, NULL);
}
