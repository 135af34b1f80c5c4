/*
 * A worker without a guest: speaks org.hv.Worker and reports what a script says, so that hvd and
 * its balancer can be tried with hundreds of VMs, and with guests that lie. Put it beside a copy
 * of hvd under the name hv-worker.
 *
 * The VM's notes are the script, words of it KEY=NUMBER in MiB or flags; `vm set --notes` changes
 * it while it runs:
 *
 *   used=300       what the guest uses: available is what it has less that
 *   commit=400     what it has committed (used)
 *   nodriver       its kernel has no balloon driver       silent   the driver never reports
 *   nohotadd       it takes no memory beyond what it booted with
 *   short          gives half of what it is asked for     refuse   gives nothing
 *   lie-free       says that all of it is available, and nothing committed
 *   lie-none       says that nothing is available
 *   lie-absurd     says numbers that cannot be
 *   lie-time       its reports get older and older and younger again
 *   old            has run for eleven minutes longer than it has
 *   wave=1         uses more and less by so much a second, each guest in its own rhythm
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "hv/base/base.h"
#include "hv/base/units.h"
#include "hv/rpc/loop_uv.h"
#include "hv/rpc/rows.h"
#include "hv/rpc/varlink.h"
#include "hv/settings/settings.h"

static struct {
    struct loop *loop;
    struct loop_timer *timer, *move_timer;
    struct varlink_call *watch;
    json_t *sent;                       /* runtime as it last went whole; rows: numbers alone will do */
    bool rows;
    uint64_t interval_ns, began_ns, seed;
    char name[128], id[64], notes[512];
    struct settings settings;
    uint64_t boot, assigned, ballooned, hot_added, target;     /* bytes */
    uint64_t needs, granted, paged;                            /* bytes: a restart waits; part of it is on a file */
    char why[256];                                             /* it may not restart */
    unsigned resets;
    bool started, paused, off, moving;
} f;

static bool flag(const char *word)
{
    size_t n = strlen(word);
    for (const char *p = f.notes; (p = strstr(p, word)); p += n)
        if ((p == f.notes || p[-1] == ' ') && (!p[n] || p[n] == ' '))
            return true;
    return false;
}

static uint64_t value(const char *key, uint64_t def)
{
    size_t n = strlen(key);
    for (const char *p = f.notes; (p = strstr(p, key)); p += n)
        if ((p == f.notes || p[-1] == ' ') && p[n] == '=')
            return strtoull(p + n + 1, NULL, 10) * MIB;
    return def;
}

static uint64_t used(void)
{
    uint64_t u = value("used", 200 * MIB);
    if (value("wave", 0)) {
        uint64_t s = (hv_now_ns() - f.began_ns) / NS_PER_SEC, period = 20 + f.seed % 40, at = (s + f.seed) % period;
        u += (at < period / 2 ? at : period - at) * value("wave", 0);
    }
    return MIN(u, f.assigned);
}

static json_t *runtime(void)
{
    uint64_t now = hv_now_ns(), u = used(), available = f.assigned - u, commit = value("commit", u), age = now / NS_PER_MS % 1000;
    if (flag("lie-free")) {
        available = f.assigned;
        commit = 0;
    }
    if (flag("lie-none"))
        available = 0;
    if (flag("lie-absurd")) {
        available = UINT64_C(1) << 52;
        commit = UINT64_C(1) << 52;
    }
    if (flag("lie-time"))
        age = now / NS_PER_SEC % 3 == 0 ? UINT64_C(1) << 50 : 0;
    bool driver = !flag("nodriver");
    json_t *said = driver && !flag("silent")
        ? json_pack("{s:I s:I s:I s:I s:I}", "assigned", (json_int_t)f.assigned, "demand", (json_int_t)commit, "available",
                    (json_int_t)available, "pressure_pct", (json_int_t)50, "age_ms", (json_int_t)age)
        : json_null();
    return json_pack("{s:I s:I s:i s:s s:s s:{s:I s:I s:I s:I s:I s:I s:I s:I s:I s:o s:s s:b s:b s:b s:b s:o s:n s:n}"
                     " s:{s:n s:s s:I s:b s:b} s:[]}",
                     "uptime_ms", (json_int_t)((now - f.began_ns) / NS_PER_MS + (flag("old") ? 660000 : 0)), "cpu_ns", (json_int_t)(now / 100), "resets",
                     (int)f.resets, "engine", "soft", "kernel", "none", "memory", "assigned", (json_int_t)f.assigned,
                     "resident", (json_int_t)u, "visible", (json_int_t)(f.boot + f.hot_added), "ballooned",
                     (json_int_t)f.ballooned, "hot_added", (json_int_t)f.hot_added, "offline", (json_int_t)0, "target",
                     (json_int_t)f.target, "paged", (json_int_t)f.paged, "granted", (json_int_t)(f.paged ? f.granted : f.assigned), "needs",
                     f.needs ? json_integer((json_int_t)f.needs) : json_null(), "operation", f.moving ? "balloon" : "idle", "driver", driver, "can_balloon", driver,
                     "can_hot_add", driver && !flag("nohotadd"), "stuck", false, "report", said, "last_move", "boot_ms",
                     "integration", "vmbus", "heartbeat", "ok", "heartbeats", (json_int_t)1, "shutdown", true, "timesync", true,
                     "disks");
}

