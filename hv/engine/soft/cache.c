/*
 * Memory of translated code, and the thunks that lead in and out of it. See translate.h.
 *
 *   [ thunks | code of blocks ... -> ]  executable up to rx_end, writable from there on, never both
 *   [ slots, call-outs ........... -> ] data
 *
 * Only the vCPU's own thread looks at it, and it is outside of the code while it writes.
 */
#include <sys/mman.h>

#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/translate.h"

static size_t page_up(size_t v) { return ROUND_UP(v, (size_t)HV_PAGE_SIZE); }

void *cache_data(struct code_cache *k, size_t len)
{
    hv_assert(len <= k->data_size - k->data_used);
    void *p = k->base + k->code_size + k->data_used;
    k->data_used += ROUND_UP(len, (size_t)8);
    return p;
}

bool cache_has_room(const struct code_cache *k)
{
    return k->code_limit - k->code_used >= CODE_BLOCK_MAX && k->data_limit - k->data_used >= CODE_BLOCK_MAX;
}

void cache_start(struct code_cache *k)
{
    k->code_limit = MIN(k->code_size, CODE_START / 3 * 2);
    k->data_limit = MIN(k->data_size, CODE_START / 3);
}

bool cache_grow(struct code_cache *k, uint64_t insns)
{
    const bool soon = insns - k->full_at < CODE_SOON;
    k->full_at = insns;
    if (!soon || k->code_limit == k->code_size)
        return false;
    k->code_limit = MIN(2 * k->code_limit, k->code_size);
    k->data_limit = MIN(2 * k->data_limit, k->data_size);
    return true;
}

bool cache_writable(struct code_cache *k, bool on)
{
    size_t from, to;
    if (on) {
        from = k->code_used & HV_PAGE_MASK;
        to = k->rx_end;
        if (from < to && mprotect(k->base + from, to - from, PROT_READ | PROT_WRITE))
            return false;
        k->rx_end = MIN(from, to);
        return true;
    }
    from = k->rx_end;
    to = page_up(k->code_used);
    if (from < to && mprotect(k->base + from, to - from, PROT_READ | PROT_EXEC))
        return false;
    k->rx_end = to;
    return true;
}

void cache_clear(struct code_cache *k)
{
    k->code_used = k->thunks_end;
    k->data_used = 0;
    k->queued = 0;
}

/* ---- thunks ---- */

#define BLOCK(reg, field) rm_mem(reg, (int32_t)offsetof(struct block, field))
/* Callee-saved registers of the C calling convention, in the order they are pushed. */
static const uint8_t kept[] = { H_RBP, H_RBX, H_R12, H_R13, H_R14, H_R15 };

static void push_pop(struct emit *e, unsigned op, unsigned reg)
{
    if (reg >= 8)
        put8(e, 0x41);
    put8(e, op | (reg & 7));
}

static void registers(struct emit *e, unsigned base, bool load)
{
    for (unsigned i = 0; i < 16; i++) {
        if (!pinned(i))
            continue;
        struct rm at = rm_mem(base, (int32_t)(offsetof(struct cpu, gpr) + 8 * i));
        if (load)
            emit_load(e, 8, host_of(i), at);
        else
            emit_store(e, 8, at, host_of(i));
    }
}

/* RSP is the C stack's again; back to whoever entered. */
static void leave(struct emit *e, bool jump_rax)
{
    emit_alu_imm(e, 8, 0, rm_reg(H_RSP), 8, 0);
    for (unsigned i = ARRAY_SIZE(kept); i-- > 0;)
        push_pop(e, 0x58, kept[i]);
    if (jump_rax)
        emit_rm(e, 4, 0xff, 4, rm_reg(H_RAX));
    else
        put8(e, 0xc3);
}

#define MXCSR_CONTROL 0xe040u

/* Guest XMM registers and MXCSR back into struct cpu, if they are not there; changes RAX, keeps T1 and T2. */
static void xmm_out(struct emit *e)
{
    emit_alu_imm(e, 1, 7, CPU(jit.live), 0, 0);
    uint8_t *skip = emit_jcc_later(e, 4);
    for (unsigned i = 0; i < 16; i++)
        emit_rm(e, 4, OP_0F | 0x29, i, rm_mem(H_RSP, (int32_t)(offsetof(struct cpu, xmm) + i * sizeof(union vec))));
    emit_rm(e, 4, OP_0F | 0xae, 3, CPU(jit.mxcsr));              /* STMXCSR */
    emit_load(e, 4, H_RAX, CPU(jit.mxcsr));
    emit_alu_imm(e, 4, 4, rm_reg(H_RAX), 0x3f, 0);
    emit_rm(e, 4, 0x09, H_RAX, CPU(mxcsr));
    emit_rm(e, 4, 0xf7, 0, CPU(mxcsr));
    put32(e, MXCSR_CONTROL);
    uint8_t *normal = emit_jcc_later(e, 4);
    emit_rm(e, 4, OP_0F | 0xae, 2, CPU(jit.mxcsr_default));      /* LDMXCSR */
    emit_patch(e, normal);
    emit_rm(e, 1, 0xc6, 0, CPU(jit.live));
    put8(e, 0);
    emit_patch(e, skip);
}

