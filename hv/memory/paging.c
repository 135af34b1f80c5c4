/*
 * Smart paging: a part of the RAM whose pages are those of a file on a disk (DESIGN 5, dynamic-memory
 * 2.6). The file's pages are mapped over that part of a region, at the address it always had: engines,
 * pins and memory slots go by host addresses and see no difference. The host's kernel writes such
 * pages out and reads them in as it does with any file.
 *
 *   region   |-------- memfd, offset = GPA --------|..moved..|--- file, offset from its start ---|
 *                                                  ^ base    ^ base + moved                base + total
 *
 * Moving back goes upwards: copy, map the memfd over it, give the file's blocks back.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/fault.h"
#include "hv/memory/memory_impl.h"

#define COPY_BYTES (256 * KIB)

static int map_over(struct mem *m, gpa_t gpa, uint64_t len, int fd, uint64_t off)
{
    struct region *g = mem_region_at(m, gpa);
    hv_assert(g && !g->rom && len <= g->len - (gpa - g->gpa));
    uint8_t *hva = g->hva + (gpa - g->gpa);
    if (mmap(hva, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, (off_t)off) == MAP_FAILED)
        return -errno;
    mem_advise(hva, len);
    return 0;
}

/* Which piece holds this offset of the file; how much of it there is from there on, and where it lies. */
static uint64_t locate(const struct paging *p, uint64_t off, gpa_t *ret_gpa)
{
    uint64_t at = 0;
    *ret_gpa = 0;
    for (unsigned i = 0; i < p->n; at += p->piece[i++].len)
        if (off < at + p->piece[i].len) {
            *ret_gpa = p->piece[i].gpa + (off - at);
            return at + p->piece[i].len - off;
        }
    return 0;
}

static void forget(struct paging *p)
{
    if (p->fd >= 0)
        close(p->fd);
    *p = (struct paging){.fd = -1};
}

int mem_page_out(struct mem *m, int fd, const struct mem_range *range, unsigned n, struct hv_error *e)
{
    HV_CHECK(m, MEM_MAGIC);
    struct paging *p = &m->paging;
    hv_autoclose int mine = fd;
    struct stat st;
    uint64_t total = 0;
    if (p->fd >= 0 || n == 0 || n > MEM_PAGED_RANGES)
        return hv_fail(e, HV_CONFLICT, "memory", "a part of it lies on a file already");
    for (unsigned i = 0; i < n; i++) {
        struct mem_pin pin;
        if (!mem_range_ok(range[i].gpa, range[i].len) || !mem_is_ram(m, range[i].gpa, range[i].len) ||
            mem_pin(m, range[i].gpa, range[i].len, MEM_READ, &pin) < 0)
            return hv_fail(e, HV_USAGE, "memory", "0x%llx+0x%llx is not within one region", (unsigned long long)range[i].gpa,
                           (unsigned long long)range[i].len);
        mem_unpin(&pin);
        total += range[i].len;
    }
    if (fstat(mine, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < total)
        return hv_fail(e, HV_USAGE, "memory", "the paging file is no file of %llu bytes", (unsigned long long)total);
    *p = (struct paging){.fd = hv_steal_fd(mine), .n = n, .total = total};
    uint64_t off = 0;
    int r = 0;
    pthread_rwlock_wrlock(&m->lock);
    for (unsigned i = 0; i < n && r == 0; off += range[i++].len) {
        p->piece[i] = range[i];
        r = map_over(m, range[i].gpa, range[i].len, p->fd, off);
    }
    pthread_rwlock_unlock(&m->lock);
    if (r < 0) {
        (void)mem_page_drop(m);
        return hv_fail_errno(e, -r, "memory", "cannot map the paging file");
    }
    return 0;
}

/* Pages of zeros stay holes. */
static int write_pages(int fd, const uint8_t *buf, uint64_t len, gpa_t gpa)
{
    static const uint8_t zero[HV_PAGE_SIZE];
    for (uint64_t i = 0; i < len; i += HV_PAGE_SIZE) {
        uint64_t n = 0;
        while (i + n < len && memcmp(buf + i + n, zero, HV_PAGE_SIZE) != 0)
            n += HV_PAGE_SIZE;
        for (uint64_t done = 0; done < n;) {
            ssize_t w = pwrite(fd, buf + i + done, n - done, (off_t)(gpa + i + done));
            if (w < 0 && errno == EINTR)
                continue;
            if (w <= 0)
                return w < 0 ? -errno : -EIO;
            done += (uint64_t)w;
        }
        i += n;
    }
    return 0;
}

static int copy_back(struct mem *m, gpa_t gpa, uint64_t len, uint64_t off)
{
    hv_autofree uint8_t *buf = hv_alloc(COPY_BYTES);
    if (!buf)
        return -ENOMEM;
    for (uint64_t at = 0; at < len;) {
        uint64_t n = MIN(len - at, COPY_BYTES), have = 0;
        while (have < n) {
            int r = fault_check(FAULT_READ);
            ssize_t got = r < 0 ? r : pread(m->paging.fd, buf + have, n - have, (off_t)(off + at + have));
            if (got < 0 && r == 0 && errno == EINTR)
                continue;
            if (got <= 0)
                return r < 0 ? r : got < 0 ? -errno : -EIO;
            have += (uint64_t)got;
        }
        int r = write_pages(m->fd, buf, n, gpa + at);
        if (r < 0)
            return r;
        at += n;
    }
    return 0;
}

int mem_page_in(struct mem *m, uint64_t bytes)
{
    HV_CHECK(m, MEM_MAGIC);
    struct paging *p = &m->paging;
    uint64_t end = p->fd < 0 ? 0 : p->moved + MIN(bytes, p->total - p->moved);
    int r = 0;
    while (r == 0 && p->fd >= 0 && p->moved < end) {
        gpa_t gpa;
        uint64_t n = MIN(locate(p, p->moved, &gpa), end - p->moved);
        if ((r = copy_back(m, gpa, n, p->moved)) < 0)
            break;
        pthread_rwlock_wrlock(&m->lock);
        r = map_over(m, gpa, n, m->fd, gpa);
        pthread_rwlock_unlock(&m->lock);
        if (r < 0)
            break;
        (void)fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)p->moved, (off_t)n);
        p->moved += n;
        if (p->moved == p->total)
            forget(p);
    }
    /* What comes next is read while the guest runs. */
    gpa_t gpa;
    uint64_t n = r == 0 && p->fd >= 0 ? MIN(locate(p, p->moved, &gpa), bytes) : 0;
    if (n) {
        pthread_rwlock_rdlock(&m->lock);
        const struct region *g = mem_region_at(m, gpa);
        (void)madvise(g->hva + (gpa - g->gpa), n, MADV_WILLNEED);
        pthread_rwlock_unlock(&m->lock);
    }
    return r;
}

