/*
 * build: a bootable disk's file systems out of a root file system, straight into the image.
 *
 * The sources are read once where that is enough. They are read before, too, where the size of the
 * image or the identifiers in it depend on what they hold: a pipe is kept in a file meanwhile. The
 * image grows under another name (DST.part) and gets its own when it is whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/endian.h"
#include "hv/base/strbuf.h"
#include "hv/base/units.h"
#include "hv/fs/fat.h"
#include "hv/fs/partition.h"
#include "vhdtool/build.h"
#include "vhdtool/cmd_create.h"

#define SOURCES_MAX 160u                 /* an OCI image has up to 127 layers */
#define SLACK_PCT   25u
#define ESP_MIN     (4 * MIB)
#define SWAP_MIN    (64 * KIB)
#define ESP_PATH    "boot/efi/"          /* what sources have there goes to the ESP */

/* A range of the disk with one thing in it. */
struct part { uint64_t off, len; unsigned number; };

struct build {
    struct cli_call *call;
    const char *dst;
    struct build_source source[SOURCES_MAX];
    unsigned n_sources;
    int64_t now_s;
    uint8_t seed[DIGEST_SIZE];
    unsigned guids;                      /* given out so far */
    enum partition_scheme scheme;
    struct part esp, swap, root;
    struct progress bar;
    uint64_t read_bytes, total_bytes;
    /* Content as counted before: */
    uint64_t count_bytes, count_files;
    /* While it is filled: */
    struct ext4_build *fs;
    struct fat_file *esp_files;
    size_t n_esp_files;
    uint64_t esp_bytes;
    bool in_esp, left_out;               /* the file added last */
    bool in_layer;                       /* the source that is read is a layer */
    char **layer_paths[SOURCES_MAX];     /* names of sources that are not the command line's */
    size_t n_layer_paths[SOURCES_MAX];
    uint64_t file_size;
    struct ext4_built built;
};

static void seeded_guid(void *arg, struct guid *ret)
{
    struct build *b = arg;
    char what[32];

    snprintf(what, sizeof(what), "guid %u", b->guids++);
    digest_guid(b->seed, what, false, ret->b);
}

/* ---- what comes in ---- */

static int open_source(struct build *b, const char *name, bool spool, bool layer, struct hv_error *e)
{
    if (b->n_sources == SOURCES_MAX) {
        return hv_fail(e, HV_USAGE, "--from", "more than %u sources", SOURCES_MAX);
    }
    int r = build_source_open(name, spool, b->dst, &b->source[b->n_sources], e);
    if (r == 0) {
        b->source[b->n_sources++].layer = layer;
    }
    return r;
}

static int open_sources(struct build *b, bool spool, struct hv_error *e)
{
    const struct cli_value *v;
    int r = 0;

    for (unsigned i = 0; r == 0 && (v = cli_opt_nth(b->call, "from", i)); i++) {
        if (i >= SOURCES_MAX || !build_is_oci(v->text)) {
            r = open_source(b, v->text, spool, false, e);
            continue;
        }
        r = build_oci_layers(v->text, &b->layer_paths[i], &b->n_layer_paths[i], e);
        for (size_t k = 0; r == 0 && k < b->n_layer_paths[i]; k++) {
            r = open_source(b, b->layer_paths[i][k], spool, true, e);
        }
    }
    if (r < 0) {
        return r;
    }
    if (!b->n_sources) {
        r = hv_fail(e, HV_USAGE, "--from", "nothing to build from");
        hv_hint(e, "vhdtool build %s --from rootfs.tar.zst", b->dst);
        return r;
    }
    return 0;
}

static int count_add(void *arg, const struct ext4_file *f, uint64_t size, bool data, struct hv_error *e)
{
    struct build *b = arg;

    b->count_files += !f->hardlink;
    b->count_bytes += ROUND_UP(MIN(size, (uint64_t)1 << 50), EXT4_BLOCK);
    if (S_ISDIR(f->mode) || (f->target && strlen(f->target) > 59)) {
        b->count_bytes += EXT4_BLOCK;
    }
    return 0;
}

