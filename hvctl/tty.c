/* The terminal in raw mode, and its way back. */
#include "hvctl/tty.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved, raw;
static volatile sig_atomic_t is_raw;
static int tty_fd = -1;
static sigset_t old_mask;

static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

void tty_restore(void)
{
    int keep = errno;
    if (is_raw) {
        is_raw = 0;
        tcsetattr(tty_fd, TCSAFLUSH, &saved);        /* async-signal-safe (POSIX 2.4.3) */
    }
    errno = keep;
}

static void on_fatal(int sig)
{
    tty_restore();
    signal(sig, SIG_DFL);
    raise(sig);
}

int tty_raw(int fd)
{
    static bool hooked;
    if (tcgetattr(fd, &saved) < 0) {
        return -errno;
    }
    tty_fd = fd;
    raw = saved;
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (!hooked) {
        struct sigaction sa = {.sa_handler = on_fatal, .sa_flags = (int)SA_RESETHAND};
        for (unsigned i = 0; i < ARRAY_SIZE(fatal); i++) {
            sigaction(fatal[i], &sa, NULL);
        }
        atexit(tty_restore);
        hooked = true;
    }
    is_raw = 1;
    if (tcsetattr(fd, TCSANOW, &raw) < 0) {
        is_raw = 0;
        return -errno;
    }
    return 0;
}

int tty_signals_begin(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGTSTP);
    if (sigprocmask(SIG_BLOCK, &set, &old_mask) < 0) {
        return -errno;
    }
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) {
        int r = -errno;
        sigprocmask(SIG_SETMASK, &old_mask, NULL);
        return r;
    }
    return fd;
}

void tty_signals_end(int fd)
{
    if (fd >= 0) {
        while (tty_signal_read(fd)) {}
        close(fd);
        sigprocmask(SIG_SETMASK, &old_mask, NULL);
    }
}

int tty_signal_read(int fd)
{
    struct signalfd_siginfo si;
    ssize_t n = read(fd, &si, sizeof(si));
    return n == (ssize_t)sizeof(si) ? (int)si.ssi_signo : 0;
}

void tty_stop(void)
{
    bool was_raw = is_raw;
    tty_restore();
    raise(SIGSTOP);
    if (was_raw) {
        is_raw = 1;
        tcsetattr(tty_fd, TCSANOW, &raw);
    }
}
