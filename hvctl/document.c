/* Reading documents: bytes of a file to what the service takes. XML is the service's to look into. */
#include "hvctl/document.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "hv/base/strbuf.h"

int document_read(struct cli_call *c, const char *path, char **ret, size_t *ret_len, struct hv_error *e)
{
    strbuf_auto text = {0};
    char buf[16384];
    const bool input = strcmp(path, "-") == 0;
    hv_autoclose int opened = input ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    const int fd = input ? STDIN_FILENO : opened;
    if (fd < 0) {
        return hv_fail_errno(e, errno, path, "cannot read");
    }
    for (;;) {
        ssize_t n = read(fd, buf, sizeof(buf));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return hv_fail_errno(e, errno, path, "cannot read");
        }
        if (n == 0) {
            break;
        }
        strbuf_add(&text, buf, (size_t)n);
        if (text.len > DOCUMENT_MAX) {
            hv_fail(e, HV_USAGE, path, "more than %zu MiB", DOCUMENT_MAX >> 20);
            hv_hint(e, "apply it in parts, or as JSON, which is shorter");
            return -EINVAL;
        }
    }
    *ret = strbuf_detach(&text, ret_len);
    return *ret ? 0 : hv_fail(e, HV_NO_RESOURCES, path, "out of memory");
}

/* ---- XML ---- */

static void add_utf8(struct strbuf *sb, uint32_t c)
{
    if (c < 0x80) {
        strbuf_addc(sb, (char)c);
    } else if (c < 0x800) {
        strbuf_addc(sb, (char)(0xc0 | c >> 6));
        strbuf_addc(sb, (char)(0x80 | (c & 0x3f)));
    } else {
        if (c < 0x10000) {
            strbuf_addc(sb, (char)(0xe0 | c >> 12));
        } else {
            strbuf_addc(sb, (char)(0xf0 | c >> 18));
            strbuf_addc(sb, (char)(0x80 | (c >> 12 & 0x3f)));
        }
        strbuf_addc(sb, (char)(0x80 | (c >> 6 & 0x3f)));
        strbuf_addc(sb, (char)(0x80 | (c & 0x3f)));
    }
}

/* UTF-16 behind its mark (RFC 2781); false: it is none. */
static bool from_utf16(const unsigned char *p, size_t len, bool big, struct strbuf *sb)
{
    uint32_t high = 0;
    if (len % 2) {
        return false;
    }
    for (size_t i = 0; i < len; i += 2) {
        uint32_t u = big ? (uint32_t)p[i] << 8 | p[i + 1] : (uint32_t)p[i + 1] << 8 | p[i];
        bool low = u >= 0xdc00 && u < 0xe000;
        if (low != (high != 0) || u == 0) {
            return false;
        }
        if (u >= 0xd800 && u < 0xdc00) {
            high = u;
            continue;
        }
        add_utf8(sb, high ? 0x10000 + ((high - 0xd800) << 10) + (u - 0xdc00) : u);
        high = 0;
    }
    return high == 0;
}

static int parse_xml(const char *path, const char *text, size_t len, json_t **ret, struct hv_error *e)
{
    json_t *xml = memchr(text, 0, len) ? NULL : json_stringn(text, len);    /* refuses what is no UTF-8 */
    if (!xml) {
        hv_fail(e, HV_USAGE, path, "it is neither UTF-8 nor UTF-16 text");
        hv_hint(e, "iconv -t UTF-8");
        return -EINVAL;
    }
    *ret = json_pack("{s:o}", "xml", xml);
    return 0;
}

/* ---- JSON ---- */

/* {"name", "id", settings...} as {"name", "id", "settings": {...}}. New; NULL: it is no VM. */
static json_t *split_vm(const json_t *o)
{
    json_t *settings = json_is_object(o) ? json_copy((json_t *)(uintptr_t)o) : NULL;
    const json_t *name = json_object_get(o, "name"), *id = json_object_get(o, "id");
    if (!settings || (name && !json_is_string(name)) || (id && !json_is_string(id)) || (!name && !id)) {
        json_decref(settings);
        return NULL;
    }
    json_object_del(settings, "name");
    json_object_del(settings, "id");
    return json_pack("{s:O? s:O? s:o}", "name", name, "id", id, "settings", settings);
}

static json_t *split_vms(const json_t *list)
{
    json_t *vms = json_array(), *o;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)list, i, o) {
        json_t *vm = split_vm(o);
        if (!vm) {
            json_decref(vms);
            return NULL;
        }
        json_array_append_new(vms, vm);
    }
    return vms;
}

