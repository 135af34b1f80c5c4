/*
 * mount, unmount, mounts: a FUSE server for each disk, its own process.
 *
 *   mount:   open the disk, mount, fork; the child serves until it is unmounted, then closes the disk
 *   unmount: unmount, wait for the child's end, say what it had to say
 *
 * The parent never closes the disk it opened: that is the child's to do, once.
 */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vhdtool/mount.h"

#define LOOP_TRIES   40u
#define LOOP_WAIT_MS 50u
#define FLUSH_MS     5000u           /* how old a change to a tree may be in memory alone; ext4's own "commit" */

/* ---- mount ---- */

static int choose_dir(struct cli_call *c, struct mounted *m, struct hv_error *e)
{
    const char *dir = c->n_args > 1 ? c->args[1] : NULL;
    char base[4096], name[FS_NAME_MAX + 1];
    struct stat st;
    int r;

    if (!dir) {
        const char *slash = strrchr(m->image, '/');
        hv_strlcpy(name, slash ? slash + 1 : m->image, 200);
        r = mount_state_dir(base, e);
        if (r < 0) {
            return r;
        }
        for (unsigned i = 0; i < 1000; i++) {
            if (i == 0) {
                snprintf(m->dir, sizeof(m->dir), "%.3800s/%.200s", base, name);
            } else {
                snprintf(m->dir, sizeof(m->dir), "%.3800s/%.200s.%u", base, name, i);
            }
            if (mkdir(m->dir, 0700) == 0) {
                m->made_dir = true;
                return 0;
            }
            /* An empty folder of a server that was killed is taken again. */
            if (errno != EEXIST || (rmdir(m->dir) == 0 && i--)) {
                continue;
            }
        }
        return hv_fail_errno(e, EEXIST, m->dir, "cannot make a folder to mount on");
    }
    if (!realpath(dir, m->dir) || stat(m->dir, &st) < 0) {
        return hv_fail_errno(e, errno, dir, "cannot mount there");
    }
    return S_ISDIR(st.st_mode) ? 0 : hv_fail(e, HV_USAGE, dir, "is no folder");
}

static int open_all(struct cli_call *c, struct mounted *m, struct hv_error *e)
{
    const struct cli_value *fs = cli_opt(c, "fs");
    struct image_path at;
    char in_use[IN_USE_SIZE] = "";
    struct stat st;
    int r;

    image_path_parse(c->args[0], true, &at);
    if (!realpath(at.image, m->image) || stat(m->image, &st) < 0) {
        return hv_fail_errno(e, errno, at.image, "cannot open");
    }
    m->time_s = st.st_mtim.tv_sec;
    m->write = cli_has(c, "write");
    m->is_tree = fs != NULL;
    m->uid = getuid();
    m->gid = getgid();
    if (m->is_tree) {
        at.part = fs->text ? (int)fs->u : at.part;
        r = image_open(c, &at, m->write, &m->tree, e);
        m->disk = m->tree.disk;
    } else {
        r = m->write ? open_disk(c, at.image, DISK_WRITE, &m->disk, e)
                     : open_to_look(c, at.image, 0, &m->disk, in_use, e);
        if (r == 0 && in_use[0]) {
            cli_warn(c, c->args[0], "in use by %s: its content may change meanwhile", in_use);
        }
        if (r == 0 && partition_read(m->disk, &m->table, e) < 0) {
            cli_warn(c, c->args[0], "%s", e->message);       /* disk.raw alone, then */
            hv_error_clear(e);
        }
    }
    return r;
}

static int close_all(struct mounted *m, struct hv_error *e)
{
    int r = m->tree.disk ? image_close(&m->tree, m->image, e) : disk_close(m->disk, e);

    partition_table_fini(&m->table);
    if (m->made_dir) {
        rmdir(m->dir);
    }
    return r;
}

/* Options for mount(2) and libfuse; commas in names would end them. */
static char *fuse_options(const struct mounted *m)
{
    char name[256];
    const char *slash = strrchr(m->image, '/');
    bool root = geteuid() == 0;

    hv_strlcpy(name, slash ? slash + 1 : m->image, sizeof(name));
    for (char *p = name; *p; p++) {
        *p = *p == ',' || *p == '\\' || (unsigned char)*p < 0x21 ? '_' : *p;
    }
    return hv_asprintf("fsname=%s,subtype=vhdtool%s%s,noatime,nosuid,nodev", name, m->write ? "" : ",ro",
                       root ? ",allow_other,default_permissions" : "");
}

