/*
 * The soft engine: its table for engine.h, the run loop of a vCPU around the interpreter,
 * and what the interpreter asks between blocks (cpu_attend()).
 *
 * States of a vCPU's thread inside run():
 *
 *   in guest --HLT, wait for SIPI--> parked --wake, deadline--> in guest
 *       \--callback--> outside (in_guest 0) --> in guest
 */
#include <errno.h>

#include "hv/base/log.h"
#include "hv/engine/soft/cpuid.h"
#include "hv/engine/soft/lockstep.h"
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/translate.h"

#define ENGINE_OF(g) soft_checked(g)

static struct soft *soft_checked(const struct engine *g)
{
    struct soft *s = CONTAINER_OF((struct engine *)(uintptr_t)g, struct soft, engine);
    HV_CHECK(s, SOFT_MAGIC);
    return s;
}

/* ---- counters ---- */

static const struct stats_desc stat_desc[STAT_COUNT] = {
    [STAT_INSNS] = { "instructions", "count", "guest instructions executed" },
    [STAT_PIO] = { "pio", "count", "port I/O exits" },
    [STAT_MMIO] = { "mmio", "count", "memory-mapped I/O exits, local APIC included" },
    [STAT_MSR] = { "msr", "count", "MSR exits to the machine" },
    [STAT_IRQ] = { "interrupts", "count", "interrupts and NMIs delivered" },
    [STAT_HLT] = { "halts", "count", "HLT instructions" },
    [STAT_KICK] = { "kicks", "count", "returns to the vCPU's thread" },
    [STAT_TLB_FLUSH] = { "tlb_flushes", "count", "software TLB flushes" },
    [STAT_CODE_DROP] = { "code_drops", "count", "requests to drop decoded code" },
    [STAT_EXCEPTION] = { "exceptions", "count", "exceptions delivered" },
    [STAT_TRANSLATED] = { "translations", "count", "blocks translated to host code" },
    [STAT_CODE_BYTES] = { "code_bytes", "bytes", "translated code and its data, at present" },
    [STAT_CODE_FLUSH] = { "code_flushes", "count", "times all translated code was dropped" },
    [STAT_CODE_BOUND] = { "code_bound", "bytes", "what code_bytes may become before the code is dropped" },
    [STAT_BLOCK_BYTES] = { "block_bytes", "bytes", "decoded blocks, at present" },
    [STAT_BLOCK_BOUND] = { "block_bound", "bytes", "what block_bytes may become before the blocks are dropped" },
    [STAT_BLOCK_FLUSH] = { "block_flushes", "count", "times all decoded blocks were dropped" },
    [STAT_LOCKSTEP] = { "lock_steps", "count", "runs of blocks that were checked, in a mode for tests" },
};

static void publish(struct vcpu *v)
{
    const struct cpu *c = &v->cpu;
    const uint64_t now[STAT_COUNT] = {
        [STAT_INSNS] = c->insns, [STAT_PIO] = c->exits_pio, [STAT_MMIO] = c->exits_mmio, [STAT_MSR] = c->exits_msr,
        [STAT_IRQ] = c->exits_irq, [STAT_HLT] = c->exits_hlt, [STAT_KICK] = v->kicks,
        [STAT_TLB_FLUSH] = v->tlb_flushes, [STAT_CODE_DROP] = v->code_drops, [STAT_EXCEPTION] = v->exceptions,
        [STAT_TRANSLATED] = c->code ? c->code->translated : 0,
        [STAT_CODE_BYTES] = c->code ? c->code->code_used + c->code->data_used : 0,
        [STAT_CODE_FLUSH] = c->code ? c->code->flushes : 0,
        [STAT_CODE_BOUND] = c->code ? c->code->code_limit + c->code->data_limit : 0,
        [STAT_BLOCK_BYTES] = c->blocks->used, [STAT_BLOCK_BOUND] = c->blocks->size, [STAT_BLOCK_FLUSH] = c->blocks->flushed,
        [STAT_LOCKSTEP] = lockstep_count(c),
    };
    for (unsigned i = 0; i < STAT_COUNT; i++)
        atomic_store_explicit(&v->value[i], now[i], memory_order_relaxed);
}

/* ---- between blocks ---- */

