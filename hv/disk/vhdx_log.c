/*
 * Changes of a VHDX that survive a crash at any point. MS-VHDX 2.2.2.1, 2.3; sheet 4.
 *
 * Opening writes nothing. Before the first change of the file a header with a fresh
 * FileWriteGuid is durable, before the first change of what the disk shows one with a fresh
 * DataWriteGuid. BAT, bitmap and metadata pages change in memory only (meta.h); data goes
 * to its place at once, into room that no durable BAT entry names or the disk owns already.
 *
 * flush():
 *   1. copy the dirty pages
 *   2. sync: data is durable, and so is what the flush before put in place: its log
 *      entries are needed no more, the tail moves up to the head
 *   3. nothing dirty: done, after one sync
 *   4. the first time: a valid entry under a fresh LogGuid, sync, a header that names it, sync
 *   5. log entries with the copies: bitmaps and metadata first, then the BAT from its end to
 *      its start, so that an entry that is missing after a crash never leaves a block that
 *      is partly there without its bitmap (a chunk's bitmap slot lies behind its blocks)
 *   6. sync: from here on the change survives
 *   7. the pages in place; durable with the sync of the next flush, or the close
 * When the log has no room for all of a flush, 6, 7 and a sync come as often as needed.
 *
 * close: flush, sync, LogGuid zero in both headers, one after the other.
 *
 * What fails: an entry that could not be written may lie in the log all the same. The next
 * flush starts anew under another GUID, behind the last good entry: the old sequence stays
 * whole until the header stops naming it. A page that could not be put in place keeps the
 * tail where it is until a later flush succeeded.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/crc32c.h"
#include "hv/disk/vhdx.h"

#define ENTRY_PAGES VHDX_DESCS_FIRST     /* descriptors fit one sector; half a MiB an entry */
#define ENTRY_MAX   ((1 + ENTRY_PAGES) * VHDX_PAGE)
static_assert(ENTRY_MAX + VHDX_PAGE < VHDX_UNIT, "an entry and the first of a new sequence fit the smallest log");

struct batch {
    struct disk_meta_page *pages;
    const struct disk_meta_page **order;   /* as they are logged */
    size_t count;
    uint64_t file_size;
    struct vhdx_rooms freed;               /* free to use once this batch is durable */
};

/* ---- headers ---- */

int vhdx_header_write(struct vhdx *v)
{
    struct vhdx_header h = v->header;
    uint8_t page[VHDX_HEADER_SIZE];
    int r;

    h.sequence++;
    vhdx_header_build(&h, page);
    r = disk_file_write(v->file, VHDX_HEADER_OFF(!v->slot), page, sizeof(page));
    if (r == 0) {
        r = disk_file_sync(v->file);
    }
    if (r == 0) {
        v->header = h;
        v->slot = !v->slot;
    }
    return r;
}

/* Table 2 is good, so that table 1 can be written over. */
static int fix_regions(struct vhdx *v)
{
    hv_autofree uint8_t *buf = hv_alloc(VHDX_REGIONS_SIZE);
    int r;

    if (!buf) {
        return -ENOMEM;
    }
    if (vhdx_regions_load(v->file, 1, buf)) {
        return -EUCLEAN;
    }
    r = disk_file_write(v->file, VHDX_REGIONS_OFF(0), buf, VHDX_REGIONS_SIZE);
    v->fix_regions = r < 0;
    return r;
}

int vhdx_begin(struct vhdx *v, bool data)
{
    struct vhdx_header before = v->header;
    int r;

    if (data ? v->began_data : v->began_file) {
        return 0;
    }
    r = guid_new(&v->header.file_id);
    if (r == 0 && data) {
        r = guid_new(&v->header.data_id);
    }
    if (r == 0) {
        r = vhdx_header_write(v);
    }
    if (r < 0) {
        v->header = before;
        return r;
    }
    v->began_file = true;
    v->began_data = v->began_data || data;
    v->l->data_id = v->header.data_id;
    return v->fix_regions ? fix_regions(v) : 0;
}

