/*
 * Waiting for a condition of a VM: its state (running, off, paused), a text on its
 * console (console:TEXT), or what its guest says (heartbeat, ip, kvp:KEY[=VALUE], memory-ok).
 * State conditions are looked at on every change; for the console the service watches as one
 * more read-only client of the worker; the guest's conditions are looked at with every report,
 * and its key-values are asked for with each while somebody waits for one.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/service/service.h"

#define LINE_MAX_BYTES 4096

enum cond { COND_STATE, COND_CONSOLE, COND_HEARTBEAT, COND_IP, COND_KVP, COND_MEMORY_OK };

struct waiter {
    enum cond cond;
    struct service *svc;
    struct svc_vm *vm;
    struct varlink_call *call;
    enum svc_state want;
    char *text;                        /* of console:TEXT, of kvp:KEY */
    char *value;                       /* of kvp:KEY=VALUE, else NULL */
    char *words;                       /* the condition, for messages */
    int fd;                            /* the console's other end */
    struct loop_fd *watch;
    struct loop_timer *timer;
    char line[LINE_MAX_BYTES];
    size_t line_len;
    struct waiter *next;
};

static void waiter_free(struct waiter *w)
{
    struct waiter **at = &w->svc->waiters;
    while (*at && *at != w)
        at = &(*at)->next;
    if (*at)
        *at = w->next;
    loop_fd_free(w->svc->loop, w->watch);
    loop_timer_free(w->svc->loop, w->timer);
    if (w->fd >= 0)
        close(w->fd);
    varlink_call_unref(w->call);
    free(w->text);
    free(w->value);
    free(w->words);
    free(w);
}

static void waiter_closed(void *arg) { waiter_free(arg); }

static void holds(struct waiter *w)
{
    varlink_call_on_close(w->call, NULL, NULL);
    varlink_reply(w->call, json_pack("{s:b s:s}", "holds", true, "state", svc_state_word(w->vm)), false);
    waiter_free(w);
}

static void give_up(struct waiter *w, enum hv_code code, const char *why)
{
    struct hv_error e = {0};
    hv_fail(&e, code, w->vm->name, "%s", why);
    varlink_call_on_close(w->call, NULL, NULL);
    varlink_reply_error(w->call, &e);
    waiter_free(w);
}

static void on_timeout(void *arg)
{
    struct waiter *w = arg;
    char why[400];
    snprintf(why, sizeof(why), "timed out waiting for %.300s", w->words);
    give_up(w, HV_TIMEOUT, why);
}

/* Does the line that ends with these bytes contain the text? Lines longer than the buffer keep their tail. */
static bool feed(struct waiter *w, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\n' || p[i] == '\r') {
            w->line_len = 0;
            continue;
        }
        if (w->line_len == sizeof(w->line)) {
            memmove(w->line, w->line + sizeof(w->line) / 2, sizeof(w->line) / 2);
            w->line_len = sizeof(w->line) / 2;
        }
        w->line[w->line_len++] = p[i];
        if (memmem(w->line, w->line_len, w->text, strlen(w->text)))
            return true;
    }
    return false;
}

static void on_console(void *arg, unsigned events)
{
    struct waiter *w = arg;
    char buf[4096];
    ssize_t n = recv(w->fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        loop_fd_set(w->svc->loop, w->watch, 0);        /* the state change ends the wait */
    else if (feed(w, buf, (size_t)n))
        holds(w);
}

static void on_attached(void *arg, json_t *p, bool continues, const struct hv_error *e) { }

static int attach(struct waiter *w, struct hv_error *e)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return hv_fail_errno(e, errno, w->vm->name, "cannot watch its console");
    w->fd = pair[0];
    int r = loop_fd_new(w->svc->loop, w->fd, LOOP_READ, on_console, w, &w->watch);
    if (r == 0)
        r = worker_call(w->vm, "org.hv.Worker.Console",
                        json_pack("{s:i s:s s:b s:b s:b}", "fd", 0, "who", "hvctl wait", "read_only", true,
                                  "take_over", false, "history", true),
                        &pair[1], 1, on_attached, NULL, e);
    else
        hv_fail_errno(e, -r, w->vm->name, "cannot watch its console");
    close(pair[1]);
    return r;
}

