/*
 * Two cascaded 8259A (Intel 8259A data sheet, order number 231468) and the edge/level
 * control registers of the PIIX4 (82371AB, 4.2.10). Driven as Linux 6.1
 * arch/x86/kernel/i8259.c, SeaBIOS and DOS do.
 *
 * The slave's output is the master's IR2, taken as a level: then a request that the slave
 * has while the master's is in service can never be missed.
 *
 * Request and acknowledge happen under one lock and INTR follows every change, so the
 * 8259's spurious vector 7 does not arise; a CPU that acknowledges after a level line has
 * gone away is told that nothing is pending.
 */
#include "hv/platform/pic.h"

#include <errno.h>
#include <pthread.h>

#define PIC_MAGIC 0x50494330u

enum { MASTER, SLAVE };
#define CASCADE_IRQ 2u

/* What the initialisation sequence waits for. */
enum init_state { INIT_DONE, INIT_ICW2, INIT_ICW3, INIT_ICW4, INIT_STATES };

enum { ICW1_ICW4 = 0x01, ICW1_SINGLE = 0x02, ICW1_LEVEL = 0x08, ICW1_SELECT = 0x10 };
enum { ICW4_AUTO_EOI = 0x02, ICW4_NESTED = 0x10 };
enum { OCW3_SELECT = 0x08, OCW3_POLL = 0x04, OCW3_READ = 0x02, OCW3_READ_ISR = 0x01,
       OCW3_SET_MASK_MODE = 0x40, OCW3_MASK_MODE = 0x20 };

struct chip {
    uint8_t irr, imr, isr;
    uint8_t lines;            /* levels of the inputs */
    uint8_t elcr;
    uint8_t base;             /* ICW2: vector of IR0 */
    uint8_t lowest;           /* IR of lowest priority; the next one up has the highest */
    uint8_t init;             /* enum init_state */
    bool want_icw4, single, all_level;
    bool auto_eoi, rotate_auto_eoi, nested, mask_mode, poll, read_isr;
};

struct pic {
    uint32_t magic;
    struct machine *m;
    void (*intr)(void *arg, bool asserted);
    void *arg;
    pthread_mutex_t lock;
    struct chip chip[2];
    bool intr_level;
};

/* ELCR bits that exist: IRQ 0, 1, 2, 8 and 13 are edges for ever. */
static const uint8_t elcr_mask[2] = { 0xF8, 0xDE };

static uint8_t level_inputs(const struct chip *c)
{
    return c->all_level ? 0xFF : c->elcr;
}

/* How far IR `ir` is from the highest priority: 0 is the highest. */
static unsigned rank(const struct chip *c, unsigned ir)
{
    return (ir - c->lowest - 1) & 7;
}

/* The IR of highest priority in set, or -1. */
static int highest(const struct chip *c, uint8_t set)
{
    for (unsigned i = 1; i <= 8; i++) {
        unsigned ir = (c->lowest + i) & 7;
        if (set & (1u << ir)) {
            return (int)ir;
        }
    }
    return -1;
}

/* The IR that this chip requests service for, or -1. */
static int request(const struct pic *p, unsigned which)
{
    const struct chip *c = &p->chip[which];
    int ir = highest(c, c->irr & ~c->imr);
    if (ir < 0 || c->init != INIT_DONE) {
        return -1;
    }
    uint8_t in_service = c->isr;
    if (c->mask_mode) {
        in_service &= ~c->imr;      /* special mask mode: what is masked no longer blocks */
    }
    if (c->nested && which == MASTER) {
        in_service &= (uint8_t)~(1u << CASCADE_IRQ);   /* the slave's own ISR decides */
    }
    int busy = highest(c, in_service);
    return busy < 0 || rank(c, (unsigned)ir) < rank(c, (unsigned)busy) ? ir : -1;
}

