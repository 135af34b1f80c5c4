/*
 * AML encoding: ACPI 6.4, 20.2 (grammar), 20.2.4 (package length), 19.6.36 (EISAID),
 * 6.4.2 and 6.4.3 (resource descriptors).
 */
#include "hv/boot/aml.h"

#include "hv/base/endian.h"

enum {
    OP_ZERO = 0x00, OP_ONE = 0x01, OP_NAME = 0x08, OP_BYTE = 0x0A, OP_WORD = 0x0B, OP_DWORD = 0x0C,
    OP_STRING = 0x0D, OP_QWORD = 0x0E, OP_SCOPE = 0x10, OP_BUFFER = 0x11, OP_PACKAGE = 0x12,
    OP_EXT = 0x5B, OP_DEVICE = 0x82,
};

static void add_le(struct strbuf *sb, uint64_t val, unsigned bytes)
{
    uint8_t b[8];
    put_le64(b, val);
    strbuf_add(sb, b, bytes);
}

static void insert(struct strbuf *sb, size_t pos, const uint8_t *p, size_t len)
{
    size_t tail = sb->len - pos;
    strbuf_add(sb, p, len);   /* grows by len; the bytes find their place below */
    if (sb->err == 0) {
        memmove(sb->buf + pos + len, sb->buf + pos, tail);
        memcpy(sb->buf + pos, p, len);
    }
}

/* The package length of what follows pos: it counts itself (20.2.4). */
static void insert_length(struct strbuf *sb, size_t pos)
{
    size_t body = sb->len - pos;
    uint8_t b[4];

    for (unsigned n = 1; n <= 4; n++) {
        size_t total = body + n;
        if (n == 1 ? total > 0x3F : total >> (4 + 8 * (n - 1)) != 0) {
            continue;
        }
        b[0] = n == 1 ? (uint8_t)total : (uint8_t)((n - 1) << 6 | (total & 0xF));
        for (unsigned i = 1; i < n; i++) {
            b[i] = (uint8_t)(total >> (4 + 8 * (i - 1)));
        }
        insert(sb, pos, b, n);
        return;
    }
    hv_assert(!"AML package longer than 2^28 bytes");
}

static void add_int(struct strbuf *sb, uint64_t val)
{
    unsigned bytes = val <= UINT8_MAX ? 1 : val <= UINT16_MAX ? 2 : val <= UINT32_MAX ? 4 : 8;

    if (val <= 1) {
        strbuf_addc(sb, val ? OP_ONE : OP_ZERO);
        return;
    }
    strbuf_addc(sb, bytes == 1 ? OP_BYTE : bytes == 2 ? OP_WORD : bytes == 4 ? OP_DWORD : OP_QWORD);
    add_le(sb, val, bytes);
}

static void add_name(struct strbuf *sb, const char *name)
{
    hv_assert(strlen(name) == 4);
    strbuf_adds(sb, name);
}

static void name_op(struct strbuf *sb, const char *name)
{
    strbuf_addc(sb, OP_NAME);
    add_name(sb, name);
}

struct aml_mark aml_scope(struct strbuf *sb, const char *name)
{
    strbuf_addc(sb, OP_SCOPE);
    struct aml_mark m = { sb->len };
    add_name(sb, name);
    return m;
}

struct aml_mark aml_device(struct strbuf *sb, const char *name)
{
    strbuf_addc(sb, OP_EXT);
    strbuf_addc(sb, (char)OP_DEVICE);
    struct aml_mark m = { sb->len };
    add_name(sb, name);
    return m;
}

void aml_end(struct strbuf *sb, struct aml_mark m)
{
    insert_length(sb, m.pos);
}

void aml_name_int(struct strbuf *sb, const char *name, uint64_t val)
{
    name_op(sb, name);
    add_int(sb, val);
}

void aml_name_string(struct strbuf *sb, const char *name, const char *val)
{
    name_op(sb, name);
    strbuf_addc(sb, OP_STRING);
    strbuf_add(sb, val, strlen(val) + 1);
}

static unsigned hex_digit(char c)
{
    hv_assert((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'));
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

void aml_name_eisa(struct strbuf *sb, const char *name, const char *id)
{
    hv_assert(strlen(id) == 7);
    unsigned vendor = (unsigned)(id[0] - '@') << 10 | (unsigned)(id[1] - '@') << 5 | (unsigned)(id[2] - '@');
    uint8_t b[4] = {
        (uint8_t)(vendor >> 8), (uint8_t)vendor,
        (uint8_t)(hex_digit(id[3]) << 4 | hex_digit(id[4])),
        (uint8_t)(hex_digit(id[5]) << 4 | hex_digit(id[6])),
    };
    name_op(sb, name);
    strbuf_addc(sb, OP_DWORD);
    strbuf_add(sb, b, sizeof(b));
}

void aml_name_package(struct strbuf *sb, const char *name, const uint64_t *val, unsigned count)
{
    name_op(sb, name);
    strbuf_addc(sb, OP_PACKAGE);
    struct aml_mark m = { sb->len };
    strbuf_addc(sb, (char)count);
    for (unsigned i = 0; i < count; i++) {
        add_int(sb, val[i]);
    }
    aml_end(sb, m);
}

struct aml_mark aml_crs(struct strbuf *sb)
{
    name_op(sb, "_CRS");
    strbuf_addc(sb, OP_BUFFER);
    return (struct aml_mark){ sb->len };
}

void aml_io(struct strbuf *sb, uint16_t port, uint8_t count)
{
    strbuf_addc(sb, 0x47);         /* I/O port descriptor, 7 bytes */
    strbuf_addc(sb, 1);            /* decodes 16 bits */
    add_le(sb, port, 2);
    add_le(sb, port, 2);
    strbuf_addc(sb, 1);
    strbuf_addc(sb, (char)count);
}

void aml_irq(struct strbuf *sb, unsigned irq)
{
    hv_assert(irq < 16);
    strbuf_addc(sb, 0x22);         /* IRQ descriptor without flags */
    add_le(sb, (uint64_t)1 << irq, 2);
}

/* DWord and QWord address space descriptors: memory, producer, fixed, read-write. */
static void window(struct strbuf *sb, uint8_t tag, unsigned width, uint64_t base, uint64_t len)
{
    strbuf_addc(sb, (char)tag);
    add_le(sb, 3 + 5 * width, 2);
    strbuf_addc(sb, 0);            /* memory range */
    strbuf_addc(sb, 0x0C);         /* minimum and maximum fixed, produced */
    strbuf_addc(sb, 0x01);         /* read-write, not cacheable */
    add_le(sb, 0, width);          /* granularity */
    add_le(sb, base, width);
    add_le(sb, base + len - 1, width);
    add_le(sb, 0, width);          /* translation */
    add_le(sb, len, width);
}

void aml_dword_window(struct strbuf *sb, uint32_t base, uint32_t len)
{
    window(sb, 0x87, 4, base, len);
}

void aml_qword_window(struct strbuf *sb, uint64_t base, uint64_t len)
{
    window(sb, 0x8A, 8, base, len);
}

void aml_crs_end(struct strbuf *sb, struct aml_mark m)
{
    strbuf_add(sb, "\x79\x00", 2);   /* end tag, checksum not used */

    strbuf_auto size = { 0 };
    add_int(&size, sb->len - m.pos);
    if (size.err == 0) {
        insert(sb, m.pos, (const uint8_t *)size.buf, size.len);
    } else if (sb->err == 0) {
        sb->err = size.err;
    }
    aml_end(sb, m);
}
