/* See memfile.h. Pages of 4 KiB in a hash table; operations in a list with copies of their data. */
#include "tests/unit/disk/memfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MEM_PAGE 4096u

struct mem_page {
    struct mem_page *next;
    uint64_t no;
    uint8_t data[MEM_PAGE];
};

enum mem_kind { MEM_WRITE, MEM_ZERO, MEM_RESIZE, MEM_SYNC };

struct mem_op {
    enum mem_kind kind;
    uint64_t off, len;
    uint8_t *data;
};

struct memfile {
    struct mem_page **buckets;
    size_t bucket_count, pages;
    uint64_t size;
    struct memfile *start;       /* as recording began; with `at` operations applied that were synced */
    size_t at;
    struct mem_op *ops;
    size_t count, cap;
    bool recording;
    uint64_t fail_in;
    bool fail_stay;
};

static void *must(void *p)
{
    hv_assert(p != NULL);
    return p;
}

struct memfile *memfile_new(void)
{
    struct memfile *m = must(calloc(1, sizeof(*m)));

    m->bucket_count = 1024;
    m->buckets = must(calloc(m->bucket_count, sizeof(*m->buckets)));
    return m;
}

static void free_pages(struct memfile *m)
{
    for (size_t i = 0; i < m->bucket_count; i++) {
        for (struct mem_page *p = m->buckets[i], *next; p; p = next) {
            next = p->next;
            free(p);
        }
        m->buckets[i] = NULL;
    }
    m->pages = 0;
}

static void forget_ops(struct memfile *m)
{
    for (size_t i = 0; i < m->count; i++) {
        free(m->ops[i].data);
    }
    m->count = 0;
    memfile_free(m->start);
    m->start = NULL;
    m->at = 0;
}

void memfile_free(struct memfile *m)
{
    if (m) {
        forget_ops(m);
        free_pages(m);
        free(m->ops);
        free(m->buckets);
        free(m);
    }
}

static struct mem_page **slot(const struct memfile *m, uint64_t no)
{
    struct mem_page **at = &m->buckets[(no * 0x9e3779b97f4a7c15u >> 40) % m->bucket_count];

    while (*at && (*at)->no != no) {
        at = &(*at)->next;
    }
    return at;
}

void memfile_read(const struct memfile *m, uint64_t off, void *buf, uint64_t len)
{
    uint8_t *to = buf;

    while (len > 0) {
        uint64_t in = off % MEM_PAGE, n = MIN(len, MEM_PAGE - in);
        struct mem_page *p = *slot(m, off / MEM_PAGE);

        if (p) {
            memcpy(to, p->data + in, n);
        } else {
            memset(to, 0, n);
        }
        to += n;
        off += n;
        len -= n;
    }
}

static void put(struct memfile *m, uint64_t off, const uint8_t *from, uint64_t len)
{
    m->size = MAX(m->size, off + len);
    while (len > 0) {
        uint64_t in = off % MEM_PAGE, n = MIN(len, MEM_PAGE - in);
        struct mem_page **at = slot(m, off / MEM_PAGE);

        if (!*at) {
            *at = must(calloc(1, sizeof(**at)));
            (*at)->no = off / MEM_PAGE;
            m->pages++;
        }
        memcpy((*at)->data + in, from, n);
        from += n;
        off += n;
        len -= n;
    }
}

static void drop_page(struct memfile *m, struct mem_page **at)
{
    struct mem_page *p = *at;

    *at = p->next;
    m->pages--;
    free(p);
}

