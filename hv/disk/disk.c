/*
 * Disks as their users see them: a chain of layers, read from the top down, written at the
 * top only. Formats answer for one file each; what spans files is here.
 */
#include "hv/disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "hv/disk/disk_impl.h"

static const struct disk_format *const formats[DISK_KIND_COUNT] = {
    [DISK_RAW] = &disk_format_raw,
    [DISK_VHD] = &disk_format_vhd,
    [DISK_VHDX] = &disk_format_vhdx,
};

static const char *const type_names[DISK_TYPE_COUNT] = { "fixed", "dynamic", "differencing" };

static const struct { const char *suffix; enum disk_kind kind; } suffixes[] = {
    { ".vhd", DISK_VHD },   { ".avhd", DISK_VHD }, { ".vhdx", DISK_VHDX }, { ".avhdx", DISK_VHDX },
    { ".raw", DISK_RAW },   { ".img", DISK_RAW },  { ".iso", DISK_RAW },
};

const char *disk_kind_name(enum disk_kind k)
{
    return formats[k]->name;
}

const char *disk_type_name(enum disk_type t)
{
    return type_names[t];
}

int disk_kind_parse(const char *word, enum disk_kind *ret)
{
    for (int i = 0; i < DISK_KIND_COUNT; i++) {
        if (strcmp(word, formats[i]->name) == 0) {
            *ret = (enum disk_kind)i;
            return 0;
        }
    }
    return -EINVAL;
}

int disk_kind_of_path(const char *path, enum disk_kind *ret)
{
    const char *dot = strrchr(path, '.');

    for (size_t i = 0; dot && i < ARRAY_SIZE(suffixes); i++) {
        if (strcasecmp(dot, suffixes[i].suffix) == 0) {
            *ret = suffixes[i].kind;
            return 0;
        }
    }
    return -EINVAL;
}

void disk_problem(disk_problem_fn *fn, void *arg, unsigned flags, const char *fmt, ...)
{
    struct disk_problem p = { .repairable = flags & PROBLEM_REPAIRABLE,
                              .harmless = flags & PROBLEM_HARMLESS };
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(p.text, sizeof(p.text), fmt, ap);
    va_end(ap);
    fn(arg, &p);
}

/* ---- opening ---- */

/* Formats that people meet and this version does not read: better named than taken for raw. */
static const struct { const char *magic; size_t len; uint64_t off; const char *name, *hint; } foreign[] = {
    { "QFI\xfb", 4, 0, "qcow2", "convert it first: qemu-img convert -O vhdx" },
    { "KDMV", 4, 0, "VMDK", "convert it first: qemu-img convert -O vhdx" },
    { "<<< ", 4, 0, "VDI", "convert it first: qemu-img convert -O vhdx" },
    { "QED\0", 4, 0, "QED", "convert it first: qemu-img convert -O vhdx" },
};

static int refuse_foreign(struct disk_file *f, struct hv_error *e)
{
    uint8_t head[16];

    if (disk_file_read(f, 0, head, sizeof(head)) < 0) {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
        if (memcmp(head + foreign[i].off, foreign[i].magic, foreign[i].len) == 0) {
            int r = hv_fail(e, HV_UNSUPPORTED, disk_file_path(f), "is a %s image", foreign[i].name);

            hv_hint(e, "%s", foreign[i].hint);
            return r;
        }
    }
    return 0;
}

static int choose_format(struct disk_file *f, int wanted, const struct disk_format **ret,
                         struct hv_error *e)
{
    int best = 0, r;

    if (wanted >= 0 && wanted < DISK_KIND_COUNT) {
        *ret = formats[wanted];
        return 0;
    }
    *ret = &disk_format_raw;
    for (int i = DISK_VHD; i < DISK_KIND_COUNT; i++) {
        int sure = formats[i]->probe(f);

        if (sure > best) {
            best = sure;
            *ret = formats[i];
        }
    }
    r = best ? 0 : refuse_foreign(f, e);
    return r;
}