static const char *state(void) { return f.off ? "off" : !f.started ? "starting" : f.needs ? "resetting" : f.paused ? "paused" : "running"; }

static json_t *report(void)
{
    json_t *whole = runtime(), *row = f.rows ? rows_since(&f.sent, whole) : NULL;
    json_t *p = json_pack("{s:s s:o}", "state", state(), "runtime", row ? json_object() : json_incref(whole));
    if (row)
        json_object_set_new(p, "row", row);
    json_decref(whole);
    if (f.off)
        json_object_set_new(p, "exit", json_pack("{s:s s:s?}", "reason", f.why[0] ? "error" : "turned-off", "message",
                                                  f.why[0] ? f.why : NULL));
    return p;
}

static void send_report(void)
{
    if (f.watch)
        varlink_reply(f.watch, report(), !f.off);
}

static void tick(void *arg)
{
    loop_timer_set(f.loop, f.timer, ROUND_DOWN(hv_now_ns() + f.interval_ns, 100 * NS_PER_MS));   /* as hv-worker has it */
    send_report();
}

/* The operation ends: as the script has it. */
static void moved(void *arg)
{
    f.moving = false;
    if (f.off || !f.target)
        return;
    if (f.target < f.assigned) {
        uint64_t give = flag("refuse") ? 0 : (f.assigned - f.target) / (flag("short") ? 2 : 1);
        uint64_t may = f.assigned - used();
        give = MIN(give, may);
        f.assigned -= give;
        f.ballooned += give;
    } else {
        uint64_t want = f.target - f.assigned, back = MIN(want, f.ballooned);
        f.ballooned -= back;
        uint64_t hot = flag("nohotadd") ? 0 : ROUND_DOWN(want - back, 128 * MIB);
        f.hot_added += hot;
        f.assigned += back + hot;
    }
    f.paged = f.paged && f.assigned > f.granted ? f.assigned - f.granted : 0;
    send_report();
}

static void answer(struct varlink_call *call) { varlink_reply(call, json_object(), false); }

static void take_settings(const json_t *o)
{
    struct hv_error e = {0};
    if (settings_from_json(&f.settings, o, &e) == 0)
        hv_strlcpy(f.notes, f.settings.notes ? f.settings.notes : "", sizeof(f.notes));
}

static void hello(void *arg, struct varlink_call *call, const json_t *p)
{
    varlink_reply(call, json_pack("{s:i s:s s:s s:s s:s s:b s:[]}", "version", 2, "build", HV_VERSION, "vm", f.name, "id", f.id,
                                  "state", state(), "started", f.started, "sandbox"), false);
}

static void setup(void *arg, struct varlink_call *call, const json_t *p)
{
    hv_strlcpy(f.name, json_string_value(json_object_get(p, "name")), sizeof(f.name));
    hv_strlcpy(f.id, json_string_value(json_object_get(p, "id")), sizeof(f.id));
    take_settings(json_object_get(p, "settings"));
    f.boot = f.assigned = settings_boot_memory(&f.settings);
    for (const char *c = f.id; *c; c++)
        f.seed = f.seed * 31 + (unsigned char)*c;
    varlink_reply(call, json_pack("{s:[]}", "sandbox"), false);
}

static void start(void *arg, struct varlink_call *call, const json_t *p)
{
    f.started = true;
    f.began_ns = hv_now_ns();
    f.paused = json_is_true(json_object_get(p, "paused"));
    answer(call);
    send_report();
}

static void pause_vm(void *arg, struct varlink_call *call, const json_t *p) { f.paused = true; answer(call); send_report(); }
static void resume(void *arg, struct varlink_call *call, const json_t *p) { f.paused = false; answer(call); send_report(); }

static void boot_again(void)
{
    f.resets++;
    f.assigned = f.boot;
    f.ballooned = f.hot_added = f.target = f.needs = 0;
    f.moving = false;
}

static void reset(void *arg, struct varlink_call *call, const json_t *p)
{
    f.paged = 0;
    f.needs = f.assigned < f.boot ? f.boot : 0;
    if (!f.needs)
        boot_again();
    answer(call);
    send_report();
}

static void end(void *arg) { loop_uv_stop(f.loop); }

static void go_off(void)
{
    f.off = true;
    send_report();
    if (loop_timer_new(f.loop, end, NULL, &f.move_timer) == 0)
        loop_timer_set(f.loop, f.move_timer, hv_now_ns() + 20 * NS_PER_MS);
}

