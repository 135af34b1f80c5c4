/*
 * The kvm engine: its table for engine.h, and making the VM.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/engine/kvm/kvm.h"

/* Three pages and one page that VT-x without unrestricted guests needs; above low RAM, below the APICs. */
#define IDENTITY_MAP_GPA UINT64_C(0xfeffc000)
#define TSS_GPA 0xfeffd000ul

struct kvm *kvm_checked(const struct engine *g)
{
    struct kvm *k = CONTAINER_OF((struct engine *)(uintptr_t)g, struct kvm, engine);
    HV_CHECK(k, KVM_MAGIC);
    return k;
}

static const struct stats_desc stat_desc[KSTAT_COUNT] = {
    [KSTAT_EXITS] = { "exits", "count", "exits to this process, all kinds" },
    [KSTAT_PIO] = { "pio", "count", "port I/O exits" },
    [KSTAT_MMIO] = { "mmio", "count", "memory-mapped I/O exits" },
    [KSTAT_MSR] = { "msr", "count", "MSR exits to the machine" },
    [KSTAT_HYPERCALL] = { "hypercalls", "count", "hypercalls" },
    [KSTAT_WINDOW] = { "windows", "count", "interrupt window exits" },
    [KSTAT_EXTINT] = { "interrupts", "count", "interrupts of the PIC delivered" },
    [KSTAT_EOI] = { "eois", "count", "ends of level-triggered interrupts" },
    [KSTAT_SIGNAL] = { "signals", "count", "runs interrupted by a signal" },
    [KSTAT_RING] = { "dirty_ring_full", "count", "exits for room in the log of written pages" },
    [KSTAT_KICK] = { "kicks", "count", "returns to the vCPU's thread" },
};

/* ---- making it ---- */

/* The quirk has the kernel rewrite VMCALL in guest code: it shall be an #UD. */
static void enable_optional(struct kvm *k)
{
    struct kvm_enable_cap quirks = { .cap = KVM_CAP_DISABLE_QUIRKS2, .args = { KVM_X86_QUIRK_FIX_HYPERCALL_INSN } };
    const int offered = kvm_ioctl_value(k->dev_fd, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2);
    if (offered > 0 && offered & KVM_X86_QUIRK_FIX_HYPERCALL_INSN)
        (void)kvm_ioctl(k->vm_fd, KVM_ENABLE_CAP, &quirks);
}

static int set_up_vm(struct kvm *k, struct hv_error *e)
{
    const uint64_t identity = IDENTITY_MAP_GPA;
    int r = kvm_ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    if (r == 0)
        r = kvm_ioctl_value(k->vm_fd, KVM_SET_TSS_ADDR, TSS_GPA);
    if (r < 0)
        return hv_fail_errno(e, -r, NULL, "KVM: cannot place its pages");
    struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { KVM_PINS } };
    r = kvm_ioctl(k->vm_fd, KVM_ENABLE_CAP, &split);
    if (r < 0)
        return hv_fail_errno(e, -r, NULL, "KVM: cannot have local APICs in the kernel");
    struct kvm_enable_cap msr = { .cap = KVM_CAP_X86_USER_SPACE_MSR,
                                  .args = { KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_UNKNOWN } };
    r = kvm_ioctl(k->vm_fd, KVM_ENABLE_CAP, &msr);
    if (r == 0) {
        static uint8_t denied[KVM_MSR_HV_COUNT / 8];     /* a clear bit: not the kernel's */
        struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW };
        filter.ranges[0] = (struct kvm_msr_filter_range){
            .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
            .base = KVM_MSR_HV_FIRST, .nmsrs = KVM_MSR_HV_COUNT, .bitmap = denied };
        r = kvm_ioctl(k->vm_fd, KVM_X86_SET_MSR_FILTER, &filter);
    }
    if (r < 0)
        return hv_fail_errno(e, -r, NULL, "KVM: cannot take over MSRs");
    enable_optional(k);
    kvm_dirty_ring_init(k);
    return 0;
}

