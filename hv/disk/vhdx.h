/*
 * The parts of the VHDX format among themselves: vhdx_*.c. Nobody else includes this.
 *
 *   vhdx.c           the format's table, opening and closing
 *   vhdx_header.c    headers and region tables
 *   vhdx_metadata.c  metadata items, parent locator
 *   vhdx_replay.c    the log as found in a file     vhdx_overlay.c  what it holds, shown or written
 *   vhdx_log.c       the log as written, flush
 *   vhdx_bat.c       map, allocate, written, unmap  vhdx_bitmap.c   which sectors are here
 *   vhdx_create.c    new images
 *   vhdx_edit.c      resize, parent, identity       vhdx_compact.c  blocks moved together
 *   vhdx_sweep.c     all of the BAT at once
 *   vhdx_show.c      headers as they are, for people
 *   vhdx_check.c     check                          vhdx_repair.c   repair
 */
#ifndef HV_DISK_VHDX_H
#define HV_DISK_VHDX_H

#include "hv/disk/disk_impl.h"
#include "hv/disk/meta.h"
#include "hv/disk/vhdx_proto.h"

#define VHDX_MAGIC 0x78646876u

/* ---- headers and regions (vhdx_header.c) ---- */

struct vhdx_header {
    uint64_t sequence;
    struct guid file_id, data_id, log_id;
    uint16_t log_version;
    uint32_t log_len;
    uint64_t log_off;
};

/* Both slots as read: why[i] is NULL where slot i is good. */
struct vhdx_headers {
    struct vhdx_header slot[2];
    const char *why[2];
    int current;                 /* -1: neither is good, or both with one sequence that differ */
};

/* -errno if the file cannot be read; else 0, also when no header is good. */
int vhdx_headers_read(struct disk_file *f, struct vhdx_headers *ret);
/* May the log be where the header says? Fills e. */
int vhdx_header_check(struct disk_file *f, const struct vhdx_header *h, struct hv_error *e);
void vhdx_header_build(const struct vhdx_header *h, uint8_t page[VHDX_HEADER_SIZE]);

struct vhdx_region {
    struct guid id;
    uint64_t off;
    uint64_t len;
    bool required;
};

struct vhdx_regions {
    struct vhdx_region *r;       /* owned; in the table's order */
    unsigned count;
    int copy;                    /* which table was used */
    const char *why[2];          /* NULL where copy i is good */
    const struct vhdx_region *bat, *metadata;
};

/* The first good table; every rule but overlap with what lies outside regions and log. */
int vhdx_regions_read(struct disk_file *f, const struct vhdx_header *h, struct vhdx_regions *ret,
                      struct hv_error *e);
void vhdx_regions_fini(struct vhdx_regions *rs);
/* One copy: 64 KiB into buf; NULL if signature, checksum and count are right, else what is not. */
const char *vhdx_regions_load(struct disk_file *f, int copy, uint8_t *buf);
/* The checksum of a table changed in memory. */
void vhdx_regions_seal(uint8_t *buf);

/* ---- metadata (vhdx_metadata.c) ---- */

struct vhdx_metadata {
    uint32_t block_size;
    bool leave_allocated, has_parent;
    uint64_t size;
    uint32_t logical, physical;
    struct guid id;
    struct { bool present; uint32_t off, len; unsigned index; } items[VHDX_ITEM_COUNT];
    uint32_t used_end;           /* behind the last item, from the region's start */
};

int vhdx_metadata_read(struct disk_file *f, const struct vhdx_region *region, struct vhdx_metadata *ret,
                       struct hv_error *e);
/* The parent locator item. */
int vhdx_locator_read(struct disk_file *f, const struct vhdx_region *region, const struct vhdx_metadata *m,
                      struct disk_parent_ref *ret, struct hv_error *e);
/* The item for ref into buf[size]; bytes, or -EMSGSIZE, -EILSEQ. */
int vhdx_locator_build(const struct disk_parent_ref *ref, uint8_t *buf, size_t size);
#define VHDX_LOCATOR_BUF 32768u

