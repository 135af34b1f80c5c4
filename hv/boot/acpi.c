/*
 * The board's ACPI tables (ACPI 6.4: 5.2.5 RSDP, 5.2.8 XSDT, 5.2.9 FADT, 5.2.10 FACS,
 * 5.2.12 MADT; WAET: Microsoft, "Windows ACPI Emulated Devices Table"). Not the
 * hardware-reduced kind: Linux would then go without PIC and timer (machine-platform 4).
 */
#include "hv/boot/acpi.h"

#include <errno.h>

#include "hv/base/endian.h"

#define HEADER_LEN 36
#define RSDP_LEN   36
#define FACS_LEN   64
#define FADT_LEN   276   /* revision 6 */

#define OEM_ID       "VRTUAL"
#define OEM_TABLE_ID "MICROSFT"
#define CREATOR_ID   "HV  "

/* FADT, offset by offset */
enum {
    FADT_FIRMWARE_CTRL = 36, FADT_DSDT = 40, FADT_PROFILE = 45, FADT_SCI_INT = 46, FADT_PM1A_EVT = 56,
    FADT_PM1A_CNT = 64, FADT_PM_TMR = 76, FADT_PM1_EVT_LEN = 88, FADT_PM1_CNT_LEN = 89,
    FADT_PM_TMR_LEN = 91, FADT_P_LVL2_LAT = 96, FADT_P_LVL3_LAT = 98, FADT_CENTURY = 108,
    FADT_BOOT_ARCH = 109, FADT_FLAGS = 112, FADT_RESET_REG = 116, FADT_RESET_VALUE = 128,
    FADT_MINOR = 131, FADT_X_DSDT = 140, FADT_X_PM1A_EVT = 148, FADT_X_PM1A_CNT = 172,
    FADT_X_PM_TMR = 208, FADT_HYPERVISOR = 268,
};
#define PROFILE_ENTERPRISE_SERVER 4

/* IAPC_BOOT_ARCH */
#define BOOT_ARCH_LEGACY 0x01
#define BOOT_ARCH_8042   0x02
#define BOOT_ARCH_NO_VGA 0x04
#define BOOT_ARCH_NO_RTC 0x20

/* Fixed feature flags; PWR_BUTTON (4) stays clear: the power button is the fixed one of the PM1 block. */
#define FLAG_WBINVD      0x001u
#define FLAG_PROC_C1     0x004u
#define FLAG_SLP_BUTTON  0x020u   /* no fixed sleep button */
#define FLAG_FIX_RTC     0x040u   /* no RTC wake status in the PM1 block */
#define FLAG_TMR_VAL_EXT 0x100u   /* 32-bit PM timer */
#define FLAG_RESET_REG   0x400u

/* MADT */
#define MADT_PCAT_COMPAT 1u
#define MADT_ENABLED     1u
#define MADT_ACTIVE_HIGH_LEVEL 0xDu
#define IOAPIC_ID        0        /* as the IOAPIC's register reads after reset */

static uint8_t sum(const void *p, size_t len)
{
    uint8_t s = 0;
    for (size_t i = 0; i < len; i++) {
        s = (uint8_t)(s + ((const uint8_t *)p)[i]);
    }
    return s;
}

static void align(struct strbuf *sb, size_t to)
{
    while (sb->err == 0 && sb->len % to != 0) {
        strbuf_addc(sb, 0);
    }
}

/* Start a table on a 64-byte boundary; the offset of its header. */
static size_t table_begin(struct strbuf *sb, const char *sig, uint8_t revision)
{
    uint8_t h[HEADER_LEN] = { 0 };

    align(sb, 64);
    size_t at = sb->len;
    memcpy(h, sig, 4);
    h[8] = revision;
    memcpy(h + 10, OEM_ID, 6);
    memcpy(h + 16, OEM_TABLE_ID, 8);
    put_le32(h + 24, 1);
    memcpy(h + 28, CREATOR_ID, 4);
    put_le32(h + 32, 1);
    strbuf_add(sb, h, sizeof(h));
    return at;
}

static void table_end(struct strbuf *sb, size_t at)
{
    if (sb->err == 0) {
        uint8_t *h = (uint8_t *)sb->buf + at;
        put_le32(h + 4, (uint32_t)(sb->len - at));
        h[9] = (uint8_t)-sum(h, sb->len - at);
    }
}

/* Generic Address Structure of an I/O register; access: 1 byte, 2 word, 3 dword. */
static void put_gas_io(uint8_t *p, uint16_t port, uint8_t bits, uint8_t access)
{
    p[0] = 1;
    p[1] = bits;
    p[2] = 0;
    p[3] = access;
    put_le64(p + 4, port);
}

static size_t add_facs(struct strbuf *sb)
{
    uint8_t t[FACS_LEN] = { 0 };

    align(sb, 64);
    size_t at = sb->len;
    memcpy(t, "FACS", 4);
    put_le32(t + 4, sizeof(t));
    t[32] = 2;                       /* version; no checksum in this one */
    strbuf_add(sb, t, sizeof(t));
    return at;
}

