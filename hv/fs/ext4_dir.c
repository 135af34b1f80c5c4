/*
 * Folders, written whole. Index blocks as Linux reads them (fs/ext4/namei.c, struct dx_root,
 * dx_node): an entry is the smallest hash of the block it points to, the first one stands for 0,
 * and its low bit says that entries of the same hash began in the block before.
 */
#include <errno.h>

#include "hv/base/endian.h"
#include "hv/fs/ext4_impl.h"

#define TAIL       12u                   /* fake entry with the checksum at the end of a leaf */
#define DOTS       24u                   /* "." and ".." of 12 bytes each */
#define INFO       8u                    /* struct dx_root_info */
#define REC(len)   ROUND_UP(8u + (len), 4u)

/* A leaf being filled. */
struct leaf {
    ext2_filsys fs;
    uint8_t *block;
    unsigned used, last;                 /* bytes; offset of the last entry */
    unsigned room;                       /* bytes for entries */
};

static void leaf_begin(struct leaf *l, ext2_filsys fs, uint8_t *block)
{
    bool csum = ext2fs_has_feature_metadata_csum(fs->super);

    *l = (struct leaf){ .fs = fs, .block = block, .room = fs->blocksize - (csum ? TAIL : 0) };
    memset(block, 0, fs->blocksize);
    if (csum) {
        ext2fs_initialize_dirent_tail(fs, EXT2_DIRENT_TAIL(block, fs->blocksize));
    }
}

static void put_dirent(struct leaf *l, const char *name, unsigned len, uint32_t ino, uint8_t type)
{
    struct ext2_dir_entry *d = (void *)(l->block + l->used);

    d->inode = ino;
    ext2fs_dirent_set_name_len(d, (int)len);
    if (ext2fs_has_feature_filetype(l->fs->super)) {
        ext2fs_dirent_set_file_type(d, type);
    }
    memcpy(d->name, name, len);
    ext2fs_set_rec_len(l->fs, REC(len), d);
    l->last = l->used;
    l->used += REC(len);
}

/* The last entry takes the rest of the block; an empty block is one entry of inode 0. */
static void leaf_end(struct leaf *l)
{
    struct ext2_dir_entry *d = (void *)(l->block + l->last);

    ext2fs_set_rec_len(l->fs, l->room - l->last, d);
}

static int compare(const void *a, const void *b)
{
    const struct ext4_dirent *x = a, *y = b;

    if (x->hash != y->hash) {
        return x->hash < y->hash ? -1 : 1;
    }
    if (x->minor != y->minor) {
        return x->minor < y->minor ? -1 : 1;
    }
    int len = MIN(x->len, y->len), r = memcmp(x->name, y->name, (size_t)len);
    return r ? r : (int)x->len - (int)y->len;
}

struct index { uint32_t hash, block; };

/* One block of index entries: the count and limit lie in the first one's hash. */
static void put_index(ext2_filsys fs, uint8_t *at, unsigned head, const struct index *ix, unsigned n)
{
    bool csum = ext2fs_has_feature_metadata_csum(fs->super);
    unsigned limit = (fs->blocksize - head) / 8 - (csum ? 1 : 0);

    hv_assert(n <= limit);
    for (unsigned i = 0; i < n; i++) {
        put_le32(at + 8 * i, ix[i].hash);
        put_le32(at + 8 * i + 4, ix[i].block);
    }
    put_le16(at, (uint16_t)limit);
    put_le16(at + 2, (uint16_t)n);
}

/* Checksums depend on the inode alone, not on where the blocks end up. */
static int write_blocks(ext2_filsys fs, ext2_ino_t ino, union ext4_inode *inode, uint8_t *blocks, uint64_t n,
                        blk64_t *goal, uint8_t *buf)
{
    struct ext4_writer w;
    uint64_t bs = fs->blocksize;
    int r;

    for (uint64_t i = 0; i < n; i++) {
        errcode_t err = ext2fs_dir_block_csum_set(fs, ino, (void *)(blocks + i * bs));
        if (err) {
            return ext4_errno(fs, err);
        }
    }
    r = ext4_writer_init(&w, fs, ino, inode, goal, buf);
    if (r == 0) {
        r = ext4_writer_add(&w, 0, blocks, n * bs);
    }
    if (r == 0) {
        return ext4_writer_end(&w, n * bs);
    }
    ext4_writer_abort(&w);
    return r;
}

