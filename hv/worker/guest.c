/* What hvd asks of the guest through its integration services, and what reports say of them. */
#include <errno.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/worker/worker.h"

#define PROGRESS_NS (500 * NS_PER_MS)

/* A call that the guest's answer will end. */
struct guest_call {
    struct worker *w;
    struct varlink_call *call;
    json_t *items;
    struct loop_timer *timer;          /* progress of a copy; NULL: none */
    json_int_t id;                     /* of a copy: its job */
};

static struct guest_call *call_new(struct worker *w, struct varlink_call *call)
{
    struct hv_error e = {0};
    struct guest_call *c = w->vm ? hv_alloc(sizeof(*c)) : NULL;
    if (c) {
        *c = (struct guest_call){.w = w, .call = varlink_call_ref(call), .items = json_array()};
        return c;
    }
    hv_fail(&e, w->vm ? HV_NO_RESOURCES : HV_CONFLICT, w->name, w->vm ? "out of memory" : "it is not set up yet");
    varlink_reply_error(call, &e);
    return NULL;
}

static void call_free(struct guest_call *c)
{
    loop_timer_free(c->w->loop, c->timer);
    if (c->w->copy == c)
        c->w->copy = NULL;
    varlink_call_unref(c->call);
    json_decref(c->items);
    free(c);
}

static void call_done(void *arg, const struct hv_error *e)
{
    struct guest_call *c = arg;
    if (e)
        varlink_reply_error(c->call, e);
    else
        varlink_reply(c->call, json_object(), false);
    call_free(c);
}

static void state_done(void *arg, const struct hv_error *e)
{
    struct guest_call *c = arg;
    if (e)
        varlink_reply_error(c->call, e);
    else
        varlink_reply(c->call, json_pack("{s:b}", "changed", true), false);
    call_free(c);
}

/* Frozen or thawed already: nothing was asked of the guest. */
static void state_begun(struct guest_call *c, int r, const struct hv_error *e)
{
    if (r < 0)
        varlink_reply_error(c->call, e);
    else if (r == 1)
        varlink_reply(c->call, json_pack("{s:b}", "changed", false), false);
    if (r)
        call_free(c);
}

static void items_done(void *arg, const struct hv_error *e)
{
    struct guest_call *c = arg;
    if (e)
        varlink_reply_error(c->call, e);
    else
        varlink_reply(c->call, json_pack("{s:O}", "items", c->items), false);
    call_free(c);
}

static void on_item(void *arg, const char *pool, const char *key, const char *value)
{
    struct guest_call *c = arg;
    json_array_append_new(c->items, json_pack("{s:s s:s s:s}", "pool", pool, "key", key, "value", value));
}

static const char *text(const json_t *params, const char *name)
{
    const char *s = json_string_value(json_object_get(params, name));
    return s ? s : "";
}

static void begun(struct guest_call *c, int r, const struct hv_error *e)
{
    if (r < 0)
        call_done(c, e);
}

void worker_guest_items(void *arg, struct varlink_call *call, const json_t *params)
{
    struct guest_call *c = call_new(arg, call);
    struct hv_error e = {0};
    if (c)
        begun(c, vm_items(c->w->vm, on_item, items_done, c, &e), &e);
}

void worker_set_guest_item(void *arg, struct varlink_call *call, const json_t *params)
{
    struct guest_call *c = call_new(arg, call);
    struct hv_error e = {0};
    if (c)
        begun(c, vm_item_set(c->w->vm, text(params, "key"), json_string_value(json_object_get(params, "value")), call_done, c, &e),
              &e);
}

void worker_freeze(void *arg, struct varlink_call *call, const json_t *params)
{
    struct guest_call *c = call_new(arg, call);
    struct hv_error e = {0};
    json_int_t ms = json_integer_value(json_object_get(params, "timeout_ms"));
    if (c)
        state_begun(c, vm_freeze(c->w->vm, (uint64_t)MIN(MAX(ms, 1), 600000) * NS_PER_MS, state_done, c, &e), &e);
}

void worker_thaw(void *arg, struct varlink_call *call, const json_t *params)
{
    struct guest_call *c = call_new(arg, call);
    struct hv_error e = {0};
    if (c)
        state_begun(c, vm_thaw(c->w->vm, state_done, c, &e), &e);
}

static void on_progress(void *arg)
{
    struct guest_call *c = arg;
    uint64_t done, size;
    vm_copy_progress(c->w->vm, &done, &size);
    varlink_reply(c->call, json_pack("{s:I s:I}", "done", (json_int_t)done, "size", (json_int_t)size), true);
    loop_timer_set(c->w->loop, c->timer, hv_now_ns() + PROGRESS_NS);
}

void worker_copy_file(void *arg, struct varlink_call *call, const json_t *params)
{
    struct guest_call *c = call_new(arg, call);
    struct hv_error e = {0};
    if (!c)
        return;
    const struct vm_copy copy = {
        .fd = varlink_call_take_fd(call, (int)json_integer_value(json_object_get(params, "fd"))),
        .size = (uint64_t)MAX(json_integer_value(json_object_get(params, "size")), 0), .path = text(params, "path"),
        .overwrite = json_is_true(json_object_get(params, "overwrite")), .parents = json_is_true(json_object_get(params, "parents")),
    };
    int r = copy.fd < 0 ? hv_fail(&e, HV_USAGE, "fd", "no descriptor came with the call")
                        : vm_copy(c->w->vm, &copy, call_done, c, &e);
    if (r == 0) {
        c->id = json_integer_value(json_object_get(params, "id"));
        c->w->copy = c;
    }
    if (r == 0 && varlink_call_more(call) && loop_timer_new(c->w->loop, on_progress, c, &c->timer) == 0)
        loop_timer_set(c->w->loop, c->timer, hv_now_ns() + PROGRESS_NS);
    begun(c, r, &e);
}

