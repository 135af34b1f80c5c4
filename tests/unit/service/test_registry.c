/*
 * The registry against a disk that fails: every open, write, sync and rename of every change,
 * one after the other. Nothing is lost, a refused change has not happened, now or after a
 * restart, nothing is left lying about, and the message says what and why.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/fault.h"
#include "hv/service/journal.h"
#include "hv/service/service.h"

#define ROUNDS 40                 /* more calls of one kind than any change makes */

static char folder[64];

/* hvd's main program has it. */
void service_ready(struct service *svc) { (void)svc; }

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *de; d && (de = readdir(d));) {
        char below[400];
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
            continue;
        snprintf(below, sizeof(below), "%s/%s", path, de->d_name);
        if (unlink(below) < 0)
            remove_tree(below);
    }
    if (d)
        closedir(d);
    rmdir(path);
}

static int make_folder(void **state)
{
    snprintf(folder, sizeof(folder), "/tmp/hv-registry-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    fault_arm(FAULT_OPEN, 0, 0);
    remove_tree(folder);
    return 0;
}

/* VMs point to their service: it is filled where it stays. */
static void load(struct service *svc)
{
    struct hv_error e = {0};
    *svc = (struct service){.magic = SERVICE_MAGIC};
    snprintf(svc->paths.state, sizeof(svc->paths.state), "%s/state", folder);
    snprintf(svc->paths.run, sizeof(svc->paths.run), "%s/run", folder);
    mkdir(svc->paths.state, 0700);
    mkdir(svc->paths.run, 0700);
    assert_int_equal(registry_load(svc, &e), 0);
}

static struct svc_vm *create(struct service *svc, const char *name, uint64_t startup, struct hv_error *e)
{
    struct settings s;
    struct svc_vm *vm = NULL;
    settings_init(&s);
    s.memory.startup = startup;
    s.memory.min = MIN(s.memory.min, startup);
    int r = registry_create(svc, name, &s, false, geteuid(), false, &vm, e);
    settings_fini(&s);
    return r < 0 ? NULL : vm;
}

static unsigned files(const struct service *svc)
{
    char path[300];
    unsigned n = 0;
    snprintf(path, sizeof(path), "%s/vms", svc->paths.state);
    DIR *d = opendir(path);
    for (struct dirent *de; (de = readdir(d));)
        n += strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0;
    closedir(d);
    return n;
}

/* What the next service finds: a VM's startup memory, 0 if it is not there. */
static uint64_t after_restart(const char *name)
{
    struct service svc;
    load(&svc);
    const struct svc_vm *vm = registry_find(&svc, name);
    uint64_t v = vm ? vm->settings.memory.startup : 0;
    registry_free(&svc);
    return v;
}

enum change { CREATE, SET, EXTRAS, HOST, CHANGES };

#define EXTRA "[{\"class\":\"Msvm_X\",\"device\":\"\\\\d\",\"properties\":[{\"name\":\"P\",\"type\":\"string\",\"array\":false," \
              "\"values\":[\"v\"]}]}]"

static bool has_extra(struct svc_vm *vm)
{
    struct hv_error e = {0};
    json_t *x = NULL;
    assert_int_equal(registry_extras(vm, &x, &e), 0);
    bool has = json_array_size(x) == 1;
    json_decref(x);
    return has;
}

static int change_host(struct service *svc, struct hv_error *e)
{
    bool changed;
    json_t *o = json_pack("{s:I}", "vm_memory", (json_int_t)GIB);
    int r = host_settings_change(svc, o, &changed, e);
    json_decref(o);
    return r;
}

static int change(struct service *svc, enum change what, struct hv_error *e)
{
    if (what == CREATE)
        return create(svc, "fresh", 64 * MIB, e) ? 0 : -EIO;
    if (what == HOST)
        return change_host(svc, e);
    struct settings s;
    settings_init(&s);
    struct svc_vm *vm = registry_find(svc, "web1");
    assert_int_equal(settings_copy(&s, &vm->settings), 0);
    s.memory.startup = 512 * MIB;
    json_t *extras = what == EXTRAS ? json_loads(EXTRA, 0, NULL) : NULL, *none = json_array();
    int r = what == EXTRAS ? registry_change_all(vm, &s, extras, none, e) : registry_change(vm, &s, e);
    json_decref(extras);
    json_decref(none);
    settings_fini(&s);
    return r;
}

static void one_fault(enum fault_kind kind, unsigned nth, int err, enum change what, unsigned *hits)
{
    struct service svc;
    load(&svc);
    struct hv_error e = {0};
    assert_non_null(create(&svc, "web1", 256 * MIB, &e));
    assert_non_null(create(&svc, "web2", 128 * MIB, &e));
    fault_arm(kind, nth, err);
    int r = change(&svc, what, &e);
    const bool hit = fault_calls(kind) >= nth;
    fault_arm(kind, 0, 0);
    if (hit)
        ++*hits;
    if (!hit || r == 0) {
        assert_int_equal(r, 0);
        assert_false(hit && kind != FAULT_ALLOC);          /* a failed write that nobody noticed */
    } else {
        assert_true(hv_error_is_set(&e));
        if (kind != FAULT_ALLOC && !strstr(e.message, strerror(err)))
            fail_msg("'%s' does not say '%s'", e.message, strerror(err));
        if (kind != FAULT_ALLOC && !strstr(e.message, "cannot store"))
            fail_msg("'%s' does not say what was not done", e.message);
        if (err == ENOSPC)
            assert_int_equal(e.code, HV_NO_RESOURCES);
    }
    /* In memory, and what the next service makes of the disk, are the same, and whole. */
    const bool set = what == SET || what == EXTRAS;
    const uint64_t web1 = set && r == 0 ? 512 * MIB : 256 * MIB, fresh = what == CREATE && r == 0 ? 64 * MIB : 0;
    assert_int_equal(registry_find(&svc, "web1")->settings.memory.startup, web1);
    assert_int_equal(registry_find(&svc, "fresh") != NULL, fresh != 0);
    assert_int_equal(files(&svc), 2u + (fresh != 0));
    assert_int_equal(after_restart("web1"), web1);
    assert_int_equal(after_restart("web2"), 128 * MIB);
    assert_int_equal(after_restart("fresh"), fresh);
    assert_int_equal(has_extra(registry_find(&svc, "web1")), what == EXTRAS && r == 0);
    struct service next = {.magic = SERVICE_MAGIC};
    hv_strlcpy(next.paths.state, svc.paths.state, sizeof(next.paths.state));
    host_settings_load(&next);
    assert_int_equal(next.host.vm_memory, what == HOST && r == 0 ? GIB : 0);
    assert_int_equal(svc.host.vm_memory, next.host.vm_memory);
    char host[400];
    snprintf(host, sizeof(host), "%s/host.json", svc.paths.state);
    /* And it works again once the disk does. */
    if (r < 0)
        assert_int_equal(change(&svc, what, &e), 0);
    while (svc.vms)
        assert_int_equal(registry_remove(svc.vms, &e), 0);
    assert_int_equal(files(&svc), 0);
    unlink(host);
    registry_free(&svc);
}

static void every_fault(enum fault_kind kind)
{
    static const int errors[] = {EIO, ENOSPC};
    unsigned hits = 0;
    for (enum change what = CREATE; what < CHANGES; what++)
        for (unsigned k = 0; k < ARRAY_SIZE(errors); k++)
            for (unsigned nth = 1; nth <= ROUNDS; nth++)
                one_fault(kind, nth, errors[k], what, &hits);
    assert_true(hits >= CHANGES * ARRAY_SIZE(errors));     /* the faults were met at all */
}

static void every_write(void **state) { every_fault(FAULT_WRITE); }
static void every_sync(void **state) { every_fault(FAULT_SYNC); }
static void every_open(void **state) { every_fault(FAULT_OPEN); }
static void every_rename(void **state) { every_fault(FAULT_RENAME); }
static void every_allocation(void **state) { every_fault(FAULT_ALLOC); }

static void a_file_cut_short_is_kept_and_said(void **state)
{
    struct service svc;
    load(&svc);
    struct hv_error e = {0};
    char id[GUID_TEXT_SIZE], path[400];
    struct svc_vm *vm = create(&svc, "web1", 256 * MIB, &e);
    assert_non_null(create(&svc, "web2", 128 * MIB, &e));
    snprintf(path, sizeof(path), "%s/vms/%s.xml", svc.paths.state, guid_format(&vm->id, id));
    assert_int_equal(truncate(path, 100), 0);
    registry_free(&svc);
    struct service next;
    load(&next);
    assert_null(registry_find(&next, "web1"));
    assert_non_null(registry_find(&next, "web2"));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 100);
    assert_int_equal(registry_remove(registry_find(&next, "web2"), &e), 0);
    registry_free(&next);
    assert_int_equal(unlink(path), 0);
}

