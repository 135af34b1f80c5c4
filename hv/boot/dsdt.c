/*
 * The DSDT: S5 (never S4: hv_balloon ignores its host where hibernation is possible,
 * guest-abi 4.2), processors, the board's ports, and VMBus in its module device.
 */
#include "hv/boot/acpi.h"

#include "hv/base/endian.h"
#include "hv/boot/aml.h"

static void add_processors(struct strbuf *sb, unsigned vcpus)
{
    static const char HEX[] = "0123456789ABCDEF";

    for (unsigned vp = 0; vp < vcpus; vp++) {
        char name[5] = { 'C', 'P', HEX[vp >> 4 & 0xF], HEX[vp & 0xF], '\0' };
        struct aml_mark cpu = aml_device(sb, name);
        aml_name_string(sb, "_HID", "ACPI0007");
        aml_name_int(sb, "_UID", vp);          /* the MADT entry's processor id */
        aml_end(sb, cpu);
    }
}

/* A device with one I/O range and, if irq is not negative, an ISA interrupt; uid 0: none. */
static void add_isa(struct strbuf *sb, const char *name, const char *hid, unsigned uid, uint16_t port,
                    uint8_t count, int irq)
{
    struct aml_mark dev = aml_device(sb, name);
    aml_name_eisa(sb, "_HID", hid);
    if (uid) {
        aml_name_int(sb, "_UID", uid);
    }
    struct aml_mark crs = aml_crs(sb);
    aml_io(sb, port, count);
    if (irq >= 0) {
        aml_irq(sb, (unsigned)irq);
    }
    aml_crs_end(sb, crs);
    aml_end(sb, dev);
}

static void add_i8042(struct strbuf *sb)
{
    struct aml_mark dev = aml_device(sb, "KBD_");
    aml_name_eisa(sb, "_HID", "PNP0303");
    struct aml_mark crs = aml_crs(sb);
    aml_io(sb, 0x60, 1);
    aml_io(sb, 0x64, 1);
    aml_irq(sb, 1);
    aml_crs_end(sb, crs);
    aml_end(sb, dev);
}

/* Ports that belong to the board: nothing else may be put there (DESIGN 4 for the hypercall port). */
static void add_motherboard(struct strbuf *sb, const struct boot_board *bd)
{
    struct aml_mark dev = aml_device(sb, "MBRD");
    aml_name_eisa(sb, "_HID", "PNP0C02");
    aml_name_int(sb, "_UID", 1);
    struct aml_mark crs = aml_crs(sb);
    aml_io(sb, bd->hypercall_port, 1);
    aml_io(sb, bd->pm_base, 12);
    aml_io(sb, bd->reset_port, 1);
    aml_crs_end(sb, crs);
    aml_end(sb, dev);
}

static void add_vmbus(struct strbuf *sb, const struct layout *l)
{
    struct aml_mark mod = aml_device(sb, "VMOD");
    aml_name_string(sb, "_HID", "ACPI0004");
    aml_name_int(sb, "_UID", 0);
    struct aml_mark crs = aml_crs(sb);
    aml_dword_window(sb, (uint32_t)l->mmio_low_base, (uint32_t)l->mmio_low_len);
    aml_qword_window(sb, l->mmio_high_base, l->mmio_high_len);
    aml_crs_end(sb, crs);

    struct aml_mark bus = aml_device(sb, "VMBS");
    aml_name_string(sb, "_HID", "VMBus");
    aml_name_int(sb, "_UID", 0);
    aml_name_int(sb, "_ADR", 0);
    aml_name_string(sb, "_DDN", "VMBUS");
    aml_name_int(sb, "_STA", 0xF);
    crs = aml_crs(sb);
    aml_irq(sb, 5);                            /* expected to be there, not used on x86 */
    aml_crs_end(sb, crs);
    aml_end(sb, bus);
    aml_end(sb, mod);
}

void dsdt_build(const struct boot_config *cfg, struct strbuf *sb)
{
    const struct boot_board *bd = &cfg->board;
    const uint64_t s5[] = { bd->s5_type, bd->s5_type, 0, 0 };

    aml_name_package(sb, "_S5_", s5, ARRAY_SIZE(s5));
    struct aml_mark scope = aml_scope(sb, "_SB_");
    add_processors(sb, cfg->vcpus);
    add_motherboard(sb, bd);
    if (bd->com1) {
        add_isa(sb, "COM1", "PNP0501", 1, 0x3F8, 8, 4);
    }
    if (bd->com2) {
        add_isa(sb, "COM2", "PNP0501", 2, 0x2F8, 8, 3);
    }
    if (bd->rtc) {
        add_isa(sb, "RTC_", "PNP0B00", 0, 0x70, 2, 8);
    }
    if (bd->i8042) {
        add_i8042(sb);
    }
    if (bd->vmbus) {
        add_vmbus(sb, cfg->layout);
    }
    aml_end(sb, scope);
}
