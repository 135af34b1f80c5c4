/*
 * I/O APIC (Intel 82093AA data sheet, order number 290566; EOI register as in the ICH
 * data sheets for version 0x20). Driven as Linux 6.1 arch/x86/kernel/apic/io_apic.c does.
 *
 *   edge   a rise of the line on an unmasked pin sends one message; on a masked pin it is
 *          lost, but for pin 2 (the PIT): the timer check of old kernels unmasks late
 *   level  an asserted line sends when the pin is neither masked nor waiting for an EOI
 *          (remote IRR); the EOI clears remote IRR and sends again if still asserted
 *
 * Lines are logical: asserted is asserted, whatever the polarity bit says.
 */
#include "hv/platform/ioapic.h"

#include <errno.h>
#include <pthread.h>

#define IOAPIC_MAGIC 0x494f4150u
#define TIMER_PIN    2u

enum { MMIO_SELECT = 0x00, MMIO_WINDOW = 0x10, MMIO_EOI = 0x40 };
enum { REG_ID = 0, REG_VERSION = 1, REG_ARBITRATION = 2, REG_REDIRECTION = 0x10 };
#define VERSION (0x20u | (IOAPIC_PINS - 1) << 16)

/* Redirection entry, 64 bits. */
#define RTE_VECTOR(e)   ((uint8_t)(e))
#define RTE_DELIVERY(e) ((unsigned)((e) >> 8) & 7)
#define RTE_DEST(e)     ((uint8_t)((e) >> 56))
#define RTE_LOGICAL     (UINT64_C(1) << 11)
#define RTE_STATUS      (UINT64_C(1) << 12)
#define RTE_REMOTE_IRR  (UINT64_C(1) << 14)
#define RTE_LEVEL       (UINT64_C(1) << 15)
#define RTE_MASK        (UINT64_C(1) << 16)
#define RTE_READ_ONLY   (RTE_STATUS | RTE_REMOTE_IRR)
#define RTE_EXISTING    (UINT64_C(0xFF) << 56 | 0x1FFFF)

enum { DELIVER_FIXED = 0, DELIVER_LOWEST = 1 };

struct ioapic {
    uint32_t magic;
    struct machine *m;
    ioapic_route_fn *route;
    void *arg;
    pthread_mutex_t lock;
    uint8_t id, select;
    uint32_t lines;              /* bit n: pin n is asserted */
    bool timer_edge;             /* pin 2 rose while it was masked */
    uint64_t rte[IOAPIC_PINS];
};

/* Only fixed and lowest-priority interrupts have a trigger mode; the others are edges. */
static bool is_level(uint64_t e)
{
    return (e & RTE_LEVEL) && RTE_DELIVERY(e) <= DELIVER_LOWEST;
}

/* SDM 3A, 11.11: message address and data. */
static uint64_t msi_addr(uint64_t e)
{
    return 0xFEE00000u | (uint64_t)RTE_DEST(e) << 12 | (e & RTE_LOGICAL ? 1u << 2 : 0);
}

static uint32_t msi_data(uint64_t e)
{
    return RTE_VECTOR(e) | RTE_DELIVERY(e) << 8 | (is_level(e) ? 3u << 14 : 0);
}

static void send(struct ioapic *io, unsigned pin)
{
    machine_msi(io->m, msi_addr(io->rte[pin]), msi_data(io->rte[pin]));
}

static void tell_route(struct ioapic *io, unsigned pin)
{
    uint64_t e = io->rte[pin];
    if (io->route) {
        io->route(io->arg, pin, msi_addr(e), msi_data(e), is_level(e), e & RTE_MASK);
    }
}

/* Send what a level pin has to say, unless it is masked or still being served. */
static void service_level(struct ioapic *io, unsigned pin)
{
    uint64_t e = io->rte[pin];
    if (is_level(e) && (io->lines & (1u << pin)) && !(e & (RTE_MASK | RTE_REMOTE_IRR))) {
        io->rte[pin] |= RTE_REMOTE_IRR;
        send(io, pin);
    }
}