static bool extint_pending(struct cpu *c)
{
    return c->vp == 0 && atomic_load(&c->soft->extint) && lapic_extint_enabled(&c->lapic);
}

/* The vector to deliver now, or -1. The PIC may have nothing by the time it is asked. */
static int take_irq(struct cpu *c)
{
    struct soft *s = c->soft;
    if (extint_pending(c) && s->cb.extint_ack) {
        soft_leave_guest(vcpu_of(c));
        int v = s->cb.extint_ack(s->arg);
        soft_enter_guest(vcpu_of(c));
        if (v >= 0)
            return v & 0xff;
    }
    return lapic_take(&c->lapic);
}

static int attend_irq(struct cpu *c)
{
    /* Cleared before looking: what arrives from here on sets it again. */
    atomic_fetch_and(&c->attention, ~(uint32_t)(ATT_IRQ | ATT_TIMER));
    if (c->rflags & FL_IF) {
        int vector = take_irq(c);
        if (vector >= 0) {
            int r = cpu_deliver_irq(c, (unsigned)vector);
            if (r)
                return r;
        }
    }
    if (lapic_pending(&c->lapic) >= 0 || extint_pending(c)) {
        if (c->rflags & FL_IF)
            atomic_fetch_or(&c->attention, ATT_IRQ);
        else
            c->irq_held = true;
    }
    return X_OK;
}

/* One NMI in service and one waiting for its IRET; what comes on top is lost. SDM 6.7.1 */
static int attend_nmi(struct cpu *c)
{
    atomic_fetch_and(&c->attention, ~(uint32_t)ATT_NMI);
    uint32_t n = atomic_exchange(&vcpu_of(c)->nmis, 0) + c->nmi_pending;
    if (!n || c->nmi_blocked) {
        c->nmi_pending = n != 0;
        return X_OK;
    }
    c->nmi_pending = n > 1;
    return cpu_deliver_irq(c, VEC_NMI);
}

/* Guest TSC ticks for which about LOOP_BUDGET instructions are the right time to look again. */
#define TICKS_PER_INSN 8
#define NEAR_TICKS     (8192 * TICKS_PER_INSN)
#define MIN_BUDGET     64

/* Poll the timer; if it is due before the loop would come by, have it come earlier. */
static void attend_timer(struct cpu *c)
{
    uint64_t next = c->lapic.timer_next_tsc;
    if (next == UINT64_MAX)
        return;
    uint64_t now = cpu_tsc(c);
    if (now >= next) {
        next = lapic_timer_poll(&c->lapic, now);
        if (next == UINT64_MAX)
            return;
    }
    if (next - now < NEAR_TICKS)
        c->budget = (int32_t)MAX((next - now) / TICKS_PER_INSN, (uint64_t)MIN_BUDGET);
}

int cpu_attend(struct cpu *c)
{
    struct vcpu *v = vcpu_of(c);
    attend_timer(c);
    publish(v);
    const uint32_t att = atomic_load(&c->attention);
    if (HV_LIKELY(!att))
        return X_OK;
    int r = X_OK;
    if (att & ATT_WORK) {
        atomic_fetch_and(&c->attention, ~(uint32_t)ATT_WORK);
        soft_do_work(v);
    }
    if (att & ATT_INIT) {
        atomic_fetch_and(&c->attention, ~(uint32_t)ATT_INIT);
        soft_cpu_reset(c, true);
    }
    if (att & ATT_SIPI) {
        atomic_fetch_and(&c->attention, ~(uint32_t)ATT_SIPI);
        if (c->mp_state == VCPU_MP_WAIT_SIPI)
            soft_cpu_sipi(c, atomic_load(&c->sipi_vector));
    }
    if (c->mp_state == VCPU_MP_WAIT_SIPI) {
        /* Nothing else gets through; interrupts and NMIs are lost, as after INIT. */
        atomic_fetch_and(&c->attention, ATT_KICK | ATT_WORK | ATT_INIT | ATT_SIPI);
        atomic_store(&v->nmis, 0);
        c->leave = att & ATT_KICK ? LEAVE_KICK : LEAVE_HALT;
        return X_LEAVE;
    }
    if (c->halted)
        c->shadow = 0;                     /* STI; HLT: the HLT was the one instruction */
    if (!c->shadow) {                      /* else: the bits stay, and the loop comes back after one instruction */
        if (att & ATT_NMI)
            r = attend_nmi(c);
        if (!r && att & (ATT_IRQ | ATT_TIMER))
            r = attend_irq(c);
        if (r)
            return r;
    }
    if (att & ATT_KICK) {
        c->leave = LEAVE_KICK;
        return X_LEAVE;
    }
    return X_OK;
}

