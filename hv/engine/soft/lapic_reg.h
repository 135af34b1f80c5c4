/*
 * The local APIC's files among themselves: register numbers and bits (SDM volume 3, 11.4 to 11.12), and
 * what lapic.c, lapic_regs.c, lapic_timer.c and lapic_state.c call of each other.
 */
#ifndef HV_ENGINE_SOFT_LAPIC_REG_H
#define HV_ENGINE_SOFT_LAPIC_REG_H

#include <stdatomic.h>

#include "hv/engine/soft/lapic.h"

#define BASE_BSP  0x100ull
#define BASE_EXTD 0x400ull
#define BASE_EN   0x800ull
#define BASE_ADDR 0x000ffffffffff000ull
#define BASE_DEFAULT 0xfee00000ull

#define MSR_APIC_BASE    0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC       0x800
#define MSR_X2APIC_END   0x840

/* Register numbers: MMIO offset >> 4, MSR - 0x800. */
enum {
    REG_ID = 0x02, REG_VERSION = 0x03, REG_TPR = 0x08, REG_APR = 0x09, REG_PPR = 0x0a, REG_EOI = 0x0b,
    REG_RRD = 0x0c, REG_LDR = 0x0d, REG_DFR = 0x0e, REG_SVR = 0x0f, REG_ISR = 0x10, REG_TMR = 0x18,
    REG_IRR = 0x20, REG_ESR = 0x28, REG_ICR = 0x30, REG_ICR_HI = 0x31, REG_LVT_TIMER = 0x32,
    REG_LVT_THERMAL = 0x33, REG_LVT_PERF = 0x34, REG_LVT_LINT0 = 0x35, REG_LVT_LINT1 = 0x36,
    REG_LVT_ERROR = 0x37, REG_TIMER_INIT = 0x38, REG_TIMER_CUR = 0x39, REG_TIMER_DIV = 0x3e,
    REG_SELF_IPI = 0x3f,
};

/* Version 0x14, six LVT entries, EOI broadcast can be suppressed. SDM 11.4.8. */
#define VERSION ((1u << 24) | (5u << 16) | 0x14)

#define SVR_ENABLE   0x100u
#define SVR_NO_BCAST 0x1000u
#define SVR_VALID    0x13ffu

#define LVT_MASKED   0x10000u
#define LVT_VECTOR   0xffu
#define LVT_MODE     0x700u
#define LVT_EXTINT   0x700u
#define LVT_RO       0x5000u            /* delivery status, remote IRR */
#define TIMER_MODE   0x60000u
#define TIMER_PERIODIC 0x20000u
#define TIMER_DEADLINE 0x40000u

#define ESR_SEND_VECTOR 0x20u
#define ESR_RECV_VECTOR 0x40u
#define ESR_REGISTER    0x80u
#define ESR_VALID       0xe0u

#define ICR_LOGICAL 0x800u
#define ICR_BUSY    0x1000u
#define ICR_ASSERT  0x4000u
#define ICR_LEVEL   0x8000u
#define ICR_VALID   0xccfffu
#define ICR_RESERVED_X2 0xfff32000u     /* 31:20, 17:16, 13 */

enum { MODE_FIXED, MODE_LOWEST, MODE_SMI, MODE_RESERVED, MODE_NMI, MODE_INIT, MODE_SIPI, MODE_EXTINT };
enum { SHORT_NONE, SHORT_SELF, SHORT_ALL, SHORT_OTHERS };

/* LVT entries: where each lives and which bits software may set. SDM 11.5.1, figure 11-8. lapic_regs.c */
struct apic_lvt_desc { uint16_t field; uint8_t reg; uint32_t valid; };
#define APIC_LVT_COUNT 6
extern const struct apic_lvt_desc apic_lvt[APIC_LVT_COUNT];

static inline uint32_t *apic_lvt_at(struct lapic *l, const struct apic_lvt_desc *d)
{
    return (uint32_t *)(void *)((char *)l + d->field);
}

/* Fields that senders on other threads read, or any thread writes. */
#define SHARED_GET(field)    __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define SHARED_SET(field, v) __atomic_store_n(&(field), (v), __ATOMIC_RELAXED)

typedef unsigned __int128 u128;

/* lapic.c: modes, priorities, errors, IPIs */
bool apic_is_x2(const struct lapic *l);
bool apic_is_software_enabled(const struct lapic *l);
uint32_t apic_logical_id(const struct lapic *l);         /* LDR as the mode shows it */
uint32_t apic_ppr(const struct lapic *l);
void apic_set_tpr(struct lapic *l, uint32_t v);
void apic_error(struct lapic *l, uint32_t bit);          /* [any] an ESR bit */
void apic_send_ipi(struct lapic *l, uint32_t icr, uint32_t dest);

/* lapic_timer.c */
uint32_t apic_timer_current(const struct lapic *l, uint64_t tsc);
uint64_t apic_timer_settle(struct lapic *l);             /* fire what is due; before a register it depends on changes */
void apic_timer_arm(struct lapic *l, uint64_t tsc);      /* after: set timer_next_tsc anew */
void apic_set_timer_init(struct lapic *l, uint32_t v);
void apic_set_timer_divide(struct lapic *l, uint32_t v);
void apic_set_lvt_timer(struct lapic *l, uint32_t v);
void apic_set_deadline(struct lapic *l, uint64_t v);

/* lapic_state.c */
void apic_clear(struct lapic *l, bool bsp);              /* registers as after reset, but base and ID */
bool apic_base_valid(uint64_t v);                        /* is this a value IA32_APIC_BASE can hold */

#endif