/* Bring the cascade and INTR up to date. */
static void update(struct pic *p)
{
    uint8_t bit = 1u << CASCADE_IRQ;
    if (request(p, SLAVE) >= 0) {
        p->chip[MASTER].irr |= bit;
    } else {
        p->chip[MASTER].irr &= ~bit;
    }
    bool level = request(p, MASTER) >= 0;
    if (level != p->intr_level) {
        p->intr_level = level;
        p->intr(p->arg, level);
    }
}

/* First INTA: the request moves from IRR to ISR. */
static void accept_request(struct chip *c, unsigned ir)
{
    uint8_t bit = (uint8_t)(1u << ir);
    if (!(level_inputs(c) & bit)) {
        c->irr &= ~bit;
    }
    if (!c->auto_eoi) {
        c->isr |= bit;
    } else if (c->rotate_auto_eoi) {
        c->lowest = (uint8_t)ir;
    }
}

int pic_ack(struct pic *p)
{
    HV_CHECK(p, PIC_MAGIC);
    int vector = -1;
    pthread_mutex_lock(&p->lock);
    int ir = request(p, MASTER);
    if (ir >= 0) {
        struct chip *c = &p->chip[MASTER];
        accept_request(c, (unsigned)ir);
        if ((unsigned)ir == CASCADE_IRQ) {
            c = &p->chip[SLAVE];
            ir = request(p, SLAVE);
            hv_assert(ir >= 0);   /* or IR2 would not have been up */
            accept_request(c, (unsigned)ir);
        }
        vector = c->base + ir;
        update(p);
    }
    pthread_mutex_unlock(&p->lock);
    return vector;
}

static void set_input(struct chip *c, unsigned ir, bool level)
{
    uint8_t bit = (uint8_t)(1u << ir);
    bool rose = level && !(c->lines & bit);
    c->lines = level ? c->lines | bit : c->lines & ~bit;
    if (level_inputs(c) & bit) {
        c->irr = level ? c->irr | bit : c->irr & ~bit;
    } else if (rose) {
        c->irr |= bit;   /* latched: a pulse is enough */
    }
}

/* irq_sink: line 2 is the cascade and not connected, lines above 15 are the IOAPIC's. */
static void pic_line(void *dev, unsigned gsi, bool level)
{
    struct pic *p = dev;
    if (gsi == CASCADE_IRQ || gsi > 15) {
        return;
    }
    pthread_mutex_lock(&p->lock);
    set_input(&p->chip[gsi >> 3], gsi & 7, level);
    update(p);
    pthread_mutex_unlock(&p->lock);
}

static void write_icw1(struct chip *c, uint8_t val)
{
    c->imr = c->isr = 0;
    c->lowest = 7;
    c->auto_eoi = c->nested = c->rotate_auto_eoi = c->mask_mode = c->poll = c->read_isr = false;
    c->want_icw4 = val & ICW1_ICW4;
    c->single = val & ICW1_SINGLE;
    c->all_level = val & ICW1_LEVEL;
    c->irr = c->lines & level_inputs(c);   /* edges have to come again */
    c->init = INIT_ICW2;
}

static void end_of_interrupt(struct chip *c, int ir, bool rotate)
{
    if (ir < 0) {
        return;
    }
    c->isr &= ~(1u << ir);
    if (rotate) {
        c->lowest = (uint8_t)ir;
    }
}

static void write_ocw2(struct chip *c, uint8_t val)
{
    int ir = val & 7;
    /* Special mask mode: a non-specific EOI passes over what is masked. */
    int current = highest(c, c->mask_mode ? c->isr & ~c->imr : c->isr);
    switch (val >> 5) {
    case 0: c->rotate_auto_eoi = false; break;
    case 1: end_of_interrupt(c, current, false); break;
    case 2: break;
    case 3: end_of_interrupt(c, ir, false); break;
    case 4: c->rotate_auto_eoi = true; break;
    case 5: end_of_interrupt(c, current, true); break;
    case 6: c->lowest = (uint8_t)ir; break;
    case 7: end_of_interrupt(c, ir, true); break;
    }
}

