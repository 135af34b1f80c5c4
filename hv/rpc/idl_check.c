/*
 * Does a JSON value fit its declared type? Errors name the member by its path
 * ("settings.disks[2].path"), which InvalidParameter carries to the caller.
 */
#include <errno.h>

#include "hv/base/strbuf.h"
#include "hv/rpc/idl.h"
#include "hv/rpc/wire.h"

struct check {
    char path[160];
    bool lenient;                      /* unknown members pass */
    struct hv_error *e;
};

static const struct {
    const char *must_be;
} kinds[] = {
    [IDL_BOOL] = { "must be true or false" }, [IDL_INT] = { "must be a whole number" },
    [IDL_FLOAT] = { "must be a number" },     [IDL_STRING] = { "must be a string" },
    [IDL_OBJECT] = { "must be an object" },   [IDL_ARRAY] = { "must be an array" },
    [IDL_MAP] = { "must be an object" },      [IDL_STRUCT] = { "must be an object" },
    [IDL_ENUM] = { "must be one of the declared words" },
};

static int bad(const struct check *c, const char *message)
{
    return hv_fail(c->e, HV_USAGE, c->path, "%s", message);
}

/* Appends ".name" or "[index]"; returns the length before, to cut back to. Too long a path is cut. */
static size_t push_name(struct check *c, const char *name)
{
    size_t len = strlen(c->path);

    snprintf(c->path + len, sizeof(c->path) - len, "%s%s", len ? "." : "", name);
    return len;
}

static size_t push_index(struct check *c, size_t i)
{
    size_t len = strlen(c->path);

    snprintf(c->path + len, sizeof(c->path) - len, "[%zu]", i);
    return len;
}

static int check_value(struct check *c, const struct idl_type *t, const json_t *v, unsigned depth);

static int check_struct(struct check *c, const struct idl_type *t, const json_t *v, unsigned depth)
{
    size_t known = 0;

    for (const struct idl_member *m = t->members; m; m = m->next) {
        const json_t *field = json_object_get(v, m->name);
        bool optional = m->type->kind == IDL_MAYBE;
        size_t len = push_name(c, m->name);
        known += field != NULL;
        if (!field && !optional) {
            return bad(c, "is missing");
        }
        int r = field ? check_value(c, m->type, field, depth) : 0;
        if (r < 0) {
            return r;
        }
        c->path[len] = '\0';
    }
    if (c->lenient || known == json_object_size(v)) {
        return 0;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)v, key, value) {
        bool found = false;
        for (const struct idl_member *m = t->members; m && !found; m = m->next) {
            found = strcmp(m->name, key) == 0;
        }
        if (!found) {
            push_name(c, key);
            return bad(c, "is not known");
        }
    }
    return 0;
}

static int check_elements(struct check *c, const struct idl_type *t, const json_t *v, unsigned depth)
{
    if (t->elem->kind == IDL_ANY) {
        return 0;
    }
    if (t->kind == IDL_ARRAY) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            size_t len = push_index(c, i);
            int r = check_value(c, t->elem, json_array_get(v, i), depth);
            if (r < 0) {
                return r;
            }
            c->path[len] = '\0';
        }
        return 0;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)v, key, value) {
        size_t len = push_name(c, key);
        int r = check_value(c, t->elem, value, depth);
        if (r < 0) {
            return r;
        }
        c->path[len] = '\0';
    }
    return 0;
}

static bool is_word_of(const struct idl_type *t, const json_t *v)
{
    for (const struct idl_member *m = t->members; m; m = m->next) {
        if (strcmp(m->name, json_string_value(v)) == 0) {
            return true;
        }
    }
    return false;
}

static bool basic_fits(enum idl_kind kind, const json_t *v)
{
    switch (kind) {
    case IDL_BOOL: return json_is_boolean(v);
    case IDL_INT: return json_is_integer(v);
    case IDL_FLOAT: return json_is_number(v);
    case IDL_ENUM:
    case IDL_STRING: return json_is_string(v);
    case IDL_ARRAY: return json_is_array(v);
    default: return json_is_object(v);
    }
}

/*
 * Types may name themselves, so the depth follows the value; messages nest at most
 * VARLINK_MAX_DEPTH (the scanner saw to that before parsing), other callers' values
 * are held to it here.
 */
static int check_value(struct check *c, const struct idl_type *t, const json_t *v, unsigned depth)
{
    if (depth > VARLINK_MAX_DEPTH) {
        return bad(c, "is nested too deep");
    }
    for (;; t = t->elem) {
        if (t->kind == IDL_ANY || (t->kind == IDL_MAYBE && json_is_null(v))) {
            return 0;
        }
        if (t->kind != IDL_MAYBE && t->kind != IDL_NAME) {
            break;
        }
    }
    if (!basic_fits(t->kind, v) || (t->kind == IDL_ENUM && !is_word_of(t, v))) {
        return bad(c, kinds[t->kind].must_be);
    }
    return t->kind == IDL_STRUCT ? check_struct(c, t, v, depth + 1)
         : t->kind == IDL_ARRAY || t->kind == IDL_MAP ? check_elements(c, t, v, depth + 1) : 0;
}

static int check_method(const struct varlink_idl *i, const char *method, bool output, bool lenient,
                        const json_t *obj, struct hv_error *e)
{
    size_t len = strlen(i->name);

    if (strncmp(method, i->name, len) == 0 && method[len] == '.') {
        method += len + 1;
    }
    const struct idl_decl *d = idl_find(i, IDL_DECL_METHOD, method);
    if (!d) {
        return hv_fail(e, HV_NOT_FOUND, method, "%s has no such method", i->name);
    }
    struct check c = { .lenient = lenient, .e = e };
    if (!json_is_object(obj)) {
        hv_strlcpy(c.path, "parameters", sizeof(c.path));
        return bad(&c, "must be an object");
    }
    return check_value(&c, output ? d->out : d->in, obj, 0);
}

int varlink_idl_check(const struct varlink_idl *i, const char *method, bool output, const json_t *obj,
                      struct hv_error *e)
{
    return check_method(i, method, output, false, obj, e);
}

int idl_check_reply(const struct varlink_idl *i, const char *method, const json_t *obj, struct hv_error *e)
{
    return check_method(i, method, true, true, obj, e);
}
