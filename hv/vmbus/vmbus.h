/*
 * VMBus: how a guest finds its synthetic devices and talks to them.
 *
 *   guest ──messages (HvPostMessage)──▶ bus ──▶ offers, GPADLs, open and close
 *         ◀──messages (SINT 2)────────
 *         ══ two rings a channel, signalled by HvSignalEvent and event flags ══▶ VSP
 *
 * A VSP makes offers. An offer becomes a channel that the guest opens and closes as it
 * likes; while it is open the VSP is handed packets, as copies, and sends its own.
 *
 * Everything is done on the loop's thread but for what says otherwise. A guest that breaks
 * the protocol loses the channel: it is closed on our side, the VSP told as of any close,
 * and nothing of it is touched again until the guest has closed and opened it itself.
 */
#ifndef HV_VMBUS_VMBUS_H
#define HV_VMBUS_VMBUS_H

#include <sys/uio.h>

#include "hv/base/error.h"
#include "hv/base/guid.h"
#include "hv/machine/machine.h"
#include "hv/memory/memory.h"
#include "hv/vmbus/vmbus_proto.h"

struct vmbus;
struct vmbus_channel;

/* What the bus needs of the SynIC, always for SINT 2. Loop thread. */
struct vmbus_link {
    /* A message to this VP. 0; -EAGAIN: its slot is in use, vmbus_slot_free() comes later. */
    int (*post)(void *arg, unsigned vp, const void *payload, uint32_t len);
    /* Set the event flag of this VP and interrupt it. */
    void (*signal)(void *arg, unsigned vp, unsigned flag);
    void *arg;
};

struct vmbus_config {
    struct machine *machine;
    unsigned vcpus;
    struct vmbus_link link;
    /* The guest broke the protocol of a channel (or, with "vmbus", of the bus). May be NULL. */
    void (*fault)(void *arg, const char *channel, const char *what);
    void *fault_arg;
};

/* Registers the device "vmbus" with the machine: before any VSP registers its own. */
int vmbus_new(const struct vmbus_config *cfg, struct vmbus **ret, struct hv_error *e);
/* VSPs are gone. NULL is fine. */
void vmbus_free(struct vmbus *b);

/*
 * HvPostMessage to one of our connections: payload[len] is copied. Any thread.
 * 0; -ENOENT: not a connection of ours; -EINVAL: not a bus message; -EAGAIN: too many are
 * waiting, on their way in or out (the guest is told to try again).
 */
int vmbus_post_message(struct vmbus *b, uint32_t connection, uint32_t type, const void *payload, uint32_t len);
/* HvSignalEvent: 0 or -ENOENT. Any thread. */
int vmbus_signal_event(struct vmbus *b, uint32_t connection, uint16_t flag);
/* A message slot the link was refused may be free now. Any thread. */
void vmbus_slot_free(struct vmbus *b);

/*
 * The VM is paused, and runs again. In between no guest memory is touched and no VSP called;
 * a bus is paused when it is new. Pausing has every VSP finish what it has under way.
 */
void vmbus_pause(struct vmbus *b);
void vmbus_resume(struct vmbus *b);
bool vmbus_running(const struct vmbus *b);

/* The negotiated version (major << 16 | minor), 0 while the guest is not connected. */
uint32_t vmbus_version(const struct vmbus *b);
struct machine *vmbus_machine(const struct vmbus *b);

/* ---- channels ---- */

/* One packet of the guest. What it points to is a copy and valid during the call. */
struct vmbus_packet {
    uint16_t type;                 /* VMBUS_PKT_* */
    bool wants_completion;
    uint64_t transaction;
    const uint8_t *payload;        /* payload[len], padded to 8 by the guest */
    uint32_t len;
    const uint8_t *extra;          /* what stands before it: ranges of GPA-direct packets */
    uint32_t extra_len;
};

struct vmbus_channel_ops {
    /*
     * The guest opens the channel; user[120] is what its driver passed. It may be sent to from
     * now on. Negative: refused. Optional, as the rest but packet.
     */
    int (*open)(void *arg, const uint8_t *user);
    /*
     * Closed: by the guest, by a reset or unload, or because of what it did. Packets not yet
     * answered never will be. Memory the VSP still uses: see vmbus_channel_hold().
     */
    void (*close)(void *arg);
    /*
     * One packet. 0: taken. -EAGAIN: not now; it comes again after vmbus_channel_resume().
     * Anything else: malformed, the channel is closed.
     */
    int (*packet)(void *arg, const struct vmbus_packet *p);
    /* There may be room again after a send was refused with -EAGAIN. */
    void (*writable)(void *arg);
    /* Finish every access to guest memory before returning (vmbus_pause). */
    void (*quiesce)(void *arg);
};

