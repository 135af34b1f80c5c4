/*
 * The cache: pages in a hash table and a list by last use. A page is read before part of it is
 * written; a whole one is not.
 */
#include "hv/fs/ext4_io.h"

#include <errno.h>

#define MAGIC   0x6f693465u
#define BUCKETS 4096u
#define BYPASS  (32 * KIB)               /* transfers from here on do not fill the cache */
#define RUN     64u                      /* pages written together */

struct page {
    uint64_t no;                         /* offset / EXT4_IO_PAGE */
    struct page *hash_next, *newer, *older;
    bool dirty, room;                    /* room: it was written since it is in the cache */
    uint8_t data[EXT4_IO_PAGE];
};

struct io {
    uint32_t magic;
    struct ext4_io_target t;
    struct page *bucket[BUCKETS];
    struct page *newest, *oldest;
    unsigned n, n_dirty;
    int error;
    struct struct_io_stats stats;
    uint8_t run[RUN * EXT4_IO_PAGE];
};

static _Thread_local struct ext4_io_target next_target;

void ext4_io_set_target(const struct ext4_io_target *t)
{
    next_target = *t;
}

static struct io *io_of(io_channel ch)
{
    struct io *io = ch->private_data;

    HV_CHECK(io, MAGIC);
    return io;
}

static errcode_t fail(struct io *io, int r, errcode_t code)
{
    if (!io->error) {
        io->error = r;
    }
    return code;
}

int ext4_io_error(io_channel ch)
{
    return io_of(ch)->error;
}

void ext4_io_end_zeroed(io_channel ch)
{
    io_of(ch)->t.zeroed = false;
}

/* ---- pages ---- */

static struct page **slot(struct io *io, uint64_t no)
{
    struct page **at = &io->bucket[(no ^ no >> 12) % BUCKETS];

    while (*at && (*at)->no != no) {
        at = &(*at)->hash_next;
    }
    return at;
}

static void list_remove(struct io *io, struct page *p)
{
    *(p->newer ? &p->newer->older : &io->newest) = p->older;
    *(p->older ? &p->older->newer : &io->oldest) = p->newer;
    p->newer = p->older = NULL;
}

static void list_add(struct io *io, struct page *p)
{
    p->older = io->newest;
    p->newer = NULL;
    *(io->newest ? &io->newest->newer : &io->oldest) = p;
    io->newest = p;
}

/* The last page may end before the partition's rest of a page. */
static uint64_t page_len(const struct io *io, uint64_t no)
{
    return MIN((uint64_t)EXT4_IO_PAGE, io->t.len - no * EXT4_IO_PAGE);
}

/* Write p and the dirty pages around it. */
static int write_run(struct io *io, struct page *p)
{
    uint64_t first = p->no, last = p->no;
    struct page *q;

    while (first > 0 && last - first + 1 < RUN && (q = *slot(io, first - 1)) && q->dirty) {
        first--;
    }
    while (last - first + 1 < RUN && (q = *slot(io, last + 1)) && q->dirty) {
        last++;
    }
    for (uint64_t no = first; no <= last; no++) {
        memcpy(io->run + (no - first) * EXT4_IO_PAGE, (*slot(io, no))->data, EXT4_IO_PAGE);
    }
    uint64_t len = (last - first) * EXT4_IO_PAGE + page_len(io, last);
    int r = disk_write(io->t.disk, io->t.off + first * EXT4_IO_PAGE, io->run, len);
    if (r < 0) {
        return r;
    }
    for (uint64_t no = first; no <= last; no++) {
        (*slot(io, no))->dirty = false;
        (*slot(io, no))->room = true;
        io->n_dirty--;
    }
    return 0;
}

static void drop(struct io *io, struct page *p)
{
    *slot(io, p->no) = p->hash_next;
    list_remove(io, p);
    io->n_dirty -= p->dirty;
    io->n--;
    free(p);
}

