/*
 * Port I/O: permission, the calls to the machine, IN and OUT. SDM volume 1, chapter 19.
 * `out 0xEA, al` is the hypercall (DESIGN 4).
 */
#include <errno.h>

#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

#define HYPERCALL_PORT 0xea

int cpu_io_check(struct cpu *c, uint16_t port, unsigned size)
{
    if (!(c->cr0 & CR0_PE) || (!(c->mode & MODE_VM) && c->cpl <= (c->rflags >> 12 & 3)))
        return X_OK;
    const unsigned type = c->tr.attr & 15;
    uint64_t base, bits;
    if (c->tr.attr & SEG_ATTR_UNUSABLE || (type != DT_TSS && type != DT_TSS_BUSY) || c->tr.limit < 103)
        return cpu_raise_err(c, VEC_GP, 0);
    const bool lm = cpu_long(c);
    int r = cpu_sys_ld(c, lm ? c->tr.base + 102 : (uint32_t)(c->tr.base + 102), 2, &base);
    if (r)
        return r;
    /* Two bytes are read, whatever the port: the map ends with a byte of ones. */
    const uint32_t at = (uint32_t)base + port / 8u;
    if (at + 1 > c->tr.limit)
        return cpu_raise_err(c, VEC_GP, 0);
    r = cpu_sys_ld(c, lm ? c->tr.base + at : (uint32_t)(c->tr.base + at), 2, &bits);
    if (r)
        return r;
    return bits >> (port & 7) & ((1u << size) - 1) ? cpu_raise_err(c, VEC_GP, 0) : X_OK;
}

void cpu_pio_in(struct cpu *c, uint16_t port, unsigned size, void *data, uint32_t count)
{
    struct soft *s = c->soft;
    c->exits_pio++;
    soft_leave_guest(vcpu_of(c));
    s->cb.pio_in(s->arg, c->vp, port, size, data, count);
    soft_enter_guest(vcpu_of(c));
}

void cpu_pio_out(struct cpu *c, uint16_t port, unsigned size, const void *data, uint32_t count)
{
    struct soft *s = c->soft;
    c->exits_pio++;
    soft_leave_guest(vcpu_of(c));
    s->cb.pio_out(s->arg, c->vp, port, size, data, count);
    soft_enter_guest(vcpu_of(c));
}

/* E4..E7 have the port as immediate, EC..EF in DX; odd opcodes are 16 or 32 bits wide. */
static uint16_t port_of(const struct cpu *c, const struct x86_insn *in)
{
    return in->opcode & 8 ? (uint16_t)c->gpr[R_RDX] : (uint16_t)(in->imm & 0xff);
}

static unsigned size_of(const struct x86_insn *in)
{
    return !(in->opcode & 1) ? 1 : in->opsize == 2 ? 2 : 4;
}

int op_in(struct cpu *c, const struct x86_insn *in)
{
    const uint16_t port = port_of(c, in);
    const unsigned size = size_of(in);
    uint32_t v = 0;
    int r = cpu_io_check(c, port, size);
    if (r)
        return r;
    cpu_pio_in(c, port, size, &v, 1);
    cpu_reg_set(c, R_RAX, size, v);
    return X_OK;
}

static int hypercall(struct cpu *c)
{
    struct soft *s = c->soft;
    if (c->cpl || !s->cb.hypercall)
        return cpu_raise(c, VEC_UD);
    soft_leave_guest(vcpu_of(c));
    int r = s->cb.hypercall(s->arg, c->vp);
    soft_enter_guest(vcpu_of(c));
    return r == -ENOSYS ? cpu_raise(c, VEC_UD) : X_OK;
}

int op_out(struct cpu *c, const struct x86_insn *in)
{
    const uint16_t port = port_of(c, in);
    const unsigned size = size_of(in);
    if (in->opcode == 0xe6 && port == HYPERCALL_PORT)
        return hypercall(c);
    int r = cpu_io_check(c, port, size);
    if (r)
        return r;
    uint32_t v = (uint32_t)cpu_reg_get(c, R_RAX, size);
    cpu_pio_out(c, port, size, &v, 1);
    return X_OK;
}
