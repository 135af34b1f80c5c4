/* The call-outs of every integer instruction, joined from the tables of the files that hold them. */
#include "hv/engine/soft/intops.h"

#include <pthread.h>

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