static struct fuse *attach(struct mounted *m, struct hv_error *e)
{
    hv_autofree char *o = fuse_options(m);
    char *argv[] = { (char *)"vhdtool", (char *)"-o", o, NULL };
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    const struct fuse_operations *ops = m->is_tree ? &mount_tree_ops : &mount_disk_ops;
    struct fuse *f;

    if (access("/dev/fuse", R_OK | W_OK) < 0) {
        hv_fail_errno(e, errno, "/dev/fuse", "cannot be used");
        hv_hint(e, "vhdtool ls, cat and cp need no mount");
        return NULL;
    }
    f = o ? fuse_new(&args, ops, sizeof(*ops), m) : NULL;
    fuse_opt_free_args(&args);
    if (!f || fuse_mount(f, m->dir) < 0) {
        hv_fail(e, HV_FAILED, m->dir, "cannot mount");
        if (f) {
            fuse_destroy(f);
        }
        return NULL;
    }
    return f;
}

/*
 * One request after the other, as fuse_loop(); and what was changed goes to the disk after a while:
 * FUSE tells a server of fsync(2), not of sync(2), and it may be killed.
 */
static void serve_tree(struct mounted *m, struct fuse_session *se)
{
    struct pollfd pfd = { .fd = fuse_session_fd(se), .events = POLLIN };
    struct fuse_buf buf = { 0 };

    while (!fuse_session_exited(se)) {
        uint64_t age = m->dirty_ns ? (hv_now_ns() - m->dirty_ns) / 1000000 : 0;
        int n, r;

        if (age >= FLUSH_MS) {
            mount_tree_flush(m);             /* a failure is told by fsync, or at the end */
            continue;
        }
        n = poll(&pfd, 1, m->dirty_ns ? (int)(FLUSH_MS - age) : -1);
        if (n < 0 && errno != EINTR) {
            break;
        }
        if (n > 0) {
            r = fuse_session_receive_buf(se, &buf);
            if (r > 0) {
                fuse_session_process_buf(se, &buf);
            } else if (r != -EINTR) {
                break;
            }
        }
    }
    free(buf.mem);
}

/* Serve until unmounted or told to stop by a signal. Closes the disk. */
static int serve(struct mounted *m, struct fuse *f, struct hv_error *e)
{
    struct fuse_session *se = fuse_get_session(f);
    int r = 0;

    fuse_set_signal_handlers(se);
    if (m->is_tree) {
        serve_tree(m, se);
    } else {
        struct fuse_loop_config *cfg = fuse_loop_cfg_create();
        fuse_loop_cfg_set_clone_fd(cfg, 0);
        fuse_loop_mt(f, cfg);
        fuse_loop_cfg_destroy(cfg);
    }
    fuse_remove_signal_handlers(se);
    fuse_unmount(f);
    fuse_destroy(f);
    r = close_all(m, e);
    return r;
}

/* What unmount will read if the disk could not be closed. */
static void leave_error(int fd, const char *path, const struct hv_error *e)
{
    json_t *o = json_pack("{s:s}", "error", e->message);
    hv_autofree char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

    if (text && ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0) {
        hv_write_all(fd, text, strlen(text));
    }
    json_decref(o);
}

HV_NORETURN static void child(struct mounted *m, struct fuse *f, int ready)
{
    struct hv_error e = { 0 };
    char state[4096] = "", ok = 1;
    int fd = -1, r;

    setsid();
    if (chdir("/") < 0 || mount_state_write(m, state, &fd, &e) < 0) {
        ok = 0;
    }
    int null = open("/dev/null", O_RDWR);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    if (null > STDERR_FILENO) {
        close(null);
    }
    r = hv_write_all(ready, &ok, 1);
    close(ready);
    r = serve(m, f, &e);
    if (fd >= 0) {
        if (r < 0) {
            leave_error(fd, state, &e);
        } else {
            unlink(state);
        }
    }
    _exit(r < 0 ? 1 : 0);
}

