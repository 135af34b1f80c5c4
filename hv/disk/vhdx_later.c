/* VHDX is told from other files, and not read yet. */
#include <errno.h>
#include <string.h>

#include "hv/disk/disk_impl.h"

static int vhdx_probe(struct disk_file *f)
{
    char head[8];

    return disk_file_read(f, 0, head, sizeof(head)) == 0 && memcmp(head, "vhdxfile", 8) == 0 ? 2 : 0;
}

static int vhdx_open(struct disk_layer *l, struct hv_error *e)
{
    return hv_fail(e, HV_UNSUPPORTED, disk_file_path(l->file), "VHDX is not in this version");
}

static int vhdx_create(struct disk_file *f, const struct disk_create *c, struct disk *parent, struct hv_error *e)
{
    (void)c;
    (void)parent;
    return hv_fail(e, HV_UNSUPPORTED, disk_file_path(f), "VHDX is not in this version");
}

const struct disk_format disk_format_vhdx = {
    .kind = DISK_VHDX, .name = "vhdx", .probe = vhdx_probe, .open = vhdx_open, .create = vhdx_create,
};
