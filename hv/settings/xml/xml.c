/* Reading and writing the document of xml.h with libxml2's tree. */
#include "hv/settings/xml/xml.h"

#include <errno.h>
#include <inttypes.h>

#include "hv/settings/xml/classes.h"
#include "hv/settings/xml/tree.h"

/* CIM's EnabledState, where a switch of ours is one. */
enum { STATE_ENABLED = 2, STATE_DISABLED = 3 };

/* "Class.Property:type[*2^20|/100|/1000]" of the table, taken apart. */
struct wmi_ref { char cls[64], prop[64], type[16]; uint64_t mul, div; bool array; };

static struct wmi_ref wmi_ref(const struct setting_desc *d)
{
    struct wmi_ref w = {.mul = 1, .div = 1};
    const char *dot = strchr(d->wmi, '.'), *colon = strchr(d->wmi, ':');
    hv_assert(dot && colon && dot < colon);
    const char *op = colon + 1 + strcspn(colon + 1, "*/[");
    snprintf(w.cls, sizeof(w.cls), "%.*s", (int)(dot - d->wmi), d->wmi);
    snprintf(w.prop, sizeof(w.prop), "%.*s", (int)(colon - dot - 1), dot + 1);
    snprintf(w.type, sizeof(w.type), "%.*s", (int)(op - colon - 1), colon + 1);
    w.array = *op == '[';
    if (strcmp(op, "*2^20") == 0)
        w.mul = MIB;
    else if (strcmp(op, "/100") == 0)
        w.div = 100;
    else if (strcmp(op, "/1000") == 0)
        w.div = 1000;
    return w;
}

void settings_doc_free(struct settings_doc *d)
{
    if (!d)
        return;
    xmlFreeDoc(d->doc);
    free(d);
}

/* ---- reading ---- */

static int bad(struct hv_error *e, const xmlNode *n, const struct wmi_ref *w, const char *what)
{
    char object[sizeof(((struct hv_error *)0)->object)];
    snprintf(object, sizeof(object), "line %ld: %.60s.%.60s", n ? xmlGetLineNo((xmlNode *)(uintptr_t)n) : 0L,
             w->cls, w->prop);
    return hv_fail(e, HV_USAGE, object, "%s", what);
}

static const struct xml_enum *enum_of(const struct setting_desc *d)
{
    for (unsigned i = 0; i < xml_enum_count; i++)
        if (&setting_table[xml_enums[i].id] == d)
            return &xml_enums[i];
    return NULL;
}

/* An interval of CIM (DSP0004 5.5.2): ddddddddhhmmss.mmmmmm:000, read to milliseconds. */
static bool parse_interval(const char *text, uint64_t *ret_ms)
{
    unsigned d, h, m, s, us;
    int end = 0;
    if (strlen(text) != 25 || strspn(text, "0123456789") != 14 ||
        sscanf(text, "%8u%2u%2u%2u.%6u:000%n", &d, &h, &m, &s, &us, &end) != 5 || end != 25 || h > 23 || m > 59 || s > 59)
        return false;
    *ret_ms = (((uint64_t)d * 24 + h) * 60 + m) * 60000 + (uint64_t)s * 1000 + us / 1000;
    return true;
}

static void format_interval(uint64_t ms, char *buf, size_t size)
{
    const uint64_t s = ms / 1000;
    snprintf(buf, size, "%08" PRIu64 "%02u%02u%02u.%06u:000", s / 86400, (unsigned)(s / 3600 % 24),
             (unsigned)(s / 60 % 60), (unsigned)(s % 60), (unsigned)(ms % 1000 * 1000));
}

/* Hyper-V's numbers of an enumeration to our word. */
static const char *enum_word(const struct setting_desc *d, const struct xml_enum *x, uint64_t v)
{
    const char *const *names = setting_names(d);
    for (unsigned i = 0; names[i]; i++)
        if (x->value[i] == v)
            return names[i];
    return NULL;
}

