/*
 * Damaged images one by one: check names the damage, opening refuses or lives with it, and
 * repair puts right what it can without touching what can be read.
 */
#include "tests/unit/disk/vhdx_fixture.h"

#include "hv/base/fault.h"
#include "hv/disk/crc32c.h"

#define SIZE (8 * MIB)
#define BAT  (3 * MIB)
#define META (2 * MIB)
#define LOG  (1 * MIB)

static uint8_t model[SIZE];

/* Dynamic or differencing (base empty), blocks 0, 1, 2 and 5 written, in this order at 4, 5... MiB. */
static void make(struct image_chain *c, bool child)
{
    struct disk *d;

    memset(model, 0, sizeof(model));
    chain_add(c, (struct disk_create){ .type = DISK_DYNAMIC, .size = SIZE, .block_size = 1 << 20 });
    if (child) {
        chain_add(c, (struct disk_create){ .block_size = 1 << 20 });
    }
    d = chain_open(c, c->count - 1, DISK_WRITE);
    for (uint64_t i = 0; i < 6; i += i == 2 ? 3 : 1) {
        memset(model + i * MIB, 'a' + (int)i, 4096);
        assert_int_equal(disk_write(d, i * MIB, model + i * MIB, 4096), 0);
    }
    must_close(d);
}

static uint64_t entry_get(struct memfile *m, uint64_t index)
{
    uint8_t p[8];

    memfile_read(m, BAT + index * 8, p, 8);
    return get_le64(p);
}

static void entry_put(struct memfile *m, uint64_t index, uint64_t entry)
{
    uint8_t p[8];

    put_le64(p, entry);
    memfile_write(m, BAT + index * 8, p, 8);
}

static void put32(struct memfile *m, uint64_t off, uint32_t value)
{
    uint8_t p[4];

    put_le32(p, value);
    memfile_write(m, off, p, 4);
}

static void put64(struct memfile *m, uint64_t off, uint64_t value)
{
    uint8_t p[8];

    put_le64(p, value);
    memfile_write(m, off, p, 8);
}

/* The checksum of a header or region table, after a change in it. */
static void reseal(struct memfile *m, uint64_t off, uint64_t len)
{
    uint8_t *p = calloc(1, len);

    assert_non_null(p);
    put32(m, off + 4, 0);
    memfile_read(m, off, p, len);
    put32(m, off + 4, crc32c(0, p, len));
    free(p);
}

static void reseal_header(struct memfile *m, int slot)
{
    reseal(m, VHDX_HEADER_OFF(slot), VHDX_HEADER_SIZE);
}

static void reseal_regions(struct memfile *m)
{
    uint8_t p[VHDX_REGIONS_SIZE];

    reseal(m, VHDX_REGIONS_OFF(0), VHDX_REGIONS_SIZE);
    memfile_read(m, VHDX_REGIONS_OFF(0), p, sizeof(p));
    memfile_write(m, VHDX_REGIONS_OFF(1), p, sizeof(p));
}

/* ---- kinds of damage ---- */

typedef void damage(struct memfile *m);

