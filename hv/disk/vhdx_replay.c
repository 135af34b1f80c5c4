/*
 * The log of a VHDX that was not closed: found, checked, turned into what is to be written.
 * MS-VHDX 2.3.
 *
 * Every sector of an entry but its first begins with a signature other than "loge"
 * (descriptors: "zero", "desc"; data: "data"), whatever a guest wrote. So an entry ends
 * before the next "loge" sector, candidates cannot overlap, each has at most one
 * predecessor, and all of the log is checked in two passes over it. A file made to have
 * every sector claim the whole log costs no more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/crc32c.h"
#include "hv/disk/vhdx.h"

#define CHUNK ((uint32_t)1 << 20)
/* Zero descriptors may be 32 bytes each in a log of 1 GiB: more than anything real, refused. */
#define ZEROS_MAX 262144u

struct candidate {
    uint64_t sequence, flushed, last;
    uint32_t pos, len, tail, count;    /* bytes in the log; descriptors */
    bool valid;
};

struct scan {
    struct disk_file *f;
    const struct vhdx_header *h;
    struct candidate *c;               /* by pos */
    size_t n, cap;
};

static uint64_t sectors_of_header(uint32_t count)
{
    return ((uint64_t)count * VHDX_DESC_SIZE + VHDX_ENTRY_HEADER + VHDX_PAGE - 1) / VHDX_PAGE;
}

/* len bytes of the log at pos, which may be past its end: it wraps. */
static int read_log(const struct scan *s, uint64_t pos, uint8_t *buf, uint32_t len)
{
    while (len > 0) {
        uint32_t at = (uint32_t)(pos % s->h->log_len), n = MIN(len, s->h->log_len - at);
        int r = disk_file_read(s->f, s->h->log_off + at, buf, n);

        if (r < 0) {
            return r;
        }
        buf += n;
        pos += n;
        len -= n;
    }
    return 0;
}

/* What the first sector says, as far as it can be true. Others' entries stay: they bound ours. */
static struct candidate parse_candidate(const struct scan *s, uint32_t pos, const uint8_t *p)
{
    struct candidate c = {
        .pos = pos,
        .len = get_le32(p + VHDX_ENTRY_LENGTH),
        .tail = get_le32(p + VHDX_ENTRY_TAIL),
        .count = get_le32(p + VHDX_ENTRY_COUNT),
        .sequence = get_le64(p + VHDX_ENTRY_SEQUENCE),
        .flushed = get_le64(p + VHDX_ENTRY_FLUSHED),
        .last = get_le64(p + VHDX_ENTRY_LAST),
    };

    c.valid = memcmp(p + VHDX_ENTRY_LOG_GUID, &s->h->log_id, 16) == 0 && c.len >= VHDX_PAGE &&
              c.len % VHDX_PAGE == 0 && c.len <= s->h->log_len && c.tail % VHDX_PAGE == 0 &&
              c.tail < s->h->log_len && c.sequence > 0 &&
              sectors_of_header(c.count) <= c.len / VHDX_PAGE;
    return c;
}

static int find_candidates(struct scan *s, uint8_t *buf)
{
    for (uint32_t pos = 0; pos < s->h->log_len; pos += CHUNK) {
        int r = read_log(s, pos, buf, CHUNK);

        if (r < 0) {
            return r;
        }
        for (uint32_t at = 0; at < CHUNK; at += VHDX_PAGE) {
            if (memcmp(buf + at, "loge", 4) != 0) {
                continue;
            }
            if (s->n == s->cap) {
                size_t cap = s->cap ? s->cap * 2 : 64;
                struct candidate *grown = hv_realloc_array(s->c, cap, sizeof(*grown));

                if (!grown) {
                    return -ENOMEM;
                }
                s->c = grown;
                s->cap = cap;
            }
            s->c[s->n++] = parse_candidate(s, pos + at, buf + at);
        }
    }
    return 0;
}

