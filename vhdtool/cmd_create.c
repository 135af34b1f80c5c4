/* create: new disks, empty or with content. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/units.h"
#include "vhdtool/cmd_create.h"
#include "vhdtool/vhdtool.h"

static const char *const type_words[] = {"fixed", "dynamic"};

static int kind_for(const struct cli_call *c, const char *path, enum disk_kind *ret, struct hv_error *e)
{
    int format = wanted_format(c), r;

    if (format >= 0) {
        *ret = (enum disk_kind)format;
        return 0;
    }
    if (disk_kind_of_path(path, ret) < 0) {
        r = hv_fail(e, HV_USAGE, path, "the name does not say which format it is to have");
        hv_hint(e, "end it in .vhdx, .vhd, .raw or .img, or give --format");
        return r;
    }
    return 0;
}


int create_request(const struct cli_call *c, const char *path, uint64_t default_size, struct disk_create *ret,
                   struct hv_error *e)
{
    const char *type = cli_text(c, "type", NULL);
    int r;

    *ret = (struct disk_create){
        .type = DISK_DYNAMIC,
        .size = cli_number(c, "size", default_size),
        .block_size = (uint32_t)cli_number(c, "block-size", 0),
        .logical_sector = (uint32_t)strtoul(cli_text(c, "logical-sector", "0"), NULL, 10),
        .physical_sector = (uint32_t)strtoul(cli_text(c, "physical-sector", "0"), NULL, 10),
        .azure = cli_has(c, "azure"),
    };
    r = kind_for(c, path, &ret->kind, e);
    for (unsigned i = 0; type && i < ARRAY_SIZE(type_words); i++) {
        if (strcmp(type, type_words[i]) == 0) {
            ret->type = (enum disk_type)i;
        }
    }
    if (r == 0 && ret->azure) {
        if (ret->kind != DISK_VHD) {
            r = hv_fail(e, HV_USAGE, path, "Azure takes fixed VHDs only: name it .vhd");
        } else if (type && ret->type != DISK_FIXED) {
            r = hv_fail(e, HV_USAGE, path, "Azure takes fixed VHDs only: leave --type out");
        }
        ret->type = DISK_FIXED;
    }
    return r;
}

static int fill(struct cli_call *c, const char *path, const char *from, struct hv_error *e)
{
    struct disk_options raw = {.format = -1};
    struct disk *to, *source = NULL;
    struct progress p;
    uint64_t bytes = 0;
    struct copy how = {.scan = true, .progress = progress_update, .progress_arg = &p};
    int r = disk_open(path, &(struct disk_options){.format = wanted_format(c), .flags = DISK_WRITE | DISK_NO_SYNC}, &to, e);

    if (r < 0) {
        return r;
    }
    progress_begin(&p, c, path);
    if (strcmp(from, "-") == 0) {
        r = copy_stream_in(STDIN_FILENO, to, &bytes);
        if (r == -EFBIG) {
            hv_fail(e, HV_NO_RESOURCES, path, "what comes from stdin is larger than the disk");
        } else if (r < 0) {
            hv_fail_errno(e, -r, path, "cannot copy what comes from stdin");
        }
    } else if ((r = disk_open(from, &raw, &source, e)) == 0) {
        if (disk_size(source) > disk_size(to)) {
            char need[24];

            r = hv_fail(e, HV_USAGE, path, "is smaller than %s, which has %s", from,
                        format_size_exact(disk_size(source), need, sizeof(need)));
        } else {
            r = copy_disk(source, to, &how);
            if (r < 0) {
                hv_fail_errno(e, -r, path, "cannot copy %s", from);
            }
        }
        disk_close(source, NULL);
    }
    progress_end(&p);
    if (r < 0) {
        disk_abandon(to);
        return r;
    }
    return disk_close(to, e);
}

static int source_size(const char *from, uint64_t *ret, struct hv_error *e)
{
    struct disk *d;
    int r;

    if (strcmp(from, "-") == 0) {
        struct stat st;

        if (fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode)) {
            *ret = ROUND_UP((uint64_t)st.st_size, DISK_SECTOR);
            return 0;
        }
        r = hv_fail(e, HV_USAGE, "--from -", "how much will come from a pipe is not known before: give --size");
        return r;
    }
    r = disk_open(from, NULL, &d, e);
    if (r == 0) {
        *ret = disk_size(d);
        disk_close(d, NULL);
    }
    return r;
}

static int create(struct cli_call *c, struct hv_error *e)
{
    const char *path = c->args[0], *from = cli_text(c, "from", NULL), *parent = cli_text(c, "parent", NULL);
    struct disk_create how;
    char size[24];
    uint64_t from_size = 0;
    int r;

    if (parent && from) {
        return hv_fail(e, HV_USAGE, "--from", "the content of a disk with a parent is the parent's");
    }
    if (parent && cli_has(c, "type")) {
        return hv_fail(e, HV_USAGE, "--type", "a disk with a parent is a differencing one: leave it out");
    }
    if (cli_has(c, "if-missing") && access(path, F_OK) == 0) {
        cli_note(c, "%s: is there already", path);
        return 0;
    }
    if (from && !cli_has(c, "size") && (r = source_size(from, &from_size, e)) < 0) {
        return r;
    }
    r = create_request(c, path, from_size, &how, e);
    if (r < 0) {
        return r;
    }
    if (parent) {
        how.type = DISK_DIFFERENCING;
        how.parent = parent;
    } else if (how.size == 0) {
        r = hv_fail(e, HV_USAGE, path, "needs a size");
        hv_hint(e, "vhdtool create %s --size 20G", path);
        return r;
    }
    unfinished(path);
    r = disk_create(path, &how, e);
    if (r == 0 && from) {
        r = fill(c, path, from, e);
        if (r < 0) {
            unlink(path);
        }
    }
    unfinished(NULL);
    if (r < 0) {
        return r;
    }
    struct disk *d;
    if (disk_open(path, &(struct disk_options){.format = (int)how.kind, .flags = DISK_SHARED | DISK_NO_PARENT}, &d, NULL) == 0) {
        struct disk_info info;

        disk_layer_info(disk_layer(d, 0), false, &info);
        cli_note(c, "%s: %s %s, %s", path, disk_type_name(info.type), disk_kind_name(info.kind),
                 format_size_exact(info.size, size, sizeof(size)));
        disk_close(d, NULL);
    }
    return 0;
}

static const struct cli_arg new_path[] = {{"PATH", CLI_FILE, .values = DISK_GLOB, .help = "the new disk"}, {0}};

static const struct cli_option create_options[] = {
    {.name = "size", .type = CLI_SIZE, .arg = "SIZE", .min = 512, .max = DISK_MAX_SIZE, .help = "how large the disk is"},
    {.name = "type", .type = CLI_ENUM, .arg = "TYPE", .def = "dynamic", .values = "dynamic|fixed",
     .help = "dynamic takes room as it fills, fixed at once"},
    {.name = "block-size", .type = CLI_SIZE, .arg = "SIZE", .def = "32M, 2M", .min = 512 * KIB, .max = 256 * MIB,
     .help = "unit of growth: VHDX 1M to 256M, VHD from 512K"},
    {.name = "logical-sector", .type = CLI_ENUM, .arg = "BYTES", .def = "512", .values = "512|4096",
     .help = "sector size the guest addresses: 512 or 4096"},
    {.name = "physical-sector", .type = CLI_ENUM, .arg = "BYTES", .def = "4096", .values = "512|4096",
     .help = "sector size the guest is told to align to"},
    {.name = "parent", .type = CLI_FILE, .arg = "BASE", .values = DISK_GLOB,
     .help = "a differencing disk: what is not written is BASE's"},
    {.name = "from", .type = CLI_FILE, .arg = "FILE", .values = "*",
     .help = "fill it from a disk, a device, or - for stdin"},
    {.name = "azure", .type = CLI_BOOL, .help = "as Azure wants it: fixed VHD, whole MiB, sparse"},
    {.name = "if-missing", .type = CLI_BOOL, .help = "exit 0 if there is one already"},
    OPT_FORMAT,
    OPT_PROGRESS,
    {0},
};

const struct cli_command create_commands[] = {
    {.noun = "create", .help = "make a new disk", .args = new_path, .options = create_options,
     .codes = CODE(CONFLICT) | CODE(NOT_FOUND) | CODE(NO_RESOURCES) | CODE(UNSUPPORTED), .run = create,
     .about = "The suffix of PATH says the format: .vhdx, .vhd, .raw or .img.",
     .examples = EXAMPLES({"vhdtool create data.vhdx --size 100G", "takes 4M now, at most 100G later"},
                          {"vhdtool create scratch.vhdx --parent base.vhdx", "changes go here, base stays as it is"},
                          {"vhdtool create up.vhd --azure --from web.vhdx", "ready to upload"})},
    {0},
};
