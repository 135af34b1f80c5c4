/*
 * The decoder, case by case: prefixes, modes, sizes, encodings and what is undefined. The
 * bulk of the instruction set is compared with Zydis by tests/decode-corpus.sh; here stand
 * the rules, each with the text of the decoded instruction as the expectation.
 */
#include "hv/engine/soft/insn.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define M16 X86_MODE_16
#define M32 X86_MODE_32
#define M64 X86_MODE_64

struct decode_case {
    enum x86_mode mode;
    const char *hex;
    const char *text;     /* NULL: error r */
    int r;
};

static size_t parse_hex(const char *hex, uint8_t *out, size_t size)
{
    size_t n = 0;
    for (char *end; *hex && n < size; hex = end) {
        out[n++] = (uint8_t)strtoul(hex, &end, 16);
        while (*end == ' ') {
            end++;
        }
    }
    return n;
}

static void run_cases(const struct decode_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct decode_case *c = &cases[i];
        uint8_t buf[32];
        size_t len = parse_hex(c->hex, buf, sizeof(buf));
        struct x86_insn in;
        char text[160] = "";
        int r = x86_decode(buf, len, c->mode, &in);
        if (!r) {
            x86_format(&in, 0x1000, text, sizeof(text));
        }
        if (r != c->r || (c->text && strcmp(text, c->text) != 0)) {
            fail_msg("%d-bit %s: got %d \"%s\", want %d \"%s\"", 16 << (int)c->mode, c->hex, r, text, c->r, c->text ? c->text : "");
        }
        if (!r) {
            assert_int_equal(in.len, len);
        }
    }
}
#define RUN(cases) run_cases(cases, ARRAY_SIZE(cases))

static void operand_sizes(void **state)
{
    static const struct decode_case cases[] = {
        { M16, "89 d8", "mov ax, bx", 0 },
        { M16, "66 89 d8", "mov eax, ebx", 0 },
        { M32, "89 d8", "mov eax, ebx", 0 },
        { M32, "66 89 d8", "mov ax, bx", 0 },
        { M64, "89 d8", "mov eax, ebx", 0 },
        { M64, "66 89 d8", "mov ax, bx", 0 },
        { M64, "48 89 d8", "mov rax, rbx", 0 },
        { M64, "66 48 89 d8", "mov rax, rbx", 0 },
        /* Byte registers: AH..BH without REX, SPL..DIL with any. */
        { M64, "88 e0", "mov al, ah", 0 },
        { M64, "40 88 e0", "mov al, spl", 0 },
        { M64, "45 88 e0", "mov r8b, r12b", 0 },
        /* Immediates: 8 and 32 bits extend with sign, MOV r64 takes all eight bytes. */
        { M64, "48 83 c0 ff", "add rax, 0xffffffffffffffff", 0 },
        { M64, "48 81 c0 00 00 00 80", "add rax, 0xffffffff80000000", 0 },
        { M64, "48 b8 01 02 03 04 05 06 07 88", "mov rax, 0x8807060504030201", 0 },
        { M64, "66 81 c0 34 12", "add ax, 0x1234", 0 },
        { M64, "6a fe", "push 0xfffffffffffffffe", 0 },
        /* Defaults of 64 bits; near branches ignore 66 (Intel). */
        { M64, "50", "push rax", 0 },
        { M64, "66 50", "push ax", 0 },
        { M64, "41 54", "push r12", 0 },
        { M32, "66 50", "push ax", 0 },
        { M64, "ff d0", "call rax", 0 },
        { M64, "66 e8 00 00 00 00", "call 0x1006", 0 },
        { M32, "66 e8 fd ff", "call 0x1001", 0 },
        { M32, "66 e8 fc ef", "call 0x0", 0 },
        { M16, "e9 00 f0", "jmp 0x3", 0 },
        { M64, "c9", "leave", 0 },
        { M64, "9c", "pushfq", 0 },
        { M16, "9c", "pushf", 0 },
        { M16, "66 cf", "iretd", 0 },
        { M64, "48 cf", "iretq", 0 },
        { M64, "0f 20 c0", "mov rax, cr0", 0 },
        { M32, "0f 20 c0", "mov eax, cr0", 0 },
        { M64, "44 0f 20 c0", "mov rax, cr8", 0 },
        /* MOV CR ignores mod: what looks like [rax] is rax. */
        { M64, "0f 20 00", "mov rax, cr0", 0 }, { M64, "0f 20 85", "mov rbp, cr0", 0 },
        { M64, "48 ed", "in eax, dx", 0 },
        { M64, "63 c1", "movsxd eax, ecx", 0 },
        { M64, "48 63 c1", "movsxd rax, ecx", 0 },
        { M32, "63 c1", "arpl cx, ax", 0 },
        { M64, "66 63 01", "movsxd ax, word [rcx]", 0 },
        { M64, "98", "cwde", 0 }, { M64, "48 98", "cdqe", 0 }, { M16, "98", "cbw", 0 }, { M64, "48 99", "cqo", 0 },
        { M64, "48 0f c8", "bswap rax", 0 },
        { M64, "49 0f c8", "bswap r8", 0 },
    };
    (void)state;
    RUN(cases);
}

