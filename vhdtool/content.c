/* What lies in a disk: partitions shown, grown, and their free blocks given back. */
#include "vhdtool/content.h"

#include <errno.h>
#include <stdio.h>

#include "hv/base/strbuf.h"
#include "hv/base/units.h"
#include "hv/fs/ext4.h"
#include "hv/fs/partition.h"

/* ---- shown ---- */

static json_t *text_or_null(const char *s)
{
    json_t *j = s && s[0] ? json_string(s) : NULL;

    return j ? j : json_null();
}

static json_t *part_json(struct disk *d, unsigned number, uint64_t off, uint64_t len, const char *type)
{
    struct probe p;

    if (probe_read(d, off, len, &p) < 0) {
        p = (struct probe){ .kind = PROBE_NONE };
    }
    return json_pack("{s:i s:I s:I s:o s:o s:o s:o}", "number", (int)number, "offset", (json_int_t)off, "size",
                     (json_int_t)len, "type", text_or_null(type), "filesystem",
                     p.kind == PROBE_NONE ? json_null() : json_string(p.type), "label", text_or_null(p.label), "uuid",
                     text_or_null(p.uuid));
}

json_t *content_json(struct disk *d)
{
    struct partition_table t;
    struct probe whole;
    json_t *list;

    if (partition_read(d, &t, NULL) < 0) {
        return json_null();
    }
    list = json_array();
    if (t.scheme == PARTITION_NONE && probe_read(d, 0, disk_size(d), &whole) == 0 && whole.kind != PROBE_NONE) {
        json_array_append_new(list, part_json(d, 0, 0, disk_size(d), NULL));
    }
    for (unsigned i = 0; i < t.n; i++) {
        if (!t.p[i].extended) {
            json_array_append_new(list, part_json(d, t.p[i].number, t.p[i].offset, t.p[i].len,
                                                  partition_type_name(&t, &t.p[i])));
        }
    }
    partition_table_fini(&t);
    return list;
}

const char *content_text(const json_t *partitions, char *buf, size_t size)
{
    strbuf_auto sb = { 0 };
    const json_t *p;
    char len[24];
    size_t i;

    json_array_foreach(partitions, i, p) {
        int number = (int)json_integer_value(json_object_get(p, "number"));
        const char *fs = json_string_value(json_object_get(p, "filesystem"));
        const char *label = json_string_value(json_object_get(p, "label"));
        const char *uuid = json_string_value(json_object_get(p, "uuid"));
        const char *type = json_string_value(json_object_get(p, "type"));
        if (number) {
            strbuf_addf(&sb, "%sp%d ", sb.len ? ", " : "", number);
        }
        strbuf_adds(&sb, format_size((uint64_t)json_integer_value(json_object_get(p, "size")), len, sizeof(len)));
        strbuf_addf(&sb, " %s", fs ? fs : type ? type : "unknown");
        if (label) {
            strbuf_addf(&sb, " '%s'", label);
        }
        if (uuid) {
            strbuf_addf(&sb, " %s", uuid);
        }
    }
    hv_strlcpy(buf, sb.len && !sb.err ? sb.buf : "-", size);
    return buf;
}

/* ---- grown ---- */

static struct partition *last_partition(struct partition_table *t)
{
    struct partition *last = NULL;

    for (unsigned i = 0; i < t->n; i++) {
        if (!t->p[i].extended && (!last || t->p[i].offset > last->offset)) {
            last = &t->p[i];
        }
    }
    return last;
}

/* The one to grow, with nothing after it. */
static int choose(struct partition_table *t, unsigned number, struct partition **ret, struct hv_error *e)
{
    struct partition *p = number ? (struct partition *)partition_find(t, number) : last_partition(t);

    if (!p) {
        return number ? hv_fail(e, HV_NOT_FOUND, NULL, "has no partition %u", number)
                      : hv_fail(e, HV_NOT_FOUND, NULL, "has no partition");
    }
    for (unsigned i = 0; i < t->n; i++) {
        if (t->scheme == PARTITION_MBR && t->p[i].extended) {
            hv_fail(e, HV_UNSUPPORTED, NULL, "an MBR with logical partitions cannot be changed");
            return -EOPNOTSUPP;
        }
        if (&t->p[i] != p && t->p[i].offset >= p->offset + p->len) {
            hv_fail(e, HV_UNSUPPORTED, NULL, "partition %u cannot grow: partition %u comes after it", p->number,
                    t->p[i].number);
            return -EOPNOTSUPP;
        }
    }
    *ret = p;
    return 0;
}

int content_can_grow(struct disk *d, unsigned number, struct hv_error *e)
{
    struct partition_table t;
    struct partition *p;
    int r = partition_read(d, &t, e);

    if (r == 0 && t.scheme != PARTITION_NONE) {
        r = choose(&t, number, &p, e);
    }
    partition_table_fini(&t);
    return r;
}

