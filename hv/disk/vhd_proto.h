/*
 * VHD, version 1: layout. Numbers big-endian, sectors of 512 bytes.
 * Source: Virtual Hard Disk Image Format Specification (Microsoft, 2006).
 */
#ifndef HV_DISK_VHD_PROTO_H
#define HV_DISK_VHD_PROTO_H

#include "hv/base/base.h"

#define VHD_FOOTER_COOKIE "conectix"
#define VHD_HEADER_COOKIE "cxsparse"
#define VHD_FOOTER_SIZE   512u
#define VHD_HEADER_SIZE   1024u
#define VHD_VERSION       0x00010000u
#define VHD_UNUSED        0xffffffffu            /* BAT entry of a block that is not there */
#define VHD_EPOCH         946684800u             /* 2000-01-01 in Unix time */
#define VHD_MAX_DYNAMIC   (2040 * GIB)           /* of dynamic and differencing disks */
#define VHD_MAX_BLOCK     (256 * MIB)            /* the format knows no bound; ours */
#define VHD_MAX_CHS_SECTORS (65535ull * 16 * 255)

enum vhd_type { VHD_TYPE_FIXED = 2, VHD_TYPE_DYNAMIC = 3, VHD_TYPE_DIFFERENCING = 4 };

/* Hard Disk Footer: offsets. */
enum {
    VHD_F_COOKIE = 0, VHD_F_FEATURES = 8, VHD_F_VERSION = 12, VHD_F_DATA_OFFSET = 16, VHD_F_TIME = 24,
    VHD_F_CREATOR = 28, VHD_F_CREATOR_VERSION = 32, VHD_F_CREATOR_OS = 36, VHD_F_ORIGINAL_SIZE = 40,
    VHD_F_CURRENT_SIZE = 48, VHD_F_CYLINDERS = 56, VHD_F_HEADS = 58, VHD_F_SPT = 59, VHD_F_TYPE = 60,
    VHD_F_CHECKSUM = 64, VHD_F_ID = 68, VHD_F_SAVED_STATE = 84,
};

/* Dynamic Disk Header: offsets. */
enum {
    VHD_H_COOKIE = 0, VHD_H_NEXT = 8, VHD_H_TABLE_OFFSET = 16, VHD_H_VERSION = 24, VHD_H_ENTRIES = 28,
    VHD_H_BLOCK_SIZE = 32, VHD_H_CHECKSUM = 36, VHD_H_PARENT_ID = 40, VHD_H_PARENT_TIME = 56,
    VHD_H_PARENT_NAME = 64, VHD_H_PARENT_NAME_SIZE = 512, VHD_H_LOCATORS = 576,
    VHD_LOCATORS = 8, VHD_LOCATOR_SIZE = 24,
};

/* Parent locator entries: offsets, and platform codes. */
enum { VHD_L_CODE = 0, VHD_L_SPACE = 4, VHD_L_LENGTH = 8, VHD_L_OFFSET = 16 };
#define VHD_W2RU 0x57327275u    /* relative, UTF-16LE */
#define VHD_W2KU 0x57326b75u    /* absolute, UTF-16LE */
#define VHD_MACX 0x4d616358u    /* file URL, UTF-8 */

#endif