static int read_setting(struct settings *s, const struct setting_desc *d, xmlNode *prop,
                        const struct wmi_ref *w, const char *text, struct hv_error *e)
{
    struct hv_error why = {0};
    uint64_t v;
    char buf[32];
    const struct xml_enum *x = enum_of(d);
    switch (d->type) {
    case SETTING_TEXT:
    case SETTING_PATH:
        if (strlen(text) > d->max)
            return bad(e, prop, w, "the text is too long");
        return setting_set_string(s, d, text);
    case SETTING_BOOL:
        if (strcmp(w->type, "uint16") == 0) {
            if (!xml_parse_number(text, &v) || (v != STATE_ENABLED && v != STATE_DISABLED))
                return bad(e, prop, w, "it has to be 2 (enabled) or 3 (disabled)");
            setting_set_number(s, d, v == STATE_ENABLED);
            return 0;
        }
        if (strcasecmp(text, "true") != 0 && strcasecmp(text, "false") != 0)
            return bad(e, prop, w, "it has to be TRUE or FALSE");
        setting_set_number(s, d, strcasecmp(text, "true") == 0);
        return 0;
    case SETTING_ENUM:
        if (x) {
            if (!xml_parse_number(text, &v) || !enum_word(d, x, v))
                return bad(e, prop, w, "no value of this enumeration");
            text = enum_word(d, x, v);
        }
        break;
    case SETTING_DURATION:
        if (!parse_interval(text, &v))
            return bad(e, prop, w, "it has to be an interval, ddddddddhhmmss.mmmmmm:000");
        snprintf(buf, sizeof(buf), "%" PRIu64 "ms", v);
        text = buf;
        break;
    default:
        if (!xml_parse_number(text, &v) || __builtin_mul_overflow(v, w->mul, &v))
            return bad(e, prop, w, "it has to be a whole number");
        v /= w->div;
        if (d->type == SETTING_SIZE)
            snprintf(buf, sizeof(buf), "%" PRIu64 "B", v);
        else
            snprintf(buf, sizeof(buf), "%" PRIu64, v);
        text = buf;
    }
    return setting_set_text(s, d, text, &why) < 0 ? bad(e, prop, w, why.message) : 0;
}

