/*
 * Interrupts between our PIC and IOAPIC and the kernel's local APICs.
 *
 * Messages go by KVM_SIGNAL_MSI. The routing table exists for level-triggered pins alone:
 * a vector named there makes its EOI leave the kernel as KVM_EXIT_IOAPIC_EOI. Every change
 * of the table waits for a grace period in the kernel, so edges, which need no route, and
 * repeated values never touch it.
 */
#include <errno.h>

#include "hv/base/log.h"
#include "hv/engine/kvm/kvm.h"

void kvm_send_msi(struct kvm *k, uint64_t addr, uint32_t data)
{
    struct kvm_msi msi = { .address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data };
    int r = kvm_ioctl(k->vm_fd, KVM_SIGNAL_MSI, &msi);
    if (r < 0)                             /* a guest's message to nobody */
        log_debug("kvm", "message %#llx %#x: %s", (unsigned long long)addr, data, strerror(-r));
}

/* route_lock is held. */
static void publish(struct kvm *k)
{
    struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry entry[KVM_PINS]; } t = { .head.nr = 0 };
    for (unsigned pin = 0; pin < KVM_PINS; pin++) {
        const struct kvm_route *r = &k->route[pin];
        if (!r->level)
            continue;
        t.entry[t.head.nr++] = (struct kvm_irq_routing_entry){
            .gsi = pin, .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = { .address_lo = (uint32_t)r->addr, .address_hi = (uint32_t)(r->addr >> 32), .data = r->data },
        };
    }
    int r = kvm_ioctl(k->vm_fd, KVM_SET_GSI_ROUTING, &t);
    if (r < 0)
        log_debug("kvm", "routing table: %s", strerror(-r));
}

void kvm_set_route(struct kvm *k, unsigned pin, uint64_t addr, uint32_t data, bool level, bool masked)
{
    if (pin >= KVM_PINS)
        return;
    pthread_mutex_lock(&k->route_lock);
    struct kvm_route *r = &k->route[pin];
    /*
     * A masked pin keeps its route: Linux masks a level pin while its interrupt is in
     * service, and the EOI that follows must still clear the pin's remote IRR.
     */
    if (!(masked && level && !(data & 0xff))) {
        struct kvm_route now = { 0 };
        if (level)
            now = (struct kvm_route){ .addr = addr, .data = data, .level = true };
        if (now.level != r->level || now.addr != r->addr || now.data != r->data) {
            *r = now;
            publish(k);
        }
    }
    pthread_mutex_unlock(&k->route_lock);
}

void kvm_reset_routes(struct kvm *k)
{
    pthread_mutex_lock(&k->route_lock);
    for (unsigned pin = 0; pin < KVM_PINS; pin++)
        k->route[pin] = (struct kvm_route){ 0 };
    publish(k);
    pthread_mutex_unlock(&k->route_lock);
    atomic_store(&k->extint, false);
}

void kvm_eoi(struct vcpu *v, unsigned vector)
{
    struct kvm *k = v->kvm;
    bool hit[KVM_PINS];
    pthread_mutex_lock(&k->route_lock);
    for (unsigned pin = 0; pin < KVM_PINS; pin++)
        hit[pin] = k->route[pin].level && (k->route[pin].data & 0xff) == vector;
    pthread_mutex_unlock(&k->route_lock);
    for (unsigned pin = 0; pin < KVM_PINS; pin++)
        if (hit[pin] && k->cb.eoi)
            k->cb.eoi(k->arg, pin);
}

/* Bits of 8 registers of 32 vectors each, 16 bytes apart: ISR at 0x100, IRR at 0x200. SDM 11.8.4 */
static bool in_apic(const struct kvm_lapic_state *apic, unsigned at, unsigned vector)
{
    return (uint8_t)apic->regs[at + vector / 32 * 16 + vector % 32 / 8] >> vector % 8 & 1;
}

/*
 * The exit of an EOI that a kick overtook is a request inside the kernel, which no state shows:
 * the local APIC has done with the vector, the pin waits for ever. Who goes on after a save with
 * the same VM gets that exit as well: at worst an interrupt more of a line that is up.
 */
void kvm_settle_eois(struct kvm *k)
{
    struct kvm_route route[KVM_PINS];
    bool busy[KVM_PINS] = { false };
    pthread_mutex_lock(&k->route_lock);
    memcpy(route, k->route, sizeof(route));
    pthread_mutex_unlock(&k->route_lock);
    for (unsigned i = 0; i < k->vcpus; i++) {
        struct kvm_lapic_state apic;
        if (kvm_ioctl(k->vcpu[i].fd, KVM_GET_LAPIC, &apic) < 0)
            return;
        for (unsigned pin = 0; pin < KVM_PINS; pin++)
            busy[pin] |= in_apic(&apic, 0x100, route[pin].data & 0xff) || in_apic(&apic, 0x200, route[pin].data & 0xff);
    }
    for (unsigned pin = 0; pin < KVM_PINS; pin++)
        if (route[pin].level && !busy[pin] && k->cb.eoi)
            k->cb.eoi(k->arg, pin);             /* nothing, if the pin does not wait */
}

void kvm_set_extint(struct kvm *k, bool asserted)
{
    atomic_store(&k->extint, asserted);
    if (asserted)
        kvm_poke(&k->vcpu[0]);
}

/*
 * The vector goes into the vCPU's events, as if the CPU had taken it up and an exit came
 * between: the next entry delivers it, and a saved state has it. KVM_INTERRUPT would keep it
 * where nothing can read it. 0, or -EAGAIN: something else is on its way.
 */
static int inject(struct vcpu *v)
{
    struct kvm *k = v->kvm;
    struct kvm_vcpu_events ev = { 0 };
    struct kvm_mp_state mp = { 0 };
    int r = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &ev);
    if (r == 0 && (ev.interrupt.injected || ev.exception.injected || ev.exception.pending || ev.nmi.injected))
        return -EAGAIN;
    if (r == 0)
        r = kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp);
    if (r < 0)
        return r;
    const int vector = k->cb.extint_ack(k->arg);
    if (vector < 0)
        return 0;
    ev.flags = 0;                               /* NMI, SIPI, SMM and shadow stay as they are */
    ev.interrupt.injected = 1;
    ev.interrupt.soft = 0;
    ev.interrupt.nr = (uint8_t)vector;
    r = kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev);
    if (r == 0 && mp.mp_state == KVM_MP_STATE_HALTED) {
        mp.mp_state = KVM_MP_STATE_RUNNABLE;    /* what is being delivered wakes nobody */
        r = kvm_ioctl(v->fd, KVM_SET_MP_STATE, &mp);
    }
    kvm_count(v, KSTAT_EXTINT);
    return r;
}

void kvm_offer_extint(struct vcpu *v)
{
    struct kvm *k = v->kvm;
    if (v->vp != 0)
        return;
    if (v->unfinished && atomic_load(&k->extint)) {
        /* Its instruction may yet fault, and the fault would push the interrupt aside: finish it first. */
        __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    } else if (atomic_load(&k->extint) && v->run->ready_for_interrupt_injection && k->cb.extint_ack) {
        const int r = inject(v);
        if (r < 0 && r != -EAGAIN)
            log_debug("kvm", "interrupt of the PIC: %s", strerror(-r));
        v->run->ready_for_interrupt_injection = 0;
    }
    v->run->request_interrupt_window = atomic_load(&k->extint);
}
