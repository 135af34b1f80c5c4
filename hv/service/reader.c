/*
 * Documents from outside, read in a process of their own: a copy of this program that can do
 * nothing but read what it is handed and write what it made of it.
 *
 *   text ─▶ [ hvd --read-document: namespaces, no capabilities, limits, system call filter,
 *             then libxml2 ] ─▶ JSON, which is checked again like a stranger's
 *
 * At most READERS run at once; the others wait for their turn.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/base/strbuf.h"
#include "hv/service/service.h"

#define READERS 4u
#define READ_LIMIT_NS (20 * NS_PER_SEC)
#define ANSWER_MAX ((size_t)24 << 20)
#define ANSWER_VALUES_MAX 1048576u     /* a value is a hundred bytes of ours */
#define WAITING_MAX 16u

struct reader {
    struct service *svc;
    char *text;
    size_t len, sent;
    struct strbuf answer;
    pid_t pid;                         /* 0: waits for its turn */
    int fd, pidfd;
    struct loop_fd *watch;
    struct loop_timer *timer;
    bool late;
    read_done_fn *done;
    void *arg;
    struct reader *next;               /* oldest first */
};

static void reader_free(struct reader *r)
{
    struct reader **at = &r->svc->readers;
    while (*at && *at != r)
        at = &(*at)->next;
    if (*at)
        *at = r->next;
    loop_fd_free(r->svc->loop, r->watch);
    loop_timer_free(r->svc->loop, r->timer);
    hv_cleanup_close(&r->fd);
    hv_cleanup_close(&r->pidfd);
    strbuf_fini(&r->answer);
    free(r->text);
    free(r);
}

/* It has said all it will: its end, which is near or made so. */
static void reap(struct reader *r, siginfo_t *ret)
{
    *ret = (siginfo_t){0};
    if (r->late)
        kill(r->pid, SIGKILL);
    while (waitid(P_PID, (id_t)r->pid, ret, WEXITED) < 0 && errno == EINTR) {
    }
}

/* Few enough values to be taken apart here? More than there are is counted, never less. */
static bool plausible(const struct strbuf *answer)
{
    size_t n = 0;
    for (size_t i = 0; i < answer->len; i++)
        n += answer->buf[i] == ',' || answer->buf[i] == '[' || answer->buf[i] == '{';
    return n <= ANSWER_VALUES_MAX;
}

static void say_how_it_died(const siginfo_t *end, bool late, struct hv_error *e)
{
    if (late || (end->si_code != CLD_EXITED && (end->si_status == SIGXCPU || end->si_status == SIGKILL)))
        hv_fail(e, HV_USAGE, "the document", "it takes too long, or too much memory, to read");
    else if (end->si_code == CLD_EXITED)
        hv_fail(e, HV_FAILED, "the document", "its reader ended with status %d", end->si_status);
    else
        hv_fail(e, HV_USAGE, "the document", "its reader was ended by signal %d: what is in it is no settings", end->si_status);
}

static void reader_run_next(struct service *svc);

static void finish(struct reader *r)
{
    struct hv_error e = {0};
    siginfo_t end;
    struct service *svc = r->svc;
    loop_fd_free(svc->loop, r->watch);
    r->watch = NULL;
    /* Output ends at the end of the process, or where it closed it; then nothing more is to come from it. */
    reap(r, &end);
    const bool fits = plausible(&r->answer);
    json_t *j = r->answer.len && !r->late && fits ? json_loadb(r->answer.buf, r->answer.len, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const json_t *error = json_object_get(j, "error");
    if (json_is_object(error)) {
        const char *text[4];
        static const char *const keys[] = {"code", "object", "message", "hint"};
        for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
            text[i] = json_string_value(json_object_get(error, keys[i]));
            text[i] = text[i] ? text[i] : "";
        }
        hv_fail(&e, hv_code_from_word(text[0]), text[1], "%s", text[2]);
        if (text[3][0])
            hv_hint(&e, "%s", text[3]);
    } else if (!fits) {
        hv_fail(&e, HV_USAGE, "the document", "more values than can be read at once");
        hv_hint(&e, "apply it in parts");
    } else if (!json_is_object(j)) {
        say_how_it_died(&end, r->late, &e);
        log_warning("a document's reader: %s", e.message);
    }
    r->done(r->arg, hv_error_is_set(&e) ? NULL : j, hv_error_is_set(&e) ? &e : NULL);
    json_decref(j);
    reader_free(r);
    reader_run_next(svc);
}

