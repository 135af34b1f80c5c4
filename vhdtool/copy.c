/*
 * Content from disk to disk. What the source's map says is zeros is never read, never written:
 * the target reads as zeros already. Data goes in large pieces, one being read while the one
 * before is written.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhdtool/vhdtool.h"

#define PIECE  (2 * MIB)
#define GRAIN  (64 * KIB)        /* zeros are looked for in units of this */

bool is_zero(const void *p, size_t len)
{
    const uint8_t *b = p;

    return len == 0 || (b[0] == 0 && memcmp(b, b + 1, len - 1) == 0);
}

/* ---- two buffers between a reader and a writer ---- */

struct piece { uint64_t off, len; uint8_t *data; };

struct pipe {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct piece piece[4];
    unsigned head, count;        /* filled pieces */
    bool done, failed;
    int error;
    struct disk *to;
    const struct copy *how;
};

static int write_piece(struct pipe *p, const struct piece *x)
{
    uint64_t at = 0;

    if (!p->how->scan) {
        return disk_write(p->to, x->off, x->data, x->len);
    }
    while (at < x->len) {                /* runs of grains that are not zeros */
        uint64_t n = MIN(GRAIN, x->len - at), run = 0;
        int r;

        while (n > 0 && !is_zero(x->data + at + run, n)) {
            run += n;
            n = MIN(GRAIN, x->len - at - run);
        }
        r = run ? disk_write(p->to, x->off + at, x->data + at, run) : 0;
        if (r < 0) {
            return r;
        }
        at += run + n;
    }
    return 0;
}

static void *writer(void *arg)
{
    struct pipe *p = arg;

    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->count == 0 && !p->done) {
            pthread_cond_wait(&p->changed, &p->lock);
        }
        if (p->count == 0) {
            break;
        }
        struct piece *x = &p->piece[p->head];
        int r = 0;

        if (!p->failed) {
            pthread_mutex_unlock(&p->lock);
            r = write_piece(p, x);
            pthread_mutex_lock(&p->lock);
        }
        if (r < 0) {
            p->failed = true;
            p->error = r;
        }
        p->head = (p->head + 1) % ARRAY_SIZE(p->piece);
        p->count--;
        pthread_cond_broadcast(&p->changed);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* A free piece, or NULL when the writer failed. */
static struct piece *take_free(struct pipe *p)
{
    struct piece *x = NULL;

    pthread_mutex_lock(&p->lock);
    while (p->count == ARRAY_SIZE(p->piece) && !p->failed) {
        pthread_cond_wait(&p->changed, &p->lock);
    }
    if (!p->failed) {
        x = &p->piece[(p->head + p->count) % ARRAY_SIZE(p->piece)];
    }
    pthread_mutex_unlock(&p->lock);
    return x;
}

static void put_filled(struct pipe *p)
{
    pthread_mutex_lock(&p->lock);
    p->count++;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

/* The next piece of the source at or after *off that may hold data. 1, 0 at the end, -errno. */
static int next_data(struct disk *from, uint64_t *off, uint64_t *ret_len)
{
    uint64_t size = disk_size(from), start;

    for (start = *off; start < size; start = *off) {
        struct disk_extent x;
        int r = disk_map(from, start, size - start, &x);

        if (r < 0) {
            return r;
        }
        if (x.where == DISK_DATA && disk_file_fd(x.file) >= 0) {
            /* Holes of the file under it are zeros too. */
            off_t data = lseek(disk_file_fd(x.file), (off_t)x.file_offset, SEEK_DATA);
            off_t hole;

            if (data < 0 && errno == ENXIO) {
                data = (off_t)(x.file_offset + x.len);
            }
            if (data > (off_t)x.file_offset) {
                uint64_t skip = ROUND_DOWN(MIN((uint64_t)data - x.file_offset, x.len), 512);

                if (skip > 0) {
                    *off = start + skip;
                    continue;
                }
            }
            hole = lseek(disk_file_fd(x.file), (off_t)x.file_offset, SEEK_HOLE);
            if (hole > (off_t)x.file_offset) {
                x.len = MIN(x.len, ROUND_UP((uint64_t)hole - x.file_offset, 512));
            }
        }
        if (x.where == DISK_DATA) {
            *off = start;
            *ret_len = MIN(x.len, PIECE);
            return 1;
        }
        *off = start + x.len;
    }
    return 0;
}

static int read_all(struct pipe *p, struct disk *from)
{
    uint64_t off = 0, len;
    int r;

    while ((r = next_data(from, &off, &len)) > 0) {
        struct piece *x = take_free(p);

        if (!x) {
            return 0;                    /* the writer says why */
        }
        x->off = off;
        x->len = len;
        r = disk_read(from, off, x->data, len);
        if (r < 0) {
            return r;
        }
        put_filled(p);
        off += len;
        if (p->how->progress) {
            p->how->progress(p->how->progress_arg, off, disk_size(from));
        }
    }
    return r;
}

int copy_disk(struct disk *from, struct disk *to, const struct copy *how)
{
    struct pipe p = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .to = to, .how = how};
    uint8_t *buf = NULL;
    pthread_t thread;
    int r = posix_memalign((void **)&buf, 4096, ARRAY_SIZE(p.piece) * PIECE) ? -ENOMEM : 0;

    for (size_t i = 0; i < ARRAY_SIZE(p.piece) && r == 0; i++) {
        p.piece[i].data = buf + i * PIECE;
    }
    if (r == 0) {
        r = -pthread_create(&thread, NULL, writer, &p);
    }
    if (r == 0) {
        r = read_all(&p, from);
        pthread_mutex_lock(&p.lock);
        p.done = true;
        pthread_cond_broadcast(&p.changed);
        pthread_mutex_unlock(&p.lock);
        pthread_join(thread, NULL);
        r = r < 0 ? r : p.error;
    }
    free(buf);
    return r;
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
