/* Recordings: what is written comes back; what is torn, cut, flipped or made up does no harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hvtop/model.h"
#include "hvtop/record.h"

static char path[64];

static int set_up(void **state)
{
    snprintf(path, sizeof(path), "/tmp/hvrec-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    return 0;
}

static int tear_down(void **state) { return unlink(path); }

static json_t *message(unsigned i)
{
    return json_pack("{s:i s:I s:[s s] s:[[s i]]}", "host", 0, "time_ms", (json_int_t)(1000000 + i * 2000), "columns", "name", "assigned",
                     "rows", "web1", (int)i);
}

static struct recorder *write_samples(unsigned n, bool close_it)
{
    struct recorder *r;
    struct hv_error e = {0};
    assert_int_equal(recorder_open(path, 1, &r, &e), 0);
    json_t *name = json_pack("{s:i s:s}", "host", 0, "name", "vmhost1");
    assert_int_equal(recorder_write(r, name, &e), 0);
    json_decref(name);
    for (unsigned i = 0; i < n; i++) {
        json_t *m = message(i);
        assert_int_equal(recorder_write(r, m, &e), 0);
        json_decref(m);
    }
    if (close_it) {
        assert_int_equal(recorder_close(r, &e), 0);
        r = NULL;
    }
    return r;
}

/* Samples that can be read, in order; *last: the value of the last. */
static unsigned count(struct replay *r, int *last)
{
    unsigned n = 0;
    for (json_t *m; (m = replay_next(r));) {
        json_t *rows = json_object_get(m, "rows");
        if (rows) {
            *last = (int)json_integer_value(json_array_get(json_array_get(rows, 0), 1));
            n++;
        }
        json_decref(m);
    }
    return n;
}

static void comes_back(void **state)
{
    struct replay *r;
    struct hv_error e = {0};
    int last = -1;
    write_samples(1000, true);
    assert_int_equal(replay_open(path, &r, &e), 0);
    assert_int_equal(replay_hosts(r), 1);
    assert_string_equal(replay_host(r, 0), "vmhost1");
    assert_int_equal(replay_first_ms(r), 1000000);
    assert_int_equal(replay_last_ms(r), 1000000 + 999 * 2000);
    assert_int_equal(count(r, &last), 1000);
    assert_int_equal(last, 999);
    replay_close(r);
}

static void jumps(void **state)
{
    struct replay *r;
    struct hv_error e = {0};
    write_samples(1000, true);
    assert_int_equal(replay_open(path, &r, &e), 0);
    for (unsigned want = 0; want < 1000; want += 37) {
        uint64_t t = 1000000 + want * 2000;
        replay_seek(r, t);
        bool columns = false, found = false;
        for (json_t *m; !found && (m = replay_next(r));) {
            columns = columns || json_object_get(m, "columns");      /* a frame stands for itself */
            uint64_t at = (uint64_t)json_integer_value(json_object_get(m, "time_ms"));
            assert_true(at <= t);
            found = at == t;
            json_decref(m);
        }
        assert_true(found && columns);
        assert_int_equal(replay_before(r, t), want ? t - 2000 : 0);
    }
    replay_close(r);
}

static void killed_while_writing(void **state)
{
    struct replay *r;
    struct hv_error e = {0};
    int last = -1;
    struct recorder *w = write_samples(100, false);      /* the frame is not ended, as after kill -9 */
    assert_int_equal(replay_open(path, &r, &e), 0);
    assert_int_equal(count(r, &last), 100);
    assert_int_equal(last, 99);
    replay_close(r);
    recorder_close(w, NULL);
}

