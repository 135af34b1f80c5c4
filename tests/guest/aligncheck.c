/*
 * Alignment checks of user code: instructions with an operand at every offset from 0 to 8,
 * under EFLAGS.AC, and what became of each: done, SIGBUS (#AC) or SIGSEGV (#GP). Runs on the
 * host and in a guest; Linux sets CR0.AM. x87, SSE and the odd ones, which the differential
 * test of the integer instructions does not reach.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>

#define AC_SET   "pushfq; orl $0x40000, (%%rsp); popfq; "
#define AC_CLEAR "pushfq; andl $~0x40000, (%%rsp); popfq; "

static sigjmp_buf back;
static volatile int caught, off;
static unsigned char area[1024] __attribute__((aligned(64)));

static void on_signal(int sig)
{
    __asm__ volatile(AC_CLEAR :: "r"(0) : "memory", "cc");     /* handlers begin with the code's flags */
    caught = sig;
    siglongjmp(back, 1);
}

#define TRY(insn)                                                                                 \
    do {                                                                                          \
        printf("%-14s", #insn);                                                                   \
        for (off = 0; off <= 8; off++) {                                                      \
            caught = 0;                                                                           \
            if (!sigsetjmp(back, 1))                                                              \
                __asm__ volatile("lea -128(%%rsp), %%rsp; " AC_SET CODE_##insn "; " AC_CLEAR      \
                                 "lea 128(%%rsp), %%rsp" :: "D"(area + 64 + off), "S"(area + 640) \
                                 : "rax", "rcx", "rdx", "xmm0", "xmm1", "memory", "cc");          \
            else                                                                                  \
                __asm__ volatile("lea -128(%%rsp), %%rsp; " AC_CLEAR "lea 128(%%rsp), %%rsp"      \
                                 :: "r"(0) : "memory", "cc");                                     \
            putchar(caught == SIGBUS ? 'A' : caught ? 'G' : '.');                                 \
        }                                                                                         \
        putchar('\n');                                                                            \
    } while (0)

#define CODE_mov16     "mov (%%rdi), %%ax"
#define CODE_mov32     "mov (%%rdi), %%eax"
#define CODE_mov64     "mov (%%rdi), %%rax"
#define CODE_push      "push (%%rdi); pop %%rax"
#define CODE_movs32    "push %%rsi; push %%rdi; mov $2, %%ecx; rep movsl; pop %%rdi; pop %%rsi"
#define CODE_cmps16    "push %%rsi; push %%rdi; mov $2, %%ecx; repe cmpsw; pop %%rdi; pop %%rsi"
#define CODE_cmpxchg8b "cmpxchg8b (%%rdi)"
#define CODE_movdqu    "movdqu (%%rdi), %%xmm0"
#define CODE_movups    "movups %%xmm0, (%%rdi)"
#define CODE_movaps    "movaps (%%rdi), %%xmm0"
#define CODE_paddb     "paddb (%%rdi), %%xmm0"
#define CODE_movq      "movq (%%rdi), %%xmm0"
#define CODE_movsd     "movsd %%xmm0, (%%rdi)"
#define CODE_movss     "movss (%%rdi), %%xmm0"
#define CODE_pmovzxbw  "pmovzxbw (%%rdi), %%xmm0"
#define CODE_pextrd    "pextrd $1, %%xmm0, (%%rdi)"
#define CODE_movmmx    "movq (%%rdi), %%mm0; emms"
#define CODE_maskmov   "pcmpeqd %%xmm1, %%xmm1; maskmovdqu %%xmm1, %%xmm0"
#define CODE_stmxcsr   "stmxcsr (%%rdi)"
#define CODE_fxsave    "fxsave (%%rdi)"
#define CODE_fldt      "fldt (%%rdi); fstp %%st(0)"
#define CODE_fldl      "fldl (%%rdi); fstp %%st(0)"
#define CODE_flds      "flds (%%rdi); fstp %%st(0)"
#define CODE_filds     "filds (%%rdi); fstp %%st(0)"
#define CODE_fbstp     "fldz; fbstp (%%rdi)"
#define CODE_fnstcw    "fnstcw (%%rdi)"
#define CODE_fnstenv   "fnstenv (%%rdi)"
#define CODE_fnsave    "fnsave (%%rdi)"

int main(void)
{
    struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_NODEFER };
    sigaction(SIGBUS, &sa, NULL);
    sigaction(SIGSEGV, &sa, NULL);
    TRY(mov16); TRY(mov32); TRY(mov64); TRY(push); TRY(movs32); TRY(cmps16); TRY(cmpxchg8b);
    TRY(movdqu); TRY(movups); TRY(movaps); TRY(paddb); TRY(movq); TRY(movsd); TRY(movss); TRY(pmovzxbw); TRY(pextrd);
    TRY(movmmx); TRY(maskmov); TRY(stmxcsr); TRY(fxsave);
    TRY(fldt); TRY(fldl); TRY(flds); TRY(filds); TRY(fbstp); TRY(fnstcw); TRY(fnstenv); TRY(fnsave);
    return 0;
}
