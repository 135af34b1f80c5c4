/* vm console and vm run: a session at a VM's serial port, and how it ended. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "hvctl/console.h"
#include "hvctl/hvctl.h"
#include "hvctl/tty.h"

/* How long the service may take to notice that a worker whose console closed has ended. */
#define END_NS (10 * NS_PER_SEC)

struct ending {
    char state[32];             /* "" where it could not be found out */
    char reason[256];           /* why it is off */
    char exit[32];              /* power-off, crash, ... */
};

/* What became of the VM: waits a moment for it to be off, unless it plainly runs on. */
static int find_ending(struct cli_call *c, const char *name, bool expect_off, struct ending *ret, struct hv_error *e)
{
    struct conn *k;
    json_t *reply;
    int r = conn_open(c, &k, e);
    *ret = (struct ending){0};
    if (r < 0) {
        return r;
    }
    if (expect_off) {
        r = conn_call(k, "Wait", json_pack("{s:s,s:s,s:I}", "name", name, "cond", "off", "timeout_ms",
                                           (json_int_t)(END_NS / NS_PER_MS)),
                      END_NS + NS_PER_SEC, &reply, NULL);
        if (r == 0) {
            json_decref(reply);
        }
    }
    r = conn_call(k, "List", json_pack("{s:[s]}", "names", name), END_NS, &reply, e);
    conn_close(k);
    if (r < 0) {
        return r;
    }
    const json_t *vm = json_array_get(json_object_get(reply, "vms"), 0);
    const char *state = json_string_value(json_object_get(vm, "state"));
    const char *reason = json_string_value(json_object_get(vm, "reason"));
    const char *word = json_string_value(cli_json_path(vm, "runtime.exit"));
    hv_strlcpy(ret->state, state ? state : "", sizeof(ret->state));
    hv_strlcpy(ret->reason, reason ? reason : "", sizeof(ret->reason));
    hv_strlcpy(ret->exit, word ? word : "", sizeof(ret->exit));
    json_decref(reply);
    return 0;
}

static void say_closed(struct cli_call *c, const struct ending *end, const char *name)
{
    cli_note(c, "%s: console closed: %s", name, end->reason[0] ? end->reason : "it is off");
}

static int timed_out(struct cli_call *c, const struct console *o, struct hv_error *e)
{
    const char *pattern = script_pattern(o->script);
    double s = (double)c->timeout_ns / 1e9;
    if (pattern) {
        return hv_fail(e, HV_TIMEOUT, o->name, "no line matched '%s' in %.4gs", pattern, s);
    }
    return hv_fail(e, HV_TIMEOUT, o->name, "the console was open for %.4gs", s);
}

/* Lost while something was still waited for. */
static int unmatched(const struct console *o, const struct ending *end, struct hv_error *e)
{
    return hv_fail(e, HV_FAILED, o->name, "it ended before a line matched '%s'%s%s", script_pattern(o->script),
                   end->reason[0] ? ": " : "", end->reason);
}

/* ---- console ---- */

static int console_ended(struct cli_call *c, struct console *o, enum console_end how, struct hv_error *e)
{
    struct ending end;
    int r;
    switch (how) {
    case CONSOLE_MATCHED:
        return 0;
    case CONSOLE_DETACHED:
        cli_note(c, "%s: detached", o->name);
        return 0;
    case CONSOLE_TIMEOUT:
        return timed_out(c, o, e);
    case CONSOLE_SIGNAL:
        c->exit_code = 128 + o->signum;
        return 0;
    case CONSOLE_FAILED:
        if (o->error == EPIPE) {
            c->exit_code = HV_FAILED;
            return 0;
        }
        return hv_fail_errno(e, o->error, o->name, "the console broke off");
    default:
        break;
    }
    r = find_ending(c, o->name, true, &end, e);
    if (r < 0 && e->code == HV_NOT_FOUND) {
        hv_error_clear(e);                 /* a transient one that is gone already */
        hv_strlcpy(end.state, "off", sizeof(end.state));
    } else if (r < 0) {
        return hv_fail(e, HV_UNREACHABLE, o->name, "console closed: the service cannot be reached");
    }
    if (strcmp(end.state, "off") != 0) {
        r = hv_fail(e, HV_UNREACHABLE, o->name, "console closed: the connection broke");
        hv_hint(e, "hvctl console %s", o->name);
        return r;
    }
    if (script_waiting(o->script)) {
        return unmatched(o, &end, e);
    }
    say_closed(c, &end, o->name);
    return 0;
}

