/*
 * Archives through libarchive: tar, cpio, ISO 9660, zip... in any compression. Nothing is ever
 * unpacked on this host: entries go to the sink.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "hv/base/endian.h"
#include "vhdtool/build.h"

#define READ_SIZE (256 * KIB)

struct reader { struct build_source *s; uint8_t *buf; uint64_t at; };

static la_ssize_t on_read(struct archive *a, void *arg, const void **ret)
{
    struct reader *rd = arg;

    for (;;) {
        ssize_t n = rd->s->seekable ? pread(rd->s->fd, rd->buf, READ_SIZE, (off_t)rd->at)
                                    : read(rd->s->fd, rd->buf, READ_SIZE);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            archive_set_error(a, errno, "cannot read");
            return ARCHIVE_FATAL;
        }
        rd->at += (uint64_t)n;
        if (rd->s->progress) {
            *rd->s->progress += (uint64_t)n;
            progress_update(rd->s->bar, *rd->s->progress, rd->s->total);
        }
        *ret = rd->buf;
        return n;
    }
}

static la_int64_t on_skip(struct archive *a, void *arg, la_int64_t request)
{
    struct reader *rd = arg;

    if (!rd->s->seekable || request < 0) {
        return 0;
    }
    uint64_t n = MIN((uint64_t)request, rd->s->size > rd->at ? rd->s->size - rd->at : 0);
    rd->at += n;
    return (la_int64_t)n;
}

static la_int64_t on_seek(struct archive *a, void *arg, la_int64_t off, int whence)
{
    struct reader *rd = arg;
    int64_t base = whence == SEEK_CUR ? (int64_t)rd->at : whence == SEEK_END ? (int64_t)rd->s->size : 0, to;

    if (!rd->s->seekable || __builtin_add_overflow(base, (int64_t)off, &to) || to < 0) {
        return ARCHIVE_FATAL;
    }
    rd->at = (uint64_t)to;
    return to;
}

/* An ACL as getxattr(2) gives it: sorted by tag and id, as Linux wants it. */
struct acl_entry { uint16_t tag, perm; uint32_t id; };

static int compare_acl(const void *a, const void *b)
{
    const struct acl_entry *x = a, *y = b;

    if (x->tag != y->tag) {
        return x->tag < y->tag ? -1 : 1;
    }
    return x->id < y->id ? -1 : x->id > y->id;
}

static int one_acl(struct archive_entry *en, int type, const char *name, const struct build_sink *sink,
                   struct hv_error *e)
{
    static const struct { int from; uint16_t to; bool id; } tags[] = {
        { ARCHIVE_ENTRY_ACL_USER_OBJ, 1, false },  { ARCHIVE_ENTRY_ACL_USER, 2, true },
        { ARCHIVE_ENTRY_ACL_GROUP_OBJ, 4, false }, { ARCHIVE_ENTRY_ACL_GROUP, 8, true },
        { ARCHIVE_ENTRY_ACL_MASK, 16, false },     { ARCHIVE_ENTRY_ACL_OTHER, 32, false },
    };
    struct acl_entry acl[256];
    uint8_t value[4 + 8 * ARRAY_SIZE(acl)];
    unsigned n = 0;
    int want, permset, tag, id, r;
    const char *who;

    if (archive_entry_acl_reset(en, type) <= 3 && type == ARCHIVE_ENTRY_ACL_TYPE_ACCESS) {
        return 0;                            /* no more than the mode says */
    }
    while ((r = archive_entry_acl_next(en, type, &want, &permset, &tag, &id, &who)) == ARCHIVE_OK) {
        for (unsigned i = 0; i < ARRAY_SIZE(tags) && n < ARRAY_SIZE(acl); i++) {
            if (tags[i].from == tag) {
                acl[n++] = (struct acl_entry){ tags[i].to, (uint16_t)(permset & 7),
                                               tags[i].id ? (uint32_t)id : UINT32_MAX };
            }
        }
    }
    if (!n) {
        return 0;
    }
    qsort(acl, n, sizeof(acl[0]), compare_acl);
    put_le32(value, 2);
    for (unsigned i = 0; i < n; i++) {
        put_le16(value + 4 + 8 * i, acl[i].tag);
        put_le16(value + 6 + 8 * i, acl[i].perm);
        put_le32(value + 8 + 8 * i, acl[i].id);
    }
    return sink->xattr(sink->arg, name, value, 4 + 8 * n, e);
}

static int attributes(struct archive_entry *en, const struct build_sink *sink, struct hv_error *e)
{
    const char *name;
    const void *value;
    size_t len;
    int r = 0;

    archive_entry_xattr_reset(en);
    while (r == 0 && archive_entry_xattr_next(en, &name, &value, &len) == ARCHIVE_OK) {
        /* What Linux keeps; the rest is of other systems. */
        if (name && (!strncmp(name, "user.", 5) || !strncmp(name, "security.", 9) || !strncmp(name, "trusted.", 8) ||
                     !strncmp(name, "system.posix_acl_", 17))) {
            r = sink->xattr(sink->arg, name, value, len, e);
        }
    }
    if (r == 0 && (archive_entry_acl_types(en) & ARCHIVE_ENTRY_ACL_TYPE_ACCESS)) {
        r = one_acl(en, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, "system.posix_acl_access", sink, e);
    }
    if (r == 0 && (archive_entry_acl_types(en) & ARCHIVE_ENTRY_ACL_TYPE_DEFAULT)) {
        r = one_acl(en, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, "system.posix_acl_default", sink, e);
    }
    return r;
}