struct vmbus_offer {
    const char *name;              /* "heartbeat", "scsi0": for messages and counters; copied */
    struct guid class_id, instance_id;
    uint16_t flags, mmio_mb;
    uint32_t pipe_mode;            /* first of the user-defined bytes */
    uint16_t sub_index;            /* 0: primary channel */
    uint32_t max_packet;           /* largest packet of the guest's with its headers; 0: 16 KiB */
};

/*
 * Offer a device, now if the guest is connected, else when it asks. The channel is the bus's
 * own; it lives until vmbus_withdraw(). -ENOSPC: 2047 channels; -EEXIST: instance and
 * sub-channel index are in use.
 */
int vmbus_offer(struct vmbus *b, const struct vmbus_offer *o, const struct vmbus_channel_ops *ops, void *arg,
                struct vmbus_channel **ret, struct hv_error *e);
/* Hot-remove: closes the channel (ops->close is called) and rescinds the offer; ch is gone for the caller. */
void vmbus_withdraw(struct vmbus_channel *ch);

bool vmbus_channel_is_open(const struct vmbus_channel *ch);
/* Has the guest been told of it? */
bool vmbus_channel_is_offered(const struct vmbus_channel *ch);
const char *vmbus_channel_name(const struct vmbus_channel *ch);
unsigned vmbus_channel_vp(const struct vmbus_channel *ch);
uint32_t vmbus_channel_relid(const struct vmbus_channel *ch);
struct vmbus *vmbus_channel_bus(const struct vmbus_channel *ch);
/* Hand out packets again after -EAGAIN. */
void vmbus_channel_resume(struct vmbus_channel *ch);
/*
 * The guest broke the device's protocol: close the channel. From a callback of the
 * channel: return -EPROTO instead.
 */
void vmbus_channel_fault(struct vmbus_channel *ch, const char *what);

/*
 * The VSP uses guest memory beyond a close (I/O in flight). Until as many releases the guest
 * is not told that the rings' GPADL, or the bus, is gone.
 */
void vmbus_channel_hold(struct vmbus_channel *ch);
void vmbus_channel_release(struct vmbus_channel *ch);

/*
 * Send. 0; -EAGAIN: no room, ops->writable comes; -EMSGSIZE: never fits; -ENOTCONN: not open
 * (any more). The guest's driver has a limit of its own for what it can receive (guest-abi 5.8).
 */
int vmbus_send(struct vmbus_channel *ch, uint64_t transaction, bool want_completion, const void *data, uint32_t len);
int vmbus_send_iov(struct vmbus_channel *ch, uint64_t transaction, bool want_completion, const struct iovec *iov,
                   unsigned n);
int vmbus_complete(struct vmbus_channel *ch, uint64_t transaction, const void *data, uint32_t len);
/* Data that lies in a GPADL of the guest, as the network's receive buffer: ranges of it. */
struct vmbus_xfer_range { uint32_t len, offset; };
#define VMBUS_XFER_MAX 64u
int vmbus_send_xfer(struct vmbus_channel *ch, uint64_t transaction, bool want_completion, uint16_t set,
                    const struct vmbus_xfer_range *range, unsigned ranges, const void *data, uint32_t len);

/* ---- guest memory that packets and GPADLs name ---- */

/* Pinned guest memory, as adjacent pieces in the guest's order. */
struct vmbus_buffer {
    struct mem_pin *pin;           /* pin[count], with iov[] beside it */
    struct iovec *iov;
    unsigned count;
    uint64_t len;
};

/*
 * Pin what a GPA-direct packet names, all ranges one after the other. -EPROTO: not such a
 * packet or malformed; -EMSGSIZE: more than max bytes; -EFAULT: not all RAM; -ENOMEM.
 */
int vmbus_packet_pin(struct vmbus_channel *ch, const struct vmbus_packet *p, enum mem_access access, uint64_t max,
                     struct vmbus_buffer *ret);
/* Pin a GPADL of the channel's, which stays until vmbus_gpadl_unpin(). -ENOENT: there is none. */
int vmbus_gpadl_pin(struct vmbus_channel *ch, uint32_t handle, enum mem_access access, struct vmbus_buffer *ret);
void vmbus_gpadl_unpin(struct vmbus_channel *ch, uint32_t handle, struct vmbus_buffer *buf);
/* Accepts a zeroed buffer. */
void vmbus_buffer_unpin(struct vmbus_buffer *buf);
/* Copy len bytes from offset off on; the range must lie in the buffer (else -EFAULT). */
int vmbus_buffer_read(const struct vmbus_buffer *buf, uint64_t off, void *data, uint64_t len);
int vmbus_buffer_write(const struct vmbus_buffer *buf, uint64_t off, const void *data, uint64_t len);

#endif
