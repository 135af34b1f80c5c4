/*
 * x87 arithmetic, all of it: the host executes the very instruction on the guest's registers.
 * SDM volume 1, chapter 8.
 *
 * The guest's x87 state becomes an FXSAVE image, FXRSTOR loads it, a stub holds the one
 * instruction (the same opcode and ModRM byte, memory operands at [RSI]), FXSAVE takes the
 * state back and FNINIT leaves the host's x87 as C expects it. So rounding, precision
 * control, stack faults, C0-C3, tags and unmasked exceptions are the hardware's own. An unmasked
 * exception only becomes pending: nothing here executes a waiting instruction after it,
 * so the host takes no SIGFPE; the guest gets #MF at its next waiting instruction.
 */
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"
#include "hv/engine/soft/x87.h"

struct fx_image {
    uint16_t cw, sw;
    uint8_t tag, reserved;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[16][16];           /* loaded and stored, never looked at */
    uint8_t rest[96];
} __attribute__((aligned(16)));
_Static_assert(sizeof(struct fx_image) == 512 && offsetof(struct fx_image, st) == 32, "SDM 1, table 10-2");

/* Run a stub on the image; arithmetic flags in and out: AL bit 0 is OF, AH the others as SAHF takes them. */
uint32_t x87_run(struct fx_image *img, void *mem, const void *stub, uint32_t flags)
    __attribute__((visibility("hidden")));
__asm__(".text\n"
        ".balign 16\n"
        ".globl x87_run\n"
        ".hidden x87_run\n"
        ".type x87_run, @function\n"
        "x87_run:\n"
        "    movl %ecx, %eax\n"
        "    fxrstor64 (%rdi)\n"
        "    addb $0x7f, %al\n"
        "    sahf\n"
        "    call *%rdx\n"
        "    lahf\n"
        "    seto %al\n"
        "    fxsave64 (%rdi)\n"
        "    fninit\n"
        "    ret\n"
        ".size x87_run, . - x87_run\n");

/* Four bytes a stub: D8..DF by 8 ModRM.reg for memory operands, by 64 ModRM bytes from C0 for registers. */
__asm__(".text\n"
        ".balign 16\n"
        "x87_mem_stubs:\n"
        ".set x87_i, 0\n"
        ".rept 64\n"
        "    .byte 0xd8 + (x87_i >> 3), (x87_i & 7) << 3 | 6, 0xc3, 0xcc\n"
        "    .set x87_i, x87_i + 1\n"
        ".endr\n"
        "x87_reg_stubs:\n"
        ".set x87_i, 0\n"
        ".rept 512\n"
        "    .byte 0xd8 + (x87_i >> 6), 0xc0 + (x87_i & 63), 0xc3, 0xcc\n"
        "    .set x87_i, x87_i + 1\n"
        ".endr\n");
extern const uint8_t x87_mem_stubs[64][4] __attribute__((visibility("hidden")));
extern const uint8_t x87_reg_stubs[512][4] __attribute__((visibility("hidden")));

const void *x87_stub(unsigned opcode, unsigned modrm)
{
    opcode &= 7;
    return modrm < 0xc0 ? x87_mem_stubs[opcode << 3 | (modrm >> 3 & 7)] : x87_reg_stubs[opcode << 6 | (modrm & 63)];
}

void x87_slots_out(const struct x87 *f, uint8_t *slots)
{
    unsigned top = X87_TOP(f->sw);
    for (unsigned i = 0; i < 8; i++) {
        __m128i v = _mm_load_si128((const __m128i *)(const void *)&f->st[(top + i) & 7]);
        _mm_storeu_si128((__m128i *)(void *)(slots + 16 * i), v);
    }
}

/* Only ten bytes of a slot are the register. */
void x87_slots_in(struct x87 *f, const uint8_t *slots)
{
    const __m128i ten = _mm_set_epi32(0, 0xffff, -1, -1);
    unsigned top = X87_TOP(f->sw);
    for (unsigned i = 0; i < 8; i++) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(slots + 16 * i));
        _mm_store_si128((__m128i *)(void *)&f->st[(top + i) & 7], _mm_and_si128(v, ten));
    }
}