static int count_data(void *arg, uint64_t off, const void *p, size_t len, struct hv_error *e)
{
    return 0;
}

static int count_xattr(void *arg, const char *name, const void *value, size_t len, struct hv_error *e)
{
    struct build *b = arg;

    b->count_bytes += len > 60 ? EXT4_BLOCK : 0;
    return 0;
}

/* Each pass over the sources; the bar runs from the start in each of them. */
static void begin_pass(struct build *b)
{
    b->read_bytes = b->total_bytes = 0;
    for (unsigned i = 0; i < b->n_sources; i++) {
        b->total_bytes += b->source[i].folder ? b->count_bytes : b->source[i].size;
    }
    for (unsigned i = 0; i < b->n_sources; i++) {
        b->source[i].progress = &b->read_bytes;
        b->source[i].bar = &b->bar;
        b->source[i].total = b->total_bytes;
    }
}

static int look_first(struct build *b, bool digest, bool count, struct hv_error *e)
{
    struct build_sink sink = { .add = count_add, .data = count_data, .xattr = count_xattr, .arg = b };
    struct digest d;
    int r = 0;

    digest_init(&d);
    begin_pass(b);
    for (unsigned i = 0; i < b->n_sources && r == 0; i++) {
        r = digest ? build_source_digest(&b->source[i], &d, e) : 0;
        if (r == 0 && count) {
            r = build_source_walk(&b->source[i], &sink, e);
        }
    }
    if (digest) {
        digest_end(&d, b->seed);
    }
    return r;
}

/* --id-seed, else of the content where a time is given, else by chance. */
static int find_seed(struct build *b, bool fixed_time, bool count, struct hv_error *e)
{
    const char *text = cli_text(b->call, "id-seed", NULL);
    struct digest d;
    int r = 0;

    if (count || (fixed_time && !text)) {
        r = look_first(b, fixed_time && !text, count, e);
    }
    if (r == 0 && text) {
        digest_init(&d);
        digest_add(&d, text, strlen(text));
        digest_end(&d, b->seed);
    } else if (r == 0 && !fixed_time && getrandom(b->seed, sizeof(b->seed), 0) != sizeof(b->seed)) {
        r = hv_fail_errno(e, errno, NULL, "no random numbers");
    }
    return r;
}

/* ---- where things go ---- */

static int layout(struct build *b, uint64_t *size, struct hv_error *e)
{
    const char *word = cli_text(b->call, "layout", "gpt");
    uint64_t at = PARTITION_ALIGN, tail = PARTITION_ALIGN;
    unsigned number = 1;

    b->scheme = strcmp(word, "gpt") == 0 ? PARTITION_GPT : strcmp(word, "mbr") == 0 ? PARTITION_MBR : PARTITION_NONE;
    b->esp.len = ROUND_UP(cli_number(b->call, "esp", 0), MIB);
    b->swap.len = ROUND_UP(cli_number(b->call, "swap", 0), MIB);
    if (b->scheme == PARTITION_NONE) {
        if (b->esp.len || b->swap.len) {
            return hv_fail(e, HV_USAGE, b->esp.len ? "--esp" : "--swap", "needs partitions: --layout gpt or mbr");
        }
        at = tail = 0;
    } else if (b->scheme == PARTITION_MBR) {
        tail = 0;
    }
    struct part *parts[] = { &b->esp, &b->swap };
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
        if (parts[i]->len) {
            parts[i]->off = at;
            parts[i]->number = number++;
            at += parts[i]->len;
        }
    }
    b->root = (struct part){ .off = at, .number = b->scheme == PARTITION_NONE ? 0 : number };
    if (!*size) {
        b->root.len = ROUND_UP(ext4_size_for(b->count_bytes, b->count_files, SLACK_PCT), MIB);
        *size = at + b->root.len + tail;
    } else if (*size < at + tail + 2 * MIB) {
        char text[24];
        return hv_fail(e, HV_USAGE, "--size", "leaves nothing for the root file system: more than %s is taken",
                       format_size_exact(at + tail, text, sizeof(text)));
    }
    return 0;
}

