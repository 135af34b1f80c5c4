/* The noun guest: what the guest tells, key-values, files for it, freeze and thaw. */
#include <errno.h>
#include <stdio.h>

#include "hv/base/units.h"
#include "hv/client/hosts.h"
#include "hvctl/hvctl.h"

#define FREEZE_NS (60 * NS_PER_SEC)

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* The service keeps waiting while a guest boots: only --timeout ends that. */
static int ask(struct cli_call *c, struct conn *k, const char *method, json_t *params, json_t **ret, struct hv_error *e)
{
    int r = conn_call(k, method, params, 0, ret, e);
    if (r < 0 && e->code == HV_TIMEOUT && !e->object[0]) {
        hv_fail(e, HV_TIMEOUT, c->args[0], "no answer from the guest in time");
    }
    return r;
}

static int fetch_items(struct cli_call *c, struct conn *k, const char *name, json_t **ret, struct hv_error *e)
{
    json_t *reply;
    int r = ask(c, k, "GuestItems", json_pack("{s:s}", "name", name), &reply, e);
    if (r == 0) {
        *ret = json_incref(json_object_get(reply, "items"));
        json_decref(reply);
    }
    return r;
}

/* ---- show ---- */

static const struct { const char *item, *key; } facts[] = {
    {"FullyQualifiedDomainName", "host_name"}, {"OSName", "os"}, {"OSMajorVersion", "os_version"}, {"OSBuildNumber", "os_kernel"},
    {"ProcessorArchitecture", "architecture"},
};

static void add_addresses(json_t *list, const char *value)
{
    while (*value) {
        size_t n = strcspn(value, ";");
        if (n) {
            json_array_append_new(list, json_stringn(value, n));
        }
        value += n + (value[n] == ';');
    }
}

/* Facts under their own keys; the other items in a list. */
static json_t *guest_view(const json_t *vm, const json_t *items)
{
    const json_t *i = cli_json_path(vm, "runtime.integration");
    json_t *o = json_pack("{s:O s:O s:O s:O s:O}", "name", json_object_get(vm, "name"), "id", json_object_get(vm, "id"), "state",
                          json_object_get(vm, "state"), "heartbeat", json_object_get(i, "heartbeat"), "frozen",
                          json_object_get(i, "frozen"));
    json_t *addresses = json_array(), *others = json_array();
    for (unsigned k = 0; k < ARRAY_SIZE(facts); k++) {
        json_object_set_new(o, facts[k].key, json_null());
    }
    for (int family = 4; family <= 6; family += 2) {            /* IPv4 first */
        for (size_t n = 0; n < json_array_size(items); n++) {
            const json_t *item = json_array_get(items, n);
            if (strcmp(text(item, "key"), family == 4 ? "NetworkAddressIPv4" : "NetworkAddressIPv6") == 0) {
                add_addresses(addresses, text(item, "value"));
            }
        }
    }
    for (size_t n = 0; n < json_array_size(items); n++) {
        json_t *item = json_array_get(items, n);
        bool known = strncmp(text(item, "key"), "NetworkAddress", 14) == 0;
        for (unsigned k = 0; k < ARRAY_SIZE(facts) && strcmp(text(item, "pool"), "auto") == 0; k++) {
            if (strcmp(text(item, "key"), facts[k].item) == 0) {
                const char *value = text(item, "value");
                /* What the daemon says where a guest's name cannot be resolved. */
                bool none = !value[0] || strncmp(value, "getaddrinfo failed", 18) == 0;
                json_object_set(o, facts[k].key, none ? json_null() : json_object_get(item, "value"));
                known = true;
            }
        }
        if (!known) {
            json_array_append(others, item);
        }
    }
    json_object_set_new(o, "addresses", addresses);
    json_object_set_new(o, "items", others);
    return o;
}

static const char *join_addresses(const json_t *row, const json_t *v, char *buf, size_t size)
{
    size_t at = 0;
    if (!json_array_size(v)) {
        return "-";
    }
    for (size_t i = 0; i < json_array_size(v) && at < size; i++) {
        const char *a = json_string_value(json_array_get(v, i));
        int n = snprintf(buf + at, size - at, "%s%s", i ? " " : "", a ? a : "");
        at += n > 0 ? (size_t)n : 0;
    }
    return buf;
}

