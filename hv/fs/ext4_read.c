/*
 * Reading ext2, ext3 and ext4 by inode. libext2fs parses superblock, descriptors, inodes and
 * extents; folders are parsed here, bounded by their size, so that no list of blocks, however
 * odd, makes a walk long.
 */
#include <errno.h>
#include <sys/stat.h>

#include "hv/base/endian.h"
#include "hv/fs/ext4_open.h"

#define DIR_BYTES_MAX   (1 * GIB)
#define RUN_BLOCKS      256u
#define GROUPS_MAX      (1u << 21)      /* four times what 64 TiB have */

ext2_filsys ext4_filsys(struct fs *fs)
{
    return ((struct ext4 *)fs)->fs;
}

static int get_inode(struct ext4 *x, uint64_t ino, union ext4_inode *ret)
{
    if (ino == 0 || ino > x->fs->super->s_inodes_count) {
        return -EUCLEAN;
    }
    return ext4_inode_read(x->fs, (ext2_ino_t)ino, ret);
}

static int op_stat(struct fs *fs, uint64_t ino, struct fs_stat *ret)
{
    struct ext4 *x = (struct ext4 *)fs;
    union ext4_inode in;
    int r = get_inode(x, ino, &in);

    if (r < 0) {
        return r;
    }
    *ret = (struct fs_stat){
        .ino = ino,
        .mode = in.s.i_mode,
        .uid = in.s.i_uid | (uint32_t)in.s.osd2.linux2.l_i_uid_high << 16,
        .gid = in.s.i_gid | (uint32_t)in.s.osd2.linux2.l_i_gid_high << 16,
        .links = in.s.i_links_count,
        .size = EXT2_I_SIZE(&in.s),
        .blocks = in.s.i_blocks | (uint64_t)in.s.osd2.linux2.l_i_blocks_hi << 32,
    };
    if (in.s.i_flags & EXT4_HUGE_FILE_FL) {
        ret->blocks *= x->fs->blocksize / 512;
    }
    if (S_ISCHR(in.s.i_mode) || S_ISBLK(in.s.i_mode)) {
        uint32_t old = in.s.i_block[0], new = in.s.i_block[1];
        ret->size = 0;
        ret->major = old ? old >> 8 & 0xff : new >> 8 & 0xfff;
        ret->minor = old ? old & 0xff : (new & 0xff) | (new >> 12 & 0xfff00);
    }
    ret->mtime = ext4_get_time(&in, in.l.i_mtime, in.l.i_mtime_extra, 140);
    ret->atime = ext4_get_time(&in, in.l.i_atime, in.l.i_atime_extra, 144);
    ret->ctime = ext4_get_time(&in, in.l.i_ctime, in.l.i_ctime_extra, 136);
    return 0;
}

/* ---- folders ---- */

static uint32_t mode_of_type(unsigned type)
{
    static const uint32_t mode[] = { 0, S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK };

    return type < ARRAY_SIZE(mode) ? mode[type] : 0;
}

/* Entries in p[len]; a broken one ends the block with -EUCLEAN. */
static int parse_entries(struct ext4 *x, const uint8_t *p, size_t len, fs_entry_fn *fn, void *arg)
{
    char name[FS_NAME_MAX + 1];

    for (size_t at = 0; at + 8 <= len;) {
        uint32_t ino = get_le32(p + at), rec = get_le16(p + at + 4);
        unsigned n = p[at + 6], type = p[at + 7];
        if (x->fs->blocksize >= 65536 && (rec == 65535 || rec == 0)) {
            rec = x->fs->blocksize;
        }
        if (rec < 8 || rec % 4 || rec > len - at || 8 + n > rec) {
            return -EUCLEAN;
        }
        memcpy(name, p + at + 8, n);
        name[n] = '\0';
        at += rec;
        bool dots = (n == 1 && name[0] == '.') || (n == 2 && name[0] == '.' && name[1] == '.');
        if (!ino || !n || dots) {
            continue;
        }
        if (ino > x->fs->super->s_inodes_count || memchr(name, '/', n) || strlen(name) != n) {
            return -EUCLEAN;
        }
        struct fs_entry en = { .ino = ino, .name = name };
        if (ext2fs_has_feature_filetype(x->fs->super)) {
            en.mode = mode_of_type(type);
        }
        int r = fn(arg, &en);
        if (r) {
            return r;
        }
    }
    return 0;
}

