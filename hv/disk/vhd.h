/* What the files of the VHD format share. Private to hv/disk/vhd*.c. */
#ifndef HV_DISK_VHD_H
#define HV_DISK_VHD_H

#include "hv/disk/disk_impl.h"
#include "hv/disk/meta.h"
#include "hv/disk/vhd_proto.h"

struct vhd {
    struct disk_meta *meta;              /* BAT and bitmaps, in sectors */
    uint8_t footer[VHD_FOOTER_SIZE];
    uint8_t header[VHD_HEADER_SIZE];
    enum vhd_type type;
    bool end_footer_bad, front_footer_bad;
    uint64_t header_offset;
    uint64_t bat_offset;
    uint32_t entries;                    /* as many as the size needs; the BAT may have more */
    uint32_t bat_entries;                /* room in the BAT */
    uint32_t block_size;
    uint32_t bitmap_size;                /* bytes, whole sectors */
    uint64_t end;                        /* where the footer stands, and the next block may start */
};

/* One's complement of the sum of all bytes, those at checksum_at counted as zeros. */
uint32_t vhd_checksum(const uint8_t *p, size_t len, size_t checksum_at);
bool vhd_footer_valid(const uint8_t *footer);
bool vhd_header_valid(const uint8_t *header);
void vhd_seal_footer(uint8_t *footer);   /* set the checksum */
void vhd_seal_header(uint8_t *header);
/* Set size and geometry (sheet 1.5; pinned to 65535/16/255 when the product is another size). */
void vhd_set_size(uint8_t *footer, uint64_t size);
uint32_t vhd_bitmap_size(uint32_t block_size);

/*
 * Read both footers. Returns the one to believe in out[512] (the last, if both are good), and
 * which are bad. *ret_end: offset of the end footer, or of where it should be.
 * -EINVAL if neither is one.
 */
int vhd_read_footers(struct disk_file *f, uint8_t *out, bool *front_bad, bool *end_bad, uint64_t *ret_end);
/* Names in the header and the locators' data. */
void vhd_read_parent(struct disk_file *f, const uint8_t *header, struct disk_parent_ref *ret);
/*
 * Fill the parent's names into header and put the locators' data, padded to whole sectors,
 * into *ret_data (free()), to be written at data_offset.
 */
int vhd_write_parent(uint8_t *header, const struct disk_parent_ref *ref, uint64_t data_offset,
                     uint8_t **ret_data, uint64_t *ret_len);
/*
 * Where new room may start: at the end, or behind all of a last block that the disk ends in and,
 * of some writers, the file with it.
 */
uint64_t vhd_room_start(struct vhd *v);
/* Write out what is dirty in the order of flush(). Flush lock held, layer lock too if locked. */
int vhd_flush(struct disk_layer *l, bool locked);

int vhd_create(struct disk_file *f, const struct disk_create *c, struct disk *parent, struct hv_error *e);
int vhd_resize(struct disk_layer *l, uint64_t size, struct hv_error *e);
int vhd_set_parent(struct disk_layer *l, const struct disk_parent_ref *ref, struct hv_error *e);
int vhd_set_id(struct disk_layer *l, const struct guid *id, struct hv_error *e);
int vhd_compact(struct disk_layer *l, disk_progress_fn *progress, void *arg, struct hv_error *e);
int vhd_check(struct disk_file *f, disk_problem_fn *fn, void *arg, struct hv_error *e);
int vhd_repair(struct disk_file *f, bool dry, disk_problem_fn *fn, void *arg, struct hv_error *e);
int vhd_headers(struct disk_file *f, disk_field_fn *fn, void *arg);

#endif
