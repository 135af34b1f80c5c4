/*
 * What the files of vhdtool share: opening disks as the options say, progress, copying, and
 * the commands. Each command is a noun of its own; cmd_*.c holds those that belong together.
 */
#ifndef VHDTOOL_VHDTOOL_H
#define VHDTOOL_VHDTOOL_H

#include "hv/base/lockfile.h"
#include "hv/cli/call.h"
#include "hv/cli/column.h"
#include "hv/disk/disk.h"

extern const struct cli_tool vhdtool;

#define CODE(name) (1u << HV_##name)
#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

/* Options that mean the same wherever they stand. */
#define OPT_FORMAT {.name = "format", .type = CLI_ENUM, .arg = "FORMAT", .values = "raw|vhd|vhdx", \
                    .help = "take the file for this format: raw, vhd or vhdx"}
#define OPT_PROGRESS {.name = "progress", .type = CLI_ENUM, .arg = "WHEN", .def = "auto", \
                      .values = "auto|always|never", .help = "show how far it is: auto, always or never"}
#define DISK_GLOB "*.vhdx|*.vhd|*.avhdx|*.avhd|*.raw|*.img|*.iso"

/* --format of the call, or -1. */
int wanted_format(const struct cli_call *c);
/* Open path with flags (enum of disk.h) as --format says. */
int open_disk(const struct cli_call *c, const char *path, unsigned flags, struct disk **ret,
              struct hv_error *e);
#define IN_USE_SIZE (HV_HOLDER_SIZE + 24)
/*
 * For commands that only look: a disk in use is opened without a lock, and *ret_in_use says by
 * whom ("hv-worker (pid 812)"; empty if nobody).
 */
int open_to_look(const struct cli_call *c, const char *path, unsigned flags, struct disk **ret,
                 char in_use[IN_USE_SIZE], struct hv_error *e);

/* ---- progress.c: on stderr, once a thing takes longer than a second ---- */
struct progress {
    const struct cli_call *call;
    const char *object;
    uint64_t started_ns, shown_ns;
    int shown_pct;
    bool enabled;
};
void progress_begin(struct progress *p, const struct cli_call *c, const char *object);
/* A disk_progress_fn; arg is the struct progress. */
void progress_update(void *arg, uint64_t done, uint64_t total);
void progress_end(struct progress *p);

/* ---- unfinished.c ---- */
/*
 * The name of a file beside path: PATH and suffix (".part"). Of a name too long for that the end makes way, and a number
 * made of all of it stands there: one path, one name. New; NULL without memory.
 */
char *name_beside(const char *path, const char *suffix);
/*
 * path is about to be made: SIGINT, SIGTERM and SIGHUP remove it before they end this program; not one
 * that is there already. NULL: there is nothing unfinished any more.
 */
void unfinished(const char *path);

/* ---- copy.c: content from disk to disk ---- */
struct copy {
    bool scan;                   /* look for zeros in the data too, and leave them out */
    bool zero;                   /* the target does not read as zeros: what is left out becomes so */
    disk_progress_fn *progress;
    void *progress_arg;
};
/* All of from into to, which is at least as large and, unless `zero`, reads as zeros. */
int copy_disk(struct disk *from, struct disk *to, const struct copy *how);
/*
 * What the layers of chain above layer `depth` say, written into `into`, which is that layer, open for
 * writing, and flushed. Can be stopped anywhere and done again: chain shows the same all the while.
 */
int copy_down(struct disk *chain, unsigned depth, struct disk *into, const struct copy *how);
/* From a pipe to its end; *ret_bytes what came. */
int copy_stream_in(int fd, struct disk *to, uint64_t *ret_bytes);
/* The whole disk as bytes on fd; to a file, zeros become holes. */
int copy_stream_out(struct disk *from, int fd, const struct copy *how);

/* ---- info.c ---- */
/* One disk as JSON, what `info` shows; in_use as open_to_look() gives it. New reference. */
json_t *info_json(struct disk *d, const char *path, const char *in_use, bool count);

extern const struct cli_command create_commands[], info_commands[], map_commands[], check_commands[],
    repair_commands[], convert_commands[], resize_commands[], compact_commands[], chain_commands[],
    set_commands[], merge_commands[], diff_commands[], completion_commands[], build_commands[],
    ls_commands[], cat_commands[], cp_commands[], mount_commands[], unmount_commands[], mounts_commands[],
    seed_commands[];

#endif