static void addressing(void **state)
{
    static const struct decode_case cases[] = {
        { M16, "8b 00", "mov ax, word [bx+si]", 0 },
        { M16, "8b 02", "mov ax, word [bp+si]", 0 },
        { M16, "8b 06 34 12", "mov ax, word [0x1234]", 0 },
        { M16, "8b 46 00", "mov ax, word [bp]", 0 },
        { M16, "8b 80 00 80", "mov ax, word [bx+si-0x8000]", 0 },
        { M16, "67 8b 04 24", "mov ax, word [esp]", 0 },
        { M32, "67 8b 47 10", "mov eax, dword [bx+0x10]", 0 },
        { M32, "8b 05 78 56 34 12", "mov eax, dword [0x12345678]", 0 },
        { M64, "8b 05 78 56 34 12", "mov eax, dword [rip+0x12345678] (0x1234667e)", 0 },
        { M64, "67 8b 05 ff ff ff ff", "mov eax, dword [rip-0x1] (0x1006)", 0 },
        { M64, "8b 04 25 78 56 34 12", "mov eax, dword [0x12345678]", 0 },
        { M64, "8b 04 25 00 00 00 80", "mov eax, dword [0xffffffff80000000]", 0 },
        { M64, "67 8b 04 25 00 00 00 80", "mov eax, dword [0x80000000]", 0 },
        /* SIB: index 4 is none but R12 is one; base 5 with mod 0 is none, R13 too. */
        { M64, "8b 04 64", "mov eax, dword [rsp]", 0 },
        { M64, "42 8b 04 64", "mov eax, dword [rsp+r12*2]", 0 },
        { M64, "41 8b 04 05 01 00 00 00", "mov eax, dword [rax*1+0x1]", 0 },
        { M64, "41 8b 44 05 00", "mov eax, dword [r13+rax*1]", 0 },
        { M64, "41 8b 45 00", "mov eax, dword [r13]", 0 },
        { M64, "41 8b 04 24", "mov eax, dword [r12]", 0 },
        { M64, "8d 44 c8 f8", "lea eax, qword [rax+rcx*8-0x8]", 0 },
        { M64, "a1 01 02 03 04 05 06 07 88", "mov eax, dword [0x8807060504030201]", 0 },
        { M64, "67 a1 01 02 03 84", "mov eax, dword [0x84030201]", 0 },
        { M16, "a0 34 82", "mov al, byte [0x8234]", 0 },
        { M64, "d7", "xlat byte [rbx]", 0 },
        { M32, "67 d7", "xlat byte [bx]", 0 },
    };
    (void)state;
    RUN(cases);
}

static void decode_ok(const char *hex, enum x86_mode mode, struct x86_insn *in)
{
    uint8_t buf[32];
    size_t len = parse_hex(hex, buf, sizeof(buf));
    int r = x86_decode(buf, len, mode, in);
    if (r) {
        fail_msg("%s: %d", hex, r);
    }
}

