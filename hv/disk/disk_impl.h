/*
 * What a format implements, and the layer it implements it on. Private to hv/disk.
 *
 * Locking: `lock` of the layer is held by disk.c around every call below but open, close,
 * check, repair and create; flush() is called without it and takes it itself, one flush at a
 * time (`flush_lock`). resize, set_* and compact are called with both held, after a flush, and
 * leave everything durable: they use the inner part of flush(), not flush() itself.
 */
#ifndef HV_DISK_DISK_IMPL_H
#define HV_DISK_DISK_IMPL_H

#include <pthread.h>

#include "hv/disk/headers.h"

#define DISK_LAYER_MAGIC 0x4c4b5344u

/* Ranges whose bytes are being moved: between a prepare and its done. */
struct disk_busy {
    struct disk_span { uint64_t off, len; } *span;
    size_t count, cap;
};

struct disk_layer {
    uint32_t magic;
    const struct disk_format *format;
    struct disk_file *file;
    void *state;                 /* the format's own */
    pthread_mutex_t lock;
    pthread_mutex_t flush_lock;
    struct disk_busy busy;       /* of a layer that is written; guarded by lock */
    bool writable;
    bool ignore_id;
    /* Set by open(): */
    enum disk_type type;
    uint64_t size;
    uint32_t block_size;
    uint32_t logical_sector, physical_sector;
    struct guid id;              /* disk identifier */
    struct guid data_id;         /* what children are keyed on; zero: none (raw) */
    struct disk_parent_ref parent;
    char note[256];
};

#define DISK_MAGIC 0x6b736964u

struct disk {
    uint32_t magic;
    unsigned flags;                  /* of struct disk_options */
    struct disk_layer **layers;      /* [0] the leaf */
    unsigned count;
    pthread_mutex_t partial_lock;    /* writes of parts of a sector: read, change, write */
};

/* Ask one layer, with its lock. */
int disk_layer_map(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret);
/* Is parent what the child was made from? -ESTALE with a sentence. Raw parents have no identity. */
int disk_check_identity(const struct disk_layer *child, struct disk_layer *parent, struct hv_error *e);

struct disk_format {
    enum disk_kind kind;
    const char *name;

    /* How sure a file is of this format: 0 not at all, 1 by its end, 2 by its start. */
    int (*probe)(struct disk_file *f);

    /* Read and check the headers, fill the layer. Writable: replay, and nothing else is written
     * before the first change. */
    int (*open)(struct disk_layer *l, struct hv_error *e);
    /* flush() ran before with success if clean; free state. clean: leave the file marked closed. */
    int (*close)(struct disk_layer *l, bool clean);

    /* Where [off, off+len) is in this layer: a prefix. ABSENT: not here (the parent's, or zeros). */
    int (*map)(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret);
    /*
     * Make room for a write of [off, off+len), whole logical sectors: a DATA prefix. New room
     * reads as zeros until written. Of a differencing disk the range still shows the parent
     * until written().
     */
    int (*allocate)(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret);
    /* The bytes of an earlier allocate() arrived in the file (not yet durable). */
    int (*written)(struct disk_layer *l, uint64_t off, uint64_t len);
    /*
     * Make a prefix of [off, off+len), whole logical sectors, read as zeros without data, as far
     * as the map can hold that: *ret_len bytes were done (0: the start of the range cannot be;
     * the caller writes zeros up to the next multiple of the block size). Room given up here may
     * be another block's soon: disk_io.c calls it only while no bytes of the range are on their way.
     */
    int (*unmap)(struct disk_layer *l, uint64_t off, uint64_t len, uint64_t *ret_len);
    /* Everything written() and unmap()ped before the call is durable afterwards. */
    int (*flush)(struct disk_layer *l);

    int (*info)(struct disk_layer *l, bool count, struct disk_info *ret);   /* rest of *ret is set */
    int (*create)(struct disk_file *f, const struct disk_create *c, struct disk *parent,
                  struct hv_error *e);
    /* May be NULL: not for this format. The layer is writable and flushed. */
    int (*resize)(struct disk_layer *l, uint64_t size, struct hv_error *e);
    int (*set_parent)(struct disk_layer *l, const struct disk_parent_ref *ref, struct hv_error *e);
    int (*set_id)(struct disk_layer *l, const struct guid *id, struct hv_error *e);
    int (*set_physical_sector)(struct disk_layer *l, uint32_t bytes, struct hv_error *e);
    /* Give back the room of unmapped blocks: move the last ones into gaps, cut the file. */
    int (*compact)(struct disk_layer *l, disk_progress_fn *progress, void *arg, struct hv_error *e);
    int (*check)(struct disk_file *f, disk_problem_fn *fn, void *arg, struct hv_error *e);
    int (*repair)(struct disk_file *f, bool dry, disk_problem_fn *fn, void *arg, struct hv_error *e);
    /* May be NULL: nothing but data. */
    int (*headers)(struct disk_file *f, disk_field_fn *fn, void *arg);
};

extern const struct disk_format disk_format_raw, disk_format_vhd, disk_format_vhdx;

/* disk_find_parent() with flags for disk_file_open(). */
int disk_find_parent_with(const char *const *dirs, unsigned file_flags, const char *child_path,
                          const struct disk_parent_ref *ref, struct disk_file **ret, struct hv_error *e);

/* A finding, printf-style; flags: */
enum { PROBLEM_REPAIRABLE = 1, PROBLEM_HARMLESS = 2 };
void disk_problem(disk_problem_fn *fn, void *arg, unsigned flags, const char *fmt, ...)
    HV_PRINTF(4, 5);

/* One field of disk_headers(), value printf-style; for a walk that stops at the first error. */
struct disk_fields {
    disk_field_fn *fn;
    void *arg;
    const char *structure;
    uint64_t off;                    /* of the structure in the file */
    int r;
};
void disk_field(struct disk_fields *w, uint64_t at, const char *field, const char *fmt, ...) HV_PRINTF(4, 5);

/* UTF-16 in a file, len_bytes of it, to UTF-8 in buf[size] (cut; ill-formed units become '?'). */
void disk_utf16_to_utf8(const uint8_t *text, size_t len_bytes, bool big_endian, char *buf, size_t size);
/* And back: bytes written to out[size], without a terminator, or -EMSGSIZE, -EILSEQ. */
int disk_utf8_to_utf16(const char *text, bool big_endian, uint8_t *out, size_t size);

/*
 * The path of a file:// URL (RFC 8089), text[len], hostile: %XX is the byte XX, a % without two digits is itself, a host
 * is passed over. False, with out[size] in any state: no such URL, %00, %2f, control characters, no UTF-8, or too long.
 */
bool disk_url_path(const uint8_t *text, size_t len, char *out, size_t size);
/* Fill ref's paths for the parent at parent_path as seen from the child's folder. */
int disk_parent_paths(const char *child_path, const char *parent_path, struct disk_parent_ref *ref,
                      struct hv_error *e);

#endif
