/*
 * The table of system call-outs, and the small ones themselves. SDM volume 2.
 */
#include <sys/random.h>

#include "hv/engine/soft/cpuid.h"
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

static int gp0(struct cpu *c)
{
    return cpu_raise_err(c, VEC_GP, 0);
}

static int op_ud(struct cpu *c, const struct x86_insn *in)
{
    return cpu_raise(c, VEC_UD);
}

static int op_nop(struct cpu *c, const struct x86_insn *in)
{
    return X_OK;
}

/* ---- time and identity ---- */

static int op_cpuid(struct cpu *c, const struct x86_insn *in)
{
    uint32_t v[4];
    cpuid_read(c, (uint32_t)c->gpr[R_RAX], (uint32_t)c->gpr[R_RCX], v);
    c->gpr[R_RAX] = v[0];
    c->gpr[R_RBX] = v[1];
    c->gpr[R_RCX] = v[2];
    c->gpr[R_RDX] = v[3];
    return X_OK;
}

static int op_rdtsc(struct cpu *c, const struct x86_insn *in)
{
    if (c->cr4 & CR4_TSD && c->cpl)
        return gp0(c);
    uint64_t t = cpu_tsc(c);
    c->gpr[R_RAX] = (uint32_t)t;
    c->gpr[R_RDX] = t >> 32;
    return X_OK;
}

static int op_rdtscp(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_has(c, CPUF_RDTSCP))
        return cpu_raise(c, VEC_UD);
    int r = op_rdtsc(c, in);
    if (!r)
        c->gpr[R_RCX] = (uint32_t)c->tsc_aux;
    return r;
}

static int op_rdpid(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_has(c, CPUF_RDPID))
        return cpu_raise(c, VEC_UD);
    cpu_reg_set(c, in->opnd[0].reg, cpu_code64(c) ? 8 : 4, c->tsc_aux);
    return X_OK;
}

static int op_rdpmc(struct cpu *c, const struct x86_insn *in)
{
    return gp0(c);                 /* no counters */
}

static int op_rdmsr(struct cpu *c, const struct x86_insn *in)
{
    uint64_t v;
    int r = msr_read(c, (uint32_t)c->gpr[R_RCX], &v);
    if (r)
        return r;
    c->gpr[R_RAX] = (uint32_t)v;
    c->gpr[R_RDX] = v >> 32;
    return X_OK;
}

static int op_wrmsr(struct cpu *c, const struct x86_insn *in)
{
    int r = msr_write(c, (uint32_t)c->gpr[R_RCX], c->gpr[R_RDX] << 32 | (uint32_t)c->gpr[R_RAX]);
    if (!r)
        cpu_update_mode(c);
    return r;
}

/* ---- random numbers ---- */

bool soft_random(struct vcpu *v, void *buf, unsigned len)
{
    if (v->random_left < len) {
        if (getrandom(v->random, sizeof(v->random), GRND_NONBLOCK) != (ssize_t)sizeof(v->random))
            return false;
        v->random_left = sizeof(v->random);
    }
    v->random_left -= len;
    memcpy(buf, v->random + v->random_left, len);
    memset(v->random + v->random_left, 0, len);
    return true;
}

/* RDRAND and RDSEED: CF says whether there was a number. */
static int op_rdrand(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_has(c, in->op == X86_OP_RDRAND ? CPUF_RDRAND : CPUF_RDSEED))
        return cpu_raise(c, VEC_UD);
    uint64_t v = 0;
    bool ok = soft_random(vcpu_of(c), &v, in->opsize);
    cpu_reg_set(c, in->opnd[0].reg, in->opsize, ok ? v : 0);
    cpu_set_rflags(c, ok ? FL_CF : 0, FL_ARITH);
    return X_OK;
}

/* ---- memory management and waiting ---- */

