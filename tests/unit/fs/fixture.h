/* A disk in memory that other programs can look at too: /proc/self/fd/N. */
#ifndef TESTS_FS_FIXTURE_H
#define TESTS_FS_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/endian.h"
#include "hv/disk/disk.h"

struct mem_disk { struct disk *d; int fd; char path[64]; };

static inline struct mem_disk mem_disk_of(int fd)
{
    struct mem_disk m = { .fd = fd };
    struct disk_file *f;
    struct hv_error e = { 0 };
    struct disk_options o = { .flags = DISK_WRITE | DISK_AS_RAW, .format = DISK_RAW };

    snprintf(m.path, sizeof(m.path), "/proc/%d/fd/%d", (int)getpid(), fd);
    assert_int_equal(disk_file_from_fd(dup(fd), "memory", DISK_FILE_WRITE | DISK_FILE_NO_LOCK, &f, &e), 0);
    assert_int_equal(disk_open_file(f, &o, &m.d, &e), 0);
    return m;
}

static inline struct mem_disk mem_disk_new(uint64_t size)
{
    int fd = memfd_create("disk", 0);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return mem_disk_of(fd);
}

static inline void mem_disk_free(struct mem_disk *m)
{
    assert_int_equal(disk_close(m->d, NULL), 0);
    close(m->fd);
}

/* Runs a command; its exit status, what it printed in out[size] (cut). 127: no such program. */
static inline int run_command(char *out, size_t size, const char *fmt, ...)
{
    char cmd[1024];
    va_list ap;
    size_t n;

    va_start(ap, fmt);
    vsnprintf(cmd, sizeof(cmd), fmt, ap);
    va_end(ap);
    FILE *p = popen(cmd, "r");
    assert_non_null(p);
    n = fread(out, 1, size - 1, p);
    out[n] = '\0';
    int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#endif
