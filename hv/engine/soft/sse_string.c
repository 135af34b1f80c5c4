/*
 * SSE4.2 string comparisons. SDM volume 2, 4.1 "Imm8 control byte operation".
 *
 * They take lengths in EAX and EDX, answer in ECX or XMM0 and set all six flags: too much
 * for the stubs of vec.h, so one routine loads and stores these around a stub.
 */
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"

struct str_state {
    __m128i xmm0, xmm1;
    uint32_t eax, edx, ecx;
    uint32_t pad;
    uint64_t flags;
};
_Static_assert(offsetof(struct str_state, eax) == 32 && offsetof(struct str_state, flags) == 48, "as below");

void vec_str_run(struct str_state *st, const void *stub) __attribute__((visibility("hidden")));
__asm__(".text\n"
        ".balign 16\n"
        ".globl vec_str_run\n"
        ".hidden vec_str_run\n"
        ".type vec_str_run, @function\n"
        "vec_str_run:\n"
        "    movq %rsi, %r8\n"
        "    movdqa (%rdi), %xmm0\n"
        "    movdqa 16(%rdi), %xmm1\n"
        "    movl 32(%rdi), %eax\n"
        "    movl 36(%rdi), %edx\n"
        "    call *%r8\n"
        "    pushfq\n"
        "    popq 48(%rdi)\n"
        "    movl %ecx, 40(%rdi)\n"
        "    movdqa %xmm0, (%rdi)\n"
        "    ret\n"
        ".size vec_str_run, . - vec_str_run\n");

/* A length counts up to the number of elements, either sign; with REX.W it is 64 bits. */
static uint32_t length(uint64_t v, bool wide)
{
    int64_t n = wide ? (int64_t)v : (int32_t)v;
    return (uint32_t)(n > 16 ? 16 : n < -16 ? -16 : n);
}

static int compare(struct cpu *c, const struct x86_insn *in, bool lengths, bool index, const void *stub)
{
    struct str_state st = { .flags = 0 };
    VEC_NEED(c, NEED_SSE42);
    int r = vec_ready(c);
    if (r) {
        return r;
    }
    st.xmm0 = xmm_get(c, in->opnd[0].reg);
    if (in->opnd[1].kind == X86_OPND_XMM) {
        st.xmm1 = xmm_get(c, in->opnd[1].reg);
    } else if ((r = vec_load_mem(c, in, 16, false, &st.xmm1))) {    /* need not be aligned */
        return r;
    }
    if (lengths) {
        st.eax = length(c->gpr[R_RAX], in->rex & 8);
        st.edx = length(c->gpr[R_RDX], in->rex & 8);
    }
    vec_str_run(&st, stub);
    if (index) {
        c->gpr[R_RCX] = st.ecx;
    } else {
        xmm_set(c, 0, st.xmm0);
    }
    cpu_set_rflags(c, st.flags & FL_ARITH, FL_ARITH);
    return X_OK;
}

#define STRING(name, lengths, index)                                        \
    VEC_IMM_STUBS(name, #name " $vec_imm_i, %xmm1, %xmm0");                 \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        return compare(c, in, lengths, index, vec_imm_##name[in->imm & 0xff]); \
    }
STR_OPS(STRING)
