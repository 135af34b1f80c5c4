/*
 * The descriptors a worker gets with Setup: a name and a descriptor each, in the order they
 * were added. The service opens, with the rights of whoever asks for the start, and never
 * looks into what it opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "hv/service/service.h"

int handover_add(struct handover *h, const char *name, int fd)
{
    if (h->count == HANDOVER_MAX || !hv_strlcpy(h->item[h->count].name, name, sizeof(h->item[0].name))) {
        close(fd);
        return -E2BIG;
    }
    h->item[h->count++].fd = fd;
    return 0;
}

void handover_close(struct handover *h)
{
    while (h->count)
        close(h->item[--h->count].fd);
}

json_t *handover_json(const struct handover *h, int fds[HANDOVER_MAX])
{
    json_t *names = json_object();
    for (unsigned i = 0; i < h->count; i++) {
        fds[i] = h->item[i].fd;
        json_object_set_new(names, h->item[i].name, json_integer(i));
    }
    return names;
}

/* ---- what a VM needs ---- */

static int add_file(struct handover *h, const char *name, const char *path, const struct varlink_peer *peer,
                    struct hv_error *e)
{
    int fd = path ? broker_open(peer, path, name, e) : -1;
    if (!path || fd < 0)
        return path ? fd : 0;
    return handover_add(h, name, fd) < 0 ? hv_fail(e, HV_NO_RESOURCES, path, "too many files for one VM") : 0;
}

/* Only where it will be used: a KVM that no hardware backs is slower than the soft engine (DESIGN 3). */
static int add_kvm(struct handover *h, const struct svc_vm *vm, struct hv_error *e)
{
    const bool wanted = vm->settings.engine == SET_ENGINE_KVM;
    if (!wanted && (vm->settings.engine != SET_ENGINE_AUTO || !host_virtualization()))
        return 0;
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        return handover_add(h, "kvm", fd) < 0 ? -E2BIG : 0;
    if (!wanted)
        return 0;
    const int err = errno;
    if (err == ENOENT || err == ENODEV || err == ENXIO) {
        hv_fail(e, HV_UNSUPPORTED, vm->name, "the kvm engine needs /dev/kvm, which this host has not");
        hv_hint(e, "use --engine soft, or load the modules kvm_intel or kvm_amd");
        return -EOPNOTSUPP;
    }
    hv_fail_errno(e, err, "/dev/kvm", "cannot open it");
    hv_hint(e, "use --engine soft, or join the group that owns /dev/kvm");
    return -err;
}

int handover_for_start(const struct svc_vm *vm, const struct varlink_peer *peer, struct handover *h, struct hv_error *e)
{
    const struct settings *s = &vm->settings;
    int r = add_file(h, "kernel", s->boot.kernel, peer, e);
    if (r == 0)
        r = add_file(h, "initrd", s->boot.initrd, peer, e);
    if (r == 0)
        r = add_kvm(h, vm, e);
    if (r < 0)
        handover_close(h);
    return r;
}
