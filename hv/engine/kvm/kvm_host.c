/*
 * What the host's KVM has to offer, and the refusal that names what it lacks.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "hv/engine/kvm/kvm.h"

#define DEVICE "/dev/kvm"

static const struct { int cap; const char *name, *for_what; } needed[] = {
#define NEED(cap, what) { cap, #cap, what }
    NEED(KVM_CAP_USER_MEMORY, "guest memory"),
    NEED(KVM_CAP_SET_TSS_ADDR, "real mode"),
    NEED(KVM_CAP_SET_IDENTITY_MAP_ADDR, "real mode"),
    NEED(KVM_CAP_SPLIT_IRQCHIP, "local APICs in the kernel without its IOAPIC"),
    NEED(KVM_CAP_IRQ_ROUTING, "end-of-interrupt exits"),
    NEED(KVM_CAP_SIGNAL_MSI, "interrupt messages"),
    NEED(KVM_CAP_X86_USER_SPACE_MSR, "the Hyper-V MSRs (Linux 5.10)"),
    NEED(KVM_CAP_X86_MSR_FILTER, "the Hyper-V MSRs (Linux 5.10)"),
    NEED(KVM_CAP_IMMEDIATE_EXIT, "stopping a vCPU"),
    NEED(KVM_CAP_READONLY_MEM, "read-only memory"),
    NEED(KVM_CAP_EXT_CPUID, "CPUID"),
    NEED(KVM_CAP_GET_TSC_KHZ, "the TSC's frequency"),
    NEED(KVM_CAP_MP_STATE, "saved states"),
    NEED(KVM_CAP_VCPU_EVENTS, "saved states"),
    NEED(KVM_CAP_DEBUGREGS, "saved states"),
    NEED(KVM_CAP_XSAVE, "saved states"),
    NEED(KVM_CAP_XCRS, "saved states"),
#undef NEED
};

int kvm_ioctl(int fd, unsigned long request, const void *arg)
{
    int r;
    do
        r = ioctl(fd, request, arg);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

int kvm_ioctl_value(int fd, unsigned long request, unsigned long value)
{
    return kvm_ioctl(fd, request, (const void *)value);
}

static int check(int fd, struct hv_error *e)
{
    int version = kvm_ioctl_value(fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return hv_fail(e, HV_UNSUPPORTED, DEVICE, "is not a KVM of version %d", KVM_API_VERSION);
    char missing[320] = "";
    size_t len = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++) {
        if (kvm_ioctl_value(fd, KVM_CHECK_EXTENSION, (unsigned long)needed[i].cap) > 0)
            continue;
        int n = snprintf(missing + len, sizeof(missing) - len, "%s%s (%s)", len ? ", " : "", needed[i].name,
                         needed[i].for_what);
        len = MIN(len + (size_t)n, sizeof(missing) - 1);
    }
    if (len) {
        hv_fail(e, HV_UNSUPPORTED, DEVICE, "this host's KVM lacks %s", missing);
        hv_hint(e, "use --engine soft, or a newer kernel");
        return -EOPNOTSUPP;
    }
    return 0;
}

int kvm_host_open(int fd, struct hv_error *e)
{
    fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : open(DEVICE, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        const int err = errno;
        if (err == ENOENT || err == ENODEV || err == ENXIO) {
            hv_fail(e, HV_UNSUPPORTED, NULL, "the kvm engine needs /dev/kvm, which this host has not");
            hv_hint(e, "use --engine soft, or load the modules kvm_intel or kvm_amd");
            return -EOPNOTSUPP;
        }
        hv_fail_errno(e, err, DEVICE, "cannot open it");
        hv_hint(e, "use --engine soft, or join the group that owns /dev/kvm");
        return -err;
    }
    int r = check(fd, e);
    if (r < 0) {
        close(fd);
        return r;
    }
    return fd;
}

int kvm_probe(int kvm_fd, struct hv_error *e)
{
    hv_autoclose int fd = kvm_host_open(kvm_fd, e);
    return MIN(fd, 0);
}

/*
 * Not part of a saved state: the Hyper-V range is the machine's; the kernel's own
 * paravirtual MSRs are not offered; nested VMX is not; TSC and deadline have an order of
 * their own (kvm_state.c).
 */
static bool ours(uint32_t msr)
{
    if (msr >= KVM_MSR_HV_FIRST && msr < KVM_MSR_HV_FIRST + KVM_MSR_HV_COUNT)
        return false;
    if ((msr & 0xffffff00u) == 0x4b564d00u || msr == 0x11 || msr == 0x12)
        return false;
    if (msr >= 0x480 && msr <= 0x493)
        return false;
    return msr != KVM_MSR_TSC && msr != KVM_MSR_TSC_DEADLINE;
}

int kvm_host_msrs(struct kvm *k)
{
    hv_autofree struct kvm_msr_list *list = hv_alloc(sizeof(*list) + KVM_MAX_MSRS * sizeof(list->indices[0]));
    if (!list)
        return -ENOMEM;
    list->nmsrs = KVM_MAX_MSRS;
    int r = kvm_ioctl(k->dev_fd, KVM_GET_MSR_INDEX_LIST, list);
    if (r < 0)
        return r;
    uint64_t unused;
    for (uint32_t i = 0; i < MIN(list->nmsrs, KVM_MAX_MSRS - 32); i++)
        if (ours(list->indices[i]) && kvm_msr_read(&k->vcpu[0], list->indices[i], &unused) == 0)
            k->msr_index[k->msrs++] = list->indices[i];
    /* The list leaves the MTRRs out in older kernels (before 6.5). */
    static const struct { uint16_t first, count; } mtrr[] = {{0x200, 16}, {0x250, 1}, {0x258, 2}, {0x268, 8}, {0x2ff, 1}};
    for (unsigned i = 0; i < ARRAY_SIZE(mtrr); i++) {
        for (uint32_t msr = mtrr[i].first; msr < (uint32_t)mtrr[i].first + mtrr[i].count; msr++) {
            bool there = false;
            for (unsigned n = 0; n < k->msrs; n++)
                there |= k->msr_index[n] == msr;
            if (!there && k->msrs < KVM_MAX_MSRS && kvm_msr_read(&k->vcpu[0], msr, &unused) == 0)
                k->msr_index[k->msrs++] = msr;
        }
    }
    return 0;
}
