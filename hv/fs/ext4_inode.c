/* What all of ext4 shares: errors, inodes, attributes. */
#include <errno.h>
#include <sys/stat.h>

#include "hv/base/endian.h"
#include "hv/fs/ext4_impl.h"

int ext4_errno(ext2_filsys fs, errcode_t err)
{
    if (err == 0) {
        return 0;
    }
    if (fs && fs->io && ext4_io_error(fs->io)) {
        return ext4_io_error(fs->io);
    }
    if (err > 0 && err < 256) {
        return -(int)err;                    /* libext2fs passes errno through */
    }
    switch (err) {
    case EXT2_ET_BLOCK_ALLOC_FAIL:
    case EXT2_ET_INODE_ALLOC_FAIL:
    case EXT2_ET_DIR_NO_SPACE:
    case EXT2_ET_EA_NO_SPACE:
    case EXT2_ET_TOOSMALL:          return -ENOSPC;
    case EXT2_ET_NO_MEMORY:         return -ENOMEM;
    case EXT2_ET_FILE_NOT_FOUND:    return -ENOENT;
    case EXT2_ET_NO_DIRECTORY:      return -ENOTDIR;
    case EXT2_ET_SYMLINK_LOOP:      return -ELOOP;
    case EXT2_ET_FILE_TOO_BIG:      return -EFBIG;
    case EXT2_ET_FILE_EXISTS:       return -EEXIST;
    case EXT2_ET_DIR_EXISTS:        return -EEXIST;
    case EXT2_ET_EA_KEY_NOT_FOUND:  return -ENODATA;
    case EXT2_ET_RO_FILSYS:         return -EROFS;
    case EXT2_ET_UNSUPP_FEATURE:
    case EXT2_ET_RO_UNSUPP_FEATURE: return -EOPNOTSUPP;
    case EXT2_ET_SHORT_READ:
    case EXT2_ET_SHORT_WRITE:       return -EIO;
    default:                        return -EUCLEAN;
    }
}

int ext4_fail(struct hv_error *e, ext2_filsys fs, errcode_t err, const char *object, const char *doing)
{
    int r = ext4_errno(fs, err);

    if (r == -EUCLEAN || r == -EOPNOTSUPP) {
        initialize_ext2_error_table();
        hv_fail(e, r == -EUCLEAN ? HV_FAILED : HV_UNSUPPORTED, object, "%s: %s", doing, error_message(err));
    } else {
        hv_fail_errno(e, -r, object, "%s", doing);
    }
    return r;
}

int ext4_inode_read(ext2_filsys fs, ext2_ino_t ino, union ext4_inode *ret)
{
    *ret = (union ext4_inode){ 0 };
    return ext4_errno(fs, ext2fs_read_inode_full(fs, ino, &ret->s, sizeof(*ret)));
}

int ext4_inode_write(ext2_filsys fs, ext2_ino_t ino, union ext4_inode *in)
{
    int size = MIN((int)sizeof(*in), EXT2_INODE_SIZE(fs->super));

    return ext4_errno(fs, ext2fs_write_inode_full(fs, ino, &in->s, size));
}

void ext4_inode_owner(union ext4_inode *in, uint32_t mode, uint32_t uid, uint32_t gid)
{
    in->s.i_mode = (uint16_t)mode;
    in->s.i_uid = (uint16_t)uid;
    in->s.osd2.linux2.l_i_uid_high = (uint16_t)(uid >> 16);
    in->s.i_gid = (uint16_t)gid;
    in->s.osd2.linux2.l_i_gid_high = (uint16_t)(gid >> 16);
}

