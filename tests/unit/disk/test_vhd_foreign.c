/*
 * VHDs laid out as other programs do, written here byte by byte: who made it, footers of 511 bytes, the
 * table before the header, room in the table for more, small blocks, parents named in every way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "hv/base/endian.h"
#include "hv/disk/disk_impl.h"
#include "hv/disk/vhd_proto.h"

#define FIXED_SIZE (4 * MIB)
#define SIZE       (16 * MIB)

static char dir[] = "/tmp/hv-foreign-XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[2][200];
    static unsigned at;

    at ^= 1;
    snprintf(path[at], sizeof(path[at]), "%s/%s", dir, name);
    return path[at];
}

static void put(const char *name, uint64_t off, const void *p, size_t len)
{
    FILE *f = fopen(in_dir(name), access(in_dir(name), F_OK) == 0 ? "r+" : "w+");

    assert_non_null(f);
    assert_int_equal(fseek(f, (long)off, SEEK_SET), 0);
    assert_int_equal(fwrite(p, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

/* One's complement of the sum of all bytes. */
static void seal(uint8_t *p, size_t len, unsigned at)
{
    uint32_t sum = 0;

    put_be32(p + at, 0);
    for (size_t i = 0; i < len; i++) {
        sum += p[i];
    }
    put_be32(p + at, ~sum);
}

struct shape {
    const char *name, *creator, *os;
    unsigned type;
    uint64_t size;
    uint32_t features;
    bool saved, cut, no_front, no_end, odd_next;
    /* Dynamic ones; 0 stands for 512, 1536, 2 MiB. */
    uint64_t header_at, table_at;
    uint32_t block, more_entries;
    bool aligned;                    /* data, not the bitmap, on 4096 */
    const char *parent;              /* in the header; id of base.vhd */
    uint32_t code[2];                /* locators */
    const char *locator[2];
    bool space_in_sectors;
    int check;                       /* findings that are no harm */
};

static const uint8_t base_id[16] = { 0xba, 0x5e };

static void make_footer(const struct shape *s, uint8_t f[VHD_FOOTER_SIZE])
{
    memset(f, 0, VHD_FOOTER_SIZE);
    memcpy(f, VHD_FOOTER_COOKIE, 8);
    put_be32(f + VHD_F_FEATURES, s->features ? s->features : 2);
    put_be32(f + VHD_F_VERSION, VHD_VERSION);
    put_be64(f + VHD_F_DATA_OFFSET, s->type == VHD_TYPE_FIXED ? UINT64_MAX : s->header_at ? s->header_at : 512);
    put_be32(f + VHD_F_TIME, 700000000);
    memcpy(f + VHD_F_CREATOR, s->creator ? s->creator : "win ", 4);
    put_be32(f + VHD_F_CREATOR_VERSION, 0x00050003);
    memcpy(f + VHD_F_CREATOR_OS, s->os ? s->os : "Wi2k", 4);
    put_be64(f + VHD_F_ORIGINAL_SIZE, s->size);
    put_be64(f + VHD_F_CURRENT_SIZE, s->size);
    put_be16(f + VHD_F_CYLINDERS, (uint16_t)(s->size / 512 / 4 / 17));       /* less than the size, as Virtual PC's */
    f[VHD_F_HEADS] = 4;
    f[VHD_F_SPT] = 17;
    put_be32(f + VHD_F_TYPE, s->type);
    memcpy(f + VHD_F_ID, base_id, sizeof(base_id));
    f[VHD_F_ID + 15] = s->type == VHD_TYPE_DIFFERENCING;
    f[VHD_F_SAVED_STATE] = s->saved;
    seal(f, VHD_FOOTER_SIZE, VHD_F_CHECKSUM);
}

static void fill(uint8_t *p, size_t len, unsigned salt)
{
    for (size_t i = 0; i < len; i++) {
        p[i] = (uint8_t)(i / 512 * 7 + salt) | 1;
    }
}

