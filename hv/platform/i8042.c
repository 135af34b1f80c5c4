/*
 * i8042 keyboard controller (IBM PS/2 technical reference; Linux 6.1
 * drivers/input/serio/i8042.c). It answers its self-tests, keeps its configuration byte,
 * and resets the machine. Nothing is plugged in: a byte for keyboard or mouse comes back
 * at once as "resend" with the timeout status, which drivers take for an empty port
 * without waiting half a second for each command.
 */
#include "hv/platform/i8042.h"

#include <errno.h>
#include <pthread.h>

#define I8042_MAGIC 0x69383034u

enum { STATUS_OUTPUT = 0x01, STATUS_SYSTEM = 0x04, STATUS_COMMAND = 0x08, STATUS_UNLOCKED = 0x10,
       STATUS_AUX = 0x20, STATUS_TIMEOUT = 0x40 };
enum { CONFIG_KBD_IRQ = 0x01, CONFIG_AUX_IRQ = 0x02, CONFIG_SYSTEM = 0x04, CONFIG_KBD_OFF = 0x10,
       CONFIG_AUX_OFF = 0x20, CONFIG_TRANSLATE = 0x40 };
enum { OUTPORT_RUN = 0x01, OUTPORT_A20 = 0x02 };
#define CONFIG_START (CONFIG_TRANSLATE | CONFIG_AUX_OFF | CONFIG_KBD_OFF | CONFIG_SYSTEM)
#define OUTPORT_START (OUTPORT_RUN | OUTPORT_A20)

enum {
    CMD_READ_CONFIG = 0x20, CMD_WRITE_CONFIG = 0x60, CMD_AUX_DISABLE = 0xA7, CMD_AUX_ENABLE = 0xA8,
    CMD_AUX_TEST = 0xA9, CMD_SELF_TEST = 0xAA, CMD_KBD_TEST = 0xAB, CMD_KBD_DISABLE = 0xAD,
    CMD_KBD_ENABLE = 0xAE, CMD_READ_INPORT = 0xC0, CMD_READ_OUTPORT = 0xD0,
    CMD_WRITE_OUTPORT = 0xD1, CMD_WRITE_KBD_OUT = 0xD2, CMD_WRITE_AUX_OUT = 0xD3,
    CMD_WRITE_AUX = 0xD4, CMD_PULSE = 0xF0,
};

struct i8042 {
    uint32_t magic;
    struct machine *m;
    pthread_mutex_t lock;
    uint8_t config, outport, data;
    uint8_t status;        /* OUTPUT, COMMAND, AUX and TIMEOUT; the rest is made when read */
    uint8_t command;       /* whose parameter the next byte at 0x60 is; 0: for the keyboard */
    bool kbd_level, aux_level;
};

static void update_lines(struct i8042 *k)
{
    bool full = k->status & STATUS_OUTPUT;
    bool aux = k->status & STATUS_AUX;
    bool kbd_level = full && !aux && (k->config & CONFIG_KBD_IRQ);
    bool aux_level = full && aux && (k->config & CONFIG_AUX_IRQ);
    if (kbd_level != k->kbd_level) {
        k->kbd_level = kbd_level;
        machine_irq_set(k->m, 1, kbd_level);
    }
    if (aux_level != k->aux_level) {
        k->aux_level = aux_level;
        machine_irq_set(k->m, 12, aux_level);
    }
}

/* Fill the output buffer. What was in it is lost, as on the chip. */
static void answer(struct i8042 *k, uint8_t data, uint8_t flags)
{
    k->data = data;
    k->status = (k->status & STATUS_COMMAND) | STATUS_OUTPUT | flags;
}

/* Returns true if the machine is to be reset. */
static bool write_outport(struct i8042 *k, uint8_t val)
{
    bool was_running = k->outport & OUTPORT_RUN;
    k->outport = val;
    return was_running && !(val & OUTPORT_RUN);
}

static bool write_command(struct i8042 *k, uint8_t cmd)
{
    k->status |= STATUS_COMMAND;
    k->command = 0;
    switch (cmd) {
    case CMD_READ_CONFIG: answer(k, k->config, 0); break;
    case CMD_AUX_DISABLE: k->config |= CONFIG_AUX_OFF; break;
    case CMD_AUX_ENABLE: k->config &= ~CONFIG_AUX_OFF; break;
    case CMD_AUX_TEST: answer(k, 0x00, 0); break;
    case CMD_SELF_TEST:
        k->config = CONFIG_START;
        answer(k, 0x55, 0);
        break;
    case CMD_KBD_TEST: answer(k, 0x00, 0); break;
    case CMD_KBD_DISABLE: k->config |= CONFIG_KBD_OFF; break;
    case CMD_KBD_ENABLE: k->config &= ~CONFIG_KBD_OFF; break;
    case CMD_READ_INPORT: answer(k, 0x80, 0); break;   /* not locked */
    case CMD_READ_OUTPORT: answer(k, k->outport, 0); break;
    case CMD_WRITE_CONFIG:
    case CMD_WRITE_OUTPORT:
    case CMD_WRITE_KBD_OUT:
    case CMD_WRITE_AUX_OUT:
    case CMD_WRITE_AUX: k->command = cmd; break;
    default:
        /* 0xF0..0xFF pulse the output port's low bits that are 0 in the command; bit 0 is reset. */
        return cmd >= CMD_PULSE && !(cmd & OUTPORT_RUN);
    }
    return false;
}

