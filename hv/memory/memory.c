/*
 * Guest physical memory. One sparse memfd backs all RAM, and a page's offset in it is
 * its guest physical address: punching, saving and a second mapping in another process
 * need no table. Each region is one shared mapping of its part of the file; firmware
 * images are private anonymous memory beside it.
 *
 * The region list is small, sorted and changes rarely (start, hot-add, reset), so a
 * read-write lock guards it. A pin counts on its region: memory that somebody holds
 * cannot be unmapped under them.
 */
#include "hv/memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/fault.h"
#include "hv/memory/memory_impl.h"

int mem_new(const char *name, int fd, struct mem **ret, struct hv_error *e)
{
    struct mem *m = hv_alloc(sizeof(*m));
    if (!m)
        return hv_fail(e, HV_NO_RESOURCES, name, "out of memory");
    if (fd < 0) {
        fd = memfd_create(name, MFD_CLOEXEC);
        if (fd < 0) {
            int err = errno;
            free(m);
            return hv_fail_errno(e, err, name, "cannot create guest memory");
        }
    }
    m->magic = MEM_MAGIC;
    m->fd = fd;
    m->paging.fd = -1;
    pthread_rwlock_init(&m->lock, NULL);
    *ret = m;
    return 0;
}

static void region_free(struct region *g)
{
    munmap(g->hva, g->len);
    free(g);
}

void mem_free(struct mem *m)
{
    if (!m)
        return;
    HV_CHECK(m, MEM_MAGIC);
    for (unsigned i = 0; i < m->count; i++)
        region_free(m->region[i]);
    close(m->fd);
    if (m->paging.fd >= 0)
        close(m->paging.fd);
    pthread_rwlock_destroy(&m->lock);
    m->magic = 0;
    free(m);
}

int mem_fd(const struct mem *m)
{
    HV_CHECK(m, MEM_MAGIC);
    return m->fd;
}

/* Index of the first region that ends after gpa. Lock held. */
static unsigned region_after(const struct mem *m, gpa_t gpa)
{
    unsigned lo = 0, hi = m->count;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        const struct region *g = m->region[mid];
        if (g->gpa + (g->len - 1) < gpa)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct region *mem_region_at(const struct mem *m, gpa_t gpa)
{
    unsigned i = region_after(m, gpa);
    return i < m->count && m->region[i]->gpa <= gpa ? m->region[i] : NULL;
}

int mem_set_listener(struct mem *m, const struct mem_listener *l)
{
    HV_CHECK(m, MEM_MAGIC);
    int r = 0;
    pthread_rwlock_wrlock(&m->lock);
    m->listener = l ? *l : (struct mem_listener){0};
    for (unsigned i = 0; r == 0 && m->listener.map && i < m->count; i++) {
        struct region *g = m->region[i];
        r = m->listener.map(m->listener.arg, g->gpa, g->len, g->hva, g->rom);
    }
    pthread_rwlock_unlock(&m->lock);
    return r;
}

/* Insert g, whose memory is mapped; takes it over. */
static int region_add(struct mem *m, struct region *g, const char *what, struct hv_error *e)
{
    int r = 0;
    pthread_rwlock_wrlock(&m->lock);
    unsigned at = region_after(m, g->gpa);
    if (at < m->count && m->region[at]->gpa < g->gpa + g->len)
        r = -EEXIST;
    else if (m->count == MEM_MAX_REGIONS)
        r = -ENOSPC;
    else if (m->listener.map)
        r = m->listener.map(m->listener.arg, g->gpa, g->len, g->hva, g->rom);
    if (r == 0) {
        memmove(&m->region[at + 1], &m->region[at], (m->count - at) * sizeof(m->region[0]));
        m->region[at] = g;
        m->count++;
    }
    pthread_rwlock_unlock(&m->lock);
    if (r < 0) {
        hv_fail_errno(e, -r, what, "cannot add memory at 0x%llx", (unsigned long long)g->gpa);
        region_free(g);
    }
    return r;
}

static struct region *region_new(gpa_t gpa, uint64_t len, bool rom)
{
    struct region *g = hv_alloc(sizeof(*g));
    if (g) {
        g->gpa = gpa;
        g->len = len;
        g->rom = rom;
    }
    return g;
}

bool mem_range_ok(gpa_t gpa, uint64_t len)
{
    uint64_t end;
    return len && !(gpa & ~HV_PAGE_MASK) && !(len & ~HV_PAGE_MASK) &&
           !__builtin_add_overflow(gpa, len, &end) && end <= (uint64_t)INT64_MAX;
}

void mem_advise(void *hva, uint64_t len)
{
    /* A wish: where the host allows huge shared pages the guest's TLB misses get cheaper. */
    (void)madvise(hva, len, MADV_HUGEPAGE);
    (void)madvise(hva, len, MADV_DONTDUMP);
}

int mem_add_ram(struct mem *m, gpa_t gpa, uint64_t len, struct hv_error *e)
{
    HV_CHECK(m, MEM_MAGIC);
    if (!mem_range_ok(gpa, len))
        return hv_fail(e, HV_USAGE, "memory", "0x%llx+0x%llx is no page range",
                       (unsigned long long)gpa, (unsigned long long)len);
    struct stat st;
    if (fstat(m->fd, &st) < 0)
        return hv_fail_errno(e, errno, "memory", "cannot size guest memory");
    if ((uint64_t)st.st_size < gpa + len && ftruncate(m->fd, (off_t)(gpa + len)) < 0)
        return hv_fail_errno(e, errno, "memory", "cannot grow guest memory");
    struct region *g = region_new(gpa, len, false);
    if (!g || fault_check(FAULT_ALLOC)) {
        free(g);
        return hv_fail(e, HV_NO_RESOURCES, "memory", "out of memory");
    }
    g->hva = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, (off_t)gpa);
    if (g->hva == MAP_FAILED) {
        int err = errno;
        free(g);
        return hv_fail_errno(e, err, "memory", "cannot map guest memory");
    }
    mem_advise(g->hva, len);
    return region_add(m, g, "memory", e);
}

