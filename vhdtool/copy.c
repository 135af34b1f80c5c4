/*
 * Content from disk to disk. What the source's map, or the host's, says is zeros is never read and
 * never written: the target reads as zeros already. The rest goes in pieces, several at once: one is
 * read while another is written. Pieces get their room in the target in the order of the disk, so
 * that it can be read in one go later. Where the host can share blocks of files, it does.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhdtool/vhdtool.h"

#define PIECE   (1 * MIB)
#define WORKERS 3u
#define GRAIN   (64 * KIB)       /* zeros are looked for in units of this */
#define RUNS    (PIECE / GRAIN)

bool is_zero(const void *p, size_t len)
{
    const uint8_t *b = p;

    return len == 0 || (b[0] == 0 && memcmp(b, b + 1, len - 1) == 0);
}

/* ---- what is to be copied ---- */

struct job {
    struct disk *from, *to;
    const struct copy *how;
    pthread_mutex_t lock;
    pthread_cond_t turn_changed;
    pthread_mutex_t writing;     /* the host lets one write to a file at a time: who waits here does not spin there */
    struct disk_extent x;        /* of from, what is left of it; DATA, or len 0 */
    uint64_t off;                /* where x starts, and the next piece */
    uint64_t taken, turn;        /* pieces handed out; whose turn it is to get room */
    bool no_clone;               /* the host cannot share blocks between these files */
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

struct piece {
    uint64_t off, len, no;
    struct disk_extent from;
    struct run { uint64_t off, len; struct disk_extent to; } run[2 * RUNS];   /* where it goes, room given */
    unsigned runs;
    uint8_t *data;
};

/* 1, 0 when there is no more. Pieces end where the host's alignment wants it. */
static int take_piece(struct job *j, struct piece *p)
{
    int r = 1;

    pthread_mutex_lock(&j->lock);
    if (j->error == 0 && j->x.len == 0) {
        r = next_extent(j);
        j->error = r < 0 ? r : 0;
    }
    r = j->error < 0 ? 0 : r;
    if (r > 0) {
        p->off = j->off;
        p->len = MIN(j->x.len, PIECE - j->off % PIECE);
        p->no = j->taken++;
        p->from = j->x;
        p->from.len = p->len;
        j->off += p->len;
        j->x.len -= p->len;
        j->x.file_offset += p->len;
        if (j->how->progress) {
            j->how->progress(j->how->progress_arg, j->off, disk_size(j->from));
        }
    }
    pthread_mutex_unlock(&j->lock);
    return r;
}

/* ---- one piece ---- */

/* Room for [at, at+len) of the piece. */
static int add_runs(struct job *j, struct piece *p, uint64_t at, uint64_t len)
{
    while (len > 0) {
        struct run *run = &p->run[p->runs];
        int r = p->runs < ARRAY_SIZE(p->run) ? disk_write_prepare(j->to, p->off + at, len, &run->to) : -E2BIG;

        if (r < 0) {
            return r;
        }
        run->off = at;
        run->len = run->to.len;
        p->runs++;
        at += run->len;
        len -= run->len;
    }
    return 0;
}

/* Runs of grains that are not zeros, or all of it. */
static int make_runs(struct job *j, struct piece *p)
{
    uint64_t at = 0;
    int r = 0;

    p->runs = 0;
    if (!j->how->scan) {
        return add_runs(j, p, 0, p->len);
    }
    while (at < p->len && r == 0) {
        uint64_t n = MIN(GRAIN, p->len - at), run = 0;

        while (n > 0 && !is_zero(p->data + at + run, n)) {
            run += n;
            n = MIN(GRAIN, p->len - at - run);
        }
        r = run ? add_runs(j, p, at, run) : 0;
        r = r < 0 ? r : leave_out(j, p->off + at + run, n);
        at += run + n;
    }
    return r;
}

static int move_run(struct job *j, struct piece *p, const struct run *run, bool *read)
{
    int r;

    if (!j->how->scan && !j->no_clone) {
        r = disk_file_clone(p->from.file, p->from.file_offset + run->off, run->to.file, run->to.file_offset, run->len);
        if (r != -EOPNOTSUPP) {
            return r;
        }
        j->no_clone = true;
    }
    if (!*read) {
        r = disk_file_read(p->from.file, p->from.file_offset, p->data, p->len);
        if (r < 0) {
            return r;
        }
        *read = true;
    }
    pthread_mutex_lock(&j->writing);
    r = disk_file_write(run->to.file, run->to.file_offset, p->data + run->off, run->len);
    pthread_mutex_unlock(&j->writing);
    return r;
}

static int copy_piece(struct job *j, struct piece *p)
{
    bool read = j->how->scan || j->no_clone;
    int r = read ? disk_file_read(p->from.file, p->from.file_offset, p->data, p->len) : 0;

    p->runs = 0;
    pthread_mutex_lock(&j->lock);
    while (j->turn != p->no) {
        pthread_cond_wait(&j->turn_changed, &j->lock);
    }
    pthread_mutex_unlock(&j->lock);
    r = r < 0 ? r : make_runs(j, p);
    pthread_mutex_lock(&j->lock);
    j->turn++;
    pthread_cond_broadcast(&j->turn_changed);
    pthread_mutex_unlock(&j->lock);
    for (unsigned i = 0; i < p->runs; i++) {
        int w;

        r = r < 0 ? r : move_run(j, p, &p->run[i], &read);
        w = disk_write_done(j->to, p->off + p->run[i].off, p->run[i].len, r == 0);
        r = r < 0 ? r : w;
    }
    return r;
}

static void *worker(void *arg)
{
    struct job *j = arg;
    struct piece p = { .data = aligned_alloc(4096, PIECE) };
    int r = p.data ? 0 : -ENOMEM;

    while (r == 0 && take_piece(j, &p) > 0) {
        r = copy_piece(j, &p);
    }
    if (r < 0) {
        pthread_mutex_lock(&j->lock);
        j->error = j->error ? j->error : r;
        pthread_mutex_unlock(&j->lock);
    }
    free(p.data);
    return NULL;
}

int copy_disk(struct disk *from, struct disk *to, const struct copy *how)
{
    struct job j = { .from = from, .to = to, .how = how, .lock = PTHREAD_MUTEX_INITIALIZER,
                     .turn_changed = PTHREAD_COND_INITIALIZER, .writing = PTHREAD_MUTEX_INITIALIZER };
    pthread_t thread[WORKERS - 1];
    unsigned n = 0;

    while (n < ARRAY_SIZE(thread) && pthread_create(&thread[n], NULL, worker, &j) == 0) {
        n++;
    }
    worker(&j);
    while (n > 0) {
        pthread_join(thread[--n], NULL);
    }
    return j.error;
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
                return -ENOSPC;
            }
            r = is_zero(buf + at, len) ? 0 : disk_write(to, off + at, buf + at, len);
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
