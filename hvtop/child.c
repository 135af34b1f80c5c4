/* hvctl does what is typed after ":" and what the action keys stand for. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hvtop/hvtop.h"

#define WORDS_MAX 64
#define COMPLETE_MS 400

struct child { pid_t pid; int fd; };

const char *child_program(void)
{
    static char path[4096];
    if (!path[0]) {
        ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 16);
        path[n > 0 ? n : 0] = '\0';
        char *slash = strrchr(path, '/');
        if (slash) {
            hv_strlcpy(slash + 1, "hvctl", sizeof(path) - (size_t)(slash + 1 - path));
        }
        if (!slash || access(path, X_OK) < 0) {
            hv_strlcpy(path, "hvctl", sizeof(path));
        }
    }
    return path;
}

/* Words as in a shell: blanks divide, quotes and backslashes keep together. Points into copy. */
static int split(char *copy, const char **word, unsigned max)
{
    unsigned n = 0;
    char *from = copy, *to = copy;
    while (*from) {
        from += strspn(from, " \t");
        if (!*from) {
            break;
        }
        if (n == max) {
            return -E2BIG;
        }
        word[n++] = to;
        char quote = 0;
        for (; *from && (quote || (*from != ' ' && *from != '\t')); from++) {
            if (quote ? *from == quote : *from == '\'' || *from == '"') {
                quote = quote ? 0 : *from;
            } else if (*from == '\\' && quote != '\'' && from[1]) {
                *to++ = *++from;
            } else {
                *to++ = *from;
            }
        }
        if (quote) {
            return -EINVAL;
        }
        from += *from != '\0';
        *to++ = '\0';
    }
    return (int)n;
}

static int arguments(const char *host, char *copy, const char **argv, struct hv_error *e)
{
    unsigned n = 0;
    argv[n++] = "hvctl";
    if (*host) {
        argv[n++] = "-H";
        argv[n++] = host;
    }
    int words = split(copy, argv + n, WORDS_MAX - n - 1);
    if (words < 0) {
        return hv_fail(e, HV_USAGE, NULL, words == -EINVAL ? "a quote is not closed" : "too many words");
    }
    argv[n + (unsigned)words] = NULL;
    return 0;
}

/* In the child: signals as a program expects them. */
static void run_program(const char **argv)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    execvp(child_program(), (char *const *)(uintptr_t)argv);
    dprintf(STDERR_FILENO, "hvtop: %s: %s\n", child_program(), strerror(errno));
    _exit(127);
}

static int spawn(const char **argv, struct child **ret, struct hv_error *e)
{
    struct child *c = hv_alloc(sizeof(*c));
    int p[2];
    if (!c || pipe2(p, O_CLOEXEC) < 0) {
        free(c);
        return hv_fail_errno(e, errno, NULL, "cannot run hvctl");
    }
    c->pid = fork();
    if (c->pid == 0) {
        int null = open("/dev/null", O_RDONLY);
        setpgid(0, 0);                            /* keys of the terminal are not for it */
        if (null >= 0) {
            dup2(null, STDIN_FILENO);
        }
        dup2(p[1], STDOUT_FILENO);
        dup2(p[1], STDERR_FILENO);
        run_program(argv);
    }
    close(p[1]);
    if (c->pid < 0) {
        close(p[0]);
        free(c);
        return hv_fail_errno(e, errno, NULL, "cannot run hvctl");
    }
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    c->fd = p[0];
    *ret = c;
    return 0;
}

int child_start(const char *host, const char *line, struct child **ret, struct hv_error *e)
{
    const char *argv[WORDS_MAX];
    hv_autofree char *copy = hv_strdup(line);
    int r = copy ? arguments(host, copy, argv, e) : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    return r < 0 ? r : spawn(argv, ret, e);
}

int child_fd(const struct child *c) { return c->fd; }

int child_read(struct child *c, char *buf, size_t size)
{
    ssize_t n;
    do {
        n = read(c->fd, buf, size - 1);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN ? -EAGAIN : 0;
    }
    buf[n] = '\0';
    return (int)n;
}