static void cut_anywhere(void **state)
{
    struct hv_error e = {0};
    char *data;
    size_t len;
    write_samples(200, true);
    assert_int_equal(hv_read_file(path, 1 << 20, &data, &len), 0);
    unsigned most = 0;
    for (size_t n = 0; n <= len; n++) {
        struct replay *r;
        int last = -1;
        hv_error_clear(&e);
        if (replay_open_mem(data, n, &r, &e) < 0) {
            assert_true(hv_error_is_set(&e));
            continue;
        }
        unsigned samples = count(r, &last);
        assert_true(samples >= most);            /* never less than with fewer bytes */
        most = samples;
        assert_int_equal(last, (int)samples - 1);
        replay_close(r);
    }
    assert_int_equal(most, 200);
    free(data);
}

static void flipped_bits(void **state)
{
    char *data;
    size_t len;
    write_samples(100, true);
    assert_int_equal(hv_read_file(path, 1 << 20, &data, &len), 0);
    for (size_t i = 0; i < len * 8; i++) {
        struct replay *r;
        int last = -1;
        data[i / 8] ^= (char)(1 << i % 8);
        if (replay_open_mem(data, len, &r, NULL) == 0) {
            count(r, &last);
            replay_seek(r, 1000000);
            replay_before(r, UINT64_MAX);
            replay_close(r);
        }
        data[i / 8] ^= (char)(1 << i % 8);
    }
    free(data);
}

static void not_recordings(void **state)
{
    static const char *const texts[] = {
        "", "x", "{}", "{}\n", "[1]\n", "{\"hvrec\":1}\n", "{\"hvrec\":1,\"hosts\":[]}\n", "{\"hvrec\":1,\"hosts\":[7]}\n",
        "{\"hvrec\":\"1\",\"hosts\":[\"a\"]}\n", "{\"hvrec\":1,\"hosts\":[\"a\"]", "\x28\xb5\x2f\xfd", "\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
        struct replay *r;
        struct hv_error e = {0};
        assert_true(replay_open_mem(texts[i], strlen(texts[i]), &r, &e) < 0);
        assert_int_equal(e.code, HV_FAILED);
    }
    struct replay *r;
    struct hv_error e = {0};
    const char *newer = "{\"hvrec\":2,\"hosts\":[\"a\"]}\n";
    assert_true(replay_open_mem(newer, strlen(newer), &r, &e) < 0);
    assert_int_equal(e.code, HV_UNSUPPORTED);
}

static void plain_lines_are_read_and_nonsense_skipped(void **state)
{
    const char *text = "{\"hvrec\":1,\"hosts\":[\"a\"]}\n{\"host\":0,\"columns\":[\"name\"]}\nnonsense\n[]\n\n{\"host\":0,\"time_ms\":5,\"rows\":[[\"x\"]]}\n"
                       "{\"host\":0,\"time_ms\":-7,\"rows\":[]}\n{\"host\":9,\"time_ms\":7,\"rows\":[]}\n{\"torn\":";
    struct replay *r;
    static struct model m;
    unsigned lines = 0, taken = 0;
    assert_int_equal(replay_open_mem(text, strlen(text), &r, NULL), 0);
    model_init(&m, NULL, 1);
    for (json_t *o; (o = replay_next(r)); lines++) {
        taken += model_apply(&m, o) == 0;
        json_decref(o);
    }
    assert_int_equal(lines, 4);
    assert_int_equal(taken, 2);
    assert_int_equal(m.n_vms, 1);
    model_fini(&m);
    replay_close(r);
}

static void other_files_are_not_overwritten(void **state)
{
    struct recorder *r;
    struct hv_error e = {0};
    int fd = open(path, O_WRONLY);
    assert_int_equal(write(fd, "precious", 8), 8);
    close(fd);
    assert_true(recorder_open(path, 1, &r, &e) < 0);
    assert_int_equal(e.code, HV_CONFLICT);
    char *text;
    assert_int_equal(hv_read_file(path, 100, &text, NULL), 0);
    assert_string_equal(text, "precious");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(jumps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(killed_while_writing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cut_anywhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(flipped_bits, set_up, tear_down),
        cmocka_unit_test(not_recordings), cmocka_unit_test(plain_lines_are_read_and_nonsense_skipped),
        cmocka_unit_test_setup_teardown(other_files_are_not_overwritten, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
