/* The noun integration: which services of the host a guest may use. */
#include <errno.h>
#include <stdio.h>

#include "hvctl/hvctl.h"

#define SERVICES "heartbeat|shutdown|time-sync|kvp|vss|file-copy"

static const char *const services[] = {"heartbeat", "shutdown", "time-sync", "kvp", "vss", "file-copy"};

/* The setting of a service: "services.time_sync". */
static void setting_of(const char *service, char *buf, size_t size)
{
    snprintf(buf, size, "services.%s", service);
    for (char *p = buf; *p; p++) {
        if (*p == '-') {
            *p = '_';
        }
    }
}

static const json_t *reported(const json_t *vm, const char *service)
{
    const json_t *list = cli_json_path(vm, "runtime.integration.services");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *s = json_array_get(list, i);
        const char *word = json_string_value(json_object_get(s, "service"));
        if (word && strcmp(word, service) == 0) {
            return s;
        }
    }
    return NULL;
}

/* How it is, in a word; NULL: the VM does not run. */
static const char *status_of(const json_t *vm, const char *service, const json_t *s, bool enabled)
{
    const char *heart = json_string_value(cli_json_path(vm, "runtime.integration.heartbeat"));
    if (!s) {
        return NULL;
    }
    if (!enabled) {
        return "off";
    }
    if (strcmp(service, "heartbeat") == 0) {
        return heart;
    }
    if (json_is_true(json_object_get(s, "stalled"))) {
        return "hangs";
    }
    if (json_is_true(json_object_get(s, "ready"))) {
        return "ok";
    }
    return json_is_true(json_object_get(s, "open")) && strcmp(service, "kvp") == 0 ? "no-daemon" : "no-contact";
}

static json_t *rows_of(const json_t *vm)
{
    json_t *rows = json_array();
    char key[40];
    for (unsigned i = 0; i < ARRAY_SIZE(services); i++) {
        setting_of(services[i], key, sizeof(key));
        const json_t *s = reported(vm, services[i]);
        bool enabled = json_is_true(cli_json_path(json_object_get(vm, "settings"), key));
        json_array_append_new(rows, json_pack("{s:O s:s s:b s:s? s:O?}", "vm", json_object_get(vm, "name"), "service", services[i],
                                              "enabled", enabled, "status", status_of(vm, services[i], s, enabled), "version",
                                              json_object_get(s, "version")));
    }
    return rows;
}

static const struct cli_column cols[] = {
    {"vm", .cut = true, .help = "whose it is"},
    {"service", .help = "its name"},
    {"enabled", .unit = CLI_UNIT_SWITCH, .help = "is it offered to the guest"},
    {"status", .help = "ok; no-contact: the guest's driver does not listen; no-daemon; hangs: its daemon does; lost: no heartbeat "
                       "any more; off"},
    {"version", .help = "of the protocol, agreed with the guest"},
    {0},
};
static const struct cli_columns table = {.col = cols, .defaults = "service,enabled,status,version", .name = "service"};

static int sample(struct cli_call *c, void *arg, json_t **ret, struct hv_error *e)
{
    struct conn *k;
    json_t *vm;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = fetch_vm(k, c->args[0], &vm, e);
    conn_close(k);
    if (r == 0) {
        *ret = rows_of(vm);
        json_decref(vm);
    }
    return r;
}

static int print(struct cli_call *c, const json_t *vm, struct hv_error *e)
{
    struct cli_printer p;
    int r = cli_printer_init(&p, c, &table, CLI_FMT_TABLE, e);
    if (r == 0) {
        json_t *rows = rows_of(vm);
        cli_print_rows(&p, rows, false);
        json_decref(rows);
    }
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

static int list(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    int r = cli_printer_init(&p, c, &table, CLI_FMT_TABLE, e);
    if (r == 0) {
        r = watch_rows(c, &p, sample, NULL, false, e);
    }
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

static int change(struct cli_call *c, bool on, struct hv_error *e)
{
    const char *name = c->args[0], *service = c->args[1];
    json_t *reply, *settings = json_object();
    struct conn *k;
    char key[40];
    setting_of(service, key, sizeof(key));
    cli_json_set_path(settings, key, json_boolean(on));
    int r = conn_open(c, &k, e);
    if (r < 0) {
        json_decref(settings);
        return r;
    }
    r = conn_call(k, "Set", json_pack("{s:s s:o s:b}", "name", name, "settings", settings, "dry_run", c->dry_run), 0, &reply, e);
    conn_close(k);
    if (r < 0) {
        return r;
    }
    bool changed = json_array_size(json_object_get(reply, "changes")) > 0;
    cli_note(c, changed ? c->dry_run ? "%s: %s would be %s" : "%s: %s %s" : "%s: %s is %s already", name, service,
             on ? "enabled" : "disabled");
    if (c->format != CLI_FMT_DEFAULT) {
        r = print(c, json_object_get(reply, "vm"), e);
    }
    json_decref(reply);
    return r;
}

static int enable(struct cli_call *c, struct hv_error *e)
{
    return change(c, true, e);
}

static int disable(struct cli_call *c, struct hv_error *e)
{
    return change(c, false, e);
}

static const struct cli_arg one_vm[] = {{"VM", CLI_VM, .help = "its name or GUID"}, {0}};
static const struct cli_arg vm_service[] = {
    {"VM", CLI_VM, .help = "its name or GUID"}, {"SERVICE", CLI_ENUM, .values = SERVICES, .help = SERVICES}, {0}};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command integration_commands[] = {
    {.noun = "integration", .verb = "list", .help = "list the integration services of a virtual machine", .args = one_vm,
     .use = CLI_USE_LIST | CLI_USE_WATCH, .columns = &table, .codes = CODE(NOT_FOUND), .run = list,
     .examples = EXAMPLES({"hvctl integration list web1", "what its guest answers to"},
                          {"hvctl integration list web1 --watch", "while it boots"})},
    {.noun = "integration", .verb = "enable", .help = "offer a service to the guest, at once where it runs", .args = vm_service,
     .use = CLI_USE_DRY, .columns = &table, .codes = CODE(NOT_FOUND), .run = enable,
     .examples = EXAMPLES({"hvctl integration enable web1 file-copy", "for hvctl guest copy"})},
    {.noun = "integration", .verb = "disable", .help = "take a service away, at once where the guest runs", .args = vm_service,
     .use = CLI_USE_DRY, .columns = &table, .codes = CODE(NOT_FOUND), .run = disable,
     .examples = EXAMPLES({"hvctl integration disable web1 time-sync", "the guest runs a time server of its own"})},
    {0},
};
