/*
 * What of a VHDX can be put right without inventing data. In two parts: what keeps it from
 * being opened (file identifier, headers, region tables, a log without entries), written
 * in place with a sync after each; then, on the open image, the BAT, through its log.
 *
 *   entry with a state or place that cannot be   0: not present; the block was not readable
 *   reserved bits                                cleared
 *   partly present without a parent              fully present
 *   two rooms that overlap                       the one that comes second gets a copy
 *
 * DataWriteGuid stays: what could be read reads the same, and children go on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/vhdx_sweep.h"

#define FAULTS_MAX ((size_t)1 << 20)     /* dealt with in one run: memory */

struct repair {
    struct disk_file *f;
    disk_problem_fn *fn;
    void *arg;
    struct vhdx *v;              /* the open image */
    struct vhdx_fault *faults;   /* found by the sweep, dealt with after it */
    size_t count, cap;
};

/* ---- to be able to open it ---- */

static int repair_headers(struct repair *p, struct vhdx_headers *hs)
{
    uint8_t page[VHDX_HEADER_SIZE], id[8];
    int r = disk_file_read(p->f, 0, id, sizeof(id));

    if (r == 0 && memcmp(id, VHDX_SIGNATURE, 8) != 0) {
        disk_problem(p->fn, p->arg, PROBLEM_REPAIRABLE, "file identifier: signature written");
        r = disk_file_write(p->f, 0, VHDX_SIGNATURE, 8);
    }
    for (int i = 0; i < 2 && r == 0; i++) {
        if (hs->why[i]) {
            struct vhdx_header h = hs->slot[hs->current];

            /* Older than the good one, which stays the one that counts. */
            disk_problem(p->fn, p->arg, PROBLEM_REPAIRABLE, "header %d: written from the other one", i + 1);
            h.sequence = h.sequence ? h.sequence - 1 : 0;
            if (h.sequence == hs->slot[hs->current].sequence) {
                h = hs->slot[hs->current];
            }
            vhdx_header_build(&h, page);
            r = disk_file_write(p->f, VHDX_HEADER_OFF(i), page, sizeof(page));
        }
    }
    return r < 0 ? r : disk_file_sync(p->f);
}

/* Replayed by the open that follows; without a whole entry in it the header stops naming it. */
static int repair_log(struct repair *p, struct vhdx_headers *hs, struct hv_error *e)
{
    struct vhdx_header h = hs->slot[hs->current];
    uint8_t page[VHDX_HEADER_SIZE];
    struct vhdx_replay rp;
    int r = vhdx_replay_read(p->f, &h, &rp, e);

    if (r == 0) {
        if (rp.entries) {
            disk_problem(p->fn, p->arg, PROBLEM_REPAIRABLE, "log: %u entries replayed", rp.entries);
        }
        vhdx_replay_fini(&rp);
        return 0;
    }
    if (r != -EINVAL || !e->hint[0]) {
        return r;
    }
    hv_error_clear(e);
    disk_problem(p->fn, p->arg, PROBLEM_REPAIRABLE, "log: given up, no entry in it was whole");
    h.log_id = (struct guid){ { 0 } };
    for (int i = 0; i < 2; i++) {
        h.sequence++;
        vhdx_header_build(&h, page);
        r = disk_file_write(p->f, VHDX_HEADER_OFF((hs->current + 1 + i) % 2), page, sizeof(page));
        r = r < 0 ? r : disk_file_sync(p->f);
        if (r < 0) {
            return hv_fail_errno(e, -r, disk_file_path(p->f), "repair");
        }
    }
    return 0;
}

/* After replay: the log may hold either table. */
static int repair_regions(struct repair *p)
{
    hv_autofree uint8_t *both = hv_alloc(2 * VHDX_REGIONS_SIZE);
    const char *why[2];
    int r = 0;

    if (!both) {
        return -ENOMEM;
    }
    for (int i = 0; i < 2; i++) {
        why[i] = vhdx_regions_load(p->f, i, both + i * VHDX_REGIONS_SIZE);
    }
    for (int i = 0; i < 2 && r == 0; i++) {
        if (!why[!i] && (why[i] || (i == 1 && memcmp(both, both + VHDX_REGIONS_SIZE, VHDX_REGIONS_SIZE) != 0))) {
            disk_problem(p->fn, p->arg, PROBLEM_REPAIRABLE, "region table %d: written from the other one", i + 1);
            r = disk_file_write(p->f, VHDX_REGIONS_OFF(i), both + !i * VHDX_REGIONS_SIZE, VHDX_REGIONS_SIZE);
            r = r < 0 ? r : disk_file_sync(p->f);
        }
    }
    return r;
}

/* ---- the BAT ---- */

static int keep_fault(void *arg, const struct vhdx_fault *x)
{
    struct repair *p = arg;

    if (p->count == FAULTS_MAX) {
        return 0;                            /* the next run's */
    }
    if (p->count == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 64;
        struct vhdx_fault *grown = hv_realloc_array(p->faults, cap, sizeof(*grown));

        if (!grown) {
            return -ENOMEM;
        }
        p->faults = grown;
        p->cap = cap;
    }
    p->faults[p->count++] = *x;
    return 0;
}