int mem_add_rom(struct mem *m, gpa_t gpa, const void *image, uint64_t len, struct hv_error *e)
{
    HV_CHECK(m, MEM_MAGIC);
    if (!mem_range_ok(gpa, len))
        return hv_fail(e, HV_USAGE, "firmware", "0x%llx+0x%llx is no page range",
                       (unsigned long long)gpa, (unsigned long long)len);
    struct region *g = region_new(gpa, len, true);
    if (!g)
        return hv_fail(e, HV_NO_RESOURCES, "firmware", "out of memory");
    g->hva = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g->hva == MAP_FAILED) {
        int err = errno;
        free(g);
        return hv_fail_errno(e, err, "firmware", "cannot map the image");
    }
    memcpy(g->hva, image, len);
    (void)mprotect(g->hva, len, PROT_READ);
    return region_add(m, g, "firmware", e);
}

int mem_remove(struct mem *m, gpa_t gpa, uint64_t len)
{
    HV_CHECK(m, MEM_MAGIC);
    int r = 0;
    struct region *g = NULL;
    pthread_rwlock_wrlock(&m->lock);
    unsigned at = region_after(m, gpa);
    if (at == m->count || m->region[at]->gpa != gpa || m->region[at]->len != len)
        r = -ENOENT;
    else if (m->region[at]->pins)
        r = -EBUSY;
    else if (m->listener.unmap)
        r = m->listener.unmap(m->listener.arg, gpa, len);
    if (r == 0) {
        g = m->region[at];
        memmove(&m->region[at], &m->region[at + 1], (m->count - at - 1) * sizeof(m->region[0]));
        m->count--;
    }
    pthread_rwlock_unlock(&m->lock);
    if (r == 0) {
        if (!g->rom)
            (void)fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)gpa, (off_t)len);
        region_free(g);
    }
    return r;
}

static void written(struct mem *m, gpa_t gpa, uint64_t len)
{
    if (m->listener.written)
        m->listener.written(m->listener.arg, gpa, len);
}

int mem_punch(struct mem *m, gpa_t gpa, uint64_t len)
{
    HV_CHECK(m, MEM_MAGIC);
    if (!mem_range_ok(gpa, len))
        return -EINVAL;
    if (!mem_is_ram(m, gpa, len))
        return -EFAULT;
    int r = mem_give_back(m, gpa, len);
    written(m, gpa, len);
    return r;
}

int mem_clear(struct mem *m)
{
    HV_CHECK(m, MEM_MAGIC);
    int r = mem_page_drop(m);
    gpa_t gpa;
    uint64_t len;
    bool rom;
    for (unsigned i = 0; r == 0 && mem_region(m, i, &gpa, &len, &rom) == 0; i++)
        if (!rom)
            r = mem_punch(m, gpa, len);
    return r;
}