/* Descriptors of one header sector: signatures and sequence. Data descriptors are counted. */
static bool check_descriptors(const struct candidate *c, const uint8_t *p, uint32_t n, uint64_t *data)
{
    for (; n > 0; n--, p += VHDX_DESC_SIZE) {
        bool is_data = memcmp(p, "desc", 4) == 0;

        if ((!is_data && memcmp(p, "zero", 4) != 0) || get_le64(p + VHDX_DESC_SEQUENCE) != c->sequence) {
            return false;
        }
        *data += is_data;
    }
    return true;
}

static bool check_data(const struct candidate *c, const uint8_t *p)
{
    return memcmp(p, "data", 4) == 0 && get_le32(p + VHDX_DATA_HIGH) == c->sequence >> 32 &&
           get_le32(p + VHDX_DATA_LOW) == (uint32_t)c->sequence;
}

/* Descriptors in sector i of the header sectors. */
static uint32_t descriptors_in(const struct candidate *c, uint64_t i)
{
    uint64_t before = i ? VHDX_DESCS_FIRST + (i - 1) * (VHDX_PAGE / VHDX_DESC_SIZE) : 0;

    return (uint32_t)MIN((uint64_t)c->count - before,
                         (uint64_t)(i ? VHDX_PAGE / VHDX_DESC_SIZE : VHDX_DESCS_FIRST));
}

/* Reads the whole entry once. Sets valid to what it finds; negative if the log cannot be read. */
static int validate(const struct scan *s, struct candidate *c, uint32_t room, uint8_t *buf)
{
    uint64_t heads = sectors_of_header(c->count), data = 0;
    uint32_t crc = 0, want = 0;

    if (!c->valid || c->len > room) {
        c->valid = false;
        return 0;
    }
    c->valid = false;
    for (uint64_t at = 0; at < c->len; at += CHUNK) {
        uint32_t n = (uint32_t)MIN((uint64_t)CHUNK, c->len - at);
        int r = read_log(s, c->pos + at, buf, n);

        if (r < 0) {
            return r;
        }
        for (uint32_t o = 0; o < n; o += VHDX_PAGE) {
            uint64_t i = (at + o) / VHDX_PAGE;

            if (i >= heads ? !check_data(c, buf + o)
                           : !check_descriptors(c, buf + o + (i ? 0 : VHDX_ENTRY_HEADER), descriptors_in(c, i), &data)) {
                return 0;
            }
        }
        if (at == 0) {
            want = get_le32(buf + VHDX_ENTRY_CRC);
            put_le32(buf + VHDX_ENTRY_CRC, 0);
        }
        crc = crc32c(crc, buf, n);
    }
    c->valid = crc == want && heads + data == c->len / VHDX_PAGE;
    return 0;
}

static bool follows(const struct scan *s, const struct candidate *a, const struct candidate *b)
{
    return a->valid && b->valid && ((uint64_t)a->pos + a->len) % s->h->log_len == b->pos &&
           b->sequence - 1 == a->sequence;
}

/*
 * The sequence to replay: of all longest runs of entries whose last one's tail is the start
 * of an entry of the run, the one that ends with the highest sequence number. c[*first] is
 * that tail; false: there is none.
 */
static bool choose(const struct scan *s, size_t *first, size_t *count)
{
    uint64_t best = 0;

    for (size_t i = 0; i < s->n; i++) {
        const struct candidate *last = &s->c[i];

        if (!last->valid || last->sequence <= best || follows(s, last, &s->c[(i + 1) % s->n])) {
            continue;
        }
        for (size_t k = i, steps = 1; steps <= s->n; k = (k + s->n - 1) % s->n, steps++) {
            if (s->c[k].pos == last->tail) {
                best = last->sequence;
                *first = k;
                *count = steps;
                break;
            }
            if (!follows(s, &s->c[(k + s->n - 1) % s->n], &s->c[k])) {
                break;
            }
        }
    }
    return best > 0;
}

/* ---- from entries to patches ---- */

struct collect {
    struct vhdx_patch *p;              /* in the order of the log: later ones win */
    size_t n, cap, zeros;
};

