/* convert: the same content in another format. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/units.h"
#include "vhdtool/cmd_create.h"
#include "vhdtool/content.h"
#include "vhdtool/device.h"

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
    bool sized = how->size > 0;
    int r;

    if (how->kind == DISK_VHD && !how->size) {
        r = hv_fail(e, HV_UNSUPPORTED, to, "a VHD cannot be made smaller once it is known how much came");
        hv_hint(e, "vhdtool convert - %s --size SIZE", to);
        return r;
    }
    if (how->type == DISK_FIXED && !how->size) {
        r = hv_fail(e, HV_UNSUPPORTED, to, "a fixed disk needs its size before");
        hv_hint(e, "vhdtool convert - %s --type fixed --size SIZE", to);
        return r;
    }
    how->size = sized ? how->size : how->kind == DISK_RAW ? 8 * TIB : DISK_MAX_SIZE;
    unfinished(to);
    r = disk_create(to, how, e);
    if (r < 0) {
        unfinished(NULL);
        return r;
    }
    r = disk_open(to, &(struct disk_options){.format = (int)how->kind, .flags = DISK_WRITE | DISK_NO_SYNC}, &d, e);
    if (r == 0) {
        r = copy_stream_in(STDIN_FILENO, d, &bytes);
        if (r == -EFBIG && sized) {
            r = hv_fail(e, HV_NO_RESOURCES, to, "what comes from stdin is larger than the disk");
        } else if (r < 0) {
            hv_fail_errno(e, -r, to, "cannot copy what comes from stdin");
        } else if (bytes == 0) {
            r = hv_fail(e, HV_USAGE, "-", "nothing came from stdin");
        } else if (!sized) {
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
    unfinished(NULL);
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
    unfinished(to);
    r = r < 0 ? r : disk_create(to, how, e);
    if (r < 0) {
        unfinished(NULL);
        return r;
    }
    r = disk_open(to, &(struct disk_options){.format = (int)how->kind, .flags = DISK_WRITE | DISK_NO_SYNC}, &d, e);
    if (r == 0) {
        progress_begin(&p, c, to);
        r = copy_disk(from, d, &copy);
        progress_end(&p);
        if (r < 0) {
            if (r == -EUCLEAN) {
                hv_fail(e, HV_FAILED, c->args[0], "is damaged: not all of it can be read");
                hv_hint(e, "vhdtool check --chain %s", c->args[0]);
            } else {
                hv_fail_errno(e, -r, to, "cannot copy %s", c->args[0]);
            }
        } else if (disk_size(d) > disk_size(from)) {
            r = content_move_backup(d, disk_size(d), e);
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
    unfinished(NULL);
    return r;
}

/* The last MiB of a device, where the backup of an older table would be found. */
static int wipe_end(struct disk *d, uint64_t from)
{
    uint64_t size = disk_size(d), start = size > MIB ? size - MIB : 0;

    start = MAX(start, from);
    return start < size ? disk_zero(d, start, size - start) : 0;
}

static int fill_device(struct cli_call *c, struct disk *from, struct disk *to, struct hv_error *e)
{
    struct progress p;
    struct copy copy = {.scan = true, .zero = true, .progress = progress_update, .progress_arg = &p};
    int r;

    progress_begin(&p, c, c->args[1]);
    r = copy_disk(from, to, &copy);
    r = r < 0 ? r : wipe_end(to, disk_size(from));
    progress_end(&p);
    if (r < 0) {
        return hv_fail_errno(e, -r, c->args[1], "cannot copy %s", c->args[0]);
    }
    return content_move_backup(to, disk_size(to), e);
}

