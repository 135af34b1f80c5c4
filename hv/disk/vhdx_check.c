/* What is wrong with a VHDX, each thing by its name; nothing is written. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/vhdx_sweep.h"

#define TOLD_MAX 100u            /* of one kind; the others are counted */

struct check {
    struct vhdx v;               /* as much of an open image as there is */
    disk_problem_fn *fn;
    void *arg;
    uint64_t faults[VHDX_FAULT_COUNT];
};

/* A reader's refusal as a finding. What is not known is no damage: check could not look. */
static int as_problem(struct check *c, int r, unsigned flags, const struct hv_error *e)
{
    if (r == -EOPNOTSUPP || r == -ENOMEM || e->code != HV_USAGE) {
        return r;
    }
    disk_problem(c->fn, c->arg, flags, "%s", e->message);
    return 1;                    /* told; what comes behind it cannot be read */
}

static int check_headers(struct check *c, struct disk_file *f, struct hv_error *e)
{
    struct vhdx_headers hs;
    uint8_t id[8];
    int r = disk_file_read(f, 0, id, sizeof(id));

    if (r == 0) {
        r = vhdx_headers_read(f, &hs);
    }
    if (r < 0) {
        return hv_fail_errno(e, -r, disk_file_path(f), "cannot read the header area");
    }
    if (memcmp(id, VHDX_SIGNATURE, 8) != 0) {
        disk_problem(c->fn, c->arg, hs.current >= 0 ? PROBLEM_REPAIRABLE : 0, "file identifier: no signature");
    }
    for (int i = 0; i < 2; i++) {
        if (hs.why[i]) {         /* what a crash in the middle of writing it leaves: nothing is lost */
            disk_problem(c->fn, c->arg, hs.current >= 0 ? PROBLEM_REPAIRABLE | PROBLEM_HARMLESS : 0, "header %d: %s", i + 1,
                         hs.why[i]);
        }
    }
    if (hs.current < 0) {
        disk_problem(c->fn, c->arg, 0, hs.why[0] ? "no header is good" : "both headers have one sequence number and differ");
        return 1;
    }
    c->v.slot = hs.current;
    c->v.header = hs.slot[hs.current];
    r = vhdx_header_check(f, &c->v.header, e);
    return r < 0 ? as_problem(c, r, 0, e) : 0;
}

/* From here on the file is looked at as it will be once the log is replayed. */
static int check_log(struct check *c, struct disk_file *f, struct hv_error *e)
{
    struct vhdx_replay rp;
    int r = vhdx_replay_read(f, &c->v.header, &rp, e);

    if (r < 0) {
        bool none = r == -EINVAL && hv_error_is_set(e) && e->hint[0];

        r = as_problem(c, r, none ? PROBLEM_REPAIRABLE : 0, e);
        if (r < 0) {
            return r;
        }
        c->v.file = disk_file_ref(f);
        return 0;
    }
    if (rp.entries) {
        disk_problem(c->fn, c->arg, PROBLEM_REPAIRABLE | PROBLEM_HARMLESS, "log: %u %s to be replayed", rp.entries,
                     rp.entries == 1 ? "entry waits" : "entries wait");
        r = vhdx_replay_overlay(f, &rp, &c->v.file);
    } else {
        c->v.file = disk_file_ref(f);
    }
    vhdx_replay_fini(&rp);
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(f), "cannot show the log replayed") : 0;
}

static int check_regions(struct check *c, struct hv_error *e)
{
    hv_autofree uint8_t *both = hv_alloc(2 * VHDX_REGIONS_SIZE);
    int r = vhdx_regions_read(c->v.file, &c->v.header, &c->v.regions, e);

    if (!both) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    if (r < 0) {
        return as_problem(c, r, 0, e);
    }
    for (int i = 0; i < 2; i++) {
        if (c->v.regions.why[i]) {
            disk_problem(c->fn, c->arg, PROBLEM_REPAIRABLE, "region table %d: %s", i + 1, c->v.regions.why[i]);
        }
    }
    if (!c->v.regions.why[0] && !c->v.regions.why[1] && !vhdx_regions_load(c->v.file, 0, both) &&
        !vhdx_regions_load(c->v.file, 1, both + VHDX_REGIONS_SIZE) &&
        memcmp(both, both + VHDX_REGIONS_SIZE, VHDX_REGIONS_SIZE) != 0) {
        disk_problem(c->fn, c->arg, PROBLEM_REPAIRABLE, "the two region tables differ; the first is used");
    }
    return 0;
}

static int check_metadata(struct check *c, struct hv_error *e)
{
    struct disk_parent_ref ref;
    int r = vhdx_metadata_read(c->v.file, c->v.regions.metadata, &c->v.md, e);

    if (r < 0) {
        return as_problem(c, r, 0, e);
    }
    vhdx_geometry(&c->v);
    if (c->v.differencing) {
        r = vhdx_locator_read(c->v.file, c->v.regions.metadata, &c->v.md, &ref, e);
        if (r < 0 && (r = as_problem(c, r, 0, e)) < 0) {
            return r;
        }
        if (r == 0 && !ref.relative[0] && !ref.absolute[0] && !ref.volume[0]) {
            disk_problem(c->fn, c->arg, 0, "parent locator: no path at all");
        }
    }
    if (c->v.entries > c->v.regions.bat->len / 8) {
        disk_problem(c->fn, c->arg, 0, "bat: room for %llu entries; the disk needs %llu",
                     (unsigned long long)(c->v.regions.bat->len / 8), (unsigned long long)c->v.entries);
        return 1;
    }
    return 0;
}

