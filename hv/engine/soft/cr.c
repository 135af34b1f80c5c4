/*
 * Control and debug registers. SDM volume 3, 2.5 and 4.1 (what may be combined), 17.2.
 */
#include "hv/engine/soft/cpuid.h"
#include "hv/engine/soft/paging.h"
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

/* ---- what is valid, by what CPUID shows ---- */

uint64_t cpu_cr4_valid(const struct cpu *c)
{
    static const struct { uint64_t bit; uint16_t feature; } gated[] = {
        { CR4_VME | CR4_PVI, CPUF_VME }, { CR4_DE, CPUF_DE }, { CR4_PSE, CPUF_PSE }, { CR4_PAE, CPUF_PAE },
        { CR4_MCE, CPUF_MCE }, { CR4_PGE, CPUF_PGE }, { CR4_OSFXSR, CPUF_FXSR }, { CR4_OSXMMEXCPT, CPUF_SSE },
        { CR4_UMIP, CPUF_UMIP }, { CR4_FSGSBASE, CPUF_FSGSBASE }, { CR4_SMEP, CPUF_SMEP }, { CR4_SMAP, CPUF_SMAP },
    };
    uint64_t v = CR4_TSD | CR4_PCE;
    for (unsigned i = 0; i < ARRAY_SIZE(gated); i++)
        if (cpu_has(c, gated[i].feature))
            v |= gated[i].bit;
    return v;
}

uint64_t cpu_efer_valid(const struct cpu *c)
{
    uint64_t v = 0;
    if (cpu_has(c, CPUF_SYSCALL))
        v |= EFER_SCE;
    if (cpu_has(c, CPUF_LM))
        v |= EFER_LME | EFER_LMA;
    if (cpu_has(c, CPUF_NX))
        v |= EFER_NXE;
    return v;
}

static int gp0(struct cpu *c)
{
    return cpu_raise_err(c, VEC_GP, 0);
}

int cpu_pdptes(struct cpu *c, uint64_t cr3, uint64_t ret[4])
{
    return paging_load_pdptes(c, cr3, ret);
}

/* ---- control registers ---- */

int cpu_set_cr0(struct cpu *c, uint64_t v)
{
    const uint64_t known = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD |
                           CR0_PG;
    if (v >> 32)
        return gp0(c);
    v = (v & known) | CR0_ET;
    if ((v & CR0_PG && !(v & CR0_PE)) || (v & CR0_NW && !(v & CR0_CD)))
        return gp0(c);
    const uint64_t changed = v ^ c->cr0;
    uint64_t efer = c->efer, pdpte[4];
    bool new_pdptes = false;
    if (changed & CR0_PG) {
        if (v & CR0_PG && efer & EFER_LME) {
            if (!(c->cr4 & CR4_PAE) || c->seg[X86_SEG_CS].attr & SEG_ATTR_L)
                return gp0(c);
            efer |= EFER_LMA;
        } else if (!(v & CR0_PG) && efer & EFER_LMA) {
            if (cpu_code64(c))
                return gp0(c);
            efer &= ~EFER_LMA;
        }
    }
    /* SDM 4.4.1: also when CD or NW changes. */
    if (v & CR0_PG && c->cr4 & CR4_PAE && !(efer & EFER_LMA) && changed & (CR0_PG | CR0_CD | CR0_NW)) {
        int r = paging_load_pdptes(c, c->cr3, pdpte);
        if (r)
            return r;
        new_pdptes = true;
    }
    if (new_pdptes)
        memcpy(c->pdpte, pdpte, sizeof(pdpte));
    c->cr0 = v;
    c->efer = efer;
    if (changed & (CR0_PG | CR0_WP))
        tlb_flush(c, false);
    cpu_update_mode(c);
    return X_OK;
}

int cpu_set_cr3(struct cpu *c, uint64_t v)
{
    if (cpu_long(c)) {
        if (v & ~(c->phys_mask | 0xfff))
            return gp0(c);
    } else if (c->cr0 & CR0_PG && c->cr4 & CR4_PAE) {
        int r = paging_load_pdptes(c, v, c->pdpte);
        if (r)
            return r;
    }
    c->cr3 = v;
    tlb_flush(c, true);
    return X_OK;
}

