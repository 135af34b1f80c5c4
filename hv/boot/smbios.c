/*
 * SMBIOS 3.1 (DMTF DSP0134): how Linux and Windows recognise a Hyper-V machine. Linux'
 * ata_piix leaves ATA disks to storvsc when manufacturer and product read as here; the
 * chassis asset tag stays empty, for Azure's makes cloud-init look for a metadata server
 * (machine-platform 5).
 */
#include "hv/boot/acpi.h"

#include <assert.h>
#include <errno.h>

#include "hv/base/endian.h"

#define ANCHOR_LEN  24
#define TABLE_OFF   0x20   /* structures behind the anchor */
#define STRINGS_MAX 8

#define MAKER   "Microsoft Corporation"
#define PRODUCT "Virtual Machine"
#define VERSION "7.0"

/* Handles: one structure each, but memory devices and mappings. */
enum {
    H_BIOS = 0x0000, H_SYSTEM = 0x0100, H_BOARD = 0x0200, H_CHASSIS = 0x0300, H_CPU = 0x0400,
    H_ARRAY = 0x1000, H_MEMORY = 0x1100, H_MAPPED = 0x1300, H_BOOT = 0x2000, H_END = 0x7F00,
};

/* One structure being written: formatted part of fixed length, then its strings. */
struct smbios {
    struct strbuf *sb;
    uint8_t f[128];
    uint8_t len;
    const char *string[STRINGS_MAX];
    uint8_t strings;
};

static struct smbios begin(struct strbuf *sb, uint8_t type, uint8_t len, uint16_t handle)
{
    struct smbios s = { .sb = sb, .len = len, .f = { type, len } };
    put_le16(s.f + 2, handle);
    return s;
}

/* Set the string number at off; text NULL or empty leaves it "not specified". text lives until end(). */
static void string(struct smbios *s, uint8_t off, const char *text)
{
    if (text && *text) {
        hv_assert(s->strings < STRINGS_MAX && off < s->len);
        s->string[s->strings++] = text;
        s->f[off] = s->strings;
    }
}

static void end(struct smbios *s)
{
    strbuf_add(s->sb, s->f, s->len);
    for (unsigned i = 0; i < s->strings; i++) {
        strbuf_add(s->sb, s->string[i], strlen(s->string[i]) + 1);
    }
    strbuf_add(s->sb, "\0\0", s->strings ? 1 : 2);
}

static void add_bios(struct strbuf *sb)
{
    struct smbios s = begin(sb, 0, 0x18, H_BIOS);
    string(&s, 0x04, "American Megatrends Inc.");
    string(&s, 0x05, "090008");
    string(&s, 0x08, "12/07/2018");
    put_le16(s.f + 0x06, 0xF000);           /* segment of the BIOS */
    put_le64(s.f + 0x0A, 1 << 3);           /* characteristics are not given */
    s.f[0x12] = 0x01;                       /* ACPI */
    s.f[0x13] = 0x10;                       /* a virtual machine */
    s.f[0x14] = 9, s.f[0x15] = 0;
    s.f[0x16] = 0xFF, s.f[0x17] = 0xFF;     /* no embedded controller */
    end(&s);
}

/* System, board and chassis: what DMI matching reads. */
static void add_system(struct strbuf *sb, const struct guid *id)
{
    char serial[GUID_TEXT_SIZE];
    guid_format_upper(id, serial);

    struct smbios s = begin(sb, 1, 0x1B, H_SYSTEM);
    string(&s, 0x04, MAKER);
    string(&s, 0x05, PRODUCT);
    string(&s, 0x06, VERSION);
    string(&s, 0x07, serial);
    memcpy(s.f + 0x08, id->b, 16);
    s.f[0x18] = 6;                          /* woken by the power switch */
    string(&s, 0x19, "None");
    string(&s, 0x1A, PRODUCT);
    end(&s);

    s = begin(sb, 2, 0x0F, H_BOARD);
    string(&s, 0x04, MAKER);
    string(&s, 0x05, PRODUCT);
    string(&s, 0x06, VERSION);
    string(&s, 0x07, serial);
    s.f[0x09] = 0x01;                       /* hosting board */
    put_le16(s.f + 0x0B, H_CHASSIS);
    s.f[0x0D] = 0x0A;                       /* motherboard */
    end(&s);

    s = begin(sb, 3, 0x16, H_CHASSIS);
    string(&s, 0x04, MAKER);
    s.f[0x05] = 3;                          /* desktop */
    string(&s, 0x06, VERSION);
    string(&s, 0x07, serial);
    s.f[0x09] = s.f[0x0A] = s.f[0x0B] = 3;  /* boot, power, thermal state: safe */
    s.f[0x0C] = 2;                          /* security: unknown */
    end(&s);
}