/* ---- entries ---- */

static void build_data(const struct disk_meta_page *page, uint64_t sequence, uint8_t *desc, uint8_t *sector)
{
    memcpy(desc + VHDX_DESC_SIGNATURE, "desc", 4);
    memcpy(desc + VHDX_DESC_TRAILING, page->data + VHDX_PAGE - 4, 4);
    memcpy(desc + VHDX_DESC_LEADING, page->data, 8);
    put_le64(desc + VHDX_DESC_OFFSET, page->off);
    put_le64(desc + VHDX_DESC_SEQUENCE, sequence);
    memcpy(sector + VHDX_DATA_SIGNATURE, "data", 4);
    put_le32(sector + VHDX_DATA_HIGH, (uint32_t)(sequence >> 32));
    memcpy(sector + VHDX_DATA_BYTES, page->data + 8, VHDX_DATA_MIDDLE);
    put_le32(sector + VHDX_DATA_LOW, (uint32_t)sequence);
}

/* len bytes at the head, wrapping; not durable yet. */
static int write_ring(struct vhdx *v, const struct vhdx_header *h, const uint8_t *buf, uint32_t len)
{
    uint32_t first = MIN(len, h->log_len - v->log.head);
    int r = disk_file_write(v->file, h->log_off + v->log.head, buf, first);

    return r < 0 || first == len ? r : disk_file_write(v->file, h->log_off, buf + first, len - first);
}

/* One entry with count pages, none for the first of a sequence, under the GUID of h. */
static int write_entry(struct vhdx *v, const struct vhdx_header *h, const struct disk_meta_page **pages,
                       uint32_t count, uint64_t file_size)
{
    uint32_t len = (1 + count) * VHDX_PAGE;
    uint8_t *p = v->log.buf;
    int r;

    hv_assert(count <= ENTRY_PAGES && len <= h->log_len - v->log.used);
    memset(p, 0, VHDX_PAGE);
    memcpy(p + VHDX_ENTRY_SIGNATURE, "loge", 4);
    put_le32(p + VHDX_ENTRY_LENGTH, len);
    put_le32(p + VHDX_ENTRY_TAIL, v->log.tail);
    put_le64(p + VHDX_ENTRY_SEQUENCE, v->log.sequence);
    put_le32(p + VHDX_ENTRY_COUNT, count);
    memcpy(p + VHDX_ENTRY_LOG_GUID, &h->log_id, 16);
    put_le64(p + VHDX_ENTRY_FLUSHED, file_size);
    put_le64(p + VHDX_ENTRY_LAST, file_size);
    for (uint32_t i = 0; i < count; i++) {
        build_data(pages[i], v->log.sequence, p + VHDX_ENTRY_HEADER + i * VHDX_DESC_SIZE, p + (1 + i) * VHDX_PAGE);
    }
    put_le32(p + VHDX_ENTRY_CRC, crc32c(0, p, len));
    r = write_ring(v, h, p, len);
    if (r < 0) {
        return r;
    }
    v->log.head = (v->log.head + len) % h->log_len;
    v->log.used += len;
    v->log.sequence++;
    return 0;
}

/* Everything in the log is in place, durably. */
static void advance_tail(struct vhdx *v)
{
    if (!v->log.frozen) {
        v->log.tail = v->log.head;
        v->log.used = 0;
    }
}

/*
 * A sequence under a fresh GUID. Its first entry is durable before the header names it; an
 * older sequence ends right before it and stays whole until then.
 */
