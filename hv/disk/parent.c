/*
 * Names of parents: how they stand in images (UTF-16, backslashes, drive letters) and how
 * they are found on this host.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "hv/base/endian.h"
#include "hv/disk/disk_impl.h"

/* ---- UTF-16 ---- */

static size_t put_utf8(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

void disk_utf16_to_utf8(const uint8_t *text, size_t len_bytes, bool big_endian, char *buf, size_t size)
{
    size_t at = 0;

    for (size_t i = 0; i + 2 <= len_bytes; i += 2) {
        uint32_t c = big_endian ? get_be16(text + i) : get_le16(text + i);
        char one[4];
        size_t n;

        if (c == 0) {
            break;
        }
        if (c >= 0xd800 && c < 0xdc00 && i + 4 <= len_bytes) {
            uint32_t low = big_endian ? get_be16(text + i + 2) : get_le16(text + i + 2);

            if (low >= 0xdc00 && low < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                i += 2;
            }
        }
        /* Control characters would go to terminals and logs as they are: not from an image. */
        n = put_utf8((c >= 0xd800 && c < 0xe000) || c < 0x20 || c == 0x7f ? '?' : c, one);
        if (at + n >= size) {
            break;
        }
        memcpy(buf + at, one, n);
        at += n;
    }
    if (size > 0) {
        buf[at] = '\0';
    }
}

/* One code point from *text, which moves on; 0xffffffff if it is not UTF-8. */
static uint32_t get_utf8(const uint8_t **text)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const uint8_t *p = *text;
    int n = *p < 0x80 ? 1 : (*p & 0xe0) == 0xc0 ? 2 : (*p & 0xf0) == 0xe0 ? 3 : (*p & 0xf8) == 0xf0 ? 4 : 0;
    uint32_t c;

    if (n == 0) {
        return UINT32_MAX;
    }
    c = n == 1 ? *p : *p & (0xffu >> (n + 1));
    for (int i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return UINT32_MAX;
        }
        c = c << 6 | (p[i] & 0x3f);
    }
    *text = p + n;
    return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? UINT32_MAX : c;
}

int disk_utf8_to_utf16(const char *text, bool big_endian, uint8_t *out, size_t size)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t at = 0;

    while (*p) {
        uint32_t c = get_utf8(&p), units[2];
        int n = c >= 0x10000 ? 2 : 1;

        if (c == UINT32_MAX) {
            return -EILSEQ;
        }
        units[0] = n == 1 ? c : 0xd800 + ((c - 0x10000) >> 10);
        units[1] = 0xdc00 + ((c - 0x10000) & 0x3ff);
        for (int i = 0; i < n; i++, at += 2) {
            if (at + 2 > size) {
                return -EMSGSIZE;
            }
            if (big_endian) {
                put_be16(out + at, (uint16_t)units[i]);
            } else {
                put_le16(out + at, (uint16_t)units[i]);
            }
        }
    }
    return (int)at;
}

bool disk_url_path(const uint8_t *text, size_t len, char *out, size_t size)
{
    static const char scheme[] = "file://";
    const size_t head = sizeof(scheme) - 1;
    size_t at = 0;

    len = strnlen((const char *)text, len);          /* some count the NUL */
    if (len < head || strncasecmp((const char *)text, scheme, head) != 0) {
        return false;
    }
    for (text += head, len -= head; len > 0 && *text != '/'; len--) {
        text++;                                      /* a host: "" or "localhost", whose path it is */
    }
    while (len > 0) {
        const int high = *text == '%' && len > 2 ? hv_hex_digit((char)text[1]) : -1;
        const int low = high < 0 ? -1 : hv_hex_digit((char)text[2]);
        const uint8_t c = low < 0 ? *text : (uint8_t)(high << 4 | low);
        const size_t used = low < 0 ? 1 : 3;

        /* No path has these in a name, and what is cut is another path. */
        if (c < 0x20 || c == 0x7f || (used == 3 && c == '/') || at + 1 >= size) {
            return false;
        }
        out[at++] = (char)c;
        text += used;
        len -= used;
    }
    out[at] = '\0';
    for (const uint8_t *p = (const uint8_t *)out; *p;) {
        if (get_utf8(&p) == UINT32_MAX) {
            return false;
        }
    }
    return at > 0;
}

/* ---- writing names ---- */

static char *real_path(const char *path)
{
    char *p = realpath(path, NULL);

    return p ? p : hv_strdup(path);
}

/* The path from the folder of `from` to `to`, both absolute: "../a/b" or "a/b". */
static char *relative_path(const char *from, const char *to)
{
    size_t common = 0, ups = 0, at = 0;
    char *out;

    for (size_t i = 0; from[i] && from[i] == to[i]; i++) {
        if (from[i] == '/') {
            common = i + 1;
        }
    }
    for (const char *p = from + common; *p; p++) {
        ups += *p == '/';
    }
    out = hv_alloc(3 * ups + strlen(to + common) + 1);
    if (!out) {
        return NULL;
    }
    for (size_t i = 0; i < ups; i++, at += 3) {
        memcpy(out + at, "../", 3);
    }
    memcpy(out + at, to + common, strlen(to + common));
    return out;
}

