/*
 * A value that is sent again and again and differs in its numbers alone: they go as a row, in the
 * order in which they stand in it (members in the order of the text). Both sides keep the value as
 * it was last sent whole.
 */
#ifndef HV_RPC_ROWS_H
#define HV_RPC_ROWS_H

#include <jansson.h>

#define ROWS_MAX_DEPTH 8

/*
 * The row of v where it differs from *last in whole numbers only: a new array. Otherwise NULL, and v is
 * to be sent whole: *last is v then, with a reference of its own. A value nested deeper than
 * ROWS_MAX_DEPTH always goes whole, as does the first (*last NULL).
 */
json_t *rows_since(json_t **last, json_t *v);

/* The receiver's side. All zero: nothing has come. */
struct rows {
    json_t *value;          /* as it came whole, with the numbers that came since */
    json_t **number;        /* [n], into value */
    size_t n;
};

/* value came whole: rows are of this one from now on. rows has its own reference. -ENOMEM: then it takes no rows. */
int rows_begin(struct rows *r, json_t *value);
/* Put a row from outside into the value, in place. -EPROTO where it does not fit; the value is as it was then. */
int rows_put(struct rows *r, const json_t *row);
void rows_fini(struct rows *r);

#endif