static int vcpu_new(struct kvm *k, unsigned vp, struct hv_error *e)
{
    struct vcpu *v = &k->vcpu[vp];
    v->kvm = k;
    v->vp = vp;
    pthread_mutex_init(&v->ask_lock, NULL);
    pthread_cond_init(&v->answered, NULL);
    v->fd = kvm_ioctl_value(k->vm_fd, KVM_CREATE_VCPU, vp);
    if (v->fd < 0)
        return hv_fail_errno(e, -v->fd, NULL, "KVM: cannot make vCPU %u", vp);
    k->vcpus = MAX(k->vcpus, vp + 1);
    void *run = mmap(NULL, k->run_len, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (run == MAP_FAILED)
        return hv_fail_errno(e, errno, NULL, "KVM: cannot map vCPU %u", vp);
    v->run = run;
    const int r = kvm_dirty_ring_map(v);
    if (r < 0)
        return hv_fail_errno(e, -r, NULL, "KVM: cannot map the dirty ring of vCPU %u", vp);
    /* The kernel's paravirtual MSRs are there only if CPUID shows them, and ours does not (Linux 5.10). */
    struct kvm_enable_cap pv = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = { 1 } };
    if (kvm_ioctl_value(k->dev_fd, KVM_CHECK_EXTENSION, KVM_CAP_ENFORCE_PV_FEATURE_CPUID) > 0)
        (void)kvm_ioctl(v->fd, KVM_ENABLE_CAP, &pv);
    snprintf(v->group, sizeof(v->group), "vcpu%u", vp);
    v->table = (struct stats_table){ .group = v->group, .desc = stat_desc, .count = KSTAT_COUNT, .value = v->value };
    return 0;
}

/* The frequency that was asked for, or the host's. Linux tolerates 250 ppm, so do others. */
static int set_up_tsc(struct kvm *k, struct hv_error *e)
{
    int khz = kvm_ioctl_value(k->vcpu[0].fd, KVM_GET_TSC_KHZ, 0);
    if (khz <= 0)
        return hv_fail(e, HV_UNSUPPORTED, NULL, "KVM: this host's TSC has no constant frequency");
    k->tsc_hz = (uint64_t)khz * 1000;
    k->tsc_scaling = kvm_ioctl_value(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;
    const uint64_t want = k->cfg.tsc_hz, off = want > k->tsc_hz ? want - k->tsc_hz : k->tsc_hz - want;
    if (!want || off <= k->tsc_hz / 4000)
        return 0;
    if (!k->tsc_scaling)
        return hv_fail(e, HV_UNSUPPORTED, NULL, "KVM: this CPU cannot scale the TSC from %d kHz to %llu kHz", khz,
                       (unsigned long long)want / 1000);
    for (unsigned i = 0; i < k->vcpus; i++) {
        int r = kvm_ioctl_value(k->vcpu[i].fd, KVM_SET_TSC_KHZ, want / 1000);
        if (r < 0)
            return hv_fail_errno(e, -r, NULL, "KVM: cannot set the TSC's frequency");
    }
    k->tsc_hz = want / 1000 * 1000;
    return 0;
}

static int set_up_vcpus(struct kvm *k, struct hv_error *e)
{
    struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET };
    int r = set_up_tsc(k, e);
    if (r < 0)
        return r;
    k->tsc_offset = kvm_ioctl(k->vcpu[0].fd, KVM_HAS_DEVICE_ATTR, &attr) == 0;
    for (unsigned i = 0; i < k->vcpus && r == 0; i++) {
        struct cpuid_leaf *leaf = NULL;
        unsigned count = 0;
        r = kvm_cpuid_get(k, i, &leaf, &count);
        if (r == 0)
            r = kvm_cpuid_set(&k->vcpu[i], leaf, count);
        free(leaf);
        if (r == 0 && i == 0)
            r = kvm_host_msrs(k);
        if (r == 0)
            r = kvm_state_alloc(k, &k->vcpu[i].power_on);
        if (r == 0)
            r = kvm_power_on_init(&k->vcpu[i]);
    }
    return r < 0 ? hv_fail_errno(e, -r, NULL, "KVM: cannot set up its vCPUs") : 0;
}

static unsigned host_phys_bits(struct kvm *k)
{
    hv_autofree struct kvm_cpuid2 *c = hv_alloc(sizeof(*c) + KVM_MAX_CPUID * sizeof(c->entries[0]));
    if (!c)
        return 0;
    c->nent = KVM_MAX_CPUID;
    if (kvm_ioctl(k->dev_fd, KVM_GET_SUPPORTED_CPUID, c) < 0)
        return 0;
    for (uint32_t i = 0; i < c->nent; i++)
        if (c->entries[i].function == 0x80000008u)
            return c->entries[i].eax >> 16 & 0xff ? c->entries[i].eax >> 16 & 0xff : c->entries[i].eax & 0xff;
    return 36;
}