/* irq_sink: ISA line 0 comes in on pin 2; line 2 is the PIC's cascade and goes nowhere. */
static void ioapic_line(void *dev, unsigned gsi, bool level)
{
    struct ioapic *io = dev;
    if (gsi == 2 || gsi >= IOAPIC_PINS) {
        return;
    }
    unsigned pin = gsi == 0 ? TIMER_PIN : gsi;
    uint32_t bit = UINT32_C(1) << pin;
    pthread_mutex_lock(&io->lock);
    bool rose = level && !(io->lines & bit);
    io->lines = level ? io->lines | bit : io->lines & ~bit;
    if (is_level(io->rte[pin])) {
        service_level(io, pin);
    } else if (rose && !(io->rte[pin] & RTE_MASK)) {
        send(io, pin);
    } else if (rose && pin == TIMER_PIN) {
        io->timer_edge = true;
    }
    pthread_mutex_unlock(&io->lock);
}

static void end_locked(struct ioapic *io, unsigned pin)
{
    if (io->rte[pin] & RTE_REMOTE_IRR) {
        io->rte[pin] &= ~RTE_REMOTE_IRR;
        service_level(io, pin);
    }
}

void ioapic_eoi(struct ioapic *io, unsigned pin)
{
    HV_CHECK(io, IOAPIC_MAGIC);
    hv_assert(pin < IOAPIC_PINS);
    pthread_mutex_lock(&io->lock);
    end_locked(io, pin);
    pthread_mutex_unlock(&io->lock);
}

static void write_rte(struct ioapic *io, unsigned pin, bool high, uint32_t val)
{
    uint64_t old = io->rte[pin];
    uint64_t e = high ? (old & UINT32_MAX) | (uint64_t)val << 32 : (old & ~(uint64_t)UINT32_MAX) | val;
    e = (e & RTE_EXISTING & ~RTE_READ_ONLY) | (old & RTE_READ_ONLY);
    if (!is_level(e)) {
        e &= ~RTE_REMOTE_IRR;   /* drivers switch to edge and back to force an EOI */
    }
    io->rte[pin] = e;
    tell_route(io, pin);
    if (pin == TIMER_PIN && io->timer_edge && !(e & RTE_MASK)) {
        io->timer_edge = false;
        if (!is_level(e)) {
            send(io, pin);
        }
    }
    service_level(io, pin);
}

static uint32_t read_register(const struct ioapic *io)
{
    unsigned reg = io->select;
    if (reg == REG_ID || reg == REG_ARBITRATION) {
        return (uint32_t)io->id << 24;
    }
    if (reg == REG_VERSION) {
        return VERSION;
    }
    if (reg >= REG_REDIRECTION && reg < REG_REDIRECTION + 2 * IOAPIC_PINS) {
        uint64_t e = io->rte[(reg - REG_REDIRECTION) / 2];
        return (uint32_t)(reg & 1 ? e >> 32 : e);
    }
    return 0;
}

static void write_register(struct ioapic *io, uint32_t val)
{
    unsigned reg = io->select;
    if (reg == REG_ID) {
        io->id = (val >> 24) & 0x0F;
    } else if (reg >= REG_REDIRECTION && reg < REG_REDIRECTION + 2 * IOAPIC_PINS) {
        write_rte(io, (reg - REG_REDIRECTION) / 2, reg & 1, val);
    }
}

/* Registers are 32 bits at 16-byte steps; the low bytes of one may be read alone, gaps read 0. */
static uint64_t ioapic_read(void *dev, uint64_t off, unsigned size)
{
    struct ioapic *io = dev;
    uint32_t val = 0;
    pthread_mutex_lock(&io->lock);
    if (off == MMIO_SELECT) {
        val = io->select;
    } else if (off == MMIO_WINDOW) {
        val = read_register(io);
    }
    pthread_mutex_unlock(&io->lock);
    return val;
}

