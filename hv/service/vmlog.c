/*
 * A log file for each VM: what its worker has to say, with the time. The worker is handed the
 * open file as its stderr; when it is full, it is put aside as GUID.log.1, one generation, and
 * the worker gets a fresh one.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/service/service.h"

#define VMLOG_MAX ((off_t)1 << 20)

static char *log_path(const struct svc_vm *vm, const char *suffix)
{
    char id[GUID_TEXT_SIZE];
    return hv_asprintf("%s/log/%s.log%s", vm->svc->paths.state, guid_format(&vm->id, id), suffix);
}

static int open_log(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

static bool is_full(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && st.st_size >= VMLOG_MAX;
}

int vmlog_open(const struct svc_vm *vm)
{
    hv_autofree char *dir = hv_asprintf("%s/log", vm->svc->paths.state);
    hv_autofree char *path = log_path(vm, ""), *old = log_path(vm, ".1");
    struct hv_error e = {0};
    if (!dir || !path || !old)
        return -ENOMEM;
    int r = hv_make_dir(dir, 0700, &e);
    if (r < 0)
        return r;
    if (is_full(path))
        (void)rename(path, old);
    return open_log(path);
}

static void ignore_reply(void *arg, json_t *p, bool continues, const struct hv_error *e) { }

void vmlog_rotate(struct service *svc)
{
    for (struct svc_vm *vm = svc->vms; vm; vm = vm->next) {
        hv_autofree char *path = vm->link ? log_path(vm, "") : NULL;
        if (!path || !is_full(path))
            continue;
        hv_autoclose int fd = vmlog_open(vm);
        struct hv_error e = {0};
        if (fd < 0 || worker_call(vm, "org.hv.Worker.Log", json_pack("{s:i}", "fd", 0), &fd, 1, ignore_reply, NULL, &e) < 0)
            log_warning("vm=%s its log cannot be put aside: %s", vm->name, fd < 0 ? strerror(-fd) : e.message);
    }
}

void vmlog_remove(const struct svc_vm *vm)
{
    static const char *const suffixes[] = {"", ".1"};
    for (unsigned i = 0; i < ARRAY_SIZE(suffixes); i++) {
        hv_autofree char *path = log_path(vm, suffixes[i]);
        if (path)
            unlink(path);
    }
}
