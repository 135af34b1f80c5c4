/*
 * Content from disk to disk. What the source's map, or the host's, says is zeros is never read and
 * never written: the target reads as zeros already. The rest goes in pieces through a ring of them:
 *
 *   readers ──▶ ring of pieces, in the order of the disk ──▶ the caller's thread, which writes
 *
 * The host lets one thread at a time write to a file, so one does, and what it writes gets its room
 * in the order of the disk: it can be read in one go later. Whenever the next piece is not there yet
 * the writer reads one itself: on a busy host nobody waits for a thread that is not scheduled.
 * Where the host can share blocks of files, it does.
 *
 * The time is the writer's (256 MiB from a dynamic VHDX to raw on ext4: all but 6 of 74 ms), half of it
 * for the bytes, the rest for the host's pages and blocks. So the host is told beforehand what is sure to
 * be written (disk_file_expect()), and the ring is one piece of memory in huge pages: 63 ms. What gained
 * nothing: copy_file_range() and sendfile() (they move 64 KiB at a time: 77 ms for what write() does in
 * 58), writing from a mapping of the source (81), storing into one of the target (105, from four threads
 * 138), two writers, pieces of 64 or 128 KiB or 1 MiB, a shorter ring.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhdtool/vhdtool.h"

#define PIECE   (256 * KIB)      /* what is read stays in a CPU's own cache until it is written */
#define SLOTS   32u
#define READERS 1u               /* besides the writer; a second one is in their way: 70 ms against 75 for 256 MiB */
#define GRAIN   (64 * KIB)       /* zeros are looked for in units of this */

/* ---- what is to be copied ---- */

struct piece {
    uint64_t off, len;
    struct disk_extent from;
    uint8_t *data;               /* its part of the ring */
    bool ready;                  /* read, and zero[] is known if it was to be looked for */
    bool zero[PIECE / GRAIN];
};

struct job {
    struct disk *from, *to;
    const struct copy *how;
    struct disk_extent x;        /* of from, what is left of it; DATA, or len 0 */
    uint64_t off;                /* where x starts, and the next piece */
    uint64_t expected;           /* of to: up to there the host knows what is coming */
    bool no_clone;               /* the host cannot share blocks between these files */

    pthread_mutex_t lock;        /* guards what follows, and x and off */
    pthread_cond_t readable, ready;      /* there is room in the ring; the piece waited for is there */
    struct piece slot[SLOTS];
    uint64_t taken, done;        /* pieces: the first done ones are written; [done, taken) are in the ring */
    unsigned waiting;            /* readers */
    bool writer_waits, end;
    int error;
};

/* The host's holes under an extent are zeros too: *skip bytes of one in front, x cut before the next. */
static void look_for_holes(struct disk_extent *x, uint64_t *skip)
{
    uint64_t start = x->file_offset, data, hole;

    *skip = 0;
    data = disk_file_skip_hole(x->file, start);
    if (data > start) {
        *skip = ROUND_DOWN(MIN(data - start, x->len), 512);
    }
    if (*skip < x->len) {
        hole = disk_file_skip_data(x->file, start + *skip);
        x->len = MIN(x->len, ROUND_UP(hole - start, 512));
    }
}

/* [off, off+len) has nothing to copy. */
static int leave_out(struct job *j, uint64_t off, uint64_t len)
{
    return j->how->zero && len > 0 ? disk_zero(j->to, off, len) : 0;
}

/* The next stretch of data into j->x. 1, 0 at the end, -errno. Lock held. */
static int next_extent(struct job *j)
{
    uint64_t size = disk_size(j->from), skip;

    while (j->off < size) {
        int r = disk_map(j->from, j->off, size - j->off, &j->x);

        if (r < 0) {
            return r;
        }
        if (j->x.where != DISK_DATA) {
            r = leave_out(j, j->off, j->x.len);
            if (r < 0) {
                return r;
            }
            j->off += j->x.len;
            continue;
        }
        look_for_holes(&j->x, &skip);
        r = leave_out(j, j->off, skip);
        if (r < 0) {
            return r;
        }
        j->off += skip;
        j->x.file_offset += skip;
        j->x.len -= skip;
        if (j->x.len > 0) {
            return 1;
        }
    }
    j->x.len = 0;
    return 0;
}

