/*
 * The run loop of a vCPU, its exits, and kicks.
 *
 *   kick:  kicked = 1; immediate_exit = 1; signal to the thread if it is inside run()
 *   run:   immediate_exit = 0; then, if kicked: immediate_exit = 1; KVM_RUN
 *
 * A kick before the KVM_RUN is seen in one of the two flags, one after it by the signal,
 * whose handler does nothing. A run ends only where KVM_RUN was interrupted: the kernel
 * has then finished the I/O instruction of the last exit, and the state can be saved.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/engine/kvm/kvm.h"

#define HYPERCALL_PORT 0xea
#define VECTOR_UD 6
#define KICK_SIGNAL SIGRTMIN

static void on_signal(int sig)
{
}

int kvm_run_init(struct hv_error *e)
{
    struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigemptyset(&sa.sa_mask);
    if (sigaction(KICK_SIGNAL, &sa, NULL) < 0)
        return hv_fail_errno(e, errno, NULL, "cannot install the handler that stops vCPUs");
    return 0;
}

void kvm_count(struct vcpu *v, enum kvm_stat s)
{
    atomic_fetch_add_explicit(&v->value[s], 1, memory_order_relaxed);
}

void kvm_poke(struct vcpu *v)
{
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    int tid = atomic_load(&v->tid);
    if (tid)
        (void)tgkill(getpid(), tid, KICK_SIGNAL);
}

void kvm_kick(struct vcpu *v)
{
    atomic_store(&v->kicked, true);
    kvm_poke(v);
}

/* ---- what other threads want to know ---- */

static _Thread_local const struct vcpu *running;

bool kvm_is_mine(const struct vcpu *v)
{
    return running == v || !atomic_load(&v->tid);
}

static uint64_t tsc_now(struct vcpu *v)
{
    uint64_t tsc = 0;
    (void)kvm_msr_read(v, KVM_MSR_TSC, &tsc);
    return tsc;
}

/* inside: does the run go on? Whoever asked has the answer before it ends. */
static void answer(struct vcpu *v, bool inside)
{
    pthread_mutex_lock(&v->ask_lock);
    if (atomic_load(&v->asked)) {
        v->answer = tsc_now(v);
        atomic_store(&v->asked, false);
        pthread_cond_broadcast(&v->answered);
    }
    v->inside = inside;
    pthread_mutex_unlock(&v->ask_lock);
    running = inside ? v : NULL;
}

/*
 * The kernel lets one thread at a time use a vCPU, and one that runs or sleeps in HLT is in
 * use until it exits. So its own thread answers, between two runs.
 */
uint64_t kvm_read_tsc(struct vcpu *v)
{
    if (running == v)
        return tsc_now(v);
    uint64_t tsc;
    pthread_mutex_lock(&v->ask_lock);
    if (v->inside) {
        atomic_store(&v->asked, true);
        kvm_poke(v);
        while (atomic_load(&v->asked))
            pthread_cond_wait(&v->answered, &v->ask_lock);
        tsc = v->answer;
    } else {
        tsc = tsc_now(v);               /* no run begins while the lock is held */
    }
    pthread_mutex_unlock(&v->ask_lock);
    return tsc;
}

/* ---- hypercalls ---- */

/* The bytes before linear address rip are `out 0xEA, al`. */
static bool is_hypercall(struct vcpu *v, uint64_t rip)
{
    static const uint8_t code[2] = { 0xe6, HYPERCALL_PORT };
    const unsigned step = (rip - 2) % HV_PAGE_SIZE == HV_PAGE_SIZE - 1 ? 1 : 2;      /* on two pages: each by itself */
    for (unsigned i = 0; i < 2; i += step) {
        struct kvm_translation t = { .linear_address = rip - 2 + i };
        uint8_t have[2];
        if (kvm_ioctl(v->fd, KVM_TRANSLATE, &t) < 0 || !t.valid || !kvm_peek(v->kvm, t.physical_address, have, step) ||
            memcmp(have, code + i, step) != 0)
            return false;
    }
    return true;
}

/*
 * Is the exit that of the hypercall instruction? Completes it first: whether RIP is before
 * or behind it until then depends on which part of the kernel executed it.
 */
