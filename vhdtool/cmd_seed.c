/*
 * seed: the disk that cloud-init's NoCloud source looks for: user-data, meta-data and
 * network-config on an ISO 9660 or FAT file system called CIDATA.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/endian.h"
#include "hv/base/strbuf.h"
#include "hv/fs/fat.h"
#include "hv/fs/probe.h"
#include "vhdtool/build.h"
#include "vhdtool/cmd_create.h"

#define FILE_MAX  (4 * MIB)              /* user-data and the like; cloud-init takes less */
#define FAT_SIZE  (16 * MIB)

enum { USER, META, NETWORK, FILES };
static const char *const names[FILES] = { "user-data", "meta-data", "network-config" };

struct seed { char *text[FILES]; size_t len[FILES]; int64_t time_s; };

static int read_option(struct cli_call *c, const char *option, char **ret, size_t *ret_len, struct hv_error *e)
{
    const char *path = cli_text(c, option, NULL);
    int r = path ? hv_read_file(path, FILE_MAX, ret, ret_len) : 0;

    return r < 0 ? hv_fail_errno(e, -r, path, "cannot read") : 0;
}

/* A YAML string in double quotes. */
static void yaml_text(struct strbuf *sb, const char *s, size_t len)
{
    strbuf_addc(sb, '"');
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '"' || s[i] == '\\') {
            strbuf_addc(sb, '\\');
        }
        if ((unsigned char)s[i] >= 0x20) {
            strbuf_addc(sb, s[i]);
        }
    }
    strbuf_addc(sb, '"');
}

/*
 * The instance-id follows from the content: cloud-init runs again when that changed, and only
 * then. Names and keys go here and not into the user's own user-data.
 */
static int make_meta(struct cli_call *c, struct seed *s, struct hv_error *e)
{
    const char *host = cli_text(c, "hostname", NULL), *key_path = cli_text(c, "ssh-key", NULL);
    hv_autofree char *keys = NULL;
    strbuf_auto sb = { 0 };
    uint8_t sum[DIGEST_SIZE];
    struct digest d;
    size_t n = 0;
    int r = read_option(c, "ssh-key", &keys, &n, e);

    if (r < 0) {
        return r;
    }
    if (s->text[META]) {
        return host || keys ? hv_fail(e, HV_USAGE, host ? "--hostname" : "--ssh-key",
                                      "stands in the meta-data, which --meta-data gives whole") : 0;
    }
    digest_init(&d);
    digest_add(&d, s->text[USER], s->len[USER]);
    digest_add(&d, "", 1);
    digest_add(&d, s->text[NETWORK] ? s->text[NETWORK] : "", s->len[NETWORK]);
    digest_add(&d, "", 1);
    digest_add(&d, host ? host : "", host ? strlen(host) + 1 : 1);
    digest_add(&d, keys ? keys : "", n);
    digest_end(&d, sum);
    strbuf_addf(&sb, "instance-id: iid-%08x%08x\n", get_be32(sum), get_be32(sum + 4));
    if (host) {
        strbuf_adds(&sb, "local-hostname: ");
        yaml_text(&sb, host, strlen(host));
        strbuf_addc(&sb, '\n');
    }
    if (keys) {
        strbuf_adds(&sb, "public-keys:\n");
        bool any = false;
        for (const char *p = keys; *p;) {
            size_t len = strcspn(p, "\n");
            if (len && *p != '#') {
                strbuf_adds(&sb, "  - ");
                yaml_text(&sb, p, len);
                strbuf_addc(&sb, '\n');
                any = true;
            }
            p += len + (p[len] == '\n');
        }
        if (!any) {
            return hv_fail(e, HV_USAGE, key_path, "has no key");
        }
    }
    s->text[META] = strbuf_detach(&sb, &s->len[META]);
    return s->text[META] ? 0 : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
}