static int log_start(struct vhdx *v)
{
    struct vhdx_header before = v->header, h = before;
    struct vhdx_log log = v->log;
    int r;

    if (v->log.frozen) {
        return -EIO;
    }
    if (!v->log.buf) {
        v->log.buf = log.buf = hv_alloc(ENTRY_MAX);
        if (!v->log.buf) {
            return -ENOMEM;
        }
    }
    if (h.log_len == 0) {
        r = vhdx_room_new(v, VHDX_UNIT, &h.log_off);
        if (r < 0) {
            return r;
        }
        h.log_len = VHDX_UNIT;
    }
    r = disk_file_sync(v->file);
    if (r < 0) {
        return r;
    }
    advance_tail(v);
    r = guid_new(&h.log_id);
    if (r == 0) {
        r = write_entry(v, &h, NULL, 0, v->file_size);
    }
    if (r == 0) {
        r = disk_file_sync(v->file);
    }
    if (r == 0) {
        v->header = h;
        r = vhdx_header_write(v);
    }
    if (r < 0) {
        v->header = before;
        v->log = log;
        return r;
    }
    v->log.open = true;
    v->log.restart = false;
    return 0;
}

/* ---- batches ---- */

static int by_log_order(const void *a, const void *b)
{
    const struct disk_meta_page *x = *(const struct disk_meta_page *const *)a;
    const struct disk_meta_page *y = *(const struct disk_meta_page *const *)b;

    return x->off < y->off ? -1 : x->off > y->off;
}

/* What is not the BAT ascending, then the BAT descending: see the order above. */
static void sort_batch(const struct vhdx *v, struct batch *b)
{
    uint64_t bat = v->regions.bat->off, end = bat + v->regions.bat->len;
    size_t front = 0, back = b->count;

    for (size_t i = 0; i < b->count; i++) {
        const struct disk_meta_page *p = &b->pages[i];

        if (p->off >= bat && p->off < end) {
            b->order[--back] = p;
        } else {
            b->order[front++] = p;
        }
    }
    qsort(b->order, front, sizeof(*b->order), by_log_order);
    qsort(b->order + back, b->count - back, sizeof(*b->order), by_log_order);
    for (size_t lo = back, hi = b->count; lo + 1 < hi; lo++) {
        const struct disk_meta_page *p = b->order[lo];

        b->order[lo] = b->order[--hi];
        b->order[hi] = p;
    }
}

/* Lock held. */
static int batch_take(struct vhdx *v, struct batch *b)
{
    int r;

    *b = (struct batch){ 0 };
    if (disk_meta_dirty_pages(v->meta) == 0) {
        return 0;
    }
    if (!v->log.open || v->log.restart) {
        r = log_start(v);
        if (r < 0) {
            return r;
        }
    }
    b->order = hv_alloc_array(disk_meta_dirty_pages(v->meta), sizeof(*b->order));
    if (!b->order) {
        return -ENOMEM;
    }
    r = disk_meta_take(v->meta, &b->pages, &b->count);
    if (r < 0) {
        free(b->order);
        *b = (struct batch){ 0 };
        return r;
    }
    sort_batch(v, b);
    b->file_size = v->file_size;
    b->freed = v->freed;
    v->freed = (struct vhdx_rooms){ 0 };
    return 0;
}

static int put_in_place(struct vhdx *v, const struct batch *b, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        int r = disk_file_write(v->file, b->order[i]->off, b->order[i]->data, VHDX_PAGE);

        if (r < 0) {
            v->log.frozen = true;
            return r;
        }
    }
    return 0;
}

/* Pages [*placed, logged) are in the log: durable there, then in place. */
static int place_logged(struct vhdx *v, const struct batch *b, size_t *placed, size_t logged)
{
    int r = disk_file_sync(v->file);

    if (r < 0) {
        v->log.restart = true;
        return r;
    }
    r = put_in_place(v, b, *placed, logged);
    *placed = r == 0 ? logged : *placed;
    return r;
}