int disk_parent_paths(const char *child_path, const char *parent_path, struct disk_parent_ref *ref,
                      struct hv_error *e)
{
    hv_autofree char *child = real_path(child_path);
    hv_autofree char *parent = real_path(parent_path);
    hv_autofree char *relative = NULL;
    const char *base;

    if (!child || !parent) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    relative = relative_path(child, parent);
    base = strrchr(parent, '/');
    base = base ? base + 1 : parent;
    if (!relative ||
        snprintf(ref->relative, sizeof(ref->relative), "%s%s", strncmp(relative, "../", 3) ? ".\\" : "",
                 relative) >= (int)sizeof(ref->relative) ||
        !hv_strlcpy(ref->absolute, parent, sizeof(ref->absolute)) ||
        !hv_strlcpy(ref->name, base, sizeof(ref->name))) {
        return hv_fail(e, HV_USAGE, parent_path, "the path is too long to be a parent's");
    }
    for (char *p = ref->relative; *p; p++) {
        *p = *p == '/' ? '\\' : *p;
    }
    ref->volume[0] = '\0';
    return 0;
}

/* ---- finding them ---- */

static bool is_below(const char *path, const char *const *dirs)
{
    hv_autofree char *real = realpath(path, NULL);

    if (!dirs) {
        return true;
    }
    for (; real && *dirs; dirs++) {
        size_t n = strlen(*dirs);

        if (strncmp(real, *dirs, n) == 0 && (real[n] == '/' || (n > 0 && (*dirs)[n - 1] == '/'))) {
            return true;
        }
    }
    return false;
}

/* path as it is, or with its last component in another case: the name that exists, or NULL. */
static char *existing(const char *path)
{
    hv_autofree char *dir = NULL;
    const char *slash = strrchr(path, '/');
    char *found = NULL;
    DIR *d;

    if (access(path, F_OK) == 0) {
        return hv_strdup(path);
    }
    dir = slash ? hv_asprintf("%.*s", (int)(slash - path) + 1, path) : hv_strdup("./");
    d = dir ? opendir(dir) : NULL;
    for (struct dirent *de = d ? readdir(d) : NULL; de && !found; de = readdir(d)) {
        if (strcasecmp(de->d_name, slash ? slash + 1 : path) == 0) {
            found = hv_asprintf("%s%s", dir, de->d_name);
        }
    }
    if (d) {
        closedir(d);
    }
    return found;
}

static bool is_windows_path(const char *p)
{
    return strncmp(p, "\\\\", 2) == 0 || (p[0] && p[1] == ':');
}

/* Candidate i as a path of this host, or NULL if ref has no such name. */
char *disk_parent_candidate(const char *child_path, const struct disk_parent_ref *ref, int i)
{
    const char *slash = strrchr(child_path, '/'), *name = NULL;
    char *out;

    switch (i) {
    case 0:
        name = ref->relative;
        break;
    case 1:
        return ref->absolute[0] == '/' ? hv_strdup(ref->absolute) : NULL;
    case 2:
        name = ref->name[0] ? ref->name : ref->absolute[0] ? ref->absolute : ref->volume;
        for (const char *p = name; *p; p++) {
            name = (*p == '\\' || *p == '/') && p[1] ? p + 1 : name;
        }
        break;
    default:
        return NULL;
    }
    if (!*name || is_windows_path(name)) {
        return NULL;
    }
    while (name[0] == '.' && (name[1] == '\\' || name[1] == '/')) {
        name += 2;
    }
    out = name[0] == '/' ? hv_strdup(name)
                         : hv_asprintf("%.*s%s", slash ? (int)(slash - child_path) + 1 : 0, child_path, name);
    for (char *p = out; p && *p; p++) {
        *p = *p == '\\' ? '/' : *p;
    }
    return out;
}

int disk_find_parent_with(const char *const *dirs, unsigned file_flags, const char *child_path,
                          const struct disk_parent_ref *ref, struct disk_file **ret, struct hv_error *e)
{
    const char *named = ref->relative[0] ? ref->relative : ref->absolute[0] ? ref->absolute : ref->name[0] ? ref->name : ref->volume;

    for (int i = 0; i < DISK_PARENT_CANDIDATES; i++) {
        hv_autofree char *wanted = disk_parent_candidate(child_path, ref, i);
        hv_autofree char *path = wanted ? existing(wanted) : NULL;

        if (!path) {
            continue;
        }
        if (!is_below(path, dirs)) {
            return hv_fail(e, HV_DENIED, path, "the parent of %s lies outside the allowed folders", child_path);
        }
        return disk_file_open(path, file_flags, ret, e);
    }
    hv_fail(e, HV_NOT_FOUND, child_path, "its parent %s was not found", named[0] ? named : "(no name)");
    hv_hint(e, "vhdtool chain %s --set-parent PATH", child_path);
    return -ENOENT;
}

int disk_find_parent(void *arg, const char *child_path, const struct disk_parent_ref *ref,
                     struct disk_file **ret, struct hv_error *e)
{
    return disk_find_parent_with(arg, 0, child_path, ref, ret, e);
}