int cpu_set_cr4(struct cpu *c, uint64_t v)
{
    if (v & ~cpu_cr4_valid(c))
        return gp0(c);
    if (cpu_long(c) && !(v & CR4_PAE))
        return gp0(c);
    const uint64_t changed = v ^ c->cr4;
    const uint64_t translation = CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP | CR4_SMAP;
    if (c->cr0 & CR0_PG && v & CR4_PAE && !cpu_long(c) && changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP)) {
        int r = paging_load_pdptes(c, c->cr3, c->pdpte);
        if (r)
            return r;
    }
    c->cr4 = v;
    if (changed & translation)
        tlb_flush(c, false);
    cpu_update_mode(c);
    return X_OK;
}

int op_mov_cr(struct cpu *c, const struct x86_insn *in)
{
    const unsigned size = cpu_code64(c) ? 8 : 4;
    if (in->opnd[0].kind != X86_OPND_CR) {
        uint64_t v;
        switch (in->opnd[1].reg) {
        case 0: v = c->cr0; break;
        case 2: v = c->cr2; break;
        case 3: v = c->cr3; break;
        case 4: v = c->cr4; break;
        case 8: v = lapic_get_cr8(&c->lapic); break;
        default: return cpu_raise(c, VEC_UD);
        }
        cpu_reg_set(c, in->opnd[0].reg, size, v);
        return X_OK;
    }
    const uint64_t v = cpu_reg_get(c, in->opnd[1].reg, size);
    switch (in->opnd[0].reg) {
    case 0: return cpu_set_cr0(c, v);
    case 2: c->cr2 = v; return X_OK;
    case 3: return cpu_set_cr3(c, v);
    case 4: return cpu_set_cr4(c, v);
    case 8:
        if (v > 15)
            return gp0(c);
        lapic_set_cr8(&c->lapic, v);
        return X_OK;
    default: return cpu_raise(c, VEC_UD);
    }
}

int op_lmsw(struct cpu *c, const struct x86_insn *in)
{
    uint64_t v;
    int r = cpu_opnd_get(c, in, 0, &v);
    if (r)
        return r;
    /* PE may be set and not cleared. */
    const uint64_t low = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    return cpu_set_cr0(c, (c->cr0 & ~(low & ~CR0_PE)) | (v & low));
}

int op_smsw(struct cpu *c, const struct x86_insn *in)
{
    if (c->cr4 & CR4_UMIP && c->cpl > 0)
        return gp0(c);
    return cpu_opnd_set(c, in, 0, c->cr0);
}

int op_clts(struct cpu *c, const struct x86_insn *in)
{
    c->cr0 &= ~CR0_TS;
    cpu_update_mode(c);
    return X_OK;
}

/* ---- debug registers: the loop matches instruction breakpoints, tlb.c data breakpoints. TODO(I/O breakpoints) ---- */

int op_mov_dr(struct cpu *c, const struct x86_insn *in)
{
    const unsigned size = cpu_code64(c) ? 8 : 4;
    const bool write = in->opnd[0].kind == X86_OPND_DR;
    unsigned dr = in->opnd[write ? 0 : 1].reg;
    if (dr > 7 || ((dr == 4 || dr == 5) && c->cr4 & CR4_DE))
        return cpu_raise(c, VEC_UD);
    if (dr == 4 || dr == 5)
        dr += 2;
    if (c->dr[7] & DR7_GD) {
        c->dr[6] |= DR6_BD;
        return cpu_raise(c, VEC_DB);
    }
    if (!write) {
        cpu_reg_set(c, in->opnd[0].reg, size, c->dr[dr]);
        return X_OK;
    }
    uint64_t v = cpu_reg_get(c, in->opnd[1].reg, size);
    if (dr >= 6 && v >> 32)
        return gp0(c);
    if (dr == 6)
        v = (v & 0xe00f) | DR6_INIT;
    else if (dr == 7)
        v = (v & 0xffff2bffu) | DR7_INIT;
    c->dr[dr] = v;
    if (dr != 6)
        tlb_flush(c, false);       /* pages with data breakpoints go the slow way */
    return X_OK;
}
