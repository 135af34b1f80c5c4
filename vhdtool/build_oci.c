/*
 * An OCI image layout as a source (image-spec 1.1, image-layout.md): index.json names a manifest,
 * or an index of them for several platforms; a manifest names the layers, lowest first. A blob lies
 * at blobs/ALGORITHM/HEX. Layers are archives; what they remove of the layers below is said by
 * files called .wh.NAME, and by .wh..wh..opq for all that a folder had (layer.md).
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhdtool/build.h"

#define JSON_BYTES_MAX (4 * MIB)
#define NESTED_MAX     4u

bool build_is_oci(const char *dir)
{
    hv_autofree char *path = hv_asprintf("%s/oci-layout", dir);

    return path && access(path, R_OK) == 0;
}

/* "sha256:0123abcd" -> DIR/blobs/sha256/0123abcd; the digest is a stranger's text. */
static char *blob_path(const char *dir, const char *digest)
{
    size_t algorithm = digest ? strspn(digest, "abcdefghijklmnopqrstuvwxyz0123456789") : 0;

    if (!algorithm || digest[algorithm] != ':' || !digest[algorithm + 1] ||
        digest[algorithm + 1 + strspn(digest + algorithm + 1, "0123456789abcdef")]) {
        return NULL;
    }
    return hv_asprintf("%s/blobs/%.*s/%s", dir, (int)algorithm, digest, digest + algorithm + 1);
}

static json_t *load(const char *path, struct hv_error *e)
{
    json_error_t why;
    json_t *o = NULL;
    char *text;
    size_t len;
    int r = hv_read_file(path, JSON_BYTES_MAX, &text, &len);

    if (r < 0) {
        hv_fail_errno(e, -r, path, "cannot read");
        return NULL;
    }
    o = json_loadb(text, len, 0, &why);
    free(text);
    if (!json_is_object(o)) {
        hv_fail(e, HV_FAILED, path, "is no JSON object");
        json_decref(o);
        return NULL;
    }
    return o;
}

/* Of several manifests the one for this kind of machine, else the first. */
static const json_t *choose(const json_t *manifests)
{
    const json_t *m;
    size_t i;

    json_array_foreach(manifests, i, m) {
        const json_t *p = json_object_get(m, "platform");
        const char *arch = json_string_value(json_object_get(p, "architecture"));
        const char *os = json_string_value(json_object_get(p, "os"));
        if (arch && os && strcmp(arch, "amd64") == 0 && strcmp(os, "linux") == 0) {
            return m;
        }
    }
    return json_array_get(manifests, 0);
}

int build_oci_layers(const char *dir, char ***ret, size_t *ret_n, struct hv_error *e)
{
    char *path = hv_asprintf("%s/index.json", dir);
    const json_t *layers = NULL, *layer;
    json_t *o = NULL;
    size_t i, n = 0;
    char **paths = NULL;
    int r = -EINVAL;

    for (unsigned depth = 0; path && depth < NESTED_MAX && !layers; depth++) {
        json_t *next = load(path, e);
        json_decref(o);
        o = next;
        free(path);
        path = NULL;
        if (!o) {
            return -EIO;
        }
        layers = json_object_get(o, "layers");
        if (!layers) {
            path = blob_path(dir, json_string_value(json_object_get(choose(json_object_get(o, "manifests")), "digest")));
        }
    }
    free(path);
    if (!json_is_array(layers) || !json_array_size(layers)) {
        json_decref(o);
        hv_fail(e, HV_FAILED, dir, "is an OCI layout without layers");
        return -EINVAL;
    }
    paths = hv_alloc_array(json_array_size(layers), sizeof(*paths));
    json_array_foreach(layers, i, layer) {
        char *blob = paths ? blob_path(dir, json_string_value(json_object_get(layer, "digest"))) : NULL;
        if (!blob) {
            break;
        }
        paths[n++] = blob;
    }
    if (n == json_array_size(layers)) {
        *ret = paths;
        *ret_n = n;
        r = 0;
    } else {
        hv_fail(e, HV_FAILED, dir, "has a layer whose digest makes no sense");
        while (n > 0) {
            free(paths[--n]);
        }
        free(paths);
    }
    json_decref(o);
    return r;
}

/* ---- what a layer removes ---- */

const char *build_whiteout(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;

    return strncmp(base, ".wh.", 4) == 0 ? base : NULL;
}

struct clearing { char **names; size_t n; };

static int gather(void *arg, const struct fs_entry *en)
{
    struct clearing *c = arg;
    char **grown = hv_realloc_array(c->names, c->n + 1, sizeof(*grown));

    if (!grown) {
        return -ENOMEM;
    }
    c->names = grown;
    grown[c->n] = hv_strdup(en->name);
    return grown[c->n] ? (c->n++, 0) : -ENOMEM;
}

static int remove_one(struct ext4_build *b, const char *dir, int dir_len, const char *name, struct hv_error *e)
{
    hv_autofree char *path = hv_asprintf("%.*s%s", dir_len, dir, name);
    int r = path ? ext4_build_remove(b, path, e) : -ENOMEM;

    if (r == -ENOENT) {
        hv_error_clear(e);
        return 0;
    }
    return r;
}

static int whiteout_add(void *arg, const struct ext4_file *f, uint64_t size, bool data, struct hv_error *e)
{
    struct ext4_build *b = arg;
    const char *base = build_whiteout(f->path);
    int dir_len, r = 0;

    if (!base) {
        return 0;
    }
    dir_len = (int)(base - f->path);
    if (strcmp(base, ".wh..wh..opq") != 0) {
        const char *name = base + 4;
        return *name && strcmp(name, ".") && strcmp(name, "..") ? remove_one(b, f->path, dir_len, name, e) : 0;
    }
    struct clearing c = { .n = 0 };
    hv_autofree char *dir = hv_asprintf("/%.*s", dir_len, f->path);
    r = dir ? ext4_build_list(b, dir, gather, &c) : -ENOMEM;
    r = r == -ENOENT || r == -ENOTDIR ? 0 : r < 0 ? hv_fail_errno(e, -r, f->path, "cannot be read") : 0;
    for (size_t i = 0; i < c.n; i++) {
        r = r < 0 ? r : remove_one(b, f->path, dir_len, c.names[i], e);
        free(c.names[i]);
    }
    free(c.names);
    return r;
}

static int no_data(void *arg, uint64_t off, const void *p, size_t len, struct hv_error *e)
{
    return 0;
}

static int no_xattr(void *arg, const char *name, const void *value, size_t len, struct hv_error *e)
{
    return 0;
}

int build_apply_whiteouts(struct build_source *layer, struct ext4_build *b, struct hv_error *e)
{
    struct build_sink sink = { .add = whiteout_add, .data = no_data, .xattr = no_xattr, .arg = b };

    return build_source_walk(layer, &sink, e);
}