static int wait_for(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return 1;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int child_end(struct child *c, bool kill_it)
{
    if (kill_it) {
        kill(c->pid, SIGTERM);
    }
    close(c->fd);
    int code = wait_for(c->pid);
    free(c);
    return code;
}

void child_leave(struct child *c)
{
    close(c->fd);
    free(c);
}

/* What signals came since: those that end us end the child, all others were meant for it. */
static void forward(int signals, pid_t pid, int *ret_signal)
{
    struct signalfd_siginfo si;
    while (read(signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
        if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGHUP) {
            *ret_signal = (int)si.ssi_signo;
            kill(pid, (int)si.ssi_signo);
            kill(pid, SIGCONT);
        }
    }
}

int child_run(const char *host, const char *line, int signals, int *ret_signal, struct hv_error *e)
{
    const char *argv[WORDS_MAX];
    hv_autofree char *copy = hv_strdup(line);
    int r = copy ? arguments(host, copy, argv, e) : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory"), status;
    if (r < 0) {
        return r;
    }
    pid_t pid = fork();
    if (pid == 0) {
        run_program(argv);
    }
    if (pid < 0) {
        return hv_fail_errno(e, errno, NULL, "cannot run hvctl");
    }
    for (;;) {
        pid_t done = waitpid(pid, &status, WNOHANG | WUNTRACED);
        if (done == pid && WIFSTOPPED(status)) {
            raise(SIGSTOP);                       /* the shell's job is both of us */
        } else if (done == pid) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        } else if (done < 0 && errno != EINTR) {
            return 1;
        } else {
            struct pollfd p = {.fd = signals, .events = POLLIN};
            poll(&p, 1, 1000);
        }
        forward(signals, pid, ret_signal);
    }
}

/* ---- completion ---- */

/* All it prints within a moment. */
static void gather(struct child *c, char *buf, size_t size)
{
    uint64_t until = hv_now_ns() + COMPLETE_MS * NS_PER_MS;
    size_t len = 0;
    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        uint64_t now = hv_now_ns();
        if (now >= until || len + 2 >= size || poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1) <= 0) {
            break;
        }
        int n = child_read(c, buf + len, size - len);
        if (n == 0) {
            break;
        }
        len += n > 0 ? (size_t)n : 0;
    }
    buf[len] = '\0';
    child_end(c, true);
}

void child_complete(const char *host, const char *line, char *ret_line, size_t line_size, char *ret_list, size_t list_size)
{
    const char *argv[WORDS_MAX] = {"hvctl", "__complete", "--shell", "bash", "--"};
    char out[16384], common[512] = "";
    unsigned found = 0, n = 5;
    hv_autofree char *copy = hv_strdup(line);
    struct child *c;
    hv_strlcpy(ret_line, line, line_size);
    ret_list[0] = '\0';
    if (*host) {
        argv[n++] = "-H";
        argv[n++] = host;
    }
    bool fresh = !*line || line[strlen(line) - 1] == ' ';
    int words = copy ? split(copy, argv + n, WORDS_MAX - n - 2) : -1;
    if (words < 0) {
        return;
    }
    n += (unsigned)words;
    if (fresh || !words) {
        argv[n++] = "";
    }
    argv[n] = NULL;
    if (spawn(argv, &c, NULL) < 0) {
        return;
    }
    gather(c, out, sizeof(out));
    char *save = NULL;
    for (char *w = strtok_r(out, "\n", &save); w; w = strtok_r(NULL, "\n", &save)) {
        if (*w == ':') {
            continue;                             /* files: the shell's business */
        }
        size_t k = 0;
        while (found && common[k] && common[k] == w[k]) {
            k++;
        }
        if (found) {
            common[k] = '\0';
        } else {
            hv_strlcpy(common, w, sizeof(common));
        }
        size_t len = strlen(ret_list);
        snprintf(ret_list + len, list_size - len, "%s%s", len ? "  " : "", w);
        found++;
    }
    /* What is typed of the last word gives way to what all candidates share. */
    size_t typed = fresh ? 0 : strlen(argv[n - 1]);
    if (found && strlen(common) >= typed) {
        size_t keep = strlen(line) - MIN(typed, strlen(line));
        /* A whole word that the shell would take apart comes quoted; part of one stays as it is, to be typed on. */
        strbuf_auto whole = {0};
        if (found == 1) {
            ui_quote(&whole, common);
            strbuf_addc(&whole, ' ');
        }
        snprintf(ret_line, line_size, "%.*s%s", (int)keep, line, found == 1 && whole.buf ? whole.buf : common);
    }
    if (found <= 1) {
        ret_list[0] = '\0';
    }
}

void child_vm_names(const char *host, const char *prefix, void (*add)(void *arg, const char *word, const char *what), void *arg)
{
    const char *argv[] = {"hvctl", "__complete", "--shell", "bash", "--", *host ? "-H" : "vm", *host ? host : "show", *host ? "show" : prefix,
                          *host ? prefix : NULL, NULL};
    char out[65536];
    struct child *c;
    if (spawn(argv, &c, NULL) < 0) {
        return;
    }
    gather(c, out, sizeof(out));
    char *save = NULL;
    for (char *w = strtok_r(out, "\n", &save); w; w = strtok_r(NULL, "\n", &save)) {
        add(arg, w, NULL);
    }
}
