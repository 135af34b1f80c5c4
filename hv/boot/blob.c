/* Kernel and initrd bytes, read with pread so that a file cut meanwhile is an error and no SIGBUS. */
#include "hv/boot/blob.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/fault.h"
#include "hv/memory/memory.h"

int blob_from_fd(int fd, const char *name, struct blob *ret, struct hv_error *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return hv_fail_errno(e, errno, name, "cannot read the file");
    }
    if (S_ISDIR(st.st_mode)) {
        return hv_fail(e, HV_USAGE, name, "is a folder");
    }
    if (!S_ISREG(st.st_mode)) {
        hv_fail(e, HV_USAGE, name, "is not a regular file");
        hv_hint(e, "copy it to a file first");
        return -EINVAL;
    }
    if (st.st_size == 0) {
        return hv_fail(e, HV_USAGE, name, "is empty");
    }
    *ret = (struct blob){ .fd = fd, .size = (uint64_t)st.st_size, .name = name };
    return 0;
}

struct blob blob_from_memory(const void *data, uint64_t size, const char *name)
{
    return (struct blob){ .fd = -1, .data = data, .size = size, .name = name };
}

int blob_read(const struct blob *b, uint64_t off, void *buf, uint64_t len, struct hv_error *e)
{
    if (off > b->size || len > b->size - off) {
        return hv_fail(e, HV_USAGE, b->name, "is truncated");
    }
    if (b->fd < 0) {
        memcpy(buf, b->data + off, len);
        return 0;
    }
    for (uint64_t done = 0; done < len;) {
        int r = fault_check(FAULT_READ);
        ssize_t n = r < 0 ? -1 : pread(b->fd, (uint8_t *)buf + done, len - done, (off_t)(off + done));
        if (n < 0) {
            int err = r < 0 ? -r : errno;
            if (err == EINTR) {
                continue;
            }
            return hv_fail_errno(e, err, b->name, "cannot read the file");
        }
        if (n == 0) {
            return hv_fail(e, HV_FAILED, b->name, "became shorter while it was read");
        }
        done += (uint64_t)n;
    }
    return 0;
}

int blob_read_guest(const struct blob *b, uint64_t off, struct mem *m, uint64_t gpa, uint64_t len,
                    struct hv_error *e)
{
    struct mem_pin pin;

    if (len == 0) {
        return 0;
    }
    if (mem_pin(m, gpa, len, MEM_WRITE, &pin) < 0) {
        return hv_fail(e, HV_FAILED, b->name, "no memory at guest address 0x%llx",
                       (unsigned long long)gpa);
    }
    int r = blob_read(b, off, pin.hva, len, e);
    mem_unpin(&pin);
    return r;
}
