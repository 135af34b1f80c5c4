/*
 * Log lines. In a file each begins with its time (RFC 3339, UTC); elsewhere whoever reads has
 * one. Each is composed in one buffer and leaves in one write, so lines of
 * several threads and processes on the same stderr do not mix. When stderr is the
 * journal's stream (systemd.exec(5), JOURNAL_STREAM) the level goes in front as
 * sd-daemon(3) has it, and the program's name, which the journal knows, is left out
 * unless it carries an object ("hv-worker: web1").
 */
#include "hv/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

static char program_name[96];
static char debug_list[256];
static bool to_journal, to_file;

static const struct {
    const char *journal, *word;
} levels[] = {
    [LOG_LEVEL_ERROR] = { "<3>", "" },
    [LOG_LEVEL_WARNING] = { "<4>", "warning: " },
    [LOG_LEVEL_INFO] = { "<6>", "" },
    [LOG_LEVEL_DEBUG] = { "<7>", "debug: " },
};

static bool stderr_is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;

    return text && sscanf(text, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
           st.st_dev == dev && st.st_ino == ino;
}

void log_init(const char *program)
{
    const char *debug = getenv("HV_DEBUG");
    struct stat st;

    hv_strlcpy(program_name, program, sizeof(program_name));
    hv_strlcpy(debug_list, debug ? debug : "", sizeof(debug_list));
    to_journal = stderr_is_journal();
    to_file = fstat(STDERR_FILENO, &st) == 0 && S_ISREG(st.st_mode);
}

static size_t put_time(char *line, size_t size)
{
    uint64_t now = hv_wall_ns();
    time_t s = (time_t)(now / NS_PER_SEC);
    struct tm tm;
    gmtime_r(&s, &tm);
    size_t n = strftime(line, size, "%FT%T", &tm);
    return n + (size_t)snprintf(line + n, size - n, ".%03uZ ", (unsigned)(now % NS_PER_SEC / NS_PER_MS));
}

static void HV_PRINTF(3, 0) write_line(enum log_level level, const char *subsystem, const char *fmt, va_list ap)
{
    char line[1024];
    size_t cap = sizeof(line) - 1;           /* room for the newline */
    int saved = errno, n;
    size_t len = to_file ? put_time(line, cap) : 0;

    if (to_journal) {
        const char *object = strchr(program_name, ':');
        n = snprintf(line, cap, "%s%s%s", levels[level].journal, object ? object + 2 : "", object ? ": " : "");
    } else {
        n = snprintf(line + len, cap - len, "%s%s%s", program_name, *program_name ? ": " : "", levels[level].word);
    }
    len = MIN(len + (size_t)n, cap - 1);
    if (subsystem) {
        n = snprintf(line + len, cap - len, "%s: ", subsystem);
        len = MIN(len + (size_t)n, cap - 1);
    }
    errno = saved;                           /* for a %m of the caller */
    n = vsnprintf(line + len, cap - len, fmt, ap);
    size_t body = len;
    len = MIN(len + (size_t)MAX(n, 0), cap - 1);
    /* what guests and users wrote must not forge further lines or steer a terminal */
    for (size_t i = body; i < len; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = '?';
        }
    }
    line[len++] = '\n';
    while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR) {
    }
    errno = saved;
}

void log_at(enum log_level level, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    write_line(level, NULL, fmt, ap);
    va_end(ap);
}

bool log_debug_on(const char *subsystem)
{
    size_t want = strlen(subsystem);

    for (const char *p = debug_list; *p;) {
        size_t n = strcspn(p, ",");
        if ((n == want && memcmp(p, subsystem, n) == 0) || (n == 3 && memcmp(p, "all", 3) == 0)) {
            return true;
        }
        p += n + (p[n] == ',');
    }
    return false;
}

void log_debug_line(const char *subsystem, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    write_line(LOG_LEVEL_DEBUG, subsystem, fmt, ap);
    va_end(ap);
}

bool log_ratelimit_ok(struct log_ratelimit *rl)
{
    uint64_t now = hv_now_ns();

    if (rl->window_start_ns == 0 || now - rl->window_start_ns >= rl->interval_ns) {
        if (rl->missed) {
            log_warning("%u similar messages left out", rl->missed);
        }
        rl->window_start_ns = now;
        rl->used = rl->missed = 0;
    }
    if (rl->used < rl->burst) {
        rl->used++;
        return true;
    }
    rl->missed++;
    return false;
}
