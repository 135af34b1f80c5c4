/*
 * The storage VSP: packets to SCSI commands and back.
 *
 *   packet ─▶ copy, check ─▶ pin guest pages ─▶ scsi_execute ─▶ unpin ─▶ completion on the
 *   channel it came by
 *
 * While a command is under way its channel is held: the guest may close the channel or tear
 * its GPADL down, its pages stay pinned until the disk is done with them, and the answer of
 * a closed channel is dropped.
 *
 * A guest with more than one vCPU asks for sub-channels and sends its commands by any of them;
 * the answer to each goes back the way it came. They are offered when asked for and rescinded
 * when the guest closes the primary: its driver has gone, the next one asks again.
 */
#include "hv/vsp/storage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/vsp/storage_proto.h"

#define STORAGE_MAGIC 0x726f7473u
#define MAX_TRANSFER  (512 * KIB)
#define MAX_OUTSTANDING 512u         /* commands a channel; more wait in its ring */
#define CHANNELS_MAX  64u
#define MAX_PACKET    (16 + 8 + (MAX_TRANSFER / HV_PAGE_SIZE + 1) * 8 + VSTOR_LEN + 16)

struct storage;

struct storage_channel {
    struct storage *s;
    struct vmbus_channel *ch;        /* NULL: not offered */
    unsigned index;                  /* 0: the primary */
    unsigned generation;             /* counts openings: answers to older ones are dropped */
    unsigned outstanding;
    bool full;                       /* the guest was told to wait */
    struct io *unsent, **last_unsent;
};

/* One packet that is answered later. */
struct io {
    struct storage_channel *c;
    unsigned generation;
    uint64_t transaction;
    uint8_t packet[VSTOR_LEN];       /* the answer is made in it */
    struct vmbus_buffer buffer;
    struct scsi_task task;
    struct io *next;
};

struct storage {
    uint32_t magic;
    char name[16];
    struct vmbus *bus;
    struct machine *machine;
    struct disk_queue *queue;
    struct scsi_unit *unit[SCSI_LUNS];
    uint64_t present;                /* bit a LUN */
    struct guid instance;
    unsigned sub_channels;           /* at most */
    struct storage_channel channel[CHANNELS_MAX];
    unsigned channels;               /* that are offered */
    struct loop_post primary_closed; /* sub-channels go, but not from within a callback of one */
    uint16_t version;                /* agreed on; 0: not yet */
    bool initialized, rescan;
};

static void release_limits(struct storage *s)
{
    for (unsigned i = 0; i < SCSI_LUNS; i++) {
        if (s->unit[i]) {
            scsi_unit_release(s->unit[i]);
        }
    }
}

/* ---- answers ---- */

static void free_io(struct io *io)
{
    vmbus_buffer_unpin(&io->buffer);
    free(io);
}

/* A place in the channel is free: the guest may send more. */
static void release(struct storage_channel *c)
{
    c->outstanding--;
    if (c->full && c->outstanding < MAX_OUTSTANDING / 2) {
        c->full = false;
        vmbus_channel_resume(c->ch);
    }
}

static void send_unsent(struct storage_channel *c)
{
    while (c->unsent) {
        struct io *io = c->unsent;

        if (vmbus_complete(c->ch, io->transaction, io->packet, VSTOR_LEN) == -EAGAIN) {
            return;
        }
        c->unsent = io->next;
        if (!c->unsent) {
            c->last_unsent = &c->unsent;
        }
        free(io);
        release(c);
    }
}

/* The answer is in io->packet; io is freed, now or when the ring has room. */
static void answer(struct io *io)
{
    struct storage_channel *c = io->c;
    struct vmbus_channel *ch = c->ch;
    bool stale = io->generation != c->generation;
    int r = 0;

    vmbus_buffer_unpin(&io->buffer);
    io->buffer = (struct vmbus_buffer){ 0 };
    put_le32(io->packet + VSTOR_OPERATION, VSTOR_COMPLETE_IO);
    if (!stale) {
        r = c->unsent ? -EAGAIN : vmbus_complete(ch, io->transaction, io->packet, VSTOR_LEN);
        stale = io->generation != c->generation;     /* the ring made no sense: closed just now */
    }
    vmbus_channel_release(ch);
    if (stale) {
        free(io);
    } else if (r == -EAGAIN) {
        io->next = NULL;
        *c->last_unsent = io;
        c->last_unsent = &io->next;
    } else {
        free(io);
        release(c);
    }
}