static void call_c(struct emit *e, uintptr_t fn)
{
    emit_mov_imm(e, H_RAX, fn);
    emit_rm(e, 4, 0xff, 2, rm_reg(H_RAX));
}

/* RDI = RBX = struct cpu *, RSP = the C stack, registers in c->gpr[]; keeps T1 and T2. */
static void to_c(struct emit *e)
{
    registers(e, H_RSP, false);
    xmm_out(e);
    emit_mov(e, 8, H_RDI, H_RSP);
    emit_mov(e, 8, H_RBX, H_RSP);
    emit_load(e, 8, H_RSP, CPU(jit.host_rsp));
    emit_alu_imm(e, 1, 7, rm_mem(H_RDI, offsetof(struct cpu, jit.x87)), 0, 0);
    uint8_t *skip = emit_jcc_later(e, 4);
    call_c(e, (uintptr_t)x87_take);
    emit_mov(e, 8, H_RDI, H_RBX);
    emit_patch(e, skip);
}

/*
 * The block to go on with after one that ended, without going by the loop: what cpu_loop() would look at
 * is as usual, and the block was validated. NULL: the loop has to see.
 */
static const struct block *next_block(struct cpu *c)
{
    if (c->budget <= 0 || atomic_load_explicit(&c->attention, memory_order_relaxed) || c->shadow || c->halted ||
        c->rflags & (FL_TF | FL_RF) || c->dr[7] & 0xff || c->code_dropped || c->lock)
        return NULL;
    const struct jump *j = &c->jump[block_jump_slot(c->rip)];
    if (j->rip != c->rip || j->gen != c->map_gen || j->code == c->code->interpret_jump)
        return NULL;
    c->jit.page = c->rip & HV_PAGE_MASK;
    return j->b;
}

/* 0: go on behind it; an X_* and 1: leave; else a translated block to go on with. */
static uintptr_t callout(struct cpu *c, const struct jit_call *k)
{
    const uint64_t rip = c->jit.page + k->off, next = rip + k->in.len;
    if (c->jit.x87)
        x87_take(c);
    c->rip = rip;
    c->next_rip = next;
    int r = k->fn(c, &k->in);
    if (HV_LIKELY(r == X_OK && c->next_rip == next && !c->code_dropped && !k->end && (!k->x87 || x87_can_give(c))))
        return 0;
    c->budget -= k->n;
    if (r != X_OK)
        return (uintptr_t)r + 1;
    c->rip = c->next_rip;
    const struct block *b = next_block(c);
    return b ? (uintptr_t)b : X_OK + 1;
}