static void d_signature(struct memfile *m) { memfile_write(m, 0, "VHDXFILE", 8); }
static void d_header1(struct memfile *m) { put64(m, VHDX_HEADER_OFF(0) + VHDX_HEADER_SEQUENCE, 999); }
static void d_header2(struct memfile *m) { memfile_write(m, VHDX_HEADER_OFF(1), "HEAD", 4); }
static void d_both_headers(struct memfile *m) { d_header1(m); d_header2(m); }
static void d_header_version(struct memfile *m)
{
    for (int i = 0; i < 2; i++) {
        memfile_write(m, VHDX_HEADER_OFF(i) + VHDX_HEADER_VERSION, "\2", 1);
        reseal_header(m, i);
    }
}
static void d_same_sequence(struct memfile *m)
{
    for (int i = 0; i < 2; i++) {
        put64(m, VHDX_HEADER_OFF(i) + VHDX_HEADER_SEQUENCE, 7);
        memfile_write(m, VHDX_HEADER_OFF(i) + VHDX_HEADER_DATA_GUID, i ? "x" : "y", 1);
        reseal_header(m, i);
    }
}
static void d_log(struct memfile *m, uint64_t off, uint32_t len)
{
    for (int i = 0; i < 2; i++) {
        put64(m, VHDX_HEADER_OFF(i) + VHDX_HEADER_LOG_OFFSET, off);
        put32(m, VHDX_HEADER_OFF(i) + VHDX_HEADER_LOG_LENGTH, len);
        reseal_header(m, i);
    }
}
static void d_log_unaligned(struct memfile *m) { d_log(m, LOG + 4096, 1 << 20); }
static void d_log_in_header(struct memfile *m) { d_log(m, 0, 1 << 20); }
static void d_log_past_end(struct memfile *m) { d_log(m, 100 * MIB, 1 << 20); }
static void d_log_huge(struct memfile *m) { d_log(m, LOG, 0xfff00000u); }
static void d_log_on_bat(struct memfile *m) { d_log(m, BAT, 1 << 20); }
static void d_log_on_block(struct memfile *m) { d_log(m, VHDX_BAT_OFFSET(entry_get(m, 1)), 1 << 20); }
static void d_log_guid(struct memfile *m)
{
    for (int i = 0; i < 2; i++) {
        memfile_write(m, VHDX_HEADER_OFF(i) + VHDX_HEADER_LOG_GUID, "loglogloglogloglog", 16);
        reseal_header(m, i);
    }
}
static void d_log_none(struct memfile *m) { d_log(m, 0, 0); d_log_guid(m); }
static void d_regions1(struct memfile *m) { memfile_write(m, VHDX_REGIONS_OFF(0) + 2000, "x", 1); }
static void d_regions2(struct memfile *m) { memfile_write(m, VHDX_REGIONS_OFF(1), "x", 1); }
static void d_regions(struct memfile *m) { d_regions1(m); d_regions2(m); }
static void d_regions_differ(struct memfile *m)
{
    memfile_write(m, VHDX_REGIONS_OFF(1) + 60000, "x", 1);
    reseal(m, VHDX_REGIONS_OFF(1), VHDX_REGIONS_SIZE);
}
static void d_region_count(struct memfile *m) { put32(m, VHDX_REGIONS_OFF(0) + VHDX_REGIONS_COUNT, 5000); reseal_regions(m); }
/* Field of the table's entry i: 0 is the BAT, 1 the metadata. */
static void d_region(struct memfile *m, unsigned i, unsigned field, uint64_t value, bool wide)
{
    uint64_t at = VHDX_REGIONS_OFF(0) + VHDX_REGIONS_ENTRIES + i * VHDX_REGION_SIZE + field;

    wide ? put64(m, at, value) : put32(m, at, (uint32_t)value);
    reseal_regions(m);
}
static void d_bat_unaligned(struct memfile *m) { d_region(m, 0, VHDX_REGION_OFFSET, BAT + 512, true); }
static void d_bat_past_end(struct memfile *m) { d_region(m, 0, VHDX_REGION_OFFSET, 1 * TIB, true); }
static void d_bat_wraps(struct memfile *m) { d_region(m, 0, VHDX_REGION_OFFSET, 0xfffffffffff00000u, true); }
static void d_bat_in_header(struct memfile *m) { d_region(m, 0, VHDX_REGION_OFFSET, 0, true); }
static void d_bat_long(struct memfile *m) { d_region(m, 0, VHDX_REGION_LENGTH, 0xfff00000u, false); }
static void d_bat_empty(struct memfile *m) { d_region(m, 0, VHDX_REGION_LENGTH, 0, false); }
static void d_bat_on_metadata(struct memfile *m) { d_region(m, 0, VHDX_REGION_OFFSET, META, true); }
static void d_bat_on_log(struct memfile *m) { d_region(m, 0, VHDX_REGION_OFFSET, LOG, true); }
static void d_no_bat(struct memfile *m) { put32(m, VHDX_REGIONS_OFF(0) + VHDX_REGIONS_COUNT, 0); reseal_regions(m); }
static void d_two_bats(struct memfile *m)
{
    uint8_t p[16];

    memfile_read(m, VHDX_REGIONS_OFF(0) + VHDX_REGIONS_ENTRIES, p, 16);
    memfile_write(m, VHDX_REGIONS_OFF(0) + VHDX_REGIONS_ENTRIES + VHDX_REGION_SIZE, p, 16);
    reseal_regions(m);
}
static void d_unknown_region(struct memfile *m)
{
    put32(m, VHDX_REGIONS_OFF(0) + VHDX_REGIONS_COUNT, 3);
    d_region(m, 2, VHDX_REGION_FLAGS, 1, false);
    d_region(m, 2, VHDX_REGION_OFFSET, 50 * MIB, true);
}
static void d_meta_signature(struct memfile *m) { memfile_write(m, META, "METADATA", 8); }
static void d_meta_count(struct memfile *m) { memfile_write(m, META + VHDX_META_COUNT, "\xff\xff", 2); }
static void d_item(struct memfile *m, unsigned i, unsigned field, uint32_t value)
{
    put32(m, META + VHDX_META_ENTRIES + i * VHDX_META_ENTRY + field, value);
}
/* Items as vhdx_create.c orders them: parameters, size, id, logical, physical. */
static void d_item_outside(struct memfile *m) { d_item(m, 1, VHDX_META_OFFSET, 1 << 20); }
static void d_item_wraps(struct memfile *m) { d_item(m, 1, VHDX_META_OFFSET, 0xfffffffcu); }
static void d_item_in_table(struct memfile *m) { d_item(m, 1, VHDX_META_OFFSET, 4096); }
static void d_item_long(struct memfile *m) { d_item(m, 1, VHDX_META_LENGTH, 0x80000000u); }
static void d_item_short(struct memfile *m) { d_item(m, 1, VHDX_META_LENGTH, 4); }
static void d_items_overlap(struct memfile *m) { d_item(m, 1, VHDX_META_OFFSET, VHDX_META_TABLE + 4); }
static void d_item_twice(struct memfile *m)
{
    uint8_t p[VHDX_META_ENTRY];

    memfile_read(m, META + VHDX_META_ENTRIES, p, sizeof(p));
    put_le32(p + VHDX_META_OFFSET, VHDX_META_TABLE + 4096);
    memfile_write(m, META + VHDX_META_ENTRIES + 5 * VHDX_META_ENTRY, p, sizeof(p));
    memfile_write(m, META + VHDX_META_COUNT, "\6", 1);
}
static void d_item_missing(struct memfile *m) { memfile_write(m, META + VHDX_META_COUNT, "\4", 1); }
static void d_item_unknown(struct memfile *m) { memfile_write(m, META + VHDX_META_ENTRIES + 4 * VHDX_META_ENTRY, "zz", 2); }
static void d_item_user_required(struct memfile *m) { d_item(m, 4, VHDX_META_FLAGS, 5); }
static void d_incomplete(struct memfile *m)
{
    static const uint8_t incomplete[16] = { 0x25, 0xCC, 0x85, 0x71, 0xB6, 0x1E, 0x28, 0x4E,
                                            0x95, 0x58, 0xC3, 0xBF, 0x83, 0xAE, 0x75, 0xD3 };
    uint8_t fixed[16];

    memcpy(fixed, incomplete, 16);
    put_le32(fixed, 0x71CC85F0u);
    put_le16(fixed + 4, 0x1B69);
    put_le16(fixed + 6, 0x4E28);
    memfile_write(m, META + VHDX_META_ENTRIES + 5 * VHDX_META_ENTRY, fixed, 16);
    memfile_write(m, META + VHDX_META_COUNT, "\6", 1);
}
static void d_value(struct memfile *m, uint32_t off, uint64_t value, bool wide)
{
    wide ? put64(m, META + VHDX_META_TABLE + off, value) : put32(m, META + VHDX_META_TABLE + off, (uint32_t)value);
}
static void d_block_size(struct memfile *m) { d_value(m, 0, 3 << 20, false); }
static void d_block_zero(struct memfile *m) { d_value(m, 0, 0, false); }
static void d_block_small(struct memfile *m) { d_value(m, 0, 65536, false); }
static void d_size_zero(struct memfile *m) { d_value(m, 8, 0, true); }
static void d_size_odd(struct memfile *m) { d_value(m, 8, SIZE + 100, true); }
static void d_size_huge(struct memfile *m) { d_value(m, 8, 65 * TIB, true); }
static void d_size_beyond_bat(struct memfile *m) { d_value(m, 8, 1 * TIB, true); }
static void d_logical(struct memfile *m) { d_value(m, 32, 520, false); }
static void d_physical(struct memfile *m) { d_value(m, 36, 0, false); }
static void d_parent_flag(struct memfile *m) { d_value(m, 4, 2, false); }

