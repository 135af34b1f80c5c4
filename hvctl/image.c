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
#define SAID_MAX (16u * 1024)

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

/* Start vhdtool; *ret_fd reads what it writes to descriptor `which`, its other output goes nowhere. */
static int start_tool(const char *const *options, const char *const *args, int which, pid_t *ret_pid, int *ret_fd,
                      struct hv_error *e)
{
    const char *argv[128] = {"vhdtool", "-q"};
    hv_autofree char *tool = tool_path();
    posix_spawn_file_actions_t files;
    unsigned n = 2;
    int fd[2];
    for (; *options && n < ARRAY_SIZE(argv) - 1; options++) {
        argv[n++] = *options;
    }
    for (; *args && n < ARRAY_SIZE(argv) - 1; args++) {
        argv[n++] = *args;
    }
    if (pipe2(fd, O_CLOEXEC) < 0) {
        return hv_fail_errno(e, errno, "vhdtool", "cannot run it");
    }
    fflush(NULL);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, fd[1], which);
    posix_spawn_file_actions_addopen(&files, which == STDOUT_FILENO ? STDERR_FILENO : STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    int r = tool ? posix_spawnp(ret_pid, tool, &files, NULL, (char *const *)(uintptr_t)argv, environ) : ENOMEM;
    posix_spawn_file_actions_destroy(&files);
    close(fd[1]);
    if (r != 0) {
        close(fd[0]);
        return hv_fail_errno(e, r, "vhdtool", "cannot run it");
    }
    *ret_fd = fd[0];
    return 0;
}

static int wait_tool(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return -1;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int image_query(const char *const *args, json_t **ret, struct hv_error *e)
{
    pid_t pid;
    int fd, r = start_tool((const char *const[]){NULL}, args, STDOUT_FILENO, &pid, &fd, e);
    if (r < 0) {
        return r;
    }
    FILE *f = fdopen(fd, "r");
    json_t *j = f ? json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    if (f) {
        fclose(f);
    } else {
        close(fd);
    }
    (void)wait_tool(pid);
    *ret = json_is_array(j) ? json_incref(j) : json_is_object(j) ? json_pack("[O]", j) : json_array();
    json_decref(j);
    return 0;
}

/* What vhdtool said: its error, which its -o json makes one line, goes into e; the rest is passed on. */
static bool take_error(char *said, struct hv_error *e)
{
    bool found = false;
    for (char *line = said, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) {
            *next++ = '\0';
        }
        json_t *j = line[0] == '{' ? json_loads(line, 0, NULL) : NULL, *err = json_object_get(j, "error");
        const char *code = json_string_value(json_object_get(err, "code"));
        const char *object = json_string_value(json_object_get(err, "object"));
        const char *message = json_string_value(json_object_get(err, "message"));
        const char *hint = json_string_value(json_object_get(err, "hint"));
        if (code && message) {
            hv_fail(e, hv_code_from_word(code), object, "%s", message);
            if (hint) {
                hv_hint(e, "%s", hint);
            }
            found = true;
        } else {
            fprintf(stderr, "%s\n", line);
        }
        json_decref(j);
    }
    return found;
}

/* Everything until the end of fd, SAID_MAX at most; what is more is read and dropped. */
static void read_said(int fd, char said[SAID_MAX])
{
    char rest[512];
    size_t len = 0;
    ssize_t n;
    while ((n = len + 1 < SAID_MAX ? read(fd, said + len, SAID_MAX - 1 - len) : read(fd, rest, sizeof(rest))) != 0) {
        if (n > 0 && len + 1 < SAID_MAX) {
            len += (size_t)n;
        } else if (n < 0 && errno != EINTR) {
            break;
        }
    }
    said[len] = '\0';
}

int image_run(const char *const *args, struct hv_error *e)
{
    hv_autofree char *said = hv_alloc(SAID_MAX);
    const char *last = args[0];
    pid_t pid;
    int fd, r = said ? start_tool((const char *const[]){"-o", "json", NULL}, args, STDERR_FILENO, &pid, &fd, e)
                     : hv_fail(e, HV_NO_RESOURCES, "vhdtool", "out of memory");
    if (r < 0) {
        return r;
    }
    read_said(fd, said);
    close(fd);
    int code = wait_tool(pid);
    bool found = take_error(said, e);
    if (code == 0) {
        return 0;
    }
    for (const char *const *a = args; *a; a++) {
        last = *a;
    }
    if (!found) {
        hv_fail(e, code > 0 && code < HV_CODE_COUNT ? (enum hv_code)code : HV_FAILED, last, "vhdtool %s failed", args[0]);
    }
    return -EIO;
}