static int inline_data(struct ext4 *x, uint64_t ino, union ext4_inode *in, uint8_t **ret, size_t *ret_len)
{
    size_t size = 0;
    errcode_t err = ext2fs_inline_data_size(x->fs, (ext2_ino_t)ino, &size);
    uint8_t *buf;

    if (err) {
        return ext4_errno(x->fs, err);
    }
    if (size > FS_XATTR_MAX) {
        return -EUCLEAN;
    }
    buf = hv_alloc(size + 64);
    if (!buf) {
        return -ENOMEM;
    }
    err = ext2fs_inline_data_get(x->fs, (ext2_ino_t)ino, &in->s, buf, &size);
    if (err) {
        free(buf);
        return ext4_errno(x->fs, err);
    }
    *ret = buf;
    *ret_len = size;
    return 0;
}

static int op_list(struct fs *fs, uint64_t ino, fs_entry_fn *fn, void *arg)
{
    struct ext4 *x = (struct ext4 *)fs;
    union ext4_inode in;
    uint32_t bs = x->fs->blocksize;
    int r = get_inode(x, ino, &in);

    if (r < 0) {
        return r;
    }
    if (!S_ISDIR(in.s.i_mode)) {
        return -ENOTDIR;
    }
    if (in.s.i_flags & EXT4_ENCRYPT_FL) {
        return -EOPNOTSUPP;
    }
    if (in.s.i_flags & EXT4_INLINE_DATA_FL) {
        uint8_t *data;
        size_t len;
        r = inline_data(x, ino, &in, &data, &len);
        if (r < 0) {
            return r;
        }
        /* {u32 parent, entries} in the inode's 60 bytes, more entries in the attribute. */
        if (len >= 60) {
            r = parse_entries(x, data + 4, 56, fn, arg);
            if (r == 0) {
                r = parse_entries(x, data + 60, len - 60, fn, arg);
            }
        } else {
            r = len > 4 ? parse_entries(x, data + 4, len - 4, fn, arg) : 0;
        }
        free(data);
        return r;
    }
    uint64_t size = EXT2_I_SIZE(&in.s);
    if (size > DIR_BYTES_MAX) {
        return -EUCLEAN;
    }
    hv_autofree uint8_t *block = hv_alloc(bs);
    if (!block) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < size / bs && r == 0; i++) {
        blk64_t at = 0;
        errcode_t err = ext2fs_bmap2(x->fs, (ext2_ino_t)ino, &in.s, NULL, 0, i, NULL, &at);
        if (!err && at) {
            err = ext2fs_read_dir_block4(x->fs, at, block, 0, (ext2_ino_t)ino);
        }
        if (err) {
            return ext4_errno(x->fs, err);
        }
        r = at ? parse_entries(x, block, bs, fn, arg) : -EUCLEAN;     /* folders have no holes */
    }
    return r;
}

struct wanted { const char *name; uint64_t ino; };

static int match(void *arg, const struct fs_entry *en)
{
    struct wanted *w = arg;

    if (strcmp(en->name, w->name) != 0) {
        return 0;
    }
    w->ino = en->ino;
    return 1;
}

static int op_lookup(struct fs *fs, uint64_t dir, const char *name, uint64_t *ret_ino)
{
    struct wanted w = { .name = name };
    int r = op_list(fs, dir, match, &w);

    if (r == 1) {
        *ret_ino = w.ino;
        return 0;
    }
    return r < 0 ? r : -ENOENT;
}

/* ---- content ---- */

/* Blocks from `first` that lie together: *ret_at 0 for a hole or blocks never written. */
static int map_run(struct ext4 *x, uint64_t ino, union ext4_inode *in, uint64_t first, uint64_t max,
                   blk64_t *ret_at, uint64_t *ret_n)
{
    for (uint64_t n = 0; n < max; n++) {
        blk64_t at = 0;
        int flags = 0;
        errcode_t err = ext2fs_bmap2(x->fs, (ext2_ino_t)ino, &in->s, NULL, 0, first + n, &flags, &at);
        if (err) {
            return ext4_errno(x->fs, err);
        }
        if (flags & BMAP_RET_UNINIT) {
            at = 0;
        }
        if (n == 0) {
            *ret_at = at;
        } else if (at != (*ret_at ? *ret_at + n : 0)) {
            *ret_n = n;
            return 0;
        }
    }
    *ret_n = max;
    return 0;
}

