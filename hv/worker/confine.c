/* The first step of the sandbox: an empty root folder, no capabilities, limits. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/worker/sandbox.h"

void sandbox_note(struct sandbox_report *r, const char *name, bool on, const char *fmt, ...)
{
    hv_assert(r->count < SANDBOX_LAYERS_MAX);
    struct sandbox_layer *l = &r->layer[r->count++];
    l->name = name;
    l->on = on;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(l->why, sizeof(l->why), fmt, ap);
    va_end(ap);
}

json_t *sandbox_json(const struct sandbox_report *r)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < r->count; i++)
        json_array_append_new(list, json_pack("{s:s s:b s:s?}", "name", r->layer[i].name, "on", r->layer[i].on, "why",
                                              r->layer[i].why[0] ? r->layer[i].why : NULL));
    return list;
}

/* ---- the root folder ---- */

static bool own_mounts(void)
{
    /* hvd says so, and it is looked at again: on the host's own mounts this would be a disaster. */
    struct stat mine, first;
    if (getpid() == 1)
        return true;                   /* first of a PID namespace: hvd makes both or neither */
    return stat("/proc/self/ns/mnt", &mine) == 0 && stat("/proc/1/ns/mnt", &first) == 0 &&
           (mine.st_ino != first.st_ino || mine.st_dev != first.st_dev);
}

/* Mount an empty file system that nothing can be made in, anywhere; returns the folder or NULL. */
static const char *mount_empty(void)
{
    static const char *const places[] = {"/tmp", "/var", "/usr", "/dev"};
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++)
        if (mount("none", places[i], "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,nr_inodes=1,mode=0555") == 0)
            return places[i];
    return NULL;
}

/*
 * pivot_root(".", ".") stacks the old root on the new one, from where it is taken off with
 * everything below it (pivot_root(2), NOTES). Where the old root cannot be moved (an initial
 * ramdisk) a chroot has to do: no capability to leave it is kept.
 */
static int enter_empty(const char *place)
{
    if (chdir(place) < 0)
        return -errno;
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        if (umount2(".", MNT_DETACH) < 0)
            return -errno;
    } else if (chroot(".") < 0) {
        return -errno;
    }
    if (chdir("/") < 0)
        return -errno;
    (void)mount("none", "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    return 0;
}

static void empty_root(struct sandbox_report *r)
{
    static const char layer[] = "root";
    if (!own_mounts()) {
        sandbox_note(r, layer, false, "no mount namespace of its own");
        return;
    }
    /* Nothing of what follows may reach the host's mounts. */
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        sandbox_note(r, layer, false, "cannot detach its mounts: %s", strerror(errno));
        return;
    }
    const char *place = mount_empty();
    if (!place) {
        sandbox_note(r, layer, false, "cannot mount an empty folder: %s", strerror(errno));
        return;
    }
    int err = enter_empty(place);
    sandbox_note(r, layer, err == 0, "%s", err ? strerror(-err) : "");
}

/* ---- capabilities ---- */

static void no_capabilities(struct sandbox_report *r)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0}, now[2] = {0};
    /* User 0 of a user namespace is nobody special, and stays so. Refused without CAP_SETPCAP: nothing to lose then. */
    (void)prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED, 0, 0, 0);
    for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    bool off = syscall(SYS_capset, &h, none) == 0 && syscall(SYS_capget, &h, now) == 0;
    for (unsigned i = 0; i < 2; i++)
        off = off && !now[i].effective && !now[i].permitted && !now[i].inheritable;
    sandbox_note(r, "capabilities", off, "%s", off ? "" : strerror(errno));
}

/* ---- limits ---- */

static bool limit(int what, rlim_t most)
{
    struct rlimit now;
    if (getrlimit(what, &now) < 0)
        return false;
    most = MIN(most, now.rlim_max);
    return setrlimit(what, &(struct rlimit){.rlim_cur = most, .rlim_max = most}) == 0;
}

/*
 * Sockets of consoles and of hvd, disks and their parents fit 1024 descriptors. No core file:
 * it would be guest memory. No limit on file sizes: guest memory is a sparse file as large as
 * the address space, and disks grow.
 */
static void limits(struct sandbox_report *r)
{
    bool ok = limit(RLIMIT_NOFILE, 1024) && limit(RLIMIT_CORE, 0) && limit(RLIMIT_MSGQUEUE, 0);
    sandbox_note(r, "limits", ok, "%s", ok ? "" : strerror(errno));
}

void sandbox_confine(struct sandbox_report *r)
{
    empty_root(r);
    no_capabilities(r);
    limits(r);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);       /* guest memory is nobody's core file */
}