static int open_vm(struct kvm *k, struct hv_error *e)
{
    const int max = kvm_ioctl_value(k->dev_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if ((int)k->cfg.vcpus > max)
        return hv_fail(e, HV_UNSUPPORTED, NULL, "%u vCPUs: this host's KVM allows %d", k->cfg.vcpus, max);
    k->vm_fd = kvm_ioctl_value(k->dev_fd, KVM_CREATE_VM, 0);
    if (k->vm_fd < 0)
        return hv_fail_errno(e, -k->vm_fd, NULL, "KVM: cannot make a VM");
    const int run_len = kvm_ioctl_value(k->dev_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    const int slots = kvm_ioctl_value(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
    const int xsave2 = kvm_ioctl_value(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    if (run_len < (int)sizeof(struct kvm_run))
        return hv_fail(e, HV_FAILED, NULL, "KVM: its run area has %d bytes", run_len);
    k->run_len = (size_t)run_len;
    k->max_slots = slots > 0 ? MIN((unsigned)slots, KVM_MAX_SLOTS) : 32;
    k->xsave2 = xsave2 > (int)sizeof(struct kvm_xsave);
    k->xsave_len = k->xsave2 ? (size_t)xsave2 : sizeof(struct kvm_xsave);
    k->sync_regs = (kvm_ioctl_value(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) & SYNC_CALL) == SYNC_CALL;
    k->tsc_deadline = kvm_ioctl_value(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    /* Never more than the CPU's: memory above could not be mapped. */
    k->phys_bits = MIN(k->cfg.phys_bits, host_phys_bits(k));
    return 0;
}

static void destroy(struct engine *g)
{
    if (!g)
        return;
    struct kvm *k = kvm_checked(g);
    for (unsigned i = 0; i < k->vcpus; i++) {
        struct vcpu *v = &k->vcpu[i];
        kvm_dirty_ring_unmap(v);
        if (v->run)
            munmap(v->run, k->run_len);
        if (v->fd >= 0)
            close(v->fd);
        kvm_state_free(&v->power_on);
        pthread_mutex_destroy(&v->ask_lock);
        pthread_cond_destroy(&v->answered);
    }
    if (k->vm_fd >= 0)
        close(k->vm_fd);
    if (k->dev_fd >= 0)
        close(k->dev_fd);
    kvm_memory_fini(k);
    pthread_mutex_destroy(&k->route_lock);
    pthread_mutex_destroy(&k->slot_lock);
    k->magic = 0;
    free(k);
}

static int create(const struct engine_config *cfg, const struct engine_callbacks *cb, void *arg, struct engine **ret,
                  struct hv_error *e)
{
    if (!cfg->vcpus || cfg->vcpus > KVM_MAX_VCPUS)
        return hv_fail(e, HV_USAGE, NULL, "%u vCPUs: the kvm engine has 1 to %u", cfg->vcpus, KVM_MAX_VCPUS);
    if (cfg->phys_bits < 36 || cfg->phys_bits > 52)
        return hv_fail(e, HV_USAGE, NULL, "%u physical address bits: 36 to 52 are possible", cfg->phys_bits);
    struct kvm *k = hv_alloc(sizeof(*k));
    if (!k)
        return hv_fail_errno(e, ENOMEM, NULL, "cannot make the kvm engine");
    k->engine.ops = &engine_kvm;
    k->magic = KVM_MAGIC;
    k->cfg = *cfg;
    k->cb = *cb;
    k->arg = arg;
    k->vm_fd = -1;
    pthread_mutex_init(&k->route_lock, NULL);
    pthread_mutex_init(&k->slot_lock, NULL);
    int r = k->dev_fd = kvm_host_open(cfg->kvm_fd > 0 ? cfg->kvm_fd : -1, e);
    if (r >= 0)
        r = open_vm(k, e);
    if (r >= 0)
        r = set_up_vm(k, e);
    if (r >= 0)
        r = kvm_run_init(e);
    for (unsigned i = 0; i < cfg->vcpus && r >= 0; i++)
        r = vcpu_new(k, i, e);
    if (r >= 0)
        r = set_up_vcpus(k, e);
    const char *what = "";
    if (r >= 0 && (r = kvm_reset(k, &what)) < 0)
        hv_fail_errno(e, -r, NULL, "KVM: does not take its own power-on state back (%s)", what);
    if (r < 0) {
        destroy(&k->engine);
        return r;
    }
    *ret = &k->engine;
    return 0;
}

/* ---- the table: thin ---- */

static unsigned caps(const struct engine *g)
{
    return ENGINE_CAP_DIRTY_LOG | (kvm_checked(g)->tsc_scaling ? ENGINE_CAP_TSC_SCALING : 0);
}

static struct vcpu *vcpu_of(struct engine *g, unsigned vp)
{
    struct kvm *k = kvm_checked(g);
    hv_assert(vp < k->vcpus);
    return &k->vcpu[vp];
}

static uint64_t tsc_hz(const struct engine *g) { return kvm_checked(g)->tsc_hz; }
static uint64_t apic_hz(const struct engine *g) { return KVM_APIC_HZ; }

static int map(struct engine *g, gpa_t gpa, uint64_t len, void *hva, bool readonly)
{
    return kvm_map(kvm_checked(g), gpa, len, hva, readonly);
}

static int unmap(struct engine *g, gpa_t gpa, uint64_t len)
{
    return kvm_unmap(kvm_checked(g), gpa, len);
}

static int set_cpuid(struct engine *g, unsigned vp, const struct cpuid_leaf *leaf, unsigned count)
{
    return kvm_cpuid_set(vcpu_of(g, vp), leaf, count);
}

static int get_cpuid(struct engine *g, unsigned vp, struct cpuid_leaf **ret, unsigned *ret_count)
{
    return kvm_cpuid_get(kvm_checked(g), vp, ret, ret_count);
}

static void send_msi(struct engine *g, uint64_t addr, uint32_t data)
{
    kvm_send_msi(kvm_checked(g), addr, data);
}

static void set_route(struct engine *g, unsigned pin, uint64_t addr, uint32_t data, bool level, bool masked)
{
    kvm_set_route(kvm_checked(g), pin, addr, data, level, masked);
}

static void set_extint(struct engine *g, bool asserted)
{
    kvm_set_extint(kvm_checked(g), asserted);
}

/* KVM_NMI is the vCPU thread's own; a message with delivery mode NMI is everybody's. SDM 11.11 */
static void nmi(struct engine *g, unsigned vp)
{
    kvm_send_msi(kvm_checked(g), 0xfee00000u | (uint64_t)vcpu_of(g, vp)->vp << 12, 4 << 8);
}

static void drop_code(struct engine *g, gpa_t gpa, uint64_t len)
{
    kvm_host_wrote(kvm_checked(g), gpa, len);
}

/* Newer kernels keep the TSC invariant only where they saw 0x40000118 written; older ones refuse it. */
static void mirror_msr(struct vcpu *v, uint32_t msr, uint64_t val)
{
    (void)kvm_msr_write(v, msr, val);
}

static int dirty_log(struct engine *g, bool on)
{
    return kvm_dirty_log(kvm_checked(g), on);
}

static int dirty_fetch(struct engine *g, gpa_t gpa, uint64_t pages, uint64_t *bitmap)
{
    return kvm_dirty_fetch(kvm_checked(g), gpa, pages, bitmap);
}

static void reset(struct engine *g)
{
    const char *what;
    int r = kvm_reset(kvm_checked(g), &what);
    hv_assert(r == 0);                  /* it did in create() */
}

static void save(struct engine *g, struct save_writer *w) { kvm_save(kvm_checked(g), w); }

static int load(struct engine *g, const struct load_reader *r, struct hv_error *e)
{
    return kvm_load(kvm_checked(g), r, e);
}

static void stats(struct engine *g, struct stats_registry *r)
{
    struct kvm *k = kvm_checked(g);
    for (unsigned i = 0; i < k->vcpus; i++)
        stats_register(r, &k->vcpu[i].table);
}

const struct engine_ops engine_kvm = {
    .name = "kvm", .create = create, .destroy = destroy, .caps = caps, .tsc_hz = tsc_hz, .apic_hz = apic_hz,
    .map = map, .unmap = unmap, .set_cpuid = set_cpuid, .get_cpuid = get_cpuid, .send_msi = send_msi,
    .set_route = set_route, .set_extint = set_extint, .nmi = nmi, .drop_code = drop_code,
    .mirror_msr = mirror_msr, .dirty_log = dirty_log, .dirty_fetch = dirty_fetch, .vcpu = vcpu_of, .run = kvm_run_vcpu, .kick = kvm_kick,
    .get_regs = kvm_regs_get, .set_regs = kvm_regs_set, .get_call = kvm_call_get, .set_call = kvm_call_set,
    .get_mp = kvm_mp_get, .set_mp = kvm_mp_set,
    .read_tsc = kvm_read_tsc, .reset = reset, .save = save, .load = load, .stats = stats,
};