static int gather(struct cli_call *c, struct seed *s, struct hv_error *e)
{
    bool fixed;
    int r = build_time(&s->time_s, &fixed, e);

    for (unsigned i = 0; i < FILES && r == 0; i++) {
        static const char *const options[FILES] = { "user-data", "meta-data", "network" };
        r = read_option(c, options[i], &s->text[i], &s->len[i], e);
    }
    if (r == 0 && !s->text[USER]) {
        s->text[USER] = hv_strdup("#cloud-config\n{}\n");
        s->len[USER] = s->text[USER] ? strlen(s->text[USER]) : 0;
        r = s->text[USER] ? 0 : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    return r < 0 ? r : make_meta(c, s, e);
}

/* ---- ISO 9660 with Rock Ridge and Joliet ---- */

static int add_to_iso(struct archive *a, const struct seed *s, unsigned i)
{
    struct archive_entry *en = archive_entry_new();
    bool ok = en != NULL;

    if (ok) {
        archive_entry_set_pathname(en, names[i]);
        archive_entry_set_filetype(en, AE_IFREG);
        archive_entry_set_perm(en, 0644);
        archive_entry_set_size(en, (la_int64_t)s->len[i]);
        archive_entry_set_mtime(en, s->time_s, 0);
        ok = archive_write_header(a, en) == ARCHIVE_OK &&
             archive_write_data(a, s->text[i], s->len[i]) == (la_ssize_t)s->len[i];
    }
    archive_entry_free(en);
    return ok ? 0 : -EIO;
}

static int write_iso(int fd, const struct seed *s, const char *dst, struct hv_error *e)
{
    struct archive *a = archive_write_new();
    int r = a ? 0 : -ENOMEM;

    if (r == 0 && (archive_write_set_format_iso9660(a) != ARCHIVE_OK ||
                   archive_write_set_options(a, "iso9660:volume-id=CIDATA,iso9660:iso-level=3") != ARCHIVE_OK ||
                   archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK || archive_write_open_fd(a, fd) != ARCHIVE_OK)) {
        r = -EIO;
    }
    for (unsigned i = 0; i < FILES && r == 0; i++) {
        r = s->text[i] ? add_to_iso(a, s, i) : 0;
    }
    if (r == 0 && archive_write_close(a) != ARCHIVE_OK) {
        r = -EIO;
    }
    if (r < 0) {
        const char *why = a ? archive_error_string(a) : NULL;
        hv_fail(e, HV_FAILED, dst, "cannot write: %s", why ? why : "out of memory");
    }
    archive_write_free(a);
    return r;
}

static int make_iso(const char *part, const struct seed *s, const char *dst, struct hv_error *e)
{
    hv_autoclose int fd = open(part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    int r = fd < 0 ? hv_fail_errno(e, errno, dst, "cannot write") : write_iso(fd, s, dst, e);

    return r == 0 && fsync(fd) < 0 ? hv_fail_errno(e, errno, dst, "cannot write") : r;
}

/* ---- or a disk with FAT ---- */

static int make_disk(struct cli_call *c, const char *part, const struct seed *s, const char *dst, struct hv_error *e)
{
    struct fat_file files[FILES];
    struct fat_make m = { .label = "CIDATA", .time_s = s->time_s, .zeroed = true, .files = files };
    struct disk_create how = { .size = FAT_SIZE, .type = DISK_DYNAMIC };
    int format = wanted_format(c);
    struct disk *d;
    int r = 0;

    if (format >= 0) {
        how.kind = (enum disk_kind)format;
    } else if (disk_kind_of_path(dst, &how.kind) < 0) {
        r = hv_fail(e, HV_USAGE, dst, "the name does not say which format it is to have");
        hv_hint(e, "end it in .iso, .vhdx, .vhd, .raw or .img");
        return r;
    }
    for (unsigned i = 0; i < FILES; i++) {
        if (s->text[i]) {
            files[m.n++] = (struct fat_file){ .path = (char *)names[i], .mtime = { .s = s->time_s },
                                              .data = (uint8_t *)s->text[i], .len = s->len[i] };
            for (size_t k = 0; k < s->len[i]; k++) {
                m.serial = m.serial * 31 + (uint8_t)s->text[i][k];
            }
        }
    }
    unlink(part);
    r = disk_create(part, &how, e);
    if (r == 0) {
        r = disk_open(part, &(struct disk_options){ .flags = DISK_WRITE, .format = (int)how.kind }, &d, e);
    }
    if (r == 0) {
        r = fat_make(d, 0, disk_size(d), &m, e);
        if (r < 0) {
            disk_abandon(d);
        } else {
            r = disk_close(d, e);
        }
    }
    return r;
}

/* A seed is made again as often as one likes; another disk is not to be lost for a slip of the hand. */
static int may_replace(const char *dst, struct hv_error *e)
{
    struct hv_error why = { 0 };
    struct probe pr = { 0 };
    struct disk *d;

    if (access(dst, F_OK) < 0) {
        return 0;
    }
    if (disk_open(dst, &(struct disk_options){ .format = -1 }, &d, &why) == 0) {
        probe_read(d, 0, disk_size(d), &pr);
        disk_close(d, NULL);
    }
    return strcasecmp(pr.label, "CIDATA") == 0 ? 0 : hv_fail(e, HV_CONFLICT, dst, "exists already, and is no seed");
}

static int seed(struct cli_call *c, struct hv_error *e)
{
    const char *dst = c->args[0];
    size_t n = strlen(dst);
    bool iso = wanted_format(c) < 0 && n > 4 && strcasecmp(dst + n - 4, ".iso") == 0;
    hv_autofree char *part = name_beside(dst, ".part");
    struct seed s = { 0 };
    int r = part ? gather(c, &s, e) : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");

    r = r < 0 ? r : may_replace(dst, e);
    if (r == 0) {
        unfinished(part);
        r = iso ? make_iso(part, &s, dst, e) : make_disk(c, part, &s, dst, e);
        if (r == 0 && rename(part, dst) < 0) {
            r = hv_fail_errno(e, errno, dst, "cannot be given its name");
        }
        if (r < 0) {
            unlink(part);
        }
        unfinished(NULL);
    }
    if (r == 0) {
        cli_note(c, "%s: NoCloud, %s", dst, iso ? "iso9660" : "vfat");
    }
    for (unsigned i = 0; i < FILES; i++) {
        free(s.text[i]);
    }
    return r;
}

static const struct cli_arg dst_arg[] = {{"DST", CLI_FILE, .values = DISK_GLOB, .help = "the new ISO or disk"}, {0}};
static const struct cli_option options[] = {
    {.name = "user-data", .type = CLI_FILE, .arg = "FILE", .values = "*", .help = "#cloud-config, or a script"},
    {.name = "meta-data", .type = CLI_FILE, .arg = "FILE", .values = "*", .help = "the whole meta-data, instance-id too"},
    {.name = "network", .type = CLI_FILE, .arg = "FILE", .values = "*", .help = "network-config, version 1 or 2"},
    {.name = "hostname", .type = CLI_STRING, .arg = "NAME", .help = "the guest's name"},
    {.name = "ssh-key", .type = CLI_FILE, .arg = "FILE", .values = "*.pub", .help = "public keys for the default user"},
    OPT_FORMAT,
    {0},
};

const struct cli_command seed_commands[] = {
    {.noun = "seed", .help = "a cloud-init disk", .args = dst_arg, .options = options, .codes = CODE(NOT_FOUND), .run = seed,
     .about = "An ISO where DST ends in .iso, else a disk with FAT. The instance-id follows from the content: "
              "cloud-init runs again when it changed. A DST that is there is replaced.",
     .examples = EXAMPLES({"vhdtool seed web.iso --hostname web --ssh-key id.pub", "for an image from a cloud"},
                          {"vhdtool seed web.vhdx --user-data web.yaml", "as a disk"})},
    {0},
};
