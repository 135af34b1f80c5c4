/*
 * The VMBus wire: channel messages, packets and ring headers as numbers and offsets.
 * All values little-endian. The guest's side is Linux' include/linux/hyperv.h, whose
 * struct names stand beside each block; guest-abi 5 has the prose.
 */
#ifndef HV_VMBUS_PROTO_H
#define HV_VMBUS_PROTO_H

#include <assert.h>

#include "hv/base/base.h"

/* HvPostMessage: message type and connection ids of the control path (guest-abi 5.1). */
#define VMBUS_MESSAGE_TYPE      1u
#define VMBUS_MESSAGE_MAX       240u
#define VMBUS_CONNECTION_OLD    1u      /* before 5.0, and accepted later too */
#define VMBUS_CONNECTION_NEW    4u
#define VMBUS_SINT              2u
#define VMBUS_RELID_COUNT       2048u   /* flags of one SINT; relid 0 is not used */

/* major << 16 | minor; those we accept, newest first (guest-abi 5.2). */
#define VMBUS_VERSIONS(X) \
    X(0x00050003u) X(0x00050002u) X(0x00050001u) X(0x00050000u) \
    X(0x00040001u) X(0x00040000u) X(0x00030000u) X(0x00020004u)
#define VMBUS_VERSION_5_0  0x00050000u  /* SINT in the contact, connection id in the answer */
#define VMBUS_VERSION_4_1  0x00040001u  /* MODIFYCHANNEL */
#define VMBUS_VERSION_5_3  0x00050003u  /* its answer */

/* enum vmbus_channel_message_type: name, number, bytes with the header, who sends it. */
#define VMBUS_MESSAGES(X)                          \
    X(OFFER,                 1, 196, HOST)         \
    X(RESCIND,               2,  12, HOST)         \
    X(REQUEST_OFFERS,        3,   8, GUEST)        \
    X(ALL_OFFERS_DELIVERED,  4,   8, HOST)         \
    X(OPEN,                  5, 148, GUEST)        \
    X(OPEN_RESULT,           6,  20, HOST)         \
    X(CLOSE,                 7,  12, GUEST)        \
    X(GPADL_HEADER,          8,  28, GUEST)        \
    X(GPADL_BODY,            9,  16, GUEST)        \
    X(GPADL_CREATED,        10,  20, HOST)         \
    X(GPADL_TEARDOWN,       11,  16, GUEST)        \
    X(GPADL_TORNDOWN,       12,  12, HOST)         \
    X(RELID_RELEASED,       13,  12, GUEST)        \
    X(INITIATE_CONTACT,     14,  40, GUEST)        \
    X(VERSION_RESPONSE,     15,  16, HOST)         \
    X(UNLOAD,               16,   8, GUEST)        \
    X(UNLOAD_RESPONSE,      17,   8, HOST)         \
    X(TL_CONNECT_REQUEST,   21,  40, GUEST)        \
    X(MODIFY_CHANNEL,       22,  16, GUEST)        \
    X(TL_CONNECT_RESULT,    23,  44, HOST)         \
    X(MODIFY_RESPONSE,      24,  16, HOST)

enum vmbus_message_type {
#define VMBUS_MESSAGE_ENUM(name, number, bytes, dir) VMBUS_MSG_##name = number,
    VMBUS_MESSAGES(VMBUS_MESSAGE_ENUM)
#undef VMBUS_MESSAGE_ENUM
    VMBUS_MSG_COUNT
};
enum {
#define VMBUS_SIZE_ENUM(name, number, bytes, dir) VMBUS_SIZE_##name = bytes,
    VMBUS_MESSAGES(VMBUS_SIZE_ENUM)
#undef VMBUS_SIZE_ENUM
};
static_assert(VMBUS_SIZE_OFFER <= VMBUS_MESSAGE_MAX, "an offer is one message");

/* Offsets into messages; type is at 0, padding at 4. */
enum {
    /* struct vmbus_channel_offer_channel */
    OFFER_CLASS = 8, OFFER_INSTANCE = 24, OFFER_FLAGS = 56, OFFER_MMIO_MB = 58, OFFER_USER = 60,
    OFFER_SUB_INDEX = 180, OFFER_RELID = 184, OFFER_MONITOR_ID = 188, OFFER_MONITOR = 189,
    OFFER_DEDICATED = 190, OFFER_CONNECTION = 192,
    /* what names a channel: rescind, open, close, GPADLs, released, modify */
    MSG_RELID = 8,
    /* struct vmbus_channel_open_channel, ..._open_result */
    OPEN_ID = 12, OPEN_GPADL = 16, OPEN_TARGET_VP = 20, OPEN_OUT_PAGE = 24, OPEN_USER = 28,
    OPEN_USER_LEN = 120, OPEN_STATUS = 16,
    /* struct vmbus_channel_gpadl_header, ..._body, ..._created, ..._torndown */
    GPADL_HANDLE = 12, GPADL_RANGE_BYTES = 16, GPADL_RANGE_COUNT = 18, GPADL_RANGES = 20,
    GPADL_BODY_DATA = 16, GPADL_STATUS = 16, GPADL_GONE_HANDLE = 8,
    /* struct vmbus_channel_initiate_contact, ..._version_response */
    CONTACT_VERSION = 8, CONTACT_VP = 12, CONTACT_SINT = 16, CONTACT_VTL = 17,
    VERSION_SUPPORTED = 8, VERSION_STATE = 9, VERSION_CONNECTION = 12,
    /* struct vmbus_channel_modifychannel, ..._response */
    MODIFY_VP = 12, MODIFY_STATUS = 12,
    /* struct vmbus_channel_tl_connect_request; the result repeats both ids, then a status */
    TL_IDS = 8, TL_IDS_LEN = 32, TL_STATUS = 40,
};

/* Offer flags (guest-abi 5.4). */
#define VMBUS_OFFER_ENUMERATE  0x0001u
#define VMBUS_OFFER_NAMED_PIPE 0x0010u
#define VMBUS_OFFER_TLNPI      0x2000u
#define VMBUS_PIPE_MESSAGE     4u

/* struct hv_ring_buffer: the header page, then the data. */
enum {
    RING_WRITE = 0, RING_READ = 4, RING_MASK = 8, RING_PENDING = 12, RING_FEATURES = 64,
};
#define RING_FEATURE_PENDING 1u         /* honours the pending send size */

/* struct vmpacket_descriptor */
enum {
    PKT_TYPE = 0, PKT_OFFSET8 = 2, PKT_LEN8 = 4, PKT_FLAGS = 6, PKT_TRANSACTION = 8, PKT_HEADER = 16,
    PKT_TRAILER = 8,
    PKT_XFER_SET = 16, PKT_XFER_COUNT = 20, PKT_XFER_RANGES = 24, PKT_XFER_RANGE = 8,
    PKT_GPA_COUNT = 20, PKT_GPA_RANGES = 24,
};
#define PKT_FLAG_COMPLETION 1u

/* enum vmbus_packet_type */
enum {
    VMBUS_PKT_INBAND = 6, VMBUS_PKT_XFER_PAGES = 7, VMBUS_PKT_GPADL = 8, VMBUS_PKT_GPA_DIRECT = 9,
    VMBUS_PKT_CANCEL = 10, VMBUS_PKT_COMPLETION = 11,
};

#endif