const char *vhdx_room_name(const struct vhdx *v, uint32_t what, char *buf, size_t size)
{
    uint64_t block = what;

    if (what & VHDX_ROOM_BITMAP) {
        snprintf(buf, size, "bitmap %u", what & ~VHDX_ROOM_BITMAP);
    } else {
        uint64_t first = block << (v->block_shift - v->sector_shift);
        uint64_t sectors = MIN((uint64_t)v->md.block_size, v->md.size - (block << v->block_shift)) >> v->sector_shift;

        snprintf(buf, size, "block %llu (sectors %llu to %llu)", (unsigned long long)block, (unsigned long long)first,
                 (unsigned long long)(first + sectors - 1));
    }
    return buf;
}

bool vhdx_fault_text(const struct vhdx *v, const struct vhdx_fault *x, char *buf, size_t size)
{
    char name[96], other[96];

    vhdx_room_name(v, x->what, name, sizeof(name));
    switch (x->kind) {
    case VHDX_FAULT_RESERVED:
        snprintf(buf, size, "bat: %s: reserved bits 0x%llx are set", name, (unsigned long long)VHDX_BAT_RESERVED(x->entry));
        break;
    case VHDX_FAULT_STATE: snprintf(buf, size, "bat: %s: there is no state %u", name, VHDX_BAT_STATE(x->entry)); break;
    case VHDX_FAULT_PLACE:
        snprintf(buf, size, "bat: %s: at 0x%llx, which reaches into or past %s", name,
                 (unsigned long long)VHDX_BAT_OFFSET(x->entry), x->where);
        break;
    case VHDX_FAULT_PARTIAL: snprintf(buf, size, "bat: %s: partly present, and the disk has no parent", name); break;
    case VHDX_FAULT_SLOT:
        snprintf(buf, size, "bat: %s: the entry is 0x%llx", name, (unsigned long long)x->entry);
        /* Of a child: the bits are lost, and with them which sectors are whose. */
        return !v->differencing;
    case VHDX_FAULT_NO_BITMAP:
        snprintf(buf, size, "bat: %s: partly present, and its chunk has no bitmap", name);
        return false;
    default:
        snprintf(buf, size, "bat: %s and %s both at 0x%llx", name, vhdx_room_name(v, x->other, other, sizeof(other)),
                 (unsigned long long)x->entry);
    }
    return !(x->kind == VHDX_FAULT_PLACE && x->what & VHDX_ROOM_BITMAP);
}

static int tell_fault(void *arg, const struct vhdx_fault *x)
{
    struct check *c = arg;
    char text[sizeof(((struct disk_problem *)0)->text)];

    if (++c->faults[x->kind] <= TOLD_MAX) {
        bool repairable = vhdx_fault_text(&c->v, x, text, sizeof(text));

        disk_problem(c->fn, c->arg, repairable ? PROBLEM_REPAIRABLE : 0, "%s", text);
    }
    return 0;
}

static int check_bat(struct check *c, struct hv_error *e)
{
    struct vhdx *v = &c->v;
    uint64_t known = VHDX_AREA_END + v->header.log_len, lost;
    struct vhdx_usage u;
    int r;

    v->file_size = disk_file_size(v->file);
    r = vhdx_sweep(v, tell_fault, c, &u);
    if (r < 0) {
        return hv_fail_errno(e, -r, disk_file_path(v->file), "cannot read the BAT");
    }
    for (int k = 0; k < VHDX_FAULT_COUNT; k++) {
        if (c->faults[k] > TOLD_MAX) {
            disk_problem(c->fn, c->arg, k == VHDX_FAULT_NO_BITMAP ? 0 : PROBLEM_REPAIRABLE, "bat: %llu more like the last",
                         (unsigned long long)(c->faults[k] - TOLD_MAX));
        }
    }
    for (unsigned i = 0; i < v->regions.count; i++) {
        known += v->regions.r[i].len;
    }
    lost = ROUND_DOWN(v->file_size, VHDX_UNIT);
    if (lost > known + u.used) {
        disk_problem(c->fn, c->arg, PROBLEM_HARMLESS, "%llu MiB of the file belong to nothing; compact gives them back",
                     (unsigned long long)((lost - known - u.used) / MIB));
    }
    vhdx_usage_fini(&u);
    return 0;
}

int vhdx_check(struct disk_file *f, disk_problem_fn *fn, void *arg, struct hv_error *e)
{
    struct check c = { .v.magic = VHDX_MAGIC, .fn = fn, .arg = arg };
    struct hv_error why = { 0 };
    int r = check_headers(&c, f, &why);

    if (r == 0) {
        r = check_log(&c, f, &why);
    }
    if (r == 0) {
        r = check_regions(&c, &why);
    }
    if (r == 0) {
        r = check_metadata(&c, &why);
    }
    if (r == 0) {
        r = check_bat(&c, &why);
    }
    vhdx_regions_fini(&c.v.regions);
    disk_file_unref(c.v.file);
    if (r < 0 && e) {
        *e = why;
    }
    return MIN(r, 0);
}
