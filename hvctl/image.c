/*
 * Images are made and resized by vhdtool, as the user who typed the command: the service never
 * writes into the user's folders, and never looks into an image.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/base/lockfile.h"
#include "hv/client/hosts.h"
#include "hvctl/hvctl.h"

#define LOCK_TRIES 40u
#define LOCK_PAUSE_US 50000

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
    int r = hv_fail(e, HV_UNSUPPORTED, path, "a disk is made, resized and deleted where it lies, and that is another host");
    hv_hint(e, "the same command there");
    return r;
}

bool image_is_file(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode);
}

int image_delete(const char *path, struct hv_error *e)
{
    if (!image_is_file(path)) {
        return hv_fail(e, HV_USAGE, path, "cannot delete it: it is no file");
    }
    hv_autoclose int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct hv_error held = {0};
    int r = fd < 0 ? 0 : -EBUSY;            /* what cannot be opened may still be deleted */
    /* A worker that has just let go of it may take a moment. */
    for (unsigned i = 0; r < 0 && i < LOCK_TRIES; i++) {
        if (i) {
            usleep(LOCK_PAUSE_US);
        }
        hv_error_clear(&held);
        r = hv_lock_file(fd, path, true, &held);
    }
    if (r < 0) {
        return hv_fail(e, held.code, path, "cannot delete it: %s", held.message);
    }
    return unlink(path) < 0 ? hv_fail_errno(e, errno, path, "cannot delete it") : 0;
}

int image_query(const char *const *args, json_t **ret, struct hv_error *e)
{
    hv_autofree char *tool = tool_path();
    posix_spawn_file_actions_t fds;
    const char *argv[128] = {"vhdtool", "-q"};
    unsigned n = 2;
    int out[2], status;
    pid_t pid;
    for (; *args && n < ARRAY_SIZE(argv) - 1; args++) {
        argv[n++] = *args;
    }
    if (pipe2(out, O_CLOEXEC) < 0) {
        return hv_fail_errno(e, errno, "vhdtool", "cannot run it");
    }
    posix_spawn_file_actions_init(&fds);
    posix_spawn_file_actions_adddup2(&fds, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&fds, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int r = tool ? posix_spawnp(&pid, tool, &fds, NULL, (char *const *)(uintptr_t)argv, environ) : ENOMEM;
    posix_spawn_file_actions_destroy(&fds);
    close(out[1]);
    if (r != 0) {
        close(out[0]);
        return hv_fail_errno(e, r, "vhdtool", "cannot run it");
    }
    FILE *f = fdopen(out[0], "r");
    json_t *j = f ? json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    if (f) {
        fclose(f);
    } else {
        close(out[0]);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    *ret = json_is_array(j) ? json_incref(j) : json_is_object(j) ? json_pack("[O]", j) : json_array();
    json_decref(j);
    return 0;
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