/* ---- run ---- */

static enum engine_stop soft_run(struct vcpu *v, struct hv_error *e)
{
    struct cpu *c = &v->cpu;
    enum engine_stop stop;
    soft_enter_guest(v);
    for (;;) {
        c->leave = LEAVE_NONE;
        enum leave_reason why = LEAVE_NONE;
        if (c->halted || c->mp_state == VCPU_MP_WAIT_SIPI) {
            if (cpu_attend(c) == X_LEAVE && c->leave != LEAVE_HALT)
                why = c->leave;
            else if (c->halted || c->mp_state == VCPU_MP_WAIT_SIPI) {
                soft_leave_guest(v);
                soft_park(v, c->mp_state == VCPU_MP_WAIT_SIPI ? UINT64_MAX : c->lapic.timer_next_tsc);
                soft_enter_guest(v);
                continue;
            } else {
                continue;
            }
        } else {
            why = cpu_loop(c);
        }
        if (why == LEAVE_HALT || why == LEAVE_NONE)
            continue;
        if (why == LEAVE_KICK) {
            atomic_fetch_and(&c->attention, ~(uint32_t)ATT_KICK);
            v->kicks++;
            stop = ENGINE_STOP_KICKED;
        } else if (why == LEAVE_SHUTDOWN) {
            log_debug("soft", "vCPU %u: triple fault at %#llx", c->vp, (unsigned long long)c->rip);
            stop = ENGINE_STOP_SHUTDOWN;
        } else {
            hv_fail(e, HV_FAILED, NULL, "vCPU %u cannot go on at %#llx", c->vp, (unsigned long long)c->rip);
            stop = ENGINE_STOP_ERROR;
        }
        break;
    }
    publish(v);
    soft_leave_guest(v);
    return stop;
}

static void soft_kick(struct vcpu *v)
{
    soft_wake(v, ATT_KICK);
}

/* ---- life ---- */

static void vcpu_free(struct vcpu *v)
{
    if (!v)
        return;
    block_cache_free(&v->cpu);
    free(v->cpu.cpuid);
    pthread_cond_destroy(&v->cond);
    pthread_mutex_destroy(&v->lock);
    free((uint8_t *)v - SOFT_VCPU_RED_ZONE);
}

static void soft_destroy(struct engine *g)
{
    if (!g)
        return;
    struct soft *s = ENGINE_OF(g);
    for (unsigned i = 0; i < s->vcpus; i++)
        vcpu_free(s->vcpu[i]);
    code_region_fini(s);
    soft_map_fini(s);
    pthread_mutex_destroy(&s->map_lock);
    s->magic = 0;
    free(s);
}

static int vcpu_new(struct soft *s, unsigned vp, struct vcpu **ret)
{
    uint8_t *p = aligned_alloc(64, SOFT_VCPU_RED_ZONE + ROUND_UP(sizeof(struct vcpu), 64));
    if (!p)
        return -ENOMEM;
    struct vcpu *v = (struct vcpu *)(void *)(p + SOFT_VCPU_RED_ZONE);
    memset(v, 0, sizeof(*v));
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&v->cond, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&v->lock, NULL);

    struct cpu *c = &v->cpu;
    c->vp = vp;
    c->soft = s;
    tlb_init(c);
    cpu_update_mode(c);
    lapic_init(&c->lapic, &soft_lapic_ops, c, vp, s->tsc_hz, s->apic_hz);
    struct cpuid_leaf *leaf = NULL;
    unsigned count;
    int r = cpuid_model(&s->cfg, vp, s->tsc_hz, s->apic_hz, &leaf, &count);
    if (!r)
        r = cpuid_set(c, leaf, count);
    free(leaf);
    if (!r)
        r = block_cache_new(c);
    if (r) {
        vcpu_free(v);
        return r;
    }
    snprintf(v->group, sizeof(v->group), "vcpu%u", vp);
    v->table = (struct stats_table){ .group = v->group, .desc = stat_desc, .count = STAT_COUNT, .value = v->value };
    *ret = v;
    return 0;
}