static bool is_container(const json_t *doc)
{
    return json_object_get(doc, "vms") || json_object_get(doc, "host") || json_object_get(doc, "switches");
}

/* One VM, a list of them, or {"vms": [...], "switches": [...], "host": {...}}. */
static json_t *objects_of(const json_t *doc)
{
    static const char *const known[] = {"vms", "host", "switches"};
    json_t *out = json_object(), *vms = NULL;
    if (json_is_array(doc)) {
        vms = split_vms(doc);
    } else if (!is_container(doc)) {
        json_t *vm = split_vm(doc);
        vms = vm ? json_pack("[o]", vm) : NULL;
    } else {
        unsigned n = 0;
        for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
            n += json_object_get(doc, known[i]) != NULL;
        }
        const json_t *list = json_object_get(doc, "vms");
        vms = n == json_object_size(doc) && (!list || json_is_array(list)) ? split_vms(list) : NULL;
        for (unsigned i = 1; i < ARRAY_SIZE(known); i++) {
            if (json_object_get(doc, known[i])) {
                json_object_set(out, known[i], json_object_get(doc, known[i]));
            }
        }
    }
    if (!vms) {
        json_decref(out);
        return NULL;
    }
    json_object_set_new(out, "vms", vms);
    return out;
}

static int parse_json(const char *path, const char *text, size_t len, json_t **ret, struct hv_error *e)
{
    json_error_t where;
    json_t *doc = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    if (!doc) {
        char object[160];
        snprintf(object, sizeof(object), "%.100s: line %d, column %d", path, where.line, where.column);
        return hv_fail(e, HV_USAGE, object, "it is no JSON: %.200s", where.text);
    }
    json_t *objects = objects_of(doc);
    json_decref(doc);
    if (!objects) {
        hv_fail(e, HV_USAGE, path, "it is no document of settings");
        hv_hint(e, "{\"name\": \"web1\", \"memory\": {\"max\": \"4G\"}}, a list of such, or {\"vms\": [...], \"host\": {...}}");
        return -EINVAL;
    }
    *ret = json_pack("{s:o}", "objects", objects);
    return 0;
}

int document_parse(const char *path, const char *text, size_t len, json_t **ret, struct hv_error *e)
{
    const unsigned char *p = (const unsigned char *)text;
    strbuf_auto wide = {0};
    if (len >= 2 && ((p[0] == 0xff && p[1] == 0xfe) || (p[0] == 0xfe && p[1] == 0xff))) {
        if (!from_utf16(p + 2, len - 2, p[0] == 0xfe, &wide) || wide.err) {
            return hv_fail(e, HV_USAGE, path, "it has the byte order mark of UTF-16, and is no UTF-16 text");
        }
        text = wide.buf ? wide.buf : "";
        len = wide.len;
    } else if (len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        len -= 3;
    }
    size_t blank = 0;
    while (blank < len && strchr(" \t\r\n", text[blank]) && text[blank]) {
        blank++;
    }
    if (blank == len) {
        return hv_fail(e, HV_USAGE, path, "it is empty");
    }
    return text[blank] == '{' || text[blank] == '[' ? parse_json(path, text, len, ret, e)
                                                    : parse_xml(path, text + blank, len - blank, ret, e);
}

void document_name_error(const char *path, struct hv_error *e)
{
    char object[160];
    const bool line = strncmp(e->object, "line ", 5) == 0;
    if (line || !e->object[0] || strcmp(e->object, "the document") == 0 || strcmp(e->object, "settings") == 0) {
        snprintf(object, sizeof(object), "%.80s%s%.76s", path, line ? ": " : "", line ? e->object : "");
        hv_strlcpy(e->object, object, sizeof(e->object));
    }
}

/* ---- writing ---- */

json_t *document_vm(const json_t *vm)
{
    json_t *o = json_pack("{s:O s:O}", "name", json_object_get(vm, "name"), "id", json_object_get(vm, "id"));
    if (o) {
        json_object_update(o, json_object_get(vm, "settings"));
    }
    return o;
}

const char *document_group(const char *xml, size_t *ret_len)
{
    static const char end[] = "</DECLGROUP>";
    const char *from = strstr(xml, "<DECLGROUP>"), *to = NULL;
    for (const char *p = from; p && (p = strstr(p, end)); p++) {
        to = p;
    }
    if (!to) {
        return NULL;
    }
    *ret_len = (size_t)(to - from) + sizeof(end) - 1;
    return from;
}
