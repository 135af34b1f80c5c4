/* What `build` changes in the tree once it is whole: host name, fstab, root's ways in. */
#include <crypt.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "hv/base/strbuf.h"
#include "vhdtool/build.h"

#define FILE_MAX (4 * MIB)

static int put(struct ext4_build *b, const struct build_adjust *a, const char *path, uint32_t mode, const char *text,
               struct hv_error *e)
{
    struct ext4_file f = { .path = path, .mode = mode, .mtime = { .s = a->time_s } };
    int r = ext4_build_add(b, &f, e);

    if (r == 0 && S_ISREG(mode) && *text) {
        r = ext4_build_data(b, 0, text, strlen(text), e);
    }
    return r;
}

/* A folder, unless there is one. */
static int put_dir(struct ext4_build *b, const struct build_adjust *a, const char *path, uint32_t mode,
                   struct hv_error *e)
{
    return ext4_build_has(b, path, NULL) ? 0 : put(b, a, path, S_IFDIR | mode, NULL, e);
}

/* A file of the tree as text, "" where there is none. */
static int get(struct ext4_build *b, const char *path, char **ret, struct hv_error *e)
{
    size_t len;
    int r = ext4_build_read(b, path, FILE_MAX, ret, &len);

    if (r == -ENOENT) {
        *ret = hv_strdup("");
        r = *ret ? 0 : -ENOMEM;
    }
    return r < 0 ? hv_fail_errno(e, -r, path, "cannot read it in the image") : 0;
}

/* Put text in place of a file that keeps its owner and mode: passwd, shadow, inittab. */
static int replace(struct ext4_build *b, const char *path, const char *text, struct hv_error *e)
{
    int r = ext4_build_reopen(b, path, e);

    return r == 0 && *text ? ext4_build_data(b, 0, text, strlen(text), e) : r;
}

static int set_hostname(struct ext4_build *b, const struct build_adjust *a, struct hv_error *e)
{
    hv_autofree char *line = hv_asprintf("%s\n", a->hostname), *hosts = NULL;
    strbuf_auto sb = { 0 };
    int r;

    if (!line) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    r = put(b, a, "etc/hostname", S_IFREG | 0644, line, e);
    if (r == 0) {
        r = get(b, "etc/hosts", &hosts, e);
    }
    if (r < 0) {
        return r;
    }
    /* Debian's line for the machine's own name; a new file gets localhost too. */
    if (!*hosts) {
        strbuf_adds(&sb, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    }
    for (const char *p = hosts; *p;) {
        size_t n = strcspn(p, "\n");
        if (strncmp(p, "127.0.1.1", 9) != 0) {
            strbuf_add(&sb, p, n);
            strbuf_addc(&sb, '\n');
        }
        p += n + (p[n] == '\n');
    }
    strbuf_addf(&sb, "127.0.1.1\t%s\n", a->hostname);
    hv_autofree char *text = strbuf_detach(&sb, NULL);
    return text ? put(b, a, "etc/hosts", S_IFREG | 0644, text, e) : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
}

/* ---- root's password ---- */

/* yescrypt where the distribution uses it, else SHA-512, which all of them read. */
static bool wants_yescrypt(struct ext4_build *b)
{
    char *text;
    size_t len;
    bool yes = false;

    if (ext4_build_read(b, "etc/login.defs", FILE_MAX, &text, &len) == 0) {
        for (char *p = text, *save = NULL, *line; (line = strtok_r(p, "\n", &save)); p = NULL) {
            char word[32];
            yes = sscanf(line, " ENCRYPT_METHOD %31s", word) == 1 ? strcasecmp(word, "YESCRYPT") == 0 : yes;
        }
        free(text);
    }
    return yes;
}

static int hash_password(struct ext4_build *b, const struct build_adjust *a, char **ret, struct hv_error *e)
{
    char salt[CRYPT_GENSALT_OUTPUT_SIZE];
    struct digest d;
    uint8_t random[DIGEST_SIZE];
    hv_autofree struct crypt_data *data = hv_alloc(sizeof(*data));

    digest_init(&d);
    digest_add(&d, a->seed, DIGEST_SIZE);
    digest_add(&d, "root password", 13);
    digest_end(&d, random);
    const char *hash = NULL;
    if (data && crypt_gensalt_rn(wants_yescrypt(b) ? "$y$" : "$6$", 0, (const char *)random, 16, salt, sizeof(salt))) {
        hash = crypt_r(a->root_password, salt, data);
    }
    if (!hash || hash[0] == '*') {
        return hv_fail(e, HV_FAILED, "--root-password", "cannot be hashed");
    }
    *ret = hv_strdup(hash);
    return *ret ? 0 : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
}

/* Put value into the second field of root's line; shadow also gets the day (third field). */
static int set_field(struct ext4_build *b, const char *path, const char *value, int64_t day, bool *ret_done,
                     struct hv_error *e)
{
    hv_autofree char *text = NULL;
    strbuf_auto sb = { 0 };
    int r = get(b, path, &text, e);

    *ret_done = false;
    if (r < 0) {
        return r;
    }
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, "\n");
        if (strncmp(p, "root:", 5) == 0 && !*ret_done) {
            const char *rest = memchr(p + 5, ':', n - 5);
            strbuf_addf(&sb, "root:%s", value);
            if (rest && day >= 0) {
                const char *next = memchr(rest + 1, ':', (size_t)(p + n - rest - 1));
                strbuf_addf(&sb, ":%lld", (long long)day);
                rest = next ? next : p + n;
            }
            if (rest) {
                strbuf_add(&sb, rest, (size_t)(p + n - rest));
            }
            *ret_done = true;
        } else {
            strbuf_add(&sb, p, n);
        }
        strbuf_addc(&sb, '\n');
        p += n + (p[n] == '\n');
    }
    if (!*ret_done) {
        return 0;
    }
    hv_autofree char *out = strbuf_detach(&sb, NULL);
    return out ? replace(b, path, out, e) : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
}

