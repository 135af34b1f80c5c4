/* A file that is being made, and the signals that end this program meanwhile. */
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "vhdtool/vhdtool.h"

#define TEMP_LEN 8u                  /* hv_replace_file() makes ".NAME.XXXXXX" of a name */

static char path_now[4096];
static volatile sig_atomic_t is_set;

/* The disposition is the default again (SA_RESETHAND): raised anew, the signal ends the program. */
static void on_signal(int signum)
{
    if (is_set) {
        unlink(path_now);
    }
    raise(signum);
}

void unfinished(const char *path)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction old, ours = { .sa_handler = on_signal, .sa_flags = SA_RESETHAND };

    is_set = 0;
    if (!path || access(path, F_OK) == 0 || !hv_strlcpy(path_now, path, sizeof(path_now))) {
        return;
    }
    is_set = 1;
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL) {   /* not what nohup ignores */
            sigaction(signals[i], &ours, NULL);
        }
    }
}

char *name_beside(const char *path, const char *suffix)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const size_t len = strlen(name), room = NAME_MAX - TEMP_LEN - strlen(suffix);
    uint32_t sum = 2166136261u;      /* FNV-1a */

    if (len <= room) {
        return hv_asprintf("%s%s", path, suffix);
    }
    for (const char *p = name; *p; p++) {
        sum = (sum ^ (uint8_t)*p) * 16777619u;
    }
    size_t keep = room - strlen("~01234567");
    while (keep > 0 && ((uint8_t)name[keep] & 0xc0) == 0x80) {
        keep--;                      /* no half of a character */
    }
    return hv_asprintf("%.*s~%08x%s", (int)(name - path + (ptrdiff_t)keep), path, sum, suffix);
}