static void segments(void **state)
{
    static const struct { enum x86_mode mode; const char *hex; uint8_t seg; } cases[] = {
        { M32, "8b 00", X86_SEG_DS }, { M32, "8b 45 00", X86_SEG_SS }, { M32, "8b 04 24", X86_SEG_SS },
        { M32, "8b 44 05 00", X86_SEG_SS },            /* base EBP */
        { M32, "8b 04 6d 00 00 00 00", X86_SEG_DS },   /* EBP as index only */
        { M32, "2e 8b 00", X86_SEG_CS }, { M32, "26 8b 45 00", X86_SEG_ES }, { M32, "64 36 8b 00", X86_SEG_SS },
        { M16, "8b 02", X86_SEG_SS }, { M16, "8b 46 00", X86_SEG_SS }, { M16, "8b 06 00 00", X86_SEG_DS },
        /* 64-bit mode: ES, CS, SS, DS overrides are nothing, not even the end of an earlier FS. */
        { M64, "2e 8b 00", X86_SEG_DS }, { M64, "3e 8b 45 00", X86_SEG_SS }, { M64, "64 8b 00", X86_SEG_FS },
        { M64, "64 2e 8b 00", X86_SEG_FS }, { M64, "2e 65 8b 00", X86_SEG_GS }, { M64, "64 65 8b 00", X86_SEG_GS },
        { M64, "41 8b 45 00", X86_SEG_DS }, { M64, "41 8b 04 24", X86_SEG_DS },   /* R13, R12 are not RBP, RSP */
        { M64, "8b 05 00 00 00 00", X86_SEG_DS },
        { M32, "a5", X86_SEG_DS }, { M32, "64 a5", X86_SEG_FS }, { M32, "64 ab", X86_SEG_ES }, { M32, "26 ad", X86_SEG_ES },
        { M32, "64 a1 00 00 00 00", X86_SEG_FS }, { M64, "65 d7", X86_SEG_GS },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct x86_insn in;
        decode_ok(cases[i].hex, cases[i].mode, &in);
        if (in.seg != cases[i].seg) {
            fail_msg("%s: segment %u, want %u", cases[i].hex, in.seg, cases[i].seg);
        }
    }
}

static void strings_and_repeat(void **state)
{
    static const struct decode_case cases[] = {
        { M64, "f3 a4", "rep movsb byte es:[rdi], byte [rsi]", 0 },
        { M64, "f3 48 ab", "rep stosq qword es:[rdi]", 0 },
        { M32, "67 66 a7", "cmpsw word [si], word es:[di]", 0 },
        { M64, "f2 ae", "repne scasb byte es:[rdi]", 0 },
        { M64, "48 6d", "insd dword es:[rdi], dx", 0 },
        { M64, "64 6e", "outsb dx, byte fs:[rsi]", 0 },
        { M64, "f2 f3 a4", "rep movsb byte es:[rdi], byte [rsi]", 0 },     /* the last one counts */
        { M64, "f3 f2 a6", "repne cmpsb byte [rsi], byte es:[rdi]", 0 },
        { M64, "f3 90", "pause", 0 },
        { M64, "90", "nop", 0 },
        { M64, "41 90", "xchg r8d, eax", 0 },
        { M64, "48 90", "nop", 0 },
    };
    struct x86_insn in;
    (void)state;
    RUN(cases);
    decode_ok("64 a5", M64, &in);
    assert_int_equal(in.nopnd, 2);
    assert_int_equal(in.base, 6);
    assert_int_equal(in.seg, X86_SEG_FS);
    decode_ok("a6", M64, &in);
    assert_int_equal(in.base, 6);
    assert_int_equal(in.opsize, 1);
    decode_ok("af", M64, &in);
    assert_int_equal(in.base, 7);
    assert_int_equal(in.seg, X86_SEG_ES);
}