static void d_reserved(struct memfile *m) { entry_put(m, 1, entry_get(m, 1) | 0x80); }
static void d_state4(struct memfile *m) { entry_put(m, 3, 4); }
static void d_state5(struct memfile *m) { entry_put(m, 3, 5 | 4 * MIB); }
static void d_partial(struct memfile *m) { entry_put(m, 1, entry_get(m, 1) | 1); }
static void d_past_end(struct memfile *m) { entry_put(m, 3, 1 * TIB | VHDX_FULL); }
static void d_far_past_end(struct memfile *m) { entry_put(m, 3, 0xfffffffffff00000u | VHDX_FULL); }
static void d_at_zero(struct memfile *m) { entry_put(m, 3, VHDX_FULL); }
static void d_in_log(struct memfile *m) { entry_put(m, 3, LOG | VHDX_FULL); }
static void d_in_bat(struct memfile *m) { entry_put(m, 3, BAT | VHDX_FULL); }
static void d_in_metadata(struct memfile *m) { entry_put(m, 3, META | VHDX_FULL); }
static void d_overlap(struct memfile *m) { entry_put(m, 3, entry_get(m, 1)); }
static void d_cut_block(struct memfile *m) { memfile_resize(m, memfile_size(m) - MIB + 100); }
static void d_cut_bat(struct memfile *m) { memfile_resize(m, BAT + 100); }
static void d_cut_metadata(struct memfile *m) { memfile_resize(m, META + 100); }
static void d_cut_header(struct memfile *m) { memfile_resize(m, 100000); }

static void d_locator(struct memfile *m, uint32_t off, uint64_t value, bool wide) { d_value(m, 512 + off, value, wide); }
static void d_locator_type(struct memfile *m) { d_locator(m, 0, 0, false); }
static void d_locator_count(struct memfile *m) { d_locator(m, 16, 0xffff0000u, false); }
static void d_locator_key(struct memfile *m) { d_locator(m, 20, 0xfffffff0u, false); }
static void d_locator_linkage(struct memfile *m)
{
    uint8_t p[2];

    memfile_read(m, META + VHDX_META_TABLE + 512 + 20 + VHDX_LOCATOR_VALUE, p, 2);
    memfile_write(m, META + VHDX_META_TABLE + 512 + get_le16(p) + 4, "!", 1);
}
static void d_locator_empty(struct memfile *m) { d_locator(m, 16, 0, false); }
static void d_no_bitmap(struct memfile *m) { entry_put(m, 4096, 0); }
static void d_bitmap_past_end(struct memfile *m) { entry_put(m, 4096, 1 * TIB | VHDX_FULL); }
static void d_bitmap_state(struct memfile *m) { entry_put(m, 4096, (entry_get(m, 4096) & ~(uint64_t)7) | 3); }
static void d_bitmap_overlap(struct memfile *m) { entry_put(m, 4096, VHDX_BAT_OFFSET(entry_get(m, 1)) | VHDX_FULL); }

