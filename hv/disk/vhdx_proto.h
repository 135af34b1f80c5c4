/*
 * VHDX version 2 as numbers and offsets. All integers little-endian, GUIDs mixed-endian.
 * Section numbers are those of MS-VHDX.
 *
 *   0        64K      128K     192K      256K      320K     1M
 *   | file id | header | header | regions | regions | zeros | log, BAT, metadata, blocks...
 */
#ifndef HV_DISK_VHDX_PROTO_H
#define HV_DISK_VHDX_PROTO_H

#include <assert.h>

#include "hv/base/guid.h"

#define VHDX_UNIT      ((uint64_t)1 << 20)    /* everything in a file starts at and is counted in these */
#define VHDX_PAGE      4096u                  /* of the log */
#define VHDX_AREA_END  VHDX_UNIT              /* 2.2: the header section */

/* 2.2.1 file type identifier: written once, no checksum */
#define VHDX_SIGNATURE "vhdxfile"
enum { VHDX_ID_SIGNATURE = 0, VHDX_ID_CREATOR = 8, VHDX_ID_CREATOR_SIZE = 512, VHDX_ID_SIZE = 520 };

/* 2.2.2 headers */
#define VHDX_HEADER_OFF(slot) ((uint64_t)64 * 1024 * ((slot) + 1))
enum {
    VHDX_HEADER_SIGNATURE = 0, VHDX_HEADER_CRC = 4, VHDX_HEADER_SEQUENCE = 8, VHDX_HEADER_FILE_GUID = 16,
    VHDX_HEADER_DATA_GUID = 32, VHDX_HEADER_LOG_GUID = 48, VHDX_HEADER_LOG_VERSION = 64,
    VHDX_HEADER_VERSION = 66, VHDX_HEADER_LOG_LENGTH = 68, VHDX_HEADER_LOG_OFFSET = 72,
    VHDX_HEADER_SIZE = 4096,
};
static_assert(VHDX_HEADER_DATA_GUID == VHDX_HEADER_FILE_GUID + 16 &&
              VHDX_HEADER_LOG_VERSION == VHDX_HEADER_LOG_GUID + 16 &&
              VHDX_HEADER_LOG_OFFSET + 8 == 80, "2.2.2: five GUID-sized fields, then reserved");
#define VHDX_VERSION     1u
#define VHDX_LOG_VERSION 0u

/* 2.2.3 region tables */
#define VHDX_REGIONS_OFF(copy) ((uint64_t)64 * 1024 * ((copy) + 3))
enum {
    VHDX_REGIONS_SIGNATURE = 0, VHDX_REGIONS_CRC = 4, VHDX_REGIONS_COUNT = 8, VHDX_REGIONS_ENTRIES = 16,
    VHDX_REGIONS_SIZE = 65536,
    VHDX_REGION_GUID = 0, VHDX_REGION_OFFSET = 16, VHDX_REGION_LENGTH = 24, VHDX_REGION_FLAGS = 28,
    VHDX_REGION_SIZE = 32,
};
#define VHDX_REGIONS_MAX     2047u
#define VHDX_REGION_REQUIRED 1u
static_assert(VHDX_REGIONS_ENTRIES + VHDX_REGIONS_MAX * VHDX_REGION_SIZE <= VHDX_REGIONS_SIZE, "2.2.3.1");

