/*
 * Which pages the guest wrote: by the kernel's dirty rings (Linux 5.11, on a CPU with VT-x or
 * AMD-V), else by its bitmaps.
 *
 *   ring     one a vCPU, mapped: the kernel adds (slot, page) when a page is first written; we
 *            take what is there and have it protect those pages again. Costs what is written.
 *   bitmap   one a slot: handed out and cleared as a whole. Costs what is mapped.
 *
 * Either way what a caller did not ask for yet, and what the host itself wrote, is kept in a
 * bitmap of ours, one bit a page. Documentation/virt/kvm/api.rst, 8.29.
 */
#include <cpuid.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/engine/kvm/kvm.h"

/* A vCPU that fills it exits; what the kernel keeps back (64, and 512 on Intel) is in it. */
#define RING_ENTRIES 4096u
#define RING_LEN (RING_ENTRIES * sizeof(struct kvm_dirty_gfn))

/* ---- rings ---- */

/* A KVM that interprets guests, as some hosts without VT-x and AMD-V have, overruns its rings. */
static bool hardware(void)
{
    unsigned a, b, c, d;
    return (__get_cpuid(1, &a, &b, &c, &d) && c & 1u << 5) ||             /* VMX */
           (__get_cpuid(0x80000001u, &a, &b, &c, &d) && c & 1u << 2);     /* SVM */
}

void kvm_dirty_ring_init(struct kvm *k)
{
    const char *wish = getenv("HV_KVM_DIRTY_RING");
    const int most = kvm_ioctl_value(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING);
    struct kvm_enable_cap ring = { .cap = KVM_CAP_DIRTY_LOG_RING, .args = { RING_LEN } };
    if (most >= (int)RING_LEN && hardware() && !(wish && strcmp(wish, "off") == 0))
        k->dirty_ring = kvm_ioctl(k->vm_fd, KVM_ENABLE_CAP, &ring) == 0;
}

int kvm_dirty_ring_map(struct vcpu *v)
{
    if (!v->kvm->dirty_ring)
        return 0;
    const off_t at = (off_t)KVM_DIRTY_LOG_PAGE_OFFSET * (off_t)HV_PAGE_SIZE;
    void *p = mmap(NULL, RING_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, at);
    if (p == MAP_FAILED)
        return -errno;
    v->ring = p;
    return 0;
}

void kvm_dirty_ring_unmap(struct vcpu *v)
{
    if (v->ring)
        munmap(v->ring, RING_LEN);
    v->ring = NULL;
}

/* slot_lock is held, as in all static functions here. */
static unsigned take(struct kvm *k, struct vcpu *v)
{
    unsigned n = 0;
    for (; n < RING_ENTRIES; n++) {
        struct kvm_dirty_gfn *e = &v->ring[v->ring_at % RING_ENTRIES];
        /* Acquire: the entry is there before its flag. */
        if (!(__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
            break;
        if (e->slot < KVM_MAX_SLOTS && e->offset < k->slot[e->slot].len / HV_PAGE_SIZE)
            k->slot[e->slot].dirty[e->offset / 64] |= UINT64_C(1) << e->offset % 64;
        /* Release: we have read it before the kernel may reuse it. */
        __atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
        v->ring_at++;
    }
    return n;
}

static int take_all(struct kvm *k)
{
    unsigned n = 0;
    for (unsigned i = 0; i < k->vcpus; i++)
        n += take(k, &k->vcpu[i]);
    const int r = n ? kvm_ioctl_value(k->vm_fd, KVM_RESET_DIRTY_RINGS, 0) : 0;
    return MIN(r, 0);
}

int kvm_dirty_ring_full(struct kvm *k)
{
    pthread_mutex_lock(&k->slot_lock);
    const int r = take_all(k);
    pthread_mutex_unlock(&k->slot_lock);
    return r;
}

/* ---- both ---- */

int kvm_dirty_collect(struct kvm *k, unsigned i)
{
    struct kvm_slot *s = &k->slot[i];
    if (s->readonly)
        return 0;
    if (k->dirty_ring)
        return take_all(k);
    const size_t words = KVM_BITMAP_WORDS(s->len);
    hv_autofree uint64_t *now = hv_alloc_array(words, sizeof(*now));
    if (!now)
        return -ENOMEM;
    struct kvm_dirty_log log = { .slot = i, .dirty_bitmap = now };
    int r = kvm_ioctl(k->vm_fd, KVM_GET_DIRTY_LOG, &log);
    for (size_t w = 0; r == 0 && w < words; w++)
        s->dirty[w] |= now[w];
    return r;
}

static bool test_bit(const uint64_t *map, uint64_t n)
{
    return map[n / 64] >> n % 64 & 1;
}

void kvm_dirty_copy(struct kvm_slot *part, const struct kvm_slot *whole)
{
    const uint64_t first = (part->gpa - whole->gpa) / HV_PAGE_SIZE;
    for (uint64_t n = 0; n < part->len / HV_PAGE_SIZE; n++)
        part->dirty[n / 64] |= (uint64_t)test_bit(whole->dirty, first + n) << n % 64;
}

int kvm_dirty_log(struct kvm *k, bool on)
{
    int r = 0;
    pthread_mutex_lock(&k->slot_lock);
    atomic_store(&k->logging, on);
    for (unsigned i = 0; i < k->max_slots && r == 0; i++)
        if (k->slot[i].len && !k->slot[i].readonly)
            r = kvm_slot_tell(k, i, &k->slot[i]);
    if (r == 0 && k->dirty_ring && !on)
        r = take_all(k);                    /* of the log that ends */
    for (unsigned i = 0; i < k->max_slots && r == 0; i++)
        if (k->slot[i].len)
            memset(k->slot[i].dirty, 0, KVM_BITMAP_WORDS(k->slot[i].len) * sizeof(uint64_t));
    pthread_mutex_unlock(&k->slot_lock);
    return r;
}

int kvm_dirty_fetch(struct kvm *k, gpa_t gpa, uint64_t pages, uint64_t *bitmap)
{
    const gpa_t end = gpa + pages * HV_PAGE_SIZE;
    int r = 0;
    memset(bitmap, 0, (size_t)(pages + 63) / 64 * sizeof(*bitmap));
    pthread_mutex_lock(&k->slot_lock);
    if (!atomic_load(&k->logging))
        r = -EINVAL;
    for (unsigned i = 0; i < k->max_slots && r == 0; i++) {
        struct kvm_slot *s = &k->slot[i];
        const gpa_t s_end = s->gpa + s->len;
        if (!s->len || s->readonly || s_end <= gpa || end <= s->gpa)
            continue;
        r = kvm_dirty_collect(k, i);
        for (gpa_t at = MAX(gpa, s->gpa); r == 0 && at < MIN(end, s_end); at += HV_PAGE_SIZE) {
            const uint64_t from = (at - s->gpa) / HV_PAGE_SIZE, to = (at - gpa) / HV_PAGE_SIZE;
            bitmap[to / 64] |= (uint64_t)test_bit(s->dirty, from) << to % 64;
            s->dirty[from / 64] &= ~(UINT64_C(1) << from % 64);
        }
    }
    pthread_mutex_unlock(&k->slot_lock);
    return r;
}

/* Without the lock where nothing is logged: what was written before a log began is in its first pass. */
void kvm_host_wrote(struct kvm *k, gpa_t gpa, uint64_t len)
{
    if (!len || !atomic_load(&k->logging))
        return;
    const gpa_t end = gpa + len;
    pthread_mutex_lock(&k->slot_lock);
    for (unsigned i = 0; i < k->max_slots; i++) {
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