static void name_partition(struct partition *p, struct build *b, const struct part *at, enum partition_use use,
                           const char *name)
{
    *p = (struct partition){ .number = at->number, .offset = at->off, .len = at->len,
                             .type = partition_gpt_type(use), .mbr_type = partition_mbr_type(use),
                             .active = use == PARTITION_LINUX };
    digest_guid(b->seed, name, false, p->id.b);
    hv_strlcpy(p->name, name, sizeof(p->name));
}

static int write_table(struct build *b, struct disk *d, struct hv_error *e)
{
    struct partition p[3];
    struct partition_table t = { .scheme = b->scheme, .p = p };
    uint64_t first, end;

    partition_limits(d, b->scheme, &first, &end);
    if (end < b->root.off + 2 * MIB) {
        return hv_fail(e, HV_USAGE, "--size", "leaves nothing for the root file system");
    }
    b->root.len = ROUND_DOWN(end - b->root.off, b->scheme == PARTITION_NONE ? EXT4_BLOCK : MIB);
    if (b->scheme == PARTITION_NONE) {
        return 0;
    }
    digest_guid(b->seed, "disk", false, t.disk_id.b);
    t.mbr_id = get_le32(t.disk_id.b) | 1;
    if (b->esp.len) {
        name_partition(&p[t.n++], b, &b->esp, PARTITION_ESP, "esp");
    }
    if (b->swap.len) {
        name_partition(&p[t.n++], b, &b->swap, PARTITION_SWAP, "swap");
    }
    name_partition(&p[t.n++], b, &b->root, PARTITION_LINUX, "root");
    return partition_write(d, &t, e);
}

/* mkswap(8): one page of header, for pages of 4 KiB. */
static int write_swap(struct build *b, struct disk *d, struct hv_error *e)
{
    uint8_t page[4096] = { 0 };

    put_le32(page + 1024, 1);
    put_le32(page + 1028, (uint32_t)(b->swap.len / sizeof(page) - 1));
    digest_guid(b->seed, "swap fs", true, page + 1036);
    memcpy(page + sizeof(page) - 10, "SWAPSPACE2", 10);
    int r = disk_write(d, b->swap.off, page, sizeof(page));
    return r < 0 ? hv_fail_errno(e, -r, NULL, "cannot write the swap area") : 0;
}

/* ---- filling ---- */

/* "boot/efi/..." without dots in it; NULL for other paths. */
static const char *esp_path(const char *path)
{
    for (;;) {
        path += strspn(path, "/");
        if (path[0] != '.' || path[1] != '/') {
            break;
        }
        path++;
    }
    return strncmp(path, ESP_PATH, strlen(ESP_PATH)) == 0 && path[strlen(ESP_PATH)] && !strstr(path, "..")
           ? path + strlen(ESP_PATH) : NULL;
}

static int add_esp_file(struct build *b, const struct ext4_file *f, const char *path, uint64_t size, struct hv_error *e)
{
    if (!S_ISREG(f->mode) && !S_ISDIR(f->mode)) {
        return hv_fail(e, HV_UNSUPPORTED, f->path, "an ESP holds files and folders only");
    }
    if (f->hardlink || size > b->esp.len - MIN(b->esp_bytes, b->esp.len) || b->n_esp_files >= 65536) {
        hv_fail(e, HV_NO_RESOURCES, f->path, f->hardlink ? "an ESP has no hard links" : "does not fit into the ESP");
        return -ENOSPC;
    }
    /* A later source's file takes the place of an earlier one's. */
    size_t i = 0;
    while (i < b->n_esp_files && strcasecmp(b->esp_files[i].path, path) != 0) {
        i++;
    }
    if (i == b->n_esp_files) {
        struct fat_file *grown = hv_realloc_array(b->esp_files, b->n_esp_files + 1, sizeof(*grown));
        if (!grown) {
            return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
        }
        b->esp_files = grown;
        grown[b->n_esp_files] = (struct fat_file){ .path = hv_strdup(path) };
        if (!grown[b->n_esp_files++].path) {
            return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
        }
        for (char *p = grown[i].path + strlen(path); p > grown[i].path && p[-1] == '/';) {
            *--p = '\0';
        }
    } else if (i + 1 < b->n_esp_files) {             /* data() fills the last one */
        struct fat_file again = b->esp_files[i];
        memmove(&b->esp_files[i], &b->esp_files[i + 1], (b->n_esp_files - i - 1) * sizeof(again));
        b->esp_files[b->n_esp_files - 1] = again;
    }
    struct fat_file *to = &b->esp_files[b->n_esp_files - 1];
    free(to->data);
    to->data = hv_alloc(size ? size : 1);
    to->len = size;
    to->dir = S_ISDIR(f->mode);
    to->mtime = f->mtime;
    b->esp_bytes += size;
    return to->data ? 0 : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
}