/* 2.3.1.1 log entry header */
enum {
    VHDX_ENTRY_SIGNATURE = 0, VHDX_ENTRY_CRC = 4, VHDX_ENTRY_LENGTH = 8, VHDX_ENTRY_TAIL = 12,
    VHDX_ENTRY_SEQUENCE = 16, VHDX_ENTRY_COUNT = 24, VHDX_ENTRY_RESERVED = 28, VHDX_ENTRY_LOG_GUID = 32,
    VHDX_ENTRY_FLUSHED = 48, VHDX_ENTRY_LAST = 56, VHDX_ENTRY_HEADER = 64,
};
/* 2.3.1.2 zero descriptor, 2.3.1.3 data descriptor */
enum {
    VHDX_DESC_SIGNATURE = 0, VHDX_DESC_TRAILING = 4, VHDX_DESC_LENGTH = 8, VHDX_DESC_LEADING = 8,
    VHDX_DESC_OFFSET = 16, VHDX_DESC_SEQUENCE = 24, VHDX_DESC_SIZE = 32,
};
/* 2.3.1.4 data sector */
enum { VHDX_DATA_SIGNATURE = 0, VHDX_DATA_HIGH = 4, VHDX_DATA_BYTES = 8, VHDX_DATA_LOW = 4092 };
#define VHDX_DATA_MIDDLE (VHDX_DATA_LOW - VHDX_DATA_BYTES)    /* 4084: the page less both its ends */
static_assert(8 + VHDX_DATA_MIDDLE + 4 == VHDX_PAGE, "descriptor and sector together hold a page");
#define VHDX_DESCS_FIRST ((VHDX_PAGE - VHDX_ENTRY_HEADER) / VHDX_DESC_SIZE)
static_assert(VHDX_DESCS_FIRST == 126, "2.3.1: descriptors in the first sector of an entry");
/* The lowest place an entry may write: behind both headers. */
#define VHDX_LOG_TARGET_MIN VHDX_REGIONS_OFF(0)

/* 2.5.1 BAT entries */
enum vhdx_payload {                /* 2.5.1.1 */
    VHDX_NOT_PRESENT = 0, VHDX_UNDEFINED = 1, VHDX_ZERO = 2, VHDX_UNMAPPED = 3,
    VHDX_FULL = 6, VHDX_PARTIAL = 7,
};
enum { VHDX_BITMAP_NOT_PRESENT = 0, VHDX_BITMAP_PRESENT = 6 };    /* 2.5.1.2 */
#define VHDX_BAT_STATE(e)    ((unsigned)((e) & 7))
#define VHDX_BAT_OFFSET(e)   ((e) & ~(VHDX_UNIT - 1))
#define VHDX_BAT_RESERVED(e) ((e) & (VHDX_UNIT - 1) & ~(uint64_t)7)
/* 2.4: one sector bitmap block of 1 MiB covers this many logical sectors */
#define VHDX_CHUNK_SECTORS   ((uint64_t)1 << 23)
#define VHDX_BITMAP_SIZE     VHDX_UNIT

/* 2.6.1 metadata table */
enum {
    VHDX_META_SIGNATURE = 0, VHDX_META_COUNT = 10, VHDX_META_ENTRIES = 32, VHDX_META_TABLE = 65536,
    VHDX_META_GUID = 0, VHDX_META_OFFSET = 16, VHDX_META_LENGTH = 20, VHDX_META_FLAGS = 24, VHDX_META_ENTRY = 32,
};
#define VHDX_META_TEXT     "metadata"
#define VHDX_META_MAX      2047u
#define VHDX_META_USER_MAX 1024u
#define VHDX_ITEM_MAX      ((uint32_t)1 << 20)
enum { VHDX_ITEM_USER = 1, VHDX_ITEM_DISK = 2, VHDX_ITEM_REQUIRED = 4 };
static_assert(VHDX_META_ENTRIES + VHDX_META_MAX * VHDX_META_ENTRY == VHDX_META_TABLE, "2.6.1");

/* 2.6.2.1 file parameters */
enum { VHDX_PARAM_LEAVE_ALLOCATED = 1, VHDX_PARAM_HAS_PARENT = 2 };
/* 2.6.2.6 parent locator: header, then entries; text UTF-16 without a terminator */
enum {
    VHDX_LOCATOR_TYPE = 0, VHDX_LOCATOR_COUNT = 18, VHDX_LOCATOR_ENTRIES = 20,
    VHDX_LOCATOR_KEY = 0, VHDX_LOCATOR_VALUE = 4, VHDX_LOCATOR_KEY_LEN = 8, VHDX_LOCATOR_VALUE_LEN = 10,
    VHDX_LOCATOR_ENTRY = 12,
};

