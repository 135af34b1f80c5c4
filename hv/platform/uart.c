/*
 * 16550A UART (National PC16550D data sheet; probe order of Linux 6.1
 * drivers/tty/serial/8250/8250_port.c).
 *
 * Transmission takes no time: a byte written to THR is in the console's ring at once, so
 * THRE and TEMT always read 1 and the THRE interrupt follows the write immediately. The
 * line drops in between, since the ISA interrupt is an edge.
 *
 * Reception is paced by the guest: the receive FIFO is filled from the typed-ahead queue
 * whenever it has space, so nothing typed is ever overrun. A FIFO below its trigger
 * level with nothing more to come would time out after four character times; that time
 * passes at once here. In loopback the line is cut: THR feeds the FIFO, which then does
 * overrun (Linux counts 16 bytes to tell a 16550A from its larger relatives).
 */
#include "hv/platform/uart.h"

#include <errno.h>
#include <pthread.h>

#include "hv/platform/console.h"

#define UART_MAGIC 0x55415254u
#define FIFO_SIZE  16u

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };
enum { IER_RX = 0x01, IER_THRE = 0x02, IER_LINE = 0x04, IER_MODEM = 0x08, IER_ALL = 0x0F };
enum { IIR_NONE = 0x01, IIR_MODEM = 0x00, IIR_THRE = 0x02, IIR_RX = 0x04, IIR_LINE = 0x06,
       IIR_TIMEOUT = 0x0C, IIR_FIFO = 0xC0 };
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_DMA = 0x08, FCR_TRIGGER = 0xC0,
       FCR_KEPT = FCR_ENABLE | FCR_DMA | FCR_TRIGGER };
enum { LCR_DLAB = 0x80 };
enum { MCR_OUT2 = 0x08, MCR_LOOP = 0x10, MCR_ALL = 0x1F };
enum { LSR_DR = 0x01, LSR_OE = 0x02, LSR_BI = 0x10, LSR_THRE = 0x20, LSR_TEMT = 0x40,
       LSR_FIFO_ERR = 0x80 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };
#define LINES_CONNECTED (MSR_CTS | MSR_DSR | MSR_DCD)   /* somebody is always on the line */

enum uart_counter { COUNT_TX, COUNT_RX, COUNT_OVERRUN, UART_COUNTERS };
static const struct stats_desc uart_desc[UART_COUNTERS] = {
    [COUNT_TX] = { "tx", "bytes", "bytes the guest sent", STATS_COUNTER },
    [COUNT_RX] = { "rx", "bytes", "bytes the guest read", STATS_COUNTER },
    [COUNT_OVERRUN] = { "overruns", "bytes", "bytes lost in loopback", STATS_COUNTER },
};
static const char *const uart_group[] = { "uart0", "uart1", "uart2", "uart3" };

struct uart {
    uint32_t magic;
    struct machine *m;
    uint16_t base;
    unsigned irq;
    struct console *console;
    struct stats_table stats;
    _Atomic uint64_t counter[UART_COUNTERS];

    pthread_mutex_t lock;
    uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
    uint8_t lines;               /* modem inputs as last seen, bits 7:4 of MSR */
    uint8_t delta;               /* bits 3:0 of MSR */
    bool overrun;
    bool thre_pending;           /* the THRE interrupt waits to be read or answered */
    uint16_t fifo[FIFO_SIZE];    /* character, and LSR_BI << 8 */
    uint8_t head, count;
    bool level;                  /* what our line shows */
};

