/*
 * Hardware task switches (32-bit and 16-bit TSS). SDM volume 3, chapter 7.
 */
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

int task_switch(struct cpu *c, uint16_t sel, enum task_why why, uint32_t ext, bool has_error, uint32_t error)
{
    /* TODO(task switches) */
    return cpu_raise_err(c, VEC_TS, SEL_ERR(sel) | ext);
}