int mem_page_drop(struct mem *m)
{
    HV_CHECK(m, MEM_MAGIC);
    struct paging *p = &m->paging;
    uint64_t n;
    gpa_t gpa;
    int r = 0;
    pthread_rwlock_wrlock(&m->lock);
    for (uint64_t off = p->moved; p->fd >= 0 && off < p->total; off += n) {
        n = locate(p, off, &gpa);
        if (map_over(m, gpa, n, m->fd, gpa) < 0 && r == 0)
            r = -errno;
    }
    pthread_rwlock_unlock(&m->lock);
    forget(p);
    return r;
}

uint64_t mem_paged(const struct mem *m)
{
    HV_CHECK(m, MEM_MAGIC);
    return m->paging.fd >= 0 ? m->paging.total - m->paging.moved : 0;
}

unsigned mem_paged_ranges(const struct mem *m, struct mem_range ret[MEM_PAGED_RANGES])
{
    const struct paging *p = &m->paging;
    unsigned n = 0;
    gpa_t gpa;
    for (uint64_t off = p->moved, part; p->fd >= 0 && off < p->total; off += part) {
        part = locate(p, off, &gpa);
        ret[n++] = (struct mem_range){.gpa = gpa, .len = part};
    }
    return n;
}

/* Zeros in the file, whose blocks stay its own: the guest may use the pages again, and no space may be left then. */
static int clear_file(int fd, uint64_t off, uint64_t len)
{
    if (fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0)
        return 0;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0)
        return -errno;
    return fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0 ? -errno : 0;
}

/* What of gpa[len] lies on the file from gpa on, and where there; else how far it is to what does. */
static uint64_t on_file(const struct paging *p, gpa_t gpa, uint64_t len, bool *ret_yes, uint64_t *ret_off)
{
    uint64_t at = 0, part = len;
    *ret_yes = false;
    for (unsigned i = 0; p->fd >= 0 && i < p->n; at += p->piece[i++].len) {
        const struct mem_range *r = &p->piece[i];
        uint64_t skip = p->moved > at ? MIN(p->moved - at, r->len) : 0;
        gpa_t first = r->gpa + skip, end = r->gpa + r->len;
        if (first == end)
            continue;
        if (gpa >= first && gpa < end) {
            *ret_yes = true;
            *ret_off = at + (gpa - r->gpa);
            return MIN(len, end - gpa);
        }
        if (first > gpa && first - gpa < part)
            part = first - gpa;
    }
    return part;
}

int mem_give_back(struct mem *m, gpa_t gpa, uint64_t len)
{
    while (len) {
        bool paged;
        uint64_t off = 0, part = on_file(&m->paging, gpa, len, &paged, &off);
        int r = 0;
        if (paged)
            r = clear_file(m->paging.fd, off, part);
        else if (fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)gpa, (off_t)part) < 0)
            r = -errno;
        if (r < 0)
            return r;
        gpa += part;
        len -= part;
    }
    return 0;
}