static int set_password(struct ext4_build *b, const struct build_adjust *a, struct hv_error *e)
{
    hv_autofree char *hash = NULL;
    bool done = false;
    int r = 0;

    if (strcmp(a->root_password, "none") != 0) {
        r = hash_password(b, a, &hash, e);
    }
    if (r == 0) {
        r = set_field(b, "etc/shadow", hash ? hash : "", a->time_s / 86400, &done, e);
    }
    if (r == 0 && !done) {
        r = set_field(b, "etc/passwd", hash ? hash : "", -1, &done, e);
    }
    if (r == 0 && !done) {
        r = hv_fail(e, HV_NOT_FOUND, "--root-password", "the image has no root in /etc/shadow or /etc/passwd");
    }
    return r;
}

/* ---- ssh, getty ---- */

static int root_home(struct ext4_build *b, char *home, size_t size, struct hv_error *e)
{
    hv_autofree char *text = NULL;
    int r = get(b, "etc/passwd", &text, e);

    hv_strlcpy(home, "/root", size);
    for (const char *p = text; r == 0 && *p;) {
        size_t n = strcspn(p, "\n");
        if (strncmp(p, "root:", 5) == 0) {
            const char *at = p;
            for (unsigned field = 0; at && field < 5; field++) {
                at = memchr(at, ':', (size_t)(p + n - at));
                at = at ? at + 1 : NULL;
            }
            if (at && *at == '/') {
                size_t len = MIN(strcspn(at, ":\n"), size - 1);
                memcpy(home, at, len);
                home[len] = '\0';
            }
            break;
        }
        p += n + (p[n] == '\n');
    }
    return r;
}