static void put_result(uint8_t *p, const struct scsi_task *t)
{
    uint8_t sense[SCSI_SENSE_LEN];

    put_le32(p + VSTOR_STATUS, VSTOR_STATUS_OK);
    put_le32(p + SRB_DATA_LEN, t->moved);
    p[SRB_SCSI_STATUS] = (uint8_t)t->status;
    p[SRB_SENSE_LEN] = 0;
    memset(p + SRB_SENSE, 0, SRB_SENSE_MAX);
    if (t->status == SCSI_GOOD) {
        p[SRB_STATUS] = SRB_OK;
        return;
    }
    p[SRB_STATUS] = SRB_ERROR | SRB_AUTOSENSE;
    scsi_sense_bytes(t->sense, sense);
    memcpy(p + SRB_SENSE, sense, sizeof(sense));
    p[SRB_SENSE_LEN] = sizeof(sense);
}

static void on_done(struct scsi_task *t)
{
    struct io *io = CONTAINER_OF(t, struct io, task);

    put_result(io->packet, t);
    answer(io);
}

/* ---- channels ---- */

static const struct vmbus_channel_ops channel_ops;

static int offer(struct storage *s, unsigned index, struct hv_error *e)
{
    struct storage_channel *c = &s->channel[index];
    struct vmbus_offer o = {
        .name = s->name,
        /* ba6163d9-04a1-4d29-b605-72e2ffb1dc7f */
        .class_id = { { 0xd9, 0x63, 0x61, 0xba, 0xa1, 0x04, 0x29, 0x4d, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f } },
        .instance_id = s->instance,
        .sub_index = (uint16_t)index,
        .max_packet = MAX_PACKET,
    };

    c->s = s;
    c->index = index;
    c->last_unsent = &c->unsent;
    return vmbus_offer(s->bus, &o, &channel_ops, c, &c->ch, e);
}

static void offer_sub_channels(struct storage *s, unsigned count)
{
    /* Fewer than asked for are harmless: the guest has not let go of the last ones yet. */
    while (s->channels < count + 1 && offer(s, s->channels, NULL) == 0) {
        s->channels++;
    }
}

/* Down to keep channels. Answers need theirs: nothing is under way. */
static void withdraw_sub_channels(struct storage *s, unsigned keep)
{
    if (s->channels > keep) {
        release_limits(s);
        disk_queue_drain(s->queue);
    }
    while (s->channels > keep) {
        s->channels--;
        vmbus_withdraw(s->channel[s->channels].ch);
        s->channel[s->channels].ch = NULL;
    }
}

static void on_primary_closed(void *arg)
{
    struct storage *s = arg;

    HV_CHECK(s, STORAGE_MAGIC);
    if (vmbus_running(s->bus) && !vmbus_channel_is_open(s->channel[0].ch)) {
        withdraw_sub_channels(s, 1);
    }
}

/* ---- packets ---- */

/* In place, at once: answers that need nothing of a disk. */
static int reply(struct storage_channel *c, const struct vmbus_packet *p, uint8_t *a, uint32_t status)
{
    put_le32(a + VSTOR_OPERATION, VSTOR_COMPLETE_IO);
    put_le32(a + VSTOR_STATUS, status);
    return vmbus_complete(c->ch, p->transaction, a, VSTOR_LEN);
}

