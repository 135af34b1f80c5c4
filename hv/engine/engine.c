/*
 * Which engine serves here (DESIGN 3): `kvm` only where VT-x or AMD-V backs /dev/kvm, as a
 * KVM that is itself emulated is slower than our own interpreter; else `soft`.
 */
#include "hv/engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

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

const struct engine_ops *engine_choose(enum engine_kind kind, struct hv_error *e)
{
    if (kind == ENGINE_KVM) {
        hv_fail(e, HV_UNSUPPORTED, NULL, "the kvm engine is not in this version");
        hv_hint(e, "use --engine soft, or leave the choice to hv with --engine auto");
        return NULL;
    }
    return &engine_soft;
}

const char *engine_describe(char *buf, size_t size)
{
    hv_autoclose int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    const int err = fd < 0 ? errno : 0;
    const char *hw = cpu_virtualization();
    char kvm[160];
    if (err == ENOENT || err == ENODEV || err == ENXIO)
        snprintf(kvm, sizeof(kvm), "there is no /dev/kvm");
    else if (err)
        snprintf(kvm, sizeof(kvm), "/dev/kvm does not open (%s)", strerror(err));
    else if (hw)
        snprintf(kvm, sizeof(kvm), "/dev/kvm is backed by %s", hw);
    else
        snprintf(kvm, sizeof(kvm), "/dev/kvm opens, but neither VT-x nor AMD-V backs it");
    snprintf(buf, size, "%s; auto takes the soft engine%s.", kvm,
             !err && hw ? " (the kvm engine is not in this version)" : "");
    return buf;
}
