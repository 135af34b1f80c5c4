/*
 * Which engine serves here (DESIGN 3): `kvm` only where VT-x or AMD-V backs /dev/kvm, as a
 * KVM that is itself emulated is slower than our own interpreter; else `soft`.
 */
#include "hv/engine/engine.h"

#include <unistd.h>

#include "hv/engine/kvm/kvm.h"

/* "vmx" or "svm" among the flags of the first CPU; NULL if neither, or if the file cannot be read. */
static const char *cpu_virtualization(void)
{
    hv_autofree char *text = NULL;
    size_t len;
    if (hv_read_file("/proc/cpuinfo", 16 * MIB, &text, &len))
        return NULL;
    char *flags = strstr(text, "\nflags");
    if (!flags)
        return NULL;
    char *end = strchr(flags + 1, '\n');
    if (end)
        *end = '\0';
    for (char *save, *word = strtok_r(flags, " \t\n:", &save); word; word = strtok_r(NULL, " \t\n:", &save)) {
        if (strcmp(word, "vmx") == 0)
            return "VT-x";
        if (strcmp(word, "svm") == 0)
            return "AMD-V";
    }
    return NULL;
}

const struct engine_ops *engine_choose_fd(enum engine_kind kind, int kvm_fd, struct hv_error *e)
{
    if (kind == ENGINE_KVM)
        return kvm_probe(kvm_fd, e) == 0 ? &engine_kvm : NULL;
    if (kind == ENGINE_AUTO && (kvm_fd >= 0 || cpu_virtualization()) && kvm_probe(kvm_fd, NULL) == 0)
        return &engine_kvm;
    return &engine_soft;
}

const struct engine_ops *engine_choose(enum engine_kind kind, struct hv_error *e)
{
    return engine_choose_fd(kind, -1, e);
}

#define EFER_LMA (1u << 10)
#define SEG_LONG (1u << 13)

int engine_get_call(struct engine *g, struct vcpu *v, struct vcpu_call *ret)
{
    struct vcpu_regs r;
    if (g->ops->get_call)
        return g->ops->get_call(v, ret);
    int err = g->ops->get_regs(v, &r);
    if (err < 0)
        return err;
    memcpy(ret->gpr, r.gpr, sizeof(ret->gpr));
    ret->long_mode = r.efer & EFER_LMA && r.seg[1].attr & SEG_LONG;
    return 0;
}

int engine_set_call(struct engine *g, struct vcpu *v, const struct vcpu_call *call)
{
    struct vcpu_regs r;
    if (g->ops->set_call)
        return g->ops->set_call(v, call);
    int err = g->ops->get_regs(v, &r);
    if (err < 0)
        return err;
    memcpy(r.gpr, call->gpr, sizeof(r.gpr));
    return g->ops->set_regs(v, &r);
}

const char *engine_describe(char *buf, size_t size)
{
    struct hv_error e = {0};
    const bool works = kvm_probe(-1, &e) == 0;
    const char *hw = cpu_virtualization();
    if (!works && access("/dev/kvm", F_OK) != 0)
        snprintf(buf, size, "there is no /dev/kvm; auto takes the soft engine.");
    else if (!works)
        snprintf(buf, size, "/dev/kvm does not serve (%s); auto takes the soft engine.", e.message);
    else if (hw)
        snprintf(buf, size, "/dev/kvm is backed by %s; auto takes the kvm engine.", hw);
    else
        snprintf(buf, size, "/dev/kvm opens, but neither VT-x nor AMD-V backs it; auto takes the soft engine.");
    return buf;
}