static void write_ocw3(struct chip *c, uint8_t val)
{
    c->poll = val & OCW3_POLL;
    if (val & OCW3_READ) {
        c->read_isr = val & OCW3_READ_ISR;
    }
    if (val & OCW3_SET_MASK_MODE) {
        c->mask_mode = val & OCW3_MASK_MODE;
    }
}

static void write_data(struct chip *c, uint8_t val)
{
    switch ((enum init_state)c->init) {
    case INIT_ICW2:
        c->base = val & 0xF8;
        c->init = !c->single ? INIT_ICW3 : c->want_icw4 ? INIT_ICW4 : INIT_DONE;
        break;
    case INIT_ICW3:   /* the wiring is fixed */
        c->init = c->want_icw4 ? INIT_ICW4 : INIT_DONE;
        break;
    case INIT_ICW4:
        c->auto_eoi = val & ICW4_AUTO_EOI;
        c->nested = val & ICW4_NESTED;
        c->init = INIT_DONE;
        break;
    default: c->imr = val; break;
    }
}

/* The read after an OCW3 with P set is the acknowledge: bit 7 and the IR, or 0. */
static uint8_t poll_chip(struct pic *p, unsigned which)
{
    p->chip[which].poll = false;
    int ir = request(p, which);
    if (ir < 0) {
        return 0;
    }
    accept_request(&p->chip[which], (unsigned)ir);
    update(p);
    return (uint8_t)(0x80 | ir);
}

static uint32_t pic_in(void *dev, uint16_t port, unsigned size)
{
    struct pic *p = dev;
    unsigned which = port >= 0xA0 ? SLAVE : MASTER;
    struct chip *c = &p->chip[which];
    uint8_t val;
    pthread_mutex_lock(&p->lock);
    if (c->poll) {
        val = poll_chip(p, which);
    } else if (port & 1) {
        val = c->imr;
    } else {
        val = c->read_isr ? c->isr : c->irr;
    }
    pthread_mutex_unlock(&p->lock);
    return val;
}

static void pic_out(void *dev, uint16_t port, unsigned size, uint32_t wide)
{
    struct pic *p = dev;
    struct chip *c = &p->chip[port >= 0xA0 ? SLAVE : MASTER];
    uint8_t val = (uint8_t)wide;
    pthread_mutex_lock(&p->lock);
    if (port & 1) {
        write_data(c, val);
    } else if (val & ICW1_SELECT) {
        write_icw1(c, val);
    } else if (val & OCW3_SELECT) {
        write_ocw3(c, val);
    } else {
        write_ocw2(c, val);
    }
    update(p);
    pthread_mutex_unlock(&p->lock);
}

static uint32_t elcr_in(void *dev, uint16_t port, unsigned size)
{
    struct pic *p = dev;
    pthread_mutex_lock(&p->lock);
    uint8_t val = p->chip[port & 1].elcr;
    pthread_mutex_unlock(&p->lock);
    return val;
}

static void elcr_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct pic *p = dev;
    struct chip *c = &p->chip[port & 1];
    pthread_mutex_lock(&p->lock);
    uint8_t changed = (c->elcr ^ val) & elcr_mask[port & 1];
    c->elcr ^= changed;
    /* What becomes a level shows its line now; what becomes an edge has not had one yet. */
    c->irr = (c->irr & ~changed) | (c->lines & c->elcr & changed);
    update(p);
    pthread_mutex_unlock(&p->lock);
}

static void pic_reset(void *dev)
{
    struct pic *p = dev;
    pthread_mutex_lock(&p->lock);
    p->chip[MASTER] = (struct chip){ .lowest = 7, .imr = 0xFF };
    p->chip[SLAVE] = (struct chip){ .lowest = 7, .imr = 0xFF };
    update(p);
    pthread_mutex_unlock(&p->lock);
}

