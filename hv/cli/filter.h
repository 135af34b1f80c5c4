/*
 * --filter: "state=running,demand>2G,name~^web". Comparisons joined by commas, all must hold.
 */
#ifndef HV_CLI_FILTER_H
#define HV_CLI_FILTER_H

#include <jansson.h>

#include "hv/base/error.h"

struct cli_columns;
struct cli_column;
struct cli_filter;

/*
 * Parse expr against the columns' keys and units. = != < <= > >= ~ and .lt .le .gt .ge .ne;
 * values with units where the column has one; "-" is unknown. A comma ends a comparison
 * unless a backslash stands before it. 0, or -EINVAL with e filled.
 */
int cli_filter_parse(const char *expr, const struct cli_columns *t, struct cli_filter **ret, struct hv_error *e);
void cli_filter_free(struct cli_filter *f);

/* Does row fit? A comparison with unknown is false, != too. f NULL: everything fits. */
bool cli_filter_match(const struct cli_filter *f, const json_t *row);

#endif