enum { OPENS = 1, REPAIRS = 2, CHILD = 4, LOSES = 8, UNSUPPORTED = 16, HARMLESS = 32 };

/*
 * What check says (a part of it); OPENS: read-only opening works all the same; REPAIRS: check
 * finds nothing after repair, and the content is the model's, but for block 5 where it LOSES.
 */
static const struct {
    damage *fn;
    const char *says;
    unsigned flags;
} damages[] = {
    { d_signature, "file identifier: no signature", REPAIRS },
    { d_header1, "header 1: wrong checksum", OPENS | REPAIRS | HARMLESS },
    { d_header2, "header 2: no signature", OPENS | REPAIRS | HARMLESS },
    { d_both_headers, "no header is good", 0 },
    { d_header_version, "unknown version", 0 },
    { d_same_sequence, "one sequence number", 0 },
    { d_log_unaligned, "not in whole MiB", 0 },
    { d_log_in_header, "not in whole MiB", 0 },
    { d_log_past_end, "ends past the file", 0 },
    { d_log_huge, "a log of", 0 },
    { d_log_on_bat, "reaches into", 0 },
    { d_log_on_block, "reaches into or past the log", OPENS | REPAIRS | LOSES },
    { d_log_guid, "no entry in it is whole", REPAIRS },
    { d_log_none, "that has no room", 0 },
    { d_regions1, "region table 1: wrong checksum", OPENS | REPAIRS },
    { d_regions2, "region table 2: no signature", OPENS | REPAIRS },
    { d_regions, "both region tables are bad", 0 },
    { d_regions_differ, "two region tables differ", OPENS | REPAIRS },
    { d_region_count, "too many entries", 0 },
    { d_bat_unaligned, "not in whole MiB", 0 },
    { d_bat_past_end, "the BAT, 0x100000 bytes at 0x10000000000, ends past the file", 0 },
    { d_bat_wraps, "not in whole MiB", 0 },
    { d_bat_in_header, "not in whole MiB", 0 },
    { d_bat_long, "ends past the file", 0 },
    { d_bat_empty, "room for 0 entries", 0 },
    { d_bat_on_metadata, "reaches into", 0 },
    { d_bat_on_log, "reaches into", 0 },
    { d_no_bat, "there is no BAT", 0 },
    { d_two_bats, "two regions are the BAT", 0 },
    { d_unknown_region, "needs region 00000000-0000-0000-0000-000000000000", UNSUPPORTED },
    { d_meta_signature, "metadata: no table", 0 },
    { d_meta_count, "too many items", 0 },
    { d_item_outside, "lies outside its region", 0 },
    { d_item_wraps, "lies outside its region", 0 },
    { d_item_in_table, "lies outside its region", 0 },
    { d_item_long, "longer than 1 MiB", 0 },
    { d_item_short, "the virtual disk size takes 8 bytes, not 4", 0 },
    { d_items_overlap, "items overlap", 0 },
    { d_item_twice, "is there twice", 0 },
    { d_item_missing, "no physical sector size", 0 },
    { d_item_unknown, "needs metadata item", UNSUPPORTED },
    { d_item_user_required, "a user's and required", 0 },
    { d_incomplete, "never finished", 0 },
    { d_block_size, "not a power of two", 0 },
    { d_block_zero, "not a power of two", 0 },
    { d_block_small, "not a power of two", 0 },
    { d_size_zero, "virtual size", 0 },
    { d_size_odd, "virtual size", 0 },
    { d_size_huge, "virtual size", 0 },
    { d_size_beyond_bat, "the disk needs", 0 },
    { d_logical, "logical sector size", 0 },
    { d_physical, "physical sector size", 0 },
    { d_parent_flag, "without a parent locator", 0 },
    { d_reserved, "block 1 (sectors 2048 to 4095): reserved bits 0x80", OPENS | REPAIRS },
    { d_state4, "block 3 (sectors 6144 to 8191): there is no state 4", OPENS | REPAIRS },
    { d_state5, "there is no state 5", OPENS | REPAIRS },
    { d_partial, "block 1 (sectors 2048 to 4095): partly present, and the disk has no parent", OPENS | REPAIRS },
    { d_past_end, "past the end of the file", OPENS | REPAIRS },
    { d_far_past_end, "past the end of the file", OPENS | REPAIRS },
    { d_at_zero, "past the header area", OPENS | REPAIRS },
    { d_in_log, "past the log", OPENS | REPAIRS },
    { d_in_bat, "past the BAT", OPENS | REPAIRS },
    { d_in_metadata, "past the metadata", OPENS | REPAIRS },
    { d_overlap, "block 3 (sectors 6144 to 8191) and block 1 (sectors 2048 to 4095) both at 0x500000", OPENS | REPAIRS },
    { d_cut_block, "past the end of the file", OPENS | REPAIRS | LOSES },
    { d_cut_bat, "ends past the file", 0 },
    { d_cut_metadata, "ends past the file", 0 },
    { d_cut_header, "ends past the file", 0 },
    { d_locator_type, "of a kind this version does not know", CHILD | UNSUPPORTED },
    { d_locator_count, "too short for its pairs", CHILD },
    { d_locator_key, "lies outside it", CHILD },
    { d_locator_linkage, "is not a GUID", CHILD },
    { d_locator_empty, "no parent_linkage", CHILD },
    { d_no_bitmap, "its chunk has no bitmap", CHILD | OPENS },
    { d_bitmap_past_end, "bitmap 0: at 0x10000000000, which reaches into or past the end", CHILD | OPENS },
    { d_bitmap_state, "bitmap 0: the entry is", CHILD | OPENS },
    { d_bitmap_overlap, "and block 1 (sectors 2048 to 4095) both at", CHILD | OPENS | REPAIRS | LOSES },
};