/* Zeros in [off, off+len); whole pages go. */
static void clear(struct memfile *m, uint64_t off, uint64_t len)
{
    uint64_t end = off + len;

    if (len / MEM_PAGE > m->pages + 16) {    /* by what there is */
        for (size_t i = 0; i < m->bucket_count; i++) {
            for (struct mem_page **at = &m->buckets[i]; *at;) {
                uint64_t a = MAX((*at)->no * MEM_PAGE, off), b = MIN(((*at)->no + 1) * MEM_PAGE, end);

                if (a < b && b - a == MEM_PAGE) {
                    drop_page(m, at);
                    continue;
                }
                if (a < b) {
                    memset((*at)->data + a % MEM_PAGE, 0, b - a);
                }
                at = &(*at)->next;
            }
        }
        return;
    }
    while (off < end) {
        uint64_t n = MIN(end - off, MEM_PAGE - off % MEM_PAGE);
        struct mem_page **at = slot(m, off / MEM_PAGE);

        if (*at && n == MEM_PAGE) {
            drop_page(m, at);
        } else if (*at) {
            memset((*at)->data + off % MEM_PAGE, 0, n);
        }
        off += n;
    }
}

void memfile_resize(struct memfile *m, uint64_t size)
{
    if (size < m->size) {
        clear(m, size, m->size - size);
    }
    m->size = size;
}

void memfile_write(struct memfile *m, uint64_t off, const void *buf, uint64_t len)
{
    put(m, off, buf, len);
}

struct memfile *memfile_copy(const struct memfile *m)
{
    struct memfile *c = memfile_new();

    for (size_t i = 0; i < m->bucket_count; i++) {
        for (const struct mem_page *p = m->buckets[i]; p; p = p->next) {
            put(c, p->no * MEM_PAGE, p->data, MEM_PAGE);
        }
    }
    c->size = m->size;
    return c;
}

uint64_t memfile_size(const struct memfile *m)
{
    return m->size;
}

uint64_t memfile_pages(const struct memfile *m)
{
    return m->pages;
}

static bool covers(const struct memfile *a, const struct memfile *b)
{
    static const uint8_t zeros[MEM_PAGE];

    for (size_t i = 0; i < a->bucket_count; i++) {
        for (const struct mem_page *p = a->buckets[i]; p; p = p->next) {
            const struct mem_page *q = *slot(b, p->no);

            if (memcmp(p->data, q ? q->data : zeros, MEM_PAGE) != 0) {
                return false;
            }
        }
    }
    return true;
}

bool memfile_equal(const struct memfile *a, const struct memfile *b)
{
    return a->size == b->size && covers(a, b) && covers(b, a);
}

/* ---- recording ---- */

void memfile_record(struct memfile *m)
{
    forget_ops(m);
    m->start = memfile_copy(m);
    m->recording = true;
}

size_t memfile_ops(const struct memfile *m)
{
    return m->count;
}

size_t memfile_syncs(const struct memfile *m)
{
    size_t n = 0;

    for (size_t i = 0; i < m->count; i++) {
        n += m->ops[i].kind == MEM_SYNC;
    }
    return n;
}

bool memfile_wrote(const struct memfile *m, size_t i, uint64_t off, uint64_t len)
{
    return m->ops[i].kind == MEM_WRITE && m->ops[i].off >= off && m->ops[i].off - off < len;
}

void memfile_fail(struct memfile *m, uint64_t nth, bool stay)
{
    m->fail_in = nth;
    m->fail_stay = stay;
}

static int note(struct memfile *m, enum mem_kind kind, uint64_t off, const void *buf, uint64_t len)
{
    if (m->fail_in && (m->fail_in == 1 || --m->fail_in == 0)) {
        m->fail_in = m->fail_stay;
        return -EIO;
    }
    if (!m->recording) {
        return 0;
    }
    if (m->count == m->cap) {
        m->cap = m->cap ? m->cap * 2 : 256;
        m->ops = must(realloc(m->ops, m->cap * sizeof(*m->ops)));
    }
    m->ops[m->count] = (struct mem_op){ .kind = kind, .off = off, .len = len };
    if (buf) {
        m->ops[m->count].data = must(malloc(len ? len : 1));
        memcpy(m->ops[m->count].data, buf, len);
    }
    m->count++;
    return 0;
}