/* The page no, most recently used. fill: its bytes are wanted. */
static int get_page(struct io *io, uint64_t no, bool fill, struct page **ret)
{
    struct page *p = *slot(io, no);
    int r;

    if (p) {
        list_remove(io, p);
        list_add(io, p);
        *ret = p;
        return 0;
    }
    if (io->n >= EXT4_IO_PAGES) {
        p = io->oldest;
        if (p->dirty) {
            r = write_run(io, p);
            if (r < 0) {
                return r;
            }
        }
        drop(io, p);
    }
    p = hv_alloc(sizeof(*p));
    if (!p) {
        return -ENOMEM;
    }
    p->no = no;
    if (fill) {
        r = disk_read(io->t.disk, io->t.off + no * EXT4_IO_PAGE, p->data, page_len(io, no));
        if (r < 0) {
            free(p);
            return r;
        }
    }
    *slot(io, no) = p;
    list_add(io, p);
    io->n++;
    *ret = p;
    return 0;
}

static int flush_dirty(struct io *io)
{
    /* Ascending runs: the pages of one bucket row are neighbours, so this walks the disk once. */
    for (unsigned i = 0; io->n_dirty && i < BUCKETS; i++) {
        for (struct page *p = io->bucket[i]; p; p = p->hash_next) {
            if (p->dirty) {
                int r = write_run(io, p);
                if (r < 0) {
                    return r;
                }
            }
        }
    }
    return 0;
}

/* ---- transfers ---- */

static bool in_range(const struct io *io, uint64_t off, uint64_t len)
{
    return len <= io->t.len && off <= io->t.len - len;
}

static int read_range(struct io *io, uint64_t off, uint8_t *buf, uint64_t len)
{
    int r;

    if (len >= BYPASS) {
        r = disk_read(io->t.disk, io->t.off + off, buf, len);
        if (r < 0) {
            return r;
        }
        for (uint64_t no = off / EXT4_IO_PAGE; io->n_dirty && no * EXT4_IO_PAGE < off + len; no++) {
            struct page *p = *slot(io, no);
            if (p && p->dirty) {
                uint64_t from = MAX(off, no * EXT4_IO_PAGE);
                uint64_t to = MIN(off + len, (no + 1) * EXT4_IO_PAGE);
                memcpy(buf + (from - off), p->data + from % EXT4_IO_PAGE, to - from);
            }
        }
        return 0;
    }
    while (len > 0) {
        uint64_t at = off % EXT4_IO_PAGE, n = MIN(len, EXT4_IO_PAGE - at);
        struct page *p;
        r = get_page(io, off / EXT4_IO_PAGE, true, &p);
        if (r < 0) {
            return r;
        }
        memcpy(buf, p->data + at, n);
        off += n;
        buf += n;
        len -= n;
    }
    return 0;
}

/* p is about to be overwritten on disk in [off, off+len): its other bytes must be there too. */
static int forget_page(struct io *io, struct page *p, uint64_t off, uint64_t len)
{
    bool whole = p->no * EXT4_IO_PAGE >= off && (p->no + 1) * EXT4_IO_PAGE <= off + len;
    int r = p->dirty && !whole ? write_run(io, p) : 0;

    if (r == 0) {
        drop(io, p);
    }
    return r;
}

static int forget(struct io *io, uint64_t off, uint64_t len)
{
    uint64_t first = off / EXT4_IO_PAGE, end = ROUND_UP(off + len, EXT4_IO_PAGE) / EXT4_IO_PAGE;
    int r = 0;

    if (io->n < end - first) {              /* fewer pages than room for them: look at each */
        struct page *next;
        for (struct page *p = io->newest; r == 0 && p; p = next) {
            next = p->older;
            r = p->no >= first && p->no < end ? forget_page(io, p, off, len) : 0;
        }
        return r;
    }
    for (uint64_t no = first; r == 0 && no < end; no++) {
        struct page *p = *slot(io, no);
        r = p ? forget_page(io, p, off, len) : 0;
    }
    return r;
}