static int parse_condition(struct waiter *w, const char *cond, struct hv_error *e)
{
    static const struct { const char *word; enum svc_state st; } states[] = {
        {"running", SVC_RUNNING}, {"off", SVC_OFF}, {"paused", SVC_PAUSED}};
    for (unsigned i = 0; i < ARRAY_SIZE(states); i++)
        if (strcmp(cond, states[i].word) == 0) {
            w->want = states[i].st;
            return 0;
        }
    static const struct { const char *word; enum cond cond; } guests[] = {
        {"heartbeat", COND_HEARTBEAT}, {"ip", COND_IP}, {"memory-ok", COND_MEMORY_OK}};
    w->want = SVC_STATE_COUNT;
    for (unsigned i = 0; i < ARRAY_SIZE(guests); i++)
        if (strcmp(cond, guests[i].word) == 0) {
            w->cond = guests[i].cond;
            return 0;
        }
    if ((strncmp(cond, "console:", 8) == 0 && cond[8]) || (strncmp(cond, "kvp:", 4) == 0 && cond[4] && cond[4] != '=')) {
        w->cond = cond[0] == 'c' ? COND_CONSOLE : COND_KVP;
        w->text = hv_strdup(strchr(cond, ':') + 1);
        char *eq = w->text && w->cond == COND_KVP ? strchr(w->text, '=') : NULL;
        if (eq) {
            w->value = hv_strdup(eq + 1);
            *eq = 0;
        }
        return w->text && (!eq || w->value) ? 0 : hv_fail(e, HV_NO_RESOURCES, w->vm->name, "out of memory");
    }
    static const char *const later[] = {"saved", "port:"};
    for (unsigned i = 0; i < ARRAY_SIZE(later); i++)
        if (strncmp(cond, later[i], strlen(later[i])) == 0)
            return hv_fail(e, HV_UNSUPPORTED, cond, "this condition is not in this version");
    hv_fail(e, HV_USAGE, cond, "there is no such condition");
    hv_hint(e, "running, off, paused, heartbeat, ip, kvp:KEY, kvp:KEY=VALUE, memory-ok, console:TEXT");
    return -EINVAL;
}

/* ---- what the guest says ---- */

static bool is_address(const char *key)
{
    return strcmp(key, "NetworkAddressIPv4") == 0 || strcmp(key, "NetworkAddressIPv6") == 0;
}

static bool item_holds(const struct waiter *w, const json_t *item)
{
    const char *key = json_string_value(json_object_get(item, "key"));
    const char *value = json_string_value(json_object_get(item, "value"));
    if (!key || !value)
        return false;
    return w->cond == COND_IP ? is_address(key) && value[0] : strcmp(key, w->text) == 0 && (!w->value || strcmp(value, w->value) == 0);
}

struct ask { struct service *svc; struct guid vm; };

static void on_items(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct ask *a = arg;
    char id[GUID_TEXT_SIZE];
    struct svc_vm *vm = registry_find(a->svc, guid_format(&a->vm, id));
    const json_t *items = e ? NULL : json_object_get(p, "items");
    free(a);
    if (!vm)
        return;
    vm->items_asked = false;
    for (struct waiter *w = vm->svc->waiters, *next; w; w = next) {
        next = w->next;
        bool found = false;
        for (size_t i = 0; w->vm == vm && (w->cond == COND_IP || w->cond == COND_KVP) && i < json_array_size(items); i++)
            found = found || item_holds(w, json_array_get(items, i));
        if (found)
            holds(w);
    }
}

static void ask_items(struct svc_vm *vm)
{
    struct ask *a = vm->items_asked ? NULL : hv_alloc(sizeof(*a));
    if (!a)
        return;
    *a = (struct ask){.svc = vm->svc, .vm = vm->id};
    vm->items_asked = worker_call(vm, "org.hv.Worker.GuestItems", NULL, NULL, 0, on_items, a, NULL) == 0;
    if (!vm->items_asked)
        free(a);
}