/* What can be read is the model's. Of a damaged block any error will do, but not other content. */
static void look_at_content(struct disk *d, bool all, const char *says)
{
    static uint8_t block[1 << 20];

    for (uint64_t off = 0; off < SIZE; off += MIB) {
        int r = disk_read(d, off, block, MIB);

        if (r == 0 && memcmp(block, model + off, MIB) != 0 && off != 3 * MIB) {
            fail_msg("%s: MiB %llu differs", says, (unsigned long long)(off / MIB));
        }
        if (r < 0 && all) {
            fail_msg("%s: MiB %llu: %d", says, (unsigned long long)(off / MIB), r);
        }
    }
}

static void try_damage(unsigned i)
{
    struct image_chain c = { 0 };
    struct hv_error e = { 0 };
    struct findings fs = { 0 }, done = { 0 };
    struct memfile *m, *before;
    struct disk_file *f;
    struct disk *d = NULL;
    unsigned flags = damages[i].flags;
    const char *says = damages[i].says;
    int r;

    make(&c, flags & CHILD);
    m = c.m[c.count - 1];
    must_be_clean(m, "new");
    damages[i].fn(m);
    before = memfile_copy(m);

    f = memfile_open(m, "/memory/check.vhdx", 0);
    r = disk_check_file(f, DISK_VHDX, add_finding, &fs, &e);
    disk_file_unref(f);
    if (flags & UNSUPPORTED) {
        assert_int_equal(r, -EOPNOTSUPP);
        assert_non_null(strstr(e.message, says));
    } else {
        assert_int_equal(r, 0);
        if (!strstr(fs.text, says) || (flags & HARMLESS ? fs.harmless == 0 : fs.count == 0)) {
            fail_msg("%s: check says %s", says, fs.text);
        }
    }
    assert_true(memfile_equal(m, before));

    r = chain_try(&c, c.count - 1, m, 0, &d, &e);
    if ((r == 0) != !!(flags & OPENS)) {
        fail_msg("%s: open gives %d (%s)", says, r, e.message);
    }
    if (r == 0) {
        if (!(flags & LOSES)) {
            look_at_content(d, false, says);
        }
        must_close(d);
    } else {
        assert_int_equal(r, flags & UNSUPPORTED ? -EOPNOTSUPP : -EINVAL);
        assert_true(hv_error_is_set(&e) && e.message[0]);
    }

    f = memfile_open(m, "/memory/repair.vhdx", DISK_FILE_WRITE);
    r = disk_repair_file(f, DISK_VHDX, true, add_finding, &done, &e);
    assert_true(memfile_equal(m, before));
    r = disk_repair_file(f, DISK_VHDX, false, add_finding, &done, &e);
    disk_file_unref(f);
    assert_int_equal(r, flags & UNSUPPORTED ? -EOPNOTSUPP : 0);
    if (flags & REPAIRS) {
        must_be_clean(m, says);
        d = chain_open(&c, c.count - 1, 0);
        if (!(flags & LOSES)) {
            look_at_content(d, true, says);
        }
        must_close(d);
    } else if (flags & OPENS) {          /* no worse than before */
        d = chain_open(&c, c.count - 1, 0);
        look_at_content(d, false, says);
        must_close(d);
    } else {
        assert_true(memfile_equal(m, before));
    }
    memfile_free(before);
    chain_fini(&c);
}

static void test_damages(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
        try_damage(i);
    }
}

/* Writing where the BAT is damaged is refused, and leaves what is beside it alone. */
static void test_no_write_through_damage(void **state)
{
    static damage *const list[] = { d_state4, d_past_end, d_in_log, d_in_bat, d_in_metadata, d_at_zero };
    uint8_t buf[4096] = { 0 };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(list); i++) {
        struct image_chain c = { 0 };
        struct hv_error e = { 0 };
        struct disk *d;

        make(&c, false);
        list[i](c.m[0]);
        d = chain_open(&c, 0, DISK_WRITE);
        assert_int_equal(disk_write(d, 3 * MIB, buf, sizeof(buf)), -EUCLEAN);
        assert_int_equal(disk_zero(d, 3 * MIB, MIB), -EUCLEAN);
        assert_true(disk_resize(d, 2 * SIZE, &e) < 0);
        assert_true(disk_compact(d, false, NULL, NULL, &e) < 0);
        assert_non_null(strstr(e.message, "damaged"));
        assert_int_equal(disk_write(d, 5 * MIB, model + 5 * MIB, 4096), 0);
        must_close(d);
        d = chain_open(&c, 0, 0);
        look_at_content(d, false, "written beside damage");
        must_close(d);
        chain_fini(&c);
    }
}