/* buf[n] into p at `at`. If the host has no room for it, nothing has changed. */
static int change_page(struct io *io, struct page *p, uint64_t at, const uint8_t *buf, uint64_t n)
{
    uint8_t fresh[EXT4_IO_PAGE];

    if (p->dirty || p->room || !io->t.make_room) {
        memcpy(p->data + at, buf, n);
        io->n_dirty += !p->dirty;
        p->dirty = true;
        return 0;
    }
    memcpy(fresh, p->data, sizeof(fresh));
    memcpy(fresh + at, buf, n);
    int r = disk_write(io->t.disk, io->t.off + p->no * EXT4_IO_PAGE, fresh, page_len(io, p->no));
    if (r == 0) {
        memcpy(p->data, fresh, sizeof(fresh));
        p->room = true;
    }
    return r;
}

static int write_range(struct io *io, uint64_t off, const uint8_t *buf, uint64_t len)
{
    int r;

    if (len >= BYPASS) {
        r = forget(io, off, len);
        return r < 0 ? r : disk_write(io->t.disk, io->t.off + off, buf, len);
    }
    while (len > 0) {
        uint64_t at = off % EXT4_IO_PAGE, n = MIN(len, EXT4_IO_PAGE - at);
        struct page *p;
        r = get_page(io, off / EXT4_IO_PAGE, n < EXT4_IO_PAGE, &p);
        if (r < 0) {
            return r;
        }
        r = change_page(io, p, at, buf, n);
        if (r < 0) {
            if (n == EXT4_IO_PAGE && !p->dirty && !p->room) {
                drop(io, p);             /* it may never have been read */
            }
            return r;
        }
        off += n;
        buf += n;
        len -= n;
    }
    return 0;
}

/* ---- the io_manager ---- */

static errcode_t io_open(const char *name, int flags, io_channel *ret)
{
    struct struct_io_channel *ch = hv_alloc(sizeof(*ch));
    struct io *io = hv_alloc(sizeof(*io));
    char *copy = hv_strdup(name);

    if (!ch || !io || !copy || !next_target.disk) {
        free(ch);
        free(io);
        free(copy);
        return ENOMEM;
    }
    io->magic = MAGIC;
    io->t = next_target;
    io->stats.num_fields = 2;
    ch->magic = EXT2_ET_MAGIC_IO_CHANNEL;
    ch->manager = ext4_io_manager;
    ch->name = copy;
    ch->block_size = 1024;
    ch->refcount = 1;
    ch->private_data = io;
    *ret = ch;
    return 0;
}

/* libext2fs flushed before; after a failure there is nothing to save. */
static errcode_t io_close(io_channel ch)
{
    struct io *io = io_of(ch);
    int r = 0;

    if (--ch->refcount > 0) {
        return 0;
    }
    if (io->t.write && !io->error) {
        r = flush_dirty(io);
    }
    while (io->newest) {
        drop(io, io->newest);
    }
    io->magic = 0;
    free(io);
    free(ch->name);
    free(ch);
    return r < 0 ? EXT2_ET_SHORT_WRITE : 0;
}

static errcode_t io_set_blksize(io_channel ch, int blksize)
{
    ch->block_size = blksize;
    return 0;
}

/* count < 0: so many bytes. False if the range is not inside the partition. */
static bool range(io_channel ch, unsigned long long block, int count, uint64_t *off, uint64_t *len)
{
    *len = count < 0 ? (uint64_t)-(int64_t)count : (uint64_t)count * (unsigned)ch->block_size;
    return !__builtin_mul_overflow(block, (uint64_t)(unsigned)ch->block_size, off) && in_range(io_of(ch), *off, *len);
}

static errcode_t io_read_blk64(io_channel ch, unsigned long long block, int count, void *buf)
{
    struct io *io = io_of(ch);
    uint64_t off, len;

    if (!range(ch, block, count, &off, &len)) {
        return EXT2_ET_SHORT_READ;
    }
    int r = read_range(io, off, buf, len);
    io->stats.bytes_read += len;
    return r < 0 ? fail(io, r, EXT2_ET_SHORT_READ) : 0;
}