/* A file with a name, or without the room it is to have, is the service's fault. */
static bool good_file(int fd, uint64_t bytes)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && st.st_nlink == 0 && (uint64_t)st.st_blocks * 512 >= bytes;
}

static void finish_reset(void *arg, struct varlink_call *call, const json_t *p)
{
    const json_t *index = json_object_get(p, "fd");
    const char *why = json_string_value(json_object_get(p, "refuse"));
    hv_autoclose int fd = json_is_integer(index) ? varlink_call_take_fd(call, (int)json_integer_value(index)) : -1;
    f.granted = (uint64_t)json_integer_value(json_object_get(p, "granted"));
    f.paged = f.granted < f.boot ? f.boot - f.granted : 0;
    answer(call);
    if (!why && f.paged && !good_file(fd, f.paged))
        why = "the service gave no file with room";
    if (why) {
        hv_strlcpy(f.why, why, sizeof(f.why));
        f.paged = 0;
        go_off();
        return;
    }
    boot_again();
    send_report();
}

static void grant_memory(void *arg, struct varlink_call *call, const json_t *p)
{
    f.granted = (uint64_t)json_integer_value(json_object_get(p, "bytes"));
    f.paged = f.paged && f.assigned > f.granted ? f.assigned - f.granted : 0;
    answer(call);
    send_report();
}

static void turn_off(void *arg, struct varlink_call *call, const json_t *p)
{
    answer(call);
    go_off();
}

static void memory_target(void *arg, struct varlink_call *call, const json_t *p)
{
    f.target = (uint64_t)json_integer_value(json_object_get(p, "bytes"));
    f.moving = true;
    loop_timer_set(f.loop, f.move_timer, hv_now_ns() + 50 * NS_PER_MS);
    answer(call);
}

static void watch_gone(void *arg)
{
    varlink_call_unref(f.watch);
    f.watch = NULL;
}

static void watch(void *arg, struct varlink_call *call, const json_t *p)
{
    json_int_t ms = json_integer_value(json_object_get(p, "interval_ms"));
    f.watch = varlink_call_ref(call);
    f.rows = json_is_true(json_object_get(p, "rows"));
    json_decref(f.sent);
    f.sent = NULL;
    f.interval_ns = (uint64_t)(ms > 0 ? ms : 1000) * NS_PER_MS;
    varlink_call_on_close(call, watch_gone, NULL);
    send_report();
    loop_timer_set(f.loop, f.timer, hv_now_ns() + f.interval_ns);
}

static void show_state(void *arg, struct varlink_call *call, const json_t *p)
{
    varlink_reply(call, json_pack("{s:s s:o}", "state", state(), "runtime", runtime()), false);
}

static void apply(void *arg, struct varlink_call *call, const json_t *p)
{
    take_settings(json_object_get(p, "settings"));
    varlink_reply(call, json_pack("{s:[]}", "applied"), false);
    send_report();
}

static void nothing(void *arg, struct varlink_call *call, const json_t *p) { answer(call); }

static const struct varlink_method methods[] = {
    {"Hello", hello}, {"Setup", setup}, {"Start", start}, {"Pause", pause_vm}, {"Resume", resume}, {"Reset", reset},
    {"PowerButton", turn_off}, {"TurnOff", turn_off}, {"MemoryTarget", memory_target},
    {"FinishReset", finish_reset}, {"GrantMemory", grant_memory}, {"Watch", watch},
    {"State", show_state}, {"Apply", apply}, {"Log", nothing}, {0},
};

static bool allow(void *arg, const struct varlink_peer *p) { return true; }

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"listen-fd", required_argument, NULL, 'l'}, {"name", required_argument, NULL, 'n'},
        {"peer-uid", required_argument, NULL, 'u'}, {"probe", no_argument, NULL, 'p'}, {0},
    };
    const struct varlink_interface iface = {.text = org_hv_Worker_varlink, .methods = methods};
    const struct varlink_interface *const ifaces[] = {&iface};
    struct varlink_server *server;
    int fd = -1, c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'p') {
            puts("[]");
            return 0;
        }
        fd = c == 'l' ? (int)strtol(optarg, NULL, 10) : fd;
    }
    signal(SIGPIPE, SIG_IGN);
    settings_init(&f.settings);
    if (fd < 0 || loop_uv_new(&f.loop) < 0 || varlink_server_new(f.loop, "fake-worker", ifaces, 1, &server) < 0 ||
        loop_timer_new(f.loop, tick, NULL, &f.timer) < 0 || loop_timer_new(f.loop, moved, NULL, &f.move_timer) < 0 ||
        varlink_server_listen(server, fd, allow, NULL) < 0)
        return 1;
    loop_uv_run(f.loop);
    return 0;
}
