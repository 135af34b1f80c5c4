/*
 * Which flags of a block nobody can see: those written again before anything reads them or
 * leaves. Leaving is meant strictly: whatever touches memory may fault, and the handler
 * finds RFLAGS in its frame; so does a call-out.
 */
#include "hv/engine/soft/flags.h"
#include "hv/engine/soft/op.h"

/* A shift by an immediate that is not 0 when masked. */
static bool count_is_known(const struct x86_insn *in)
{
    return in->opnd[1].kind == X86_OPND_IMM && (in->imm & (in->opnd[0].size == 8 ? 63 : 31));
}

struct flag_use lower_flag_use(const struct x86_insn *in)
{
    const struct flag_use barrier = { CC_ALL, 0, true }, none = { 0, 0, false };
    for (unsigned i = 0; i < in->nopnd; i++) {
        if (in->opnd[i].kind == X86_OPND_MEM && in->op != X86_OP_LEA)
            return barrier;
    }
    switch (in->op) {
    case X86_OP_ADD: case X86_OP_OR: case X86_OP_AND: case X86_OP_SUB: case X86_OP_XOR: case X86_OP_CMP:
    case X86_OP_TEST: case X86_OP_NEG:
        return (struct flag_use){ 0, CC_ALL, false };
    case X86_OP_ADC: case X86_OP_SBB:
        return (struct flag_use){ CC_CF, CC_ALL, false };
    case X86_OP_INC: case X86_OP_DEC:
        return (struct flag_use){ 0, CC_ALL & ~CC_CF, false };
    case X86_OP_SHL: case X86_OP_SHR: case X86_OP_SAR:
        if (count_is_known(in))
            return (struct flag_use){ 0, CC_ALL, false };
        return (struct flag_use){ CC_ALL, CC_ALL, false };
    case X86_OP_ROL: case X86_OP_ROR:
        if (count_is_known(in))
            return (struct flag_use){ CC_OF, CC_CF | CC_OF, false };
        return (struct flag_use){ CC_ALL, CC_ALL, false };
    case X86_OP_MUL: case X86_OP_IMUL:
        return (struct flag_use){ 0, CC_ALL, false };
    case X86_OP_BT:
        return (struct flag_use){ 0, CC_CF, false };
    case X86_OP_MOV: case X86_OP_MOVZX: case X86_OP_MOVSX: case X86_OP_MOVSXD: case X86_OP_LEA: case X86_OP_XCHG:
    case X86_OP_BSWAP: case X86_OP_CBW: case X86_OP_CWD: case X86_OP_NOT: case X86_OP_NOP: case X86_OP_ENDBR64:
    case X86_OP_ENDBR32:
        return none;
    case X86_OP_CMOVCC: case X86_OP_SETCC:
        return (struct flag_use){ CC_ALL, 0, false };
    default:
        return barrier;
    }
}

void lower_dead_flags(const struct x86_insn *in, unsigned n, bool *dead)
{
    uint32_t live = CC_ALL;
    for (unsigned i = n; i-- > 0;) {
        struct flag_use u = lower_flag_use(&in[i]);
        dead[i] = u.write && !(live & u.write);
        live = u.barrier ? CC_ALL : (live & ~u.write) | u.read;
    }
}