static int execute(struct storage_channel *c, const struct vmbus_packet *p, const uint8_t *packet)
{
    struct storage *s = c->s;
    uint32_t len = get_le32(packet + SRB_DATA_LEN);
    uint8_t direction = packet[SRB_DATA_IN];
    bool direct = p->type == VMBUS_PKT_GPA_DIRECT;
    struct scsi_unit *u;
    struct io *io;
    int r = 0;

    if (c->outstanding >= MAX_OUTSTANDING) {
        c->full = true;
        return -EAGAIN;
    }
    io = hv_alloc(sizeof(*io));
    if (!io) {
        c->full = c->outstanding > 0;
        return c->full ? -EAGAIN : -ENOMEM;
    }
    io->c = c;
    io->generation = c->generation;
    io->transaction = p->transaction;
    memcpy(io->packet, packet, VSTOR_LEN);
    if (direct) {
        r = vmbus_packet_pin(c->ch, p, direction == SRB_WRITE ? MEM_READ : MEM_WRITE, MAX_TRANSFER + HV_PAGE_SIZE,
                             &io->buffer);
        if (r == -ENOMEM && c->outstanding > 0) {
            free(io);
            c->full = true;
            return -EAGAIN;
        }
    }
    c->outstanding++;
    vmbus_channel_hold(c->ch);
    io->task.cdb_len = MIN(packet[SRB_CDB_LEN], SCSI_CDB_MAX);
    memcpy(io->task.cdb, packet + SRB_CDB, io->task.cdb_len);
    if (r == 0 && (direction > SRB_NO_DATA || packet[SRB_CDB_LEN] > SCSI_CDB_MAX || packet[SRB_CDB_LEN] == 0 ||
                   (direct && io->buffer.len < len))) {
        r = -EINVAL;
    }
    if (r < 0) {                         /* pages that are no RAM, more than we said we take, nonsense */
        io->packet[SRB_STATUS] = SRB_INVALID_REQUEST;
        put_le32(io->packet + SRB_DATA_LEN, 0);
        put_le32(io->packet + VSTOR_STATUS, VSTOR_STATUS_OK);
        answer(io);
        return 0;
    }
    io->task.iov = io->buffer.iov;
    io->task.iov_count = io->buffer.count;
    io->task.len = direct ? (uint32_t)MIN(io->buffer.len, (uint64_t)len) : 0;
    io->task.to_device = direction == SRB_WRITE && direct;
    io->task.done = on_done;
    u = packet[SRB_PATH] == 0 && packet[SRB_TARGET] == 0 && packet[SRB_LUN] < SCSI_LUNS ? s->unit[packet[SRB_LUN]] : NULL;
    if (!scsi_execute(u, &io->task, packet[SRB_PATH] == 0 && packet[SRB_TARGET] == 0 ? s->present : 0)) {
        io->packet[SRB_STATUS] = SRB_INVALID_LUN;
        put_le32(io->packet + SRB_DATA_LEN, 0);
        put_le32(io->packet + VSTOR_STATUS, VSTOR_STATUS_OK);
        answer(io);
    }
    return 0;
}

static void send_rescan(struct storage *s)
{
    uint8_t a[VSTOR_LEN] = { 0 };

    if (!s->rescan || !s->initialized || !vmbus_channel_is_open(s->channel[0].ch)) {
        return;
    }
    put_le32(a + VSTOR_OPERATION, VSTOR_ENUMERATE_BUS);
    s->rescan = vmbus_send(s->channel[0].ch, 0, false, a, sizeof(a)) == -EAGAIN;
}

static void query_properties(struct storage *s, uint8_t *a)
{
    memset(a + VSTOR_PAYLOAD, 0, VSTOR_LEN - VSTOR_PAYLOAD);
    put_le16(a + VSTOR_MAX_SUB_CHANNELS, (uint16_t)s->sub_channels);
    put_le32(a + VSTOR_PROP_FLAGS, s->sub_channels ? VSTOR_PROP_MULTI_CHANNEL : 0);
    put_le32(a + VSTOR_MAX_TRANSFER, MAX_TRANSFER);
}

