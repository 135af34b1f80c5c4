/* The synthetic keyboard: one question, one answer, then keys of 12 bytes each. */
#include "hv/vsp/keyboard.h"

#include <errno.h>

#include "hv/base/endian.h"

/* enum synth_kbd_msg_type, struct synth_kbd_* */
enum { REQUEST = 1, RESPONSE = 2, EVENT = 3, LED = 4 };
enum { TYPE = 0, REQUEST_VERSION = 4, RESPONSE_STATUS = 4, HEADER = 8, KEY_MAKE = 4, KEY_INFO = 8, KEY_LEN = 12 };
enum { INFO_BREAK = 2, INFO_E0 = 4, INFO_E1 = 8 };
#define KEYBOARD_VERSION 0x00010000u

struct keyboard {
    struct machine *machine;
    struct vmbus_channel *ch;
    bool ready;
};

static int on_packet(void *arg, const struct vmbus_packet *p)
{
    struct keyboard *k = arg;
    if (p->type != VMBUS_PKT_INBAND || p->len < HEADER)
        return -EPROTO;
    uint32_t type = get_le32(p->payload + TYPE);
    if (type == LED)
        return 0;
    if (type != REQUEST)
        return -EPROTO;
    bool good = get_le32(p->payload + REQUEST_VERSION) == KEYBOARD_VERSION;
    uint8_t a[HEADER] = {0};
    put_le32(a + TYPE, RESPONSE);
    put_le32(a + RESPONSE_STATUS, good);
    int r = vmbus_send(k->ch, 0, false, a, sizeof(a));
    k->ready = r == 0 && good;
    return r;
}

static void on_close(void *arg) { ((struct keyboard *)arg)->ready = false; }
static void on_writable(void *arg) { vmbus_channel_resume(((struct keyboard *)arg)->ch); }

static const struct vmbus_channel_ops channel_ops = {.close = on_close, .packet = on_packet, .writable = on_writable};

static void save(void *dev, struct save_writer *w) { save_u8(w, ((struct keyboard *)dev)->ready); }

static int load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct keyboard *k = dev;
    uint8_t ready = load_u8(s);
    if (ready > vmbus_channel_is_open(k->ch))
        return -EINVAL;
    k->ready = ready;
    return 0;
}

static const struct device_ops device = {.tag = "keyboard", .version = 1, .save = save, .load = load};

int keyboard_new(struct vmbus *bus, struct keyboard **ret, struct hv_error *e)
{
    static const struct vmbus_offer offer = {
        .name = "keyboard",
        .class_id = {{0x6d, 0xad, 0x12, 0xf9, 0x17, 0x2b, 0xea, 0x48, 0xbd, 0x65, 0xf9, 0x27, 0xa6, 0x1c, 0x76, 0x84}},
        .instance_id = {{0x67, 0x25, 0x4b, 0xd3, 0xb6, 0xb9, 0xb9, 0x42, 0x87, 0x78, 0x0a, 0x4e, 0xc0, 0xb9, 0x55, 0xbf}},
    };
    struct keyboard *k = hv_alloc(sizeof(*k));
    if (!k)
        return hv_fail(e, HV_NO_RESOURCES, offer.name, "out of memory");
    k->machine = vmbus_machine(bus);
    int r = vmbus_offer(bus, &offer, &channel_ops, k, &k->ch, e);
    if (r < 0) {
        free(k);
        return r;
    }
    machine_add_device(k->machine, &device, 0, k);
    *ret = k;
    return 0;
}

void keyboard_free(struct keyboard *k)
{
    if (!k)
        return;
    vmbus_withdraw(k->ch);
    free(k);
}

bool keyboard_ready(const struct keyboard *k) { return k && k->ready; }

int keyboard_key(struct keyboard *k, uint16_t make, bool e0, bool e1, bool down)
{
    uint8_t m[KEY_LEN] = {0};
    hv_assert(make >= 1 && make < 0x80);
    if (!k->ready)
        return -ENOTCONN;
    put_le32(m + TYPE, EVENT);
    put_le16(m + KEY_MAKE, make);
    put_le32(m + KEY_INFO, (down ? 0 : INFO_BREAK) | (e0 ? INFO_E0 : 0) | (e1 ? INFO_E1 : 0));
    return vmbus_send(k->ch, 0, false, m, sizeof(m));
}