static int op_read(struct fs *fs, uint64_t ino, uint64_t off, void *buf, size_t len, size_t *ret_len)
{
    struct ext4 *x = (struct ext4 *)fs;
    union ext4_inode in;
    uint32_t bs = x->fs->blocksize;
    uint8_t *to = buf;
    int r = get_inode(x, ino, &in);

    if (r < 0) {
        return r;
    }
    if (S_ISDIR(in.s.i_mode)) {
        return -EISDIR;
    }
    if (!S_ISREG(in.s.i_mode) && !S_ISLNK(in.s.i_mode)) {
        return -EINVAL;
    }
    if (in.s.i_flags & EXT4_ENCRYPT_FL) {
        return -EOPNOTSUPP;
    }
    uint64_t size = EXT2_I_SIZE(&in.s);
    *ret_len = 0;
    if (off >= size || !len) {
        return 0;
    }
    len = (size_t)MIN((uint64_t)len, size - off);
    if (in.s.i_flags & EXT4_INLINE_DATA_FL) {
        uint8_t *data;
        size_t have;
        r = inline_data(x, ino, &in, &data, &have);
        if (r == 0) {
            memset(to, 0, len);
            if (off < have) {
                memcpy(to, data + off, MIN(len, have - off));
            }
            free(data);
            *ret_len = len;
        }
        return r;
    }
    if (!x->bounce && !(x->bounce = hv_alloc((size_t)RUN_BLOCKS * bs))) {
        return -ENOMEM;
    }
    size_t left = len;
    while (left > 0) {
        uint64_t first = off / bs, skip = off % bs;
        uint64_t max = MIN((skip + left + bs - 1) / bs, (uint64_t)RUN_BLOCKS), n = 0;
        blk64_t at = 0;
        r = map_run(x, ino, &in, first, max, &at, &n);
        if (r < 0) {
            return r;
        }
        size_t bytes = (size_t)MIN((uint64_t)left, n * bs - skip);
        if (at) {
            errcode_t err = io_channel_read_blk64(x->fs->io, at, (int)n, x->bounce);
            if (err) {
                return ext4_errno(x->fs, err);
            }
            memcpy(to, x->bounce + skip, bytes);
        } else {
            memset(to, 0, bytes);
        }
        to += bytes;
        off += bytes;
        left -= bytes;
    }
    *ret_len = len;
    return 0;
}

static int op_readlink(struct fs *fs, uint64_t ino, char *buf, size_t size)
{
    struct ext4 *x = (struct ext4 *)fs;
    union ext4_inode in;
    size_t len, got;
    int r = get_inode(x, ino, &in);

    if (r < 0) {
        return r;
    }
    if (!S_ISLNK(in.s.i_mode)) {
        return -EINVAL;
    }
    if (EXT2_I_SIZE(&in.s) >= size) {
        return -ENAMETOOLONG;
    }
    len = (size_t)EXT2_I_SIZE(&in.s);
    if (ext2fs_is_fast_symlink(&in.s) && len < sizeof(in.s.i_block)) {
        memcpy(buf, in.s.i_block, len);
    } else {
        r = op_read(fs, ino, 0, buf, len, &got);
        if (r < 0) {
            return r;
        }
        len = got;
    }
    buf[len] = '\0';
    return len && strlen(buf) == len ? 0 : -EUCLEAN;
}

/*
 * ACLs on disk leave out the id where the tag needs none (Linux fs/ext4/acl.c); getxattr(2)
 * shows entries of 8 bytes. libext2fs' own conversion trusts the length, so it is not used.
 */
static int acl_to_xattr(const uint8_t *p, size_t len, uint8_t *out, size_t size, size_t *ret_len)
{
    size_t n = 4;

    if (len < 4 || get_le32(p) != 1) {
        return -EUCLEAN;
    }
    put_le32(out, 2);
    for (size_t at = 4; at < len;) {
        if (len - at < 4 || size - n < 8) {
            return -EUCLEAN;
        }
        unsigned tag = get_le16(p + at);
        bool has_id = tag == 2 || tag == 8;                /* ACL_USER, ACL_GROUP */
        if (has_id && len - at < 8) {
            return -EUCLEAN;
        }
        memcpy(out + n, p + at, 4);
        put_le32(out + n + 4, has_id ? get_le32(p + at + 4) : UINT32_MAX);
        at += has_id ? 8 : 4;
        n += 8;
    }
    *ret_len = n;
    return 0;
}

struct xattr_walk { fs_xattr_fn *fn; void *arg; int r; };