static void what_a_killed_service_was_writing_is_cleared_away(void **state)
{
    struct service svc;
    load(&svc);
    struct hv_error e = {0};
    char path[400];
    assert_non_null(create(&svc, "web1", 256 * MIB, &e));
    snprintf(path, sizeof(path), "%s/vms/.00000000-0000-4000-8000-000000000000.xml.aBcDeF", svc.paths.state);
    assert_int_equal(hv_replace_file(path, "<CIM", 4, 0600), 0);
    assert_int_equal(after_restart("web1"), 256 * MIB);
    assert_int_equal(files(&svc), 1);
    assert_int_equal(registry_remove(svc.vms, &e), 0);
}

/* Somebody's mistake in the folder of the service: it must not wait for who writes to a pipe. */
static void pipes_in_place_of_files_are_not_waited_for(void **state)
{
    static const char *const names[] = {"vms/00000000-0000-4000-8000-000000000001.xml", "groups.json", "host.json",
                                        "metering.json", "events.jsonl", "jobs.jsonl"};
    char path[400];
    struct service svc;
    struct hv_error e = {0};
    load(&svc);
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", svc.paths.state, names[i]);
        assert_int_equal(mkfifo(path, 0600), 0);
    }
    registry_free(&svc);
    alarm(60);
    load(&svc);
    (void)groups_load(&svc, &e);
    host_settings_load(&svc);
    metering_load(&svc);
    assert_int_equal(events_new(&svc), 0);
    event_add(&svc, "config", NULL, "info", -1, NULL, NULL, "said to nobody");
    assert_int_equal(jobs_load(&svc), 0);
    alarm(0);
    assert_null(svc.vms);
    jobs_free(&svc);
    events_free(&svc);
    groups_free(&svc);
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", svc.paths.state, names[i]);
        unlink(path);
    }
    registry_free(&svc);
}

