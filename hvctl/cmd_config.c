/* get, diff and apply: settings as documents. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "hv/base/strbuf.h"
#include "hvctl/document.h"

/* ---- get ---- */

/* host and switch:S stand beside names of VMs; what is left of the arguments are those. */
static int take_special(struct cli_call *c, bool *ret_host, struct hv_error *e)
{
    unsigned n = 0;
    *ret_host = false;
    for (unsigned i = 0; i < c->n_args; i++) {
        if (strncmp(c->args[i], "switch:", 7) == 0) {
            hv_fail(e, HV_UNSUPPORTED, c->args[i], "not in this version");
            hv_hint(e, "%s", c->tool->later_hint);
            return -EOPNOTSUPP;
        }
        if (strcmp(c->args[i], "host") == 0) {
            *ret_host = true;
        } else {
            c->args[n++] = c->args[i];
        }
    }
    c->n_args = n;
    return 0;
}

/* {"vm_memory": bytes or null, "root_reserve", "balancer", "balancer_delay_ms", "metrics"}: null is automatic, or off. */
static int host_settings(struct conn *k, json_t **ret, struct hv_error *e)
{
    static const char *const sizes[] = {"vm_memory", "root_reserve"};
    static const struct { const char *from, *key; } others[] = {
        {"balancer_on", "balancer"}, {"balancer_delay_ms", "balancer_delay_ms"}, {"metrics", "metrics"}};
    json_t *reply;
    int r = conn_call(k, "ShowHost", NULL, 0, &reply, e);
    if (r < 0) {
        return r;
    }
    const json_t *host = json_object_get(reply, "host"), *m = json_object_get(host, "memory");
    *ret = json_object();
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        json_int_t v = json_integer_value(json_object_get(m, sizes[i]));
        json_object_set_new(*ret, sizes[i], v > 0 ? json_integer(v) : json_null());
    }
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
        json_t *v = json_object_get(host, others[i].from);
        if (v) {
            json_object_set(*ret, others[i].key, v);
        }
    }
    json_decref(reply);
    return 0;
}

static void print_json(struct cli_call *c, const struct targets *ts, json_t *host)
{
    json_t *vms = json_array(), *out;
    for (unsigned i = 0; i < ts->n; i++) {
        json_array_append_new(vms, document_vm(ts->t[i].vm));
    }
    if (host) {
        out = ts->n ? json_pack("{s:O s:O}", "host", host, "vms", vms) : json_pack("{s:O}", "host", host);
    } else {
        out = json_incref(ts->one && ts->n == 1 ? json_array_get(vms, 0) : vms);
    }
    json_dumpf(out, c->out, JSON_INDENT(2));
    fputc('\n', c->out);
    json_decref(out);
    json_decref(vms);
}

static void add_host_xml(struct strbuf *sb, const json_t *host)
{
    static const struct { const char *key, *prop, *type; } keys[] = {
        {"vm_memory", "VmMemory", "uint64"}, {"root_reserve", "RootReserve", "uint64"}, {"balancer", "Balancer", "boolean"},
        {"balancer_delay_ms", "BalancerDelay", "uint64"}, {"metrics", "Metrics", "string"},
    };
    strbuf_adds(sb, "    <DECLGROUP>\n      <VALUE.OBJECT>\n        <INSTANCE CLASSNAME=\"Hv_HostSettingData\">\n");
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        const json_t *v = json_object_get(host, keys[i].key);
        strbuf_addf(sb, "          <PROPERTY NAME=\"%s\" TYPE=\"%s\">\n            <VALUE>", keys[i].prop, keys[i].type);
        if (json_is_boolean(v)) {
            strbuf_adds(sb, json_is_true(v) ? "TRUE" : "FALSE");
        } else if (json_is_string(v)) {
            strbuf_adds(sb, json_string_value(v));     /* an address: nothing in it needs to be escaped */
        } else if (strcmp(keys[i].type, "uint64") == 0) {
            strbuf_addf(sb, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        }
        strbuf_adds(sb, "</VALUE>\n          </PROPERTY>\n");
    }
    strbuf_adds(sb, "        </INSTANCE>\n      </VALUE.OBJECT>\n    </DECLGROUP>\n");
}

/* One DECLGROUP a VM, as the service has it. */
static int add_xml(struct conn *k, const char *name, struct strbuf *sb, struct hv_error *e)
{
    json_t *reply;
    size_t len = 0;
    int r = conn_call(k, "Export", json_pack("{s:s}", "name", name), 0, &reply, e);
    if (r < 0) {
        return r;
    }
    const char *xml = json_string_value(json_object_get(reply, "xml")), *group = xml ? document_group(xml, &len) : NULL;
    if (group) {
        strbuf_adds(sb, "    ");
        strbuf_add(sb, group, len);
        strbuf_addc(sb, '\n');
    } else {
        r = hv_fail(e, HV_FAILED, name, "the service's document has no DECLGROUP");
    }
    json_decref(reply);
    return r;
}

