/*
 * hv-metrics: an OpenMetrics endpoint for the service of a host. A client like any other, with no
 * rights of its own; loopback unless told otherwise. Where it listens is said by --listen, or by
 * `hvctl host set --metrics`, which is looked at again every two seconds.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>

#include "hv/base/base.h"
#include "hv/base/log.h"
#include "hv/client/client.h"
#include "hv/metrics/metrics.h"

#define LOOK_S 2
#define ASK_LIMIT_NS (5 * NS_PER_SEC)

static const char usage[] =
    "usage: hv-metrics [--host HOST] [--listen ADDR:PORT]\n"
    "Serves what a host's virtual machines have and need as OpenMetrics; see hv-metrics(8).\n";

static void complain(const struct hv_error *e)
{
    fprintf(stderr, "hv-metrics: %s%s%s\n", e->object, e->object[0] ? ": " : "", e->message);
    if (e->hint[0])
        fprintf(stderr, "  try: %s\n", e->hint);
}

/* Where the service wants it: true if it said so; "" is nowhere. */
static bool wanted(const char *host, char *ret, size_t size)
{
    struct hv_client *c = NULL;
    struct hv_error e = {0};
    json_t *reply = NULL;
    bool ok = client_connect(host, CLIENT_NO_START, &c, &e) == 0 &&
              client_call(c, "ShowHost", NULL, ASK_LIMIT_NS, &reply, &e) == 0;
    const char *at = json_string_value(json_object_get(json_object_get(reply, "host"), "metrics"));
    if (ok)
        hv_strlcpy(ret, at ? at : "", size);
    json_decref(reply);
    client_free(c);
    return ok;
}

static int serve(const char *host, const char *listen)
{
    struct metrics_server *s = NULL;
    struct hv_error e = {0};
    char at[80] = "", now[80] = "";
    sigset_t end;
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    sigaddset(&end, SIGINT);
    sigprocmask(SIG_BLOCK, &end, NULL);
    for (bool first = true;; first = false) {
        if (listen)
            hv_strlcpy(now, listen, sizeof(now));
        else
            (void)wanted(host, now, sizeof(now));       /* while it is away the last word stands */
        if (strcmp(now, at) != 0) {
            metrics_stop(s);
            s = NULL;
            hv_strlcpy(at, now, sizeof(at));
            int r = *at ? metrics_start(at, host, &s, &e) : 0;
            if (r < 0 && listen) {
                complain(&e);
                return (int)e.code;
            }
            if (r < 0)
                log_error("%s: %s", e.object, e.message);
            else if (s)
                log_info("serving at %s, port %u", at, metrics_port(s));
            else if (!first)
                log_info("serving nowhere");
        }
        struct timespec wait = {LOOK_S, 0};
        if (sigtimedwait(&end, NULL, listen ? &(struct timespec){3600, 0} : &wait) > 0)
            break;
        if (!s && *at)
            at[0] = 0;                                  /* it could not listen: try again */
    }
    metrics_stop(s);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, 'H'}, {"listen", required_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {0},
    };
    const char *host = NULL, *listen = NULL;
    int c;
    while ((c = getopt_long(argc, argv, "H:hV", options, NULL)) != -1) {
        switch (c) {
        case 'H': host = optarg; break;
        case 'l': listen = optarg; break;
        case 'h': fputs(usage, stdout); return 0;
        case 'V': puts("hv-metrics " HV_VERSION); return 0;
        default: fputs(usage, stderr); return HV_USAGE;
        }
    }
    if (optind != argc) {
        fputs(usage, stderr);
        return HV_USAGE;
    }
    log_init("hv-metrics");
    signal(SIGPIPE, SIG_IGN);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return serve(host, listen);
}
