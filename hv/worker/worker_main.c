/*
 * hv-worker: one virtual machine, one process (DESIGN 8 to 10). hvd starts it with a
 * listening socket; everything else arrives over that. It opens no file of its own.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "hv/base/fault.h"
#include "hv/base/log.h"
#include "hv/base/units.h"
#include "hv/rpc/loop_uv.h"
#include "hv/worker/sandbox.h"
#include "hv/worker/worker.h"

#define SETUP_LIMIT_NS (30 * NS_PER_SEC)   /* nobody set us up: hvd died between fork and call */

static const char usage[] =
    "usage: hv-worker --listen-fd N --name NAME [--peer-uid UID]\n"
    "       hv-worker --probe\n"
    "Runs one virtual machine. Started by hvd; see hv-worker(8).\n";

static void on_signal(void *arg, int signum)
{
    struct worker *w = arg;
    log_info("signal %d: turning off", signum);
    if (w->vm && vm_state(w->vm) != VM_OFF)
        vm_turn_off(w->vm);
    else
        loop_uv_stop(w->loop);
}

static void on_setup_limit(void *arg)
{
    struct worker *w = arg;
    if (!w->vm) {
        log_error("never set up");
        loop_uv_stop(w->loop);
    }
}

/*
 * Only hvd may speak to it. Its folder keeps everybody else from the socket; this is looked at
 * once more. A user namespace shows hvd's user as it maps it, which hvd knows and says.
 */
static bool allow(void *arg, const struct varlink_peer *p)
{
    const struct worker *w = arg;
    return p->uid == w->peer_uid || p->uid == getuid();
}

/* What a worker can be confined to here, as one line of JSON: for `hvctl host doctor`. */
static int probe(void)
{
    struct sandbox_report r = {0};
    const struct sandbox_code none = {0};
    sandbox_confine(&r);
    sandbox_seal(&none, &r);
    json_t *o = sandbox_json(&r);
    hv_autofree char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    return text && hv_write_all(STDOUT_FILENO, text, strlen(text)) == 0 ? 0 : HV_FAILED;
}

static int serve(struct worker *w, int fd)
{
    const struct varlink_interface iface = {.text = org_hv_Worker_varlink, .methods = worker_methods, .arg = w};
    const struct varlink_interface *const ifaces[] = {&iface};
    struct loop_timer *limit = NULL;
    int r = loop_uv_new(&w->loop);
    if (r == 0)
        r = varlink_server_new(w->loop, "hv-worker", ifaces, 1, &w->server);
    if (r == 0)
        r = varlink_server_listen(w->server, fd, allow, w);
    if (r == 0)
        r = loop_uv_signal(w->loop, SIGTERM, on_signal, w);
    if (r == 0)
        r = loop_uv_signal(w->loop, SIGINT, on_signal, w);
    if (r == 0)
        r = loop_timer_new(w->loop, on_setup_limit, w, &limit);
    if (r == 0)
        r = worker_enforce_new(w);
    if (r == 0)
        r = worker_paging_new(w);
    if (r < 0) {
        log_error("cannot start: %s", strerror(-r));
        return 1;
    }
    loop_timer_set(w->loop, limit, hv_now_ns() + SETUP_LIMIT_NS);
    loop_uv_run(w->loop);

    loop_timer_free(w->loop, limit);
    loop_timer_free(w->loop, w->end_timer);
    loop_timer_free(w->loop, w->enforce_timer);
    loop_timer_free(w->loop, w->paging_timer);
    worker_watchers_free(w);
    consoles_free(w->consoles);
    vm_free(w->vm);
    varlink_server_free(w->server);
    loop_uv_free(w->loop);
    settings_fini(&w->settings);
    json_decref(w->sandbox);
    json_decref(w->crash);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"listen-fd", required_argument, NULL, 'l'},
        {"name", required_argument, NULL, 'n'},
        {"peer-uid", required_argument, NULL, 'u'},
        {"probe", no_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {0},
    };
    static struct worker w = {.magic = WORKER_MAGIC, .exit_fd = -1};
    uint64_t fd = UINT64_MAX, peer = getuid();
    struct hv_error e = {0};
    int c;
    while ((c = getopt_long(argc, argv, "hV", options, NULL)) != -1) {
        int r = 0;
        switch (c) {
        case 'l': r = parse_uint(optarg, "--listen-fd", 0, 65535, &fd, &e); break;
        case 'u': r = parse_uint(optarg, "--peer-uid", 0, UINT32_MAX - 1, &peer, &e); break;
        case 'p': return probe();
        case 'n': hv_strlcpy(w.name, optarg, sizeof(w.name)); break;
        case 'h': fputs(usage, stdout); return 0;
        case 'V': puts("hv-worker " HV_VERSION); return 0;
        default: fputs(usage, stderr); return HV_USAGE;
        }
        if (r < 0) {
            fprintf(stderr, "hv-worker: %s: %s\n", e.object, e.message);
            return HV_USAGE;
        }
    }
    w.peer_uid = (uid_t)peer;
    if (fd == UINT64_MAX || optind != argc) {
        fputs(usage, stderr);
        return HV_USAGE;
    }
    char title[160];
    snprintf(title, sizeof(title), "hv-worker: %s", w.name);
    log_init(title);
    fault_arm_from_environment();
    signal(SIGPIPE, SIG_IGN);
    (void)prctl(PR_SET_NAME, "hv-worker", 0, 0, 0);  /* started by a descriptor, it has no better one */
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);       /* guest memory is nobody's core file */
    settings_init(&w.settings);
    return serve(&w, (int)fd);
}