static int grow_entry(struct disk *d, struct partition_table *t, struct partition *p, struct hv_error *e)
{
    uint64_t first, end;

    partition_limits(d, t->scheme, &first, &end);
    end = ROUND_DOWN(end, PARTITION_ALIGN);
    if (end > p->offset + p->len) {
        p->len = end - p->offset;
    }
    return partition_write(d, t, e);
}

int content_grow(struct disk *d, unsigned number, char *ret_what, size_t size, struct hv_error *e)
{
    struct partition_table t;
    struct partition *p = NULL;
    struct probe pr;
    uint64_t off = 0, len = disk_size(d);
    char text[24];
    int r = partition_read(d, &t, e);

    if (r < 0) {
        return r;
    }
    if (t.scheme != PARTITION_NONE) {
        r = choose(&t, number, &p, e);
        if (r == 0) {
            r = grow_entry(d, &t, p, e);
            off = p->offset;
            len = p->len;
            number = p->number;
        }
    }
    if (r == 0) {
        r = probe_read(d, off, len, &pr);
        bool ext4 = r == 0 && pr.kind == PROBE_EXT;
        if (ext4) {
            r = ext4_grow(d, off, len, e);
        } else if (r < 0) {
            hv_fail_errno(e, -r, NULL, "cannot read the file system");
        }
        snprintf(ret_what, size, "%s%.0u%s%s, %s%s", p ? "p" : "", p ? number : 0, p ? " " : "",
                 format_size_exact(len, text, sizeof(text)), ext4 ? pr.type : pr.kind == PROBE_NONE ? "no file system" : pr.type,
                 ext4 ? " too" : pr.kind == PROBE_NONE ? "" : " not: its own tools grow it");
    }
    partition_table_fini(&t);
    return r;
}

/* ---- made smaller ---- */

int content_least_size(struct disk *d, uint64_t *ret, struct hv_error *e)
{
    struct partition_table t;
    struct probe pr;
    uint64_t least;
    int r = partition_read(d, &t, e);

    if (r < 0) {
        return r;
    }
    least = partition_least_size(&t);
    if (t.scheme == PARTITION_NONE) {
        r = probe_read(d, 0, disk_size(d), &pr);
        least = r < 0 ? 0 : pr.size;
    }
    partition_table_fini(&t);
    if (r < 0) {
        return hv_fail_errno(e, -r, NULL, "cannot read");
    }
    if (least == 0) {
        hv_fail(e, HV_UNSUPPORTED, NULL, "has no partitions and no file system that says how much of it is used");
        return -EOPNOTSUPP;
    }
    *ret = MIN(ROUND_UP(least, (uint64_t)disk_logical_sector(d)), disk_size(d));
    return 0;
}

int content_move_backup(struct disk *d, uint64_t size, struct hv_error *e)
{
    struct partition_table t;
    int r = partition_read(d, &t, e);

    if (r == 0 && t.scheme == PARTITION_GPT) {
        r = partition_write_within(d, size, &t, e);
    }
    if (r == 0) {
        partition_table_fini(&t);
    }
    return r;
}

/* ---- given back ---- */

struct giving { struct disk *d; uint64_t off, bytes; };

static int give_back(void *arg, uint64_t off, uint64_t len)
{
    struct giving *g = arg;

    g->bytes += len;
    return disk_discard(g->d, g->off + off, len);
}

static int discard_part(struct giving *g, uint64_t off, uint64_t len, struct hv_error *e)
{
    struct probe p;
    struct fs *fs;
    int r = probe_read(g->d, off, len, &p);

    if (r < 0) {
        return hv_fail_errno(e, -r, NULL, "cannot read the file system");
    }
    /* What cannot be read, or is not clean, keeps all its blocks. */
    if (p.kind != PROBE_EXT || p.dirty || fs_open(g->d, off, len, false, &fs, NULL) < 0) {
        return 0;
    }
    g->off = off;
    r = fs->ops->each_free(fs, give_back, g);
    fs_close(fs);
    return r == -EUCLEAN || r == -EBUSY ? 0 : r < 0 ? hv_fail_errno(e, -r, NULL, "cannot give back free blocks") : 0;
}

int content_discard_free(struct disk *d, uint64_t *ret_bytes, struct hv_error *e)
{
    struct giving g = { .d = d };
    struct partition_table t;
    int r = 0;

    *ret_bytes = 0;
    if (partition_read(d, &t, NULL) < 0) {
        return 0;                            /* nothing to know about it */
    }
    if (t.scheme == PARTITION_NONE) {
        r = discard_part(&g, 0, disk_size(d), e);
    }
    for (unsigned i = 0; i < t.n && r == 0; i++) {
        r = t.p[i].extended ? 0 : discard_part(&g, t.p[i].offset, t.p[i].len, e);
    }
    partition_table_fini(&t);
    *ret_bytes = g.bytes;
    return r;
}
