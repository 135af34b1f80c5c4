/* See cgroup.h. Files as in Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. */
#include "hv/service/cgroup.h"

#define LEVELS_MAX 32
#define NO_LIMIT ((uint64_t)1 << 62)        /* version 1 writes the largest page count for none */

static const struct files { const char *limit, *usage, *cache; } v2 = {"memory.max", "memory.current", "inactive_file "},
    v1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "};

static char *read_in(const char *dir, const char *file)
{
    hv_autofree char *path = hv_asprintf("%s/%s", dir, file);
    char *text = NULL;
    return path && hv_read_file(path, 64 * KIB, &text, NULL) == 0 ? text : NULL;
}

/* A number of a file, UINT64_MAX for "max", for none, or if it cannot be read. */
static uint64_t number_in(const char *dir, const char *file)
{
    hv_autofree char *text = read_in(dir, file);
    if (!text || text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    uint64_t v = strtoull(text, NULL, 10);
    return v >= NO_LIMIT ? UINT64_MAX : v;
}

static uint64_t cache_in(const char *dir, const char *key)
{
    hv_autofree char *text = read_in(dir, "memory.stat");
    for (const char *p = text; p && (p = strstr(p, key)); p++)
        if (p == text || p[-1] == '\n')
            return strtoull(p + strlen(key), NULL, 10);
    return 0;
}

static void one_group(const char *dir, const struct files *f, struct cgroup_memory *m)
{
    uint64_t limit = number_in(dir, f->limit);
    if (limit == UINT64_MAX)
        return;
    uint64_t usage = number_in(dir, f->usage), cache = cache_in(dir, f->cache);
    usage = usage == UINT64_MAX ? 0 : usage - MIN(cache, usage);
    m->limit = MIN(m->limit, limit);
    m->available = MIN(m->available, limit > usage ? limit - usage : 0);
}

/* The group and all above it. Inside a container the path may lead out of what is mounted: then only the top is there. */
static void walk_up(const char *mount, const char *group, const struct files *f, struct cgroup_memory *m)
{
    char dir[4096];
    int n = snprintf(dir, sizeof(dir), "%s%s", mount, group);
    const size_t top = strlen(mount);
    if (n < 0 || (size_t)n >= sizeof(dir) || strstr(group, "/.."))
        return;
    for (unsigned level = 0; level < LEVELS_MAX; level++) {
        one_group(dir, f, m);
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < top || strlen(dir) <= top)
            return;
        *slash = 0;
    }
}

/* Is `memory` among the controllers "a,memory,b"? */
static bool has_memory(const char *list, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t n = 0;
        while (at + n < len && list[at + n] != ',')
            n++;
        if (n == 6 && memcmp(list + at, "memory", 6) == 0)
            return true;
        at += n + 1;
    }
    return false;
}

struct cgroup_memory cgroup_memory(const char *membership, const char *mount)
{
    struct cgroup_memory m = {.limit = UINT64_MAX, .available = UINT64_MAX};
    for (const char *line = membership; *line;) {
        const size_t len = strcspn(line, "\n");
        const char *list = memchr(line, ':', len), *path = list ? memchr(list + 1, ':', len - (size_t)(list + 1 - line)) : NULL;
        if (path) {
            hv_autofree char *group = hv_asprintf("%.*s", (int)(line + len - path - 1), path + 1);
            hv_autofree char *unified = hv_asprintf("%s/unified", mount), *memory = hv_asprintf("%s/memory", mount);
            if (!group || !unified || !memory)
                break;
            if (group[0] == '/' && !group[1])
                group[0] = 0;
            if (path == list + 1) {
                walk_up(mount, group, &v2, &m);
                walk_up(unified, group, &v2, &m);
            } else if (has_memory(list + 1, (size_t)(path - list - 1))) {
                walk_up(memory, group, &v1, &m);
            }
        }
        line += len + (line[len] == '\n');
    }
    return m;
}
