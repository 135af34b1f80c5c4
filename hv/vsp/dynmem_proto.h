/*
 * The dynamic memory protocol as numbers and offsets. Linux' drivers/hv/hv_balloon.c is the
 * other side (struct dm_*); guest-abi 6.1. Pages are of 4 KiB.
 */
#ifndef HV_VSP_DYNMEM_PROTO_H
#define HV_VSP_DYNMEM_PROTO_H

#include <assert.h>

enum dm_type {
    DM_ERROR, DM_VERSION_REQUEST, DM_VERSION_RESPONSE, DM_CAPABILITIES, DM_CAPABILITIES_RESPONSE, DM_STATUS,
    DM_BALLOON_REQUEST, DM_BALLOON_RESPONSE, DM_UNBALLOON_REQUEST, DM_UNBALLOON_RESPONSE, DM_HOT_ADD_REQUEST,
    DM_HOT_ADD_RESPONSE, DM_INFO, DM_TYPE_COUNT
};

/* struct dm_header */
enum { DM_TYPE = 0, DM_SIZE = 2, DM_TRANSACTION = 4, DM_HEADER = 8 };

#define DM_VERSION_0_3 0x00000003u       /* Windows Server 2008 R2 */
#define DM_VERSION_1_0 0x00010000u       /* 2012 */
#define DM_VERSION_2_0 0x00020000u       /* 2016 */

enum {
    DM_VERSION = 8, DM_VERSION_LAST = 12, DM_VERSION_REQUEST_SIZE = 16,
    DM_ACCEPTED = 8, DM_RESPONSE_SIZE = 16,              /* of version and capabilities */
    DM_CAPS = 8, DM_CAPS_MIN = 16, DM_CAPS_MAX = 24, DM_CAPS_SIZE = 32,
    DM_AVAILABLE = 8, DM_COMMITTED = 16, DM_STATUS_SIZE = 48,
    DM_BALLOON_PAGES = 8, DM_BALLOON_SIZE = 16,
    DM_BALLOON_FLAGS = 12, DM_BALLOON_RANGES = 16,       /* response: bit 0 more, then the count */
    DM_UNBALLOON_MORE = 8, DM_UNBALLOON_COUNT = 12, DM_UNBALLOON_RANGES = 16,
    DM_HOT_RANGE = 8, DM_HOT_SIZE = 16,
    DM_HOT_ADDED = 8, DM_HOT_RESULT = 12, DM_HOT_RESPONSE_SIZE = 16,
    DM_INFO_LEN = 12, DM_INFO_TYPE = 16, DM_INFO_DATA_LEN = 20, DM_INFO_DATA = 24, DM_INFO_SIZE = 32,
    DM_MAX_MESSAGE = 4096,
};
enum { DM_CAP_BALLOON = 1, DM_CAP_HOT_ADD = 2, DM_CAP_ALIGN_SHIFT = 2, DM_CAP_ALIGN_MASK = 15 };

/* union dm_mem_page_range: 40 bits of first page, 24 of count. */
#define DM_RANGE(pfn, n)    ((uint64_t)(pfn) | (uint64_t)(n) << 40)
#define DM_RANGE_PFN(r)     ((r) & ((UINT64_C(1) << 40) - 1))
#define DM_RANGE_PAGES(r)   ((r) >> 40)
#define DM_RANGE_MAX_PAGES  ((UINT64_C(1) << 24) - 1)
#define DM_MESSAGE_RANGES   ((DM_MAX_MESSAGE - DM_UNBALLOON_RANGES) / 8)
static_assert(DM_MESSAGE_RANGES == 510, "as many as Linux fits into a page");

#endif