/* Join the console of a VM; resume: let it go once we are there (vm run). */
static int session(struct cli_call *c, struct console *o, bool history, bool take_over, bool resume,
                   enum console_end *ret, struct hv_error *e)
{
    struct conn *k;
    void *extra = NULL;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    struct console_how how = {o->read_only, take_over, history};
    o->fd = -1;
    r = conn_console(k, o->name, &how, &o->fd, &extra, &o->extra_len, e);
    if (r == 0 && resume) {
        struct conn *k2;
        json_t *reply;
        r = conn_open(c, &k2, e);
        if (r == 0) {
            r = conn_call(k2, "Resume", json_pack("{s:s}", "name", o->name), END_NS, &reply, e);
            if (r == 0) {
                json_decref(reply);
            }
            conn_close(k2);
        }
    }
    if (r == 0) {
        o->extra = extra;
        *ret = console_run(o);
    }
    free(extra);
    if (o->fd >= 0) {
        close(o->fd);
    }
    conn_close(k);
    return r;
}

static int run_session(struct cli_call *c, struct console *o, bool history, bool take_over, struct hv_error *e)
{
    enum console_end how;
    o->signal_fd = tty_signals_begin();
    if (o->signal_fd < 0) {
        return hv_fail_errno(e, -o->signal_fd, o->name, "cannot watch for signals");
    }
    int r = session(c, o, history, take_over, false, &how, e);
    if (r == 0) {
        r = console_ended(c, o, how, e);
    }
    tty_signals_end(o->signal_fd);
    return r;
}

int vm_console(struct cli_call *c, struct hv_error *e)
{
    struct script s = {0};
    struct console o = {.name = c->args[0]};
    int r = console_options(&o, c, &s, e);
    if (r == 0) {
        /* What was on the console before TEXT is sent is no answer to it. */
        bool history = !cli_has(c, "no-history") && !cli_has(c, "send");
        r = run_session(c, &o, history, cli_has(c, "take-over"), e);
    }
    script_fini(&s);
    return r;
}

int attach_console(struct cli_call *c, const char *name, struct hv_error *e)
{
    struct script s = {0};
    struct console o = {.c = c, .name = name, .escape = 0x1d, .script = &s};
    int r = run_session(c, &o, true, false, e);
    script_fini(&s);
    return r;
}

/* ---- run ---- */

/* Off and out of the registry; what is gone already is fine. */
static void clean_up(struct cli_call *c, const char *name)
{
    struct conn *k;
    json_t *reply;
    if (conn_open(c, &k, NULL) < 0) {
        return;
    }
    if (conn_call(k, "Stop", json_pack("{s:s,s:s}", "name", name, "mode", "turn-off"), END_NS, &reply, NULL) == 0) {
        const json_t *job = json_object_get(reply, "job");
        json_t *done;
        if (json_is_object(job) &&
            conn_call(k, "WaitJob", json_pack("{s:O}", "id", json_object_get(job, "id")), 2 * END_NS, &done, NULL) == 0) {
            json_decref(done);
        }
        json_decref(reply);
    }
    if (conn_call(k, "Remove", json_pack("{s:s}", "name", name), END_NS, &reply, NULL) == 0) {
        json_decref(reply);
    }
    conn_close(k);
}

