/* Numbers of JSON values as rows: see rows.h. */
#include <errno.h>
#include <string.h>

#include "hv/base/base.h"
#include "hv/rpc/rows.h"

/* Equal but for whole numbers, members in the same order. */
static bool alike(json_t *a, json_t *b, unsigned depth)
{
    if (json_typeof(a) != json_typeof(b) || depth > ROWS_MAX_DEPTH)
        return false;
    if (json_is_array(a)) {
        size_t n = json_array_size(a);
        if (n != json_array_size(b))
            return false;
        for (size_t i = 0; i < n; i++)
            if (!alike(json_array_get(a, i), json_array_get(b, i), depth + 1))
                return false;
        return true;
    }
    if (json_is_object(a)) {
        void *i = json_object_iter(a), *k = json_object_iter(b);
        for (; i && k; i = json_object_iter_next(a, i), k = json_object_iter_next(b, k))
            if (strcmp(json_object_iter_key(i), json_object_iter_key(k)) != 0 ||
                !alike(json_object_iter_value(i), json_object_iter_value(k), depth + 1))
                return false;
        return !i && !k;
    }
    return json_is_integer(a) || json_equal(a, b);
}

/* Each number of v in turn: appended to row, to number[], or only counted. */
struct walk {
    json_t *row, **number;
    size_t n;
};

static void walk(struct walk *w, json_t *v, unsigned depth)
{
    if (depth > ROWS_MAX_DEPTH)
        return;
    if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++)
            walk(w, json_array_get(v, i), depth + 1);
    } else if (json_is_object(v)) {
        for (void *i = json_object_iter(v); i; i = json_object_iter_next(v, i))
            walk(w, json_object_iter_value(i), depth + 1);
    } else if (json_is_integer(v)) {
        if (w->row)
            json_array_append_new(w->row, json_integer(json_integer_value(v)));
        if (w->number)
            w->number[w->n] = v;
        w->n++;
    }
}

json_t *rows_since(json_t **last, json_t *v)
{
    struct walk w = {0};
    if (*last && v && alike(*last, v, 0) && (w.row = json_array())) {
        walk(&w, v, 0);
        if (json_array_size(w.row) == w.n)
            return w.row;
        json_decref(w.row);                 /* no memory for all of it */
    }
    json_decref(*last);
    *last = json_incref(v);
    return NULL;
}

void rows_fini(struct rows *r)
{
    json_decref(r->value);
    free(r->number);
    *r = (struct rows){0};
}

int rows_begin(struct rows *r, json_t *value)
{
    struct walk count = {0}, take = {0};
    json_incref(value);
    rows_fini(r);
    r->value = value;
    walk(&count, value, 0);
    take.number = r->number = hv_alloc_array(count.n + 1, sizeof(*r->number));
    if (!r->number)
        return -ENOMEM;
    walk(&take, value, 0);
    r->n = take.n;
    return 0;
}

int rows_put(struct rows *r, const json_t *row)
{
    if (!r->number || !json_is_array(row) || json_array_size(row) != r->n)
        return -EPROTO;
    for (size_t i = 0; i < r->n; i++)
        if (!json_is_integer(json_array_get(row, i)))
            return -EPROTO;
    for (size_t i = 0; i < r->n; i++)
        json_integer_set(r->number[i], json_integer_value(json_array_get(row, i)));
    return 0;
}