static int one_xattr(char *name, char *value, size_t len, void *arg)
{
    struct xattr_walk *w = arg;
    uint8_t acl[2 * 4096 + 8];

    if (!name[0] || len > FS_XATTR_MAX) {
        return 0;
    }
    if (strncmp(name, "system.posix_acl_", 17) == 0) {
        if (len > 4096 || acl_to_xattr((uint8_t *)value, len, acl, sizeof(acl), &len) < 0) {
            return 0;                                      /* damaged: not shown, as Linux */
        }
        value = (char *)acl;
    } else if (strcmp(name, "system.data") == 0) {
        return 0;                                          /* inline data, no attribute */
    }
    w->r = w->fn(w->arg, name, value, len);
    return w->r ? XATTR_ABORT : 0;
}

static int op_xattrs(struct fs *fs, uint64_t ino, fs_xattr_fn *fn, void *arg)
{
    struct ext4 *x = (struct ext4 *)fs;
    struct xattr_walk w = { .fn = fn, .arg = arg };
    struct ext2_xattr_handle *h;
    unsigned raw = XATTR_HANDLE_FLAG_RAW;
    union ext4_inode in;
    errcode_t err;
    int r = get_inode(x, ino, &in);

    if (r < 0) {
        return r;
    }
    err = ext2fs_xattrs_open(x->fs, (ext2_ino_t)ino, &h);
    if (err) {
        return ext4_errno(x->fs, err);
    }
    err = ext2fs_xattrs_flags(h, &raw, NULL);
    if (!err) {
        err = ext2fs_xattrs_read(h);
    }
    if (!err) {
        err = ext2fs_xattrs_iterate(h, one_xattr, &w);
    }
    ext2fs_xattrs_close(&h);
    return err ? ext4_errno(x->fs, err) : w.r;
}

/* ---- space ---- */

static int op_space(struct fs *fs, struct fs_space *ret)
{
    struct ext4 *x = (struct ext4 *)fs;
    struct ext2_super_block *s = x->fs->super;
    uint64_t blocks = ext2fs_blocks_count(s), unused = MIN(ext2fs_free_blocks_count(s), blocks);

    *ret = (struct fs_space){
        .size = blocks * x->fs->blocksize,
        .free_bytes = unused * x->fs->blocksize,
        .files = s->s_inodes_count,
        .free_files = MIN(s->s_free_inodes_count, s->s_inodes_count),
        .block = x->fs->blocksize,
    };
    return 0;
}

int ext4_need_bitmaps(struct ext4 *x)
{
    errcode_t err = x->bitmaps ? 0 : ext2fs_read_bitmaps(x->fs);

    if (err) {
        return ext4_errno(x->fs, err);
    }
    x->bitmaps = true;
    return 0;
}

static int op_each_free(struct fs *fs, int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg)
{
    struct ext4 *x = (struct ext4 *)fs;
    uint64_t end = ext2fs_blocks_count(x->fs->super), bs = x->fs->blocksize;
    int r = ext4_need_bitmaps(x);

    if (r < 0) {
        return r;
    }
    /* The journal may hold blocks that the bitmap calls free; after errors it may be wrong. */
    if (ext2fs_has_feature_journal_needs_recovery(x->fs->super) || !(x->fs->super->s_state & EXT2_VALID_FS) ||
        (x->fs->super->s_state & EXT2_ERROR_FS)) {
        return -EBUSY;
    }
    for (uint64_t at = x->fs->super->s_first_data_block; at < end;) {
        blk64_t first, last;
        errcode_t err = ext2fs_find_first_zero_block_bitmap2(x->fs->block_map, at, end - 1, &first);
        if (err) {
            return err == ENOENT ? 0 : ext4_errno(x->fs, err);
        }
        err = ext2fs_find_first_set_block_bitmap2(x->fs->block_map, first, end - 1, &last);
        if (err) {
            if (err != ENOENT) {
                return ext4_errno(x->fs, err);
            }
            last = end;
        }
        r = fn(arg, first * bs, (last - first) * bs);
        if (r) {
            return r;
        }
        at = last;
    }
    return 0;
}

/* ---- open, close ---- */

static int op_close(struct fs *fs)
{
    struct ext4 *x = (struct ext4 *)fs;
    int r = ext4_end_changes(x);

    if (x->fs) {
        if (!x->changed || r < 0) {
            x->fs->flags &= ~(EXT2_FLAG_DIRTY | EXT2_FLAG_CHANGED);
            ext2fs_free(x->fs);
        } else {
            errcode_t err = ext2fs_close_free(&x->fs);
            r = err ? ext4_errno(NULL, err) : 0;
        }
    }
    free(x->bounce);
    free(x);
    return r;
}

static const struct fs_ops ops = {
    .name = "ext4",
    .root = EXT2_ROOT_INO,
    .stat = op_stat,
    .list = op_list,
    .lookup = op_lookup,
    .read = op_read,
    .readlink = op_readlink,
    .xattrs = op_xattrs,
    .space = op_space,
    .each_free = op_each_free,
    .close = op_close,
};