/* It ended by itself: 0 if the guest powered off, 1 with the reason if not. */
static int run_ended(struct cli_call *c, const struct console *o, struct hv_error *e)
{
    struct ending end;
    int r = find_ending(c, o->name, true, &end, e);
    if (r < 0) {
        return e->code == HV_NOT_FOUND
                   ? hv_fail(e, HV_FAILED, o->name, "it is gone, and the service does not say why")
                   : r;
    }
    if (strcmp(end.state, "off") != 0) {
        r = hv_fail(e, HV_UNREACHABLE, o->name, "console closed: the connection broke; it runs on");
        hv_hint(e, "hvctl console %s", o->name);
        return r;
    }
    if (script_waiting(o->script)) {
        return unmatched(o, &end, e);
    }
    bool reboot = strcmp(end.exit, "reset") == 0 && cli_has(c, "no-reboot");
    if (strcmp(end.exit, "power-off") == 0 || reboot) {
        say_closed(c, &end, o->name);
        return 0;
    }
    return hv_fail(e, HV_FAILED, o->name, "%s", end.reason[0] ? end.reason : "it ended, and nobody says why");
}

/* What is left to do with the VM after the session; *keep: it is to run on. */
static int after_run(struct cli_call *c, struct console *o, enum console_end how, bool *keep, struct hv_error *e)
{
    *keep = false;
    switch (how) {
    case CONSOLE_DETACHED:
        *keep = true;
        cli_note(c, "%s: runs on until it ends", o->name);
        cli_try(c, "hvctl console %s", o->name);
        return 0;
    case CONSOLE_CLOSED: {
        int r = run_ended(c, o, e);
        *keep = r < 0 && e->code == HV_UNREACHABLE;
        return r;
    }
    default:
        return console_ended(c, o, how, e);
    }
}

static int create_transient(struct cli_call *c, struct conn *k, const char *name, struct new_disks *made, struct hv_error *e)
{
    json_t *reply, *settings = create_settings(c, k, name, made, e);
    if (!settings) {
        return -EINVAL;
    }
    /* A triple fault is the end, with its reason: this is a run, not a machine that has to come back. */
    cli_json_set_path(settings, "boot.on_triple_fault", json_string("off"));
    if (cli_has(c, "no-reboot")) {
        cli_json_set_path(settings, "boot.on_reboot", json_string("off"));
    }
    int r = conn_call(k, "Create", json_pack("{s:s,s:o,s:b,s:s?}", "name", name, "settings", settings, "transient", true,
                                       "group", cli_text(c, "group", NULL)), 0,
                      &reply, e);
    if (r == 0) {
        json_decref(reply);
    }
    return r;
}

/* Started paused, so that not a byte of its output is missed before the console is there. */
static int start_paused(struct cli_call *c, struct conn *k, const char *name, struct hv_error *e)
{
    json_t *reply;
    int r = conn_call(k, "Start", json_pack("{s:s,s:b}", "name", name, "paused", true), 0, &reply, e);
    if (r == 0) {
        r = job_follow(c, k, reply, NULL, NULL, e);
        json_decref(reply);
    }
    return r;
}

int vm_run(struct cli_call *c, struct hv_error *e)
{
    struct script s = {0};
    char own[40];
    struct console o = {.name = own};
    struct conn *k;
    enum console_end how;
    bool keep = false;
    struct new_disks made = {0};

    snprintf(own, sizeof(own), "run-%d", (int)getpid());
    if (c->n_args) {
        o.name = c->args[0];
    }
    int r = console_options(&o, c, &s, e);
    if (r == 0) {
        r = conn_open(c, &k, e);
    }
    if (r < 0) {
        script_fini(&s);
        return r;
    }
    /* From here on Ctrl-C and SIGTERM must take the VM with them. */
    o.signal_fd = tty_signals_begin();
    r = o.signal_fd < 0 ? hv_fail_errno(e, -o.signal_fd, o.name, "cannot watch for signals")
                        : create_transient(c, k, o.name, &made, e);
    if (r == 0) {
        r = start_paused(c, k, o.name, e);
        new_disks_remove(&made);            /* as transient as it is: the worker has them open */
        if (r == 0) {
            r = session(c, &o, true, false, true, &how, e);
        }
        if (r == 0) {
            r = after_run(c, &o, how, &keep, e);
        }
        if (!keep) {
            clean_up(c, o.name);
        }
    }
    new_disks_remove(&made);
    new_disks_fini(&made);
    tty_signals_end(o.signal_fd);
    conn_close(k);
    script_fini(&s);
    return r;
}
