/*
 * Whole-buffer I/O and files that are replaced, never patched.
 *
 * hv_replace_file orders its steps so that a crash at any point leaves either
 * the whole old file or the whole new one under the name:
 *
 *   write temp -> fsync temp -> rename over the name -> fsync the folder
 *
 * Each fsync waits for the disk. A hv_replacement is the same in steps, for many files: all
 * temps are on their way to the disk before the first is waited for, and the folder is synced once.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/base.h"
#include "hv/base/fault.h"

static int wait_ready(int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };

    return poll(&p, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

int hv_write_all(int fd, const void *buf, size_t len)
{
    const char *p = buf;
    int r = fault_check(FAULT_WRITE);

    if (r < 0) {
        return r;
    }
    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n >= 0) {
            p += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            r = wait_ready(fd, POLLOUT);
            if (r < 0) {
                return r;
            }
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int hv_read_all(int fd, void *buf, size_t len)
{
    char *p = buf;
    int r = fault_check(FAULT_READ);

    if (r < 0) {
        return r;
    }
    while (len > 0) {
        ssize_t n = read(fd, p, len);

        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (n == 0) {
            return -EIO;
        } else if (errno == EAGAIN) {
            r = wait_ready(fd, POLLIN);
            if (r < 0) {
                return r;
            }
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

/* Reads to the end, growing: files of /proc and /sys say they have no length. */
static int read_to_end(int fd, size_t max, char **ret, size_t *ret_len)
{
    size_t cap = 4096, len = 0;
    hv_autofree char *buf = hv_alloc(cap);

    if (!buf) {
        return -ENOMEM;
    }
    for (;;) {
        if (len + 1 == cap) {
            size_t bigger;
            if (__builtin_mul_overflow(cap, (size_t)2, &bigger)) {
                return -EFBIG;
            }
            char *q = hv_realloc_array(buf, bigger, 1);
            if (!q) {
                return -ENOMEM;
            }
            buf = q;
            cap = bigger;
        }
        int r = fault_check(FAULT_READ);
        if (r < 0) {
            return r;
        }
        ssize_t n = read(fd, buf + len, cap - len - 1);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
        if (len > max) {
            return -EFBIG;
        }
    }
    buf[len] = '\0';
    *ret = hv_steal(buf);
    if (ret_len) {
        *ret_len = len;
    }
    return 0;
}

int hv_read_file(const char *path, size_t max, char **ret, size_t *ret_len)
{
    int r = fault_check(FAULT_OPEN);

    if (r < 0) {
        return r;
    }
    hv_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    return fd < 0 ? -errno : read_to_end(fd, max, ret, ret_len);
}

int hv_read_own_file(const char *path, size_t max, char **ret, size_t *ret_len)
{
    int r = fault_check(FAULT_OPEN);
    struct stat st;

    if (r < 0) {
        return r;
    }
    hv_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0) {
        return -errno;
    }
    return S_ISREG(st.st_mode) ? read_to_end(fd, max, ret, ret_len) : S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
}

static int sync_fd(int fd)
{
    int r = fault_check(FAULT_SYNC);

    if (r == 0 && fsync(fd) < 0) {
        r = -errno;
    }
    return r;
}

static int open_temp(char *template)
{
    int r = fault_check(FAULT_OPEN);

    if (r < 0) {
        return r;
    }
    int fd = mkostemp(template, O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Length of the folder's part of a path, its slash included. */
static int folder_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? (int)(slash - path) + 1 : 0;
}

static int open_folder(const char *path)
{
    const int n = folder_part(path);
    hv_autofree char *folder = n ? hv_asprintf("%.*s", n, path) : hv_strdup(".");

    if (!folder) {
        return -ENOMEM;
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int hv_replacement_begin(struct hv_replacement *f, const char *path, const void *buf, size_t len, unsigned mode)
{
    const int n = folder_part(path);

    *f = (struct hv_replacement){ .fd = -1, .path = hv_strdup(path) };
    char *temp = hv_asprintf("%.*s.%s.XXXXXX", n, path, path + n);
    int r = f->path && temp ? open_temp(temp) : -ENOMEM;

    if (r < 0) {
        free(temp);
        hv_replacement_fini(f);
        return r;
    }
    f->fd = r;
    f->temp = temp;
    r = hv_write_all(f->fd, buf, len);
    if (r == 0 && fchmod(f->fd, (mode_t)mode) < 0) {
        r = -errno;
    }
    if (r < 0) {
        hv_replacement_fini(f);
        return r;
    }
    /* Only a start: where the file system cannot, the sync does it all. */
    (void)sync_file_range(f->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    return 0;
}

int hv_replacement_sync(struct hv_replacement *f)
{
    int r = sync_fd(f->fd);

    hv_cleanup_close(&f->fd);
    f->fd = -1;
    return r;
}

static int move_over(struct hv_replacement *f)
{
    if (rename(f->temp, f->path) < 0) {
        return -errno;
    }
    free(f->temp);
    f->temp = NULL;
    return 0;
}

int hv_replacement_commit(struct hv_replacement *f)
{
    int r = fault_check(FAULT_RENAME);
    struct stat st;

    if (r < 0) {
        return r;
    }
    /*
     * What was there has the temp's name then, and goes in fini: to free it is what takes long of a rename. Files
     * alone: a folder would be exchanged, too, and fini could not take it away.
     */
    if (lstat(f->path, &st) == 0 && S_ISREG(st.st_mode) &&
        renameat2(AT_FDCWD, f->temp, AT_FDCWD, f->path, RENAME_EXCHANGE) == 0) {
        return 0;
    }
    return move_over(f);
}

void hv_replacement_fini(struct hv_replacement *f)
{
    if (!f->path) {
        return;
    }
    if (f->temp) {
        unlink(f->temp);
    }
    hv_cleanup_close(&f->fd);
    free(f->temp);
    free(f->path);
    *f = (struct hv_replacement){ .fd = -1 };
}

int hv_sync_folder(const char *path)
{
    hv_autoclose int dir = open_folder(path);

    return dir < 0 ? dir : sync_fd(dir);
}

int hv_replace_file(const char *path, const void *buf, size_t len, unsigned mode)
{
    struct hv_replacement f;
    /* open the folder first: a rename that cannot be made durable is not begun */
    hv_autoclose int dir = open_folder(path);

    if (dir < 0) {
        return dir;
    }
    int r = hv_replacement_begin(&f, path, buf, len, mode);
    if (r < 0) {
        return r;
    }
    r = hv_replacement_sync(&f);
    if (r == 0) {
        r = fault_check(FAULT_RENAME);
    }
    if (r == 0) {
        r = move_over(&f);
    }
    if (r == 0) {
        r = sync_fd(dir);
    }
    hv_replacement_fini(&f);
    return r;
}

/* ".NAME.XXXXXX", as open_temp() makes them */
static bool is_temp(const char *name)
{
    size_t n = strlen(name);

    if (n < 9 || name[0] != '.' || name[n - 7] != '.') {
        return false;
    }
    for (const char *p = name + n - 6; *p; p++) {
        if (!isalnum((unsigned char)*p)) {
            return false;
        }
    }
    return true;
}

void hv_remove_temps(const char *folder)
{
    DIR *d = opendir(folder);

    if (!d) {
        return;
    }
    for (struct dirent *de; (de = readdir(d));) {
        if (is_temp(de->d_name)) {
            unlinkat(dirfd(d), de->d_name, 0);
        }
    }
    closedir(d);
}
