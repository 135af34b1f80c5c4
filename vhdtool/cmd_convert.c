/* convert: the same content in another format. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/units.h"
#include "vhdtool/cmd_create.h"
#include "vhdtool/vhdtool.h"

static int to_stdout(struct cli_call *c, struct disk *from, struct hv_error *e)
{
    struct progress p;
    struct copy how = {.progress = progress_update, .progress_arg = &p};
    int r;

    if (c->tty_out) {
        return hv_fail(e, HV_USAGE, "-", "will not write a disk to a terminal");
    }
    progress_begin(&p, c, c->args[0]);
    r = copy_stream_out(from, STDOUT_FILENO, &how);
    progress_end(&p);
    return r < 0 ? hv_fail_errno(e, -r, "-", "cannot write") : 0;
}

/* What comes from a pipe: the disk is as large as that in the end. */
static int from_stdin(struct cli_call *c, const char *to, struct disk_create *how, struct hv_error *e)
{
    struct disk *d;
    uint64_t bytes = 0;
    int r;

    if (how->kind == DISK_VHD) {
        r = hv_fail(e, HV_UNSUPPORTED, to, "a VHD cannot be made smaller once it is known how much came");
        hv_hint(e, "vhdtool create %s --from - --size SIZE", to);
        return r;
    }
    if (how->type == DISK_FIXED) {
        return hv_fail(e, HV_UNSUPPORTED, to, "a fixed disk needs its size before: vhdtool create --from - --size SIZE");
    }
    how->size = how->kind == DISK_RAW ? 8 * TIB : DISK_MAX_SIZE;
    r = disk_create(to, how, e);
    if (r < 0) {
        return r;
    }
    r = disk_open(to, &(struct disk_options){.format = (int)how->kind, .flags = DISK_WRITE | DISK_NO_SYNC}, &d, e);
    if (r == 0) {
        r = copy_stream_in(STDIN_FILENO, d, &bytes);
        if (r < 0) {
            hv_fail_errno(e, -r, to, "cannot copy what comes from stdin");
        } else if (bytes == 0) {
            r = hv_fail(e, HV_USAGE, "-", "nothing came from stdin");
        } else {
            r = disk_resize(d, ROUND_UP(bytes, (uint64_t)disk_logical_sector(d)), e);
        }
        if (r < 0) {
            disk_abandon(d);
        } else {
            r = disk_close(d, e);
        }
    }
    if (r < 0) {
        unlink(to);
    }
    return r;
}

static int to_file(struct cli_call *c, struct disk *from, const char *to, struct disk_create *how, struct hv_error *e)
{
    struct disk_info info;
    struct progress p;
    struct copy copy = {.progress = progress_update, .progress_arg = &p};
    struct disk *d;
    int r = disk_layer_info(disk_layer(from, 0), false, &info);

    copy.scan = info.kind == DISK_RAW && !cli_has(c, "no-sparse");
    if (r == 0 && info.logical_sector != DISK_SECTOR && how->kind != DISK_VHDX) {
        r = hv_fail(e, HV_UNSUPPORTED, to, "%s has logical sectors of 4096 bytes: only VHDX can hold it", c->args[0]);
    } else if (how->kind == DISK_VHDX && !how->logical_sector) {
        how->logical_sector = info.logical_sector;
        how->physical_sector = info.kind == DISK_VHDX ? info.physical_sector : 0;
    }
    r = r < 0 ? r : disk_create(to, how, e);
    if (r < 0) {
        return r;
    }
    r = disk_open(to, &(struct disk_options){.format = (int)how->kind, .flags = DISK_WRITE | DISK_NO_SYNC}, &d, e);
    if (r == 0) {
        progress_begin(&p, c, to);
        r = copy_disk(from, d, &copy);
        progress_end(&p);
        if (r < 0) {
            hv_fail_errno(e, -r, to, "cannot copy %s", c->args[0]);
            disk_abandon(d);
        } else {
            r = disk_close(d, e);
        }
    }
    if (r < 0) {
        unlink(to);
    }
    return r;
}

