/* The MC146818 real-time clock of a PC and its 128 bytes of CMOS memory. */
#ifndef HV_PLATFORM_RTC_H
#define HV_PLATFORM_RTC_H

#include "hv/machine/machine.h"

struct rtc;

/*
 * Claim 0x70/0x71 and drive ISA line 8. The clock shows the host's time of day plus
 * offset_sec (0: UTC, as Linux wants it) until the guest sets it; from then on it keeps
 * the distance the guest chose, also over save and load. 0 or a negative errno. Loop
 * thread, as rtc_free.
 */
int rtc_new(struct machine *m, int64_t offset_sec, struct rtc **ret);
void rtc_free(struct rtc *t);

/*
 * The CMOS bytes from which firmware learns memory and processors (SeaBIOS): bytes of RAM
 * below 4 GiB including the first MiB, bytes above 4 GiB, number of CPUs. Before the
 * vCPUs run, or while they are parked.
 */
void rtc_set_memory(struct rtc *t, uint64_t low_bytes, uint64_t high_bytes);
void rtc_set_cpus(struct rtc *t, unsigned cpus);
/* Any other byte (boot order at 0x38 and 0x3D, equipment at 0x14); index 0x0E..0x7F but 0x32. */
void rtc_set_cmos(struct rtc *t, unsigned index, uint8_t val);

#endif