/* A discard in an image where two blocks share a room leaves the other block's data alone. */
static void test_discard_beside_overlap(void **state)
{
    struct image_chain c = { 0 };
    uint8_t buf[4096];
    struct disk *d;

    (void)state;
    make(&c, false);
    d_overlap(c.m[0]);
    d = chain_open(&c, 0, DISK_WRITE);
    assert_int_equal(disk_discard(d, 3 * MIB, MIB), 0);
    for (uint64_t i = 6; i < 8; i++) {
        assert_int_equal(disk_flush(d), 0);
        assert_int_equal(disk_write(d, i * MIB, "new", 3), 0);
    }
    assert_int_equal(disk_read(d, 3 * MIB, buf, sizeof(buf)), 0);
    assert_int_equal(buf[0], 0);
    assert_int_equal(disk_read(d, MIB, buf, sizeof(buf)), 0);
    assert_memory_equal(buf, model + MIB, sizeof(buf));
    must_close(d);
    must_be_clean(c.m[0], "only one of the two is left");
    chain_fini(&c);
}

/* ---- logs ---- */

/* An image as a crash leaves it: blocks 6 and 7 are in the log and not in the BAT. */
static struct memfile *make_dirty(struct image_chain *c)
{
    struct memfile *m;
    struct disk *d;
    size_t ops = 0;

    make(c, false);
    memfile_record(c->m[0]);
    d = chain_open(c, 0, DISK_WRITE);
    for (uint64_t i = 6; i < 8; i++) {
        memset(model + i * MIB, 'a' + (int)i, 4096);
        assert_int_equal(disk_write(d, i * MIB, model + i * MIB, 4096), 0);
        assert_int_equal(disk_flush(d), 0);
    }
    for (ops = memfile_ops(c->m[0]); !memfile_wrote(c->m[0], ops - 1, LOG, MIB); ops--) {
    }
    m = memfile_crash(c->m[0], ops + 1, CRASH_ALL, 0);   /* and the sync behind it */
    disk_abandon(d);
    return m;
}

struct finder { uint64_t off[16]; unsigned n; };

/* Where the entries lie. */
static struct finder find_entries(struct memfile *m)
{
    struct finder s = { 0 };
    uint8_t p[4];

    for (uint64_t off = LOG; off < LOG + MIB && s.n < 16; off += 4096) {
        memfile_read(m, off, p, 4);
        if (memcmp(p, "loge", 4) == 0) {
            s.off[s.n++] = off;
        }
    }
    return s;
}

static void reseal_entry(struct memfile *m, uint64_t off)
{
    uint8_t p[4];

    memfile_read(m, off + VHDX_ENTRY_LENGTH, p, 4);
    reseal(m, off, get_le32(p));
}

static void l_target_header(struct memfile *m, uint64_t off) { put64(m, off + 64 + VHDX_DESC_OFFSET, 65536); reseal_entry(m, off); }
static void l_target_log(struct memfile *m, uint64_t off) { put64(m, off + 64 + VHDX_DESC_OFFSET, LOG + 8192); reseal_entry(m, off); }
static void l_target_odd(struct memfile *m, uint64_t off) { put64(m, off + 64 + VHDX_DESC_OFFSET, BAT + 512); reseal_entry(m, off); }
static void l_target_far(struct memfile *m, uint64_t off) { put64(m, off + 64 + VHDX_DESC_OFFSET, 1ull << 60); reseal_entry(m, off); }
static void l_flushed(struct memfile *m, uint64_t off) { put64(m, off + VHDX_ENTRY_FLUSHED, 1 * GIB); reseal_entry(m, off); }
static void l_last(struct memfile *m, uint64_t off) { put64(m, off + VHDX_ENTRY_LAST, 1ull << 62); reseal_entry(m, off); }
static void l_zero_wraps(struct memfile *m, uint64_t off)
{
    memfile_write(m, off + 64, "zero\0\0\0\0", 8);
    put64(m, off + 64 + VHDX_DESC_LENGTH, ~4095ull);
    put32(m, off + VHDX_ENTRY_LENGTH, 4096);
    reseal_entry(m, off);
}

static const struct { void (*fn)(struct memfile *, uint64_t); const char *says; } log_refused[] = {
    { l_target_header, "where none may" }, { l_target_log, "where none may" }, { l_target_odd, "where none may" },
    { l_target_far, "where none may" },    { l_flushed, "the file was cut" },  { l_last, "wants a file of" },
    { l_zero_wraps, "where none may" },
};

/* Entries that are whole but mean harm, or tell of a file that was cut: refused, named, nothing written. */
static void test_log_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(log_refused); i++) {
        struct image_chain c = { 0 };
        struct memfile *m = make_dirty(&c), *before;
        struct finder s = find_entries(m);
        struct hv_error e = { 0 };
        struct findings fs;
        struct disk *d = NULL;

        assert_true(s.n >= 2);
        log_refused[i].fn(m, s.off[s.n - 1]);
        before = memfile_copy(m);
        for (int write = 0; write < 2; write++) {
            assert_int_equal(chain_try(&c, 0, m, write ? DISK_WRITE : 0, &d, &e), -EINVAL);
            assert_non_null(strstr(e.message, log_refused[i].says));
        }
        assert_true(memfile_equal(m, before));
        fs = check_image(m, "/memory/log.vhdx");
        assert_non_null(strstr(fs.text, log_refused[i].says));
        memfile_free(before);
        memfile_free(m);
        chain_fini(&c);
    }
}