static bool target_bad(const struct vhdx_header *h, uint64_t off, uint64_t len)
{
    return off % VHDX_PAGE || len % VHDX_PAGE || len == 0 || off < VHDX_LOG_TARGET_MIN || off > VHDX_FILE_MAX ||
           len > VHDX_FILE_MAX - off || (off < h->log_off + h->log_len && h->log_off < off + len);
}

static int collect_one(const struct scan *s, struct collect *k, const struct candidate *c, const uint8_t *p,
                       uint64_t *data, struct hv_error *e)
{
    bool zero = memcmp(p, "zero", 4) == 0;
    struct vhdx_patch x = { .off = get_le64(p + VHDX_DESC_OFFSET),
                            .len = zero ? get_le64(p + VHDX_DESC_LENGTH) : VHDX_PAGE };

    if (target_bad(s->h, x.off, x.len)) {
        return hv_fail(e, HV_USAGE, disk_file_path(s->f), "log: entry %llu writes 0x%llx bytes at 0x%llx, where none may",
                       (unsigned long long)c->sequence, (unsigned long long)x.len, (unsigned long long)x.off);
    }
    if (zero && ++k->zeros > ZEROS_MAX) {
        return hv_fail(e, HV_USAGE, disk_file_path(s->f), "log: more than %u ranges to zero", ZEROS_MAX);
    }
    if (!zero) {
        uint64_t at = c->pos + (sectors_of_header(c->count) + (*data)++) * VHDX_PAGE;

        x.sector = s->h->log_off + at % s->h->log_len;
        memcpy(x.leading, p + VHDX_DESC_LEADING, 8);
        memcpy(x.trailing, p + VHDX_DESC_TRAILING, 4);
    }
    if (k->n == k->cap) {
        size_t cap = k->cap ? k->cap * 2 : 64;
        struct vhdx_patch *grown = hv_realloc_array(k->p, cap, sizeof(*grown));

        if (!grown) {
            return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
        }
        k->p = grown;
        k->cap = cap;
    }
    k->p[k->n++] = x;
    return 0;
}