static int op_invlpg(struct cpu *c, const struct x86_insn *in)
{
    /* No segment checks, and a non-canonical address does nothing. */
    uint64_t va = cpu_ea(c, in);
    if (!cpu_code64(c))
        va = (uint32_t)(va + c->seg[in->seg].base);
    else if (in->seg == X86_SEG_FS || in->seg == X86_SEG_GS)
        va += c->seg[in->seg].base;
    if (cpu_canonical(va))
        tlb_flush_page(c, va);
    return X_OK;
}

static int op_hlt(struct cpu *c, const struct x86_insn *in)
{
    c->halted = true;
    c->exits_hlt++;
    c->rip = c->next_rip;
    c->leave = LEAVE_HALT;
    return X_LEAVE;
}

static int op_clac_stac(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_has(c, CPUF_SMAP) || c->cpl)
        return cpu_raise(c, VEC_UD);
    cpu_set_rflags(c, in->op == X86_OP_STAC ? FL_AC : 0, FL_AC);
    return X_OK;
}

/* Cache line operations touch nothing but check their address like a one-byte load. */
static int op_clflush(struct cpu *c, const struct x86_insn *in)
{
    const unsigned feature = in->op == X86_OP_CLFLUSH ? CPUF_CLFSH : in->op == X86_OP_CLWB ? CPUF_CLWB
                                                                                             : CPUF_CLFLUSHOPT;
    if (!cpu_has(c, feature))
        return cpu_raise(c, VEC_UD);
    uint64_t lin, v;
    int r = cpu_mem_lin(c, in, 1, ACC_READ, &lin);
    return r ? r : cpu_ld8(c, in->seg, lin, &v);
}

static int op_fence(struct cpu *c, const struct x86_insn *in)
{
    atomic_thread_fence(memory_order_seq_cst);
    return X_OK;
}

/* ---- software interrupts ---- */

static int op_int(struct cpu *c, const struct x86_insn *in)
{
    return cpu_soft_int(c, in->imm & 0xff, false);
}

static int op_int3(struct cpu *c, const struct x86_insn *in)
{
    return cpu_soft_int(c, VEC_BP, true);
}

static int op_int1(struct cpu *c, const struct x86_insn *in)
{
    return cpu_soft_int(c, VEC_DB, true);
}

static int op_into(struct cpu *c, const struct x86_insn *in)
{
    return cpu_rflags(c) & FL_OF ? cpu_soft_int(c, VEC_OF, true) : X_OK;
}

