/*
 * Translator: guest registers and addresses. An access compares with the software TLB as
 * cpu_ld32() does and falls out to the instruction's call-out; its host address is then
 * va + addend. SDM 1, 3.7.5.
 */
#include "hv/engine/soft/translate.h"

unsigned reg_in(struct tr *t, unsigned guest, unsigned scratch)
{
    if (pinned(guest))
        return host_of(guest);
    emit_load(&t->e, 8, scratch, guest_slot(guest));
    return scratch;
}

void reg_out(struct tr *t, unsigned guest, unsigned host)
{
    if (!pinned(guest))
        emit_store(&t->e, 8, guest_slot(guest), host);
}

struct addr addr_of(const struct x86_insn *in)
{
    return (struct addr){ .base = in->base, .index = in->index, .scale = in->scale, .seg = in->seg,
                          .a32 = in->adsize == 4, .disp = in->disp };
}

bool addr_ok(const struct tr *t, const struct addr *a)
{
    const int64_t disp = a->disp + (a->base == X86_REG_RIP ? t->next : 0);
    /* Room for the size of the access on top. */
    return disp + 64 <= INT32_MAX && disp >= INT32_MIN;
}

bool addr_ok_anywhere(const struct x86_insn *in, const struct addr *a)
{
    return in->adsize != 2 && a->disp <= INT32_MAX - 65536 && a->disp >= INT32_MIN + 65536;
}

static bool has_reg(uint8_t r) { return r < 16; }

/* T1 = the linear address; changes EFLAGS. */
static void linear(struct tr *t, const struct addr *a)
{
    struct emit *e = &t->e;
    const unsigned size = a->a32 ? 4 : 8;
    int32_t disp = (int32_t)a->disp;
    if (a->base == X86_REG_RIP) {
        emit_load(e, 8, T1, CPU(jit.page));
        emit_lea(e, size, T1, rm_mem(T1, disp + t->next));
    } else if (!has_reg(a->base) && !has_reg(a->index)) {
        emit_mov_imm(e, T1, a->a32 ? (uint32_t)disp : (uint64_t)(int64_t)disp);
    } else if (!has_reg(a->index)) {
        unsigned b = reg_in(t, a->base, T1);
        if (b != T1 || disp || a->a32)
            emit_lea(e, size, T1, rm_mem(b, disp));
    } else if (pinned(a->index)) {
        if (has_reg(a->base)) {
            emit_lea(e, size, T1, rm_sib(reg_in(t, a->base, T1), host_of(a->index), a->scale, disp));
        } else {
            emit_mov(e, 8, T1, host_of(a->index));
            if (a->scale) {
                emit_rm(e, 8, 0xc1, 4, rm_reg(T1));
                put8(e, a->scale);
            }
            if (disp || a->a32)
                emit_lea(e, size, T1, rm_mem(T1, disp));
        }
    } else {
        emit_load(e, 8, T1, guest_slot(a->index));
        if (has_reg(a->base) && pinned(a->base)) {
            emit_lea(e, size, T1, rm_sib(host_of(a->base), T1, a->scale, disp));
        } else {
            if (a->scale) {
                emit_rm(e, 8, 0xc1, 4, rm_reg(T1));
                put8(e, a->scale);
            }
            if (has_reg(a->base))
                emit_rm(e, 8, 0x03, T1, guest_slot(a->base));
            if (disp || a->a32)
                emit_lea(e, size, T1, rm_mem(T1, disp));
        }
    }
    if (a->seg >= X86_SEG_FS)
        emit_rm(e, 8, 0x03, T1, rm_mem(H_RSP, (int32_t)(offsetof(struct cpu, seg) + a->seg * sizeof(struct seg) +
                                                        offsetof(struct seg, base))));
}

struct rm addr_check(struct tr *t, const struct addr *a, unsigned size, bool write, unsigned *ret_spare)
{
    struct emit *e = &t->e;
    const bool simple = has_reg(a->base) && pinned(a->base) && !has_reg(a->index) && a->seg < X86_SEG_FS && !a->a32;
    const int32_t tag = t->tlb + (int32_t)(write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag));
    const int32_t addend = t->tlb + (int32_t)offsetof(struct tlb_entry, addend);
    const int32_t more = a->align ? 0 : (int32_t)size - 1, disp = (int32_t)a->disp;
    flags_clobber(t);
    if (simple) {
        const unsigned b = host_of(a->base);
        if (disp)
            emit_lea(e, 4, T2, rm_mem(b, disp));
        else
            emit_mov(e, 4, T2, b);
        if (disp + more)
            emit_lea(e, 8, T1, rm_mem(b, disp + more));
        else
            emit_mov(e, 8, T1, b);
    } else {
        linear(t, a);
        emit_mov(e, 4, T2, T1);
        if (more)
            emit_alu_imm(e, 8, 0, rm_reg(T1), more, 0);
    }
    _Static_assert(sizeof(struct tlb_entry) == 32, "the index is scaled by a shift");
    emit_rm(e, 4, 0xc1, 5, rm_reg(T2));
    put8(e, HV_PAGE_SHIFT - 5);
    emit_alu_imm(e, 4, 4, rm_reg(T2), (TLB_SIZE - 1) << 5, 0);
    emit_alu_imm(e, 8, 4, rm_reg(T1), (a->align ? a->align - 1 : 0) - (int32_t)HV_PAGE_SIZE, 0);
    emit_rm(e, 8, 0x3b, T1, rm_sib(H_RSP, T2, 0, tag));
    slow_if(t, 5);
    if (simple) {
        emit_load(e, 8, T2, rm_sib(H_RSP, T2, 0, addend));
        *ret_spare = T1;
        return rm_sib(host_of(a->base), T2, 0, disp);
    }
    linear(t, a);
    emit_rm(e, 8, 0x03, T1, rm_sib(H_RSP, T2, 0, addend));
    *ret_spare = T2;
    return rm_mem(T1, 0);
}

void addr_lea(struct tr *t, const struct addr *a, unsigned size, unsigned to)
{
    struct emit *e = &t->e;
    const unsigned w = a->a32 ? 4 : size;
    const int32_t disp = (int32_t)a->disp;
    if (a->base == X86_REG_RIP) {
        emit_load(e, 8, T1, CPU(jit.page));
        emit_lea(e, w, to, rm_mem(T1, disp + t->next));
        return;
    }
    unsigned b = has_reg(a->base) ? reg_in(t, a->base, T1) : H_NONE;
    unsigned x = has_reg(a->index) ? reg_in(t, a->index, T2) : H_NONE;
    if (b != H_NONE && x != H_NONE) {
        emit_lea(e, w, to, rm_sib(b, x, a->scale, disp));
    } else if (b != H_NONE) {
        emit_lea(e, w, to, rm_mem(b, disp));
    } else {
        emit_mov_imm(e, T1, (uint64_t)(int64_t)disp);
        emit_lea(e, w, to, x != H_NONE ? rm_sib(T1, x, a->scale, 0) : rm_mem(T1, 0));
    }
}
