/* Which checker a partition gets, and how problems are told. */
#include "hv/fs/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static void tell(struct fs_checker *k, bool harmless, const char *fmt, va_list ap)
{
    struct disk_problem p = { .harmless = harmless };

    if (!harmless && k->told >= FS_CHECK_PROBLEMS) {
        k->more++;
        return;
    }
    k->told += !harmless;
    vsnprintf(p.text, sizeof(p.text), fmt, ap);
    k->fn(k->arg, &p);
}

void fs_found(struct fs_checker *k, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    tell(k, false, fmt, ap);
    va_end(ap);
}

void fs_remark(struct fs_checker *k, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    tell(k, true, fmt, ap);
    va_end(ap);
}

int fs_check(struct disk *d, uint64_t off, uint64_t len, disk_problem_fn *fn, void *arg, struct hv_error *e)
{
    struct fs_checker k = { .fn = fn, .arg = arg };
    struct probe p;
    int r = probe_read(d, off, len, &p);

    if (r < 0) {
        return hv_fail_errno(e, -r, NULL, "cannot read the file system");
    }
    if (p.kind == PROBE_EXT) {
        r = ext4_check(d, off, len, &k, e);
    } else if (p.kind == PROBE_FAT) {
        r = fat_check(d, off, len, &k, e);
    } else if (p.kind != PROBE_NONE && p.kind != PROBE_SWAP) {
        fs_remark(&k, "%s is not checked", p.type);
    }
    if (k.more) {
        k.told = 0;
        fs_found(&k, "%u more problems", k.more);
    }
    return r;
}
