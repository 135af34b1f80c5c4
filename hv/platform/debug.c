/*
 * Port 0x402 is where SeaBIOS and OVMF write their log if a read gives 0xE9; lines go to
 * the log's subsystem "firmware". Port 0x80 takes POST codes and, like 0xED, serves as
 * an I/O delay (Linux io_delay=): it is claimed so that these do not count as accesses
 * to nothing. The exit ports are for test payloads and exist only where asked for.
 */
#include "hv/platform/debug.h"

#include <errno.h>
#include <pthread.h>

#include "hv/base/log.h"

#define DEBUG_MAGIC 0x44424731u
#define LINE_SIZE   200u

struct debug {
    uint32_t magic;
    struct machine *m;
    pthread_mutex_t lock;
    uint8_t post_code;
    unsigned len;
    char line[LINE_SIZE];
};

static void flush_line(struct debug *d)
{
    log_debug("firmware", "%.*s", (int)d->len, d->line);
    d->len = 0;
}

static void put_char(struct debug *d, uint8_t c)
{
    if (c == '\r') {
        return;
    }
    if (c == '\n') {
        flush_line(d);
        return;
    }
    if (d->len == LINE_SIZE) {
        flush_line(d);
    }
    d->line[d->len++] = c >= ' ' && c < 0x7F ? (char)c : '?';   /* no escapes into our log */
}

static uint32_t log_in(void *dev, uint16_t port, unsigned size)
{
    return 0xE9;
}

static void log_out_bulk(void *dev, uint16_t port, unsigned size, const void *data, uint32_t count)
{
    struct debug *d = dev;
    const uint8_t *p = data;
    if (!log_debug_on("firmware")) {
        return;
    }
    pthread_mutex_lock(&d->lock);
    for (uint32_t i = 0; i < count; i++) {
        put_char(d, p[i]);
    }
    pthread_mutex_unlock(&d->lock);
}

static void log_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    uint8_t c = (uint8_t)val;
    log_out_bulk(dev, port, 1, &c, 1);
}

static uint32_t post_in(void *dev, uint16_t port, unsigned size)
{
    struct debug *d = dev;
    if (port != 0x80) {
        return 0xFF;
    }
    return __atomic_load_n(&d->post_code, __ATOMIC_RELAXED);
}

static void post_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct debug *d = dev;
    if (port == 0x80) {
        __atomic_store_n(&d->post_code, (uint8_t)val, __ATOMIC_RELAXED);
    }
}

static uint32_t exit_in(void *dev, uint16_t port, unsigned size)
{
    return UINT32_MAX;
}

static void exit_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct debug *d = dev;
    machine_exit(d->m, val);
}

static void debug_reset(void *dev)
{
    struct debug *d = dev;
    d->post_code = 0;
    d->len = 0;
}

static void debug_save(void *dev, struct save_writer *w)
{
    struct debug *d = dev;
    save_u8(w, d->post_code);   /* half a log line is not the machine's state */
}

static int debug_load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct debug *d = dev;
    d->post_code = load_u8(s);
    d->len = 0;
    return 0;
}

void debug_free(struct debug *d)
{
    if (!d) {
        return;
    }
    HV_CHECK(d, DEBUG_MAGIC);
    d->magic = 0;
    pthread_mutex_destroy(&d->lock);
    free(d);
}

int debug_new(struct machine *m, bool firmware_log, bool exit_port, struct debug **ret)
{
    static const struct port_ops log_ports = {
        .in = log_in, .out = log_out, .out_bulk = log_out_bulk, .max_size = 1,
    };
    static const struct port_ops post_ports = { .in = post_in, .out = post_out, .max_size = 1 };
    static const struct port_ops exit_ports = { .in = exit_in, .out = exit_out, .max_size = 4 };
    static const struct device_ops device = {
        .tag = "debug", .version = 1,
        .reset = debug_reset, .save = debug_save, .load = debug_load,
    };
    struct debug *d = hv_alloc(sizeof(*d));
    if (!d) {
        return -ENOMEM;
    }
    d->magic = DEBUG_MAGIC;
    d->m = m;
    pthread_mutex_init(&d->lock, NULL);
    if (firmware_log) {
        machine_add_ports(m, 0x402, 1, &log_ports, d);
    }
    machine_add_ports(m, 0x80, 1, &post_ports, d);
    machine_add_ports(m, 0xED, 1, &post_ports, d);
    if (exit_port) {
        machine_add_ports(m, 0xF4, 4, &exit_ports, d);
        machine_add_ports(m, 0x501, 4, &exit_ports, d);
    }
    machine_add_device(m, &device, 0, d);
    *ret = d;
    return 0;
}