static const char *count_items(const json_t *row, const json_t *v, char *buf, size_t size)
{
    snprintf(buf, size, "%zu", json_array_size(v));
    return buf;
}

static const struct cli_column guest_cols[] = {
    {"name", .cut = true, .help = "the VM"},
    {"id", .help = "its GUID"},
    {"state", .help = "off starting running paused stopping"},
    {"heartbeat", .help = "ok, lost or no-contact"},
    {"frozen", .unit = CLI_UNIT_SWITCH, .help = "do its file systems take no writes"},
    {"host_name", .cut = true, .help = "the guest's name for itself"},
    {"os", .help = "its operating system"},
    {"os_version", .help = "and its version"},
    {"os_kernel", .help = "the kernel it runs"},
    {"architecture", .help = "its processors"},
    {"addresses", .cut = true, .show = join_addresses, .help = "its network addresses"},
    {"items", .show = count_items, .help = "how many key-values there are beside; hvctl guest kvp get VM lists them"},
    {0},
};
static const struct cli_columns guest_table = {
    .col = guest_cols, .defaults = "name,state,heartbeat,host_name,os,os_version,addresses",
};

static int show(struct cli_call *c, struct hv_error *e)
{
    struct conn *k;
    json_t *vm = NULL, *items = NULL;
    struct cli_printer p;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = fetch_items(c, k, c->args[0], &items, e);
    if (r == 0) {
        r = fetch_vm(k, c->args[0], &vm, e);
    }
    conn_close(k);
    if (r == 0) {
        r = cli_printer_init(&p, c, &guest_table, CLI_FMT_LIST, e);
        if (r == 0) {
            json_t *rows = json_pack("[o]", guest_view(vm, items));
            cli_print_rows(&p, rows, true);
            json_decref(rows);
        }
        cli_printer_fini(&p);
    }
    json_decref(vm);
    json_decref(items);
    return r < 0 ? r : 0;
}

/* ---- kvp ---- */

static const struct cli_column item_cols[] = {
    {"pool", .help = "who it is from: external (the host, for the guest), guest, auto (facts of the guest), host (facts of the host)"},
    {"key", .cut = true, .help = "its name"},
    {"value", .cut = true, .help = "what it says"},
    {0},
};
static const struct cli_columns item_table = {.col = item_cols, .defaults = "pool,key,value", .name = "key"};

static const json_t *find_item(const json_t *items, const char *key)
{
    /* The guest's own word first, then what it was told. */
    static const char *const pools[] = {"guest", "auto", "external", "host"};
    for (unsigned p = 0; p < ARRAY_SIZE(pools); p++) {
        for (size_t i = 0; i < json_array_size(items); i++) {
            const json_t *item = json_array_get(items, i);
            if (strcmp(text(item, "pool"), pools[p]) == 0 && strcmp(text(item, "key"), key) == 0) {
                return item;
            }
        }
    }
    return NULL;
}