static void rex_rules(void **state)
{
    static const struct decode_case cases[] = {
        /* REX counts only right before the opcode. */
        { M64, "48 66 89 d8", "mov ax, bx", 0 },
        { M64, "48 41 89 d8", "mov r8d, ebx", 0 },
        { M64, "4d 89 c1", "mov r9, r8", 0 },
        { M32, "48", "dec eax", 0 },
        { M64, "f3 48 0f b8 c1", "popcnt rax, rcx", 0 },
        { M64, "48 f3 0f b8 c1", "popcnt eax, ecx", 0 },
        { M64, "66 f3 0f b8 c1", "popcnt ax, cx", 0 },
        { M64, "f3 0f bc c1", "tzcnt eax, ecx", 0 },
        { M64, "f2 0f bc c1", "bsf eax, ecx", 0 },
        { M64, "66 f2 0f 38 f1 c1", "crc32 eax, cx", 0 },
        { M64, "f2 48 0f 38 f0 c1", "crc32 rax, cl", 0 },
        { M64, "66 0f 38 f6 c1", "adcx eax, ecx", 0 },
        { M64, "66 f3 0f 10 c1", "movss xmm0, xmm1", 0 },       /* F3 wins over 66 */
        { M64, "66 48 0f 6e c0", "movq xmm0, rax", 0 },
        { M64, "66 0f 6e c0", "movd xmm0, eax", 0 },
        { M64, "0f 6e c0", "movd mm0, eax", 0 },
    };
    (void)state;
    RUN(cases);
}

static void lock_prefix(void **state)
{
    static const struct decode_case cases[] = {
        { M64, "f0 01 00", "lock add dword [rax], eax", 0 },
        { M64, "f0 0f b1 0a", "lock cmpxchg dword [rdx], ecx", 0 },
        { M64, "f0 48 0f c7 08", "lock cmpxchg16b xmmword [rax]", 0 },
        { M64, "f0 0f c7 08", "lock cmpxchg8b qword [rax]", 0 },
        { M64, "f0 87 00", "lock xchg dword [rax], eax", 0 },
        { M64, "f0 0f ba 28 03", "lock bts dword [rax], 0x3", 0 },
        { M64, "f0 f6 18", "lock neg byte [rax]", 0 },
        { M64, "f0 01 c0", NULL, -EILSEQ },          /* register destination */
        { M64, "f0 03 00", NULL, -EILSEQ },          /* memory is the source */
        { M64, "f0 38 00", NULL, -EILSEQ },          /* CMP */
        { M64, "f0 89 00", NULL, -EILSEQ },          /* MOV */
        { M64, "f0 0f ba 20 03", NULL, -EILSEQ },    /* BT */
        { M64, "f0 90", NULL, -EILSEQ },
        { M64, "f0 ff 30", NULL, -EILSEQ },          /* PUSH */
        { M64, "f0 c5 f8 77", NULL, -EILSEQ },
    };
    (void)state;
    RUN(cases);
}

static void undefined(void **state)
{
    static const struct decode_case cases[] = {
        { M64, "06", NULL, -EILSEQ }, { M64, "27", NULL, -EILSEQ }, { M64, "60", NULL, -EILSEQ }, { M64, "9a", NULL, -EILSEQ },
        { M64, "ea", NULL, -EILSEQ }, { M64, "ce", NULL, -EILSEQ }, { M64, "d4 0a", NULL, -EILSEQ }, { M64, "82 c0 01", NULL, -EILSEQ },
        { M64, "d6", NULL, -EILSEQ }, { M32, "d6", "salc", 0 },
        { M64, "0f 04", NULL, -EILSEQ }, { M64, "0f 0f c0 b4", NULL, -EILSEQ }, { M64, "0f ff c0", "ud0 eax, eax", 0 },
        { M64, "0f b9 c0", "ud1 eax, eax", 0 }, { M64, "0f 0b", "ud2", 0 },
        { M64, "8e c8", NULL, -EILSEQ },             /* MOV CS */
        { M64, "8e f0", NULL, -EILSEQ }, { M64, "8c f0", NULL, -EILSEQ }, { M64, "8e d8", "mov ds, ax", 0 },
        { M64, "8d c0", NULL, -EILSEQ },             /* LEA of a register */
        { M32, "c4 c0", NULL, -EAGAIN },             /* mod 3: VEX, so it goes on */
        { M32, "c5 00", "lds eax, fword [eax]", 0 }, { M32, "62 00", "bound eax, qword [eax]", 0 },
        { M64, "62 00 00 00 00 00", NULL, -EILSEQ },
        { M64, "fe d0", NULL, -EILSEQ }, { M64, "ff f8", NULL, -EILSEQ }, { M64, "ff d8", NULL, -EILSEQ }, { M64, "8f c8", NULL, -EILSEQ },
        { M64, "0f 20 c8", NULL, -EILSEQ },          /* CR1 */
        { M64, "44 0f 20 c8", NULL, -EILSEQ }, { M64, "0f 20 e8", NULL, -EILSEQ }, { M64, "44 0f 21 c0", NULL, -EILSEQ },
        { M64, "0f c7 c8", NULL, -EILSEQ },          /* CMPXCHG8B of a register */
        { M64, "f2 0f 6f c0", NULL, -EILSEQ }, { M64, "0f 38 2a 00", NULL, -EILSEQ },
        { M64, "d9 d1", NULL, -EILSEQ }, { M64, "d9 d0", "fnop", 0 }, { M64, "db e1", "fnop", 0 }, { M64, "dd c9", "fxch st(1)", 0 },
    };
    (void)state;
    RUN(cases);
}

