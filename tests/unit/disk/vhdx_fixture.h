/* What the tests of VHDX share: images in memory, chains of them, random numbers. */
#ifndef TESTS_UNIT_DISK_VHDX_FIXTURE_H
#define TESTS_UNIT_DISK_VHDX_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hv/base/endian.h"
#include "hv/disk/disk_impl.h"
#include "hv/disk/vhdx_proto.h"
#include "tests/unit/disk/memfile.c"
#include "tests/unit/roll.h"

/* A chain of images: [0] the base. Names are paths that no host has. */
#define CHAIN_MAX 8
struct image_chain {
    struct memfile *m[CHAIN_MAX];
    char path[CHAIN_MAX][40];
    unsigned count;
};

static int chain_parent(void *arg, const char *child_path, const struct disk_parent_ref *ref,
                        struct disk_file **ret, struct hv_error *e)
{
    struct image_chain *c = arg;

    (void)ref;
    for (unsigned i = 1; i < c->count; i++) {
        if (strcmp(c->path[i], child_path) == 0) {
            *ret = memfile_open(c->m[i - 1], c->path[i - 1], 0);
            return 0;
        }
    }
    return hv_fail(e, HV_NOT_FOUND, child_path, "no parent");
}

static HV_UNUSED int chain_try(struct image_chain *c, unsigned i, struct memfile *m, unsigned flags,
                               struct disk **ret, struct hv_error *e)
{
    struct disk_options o = { .format = DISK_VHDX, .flags = flags, .parent = chain_parent, .parent_arg = c };

    return disk_open_file(memfile_open(m, c->path[i], flags & DISK_WRITE ? DISK_FILE_WRITE : 0), &o, ret, e);
}

/* Image i of the chain, or m in its place, with its parents. */
static HV_UNUSED struct disk *chain_open_as(struct image_chain *c, unsigned i, struct memfile *m, unsigned flags)
{
    struct hv_error e = { 0 };
    struct disk *d = NULL;

    if (chain_try(c, i, m, flags, &d, &e) < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    return d;
}

static HV_UNUSED struct disk *chain_open(struct image_chain *c, unsigned i, unsigned flags)
{
    return chain_open_as(c, i, c->m[i], flags);
}

/* The next image; differencing from the second on. */
static HV_UNUSED void chain_add(struct image_chain *c, struct disk_create what)
{
    struct hv_error e = { 0 };
    struct disk *parent = c->count ? chain_open(c, c->count - 1, 0) : NULL;
    struct disk_file *f;
    unsigned i = c->count;

    hv_assert(i < CHAIN_MAX);
    what.kind = DISK_VHDX;
    snprintf(c->path[i], sizeof(c->path[i]), "/memory/%u.vhdx", i);
    c->m[i] = memfile_new();
    f = memfile_open(c->m[i], c->path[i], DISK_FILE_WRITE);
    if (disk_create_in(f, &what, parent, &e) < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    disk_file_unref(f);
    disk_close(parent, NULL);
    c->count++;
}

static HV_UNUSED void chain_fini(struct image_chain *c)
{
    for (unsigned i = 0; i < c->count; i++) {
        memfile_free(c->m[i]);
    }
    *c = (struct image_chain){ 0 };
}

static HV_UNUSED void must_close(struct disk *d)
{
    struct hv_error e = { 0 };

    if (disk_close(d, &e) < 0) {
        fail_msg("%s", e.message);
    }
}

/* ---- check ---- */

struct findings {
    unsigned count, harmless, repairable;
    char text[4096];
};

static HV_UNUSED void add_finding(void *arg, const struct disk_problem *p)
{
    struct findings *fs = arg;
    size_t n = strlen(fs->text);

    snprintf(fs->text + n, sizeof(fs->text) - n, "%s%s\n", p->harmless ? "(harmless) " : "", p->text);
    fs->count += !p->harmless;
    fs->harmless += p->harmless;
    fs->repairable += p->repairable;
}

static HV_UNUSED struct findings check_image(struct memfile *m, const char *path)
{
    struct disk_file *f = memfile_open(m, path, 0);
    struct findings fs = { 0 };
    struct hv_error e = { 0 };

    if (disk_format_vhdx.check && disk_check_file(f, DISK_VHDX, add_finding, &fs, &e) < 0) {
        fail_msg("check: %s", e.message);
    }
    disk_file_unref(f);
    return fs;
}

static HV_UNUSED void must_be_clean(struct memfile *m, const char *path)
{
    struct findings fs = check_image(m, path);

    if (fs.count) {
        fail_msg("%s: %s", path, fs.text);
    }
}

#endif