static void on_fd(void *arg, unsigned events)
{
    struct reader *r = arg;
    char buf[65536];
    if (r->sent < r->len && events & LOOP_WRITE) {
        ssize_t n = send(r->fd, r->text + r->sent, r->len - r->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            r->sent += (size_t)n;
        else if (n < 0 && errno != EAGAIN && errno != EINTR)
            r->sent = r->len;          /* it has heard enough, and answers why */
        if (r->sent == r->len) {
            shutdown(r->fd, SHUT_WR);
            loop_fd_set(r->svc->loop, r->watch, LOOP_READ);
        }
    }
    if (!(events & LOOP_READ))
        return;
    ssize_t n = recv(r->fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0 && r->answer.len + (size_t)n <= ANSWER_MAX) {
        strbuf_add(&r->answer, buf, (size_t)n);
        return;
    }
    r->late = n > 0;
    finish(r);
}

static void on_limit(void *arg)
{
    struct reader *r = arg;
    r->late = true;
    finish(r);
}

static int run(struct reader *r, struct hv_error *e)
{
    int pair[2];
    char *argv[] = {(char *)(uintptr_t)"hv-settings-reader", (char *)(uintptr_t)"--read-document", NULL};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return hv_fail_errno(e, errno, "the document", "cannot be read");
    struct spawn_config c = {.program = "/proc/self/exe", .argv = argv, .listen_fd = pair[1], .out_fd = -1, .uid = SPAWN_NO_UID};
    struct spawn_result s;
    int err = spawn_process(&c, &s, e);
    close(pair[1]);
    if (err < 0) {
        close(pair[0]);
        return err;
    }
    r->fd = pair[0];
    r->pid = s.pid;
    r->pidfd = s.pidfd;
    err = loop_fd_new(r->svc->loop, r->fd, LOOP_READ | LOOP_WRITE, on_fd, r, &r->watch);
    if (err < 0) {
        siginfo_t end;
        r->late = true;
        reap(r, &end);
        return hv_fail(e, HV_NO_RESOURCES, "the document", "out of memory");
    }
    loop_timer_set(r->svc->loop, r->timer, hv_now_ns() + READ_LIMIT_NS);
    return 0;
}

static void reader_run_next(struct service *svc)
{
    unsigned running = 0;
    for (struct reader *r = svc->readers, *next; r; r = next) {
        struct hv_error e = {0};
        next = r->next;
        running += r->pid != 0;
        if (r->pid || running >= READERS)
            continue;
        if (run(r, &e) == 0) {
            running++;
            continue;
        }
        r->done(r->arg, NULL, &e);
        reader_free(r);
    }
}

int reader_start(struct service *svc, const char *text, size_t len, read_done_fn *done, void *arg, struct hv_error *e)
{
    struct reader *r = hv_alloc(sizeof(*r)), **at = &svc->readers;
    unsigned running = 0, waiting = 0;
    if (!r)
        return hv_fail(e, HV_NO_RESOURCES, "the document", "out of memory");
    *r = (struct reader){.svc = svc, .len = len, .fd = -1, .pidfd = -1, .done = done, .arg = arg, .text = hv_alloc(len + 1)};
    if (!r->text || loop_timer_new(svc->loop, on_limit, r, &r->timer) < 0) {
        reader_free(r);
        return hv_fail(e, HV_NO_RESOURCES, "the document", "out of memory");
    }
    memcpy(r->text, text, len);
    for (; *at; at = &(*at)->next) {
        running += (*at)->pid != 0;
        waiting += (*at)->pid == 0;
    }
    int err = waiting >= WAITING_MAX ? hv_fail(e, HV_NO_RESOURCES, "the document", "too many documents are being read") : 0;
    *at = r;
    if (err == 0 && running < READERS)
        err = run(r, e);
    if (err < 0)
        reader_free(r);
    return err;
}

void readers_free(struct service *svc)
{
    while (svc->readers) {
        struct reader *r = svc->readers;
        siginfo_t end;
        r->late = true;
        if (r->pid)
            reap(r, &end);
        reader_free(r);
    }
}
