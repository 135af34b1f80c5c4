/* Whole-buffer I/O and files replaced whole or not at all. */
#include "hv/base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "hv/base/fault.h"

static char folder[64];
static char path[96];

static int make_folder(void **state)
{
    hv_strlcpy(folder, "/tmp/hv-test-file.XXXXXX", sizeof(folder));
    if (!mkdtemp(folder)) {
        return -1;
    }
    snprintf(path, sizeof(path), "%s/settings.xml", folder);
    return 0;
}

static unsigned clear_folder(void)
{
    DIR *d = opendir(folder);
    unsigned n = 0;

    for (struct dirent *ent; (ent = readdir(d));) {
        if (ent->d_name[0] == '.' && (ent->d_name[1] == '\0' || ent->d_name[1] == '.')) {
            continue;
        }
        unlinkat(dirfd(d), ent->d_name, 0);
        n++;
    }
    closedir(d);
    return n;
}

static int remove_folder(void **state)
{
    clear_folder();
    return rmdir(folder);
}

static void replacing_creates_then_replaces(void **state)
{
    struct stat st;
    char *text;
    size_t len;

    assert_int_equal(hv_replace_file(path, "one", 3, 0640), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(hv_replace_file(path, "second", 6, 0600), 0);
    assert_int_equal(hv_read_file(path, 6, &text, &len), 0);
    assert_int_equal(len, 6);
    assert_string_equal(text, "second");
    free(text);
    assert_int_equal(hv_replace_file(path, NULL, 0, 0600), 0);
    assert_int_equal(hv_read_file(path, 0, &text, NULL), 0);
    assert_string_equal(text, "");
    free(text);
    assert_int_equal(clear_folder(), 1);             /* no temporary file stays */
}

/* In steps: over nothing, over a file, and over a folder, which is refused and stays. */
static void a_replacement_takes_the_name_of_files_alone(void **state)
{
    static const char *const texts[] = { "one", "second" };
    struct hv_replacement f;
    struct stat st;
    char *text;

    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
        assert_int_equal(hv_replacement_begin(&f, path, texts[i], strlen(texts[i]), 0600), 0);
        assert_int_equal(hv_replacement_sync(&f), 0);
        assert_int_equal(hv_replacement_commit(&f), 0);
        hv_replacement_fini(&f);
        assert_int_equal(hv_read_own_file(path, 100, &text, NULL), 0);
        assert_string_equal(text, texts[i]);
        free(text);
    }
    assert_int_equal(clear_folder(), 1);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(hv_replacement_begin(&f, path, "x", 1, 0600), 0);
    assert_int_equal(hv_replacement_sync(&f), 0);
    assert_int_equal(hv_replacement_commit(&f), -EISDIR);
    hv_replacement_fini(&f);
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(clear_folder(), 0);
}

static void a_bare_name_is_replaced_in_the_current_folder(void **state)
{
    char *text, old[256];

    assert_non_null(getcwd(old, sizeof(old)));
    assert_int_equal(chdir(folder), 0);
    int r = hv_replace_file("bare", "x", 1, 0600);
    assert_int_equal(chdir(old), 0);
    assert_int_equal(r, 0);
    snprintf(path, sizeof(path), "%s/bare", folder);
    assert_int_equal(hv_read_file(path, 10, &text, NULL), 0);
    free(text);
    snprintf(path, sizeof(path), "%s/settings.xml", folder);
    clear_folder();
}

static void a_failure_at_any_step_leaves_old_or_new(void **state)
{
    static const enum fault_kind kinds[] = { FAULT_ALLOC, FAULT_OPEN, FAULT_WRITE, FAULT_SYNC };
    unsigned failures = 0;

    for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
        for (uint64_t n = 1;; n++) {
            char *text;
            assert_int_equal(hv_replace_file(path, "old", 3, 0600), 0);
            fault_arm(kinds[k], n, ENOSPC);
            int r = hv_replace_file(path, "new", 3, 0600);
            bool fired = fault_calls(kinds[k]) >= n;
            fault_arm(kinds[k], 0, 0);
            assert_int_equal(hv_read_file(path, 10, &text, NULL), 0);
            assert_true(strcmp(text, "old") == 0 || strcmp(text, "new") == 0);
            if (r == 0) {
                assert_string_equal(text, "new");
            } else {
                failures++;
                assert_true(fired);
            }
            free(text);
            assert_int_equal(clear_folder(), 1);
            if (!fired) {
                assert_int_equal(r, 0);
                break;
            }
        }
    }
    assert_int_equal(failures, 3 + 1 + 1 + 2);
}