/* ---- the log of a file that was not closed (vhdx_replay.c, vhdx_overlay.c) ---- */

/* What replay writes: disjoint, ascending. sector: where in the file the 4084 bytes are; 0: zeros. */
struct vhdx_patch {
    uint64_t off, len, sector;
    uint8_t leading[8], trailing[4];
};

struct vhdx_replay {
    struct vhdx_patch *patches;  /* owned */
    size_t count;
    unsigned entries;            /* in the sequence, tail to head */
    uint64_t sequence;           /* of the last one */
    uint64_t file_size;          /* the file is at least this long afterwards */
};

/*
 * Find what the log holds (MS-VHDX 2.3.2, 2.3.3). A log without a GUID is empty: entries 0.
 * -EINVAL (e) when the header promises a log and there is none, when the file was cut, when
 * an entry would write where none may. Time and memory in proportion to the log.
 */
int vhdx_replay_read(struct disk_file *f, const struct vhdx_header *h, struct vhdx_replay *ret,
                     struct hv_error *e);
void vhdx_replay_fini(struct vhdx_replay *rp);
/* Write it into the file, durably. */
int vhdx_replay_apply(struct disk_file *f, const struct vhdx_replay *rp);
/* A read-only file that shows f as it will be after replay; rp's patches move into it. */
int vhdx_replay_overlay(struct disk_file *f, struct vhdx_replay *rp, struct disk_file **ret);

/* ---- an open image ---- */

struct vhdx_rooms {              /* offsets of rooms of one block each */
    uint64_t *off;
    size_t count, cap;
};

struct vhdx_pending { uint64_t block, room; };

/* The log as written by us; flush_lock. */
struct vhdx_log {
    bool open;                   /* the header names our GUID */
    bool restart;                /* an entry could not be written: begin anew under another GUID */
    bool frozen;                 /* pages in the log could not be put in place: the tail stays */
    uint64_t sequence;           /* of the next entry */
    uint32_t tail, head;         /* byte offsets in the log */
    uint32_t used;               /* tail to head */
    uint8_t *buf;                /* one entry */
};

struct vhdx {
    uint32_t magic;
    struct disk_layer *l;
    struct disk_file *file;      /* the image, or the overlay that shows it replayed; a reference */
    struct disk_meta *meta;
    struct vhdx_header header;   /* the current one */
    int slot;                    /* where it is */
    struct vhdx_regions regions;
    struct vhdx_metadata md;
    unsigned replayed;           /* entries found in the log */
    bool log_dirty;              /* and left there: read-only */
    bool fix_regions;            /* table 1 is bad: rewritten with the first change */

    unsigned block_shift, sector_shift, ratio_shift;
    uint64_t blocks, entries;    /* payload blocks; entries of the BAT */
    bool differencing, fixed;

    bool began_file, began_data; /* since open: FileWriteGuid, DataWriteGuid are fresh */
    uint64_t file_size, end;     /* end: where new room starts */
    struct vhdx_pending *pending;/* room of blocks that no BAT entry names yet; by block */
    size_t pending_count, pending_cap;
    struct vhdx_rooms freed;     /* given up, not durably yet */
    struct vhdx_rooms free;      /* zeros, to be used again */
    bool surveyed, keep_rooms;   /* the BAT was looked at; it is damaged, no room is given up */
    struct vhdx_log log;
};

static inline struct vhdx *vhdx_of(struct disk_layer *l)
{
    struct vhdx *v = l->state;

    HV_CHECK(v, VHDX_MAGIC);
    return v;
}

/* ---- BAT (vhdx_bat.c) ---- */

