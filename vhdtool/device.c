/* Block devices as targets: see device.h. Facts from sysfs and /proc. */
#include "vhdtool/device.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

bool device_is(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

/* The first line of /sys/dev/block/M:N/name without what surrounds it; false if there is none. */
static bool attribute(unsigned major_no, unsigned minor_no, const char *name, char *buf, size_t size)
{
    char path[128];
    FILE *f;
    bool ok;

    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major_no, minor_no, name);
    f = fopen(path, "re");
    if (!f) {
        return false;
    }
    ok = fgets(buf, (int)size, f) != NULL;
    fclose(f);
    for (size_t n = ok ? strlen(buf) : 0; n > 0 && (buf[n - 1] == '\n' || buf[n - 1] == ' '); n--) {
        buf[n - 1] = '\0';
    }
    return ok && buf[0];
}

static void find_model(unsigned major_no, unsigned minor_no, struct device *ret)
{
    char text[100];

    if (attribute(major_no, minor_no, "device/model", text, sizeof(text)) ||
        attribute(major_no, minor_no, "../device/model", text, sizeof(text))) {
        hv_strlcpy(ret->model, text, sizeof(ret->model));
    } else if (attribute(major_no, minor_no, "loop/backing_file", text, sizeof(text))) {
        snprintf(ret->model, sizeof(ret->model), "%s (loop)", text);
    } else if (attribute(major_no, minor_no, "dm/name", text, sizeof(text))) {
        snprintf(ret->model, sizeof(ret->model), "%s (device mapper)", text);
    } else {
        hv_strlcpy(ret->model, "unknown model", sizeof(ret->model));
    }
}

/* "M:N" of the device or one of its partitions? */
static bool belongs(unsigned major_no, unsigned minor_no, const char *number)
{
    char path[160], own[32];

    snprintf(own, sizeof(own), "%u:%u", major_no, minor_no);
    if (strcmp(own, number) == 0) {
        return true;
    }
    /* A partition's folder lies in its disk's. */
    snprintf(path, sizeof(path), "/sys/dev/block/%s/partition", number);
    if (access(path, F_OK) < 0) {
        return false;
    }
    snprintf(path, sizeof(path), "/sys/dev/block/%s/../dev", number);
    FILE *f = fopen(path, "re");
    bool same = false;
    char disk[32];

    if (f) {
        same = fgets(disk, sizeof(disk), f) && (disk[strcspn(disk, "\n")] = '\0', strcmp(disk, own) == 0);
        fclose(f);
    }
    return same;
}

/* Where it, or a part of it, is mounted. */
static bool mounted_at(unsigned major_no, unsigned minor_no, char *where, size_t size)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[4096], number[32], point[3000];
    bool found = false;

    while (f && !found && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%*s %*s %31s %*s %2999s", number, point) == 2 && belongs(major_no, minor_no, number)) {
            hv_strlcpy(where, point, size);
            found = true;
        }
    }
    if (f) {
        fclose(f);
    }
    return found;
}

/* What of the kernel stands on it: "dm-0". */
static bool held_by(unsigned major_no, unsigned minor_no, char *who, size_t size)
{
    char path[80];
    struct dirent *d;
    bool found = false;

    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major_no, minor_no);
    DIR *dir = opendir(path);
    while (dir && !found && (d = readdir(dir))) {
        if (d->d_name[0] != '.') {
            hv_strlcpy(who, d->d_name, size);
            found = true;
        }
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

/* A loop device made from this one: the kernel does not count that as use. */
static bool looped_by(const char *path, char *who, size_t size)
{
    char backing[256], name[300], real[4096];
    DIR *dir = opendir("/sys/block");
    struct dirent *d;
    bool found = false;

    if (!realpath(path, real)) {
        real[0] = '\0';
    }
    while (dir && !found && (d = readdir(dir))) {
        FILE *f;

        snprintf(name, sizeof(name), "/sys/block/%s/loop/backing_file", d->d_name);
        f = strncmp(d->d_name, "loop", 4) == 0 ? fopen(name, "re") : NULL;
        if (!f) {
            continue;
        }
        if (fgets(backing, sizeof(backing), f)) {
            backing[strcspn(backing, "\n")] = '\0';
            found = strcmp(backing, real) == 0;
        }
        fclose(f);
        if (found) {
            hv_strlcpy(who, d->d_name, size);
        }
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

int device_open(const char *path, struct device *ret, int *ret_fd, struct hv_error *e)
{
    int fd = open(path, O_RDWR | O_EXCL | O_CLOEXEC | O_NONBLOCK), sector = 512;
    int err = fd < 0 ? errno : 0;
    char by[256];
    struct stat st;

    if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode)) {
        err = err ? err : errno ? errno : ENOTBLK;
        if (fd >= 0) {
            close(fd);
        }
        return hv_fail_errno(e, err, path, "cannot look at it");
    }
    unsigned major_no = major(st.st_rdev), minor_no = minor(st.st_rdev);
    bool mounted = mounted_at(major_no, minor_no, by, sizeof(by));
    bool looped = !mounted && looped_by(path, by, sizeof(by));

    if (mounted || looped || err == EBUSY) {
        if (fd >= 0) {
            close(fd);
        }
        if (mounted) {
            hv_fail(e, HV_CONFLICT, path, "is mounted on %s", by);
            hv_hint(e, "umount %s", by);
        } else if (looped || held_by(major_no, minor_no, by, sizeof(by))) {
            hv_fail(e, HV_CONFLICT, path, "is used by %s", by);
        } else {
            hv_fail(e, HV_CONFLICT, path, "is in use by this host (a mount, swap, a volume)");
        }
        return -EBUSY;
    }
    if (err) {
        return hv_fail_errno(e, err, path, "cannot open");
    }
    *ret = (struct device){ 0 };
    find_model(major_no, minor_no, ret);
    if (ioctl(fd, BLKGETSIZE64, &ret->size) < 0 || ioctl(fd, BLKSSZGET, &sector) < 0) {
        err = errno;
        close(fd);
        return hv_fail_errno(e, err, path, "cannot ask for its size");
    }
    ret->sector = (uint32_t)sector;
    *ret_fd = fd;
    return 0;
}

void device_reread(int fd)
{
    ioctl(fd, BLKRRPART);
}