static void soft_reset(struct engine *g)
{
    struct soft *s = ENGINE_OF(g);
    atomic_store(&s->extint, false);
    for (unsigned i = 0; i < SOFT_MAX_PINS; i++)
        atomic_store(&s->route[i], 0);
    s->reset_tsc = tsc_guest_at(s, tsc_host_now());
    for (unsigned i = 0; i < s->vcpus; i++) {
        struct cpu *c = &s->vcpu[i]->cpu;
        atomic_fetch_and(&c->attention, ATT_KICK | ATT_WORK);
        soft_cpu_reset(c, false);
        soft_forget_post(s->vcpu[i]);
    }
}

static int soft_create(const struct engine_config *cfg, const struct engine_callbacks *cb, void *arg,
                       struct engine **ret, struct hv_error *e)
{
    if (!cfg->vcpus || cfg->vcpus > SOFT_MAX_VCPUS)
        return hv_fail(e, HV_USAGE, NULL, "%u vCPUs: the soft engine has 1 to %u", cfg->vcpus, SOFT_MAX_VCPUS);
    if (cfg->phys_bits < 36 || cfg->phys_bits > 52)
        return hv_fail(e, HV_USAGE, NULL, "%u physical address bits: 36 to 52 are possible", cfg->phys_bits);
    struct soft *s = hv_alloc(sizeof(*s));
    if (!s)
        return hv_fail_errno(e, ENOMEM, NULL, "cannot make the soft engine");
    s->engine.ops = &engine_soft;
    s->magic = SOFT_MAGIC;
    s->cfg = *cfg;
    s->cb = *cb;
    s->arg = arg;
    pthread_mutex_init(&s->map_lock, NULL);
    s->host_tsc_hz = tsc_host_hz();
    s->tsc_hz = cfg->tsc_hz ? cfg->tsc_hz : s->host_tsc_hz;
    if (s->tsc_hz != s->host_tsc_hz)
        s->tsc_ratio = (uint64_t)(((unsigned __int128)s->tsc_hz << 32) / s->host_tsc_hz);
    /*
     * The APIC timer counts CPUID leaf 0x15's crystal, whose ratio to the TSC is a whole
     * number as small as fits ECX: guests compute in kHz and lose ratio kHz by rounding.
     */
    s->apic_hz = s->tsc_hz / (s->tsc_hz / UINT32_MAX + 1);
    s->tsc_base = tsc_host_now();
    for (unsigned i = 0; i < cfg->vcpus; i++) {
        int r = vcpu_new(s, i, &s->vcpu[i]);
        if (r) {
            soft_destroy(&s->engine);
            return hv_fail_errno(e, -r, NULL, "cannot make vCPU %u", i);
        }
        s->vcpus++;
    }
    soft_reset(&s->engine);
    *ret = &s->engine;
    return 0;
}

static unsigned soft_caps(const struct engine *g)
{
    return ENGINE_CAP_STIMER | ENGINE_CAP_DIRTY_LOG | ENGINE_CAP_TSC_SCALING;
}

static uint64_t soft_tsc_hz(const struct engine *g) { return ENGINE_OF(g)->tsc_hz; }
static uint64_t soft_apic_hz(const struct engine *g) { return ENGINE_OF(g)->apic_hz; }

static struct vcpu *soft_vcpu(struct engine *g, unsigned vp)
{
    struct soft *s = ENGINE_OF(g);
    hv_assert(vp < s->vcpus);
    return s->vcpu[vp];
}

/* ---- the rest of the table: thin ---- */

static int ops_map(struct engine *g, gpa_t gpa, uint64_t len, void *hva, bool readonly)
{
    return soft_map_ram(ENGINE_OF(g), gpa, len, hva, readonly);
}

static int ops_unmap(struct engine *g, gpa_t gpa, uint64_t len)
{
    return soft_unmap_ram(ENGINE_OF(g), gpa, len);
}

static int ops_set_cpuid(struct engine *g, unsigned vp, const struct cpuid_leaf *leaf, unsigned count)
{
    return cpuid_set(&soft_vcpu(g, vp)->cpu, leaf, count);
}

