/*
 * How fast the soft engine's loop runs plain 64-bit code: guest MIPS of a few kernels, and how
 * many times slower than the host they are. Never a test: nothing here passes or fails,
 * though results are compared with the host's.
 *
 *   interp_mips [KERNEL] [SECONDS]
 *
 * The kernels are functions of this program, compiled into a section of their own that is
 * copied into guest memory: they refer to nothing outside of it.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "hv/engine/soft/block.h"
#include "hv/engine/soft/soft.h"

#define GUEST __attribute__((section("guest_text"), noinline, used, optimize("no-tree-vectorize", "no-stack-protector", \
                             "no-tree-loop-distribute-patterns")))
#define RAM_SIZE (64 * MIB)
#define CODE_GPA 0x100000u
#define HLT_GPA  0x80000u
#define STACK_GPA 0x90000u
#define DATA_GPA 0x400000u
#define DATA_SIZE (8u << 20)
#define PML4_GPA 0x10000u

extern const uint8_t __start_guest_text[], __stop_guest_text[];

typedef uint64_t kernel_fn(uint8_t *data, uint64_t rounds);

GUEST static uint64_t k_sieve(uint8_t *data, uint64_t rounds)
{
    uint64_t count = 0;
    const uint32_t n = 1 << 20;
    while (rounds--) {
        for (uint32_t i = 0; i < n; i++)
            data[i] = 1;
        for (uint32_t i = 2; i < n; i++) {
            if (!data[i])
                continue;
            count++;
            for (uint32_t k = i + i; k < n; k += i)
                data[k] = 0;
        }
    }
    return count;
}

#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))
GUEST static uint64_t k_sha256(uint8_t *data, uint64_t rounds)
{
    uint32_t h[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, w[64];
    const uint32_t *k = (const uint32_t *)(void *)(data + 65536);
    while (rounds--) {
        for (unsigned b = 0; b < 1024; b++) {
            const uint32_t *m = (const uint32_t *)(void *)(data + b * 64);
            for (unsigned i = 0; i < 16; i++)
                w[i] = __builtin_bswap32(m[i]);
            for (unsigned i = 16; i < 64; i++) {
                uint32_t s0 = ROR(w[i - 15], 7) ^ ROR(w[i - 15], 18) ^ w[i - 15] >> 3;
                uint32_t s1 = ROR(w[i - 2], 17) ^ ROR(w[i - 2], 19) ^ w[i - 2] >> 10;
                w[i] = w[i - 16] + s0 + w[i - 7] + s1;
            }
            uint32_t a = h[0], bb = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], hh = h[7];
            for (unsigned i = 0; i < 64; i++) {
                uint32_t t1 = hh + (ROR(e, 6) ^ ROR(e, 11) ^ ROR(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i];
                uint32_t t2 = (ROR(a, 2) ^ ROR(a, 13) ^ ROR(a, 22)) + ((a & bb) ^ (a & c) ^ (bb & c));
                hh = g; g = f; f = e; e = d + t1; d = c; c = bb; bb = a; a = t1 + t2;
            }
            h[0] += a; h[1] += bb; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += hh;
        }
    }
    return (uint64_t)h[0] << 32 | h[7];
}

/* What RSA does in a kernel: multiply-accumulate a row of 64-bit limbs. */
GUEST static uint64_t k_bignum(uint8_t *data, uint64_t rounds)
{
    uint64_t *r = (uint64_t *)(void *)data, *a = (uint64_t *)(void *)(data + 4096), carry = 0;
    for (uint64_t k = 0; k < rounds * 64; k++) {
        carry = 0;
        for (unsigned i = 0; i < 64; i++) {
            unsigned __int128 t = (unsigned __int128)a[i] * (k | 1) + r[i] + carry;
            r[i] = (uint64_t)t;
            carry = (uint64_t)(t >> 64);
        }
    }
    return r[0] ^ carry;
}

/* Pointers, calls, unpredictable branches: a binary tree. */
struct node { uint64_t key, left, right; };
GUEST static uint64_t tree_depth(uint8_t *data, uint64_t at)
{
    const struct node *n = (const struct node *)(void *)data + at;
    uint64_t l = n->left ? tree_depth(data, n->left) : 0, r = n->right ? tree_depth(data, n->right) : 0;
    return 1 + (l > r ? l : r);
}
GUEST static uint64_t k_tree(uint8_t *data, uint64_t rounds)
{
    struct node *n = (struct node *)(void *)data;
    uint64_t x = 88172645463325252ull, sum = 0;
    while (rounds--) {
        uint64_t used = 1;
        n[0].key = 1ull << 63;
        n[0].left = n[0].right = 0;
        for (unsigned i = 0; i < 20000; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            uint64_t at = 0;
            for (;;) {
                uint64_t *next = x < n[at].key ? &n[at].left : &n[at].right;
                if (!*next) {
                    *next = used;
                    n[used].key = x;
                    n[used].left = n[used].right = 0;
                    used++;
                    break;
                }
                at = *next;
            }
        }
        sum += tree_depth(data, 0);
    }
    return sum;
}