static bool complete_hypercall(struct vcpu *v, bool *ret_user)
{
    struct kvm_run *run = v->run;
    struct kvm_sregs s = { 0 };
    run->kvm_valid_regs = v->kvm->sync_regs ? SYNC_CALL : 0;
    __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    const bool done = ioctl(v->fd, KVM_RUN, 0) < 0 && errno == EINTR;
    run->kvm_valid_regs = 0;
    if (!done)
        return false;
    if (v->kvm->sync_regs) {
        v->call = run->s.regs.regs;
        s = run->s.regs.sregs;
    } else if (kvm_ioctl(v->fd, KVM_GET_REGS, &v->call) < 0 || kvm_ioctl(v->fd, KVM_GET_SREGS, &s) < 0) {
        return false;
    }
    v->call_long = s.efer & 0x400 && s.cs.l;
    *ret_user = s.cr0 & 1 && s.ss.dpl != 0;
    return is_hypercall(v, v->call.rip + (v->call_long ? 0 : s.cs.base));
}

static int inject_ud(struct vcpu *v)
{
    struct kvm_regs r = { 0 };
    struct kvm_vcpu_events ev = { 0 };
    int err = kvm_ioctl(v->fd, KVM_GET_REGS, &r);
    if (err == 0)
        err = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &ev);
    if (err < 0)
        return err;
    r.rip -= 2;                                 /* a fault: back to the instruction */
    ev.flags = 0;                               /* NMI, SIPI, SMM and shadow stay as they are */
    ev.exception.injected = 1;
    ev.exception.nr = VECTOR_UD;
    ev.exception.has_error_code = 0;
    err = kvm_ioctl(v->fd, KVM_SET_REGS, &r);
    return err < 0 ? err : kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev);
}

static int hypercall(struct vcpu *v, bool user)
{
    const struct kvm *k = v->kvm;
    kvm_count(v, KSTAT_HYPERCALL);
    if (!user && k->cb.hypercall && k->cb.hypercall(k->arg, v->vp) == 0)
        return 0;
    return inject_ud(v);
}

/* ---- exits ---- */

static int exit_io(struct vcpu *v)
{
    struct kvm *k = v->kvm;
    struct kvm_run *run = v->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    kvm_count(v, KSTAT_PIO);
    if (run->io.direction == KVM_EXIT_IO_IN) {
        k->cb.pio_in(k->arg, v->vp, run->io.port, run->io.size, data, run->io.count);
        return 0;
    }
    if (run->io.port == HYPERCALL_PORT && run->io.size == 1 && run->io.count == 1) {
        uint8_t al = *data;                     /* the page is the kernel's again below */
        bool user;
        if (complete_hypercall(v, &user))
            return hypercall(v, user);
        k->cb.pio_out(k->arg, v->vp, HYPERCALL_PORT, 1, &al, 1);
        return 0;
    }
    k->cb.pio_out(k->arg, v->vp, run->io.port, run->io.size, data, run->io.count);
    return 0;
}