void worker_cancel_copy(void *arg, struct varlink_call *call, const json_t *params)
{
    const struct worker *w = arg;
    if (w->copy && w->copy->id == json_integer_value(json_object_get(params, "id")))
        vm_copy_cancel(w->vm);
    varlink_reply(call, json_object(), false);
}

/* ---- reports ---- */

static json_t *services_json(struct vm *vm)
{
    json_t *list = json_array();
    for (enum vm_service_id i = 0; i < VM_SERVICE_COUNT; i++) {
        struct vm_service s;
        char version[16];
        vm_service(vm, i, &s);
        snprintf(version, sizeof(version), "%u.%u", s.version & 0xFFFF, s.version >> 16);
        json_array_append_new(list, json_pack("{s:s s:b s:b s:b s:b s:s?}", "service", vm_service_word(i), "enabled", s.offered,
                                              "open", s.open, "ready", s.ready, "stalled", s.stalled, "version",
                                              s.version ? version : NULL));
    }
    return list;
}

/* "a;b;c", as the daemon joins addresses. */
static void add_addresses(json_t *list, const char *value)
{
    while (*value) {
        size_t n = strcspn(value, ";");
        if (n && n < 64)
            json_array_append_new(list, json_stringn(value, n));
        value += n + (value[n] == ';');
    }
}

static void on_fact(void *arg, const char *key, const char *value)
{
    static const struct { const char *key, *as; } names[] = {
        {"OSName", "os"}, {"OSMajorVersion", "os_version"}, {"OSBuildNumber", "os_kernel"},
        {"FullyQualifiedDomainName", "host_name"}, {"ProcessorArchitecture", "architecture"},
    };
    json_t *o = arg;
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        /* The second: what the daemon says where a name cannot be resolved. */
        if (strcmp(key, names[i].key) == 0 && value[0] && strncmp(value, "getaddrinfo failed", 18) != 0)
            json_object_set_new(o, names[i].as, json_string(value));
    if (strcmp(key, "NetworkAddressIPv4") == 0 || strcmp(key, "NetworkAddressIPv6") == 0)
        add_addresses(json_object_get(o, "addresses"), value);
}

json_t *worker_integration_json(struct worker *w)
{
    struct vm_guest g;
    char bus[16];
    vm_guest(w->vm, &g);
    snprintf(bus, sizeof(bus), "%u.%u", g.vmbus_version >> 16, g.vmbus_version & 0xFFFF);
    json_t *o = json_pack("{s:s? s:s s:I s:b s:b s:o s:b s:o s:n s:n s:n s:n s:n s:[]}", "vmbus", g.vmbus_version ? bus : NULL,
                          "heartbeat", g.heartbeat, "heartbeats", (json_int_t)g.heartbeats, "shutdown", g.shutdown,
                          "timesync", g.timesync, "well_ms", g.well ? json_integer((json_int_t)(g.well_ns / NS_PER_MS)) : json_null(),
                          "frozen", vm_frozen(w->vm), "services", services_json(w->vm), "os", "os_version", "os_kernel",
                          "host_name", "architecture", "addresses");
    if (o)
        vm_guest_facts(w->vm, on_fact, o);
    return o;
}

/* ---- events ---- */

void worker_guest_event(void *arg, bool warning, const char *message, const char *hint)
{
    worker_event(arg, "state", warning, message, hint);
}

/* The sentence of the log that says why: the panic's, else the last line. */
static void panic_line(const char *log, char *buf, size_t size)
{
    const char *at = strstr(log, "Kernel panic"), *end = log + strlen(log);
    if (!at) {
        while (end > log && end[-1] == '\n')
            end--;
        for (at = end; at > log && at[-1] != '\n';)
            at--;
    }
    snprintf(buf, size, "%.*s", (int)MIN(strcspn(at, "\n"), size - 1), at);
}

void worker_crashed(void *arg, const uint64_t p[5], const char *log)
{
    struct worker *w = arg;
    char line[200], message[300], *clean = hv_strdup(log);
    json_t *numbers = json_array();
    for (unsigned i = 0; i < 5; i++) {
        char hex[24];
        snprintf(hex, sizeof(hex), "0x%llx", (unsigned long long)p[i]);
        json_array_append_new(numbers, json_string(hex));
    }
    for (char *c = clean; c && *c; c++)         /* the guest's bytes: text for people, and JSON */
        if ((*c < ' ' && *c != '\n' && *c != '\t') || *c == 0x7F || *c < 0)
            *c = '?';
    panic_line(clean ? clean : "", line, sizeof(line));
    snprintf(message, sizeof(message), "the guest's kernel crashed%s%s", line[0] ? ": " : "", line);
    log_warning("%s", message);
    json_t *data = json_pack("{s:o s:s?}", "parameters", numbers, "log", clean && clean[0] ? clean : NULL);
    json_decref(w->crash);
    w->crash = json_pack("{s:s s:O}", "message", message, "parameters", json_object_get(data, "parameters"));
    worker_event_data(w, "state", "error", message, NULL, data);
    free(clean);
}