static int fill_add(void *arg, const struct ext4_file *f, uint64_t size, bool data, struct hv_error *e)
{
    struct build *b = arg;
    const char *esp = b->esp.len ? esp_path(f->path) : NULL;

    b->left_out = b->in_layer && build_whiteout(f->path);
    b->in_esp = esp != NULL;
    b->file_size = size;
    if (b->left_out) {
        return 0;
    }
    if (esp) {
        return add_esp_file(b, f, esp, size, e);
    }
    int r = ext4_build_add(b->fs, f, e);
    if (r == 0 && data && f->hardlink) {             /* cpio: the last name brings the data */
        r = ext4_build_reopen(b->fs, f->path, e);
    }
    if (r == 0 && data && size) {
        r = ext4_build_truncate(b->fs, size, e);
    }
    return r;
}

static int fill_data(void *arg, uint64_t off, const void *p, size_t len, struct hv_error *e)
{
    struct build *b = arg;

    if (b->left_out) {
        return 0;
    }
    if (!b->in_esp) {
        return ext4_build_data(b->fs, off, p, len, e);
    }
    struct fat_file *to = &b->esp_files[b->n_esp_files - 1];
    if (off > to->len || len > to->len - off) {
        return hv_fail(e, HV_FAILED, to->path, "is longer than it said"), -EIO;
    }
    memcpy(to->data + off, p, len);
    return 0;
}

static int fill_xattr(void *arg, const char *name, const void *value, size_t len, struct hv_error *e)
{
    struct build *b = arg;

    return b->in_esp || b->left_out ? 0 : ext4_build_xattr(b->fs, name, value, len, e);
}

static int write_esp(struct build *b, struct disk *d, struct hv_error *e)
{
    uint8_t id[16];
    struct fat_make m = { .label = "ESP", .time_s = b->now_s, .zeroed = true, .files = b->esp_files,
                          .n = b->n_esp_files };

    digest_guid(b->seed, "esp fs", true, id);
    m.serial = get_le32(id);
    return fat_make(d, b->esp.off, b->esp.len, &m, e);
}

static char *fstab(struct build *b)
{
    uint8_t id[16];
    struct guid g;
    char text[GUID_TEXT_SIZE];
    strbuf_auto sb = { 0 };

    digest_guid(b->seed, "root fs", false, g.b);
    strbuf_addf(&sb, "UUID=%s\t/\text4\terrors=remount-ro\t0\t1\n", guid_format(&g, text));
    if (b->esp.len) {
        digest_guid(b->seed, "esp fs", true, id);
        strbuf_addf(&sb, "UUID=%04X-%04X\t/boot/efi\tvfat\tumask=0077\t0\t2\n", get_le16(id + 2), get_le16(id));
    }
    if (b->swap.len) {
        digest_guid(b->seed, "swap fs", false, g.b);
        strbuf_addf(&sb, "UUID=%s\tnone\tswap\tsw\t0\t0\n", guid_format(&g, text));
    }
    return strbuf_detach(&sb, NULL);
}

