/* See platform.h. */
#include "hv/platform/platform.h"

#include <errno.h>

#include "hv/platform/debug.h"
#include "hv/platform/fw_cfg.h"
#include "hv/platform/i8042.h"
#include "hv/platform/pic.h"
#include "hv/platform/pit.h"
#include "hv/platform/pm.h"
#include "hv/platform/reset.h"
#include "hv/platform/rtc.h"
#include "hv/platform/testdev.h"
#include "hv/platform/uart.h"

static const struct { uint16_t base; unsigned irq; } com[PLATFORM_MAX_UARTS] = {
    { 0x3F8, 4 }, { 0x2F8, 3 },
};

/* Interrupt controllers first: they are reset and loaded before those who drive their lines. */
static int build(struct platform *p, const struct platform_config *cfg)
{
    struct machine *m = p->machine;
    unsigned uarts = cfg->uarts ? cfg->uarts : 1;
    int r = pic_new(m, cfg->pic_intr, cfg->arg, &p->pic);
    r = r < 0 ? r : ioapic_new(m, cfg->ioapic_route, cfg->arg, &p->ioapic);
    r = r < 0 ? r : pit_new(m, &p->pit);
    r = r < 0 ? r : rtc_new(m, cfg->rtc_offset_sec, &p->rtc);
    r = r < 0 ? r : i8042_new(m, &p->i8042);
    for (unsigned i = 0; r == 0 && i < uarts; i++) {
        r = uart_new(m, i, com[i].base, com[i].irq, &p->uart[i]);
    }
    r = r < 0 ? r : pm_new(m, cfg->pm_base ? cfg->pm_base : PM_BASE, &p->pm);
    r = r < 0 ? r : reset_new(m, &p->reset);
    r = r < 0 ? r : debug_new(m, cfg->firmware_log, cfg->exit_port, &p->debug);
    if (r == 0 && cfg->exit_port) {
        r = fw_cfg_new(m, cfg->low_ram + cfg->high_ram, cfg->cpus ? cfg->cpus : 1, &p->fw_cfg, NULL);
        r = r < 0 ? r : testdev_new(m, &p->testdev);
    }
    return r;
}

int platform_new(struct machine *m, const struct platform_config *cfg, struct platform **ret,
                 struct hv_error *e)
{
    uint16_t pm_base = cfg->pm_base ? cfg->pm_base : PM_BASE;
    hv_assert(cfg->pic_intr);
    if (cfg->uarts > PLATFORM_MAX_UARTS || cfg->cpus > 256 ||
        (cfg->firmware_log && pm_base <= 0x402 && pm_base + 11 >= 0x402)) {
        hv_fail(e, HV_USAGE, "platform", "the board's parts do not fit together");
        return -EINVAL;
    }
    struct platform *p = hv_alloc(sizeof(*p));
    if (!p) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory for the board's devices");
    }
    p->machine = m;
    int r = build(p, cfg);
    if (r < 0) {
        platform_free(p);
        return hv_fail_errno(e, -r, NULL, "cannot build the board's devices");
    }
    rtc_set_memory(p->rtc, cfg->low_ram, cfg->high_ram);
    rtc_set_cpus(p->rtc, cfg->cpus ? cfg->cpus : 1);
    *ret = p;
    return 0;
}

void platform_free(struct platform *p)
{
    if (!p) {
        return;
    }
    testdev_free(p->testdev);
    fw_cfg_free(p->fw_cfg);
    debug_free(p->debug);
    reset_free(p->reset);
    pm_free(p->pm);
    for (unsigned i = 0; i < PLATFORM_MAX_UARTS; i++) {
        uart_free(p->uart[i]);
    }
    i8042_free(p->i8042);
    rtc_free(p->rtc);
    pit_free(p->pit);
    ioapic_free(p->ioapic);
    pic_free(p->pic);
    free(p);
}

struct console *platform_console(struct platform *p)
{
    return uart_console(p->uart[0]);
}

bool platform_power_button(struct platform *p)
{
    return pm_power_button(p->pm);
}

uint32_t platform_exit_code(struct platform *p)
{
    return machine_exit_code(p->machine);
}

void platform_eoi(struct platform *p, unsigned pin)
{
    ioapic_eoi(p->ioapic, pin);
}

int platform_extint_ack(struct platform *p)
{
    return pic_ack(p->pic);
}
