/* merge: children into parents. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vhdtool/vhdtool.h"

/* Which layer of the chain --into or --depth mean. */
static int target_layer(struct cli_call *c, struct disk *chain, unsigned *ret, struct hv_error *e)
{
    const char *into = cli_text(c, "into", NULL);
    uint64_t depth = cli_number(c, "depth", 1);
    struct disk_file *f;
    int r;

    if (!into) {
        if (!disk_layer(chain, (unsigned)depth)) {
            return hv_fail(e, HV_USAGE, c->args[0], "has fewer than %llu parents", (unsigned long long)depth);
        }
        *ret = (unsigned)depth;
        return 0;
    }
    r = disk_file_open(into, DISK_FILE_NO_LOCK, &f, e);
    if (r < 0) {
        return r;
    }
    r = hv_fail(e, HV_USAGE, into, "is not a parent of %s", c->args[0]);
    for (unsigned i = 1; disk_layer(chain, i); i++) {
        if (disk_file_same(disk_layer_file(disk_layer(chain, i)), f)) {
            *ret = i;
            r = 0;
        }
    }
    disk_file_unref(f);
    if (r == 0) {
        hv_error_clear(e);
    }
    return r;
}

/*
 * Restartable: while CHILD.merging is there, the parent may have changed since the child was
 * made, and the child still says all that is to be written.
 */
static int merge_in_place(struct cli_call *c, struct hv_error *e)
{
    const char *child = c->args[0];
    hv_autofree char *mark = name_beside(child, ".merging"), *target = NULL;
    unsigned flags = DISK_SHARED | (mark && access(mark, F_OK) == 0 ? DISK_IGNORE_ID : 0), depth = 0;
    char doing[600];
    struct disk_file *lock;
    struct disk *chain, *into;
    struct progress p;
    struct copy how = {.progress = progress_update, .progress_arg = &p};
    int r = mark ? disk_file_open(child, DISK_FILE_WRITE, &lock, e) : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");

    if (r < 0) {
        return r;
    }
    r = open_disk(c, child, flags, &chain, e);
    if (r < 0) {
        disk_file_unref(lock);
        return r;
    }
    r = target_layer(c, chain, &depth, e);
    if (r == 0) {
        target = hv_strdup(disk_file_path(disk_layer_file(disk_layer(chain, depth))));
        snprintf(doing, sizeof(doing), "writing into %s, which changes it for its other children", target);
        r = cli_ask(c, child, doing, e);
    }
    if (r == 0) {
        r = disk_open(target, &(struct disk_options){.format = -1, .flags = DISK_WRITE | (flags & DISK_IGNORE_ID)}, &into, e);
    }
    if (r == 0) {
        if (disk_size(into) < disk_size(chain)) {
            r = disk_resize(into, disk_size(chain), e);
        }
        r = r < 0 ? r : hv_replace_file(mark, target, strlen(target), 0600);
        progress_begin(&p, c, child);
        r = r < 0 ? r : copy_down(chain, depth, into, &how);
        progress_end(&p);
        if (r < 0) {
            hv_error_is_set(e) ? r : hv_fail_errno(e, -r, target, "cannot merge");
            disk_abandon(into);
        } else {
            r = disk_close(into, e);
        }
    }
    disk_close(chain, NULL);
    if (r == 0 && !cli_has(c, "keep-child")) {
        r = unlink(child) < 0 ? hv_fail_errno(e, errno, child, "merged; cannot delete it") : 0;
    }
    if (r == 0) {
        unlink(mark);
        cli_note(c, "%s: merged into %s", child, target);
    }
    disk_file_unref(lock);
    return r;
}

static int merge_to_new(struct cli_call *c, const char *to, struct hv_error *e)
{
    struct disk *from, *d;
    struct disk_create how = {.type = DISK_DYNAMIC};
    struct progress p;
    struct copy copy = {.progress = progress_update, .progress_arg = &p};
    int r = open_disk(c, c->args[0], 0, &from, e);

    if (r < 0) {
        return r;
    }
    if (disk_kind_of_path(to, &how.kind) < 0) {
        r = hv_fail(e, HV_USAGE, to, "the name does not say which format it is to have");
    }
    how.size = disk_size(from);
    how.logical_sector = disk_logical_sector(from);
    unfinished(to);
    r = r < 0 ? r : disk_create(to, &how, e);
    if (r == 0) {
        r = disk_open(to, &(struct disk_options){.format = (int)how.kind, .flags = DISK_WRITE}, &d, e);
        if (r == 0) {
            progress_begin(&p, c, to);
            r = copy_disk(from, d, &copy);
            progress_end(&p);
            r = r < 0 ? (disk_abandon(d), hv_fail_errno(e, -r, to, "cannot copy")) : disk_close(d, e);
        }
        if (r < 0) {
            unlink(to);
        }
    }
    unfinished(NULL);
    disk_close(from, NULL);
    return r;
}

static int merge(struct cli_call *c, struct hv_error *e)
{
    const char *to = cli_text(c, "to", NULL);

    if (to && (cli_has(c, "into") || cli_has(c, "depth"))) {
        return hv_fail(e, HV_USAGE, "--to", "does not go with --into and --depth");
    }
    return to ? merge_to_new(c, to, e) : merge_in_place(c, e);
}

static const struct cli_arg child[] = {{"CHILD", CLI_FILE, .values = DISK_GLOB, .help = "a differencing disk"}, {0}};
static const struct cli_option merge_options[] = {
    {.name = "into", .type = CLI_FILE, .arg = "PARENT", .values = DISK_GLOB, .help = "which of its parents"},
    {.name = "depth", .type = CLI_UINT, .arg = "N", .def = "1", .min = 1, .max = DISK_CHAIN_MAX, .help = "how many levels up"},
    {.name = "to", .type = CLI_FILE, .arg = "NEW", .values = DISK_GLOB, .help = "into a new disk; child and parents stay"},
    {.name = "keep-child", .type = CLI_BOOL, .help = "do not delete the child afterwards"},
    OPT_FORMAT,
    OPT_PROGRESS,
    {0},
};
const struct cli_command merge_commands[] = {
    {.noun = "merge", .help = "write a child's changes into its parent", .args = child, .options = merge_options,
     .use = CLI_USE_ASK, .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(NO_RESOURCES), .run = merge,
     .about = "Can be run again after it was interrupted. The child is deleted at the end.",
     .examples = EXAMPLES({"vhdtool merge child.vhdx --yes", "into its parent; child.vhdx goes"},
                          {"vhdtool merge child.vhdx --to whole.vhdx", "nothing is changed, all is in one disk"})},
    {0},
};
