/*
 * Columns: what can be shown, sorted, filtered and exported of a VM, and how wide it is on a
 * screen. The table is the one --columns, --sort and --filter name.
 */
#ifndef HVTOP_COLUMNS_H
#define HVTOP_COLUMNS_H

#include "hv/cli/column.h"

extern const struct cli_columns top_columns;      /* defaults: the main screen's */

/* Where a column of org.hv.Manager.Stats goes in a VM's row: group "" is the row itself. */
void top_column_place(const char *name, const char **ret_group, const char **ret_key);

/* These keys are lists in a row; all others are numbers, texts and switches. */
bool top_is_list(const char *key);
/* What a disk in the list `disks` is made of: an array, for there are many and they come every second. */
enum top_disk {
    TOP_DISK_LOCATION, TOP_DISK_PATH, TOP_DISK_TYPE, TOP_DISK_READ, TOP_DISK_WRITE, TOP_DISK_IOPS, TOP_DISK_LATENCY, TOP_DISK_QUEUE,
    TOP_DISK_USED, TOP_DISK_SIZE, TOP_DISK_PARTS
};
/* The same with names, for JSON that others read; the caller's. */
json_t *top_disk_object(const json_t *disk);
/* "840", "1.4k"; "-" where it is not known (NAN). buf[size >= 16]. */
const char *top_count(double n, char *buf, size_t size);

/* How a column looks on a screen. */
struct top_look {
    const char *key;
    const char *head;             /* short header */
    uint8_t width;                /* columns it takes; `name` and `trend` take more where there is room */
    uint8_t rank;                 /* the highest goes first when a window is too narrow */
    bool left;                    /* aligned */
};
/* Never NULL for a key of top_columns. */
const struct top_look *top_look(const char *key);

/* Screens that are tables of VMs: their columns in display order, and the order of rows. */
struct top_table { const char *columns, *sort; };
extern const struct top_table top_table_memory, top_table_cpu, top_table_disk;

#define TOP_MAX_COLUMNS 40
struct top_layout {
    unsigned n;
    struct { const struct cli_column *col; const struct top_look *look; int x, width; } at[TOP_MAX_COLUMNS];
};
/*
 * Which of keys ("name,assigned") fit into width columns from x on, and where. longest_name: what
 * the name would like. several_hosts: without it the host's column is left out.
 */
void top_layout(struct top_layout *l, const char *keys, int x, int width, int longest_name, bool several_hosts);

/*
 * Apply "+a,-b" or "a,b" to keys (a malloc'ed list, replaced). 0, or -EINVAL with e naming the column.
 */
int top_choose(char **keys, const char *list, struct hv_error *e);
bool top_has(const char *keys, const char *key);

#endif
