/* What the host goes through: page tables, memory of its nodes, pressure stall information. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "hv/base/units.h"
#include "hv/service/service.h"

#define NODES_MAX 64u

/* The number after key in a file, KiB; -1: there is none. */
static int64_t kib_in(const char *path, const char *key)
{
    hv_autofree char *text = NULL;
    if (hv_read_file(path, 64 * KIB, &text, NULL) < 0)
        return -1;
    const char *at = strstr(text, key);
    return at ? (int64_t)(strtoull(at + strlen(key), NULL, 10) & (UINT64_MAX >> 16)) : -1;
}

/* "some avg10=1.23 avg60=..." (Documentation/accounting/psi.rst); the file is there and unreadable where it is off. */
static json_t *stalled(const char *root, const char *what)
{
    char path[300];
    hv_autofree char *text = NULL;
    snprintf(path, sizeof(path), "%s/proc/pressure/%s", root, what);
    const char *at = hv_read_file(path, 4 * KIB, &text, NULL) == 0 ? strstr(text, "some avg10=") : NULL;
    if (!at)
        return json_null();
    /* No strtod: the locale's decimal point is not the kernel's. */
    char *end;
    unsigned long whole = strtoul(at + 11, &end, 10);
    double v = (double)MIN(whole, 100ul);
    if (*end == '.' && end[1] >= '0' && end[1] <= '9')
        v += (end[1] - '0') / 10.0;
    return json_real(v);
}

static json_t *nodes(const char *root)
{
    char path[300];
    json_t *list = json_array();
    for (unsigned i = 0; i < NODES_MAX; i++) {
        snprintf(path, sizeof(path), "%s/sys/devices/system/node/node%u/meminfo", root, i);
        int64_t total = kib_in(path, "MemTotal:"), left = kib_in(path, "MemFree:");
        if (total >= 0)
            json_array_append_new(list, json_pack("{s:i s:I s:I}", "node", (int)i, "total", (json_int_t)(total * (int64_t)KIB), "free",
                                                  (json_int_t)(MAX(left, 0) * (int64_t)KIB)));
        else if (i > 0 && json_array_size(list) + 4 < i)
            break;                     /* numbers may have gaps, yet no large ones */
    }
    return list;
}

void host_load_json(const char *root, json_t *host)
{
    static const char *const what[] = {"cpu", "memory", "io"};
    char path[300];
    snprintf(path, sizeof(path), "%s/proc/meminfo", root);
    int64_t tables = kib_in(path, "PageTables:");
    json_t *memory = json_object_get(host, "memory"), *psi = json_object(), *list = nodes(root);
    if (tables >= 0 && memory)
        json_object_set_new(memory, "page_tables", json_integer(tables * (json_int_t)KIB));
    for (unsigned i = 0; i < ARRAY_SIZE(what); i++)
        json_object_set_new(psi, what[i], stalled(root, what[i]));
    json_object_set_new(host, "psi", psi);
    if (json_array_size(list))
        json_object_set(host, "numa", list);
    json_decref(list);
}