static int adjust(struct build *b, struct hv_error *e)
{
    struct cli_call *c = b->call;
    const char *key = cli_text(c, "ssh-key", NULL);
    hv_autofree char *keys = NULL, *tab = NULL;
    struct build_adjust a = {
        .hostname = cli_text(c, "hostname", NULL),
        .root_password = cli_text(c, "root-password", NULL),
        .autologin = cli_has(c, "autologin"),
        .time_s = b->now_s,
        .seed = b->seed,
    };
    size_t len;
    int r;

    if (key) {
        r = hv_read_file(key, MIB, &keys, &len);
        if (r < 0) {
            return hv_fail_errno(e, -r, key, "cannot read");
        }
        a.ssh_keys = keys;
    }
    if (strcmp(cli_text(c, "fstab", "auto"), "auto") == 0) {
        tab = fstab(b);
        if (!tab) {
            return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
        }
        a.fstab = tab;
    }
    return build_adjust(b->fs, &a, e);
}

static int fill(struct build *b, struct disk *d, struct hv_error *e)
{
    struct build_sink sink = { .add = fill_add, .data = fill_data, .xattr = fill_xattr, .want_data = true, .arg = b };
    struct ext4_make m = { .label = cli_text(b->call, "label", "root"), .time_s = b->now_s, .inodes = b->count_files,
                           .zeroed = true };
    int r = write_table(b, d, e);

    if (r == 0 && b->swap.len) {
        r = write_swap(b, d, e);
    }
    digest_guid(b->seed, "root fs", true, m.uuid);
    digest_guid(b->seed, "root fs hash", true, m.hash_seed);
    if (r == 0) {
        r = ext4_build_new(d, b->root.off, b->root.len, &m, &b->fs, e);
    }
    begin_pass(b);
    for (unsigned i = 0; i < b->n_sources && r == 0; i++) {
        b->in_layer = b->source[i].layer;
        r = b->in_layer ? build_apply_whiteouts(&b->source[i], b->fs, e) : 0;
        if (r == 0) {
            r = build_source_walk(&b->source[i], &sink, e);
        }
    }
    if (r == 0) {
        r = adjust(b, e);
    }
    if (r == 0 && b->esp.len) {
        r = write_esp(b, d, e);
    }
    if (r == 0) {
        r = ext4_build_finish(hv_steal(b->fs), &b->built, e);
    }
    return r;
}

/* ---- the image ---- */

/* Leftovers of a build that was killed go; one that runs keeps its file. */
static int clear_part(const char *part, struct hv_error *e)
{
    struct disk_file *f;

    if (access(part, F_OK) < 0) {
        return 0;
    }
    int r = disk_file_open(part, DISK_FILE_WRITE, &f, e);
    if (r == 0) {
        unlink(part);
        disk_file_unref(f);
    }
    return r;
}

static int make_image(struct build *b, struct hv_error *e)
{
    struct disk_create how;
    struct disk *d = NULL;
    hv_autofree char *part = name_beside(b->dst, ".part");
    uint64_t size = cli_number(b->call, "size", 0);
    int r = part ? 0 : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");

    if (r == 0) {
        r = layout(b, &size, e);
    }
    if (r == 0) {
        r = create_request(b->call, b->dst, size, &how, e);
    }
    if (r == 0 && access(b->dst, F_OK) == 0) {
        r = hv_fail(e, HV_CONFLICT, b->dst, "is there already");
    }
    if (r == 0) {
        r = clear_part(part, e);
    }
    if (r < 0) {
        return r;
    }
    digest_guid(b->seed, "disk file", false, how.id.b);
    how.time_s = (uint64_t)b->now_s;
    unfinished(part);
    r = disk_create(part, &how, e);
    if (r < 0) {
        unfinished(NULL);
        return r;
    }
    r = disk_open(part, &(struct disk_options){ .flags = DISK_WRITE, .format = (int)how.kind }, &d, e);
    if (r == 0) {
        progress_begin(&b->bar, b->call, b->dst);
        r = fill(b, d, e);
        progress_end(&b->bar);
    }
    ext4_build_abandon(hv_steal(b->fs));             /* before the disk it is on */
    if (r < 0) {
        disk_abandon(d);
    } else {
        r = disk_close(d, e);
    }
    if (r == 0 && renameat2(AT_FDCWD, part, AT_FDCWD, b->dst, RENAME_NOREPLACE) < 0) {
        r = hv_fail_errno(e, errno, b->dst, "cannot be given its name");
    }
    if (r < 0) {
        unlink(part);
    }
    unfinished(NULL);
    return r;
}