static void layer_free(struct disk_layer *l)
{
    if (!l) {
        return;
    }
    disk_file_unref(l->file);
    free(l->busy.span);
    pthread_mutex_destroy(&l->lock);
    pthread_mutex_destroy(&l->flush_lock);
    l->magic = 0;
    free(l);
}

/* f is taken over. */
static int layer_open(struct disk_file *f, int wanted, bool writable, bool ignore_id,
                      struct disk_layer **ret, struct hv_error *e)
{
    struct disk_layer *l = hv_alloc(sizeof(*l));
    int r;

    if (!l) {
        disk_file_unref(f);
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    l->magic = DISK_LAYER_MAGIC;
    l->file = f;
    l->writable = writable;
    l->ignore_id = ignore_id;
    pthread_mutex_init(&l->lock, NULL);
    pthread_mutex_init(&l->flush_lock, NULL);
    r = choose_format(f, wanted, &l->format, e);
    if (r == 0) {
        r = l->format->open(l, e);
    }
    if (r < 0) {
        layer_free(l);
        return r;
    }
    *ret = l;
    return 0;
}

static int add_layer(struct disk *d, struct disk_layer *l)
{
    struct disk_layer **grown = hv_realloc_array(d->layers, d->count + 1, sizeof(*grown));

    if (!grown) {
        return -ENOMEM;
    }
    d->layers = grown;
    d->layers[d->count++] = l;
    return 0;
}

/* Is what was opened the disk the child was made from? Raw parents have nothing to compare. */
int disk_check_identity(const struct disk_layer *child, struct disk_layer *parent, struct hv_error *e)
{
    const char *path = disk_file_path(parent->file);
    int r;

    if (parent->logical_sector != child->logical_sector) {
        return hv_fail(e, HV_CONFLICT, path, "has logical sectors of %u bytes, its child of %u",
                       parent->logical_sector, child->logical_sector);
    }
    if (guid_is_zero(&parent->data_id) || guid_equal(&parent->data_id, &child->parent.id) ||
        (!guid_is_zero(&child->parent.id2) && guid_equal(&parent->data_id, &child->parent.id2))) {
        return 0;
    }
    if (child->ignore_id) {
        snprintf(parent->note, sizeof(parent->note), "was changed after its child was made");
        return 0;
    }
    hv_fail(e, HV_CONFLICT, path, "was changed after its child %s was made, or is another disk",
            disk_file_path(child->file));
    hv_hint(e, "look at both with vhdtool info; vhdtool chain %s --set-parent %s --ignore-id "
            "accepts it as it is", disk_file_path(child->file), path);
    r = -ESTALE;
    return r;
}

static int open_parents(struct disk *d, const struct disk_options *o, struct hv_error *e)
{
    unsigned file_flags = d->flags & DISK_SHARED ? DISK_FILE_NO_LOCK : 0;

    file_flags |= d->flags & DISK_DIRECT ? DISK_FILE_DIRECT : 0;
    for (;;) {
        struct disk_layer *child = d->layers[d->count - 1], *l;
        struct disk_file *f;
        int r;

        if (child->type != DISK_DIFFERENCING || d->flags & DISK_NO_PARENT) {
            return 0;
        }
        if (d->count >= DISK_CHAIN_MAX) {
            hv_fail(e, HV_USAGE, disk_file_path(d->layers[0]->file),
                    "the chain of parents is longer than %u", DISK_CHAIN_MAX);
            return -ELOOP;
        }
        r = o->parent ? o->parent(o->parent_arg, disk_file_path(child->file), &child->parent, &f, e)
                      : disk_find_parent_with(o->parent_dirs, file_flags, disk_file_path(child->file),
                                              &child->parent, &f, e);
        if (r < 0) {
            return r;
        }
        for (unsigned i = 0; i < d->count; i++) {
            if (disk_file_same(d->layers[i]->file, f)) {
                hv_fail(e, HV_USAGE, disk_file_path(child->file), "the chain of parents comes back to %s",
                        disk_file_path(f));
                disk_file_unref(f);
                return -ELOOP;
            }
        }
        r = layer_open(f, -1, false, d->flags & DISK_IGNORE_ID, &l, e);
        if (r < 0) {
            return r;
        }
        r = add_layer(d, l);
        if (r < 0) {
            l->format->close(l, false);
            layer_free(l);
            return hv_fail_errno(e, -r, NULL, "cannot open");
        }
        /* A parent is what its child is: an image cannot have any file of the host read as raw. */
        if (l->format != child->format) {
            return hv_fail(e, HV_USAGE, disk_file_path(l->file), "is no %s, as the parent of %s has to be",
                           child->format->name, disk_file_path(child->file));
        }
        r = disk_check_identity(child, l, e);
        if (r < 0) {
            return r;
        }
    }
}

int disk_open_file(struct disk_file *f, const struct disk_options *o, struct disk **ret,
                   struct hv_error *e)
{
    static const struct disk_options defaults = { .format = -1 };
    struct disk_layer *l;
    struct disk *d;
    int r;