/* 2.6.2.1: bytes */
#define VHDX_BLOCK_MIN ((uint32_t)1 << 20)
#define VHDX_BLOCK_MAX ((uint32_t)1 << 28)

/*
 * Limits of ours where the specification has none, or one no real file comes near.
 * Log: replay reads it twice. File: 64 TiB of data and all that describes it fit four times.
 */
#define VHDX_LOG_MAX      ((uint64_t)1 << 30)
#define VHDX_FILE_MAX     ((uint64_t)1 << 48)
#define VHDX_METADATA_MAX ((uint64_t)128 << 20)
#define VHDX_BAT_MAX      ((uint64_t)1 << 30)     /* bytes; 64 TiB in blocks of 1 MiB need half */

/* A GUID constant from its text form's five groups. */
#define VHDX_GUID(a, b, c, d, e)                                                                   \
    { { (a) & 0xff, (a) >> 8 & 0xff, (a) >> 16 & 0xff, (a) >> 24 & 0xff, (b) & 0xff, (b) >> 8,     \
        (c) & 0xff, (c) >> 8, (d) >> 8, (d) & 0xff, (e) >> 40 & 0xff, (e) >> 32 & 0xff,            \
        (e) >> 24 & 0xff, (e) >> 16 & 0xff, (e) >> 8 & 0xff, (e) & 0xff } }

#define VHDX_REGION_BAT      VHDX_GUID(0x2DC27766u, 0xF623, 0x4200, 0x9D64, 0x115E9BFD4A08u)
#define VHDX_REGION_METADATA VHDX_GUID(0x8B7CA206u, 0x4790, 0x4B9A, 0xB8FE, 0x575F050F886Eu)

#define VHDX_LOCATOR_VHDX VHDX_GUID(0xB04AEFB7u, 0xD19E, 0x4A81, 0xB789, 0x25B8E9445913u)

/* Metadata items: enum, name for people, exact length (0: varies), flags we write, GUID. 2.6.2 */
#define VHDX_ITEMS(X)                                                                              \
    X(PARAMETERS, "file parameters", 8, 4, VHDX_GUID(0xCAA16737u, 0xFA36, 0x4D43, 0xB3B6, 0x33F0AA44E76Bu)) \
    X(SIZE, "virtual disk size", 8, 6, VHDX_GUID(0x2FA54224u, 0xCD1B, 0x4876, 0xB211, 0x5DBED83BF4B8u)) \
    X(ID, "virtual disk id", 16, 6, VHDX_GUID(0xBECA12ABu, 0xB2E6, 0x4523, 0x93EF, 0xC309E000C746u)) \
    X(LOGICAL, "logical sector size", 4, 6, VHDX_GUID(0x8141BF1Du, 0xA96F, 0x4709, 0xBA47, 0xF233A8FAAB5Fu)) \
    X(PHYSICAL, "physical sector size", 4, 6, VHDX_GUID(0xCDA348C7u, 0x445D, 0x4471, 0x9CC9, 0xE9885251C556u)) \
    X(LOCATOR, "parent locator", 0, 4, VHDX_GUID(0xA8D35F2Du, 0xB30B, 0x454D, 0xABF7, 0xD3D84834AB0Cu)) \
    X(CHS, "CHS", 0, 0, VHDX_GUID(0xDA02D7BCu, 0x3D3A, 0x423C, 0xAC88, 0x2A36AB21479Bu)) \
    X(INCOMPLETE, "incomplete file", 0, 0, VHDX_GUID(0x71CC85F0u, 0x1B69, 0x4E28, 0x9558, 0xC3BF83AE75D3u)) \
    X(LABEL, "PMEM label area", 0, 0, VHDX_GUID(0x10E1AE8Au, 0x4B7E, 0x4169, 0xA40F, 0xCD70DE928393u))

enum vhdx_item {
#define VHDX_ITEM_ENUM(name, text, len, flags, ...) VHDX_ITEM_##name,
    VHDX_ITEMS(VHDX_ITEM_ENUM)
#undef VHDX_ITEM_ENUM
    VHDX_ITEM_COUNT
};

#endif
