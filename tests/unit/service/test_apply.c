/*
 * Documents of many VMs, applied by a service on a thread of its own: others are served meanwhile, what they
 * change meanwhile is neither lost nor overlooked, and a disk that fails at any point leaves nothing half done.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/base/fault.h"
#include "hv/rpc/loop_uv.h"
#include "hv/service/service.h"
#include "tests/unit/service/tree.h"

#define MANY 1000u
#define ANSWER_NS (120 * NS_PER_SEC)   /* a disk may be slow; nothing is measured by it */

static struct service svc;
static pthread_t thread;
static int raw;                        /* Apply goes this way: nobody waits for its answer */
static struct varlink_client *client;

void service_ready(struct service *s) { (void)s; }

static void *serve(void *arg)
{
    loop_uv_run(svc.loop);
    return NULL;
}

static int start(void **state)
{
    static const struct varlink_interface iface = {.text = org_hv_Manager_varlink, .methods = manager_methods, .arg = &svc};
    static const struct varlink_interface *const ifaces[] = {&iface};
    struct hv_error e = {0};
    int a[2], b[2];
    assert_int_equal(make_top(state), 0);
    svc = (struct service){.magic = SERVICE_MAGIC, .serving = true};
    snprintf(svc.paths.state, sizeof(svc.paths.state), "%s/state", top);
    snprintf(svc.paths.run, sizeof(svc.paths.run), "%s/run", top);
    mkdir(svc.paths.state, 0700);
    mkdir(svc.paths.run, 0700);
    assert_int_equal(loop_uv_new(&svc.loop), 0);
    assert_int_equal(registry_load(&svc, &e), 0);
    assert_int_equal(groups_load(&svc, &e), 0);
    assert_int_equal(varlink_server_new(svc.loop, "hvd", ifaces, 1, &svc.server), 0);
    varlink_server_large_messages(svc.server);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
    raw = a[0];
    assert_int_equal(varlink_server_add(svc.server, a[1]), 0);
    assert_int_equal(varlink_server_add(svc.server, b[1]), 0);
    assert_int_equal(varlink_client_new(b[0], b[0], &client), 0);
    return pthread_create(&thread, NULL, serve, NULL);
}

static int stop(void **state)
{
    loop_uv_stop(svc.loop);
    pthread_join(thread, NULL);
    varlink_client_free(client);
    close(raw);
    varlink_server_free(svc.server);
    applies_free(&svc);
    registry_free(&svc);
    groups_free(&svc);
    loop_uv_free(svc.loop);
    return drop_top(state);
}

/* ---- documents ---- */

/* VMs vm-FROM to vm-(TO-1), with these notes. */
static json_t *document(unsigned from, unsigned to, const char *notes)
{
    json_t *vms = json_array();
    for (unsigned i = from; i < to; i++) {
        char name[16];
        snprintf(name, sizeof(name), "vm-%04u", i);
        json_array_append_new(vms, json_pack("{s:s s:{s:s}}", "name", name, "settings", "notes", notes));
    }
    return json_pack("{s:o}", "vms", vms);
}

/* Takes doc. */
static void send_apply(json_t *doc)
{
    json_t *call = json_pack("{s:s s:{s:o}}", "method", "org.hv.Manager.Apply", "parameters", "objects", doc);
    char *text = json_dumps(call, JSON_COMPACT);
    for (size_t len = strlen(text) + 1, at = 0; at < len;) {
        ssize_t n = send(raw, text + at, len - at, MSG_NOSIGNAL);       /* no hv_write_all(): that one may be told to fail */
        assert_true(n > 0);
        at += (size_t)n;
    }
    free(text);
    json_decref(call);
}

/* New: {parameters: ...} or {error: ..., parameters: ...}. */
static json_t *answer(void)
{
    size_t cap = 1u << 22, len = 0;
    char *text = malloc(cap);
    do {
        ssize_t n = read(raw, text + len, cap - len);
        assert_true(n > 0);
        len += (size_t)n;
    } while (text[len - 1] != 0 && len < cap);
    json_t *j = json_loads(text, 0, NULL);
    free(text);
    assert_non_null(j);
    return j;
}