static int add_ssh_keys(struct ext4_build *b, const struct build_adjust *a, struct hv_error *e)
{
    char home[256], dir[300], path[320];
    hv_autofree char *old = NULL, *text = NULL;
    int r = root_home(b, home, sizeof(home), e);

    snprintf(dir, sizeof(dir), "%s/.ssh", home);
    snprintf(path, sizeof(path), "%s/authorized_keys", dir);
    if (r == 0) {
        r = put_dir(b, a, home, 0700, e);
    }
    if (r == 0) {
        r = put_dir(b, a, dir, 0700, e);
    }
    if (r == 0) {
        r = get(b, path, &old, e);
    }
    if (r < 0) {
        return r;
    }
    size_t n = strlen(old), k = strlen(a->ssh_keys);
    text = hv_asprintf("%s%s%s%s", old, n && old[n - 1] != '\n' ? "\n" : "", a->ssh_keys,
                       k && a->ssh_keys[k - 1] != '\n' ? "\n" : "");
    return text ? put(b, a, path, S_IFREG | 0600, text, e) : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
}

/* systemd: a drop-in for the getty of each console. */
static int autologin_systemd(struct ext4_build *b, const struct build_adjust *a, struct hv_error *e)
{
    static const struct { const char *dir, *text; } units[] = {
        { "etc/systemd/system/serial-getty@.service.d",
          "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200,57600,38400,9600 %I $TERM\n" },
        { "etc/systemd/system/getty@tty1.service.d",
          "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %I $TERM\n" },
    };
    char path[128];

    for (unsigned i = 0; i < ARRAY_SIZE(units); i++) {
        snprintf(path, sizeof(path), "%s/autologin.conf", units[i].dir);
        int r = put_dir(b, a, units[i].dir, 0755, e);
        if (r == 0) {
            r = put(b, a, path, S_IFREG | 0644, units[i].text, e);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* inittab of busybox and Alpine ("ttyS0::respawn:...") or sysvinit ("T0:23:respawn:..."). */
static int autologin_inittab(struct ext4_build *b, struct hv_error *e)
{
    hv_autofree char *text = NULL;
    strbuf_auto sb = { 0 };
    int r = get(b, "etc/inittab", &text, e);

    if (r < 0) {
        return r;
    }
    bool sysv = strstr(text, ":initdefault:") != NULL;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, "\n");
        bool ours = sysv ? strncmp(p, "T0:", 3) == 0 : strncmp(p, "ttyS0:", 6) == 0;
        if (!ours) {
            strbuf_add(&sb, p, n);
            strbuf_addc(&sb, '\n');
        }
        p += n + (p[n] == '\n');
    }
    strbuf_adds(&sb, sysv ? "T0:2345:respawn:/sbin/agetty --autologin root -L ttyS0 115200 vt100\n"
                          : "ttyS0::respawn:/bin/login -f root\n");
    hv_autofree char *out = strbuf_detach(&sb, NULL);
    return out ? replace(b, "etc/inittab", out, e) : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
}

static int set_autologin(struct ext4_build *b, const struct build_adjust *a, struct hv_error *e)
{
    if (ext4_build_has(b, "lib/systemd/systemd", NULL) || ext4_build_has(b, "usr/lib/systemd/systemd", NULL)) {
        return autologin_systemd(b, a, e);
    }
    if (ext4_build_has(b, "etc/inittab", NULL)) {
        return autologin_inittab(b, e);
    }
    return hv_fail(e, HV_NOT_FOUND, "--autologin", "the image has neither systemd nor /etc/inittab");
}

int build_adjust(struct ext4_build *b, const struct build_adjust *a, struct hv_error *e)
{
    int r = 0;

    if (a->fstab && ext4_build_has(b, "etc", NULL)) {
        r = put(b, a, "etc/fstab", S_IFREG | 0644, a->fstab, e);
    }
    if (r == 0 && a->hostname) {
        r = set_hostname(b, a, e);
    }
    if (r == 0 && a->root_password) {
        r = set_password(b, a, e);
    }
    if (r == 0 && a->ssh_keys) {
        r = add_ssh_keys(b, a, e);
    }
    if (r == 0 && a->autologin) {
        r = set_autologin(b, a, e);
    }
    return r;
}