static void flip(struct memfile *m, uint64_t off)
{
    uint8_t p[1];

    memfile_read(m, off, p, 1);
    p[0] ^= 1;
    memfile_write(m, off, p, 1);
}

/* A bit wrong anywhere in the last entry: as if it had not been written; the ones before count. */
static void test_log_torn(void **state)
{
    struct image_chain c = { 0 };
    struct memfile *dirty = make_dirty(&c);
    struct finder s = find_entries(dirty);
    uint64_t last = s.off[s.n - 1];
    static const unsigned at[] = { 0, 4, 8, 13, 16, 24, 32, 48, 64, 68, 80, 88, 3000, 4096, 4100, 6000, 8190 };
    uint8_t block[4096];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        struct memfile *m = memfile_copy(dirty);
        struct disk *d;

        flip(m, last + at[i]);
        must_be_clean(m, "torn");
        for (int write = 0; write < 2; write++) {
            d = chain_open_as(&c, 0, m, write ? DISK_WRITE : 0);
            assert_int_equal(disk_read(d, 6 * MIB, block, sizeof(block)), 0);
            assert_int_equal(block[100], 'g');
            assert_int_equal(disk_read(d, 7 * MIB, block, sizeof(block)), 0);
            assert_int_equal(block[100], 0);
            must_close(d);
        }
        memfile_free(m);
    }
    memfile_free(dirty);
    chain_fini(&c);
}

/* Read-only: what the log holds is seen, and not a byte of the file changes. */
static void test_log_overlay(void **state)
{
    struct image_chain c = { 0 };
    struct memfile *m = make_dirty(&c), *before = memfile_copy(m);
    struct disk_info info;
    struct disk_extent x;
    struct disk *d = chain_open_as(&c, 0, m, 0);

    (void)state;
    look_at_content(d, true, "overlay");
    assert_int_equal(disk_layer_info(disk_layer(d, 0), true, &info), 0);
    assert_true(info.log_dirty && info.log_entries >= 1 && info.blocks_present == 6);
    assert_int_equal(disk_map(d, 7 * MIB, MIB, &x), 0);
    assert_int_equal(x.where, DISK_DATA);
    assert_int_equal(disk_file_fd(x.file), -1);
    must_close(d);
    assert_true(memfile_equal(m, before));
    d = chain_open_as(&c, 0, m, DISK_WRITE);
    assert_int_equal(disk_layer_info(disk_layer(d, 0), true, &info), 0);
    assert_true(!info.log_dirty && info.blocks_present == 6);
    must_close(d);
    d = chain_open_as(&c, 0, m, 0);
    assert_int_equal(disk_layer_info(disk_layer(d, 0), true, &info), 0);
    assert_true(!info.log_dirty && info.log_entries == 0);
    look_at_content(d, true, "replayed");
    must_close(d);
    memfile_free(before);
    memfile_free(m);
    chain_fini(&c);
}

static void build_entry(uint8_t *p, uint32_t len, uint32_t tail, uint64_t sequence, uint32_t zeros, uint64_t off)
{
    memset(p, 0, len);
    memcpy(p, "loge", 4);
    put_le32(p + VHDX_ENTRY_LENGTH, len);
    put_le32(p + VHDX_ENTRY_TAIL, tail);
    put_le64(p + VHDX_ENTRY_SEQUENCE, sequence);
    put_le32(p + VHDX_ENTRY_COUNT, zeros);
    memcpy(p + VHDX_ENTRY_LOG_GUID, "loglogloglogloglog", 16);
    for (uint32_t i = 0; i < zeros; i++) {
        uint8_t *desc = p + VHDX_ENTRY_HEADER + i * VHDX_DESC_SIZE;

        memcpy(desc, "zero", 4);
        put_le64(desc + VHDX_DESC_LENGTH, 4096 * (1 + i % 3));
        put_le64(desc + VHDX_DESC_OFFSET, off + (uint64_t)i * 4096);
        put_le64(desc + VHDX_DESC_SEQUENCE, sequence);
    }
    put_le32(p + VHDX_ENTRY_CRC, crc32c(0, p, len));
}

/*
 * Logs made to take long: every sector claims to be an entry as long as the log; every sector
 * a whole entry, in one run of all of them or each for itself, with tails before and ahead.
 * 64 MiB of log take well under a second; quadratic work would take hours.
 */
static void test_log_hostile(void **state)
{
    enum { LEN = 64 << 20 };
    uint8_t p[4096];

    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct image_chain c = { 0 };
        struct hv_error e = { 0 };
        struct disk *d = NULL;
        int r;

        make(&c, false);
        d_log(c.m[0], 32 * MIB, LEN);
        memfile_resize(c.m[0], 32 * MIB + LEN);
        d_log_guid(c.m[0]);
        for (uint32_t pos = 0; pos < LEN; pos += 4096) {
            uint64_t sequence = pos / 4096 + 1;

            if (kind == 0) {
                build_entry(p, 4096, 0, 1, 0, 0);
                put_le32(p + VHDX_ENTRY_LENGTH, LEN);
            } else if (kind == 1) {
                build_entry(p, 4096, (pos + LEN - 4096) % LEN, sequence, 0, 0);
            } else if (kind == 2) {
                build_entry(p, 4096, (pos + 4096) % LEN, sequence * 2, 0, 0);   /* no run, tails ahead */
            } else {
                build_entry(p, 4096, 0, sequence, 16, BAT + MIB / 2);
            }
            memfile_write(c.m[0], 32 * MIB + pos, p, 4096);
        }
        r = chain_try(&c, 0, c.m[0], 0, &d, &e);
        assert_int_equal(r, kind == 0 ? -EINVAL : kind == 2 ? -EINVAL : 0);
        if (r == 0) {
            look_at_content(d, true, "after a hostile log");
            must_close(d);
        }
        chain_fini(&c);
    }
}