static int mount_disk(struct cli_call *c, struct hv_error *e)
{
    hv_autofree struct mounted *m = hv_alloc(sizeof(*m));
    struct fuse *f = NULL;
    int r, ready[2];

    if (!m) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    r = open_all(c, m, e);
    if (r == 0) {
        r = choose_dir(c, m, e);
    }
    if (r == 0) {
        f = attach(m, e);
        r = f ? 0 : -EIO;
    }
    if (r < 0) {
        close_all(m, NULL);
        return r;
    }
    fprintf(c->out, "%s\n", m->dir);
    fflush(c->out);
    if (cli_has(c, "foreground")) {
        char state[4096];
        int fd = -1;
        if (mount_state_write(m, state, &fd, e) < 0) {
            cli_warn(c, m->dir, "%s", e->message);
            hv_error_clear(e);
        }
        r = serve(m, f, e);
        if (fd >= 0) {
            unlink(state);
            close(fd);
        }
        return r;
    }
    if (pipe2(ready, O_CLOEXEC) < 0) {
        return hv_fail_errno(e, errno, NULL, "cannot start");
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        r = hv_fail_errno(e, errno, NULL, "cannot start");
        fuse_unmount(f);
        close_all(m, NULL);
        return r;
    }
    if (pid == 0) {
        close(ready[0]);
        child(m, f, ready[1]);
    }
    close(ready[1]);
    char ok = 0;
    ssize_t n = read(ready[0], &ok, 1);
    close(ready[0]);
    if (n != 1 || !ok) {
        cli_warn(c, m->dir, "unmount will not find it: no state could be written");
    }
    /* Not by way of disk_close(): the disk is the child's. */
    fflush(NULL);
    _exit(0);
}

/* ---- unmount ---- */

struct looking { const char *what; char real[4096]; struct mount_state found; bool any; };

static int match(void *arg, const struct mount_state *s)
{
    struct looking *l = arg;
    const char *dir = json_string_value(json_object_get(s->info, "dir"));
    const char *image = json_string_value(json_object_get(s->info, "image"));

    if (!l->any && dir && image && (strcmp(dir, l->real) == 0 || strcmp(image, l->real) == 0)) {
        l->found = *s;
        l->found.info = json_incref(s->info);
        l->any = true;
    }
    return 0;
}