static void reading_has_a_limit(void **state)
{
    char *text = NULL;
    size_t len;
    static char big[10000];

    memset(big, 'x', sizeof(big));
    assert_int_equal(hv_replace_file(path, big, sizeof(big), 0600), 0);
    assert_int_equal(hv_read_file(path, sizeof(big) - 1, &text, NULL), -EFBIG);
    assert_null(text);
    assert_int_equal(hv_read_file(path, sizeof(big), &text, &len), 0);
    assert_int_equal(len, sizeof(big));
    assert_int_equal(strlen(text), sizeof(big));
    free(text);
    assert_int_equal(hv_read_file("/proc/self/status", 1 << 20, &text, &len), 0);
    assert_true(len > 100);                          /* although its st_size is 0 */
    free(text);
    assert_int_equal(hv_read_file("/no/such/file", 10, &text, NULL), -ENOENT);
    assert_int_equal(hv_read_file(folder, 10, &text, NULL), -EISDIR);
    clear_folder();
}

static void *drain(void *arg)
{
    int fd = *(int *)arg;
    static char got[300000];

    return hv_read_all(fd, got, sizeof(got)) == 0 && got[299999] == 'z' ? arg : NULL;
}

static void short_counts_are_made_whole(void **state)
{
    static char data[300000];
    int p[2];
    pthread_t t;
    void *ok;

    /* non-blocking and far larger than the pipe: both ends wait and go on */
    memset(data, 'y', sizeof(data));
    data[sizeof(data) - 1] = 'z';
    assert_int_equal(pipe2(p, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&t, NULL, drain, &p[0]), 0);
    assert_int_equal(hv_write_all(p[1], data, sizeof(data)), 0);
    pthread_join(t, &ok);
    assert_non_null(ok);
    assert_int_equal(hv_write_all(p[1], "abc", 3), 0);
    close(p[1]);
    assert_int_equal(hv_read_all(p[0], data, 4), -EIO);
    close(p[0]);
    assert_int_equal(hv_read_all(-1, data, 1), -EBADF);
    assert_int_equal(hv_write_all(-1, data, 1), -EBADF);
}

static void what_killed_writers_left_is_removed_and_nothing_else(void **state)
{
    static const char *const names[] = { ".settings.xml.aB3dEf", ".x.000000", "settings.xml", ".settings.xml",
                                         "a.b.aB3dEf", ".short.abc", ".a.xml.ab-def", ".hidden" };
    char full[160];
    unsigned left = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(full, sizeof(full), "%s/%s", folder, names[i]);
        int fd = open(full, O_WRONLY | O_CREAT, 0600);
        assert_true(fd >= 0);
        close(fd);
    }
    hv_remove_temps(folder);
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(full, sizeof(full), "%s/%s", folder, names[i]);
        assert_int_equal(access(full, F_OK) == 0, i >= 2);
        left += i >= 2;
    }
    assert_int_equal(clear_folder(), left);
    hv_remove_temps("/nowhere");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replacing_creates_then_replaces),
        cmocka_unit_test(a_replacement_takes_the_name_of_files_alone),
        cmocka_unit_test(a_bare_name_is_replaced_in_the_current_folder),
        cmocka_unit_test(a_failure_at_any_step_leaves_old_or_new),
        cmocka_unit_test(reading_has_a_limit),
        cmocka_unit_test(short_counts_are_made_whole),
        cmocka_unit_test(what_killed_writers_left_is_removed_and_nothing_else),
    };
    return cmocka_run_group_tests_name("base/file", tests, make_folder, remove_folder);
}
