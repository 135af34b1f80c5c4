/* The kernel's command line: what the user gave, and what a VM with Dynamic Memory needs. */
#include <errno.h>

#include "hv/base/strbuf.h"
#include "hv/boot/loader.h"

#define ONLINE_KEY "memhp_default_state="
#define ONLINE     ONLINE_KEY "online"

/*
 * The next word, as the kernel's next_arg() cuts it: at blanks outside double quotes.
 * Returns its start and sets *end behind it; NULL at the end of the line.
 */
static const char *next_word(const char *s, const char **end)
{
    bool quoted = false;

    while (*s == ' ' || *s == '\t' || *s == '\n') {
        s++;
    }
    if (!*s) {
        return NULL;
    }
    const char *p = s;
    for (; *p && (quoted || !(*p == ' ' || *p == '\t' || *p == '\n')); p++) {
        quoted ^= *p == '"';
    }
    *end = p;
    return s;
}

int cmdline_build(const char *user, uint32_t max, char **ret, struct hv_error *e)
{
    const char *end = user, *dashes = NULL;
    bool has_online = false;
    strbuf_auto sb = { 0 };

    for (const char *w = user; !dashes && (w = next_word(w, &end)); w = end) {
        size_t len = (size_t)(end - w);
        if (len == 2 && memcmp(w, "--", 2) == 0) {
            dashes = w;
        } else if (len >= sizeof(ONLINE_KEY) - 1 && memcmp(w, ONLINE_KEY, sizeof(ONLINE_KEY) - 1) == 0) {
            has_online = true;
        }
    }
    if (has_online) {
        strbuf_adds(&sb, user);
    } else {
        size_t head = dashes ? (size_t)(dashes - user) : strlen(user);
        strbuf_add(&sb, user, head);
        strbuf_adds(&sb, head && user[head - 1] != ' ' ? " " ONLINE : ONLINE);
        if (dashes) {
            strbuf_addc(&sb, ' ');
            strbuf_adds(&sb, dashes);
        }
    }
    if (sb.len > max) {
        return hv_fail(e, HV_USAGE, "cmdline", "has %zu bytes%s, this kernel takes %u", sb.len,
                       has_online ? "" : " with " ONLINE, max);
    }
    *ret = strbuf_detach(&sb, NULL);
    return *ret ? 0 : hv_fail(e, HV_NO_RESOURCES, "cmdline", "no memory");
}
