/*
 * Waiting for a condition of a VM: its state (running, off, paused), or a text on its
 * console (console:TEXT). State conditions are looked at on every change; for the
 * console the service watches as one more read-only client of the worker.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/service/service.h"

#define LINE_MAX_BYTES 4096

struct waiter {
    struct service *svc;
    struct svc_vm *vm;
    struct varlink_call *call;
    enum svc_state want;
    char *text;                        /* console:TEXT, else NULL */
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
    snprintf(why, sizeof(why), "timed out waiting for %s%.200s", w->text ? "console:" : "",
             w->text ? w->text : w->want == SVC_OFF ? "off" : w->want == SVC_PAUSED ? "paused" : "running");
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
    if (strncmp(cond, "console:", 8) == 0 && cond[8]) {
        w->want = SVC_STATE_COUNT;
        w->text = hv_strdup(cond + 8);
        return w->text ? 0 : hv_fail(e, HV_NO_RESOURCES, w->vm->name, "out of memory");
    }
    static const char *const later[] = {"heartbeat", "ip", "saved", "memory-ok", "kvp:", "port:"};
    for (unsigned i = 0; i < ARRAY_SIZE(later); i++)
        if (strncmp(cond, later[i], strlen(later[i])) == 0)
            return hv_fail(e, HV_UNSUPPORTED, cond, "this condition is not in this version");
    hv_fail(e, HV_USAGE, cond, "there is no such condition");
    hv_hint(e, "running, off, paused, console:TEXT");
    return -EINVAL;
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
    int r = parse_condition(w, json_string_value(json_object_get(params, "cond")), &e);
    if (r == 0 && w->text)
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
    if (vm->state == w->want)
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