static void write_eoi(struct ioapic *io, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if (is_level(io->rte[pin]) && RTE_VECTOR(io->rte[pin]) == vector) {
            end_locked(io, pin);
        }
    }
}

/* Select and EOI take a byte; the window only whole registers. Anything else is dropped. */
static void ioapic_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct ioapic *io = dev;
    pthread_mutex_lock(&io->lock);
    if (off == MMIO_SELECT) {
        io->select = (uint8_t)val;
    } else if (off == MMIO_WINDOW && size >= 4) {
        write_register(io, (uint32_t)val);
    } else if (off == MMIO_EOI) {
        write_eoi(io, (uint8_t)val);
    }
    pthread_mutex_unlock(&io->lock);
}

static void ioapic_reset(void *dev)
{
    struct ioapic *io = dev;
    pthread_mutex_lock(&io->lock);
    io->id = io->select = 0;
    io->lines = 0;
    io->timer_edge = false;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        io->rte[pin] = RTE_MASK;
        tell_route(io, pin);
    }
    pthread_mutex_unlock(&io->lock);
}

static void ioapic_save(void *dev, struct save_writer *w)
{
    struct ioapic *io = dev;
    pthread_mutex_lock(&io->lock);
    save_u8(w, io->id);
    save_u8(w, io->select);
    save_u32(w, io->lines);
    save_u8(w, io->timer_edge);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        save_u64(w, io->rte[pin]);
    }
    pthread_mutex_unlock(&io->lock);
}

static int ioapic_load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct ioapic *io = dev;
    uint8_t id = load_u8(s), select = load_u8(s);
    uint32_t lines = load_u32(s);
    uint8_t timer_edge = load_u8(s);
    uint64_t rte[IOAPIC_PINS];
    bool ok = id <= 0x0F && lines >> IOAPIC_PINS == 0 && timer_edge <= 1;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        rte[pin] = load_u64(s);
        ok = ok && !(rte[pin] & ~RTE_EXISTING) && !(rte[pin] & RTE_STATUS) &&
             (is_level(rte[pin]) || !(rte[pin] & RTE_REMOTE_IRR));
    }
    if (!ok) {
        return -EINVAL;
    }
    pthread_mutex_lock(&io->lock);
    io->id = id;
    io->select = select;
    io->lines = lines;
    io->timer_edge = timer_edge;
    memcpy(io->rte, rte, sizeof(rte));
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        tell_route(io, pin);
    }
    pthread_mutex_unlock(&io->lock);
    return 0;
}

void ioapic_free(struct ioapic *io)
{
    if (!io) {
        return;
    }
    HV_CHECK(io, IOAPIC_MAGIC);
    io->magic = 0;
    pthread_mutex_destroy(&io->lock);
    free(io);
}

int ioapic_new(struct machine *m, ioapic_route_fn *route, void *arg, struct ioapic **ret)
{
    static const struct mmio_ops mmio = { .read = ioapic_read, .write = ioapic_write };
    static const struct device_ops device = {
        .tag = "ioapic", .version = 1,
        .reset = ioapic_reset, .save = ioapic_save, .load = ioapic_load,
    };
    struct ioapic *io = hv_alloc(sizeof(*io));
    if (!io) {
        return -ENOMEM;
    }
    io->magic = IOAPIC_MAGIC;
    io->m = m;
    io->arg = arg;
    pthread_mutex_init(&io->lock, NULL);
    ioapic_reset(io);      /* before route is set: there may be no engine yet */
    io->route = route;
    machine_add_mmio(m, IOAPIC_BASE, 0x1000, &mmio, io);
    machine_add_irq_sink(m, &(struct irq_sink){ ioapic_line, io });
    machine_add_device(m, &device, 0, io);
    *ret = io;
    return 0;
}
