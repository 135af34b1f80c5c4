/*
 * In the guest: use memory that the balloon driver has given back to the host. A program in the
 * guest's kernel (BPF, as root may load one) reads a word of every page of the kernel's direct
 * mapping, ballooned or not; the kernel must run with nokaslr.
 *
 *   touchall FIRST_MIB LAST_MIB TIMES
 */
#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DIRECT_MAP 0xffff888000000000ull        /* Linux Documentation/arch/x86/x86_64/mm.rst */
#define PAGE 4096
#define EACH 64                                 /* pages at each call */

static int bpf(int cmd, union bpf_attr *a) { return (int)syscall(SYS_bpf, cmd, a, sizeof(*a)); }

static uint64_t at_of(int map, int cmd, uint64_t *value)
{
    uint32_t key = 0;
    union bpf_attr a = {.map_fd = (uint32_t)map, .key = (uintptr_t)&key, .value = (uintptr_t)value};
    return (uint64_t)bpf(cmd, &a);
}

static unsigned emit(struct bpf_insn *p, unsigned n, uint8_t code, uint8_t dst, uint8_t src, int16_t off, int32_t imm)
{
    p[n] = (struct bpf_insn){.code = code, .dst_reg = dst, .src_reg = src, .off = off, .imm = imm};
    return n + 1;
}

int main(int argc, char **argv)
{
    static struct bpf_insn p[32 + EACH * 8];
    static char log[65536];
    if (argc != 4)
        return 2;
    union bpf_attr a = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1};
    int map = bpf(BPF_MAP_CREATE, &a);
    if (map < 0) {
        printf("touchall: map: %s\n", strerror(errno));
        return 1;
    }
    /* r6 = &map[0]; r7 = *r6; EACH times: probe_read_kernel(fp-16, 8, r7), r7 += PAGE; *r6 = r7 */
    unsigned n = 0;
    n = emit(p, n, BPF_ST | BPF_MEM | BPF_W, 10, 0, -4, 0);
    n = emit(p, n, BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, map);
    n = emit(p, n, 0, 0, 0, 0, 0);
    n = emit(p, n, BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0);
    n = emit(p, n, BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4);
    n = emit(p, n, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem);
    n = emit(p, n, BPF_JMP | BPF_JNE | BPF_K, 0, 0, 2, 0);
    n = emit(p, n, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
    n = emit(p, n, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    n = emit(p, n, BPF_ALU64 | BPF_MOV | BPF_X, 6, 0, 0, 0);
    n = emit(p, n, BPF_LDX | BPF_MEM | BPF_DW, 7, 6, 0, 0);
    for (unsigned i = 0; i < EACH; i++) {
        n = emit(p, n, BPF_ALU64 | BPF_MOV | BPF_X, 1, 10, 0, 0);
        n = emit(p, n, BPF_ALU64 | BPF_ADD | BPF_K, 1, 0, 0, -16);
        n = emit(p, n, BPF_ALU64 | BPF_MOV | BPF_K, 2, 0, 0, 8);
        n = emit(p, n, BPF_ALU64 | BPF_MOV | BPF_X, 3, 7, 0, 0);
        n = emit(p, n, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_probe_read_kernel);
        n = emit(p, n, BPF_ALU64 | BPF_ADD | BPF_K, 7, 0, 0, PAGE);
    }
    n = emit(p, n, BPF_STX | BPF_MEM | BPF_DW, 6, 7, 0, 0);
    n = emit(p, n, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
    n = emit(p, n, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    union bpf_attr load = {.prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT, .insn_cnt = n, .insns = (uintptr_t)p, .license = (uintptr_t)"GPL",
                           .log_level = 1, .log_buf = (uintptr_t)log, .log_size = sizeof(log)};
    int prog = bpf(BPF_PROG_LOAD, &load);
    if (prog < 0) {
        printf("touchall: program: %s\n%.500s\n", strerror(errno), log);
        return 1;
    }
    uint64_t first = DIRECT_MAP + strtoull(argv[1], NULL, 10) * 1048576, last = DIRECT_MAP + strtoull(argv[2], NULL, 10) * 1048576;
    uint64_t at = last;
    if (at_of(map, BPF_MAP_UPDATE_ELEM, &at) != 0)
        return 1;
    union bpf_attr attach = {.raw_tracepoint = {.name = (uintptr_t)"sys_enter", .prog_fd = (uint32_t)prog}};
    if (bpf(BPF_RAW_TRACEPOINT_OPEN, &attach) < 0) {
        printf("touchall: tracepoint: %s\n", strerror(errno));
        return 1;
    }
    for (unsigned long times = strtoul(argv[3], NULL, 10); times > 0; times--) {
        at = first;
        at_of(map, BPF_MAP_UPDATE_ELEM, &at);
        while (at < last) {
            for (unsigned i = 0; i < 200; i++)
                syscall(SYS_getppid);
            if (at_of(map, BPF_MAP_LOOKUP_ELEM, &at) != 0)
                return 1;
        }
        printf("touchall: %s to %s MiB read\n", argv[1], argv[2]);
        fflush(stdout);
    }
    return 0;
}