static void far_pointers(void **state)
{
    static const struct decode_case cases[] = {
        { M16, "ea 5b e0 00 f0", "jmp far 0xe05b, 0xf000", 0 },
        { M16, "66 9a 78 56 34 12 08 00", "call far 0x12345678, 0x8", 0 },
        { M64, "48 ff 28", "jmp far tbyte [rax]", 0 },
        { M64, "ff 18", "call far fword [rax]", 0 },
        { M64, "0f b2 00", "lss eax, fword [rax]", 0 },
        { M64, "48 cb", "retf", 0 },
        { M64, "ca 08 00", "retf 0x8", 0 },
        { M64, "0f 01 10", "lgdt tbyte [rax]", 0 },
        { M32, "0f 01 10", "lgdt fword [eax]", 0 },
        { M64, "c8 20 00 1f", "enter 0x20, 0x1f", 0 },
    };
    (void)state;
    RUN(cases);
}

static void vex(void **state)
{
    static const struct decode_case cases[] = {
        { M64, "c5 f8 77", "vzeroupper", 0 },
        { M64, "c5 fc 77", "vzeroall", 0 },
        { M64, "c5 f4 58 c2", "vaddps ymm0, ymm1, ymm2", 0 },
        { M64, "c4 41 34 58 c2", "vaddps ymm8, ymm9, ymm10", 0 },
        { M64, "c5 f2 58 00", "vaddss xmm0, xmm1, dword [rax]", 0 },
        { M64, "c5 f6 58 00", "vaddss xmm0, xmm1, dword [rax]", 0 },   /* L is ignored */
        { M64, "c4 e2 71 90 04 90", "vpgatherdd xmm0, dword [rax+v2*4], xmm1", 0 },
        { M64, "c4 e2 71 90 04 88", NULL, -EILSEQ },                   /* index is the mask */
        { M64, "c4 e2 71 90 00", NULL, -EILSEQ },                      /* no SIB */
        { M64, "c4 e2 78 f2 c1", "andn eax, eax, ecx", 0 },
        { M64, "c4 e2 f8 f2 c1", "andn rax, rax, rcx", 0 },
        { M32, "c4 e2 f8 f2 c1", "andn eax, eax, ecx", 0 },            /* W means nothing here */
        { M64, "c4 e2 7c f2 c1", NULL, -EILSEQ },                      /* L must be 0 */
        { M64, "c5 e8 10 c1", NULL, -EILSEQ },                         /* vvvv not used, not 1111b */
        { M32, "c4 e1 39 6f 00", NULL, -EILSEQ },                      /* bit 3 of it too */
        { M32, "c4 e1 39 fe c0", "vpaddd xmm0, xmm0, xmm0", 0 },       /* ignored where used */
        { M64, "66 c5 f8 77", NULL, -EILSEQ }, { M64, "f3 c5 f8 77", NULL, -EILSEQ }, { M64, "40 c5 f8 77", NULL, -EILSEQ },
        { M64, "64 c5 f8 77", "vzeroupper", 0 },
        { M64, "c4 e0 78 77", NULL, -EILSEQ }, { M64, "c4 e4 78 77", NULL, -EILSEQ },
        { M64, "c4 e3 71 4a c2 30", "vblendvps xmm0, xmm1, xmm2, xmm3", 0 },
        { M32, "c4 e3 71 4a c2 b0", "vblendvps xmm0, xmm1, xmm2, xmm3", 0 },
        { M64, "c4 e1 f9 6e c0", "vmovq xmm0, rax", 0 },
        { M32, "c4 e1 f9 6e c0", "vmovd xmm0, eax", 0 },
        { M64, "c5 f8 92 c8", "kmovw k1, eax", 0 },
        { M64, "c4 e1 fb 92 c8", "kmovq k1, rax", 0 },
        { M64, "c5 f8 ae 10", "vldmxcsr dword [rax]", 0 },
    };
    (void)state;
    RUN(cases);
}

