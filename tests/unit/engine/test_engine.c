/* Choosing an engine, and what is said about it. */
#include "hv/engine/engine.h"

#include <stdlib.h>
#include <unistd.h>

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static void test_soft_serves_everywhere(void **state)
{
    struct hv_error e = {0};
    assert_ptr_equal(engine_choose(ENGINE_SOFT, &e), &engine_soft);
    assert_false(hv_error_is_set(&e));
    assert_string_equal(engine_soft.name, "soft");
}

/* The flags of the first CPU, looked up in another way than the engine does. */
static bool host_has_virtualization(void)
{
    return system("grep -qwE 'vmx|svm' /proc/cpuinfo") == 0;
}

static void test_kvm_serves_or_says_why_not(void **state)
{
    struct hv_error e = {0};
    const struct engine_ops *ops = engine_choose(ENGINE_KVM, &e);
    if (ops) {
        assert_ptr_equal(ops, &engine_kvm);
        assert_string_equal(ops->name, "kvm");
        assert_false(hv_error_is_set(&e));
        return;
    }
    assert_true(e.code == HV_UNSUPPORTED || e.code == HV_DENIED);
    assert_non_null(strstr(e.hint, "soft"));
}

static void test_auto_takes_kvm_only_on_hardware(void **state)
{
    struct hv_error e = {0};
    const bool kvm = engine_choose(ENGINE_KVM, NULL) && host_has_virtualization();
    assert_ptr_equal(engine_choose(ENGINE_AUTO, &e), kvm ? &engine_kvm : &engine_soft);
    assert_false(hv_error_is_set(&e));
}

static void test_the_description_is_one_sentence(void **state)
{
    char buf[640], small[8];
    assert_ptr_equal(engine_describe(buf, sizeof(buf)), buf);
    assert_non_null(strstr(buf, "/dev/kvm"));
    const bool kvm = engine_choose(ENGINE_AUTO, NULL) == &engine_kvm;
    assert_non_null(strstr(buf, kvm ? "auto takes the kvm engine" : "auto takes the soft engine"));
    assert_int_equal(buf[strlen(buf) - 1], '.');
    assert_null(strchr(buf, '\n'));
    if (access("/dev/kvm", F_OK))
        assert_non_null(strstr(buf, "no /dev/kvm"));
    engine_describe(small, sizeof(small));
    assert_int_equal(strlen(small), 7);
}

static void test_impossible_configurations_are_refused(void **state)
{
    static const struct engine_callbacks cb;
    static const struct engine_config bad[] = {
        { .vcpus = 0, .phys_bits = 40 }, { .vcpus = 65, .phys_bits = 40 }, { .vcpus = 1, .phys_bits = 35 },
        { .vcpus = 1, .phys_bits = 53 },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct engine *g = NULL;
        struct hv_error e = {0};
        assert_true(engine_soft.create(&bad[i], &cb, NULL, &g, &e) < 0);
        assert_int_equal(e.code, HV_USAGE);
        assert_null(g);
    }
    engine_soft.destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_soft_serves_everywhere), cmocka_unit_test(test_kvm_serves_or_says_why_not),
        cmocka_unit_test(test_auto_takes_kvm_only_on_hardware),
        cmocka_unit_test(test_the_description_is_one_sentence),
        cmocka_unit_test(test_impossible_configurations_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