int mem_pin(struct mem *m, gpa_t gpa, uint64_t len, enum mem_access access, struct mem_pin *ret)
{
    HV_CHECK(m, MEM_MAGIC);
    if (!len)
        return -EINVAL;
    int r = -EFAULT;
    pthread_rwlock_rdlock(&m->lock);
    struct region *g = mem_region_at(m, gpa);
    if (g && len <= g->len - (gpa - g->gpa) && !(g->rom && access == MEM_WRITE)) {
        g->pins++;
        *ret = (struct mem_pin){
            .m = m, .gpa = gpa, .len = len, .access = access, .hva = g->hva + (gpa - g->gpa)};
        r = 0;
    }
    pthread_rwlock_unlock(&m->lock);
    return r;
}

void mem_unpin(struct mem_pin *pin)
{
    struct mem *m = pin->m;
    HV_CHECK(m, MEM_MAGIC);
    if (pin->access == MEM_WRITE)
        written(m, pin->gpa, pin->len);
    pthread_rwlock_rdlock(&m->lock);
    struct region *g = mem_region_at(m, pin->gpa);
    hv_assert(g && g->pins);
    g->pins--;
    pthread_rwlock_unlock(&m->lock);
    *pin = (struct mem_pin){0};
}

void mem_pin_written(const struct mem_pin *pin, uint64_t off, uint64_t len)
{
    HV_CHECK(pin->m, MEM_MAGIC);
    hv_assert(pin->access == MEM_WRITE && off <= pin->len && len <= pin->len - off);
    if (len)
        written(pin->m, pin->gpa + off, len);
}

/* Is every byte there? Lock held. */
static bool covered(const struct mem *m, gpa_t gpa, uint64_t len, bool rom_too)
{
    while (len) {
        const struct region *g = mem_region_at(m, gpa);
        if (!g || (g->rom && !rom_too))
            return false;
        uint64_t part = MIN(len, g->len - (gpa - g->gpa));
        len -= part;
        gpa += part;
    }
    return true;
}

static int copy(struct mem *m, gpa_t gpa, void *buf, uint64_t len, enum mem_access access)
{
    HV_CHECK(m, MEM_MAGIC);
    uint8_t *p = buf;
    gpa_t at = gpa, end;
    uint64_t left = len;
    if (__builtin_add_overflow(gpa, len, &end))
        return -EFAULT;
    pthread_rwlock_rdlock(&m->lock);
    int r = covered(m, gpa, len, access == MEM_READ) ? 0 : -EFAULT;
    while (r == 0 && left) {
        struct region *g = mem_region_at(m, at);
        uint64_t part = MIN(left, g->len - (at - g->gpa));
        if (access == MEM_READ)
            memcpy(p, g->hva + (at - g->gpa), part);
        else
            memcpy(g->hva + (at - g->gpa), p, part);
        p += part;
        at += part;
        left -= part;
    }
    pthread_rwlock_unlock(&m->lock);
    if (r == 0 && len && access == MEM_WRITE)
        written(m, gpa, len);
    return r;
}

int mem_read(struct mem *m, gpa_t gpa, void *buf, uint64_t len)
{
    return copy(m, gpa, buf, len, MEM_READ);
}

int mem_write(struct mem *m, gpa_t gpa, const void *buf, uint64_t len)
{
    return copy(m, gpa, (void *)(uintptr_t)buf, len, MEM_WRITE);
}

bool mem_is_ram(struct mem *m, gpa_t gpa, uint64_t len)
{
    HV_CHECK(m, MEM_MAGIC);
    gpa_t end;
    if (__builtin_add_overflow(gpa, len, &end))
        return false;
    pthread_rwlock_rdlock(&m->lock);
    bool ok = covered(m, gpa, len, false);
    pthread_rwlock_unlock(&m->lock);
    return ok;
}

int mem_region(struct mem *m, unsigned i, gpa_t *ret_gpa, uint64_t *ret_len, bool *ret_rom)
{
    HV_CHECK(m, MEM_MAGIC);
    int r = -ENOENT;
    pthread_rwlock_rdlock(&m->lock);
    if (i < m->count) {
        *ret_gpa = m->region[i]->gpa;
        *ret_len = m->region[i]->len;
        *ret_rom = m->region[i]->rom;
        r = 0;
    }
    pthread_rwlock_unlock(&m->lock);
    return r;
}

uint64_t mem_ram_bytes(struct mem *m)
{
    uint64_t sum = 0, len;
    gpa_t gpa;
    bool rom;
    for (unsigned i = 0; mem_region(m, i, &gpa, &len, &rom) == 0; i++)
        sum += rom ? 0 : len;
    return sum;
}

uint64_t mem_resident_bytes(struct mem *m)
{
    HV_CHECK(m, MEM_MAGIC);
    struct stat st;
    return fstat(m->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}
