/* Parts of the detail screen. Rows are anybody's (a recording): all that is not as expected is shown as unknown. */
#ifndef HVTOP_SCREEN_PARTS_H
#define HVTOP_SCREEN_PARTS_H

#include "hvtop/canvas.h"
#include "hvtop/columns.h"

#define PARTS_DISKS_MAX 64

/* How many disks a row has. */
unsigned parts_disks(const json_t *row);
/* How many integration services it names. */
unsigned parts_services(const json_t *row);
/* Disk i on one line. */
void parts_disk_line(struct canvas *c, int y, const json_t *row, unsigned i);
/* These draw at most h lines from y on, for windows of 120 columns and more. They return how many. */
int parts_disk_table(struct canvas *c, int y, int h, const json_t *row);
int parts_cpu_and_services(struct canvas *c, int y, int h, const json_t *row);
/* "0:99 1:98": each processor's share in use. */
void parts_vcpu_text(const json_t *row, char *buf, size_t size);

#endif
