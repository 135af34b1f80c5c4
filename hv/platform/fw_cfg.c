/* Select an item by writing its number to port 0x510, read its bytes one by one from 0x511. See fw_cfg.h. */
#include "hv/platform/fw_cfg.h"

#include <errno.h>
#include <pthread.h>

#include "hv/base/endian.h"

enum { KEY_SIGNATURE = 0, KEY_ID = 1, KEY_RAM_SIZE = 3, KEY_NB_CPUS = 5, KEY_MAX_CPUS = 15, ITEM_MAX = 8 };

struct fw_cfg {
    pthread_mutex_t lock;
    uint64_t ram_bytes;
    unsigned cpus;
    uint16_t key;
    uint32_t pos;
};

static unsigned item(const struct fw_cfg *f, uint8_t data[ITEM_MAX])
{
    switch (f->key) {
    case KEY_SIGNATURE: memcpy(data, "QEMU", 4); return 4;
    case KEY_ID: put_le32(data, 1); return 4;                   /* the traditional interface, no DMA */
    case KEY_RAM_SIZE: put_le64(data, f->ram_bytes); return 8;
    case KEY_NB_CPUS:
    case KEY_MAX_CPUS: put_le16(data, (uint16_t)f->cpus); return 2;
    default: return 0;
    }
}

static uint32_t in(void *dev, uint16_t port, unsigned size)
{
    struct fw_cfg *f = dev;
    uint8_t data[ITEM_MAX] = {0}, v = 0;
    if (port != 0x511) {
        return UINT32_MAX;
    }
    pthread_mutex_lock(&f->lock);
    if (f->pos < item(f, data)) {                               /* beyond its end an item reads as zeros */
        v = data[f->pos++];
    }
    pthread_mutex_unlock(&f->lock);
    return v;
}

static void out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct fw_cfg *f = dev;
    pthread_mutex_lock(&f->lock);
    if (port == 0x510) {
        f->key = (uint16_t)val;
        f->pos = 0;
    }
    pthread_mutex_unlock(&f->lock);
}

static void reset(void *dev)
{
    struct fw_cfg *f = dev;
    f->key = 0;
    f->pos = 0;
}

static void save(void *dev, struct save_writer *w)
{
    const struct fw_cfg *f = dev;
    save_u32(w, f->key);
    save_u32(w, f->pos);
}

static int load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct fw_cfg *f = dev;
    uint32_t key = load_u32(s), pos = load_u32(s);
    if (s->bad || key > UINT16_MAX || pos > ITEM_MAX) {
        return hv_fail(e, HV_FAILED, "fw_cfg", "its saved state is not valid");
    }
    f->key = (uint16_t)key;
    f->pos = pos;
    return 0;
}

int fw_cfg_new(struct machine *m, uint64_t ram_bytes, unsigned cpus, struct fw_cfg **ret, struct hv_error *e)
{
    static const struct port_ops ports = {.in = in, .out = out, .max_size = 2};
    static const struct device_ops device = {.tag = "fw_cfg", .version = 1, .reset = reset, .save = save, .load = load};
    struct fw_cfg *f = hv_alloc(sizeof(*f));
    if (!f) {
        return hv_fail(e, HV_NO_RESOURCES, "fw_cfg", "out of memory");
    }
    pthread_mutex_init(&f->lock, NULL);
    f->ram_bytes = ram_bytes;
    f->cpus = cpus;
    machine_add_ports(m, 0x510, 2, &ports, f);
    machine_add_device(m, &device, 0, f);
    *ret = f;
    return 0;
}

void fw_cfg_free(struct fw_cfg *f)
{
    if (f) {
        pthread_mutex_destroy(&f->lock);
        free(f);
    }
}