/* umount2() for root, fusermount3 for others. 0, -EBUSY, another errno. */
static int detach(const char *dir)
{
    int status;

    if (geteuid() == 0) {
        return umount2(dir, UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
    }
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        execlp("fusermount3", "fusermount3", "-u", "--", dir, (char *)NULL);
        _exit(127);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return pid < 0 ? -errno : WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0
         : WIFEXITED(status) && WEXITSTATUS(status) == 127 ? -ENOENT : -EBUSY;
}

static int unmount(struct cli_call *c, struct hv_error *e)
{
    hv_autofree struct looking *l = hv_alloc(sizeof(*l));
    hv_autofree char *error = NULL;
    char users[512];
    int r;

    if (!l) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    l->what = c->args[0];
    if (!realpath(l->what, l->real)) {
        hv_strlcpy(l->real, l->what, sizeof(l->real));       /* a dead server's folder cannot be looked at */
    }
    r = mount_state_each(match, l, e);
    if (r == 0 && !l->any) {
        r = hv_fail(e, HV_NOT_FOUND, l->what, "is not mounted by vhdtool");
        hv_hint(e, "vhdtool mounts");
    }
    if (r < 0) {
        return r;
    }
    const char *dir = json_string_value(json_object_get(l->found.info, "dir"));
    for (unsigned tries = 0; (r = detach(dir)) == -EBUSY; tries++) {
        mount_users(dir, users, sizeof(users));
        /* A loop device lets go a moment after what was mounted on it. */
        if (strncmp(users, "/dev/loop", 9) != 0 || strstr(users, "(pid ") || tries == LOOP_TRIES) {
            break;
        }
        nanosleep(&(struct timespec){ .tv_nsec = LOOP_WAIT_MS * NS_PER_MS }, NULL);
    }
    if (r == -EBUSY) {
        r = hv_fail(e, HV_CONFLICT, dir, "in use%s%s", users[0] ? " by " : "", users);
        hv_hint(e, "unmount and detach what is on it first");
    } else if (r < 0 && r != -EINVAL) {                      /* EINVAL: it is on its way already */
        r = hv_fail_errno(e, -r, dir, "cannot unmount");
    } else {
        r = mount_state_wait(l->found.path, c->timeout_ns, &error);
        if (r < 0) {
            r = r == -ETIMEDOUT ? hv_fail(e, HV_TIMEOUT, dir, "the disk is still being written")
                                : hv_fail_errno(e, -r, dir, "cannot wait for its end");
        } else if (error) {
            hv_fail(e, HV_FAILED, json_string_value(json_object_get(l->found.info, "image")), "%s", error);
            r = -EIO;
        }
    }
    json_decref(l->found.info);
    return r;
}

/* ---- mounts ---- */

static int add_mount(void *arg, const struct mount_state *s)
{
    json_t *row = json_deep_copy(s->info);

    json_object_set_new(row, "shows", json_string(json_is_true(json_object_get(row, "files")) ? "files" : "disk"));
    json_object_set_new(row, "access", json_string(json_is_true(json_object_get(row, "write")) ? "write" : "read"));
    json_object_del(row, "files");
    json_object_del(row, "write");
    return json_array_append_new(arg, row);
}

static const struct cli_column mounts_columns[] = {
    {"dir", .header = "MOUNTED ON", .help = "where"},
    {"image", .help = "which disk"},
    {"shows", .help = "disk: disk.raw and partitions; files: a file system"},
    {"access", .help = "read or write"},
    {"partition", .unit = CLI_UNIT_NUMBER, .help = "whose files are shown"},
    {"pid", .unit = CLI_UNIT_NUMBER, .help = "of the process that serves it"},
    {0},
};
static const struct cli_columns mounts_table = {
    .col = mounts_columns, .defaults = "dir,image,shows,access,pid", .sort = "dir", .name = "dir",
};

static int mounts(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    int r = cli_printer_init(&p, c, &mounts_table, CLI_FMT_TABLE, e);

    if (r == 0) {
        json_t *rows = json_array();
        r = mount_state_each(add_mount, rows, e);
        if (r == 0) {
            cli_print_rows(&p, rows, false);
        }
        json_decref(rows);
    }
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

static const struct cli_arg mount_args[] = {
    {"PATH", CLI_FILE, .values = DISK_GLOB, .help = "the disk"},
    {"DIR", CLI_DIR, CLI_OPTIONAL, .help = "where; left out: a new folder, which is printed"}, {0}};
static const struct cli_arg unmount_args[] = {{"DIR|PATH", CLI_FILE, .values = "*", .help = "where it is, or the disk"}, {0}};

static const struct cli_option mount_options[] = {
    {.name = "fs", .type = CLI_UINT, .flags = CLI_VALUE_OPTIONAL, .arg = "N", .max = 1024,
     .help = "show the files of partition N, not the disk"},
    {.name = "read-only", .type = CLI_BOOL, .help = "as it is without --write"},
    {.name = "write", .type = CLI_BOOL, .help = "let the disk, or with --fs the files of an ext4, be changed"},
    {.name = "foreground", .type = CLI_BOOL, .help = "serve in this process, until unmounted"},
    OPT_FORMAT,
    {0},
};

const struct cli_command mount_commands[] = {
    {.noun = "mount", .help = "show a disk as files", .args = mount_args, .options = mount_options,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED), .run = mount_disk,
     .about = "DIR/disk.raw is the disk, DIR/p1 and so on are its partitions. They can be mounted by a loop "
              "device, whose discards reach the disk. Needs /dev/fuse, and fusermount3 where the caller is not root.",
     .examples = EXAMPLES({"vhdtool mount web.vhdx mnt --write && mount -o loop mnt/p1 /mnt", "as root"},
                          {"vhdtool mount web.vhdx mnt --fs", "its files, without root"},
                          {"vhdtool mount web.vhdx mnt --fs --write", "and to change them (ext4)"})},
    {0},
};
const struct cli_command unmount_commands[] = {
    {.noun = "unmount", .help = "end a mount", .args = unmount_args, .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(TIMEOUT),
     .run = unmount, .about = "Returns when all is written and the disk is closed.",
     .examples = EXAMPLES({"vhdtool unmount mnt", "flushes the disk"}, {"vhdtool unmount web.vhdx", "wherever it is"})},
    {0},
};
const struct cli_command mounts_commands[] = {
    {.noun = "mounts", .help = "what is mounted", .use = CLI_USE_LIST, .columns = &mounts_table, .run = mounts,
     .examples = EXAMPLES({"vhdtool mounts", "of this user"})},
    {0},
};
