/*
 * The file of hosts, a line each:
 *
 *   # name    address                      groups
 *   vmhost1   ssh://ann@vmhost1.lab        @lab
 *   vmhost2   ssh://vmhost2.lab:2222       @lab @spare
 *   here      system
 */
#include "hv/client/hosts.h"

#include <errno.h>
#include <stdio.h>

#include "hv/cli/call.h"

#define FILE_MAX ((size_t)1 << 20)
#define BLANKS " \t\r"

static char *file_path(void)
{
    const char *dir = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (dir && dir[0] == '/') {
        return hv_asprintf("%s/hv/hosts", dir);
    }
    return home && *home ? hv_asprintf("%s/.config/hv/hosts", home) : NULL;
}

/* The next word of *at, cut off; "" at the end. */
static char *word(char **at)
{
    char *w = *at + strspn(*at, BLANKS), *end = w + strcspn(w, BLANKS);
    *at = *end ? end + 1 : end;
    *end = '\0';
    return w;
}

static bool is_name(const char *s)
{
    return *s && *s != '-' && *s != '@' && !strchr(s, '/') && strcmp(s, "system") != 0 && strcmp(s, "user") != 0;
}

static bool are_groups(const char *s)
{
    while (*s) {
        size_t n = strcspn(s, BLANKS);
        if (n < 2 || *s != '@') {
            return false;
        }
        s += n;
        s += strspn(s, BLANKS);
    }
    return true;
}

static int one_line(const char *path, unsigned number, char *line, int (*fn)(void *, const struct host_line *), void *arg,
                    struct hv_error *e)
{
    line[strcspn(line, "#")] = '\0';
    char *at = line, *name = word(&at), *address = word(&at), *groups = at + strspn(at, BLANKS);
    size_t len = strlen(groups);
    while (len && strchr(BLANKS, groups[len - 1])) {
        groups[--len] = '\0';
    }
    if (!*name) {
        return 0;
    }
    bool known = strncmp(address, "ssh://", 6) == 0 || address[0] == '/' || strcmp(address, "system") == 0 ||
                 strcmp(address, "user") == 0;
    if (!is_name(name) || !known || !are_groups(groups) || strlen(address) >= HOST_ADDRESS_MAX) {
        char where[160];
        snprintf(where, sizeof(where), "%s:%u", path, number);
        int r = hv_fail(e, HV_USAGE, where, "not a line of this file");
        hv_hint(e, "NAME ADDRESS [@GROUP]...; man hv-hosts");
        return r;
    }
    return fn(arg, &(struct host_line){name, address, groups});
}

int client_hosts_each(int (*fn)(void *arg, const struct host_line *h), void *arg, struct hv_error *e)
{
    hv_autofree char *path = file_path();
    hv_autofree char *text = NULL;
    size_t len;
    unsigned number = 0;
    int r = path ? hv_read_file(path, FILE_MAX, &text, &len) : -ENOENT;
    if (r == -ENOENT || r == -ENOTDIR) {
        return 0;
    }
    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot read");
    }
    for (char *line = text, *end; r == 0 && *line; line = end) {
        end = line + strcspn(line, "\n");
        if (*end) {
            *end++ = '\0';
        }
        r = one_line(path, ++number, line, fn, arg, e);
    }
    return r;
}

struct find { const char *name; char *address; char names[3][64]; unsigned n; };

static int look(void *arg, const struct host_line *h)
{
    struct find *f = arg;
    if (strcmp(h->name, f->name) != 0) {
        return 0;
    }
    hv_strlcpy(f->address, h->address, HOST_ADDRESS_MAX);
    return 1;
}

/* The strings of the file go with it: near names are copied. */
static int note_near(void *arg, const struct host_line *h)
{
    struct find *f = arg;
    if (f->n < ARRAY_SIZE(f->names) && cli_distance(f->name, h->name) <= 2) {
        hv_strlcpy(f->names[f->n++], h->name, sizeof(f->names[0]));
    }
    return 0;
}

int client_host_find(const char *name, char address[HOST_ADDRESS_MAX], struct hv_error *e)
{
    struct find f = {.name = name, .address = address};
    int r = client_hosts_each(look, &f, e);
    if (r != 0) {
        return r < 0 ? r : 0;
    }
    r = hv_fail(e, HV_NOT_FOUND, name, "no such host");
    (void)client_hosts_each(note_near, &f, NULL);
    if (f.n) {
        hv_hint(e, "%s%s%s%s%s", f.names[0], f.n > 1 ? ", " : "", f.names[1], f.n > 2 ? ", " : "", f.names[2]);
    } else {
        hv_hint(e, "system, user, ssh://HOST, the path of a socket, or a name of hv-hosts(5)");
    }
    return r;
}

bool client_host_is_remote(const char *host)
{
    char address[HOST_ADDRESS_MAX];
    if (!host || !*host || strchr(host, '/') || strcmp(host, "system") == 0 || strcmp(host, "user") == 0) {
        return host && strncmp(host, "ssh://", 6) == 0;
    }
    return client_host_find(host, address, NULL) == 0 && strncmp(address, "ssh://", 6) == 0;
}