static int on_packet(void *arg, const struct vmbus_packet *p)
{
    struct storage_channel *c = arg;
    struct storage *s = c->s;
    uint8_t a[VSTOR_LEN] = { 0 };
    uint32_t op;
    int r;

    if ((p->type != VMBUS_PKT_INBAND && p->type != VMBUS_PKT_GPA_DIRECT) || p->len < VSTOR_PAYLOAD) {
        return -EPROTO;
    }
    memcpy(a, p->payload, MIN(p->len, VSTOR_LEN));
    op = get_le32(a + VSTOR_OPERATION);
    if (op == VSTOR_EXECUTE_SRB) {
        return p->len < VSTOR_LEN ? -EPROTO : execute(c, p, a);
    }
    switch (op) {
    case VSTOR_BEGIN_INIT:
        s->version = 0;
        s->initialized = false;
        return reply(c, p, a, VSTOR_STATUS_OK);
    case VSTOR_QUERY_VERSION: {
        uint16_t v = get_le16(a + VSTOR_VERSION);
        bool known = v == VSTOR_WIN10 || v == VSTOR_WIN8_1 || v == VSTOR_WIN8;

        s->version = known ? v : s->version;
        return reply(c, p, a, known ? VSTOR_STATUS_OK : VSTOR_STATUS_REVISION_MISMATCH);
    }
    case VSTOR_QUERY_PROPERTIES:
        query_properties(s, a);
        return reply(c, p, a, VSTOR_STATUS_OK);
    case VSTOR_END_INIT:
        r = reply(c, p, a, s->version ? VSTOR_STATUS_OK : VSTOR_STATUS_INVALID);
        s->initialized = r == 0 && s->version;
        return r;
    case VSTOR_CREATE_SUB_CHANNELS: {
        unsigned n = get_le16(a + VSTOR_PAYLOAD);

        if (c->index || n > s->sub_channels) {
            return reply(c, p, a, VSTOR_STATUS_INVALID);
        }
        r = reply(c, p, a, VSTOR_STATUS_OK);
        if (r == 0) {
            offer_sub_channels(s, n);
        }
        return r;
    }
    case VSTOR_RESET_LUN:
    case VSTOR_RESET_ADAPTER:
    case VSTOR_RESET_BUS:
        disk_queue_drain(s->queue);      /* after all that was under way, as the guest expects */
        return reply(c, p, a, VSTOR_STATUS_OK);
    default:
        return reply(c, p, a, VSTOR_STATUS_INVALID);
    }
}

static int on_open(void *arg, const uint8_t *user)
{
    struct storage_channel *c = arg;

    (void)user;
    hv_assert(!c->unsent);
    if (c->index == 0) {
        withdraw_sub_channels(c->s, 1);  /* of the opening before, if they are still there */
    }
    c->outstanding = 0;                  /* of this opening */
    c->full = false;
    return 0;
}

static void on_close(void *arg)
{
    struct storage_channel *c = arg;

    c->generation++;
    while (c->unsent) {
        struct io *io = c->unsent;

        c->unsent = io->next;
        free_io(io);
    }
    c->last_unsent = &c->unsent;
    c->outstanding = 0;
    if (c->index == 0) {
        c->s->version = 0;
        c->s->initialized = false;
        if (c->s->channels > 1) {
            loop_post(machine_loop(c->s->machine), &c->s->primary_closed);
        }
    }
}

static void on_writable(void *arg)
{
    struct storage_channel *c = arg;

    send_unsent(c);
    if (c->index == 0) {
        send_rescan(c->s);
    }
    if (!c->full) {
        vmbus_channel_resume(c->ch);
    }
}

static void on_quiesce(void *arg)
{
    struct storage_channel *c = arg;

    release_limits(c->s);
    disk_queue_drain(c->s->queue);
    on_primary_closed(c->s);             /* what is saved is the end of it */
}

static const struct vmbus_channel_ops channel_ops = {
    .open = on_open, .close = on_close, .packet = on_packet, .writable = on_writable, .quiesce = on_quiesce,
};

/* ---- units ---- */

int storage_set_unit(struct storage *s, unsigned lun, struct scsi_unit *u)
{
    HV_CHECK(s, STORAGE_MAGIC);
    if (lun >= SCSI_LUNS) {
        return -EINVAL;
    }
    if (u && s->unit[lun]) {
        return -EBUSY;
    }
    if (!u && s->unit[lun]) {
        scsi_unit_release(s->unit[lun]);
        disk_queue_drain(s->queue);      /* commands of others end as well; new ones are not begun */
    }
    s->unit[lun] = u;
    s->present = u ? s->present | (uint64_t)1 << lun : s->present & ~((uint64_t)1 << lun);
    storage_rescan(s);
    return 0;
}

struct scsi_unit *storage_unit(const struct storage *s, unsigned lun)
{
    return lun < SCSI_LUNS ? s->unit[lun] : NULL;
}

void storage_rescan(struct storage *s)
{
    s->rescan = true;
    if (vmbus_running(s->bus)) {
        send_rescan(s);
    }
}

bool storage_ready(const struct storage *s)
{
    return s && s->initialized;
}

/* ---- save, load, reset ---- */

static void reset(void *dev)
{
    struct storage *s = dev;

    loop_post_cancel(machine_loop(s->machine), &s->primary_closed);
    withdraw_sub_channels(s, 1);
    s->version = 0;
    s->initialized = s->rescan = false;
}

