/* A folder of files like those the kernel shows, for tests of what reads them. After cmocka.h. */
#ifndef TESTS_SERVICE_TREE_H
#define TESTS_SERVICE_TREE_H

#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "hv/base/base.h"

static char top[64];

static int make_top(void **state)
{
    snprintf(top, sizeof(top), "/tmp/hv-tree-XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f) { return remove(path); }
static int drop_top(void **state) { return nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

/* A file below top, with the folders on its way. */
static inline void put(const char *path, const char *text)
{
    char full[400];
    snprintf(full, sizeof(full), "%s/%s", top, path);
    for (char *p = strchr(full + strlen(top) + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        mkdir(full, 0700);
        *p = '/';
    }
    assert_int_equal(hv_replace_file(full, text, strlen(text), 0600), 0);
}

#endif