static void evex(void **state)
{
    static const struct decode_case cases[] = {
        { M64, "62 f1 74 48 58 c2", "vaddps zmm0, zmm1, zmm2", 0 },
        { M64, "62 a1 74 40 58 c2", "vaddps zmm16, zmm17, zmm18", 0 },
        { M64, "62 f1 74 4b 58 c2", "vaddps zmm0 {k3}, zmm1, zmm2", 0 },
        { M64, "62 f1 74 cb 58 c2", "vaddps zmm0 {k3}{z}, zmm1, zmm2", 0 },
        { M64, "62 f1 74 78 58 c2", "vaddps zmm0, zmm1, zmm2 {rz-sae}", 0 },
        { M64, "62 f1 74 18 58 c2", "vaddps zmm0, zmm1, zmm2 {rn-sae}", 0 },
        { M64, "62 f1 74 68 58 c2", NULL, -EILSEQ },                   /* L'L = 3 without rounding */
        /* disp8 is scaled by what is accessed: vector, half, element, broadcast element. */
        { M64, "62 f1 74 48 58 40 01", "vaddps zmm0, zmm1, zmmword [rax+0x40]", 0 },
        { M64, "62 f1 74 28 58 40 ff", "vaddps ymm0, ymm1, ymmword [rax-0x20]", 0 },
        { M64, "62 f1 74 58 58 40 01", "vaddps zmm0, zmm1, dword [rax+0x4] {1tox}", 0 },
        { M64, "62 f1 76 08 58 40 01", "vaddss xmm0, xmm1, dword [rax+0x4]", 0 },
        { M64, "62 f1 7c 48 5a 40 01", "vcvtps2pd zmm0, ymmword [rax+0x20]", 0 },
        { M64, "62 f2 7d 49 8a 40 01", "vcompressps zmmword [rax+0x4] {k1}, zmm0", 0 },
        { M64, "62 f1 74 48 58 80 01 00 00 00", "vaddps zmm0, zmm1, zmmword [rax+0x1]", 0 },
        { M64, "62 f1 74 88 58 c2", NULL, -EILSEQ },                   /* z with k0 */
        { M64, "62 f1 7c c9 11 00", NULL, -EILSEQ },                   /* z with a memory destination */
        { M64, "62 f1 7d 58 6f 00", NULL, -EILSEQ },                   /* b, and nothing to broadcast */
        { M64, "62 f1 74 5b 5f 00", "vmaxps zmm0 {k3}, zmm1, dword [rax] {1tox}", 0 },
        { M64, "62 f2 7d 48 90 04 88", NULL, -EILSEQ },                /* gather without a mask */
        { M64, "62 f2 7d 49 90 04 88", "vpgatherdd zmm0 {k1}, dword [rax+v1*4]", 0 },
        { M64, "62 f2 7d 41 90 04 88", "vpgatherdd zmm0 {k1}, dword [rax+v17*4]", 0 },
        { M64, "62 f2 7d 49 90 0c 88", NULL, -EILSEQ },                /* destination is the index */
        { M64, "62 f5 7c 48 58 c1", "vaddph zmm0, zmm0, zmm1", 0 },
        { M64, "62 f6 7d 48 98 c1", "vfmadd132ph zmm0, zmm0, zmm1", 0 },
        { M64, "62 f4 7c 48 58 c1", NULL, -EILSEQ },                   /* map 4 */
        { M64, "62 f1 70 48 58 c2", NULL, -EILSEQ },                   /* fixed bit */
        { M64, "62 e1 74 48 c2 c2 01", NULL, -EILSEQ },                /* k16 */
        { M32, "62 f1 74 48 58 c2", "vaddps zmm0, zmm1, zmm2", 0 },
        { M32, "62 f1 74 40 58 c2", NULL, -EILSEQ },                   /* V' outside 64-bit mode */
    };
    (void)state;
    RUN(cases);
}

