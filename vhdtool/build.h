/*
 * Between the files of `vhdtool build`: where files come from (archives, folders), and what is
 * done to the tree after all of them were laid over each other.
 */
#ifndef VHDTOOL_BUILD_H
#define VHDTOOL_BUILD_H

#include "hv/fs/digest.h"
#include "hv/fs/ext4.h"
#include "vhdtool/vhdtool.h"

/* Takes the files of a source, one by one. Functions return 0 or end the walk with their error. */
struct build_sink {
    /* size: of a regular file. data: it will be followed by data() calls; else a link to what there is. */
    int (*add)(void *arg, const struct ext4_file *f, uint64_t size, bool data, struct hv_error *e);
    int (*data)(void *arg, uint64_t off, const void *p, size_t len, struct hv_error *e);
    int (*xattr)(void *arg, const char *name, const void *value, size_t len, struct hv_error *e);
    bool want_data;
    bool to_end;                 /* files of the kernel's are read whatever size they say they have; add() says 0 */
    void *arg;
};

struct build_source {
    const char *name;            /* as typed, for messages */
    int fd;                      /* archives: open, seekable where `seekable` */
    bool folder, seekable;
    bool layer;                  /* of an OCI image: has whiteouts */
    uint64_t size;               /* archives: bytes to read, 0 unknown */
    uint64_t *progress;          /* bytes read are added here */
    struct progress *bar;
    uint64_t total;              /* of all sources, for the bar */
};

/*
 * Open what `name` says: a folder, an archive, "-". spool: what comes through a pipe is kept in a
 * file without a name beside dst, to be read more than once.
 */
int build_source_open(const char *name, bool spool, const char *dst, struct build_source *ret, struct hv_error *e);
void build_source_close(struct build_source *s);
/* All files, in an order that depends on the source alone. */
int build_source_walk(struct build_source *s, const struct build_sink *sink, struct hv_error *e);
/* What makes this source different from others goes into d: bytes of an archive, files of a folder. */
int build_source_digest(struct build_source *s, struct digest *d, struct hv_error *e);

int build_archive_walk(struct build_source *s, const struct build_sink *sink, struct hv_error *e);
int build_folder_walk(struct build_source *s, const struct build_sink *sink, struct hv_error *e);

/* ---- build_oci.c ---- */
bool build_is_oci(const char *dir);
/* Paths of the layers' blobs, lowest first; the array and each are malloc'ed. */
int build_oci_layers(const char *dir, char ***ret, size_t *ret_n, struct hv_error *e);
/* The last part of a path that is a whiteout, or NULL. */
const char *build_whiteout(const char *path);
/* Remove what the layer removes, before its files are added. */
int build_apply_whiteouts(struct build_source *layer, struct ext4_build *b, struct hv_error *e);

/* What the options want changed in the tree. Strings NULL: not asked for. */
struct build_adjust {
    const char *hostname;
    const char *fstab;           /* content of /etc/fstab; NULL: as it came */
    const char *root_password;   /* text, or "none" */
    const char *ssh_keys;        /* content for authorized_keys */
    bool autologin;
    int64_t time_s;
    const uint8_t *seed;         /* DIGEST_SIZE bytes; salt of the password */
};
int build_adjust(struct ext4_build *b, const struct build_adjust *a, struct hv_error *e);

/* Time that stands in the image: SOURCE_DATE_EPOCH, else now. *ret_fixed: it was SOURCE_DATE_EPOCH. */
int build_time(int64_t *ret_s, bool *ret_fixed, struct hv_error *e);

#endif