/* No command is under way (quiesce); what could not be sent yet is kept. */
static void save(void *dev, struct save_writer *w)
{
    struct storage *s = dev;

    save_u16(w, s->version);
    save_u8(w, s->initialized);
    save_u8(w, s->rescan);
    save_u32(w, s->channels);
    for (unsigned i = 0; i < s->channels; i++) {
        uint32_t n = 0;

        for (const struct io *io = s->channel[i].unsent; io; io = io->next) {
            n++;
        }
        save_u32(w, n);
        for (const struct io *io = s->channel[i].unsent; io; io = io->next) {
            save_u64(w, io->transaction);
            save_bytes(w, io->packet, VSTOR_LEN);
        }
    }
}

static int load_unsent(struct storage_channel *c, struct load_section *l)
{
    uint32_t n = load_u32(l);

    if (n > MAX_OUTSTANDING || (n > 0 && !vmbus_channel_is_open(c->ch))) {
        return -EINVAL;
    }
    c->outstanding = 0;
    c->full = false;
    for (uint32_t i = 0; i < n; i++) {
        struct io *io = hv_alloc(sizeof(*io));

        if (!io) {
            return -ENOMEM;
        }
        io->c = c;
        io->generation = c->generation;
        io->transaction = load_u64(l);
        load_bytes(l, io->packet, VSTOR_LEN);
        *c->last_unsent = io;
        c->last_unsent = &io->next;
        c->outstanding++;
    }
    return 0;
}

/*
 * The bus has been loaded before and has the channels of the saved guest, open perhaps: a
 * sub-channel that this machine has not offered yet is claimed by offering it.
 */
static int load(void *dev, struct load_section *l, struct hv_error *e)
{
    struct storage *s = dev;
    uint32_t channels;
    int r = 0;

    loop_post_cancel(machine_loop(s->machine), &s->primary_closed);
    s->version = load_u16(l);
    s->initialized = load_u8(l);
    s->rescan = load_u8(l);
    channels = load_u32(l);
    if (channels < 1 || channels > s->sub_channels + 1 || (s->initialized && !s->version)) {
        return -EINVAL;
    }
    withdraw_sub_channels(s, channels);
    while (r == 0 && s->channels < channels) {
        r = offer(s, s->channels, e);
        s->channels += r == 0;
    }
    for (unsigned i = 0; i < channels && r == 0; i++) {
        r = load_unsent(&s->channel[i], l);
    }
    return r;
}

static const struct device_ops device = { .tag = "storage", .version = 1, .reset = reset, .save = save, .load = load };

int storage_new(const struct storage_config *cfg, struct storage **ret, struct hv_error *e)
{
    /* One controller, one id, the same at every start: guests name their disks by it. */
    static const struct guid base = {
        { 0x2b, 0x1c, 0x0e, 0xf8, 0x61, 0x5a, 0x9c, 0x4c, 0xa7, 0x3c, 0x68, 0x76, 0x73, 0x63, 0x73, 0x69 } };
    struct storage *s = hv_alloc(sizeof(*s));
    int r;

    if (!s) {
        return hv_fail(e, HV_NO_RESOURCES, "scsi", "out of memory");
    }
    s->magic = STORAGE_MAGIC;
    snprintf(s->name, sizeof(s->name), "scsi%u", cfg->number);
    s->bus = cfg->bus;
    s->machine = vmbus_machine(cfg->bus);
    s->queue = cfg->queue;
    s->sub_channels = MIN(cfg->sub_channels, CHANNELS_MAX - 1);
    s->instance = base;
    s->instance.b[0] = (uint8_t)(s->instance.b[0] + cfg->number);
    r = offer(s, 0, e);
    if (r < 0) {
        free(s);
        return r;
    }
    s->channels = 1;
    s->primary_closed = (struct loop_post){ .fn = on_primary_closed, .arg = s };
    machine_add_device(s->machine, &device, cfg->number, s);
    *ret = s;
    return 0;
}

void storage_free(struct storage *s)
{
    if (!s) {
        return;
    }
    loop_post_cancel(machine_loop(s->machine), &s->primary_closed);
    withdraw_sub_channels(s, 0);
    s->magic = 0;
    free(s);
}