static bool write_data(struct i8042 *k, uint8_t val)
{
    uint8_t command = k->command;
    k->command = 0;
    k->status &= ~STATUS_COMMAND;
    switch (command) {
    case CMD_WRITE_CONFIG: k->config = val; break;
    case CMD_WRITE_OUTPORT: return write_outport(k, val);
    case CMD_WRITE_KBD_OUT: answer(k, val, 0); break;
    case CMD_WRITE_AUX_OUT: answer(k, val, STATUS_AUX); break;
    case CMD_WRITE_AUX: answer(k, 0xFE, STATUS_AUX | STATUS_TIMEOUT); break;
    default:
        k->config &= ~CONFIG_KBD_OFF;   /* sending to the keyboard enables its clock */
        answer(k, 0xFE, STATUS_TIMEOUT);
        break;
    }
    return false;
}

static uint32_t i8042_in(void *dev, uint16_t port, unsigned size)
{
    struct i8042 *k = dev;
    uint8_t val;
    pthread_mutex_lock(&k->lock);
    if (port == 0x64) {
        val = k->status | STATUS_UNLOCKED | (k->config & CONFIG_SYSTEM ? STATUS_SYSTEM : 0);
    } else {
        val = k->data;
        k->status &= STATUS_COMMAND;
        update_lines(k);
    }
    pthread_mutex_unlock(&k->lock);
    return val;
}

static void i8042_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct i8042 *k = dev;
    pthread_mutex_lock(&k->lock);
    bool reset = port == 0x64 ? write_command(k, (uint8_t)val) : write_data(k, (uint8_t)val);
    update_lines(k);
    pthread_mutex_unlock(&k->lock);
    if (reset) {
        machine_event(k->m, MACHINE_EVENT_RESET);
    }
}

static void i8042_reset(void *dev)
{
    struct i8042 *k = dev;
    pthread_mutex_lock(&k->lock);
    k->config = CONFIG_START;
    k->outport = OUTPORT_START;
    k->data = k->status = k->command = 0;
    k->kbd_level = k->aux_level = false;
    pthread_mutex_unlock(&k->lock);
}

static void i8042_save(void *dev, struct save_writer *w)
{
    struct i8042 *k = dev;
    pthread_mutex_lock(&k->lock);
    const uint8_t regs[] = { k->config, k->outport, k->data, k->status, k->command };
    save_bytes(w, regs, sizeof(regs));
    pthread_mutex_unlock(&k->lock);
}

static bool takes_parameter(uint8_t command)
{
    return command == CMD_WRITE_CONFIG || (command >= CMD_WRITE_OUTPORT && command <= CMD_WRITE_AUX);
}

static int i8042_load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct i8042 *k = dev;
    uint8_t regs[5];
    load_bytes(s, regs, sizeof(regs));
    if ((regs[3] & ~(STATUS_OUTPUT | STATUS_COMMAND | STATUS_AUX | STATUS_TIMEOUT)) ||
        (regs[4] && !takes_parameter(regs[4]))) {
        return -EINVAL;
    }
    pthread_mutex_lock(&k->lock);
    k->config = regs[0];
    k->outport = regs[1];
    k->data = regs[2];
    k->status = regs[3];
    k->command = regs[4];
    bool full = k->status & STATUS_OUTPUT, aux = k->status & STATUS_AUX;
    k->kbd_level = full && !aux && (k->config & CONFIG_KBD_IRQ);
    k->aux_level = full && aux && (k->config & CONFIG_AUX_IRQ);
    pthread_mutex_unlock(&k->lock);
    return 0;
}

void i8042_free(struct i8042 *k)
{
    if (!k) {
        return;
    }
    HV_CHECK(k, I8042_MAGIC);
    k->magic = 0;
    pthread_mutex_destroy(&k->lock);
    free(k);
}

int i8042_new(struct machine *m, struct i8042 **ret)
{
    static const struct port_ops ports = { .in = i8042_in, .out = i8042_out, .max_size = 1 };
    static const struct device_ops device = {
        .tag = "i8042", .version = 1,
        .reset = i8042_reset, .save = i8042_save, .load = i8042_load,
    };
    struct i8042 *k = hv_alloc(sizeof(*k));
    if (!k) {
        return -ENOMEM;
    }
    k->magic = I8042_MAGIC;
    k->m = m;
    pthread_mutex_init(&k->lock, NULL);
    i8042_reset(k);
    machine_add_ports(m, 0x60, 1, &ports, k);
    machine_add_ports(m, 0x64, 1, &ports, k);
    machine_add_device(m, &device, 0, k);
    *ret = k;
    return 0;
}
