/*
 * One scrape asks the service once, over a connection of its own: nothing is kept between two,
 * and a service that comes and goes is seen as hv_up 1 and 0. Answers are good for half a second,
 * so that many scrapers cost the service what one does.
 */
#include "hv/metrics/metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>

#include "hv/base/units.h"
#include "hv/client/client.h"
#include "hv/client/openmetrics.h"

#define CONNECTIONS_MAX 32u
#define CONNECTIONS_PER_IP 16u
#define IDLE_S 15u
#define ASK_LIMIT_NS (5 * NS_PER_SEC)
#define FRESH_NS (500 * NS_PER_MS)

struct metrics_server {
    struct MHD_Daemon *daemon;
    const char *host;
    pthread_mutex_t lock;
    char *text;                             /* the last answer */
    uint64_t asked_ns;
};

static char *ask(const char *host)
{
    struct hv_client *c = NULL;
    struct hv_error e = {0};
    json_t *stats = NULL;
    if (client_connect(host, CLIENT_NO_START, &c, &e) == 0)
        (void)client_call(c, "Stats", NULL, ASK_LIMIT_NS, &stats, &e);
    client_free(c);
    char *text = client_openmetrics(stats);
    json_decref(stats);
    return text;
}

/* A copy of what is to be said now; NULL: no memory. */
static char *current(struct metrics_server *s)
{
    pthread_mutex_lock(&s->lock);
    uint64_t now = hv_now_ns();
    if (!s->text || now - s->asked_ns > FRESH_NS) {
        free(s->text);
        s->text = ask(s->host);
        s->asked_ns = hv_now_ns();
    }
    char *copy = s->text ? hv_strdup(s->text) : NULL;
    pthread_mutex_unlock(&s->lock);
    return copy;
}

static enum MHD_Result answer(struct MHD_Connection *c, unsigned code, const char *type, char *text, enum MHD_ResponseMemoryMode mode)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(strlen(text), text, mode);
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result ok = MHD_queue_response(c, code, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result say(struct MHD_Connection *c, unsigned code, const char *text)
{
    return answer(c, code, "text/plain; charset=utf-8", (char *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **state)
{
    static int begun;
    struct metrics_server *s = arg;
    if (!*state) {                          /* the headers are there; what may follow is not wanted */
        *state = &begun;
        return MHD_YES;
    }
    if (*upload_size) {
        *upload_size = 0;
        return MHD_YES;
    }
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return say(c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET and HEAD only\n");
    if (strcmp(url, "/") == 0)
        return say(c, MHD_HTTP_OK, "hv-metrics: /metrics\n");
    if (strcmp(url, "/metrics") != 0)
        return say(c, MHD_HTTP_NOT_FOUND, "there is /metrics\n");
    char *text = current(s);
    if (!text)
        return say(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
    return answer(c, MHD_HTTP_OK, OPENMETRICS_TYPE, text, MHD_RESPMEM_MUST_FREE);
}

static int parse_address(const char *text, struct sockaddr_storage *ret, bool *ret_six, struct hv_error *e)
{
    char addr[64];
    const char *colon = strrchr(text, ':'), *from = text, *end = colon;
    uint64_t port = 0;
    bool six = *text == '[' && colon > text && colon[-1] == ']';
    if (six)
        from++, end--;
    memset(ret, 0, sizeof(*ret));
    struct sockaddr_in *a4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *a6 = (struct sockaddr_in6 *)ret;
    *ret_six = six;
    if (colon && (size_t)(end - from) < sizeof(addr) && parse_uint(colon + 1, "port", 0, 65535, &port, NULL) == 0) {
        memcpy(addr, from, (size_t)(end - from));
        addr[end - from] = 0;
        if (six && inet_pton(AF_INET6, addr, &a6->sin6_addr) == 1) {
            a6->sin6_family = AF_INET6;
            a6->sin6_port = htons((uint16_t)port);
            return 0;
        }
        if (!six && inet_pton(AF_INET, addr, &a4->sin_addr) == 1) {
            a4->sin_family = AF_INET;
            a4->sin_port = htons((uint16_t)port);
            return 0;
        }
    }
    hv_fail(e, HV_USAGE, text, "is no address to listen at");
    hv_hint(e, "127.0.0.1:9177, or [::1]:9177");
    return -EINVAL;
}

int metrics_start(const char *address, const char *host, struct metrics_server **ret, struct hv_error *e)
{
    struct sockaddr_storage sa;
    bool six;
    int r = parse_address(address, &sa, &six, e);
    if (r < 0)
        return r;
    struct metrics_server *s = hv_alloc(sizeof(*s));
    if (!s)
        return hv_fail(e, HV_NO_RESOURCES, address, "out of memory");
    s->host = host;
    pthread_mutex_init(&s->lock, NULL);
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | (six ? MHD_USE_IPv6 : 0);
    errno = 0;
    s->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, s, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&sa,
                                 MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
                                 CONNECTIONS_PER_IP, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16 << 10, MHD_OPTION_END);
    if (!s->daemon) {
        int err = errno ? errno : EADDRINUSE;
        metrics_stop(s);
        return hv_fail_errno(e, err, address, "cannot listen");
    }
    *ret = s;
    return 0;
}

void metrics_stop(struct metrics_server *s)
{
    if (!s)
        return;
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    pthread_mutex_destroy(&s->lock);
    free(s->text);
    free(s);
}

unsigned metrics_port(const struct metrics_server *s)
{
    const union MHD_DaemonInfo *i = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    return i ? i->port : 0;
}
