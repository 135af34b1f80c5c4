/*
 * GDT, TSS and segment state at entry. Linux asks for flat code at selector 0x10 and
 * flat data at 0x18 (boot.rst, "64-bit boot protocol"); a TSS is loaded because VT-x
 * refuses to enter with an unusable TR (SDM 3C 27.3.1.2).
 */
#include "hv/base/endian.h"
#include "hv/boot/loader.h"

#define SEL_CODE 0x10
#define SEL_DATA 0x18
#define SEL_TSS  0x20
#define TSS_LEN  0x68   /* both forms, SDM 3A 8.2.1 and 8.7 */

/* Attributes in VMX form: type 3:0, S 4, P 7, L 13, D/B 14, G 15; unusable 16 (SDM 3C 25.4.1). */
#define ATTR_CODE64 0xA09Bu
#define ATTR_CODE32 0xC09Bu
#define ATTR_DATA   0xC093u
#define ATTR_TSS    0x008Bu
#define ATTR_UNUSABLE 0x10000u

/* The descriptor of a segment as the GDT holds it (SDM 3A 3.4.5). */
static uint64_t descriptor(const struct boot_seg *s)
{
    uint64_t limit = s->attr & 0x8000 ? s->limit >> 12 : s->limit;
    return (limit & 0xffff) | (s->base & 0xffffff) << 16 | (uint64_t)(s->attr & 0xff) << 40 |
           (limit >> 16 & 0xf) << 48 | (uint64_t)(s->attr >> 12 & 0xf) << 52 |
           (s->base >> 24 & 0xff) << 56;
}

int loader_segments(struct mem *m, bool long_mode, struct boot_entry *ret)
{
    uint8_t gdt[6 * 8] = { 0 }, tss[TSS_LEN] = { 0 };

    ret->cs = (struct boot_seg){ .sel = SEL_CODE, .limit = UINT32_MAX,
                                 .attr = long_mode ? ATTR_CODE64 : ATTR_CODE32 };
    ret->data = (struct boot_seg){ .sel = SEL_DATA, .limit = UINT32_MAX, .attr = ATTR_DATA };
    ret->tr = (struct boot_seg){ .sel = SEL_TSS, .base = LOADER_TSS, .limit = TSS_LEN - 1, .attr = ATTR_TSS };
    ret->ldtr = (struct boot_seg){ .attr = ATTR_UNUSABLE };
    ret->gdt_base = LOADER_GDT;
    ret->gdt_limit = sizeof(gdt) - 1;

    put_le64(gdt + SEL_CODE, descriptor(&ret->cs));
    put_le64(gdt + SEL_DATA, descriptor(&ret->data));
    put_le64(gdt + SEL_TSS, descriptor(&ret->tr));   /* bits 63:32 of the base, in the next entry, are 0 */
    put_le16(tss + 0x66, TSS_LEN);                   /* I/O map beyond the limit: none */

    int r = mem_write(m, LOADER_GDT, gdt, sizeof(gdt));
    return r < 0 ? r : mem_write(m, LOADER_TSS, tss, sizeof(tss));
}
