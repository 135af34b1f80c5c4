/* Ports 0x2000 + GSI set a line, 0xE0..0xE3 keep 32 bits; 64 KiB at 0xFF000000 keep bytes. See testdev.h. */
#include "hv/platform/testdev.h"

#include <errno.h>
#include <pthread.h>

#include "hv/base/endian.h"
#include "hv/base/units.h"

#define KEPT_GPA ((gpa_t)0xff000000)
#define KEPT_LEN (64 * KIB)

struct testdev {
    struct machine *m;
    pthread_mutex_t lock;
    uint8_t port[4];
    uint8_t kept[KEPT_LEN];
};

static void line_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct testdev *t = dev;
    machine_irq_set(t->m, port - 0x2000u, val & 1);
}

static uint32_t line_in(void *dev, uint16_t port, unsigned size) { return 0; }

static uint32_t port_in(void *dev, uint16_t port, unsigned size)
{
    struct testdev *t = dev;
    uint8_t v[4] = {0};
    pthread_mutex_lock(&t->lock);
    memcpy(v, t->port + (port - 0xe0), MIN(size, 4u - (port - 0xe0u)));
    pthread_mutex_unlock(&t->lock);
    return get_le32(v);
}

static void port_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct testdev *t = dev;
    uint8_t v[4];
    put_le32(v, val);
    pthread_mutex_lock(&t->lock);
    memcpy(t->port + (port - 0xe0), v, MIN(size, 4u - (port - 0xe0u)));
    pthread_mutex_unlock(&t->lock);
}

static uint64_t kept_read(void *dev, uint64_t off, unsigned size)
{
    struct testdev *t = dev;
    uint8_t v[8] = {0};
    pthread_mutex_lock(&t->lock);
    memcpy(v, t->kept + off, size);
    pthread_mutex_unlock(&t->lock);
    return get_le64(v);
}

static void kept_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct testdev *t = dev;
    uint8_t v[8];
    put_le64(v, val);
    pthread_mutex_lock(&t->lock);
    memcpy(t->kept + off, v, size);
    pthread_mutex_unlock(&t->lock);
}

static void reset(void *dev)
{
    struct testdev *t = dev;
    memset(t->port, 0, sizeof(t->port));
    memset(t->kept, 0, sizeof(t->kept));
}

static void save(void *dev, struct save_writer *w)
{
    const struct testdev *t = dev;
    save_bytes(w, t->port, sizeof(t->port));
    save_bytes(w, t->kept, sizeof(t->kept));
}

static int load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct testdev *t = dev;
    load_bytes(s, t->port, sizeof(t->port));
    load_bytes(s, t->kept, sizeof(t->kept));
    return s->bad ? hv_fail(e, HV_FAILED, "testdev", "its saved state is not valid") : 0;
}

int testdev_new(struct machine *m, struct testdev **ret)
{
    static const struct port_ops lines = {.in = line_in, .out = line_out, .max_size = 1};
    static const struct port_ops ports = {.in = port_in, .out = port_out, .max_size = 4};
    static const struct mmio_ops kept = {kept_read, kept_write};
    static const struct device_ops device = {.tag = "testdev", .version = 1, .reset = reset, .save = save, .load = load};
    struct testdev *t = hv_alloc(sizeof(*t));
    if (!t) {
        return -ENOMEM;
    }
    t->m = m;
    pthread_mutex_init(&t->lock, NULL);
    machine_add_ports(m, 0x2000, MACHINE_IRQ_LINES, &lines, t);
    machine_add_ports(m, 0xe0, 4, &ports, t);
    machine_add_mmio(m, KEPT_GPA, KEPT_LEN, &kept, t);
    machine_add_device(m, &device, 0, t);
    *ret = t;
    return 0;
}

void testdev_free(struct testdev *t)
{
    if (t) {
        pthread_mutex_destroy(&t->lock);
        free(t);
    }
}