static int print_items(struct cli_call *c, json_t *rows, bool one, struct hv_error *e)
{
    struct cli_printer p;
    int r = cli_printer_init(&p, c, &item_table, CLI_FMT_TABLE, e);
    if (r == 0) {
        cli_print_rows(&p, rows, one);
    }
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

/* Without a key all of them; with one its value alone, as it is asked for in scripts. */
static int kvp_get(struct cli_call *c, struct conn *k, struct hv_error *e)
{
    json_t *items;
    int r = fetch_items(c, k, c->args[1], &items, e);
    if (r < 0) {
        return r;
    }
    if (c->n_args < 3) {
        r = print_items(c, items, false, e);
        json_decref(items);
        return r;
    }
    const json_t *item = find_item(items, c->args[2]);
    if (!item) {
        struct cli_suggest s;
        char hint[200];
        cli_suggest_init(&s, c->args[2]);
        for (size_t i = 0; i < json_array_size(items); i++) {
            cli_suggest_add(&s, text(json_array_get(items, i), "key"));
        }
        r = hv_fail(e, HV_NOT_FOUND, c->args[2], "there is no such key in %s", c->args[1]);
        if (s.n) {
            hv_hint(e, "%s", cli_suggest_text(&s, "", hint, sizeof(hint)));
        }
    } else if (c->format == CLI_FMT_DEFAULT || c->format == CLI_FMT_TABLE) {
        strbuf_auto clean = {0};
        cli_clean(&clean, text(item, "value"), cli_ascii(c));
        fprintf(c->out, "%s\n", clean.len ? clean.buf : "");
    } else {
        json_t *rows = json_pack("[O]", item);
        r = print_items(c, rows, true, e);
        json_decref(rows);
    }
    json_decref(items);
    return r;
}

static int kvp_change(struct cli_call *c, struct conn *k, const char *value, struct hv_error *e)
{
    json_t *reply;
    int r = ask(c, k, "SetGuestItem", json_pack("{s:s s:s s:s?}", "name", c->args[1], "key", c->args[2], "value", value), &reply, e);
    if (r == 0) {
        json_decref(reply);
        cli_note(c, value ? "%s: %s = %s" : "%s: %s removed", c->args[1], c->args[2], value);
    }
    return r;
}

static int kvp(struct cli_call *c, struct hv_error *e)
{
    const char *what = c->args[0];
    const bool get = strcmp(what, "get") == 0, set = strcmp(what, "set") == 0;
    struct conn *k;
    if (!get && c->n_args < (set ? 4 : 3)) {
        hv_fail(e, HV_USAGE, NULL, "'guest kvp %s' needs %s", what, c->n_args < 3 ? "a key" : "a value");
        hv_hint(e, "hvctl guest kvp %s VM KEY%s", what, set ? " VALUE" : "");
        return -EINVAL;
    }
    if (!set && c->n_args > 3) {
        return hv_fail(e, HV_USAGE, c->args[3], "'guest kvp %s' takes no value", what);
    }
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = get ? kvp_get(c, k, e) : kvp_change(c, k, set ? c->args[3] : NULL, e);
    conn_close(k);
    return r;
}

/* ---- copy ---- */

static int copy(struct cli_call *c, struct hv_error *e)
{
    hv_autofree char *source = image_path(c->args[0]), *vm = hv_strdup(c->args[1]), *path = NULL;
    char *colon = vm ? strstr(vm, ":/") : NULL;
    struct conn *k;
    json_t *reply;
    if (!colon || colon == vm) {
        hv_fail(e, HV_USAGE, c->args[1], "it has to be VM:PATH, with an absolute path in the guest");
        hv_hint(e, "hvctl guest copy %s web1:/root/", c->args[0]);
        return -EINVAL;
    }
    if (client_host_is_remote(c->host)) {
        return hv_fail(e, HV_UNSUPPORTED, c->args[0], "the service reads the file, and it is on another host");
    }
    *colon = 0;
    const char *base = source ? strrchr(source, '/') : NULL, *to = colon + 1;
    /* A folder: under the same name. */
    path = hv_asprintf("%s%s", to, to[strlen(to) - 1] == '/' && base ? base + 1 : "");
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    uint64_t began = hv_now_ns();
    r = conn_call(k, "CopyFile", json_pack("{s:s s:s s:s s:b s:b}", "name", vm, "source", source, "path", path, "overwrite",
                                           cli_has(c, "overwrite"), "parents", cli_has(c, "parents")), 0, &reply, e);
    if (r == 0) {
        r = job_follow(c, k, reply, NULL, NULL, e);
        json_decref(reply);
    }
    conn_close(k);
    if (r == 0 && !c->no_wait) {
        cli_note(c, "%s: %s copied (%.1fs)", vm, path, (double)(hv_now_ns() - began) / 1e9);
    }
    return r;
}

/* ---- freeze, thaw ---- */

static int freeze(struct cli_call *c, struct hv_error *e)
{
    struct conn *k;
    json_t *reply;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    uint64_t limit = c->timeout_ns ? c->timeout_ns : FREEZE_NS;
    /* The service keeps the time, so that a late freeze is undone; here only so long that its answer can arrive. */
    r = conn_call(k, "Freeze", json_pack("{s:s s:I}", "name", c->args[0], "timeout_ms",
                                         (json_int_t)MAX(limit / NS_PER_MS, (uint64_t)1)),
                  c->timeout_ns ? limit + 30 * NS_PER_SEC : UINT64_MAX, &reply, e);
    conn_close(k);
    if (r == 0) {
        cli_note(c, json_is_true(json_object_get(reply, "changed")) ? "%s: frozen, for 10 minutes at most" : "%s: already frozen",
                 c->args[0]);
        json_decref(reply);
    }
    return r;
}

static int thaw(struct cli_call *c, struct hv_error *e)
{
    struct conn *k;
    json_t *reply;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = ask(c, k, "Thaw", json_pack("{s:s}", "name", c->args[0]), &reply, e);
    conn_close(k);
    if (r == 0) {
        cli_note(c, json_is_true(json_object_get(reply, "changed")) ? "%s: thawed" : "%s: not frozen", c->args[0]);
        json_decref(reply);
    }
    return r;
}

/* ---- tables ---- */

static const struct cli_arg running[] = {{"VM", CLI_VM_RUNNING, .help = "its name or GUID"}, {0}};
static const struct cli_arg kvp_args[] = {
    {"ACTION", CLI_ENUM, .values = "get|set|remove", .help = "get, set or remove"},
    {"VM", CLI_VM_RUNNING, .help = "its name or GUID"},
    {"KEY", CLI_STRING, CLI_OPTIONAL, .help = "the item's name; get without one lists all"},
    {"VALUE", CLI_STRING, CLI_OPTIONAL, .help = "for set"},
    {0}};
static const struct cli_arg copy_args[] = {
    {"SRC", CLI_FILE, .values = "*", .help = "a file here"},
    {"VM:DST", CLI_STRING, .help = "an absolute path in the guest; a folder ends with /"}, {0}};
static const struct cli_option copy_options[] = {
    {.name = "parents", .type = CLI_BOOL, .help = "make the folders that are missing"},
    {.name = "overwrite", .type = CLI_BOOL, .help = "replace a file that is there"},
    {0}};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}
