/* The list of disks and DVD drives of a VM: in order of their place, one JSON object each. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/units.h"
#include "hv/settings/settings.h"

static const char *const formats[] = {"raw", "vhd", "vhdx"};

void setting_disk_fini(struct setting_disk *d)
{
    free(d->path);
    d->path = NULL;
}

static int copy_disk(struct setting_disk *dst, const struct setting_disk *src)
{
    *dst = *src;
    dst->path = src->path ? hv_strdup(src->path) : NULL;
    return src->path && !dst->path ? -ENOMEM : 0;
}

void settings_disks_fini(struct settings *s)
{
    for (unsigned i = 0; i < s->disks; i++)
        setting_disk_fini(&s->disk[i]);
    free(s->disk);
    s->disk = NULL;
    s->disks = 0;
}

int settings_disks_copy(struct settings *dst, const struct settings *src)
{
    struct setting_disk *list = src->disks ? hv_alloc_array(SETTING_DISKS_MAX, sizeof(*list)) : NULL;
    if (src->disks && !list)
        return -ENOMEM;
    for (unsigned i = 0; i < src->disks; i++)
        if (copy_disk(&list[i], &src->disk[i]) < 0) {
            while (i > 0)
                setting_disk_fini(&list[--i]);
            free(list);
            return -ENOMEM;
        }
    settings_disks_fini(dst);
    dst->disk = list;
    dst->disks = src->disks;
    return 0;
}

const char *setting_disk_location(const struct setting_disk *d, char buf[SETTING_LOCATION_SIZE])
{
    snprintf(buf, SETTING_LOCATION_SIZE, "scsi0:%u", d->lun);
    return buf;
}

int setting_disk_parse_location(const char *text, unsigned *ret_lun, struct hv_error *e)
{
    uint64_t lun;
    struct hv_error why = {0};
    if (strncmp(text, "scsi0:", 6) != 0 || parse_uint(text + 6, text, 0, SETTING_DISKS_MAX - 1, &lun, &why) < 0) {
        hv_fail(e, HV_USAGE, text, "is no place for a disk");
        hv_hint(e, "scsi0:0 to scsi0:63");
        return -EINVAL;
    }
    *ret_lun = (unsigned)lun;
    return 0;
}

struct setting_disk *settings_disk(const struct settings *s, unsigned lun)
{
    for (unsigned i = 0; i < s->disks; i++)
        if (s->disk[i].lun == lun)
            return &s->disk[i];
    return NULL;
}

int settings_disk_free_lun(const struct settings *s)
{
    for (unsigned lun = 0; lun < SETTING_DISKS_MAX; lun++)
        if (!settings_disk(s, lun))
            return (int)lun;
    return -ENOSPC;
}

int settings_disk_put(struct settings *s, const struct setting_disk *d)
{
    struct setting_disk fresh, *there = settings_disk(s, d->lun);
    hv_assert(d->lun < SETTING_DISKS_MAX);
    if (!s->disk && !(s->disk = hv_alloc_array(SETTING_DISKS_MAX, sizeof(*s->disk))))
        return -ENOMEM;
    if (copy_disk(&fresh, d) < 0)
        return -ENOMEM;
    if (there) {
        setting_disk_fini(there);
        *there = fresh;
        return 0;
    }
    unsigned at = s->disks++;
    for (; at > 0 && s->disk[at - 1].lun > d->lun; at--)
        s->disk[at] = s->disk[at - 1];
    s->disk[at] = fresh;
    return 0;
}

void settings_disk_remove(struct settings *s, unsigned lun)
{
    struct setting_disk *d = settings_disk(s, lun);
    if (!d)
        return;
    setting_disk_fini(d);
    s->disks--;
    memmove(d, d + 1, (size_t)(s->disk + s->disks - d) * sizeof(*d));
}

bool settings_disks_equal(const struct settings *a, const struct settings *b)
{
    if (a->disks != b->disks)
        return false;
    for (unsigned i = 0; i < a->disks; i++) {
        const struct setting_disk *x = &a->disk[i], *y = &b->disk[i];
        if (x->lun != y->lun || x->dvd != y->dvd || x->read_only != y->read_only || x->format != y->format ||
            x->max_iops != y->max_iops || !x->path != !y->path || (x->path && strcmp(x->path, y->path) != 0))
            return false;
    }
    return true;
}

/* ---- JSON ---- */