/* Does it hold now, or never will it? w may be gone afterwards. */
static void look(struct waiter *w)
{
    static const char *const services[] = {[COND_HEARTBEAT] = "heartbeat", [COND_IP] = "kvp", [COND_KVP] = "kvp"};
    struct svc_vm *vm = w->vm;
    const json_t *said = json_object_get(vm->runtime, "integration");
    struct hv_error e = {0};
    if (vm->state == SVC_OFF) {
        give_up(w, HV_CONFLICT, vm->reason[0] ? vm->reason : "it is off");
        return;
    }
    if (w->cond == COND_MEMORY_OK) {
        if (!vm->settings.memory.dynamic)
            give_up(w, HV_UNSUPPORTED, "its memory is static, which has no status");
        else if (vm->balance.planned && vm->balance.plan.status == DM_OK)
            holds(w);
        return;
    }
    const char *heart = json_string_value(json_object_get(said, "heartbeat"));
    if (w->cond == COND_HEARTBEAT && heart && strcmp(heart, "ok") == 0) {
        holds(w);
        return;
    }
    enum guest_verdict v = guest_verdict(vm, services[w->cond], &e);
    /* A guest that has said nothing at all may be slow; how long is worth waiting for it is the caller's to say. */
    if (v == GUEST_NEVER && (e.code != HV_UNSUPPORTED || !vm->settings.hyperv || json_is_integer(json_object_get(said, "well_ms")))) {
        varlink_call_on_close(w->call, NULL, NULL);
        varlink_reply_error(w->call, &e);
        waiter_free(w);
    } else if (v == GUEST_READY && w->cond != COND_HEARTBEAT) {
        ask_items(vm);
    }
}

void wait_runtime(struct svc_vm *vm)
{
    for (struct waiter *w = vm->svc->waiters, *next; w; w = next) {
        next = w->next;
        if (w->vm == vm && w->cond >= COND_HEARTBEAT)
            look(w);
    }
}

void wait_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    struct svc_vm *vm = registry_need(svc, call, params);
    if (!vm)
        return;
    struct hv_error e = {0};
    struct waiter *w = hv_alloc(sizeof(*w));
    if (!w) {
        hv_fail(&e, HV_NO_RESOURCES, vm->name, "out of memory");
        varlink_reply_error(call, &e);
        return;
    }
    *w = (struct waiter){.svc = svc, .vm = vm, .fd = -1, .call = varlink_call_ref(call), .next = svc->waiters};
    svc->waiters = w;
    const json_t *ms = json_object_get(params, "timeout_ms");
    const char *cond = json_string_value(json_object_get(params, "cond"));
    int r = parse_condition(w, cond, &e);
    if (r == 0 && !(w->words = hv_strdup(cond)))
        r = hv_fail(&e, HV_NO_RESOURCES, vm->name, "out of memory");
    if (r == 0 && w->cond == COND_CONSOLE)
        r = attach(w, &e);
    if (r == 0 && json_is_integer(ms)) {
        r = loop_timer_new(svc->loop, on_timeout, w, &w->timer);
        if (r == 0)
            loop_timer_set(svc->loop, w->timer,
                           hv_now_ns() + (uint64_t)MAX(json_integer_value(ms), 0) * NS_PER_MS);
        else
            hv_fail_errno(&e, -r, vm->name, "cannot wait");
    }
    if (r < 0) {
        varlink_reply_error(call, &e);
        waiter_free(w);
        return;
    }
    varlink_call_on_close(call, waiter_closed, w);
    if (w->cond >= COND_HEARTBEAT)
        look(w);
    else if (vm->state == w->want)
        holds(w);
}

void wait_check(struct svc_vm *vm, bool removed)
{
    for (struct waiter *w = vm->svc->waiters, *next; w; w = next) {
        next = w->next;
        if (w->vm != vm)
            continue;
        if (removed)
            give_up(w, HV_NOT_FOUND, "it was removed");
        else if (vm->state == w->want)
            holds(w);
        else if (vm->state == SVC_OFF)
            give_up(w, HV_CONFLICT, vm->reason[0] ? vm->reason : "it is off");
    }
}