/* Bytes: a string hash and a case conversion. */
GUEST static uint64_t k_bytes(uint8_t *data, uint64_t rounds)
{
    uint64_t h = 5381;
    while (rounds--) {
        for (unsigned i = 0; i < 65536; i++) {
            uint8_t ch = data[i];
            if (ch >= 'a' && ch <= 'z')
                ch = (uint8_t)(ch - 32);
            h = h * 33 + ch;
            data[i + 131072] = ch;
        }
    }
    return h;
}

static const struct { const char *name; kernel_fn *fn; } kernels[] = {
    { "sieve", k_sieve }, { "sha256", k_sha256 }, { "bignum", k_bignum }, { "tree", k_tree }, { "bytes", k_bytes },
};

static double seconds(void)
{
    return (double)hv_now_ns() / 1e9;
}

static void fill(uint8_t *data)
{
    uint64_t x = 1;
    for (size_t i = 0; i < DATA_SIZE; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        data[i] = (uint8_t)(x >> 56);
    }
}

static void nothing_out(void *arg, unsigned vp, uint16_t port, unsigned size, const void *data, uint32_t count) { }
static void nothing_in(void *arg, unsigned vp, uint16_t port, unsigned size, void *data, uint32_t count)
{
    memset(data, 0, size * count);
}

static uint64_t guest_call(struct cpu *c, struct vcpu *v, kernel_fn *fn, uint64_t rounds)
{
    struct vcpu_regs r;
    engine_soft.get_regs(v, &r);
    r.cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_ET | CR0_WP;
    r.cr3 = PML4_GPA;
    r.cr4 = CR4_PAE;
    r.efer = EFER_LME | EFER_LMA;
    for (unsigned i = 0; i < 6; i++)
        r.seg[i] = (struct vcpu_seg){ 0, UINT32_MAX, 0xc093, 0x18 };
    r.seg[X86_SEG_CS] = (struct vcpu_seg){ 0, UINT32_MAX, 0xa09b, 0x10 };
    r.rip = CODE_GPA + (uint64_t)((const uint8_t *)(uintptr_t)fn - __start_guest_text);
    r.rflags = 2;
    r.gpr[R_RSP] = STACK_GPA - 8;
    r.gpr[R_RDI] = DATA_GPA;
    r.gpr[R_RSI] = rounds;
    if (engine_soft.set_regs(v, &r)) {
        fprintf(stderr, "interp_mips: registers refused\n");
        exit(1);
    }
    engine_soft.set_mp(v, VCPU_MP_RUNNABLE);
    c->halted = false;
    soft_enter_guest(v);
    enum leave_reason why = cpu_loop(c);
    soft_leave_guest(v);
    if (why != LEAVE_HALT) {
        fprintf(stderr, "interp_mips: left the loop for reason %d at %#llx\n", why, (unsigned long long)c->rip);
        exit(1);
    }
    return c->gpr[R_RAX];
}

int main(int argc, char **argv)
{
    static const struct engine_callbacks cb = { .pio_in = nothing_in, .pio_out = nothing_out };
    struct hv_error e = { 0 };
    struct engine *g;
    const struct engine_config cfg = { .vcpus = 1, .phys_bits = 40 };
    double limit = argc > 2 ? strtod(argv[2], NULL) : 1.0;
    uint8_t *ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *host = malloc(DATA_SIZE);
    if (ram == MAP_FAILED || !host || engine_soft.create(&cfg, &cb, NULL, &g, &e) ||
        engine_soft.map(g, 0, RAM_SIZE, ram, false)) {
        fprintf(stderr, "interp_mips: %s\n", e.message);
        return 1;
    }
    struct vcpu *v = engine_soft.vcpu(g, 0);
    struct cpu *c = &v->cpu;
    memcpy(ram + CODE_GPA, __start_guest_text, (size_t)(__stop_guest_text - __start_guest_text));
    ram[HLT_GPA] = 0xf4;
    uint64_t entry = HLT_GPA;
    memcpy(ram + STACK_GPA - 8, &entry, 8);
    entry = (PML4_GPA + 0x1000) | 7;
    memcpy(ram + PML4_GPA, &entry, 8);
    entry = (PML4_GPA + 0x2000) | 7;
    memcpy(ram + PML4_GPA + 0x1000, &entry, 8);
    for (uint64_t i = 0; i < 32; i++) {
        entry = i << 21 | 0x87;
        memcpy(ram + PML4_GPA + 0x2000 + 8 * i, &entry, 8);
    }

    for (size_t i = 0; i < ARRAY_SIZE(kernels); i++) {
        if (argc > 1 && strcmp(argv[1], "all") != 0 && strcmp(argv[1], kernels[i].name) != 0)
            continue;
        uint64_t rounds = 1, insns, want;
        double t;
        for (;; rounds *= 2) {     /* until it takes long enough */
            fill(ram + DATA_GPA);
            insns = c->insns;
            t = seconds();
            want = guest_call(c, v, kernels[i].fn, rounds);
            t = seconds() - t;
            insns = c->insns - insns;
            if (t >= limit / 2)
                break;
        }
        fill(host);
        double n = seconds();
        uint64_t got = kernels[i].fn(host, rounds);
        n = seconds() - n;
        printf("%-8s %7.1f MIPS  %6.1f times the host's time%s\n", kernels[i].name, (double)insns / t / 1e6, t / n,
               got == want ? "" : "  WRONG RESULT");
    }
    engine_soft.destroy(g);
    free(host);
    munmap(ram, RAM_SIZE);
    return 0;
}