/* libext2fs allocates by these before it has seen anything else: what they claim must fit the partition. */
static int check_super(struct disk *d, uint64_t off, uint64_t len, struct hv_error *e)
{
    uint8_t s[1024];
    int r = len >= 2048 ? disk_read(d, off + 1024, s, sizeof(s)) : -EUCLEAN;

    if (r < 0) {
        return r;
    }
    uint32_t log = get_le32(s + 0x18), per_group = get_le32(s + 0x20), inodes_per_group = get_le32(s + 0x28);
    uint64_t blocks = get_le32(s + 4), size;
    if (get_le32(s + 0x60) & EXT4_FEATURE_INCOMPAT_64BIT) {
        blocks |= (uint64_t)get_le32(s + 0x150) << 32;
    }
    if (log > 6 || __builtin_mul_overflow(blocks, (uint64_t)1024 << log, &size) || size > len || !blocks) {
        return hv_fail(e, HV_FAILED, NULL, "the file system says that it is larger than its partition"), -EUCLEAN;
    }
    if (per_group < 256 || per_group % 8 || per_group > 65528u * 16 || !inodes_per_group ||
        blocks / per_group > GROUPS_MAX || (uint64_t)get_le32(s) > (blocks / per_group + 1) * inodes_per_group) {
        return hv_fail(e, HV_FAILED, NULL, "the superblock contradicts itself"), -EUCLEAN;
    }
    return 0;
}

/* What keeps us from changing this file system, or NULL. */
static const char *why_not(const struct ext2_super_block *s)
{
    struct ext2_super_block *q = (struct ext2_super_block *)s;

    return !ext2fs_has_feature_extents(q) ? "ext2 and ext3 can only be read"
         : ext2fs_has_feature_bigalloc(q) ? "ext4 with clusters (bigalloc) can only be read"
         : ext2fs_has_feature_mmp(q) ? "ext4 with multiple mount protection can only be read"
         : ext2fs_has_feature_quota(q) ? "ext4 with quotas can only be read"
         : ext2fs_has_feature_journal_dev(q) ? "this is a journal, not a file system" : NULL;
}

int ext4_open(struct disk *d, uint64_t off, uint64_t len, bool write, struct fs **ret, struct hv_error *e)
{
    struct ext4 *x = hv_alloc(sizeof(*x));
    errcode_t err;
    int r;

    if (!x) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    x->base.ops = &ops;
    r = check_super(d, off, len, e);
    if (r < 0) {
        if (e && !hv_error_is_set(e)) {
            hv_fail_errno(e, -r, NULL, "cannot read the file system");
        }
        free(x);
        return r;
    }
    ext4_io_set_target(&(struct ext4_io_target){ .disk = d, .off = off, .len = len, .write = write,
                                                   .make_room = write });
    err = ext2fs_open2("image", NULL, EXT2_FLAG_64BITS | EXT2_FLAG_SKIP_MMP | (write ? EXT2_FLAG_RW : 0), 0, 0,
                       ext4_io_manager, &x->fs);
    if (err) {
        r = ext4_fail(e, NULL, err, NULL, "cannot read the file system");
        free(x);
        return r;
    }
    x->fs->default_bitmap_type = EXT2FS_BMAP64_RBTREE;
    struct ext2_super_block *s = x->fs->super;
    bool recover = ext2fs_has_feature_journal_needs_recovery(s);
    if (recover) {
        hv_strlcpy(x->base.note, "the journal was not replayed: the last changes may be missing", sizeof(x->base.note));
    }
    if (write) {
        const char *why = why_not(s);
        if (why) {
            r = hv_fail(e, HV_UNSUPPORTED, NULL, "%s", why);
        } else if (recover || ext2fs_has_feature_orphan_present(s)) {
            r = hv_fail(e, HV_CONFLICT, NULL, "the file system was not unmounted: its journal has to be replayed first");
            hv_hint(e, "start the VM and shut it down, or run e2fsck on the partition");
        } else if (!(s->s_state & EXT2_VALID_FS) || (s->s_state & EXT2_ERROR_FS)) {
            r = hv_fail(e, HV_CONFLICT, NULL, "the file system is marked as damaged");
            hv_hint(e, "run e2fsck on the partition");
        }
    }
    if (r < 0) {
        ext2fs_free(x->fs);
        free(x);
        return r;
    }
    *ret = &x->base;
    return 0;
}
