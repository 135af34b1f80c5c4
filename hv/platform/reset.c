/*
 * Port 0x92 (system control port A: bit 0 fast reset, bit 1 A20, which is always open)
 * and 0xCF9 (reset control of the PIIX and ICH: bit 1 kind, a rise of bit 2 resets).
 *
 * 0xCF9 exists for byte accesses only: the same address is the second byte of PCI's
 * configuration address at 0xCF8, and a guest that looks for PCI with dwords must not
 * reset itself. So the whole dword is claimed here. As a dword it is the address register
 * of configuration mechanism #1 and reads back what was written, which tells Linux that the
 * bus can be asked; its data port at 0xCFC is unclaimed: every device is absent.
 */
#include "hv/platform/reset.h"

#include <errno.h>
#include <pthread.h>

#define RESET_MAGIC 0x52534554u

enum { PORT92_RESET = 0x01, PORT92_A20 = 0x02 };
enum { CF9_KIND = 0x02, CF9_RESET = 0x04, CF9_FULL = 0x08,
       CF9_KEPT = CF9_KIND | CF9_RESET | CF9_FULL };

struct reset {
    uint32_t magic;
    struct machine *m;
    pthread_mutex_t lock;
    uint8_t port92, cf9;
    uint32_t pci_address;
};

#define PCI_ADDRESS_PORT 0xCF8
#define PCI_ADDRESS_KEPT 0x80FFFFFCu   /* enable, bus, device, function, register */

static uint32_t port92_in(void *dev, uint16_t port, unsigned size)
{
    struct reset *s = dev;
    pthread_mutex_lock(&s->lock);
    uint8_t val = s->port92;
    pthread_mutex_unlock(&s->lock);
    return val;
}

static void port92_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct reset *s = dev;
    pthread_mutex_lock(&s->lock);
    bool rose = val & ~(uint32_t)s->port92 & PORT92_RESET;
    s->port92 = (val & PORT92_RESET) | PORT92_A20;
    pthread_mutex_unlock(&s->lock);
    if (rose) {
        machine_event(s->m, MACHINE_EVENT_RESET);
    }
}

static uint32_t cf9_in(void *dev, uint16_t port, unsigned size)
{
    struct reset *s = dev;
    uint32_t val = UINT32_MAX;
    if (port == RESET_PORT && size == 1) {
        pthread_mutex_lock(&s->lock);
        val = s->cf9;
        pthread_mutex_unlock(&s->lock);
    } else if (port == PCI_ADDRESS_PORT && size == 4) {
        pthread_mutex_lock(&s->lock);
        val = s->pci_address;
        pthread_mutex_unlock(&s->lock);
    }
    return val;
}

static void cf9_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct reset *s = dev;
    if (port == PCI_ADDRESS_PORT && size == 4) {
        pthread_mutex_lock(&s->lock);
        s->pci_address = val & PCI_ADDRESS_KEPT;
        pthread_mutex_unlock(&s->lock);
        return;
    }
    if (port != RESET_PORT || size != 1) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    bool rose = val & ~(uint32_t)s->cf9 & CF9_RESET;
    s->cf9 = val & CF9_KEPT;
    pthread_mutex_unlock(&s->lock);
    if (rose) {
        machine_event(s->m, MACHINE_EVENT_RESET);
    }
}

static void reset_reset(void *dev)
{
    struct reset *s = dev;
    pthread_mutex_lock(&s->lock);
    s->port92 = PORT92_A20;
    s->cf9 = 0;
    s->pci_address = 0;
    pthread_mutex_unlock(&s->lock);
}

static void reset_save(void *dev, struct save_writer *w)
{
    struct reset *s = dev;
    save_u8(w, s->port92);
    save_u8(w, s->cf9);
    save_u32(w, s->pci_address);
}

static int reset_load(void *dev, struct load_section *sec, struct hv_error *e)
{
    struct reset *s = dev;
    uint8_t port92 = load_u8(sec), cf9 = load_u8(sec);
    uint32_t pci_address = load_u32(sec);
    if ((port92 & ~PORT92_RESET) != PORT92_A20 || (cf9 & ~CF9_KEPT) || (pci_address & ~PCI_ADDRESS_KEPT)) {
        return -EINVAL;
    }
    s->port92 = port92;
    s->cf9 = cf9;
    s->pci_address = pci_address;
    return 0;
}

void reset_free(struct reset *s)
{
    if (!s) {
        return;
    }
    HV_CHECK(s, RESET_MAGIC);
    s->magic = 0;
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int reset_new(struct machine *m, struct reset **ret)
{
    static const struct port_ops port92 = { .in = port92_in, .out = port92_out, .max_size = 1 };
    static const struct port_ops cf9 = { .in = cf9_in, .out = cf9_out, .max_size = 4 };
    static const struct device_ops device = {
        .tag = "reset", .version = 1,
        .reset = reset_reset, .save = reset_save, .load = reset_load,
    };
    struct reset *s = hv_alloc(sizeof(*s));
    if (!s) {
        return -ENOMEM;
    }
    s->magic = RESET_MAGIC;
    s->m = m;
    pthread_mutex_init(&s->lock, NULL);
    reset_reset(s);
    machine_add_ports(m, 0x92, 1, &port92, s);
    machine_add_ports(m, 0xCF8, 4, &cf9, s);
    machine_add_device(m, &device, 0, s);
    *ret = s;
    return 0;
}