/* Overlapping zero ranges and pages: the later wins, byte for byte as applied in order. */
static void test_log_order(void **state)
{
    struct image_chain c = { 0 };
    static uint8_t shown[2][64 * 4096];
    uint8_t p[4096];
    struct memfile *m;
    struct disk *d;

    (void)state;
    make(&c, false);
    m = c.m[0];
    memfile_resize(m, 64 * MIB);
    for (uint64_t i = 0; i < 64; i++) {
        memset(p, (int)i + 1, sizeof(p));
        memfile_write(m, 40 * MIB + i * 4096, p, sizeof(p));
    }
    entry_put(m, 7, 40 * MIB | VHDX_FULL);
    d_log_guid(m);
    for (uint32_t i = 0; i < 20; i++) {
        build_entry(p, 4096, 0, 1 + i, 1, 40 * MIB + roll(60) * 4096);
        put_le64(p + 64 + VHDX_DESC_LENGTH, 4096 * (1 + roll(4)));
        put_le32(p + VHDX_ENTRY_CRC, 0);
        put_le32(p + VHDX_ENTRY_CRC, crc32c(0, p, sizeof(p)));
        memfile_write(m, LOG + i * 4096, p, sizeof(p));
    }
    for (int write = 0; write < 2; write++) {
        d = chain_open(&c, 0, write ? DISK_WRITE : 0);
        assert_int_equal(disk_read(d, 7 * MIB, shown[write], sizeof(shown[write])), 0);
        must_close(d);
    }
    assert_memory_equal(shown[0], shown[1], sizeof(shown[0]));
    chain_fini(&c);
}

/* Every allocation fails once: opening, writing and checking give -ENOMEM and leak nothing. */
static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 60; n++) {
        struct image_chain c = { 0 };
        struct memfile *m = make_dirty(&c);
        struct hv_error e = { 0 };
        struct findings fs = { 0 };
        struct disk *d = NULL;
        struct disk_file *f = memfile_open(m, c.path[0], DISK_FILE_WRITE);
        struct disk_options o = { .format = DISK_VHDX, .flags = DISK_WRITE };

        fault_arm(FAULT_ALLOC, n, 0);
        if (disk_open_file(f, &o, &d, &e) == 0) {
            disk_write(d, 3 * MIB, "x", 1);
            disk_zero(d, MIB, MIB);
            disk_flush(d);
            disk_close(d, &e);
        }
        fault_arm(FAULT_ALLOC, 0, 0);
        f = memfile_open(m, "/memory/0.vhdx", 0);
        fault_arm(FAULT_ALLOC, n, 0);
        disk_check_file(f, DISK_VHDX, add_finding, &fs, &e);
        fault_arm(FAULT_ALLOC, 0, 0);
        disk_file_unref(f);
        must_be_clean(m, "after failing allocations");
        memfile_free(m);
        chain_fini(&c);
    }
}

/* Every write, sync and resize fails once, or for ever from there: errors, and an image that replays. */
static void test_io_errors(void **state)
{
    (void)state;
    for (int stay = 0; stay < 2; stay++) {
        for (uint64_t n = 1; n < 90; n++) {
            struct image_chain c = { 0 };
            struct hv_error e = { 0 };
            uint8_t buf[4096];
            bool flushed = false;
            struct disk *d;

            make(&c, false);
            d = chain_open(&c, 0, DISK_WRITE);
            memset(buf, 'Z', sizeof(buf));
            memfile_fail(c.m[0], n, stay);
            for (int round = 0; round < 4; round++) {
                bool ok = true;

                for (uint64_t i = 0; i < 8; i += 3) {
                    ok = disk_write(d, i * MIB + 8192 + (uint64_t)round * 4096, buf, sizeof(buf)) == 0 && ok;
                }
                if (disk_flush(d) == 0 && ok && round == 3) {
                    flushed = true;
                }
            }
            if (n % 2) {
                disk_close(d, &e);
            } else {
                disk_abandon(d);
            }
            memfile_fail(c.m[0], 0, false);
            must_be_clean(c.m[0], "after failing writes");
            d = chain_open(&c, 0, DISK_WRITE);
            for (uint64_t i = 0; i < 8 && flushed; i += 3) {
                assert_int_equal(disk_read(d, i * MIB + 8192 + 3 * 4096, buf, sizeof(buf)), 0);
                assert_int_equal(buf[77], 'Z');
            }
            must_close(d);
            must_be_clean(c.m[0], "after failing writes");
            chain_fini(&c);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damages), cmocka_unit_test(test_no_write_through_damage),
        cmocka_unit_test(test_discard_beside_overlap),
        cmocka_unit_test(test_log_refused), cmocka_unit_test(test_log_torn), cmocka_unit_test(test_log_overlay),
        cmocka_unit_test(test_log_hostile), cmocka_unit_test(test_log_order), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_io_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
