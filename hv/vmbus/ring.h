/*
 * One direction of a channel: a ring of packets in guest memory, shared with a guest
 * that may write anything anywhere in it at any time.
 *
 *   page 0   write index, read index, interrupt mask, pending send size, feature bits
 *   page 1.. data: packets of 16-byte descriptor, payload padded to 8, 8-byte trailer
 *
 * The host's own index lives here and is only ever copied out; of the guest's side the
 * index and the packets are read once and checked. A bad value is -EPROTO: the ring is
 * then dead and so is its channel.
 *
 * Loop thread only. Layout as in Linux' struct hv_ring_buffer, rules of guest-abi 5.8.
 */
#ifndef HV_VMBUS_RING_H
#define HV_VMBUS_RING_H

#include <sys/uio.h>

#include "hv/base/error.h"
#include "hv/memory/memory.h"

#define RING_MAX_PAGES 4097u     /* 16 MiB of data: 32 times what Linux' largest ring has */

struct ring {
    struct mem_pin *pin;         /* pin[pins]: runs of adjacent pages, writable */
    unsigned pins;
    uint8_t **page;              /* page[0] is the header; page[1 + i] data page i */
    uint32_t *pin_of;            /* pin_of[pages]: which pin a page belongs to */
    uint32_t pages;
    uint32_t size;               /* bytes of the data area */
    uint32_t own;                /* our index: read (incoming) or write (outgoing) */
    uint32_t published;          /* what the guest has been told of it */
    uint32_t wait;               /* outgoing: bytes of room we wait for, 0: none */
};

/* The descriptor of a packet, as found in the ring. Lengths in bytes. */
struct ring_packet {
    uint16_t type, flags;
    uint64_t transaction;
    uint32_t len;                /* descriptor, extra header and payload, padded to 8 */
    uint32_t offset;             /* of the payload in it */
};

/*
 * Pin the pages pfn[pages] for as long as the ring lives. incoming: the guest writes it.
 * Our index starts where the guest has put it. -EINVAL: fewer than two pages or more than
 * RING_MAX_PAGES; -EFAULT: not all RAM; -ENOMEM.
 */
int ring_init(struct ring *r, struct mem *m, const uint64_t *pfn, uint32_t pages, bool incoming);
/* Unpins. Accepts a zeroed ring. */
void ring_fini(struct ring *r);

/* Is v an index a ring of this size can have? */
static inline bool ring_index_ok(const struct ring *r, uint32_t v) { return v < r->size && v % 8 == 0; }

/* ---- incoming: the guest is the producer ---- */

/*
 * The next packet: descriptor to *ret, its ret->len bytes to buf[size].
 * 0; -EAGAIN: nothing there; -EMSGSIZE: larger than size; -EPROTO.
 */
int ring_read(struct ring *r, void *buf, uint32_t size, struct ring_packet *ret);
/* Step over the packet that ring_read() gave. */
void ring_consume(struct ring *r, const struct ring_packet *p);
/*
 * Tell the guest what was consumed. Returns true if it waits for room and there is enough
 * now: then it has to be signalled.
 */
bool ring_publish(struct ring *r);
/* "Do not signal me while I drain". Clearing it is a full barrier: look again afterwards. */
void ring_mask(struct ring *r, bool masked);
/* Bytes the guest has written that we have not consumed; -EPROTO. */
int64_t ring_readable(const struct ring *r);

/* ---- outgoing: the host is the producer ---- */

/*
 * Write one packet: `head` bytes of extra header and payload are given by iov[n], the
 * payload begins `payload_at` bytes after the descriptor's start (16 without an extra header).
 * ret_signal: the guest wants to be signalled.
 * 0; -EAGAIN: no room, and the guest has been told how much we wait for; -EMSGSIZE: it would
 * not even fit into an empty ring; -EPROTO.
 */
int ring_write(struct ring *r, uint16_t type, uint16_t flags, uint64_t transaction, uint32_t payload_at,
               const struct iovec *iov, unsigned n, bool *ret_signal);
/* Is the room there that a refused write waits for? True also where it is no index at all. */
bool ring_has_room(const struct ring *r);
/* We no longer wait for room. */
void ring_stop_waiting(struct ring *r);
/* Does the guest signal when the room we wait for is there? */
bool ring_peer_honours_pending(const struct ring *r);

#endif