static void put_header(const struct shape *s, uint32_t entries, uint32_t block)
{
    uint8_t h[VHD_HEADER_SIZE] = { 0 }, text[200];

    memcpy(h, VHD_HEADER_COOKIE, 8);
    put_be64(h + VHD_H_NEXT, s->odd_next ? UINT32_MAX : UINT64_MAX);
    put_be64(h + VHD_H_TABLE_OFFSET, s->table_at ? s->table_at : 1536);
    put_be32(h + VHD_H_VERSION, VHD_VERSION);
    put_be32(h + VHD_H_ENTRIES, entries);
    put_be32(h + VHD_H_BLOCK_SIZE, block);
    if (s->type == VHD_TYPE_DIFFERENCING) {
        memcpy(h + VHD_H_PARENT_ID, base_id, sizeof(base_id));
        for (size_t i = 0; s->parent && s->parent[i]; i++) {
            put_be16(h + VHD_H_PARENT_NAME + 2 * i, (uint16_t)s->parent[i]);
        }
    }
    for (unsigned k = 0; k < 2 && s->code[k]; k++) {
        uint8_t *l = h + VHD_H_LOCATORS + k * VHD_LOCATOR_SIZE;
        unsigned wide = s->code[k] == VHD_MACX ? 1 : 2, n = (unsigned)strlen(s->locator[k]);

        memset(text, 0, sizeof(text));
        for (unsigned i = 0; i < n; i++) {
            text[i * wide] = (uint8_t)s->locator[k][i];
        }
        put_be32(l + VHD_L_CODE, s->code[k]);
        put_be32(l + VHD_L_SPACE, s->space_in_sectors ? 1 : 4096);
        put_be32(l + VHD_L_LENGTH, n * wide);
        put_be64(l + VHD_L_OFFSET, 8192 + 4096 * k);
        put(s->name, 8192 + 4096 * k, text, n * wide);
    }
    seal(h, sizeof(h), VHD_H_CHECKSUM);
    put(s->name, s->header_at ? s->header_at : 512, h, sizeof(h));
}

/* The second and the last block are there, the last one first; model gets what the disk shows. */
static void make_dynamic(const struct shape *s, const uint8_t footer[VHD_FOOTER_SIZE], uint8_t *model)
{
    static uint8_t data[2 * MIB], bitmap[512], table[16384];
    uint32_t block = s->block ? s->block : 2 * MIB, blocks = (uint32_t)((s->size + block - 1) / block);
    uint32_t at[2] = { blocks - 1, 1 };
    uint64_t pos = 32768;

    memset(table, 0xff, sizeof(table));
    memset(bitmap, 0xff, sizeof(bitmap));
    put_header(s, blocks + s->more_entries, block);
    for (unsigned k = 0; k < 2; k++) {
        uint64_t off = (uint64_t)at[k] * block;

        pos = s->aligned ? ROUND_UP(pos + 512, 4096) - 512 : pos;
        put_be32(table + 4 * at[k], (uint32_t)(pos / 512));
        fill(data, block, k * 50);
        put(s->name, pos, bitmap, 512);
        put(s->name, pos + 512, data, block);
        memcpy(model + off, data, MIN((uint64_t)block, s->size - off));
        pos += 512 + block;
    }
    put(s->name, s->table_at ? s->table_at : 1536, table, ROUND_UP((size_t)(blocks + s->more_entries) * 4, 512));
    if (!s->no_front) {
        put(s->name, 0, footer, VHD_FOOTER_SIZE);
    }
    if (!s->no_end) {
        put(s->name, pos, footer, VHD_FOOTER_SIZE - s->cut);
    }
}

static void count(void *arg, const struct disk_problem *p)
{
    int *n = arg;

    n[!p->harmless]++;
}

static uint8_t *make(const struct shape *s)
{
    uint8_t footer[VHD_FOOTER_SIZE], *model = calloc(1, s->size);

    assert_non_null(model);
    make_footer(s, footer);
    unlink(in_dir(s->name));
    if (s->type == VHD_TYPE_FIXED) {
        fill(model, s->size, 3);
        put(s->name, 0, model, s->size);
        put(s->name, s->size, footer, VHD_FOOTER_SIZE - s->cut);
    } else {
        make_dynamic(s, footer, model);
    }
    return model;
}