/* A room of its own, with a copy of what both had. */
static int separate(struct repair *p, const struct vhdx_fault *x, uint64_t *entry)
{
    struct vhdx *v = p->v;
    bool bitmap = x->what & VHDX_ROOM_BITMAP;
    uint64_t len = bitmap ? VHDX_BITMAP_SIZE : v->md.block_size, from = VHDX_BAT_OFFSET(*entry), to;
    hv_autofree uint8_t *buf = hv_alloc(MIB);
    int r = buf ? vhdx_room_new(v, len, &to) : -ENOMEM;

    for (uint64_t done = 0; done < len && r == 0; done += MIB) {
        r = disk_file_read(v->file, from + done, buf, MIB);
        r = r < 0 ? r : disk_file_write(v->file, to + done, buf, MIB);
    }
    if (r == 0) {
        disk_meta_drop(v->meta, to, len);
        *entry = to | VHDX_BAT_STATE(*entry);
    }
    return r;
}

static int repair_fault(struct repair *p, const struct vhdx_fault *x)
{
    char text[sizeof(((struct disk_problem *)0)->text)];
    bool can = vhdx_fault_text(p->v, x, text, sizeof(text));
    uint64_t entry;
    int r = 0;

    disk_problem(p->fn, p->arg, can ? PROBLEM_REPAIRABLE : 0, "%s", text);
    if (can) {
        r = vhdx_bat_get(p->v, x->index, &entry);
    }
    if (!can || r < 0) {
        return r;
    }
    switch (x->kind) {
    case VHDX_FAULT_RESERVED: entry &= ~VHDX_BAT_RESERVED(entry); break;
    case VHDX_FAULT_PARTIAL: entry = (entry & ~(uint64_t)7) | VHDX_FULL; break;
    case VHDX_FAULT_OVERLAP: r = separate(p, x, &entry); break;
    default: entry = 0; break;
    }
    return r < 0 ? r : vhdx_bat_put(p->v, x->index, entry);
}

static int repair_bat(struct repair *p, struct hv_error *e)
{
    struct disk_options o = { .format = DISK_VHDX, .flags = DISK_WRITE | DISK_NO_PARENT };
    struct vhdx_usage u = { 0 };
    struct disk *d;
    int r = disk_open_file(disk_file_ref(p->f), &o, &d, e);

    if (r < 0) {
        return r;
    }
    p->v = vhdx_of(disk_layer(d, 0));
    r = vhdx_sweep(p->v, keep_fault, p, &u);
    vhdx_usage_fini(&u);
    if (r == 0 && p->count) {
        r = vhdx_begin(p->v, false);
    }
    for (size_t i = 0; i < p->count && r == 0; i++) {
        r = repair_fault(p, &p->faults[i]);
        if (r == 0 && disk_meta_dirty_pages(p->v->meta) > 8192) {
            r = disk_flush(d);
        }
    }
    if (r == 0 && p->count == FAULTS_MAX) {
        disk_problem(p->fn, p->arg, 0, "bat: more than can be put right at once: repair again");
    }
    free(p->faults);
    if (r < 0) {
        disk_abandon(d);
        return hv_fail_errno(e, -r, disk_file_path(p->f), "repair");
    }
    return disk_close(d, e);
}

int vhdx_repair(struct disk_file *f, bool dry, disk_problem_fn *fn, void *arg, struct hv_error *e)
{
    struct repair p = { .f = f, .fn = fn, .arg = arg };
    struct hv_error why = { 0 };
    struct vhdx_headers hs;
    int r;

    if (dry) {
        return vhdx_check(f, fn, arg, e);
    }
    r = vhdx_headers_read(f, &hs);
    if (r == 0 && hs.current < 0) {
        disk_problem(fn, arg, 0, "no header is good");
        return 0;
    }
    if (r < 0) {
        return hv_fail_errno(e, -r, disk_file_path(f), "repair");
    }
    r = vhdx_header_check(f, &hs.slot[hs.current], &why);
    if (r == 0) {
        r = repair_headers(&p, &hs);
        r = r < 0 ? hv_fail_errno(&why, -r, disk_file_path(f), "repair") : 0;
    }
    if (r == 0) {
        r = repair_log(&p, &hs, &why);
    }
    if (r == 0) {
        r = repair_bat(&p, &why);
    }
    if (r == 0) {
        r = repair_regions(&p);
        r = r < 0 ? hv_fail_errno(&why, -r, disk_file_path(f), "repair") : 0;
    }
    if (r == -EINVAL && why.code == HV_USAGE) {
        disk_problem(fn, arg, 0, "%s", why.message);     /* damage that nobody can put right */
        return 0;
    }
    if (r < 0 && e) {
        *e = why;
    }
    return r;
}