static unsigned capacity(const struct uart *u)
{
    return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static uint8_t error_of(uint16_t entry)
{
    return (uint8_t)(entry >> 8);
}

static uint8_t head_error(const struct uart *u)
{
    return u->count ? error_of(u->fifo[u->head]) : 0;
}

/* The pending interrupt of highest priority, as IIR bits 3:0. */
static uint8_t cause(const struct uart *u)
{
    static const uint8_t trigger[4] = { 1, 4, 8, 14 };
    if ((u->ier & IER_LINE) && (u->overrun || head_error(u))) {
        return IIR_LINE;
    }
    if ((u->ier & IER_RX) && u->count) {
        bool below = (u->fcr & FCR_ENABLE) && u->count < trigger[u->fcr >> 6];
        return below ? IIR_TIMEOUT : IIR_RX;
    }
    if ((u->ier & IER_THRE) && u->thre_pending) {
        return IIR_THRE;
    }
    if ((u->ier & IER_MODEM) && u->delta) {
        return IIR_MODEM;
    }
    return IIR_NONE;
}

/* On a PC, OUT2 opens the gate between the chip and its line; loopback forces OUT2 off. */
static bool wants_line(const struct uart *u)
{
    return (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2 && cause(u) != IIR_NONE;
}

static void update_line(struct uart *u)
{
    bool level = wants_line(u);
    if (level != u->level) {
        u->level = level;
        machine_irq_set(u->m, u->irq, level);
    }
}

static void push(struct uart *u, uint16_t entry)
{
    if (u->count >= capacity(u)) {
        u->overrun = true;
        stats_add(&u->stats, COUNT_OVERRUN, 1);
        return;
    }
    u->fifo[(u->head + u->count++) % FIFO_SIZE] = entry;
}

/* Take what was typed as far as it fits. */
static void feed(struct uart *u)
{
    while (!(u->mcr & MCR_LOOP) && u->count < capacity(u)) {
        int v = console_take(u->console);
        if (v < 0) {
            break;
        }
        push(u, v == CONSOLE_BREAK ? LSR_BI << 8 : (uint16_t)v);
    }
}

static void set_lines(struct uart *u, uint8_t lines)
{
    uint8_t changed = u->lines ^ lines;
    u->delta |= (changed & (MSR_CTS | MSR_DSR | MSR_DCD)) >> 4;
    u->delta |= (u->lines & ~lines & MSR_RI) >> 4;   /* RI counts on its trailing edge only */
    u->lines = lines;
}

/* Loopback connects RTS, DTR, OUT1, OUT2 to CTS, DSR, RI, DCD. */
static uint8_t modem_inputs(uint8_t mcr)
{
    if (!(mcr & MCR_LOOP)) {
        return LINES_CONNECTED;
    }
    return (uint8_t)((mcr & 0x02) << 3 | (mcr & 0x01) << 5 | (mcr & 0x04) << 4 | (mcr & 0x08) << 4);
}

static void write_fcr(struct uart *u, uint8_t val)
{
    /* Switching between FIFO and character mode empties both FIFOs. */
    if ((val & FCR_CLEAR_RX) || ((val ^ u->fcr) & FCR_ENABLE)) {
        u->count = 0;
    }
    u->fcr = val & FCR_ENABLE ? val & FCR_KEPT : 0;
}

static void write_ier(struct uart *u, uint8_t val)
{
    /* Enabling the THRE interrupt while THR is empty raises it: drivers start that way. */
    if (val & ~u->ier & IER_THRE) {
        u->thre_pending = true;
    }
    u->ier = val & IER_ALL;
}

static void transmit(struct uart *u, const uint8_t *p, uint32_t n)
{
    u->thre_pending = false;
    update_line(u);
    if (u->mcr & MCR_LOOP) {
        for (uint32_t i = 0; i < n; i++) {
            push(u, p[i]);
        }
    } else {
        stats_add(&u->stats, COUNT_TX, n);
        console_put(u->console, p, n);
    }
    u->thre_pending = true;
}

static uint8_t read_data(struct uart *u)
{
    uint8_t val = 0;
    if (u->count) {
        val = (uint8_t)u->fifo[u->head];
        u->head = (u->head + 1) % FIFO_SIZE;
        u->count--;
        stats_add(&u->stats, COUNT_RX, 1);
    }
    feed(u);
    return val;
}

static uint8_t read_iir(struct uart *u)
{
    uint8_t c = cause(u);
    if (c == IIR_THRE) {
        u->thre_pending = false;
    }
    return c | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct uart *u)
{
    uint8_t val = LSR_THRE | LSR_TEMT | head_error(u);
    val |= u->count ? LSR_DR : 0;
    val |= u->overrun ? LSR_OE : 0;
    for (unsigned i = 0; (u->fcr & FCR_ENABLE) && i < u->count; i++) {
        if (error_of(u->fifo[(u->head + i) % FIFO_SIZE])) {
            val |= LSR_FIFO_ERR;
        }
    }
    u->overrun = false;
    if (u->count) {
        u->fifo[u->head] &= 0xFF;
    }
    return val;
}

static uint32_t uart_in(void *dev, uint16_t port, unsigned size)
{
    struct uart *u = dev;
    uint8_t val = 0xFF;
    pthread_mutex_lock(&u->lock);
    bool dlab = u->lcr & LCR_DLAB;
    switch (port - u->base) {
    case REG_DATA: val = dlab ? u->dll : read_data(u); break;
    case REG_IER: val = dlab ? u->dlm : u->ier; break;
    case REG_IIR_FCR: val = read_iir(u); break;
    case REG_LCR: val = u->lcr; break;
    case REG_MCR: val = u->mcr; break;
    case REG_LSR: val = read_lsr(u); break;
    case REG_MSR:
        val = u->lines | u->delta;
        u->delta = 0;
        break;
    case REG_SCR: val = u->scr; break;
    }
    update_line(u);
    pthread_mutex_unlock(&u->lock);
    return val;
}

static void write_locked(struct uart *u, unsigned reg, uint8_t val)
{
    bool dlab = u->lcr & LCR_DLAB;
    switch (reg) {
    case REG_DATA:
        if (dlab) {
            u->dll = val;
        } else {
            transmit(u, &val, 1);
        }
        break;
    case REG_IER:
        if (dlab) {
            u->dlm = val;
        } else {
            write_ier(u, val);
        }
        break;
    case REG_IIR_FCR:
        write_fcr(u, val);
        feed(u);
        break;
    case REG_LCR: u->lcr = val; break;
    case REG_MCR:
        u->mcr = val & MCR_ALL;
        set_lines(u, modem_inputs(u->mcr));
        feed(u);
        break;
    case REG_LSR:
    case REG_MSR: break;   /* factory test only */
    case REG_SCR: u->scr = val; break;
    }
}

static void uart_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct uart *u = dev;
    pthread_mutex_lock(&u->lock);
    write_locked(u, port - u->base, (uint8_t)val);
    update_line(u);
    pthread_mutex_unlock(&u->lock);
}

/* REP OUTSB to THR: one lock and one copy for the whole string. */
static void uart_out_bulk(void *dev, uint16_t port, unsigned size, const void *data, uint32_t count)
{
    struct uart *u = dev;
    const uint8_t *p = data;
    pthread_mutex_lock(&u->lock);
    if (port == u->base && !(u->lcr & LCR_DLAB)) {
        transmit(u, p, count);
    } else {
        for (uint32_t i = 0; i < count; i++) {
            write_locked(u, port - u->base, p[i]);
        }
    }
    update_line(u);
    pthread_mutex_unlock(&u->lock);
}

/* Somebody typed. */
static void uart_ready(void *dev)
{
    struct uart *u = dev;
    pthread_mutex_lock(&u->lock);
    feed(u);
    update_line(u);
    pthread_mutex_unlock(&u->lock);
}

static void uart_reset(void *dev)
{
    struct uart *u = dev;
    pthread_mutex_lock(&u->lock);
    u->ier = u->fcr = u->lcr = u->mcr = u->scr = u->dlm = u->delta = 0;
    u->dll = 12;   /* 9600 baud, as firmware leaves it */
    u->lines = LINES_CONNECTED;
    u->overrun = u->thre_pending = u->level = false;
    u->head = u->count = 0;
    pthread_mutex_unlock(&u->lock);
}

static void uart_save(void *dev, struct save_writer *w)
{
    struct uart *u = dev;
    pthread_mutex_lock(&u->lock);
    const uint8_t regs[] = { u->ier, u->fcr, u->lcr, u->mcr, u->scr, u->dll, u->dlm, u->delta,
                             u->overrun, u->thre_pending, u->count };
    save_bytes(w, regs, sizeof(regs));
    for (unsigned i = 0; i < u->count; i++) {
        save_u16(w, u->fifo[(u->head + i) % FIFO_SIZE]);
    }
    console_save(u->console, w);
    pthread_mutex_unlock(&u->lock);
}

static int load_locked(struct uart *u, struct load_section *s)
{
    u->ier = load_u8(s);
    u->fcr = load_u8(s);
    u->lcr = load_u8(s);
    u->mcr = load_u8(s);
    u->scr = load_u8(s);
    u->dll = load_u8(s);
    u->dlm = load_u8(s);
    u->delta = load_u8(s);
    uint8_t overrun = load_u8(s), thre = load_u8(s), count = load_u8(s);
    u->overrun = overrun;
    u->thre_pending = thre;
    u->head = u->count = 0;
    if ((u->ier & ~IER_ALL) || (u->fcr & ~FCR_KEPT) || (u->fcr && !(u->fcr & FCR_ENABLE)) ||
        (u->mcr & ~MCR_ALL) || u->delta > 0x0F || overrun > 1 || thre > 1 ||
        count > capacity(u)) {
        return -EINVAL;
    }
    for (; u->count < count; u->count++) {
        uint16_t entry = load_u16(s);
        if (error_of(entry) & ~LSR_BI) {
            return -EINVAL;
        }
        u->fifo[u->count] = entry;
    }
    u->lines = modem_inputs(u->mcr);
    u->level = wants_line(u);
    return console_load(u->console, s);
}

static int uart_load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct uart *u = dev;
    pthread_mutex_lock(&u->lock);
    int r = load_locked(u, s);
    pthread_mutex_unlock(&u->lock);
    return r;
}