/* Shifts and counts that follow from md. */
void vhdx_geometry(struct vhdx *v);
/* Entries a BAT needs for `blocks` payload blocks. 2.5 */
uint64_t vhdx_bat_entries(uint64_t blocks, unsigned ratio_shift, bool differencing);
static inline uint64_t vhdx_payload_index(const struct vhdx *v, uint64_t block)
{
    return block + (block >> v->ratio_shift);
}
static inline uint64_t vhdx_bitmap_index(const struct vhdx *v, uint64_t chunk)
{
    return ((chunk + 1) << v->ratio_shift) + chunk;
}
int vhdx_bat_get(struct vhdx *v, uint64_t index, uint64_t *ret);
int vhdx_bat_put(struct vhdx *v, uint64_t index, uint64_t entry);
/* Does [off, off+len) lie in the file and clear of header area, log and regions? NULL, or what it touches. */
const char *vhdx_room_bad(const struct vhdx *v, uint64_t off, uint64_t len);

int vhdx_map(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret);
int vhdx_allocate(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret);
int vhdx_written(struct disk_layer *l, uint64_t off, uint64_t len);
int vhdx_unmap(struct disk_layer *l, uint64_t off, uint64_t len, uint64_t *ret_len);
/* len bytes of zeros at a multiple of 1 MiB, at the end of the file or where a block was. */
int vhdx_room_new(struct vhdx *v, uint64_t len, uint64_t *ret);
int vhdx_rooms_add(struct vhdx_rooms *rooms, uint64_t off);
int vhdx_count_present(struct vhdx *v, uint64_t *ret);

/* ---- sector bitmaps of a differencing disk (vhdx_bitmap.c) ---- */

/* Where in the file the bits of a block start. -ENOENT: its chunk has no bitmap; -EUCLEAN. */
int vhdx_bits_of(struct vhdx *v, uint64_t block, uint64_t *ret);
/* The same; a chunk without a bitmap gets one of zeros. */
int vhdx_bits_make(struct vhdx *v, uint64_t block, uint64_t *ret);
/* How many sectors from `first` on, at most count, have the same bit; *ret_bit is it. */
int vhdx_bits_run(struct vhdx *v, uint64_t bits, uint64_t first, uint64_t count, bool *ret_bit, uint64_t *ret);
/* Set or clear bits [first, first + count); pages that do not change stay clean. */
int vhdx_bits_fill(struct vhdx *v, uint64_t bits, uint64_t first, uint64_t count, bool bit);

/* ---- changes (vhdx_log.c) ---- */

/* Before the first change of the file (data: of what its disk shows): fresh GUIDs. Lock held. */
int vhdx_begin(struct vhdx *v, bool data);
int vhdx_flush(struct disk_layer *l);
/* The same with lock and flush_lock held throughout, everything in place and durable at its end. */
int vhdx_commit(struct vhdx *v);
/* commit, then no log: the header says so in both slots. */
int vhdx_settle_log(struct vhdx *v);
/* v->header with its sequence raised into the other slot, durably. */
int vhdx_header_write(struct vhdx *v);

/* The BAT to `to`, len bytes of zeros; named by both region tables with the next commit. */
int vhdx_move_bat(struct vhdx *v, uint64_t to, uint64_t len);

/* ---- verbs ---- */

int vhdx_create(struct disk_file *f, const struct disk_create *c, struct disk *parent, struct hv_error *e);
int vhdx_resize(struct disk_layer *l, uint64_t size, struct hv_error *e);
int vhdx_set_parent(struct disk_layer *l, const struct disk_parent_ref *ref, struct hv_error *e);
int vhdx_set_id(struct disk_layer *l, const struct guid *id, struct hv_error *e);
int vhdx_set_physical_sector(struct disk_layer *l, uint32_t bytes, struct hv_error *e);
int vhdx_compact(struct disk_layer *l, disk_progress_fn *progress, void *arg, struct hv_error *e);
int vhdx_check(struct disk_file *f, disk_problem_fn *fn, void *arg, struct hv_error *e);
int vhdx_repair(struct disk_file *f, bool dry, disk_problem_fn *fn, void *arg, struct hv_error *e);
int vhdx_show_headers(struct disk_file *f, disk_field_fn *fn, void *arg);

#endif