static size_t add_fadt(struct strbuf *sb, const struct boot_board *bd, gpa_t facs, gpa_t dsdt)
{
    uint8_t t[FADT_LEN] = { 0 };

    put_le32(t + FADT_FIRMWARE_CTRL, (uint32_t)facs);
    put_le32(t + FADT_DSDT, (uint32_t)dsdt);
    put_le64(t + FADT_X_DSDT, dsdt);
    t[FADT_PROFILE] = PROFILE_ENTERPRISE_SERVER;
    put_le16(t + FADT_SCI_INT, bd->sci_irq);
    /* SMI_CMD stays 0: always in ACPI mode, SCI_EN reads 1. No GPE block: nothing is hot-plugged by ACPI. */
    put_le32(t + FADT_PM1A_EVT, bd->pm_base);
    put_le32(t + FADT_PM1A_CNT, bd->pm_base + 4u);
    put_le32(t + FADT_PM_TMR, bd->pm_base + 8u);
    t[FADT_PM1_EVT_LEN] = 4;
    t[FADT_PM1_CNT_LEN] = 2;
    t[FADT_PM_TMR_LEN] = 4;
    put_gas_io(t + FADT_X_PM1A_EVT, bd->pm_base, 32, 2);
    put_gas_io(t + FADT_X_PM1A_CNT, (uint16_t)(bd->pm_base + 4), 16, 2);
    put_gas_io(t + FADT_X_PM_TMR, (uint16_t)(bd->pm_base + 8), 32, 3);
    put_le16(t + FADT_P_LVL2_LAT, 101);    /* > 100 and > 1000: C2 and C3 are not there */
    put_le16(t + FADT_P_LVL3_LAT, 1001);
    t[FADT_CENTURY] = bd->rtc ? 0x32 : 0;
    put_le16(t + FADT_BOOT_ARCH, (uint16_t)(BOOT_ARCH_LEGACY | BOOT_ARCH_NO_VGA |
                                            (bd->i8042 ? BOOT_ARCH_8042 : 0) |
                                            (bd->rtc ? 0 : BOOT_ARCH_NO_RTC)));
    put_le32(t + FADT_FLAGS, FLAG_WBINVD | FLAG_PROC_C1 | FLAG_SLP_BUTTON | FLAG_FIX_RTC |
                                 FLAG_TMR_VAL_EXT | FLAG_RESET_REG);
    put_gas_io(t + FADT_RESET_REG, bd->reset_port, 8, 1);
    t[FADT_RESET_VALUE] = bd->reset_value;
    t[FADT_MINOR] = 4;                     /* 6.4 */
    memcpy(t + FADT_HYPERVISOR, "MsHyperV", 8);

    size_t at = table_begin(sb, "FACP", 6);
    strbuf_add(sb, t + HEADER_LEN, sizeof(t) - HEADER_LEN);
    table_end(sb, at);
    return at;
}

static size_t add_madt(struct strbuf *sb, const struct boot_config *cfg)
{
    uint8_t t[8] = { 0 };
    size_t at = table_begin(sb, "APIC", 5);

    put_le32(t, (uint32_t)LAYOUT_LAPIC_BASE);
    put_le32(t + 4, cfg->board.pic ? MADT_PCAT_COMPAT : 0);
    strbuf_add(sb, t, 8);
    for (unsigned vp = 0; vp < cfg->vcpus; vp++) {
        uint8_t cpu[8] = { 0, 8, (uint8_t)vp, (uint8_t)vp, MADT_ENABLED };
        strbuf_add(sb, cpu, sizeof(cpu));
    }
    uint8_t ioapic[12] = { 1, 12, IOAPIC_ID };
    put_le32(ioapic + 4, (uint32_t)LAYOUT_IOAPIC_BASE);
    strbuf_add(sb, ioapic, sizeof(ioapic));
    /* The PIT is on pin 2; the SCI is level and active high. */
    uint8_t pit[10] = { 2, 10, 0, 0, 2 };
    strbuf_add(sb, pit, sizeof(pit));
    uint8_t sci[10] = { 2, 10, 0, cfg->board.sci_irq, cfg->board.sci_irq, 0, 0, 0, MADT_ACTIVE_HIGH_LEVEL };
    strbuf_add(sb, sci, sizeof(sci));
    uint8_t nmi[6] = { 4, 6, 0xFF, 0, 0, 1 };
    strbuf_add(sb, nmi, sizeof(nmi));
    table_end(sb, at);
    return at;
}

/* Our RTC needs no second acknowledge, our PM timer reads right at once. */
static size_t add_waet(struct strbuf *sb)
{
    uint8_t flags[4] = { 3 };
    size_t at = table_begin(sb, "WAET", 1);
    strbuf_add(sb, flags, sizeof(flags));
    table_end(sb, at);
    return at;
}

int acpi_tables_build(const struct boot_config *cfg, gpa_t base, struct strbuf *ret)
{
    uint8_t rsdp[RSDP_LEN] = { 0 };

    hv_assert(base % 64 == 0 && ret->len == 0);
    strbuf_add(ret, rsdp, sizeof(rsdp));

    size_t facs = add_facs(ret);
    size_t dsdt = table_begin(ret, "DSDT", 2);
    dsdt_build(cfg, ret);
    table_end(ret, dsdt);
    size_t tables[] = {
        add_fadt(ret, &cfg->board, base + facs, base + dsdt),
        add_madt(ret, cfg),
        add_waet(ret),
    };
    size_t xsdt = table_begin(ret, "XSDT", 1);
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        uint8_t p[8];
        put_le64(p, base + tables[i]);
        strbuf_add(ret, p, sizeof(p));
    }
    table_end(ret, xsdt);
    if (ret->err) {
        return -ENOMEM;
    }

    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, OEM_ID, 6);
    rsdp[15] = 2;
    put_le32(rsdp + 20, RSDP_LEN);
    put_le64(rsdp + 24, base + xsdt);
    rsdp[8] = (uint8_t)-sum(rsdp, 20);
    rsdp[32] = (uint8_t)-sum(rsdp, RSDP_LEN);
    memcpy(ret->buf, rsdp, sizeof(rsdp));
    return 0;
}