static const char *result_of(const json_t *reply, unsigned at)
{
    const json_t *objects = json_object_get(json_object_get(reply, "parameters"), "objects");
    return json_string_value(json_object_get(json_array_get(objects, at), "result"));
}

static void no_error(const json_t *reply)
{
    const json_t *p = json_object_get(reply, "parameters");
    if (json_object_get(reply, "error") || json_array_size(json_object_get(p, "errors")) > 0) {
        char *text = json_dumps(p, 0);
        fail_msg("%s", text);
    }
}

static void apply(json_t *doc)
{
    send_apply(doc);
    json_t *reply = answer();
    no_error(reply);
    json_decref(reply);
}

/* New, or NULL with e. Takes params. */
static json_t *ask(const char *method, json_t *params, struct hv_error *e)
{
    char full[64];
    json_t *reply = NULL;
    snprintf(full, sizeof(full), "org.hv.Manager.%s", method);
    *e = (struct hv_error){0};
    return varlink_call(client, full, params, ANSWER_NS, &reply, e) < 0 ? NULL : reply;
}

/* While the loop has nothing to do. */
static const struct svc_vm *find(const char *name) { return registry_find(&svc, name); }

static unsigned vms(void)
{
    unsigned n = 0;
    for (const struct svc_vm *vm = svc.vms; vm; vm = vm->next)
        n++;
    return n;
}

/* All there is in the folder of documents, whatever it is called. */
static unsigned files(void)
{
    char path[300];
    unsigned n = 0;
    snprintf(path, sizeof(path), "%s/vms", svc.paths.state);
    DIR *d = opendir(path);
    for (struct dirent *de; (de = readdir(d));)
        n += strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0;
    closedir(d);
    return n;
}

/* ---- tests ---- */

static void others_are_served_while_many_are_applied(void **state)
{
    unsigned before = 0;
    struct hv_error e;
    send_apply(document(0, MANY, "new"));
    for (;;) {
        json_t *reply = ask("Export", json_pack("{s:s}", "name", "vm-0999"), &e);
        json_decref(reply);
        if (reply)
            break;
        assert_int_equal(e.code, HV_NOT_FOUND);
        before++;
    }
    json_t *reply = answer();
    assert_string_equal(result_of(reply, MANY - 1), "created");
    json_decref(reply);
    /* One or two come before the document does, whatever happens then. */
    if (before < 3)
        fail_msg("only %u requests were served while %u VMs were applied", before, MANY);
    assert_int_equal(vms(), MANY);
    assert_int_equal(files(), MANY);
}

/* Of the first and the last VMs of the document: planned and written already, and not yet. */
static void what_others_change_meanwhile_stays(void **state)
{
    static const unsigned changed[] = {0, MANY - 1}, gone[] = {1, MANY - 2};
    struct hv_error e;
    char name[16];
    unsigned again = 0;
    apply(document(0, MANY, "old"));
    send_apply(document(0, MANY, "new"));
    for (unsigned i = 0; i < ARRAY_SIZE(changed); i++) {
        snprintf(name, sizeof(name), "vm-%04u", changed[i]);
        json_decref(ask("Set", json_pack("{s:s s:{s:{s:I}}}", "name", name, "settings", "memory", "startup",
                                         (json_int_t)(512 * MIB)), &e));
        assert_false(hv_error_is_set(&e));
        snprintf(name, sizeof(name), "vm-%04u", gone[i]);
        json_decref(ask("Remove", json_pack("{s:s}", "name", name), &e));
        assert_false(hv_error_is_set(&e));
    }
    json_t *reply = answer();
    no_error(reply);
    for (unsigned i = 0; i < ARRAY_SIZE(changed); i++) {
        /* Both changes of one VM, whichever came first. */
        snprintf(name, sizeof(name), "vm-%04u", changed[i]);
        assert_int_equal(find(name)->settings.memory.startup, 512 * MIB);
        assert_string_equal(find(name)->settings.notes, "new");
        assert_string_equal(result_of(reply, changed[i]), "changed");
        /* Removed before, and made again; or changed, and removed then. */
        snprintf(name, sizeof(name), "vm-%04u", gone[i]);
        const bool made = strcmp(result_of(reply, gone[i]), "created") == 0;
        assert_int_equal(find(name) != NULL, made);
        again += made;
    }
    assert_int_equal(vms(), MANY - 2 + again);
    assert_int_equal(files(), MANY - 2 + again);
    json_decref(reply);
}