static void a_file_of_settings_that_is_no_json_is_said(void **state)
{
    struct service svc;
    char path[400], log[400];
    load(&svc);
    snprintf(path, sizeof(path), "%s/host.json", svc.paths.state);
    snprintf(log, sizeof(log), "%s/log", folder);
    assert_int_equal(hv_replace_file(path, "{\"vm_mem", 8, 0600), 0);
    fflush(stderr);
    const int kept = dup(2), fd = open(log, O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(fd, 2);
    host_settings_load(&svc);
    fflush(stderr);
    dup2(kept, 2);
    close(kept);
    close(fd);
    char *text = NULL;
    assert_int_equal(hv_read_file(log, 4096, &text, NULL), 0);
    assert_non_null(strstr(text, "host.json: it is no JSON: defaults are taken"));
    free(text);
    unlink(path);
    unlink(log);
    registry_free(&svc);
}

static void transient_machines_outlive_the_service_apart(void **state)
{
    struct service svc;
    load(&svc);
    struct hv_error e = {0};
    struct settings s;
    struct svc_vm *vm = NULL;
    settings_init(&s);
    assert_int_equal(registry_create(&svc, "brief", &s, true, geteuid(), false, &vm, &e), 0);
    settings_fini(&s);
    assert_int_equal(files(&svc), 0);
    registry_free(&svc);
    struct service next;
    load(&next);
    vm = registry_find(&next, "brief");
    assert_non_null(vm);
    assert_true(vm->transient);
    assert_int_equal(registry_remove(vm, &e), 0);
    assert_int_equal(after_restart("brief"), 0);
}

/* ---- journals ---- */

struct numbers { unsigned n; json_int_t seq[600]; };

static void take(void *arg, json_t *line)
{
    struct numbers *t = arg;
    t->seq[t->n++ % ARRAY_SIZE(t->seq)] = json_integer_value(json_object_get(line, "seq"));
}

static void add(struct journal *j, unsigned seq, const char *text)
{
    json_t *o = json_pack("{s:i s:s}", "seq", (int)seq, "text", text);
    journal_add(j, o);
    json_decref(o);
}

static void a_journal_loses_only_the_line_that_failed(void **state)
{
    char path[100];
    snprintf(path, sizeof(path), "%s/j.jsonl", folder);
    for (unsigned nth = 1; nth <= 12; nth++) {
        struct journal j;
        struct numbers got = {0};
        unlink(path);
        assert_int_equal(journal_init(&j, path), 0);
        fault_arm(FAULT_WRITE, nth, ENOSPC);
        for (unsigned i = 1; i <= 10; i++)
            add(&j, i, "x");
        fault_arm(FAULT_WRITE, 0, 0);
        journal_read(&j, take, &got);
        assert_int_equal(got.n, nth <= 10 ? 9 : 10);
        for (unsigned i = 0; i < got.n; i++)
            assert_int_equal(got.seq[i], i + 1 + (nth <= 10 && i + 1 >= nth));
        journal_fini(&j);
    }
    unlink(path);
}

static void a_journal_goes_on_after_a_line_cut_short(void **state)
{
    char path[100];
    struct journal j;
    struct numbers got = {0};
    snprintf(path, sizeof(path), "%s/j.jsonl", folder);
    assert_int_equal(hv_replace_file(path, "{\"seq\":1}\n{\"seq\":2,\"te", 22, 0600), 0);
    assert_int_equal(journal_init(&j, path), 0);
    add(&j, 3, "x");
    journal_read(&j, take, &got);
    assert_int_equal(got.n, 2);
    assert_int_equal(got.seq[0], 1);
    assert_int_equal(got.seq[1], 3);
    journal_fini(&j);
    unlink(path);
}

static void a_journal_is_put_aside_and_read_in_order(void **state)
{
    char path[100], old[104], text[20001];
    struct journal j;
    struct stat st;
    struct numbers got = {0};
    snprintf(path, sizeof(path), "%s/j.jsonl", folder);
    snprintf(old, sizeof(old), "%s.1", path);
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    assert_int_equal(journal_init(&j, path), 0);
    for (unsigned i = 1; i <= 500; i++)           /* ten million bytes */
        add(&j, i, text);
    assert_int_equal(stat(path, &st), 0);
    assert_true((uint64_t)st.st_size <= JOURNAL_MAX + sizeof(text) + 100);
    assert_int_equal(stat(old, &st), 0);
    assert_true((uint64_t)st.st_size <= JOURNAL_MAX + sizeof(text) + 100);
    journal_read(&j, take, &got);
    assert_true(got.n > 100 && got.n < 250);
    for (unsigned i = 1; i < got.n; i++)
        assert_int_equal(got.seq[i], got.seq[i - 1] + 1);
    assert_int_equal(got.seq[got.n - 1], 500);
    journal_fini(&j);
    unlink(path);
    unlink(old);
}

int main(void)
{
#define T(f) cmocka_unit_test(f)
    const struct CMUnitTest tests[] = {
        T(every_write), T(every_sync), T(every_open), T(every_rename), T(every_allocation),
        T(a_file_cut_short_is_kept_and_said), T(what_a_killed_service_was_writing_is_cleared_away),
        T(pipes_in_place_of_files_are_not_waited_for), T(a_file_of_settings_that_is_no_json_is_said),
        T(transient_machines_outlive_the_service_apart), T(a_journal_loses_only_the_line_that_failed),
        T(a_journal_goes_on_after_a_line_cut_short), T(a_journal_is_put_aside_and_read_in_order),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