static bool is_store(uint16_t op)
{
    switch (op) {
    case X86_OP_FST:
    case X86_OP_FSTP:
    case X86_OP_FIST:
    case X86_OP_FISTP:
    case X86_OP_FISTTP:
    case X86_OP_FBSTP: return true;
    default: return false;
    }
}

static bool sets_flags(uint16_t op)
{
    return op == X86_OP_FCOMI || op == X86_OP_FCOMIP || op == X86_OP_FUCOMI || op == X86_OP_FUCOMIP;
}

static unsigned mem_size(const struct x86_insn *in)
{
    for (unsigned i = 0; i < in->nopnd; i++) {
        if (in->opnd[i].kind == X86_OPND_MEM) {
            return in->opnd[i].size;
        }
    }
    return 0;
}

static int exec_slow(struct cpu *c, const struct x86_insn *in, unsigned size)
{
    struct x87 *f = &c->x87;
    struct fx_image img;
    __m128i mem = _mm_setzero_si128();
    bool store = size && is_store(in->op);
    int r;

    if (size && !store) {
        r = size == 8 ? vec_load_mem(c, in, 8, false, &mem)
          : size == 4 ? vec_load_mem(c, in, 4, false, &mem)
                      : vec_load_slow(c, in, size, false, &mem);
        if (HV_UNLIKELY(r)) {
            return r;
        }
    }

    /* An exception that was ignored (CR0.NE clear) must not reach the host: run with all masked. */
    bool ignored = f->sw & X87_ES;
    img.cw = ignored ? f->cw | X87_FLAGS : f->cw;
    img.sw = f->sw & (uint16_t)~(X87_ES | X87_BUSY);
    img.tag = f->tag;
    img.reserved = 0;
    img.fop = 0;
    img.fip = img.fdp = 0;
    img.mxcsr = MXCSR_DEFAULT;
    img.mxcsr_mask = 0;
    x87_slots_out(f, img.st[0]);

    uint32_t flags = 0;
    if (in->op == X86_OP_FCMOVCC || sets_flags(in->op)) {
        uint64_t v = cpu_rflags(c);
        flags = (uint32_t)((v & 0xd5) << 8 | (v >> 11 & 1));
    }
    flags = x87_run(&img, &mem, x87_stub(in->opcode, in->modrm), flags);

    uint32_t unmasked = img.sw & ~img.cw & X87_FLAGS;
    if (store && !(unmasked & ~X87_PE)) {
        r = vec_store_mem(c, in, size, false, mem);
        if (HV_UNLIKELY(r)) {
            return r;
        }
    }
    if (sets_flags(in->op)) {
        cpu_set_rflags(c, (flags >> 8 & 0xd5) | (flags & 1 ? FL_OF : 0), FL_ARITH);
    }
    f->sw = img.sw;
    f->tag = img.tag;
    x87_slots_in(f, img.st[0]);
    if (ignored) {
        x87_update_es(f);
    }
    return X_OK;
}

/* Any x87 instruction but those of x87_env.c. */
int x87_exec(struct cpu *c, const struct x86_insn *in)
{
    struct x87 *f = &c->x87;
    unsigned opcode = in->opcode & 7, size = in->modrm < 0xc0 ? mem_size(in) : 0;
    int r = fpu_check_x87(c);
    if (HV_UNLIKELY(!r && in->op == X86_OP_FNOP && opcode == 3)) {
        return X_OK;                        /* FNENI, FNDISI, FNSETPM: nothing, without waiting */
    }
    if (HV_UNLIKELY(r || (r = x87_check_pending(c)))) {
        return r;
    }

    r = (f->cw & X87_FLAGS) == X87_FLAGS ? x87_try_fast(c, in, size) : X87_SLOW;
    if (r == X87_SLOW) {
        r = exec_slow(c, in, size);
    }
    if (HV_UNLIKELY(r)) {
        return r;
    }
    f->fip = c->rip;
    f->fcs = c->seg[X86_SEG_CS].sel;
    if (HV_LIKELY(!(f->sw & X87_ES))) {
        return X_OK;                        /* SDM 1, 8.1.8 and 8.1.9.1: the others are for unmasked exceptions only */
    }
    f->fop = (uint16_t)(opcode << 8 | in->modrm);
    if (size) {
        f->fdp = cpu_ea(c, in);
        f->fds = c->seg[in->seg].sel;
    }
    return X_OK;
}
