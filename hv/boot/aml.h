/*
 * Writes ACPI Machine Language into a strbuf: just the operators that a static DSDT
 * needs (ACPI 6.4, chapter 20). Errors stick in the strbuf. Private to hv/boot.
 *
 *   struct aml_mark dev = aml_device(sb, "COM1");
 *   aml_name_eisa(sb, "_HID", "PNP0501");
 *   struct aml_mark crs = aml_crs(sb);
 *   aml_io(sb, 0x3F8, 8);
 *   aml_crs_end(sb, crs);
 *   aml_end(sb, dev);
 */
#ifndef HV_BOOT_AML_H
#define HV_BOOT_AML_H

#include "hv/base/strbuf.h"

/* An object that is open: its length is put in when it ends. */
struct aml_mark { size_t pos; };

/* Names are single segments of 4 characters. */
struct aml_mark aml_scope(struct strbuf *sb, const char *name);
struct aml_mark aml_device(struct strbuf *sb, const char *name);
void aml_end(struct strbuf *sb, struct aml_mark m);

/* Name(name, value) */
void aml_name_int(struct strbuf *sb, const char *name, uint64_t val);
void aml_name_string(struct strbuf *sb, const char *name, const char *val);
void aml_name_eisa(struct strbuf *sb, const char *name, const char *id);   /* "PNP0501" */
/* Name(name, Package(){...}) of count integers. */
void aml_name_package(struct strbuf *sb, const char *name, const uint64_t *val, unsigned count);

/* Name(_CRS, ResourceTemplate(){...}) */
struct aml_mark aml_crs(struct strbuf *sb);
void aml_io(struct strbuf *sb, uint16_t port, uint8_t count);
void aml_irq(struct strbuf *sb, unsigned irq);                             /* edge, active high, exclusive */
void aml_dword_window(struct strbuf *sb, uint32_t base, uint32_t len);     /* memory, produced */
void aml_qword_window(struct strbuf *sb, uint64_t base, uint64_t len);
void aml_crs_end(struct strbuf *sb, struct aml_mark m);

#endif