/* The next piece in the order of the disk, in its slot; NULL when there is no more, or no room. Lock held. */
static struct piece *take_piece(struct job *j)
{
    struct piece *p = &j->slot[j->taken % SLOTS];
    int r;

    if (j->error < 0 || j->end || j->taken - j->done == SLOTS) {
        return NULL;
    }
    r = j->x.len == 0 ? next_extent(j) : 1;
    if (r <= 0) {
        j->end = true;
        j->error = r;
        return NULL;
    }
    p->off = j->off;
    p->len = MIN(j->x.len, PIECE - j->off % PIECE);      /* ends where the host's alignment wants it */
    p->from = j->x;
    p->from.len = p->len;
    p->ready = false;
    j->taken++;
    j->off += p->len;
    j->x.len -= p->len;
    j->x.file_offset += p->len;
    if (j->how->progress) {
        j->how->progress(j->how->progress_arg, j->off, disk_size(j->from));
    }
    return p;
}

/* ---- one piece ---- */

static int read_piece(const struct job *j, struct piece *p)
{
    int r = disk_file_read(p->from.file, p->from.file_offset, p->data, p->len);

    for (uint64_t at = 0; r == 0 && j->how->scan && at < p->len; at += GRAIN) {
        p->zero[at / GRAIN] = hv_is_zero(p->data + at, MIN(GRAIN, p->len - at));
    }
    return r;
}

/* One extent's worth from data to where it has room. */
static int move_bytes(struct job *j, const struct piece *p, uint64_t at, const struct disk_extent *to)
{
    int r = -EOPNOTSUPP;

    if (!j->how->scan && !j->no_clone) {
        r = disk_file_clone(p->from.file, p->from.file_offset + at, to->file, to->file_offset, to->len);
        if (r != -EOPNOTSUPP) {
            return r;
        }
        j->no_clone = true;
        r = read_piece(j, &j->slot[p - j->slot]);
        if (r < 0) {
            return r;
        }
    }
    return disk_file_write(to->file, to->file_offset, p->data + at, to->len);
}

static bool any_zero(const struct piece *p)
{
    for (uint64_t at = 0; at < p->len; at += GRAIN) {
        if (p->zero[at / GRAIN]) {
            return true;
        }
    }
    return false;
}

static int write_range(struct job *j, const struct piece *p, uint64_t at, uint64_t len)
{
    while (len > 0) {
        struct disk_extent to;
        int w, r = disk_write_prepare(j->to, p->off + at, len, &to);

        if (r < 0) {
            return r;
        }
        r = move_bytes(j, p, at, &to);
        w = disk_write_done(j->to, p->off + at, to.len, r == 0);
        r = r < 0 ? r : w;
        if (r < 0) {
            return r;
        }
        at += to.len;
        len -= to.len;
    }
    return 0;
}

/* Runs of grains that are not zeros, or all of it. */
static int write_piece(struct job *j, const struct piece *p)
{
    uint64_t at = 0;
    int r = 0;

    if (!j->how->scan) {
        return write_range(j, p, 0, p->len);
    }
    while (at < p->len && r == 0) {
        bool zero = p->zero[at / GRAIN];
        uint64_t end = at;

        while (end < p->len && p->zero[end / GRAIN] == zero) {
            end = MIN(end + GRAIN, p->len);
        }
        r = zero ? leave_out(j, p->off + at, end - at) : write_range(j, p, at, end - at);
        at = end;
    }
    return r;
}

/* ---- the threads ---- */

static void failed(struct job *j, int error)
{
    j->error = j->error ? j->error : error;
    pthread_cond_broadcast(&j->readable);
    pthread_cond_signal(&j->ready);
}

