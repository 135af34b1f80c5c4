/* The call-outs of every integer instruction, joined from the tables of the files that hold them. */
#include "hv/engine/soft/intops.h"

#include <pthread.h>

#include "hv/engine/soft/cpuid.h"
#include "hv/engine/soft/op.h"

static const struct int_ops *const parts[] = {
    &int_ops_alu, &int_ops_move, &int_ops_shift, &int_ops_muldiv, &int_ops_bits,
    &int_ops_bmi, &int_ops_bcd, &int_ops_stack, &int_ops_flow, &int_ops_string,
};
static const struct op_desc *index_of[X86_OP_COUNT];

static void make_index(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        for (unsigned k = 0; k < parts[i]->count; k++)
            index_of[parts[i]->row[k].op] = &parts[i]->row[k].d;
    }
}

const struct op_desc *int_op_find(unsigned op)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_index);
    return index_of[op];
}

/* What an instruction needs the guest's CPUID to show; `other`: what its encoding is else. */
static const struct { uint16_t op, other; uint16_t feature; bool vex; } needs[] = {
    { X86_OP_CMOVCC, 0, CPUF_CMOV, false },        { X86_OP_CMPXCHG8B, 0, CPUF_CX8, false },
    { X86_OP_CMPXCHG16B, 0, CPUF_CX16, false },    { X86_OP_MOVNTI, 0, CPUF_SSE2, false },
    { X86_OP_POPCNT, 0, CPUF_POPCNT, false },      { X86_OP_CRC32, 0, CPUF_SSE42, false },
    { X86_OP_MOVBE, 0, CPUF_MOVBE, false },        { X86_OP_ADCX, 0, CPUF_ADX, false },
    { X86_OP_ADOX, 0, CPUF_ADX, false },           { X86_OP_TZCNT, X86_OP_BSF, CPUF_BMI1, false },
    { X86_OP_LZCNT, X86_OP_BSR, CPUF_LZCNT, false },
    { X86_OP_ANDN, 0, CPUF_BMI1, true },           { X86_OP_BEXTR, 0, CPUF_BMI1, true },
    { X86_OP_BLSI, 0, CPUF_BMI1, true },           { X86_OP_BLSMSK, 0, CPUF_BMI1, true },
    { X86_OP_BLSR, 0, CPUF_BMI1, true },           { X86_OP_BZHI, 0, CPUF_BMI2, true },
    { X86_OP_MULX, 0, CPUF_BMI2, true },           { X86_OP_PDEP, 0, CPUF_BMI2, true },
    { X86_OP_PEXT, 0, CPUF_BMI2, true },           { X86_OP_RORX, 0, CPUF_BMI2, true },
    { X86_OP_SARX, 0, CPUF_BMI2, true },           { X86_OP_SHLX, 0, CPUF_BMI2, true },
    { X86_OP_SHRX, 0, CPUF_BMI2, true },
};

unsigned int_op_shown(const struct cpu *c, unsigned op)
{
    for (size_t i = 0; i < ARRAY_SIZE(needs); i++) {
        if (needs[i].op != op)
            continue;
        /* VEX is #UD in real and virtual-8086 mode. */
        if (!cpu_has(c, needs[i].feature) || (needs[i].vex && (c->mode & (MODE_PE | MODE_VM)) != MODE_PE))
            return needs[i].other ? needs[i].other : X86_OP_INVALID;
    }
    if ((op == X86_OP_LAHF || op == X86_OP_SAHF) && (c->mode & MODE_CODE64) && !cpu_has(c, CPUF_LAHF))
        return X86_OP_INVALID;
    return op;
}