#define CODES (CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED))

const struct cli_command guest_commands[] = {
    {.noun = "guest", .verb = "show", .help = "show what the guest tells of itself", .args = running, .use = CLI_USE_LIST,
     .columns = &guest_table, .codes = CODES, .run = show,
     .examples = EXAMPLES({"hvctl guest show web1", "system, name, addresses"},
                          {"hvctl guest show web1 -o json | jq -r '.addresses[0]'", "for a script"})},
    {.noun = "guest", .verb = "kvp", .help = "read and write key-values of host and guest", .args = kvp_args, .use = CLI_USE_LIST,
     .columns = &item_table, .codes = CODES, .run = kvp,
     .examples = EXAMPLES({"hvctl guest kvp get web1", "all of them"}, {"hvctl guest kvp get web1 OSName", "one value"},
                          {"hvctl guest kvp set web1 role frontend", "the guest finds it in /var/lib/hyperv/.kvp_pool_0"})},
    {.noun = "guest", .verb = "copy", .help = "copy a file into the guest", .args = copy_args, .options = copy_options,
     .use = CLI_USE_JOB, .codes = CODES | CODE(NO_RESOURCES), .run = copy,
     .examples = EXAMPLES({"hvctl guest copy app.conf web1:/etc/app/ --parents", "under its own name"})},
    {.noun = "guest", .verb = "freeze", .help = "stop writes to the guest's file systems, for a consistent copy", .args = running,
     .codes = CODES, .run = freeze, .examples = EXAMPLES({"hvctl guest freeze web1 && cp -a disks /backup; hvctl guest thaw web1",
                                                           "thaw fails if it did not hold"})},
    {.noun = "guest", .verb = "thaw", .help = "let the guest's file systems go on", .args = running, .codes = CODES, .run = thaw,
     .examples = EXAMPLES({"hvctl guest thaw web1", "after hvctl guest freeze web1"})},
    {0},
};