static int convert(struct cli_call *c, struct hv_error *e)
{
    const char *from = c->args[0], *to = c->args[1];
    struct disk_create how = {0};
    struct disk *source = NULL;
    struct stat st;
    char size[24];
    int r = 0;

    if (strcmp(from, "-") == 0 && strcmp(to, "-") == 0) {
        return hv_fail(e, HV_USAGE, "-", "one side has to be a file");
    }
    if (strcmp(to, "-") != 0) {
        if (stat(to, &st) == 0 && S_ISBLK(st.st_mode)) {
            return hv_fail(e, HV_UNSUPPORTED, to, "writing to a block device is not in this version");
        }
        r = create_request(c, to, 0, &how, e);
    }
    if (r == 0 && strcmp(from, "-") == 0) {
        return from_stdin(c, to, &how, e);
    }
    if (r == 0) {
        r = disk_open(from, NULL, &source, e);
    }
    if (r < 0) {
        return r;
    }
    if (disk_layer(source, 1) && !cli_has(c, "flatten")) {
        r = hv_fail(e, HV_USAGE, from, "is a differencing disk: part of its content is its parents'");
        hv_hint(e, "--flatten copies all of it into one disk");
    } else if (strcmp(to, "-") == 0) {
        r = to_stdout(c, source, e);
    } else {
        how.size = how.azure ? ROUND_UP(disk_size(source), MIB) : disk_size(source);
        r = to_file(c, source, to, &how, e);
        if (r == 0) {
            cli_note(c, "%s: %s, %s", to, disk_kind_name(how.kind), format_size_exact(how.size, size, sizeof(size)));
        }
    }
    disk_close(source, NULL);
    return r;
}

static const struct cli_arg args[] = {
    {"SRC", CLI_FILE, .values = DISK_GLOB, .help = "a disk, or - for stdin"},
    {"DST", CLI_FILE, .values = DISK_GLOB, .help = "the new disk, or - for stdout (raw)"},
    {0},
};

static const struct cli_option options[] = {
    {.name = "type", .type = CLI_ENUM, .arg = "TYPE", .def = "dynamic", .values = "dynamic|fixed",
     .help = "dynamic takes room as it fills, fixed at once"},
    {.name = "block-size", .type = CLI_SIZE, .arg = "SIZE", .def = "32M, 2M", .min = 512 * KIB, .max = 256 * MIB,
     .help = "unit of growth: VHDX 1M to 256M, VHD from 512K"},
    {.name = "logical-sector", .type = CLI_ENUM, .arg = "BYTES", .def = "512", .values = "512|4096",
     .help = "sector size the guest addresses: 512 or 4096"},
    {.name = "physical-sector", .type = CLI_ENUM, .arg = "BYTES", .def = "4096", .values = "512|4096",
     .help = "sector size the guest is told to align to"},
    {.name = "flatten", .type = CLI_BOOL, .help = "copy what the parents hold too"},
    {.name = "no-sparse", .type = CLI_BOOL, .help = "copy zeros of a raw disk as data"},
    {.name = "azure", .type = CLI_BOOL, .help = "as Azure wants it: fixed VHD, whole MiB, sparse"},
    {.name = "size", .type = CLI_SIZE, .arg = "SIZE", .flags = CLI_LATER, .help = "how large the disk is"},
    OPT_FORMAT,
    OPT_PROGRESS,
    {0},
};

const struct cli_command convert_commands[] = {
    {.noun = "convert", .help = "copy a disk into another format", .args = args, .options = options,
     .codes = CODE(CONFLICT) | CODE(NOT_FOUND) | CODE(NO_RESOURCES) | CODE(UNSUPPORTED), .run = convert,
     .about = "The suffix of DST says the format. What the source's map says is empty is neither read nor written.",
     .examples = EXAMPLES({"vhdtool convert old.vhd new.vhdx", "VHD to VHDX"},
                          {"vhdtool convert web.vhdx - | zstd > web.raw.zst", "as a stream of raw bytes"})},
    {0},
};