static int write_linear(ext2_filsys fs, ext2_ino_t ino, ext2_ino_t parent, const struct ext4_dirent *en, size_t n,
                        unsigned blocks_wanted, union ext4_inode *inode, blk64_t *goal, uint8_t *buf)
{
    uint64_t bs = fs->blocksize, blocks = 1;
    struct leaf l;
    uint8_t *mem;

    /* How many: a name goes into the next block when it does not fit. */
    unsigned room = fs->blocksize - (ext2fs_has_feature_metadata_csum(fs->super) ? TAIL : 0), used = DOTS;
    for (size_t i = 0; i < n; i++) {
        if (used + REC(en[i].len) > room) {
            blocks++;
            used = 0;
        }
        used += REC(en[i].len);
    }
    blocks = MAX(blocks, blocks_wanted);
    mem = hv_alloc_array(blocks, bs);
    if (!mem) {
        return -ENOMEM;
    }
    uint64_t at = 0;
    leaf_begin(&l, fs, mem);
    put_dirent(&l, ".", 1, ino, EXT2_FT_DIR);
    put_dirent(&l, "..", 2, parent, EXT2_FT_DIR);
    for (size_t i = 0; i < n; i++) {
        if (l.used + REC(en[i].len) > l.room) {
            leaf_end(&l);
            leaf_begin(&l, fs, mem + ++at * bs);
        }
        put_dirent(&l, en[i].name, en[i].len, en[i].ino, en[i].type);
    }
    leaf_end(&l);
    while (++at < blocks) {
        leaf_begin(&l, fs, mem + at * bs);
        leaf_end(&l);
    }
    int r = write_blocks(fs, ino, inode, mem, blocks, goal, buf);
    free(mem);
    return r;
}

/* Fill leaves from sorted entries; *ret_ix[*ret_n] names them, blocks counted from 0. */
static int make_leaves(ext2_filsys fs, const struct ext4_dirent *en, size_t n, uint8_t **ret, struct index **ret_ix,
                       uint32_t *ret_n)
{
    uint64_t bs = fs->blocksize;
    struct index *ix = NULL;
    uint8_t *mem = NULL;
    uint32_t blocks = 0;
    struct leaf l = { 0 };

    for (size_t i = 0; i < n; i++) {
        /* A fifth stays free, so that the first new names need no split. */
        if (!blocks || l.used + REC(en[i].len) > l.room - l.room / 5) {
            if (blocks) {
                leaf_end(&l);
            }
            uint8_t *more = hv_realloc_array(mem, blocks + 1, bs);
            mem = more ? more : mem;
            struct index *more_ix = hv_realloc_array(ix, blocks + 1, sizeof(*ix));
            ix = more_ix ? more_ix : ix;
            if (!more || !more_ix) {
                free(mem);
                free(ix);
                return -ENOMEM;
            }
            bool goes_on = i > 0 && en[i - 1].hash == en[i].hash;
            ix[blocks] = (struct index){ .hash = en[i].hash | goes_on, .block = blocks };
            leaf_begin(&l, fs, mem + blocks * bs);
            blocks++;
        }
        put_dirent(&l, en[i].name, en[i].len, en[i].ino, en[i].type);
    }
    leaf_end(&l);
    *ret = mem;
    *ret_ix = ix;
    *ret_n = blocks;
    return 0;
}