/* Everything on the device is lost: whose it is and that it is meant has to be clear. */
static int to_device(struct cli_call *c, struct disk *from, const char *to, struct hv_error *e)
{
    static const char *const not_here[] = {"type", "block-size", "logical-sector", "physical-sector", "azure", "size"};
    char size[24], need[24], doing[256];
    struct disk_file *f;
    struct device dev;
    struct disk *d;
    int fd, lock, r;

    for (size_t i = 0; i < ARRAY_SIZE(not_here); i++) {
        if (cli_has(c, not_here[i])) {
            return hv_fail(e, HV_USAGE, to, "a device is written as it is: --%s is for image files", not_here[i]);
        }
    }
    if (wanted_format(c) > 0) {
        return hv_fail(e, HV_USAGE, to, "a device is written raw");
    }
    r = device_open(to, &dev, &lock, e);
    if (r < 0) {
        return r;
    }
    format_size_exact(dev.size, size, sizeof(size));
    if (dev.size < disk_size(from)) {
        r = hv_fail(e, HV_NO_RESOURCES, to, "has %s, %s needs %s", size, c->args[0],
                    format_size_exact(disk_size(from), need, sizeof(need)));
    } else if (dev.sector != disk_logical_sector(from)) {
        r = hv_fail(e, HV_UNSUPPORTED, to, "has sectors of %u bytes, %s of %u: its partition table would mean nothing there",
                    dev.sector, c->args[0], disk_logical_sector(from));
    } else {
        snprintf(doing, sizeof(doing), "overwriting all of %s, %s", dev.model, size);
        r = cli_ask(c, to, doing, e);
    }
    fd = r < 0 ? -1 : fcntl(lock, F_DUPFD_CLOEXEC, 3);
    if (r == 0 && fd < 0) {
        r = hv_fail_errno(e, errno, to, "cannot open");
    }
    r = r < 0 ? r : disk_file_from_fd(fd, to, DISK_FILE_WRITE, &f, e);
    r = r < 0 ? r : disk_open_file(f, &(struct disk_options){.format = DISK_RAW, .flags = DISK_WRITE}, &d, e);
    if (r == 0) {
        r = fill_device(c, from, d, e);
        if (r < 0) {
            disk_abandon(d);
        } else {
            r = disk_close(d, e);
        }
    }
    if (r == 0) {
        device_reread(lock);
        cli_note(c, "%s: %s, %s of %s", to, dev.model, format_size_exact(disk_size(from), need, sizeof(need)), size);
    }
    close(lock);
    return r;
}

static int convert(struct cli_call *c, struct hv_error *e)
{
    const char *from = c->args[0], *to = c->args[1];
    struct disk_create how = {0};
    struct disk *source = NULL;
    bool device = device_is(to);
    char size[24];
    int r = 0;

    if (strcmp(from, "-") == 0 && strcmp(to, "-") == 0) {
        return hv_fail(e, HV_USAGE, "-", "one side has to be a file");
    }
    if (device && strcmp(from, "-") == 0) {
        r = hv_fail(e, HV_UNSUPPORTED, to, "what comes from stdin goes into a file first");
        hv_hint(e, "vhdtool convert - IMAGE.vhdx, then vhdtool convert IMAGE.vhdx %s", to);
        return r;
    }
    if (strcmp(to, "-") != 0 && !device) {
        r = create_request(c, to, 0, &how, e);
        how.no_sync = true;
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
    } else if (device) {
        r = to_device(c, source, to, e);
    } else {
        if (how.size && how.size < disk_size(source)) {
            r = hv_fail(e, HV_USAGE, to, "is to be smaller than %s, which has %s", from,
                        format_size_exact(disk_size(source), size, sizeof(size)));
        }
        how.size = MAX(how.size, disk_size(source));
        how.size = how.azure ? ROUND_UP(how.size, MIB) : how.size;
        r = r < 0 ? r : to_file(c, source, to, &how, e);
        if (r == 0) {
            cli_note(c, "%s: %s, %s", to, disk_kind_name(how.kind), format_size_exact(how.size, size, sizeof(size)));
        }
    }
    disk_close(source, NULL);
    return r;
}

static const struct cli_arg args[] = {
    {"SRC", CLI_FILE, .values = DISK_GLOB, .help = "a disk, or - for stdin"},
    {"DST", CLI_FILE, .values = DISK_GLOB, .help = "the new disk, a block device, or - for stdout (raw)"},
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
    {.name = "size", .type = CLI_SIZE, .arg = "SIZE", .min = 512, .max = DISK_MAX_SIZE, .help = "larger than SRC, or of what comes from a pipe"},
    OPT_FORMAT,
    OPT_PROGRESS,
    {0},
};

const struct cli_command convert_commands[] = {
    {.noun = "convert", .help = "copy a disk into another format", .args = args, .options = options, .use = CLI_USE_ASK,
     .codes = CODE(CONFLICT) | CODE(NOT_FOUND) | CODE(NO_RESOURCES) | CODE(UNSUPPORTED), .run = convert,
     .about = "The suffix of DST says the format. What the source's map says is empty is neither read nor written. "
              "A new file is not synced, as with cp. Onto a block device: refused while anything of it is mounted, "
              "asked for first; what is not in SRC reads as zeros, and the backup of a GPT moves to the device's end.",
     .examples = EXAMPLES({"vhdtool convert old.vhd new.vhdx", "VHD to VHDX"},
                          {"vhdtool convert web.vhdx - | zstd > web.raw.zst", "as a stream of raw bytes"},
                          {"vhdtool convert web.vhdx /dev/sdb", "onto a real disk"})},
    {0},
};
