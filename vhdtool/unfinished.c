/* A file that is being made, and the signals that end this program meanwhile. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "vhdtool/vhdtool.h"

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
