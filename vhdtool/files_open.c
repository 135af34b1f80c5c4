/* IMAGE[:N][:/path]: taking it apart, choosing the partition, opening what is in it. */
#include "vhdtool/files.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "hv/base/strbuf.h"

/* "web.vhdx:2" -> "web.vhdx", 2; unless there is a file of that name. */
static void take_number(struct image_path *p)
{
    char *colon = strrchr(p->image, ':');

    if (!colon || colon == p->image || access(p->image, F_OK) == 0 || !colon[1] || strlen(colon + 1) > 4 ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1)) {
        return;
    }
    p->part = (int)strtoul(colon + 1, NULL, 10);
    *colon = '\0';
}

bool image_path_parse(const char *arg, bool must, struct image_path *ret)
{
    const char *colon = strstr(arg, ":/");

    *ret = (struct image_path){ .part = -1 };
    if (!must && (!colon || colon == arg || access(arg, F_OK) == 0)) {
        return false;
    }
    if (colon && colon != arg && !(must && access(arg, F_OK) == 0)) {
        ret->path = colon + 1;
        snprintf(ret->image, sizeof(ret->image), "%.*s", (int)MIN((size_t)(colon - arg), sizeof(ret->image) - 1), arg);
    } else {
        hv_strlcpy(ret->image, arg, sizeof(ret->image));
    }
    take_number(ret);
    return true;
}

/* "p1 ntfs, p2 swap": what there is instead of what was wanted. */
static char *what_is_there(struct disk *d, const struct partition_table *t)
{
    strbuf_auto sb = { 0 };

    for (unsigned i = 0; i < t->n; i++) {
        struct probe pr;
        if (!t->p[i].extended && probe_read(d, t->p[i].offset, t->p[i].len, &pr) == 0) {
            strbuf_addf(&sb, "%sp%u %s", sb.len ? ", " : "", t->p[i].number,
                        pr.kind == PROBE_NONE ? "unknown" : pr.type);
        }
    }
    return strbuf_detach(&sb, NULL);
}

static bool readable(enum probe_kind k)
{
    return k == PROBE_EXT || k == PROBE_FAT || k == PROBE_ISO;
}

static int choose(struct disk *d, const char *path, const struct partition_table *t, int part, unsigned *ret_part,
                  uint64_t *ret_off, uint64_t *ret_len, struct hv_error *e)
{
    const struct partition *best = NULL;
    struct probe pr, whole;
    int r = probe_read(d, 0, disk_size(d), &whole);

    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot read");
    }
    /* An ISO may carry a partition table for those who boot it from a stick. */
    if (part == 0 || (part < 0 && readable(whole.kind) && (t->scheme == PARTITION_NONE || whole.kind == PROBE_ISO))) {
        *ret_part = 0;
        *ret_off = 0;
        *ret_len = disk_size(d);
        return 0;
    }
    if (part > 0) {
        best = partition_find(t, (unsigned)part);
        if (!best || best->extended) {
            r = hv_fail(e, HV_NOT_FOUND, path, "has no partition %d", part);
            hv_hint(e, "vhdtool info %s", path);
            return r;
        }
    }
    enum probe_kind order[] = { PROBE_EXT, PROBE_FAT, PROBE_ISO };
    for (unsigned k = 0; k < ARRAY_SIZE(order) && !best; k++) {
        for (unsigned i = 0; i < t->n && !best; i++) {
            r = t->p[i].extended ? 0 : probe_read(d, t->p[i].offset, t->p[i].len, &pr);
            if (r < 0) {
                return hv_fail_errno(e, -r, path, "cannot read");
            }
            best = !t->p[i].extended && pr.kind == order[k] ? &t->p[i] : NULL;
        }
    }
    if (!best) {
        hv_autofree char *there = what_is_there(d, t);
        bool some = there && *there;
        return hv_fail(e, HV_UNSUPPORTED, path, "no ext4, vfat or ISO 9660 in it%s%s%s", some ? " (" : "",
                       some ? there : whole.kind == PROBE_NONE ? "" : ", but ",
                       some ? ")" : whole.kind == PROBE_NONE ? "" : whole.type);
    }
    *ret_part = best->number;
    *ret_off = best->offset;
    *ret_len = best->len;
    return 0;
}

int image_choose(struct disk *d, const char *path, int part, unsigned *ret_part, uint64_t *ret_off, uint64_t *ret_len,
                 struct hv_error *e)
{
    struct partition_table t;
    int r = partition_read(d, &t, e);

    if (r < 0) {
        if (e && !e->object[0]) {
            hv_strlcpy(e->object, path, sizeof(e->object));
        }
        return r;
    }
    r = choose(d, path, &t, part, ret_part, ret_off, ret_len, e);
    partition_table_fini(&t);
    return r;
}

int image_open(struct cli_call *c, const struct image_path *p, bool write, struct image *ret, struct hv_error *e)
{
    struct image im = { 0 };
    struct probe pr;
    int r = write ? open_disk(c, p->image, DISK_WRITE, &im.disk, e)
                  : open_to_look(c, p->image, 0, &im.disk, im.in_use, e);

    if (r < 0) {
        return r;
    }
    if (im.in_use[0]) {
        cli_warn(c, p->image, "in use by %s: what is being written may be missing", im.in_use);
    }
    r = image_choose(im.disk, p->image, p->part, &im.part, &im.off, &im.len, e);
    if (r == 0) {
        r = probe_read(im.disk, im.off, im.len, &pr);
        if (r < 0) {
            hv_fail_errno(e, -r, p->image, "cannot read");
        } else if (pr.kind == PROBE_ISO && !write) {
            r = iso_open(im.disk, im.off, im.len, &im.fs, e);
        } else {
            r = fs_open(im.disk, im.off, im.len, write, &im.fs, e);
        }
    }
    if (r < 0) {
        if (e && !e->object[0]) {
            hv_strlcpy(e->object, p->image, sizeof(e->object));
        }
        disk_close(im.disk, NULL);
        return r;
    }
    if (im.fs->note[0]) {
        cli_warn(c, p->image, "%s", im.fs->note);
    }
    *ret = im;
    return 0;
}

int image_close(struct image *im, const char *path, struct hv_error *e)
{
    struct hv_error why = { 0 };
    int r = fs_close(im->fs), r2 = disk_close(im->disk, &why);

    *im = (struct image){ 0 };
    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot write");
    }
    if (r2 < 0 && e) {
        *e = why;
    }
    return r2;
}