/* Of a write or zeroing, sectors [from, to) of 512 bytes, counted from its start. */
static void apply_part(struct memfile *m, const struct mem_op *op, uint64_t from, uint64_t to)
{
    uint64_t a = MIN(from * 512, op->len), b = MIN(to * 512, op->len);

    if (a >= b) {
        return;
    }
    if (op->kind == MEM_WRITE) {
        put(m, op->off + a, op->data + a, b - a);
    } else {
        clear(m, op->off + a, b - a);
    }
}

static void apply(struct memfile *m, const struct mem_op *op)
{
    if (op->kind == MEM_RESIZE) {
        memfile_resize(m, op->len);
    } else if (op->kind != MEM_SYNC) {
        apply_part(m, op, 0, UINT64_MAX / 512);
    }
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 11;
}

static void apply_torn(struct memfile *m, const struct mem_op *op, uint64_t *seed)
{
    uint64_t sectors = (op->len + 511) / 512;

    if (op->kind != MEM_WRITE && op->kind != MEM_ZERO) {
        return;
    }
    if (next_random(seed) % 2) {
        apply_part(m, op, 0, next_random(seed) % (sectors + 1));
    } else {
        apply_part(m, op, next_random(seed) % (sectors + 1), sectors);
    }
}

struct memfile *memfile_crash(struct memfile *m, size_t ops, enum memfile_crash how, uint64_t seed)
{
    size_t durable = 0;
    struct memfile *c;

    hv_assert(m->start && ops <= m->count);
    seed = seed * 2654435761u + 88172645463325252u;
    for (size_t i = 0; i < ops; i++) {
        if (m->ops[i].kind == MEM_SYNC) {
            durable = i + 1;
        }
    }
    hv_assert(durable >= m->at);             /* asked for in ascending order */
    while (m->at < durable) {
        apply(m->start, &m->ops[m->at++]);
    }
    c = memfile_copy(m->start);
    for (size_t i = durable; i < ops && how != CRASH_NONE; i++) {
        uint64_t luck = how == CRASH_RANDOM ? next_random(&seed) % 4 : 0;

        if (luck == 3 || (how == CRASH_TORN && i == ops - 1)) {
            apply_torn(c, &m->ops[i], &seed);
        } else if (luck < 2) {
            apply(c, &m->ops[i]);
        }
    }
    return c;
}

/* ---- as a disk_file ---- */

static int mem_read(void *arg, uint64_t off, void *buf, uint64_t len)
{
    const struct memfile *m = arg;
    uint64_t n = off >= m->size ? 0 : MIN(len, m->size - off);

    memfile_read(m, off, buf, n);
    memset((uint8_t *)buf + n, 0, len - n);
    return 0;
}

static int mem_write(void *arg, uint64_t off, const void *buf, uint64_t len)
{
    struct memfile *m = arg;
    int r = note(m, MEM_WRITE, off, buf, len);

    if (r == 0) {
        put(m, off, buf, len);
    }
    return r;
}

static int mem_zero(void *arg, uint64_t off, uint64_t len)
{
    struct memfile *m = arg;
    uint64_t n = off >= m->size ? 0 : MIN(len, m->size - off);
    int r = note(m, MEM_ZERO, off, NULL, n);

    if (r == 0) {
        clear(m, off, n);
    }
    return r;
}

static int mem_resize(void *arg, uint64_t size)
{
    struct memfile *m = arg;
    int r = note(m, MEM_RESIZE, 0, NULL, size);

    if (r == 0) {
        memfile_resize(m, size);
    }
    return r;
}

static int mem_sync(void *arg)
{
    return note(arg, MEM_SYNC, 0, NULL, 0);
}

static uint64_t mem_size(void *arg)
{
    return memfile_size(arg);
}

static void mem_free(void *arg)
{
    (void)arg;
}

struct disk_file *memfile_open(struct memfile *m, const char *path, unsigned flags)
{
    static const struct disk_file_ops ops = {
        .read = mem_read, .write = mem_write, .zero = mem_zero, .resize = mem_resize,
        .sync = mem_sync, .size = mem_size, .free = mem_free,
    };
    struct disk_file *f = NULL;

    hv_assert(disk_file_from_ops(&ops, m, path, flags, &f) == 0);
    return f;
}