static void hints(void **state)
{
    static const struct decode_case cases[] = {
        { M64, "0f 1f 44 00 00", "nop dword [rax+rax*1]", 0 },
        { M64, "66 2e 0f 1f 84 00 00 00 00 00", "nop word [rax+rax*1]", 0 },
        { M64, "f3 0f 1e fa", "endbr64", 0 }, { M64, "f3 0f 1e fb", "endbr32", 0 },
        { M64, "f3 48 0f 1e c8", "rdsspq rax", 0 },
        { M64, "0f 1e c8", "nop eax", 0 }, { M64, "0f 19 c0", "nop eax", 0 }, { M64, "0f 1a 00", "nop dword [rax]", 0 },
        { M64, "0f 18 08", "prefetcht0 byte [rax]", 0 }, { M64, "0f 18 c8", "nop eax", 0 }, { M64, "0f 0d 08", "prefetchw byte [rax]", 0 },
    };
    (void)state;
    RUN(cases);
}

static void x87_and_old_sse(void **state)
{
    static const struct decode_case cases[] = {
        { M64, "d8 c1", "fadd st(0), st(1)", 0 }, { M64, "dc c1", "fadd st(1), st(0)", 0 }, { M64, "d8 00", "fadd dword [rax]", 0 },
        { M64, "dc e1", "fsubr st(1), st(0)", 0 }, { M64, "de e9", "fsubp st(1), st(0)", 0 }, { M64, "db 28", "fld tbyte [rax]", 0 },
        { M64, "da c1", "fcmovb st(0), st(1)", 0 }, { M64, "db d9", "fcmovnu st(0), st(1)", 0 }, { M64, "df e0", "fnstsw ax", 0 },
        { M64, "9b", "fwait", 0 }, { M64, "0f ae e8", "lfence", 0 }, { M64, "0f ae f0", "mfence", 0 }, { M64, "48 0f ae 00", "fxsave [rax]", 0 },
        { M64, "66 0f 3a 14 c0 01", "pextrb eax, xmm0, 0x1", 0 }, { M64, "66 0f 3a 14 00 01", "pextrb byte [rax], xmm0, 0x1", 0 },
        { M64, "66 0f 38 10 c1", "pblendvb xmm0, xmm1, xmm0", 0 }, { M64, "f2 0f 78 c1 08 10", "insertq xmm0, xmm1, 0x8, 0x10", 0 },
        { M64, "66 0f 73 d8 03", "psrldq xmm0, 0x3", 0 }, { M64, "0f 73 d8 03", NULL, -EILSEQ },
    };
    struct x86_insn in;
    (void)state;
    RUN(cases);
    decode_ok("48 0f ae 00", M64, &in);
    assert_int_equal(in.opsize, 8);
    decode_ok("d0 e0", M64, &in);
    assert_int_equal(in.imm, 1);
    assert_true(in.opnd[1].implicit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operand_sizes), cmocka_unit_test(addressing), cmocka_unit_test(segments),
        cmocka_unit_test(strings_and_repeat), cmocka_unit_test(rex_rules), cmocka_unit_test(lock_prefix),
        cmocka_unit_test(undefined), cmocka_unit_test(far_pointers), cmocka_unit_test(vex), cmocka_unit_test(evex),
        cmocka_unit_test(hints), cmocka_unit_test(x87_and_old_sse),
    };
    return cmocka_run_group_tests_name("decoder", tests, NULL, NULL);
}