static int report(struct build *b, struct hv_error *e)
{
    struct cli_call *c = b->call;
    char root[24], bytes[24], where[16] = "";

    if (c->format == CLI_FMT_JSON || c->format == CLI_FMT_JSONL) {
        char uuid[GUID_TEXT_SIZE];
        struct guid g;
        digest_guid(b->seed, "root fs", false, g.b);
        json_t *o = json_pack("{s:s s:s s:i s:I s:I s:s s:s s:I s:I s:I s:I}", "path", b->dst, "layout",
                              partition_scheme_name(b->scheme), "root_partition", (int)b->root.number, "root_offset",
                              (json_int_t)b->root.off, "root_size", (json_int_t)b->root.len, "root_uuid",
                              guid_format(&g, uuid), "label", cli_text(c, "label", "root"), "files",
                              (json_int_t)b->built.files, "folders", (json_int_t)b->built.dirs, "bytes",
                              (json_int_t)b->built.bytes, "used", (json_int_t)b->built.used);
        json_dumpf(o, c->out, c->format == CLI_FMT_JSON ? JSON_INDENT(2) : JSON_COMPACT);
        fputc('\n', c->out);
        json_decref(o);
        return 0;
    }
    if (b->root.number) {
        snprintf(where, sizeof(where), "p%u ", b->root.number);
    }
    cli_note(c, "%s: %s, %sext4 '%s' %s, %llu files, %s", b->dst, partition_scheme_name(b->scheme), where,
             cli_text(c, "label", "root"), format_size(b->root.len, root, sizeof(root)),
             (unsigned long long)b->built.files, format_size(b->built.bytes, bytes, sizeof(bytes)));
    return 0;
}

static int check_options(struct cli_call *c, struct hv_error *e)
{
    const char *label = cli_text(c, "label", NULL), *host = cli_text(c, "hostname", NULL);

    if (label && strlen(label) > 16) {
        return hv_fail(e, HV_USAGE, label, "a label of ext4 has at most 16 bytes");
    }
    if (host && (strlen(host) > 64 || !*host || strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != strlen(host))) {
        return hv_fail(e, HV_USAGE, host, "a host name has letters, digits, dots and dashes, at most 64");
    }
    return 0;
}

static int build(struct cli_call *c, struct hv_error *e)
{
    hv_autofree struct build *b = hv_alloc(sizeof(*b));
    bool fixed_time, count = !cli_has(c, "size");
    int r = check_options(c, e);

    if (!b) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    /* Names in archives are UTF-8 whatever the caller's language is. */
    setlocale(LC_CTYPE, "C.UTF-8");
    b->call = c;
    b->dst = c->args[0];
    if (r == 0) {
        r = build_time(&b->now_s, &fixed_time, e);
    }
    if (r == 0) {
        r = open_sources(b, count || (fixed_time && !cli_has(c, "id-seed")), e);
    }
    if (r == 0) {
        progress_begin(&b->bar, c, b->dst);
        r = find_seed(b, fixed_time, count, e);
        progress_end(&b->bar);
    }
    if (r == 0) {
        guid_set_source(seeded_guid, b);
        r = make_image(b, e);
        guid_set_source(NULL, NULL);
    }
    if (r == 0) {
        r = report(b, e);
    }
    for (size_t i = 0; i < b->n_esp_files; i++) {
        free(b->esp_files[i].path);
        free(b->esp_files[i].data);
    }
    free(b->esp_files);
    for (unsigned i = 0; i < b->n_sources; i++) {
        build_source_close(&b->source[i]);
    }
    for (unsigned i = 0; i < SOURCES_MAX; i++) {
        for (size_t k = 0; k < b->n_layer_paths[i]; k++) {
            free(b->layer_paths[i][k]);
        }
        free(b->layer_paths[i]);
    }
    return r;
}

static const struct cli_arg dst[] = {{"DST", CLI_FILE, .values = DISK_GLOB, .help = "the new disk"}, {0}};

