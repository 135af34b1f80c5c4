/*
 * Guest RAM as the engine sees it: slots by guest page, and per page who has code of it,
 * who may write it unseen, and the dirty log.
 *
 * The map is a sorted array behind one pointer, read without a lock: hot-add appends to it, or
 * publishes another while vCPUs read the old. Old maps are freed when the engine goes or,
 * with all vCPUs outside run(), when a slot is taken out.
 *
 * The two Dekker pairs that keep decoded code true (all accesses sequentially consistent):
 *   store:   writer = me; then read code   -> fast tag only if nobody has code of the page
 *   decode:  code |= me; then read writer  -> flush the writers before reading the bytes
 */
#include <errno.h>
#include <sys/mman.h>

#include "hv/engine/soft/soft.h"

/* ---- lookup ---- */

struct soft_slot *soft_slot_at(struct soft *s, gpa_t gpa)
{
    const struct soft_map *m = atomic_load_explicit(&s->map, memory_order_acquire);
    unsigned lo = 0, hi = m ? atomic_load_explicit(&m->count, memory_order_acquire) : 0;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        struct soft_slot *slot = m->slot[mid];
        if (gpa < slot->gpa)
            hi = mid;
        else if (gpa - slot->gpa >= slot->len)
            lo = mid + 1;
        else
            return slot;
    }
    return NULL;
}

void *soft_ram(struct soft *s, gpa_t gpa, bool *ret_readonly)
{
    struct soft_slot *slot = soft_slot_at(s, gpa);
    if (!slot)
        return NULL;
    *ret_readonly = slot->readonly;
    return slot->hva + (gpa - slot->gpa);
}

struct soft_page *soft_page_at(struct soft *s, gpa_t gpa)
{
    struct soft_slot *slot = soft_slot_at(s, gpa);
    return slot ? &slot->page[(gpa - slot->gpa) >> HV_PAGE_SHIFT] : NULL;
}

/* ---- changes of the map ---- */

static void slot_free(struct soft_slot *slot)
{
    if (!slot)
        return;
    if (slot->page)
        munmap(slot->page, slot->len / HV_PAGE_SIZE * sizeof(*slot->page));
    free(slot);
}

static void retired_free(struct soft *s)
{
    while (s->retired) {
        struct soft_map *m = s->retired;
        s->retired = m->retired_next;
        free(m);
    }
}

/* A copy of the map with room for more; the caller publishes it. */
static struct soft_map *map_copy(const struct soft_map *old)
{
    const unsigned count = old ? old->count : 0, cap = MAX(16u, 2 * count);
    struct soft_map *m = hv_alloc(sizeof(*m) + cap * sizeof(m->slot[0]));
    if (!m)
        return NULL;
    m->cap = cap;
    m->count = count;
    if (count)
        memcpy(m->slot, old->slot, count * sizeof(m->slot[0]));
    return m;
}

static void map_publish(struct soft *s, struct soft_map *m)
{
    struct soft_map *old = atomic_exchange(&s->map, m);
    if (old) {
        old->retired_next = s->retired;
        s->retired = old;
    }
}

static int map_insert(struct soft *s, struct soft_slot *slot)
{
    struct soft_map *m = atomic_load(&s->map);
    const unsigned count = m ? m->count : 0;
    unsigned i = count;
    while (i > 0 && m->slot[i - 1]->gpa > slot->gpa)
        i--;
    if ((i > 0 && m->slot[i - 1]->gpa + m->slot[i - 1]->len > slot->gpa) ||
        (i < count && m->slot[i]->gpa < slot->gpa + slot->len))
        return -EEXIST;
    if (m && i == count && count < m->cap) {
        m->slot[count] = slot;
        atomic_store_explicit(&m->count, count + 1, memory_order_release);
        return 0;
    }
    m = map_copy(m);
    if (!m)
        return -ENOMEM;
    memmove(&m->slot[i + 1], &m->slot[i], (count - i) * sizeof(m->slot[0]));
    m->slot[i] = slot;
    m->count = count + 1;
    map_publish(s, m);
    return 0;
}