/* The document wants new VMs; meanwhile somebody makes some of their names. */
static void a_name_that_is_taken_meanwhile(void **state)
{
    static const unsigned taken[] = {0, MANY - 1};
    bool created[ARRAY_SIZE(taken)];
    struct hv_error e;
    char name[16];
    send_apply(document(0, MANY, "new"));
    for (unsigned i = 0; i < ARRAY_SIZE(taken); i++) {
        snprintf(name, sizeof(name), "vm-%04u", taken[i]);
        json_t *r = ask("Create", json_pack("{s:s s:{s:s}}", "name", name, "settings", "notes", "mine"), &e);
        created[i] = r != NULL;
        assert_true(r || e.code == HV_CONFLICT);
        json_decref(r);
    }
    json_t *reply = answer();
    no_error(reply);
    for (unsigned i = 0; i < ARRAY_SIZE(taken); i++) {
        /* Made and then changed by the document; or made by the document, and refused. */
        assert_string_equal(result_of(reply, taken[i]), created[i] ? "changed" : "created");
        snprintf(name, sizeof(name), "vm-%04u", taken[i]);
        assert_string_equal(find(name)->settings.notes, "new");
    }
    assert_int_equal(vms(), MANY);
    assert_int_equal(files(), MANY);
    json_decref(reply);
}

static void a_disk_that_fails_at_any_point_changes_nothing(void **state)
{
    static const enum fault_kind kinds[] = {FAULT_OPEN, FAULT_WRITE, FAULT_SYNC, FAULT_RENAME};
    unsigned hits = 0;
    apply(document(0, 5, "old"));
    for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
        for (unsigned nth = 1; nth < 14; nth++) {
            fault_arm(kinds[k], nth, ENOSPC);
            send_apply(document(0, 10, "new"));
            json_t *reply = answer();
            const bool hit = fault_calls(kinds[k]) >= nth;
            fault_arm(kinds[k], 0, 0);
            const bool failed = json_object_get(reply, "error") != NULL;
            if (hit && !failed && kinds[k] != FAULT_OPEN)
                fail_msg("kind %d, call %u failed and nobody was told", (int)kinds[k], nth);
            if (failed) {
                hits++;
                const char *why = json_string_value(json_object_get(json_object_get(reply, "parameters"), "message"));
                assert_non_null(why);
                assert_non_null(strstr(why, "cannot store"));
                assert_non_null(strstr(why, strerror(ENOSPC)));
            }
            json_decref(reply);
            if (vms() != (failed ? 5 : 10) || files() != vms())
                fail_msg("kind %d, call %u, %s: %u VMs, %u files", (int)kinds[k], nth, failed ? "refused" : "done", vms(), files());
            for (struct svc_vm *vm = svc.vms; vm; vm = vm->next) {
                char *xml = NULL;
                struct hv_error e = {0};
                assert_string_equal(vm->settings.notes, failed ? "old" : "new");
                assert_int_equal(registry_xml(vm, &xml, NULL, &e), 0);
                free(xml);
            }
            if (failed)
                continue;
            while (svc.vms) {
                struct hv_error e = {0};
                assert_int_equal(registry_remove(svc.vms, &e), 0);
            }
            apply(document(0, 5, "old"));
        }
    assert_true(hits > 30);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        T(others_are_served_while_many_are_applied), T(what_others_change_meanwhile_stays), T(a_name_that_is_taken_meanwhile),
        T(a_disk_that_fails_at_any_point_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