static const struct cli_option options[] = {
    {.name = "from", .type = CLI_FILE, .flags = CLI_REPEAT, .arg = "SOURCE", .values = "*",
     .help = "a tar in any compression, a folder, an OCI layout, an ISO, or -"},
    {.name = "size", .type = CLI_SIZE, .arg = "SIZE", .min = 512, .max = DISK_MAX_SIZE, .def = "content + 25%",
     .help = "how large the disk is"},
    {.name = "layout", .type = CLI_ENUM, .arg = "LAYOUT", .def = "gpt", .values = "gpt|mbr|none",
     .help = "gpt, mbr, or none: the file system is the disk"},
    {.name = "fs-type", .type = CLI_ENUM, .arg = "TYPE", .def = "ext4", .values = "ext4", .help = "of the root: ext4"},
    {.name = "label", .type = CLI_STRING, .arg = "LABEL", .def = "root", .help = "of the root file system"},
    {.name = "esp", .type = CLI_SIZE, .arg = "SIZE", .min = ESP_MIN, .max = 64 * GIB,
     .help = "an EFI system partition, with what the sources have in /boot/efi"},
    {.name = "swap", .type = CLI_SIZE, .arg = "SIZE", .min = SWAP_MIN, .max = TIB, .help = "a swap partition"},
    {.name = "hostname", .type = CLI_STRING, .arg = "NAME", .help = "written to /etc/hostname and /etc/hosts"},
    {.name = "fstab", .type = CLI_ENUM, .arg = "WHAT", .def = "auto", .values = "auto|keep",
     .help = "auto: names what was made; keep: as it came"},
    {.name = "root-password", .type = CLI_STRING, .arg = "TEXT|none",
     .help = "root's password; none: root needs none on the console"},
    {.name = "ssh-key", .type = CLI_FILE, .arg = "FILE", .values = "*.pub", .help = "public keys that may log in as root"},
    {.name = "autologin", .type = CLI_BOOL, .help = "root's shell on the consoles, without asking"},
    {.name = "id-seed", .type = CLI_STRING, .arg = "TEXT", .help = "identifiers follow from this text"},
    {.name = "prepare", .type = CLI_BOOL, .flags = CLI_LATER, .help = "run boot-prepare afterwards"},
    {.name = "type", .type = CLI_ENUM, .arg = "TYPE", .def = "dynamic", .values = "dynamic|fixed",
     .help = "dynamic takes room as it fills, fixed at once"},
    {.name = "block-size", .type = CLI_SIZE, .arg = "SIZE", .def = "32M, 2M", .min = 512 * KIB, .max = 256 * MIB,
     .help = "unit of growth: VHDX 1M to 256M, VHD from 512K"},
    {.name = "logical-sector", .type = CLI_ENUM, .arg = "BYTES", .def = "512", .values = "512|4096",
     .help = "sector size the guest addresses: 512 or 4096"},
    {.name = "physical-sector", .type = CLI_ENUM, .arg = "BYTES", .def = "4096", .values = "512|4096",
     .help = "sector size the guest is told to align to"},
    {.name = "azure", .type = CLI_BOOL, .help = "as Azure wants it: fixed VHD, whole MiB, sparse"},
    OPT_FORMAT,
    OPT_PROGRESS,
    {0},
};

const struct cli_command build_commands[] = {
    {.noun = "build", .help = "a disk from a root file system", .args = dst, .options = options,
     .codes = CODE(CONFLICT) | CODE(NOT_FOUND) | CODE(NO_RESOURCES) | CODE(UNSUPPORTED), .run = build,
     .about = "Needs no root and mounts nothing. Owners, modes, attributes, hard links, devices and times "
              "are those of the source. With SOURCE_DATE_EPOCH set, the same input gives the same bytes.",
     .examples = EXAMPLES({"vhdtool build web.vhdx --from rootfs.tar.zst --size 8G", "8G, most of it not allocated"},
                          {"mmdebstrap bookworm - | vhdtool build d.vhdx --from - --root-password none", "from a pipe"},
                          {"vhdtool build w.vhdx --from base.tar --from overlay/ --hostname w", "laid over each other"})},
    {0},
};
