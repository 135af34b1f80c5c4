/*
 * Images are made and resized by vhdtool, as the user who typed the command: the service never
 * writes into the user's folders, and never looks into an image.
 */
#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/client/hosts.h"
#include "hvctl/hvctl.h"

extern char **environ;

char *image_path(const char *path)
{
    if (path[0] == '/') {
        return hv_strdup(path);
    }
    hv_autofree char *here = getcwd(NULL, 0);
    return here ? hv_asprintf("%s/%s", here, path) : NULL;
}

/* vhdtool beside this program, else by PATH. */
static char *tool_path(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = '\0';
        char *slash = strrchr(self, '/');
        char *beside = slash ? hv_asprintf("%.*s/vhdtool", (int)(slash - self), self) : NULL;
        if (beside && access(beside, X_OK) == 0) {
            return beside;
        }
        free(beside);
    }
    return hv_strdup("vhdtool");
}

int image_here(const struct cli_call *c, const char *path, struct hv_error *e)
{
    if (!client_host_is_remote(c->host)) {
        return 0;
    }
    int r = hv_fail(e, HV_UNSUPPORTED, path, "a disk is made and resized where it lies, and that is another host");
    hv_hint(e, "the same command there");
    return r;
}

int image_run(const char *const *args, struct hv_error *e)
{
    const char *argv[16] = {"vhdtool", "-q"};
    hv_autofree char *tool = tool_path();
    pid_t pid;
    int status, n = 2;
    for (; *args && n < 15; args++) {
        argv[n++] = *args;
    }
    fflush(NULL);
    int r = tool ? posix_spawnp(&pid, tool, NULL, NULL, (char *const *)(uintptr_t)argv, environ) : ENOMEM;
    if (r != 0) {
        return hv_fail_errno(e, r, "vhdtool", "cannot run it");
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return hv_fail_errno(e, errno, "vhdtool", "cannot wait for it");
        }
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return 0;
    }
    /* It said itself what is wrong. */
    hv_fail(e, WIFEXITED(status) && WEXITSTATUS(status) < HV_CODE_COUNT ? (enum hv_code)WEXITSTATUS(status) : HV_FAILED,
            argv[n - 1], "vhdtool %s failed", argv[2]);
    return -EIO;
}