int soft_map_ram(struct soft *s, gpa_t gpa, uint64_t len, void *hva, bool readonly)
{
    if (!len || (gpa | len | (uintptr_t)hva) & ~HV_PAGE_MASK || gpa + len < gpa)
        return -EINVAL;
    struct soft_slot *slot = hv_alloc(sizeof(*slot));
    if (!slot)
        return -ENOMEM;
    *slot = (struct soft_slot){ .gpa = gpa, .len = len, .hva = hva, .readonly = readonly };
    /* Zero pages until touched: most of a large guest's memory never holds code. */
    void *page = mmap(NULL, len / HV_PAGE_SIZE * sizeof(*slot->page), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (page == MAP_FAILED) {
        free(slot);
        return -ENOMEM;
    }
    slot->page = page;

    pthread_mutex_lock(&s->map_lock);
    int r = map_insert(s, slot);
    pthread_mutex_unlock(&s->map_lock);
    if (r) {
        slot_free(slot);
        return r;
    }
    /* What was MMIO is RAM now. Nobody needs to wait: the guest cannot know of it yet. */
    for (unsigned i = 0; i < s->vcpus; i++)
        soft_flush_post(s->vcpu[i]);
    return 0;
}

int soft_unmap_ram(struct soft *s, gpa_t gpa, uint64_t len)
{
    soft_drop_post(s, NULL, gpa, len);
    pthread_mutex_lock(&s->map_lock);
    struct soft_map *m = map_copy(atomic_load(&s->map));
    int r = m ? -ENOENT : -ENOMEM;
    struct soft_slot *gone = NULL;
    for (unsigned i = 0; m && i < m->count; i++) {
        if (m->slot[i]->gpa == gpa && m->slot[i]->len == len) {
            gone = m->slot[i];
            memmove(&m->slot[i], &m->slot[i + 1], (m->count - i - 1) * sizeof(m->slot[0]));
            m->count--;
            map_publish(s, m);
            r = 0;
            break;
        }
    }
    if (r)
        free(m);
    else
        retired_free(s);
    pthread_mutex_unlock(&s->map_lock);
    if (r)
        return r;
    for (unsigned i = 0; i < s->vcpus; i++)
        soft_flush_post(s->vcpu[i]);
    slot_free(gone);
    return 0;
}

void soft_map_fini(struct soft *s)
{
    struct soft_map *m = atomic_exchange(&s->map, NULL);
    for (unsigned i = 0; m && i < m->count; i++)
        slot_free(m->slot[i]);
    free(m);
    retired_free(s);
}

/* ---- code pages ---- */

bool soft_page_is_code(struct soft *s, gpa_t gpa)
{
    struct soft_page *p = soft_page_at(s, gpa);
    return p && atomic_load(&p->code) != 0;
}

uint64_t soft_write_tag_bits(struct cpu *c, gpa_t gpa, bool writing)
{
    struct soft *s = c->soft;
    struct soft_page *p = soft_page_at(s, gpa);
    if (!p)
        return TLB_SLOW_MMIO;
    uint64_t bits = 0;
    if (HV_UNLIKELY(atomic_load_explicit(&s->dirty_log, memory_order_relaxed))) {
        if (writing)
            atomic_store(&p->dirty, 1);
        else if (!atomic_load(&p->dirty))
            bits |= TLB_SLOW_DIRTY;
    }
    const uint8_t me = (uint8_t)(c->vp + 1);
    uint8_t old = atomic_load(&p->writer);
    if (old != me && old != WRITER_MANY) {
        if (old || !atomic_compare_exchange_strong(&p->writer, &old, me))
            atomic_store(&p->writer, WRITER_MANY);
    }
    if (atomic_load(&p->code))
        bits |= TLB_SLOW_CODE;
    return bits;
}

void soft_page_set_code(struct cpu *c, gpa_t gpa)
{
    struct soft *s = c->soft;
    struct vcpu *self = vcpu_of(c);
    struct soft_page *p = soft_page_at(s, gpa);
    if (!p || atomic_fetch_or(&p->code, 1ull << c->vp) & 1ull << c->vp)
        return;
    uint8_t writer = atomic_load(&p->writer);
    if (!writer)
        return;                    /* no TLB lets writes there pass, this vCPU's neither */
    if (writer == c->vp + 1 || writer == WRITER_MANY)
        tlb_mark_code(c, gpa);
    if (writer == c->vp + 1)
        return;
    for (unsigned i = 0; i < s->vcpus; i++) {
        if (s->vcpu[i] != self && (writer == WRITER_MANY || writer == i + 1))
            soft_flush_post(s->vcpu[i]);
    }
    soft_flush_wait(s, self);
    /* Nobody has it writable now, and nobody gets it back before our bit is gone. */
    atomic_store(&p->writer, 0);
}

void soft_page_clear_code(struct cpu *c, gpa_t gpa)
{
    struct soft_page *p = soft_page_at(c->soft, gpa);
    if (p)
        atomic_fetch_and(&p->code, ~(1ull << c->vp));
}

void soft_post_drop(struct cpu *c, gpa_t gpa, unsigned len)
{
    soft_drop_post(c->soft, vcpu_of(c), gpa, len);
}

/* ---- dirty log ---- */

void soft_mark_dirty(struct soft *s, gpa_t gpa)
{
    if (!atomic_load_explicit(&s->dirty_log, memory_order_relaxed))
        return;
    struct soft_page *p = soft_page_at(s, gpa);
    if (p)
        atomic_store(&p->dirty, 1);
}

static void flush_all_and_wait(struct soft *s)
{
    for (unsigned i = 0; i < s->vcpus; i++)
        soft_flush_post(s->vcpu[i]);
    soft_flush_wait(s, NULL);
}

int soft_dirty_log(struct soft *s, bool on)
{
    pthread_mutex_lock(&s->map_lock);
    const struct soft_map *m = atomic_load(&s->map);
    if (on) {
        for (unsigned i = 0; m && i < m->count; i++) {
            struct soft_slot *slot = m->slot[i];
            for (uint64_t n = 0; n < slot->len / HV_PAGE_SIZE; n++)
                if (atomic_load_explicit(&slot->page[n].dirty, memory_order_relaxed))
                    atomic_store_explicit(&slot->page[n].dirty, 0, memory_order_relaxed);
        }
    }
    atomic_store(&s->dirty_log, on);
    pthread_mutex_unlock(&s->map_lock);
    flush_all_and_wait(s);
    return 0;
}

int soft_dirty_fetch(struct soft *s, gpa_t gpa, uint64_t pages, uint64_t *bitmap)
{
    if (gpa & ~HV_PAGE_MASK || !atomic_load(&s->dirty_log))
        return -EINVAL;
    memset(bitmap, 0, (pages + 63) / 64 * 8);
    for (uint64_t n = 0; n < pages; n++) {
        struct soft_page *p = soft_page_at(s, gpa + n * HV_PAGE_SIZE);
        if (p && atomic_load_explicit(&p->dirty, memory_order_relaxed) && atomic_exchange(&p->dirty, 0))
            bitmap[n / 64] |= 1ull << (n % 64);
    }
    /* Writes through tags that were fast before: all done when this returns, so what the caller copies has them. */
    flush_all_and_wait(s);
    return 0;
}