struct console *uart_console(struct uart *u)
{
    HV_CHECK(u, UART_MAGIC);
    return u->console;
}

void uart_free(struct uart *u)
{
    if (!u) {
        return;
    }
    HV_CHECK(u, UART_MAGIC);
    u->magic = 0;
    console_free(u->console);
    pthread_mutex_destroy(&u->lock);
    free(u);
}

int uart_new(struct machine *m, unsigned index, uint16_t base, unsigned irq, struct uart **ret)
{
    static const struct port_ops ports = {
        .in = uart_in, .out = uart_out, .out_bulk = uart_out_bulk, .max_size = 1,
    };
    static const struct device_ops device = {
        .tag = "uart", .version = 1, .reset = uart_reset, .save = uart_save, .load = uart_load,
    };
    hv_assert(index < ARRAY_SIZE(uart_group));
    struct uart *u = hv_alloc(sizeof(*u));
    if (!u) {
        return -ENOMEM;
    }
    u->magic = UART_MAGIC;
    u->m = m;
    u->base = base;
    u->irq = irq;
    pthread_mutex_init(&u->lock, NULL);
    u->stats = (struct stats_table){ .group = uart_group[index], .desc = uart_desc,
                                     .count = UART_COUNTERS, .value = u->counter };
    int r = console_new(machine_loop(m), &u->console);
    if (r < 0) {
        pthread_mutex_destroy(&u->lock);
        free(u);
        return r;
    }
    console_set_device(u->console, uart_ready, u);
    uart_reset(u);
    stats_register(machine_stats(m), &u->stats);
    machine_add_ports(m, base, 8, &ports, u);
    machine_add_device(m, &device, index, u);
    *ret = u;
    return 0;
}