json_t *setting_disk_to_json(const struct setting_disk *d)
{
    char where[SETTING_LOCATION_SIZE];
    return json_pack("{s:s s:s s:s? s:s? s:b s:I}", "location", setting_disk_location(d, where), "type",
                     d->dvd ? "dvd" : "disk", "path", d->path, "format",
                     d->format == SET_FORMAT_UNKNOWN ? NULL : formats[d->format - SET_FORMAT_RAW], "read_only",
                     d->read_only, "max_iops", (json_int_t)d->max_iops);
}

json_t *settings_disks_to_json(const struct settings *s)
{
    json_t *list = json_array();
    for (unsigned i = 0; list && i < s->disks; i++)
        json_array_append_new(list, setting_disk_to_json(&s->disk[i]));
    return list;
}

static int bad(struct hv_error *e, const char *key, const char *what)
{
    char object[64];
    snprintf(object, sizeof(object), "disks.%s", key);
    return hv_fail(e, HV_USAGE, object, "%s", what);
}

const char *setting_format_word(enum set_format f) { return f == SET_FORMAT_UNKNOWN ? NULL : formats[f - SET_FORMAT_RAW]; }

int setting_format_parse(const char *word, enum set_format *ret)
{
    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
        if (strcmp(word, formats[i]) == 0) {
            *ret = (enum set_format)(SET_FORMAT_RAW + i);
            return 0;
        }
    return -EINVAL;
}

static int one_member(struct setting_disk *d, const char *key, const json_t *v, bool *has_location, struct hv_error *e)
{
    const char *text = json_string_value(v);
    if (strcmp(key, "location") == 0) {
        *has_location = true;
        return text ? setting_disk_parse_location(text, &d->lun, e) : bad(e, key, "it has to be like scsi0:0");
    }
    if (strcmp(key, "type") == 0) {
        if (!text || (strcmp(text, "disk") != 0 && strcmp(text, "dvd") != 0))
            return bad(e, key, "it has to be disk or dvd");
        d->dvd = strcmp(text, "dvd") == 0;
        return 0;
    }
    if (strcmp(key, "path") == 0) {
        if (!json_is_null(v) && (!text || text[0] != '/' || strlen(text) > 4095 || !setting_text_ok(text)))
            return bad(e, key, "it has to be an absolute path, without control characters");
        if (text && !(d->path = hv_strdup(text)))
            return hv_fail(e, HV_NO_RESOURCES, "disks", "out of memory");
        return 0;
    }
    if (strcmp(key, "format") == 0)
        return json_is_null(v) || (text && setting_format_parse(text, &d->format) == 0)
                   ? 0 : bad(e, key, "it has to be raw, vhd or vhdx");
    if (strcmp(key, "read_only") == 0) {
        d->read_only = json_is_true(v);
        return json_is_boolean(v) ? 0 : bad(e, key, "it has to be true or false");
    }
    if (strcmp(key, "max_iops") == 0) {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > SETTING_IOPS_MAX)
            return bad(e, key, "it has to be a number, 0 to 100000000");
        d->max_iops = (uint32_t)json_integer_value(v);
        return 0;
    }
    return bad(e, key, "there is no such key");
}

int setting_disk_from_json(const json_t *o, struct setting_disk *ret, bool *ret_has_location, struct hv_error *e)
{
    struct setting_disk d = {0};
    const char *key;
    json_t *v;
    int r = json_is_object(o) ? 0 : bad(e, "", "each has to be an object");
    *ret_has_location = false;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        if (r == 0)
            r = one_member(&d, key, v, ret_has_location, e);
    }
    if (r == 0 && !d.path && !d.dvd)
        r = bad(e, "path", "a disk needs one; a dvd drive may be empty");
    if (r < 0) {
        setting_disk_fini(&d);
        return r;
    }
    *ret = d;
    return 0;
}

int settings_disks_from_json(struct settings *s, const json_t *list, struct hv_error *e)
{
    size_t i;
    json_t *o;
    if (!json_is_array(list) && !json_is_null(list))
        return bad(e, "", "they have to be a list");
    settings_disks_fini(s);
    json_array_foreach(list, i, o) {
        struct setting_disk d;
        bool placed;
        int r = setting_disk_from_json(o, &d, &placed, e);
        if (r < 0)
            return r;
        int lun = placed ? (int)d.lun : settings_disk_free_lun(s);
        if (lun < 0 || (placed && settings_disk(s, d.lun)))
            r = bad(e, "location", lun < 0 ? "there are more than 64" : "two disks have the same");
        d.lun = (unsigned)lun;
        if (r == 0 && settings_disk_put(s, &d) < 0)
            r = hv_fail(e, HV_NO_RESOURCES, "disks", "out of memory");
        setting_disk_fini(&d);
        if (r < 0)
            return r;
    }
    return 0;
}