static void compare(const struct shape *s, const uint8_t *model)
{
    static uint8_t got[SIZE + MIB];
    struct hv_error e = { 0 };
    struct disk *d;

    if (disk_open(in_dir(s->name), &(struct disk_options){ .format = -1 }, &d, &e) < 0) {
        fail_msg("%s: %s", s->name, e.message);
    }
    assert_int_equal(disk_size(d), s->size);
    assert_int_equal(disk_read(d, 0, got, s->size), 0);
    if (memcmp(got, model, s->size) != 0) {
        fail_msg("%s: other content", s->name);
    }
    assert_int_equal(disk_close(d, NULL), 0);
}

static void look(const struct shape *s, int bad)
{
    uint8_t *model = make(s);
    struct hv_error e = { 0 };
    struct disk_file *f;
    int n[2] = { 0 };

    compare(s, model);
    assert_int_equal(disk_file_open(in_dir(s->name), 0, &f, &e), 0);
    assert_int_equal(disk_check_file(f, -1, count, n, &e), 0);
    disk_file_unref(f);
    if (n[1] != bad || n[0] != s->check) {
        fail_msg("%s: %d findings, %d that are no harm", s->name, n[1], n[0]);
    }
    free(model);
}

static void everybodys_fixed_disk_is_read(void **state)
{
    static const struct shape shapes[] = {
        { .name = "vpc", .creator = "vpc " }, { .name = "server", .creator = "vs  " }, { .name = "mac", .creator = "vpc ", .os = "Mac " },
        { .name = "hyperv", .creator = "win " }, { .name = "disk2vhd", .creator = "d2v " }, { .name = "vbox", .creator = "vbox" },
        { .name = "xen", .creator = "tap\0", .os = "\0\0\0\0" }, { .name = "convert", .creator = "CTXS" },
        { .name = "qemu", .creator = "qem2" }, { .name = "temporary", .features = 3 },
        { .name = "before2004", .creator = "vpc ", .cut = true, .check = 1 }, { .name = "saved", .saved = true, .check = 1 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct shape s = shapes[i];

        s.type = VHD_TYPE_FIXED;
        s.size = FIXED_SIZE;
        look(&s, 0);
    }
}

static void everybodys_dynamic_disk_is_read(void **state)
{
    static const struct shape shapes[] = {
        { .name = "hyperv", .aligned = true }, { .name = "vpc", .creator = "vpc " }, { .name = "disk2vhd", .creator = "d2v " },
        { .name = "table-first", .table_at = 512, .header_at = 4096 }, { .name = "long-table", .more_entries = 3000 },
        { .name = "blocks-512k", .block = 512 * KIB }, { .name = "blocks-4k", .block = 4096, .size = 4 * MIB },
        { .name = "next-32", .odd_next = true }, { .name = "part-of-a-block", .size = SIZE + 3 * 512 },
        { .name = "before2004", .cut = true, .check = 1 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct shape s = shapes[i];

        s.type = VHD_TYPE_DYNAMIC;
        s.size = s.size ? s.size : SIZE;
        look(&s, 0);
    }
}

static void one_footer_is_enough(void **state)
{
    look(&(struct shape){ .name = "no-front", .type = VHD_TYPE_DYNAMIC, .size = SIZE, .no_front = true }, 1);
    look(&(struct shape){ .name = "no-end", .type = VHD_TYPE_DYNAMIC, .size = SIZE, .no_end = true }, 1);
}

static void parents_are_found_by_every_name(void **state)
{
    char url[300], url_host[300], url_percent[300];
    struct shape shapes[] = {
        { .name = "w2ru", .code = { VHD_W2RU }, .locator = { ".\\base.vhd" } },
        { .name = "other-case", .code = { VHD_W2RU }, .locator = { "BASE.VHD" }, .space_in_sectors = true },
        { .name = "both", .code = { VHD_W2KU, VHD_W2RU }, .locator = { "C:\\vm\\base.vhd", ".\\base.vhd" } },
        { .name = "drive", .code = { VHD_W2KU }, .locator = { "C:\\vm\\base.vhd" } },
        { .name = "obsolete", .parent = "base.vhd", .code = { 0x57693272u /* Wi2r */ }, .locator = { "base.vhd" } },
        { .name = "name-alone", .parent = "base.vhd" },
        { .name = "path-alone", .parent = "D:\\disks\\base.vhd" },
        { .name = "url", .code = { VHD_MACX }, .locator = { url } },
        { .name = "url-of-a-host", .code = { VHD_MACX }, .locator = { url_host } },
        { .name = "url-in-percent", .code = { VHD_MACX }, .locator = { url_percent } },
        { .name = "url-and-drive", .code = { VHD_W2KU, VHD_MACX }, .locator = { "C:\\vm\\other.vhd", url } },
        { .name = "drive-and-url", .code = { VHD_MACX, VHD_W2KU }, .locator = { url, "C:\\vm\\other.vhd" } },
        { .name = "no-url", .parent = "base.vhd", .code = { VHD_MACX }, .locator = { "file:///%2e%2f%00" } },
    };
    struct shape base = { .name = "base.vhd", .type = VHD_TYPE_DYNAMIC, .size = SIZE };
    uint8_t *under = make(&base);

    snprintf(url, sizeof(url), "file://%s/base.vhd", dir);
    snprintf(url_percent, sizeof(url_percent), "file://%s/%%62%%61se%%2Evhd", dir);
    snprintf(url_host, sizeof(url_host), "file://localhost%s/base.vhd", dir);
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct shape s = shapes[i];
        uint8_t *model;

        s.type = VHD_TYPE_DIFFERENCING;
        s.size = SIZE;
        s.block = 512 * KIB;                         /* its blocks are 1 and 31, the base's 2 MiB each */
        model = make(&s);
        for (size_t at = 0; at < SIZE; at += 512 * KIB) {
            if (at / (512 * KIB) != 1 && at / (512 * KIB) != 31) {
                memcpy(model + at, under + at, 512 * KIB);
            }
        }
        compare(&s, model);
        free(model);
    }
    free(under);
}

static void urls_are_paths_or_nothing(void **state)
{
    static const struct { const char *url, *path; } rows[] = {
        { "file:///a/b.vhd", "/a/b.vhd" }, { "file://localhost/a/b.vhd", "/a/b.vhd" }, { "FILE:///a", "/a" },
        { "file:///a%20b/%c3%9c%C3%BC.vhd", "/a b/\xc3\x9c\xc3\xbc.vhd" }, { "file:///%2541", "/%41" },
        { "file:///100%", "/100%" }, { "file:///100%4", "/100%4" }, { "file:///a%zz%4z%", "/a%zz%4z%" },
        { "file:///%%34", "/%4" }, { "file:///a%2e%2e/b", "/a../b" },
        { "file:///a%00b", NULL }, { "file:///a%2fb", NULL }, { "file:///a%2Fb", NULL }, { "file:///a%0ab", NULL },
        { "file:///a%1bb", NULL }, { "file:///a\x1b[2J", NULL }, { "file:///a%7f", NULL }, { "file:///a%ff", NULL },
        { "file:///%c0%af", NULL }, { "file:///a\xff", NULL }, { "file://", NULL }, { "file://host", NULL },
        { "file:/a", NULL }, { "http://a/b", NULL }, { "", NULL }, { "/a/b", NULL },
    };
    char out[32];

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const size_t len = strlen(rows[i].url);
        uint8_t *exact = malloc(len + !len);         /* what is read past it is seen by ASan */

        memcpy(exact, rows[i].url, len);
        const bool is_path = disk_url_path(exact, len, out, sizeof(out));
        free(exact);
        if (is_path != (rows[i].path != NULL)) {
            fail_msg("%s", rows[i].url);
        }
        if (is_path) {
            assert_string_equal(out, rows[i].path);
        }
    }
    assert_true(disk_url_path((const uint8_t *)"file:///12345", 14, out, 7));      /* and its NUL */
    assert_false(disk_url_path((const uint8_t *)"file:///12345", 14, out, 6));
    assert_true(disk_url_path((const uint8_t *)"file:///1%325", 13, out, 7));
}

static int make_dir(void **state)
{
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char cmd[100];

    snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybodys_fixed_disk_is_read),
        cmocka_unit_test(everybodys_dynamic_disk_is_read),
        cmocka_unit_test(one_footer_is_enough),
        cmocka_unit_test(parents_are_found_by_every_name),
        cmocka_unit_test(urls_are_paths_or_nothing),
    };

    return cmocka_run_group_tests_name("vhd_foreign", tests, make_dir, remove_dir);
}