static int collect_entry(const struct scan *s, struct collect *k, const struct candidate *c, struct hv_error *e)
{
    uint64_t heads = sectors_of_header(c->count), data = 0;
    uint8_t sector[VHDX_PAGE];

    for (uint64_t i = 0; i < heads; i++) {
        const uint8_t *p = sector + (i ? 0 : VHDX_ENTRY_HEADER);
        int r = read_log(s, c->pos + i * VHDX_PAGE, sector, VHDX_PAGE);

        if (r < 0) {
            return hv_fail_errno(e, -r, disk_file_path(s->f), "log: cannot be read");
        }
        for (uint32_t n = descriptors_in(c, i); n > 0; n--, p += VHDX_DESC_SIZE) {
            r = collect_one(s, k, c, p, &data, e);
            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static size_t index_of(const uint64_t *edges, size_t n, uint64_t value)
{
    size_t lo = 0, hi = n;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (edges[mid] < value) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* The next stretch at or behind i that is not taken yet; halves the way for those who come later. */
static size_t next_untaken(size_t *next, size_t i)
{
    while (next[i] != i) {
        next[i] = next[next[i]];
        i = next[i];
    }
    return i;
}

/*
 * Later patches cover earlier ones: what of each remains, disjoint and ascending. All edges
 * cut the file into stretches; from the newest patch to the oldest, each takes those in it
 * that are untaken. A page's two edges are 4096 apart and all edges multiples of that, so
 * data is never cut.
 */
static int resolve(const struct collect *k, struct vhdx_patch **ret, size_t *ret_count)
{
    hv_autofree uint64_t *edges = hv_alloc_array(2 * k->n + 1, sizeof(*edges));
    hv_autofree size_t *next = hv_alloc_array(2 * k->n + 1, sizeof(*next));
    hv_autofree size_t *owner = hv_alloc_array(2 * k->n + 1, sizeof(*owner));
    struct vhdx_patch *out = NULL;
    size_t m = 0, count = 0;

    if (!edges || !next || !owner) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < k->n; i++) {
        edges[2 * i] = k->p[i].off;
        edges[2 * i + 1] = k->p[i].off + k->p[i].len;
    }
    qsort(edges, 2 * k->n, sizeof(*edges), by_value);
    for (size_t i = 0; i < 2 * k->n; i++) {
        if (i == 0 || edges[i] != edges[m - 1]) {
            edges[m++] = edges[i];
        }
    }
    for (size_t i = 0; i < m; i++) {
        next[i] = i;
        owner[i] = SIZE_MAX;
    }
    for (size_t i = k->n; i-- > 0;) {
        size_t end = index_of(edges, m, k->p[i].off + k->p[i].len);

        for (size_t s = next_untaken(next, index_of(edges, m, k->p[i].off)); s < end; s = next_untaken(next, s)) {
            owner[s] = i;
            next[s] = s + 1;
            count++;
        }
    }
    out = hv_alloc_array(count + 1, sizeof(*out));
    if (!out) {
        return -ENOMEM;
    }
    count = 0;
    for (size_t s = 0; s + 1 < m; s++) {
        if (owner[s] == SIZE_MAX) {
            continue;
        }
        out[count] = k->p[owner[s]];
        out[count].off = edges[s];
        out[count++].len = edges[s + 1] - edges[s];
    }
    *ret = out;
    *ret_count = count;
    return 0;
}

int vhdx_replay_read(struct disk_file *f, const struct vhdx_header *h, struct vhdx_replay *ret,
                     struct hv_error *e)
{
    struct scan s = { .f = f, .h = h };
    struct collect k = { 0 };
    hv_autofree uint8_t *buf = NULL;
    const struct candidate *last;
    size_t first = 0, count = 0;
    int r;

    *ret = (struct vhdx_replay){ .file_size = disk_file_size(f) };
    if (guid_is_zero(&h->log_id)) {
        return 0;
    }
    buf = hv_alloc(CHUNK);
    r = buf ? find_candidates(&s, buf) : -ENOMEM;
    for (size_t i = 0; i < s.n && r == 0; i++) {
        uint32_t next = i + 1 < s.n ? s.c[i + 1].pos : h->log_len + s.c[0].pos;

        r = validate(&s, &s.c[i], next - s.c[i].pos, buf);
    }
    if (r < 0) {
        r = hv_fail_errno(e, -r, disk_file_path(f), "log: cannot be read");
        goto out;
    }
    if (!choose(&s, &first, &count)) {
        r = hv_fail(e, HV_USAGE, disk_file_path(f), "log: in use by the header, but no entry in it is whole");
        hv_hint(e, "vhdtool repair gives the log up; what was written last may then be missing");
        goto out;
    }
    last = &s.c[(first + count - 1) % s.n];
    if (last->flushed > ret->file_size) {
        r = hv_fail(e, HV_USAGE, disk_file_path(f), "the file was cut: it has 0x%llx bytes, and had 0x%llx when last written",
                    (unsigned long long)ret->file_size, (unsigned long long)last->flushed);
        goto out;
    }
    if (last->last > VHDX_FILE_MAX) {
        r = hv_fail(e, HV_USAGE, disk_file_path(f), "log: wants a file of 0x%llx bytes", (unsigned long long)last->last);
        goto out;
    }
    for (size_t i = 0; i < count && r == 0; i++) {
        r = collect_entry(&s, &k, &s.c[(first + i) % s.n], e);
    }
    if (r == 0) {
        r = resolve(&k, &ret->patches, &ret->count);
        r = r < 0 ? hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory") : 0;
    }
    ret->entries = (unsigned)count;
    ret->sequence = last->sequence;
    ret->file_size = MAX(ret->file_size, last->last);
    for (size_t i = 0; r == 0 && i < ret->count; i++) {
        if (ret->patches[i].sector) {
            ret->file_size = MAX(ret->file_size, ret->patches[i].off + VHDX_PAGE);
        }
    }
out:
    free(s.c);
    free(k.p);
    return r;
}

void vhdx_replay_fini(struct vhdx_replay *rp)
{
    free(rp->patches);
    rp->patches = NULL;
    rp->count = 0;
}
