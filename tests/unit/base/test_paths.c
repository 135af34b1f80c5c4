/* Folders of the service: the same choice for client and service, and only safe ones. */
#include "hv/base/paths.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char top[64];

static int setup(void **state)
{
    hv_strlcpy(top, "/tmp/hv-test-paths.XXXXXX", sizeof(top));
    return mkdtemp(top) ? 0 : -1;
}

static int teardown(void **state)
{
    static const char *const names[] = { "state/hv", "state", "run/hv", "run", "h/.local/state/hv",
                                         "h/.local/state", "h/.local", "h" };
    char path[128];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", top, names[i]);
        if (rmdir(path) < 0) {
            unlink(path);
        }
    }
    unsetenv("XDG_STATE_HOME");
    unsetenv("XDG_RUNTIME_DIR");
    return rmdir(top);
}

static const char *sub(const char *name)
{
    static char path[4][128];
    static unsigned turn;
    char *p = path[turn++ % 4];

    snprintf(p, sizeof(path[0]), "%s/%s", top, name);
    return p;
}

static void system_paths(void **state)
{
    struct hv_paths p;

    assert_int_equal(hv_paths_init(HV_MODE_SYSTEM, &p, NULL), 0);
    assert_string_equal(p.state, "/var/lib/hv");
    assert_string_equal(p.socket, "/run/hv/org.hv.Manager");
}

static void user_paths_follow_xdg(void **state)
{
    struct hv_paths p;
    struct stat st;

    assert_int_equal(mkdir(sub("run"), 0700), 0);
    setenv("XDG_RUNTIME_DIR", sub("run"), 1);
    setenv("XDG_STATE_HOME", sub("state"), 1);
    assert_int_equal(hv_paths_init(HV_MODE_USER, &p, NULL), 0);
    assert_string_equal(p.state, sub("state/hv"));
    assert_string_equal(p.run, sub("run/hv"));
    assert_string_equal(p.socket, sub("run/hv/org.hv.Manager"));
    assert_string_equal(p.log, sub("state/hv/hvd.log"));
    assert_int_equal(hv_paths_create(&p, NULL), 0);
    assert_int_equal(hv_paths_create(&p, NULL), 0);  /* again: they are there */
    assert_int_equal(stat(p.run, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(stat(p.state, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void home_is_the_fallback(void **state)
{
    hv_autofree char *home = hv_strdup(getenv("HOME") ? getenv("HOME") : "/root");
    struct hv_paths p;

    assert_int_equal(mkdir(sub("run"), 0700), 0);
    setenv("XDG_RUNTIME_DIR", sub("run"), 1);
    setenv("XDG_STATE_HOME", "relative/is/ignored", 1);
    setenv("HOME", sub("h"), 1);
    assert_int_equal(hv_paths_init(HV_MODE_USER, &p, NULL), 0);
    assert_string_equal(p.state, sub("h/.local/state/hv"));
    assert_int_equal(hv_paths_create(&p, NULL), 0);
    unsetenv("HOME");
    assert_int_equal(hv_paths_init(HV_MODE_USER, &p, NULL), 0);   /* from the password file */
    assert_int_equal(p.state[0], '/');
    setenv("HOME", home, 1);
}

static void unsafe_runtime_folders_are_passed_over(void **state)
{
    struct hv_paths p;

    assert_int_equal(mkdir(sub("run"), 0700), 0);
    assert_int_equal(chmod(sub("run"), 0777), 0);
    setenv("XDG_STATE_HOME", sub("state"), 1);
    setenv("XDG_RUNTIME_DIR", sub("run"), 1);
    if (hv_paths_init(HV_MODE_USER, &p, NULL) == 0) {
        assert_null(strstr(p.run, top));
    }
    assert_int_equal(rmdir(sub("run")), 0);
    assert_int_equal(symlink("/tmp", sub("run")), 0);
    if (hv_paths_init(HV_MODE_USER, &p, NULL) == 0) {
        assert_null(strstr(p.run, top));
    }
    setenv("XDG_RUNTIME_DIR", "no/absolute/path", 1);
    if (hv_paths_init(HV_MODE_USER, &p, NULL) == 0) {
        assert_true(p.run[0] == '/');
    }
}

static void a_prepared_folder_is_refused(void **state)
{
    struct hv_error e = { 0 };

    assert_int_equal(mkdir(sub("run"), 0700), 0);
    assert_int_equal(chmod(sub("run"), 0770), 0);
    assert_int_equal(hv_make_dir(sub("run"), 0700, &e), -EACCES);
    assert_int_equal(e.code, HV_DENIED);
    assert_int_equal(hv_make_dir(sub("run"), 0770, &e), 0);
    assert_int_equal(rmdir(sub("run")), 0);
    assert_int_equal(symlink(top, sub("run")), 0);
    assert_int_equal(hv_make_dir(sub("run"), 0700, &e), -EACCES);
    assert_int_equal(hv_make_dir(sub("no/such"), 0700, &e), -ENOENT);
}

static void long_paths_are_refused(void **state)
{
    char longer[200];
    struct hv_paths p;
    struct hv_error e = { 0 };

    memset(longer, 'x', sizeof(longer));
    memcpy(longer, sub("state"), strlen(sub("state")));
    longer[199] = '\0';
    setenv("XDG_STATE_HOME", longer, 1);
    assert_int_equal(mkdir(sub("run"), 0700), 0);
    setenv("XDG_RUNTIME_DIR", sub("run"), 1);
    assert_int_equal(hv_paths_init(HV_MODE_USER, &p, &e), 0);     /* only a socket has a short limit */
    char runtime[160];
    snprintf(runtime, sizeof(runtime), "%s/%0100d", sub("run"), 0);
    assert_int_equal(mkdir(runtime, 0700), 0);
    setenv("XDG_RUNTIME_DIR", runtime, 1);
    assert_int_equal(hv_paths_init(HV_MODE_USER, &p, &e), -EINVAL);
    assert_non_null(strstr(e.message, "too long"));
    assert_int_equal(rmdir(runtime), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(system_paths, setup, teardown),
        cmocka_unit_test_setup_teardown(user_paths_follow_xdg, setup, teardown),
        cmocka_unit_test_setup_teardown(home_is_the_fallback, setup, teardown),
        cmocka_unit_test_setup_teardown(unsafe_runtime_folders_are_passed_over, setup, teardown),
        cmocka_unit_test_setup_teardown(a_prepared_folder_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(long_paths_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests_name("base/paths", tests, NULL, NULL);
}
