/* How the files in two disks differ. */
#ifndef VHDTOOL_DIFF_FILES_H
#define VHDTOOL_DIFF_FILES_H

#include "vhdtool/files.h"

/*
 * Rows {change, partition, path, what} for what B has beside A, sorted by partition and path. path is
 * null where a partition as a whole differs. Both disks stay the caller's.
 */
int diff_files(struct cli_call *c, struct disk *a, const char *a_name, struct disk *b, const char *b_name, json_t *rows,
               struct hv_error *e);

#endif