/* Lock held; given up meanwhile. */
static void fill(struct job *j, struct piece *p)
{
    int r;

    pthread_mutex_unlock(&j->lock);
    r = read_piece(j, p);
    pthread_mutex_lock(&j->lock);
    p->ready = true;
    if (r < 0) {
        failed(j, r);
    } else if (j->writer_waits && p == &j->slot[j->done % SLOTS]) {
        pthread_cond_signal(&j->ready);
    }
}

static void *reader(void *arg)
{
    struct job *j = arg;

    pthread_mutex_lock(&j->lock);
    while (j->error == 0 && !j->end) {
        struct piece *p = take_piece(j);

        if (p) {
            fill(j, p);
        } else if (j->error == 0 && !j->end) {
            j->waiting++;
            pthread_cond_wait(&j->readable, &j->lock);
            j->waiting--;
        }
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

/* How much of the disk, from the first piece in the ring on, is sure to be written. Lock held. */
static uint64_t sure_run(const struct job *j)
{
    uint64_t start = j->slot[j->done % SLOTS].off, end = start;

    for (uint64_t i = j->done; i < j->taken; i++) {
        const struct piece *p = &j->slot[i % SLOTS];

        if (p->off != end || (j->how->scan && !(p->ready && !any_zero(p)))) {
            break;
        }
        end += p->len;
    }
    return end - start;
}

/* Tell the target's host of `run` bytes from off on, as far as they lie together. */
static void expect(struct job *j, uint64_t off, uint64_t run)
{
    struct disk_extent to;

    if (run > 0 && disk_write_prepare(j->to, off, run, &to) == 0) {
        disk_file_expect(to.file, to.file_offset, to.len);
        disk_write_done(j->to, off, to.len, false);
        j->expected = off + to.len;
    }
}

/* Write what is in the ring, in order. Lock held. */
static void write_all(struct job *j)
{
    while (j->error == 0) {
        struct piece *p = &j->slot[j->done % SLOTS];
        uint64_t run;
        int r;

        if (j->done == j->taken || !p->ready) {
            struct piece *more = take_piece(j);

            if (more) {
                fill(j, more);
            } else if (j->error == 0 && j->done < j->taken) {
                j->writer_waits = true;
                pthread_cond_wait(&j->ready, &j->lock);
                j->writer_waits = false;
            } else if (j->done == j->taken) {
                break;
            }
            continue;
        }
        run = p->off >= j->expected ? sure_run(j) : 0;
        pthread_mutex_unlock(&j->lock);
        expect(j, p->off, run);
        r = write_piece(j, p);
        pthread_mutex_lock(&j->lock);
        j->done++;
        if (r < 0) {
            failed(j, r);
        } else if (j->waiting > 0 && j->taken - j->done <= SLOTS / 2) {
            pthread_cond_broadcast(&j->readable);
        }
    }
    failed(j, 0);                        /* the end, or not: nobody needs to wait */
}

/* As long as the host shares blocks there is nothing to read. Lock held, and no readers yet. */
static void clone_all(struct job *j)
{
    struct piece *p;

    while (!j->how->scan && !j->no_clone && (p = take_piece(j))) {
        j->error = write_piece(j, p);
        j->done++;
    }
}

int copy_disk(struct disk *from, struct disk *to, const struct copy *how)
{
    hv_autofree struct job *j = hv_alloc(sizeof(*j));
    hv_autofree uint8_t *ring = aligned_alloc(2 * MIB, SLOTS * PIECE);      /* a huge page's alignment */
    pthread_t thread[READERS];
    unsigned n = 0;

    if (!j || !ring) {
        return -ENOMEM;
    }
    madvise(ring, SLOTS * PIECE, MADV_HUGEPAGE);
    *j = (struct job){ .from = from, .to = to, .how = how, .lock = PTHREAD_MUTEX_INITIALIZER,
                       .readable = PTHREAD_COND_INITIALIZER, .ready = PTHREAD_COND_INITIALIZER };
    for (unsigned i = 0; i < SLOTS; i++) {
        j->slot[i].data = ring + i * PIECE;
    }
    pthread_mutex_lock(&j->lock);
    clone_all(j);
    while (n < READERS && j->error == 0 && !j->end && pthread_create(&thread[n], NULL, reader, j) == 0) {
        n++;
    }
    write_all(j);
    pthread_mutex_unlock(&j->lock);
    while (n > 0) {
        pthread_join(thread[--n], NULL);
    }
    return j->error;
}

/* ---- into a parent ---- */

int copy_down(struct disk *chain, unsigned depth, struct disk *into, const struct copy *how)
{
    hv_autofree uint8_t *buf = hv_alloc(PIECE);
    uint64_t size = MIN(disk_size(chain), disk_size(into));
    int r = buf ? 0 : -ENOMEM;

    for (uint64_t off = 0; r == 0 && off < size;) {
        struct disk_extent x;

        r = disk_map(chain, off, MIN(size - off, 64 * MIB), &x);
        if (r < 0) {
            break;
        }
        if (x.where == DISK_DATA && x.layer < depth) {
            x.len = MIN(x.len, PIECE);
            r = disk_read(chain, off, buf, x.len);
            r = r < 0 ? r : disk_write(into, off, buf, x.len);
        } else if (x.where == DISK_ZERO && x.layer < depth) {
            r = disk_zero(into, off, x.len);
        }
        off += x.len;
        if (how->progress) {
            how->progress(how->progress_arg, off, size);
        }
    }
    return r < 0 ? r : disk_flush(into);
}

/* ---- streams ---- */

static ssize_t read_some(int fd, uint8_t *buf, size_t len)
{
    size_t got = 0;

    while (got < len) {
        ssize_t n = read(fd, buf + got, len - got);

        if (n == 0) {
            break;
        }
        if (n > 0) {
            got += (size_t)n;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return (ssize_t)got;
}

int copy_stream_in(int fd, struct disk *to, uint64_t *ret_bytes)
{
    hv_autofree uint8_t *buf = hv_alloc(PIECE);
    uint64_t off = 0;
    ssize_t n = 0;

    if (!buf) {
        return -ENOMEM;
    }
    while ((n = read_some(fd, buf, PIECE)) > 0) {
        for (uint64_t at = 0; at < (uint64_t)n; at += GRAIN) {
            uint64_t len = MIN(GRAIN, (uint64_t)n - at);
            int r;

            if (off + at + len > disk_size(to)) {
                return -EFBIG;
            }
            r = hv_is_zero(buf + at, len) ? 0 : disk_write(to, off + at, buf + at, len);
            if (r < 0) {
                return r;
            }
        }
        off += (uint64_t)n;
    }
    *ret_bytes = off;
    return (int)n;
}

static int put_zeros(int fd, uint64_t len, bool holes)
{
    static const uint8_t zeros[GRAIN];

    if (holes) {
        return lseek(fd, (off_t)len, SEEK_CUR) < 0 ? -errno : 0;
    }
    for (uint64_t done = 0; done < len; done += GRAIN) {
        int r = hv_write_all(fd, zeros, MIN(GRAIN, len - done));

        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int copy_stream_out(struct disk *from, int fd, const struct copy *how)
{
    hv_autofree uint8_t *buf = hv_alloc(PIECE);
    uint64_t size = disk_size(from);
    struct stat st;
    bool holes = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    int r = buf ? 0 : -ENOMEM;

    for (uint64_t off = 0; off < size && r == 0;) {
        struct disk_extent x;

        r = disk_map(from, off, size - off, &x);
        if (r == 0 && x.where != DISK_DATA) {
            r = put_zeros(fd, x.len, holes);
        } else if (r == 0) {
            x.len = MIN(x.len, PIECE);
            r = disk_read(from, off, buf, x.len);
            r = r < 0 ? r : hv_write_all(fd, buf, x.len);
        }
        off += x.len;
        if (how->progress && r == 0) {
            how->progress(how->progress_arg, off, size);
        }
    }
    if (r == 0 && holes) {
        r = ftruncate(fd, lseek(fd, 0, SEEK_CUR)) < 0 ? -errno : 0;
    }
    return r;
}
