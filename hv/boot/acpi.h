/* ACPI and SMBIOS tables of the board. Private to hv/boot. */
#ifndef HV_BOOT_ACPI_H
#define HV_BOOT_ACPI_H

#include "hv/base/strbuf.h"
#include "hv/boot/boot.h"

/*
 * Append the tables as they stand in guest RAM from base on: RSDP first, then FACS, DSDT,
 * FADT, MADT, WAET and XSDT. base is a multiple of 64. 0, or -ENOMEM.
 */
int acpi_tables_build(const struct boot_config *cfg, gpa_t base, struct strbuf *ret);

/* The DSDT's AML, without the table header (dsdt.c). */
void dsdt_build(const struct boot_config *cfg, struct strbuf *sb);

/*
 * Append the SMBIOS 3 entry point, at base (a multiple of 16), and the structures behind
 * it (smbios.c). 0, or -ENOMEM.
 */
int smbios_build(const struct boot_config *cfg, gpa_t base, struct strbuf *ret);

#endif