const struct op_desc cpu_sys_ops[X86_OP_COUNT] = {
    [X86_OP_MOV_SEG] = { op_mov_seg, OPF_END },
    [X86_OP_PUSH] = { op_push_seg, 0 },            /* segment operands only; the loop has the others */
    [X86_OP_POP] = { op_pop_seg, OPF_END },
    [X86_OP_LDS] = { op_lfp, OPF_END }, [X86_OP_LES] = { op_lfp, OPF_END }, [X86_OP_LFS] = { op_lfp, OPF_END },
    [X86_OP_LGS] = { op_lfp, OPF_END }, [X86_OP_LSS] = { op_lfp, OPF_END },
    [X86_OP_ARPL] = { op_arpl, 0 }, [X86_OP_LAR] = { op_lar, 0 }, [X86_OP_LSL] = { op_lsl, 0 },
    [X86_OP_VERR] = { op_verr, 0 }, [X86_OP_VERW] = { op_verw, 0 },
    [X86_OP_LGDT] = { op_lgdt, OPF_CPL0 }, [X86_OP_LIDT] = { op_lidt, OPF_CPL0 },
    [X86_OP_SGDT] = { op_sgdt, 0 }, [X86_OP_SIDT] = { op_sidt, 0 },
    [X86_OP_LLDT] = { op_lldt, 0 }, [X86_OP_LTR] = { op_ltr, 0 },      /* #UD before #GP: they check CPL themselves */
    [X86_OP_SLDT] = { op_sldt, 0 }, [X86_OP_STR] = { op_str, 0 },

    [X86_OP_JMP_FAR] = { op_jmp_far, OPF_END }, [X86_OP_CALL_FAR] = { op_call_far, OPF_END },
    [X86_OP_RET_FAR] = { op_ret_far, OPF_END }, [X86_OP_IRET] = { op_iret, OPF_END },
    [X86_OP_INT] = { op_int, OPF_END }, [X86_OP_INT3] = { op_int3, OPF_END }, [X86_OP_INT1] = { op_int1, OPF_END },
    [X86_OP_INTO] = { op_into, OPF_END },
    [X86_OP_SYSCALL] = { op_syscall, OPF_END }, [X86_OP_SYSRET] = { op_sysret, OPF_END },
    [X86_OP_SYSENTER] = { op_sysenter, OPF_END }, [X86_OP_SYSEXIT] = { op_sysexit, OPF_END },
    [X86_OP_SWAPGS] = { op_swapgs, 0 },
    [X86_OP_RDFSBASE] = { op_fsgsbase, 0 }, [X86_OP_RDGSBASE] = { op_fsgsbase, 0 },
    [X86_OP_WRFSBASE] = { op_fsgsbase, 0 }, [X86_OP_WRGSBASE] = { op_fsgsbase, 0 },

    [X86_OP_MOV_CR] = { op_mov_cr, OPF_END | OPF_CPL0 }, [X86_OP_MOV_DR] = { op_mov_dr, OPF_END | OPF_CPL0 },
    [X86_OP_LMSW] = { op_lmsw, OPF_END | OPF_CPL0 }, [X86_OP_SMSW] = { op_smsw, 0 },
    [X86_OP_CLTS] = { op_clts, OPF_END | OPF_CPL0 },

    [X86_OP_IN] = { op_in, OPF_END }, [X86_OP_OUT] = { op_out, OPF_END },
    [X86_OP_HLT] = { op_hlt, OPF_END | OPF_CPL0 },

    [X86_OP_CPUID] = { op_cpuid, OPF_END }, [X86_OP_RDTSC] = { op_rdtsc, 0 }, [X86_OP_RDTSCP] = { op_rdtscp, 0 },
    [X86_OP_RDPID] = { op_rdpid, 0 }, [X86_OP_RDPMC] = { op_rdpmc, 0 },
    [X86_OP_RDMSR] = { op_rdmsr, OPF_CPL0 }, [X86_OP_WRMSR] = { op_wrmsr, OPF_END | OPF_CPL0 },
    [X86_OP_RDRAND] = { op_rdrand, 0 }, [X86_OP_RDSEED] = { op_rdrand, 0 },

    [X86_OP_INVLPG] = { op_invlpg, OPF_END | OPF_CPL0 },
    [X86_OP_INVD] = { op_nop, OPF_CPL0 }, [X86_OP_WBINVD] = { op_nop, OPF_CPL0 },
    [X86_OP_WBNOINVD] = { op_nop, OPF_CPL0 },
    [X86_OP_CLFLUSH] = { op_clflush, 0 }, [X86_OP_CLFLUSHOPT] = { op_clflush, 0 }, [X86_OP_CLWB] = { op_clflush, 0 },
    [X86_OP_LFENCE] = { op_fence, 0 }, [X86_OP_MFENCE] = { op_fence, 0 }, [X86_OP_SFENCE] = { op_fence, 0 },
    [X86_OP_CLAC] = { op_clac_stac, OPF_END }, [X86_OP_STAC] = { op_clac_stac, OPF_END },

    /* Not shown in CPUID. */
    [X86_OP_MONITOR] = { op_ud, OPF_END }, [X86_OP_MWAIT] = { op_ud, OPF_END }, [X86_OP_RSM] = { op_ud, OPF_END },
    [X86_OP_XGETBV] = { op_ud, OPF_END }, [X86_OP_XSETBV] = { op_ud, OPF_END },
    [X86_OP_INVPCID] = { op_ud, OPF_END }, [X86_OP_RDPKRU] = { op_ud, OPF_END }, [X86_OP_WRPKRU] = { op_ud, OPF_END },
    [X86_OP_SERIALIZE] = { op_ud, OPF_END }, [X86_OP_VMCALL] = { op_ud, OPF_END }, [X86_OP_VMMCALL] = { op_ud, OPF_END },
};