static int write_indexed(ext2_filsys fs, ext2_ino_t ino, ext2_ino_t parent, struct ext4_dirent *en, size_t n,
                         union ext4_inode *inode, blk64_t *goal, uint8_t *buf)
{
    bool csum = ext2fs_has_feature_metadata_csum(fs->super);
    uint64_t bs = fs->blocksize;
    unsigned root_limit = (fs->blocksize - DOTS - INFO) / 8 - csum, node_limit = (fs->blocksize - 8) / 8 - csum;
    int version = fs->super->s_def_hash_version;
    uint8_t *leaves = NULL, *mem = NULL;
    struct index *ix = NULL;
    uint32_t n_leaves;
    int r;

    if (version <= EXT2_HASH_TEA && (fs->super->s_flags & EXT2_FLAGS_UNSIGNED_HASH)) {
        version += 3;
    }
    for (size_t i = 0; i < n; i++) {
        errcode_t err = ext2fs_dirhash2(version, en[i].name, en[i].len, fs->encoding, 0, fs->super->s_hash_seed,
                                        &en[i].hash, &en[i].minor);
        if (err) {
            return ext4_errno(fs, err);
        }
    }
    qsort(en, n, sizeof(*en), compare);
    r = make_leaves(fs, en, n, &leaves, &ix, &n_leaves);
    if (r < 0) {
        return r;
    }
    uint32_t nodes = n_leaves <= root_limit ? 0 : (n_leaves + node_limit - 1) / node_limit;
    if (nodes > root_limit) {
        r = -ENOSPC;                         /* 10 million names and more */
        goto out;
    }
    mem = hv_alloc_array(1 + nodes + (uint64_t)n_leaves, bs);
    if (!mem) {
        r = -ENOMEM;
        goto out;
    }
    for (uint32_t i = 0; i < n_leaves; i++) {
        ix[i].block += 1 + nodes;
    }
    /* The root: "." and "..", which takes the rest of the block for those who know no index. */
    struct leaf l = { .fs = fs, .block = mem, .room = fs->blocksize };
    put_dirent(&l, ".", 1, ino, EXT2_FT_DIR);
    put_dirent(&l, "..", 2, parent, EXT2_FT_DIR);
    leaf_end(&l);
    mem[DOTS + 4] = fs->super->s_def_hash_version;
    mem[DOTS + 5] = INFO;
    mem[DOTS + 6] = nodes ? 1 : 0;
    if (!nodes) {
        put_index(fs, mem + DOTS + INFO, DOTS + INFO, ix, n_leaves);
    } else {
        hv_autofree struct index *top = hv_alloc_array(nodes, sizeof(*top));
        if (!top) {
            r = -ENOMEM;
            goto out;
        }
        for (uint32_t i = 0; i < nodes; i++) {
            uint32_t from = i * node_limit, count = MIN(node_limit, n_leaves - from);
            uint8_t *node = mem + (1 + i) * bs;
            ext2fs_set_rec_len(fs, fs->blocksize, (void *)node);
            put_index(fs, node + 8, 8, ix + from, count);
            top[i] = (struct index){ .hash = ix[from].hash, .block = 1 + i };
        }
        put_index(fs, mem + DOTS + INFO, DOTS + INFO, top, nodes);
    }
    memcpy(mem + (1 + nodes) * bs, leaves, n_leaves * bs);
    inode->s.i_flags |= EXT2_INDEX_FL;
    r = write_blocks(fs, ino, inode, mem, 1 + nodes + (uint64_t)n_leaves, goal, buf);
out:
    free(leaves);
    free(ix);
    free(mem);
    return r;
}

int ext4_dir_write(ext2_filsys fs, ext2_ino_t ino, ext2_ino_t parent, struct ext4_dirent *en, size_t n,
                   unsigned min_blocks, union ext4_inode *inode, blk64_t *goal, uint8_t *buf)
{
    uint64_t bytes = DOTS;

    for (size_t i = 0; i < n; i++) {
        bytes += REC(en[i].len);
    }
    if (bytes > fs->blocksize - TAIL && min_blocks <= 1 && ext2fs_has_feature_dir_index(fs->super)) {
        return write_indexed(fs, ino, parent, en, n, inode, goal, buf);
    }
    return write_linear(fs, ino, parent, en, n, min_blocks, inode, goal, buf);
}