static void add_processor(struct strbuf *sb, unsigned vcpus, uint32_t signature)
{
    struct smbios s = begin(sb, 4, 0x30, H_CPU);
    string(&s, 0x04, "None");
    s.f[0x05] = 3;                          /* central processor */
    s.f[0x06] = 2;                          /* family: unknown */
    string(&s, 0x07, MAKER);
    put_le32(s.f + 0x08, signature);
    string(&s, 0x10, "Virtual CPU");
    s.f[0x18] = 0x41;                       /* socket populated, enabled */
    s.f[0x19] = 2;                          /* upgrade: unknown */
    put_le16(s.f + 0x1A, 0xFFFF);           /* no cache structures */
    put_le16(s.f + 0x1C, 0xFFFF);
    put_le16(s.f + 0x1E, 0xFFFF);
    s.f[0x23] = s.f[0x24] = s.f[0x25] = (uint8_t)vcpus;
    put_le16(s.f + 0x26, 0x0004);           /* 64-bit capable */
    put_le16(s.f + 0x28, 2);
    put_le16(s.f + 0x2A, (uint16_t)vcpus);
    put_le16(s.f + 0x2C, (uint16_t)vcpus);
    put_le16(s.f + 0x2E, (uint16_t)vcpus);
    end(&s);
}

/* A memory-mapped range of the array; len > 0. */
static void add_mapped(struct strbuf *sb, uint16_t handle, gpa_t gpa, uint64_t len)
{
    struct smbios s = begin(sb, 19, 0x1F, handle);
    uint64_t last_kib = (gpa + len) / KIB - 1;

    if (last_kib < UINT32_MAX) {
        put_le32(s.f + 0x04, (uint32_t)(gpa / KIB));
        put_le32(s.f + 0x08, (uint32_t)last_kib);
    } else {
        put_le32(s.f + 0x04, UINT32_MAX);
        put_le32(s.f + 0x08, UINT32_MAX);
        put_le64(s.f + 0x0F, gpa);
        put_le64(s.f + 0x17, gpa + len - 1);
    }
    put_le16(s.f + 0x0C, H_ARRAY);
    s.f[0x0E] = 1;
    end(&s);
}

static void add_memory(struct strbuf *sb, const struct layout *l)
{
    uint64_t kib = l->ram_bytes / KIB, mib = l->ram_bytes / MIB;

    struct smbios s = begin(sb, 16, 0x17, H_ARRAY);
    s.f[0x04] = 3;                          /* on the system board */
    s.f[0x05] = 3;                          /* system memory */
    s.f[0x06] = 3;                          /* no error correction */
    put_le32(s.f + 0x07, kib < 0x80000000 ? (uint32_t)kib : 0x80000000);
    put_le64(s.f + 0x0F, kib < 0x80000000 ? 0 : l->ram_bytes);
    put_le16(s.f + 0x0B, 0xFFFE);           /* no error information */
    put_le16(s.f + 0x0D, 1);
    end(&s);

    s = begin(sb, 17, 0x28, H_MEMORY);
    put_le16(s.f + 0x04, H_ARRAY);
    put_le16(s.f + 0x06, 0xFFFE);
    put_le16(s.f + 0x08, 64);
    put_le16(s.f + 0x0A, 64);
    put_le16(s.f + 0x0C, mib < 0x7FFF ? (uint16_t)mib : 0x7FFF);
    s.f[0x0E] = 0x09;                       /* DIMM */
    string(&s, 0x10, "M0001");
    string(&s, 0x11, "None");
    s.f[0x12] = 0x02;                       /* type: unknown */
    put_le16(s.f + 0x13, 0x0004);
    string(&s, 0x17, MAKER);
    put_le32(s.f + 0x1C, mib < 0x7FFF ? 0 : (uint32_t)mib);
    end(&s);

    add_mapped(sb, H_MAPPED, 0, l->low_bytes);
    if (l->high_bytes) {
        add_mapped(sb, H_MAPPED + 1, MEM_HIGH_BASE, l->high_bytes);
    }
}

int smbios_build(const struct boot_config *cfg, gpa_t base, struct strbuf *ret)
{
    uint8_t anchor[TABLE_OFF] = { 0 };

    static_assert(ANCHOR_LEN <= TABLE_OFF, "structures follow the anchor");
    hv_assert(base % 16 == 0 && ret->len == 0);
    strbuf_add(ret, anchor, sizeof(anchor));
    add_bios(ret);
    add_system(ret, &cfg->id);
    add_processor(ret, cfg->vcpus, cfg->cpuid_1_eax);
    add_memory(ret, cfg->layout);
    struct smbios s = begin(ret, 32, 0x0B, H_BOOT);   /* boot status: no errors */
    end(&s);
    s = begin(ret, 127, 4, H_END);
    end(&s);
    if (ret->err) {
        return -ENOMEM;
    }

    memcpy(anchor, "_SM3_", 5);
    anchor[6] = ANCHOR_LEN;
    anchor[7] = 3;
    anchor[8] = 1;
    anchor[10] = 1;                         /* entry point revision */
    put_le32(anchor + 12, (uint32_t)(ret->len - TABLE_OFF));
    put_le64(anchor + 16, base + TABLE_OFF);
    for (unsigned i = 0; i < ANCHOR_LEN; i++) {
        anchor[5] = (uint8_t)(anchor[5] - (i == 5 ? 0 : anchor[i]));
    }
    memcpy(ret->buf, anchor, sizeof(anchor));
    return 0;
}
