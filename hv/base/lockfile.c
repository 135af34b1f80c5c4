/* Locks by fcntl's open file descriptions; holders by /proc/PID/fdinfo, which shows them. */
#include "hv/base/lockfile.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Does the fdinfo file at path show a lock on the inode that keeps one of ours away? */
static bool fdinfo_locks(const char *path, const char *inode, bool writing)
{
    hv_autofree char *text = NULL;
    size_t len;
    if (hv_read_file(path, 64 * KIB, &text, &len) < 0)
        return false;
    for (char *line = strstr(text, "lock:"), *next; line; line = next) {
        char *end = strchr(line, '\n');
        next = end ? strstr(end, "lock:") : NULL;
        if (end)
            *end = '\0';
        if (strstr(line, inode) && (writing || strstr(line, "WRITE")))
            return true;
    }
    return false;
}

static bool process_locks(const char *pid, const char *inode, bool writing)
{
    char dir[300], path[600];
    bool found = false;
    snprintf(dir, sizeof(dir), "/proc/%s/fdinfo", pid);
    DIR *d = opendir(dir);
    if (!d)
        return false;
    for (struct dirent *de = readdir(d); de && !found; de = readdir(d))
        if (isdigit((unsigned char)de->d_name[0])) {
            snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
            found = fdinfo_locks(path, inode, writing);
        }
    closedir(d);
    return found;
}

/* The value after --name in a worker's command line, or NULL. */
static const char *vm_of(const char *args, size_t len)
{
    const char *end = args + len;
    for (const char *a = args; a < end; a += strlen(a) + 1)
        if (strcmp(a, "--name") == 0)
            return a + strlen(a) + 1 < end ? a + strlen(a) + 1 : NULL;
    return NULL;
}

static void name_of(struct hv_lock_holder *h)
{
    char path[64];
    hv_autofree char *comm = NULL, *args = NULL;
    size_t len = 0;
    snprintf(path, sizeof(path), "/proc/%d/comm", h->pid);
    if (hv_read_file(path, 64, &comm, &len) == 0 && len)
        comm[strcspn(comm, "\n")] = '\0';
    const char *name = comm && comm[0] ? comm : "?";
    snprintf(path, sizeof(path), "/proc/%d/cmdline", h->pid);
    if (strcmp(name, "hv-worker") == 0 && hv_read_file(path, 4096, &args, &len) == 0 && vm_of(args, len)) {
        h->vm = true;
        name = vm_of(args, len);
    }
    hv_strlcpy(h->name, name, sizeof(h->name));
    /* It is another program's word, and ends on a terminal. */
    for (char *p = h->name; *p; p++)
        if (iscntrl((unsigned char)*p))
            *p = '?';
}

int hv_lock_holder(const char *path, bool writing, struct hv_lock_holder *ret)
{
    struct stat st;
    char inode[64];
    int pid = 0;
    if (stat(path, &st) < 0)
        return -errno;
    DIR *d = opendir("/proc");
    if (!d)
        return -errno;
    snprintf(inode, sizeof(inode), "%02x:%02x:%llu ", major(st.st_dev), minor(st.st_dev), (unsigned long long)st.st_ino);
    for (struct dirent *de = readdir(d); de && pid == 0; de = readdir(d))
        if (isdigit((unsigned char)de->d_name[0]) && process_locks(de->d_name, inode, writing))
            pid = (int)strtol(de->d_name, NULL, 10);
    closedir(d);
    if (pid == 0)
        return -ENOENT;
    *ret = (struct hv_lock_holder){.pid = pid};
    name_of(ret);
    return 0;
}

int hv_lock_file(int fd, const char *path, bool writing, struct hv_error *e)
{
    struct flock fl = {.l_type = writing ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    struct hv_lock_holder h;
    if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
        return 0;
    if (errno != EAGAIN && errno != EACCES)
        return hv_fail_errno(e, errno, path, "cannot lock");
    if (hv_lock_holder(path, writing, &h) < 0) {
        hv_fail(e, HV_CONFLICT, path, "in use by another process");
    } else {
        hv_fail(e, HV_CONFLICT, path, "in use by %s (pid %d)", h.name, h.pid);
        if (h.vm)
            hv_hint(e, "hvctl stop %s, or hvctl disk list %s", h.name, h.name);
    }
    return -EBUSY;
}
