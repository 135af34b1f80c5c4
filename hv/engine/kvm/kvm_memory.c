/* Memory slots: which host memory is the guest's, and what is left of a slot when a part of it goes. */
#include <errno.h>

#include "hv/engine/kvm/kvm.h"

/* slot_lock is held here, as in all static functions below. */
int kvm_slot_tell(struct kvm *k, unsigned i, const struct kvm_slot *s)
{
    struct kvm_userspace_memory_region region = {
        .slot = i, .guest_phys_addr = s->gpa, .memory_size = s->len, .userspace_addr = (uintptr_t)s->hva,
        .flags = (s->readonly ? KVM_MEM_READONLY : 0) | (atomic_load(&k->logging) && !s->readonly ? KVM_MEM_LOG_DIRTY_PAGES : 0),
    };
    return kvm_ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* was: the slot it was a part of, whose dirty pages stay dirty; or NULL. */
static int slot_add(struct kvm *k, gpa_t gpa, uint64_t len, uint8_t *hva, bool readonly, const struct kvm_slot *was)
{
    unsigned i = 0;
    while (i < k->max_slots && k->slot[i].len)
        i++;
    if (i == k->max_slots)
        return -ENOSPC;
    struct kvm_slot s = { .gpa = gpa, .len = len, .hva = hva, .readonly = readonly };
    s.dirty = hv_alloc_array(KVM_BITMAP_WORDS(len), sizeof(*s.dirty));
    if (!s.dirty)
        return -ENOMEM;
    if (was && atomic_load(&k->logging))
        kvm_dirty_copy(&s, was);
    int r = kvm_slot_tell(k, i, &s);
    if (r < 0) {
        free(s.dirty);
        return r;
    }
    k->slot[i] = s;
    return 0;
}

/* Its bitmap is the caller's to free. */
static struct kvm_slot slot_delete(struct kvm *k, unsigned i)
{
    struct kvm_slot was = k->slot[i], gone = was;
    gone.len = 0;
    gone.readonly = false;
    (void)kvm_slot_tell(k, i, &gone);
    k->slot[i] = (struct kvm_slot){ 0 };
    return was;
}

int kvm_map(struct kvm *k, gpa_t gpa, uint64_t len, void *hva, bool readonly)
{
    if (!len || (gpa | len | (uintptr_t)hva) & ~HV_PAGE_MASK)
        return -EINVAL;
    pthread_mutex_lock(&k->slot_lock);
    int r = slot_add(k, gpa, len, hva, readonly, NULL);
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
        const gpa_t s_end = k->slot[i].gpa + k->slot[i].len;
        if (!k->slot[i].len || s_end <= gpa || end <= k->slot[i].gpa)
            continue;
        if (atomic_load(&k->logging) && (r = kvm_dirty_collect(k, i)) < 0)
            break;
        const struct kvm_slot s = slot_delete(k, i);
        if (s.gpa < gpa)
            r = slot_add(k, s.gpa, gpa - s.gpa, s.hva, s.readonly, &s);
        if (r == 0 && end < s_end)
            r = slot_add(k, end, s_end - end, s.hva + (end - s.gpa), s.readonly, &s);
        free(s.dirty);
    }
    pthread_mutex_unlock(&k->slot_lock);
    return r;
}

bool kvm_peek(struct kvm *k, gpa_t gpa, void *buf, size_t len)
{
    bool found = false;
    pthread_mutex_lock(&k->slot_lock);
    for (unsigned i = 0; i < k->max_slots && !found; i++) {
        const struct kvm_slot *s = &k->slot[i];
        found = s->len >= len && gpa >= s->gpa && gpa - s->gpa <= s->len - len;
        if (found)
            memcpy(buf, s->hva + (gpa - s->gpa), len);
    }
    pthread_mutex_unlock(&k->slot_lock);
    return found;
}

void kvm_memory_fini(struct kvm *k)
{
    for (unsigned i = 0; i < KVM_MAX_SLOTS; i++)
        free(k->slot[i].dirty);
}
