/*
 * Memory slots and the dirty log.
 *
 * The kernel hands out the log of a whole slot and clears it; what a caller did not ask
 * for, and what the host itself wrote, is kept in a bitmap of ours, one bit a page.
 */
#include <errno.h>

#include "hv/engine/kvm/kvm.h"

static size_t bitmap_words(uint64_t len)
{
    return (size_t)(len / HV_PAGE_SIZE + 63) / 64;
}

/* slot_lock is held, as in all static functions here. */
static int tell(struct kvm *k, unsigned i, const struct kvm_slot *s)
{
    struct kvm_userspace_memory_region region = {
        .slot = i, .guest_phys_addr = s->gpa, .memory_size = s->len, .userspace_addr = (uintptr_t)s->hva,
        .flags = (s->readonly ? KVM_MEM_READONLY : 0) | (k->logging && !s->readonly ? KVM_MEM_LOG_DIRTY_PAGES : 0),
    };
    return kvm_ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static int slot_add(struct kvm *k, gpa_t gpa, uint64_t len, uint8_t *hva, bool readonly)
{
    unsigned i = 0;
    while (i < k->max_slots && k->slot[i].len)
        i++;
    if (i == k->max_slots)
        return -ENOSPC;
    struct kvm_slot s = { .gpa = gpa, .len = len, .hva = hva, .readonly = readonly };
    s.dirty = hv_alloc_array(bitmap_words(len), sizeof(*s.dirty));
    if (!s.dirty)
        return -ENOMEM;
    int r = tell(k, i, &s);
    if (r < 0) {
        free(s.dirty);
        return r;
    }
    k->slot[i] = s;
    return 0;
}

static void slot_delete(struct kvm *k, unsigned i)
{
    struct kvm_slot gone = k->slot[i];
    gone.len = 0;
    gone.readonly = false;
    (void)tell(k, i, &gone);
    free(gone.dirty);
    k->slot[i] = (struct kvm_slot){ 0 };
}

int kvm_map(struct kvm *k, gpa_t gpa, uint64_t len, void *hva, bool readonly)
{
    if (!len || (gpa | len | (uintptr_t)hva) & ~HV_PAGE_MASK)
        return -EINVAL;
    pthread_mutex_lock(&k->slot_lock);
    int r = slot_add(k, gpa, len, hva, readonly);
    pthread_mutex_unlock(&k->slot_lock);
    return r;
}

/* A slot that reaches beyond the range is made anew from what is left of it. */
int kvm_unmap(struct kvm *k, gpa_t gpa, uint64_t len)
{
    const gpa_t end = gpa + len;
    int r = 0;
    if (!len || (gpa | len) & ~HV_PAGE_MASK || end < gpa)
        return -EINVAL;
    pthread_mutex_lock(&k->slot_lock);
    for (unsigned i = 0; i < k->max_slots && r == 0; i++) {
        struct kvm_slot s = k->slot[i];
        const gpa_t s_end = s.gpa + s.len;
        if (!s.len || s_end <= gpa || end <= s.gpa)
            continue;
        slot_delete(k, i);
        if (s.gpa < gpa)
            r = slot_add(k, s.gpa, gpa - s.gpa, s.hva, s.readonly);
        if (r == 0 && end < s_end)
            r = slot_add(k, end, s_end - end, s.hva + (end - s.gpa), s.readonly);
    }
    pthread_mutex_unlock(&k->slot_lock);
    return r;
}

int kvm_dirty_log(struct kvm *k, bool on)
{
    int r = 0;
    pthread_mutex_lock(&k->slot_lock);
    k->logging = on;
    for (unsigned i = 0; i < k->max_slots && r == 0; i++) {
        struct kvm_slot *s = &k->slot[i];
        if (!s->len || s->readonly)
            continue;
        memset(s->dirty, 0, bitmap_words(s->len) * sizeof(*s->dirty));
        r = tell(k, i, s);
    }
    pthread_mutex_unlock(&k->slot_lock);
    return r;
}

static int collect(struct kvm *k, unsigned i)
{
    struct kvm_slot *s = &k->slot[i];
    const size_t words = bitmap_words(s->len);
    hv_autofree uint64_t *now = hv_alloc_array(words, sizeof(*now));
    if (!now)
        return -ENOMEM;
    struct kvm_dirty_log log = { .slot = i, .dirty_bitmap = now };
    int r = kvm_ioctl(k->vm_fd, KVM_GET_DIRTY_LOG, &log);
    for (size_t w = 0; r == 0 && w < words; w++)
        s->dirty[w] |= now[w];
    return r;
}

int kvm_dirty_fetch(struct kvm *k, gpa_t gpa, uint64_t pages, uint64_t *bitmap)
{
    const gpa_t end = gpa + pages * HV_PAGE_SIZE;
    int r = 0;
    memset(bitmap, 0, (size_t)(pages + 63) / 64 * sizeof(*bitmap));
    pthread_mutex_lock(&k->slot_lock);
    if (!k->logging)
        r = -EINVAL;
    for (unsigned i = 0; i < k->max_slots && r == 0; i++) {
        struct kvm_slot *s = &k->slot[i];
        const gpa_t s_end = s->gpa + s->len;
        if (!s->len || s->readonly || s_end <= gpa || end <= s->gpa)
            continue;
        r = collect(k, i);
        for (gpa_t at = MAX(gpa, s->gpa); r == 0 && at < MIN(end, s_end); at += HV_PAGE_SIZE) {
            const uint64_t from = (at - s->gpa) / HV_PAGE_SIZE, to = (at - gpa) / HV_PAGE_SIZE;
            bitmap[to / 64] |= (s->dirty[from / 64] >> from % 64 & 1) << to % 64;
            s->dirty[from / 64] &= ~(UINT64_C(1) << from % 64);
        }
    }
    pthread_mutex_unlock(&k->slot_lock);
    return r;
}

void kvm_host_wrote(struct kvm *k, gpa_t gpa, uint64_t len)
{
    if (!len)
        return;
    const gpa_t end = gpa + len;
    pthread_mutex_lock(&k->slot_lock);
    for (unsigned i = 0; i < k->max_slots && k->logging; i++) {
        struct kvm_slot *s = &k->slot[i];
        if (!s->len)
            continue;
        for (gpa_t at = MAX(gpa & HV_PAGE_MASK, s->gpa); at < MIN(end, s->gpa + s->len); at += HV_PAGE_SIZE) {
            const uint64_t n = (at - s->gpa) / HV_PAGE_SIZE;
            s->dirty[n / 64] |= UINT64_C(1) << n % 64;
        }
    }
    pthread_mutex_unlock(&k->slot_lock);
}

bool kvm_peek(struct kvm *k, gpa_t gpa, uint8_t *ret)
{
    bool found = false;
    pthread_mutex_lock(&k->slot_lock);
    for (unsigned i = 0; i < k->max_slots && !found; i++) {
        const struct kvm_slot *s = &k->slot[i];
        found = s->len && gpa >= s->gpa && gpa - s->gpa < s->len;
        if (found)
            *ret = s->hva[gpa - s->gpa];
    }
    pthread_mutex_unlock(&k->slot_lock);
    return found;
}

void kvm_memory_fini(struct kvm *k)
{
    for (unsigned i = 0; i < KVM_MAX_SLOTS; i++)
        free(k->slot[i].dirty);
}