/* given[id] (may be NULL): which had a property. */
static int read_settings(xmlDoc *doc, struct settings *s, bool *given, struct hv_error *e)
{
    for (unsigned i = 0; i < SETTING_COUNT; i++) {
        const struct setting_desc *d = &setting_table[i];
        struct wmi_ref w = wmi_ref(d);
        xmlNode *prop = xml_find_property(xml_find_instance(doc, w.cls), w.prop);
        if (!prop)
            continue;                                   /* absent: leave as it is */
        if (given)
            given[i] = true;
        if (!xml_attr_is(prop, "TYPE", w.type) || xml_is(prop, "PROPERTY.ARRAY") != w.array)
            return bad(e, prop, &w, "wrong type");
        xmlChar *text = xml_property_text(prop);
        int r = text ? read_setting(s, d, prop, &w, (const char *)text, e)
                     : setting_set_text(s, d, "default", e);
        xmlFree(text);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- disks: one Msvm_StorageAllocationSettingData each, with an Hv_ companion of the same InstanceID ---- */

enum { ACCESS_READ = 1, ACCESS_READ_WRITE = 3 };

/* A number of the instance into *ret, unless it is absent or empty; false: it is none, or too large. */
static bool read_number(xmlNode *instance, const char *name, uint64_t max, uint64_t *ret)
{
    xmlChar *text = xml_property_text(xml_find_property(instance, name));
    bool ok = !text || (xml_parse_number((const char *)text, ret) && *ret <= max);
    xmlFree(text);
    return ok;
}

static int read_disk(struct settings *s, xmlDoc *doc, xmlNode *n, unsigned lun, struct hv_error *e)
{
    struct wmi_ref w = {.cls = DISK_CLASS};
    uint64_t type = 31, access = ACCESS_READ_WRITE, iops = 0;
    xmlNode *extra = xml_disk_instance(doc, DISK_EXTRA, lun);
    xmlChar *path = xml_property_text(xml_find_property(n, "HostResource"));
    xmlChar *format = xml_property_text(xml_find_property(extra, "Format"));
    struct setting_disk d = {.lun = lun, .path = path && path[0] ? (char *)path : NULL};
    int r = 0;
    if (!read_number(n, "ResourceType", 65535, &type) || !read_number(n, "Access", 65535, &access) ||
        !read_number(n, "IOPSLimit", SETTING_IOPS_MAX, &iops))
        r = bad(e, n, &w, "a number is no number, or too large");
    else if (d.path && (d.path[0] != '/' || strlen(d.path) > 4095))
        r = bad(e, n, &w, "HostResource has to be an absolute path");
    else if (format && format[0] && setting_format_parse((const char *)format, &d.format) < 0)
        r = bad(e, extra, &w, "no format of a disk");
    d.dvd = type == 16;
    d.read_only = access == ACCESS_READ;
    d.max_iops = (uint32_t)iops;
    if (r == 0 && !d.path && !d.dvd)
        r = bad(e, n, &w, "a disk needs a path");
    if (r == 0 && settings_disk(s, lun))
        r = bad(e, n, &w, "there is a disk at this place already");
    if (r == 0 && settings_disk_put(s, &d) < 0)
        r = hv_fail(e, HV_NO_RESOURCES, "settings", "out of memory");
    xmlFree(path);
    xmlFree(format);
    return r;
}

static int read_disks(xmlDoc *doc, struct settings *s, struct hv_error *e)
{
    int r = 0;
    settings_disks_fini(s);
    for (xmlNode *n = xml_next_instance(doc, DISK_CLASS, NULL); n && r == 0; n = xml_next_instance(doc, DISK_CLASS, n)) {
        int lun = xml_lun_of(n);
        if (lun >= 0)
            r = read_disk(s, doc, n, (unsigned)lun, e);
    }
    return r;
}

static int check_version(xmlDoc *doc, struct hv_error *e)
{
    struct wmi_ref w = {.cls = VERSION_CLASS, .prop = "Version"};
    xmlNode *prop = xml_find_property(xml_find_instance(doc, VERSION_CLASS), "Version");
    xmlChar *text = xml_property_text(prop);
    uint64_t v = 1;                                     /* instances from elsewhere carry none */
    bool ok = !text || xml_parse_number((const char *)text, &v);
    xmlFree(text);
    if (!ok || v == 0)
        return bad(e, prop, &w, "it has to be a whole number");
    if (v > SETTINGS_XML_VERSION)
        return hv_fail(e, HV_UNSUPPORTED, "settings",
                       "the file has format version %" PRIu64 ", this program knows %d", v,
                       SETTINGS_XML_VERSION);
    return 0;
}

static int read_identity(xmlDoc *doc, struct guid *ret_id, char *name, size_t name_size,
                         struct hv_error *e)
{
    xmlNode *system = xml_find_instance(doc, "Msvm_ComputerSystem");
    xmlNode *data = xml_find_instance(doc, "Msvm_VirtualSystemSettingData");
    xmlChar *id = xml_property_text(xml_find_property(system, "Name"));
    xmlChar *title = xml_property_text(xml_find_property(system, "ElementName"));
    if (!id)
        id = xml_property_text(xml_find_property(data, "VirtualSystemIdentifier"));
    if (!title)
        title = xml_property_text(xml_find_property(data, "ElementName"));
    int r = 0;
    if (!id || guid_parse((const char *)id, ret_id) < 0)
        r = hv_fail(e, HV_USAGE, "Msvm_ComputerSystem.Name", "there is no GUID of a virtual machine");
    else if (!title || !title[0] || !hv_strlcpy(name, (const char *)title, name_size))
        r = hv_fail(e, HV_USAGE, "Msvm_ComputerSystem.ElementName", "there is no name, or it is too long");
    xmlFree(id);
    xmlFree(title);
    return r;
}

int settings_xml_given(xmlDoc *doc, bool whole, json_t **ret, struct hv_error *e)
{
    struct settings s;
    bool given[SETTING_COUNT] = {0};
    settings_init(&s);
    int r = check_version(doc, e);
    if (r == 0)
        r = read_settings(doc, &s, given, e);
    if (r == 0)
        r = read_disks(doc, &s, e);
    json_t *all = r == 0 ? settings_to_json(&s) : NULL, *out = r == 0 ? json_object() : NULL;
    for (unsigned i = 0; out && all && i < SETTING_COUNT; i++) {
        const struct setting_desc *d = &setting_table[i];
        json_t *from = d->group[0] ? json_object_get(all, d->group) : all, *to = out;
        if (!given[i])
            continue;
        if (d->group[0] && !(to = json_object_get(out, d->group))) {
            to = json_object();
            json_object_set_new(out, d->group, to);
        }
        json_object_set(to, d->key, json_object_get(from, d->key));
    }
    if (out && all && (whole || s.disks > 0))
        json_object_set(out, "disks", json_object_get(all, "disks"));
    if (r == 0 && (!all || !out)) {
        json_decref(out);
        r = hv_fail(e, HV_NO_RESOURCES, "settings", "out of memory");
    } else if (r == 0) {
        *ret = out;
    }
    json_decref(all);
    settings_fini(&s);
    return r;
}

int settings_xml_read(const char *buf, size_t len, struct settings *s, struct guid *ret_id, char *name,
                      size_t name_size, struct settings_doc **ret_doc, struct hv_error *e)
{
    if (len > SETTINGS_XML_MAX)
        return hv_fail(e, HV_USAGE, "settings", "more than %zu KiB", SETTINGS_XML_MAX >> 10);
    xmlDoc *doc;
    int r = xml_parse(buf, len, &doc, e);
    if (r < 0)
        return r;
    struct settings fresh;
    settings_init(&fresh);
    r = check_version(doc, e);
    if (r == 0)
        r = read_identity(doc, ret_id, name, name_size, e);
    if (r == 0 && (r = settings_copy(&fresh, s)) < 0)
        hv_fail(e, HV_NO_RESOURCES, "settings", "out of memory");
    if (r == 0)
        r = read_settings(doc, &fresh, NULL, e);
    if (r == 0)
        r = read_disks(doc, &fresh, e);
    struct settings_doc *kept = r == 0 && ret_doc ? hv_alloc(sizeof(*kept)) : NULL;
    if (r == 0 && ret_doc && !kept)
        r = hv_fail(e, HV_NO_RESOURCES, "settings", "out of memory");
    if (r < 0) {
        settings_fini(&fresh);
        xmlFreeDoc(doc);
        return r;
    }
    settings_fini(s);
    *s = fresh;
    if (kept) {
        kept->doc = doc;
        *ret_doc = kept;
    } else {
        xmlFreeDoc(doc);
    }
    return 0;
}

/* ---- writing ---- */

static int put_setting(xmlDoc *doc, const struct settings *s, const struct setting_desc *d)
{
    struct wmi_ref w = wmi_ref(d);
    xmlNode *instance = xml_need_instance(doc, w.cls);
    const struct xml_enum *x = enum_of(d);
    char buf[32];
    if (d->type == SETTING_TEXT || d->type == SETTING_PATH)
        return xml_put(instance, w.prop, w.type, w.array, setting_string(s, d));
    uint64_t v = setting_number(s, d);
    if (d->type == SETTING_BOOL && strcmp(w.type, "uint16") == 0)
        return xml_put(instance, w.prop, w.type, false, v ? "2" : "3");
    if (d->type == SETTING_BOOL)
        return xml_put(instance, w.prop, w.type, false, v ? "TRUE" : "FALSE");
    if (d->type == SETTING_ENUM && !x)
        return xml_put(instance, w.prop, w.type, false, setting_names(d)[v]);
    if (d->type == SETTING_DURATION)
        format_interval(v, buf, sizeof(buf));
    else
        snprintf(buf, sizeof(buf), "%" PRIu64, x ? x->value[v] : v / w.mul * w.div);
    return xml_put(instance, w.prop, w.type, false, buf);
}

static int put_identity(xmlDoc *doc, const struct guid *id, const char *name)
{
    char guid[GUID_TEXT_SIZE], instance_id[160];
    guid_format_upper(id, guid);
    int r = xml_put(xml_need_instance(doc, VERSION_CLASS), "Version", "uint32", false, "1");
    for (const struct xml_class *c = xml_classes; r == 0 && c->name; c++) {
        xmlNode *n = xml_need_instance(doc, c->name);
        if (!c->device) {
            r = xml_put(n, "Name", "string", false, guid);
            if (r == 0)
                r = xml_put(n, "ElementName", "string", false, name);
        } else {
            snprintf(instance_id, sizeof(instance_id), "Microsoft:%s%s", guid, c->device);
            r = xml_put(n, "InstanceID", "string", false, instance_id);
        }
        for (const struct xml_const *k = c->constant; r == 0 && k->name; k++)
            if (!xml_find_property(n, k->name))
                r = xml_put(n, k->name, k->type, false, k->value);
    }
    xmlNode *data = xml_find_instance(doc, "Msvm_VirtualSystemSettingData");
    if (r == 0)
        r = xml_put(data, "ElementName", "string", false, name);
    if (r == 0)
        r = xml_put(data, "VirtualSystemIdentifier", "string", false, guid);
    return r;
}

static int put_disk(xmlDoc *doc, const struct setting_disk *d, const char *vm)
{
    static const char *const formats[] = {[SET_FORMAT_RAW] = "raw", [SET_FORMAT_VHD] = "vhd", [SET_FORMAT_VHDX] = "vhdx"};
    xmlNode *n = xml_disk_instance(doc, DISK_CLASS, d->lun), *extra = xml_disk_instance(doc, DISK_EXTRA, d->lun);
    char id[160], lun[16], iops[16];
    n = n ? n : xml_new_instance(doc, DISK_CLASS);
    extra = extra ? extra : xml_new_instance(doc, DISK_EXTRA);
    snprintf(id, sizeof(id), "Microsoft:%s" SCSI_DEVICE "%u\\L", vm, d->lun);
    snprintf(lun, sizeof(lun), "%u", d->lun);
    snprintf(iops, sizeof(iops), "%" PRIu32, d->max_iops);
    int r = xml_put(n, "InstanceID", "string", false, id);
    r = r < 0 ? r : xml_put(n, "ResourceType", "uint16", false, d->dvd ? "16" : "31");
    r = r < 0 ? r : xml_put(n, "ResourceSubType", "string", false,
                        d->dvd ? "Microsoft:Hyper-V:Virtual CD/DVD Disk" : "Microsoft:Hyper-V:Virtual Hard Disk");
    r = r < 0 ? r : xml_put(n, "AddressOnParent", "string", false, lun);
    r = r < 0 ? r : xml_put(n, "HostResource", "string", true, d->path);
    r = r < 0 ? r : xml_put(n, "Access", "uint16", false, d->read_only ? "1" : "3");
    r = r < 0 ? r : xml_put(n, "IOPSLimit", "uint64", false, iops);
    r = r < 0 ? r : xml_put(extra, "InstanceID", "string", false, id);
    return r < 0 ? r : xml_put(extra, "Format", "string", false, formats[d->format]);
}

/* Those in the document that the settings no longer have go; the others keep what else they carry. */
static int put_disks(xmlDoc *doc, const struct settings *s, const struct guid *vm)
{
    static const char *const classes[] = {DISK_CLASS, DISK_EXTRA};
    char guid[GUID_TEXT_SIZE];
    int r = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(classes); i++)
        for (xmlNode *n = xml_next_instance(doc, classes[i], NULL), *next; n; n = next) {
            int lun = xml_lun_of(n);
            next = xml_next_instance(doc, classes[i], n);
            if (lun >= 0 && !settings_disk(s, (unsigned)lun)) {
                xmlNode *gone = n->parent && xml_is(n->parent, "VALUE.OBJECT") ? n->parent : n;
                xmlUnlinkNode(gone);
                xmlFreeNode(gone);
            }
        }
    guid_format_upper(vm, guid);
    for (unsigned i = 0; r == 0 && i < s->disks; i++)
        r = put_disk(doc, &s->disk[i], guid);
    return r;
}

int settings_xml_write(const struct settings *s, const struct guid *id, const char *name,
                       struct settings_doc *kept, char **ret, size_t *ret_len)
{
    xmlDoc *doc = kept ? kept->doc : xmlNewDoc(X("1.0"));
    if (!doc)
        return -ENOMEM;
    int r = put_identity(doc, id, name);
    for (unsigned i = 0; r == 0 && i < SETTING_COUNT; i++)
        r = put_setting(doc, s, &setting_table[i]);
    if (r == 0)
        r = put_disks(doc, s, id);
    xmlChar *text = NULL;
    int len = 0;
    if (r == 0) {
        xmlDocDumpFormatMemoryEnc(doc, &text, &len, "utf-8", 1);
        r = text ? 0 : -ENOMEM;
    }
    if (r == 0) {
        *ret = hv_alloc((size_t)len + 1);
        if (*ret)
            memcpy(*ret, text, (size_t)len);
        else
            r = -ENOMEM;
        if (ret_len)
            *ret_len = (size_t)len;
    }
    xmlFree(text);
    if (!kept)
        xmlFreeDoc(doc);
    return r;
}
