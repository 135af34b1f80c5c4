/*
 * Writing x86-64 machine code: bytes into a buffer, instructions with a ModRM operand from
 * their opcode. Host register numbers are those of the architecture. SDM 2A, chapter 2.
 */
#ifndef HV_ENGINE_SOFT_EMIT_H
#define HV_ENGINE_SOFT_EMIT_H

#include <string.h>

#include "hv/base/base.h"

enum { H_RAX, H_RCX, H_RDX, H_RBX, H_RSP, H_RBP, H_RSI, H_RDI, H_R8, H_R9, H_R10, H_R11, H_R12, H_R13, H_R14, H_R15 };
#define H_NONE 0xff

/* What a ModRM byte can name: a register, or memory. */
struct rm {
    bool mem;
    uint8_t reg;                   /* register, or base (H_NONE: no base, disp is absolute: unused here) */
    uint8_t index, scale;          /* index H_NONE: none; never H_RSP */
    int32_t disp;
};

static inline struct rm rm_reg(unsigned reg) { return (struct rm){ .reg = (uint8_t)reg }; }
static inline struct rm rm_mem(unsigned base, int32_t disp)
{ return (struct rm){ .mem = true, .reg = (uint8_t)base, .index = H_NONE, .disp = disp }; }
static inline struct rm rm_sib(unsigned base, unsigned index, unsigned scale, int32_t disp)
{ return (struct rm){ true, (uint8_t)base, (uint8_t)index, (uint8_t)scale, disp }; }

/*
 * The buffer: whoever begins a block has made sure that it has room for the longest there can
 * be, and put8() stops at the end if that was wrong.
 */
struct emit { uint8_t *p, *end; };

/* An opcode: the last byte, | OP_0F or OP_0F38 or OP_0F3A, | prefixes. */
enum { OP_0F = 0x100, OP_0F38 = 0x200, OP_0F3A = 0x300, OP_MAPS = 0x300,
       OP_F2 = 0x400, OP_F3 = 0x800, OP_LOCK = 0x1000, OP_66 = 0x2000,
       OP_HIGH = 0x8000, /* 8-bit registers 4 to 7 are AH CH DH BH: no REX */
       OP_BYTE_RM = 0x4000 /* the r/m operand is 8 bits wide though the size is not: MOVZX */ };

static inline void put8(struct emit *e, unsigned v)
{
    if (e->p < e->end)
        *e->p++ = (uint8_t)v;
}
static inline void put16(struct emit *e, unsigned v) { put8(e, v); put8(e, v >> 8); }
static inline void put32(struct emit *e, uint32_t v) { put16(e, v); put16(e, v >> 16); }
static inline void put64(struct emit *e, uint64_t v) { put32(e, (uint32_t)v); put32(e, (uint32_t)(v >> 32)); }

/* Prefixes, opcode and ModRM of an instruction with operands of size 1, 2, 4, 8 bytes; an immediate follows. */
void emit_rm(struct emit *e, unsigned size, unsigned op, unsigned reg, struct rm rm);
/* MOV between registers or from and to memory, 4 or 8 bytes. */
void emit_load(struct emit *e, unsigned size, unsigned reg, struct rm from);
void emit_store(struct emit *e, unsigned size, struct rm to, unsigned reg);
void emit_mov(struct emit *e, unsigned size, unsigned to, unsigned from);
void emit_lea(struct emit *e, unsigned size, unsigned to, struct rm at);
/* Op /digit of the 80..83 group with an immediate: 0 ADD, 1 OR, 4 AND, 5 SUB, 6 XOR, 7 CMP. */
void emit_alu_imm(struct emit *e, unsigned size, unsigned digit, struct rm rm, int32_t imm, unsigned prefix);
void emit_mov_imm(struct emit *e, unsigned reg, uint64_t v);

/* A jump to an address in reach; those to be found later return where their displacement is. */
void emit_jmp(struct emit *e, const void *to);
uint8_t *emit_jcc_later(struct emit *e, unsigned cc);
uint8_t *emit_jmp_later(struct emit *e);
void emit_patch(struct emit *e, uint8_t *at);          /* to here */
/* reg = address of something in reach. */
void emit_lea_rip(struct emit *e, unsigned reg, const void *to);
/* reg = 8 bytes of memory in reach. */
void emit_load_rip(struct emit *e, unsigned reg, const void *from);
/* JMP through a pointer in memory in reach. */
void emit_jmp_through(struct emit *e, const void *pointer);

#endif