    if (!o) {
        o = &defaults;
    }
    r = layer_open(f, o->flags & DISK_AS_RAW ? DISK_RAW : o->format, o->flags & DISK_WRITE,
                   o->flags & DISK_IGNORE_ID, &l, e);
    if (r < 0) {
        return r;
    }
    d = hv_alloc(sizeof(*d));
    if (!d || add_layer(d, l) < 0) {
        l->format->close(l, false);
        layer_free(l);
        free(d);
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    d->magic = DISK_MAGIC;
    d->flags = o->flags;
    pthread_mutex_init(&d->partial_lock, NULL);
    r = open_parents(d, o, e);
    if (r < 0) {
        disk_abandon(d);
        return r;
    }
    *ret = d;
    return 0;
}

int disk_open(const char *path, const struct disk_options *o, struct disk **ret, struct hv_error *e)
{
    unsigned want = o ? o->flags : 0, flags = 0;
    struct disk_file *f;
    int r;

    flags |= want & DISK_WRITE ? DISK_FILE_WRITE : 0;
    flags |= want & DISK_DIRECT ? DISK_FILE_DIRECT : 0;
    flags |= want & DISK_SHARED ? DISK_FILE_NO_LOCK : 0;
    flags |= want & DISK_NO_SYNC ? DISK_FILE_NO_SYNC : 0;
    r = disk_file_open(path, flags, &f, e);
    return r < 0 ? r : disk_open_file(f, o, ret, e);
}

static int close_layers(struct disk *d, bool clean)
{
    int first = 0;

    for (unsigned i = 0; i < d->count; i++) {
        int r = d->layers[i]->format->close(d->layers[i], clean);

        first = first ? first : r;
        layer_free(d->layers[i]);
    }
    pthread_mutex_destroy(&d->partial_lock);
    free(d->layers);
    d->magic = 0;
    free(d);
    return first;
}

void disk_abandon(struct disk *d)
{
    if (d) {
        close_layers(d, false);
    }
}

int disk_close(struct disk *d, struct hv_error *e)
{
    hv_autofree char *path = NULL;
    int r, r2;

    if (!d) {
        return 0;
    }
    HV_CHECK(d, DISK_MAGIC);
    path = hv_strdup(disk_file_path(d->layers[0]->file));
    r = disk_flush(d);
    r2 = close_layers(d, r == 0);
    r = r < 0 ? r : r2;
    return r < 0 ? hv_fail_errno(e, -r, path, "cannot write its last changes") : 0;
}

/* ---- what it is ---- */

uint64_t disk_size(const struct disk *d)
{
    return d->layers[0]->size;
}

uint32_t disk_logical_sector(const struct disk *d)
{
    return d->layers[0]->logical_sector;
}

uint32_t disk_physical_sector(const struct disk *d)
{
    return d->layers[0]->physical_sector;
}

bool disk_writable(const struct disk *d)
{
    return d->layers[0]->writable;
}

struct guid disk_id(const struct disk *d)
{
    return d->layers[0]->id;
}

struct disk_layer *disk_layer(struct disk *d, unsigned i)
{
    return i < d->count ? d->layers[i] : NULL;
}

struct disk_file *disk_layer_file(struct disk_layer *l)
{
    return l->file;
}

int disk_layer_info(struct disk_layer *l, bool count, struct disk_info *ret)
{
    int r;

    HV_CHECK(l, DISK_LAYER_MAGIC);
    *ret = (struct disk_info){
        .kind = l->format->kind,
        .type = l->type,
        .size = l->size,
        .file_size = disk_file_size(l->file),
        .allocated = disk_file_allocated(l->file),
        .block_size = l->block_size,
        .logical_sector = l->logical_sector,
        .physical_sector = l->physical_sector,
        .id = l->id,
        .data_id = l->data_id,
        .has_parent = l->type == DISK_DIFFERENCING,
        .parent = l->parent,
    };
    hv_strlcpy(ret->note, l->note, sizeof(ret->note));
    pthread_mutex_lock(&l->lock);
    r = l->format->info(l, count, ret);
    pthread_mutex_unlock(&l->lock);
    return r;
}

/* ---- creating ---- */

int disk_create_in(struct disk_file *f, const struct disk_create *c, struct disk *parent,
                   struct hv_error *e)
{
    struct disk_create full = *c;