void cache_thunks(struct code_cache *k)
{
    struct emit e = { k->base, k->base + k->code_size };

    /* int enter(c, op, cc): an op_handler. */
    k->enter = (op_handler *)(uintptr_t)e.p;
    for (unsigned i = 0; i < ARRAY_SIZE(kept); i++)
        push_pop(&e, 0x50, kept[i]);
    emit_alu_imm(&e, 8, 5, rm_reg(H_RSP), 8, 0);
    emit_store(&e, 4, rm_mem(H_RDI, offsetof(struct cpu, cc)), H_RDX);
    emit_store(&e, 8, rm_mem(H_RDI, offsetof(struct cpu, jit.host_rsp)), H_RSP);
    emit_load(&e, 8, T1, rm_mem(H_RDI, offsetof(struct cpu, rip)));
    emit_alu_imm(&e, 8, 4, rm_reg(T1), -(int32_t)HV_PAGE_SIZE, 0);
    emit_store(&e, 8, rm_mem(H_RDI, offsetof(struct cpu, jit.page)), T1);
    emit_load(&e, 8, T1, rm_mem(H_RSI, (int32_t)offsetof(struct block, code) - (int32_t)sizeof(struct block)));
    emit_mov(&e, 8, H_RSP, H_RDI);
    registers(&e, H_RSP, true);
    emit_rm(&e, 4, 0xff, 4, rm_reg(T1));

    /* T1 = struct jit_call, T2 = where to go on. */
    k->call = e.p;
    emit_store(&e, 8, CPU(jit.resume), T2);
    registers(&e, H_RSP, false);
    xmm_out(&e);
    emit_mov(&e, 8, H_RDI, H_RSP);
    emit_mov(&e, 8, H_RSI, T1);
    emit_mov(&e, 8, H_RBX, H_RSP);
    emit_load(&e, 8, H_RSP, CPU(jit.host_rsp));
    call_c(&e, (uintptr_t)callout);
    emit_rm(&e, 8, 0x85, H_RAX, rm_reg(H_RAX));
    uint8_t *over = emit_jcc_later(&e, 5);
    emit_mov(&e, 8, H_RSP, H_RBX);
    registers(&e, H_RSP, true);
    emit_rm(&e, 4, 0xff, 4, CPU(jit.resume));
    emit_patch(&e, over);
    emit_alu_imm(&e, 8, 7, rm_reg(H_RAX), X_LEAVE + 1, 0);
    uint8_t *out = emit_jcc_later(&e, 6);
    emit_load(&e, 8, T2, BLOCK(H_RAX, code));
    emit_mov(&e, 8, H_RSP, H_RBX);
    registers(&e, H_RSP, true);
    emit_rm(&e, 4, 0xff, 4, rm_reg(T2));
    emit_patch(&e, out);
    emit_alu_imm(&e, 4, 5, rm_reg(H_RAX), 1, 0);
    leave(&e, false);

    /* XMM registers and MXCSR into the host's; T2 = where to go on; changes T1 and flags. All exceptions masked. */
    k->xmm = e.p;
    emit_load(&e, 4, T1, CPU(mxcsr));
    emit_alu_imm(&e, 4, 1, rm_reg(T1), 0x1f80, 0);
    emit_store(&e, 4, CPU(jit.mxcsr), T1);
    emit_rm(&e, 4, OP_0F | 0xae, 2, CPU(jit.mxcsr));
    for (unsigned i = 0; i < 16; i++)
        emit_rm(&e, 4, OP_0F | 0x28, i, rm_mem(H_RSP, (int32_t)(offsetof(struct cpu, xmm) + i * sizeof(union vec))));
    emit_rm(&e, 1, 0xc6, 0, CPU(jit.live));
    put8(&e, 1);
    emit_rm(&e, 4, 0xff, 4, rm_reg(T2));

    /* The x87 into the host's; T2 = where to go on; refused: jit.temp is the block to interpret, at its start. */
    k->x87 = e.p;
    emit_store(&e, 8, CPU(jit.resume), T2);
    to_c(&e);
    call_c(&e, (uintptr_t)x87_give);
    emit_rm(&e, 1, 0x84, H_RAX, rm_reg(H_RAX));
    uint8_t *refused = emit_jcc_later(&e, 4);
    emit_mov(&e, 8, H_RSP, H_RBX);
    registers(&e, H_RSP, true);
    emit_rm(&e, 4, 0xff, 4, CPU(jit.resume));
    emit_patch(&e, refused);
    emit_mov(&e, 8, H_RDI, H_RBX);
    emit_load(&e, 8, T2, rm_mem(H_RDI, offsetof(struct cpu, jit.temp)));
    emit_load(&e, 8, T1, BLOCK(T2, vrip));
    emit_store(&e, 8, rm_mem(H_RDI, offsetof(struct cpu, rip)), T1);
    emit_lea(&e, 8, H_RSI, rm_mem(T2, sizeof(struct block)));
    emit_load(&e, 4, H_RDX, rm_mem(H_RDI, offsetof(struct cpu, cc)));
    emit_load(&e, 8, H_RAX, rm_mem(H_RSI, offsetof(struct op, fn)));
    leave(&e, true);

    /* T2 = the entry in jump[] of a block to interpret. */
    k->interpret_jump = e.p;
    emit_load(&e, 8, T2, rm_sib(H_RSP, T2, 0, (int32_t)(offsetof(struct cpu, jump) + offsetof(struct jump, b))));

    /* T2 = a block to interpret. */
    k->interpret = e.p;
    emit_load(&e, 8, T1, BLOCK(T2, vrip));
    emit_store(&e, 8, CPU(rip), T1);
    to_c(&e);
    emit_lea(&e, 8, H_RSI, rm_mem(T2, sizeof(struct block)));
    emit_load(&e, 4, H_RDX, rm_mem(H_RDI, offsetof(struct cpu, cc)));
    emit_load(&e, 8, H_RAX, BLOCK(T2, entry));
    leave(&e, true);

    /* T1 = where to go on, after the loop has looked around. */
    k->exit_rip = e.p;
    emit_store(&e, 8, CPU(rip), T1);
    to_c(&e);
    emit_rm(&e, 4, 0x33, H_RAX, rm_reg(H_RAX));
    leave(&e, false);

    /* T1 = a slot: to its target, and have it linked. */
    k->exit_slot = e.p;
    emit_store(&e, 8, CPU(jit.slot), T1);
    emit_rm(&e, 8, 0x63, T2, rm_mem(T1, offsetof(struct jit_slot, off)));
    emit_rm(&e, 8, 0x03, T2, CPU(jit.page));
    emit_store(&e, 8, CPU(rip), T2);
    to_c(&e);
    emit_rm(&e, 4, 0x33, H_RAX, rm_reg(H_RAX));
    leave(&e, false);

    k->code_used = k->thunks_end = page_up((size_t)(e.p - k->base));
}
