/* Choosing an engine, and what is said about it. */
#include "hv/engine/engine.h"

#include <unistd.h>

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static void test_auto_and_soft_take_soft(void **state)
{
    struct hv_error e = {0};
    assert_ptr_equal(engine_choose(ENGINE_AUTO, &e), &engine_soft);
    assert_ptr_equal(engine_choose(ENGINE_SOFT, &e), &engine_soft);
    assert_false(hv_error_is_set(&e));
    assert_string_equal(engine_soft.name, "soft");
}

static void test_kvm_is_unsupported_with_a_hint(void **state)
{
    struct hv_error e = {0};
    assert_null(engine_choose(ENGINE_KVM, &e));
    assert_int_equal(e.code, HV_UNSUPPORTED);
    assert_non_null(strstr(e.message, "kvm"));
    assert_non_null(strstr(e.hint, "soft"));
}

static void test_the_description_is_one_sentence(void **state)
{
    char buf[256], small[8];
    assert_ptr_equal(engine_describe(buf, sizeof(buf)), buf);
    assert_non_null(strstr(buf, "/dev/kvm"));
    assert_non_null(strstr(buf, "auto takes the soft engine"));
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
        cmocka_unit_test(test_auto_and_soft_take_soft), cmocka_unit_test(test_kvm_is_unsupported_with_a_hint),
        cmocka_unit_test(test_the_description_is_one_sentence),
        cmocka_unit_test(test_impossible_configurations_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