/* Linux fs/ext4/ext4.h: old_encode_dev() where it can, else new_encode_dev() in the second word. */
void ext4_inode_device(union ext4_inode *in, uint32_t major, uint32_t minor)
{
    if (major < 256 && minor < 256) {
        in->s.i_block[0] = major << 8 | minor;
        in->s.i_block[1] = 0;
    } else {
        in->s.i_block[0] = 0;
        in->s.i_block[1] = (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
    }
}

/* 34 bits of seconds from 1901 on: two of them in the low bits of the nanoseconds. */
void ext4_put_time(uint32_t *lo, uint32_t *extra, struct fs_time t)
{
    int64_t s = MIN(MAX(t.s, (int64_t)INT32_MIN), (int64_t)3 << 32 | INT32_MAX);

    *lo = (uint32_t)s;
    *extra = t.ns << 2 | (uint32_t)((s - (int32_t)(uint32_t)s) >> 32 & 3);
}

struct fs_time ext4_get_time(const union ext4_inode *in, uint32_t lo, uint32_t extra, unsigned extra_end)
{
    struct fs_time t = { .s = (int32_t)lo };

    if (in->l.i_extra_isize >= extra_end - EXT2_GOOD_OLD_INODE_SIZE) {
        t.s += (int64_t)(extra & 3) << 32;
        t.ns = MIN(extra >> 2, 999999999u);
    }
    return t;
}

uint8_t ext4_dirent_type(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:  return EXT2_FT_REG_FILE;
    case S_IFDIR:  return EXT2_FT_DIR;
    case S_IFCHR:  return EXT2_FT_CHRDEV;
    case S_IFBLK:  return EXT2_FT_BLKDEV;
    case S_IFIFO:  return EXT2_FT_FIFO;
    case S_IFSOCK: return EXT2_FT_SOCK;
    case S_IFLNK:  return EXT2_FT_SYMLINK;
    default:       return EXT2_FT_UNKNOWN;
    }
}

struct freed { ext2_filsys fs; uint64_t left; };

static int free_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t index, blk64_t ref, int ref_offset, void *arg)
{
    struct freed *f = arg;

    if (f->left-- == 0) {
        return BLOCK_ABORT;                  /* more than there are: a loop */
    }
    if (*block >= f->fs->super->s_first_data_block && *block < ext2fs_blocks_count(f->fs->super)) {
        ext2fs_block_alloc_stats2(f->fs, *block, -1);
    }
    return 0;
}

/* Not ext2fs_punch(): that of 1.47.0 refuses files that have the last block of the file system. */
int ext4_inode_free_data(ext2_filsys fs, ext2_ino_t ino, union ext4_inode *in)
{
    struct freed f = { fs, ext2fs_blocks_count(fs->super) };
    errcode_t err = 0;

    if (ext2fs_inode_has_valid_blocks2(fs, &in->s)) {
        err = ext2fs_block_iterate3(fs, ino, BLOCK_FLAG_READ_ONLY, NULL, free_block, &f);
    }
    memset(in->s.i_block, 0, sizeof(in->s.i_block));
    in->s.i_size = in->s.i_size_high = 0;
    return ext4_errno(fs, err);
}

int ext4_inode_truncate(ext2_filsys fs, ext2_ino_t ino, union ext4_inode *in)
{
    int r = ext4_inode_free_data(fs, ino, in);

    if (r == 0) {
        r = ext4_errno(fs, ext2fs_free_ext_attr(fs, ino, &in->l));
    }
    if (r < 0) {
        return r;
    }
    size_t head = EXT2_GOOD_OLD_INODE_SIZE + in->l.i_extra_isize;
    memset(in->raw + MIN(head, sizeof(in->raw)), 0, sizeof(in->raw) - MIN(head, sizeof(in->raw)));
    in->s.i_blocks = in->s.osd2.linux2.l_i_blocks_hi = 0;
    return 0;
}

int ext4_inode_unlink(ext2_filsys fs, ext2_ino_t ino)
{
    union ext4_inode in;
    int r = ext4_inode_read(fs, ino, &in);

    if (r < 0) {
        return r;
    }
    bool dir = S_ISDIR(in.s.i_mode);
    if (in.s.i_links_count > 1 && !dir) {
        in.s.i_links_count--;
        return ext4_inode_write(fs, ino, &in);
    }
    r = ext4_inode_truncate(fs, ino, &in);
    if (r < 0) {
        return r;
    }
    in = (union ext4_inode){ 0 };                        /* as one that was never used */
    r = ext4_inode_write(fs, ino, &in);
    if (r == 0) {
        ext2fs_inode_alloc_stats2(fs, ino, -1, dir);
    }
    return r;
}

int ext4_xattr_set(ext2_filsys fs, ext2_ino_t ino, const char *name, const void *value, size_t len)
{
    struct ext2_xattr_handle *h;
    errcode_t err, err2;

    /* Ours and libext2fs' bound; ext2fs_xattr_set() checks neither. */
    const char *dot = strchr(name, '.');
    if (!dot || strlen(dot + 1) > 255 || len > FS_XATTR_MAX) {
        return -EINVAL;
    }
    err = ext2fs_xattrs_open(fs, ino, &h);
    if (err) {
        return ext4_errno(fs, err);
    }
    err = ext2fs_xattrs_read(h);
    if (!err) {
        err = ext2fs_xattr_set(h, name, value, len);
    }
    err2 = ext2fs_xattrs_close(&h);
    return ext4_errno(fs, err ? err : err2);
}
