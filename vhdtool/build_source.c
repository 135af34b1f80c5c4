/* Sources: opening, spooling what can be read only once, and telling one from another. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/endian.h"
#include "hv/base/units.h"
#include "vhdtool/build.h"

#define COPY (256 * KIB)

int build_time(int64_t *ret_s, bool *ret_fixed, struct hv_error *e)
{
    const char *text = getenv("SOURCE_DATE_EPOCH");
    uint64_t s;

    *ret_fixed = text && *text;
    if (!*ret_fixed) {
        *ret_s = (int64_t)(hv_wall_ns() / NS_PER_SEC);
        return 0;
    }
    int r = parse_uint(text, "SOURCE_DATE_EPOCH", 0, (uint64_t)1 << 33, &s, e);
    *ret_s = r < 0 ? 0 : (int64_t)s;
    return r;
}

/* A pipe's content into a file that nobody else sees. */
static int spool_in(int from, const char *dst, int *ret, struct hv_error *e)
{
    const char *slash = strrchr(dst, '/');
    char dir[4096] = ".";
    hv_autofree uint8_t *buf = hv_alloc(COPY);
    hv_autoclose int fd = -1;

    if (!buf) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    if (slash) {
        snprintf(dir, sizeof(dir), "%.*s", (int)(slash - dst), slash == dst ? "/" : dst);
        if (slash == dst) {
            hv_strlcpy(dir, "/", sizeof(dir));
        }
    }
    fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {                            /* a file system without O_TMPFILE */
        char path[] = "/tmp/vhdtool-XXXXXX";
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0) {
            unlink(path);
        }
    }
    if (fd < 0) {
        return hv_fail_errno(e, errno, "-", "cannot keep what comes from stdin");
    }
    for (;;) {
        ssize_t n = read(from, buf, COPY);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return hv_fail_errno(e, errno, "-", "cannot read");
        }
        if (n == 0) {
            break;
        }
        int r = hv_write_all(fd, buf, (size_t)n);
        if (r < 0) {
            return hv_fail_errno(e, -r, "-", "cannot keep what comes from stdin");
        }
    }
    *ret = hv_steal_fd(fd);
    return 0;
}

int build_source_open(const char *name, bool spool, const char *dst, struct build_source *ret, struct hv_error *e)
{
    struct build_source s = { .name = name, .fd = -1 };
    struct stat st;

    s.fd = strcmp(name, "-") == 0 ? dup(STDIN_FILENO) : open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (s.fd < 0 || fstat(s.fd, &st) < 0) {
        int err = errno;
        build_source_close(&s);
        return hv_fail_errno(e, err, name, "cannot open");
    }
    s.folder = S_ISDIR(st.st_mode);
    s.seekable = S_ISREG(st.st_mode);
    if (!s.folder && !s.seekable && spool) {
        int fd, r = spool_in(s.fd, dst, &fd, e);
        close(s.fd);
        s.fd = -1;
        if (r < 0) {
            return r;
        }
        s.fd = fd;
        s.seekable = true;
        if (fstat(s.fd, &st) < 0) {
            return hv_fail_errno(e, errno, name, "cannot read");
        }
    }
    if (s.seekable) {
        s.size = (uint64_t)st.st_size;
    }
    *ret = s;
    return 0;
}

void build_source_close(struct build_source *s)
{
    if (s->fd >= 0) {
        close(s->fd);
    }
    s->fd = -1;
}

int build_source_walk(struct build_source *s, const struct build_sink *sink, struct hv_error *e)
{
    if (s->seekable && lseek(s->fd, 0, SEEK_SET) < 0) {
        return hv_fail_errno(e, errno, s->name, "cannot read");
    }
    return s->folder ? build_folder_walk(s, sink, e) : build_archive_walk(s, sink, e);
}

/* ---- what a source is, in one number ---- */

static void digest_u64(struct digest *d, uint64_t v)
{
    uint8_t b[8];

    put_le64(b, v);
    digest_add(d, b, sizeof(b));
}

static void digest_text(struct digest *d, const char *s)
{
    digest_add(d, s ? s : "", s ? strlen(s) + 1 : 1);
}

static int digest_file(void *arg, const struct ext4_file *f, uint64_t size, bool data, struct hv_error *e)
{
    struct digest *d = arg;

    digest_text(d, f->path);
    digest_text(d, f->target);
    digest_u64(d, f->mode | (uint64_t)f->hardlink << 32);
    digest_u64(d, f->uid | (uint64_t)f->gid << 32);
    digest_u64(d, f->major | (uint64_t)f->minor << 32);
    digest_u64(d, (uint64_t)f->mtime.s);
    digest_u64(d, f->mtime.ns);
    digest_u64(d, size);
    return 0;
}

static int digest_data(void *arg, uint64_t off, const void *p, size_t len, struct hv_error *e)
{
    digest_u64(arg, off);
    digest_u64(arg, len);
    digest_add(arg, p, len);
    return 0;
}

static int digest_xattr(void *arg, const char *name, const void *value, size_t len, struct hv_error *e)
{
    digest_text(arg, name);
    digest_u64(arg, len);
    digest_add(arg, value, len);
    return 0;
}

int build_source_digest(struct build_source *s, struct digest *d, struct hv_error *e)
{
    hv_autofree uint8_t *buf = NULL;

    if (s->folder) {
        struct build_sink sink = { .add = digest_file, .data = digest_data, .xattr = digest_xattr,
                                   .want_data = true, .arg = d };
        return build_source_walk(s, &sink, e);
    }
    buf = hv_alloc(COPY);
    if (!buf) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    for (uint64_t at = 0;;) {
        ssize_t n = pread(s->fd, buf, COPY, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return hv_fail_errno(e, errno, s->name, "cannot read");
        }
        if (n == 0) {
            return 0;
        }
        digest_add(d, buf, (size_t)n);
        at += (uint64_t)n;
    }
}