int document_print_xml(struct cli_call *c, struct conn *k, const json_t *names, const json_t *host, struct hv_error *e)
{
    size_t i;
    json_t *name;
    strbuf_auto sb = {0};
    int r = 0;
    strbuf_adds(&sb, "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\">\n  <DECLARATION>\n");
    if (host) {
        add_host_xml(&sb, host);
    }
    json_array_foreach((json_t *)names, i, name) {
        r = r < 0 ? r : add_xml(k, json_string_value(name), &sb, e);
    }
    strbuf_adds(&sb, "  </DECLARATION>\n</CIM>\n");
    if (r == 0 && sb.err) {
        r = hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    if (r == 0) {
        fwrite(sb.buf, 1, sb.len, c->out);
    }
    return r;
}

/* A document with one of them missing would be taken for the whole: any name that is not there is the end. */
static int check_targets(struct cli_call *c, const struct targets *ts, struct hv_error *e)
{
    int r = 0;
    for (unsigned i = 0; i < ts->n; i++) {
        if (hv_error_is_set(&ts->t[i].error)) {
            if (r < 0) {
                cli_print_error(c, e);
            }
            *e = ts->t[i].error;
            r = -ENOENT;
        }
    }
    return r;
}

static int get(struct cli_call *c, struct hv_error *e)
{
    struct targets ts = {0};
    struct conn *k = NULL;
    json_t *host = NULL;
    bool with_host;
    const bool json = c->format == CLI_FMT_JSON;
    if (!json && c->format != CLI_FMT_DEFAULT && c->format != CLI_FMT_XML) {
        hv_fail(e, HV_USAGE, "--output", "documents are xml or json");
        hv_hint(e, "hvctl show VM, for tables and lists");
        return -EINVAL;
    }
    int r = take_special(c, &with_host, e);
    if (r == 0) {
        r = conn_open(c, &k, e);
    }
    if (r == 0 && (c->n_args > 0 || c->all)) {
        r = targets_find(c, k, 0, NULL, &ts, e);
    }
    if (r == 0) {
        r = check_targets(c, &ts, e);
    }
    if (r == 0 && with_host) {
        r = host_settings(k, &host, e);
    }
    if (r == 0 && json) {
        print_json(c, &ts, host);
    } else if (r == 0) {
        json_t *names = json_array();
        for (unsigned i = 0; i < ts.n; i++) {
            json_array_append_new(names, json_string(ts.t[i].name));
        }
        r = document_print_xml(c, k, names, host, e);
        json_decref(names);
    }
    json_decref(host);
    targets_free(&ts);
    conn_close(k);
    return r;
}

/* ---- diff, apply ---- */

static bool is_named(const json_t *objects, const char *name)
{
    size_t i;
    json_t *o;
    json_array_foreach((json_t *)objects, i, o) {
        const char *have = json_string_value(json_object_get(o, "name"));
        if (have && strcmp(have, name) == 0 && strcmp(json_string_value(json_object_get(o, "kind")), "vm") == 0) {
            return true;
        }
    }
    return false;
}

/* Who is in the group and not among the objects. *ret is a new list of names. */
static int find_pruned(struct conn *k, const char *group, const json_t *objects, json_t **ret, struct hv_error *e)
{
    json_t *reply, *g, *name;
    size_t i, n;
    bool found = false;
    int r = conn_call(k, "ListGroups", NULL, 0, &reply, e);
    if (r < 0) {
        return r;
    }
    *ret = json_array();
    json_array_foreach(json_object_get(reply, "groups"), i, g) {
        const char *have = json_string_value(json_object_get(g, "name"));
        if (!have || strcmp(have, group) != 0) {
            continue;
        }
        found = true;
        json_array_foreach(json_object_get(g, "vms"), n, name) {
            if (!is_named(objects, json_string_value(name))) {
                json_array_append(*ret, name);
            }
        }
    }
    json_decref(reply);
    if (!found) {
        json_decref(*ret);
        *ret = NULL;
        r = hv_fail(e, HV_NOT_FOUND, group, "no such group");
        hv_hint(e, "hvctl group list");
    }
    return r;
}

static int remove_each(struct conn *k, const json_t *names, bool dry, json_t *objects, struct hv_error *e)
{
    size_t i;
    json_t *name, *reply;
    int r = 0;
    json_array_foreach((json_t *)names, i, name) {
        if (r == 0) {
            r = conn_call(k, "Remove", json_pack("{s:O s:b}", "name", name, "dry_run", dry), 0, &reply, e);
        }
        if (r == 0) {
            json_decref(reply);
            json_array_append_new(objects, json_pack("{s:s s:O s:s s:[] s:n}", "kind", "vm", "name", name, "result", "removed",
                                                     "changes", "error"));
        }
    }
    return r;
}

/*
 * --prune: what is in the group and not in the document goes. It is looked at, and asked about, before anything
 * is changed. params: of Apply.
 */
static int plan_prune(struct cli_call *c, struct conn *k, const char *group, const json_t *params, json_t **ret, struct hv_error *e)
{
    json_t *dry = json_deep_copy(params), *reply = NULL, *unused = json_array(), *name;
    size_t i;
    json_object_set_new(dry, "dry_run", json_true());
    int r = conn_call(k, "Apply", dry, 0, &reply, e);
    if (r == 0 && json_array_size(json_object_get(reply, "errors")) == 0) {
        r = find_pruned(k, group, json_object_get(reply, "objects"), ret, e);
    }
    if (r == 0 && *ret) {
        r = remove_each(k, *ret, true, unused, e);
    }
    json_array_foreach(*ret, i, name) {
        if (r == 0 && !c->dry_run) {
            r = cli_ask(c, json_string_value(name), "removing it", e);
        }
    }
    json_decref(unused);
    json_decref(reply);
    return r;
}

static int apply_file(struct cli_call *c, bool dry, struct hv_error *e)
{
    const char *path = cli_text(c, "file", NULL);
    hv_autofree char *text = NULL;
    size_t len = 0;
    struct conn *k = NULL;
    json_t *params = NULL, *reply = NULL;
    char name[80];
    if (!path) {
        hv_fail(e, HV_USAGE, NULL, "'%s' needs a document", cli_command_name(c->cmd, name, sizeof(name)));
        hv_hint(e, "hvctl %s -f FILE", name);
        return -EINVAL;
    }
    int r = document_read(c, path, &text, &len, e);
    if (r == 0) {
        r = document_parse(path, text, len, &params, e);
    }
    if (r < 0) {
        return r;
    }
    json_object_set_new(params, "dry_run", json_boolean(dry));
    r = conn_open(c, &k, e);
    if (r < 0) {
        json_decref(params);
        return r;
    }
    const char *group = c->cmd->options ? cli_text(c, "prune", NULL) : NULL;
    json_t *gone = NULL;
    struct hv_error why = {0};
    if (group) {
        r = plan_prune(c, k, group, params, &gone, e);
    }
    if (r == 0) {
        r = conn_call(k, "Apply", params, 0, &reply, e);
    } else {
        json_decref(params);
    }
    if (r == 0 && gone && json_array_size(json_object_get(reply, "errors")) == 0) {
        (void)remove_each(k, gone, dry, json_object_get(reply, "objects"), &why);
    }
    conn_close(k);
    if (r == 0) {
        r = document_report(c, path, reply, dry, e);
    } else {
        document_name_error(path, e);
    }
    if (r == 0 && hv_error_is_set(&why)) {
        cli_print_error(c, &why);
        c->exit_code = HV_PARTIAL;
    }
    json_decref(gone);
    json_decref(reply);
    return r;
}

static int diff(struct cli_call *c, struct hv_error *e)
{
    return apply_file(c, true, e);
}

static int apply(struct cli_call *c, struct hv_error *e)
{
    return apply_file(c, c->dry_run, e);
}

static const struct cli_arg get_args[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OR_ALL, .help = "name, GUID, a glob in quotes; or host, the host's own settings"}, {0}};
static const struct cli_option apply_options[] = {
    {.name = "prune", .type = CLI_GROUP, .arg = "GROUP", .help = "remove what is in GROUP and not in the document; asks first"},
    {0},
};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command get_commands[] = {
    {.noun = "get", .help = "print settings as a document, XML or JSON", .args = get_args, .use = CLI_USE_TARGETS,
     .codes = CODE(NOT_FOUND), .run = get,
     .examples = EXAMPLES({"hvctl get web1 > web1.xml", "keep the settings of a machine"},
                          {"hvctl get --all -o json", "of all of them, as JSON"})},
    {0},
};
const struct cli_command diff_commands[] = {
    {.noun = "diff", .help = "say how the host differs from a document", .use = CLI_USE_FILE,
     .codes = CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(DIFFERS), .run = diff,
     .examples = EXAMPLES({"hvctl diff -f lab.xml", "exit 11 if it does"})},
    {0},
};
const struct cli_command apply_commands[] = {
    {.noun = "apply", .help = "make the host match a document", .options = apply_options, .use = CLI_USE_FILE | CLI_USE_DRY | CLI_USE_ASK,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(NO_RESOURCES) | CODE(UNSUPPORTED) | CODE(PARTIAL) | CODE(DIFFERS), .run = apply,
     .examples = EXAMPLES({"hvctl apply -f lab.xml", "any number of machines, created and changed"},
                          {"hvctl apply -f lab.xml --dry-run", "what it would do; exit 11 if anything"},
                          {"hvctl apply -f lab.xml --prune lab --yes", "and what is in the group lab and not in it goes"})},
    {0},
};
