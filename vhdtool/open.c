/* Opening disks as the options say. */
#include <errno.h>
#include <string.h>

#include "hv/base/lockfile.h"
#include "vhdtool/vhdtool.h"

int wanted_format(const struct cli_call *c)
{
    enum disk_kind kind;
    const char *word = cli_text(c, "format", NULL);

    return word && disk_kind_parse(word, &kind) == 0 ? (int)kind : -1;
}

static bool has_format(const struct cli_call *c)
{
    return cli_option_find(c->cmd, "format", strlen("format")) != NULL;
}

int open_disk(const struct cli_call *c, const char *path, unsigned flags, struct disk **ret,
              struct hv_error *e)
{
    struct disk_options o = {.flags = flags, .format = has_format(c) ? wanted_format(c) : -1};

    return disk_open(path, &o, ret, e);
}

int open_to_look(const struct cli_call *c, const char *path, unsigned flags, struct disk **ret,
                 char in_use[IN_USE_SIZE], struct hv_error *e)
{
    struct hv_lock_holder h;
    int r = open_disk(c, path, flags, ret, e);

    in_use[0] = '\0';
    if (r != -EBUSY) {
        return r;
    }
    if (hv_lock_holder(path, false, &h) == 0) {
        snprintf(in_use, IN_USE_SIZE, "%s (pid %d)", h.name, h.pid);
    } else {
        hv_strlcpy(in_use, "another process", IN_USE_SIZE);
    }
    hv_error_clear(e);
    return open_disk(c, path, flags | DISK_SHARED, ret, e);
}