/* The flags of a chip, in the order in which they are saved. */
#define CHIP_FLAGS(c) { &(c)->want_icw4, &(c)->single, &(c)->all_level, &(c)->auto_eoi,      \
                        &(c)->rotate_auto_eoi, &(c)->nested, &(c)->mask_mode, &(c)->poll,    \
                        &(c)->read_isr }

static void pic_save(void *dev, struct save_writer *w)
{
    struct pic *p = dev;
    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < 2; i++) {
        struct chip *c = &p->chip[i];
        bool *const flag[] = CHIP_FLAGS(c);
        const uint8_t regs[] = { c->irr, c->imr, c->isr, c->lines, c->elcr, c->base, c->lowest,
                                 c->init };
        save_bytes(w, regs, sizeof(regs));
        for (unsigned f = 0; f < ARRAY_SIZE(flag); f++) {
            save_u8(w, *flag[f]);
        }
    }
    pthread_mutex_unlock(&p->lock);
}

static bool load_chip(struct chip *ret, unsigned which, struct load_section *s)
{
    struct chip c = { 0 };
    bool *const flag[] = CHIP_FLAGS(&c);
    bool ok = true;
    c.irr = load_u8(s);
    c.imr = load_u8(s);
    c.isr = load_u8(s);
    c.lines = load_u8(s);
    c.elcr = load_u8(s);
    c.base = load_u8(s);
    c.lowest = load_u8(s);
    c.init = load_u8(s);
    for (unsigned f = 0; f < ARRAY_SIZE(flag); f++) {
        uint8_t v = load_u8(s);
        ok = ok && v <= 1;
        *flag[f] = v;
    }
    ok = ok && !(c.elcr & ~elcr_mask[which]) && !(c.base & 7) && c.lowest <= 7 &&
         c.init < INIT_STATES;
    if (ok) {
        *ret = c;
    }
    return ok;
}

static int pic_load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct pic *p = dev;
    struct chip chip[2];
    if (!load_chip(&chip[MASTER], MASTER, s) || !load_chip(&chip[SLAVE], SLAVE, s)) {
        return -EINVAL;
    }
    pthread_mutex_lock(&p->lock);
    p->chip[MASTER] = chip[MASTER];
    p->chip[SLAVE] = chip[SLAVE];
    p->intr(p->arg, false);   /* what was said before the load no longer counts */
    p->intr_level = false;
    update(p);
    pthread_mutex_unlock(&p->lock);
    return 0;
}

void pic_free(struct pic *p)
{
    if (!p) {
        return;
    }
    HV_CHECK(p, PIC_MAGIC);
    p->magic = 0;
    pthread_mutex_destroy(&p->lock);
    free(p);
}

int pic_new(struct machine *m, void (*intr)(void *arg, bool asserted), void *arg,
            struct pic **ret)
{
    static const struct port_ops ports = { .in = pic_in, .out = pic_out, .max_size = 1 };
    static const struct port_ops elcr = { .in = elcr_in, .out = elcr_out, .max_size = 1 };
    static const struct device_ops device = {
        .tag = "pic", .version = 1, .reset = pic_reset, .save = pic_save, .load = pic_load,
    };
    struct pic *p = hv_alloc(sizeof(*p));
    if (!p) {
        return -ENOMEM;
    }
    p->magic = PIC_MAGIC;
    p->m = m;
    p->intr = intr;
    p->arg = arg;
    pthread_mutex_init(&p->lock, NULL);
    pic_reset(p);
    machine_add_ports(m, 0x20, 2, &ports, p);
    machine_add_ports(m, 0xA0, 2, &ports, p);
    machine_add_ports(m, 0x4D0, 2, &elcr, p);
    machine_add_irq_sink(m, &(struct irq_sink){ pic_line, p });
    machine_add_device(m, &device, 0, p);
    *ret = p;
    return 0;
}