/* flush_lock held, lock need not be. */
static int batch_run(struct vhdx *v, const struct batch *b)
{
    size_t placed = 0, logged = 0;
    int r = disk_file_sync(v->file);

    if (r < 0) {
        return r;
    }
    advance_tail(v);
    while (logged < b->count) {
        uint32_t n = (uint32_t)MIN(b->count - logged, (size_t)ENTRY_PAGES);

        /* One sector stays free for the first entry of another sequence. */
        if (v->log.used + (1 + n) * VHDX_PAGE > v->header.log_len - VHDX_PAGE) {
            r = v->log.frozen ? -EIO : place_logged(v, b, &placed, logged);
            if (r == 0) {
                r = disk_file_sync(v->file);
            }
            if (r < 0) {
                return r;
            }
            advance_tail(v);
        }
        r = write_entry(v, &v->header, b->order + logged, n, b->file_size);
        if (r < 0) {
            v->log.restart = true;
            return r;
        }
        logged += n;
    }
    if (b->count) {
        r = place_logged(v, b, &placed, logged);
        if (r == 0) {
            v->log.frozen = false;       /* what could not be placed before was dirty again, and is now */
        }
    }
    return r;
}

static void rooms_move(struct vhdx_rooms *to, struct vhdx_rooms *from)
{
    for (size_t i = 0; i < from->count; i++) {
        vhdx_rooms_add(to, from->off[i]);      /* without memory the room is lost until a compact */
    }
    free(from->off);
    *from = (struct vhdx_rooms){ 0 };
}

/* Lock held. After success *freed are rooms nothing durable names any more; the caller's. */
static void batch_end(struct vhdx *v, struct batch *b, bool ok, struct vhdx_rooms *freed)
{
    *freed = (struct vhdx_rooms){ 0 };
    if (b->count) {
        disk_meta_settle(v->meta, b->pages, b->count, ok);
    }
    free(b->order);
    if (ok) {
        *freed = b->freed;
    } else {
        rooms_move(&v->freed, &b->freed);
    }
}

/* Back to the host, and zeros for who gets them next. A room that cannot be is left alone. */
static void punch(struct vhdx *v, struct vhdx_rooms *freed)
{
    size_t good = 0;

    for (size_t i = 0; i < freed->count; i++) {
        if (disk_file_zero(v->file, freed->off[i], v->md.block_size) == 0) {
            freed->off[good++] = freed->off[i];
        }
    }
    freed->count = good;
}

int vhdx_flush(struct disk_layer *l)
{
    struct vhdx *v = vhdx_of(l);
    struct vhdx_rooms freed;
    struct batch b;
    int r;

    pthread_mutex_lock(&l->lock);
    r = batch_take(v, &b);
    pthread_mutex_unlock(&l->lock);
    if (r < 0) {
        return r;
    }
    r = batch_run(v, &b);
    pthread_mutex_lock(&l->lock);
    batch_end(v, &b, r == 0, &freed);
    pthread_mutex_unlock(&l->lock);
    if (freed.count) {
        punch(v, &freed);
        pthread_mutex_lock(&l->lock);
        rooms_move(&v->free, &freed);
        pthread_mutex_unlock(&l->lock);
    }
    free(freed.off);
    return r;
}

int vhdx_commit(struct vhdx *v)
{
    struct vhdx_rooms freed;
    struct batch b;
    int r = batch_take(v, &b);

    if (r < 0) {
        return r;
    }
    r = batch_run(v, &b);
    batch_end(v, &b, r == 0, &freed);
    punch(v, &freed);
    rooms_move(&v->free, &freed);
    if (r == 0) {
        r = disk_file_sync(v->file);
    }
    if (r == 0) {
        advance_tail(v);
    }
    return r;
}

int vhdx_settle_log(struct vhdx *v)
{
    struct guid log_id = v->header.log_id;
    int r = vhdx_commit(v);

    if (r < 0) {
        return r;
    }
    v->header.log_id = (struct guid){ { 0 } };
    r = vhdx_header_write(v);
    if (r < 0) {
        v->header.log_id = log_id;
        return r;
    }
    v->log.open = false;
    return vhdx_header_write(v);
}