static errcode_t io_write_blk64(io_channel ch, unsigned long long block, int count, const void *buf)
{
    struct io *io = io_of(ch);
    uint64_t off, len;

    if (!io->t.write) {
        return EXT2_ET_RO_FILSYS;
    }
    if (!range(ch, block, count, &off, &len)) {
        return EXT2_ET_SHORT_WRITE;
    }
    int r = write_range(io, off, buf, len);
    io->stats.bytes_written += len;
    return r < 0 ? fail(io, r, EXT2_ET_SHORT_WRITE) : 0;
}

static errcode_t io_read_blk(io_channel ch, unsigned long block, int count, void *buf)
{
    return io_read_blk64(ch, block, count, buf);
}

static errcode_t io_write_blk(io_channel ch, unsigned long block, int count, const void *buf)
{
    return io_write_blk64(ch, block, count, buf);
}

static errcode_t io_write_byte(io_channel ch, unsigned long offset, int size, const void *buf)
{
    struct io *io = io_of(ch);

    if (!io->t.write) {
        return EXT2_ET_RO_FILSYS;
    }
    if (size < 0 || !in_range(io, offset, (uint64_t)size)) {
        return EXT2_ET_SHORT_WRITE;
    }
    int r = write_range(io, offset, buf, (uint64_t)size);
    return r < 0 ? fail(io, r, EXT2_ET_SHORT_WRITE) : 0;
}

static errcode_t io_flush(io_channel ch)
{
    struct io *io = io_of(ch);

    if (!io->t.write) {
        return 0;
    }
    int r = flush_dirty(io);
    if (r == 0) {
        r = disk_flush(io->t.disk);
    }
    return r < 0 ? fail(io, r, EXT2_ET_SHORT_WRITE) : 0;
}

static errcode_t io_set_option(io_channel ch, const char *option, const char *arg)
{
    return 0;
}

static errcode_t io_get_stats(io_channel ch, io_stats *ret)
{
    *ret = &io_of(ch)->stats;
    return 0;
}

static errcode_t drop_blocks(io_channel ch, unsigned long long block, unsigned long long count, bool zero)
{
    struct io *io = io_of(ch);
    uint64_t off, len, bs = (unsigned)ch->block_size;

    if (!io->t.write) {
        return EXT2_ET_RO_FILSYS;
    }
    if (__builtin_mul_overflow(block, bs, &off) || __builtin_mul_overflow(count, bs, &len) ||
        !in_range(io, off, len)) {
        return EXT2_ET_SHORT_WRITE;
    }
    int r = len ? forget(io, off, len) : 0;
    if (r == 0 && len) {
        r = !zero ? disk_discard(io->t.disk, io->t.off + off, len)
          : io->t.zeroed ? 0 : disk_zero(io->t.disk, io->t.off + off, len);
    }
    return r < 0 ? fail(io, r, EXT2_ET_SHORT_WRITE) : 0;
}

static errcode_t io_discard(io_channel ch, unsigned long long block, unsigned long long count)
{
    return drop_blocks(ch, block, count, false);
}

static errcode_t io_zeroout(io_channel ch, unsigned long long block, unsigned long long count)
{
    return drop_blocks(ch, block, count, true);
}

static struct struct_io_manager manager = {
    .magic = EXT2_ET_MAGIC_IO_MANAGER,
    .name = "hv disk",
    .open = io_open,
    .close = io_close,
    .set_blksize = io_set_blksize,
    .read_blk = io_read_blk,
    .write_blk = io_write_blk,
    .flush = io_flush,
    .write_byte = io_write_byte,
    .set_option = io_set_option,
    .get_stats = io_get_stats,
    .read_blk64 = io_read_blk64,
    .write_blk64 = io_write_blk64,
    .discard = io_discard,
    .zeroout = io_zeroout,
};
io_manager ext4_io_manager = &manager;