    if (c->type == DISK_DIFFERENCING && !parent) {
        return hv_fail(e, HV_USAGE, disk_file_path(f), "a differencing disk needs a parent");
    }
    if (parent) {
        full.type = DISK_DIFFERENCING;
        full.size = c->size ? c->size : disk_size(parent);
        full.logical_sector = disk_logical_sector(parent);
        full.physical_sector = c->physical_sector ? c->physical_sector : disk_physical_sector(parent);
    }
    return formats[c->kind]->create(f, &full, parent, e);
}

/* The entry in the folder is durable too, once this returned. */
static void sync_folder(const char *path)
{
    hv_autofree char *dir = hv_strdup(path);
    char *slash = dir ? strrchr(dir, '/') : NULL;
    int fd;

    if (slash) {
        slash[slash == dir] = '\0';
    }
    fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

int disk_create(const char *path, const struct disk_create *c, struct hv_error *e)
{
    struct disk *parent = NULL;
    struct disk_file *f;
    int r;

    if (c->parent) {
        r = disk_open(c->parent, NULL, &parent, e);
        if (r < 0) {
            return r;
        }
    }
    r = disk_file_open(path, DISK_FILE_WRITE | DISK_FILE_CREATE | (c->no_sync ? DISK_FILE_NO_SYNC : 0), &f, e);
    if (r == 0) {
        r = disk_create_in(f, c, parent, e);
        if (r < 0) {
            unlink(path);
        } else if (!c->no_sync) {
            sync_folder(path);
        }
        disk_file_unref(f);
    }
    disk_close(parent, NULL);
    return r;
}

/* ---- checking ---- */

int disk_check_file(struct disk_file *f, int format, disk_problem_fn *fn, void *arg, struct hv_error *e)
{
    const struct disk_format *chosen;
    int r = choose_format(f, format, &chosen, e);

    return r < 0 ? r : chosen->check(f, fn, arg, e);
}

int disk_repair_file(struct disk_file *f, int format, bool dry, disk_problem_fn *fn, void *arg,
                     struct hv_error *e)
{
    const struct disk_format *chosen;
    int r = choose_format(f, format, &chosen, e);

    return r < 0 ? r : chosen->repair(f, dry, fn, arg, e);
}

/* ---- headers ---- */

void disk_field(struct disk_fields *w, uint64_t at, const char *field, const char *fmt, ...)
{
    char value[1400];
    va_list ap;

    if (w->r) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(value, sizeof(value), fmt, ap);
    va_end(ap);
    w->r = w->fn(w->arg, w->structure, w->off + at, field, value);
}

int disk_headers(struct disk_file *f, int format, disk_field_fn *fn, void *arg, struct hv_error *e)
{
    const struct disk_format *chosen;
    int r = choose_format(f, format, &chosen, e);

    if (r == 0 && chosen->headers) {
        r = chosen->headers(f, fn, arg);
        if (r < 0 && !hv_error_is_set(e)) {
            hv_fail_errno(e, -r, disk_file_path(f), "cannot read the headers");
        }
    }
    return r;
}
