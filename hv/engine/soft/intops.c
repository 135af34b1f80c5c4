/* The call-outs of every integer instruction, joined from the tables of the files that hold them. */
#include "hv/engine/soft/intops.h"

#include <pthread.h>
#include <stdatomic.h>

#include "hv/engine/soft/cpuid.h"
#include "hv/engine/soft/op.h"

static const struct int_ops *const parts[] = {
    &int_ops_alu, &int_ops_move, &int_ops_shift, &int_ops_muldiv, &int_ops_bits,
    &int_ops_bmi, &int_ops_bcd, &int_ops_stack, &int_ops_flow, &int_ops_string,
};
static const struct op_desc *index_of[X86_OP_COUNT];
static atomic_bool indexed;

static void make_index(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        for (unsigned k = 0; k < parts[i]->count; k++)
            index_of[parts[i]->row[k].op] = &parts[i]->row[k].d;
    }
    atomic_store_explicit(&indexed, true, memory_order_release);
}

const struct op_desc *int_op_find(unsigned op)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (HV_UNLIKELY(!atomic_load_explicit(&indexed, memory_order_acquire)))
        pthread_once(&once, make_index);
    return index_of[op];
}

/* What an instruction needs the guest's CPUID to show; `other`: what its encoding is else. VEX: not in real and virtual-8086 mode. */
#define NEEDS(feature_, ...) { .feature = (feature_), .given = true, __VA_ARGS__ }
static const struct need { uint16_t feature, other; bool given, vex; } needs[X86_OP_COUNT] = {
    [X86_OP_CMOVCC] = NEEDS(CPUF_CMOV),
    [X86_OP_CMPXCHG8B] = NEEDS(CPUF_CX8),
    [X86_OP_CMPXCHG16B] = NEEDS(CPUF_CX16),
    [X86_OP_MOVNTI] = NEEDS(CPUF_SSE2),
    [X86_OP_POPCNT] = NEEDS(CPUF_POPCNT),
    [X86_OP_CRC32] = NEEDS(CPUF_SSE42),
    [X86_OP_MOVBE] = NEEDS(CPUF_MOVBE),
    [X86_OP_ADCX] = NEEDS(CPUF_ADX),
    [X86_OP_ADOX] = NEEDS(CPUF_ADX),
    [X86_OP_TZCNT] = NEEDS(CPUF_BMI1, .other = X86_OP_BSF),
    [X86_OP_LZCNT] = NEEDS(CPUF_LZCNT, .other = X86_OP_BSR),
    [X86_OP_ANDN] = NEEDS(CPUF_BMI1, .vex = true),
    [X86_OP_BEXTR] = NEEDS(CPUF_BMI1, .vex = true),
    [X86_OP_BLSI] = NEEDS(CPUF_BMI1, .vex = true),
    [X86_OP_BLSMSK] = NEEDS(CPUF_BMI1, .vex = true),
    [X86_OP_BLSR] = NEEDS(CPUF_BMI1, .vex = true),
    [X86_OP_BZHI] = NEEDS(CPUF_BMI2, .vex = true),
    [X86_OP_MULX] = NEEDS(CPUF_BMI2, .vex = true),
    [X86_OP_PDEP] = NEEDS(CPUF_BMI2, .vex = true),
    [X86_OP_PEXT] = NEEDS(CPUF_BMI2, .vex = true),
    [X86_OP_RORX] = NEEDS(CPUF_BMI2, .vex = true),
    [X86_OP_SARX] = NEEDS(CPUF_BMI2, .vex = true),
    [X86_OP_SHLX] = NEEDS(CPUF_BMI2, .vex = true),
    [X86_OP_SHRX] = NEEDS(CPUF_BMI2, .vex = true),
};

unsigned int_op_shown(const struct cpu *c, unsigned op)
{
    const struct need *n = &needs[op];
    if (HV_UNLIKELY(n->given) && (!cpu_has(c, n->feature) || (n->vex && (c->mode & (MODE_PE | MODE_VM)) != MODE_PE)))
        return n->other ? n->other : X86_OP_INVALID;
    if ((op == X86_OP_LAHF || op == X86_OP_SAHF) && (c->mode & MODE_CODE64) && !cpu_has(c, CPUF_LAHF))
        return X86_OP_INVALID;
    return op;
}