static int ops_get_cpuid(struct engine *g, unsigned vp, struct cpuid_leaf **ret, unsigned *ret_count)
{
    struct soft *s = ENGINE_OF(g);
    return cpuid_model(&s->cfg, vp, s->tsc_hz, s->apic_hz, ret, ret_count);
}

static void ops_send_msi(struct engine *g, uint64_t addr, uint32_t data)
{
    soft_send_msi(ENGINE_OF(g), addr, data);
}

static void ops_set_route(struct engine *g, unsigned pin, uint64_t addr, uint32_t data, bool level, bool masked)
{
    soft_set_route(ENGINE_OF(g), pin, addr, data, level, masked);
}

static void ops_set_extint(struct engine *g, bool asserted)
{
    soft_set_extint(ENGINE_OF(g), asserted);
}

static void ops_nmi(struct engine *g, unsigned vp)
{
    soft_nmi(soft_vcpu(g, vp));
}

static void ops_drop_code(struct engine *g, gpa_t gpa, uint64_t len)
{
    struct soft *s = ENGINE_OF(g);
    soft_drop_post(s, NULL, gpa, len);
    if (!atomic_load_explicit(&s->dirty_log, memory_order_relaxed))
        return;
    for (gpa_t at = gpa & HV_PAGE_MASK; at < gpa + len; at += HV_PAGE_SIZE)
        soft_mark_dirty(s, at);
}

static int ops_dirty_log(struct engine *g, bool on)
{
    return soft_dirty_log(ENGINE_OF(g), on);
}

static int ops_dirty_fetch(struct engine *g, gpa_t gpa, uint64_t pages, uint64_t *bitmap)
{
    return soft_dirty_fetch(ENGINE_OF(g), gpa, pages, bitmap);
}

static enum vcpu_mp_state ops_get_mp(struct vcpu *v)
{
    const struct cpu *c = &v->cpu;
    return c->mp_state == VCPU_MP_WAIT_SIPI ? VCPU_MP_WAIT_SIPI : c->halted ? VCPU_MP_HALTED : VCPU_MP_RUNNABLE;
}

static void ops_set_mp(struct vcpu *v, enum vcpu_mp_state st)
{
    struct cpu *c = &v->cpu;
    c->halted = st == VCPU_MP_HALTED;
    c->mp_state = st == VCPU_MP_WAIT_SIPI ? VCPU_MP_WAIT_SIPI : VCPU_MP_RUNNABLE;
}

static uint64_t ops_read_tsc(struct vcpu *v)
{
    return cpu_tsc(&v->cpu);
}

static void ops_code_region(const struct engine *g, const void **ret_base, size_t *ret_len)
{
    const struct soft *s = ENGINE_OF((struct engine *)(uintptr_t)g);
    *ret_base = s->code_base;
    *ret_len = s->code_len;
}

static void ops_stats(struct engine *g, struct stats_registry *r)
{
    struct soft *s = ENGINE_OF(g);
    for (unsigned i = 0; i < s->vcpus; i++)
        stats_register(r, &s->vcpu[i]->table);
}

const struct engine_ops engine_soft = {
    .name = "soft",
    .create = soft_create,
    .destroy = soft_destroy,
    .caps = soft_caps,
    .tsc_hz = soft_tsc_hz,
    .apic_hz = soft_apic_hz,
    .map = ops_map,
    .unmap = ops_unmap,
    .set_cpuid = ops_set_cpuid,
    .get_cpuid = ops_get_cpuid,
    .send_msi = ops_send_msi,
    .set_route = ops_set_route,
    .set_extint = ops_set_extint,
    .nmi = ops_nmi,
    .drop_code = ops_drop_code,
    .dirty_log = ops_dirty_log,
    .dirty_fetch = ops_dirty_fetch,
    .vcpu = soft_vcpu,
    .run = soft_run,
    .kick = soft_kick,
    .get_regs = soft_get_regs,
    .set_regs = soft_set_regs,
    .get_mp = ops_get_mp,
    .set_mp = ops_set_mp,
    .read_tsc = ops_read_tsc,
    .reset = soft_reset,
    .save = soft_save,
    .load = soft_load,
    .stats = ops_stats,
    .code_region = ops_code_region,
};