static void exit_mmio(struct vcpu *v)
{
    struct kvm *k = v->kvm;
    struct kvm_run *run = v->run;
    kvm_count(v, KSTAT_MMIO);
    if (run->mmio.is_write)
        k->cb.mmio_write(k->arg, v->vp, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
    else
        k->cb.mmio_read(k->arg, v->vp, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
}

static void exit_msr(struct vcpu *v, bool write)
{
    struct kvm *k = v->kvm;
    struct kvm_run *run = v->run;
    uint64_t val = 0;
    kvm_count(v, KSTAT_MSR);
    int r = write ? k->cb.msr_write(k->arg, v->vp, run->msr.index, run->msr.data)
                  : k->cb.msr_read(k->arg, v->vp, run->msr.index, &val);
    if (!write)
        run->msr.data = val;
    run->msr.error = r != 0;
}

static const char *suberror(uint32_t n)
{
    switch (n) {
    case KVM_INTERNAL_ERROR_EMULATION: return "the kernel cannot emulate an instruction";
    case KVM_INTERNAL_ERROR_SIMUL_EX: return "two exceptions at once";
    case KVM_INTERNAL_ERROR_DELIVERY_EV: return "an exit while an event was delivered";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: return "an exit unknown to the kernel";
    default: return "internal error";
    }
}

static enum engine_stop internal_error(struct vcpu *v, struct hv_error *e)
{
    const struct kvm_run *run = v->run;
    struct kvm_regs r = { 0 };
    char code[64] = "";
    (void)kvm_ioctl(v->fd, KVM_GET_REGS, &r);
    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run->emulation_failure.ndata >= 3 &&
        run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) {
        size_t len = (size_t)snprintf(code, sizeof(code), ", code");
        for (unsigned i = 0; i < MIN(run->emulation_failure.insn_size, 15u); i++)
            len += (size_t)snprintf(code + len, sizeof(code) - len, " %02x", run->emulation_failure.insn_bytes[i]);
    }
    hv_fail(e, HV_FAILED, NULL, "KVM: %s at %#" PRIx64 "%s (%" PRIu32 ")", suberror(run->internal.suberror),
            (uint64_t)r.rip, code, run->internal.suberror);
    return ENGINE_STOP_ERROR;
}

/* ENGINE_STOP_KICKED: go on. */
static enum engine_stop handle(struct vcpu *v, struct hv_error *e)
{
    const struct kvm_run *run = v->run;
    int r;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        r = exit_io(v);
        if (r < 0) {
            hv_fail_errno(e, -r, NULL, "KVM: cannot answer a hypercall");
            return ENGINE_STOP_ERROR;
        }
        return ENGINE_STOP_KICKED;
    case KVM_EXIT_MMIO:
        exit_mmio(v);
        return ENGINE_STOP_KICKED;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        exit_msr(v, run->exit_reason == KVM_EXIT_X86_WRMSR);
        return ENGINE_STOP_KICKED;
    case KVM_EXIT_IOAPIC_EOI:
        kvm_count(v, KSTAT_EOI);
        kvm_eoi(v, run->eoi.vector);
        return ENGINE_STOP_KICKED;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        kvm_count(v, KSTAT_WINDOW);
        return ENGINE_STOP_KICKED;
    case KVM_EXIT_DIRTY_RING_FULL:
        kvm_count(v, KSTAT_RING);
        r = kvm_dirty_ring_full(v->kvm);
        if (r < 0) {
            hv_fail_errno(e, -r, NULL, "KVM: cannot empty the log of written pages");
            return ENGINE_STOP_ERROR;
        }
        return ENGINE_STOP_KICKED;
    case KVM_EXIT_INTR:
    case KVM_EXIT_HLT:
        return ENGINE_STOP_KICKED;
    case KVM_EXIT_SHUTDOWN:
        log_debug("kvm", "vCPU %u: triple fault", v->vp);
        return ENGINE_STOP_SHUTDOWN;
    case KVM_EXIT_FAIL_ENTRY:
        hv_fail(e, HV_FAILED, NULL, "KVM: the CPU refused the guest's state (reason %#" PRIx64 ")",
                (uint64_t)run->fail_entry.hardware_entry_failure_reason);
        return ENGINE_STOP_ERROR;
    case KVM_EXIT_INTERNAL_ERROR:
        return internal_error(v, e);
    default:
        hv_fail(e, HV_FAILED, NULL, "KVM: unknown exit %" PRIu32, run->exit_reason);
        return ENGINE_STOP_ERROR;
    }
}

static bool within_instruction(uint32_t exit_reason)
{
    return exit_reason == KVM_EXIT_IO || exit_reason == KVM_EXIT_MMIO || exit_reason == KVM_EXIT_X86_RDMSR ||
           exit_reason == KVM_EXIT_X86_WRMSR;
}

static void prepare(struct vcpu *v)
{
    if (__atomic_load_n(&v->run->immediate_exit, __ATOMIC_RELAXED))
        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    if (atomic_load(&v->kicked))
        __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

/*
 * What the kernel said of interrupts belongs to an earlier state: have it said anew, where one
 * waits. A vCPU that sleeps in HLT would not open the window that it is asked for.
 */
static void look_again(struct vcpu *v)
{
    v->run->ready_for_interrupt_injection = 0;
    if (v->vp != 0 || !atomic_load(&v->kvm->extint))
        return;
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    (void)ioctl(v->fd, KVM_RUN, 0);             /* EINTR, before anything runs */
}

enum engine_stop kvm_run_vcpu(struct vcpu *v, struct hv_error *e)
{
    enum engine_stop stop = ENGINE_STOP_KICKED;
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, KICK_SIGNAL);
    atomic_store(&v->tid, (int)gettid());
    pthread_sigmask(SIG_UNBLOCK, &set, &old);
    answer(v, true);
    look_again(v);
    while (stop == ENGINE_STOP_KICKED) {
        prepare(v);
        if (atomic_load(&v->asked))
            answer(v, true);
        kvm_offer_extint(v);
        const bool exited = ioctl(v->fd, KVM_RUN, 0) == 0;
        v->unfinished = exited && within_instruction(v->run->exit_reason);
        if (exited) {
            kvm_count(v, KSTAT_EXITS);
            stop = handle(v, e);
        } else if (errno == EINTR) {
            kvm_count(v, KSTAT_SIGNAL);
            if (atomic_exchange(&v->kicked, false)) {
                kvm_count(v, KSTAT_KICK);
                break;
            }
        } else if (errno != EAGAIN) {
            hv_fail_errno(e, errno, NULL, "KVM: cannot run vCPU %u", v->vp);
            stop = ENGINE_STOP_ERROR;
        }
    }
    answer(v, false);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    atomic_store(&v->tid, 0);
    return stop;
}