static int archive_failed(struct build_source *s, struct archive *a, const char *path, struct hv_error *e)
{
    const char *why = archive_error_string(a);
    int err = archive_errno(a);

    if (err == EIO || err == ENOSPC || err == ENOMEM) {
        return hv_fail_errno(e, err, s->name, "cannot read");
    }
    hv_fail(e, HV_FAILED, s->name, "%s%sis damaged or no archive: %s", path ? path : "", path ? ": " : "",
            why ? why : "unknown");
    return -EIO;
}

static int content(struct build_source *s, struct archive *a, const char *path, const struct build_sink *sink,
                   struct hv_error *e)
{
    const void *p;
    size_t len;
    la_int64_t off;

    for (;;) {
        int r = archive_read_data_block(a, &p, &len, &off);
        if (r == ARCHIVE_EOF) {
            return 0;
        }
        if (r != ARCHIVE_OK && r != ARCHIVE_WARN) {
            return archive_failed(s, a, path, e);
        }
        if (off < 0) {
            return hv_fail(e, HV_FAILED, s->name, "%s: is damaged", path), -EIO;
        }
        if (len) {
            r = sink->data(sink->arg, (uint64_t)off, p, len, e);
            if (r < 0) {
                return r;
            }
        }
    }
}

static const char *text_of(const char *local, const char *utf8)
{
    return local ? local : utf8;
}

static int entry(struct build_source *s, struct archive *a, struct archive_entry *en, const struct build_sink *sink,
                 struct hv_error *e)
{
    const char *hard = text_of(archive_entry_hardlink(en), archive_entry_hardlink_utf8(en));
    struct ext4_file f = {
        .path = text_of(archive_entry_pathname(en), archive_entry_pathname_utf8(en)),
        .mode = (uint32_t)archive_entry_mode(en),
        .uid = (uint32_t)archive_entry_uid(en),
        .gid = (uint32_t)archive_entry_gid(en),
        .mtime = { .s = archive_entry_mtime(en), .ns = (uint32_t)archive_entry_mtime_nsec(en) },
        .target = hard ? hard : text_of(archive_entry_symlink(en), archive_entry_symlink_utf8(en)),
        .hardlink = hard != NULL,
    };
    uint64_t size = archive_entry_size_is_set(en) && archive_entry_size(en) > 0 ? (uint64_t)archive_entry_size(en) : 0;

    if (!f.path) {
        return hv_fail(e, HV_FAILED, s->name, "has a name that cannot be read"), -EIO;
    }
    if (S_ISLNK(f.mode) && !f.target) {
        return hv_fail(e, HV_FAILED, s->name, "%s: a symbolic link to nowhere", f.path), -EIO;
    }
    if (S_ISCHR(f.mode) || S_ISBLK(f.mode)) {
        f.major = (uint32_t)archive_entry_rdevmajor(en);
        f.minor = (uint32_t)archive_entry_rdevminor(en);
    }
    if (f.mtime.ns > 999999999) {
        f.mtime.ns = 0;
    }
    bool regular = S_ISREG(f.mode) || (f.hardlink && (f.mode & S_IFMT) == 0);
    bool data = regular && (size > 0 || (!f.hardlink && !archive_entry_size_is_set(en)));
    int r = sink->add(sink->arg, &f, regular ? size : 0, data, e);
    if (r == 0 && data && sink->want_data) {
        r = content(s, a, f.path, sink, e);
    }
    if (r == 0 && !f.hardlink) {
        r = attributes(en, sink, e);
    }
    return r;
}

int build_archive_walk(struct build_source *s, const struct build_sink *sink, struct hv_error *e)
{
    struct archive *a = archive_read_new();
    struct reader rd = { .s = s, .buf = hv_alloc(READ_SIZE) };
    struct archive_entry *en;
    uint64_t n = 0;
    int r = -ENOMEM;

    if (!a || !rd.buf) {
        hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
        goto out;
    }
    archive_read_support_filter_all(a);
    archive_read_support_format_all(a);
    archive_read_set_read_callback(a, on_read);
    archive_read_set_skip_callback(a, on_skip);
    if (s->seekable) {
        archive_read_set_seek_callback(a, on_seek);
    }
    archive_read_set_callback_data(a, &rd);
    if (archive_read_open1(a) != ARCHIVE_OK) {
        r = archive_failed(s, a, NULL, e);
        goto out;
    }
    for (r = 0; r == 0; n++) {
        int ar = archive_read_next_header(a, &en);
        if (ar == ARCHIVE_EOF) {
            break;
        }
        /* A warning is about what does not matter here (a name in no known character set...). */
        r = ar == ARCHIVE_OK || ar == ARCHIVE_WARN ? entry(s, a, en, sink, e) : archive_failed(s, a, NULL, e);
    }
out:
    archive_read_free(a);
    free(rd.buf);
    return r;
}
