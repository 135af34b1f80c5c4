/*
 * What a document holds and the settings table does not: as JSON between processes, as
 * instances and properties again in the file. So nothing of a foreign document gets into a file
 * but through the checks here.
 *
 *   [{"class": "Msvm_MemorySettingData", "device": "\\4764334d-...", "properties":
 *       [{"name": "SgxSize", "type": "uint64", "array": false, "values": ["0"]}]}]
 *
 * device is what stands behind "Microsoft:GUID" in the InstanceID, or the whole InstanceID where
 * it is of another form; "" where there is none.
 */
#include <ctype.h>
#include <errno.h>

#include "hv/settings/xml/classes.h"
#include "hv/settings/xml/tree.h"

#define EXTRAS_MAX      4096u        /* properties of one VM */
#define EXTRA_VALUE_MAX ((size_t)64 << 10)

static const char *const cim_types[] = {"string", "boolean", "uint8", "sint8", "uint16", "sint16", "uint32", "sint32", "uint64",
                                        "sint64", "real32", "real64", "datetime", "char16"};

static const struct xml_class *class_of(const char *name)
{
    for (const struct xml_class *c = xml_classes; c->name; c++)
        if (strcasecmp(c->name, name) == 0)
            return c;
    return NULL;
}

static bool is_disk(const char *cls) { return strcasecmp(cls, DISK_CLASS) == 0 || strcasecmp(cls, DISK_EXTRA) == 0; }

/* Does the settings table, or what every document of ours has, say what this property is? */
static bool is_ours(const char *cls, const char *prop, const char *value)
{
    static const char *const disk[] = {"ResourceType", "ResourceSubType", "AddressOnParent", "HostResource", "Access", "IOPSLimit",
                                       "Format"};
    const struct xml_class *c = class_of(cls);
    char name[160];
    if (strcasecmp(prop, "InstanceID") == 0)
        return true;
    if (is_disk(cls)) {
        for (unsigned i = 0; i < ARRAY_SIZE(disk); i++)
            if (strcasecmp(disk[i], prop) == 0)
                return true;
        return false;
    }
    if (!c)
        return false;
    if (strcasecmp(prop, "ElementName") == 0 || strcasecmp(prop, "VirtualSystemIdentifier") == 0 ||
        (!c->device && strcasecmp(prop, "Name") == 0))
        return true;
    for (const struct xml_const *k = c->constant; k->name; k++)
        if (strcasecmp(k->name, prop) == 0)
            return value && strcmp(k->value, value) == 0;
    snprintf(name, sizeof(name), "%s.%s:", cls, prop);
    for (unsigned i = 0; i < SETTING_COUNT; i++)
        if (strncasecmp(setting_table[i].wmi, name, strlen(name)) == 0)
            return true;
    return false;
}

/* ---- from a tree ---- */

static json_t *values_of(xmlNode *prop, bool array)
{
    xmlNode *in = array ? xml_find_child(prop, "VALUE.ARRAY") : prop;
    if (!in || (!array && !xml_find_child(prop, "VALUE")))
        return json_null();
    json_t *list = json_array();
    for (xmlNode *v = in->children; list && v; v = v->next) {
        if (!xml_is(v, "VALUE"))
            continue;
        xmlChar *text = xmlNodeGetContent(v);
        json_array_append_new(list, json_string(text ? (const char *)text : ""));
        xmlFree(text);
        if (!array)
            break;
    }
    return list;
}

static json_t *property_json(const char *cls, bool known, xmlNode *p)
{
    const bool array = xml_is(p, "PROPERTY.ARRAY");
    xmlChar *name = xmlGetNoNsProp(p, X("NAME")), *type = xmlGetNoNsProp(p, X("TYPE")), *text = xml_property_text(p);
    json_t *j = NULL;
    if (name && !(known && is_ours(cls, (const char *)name, (const char *)text)) &&
        strcasecmp((const char *)name, "InstanceID") != 0)
        j = json_pack("{s:s s:s s:b s:o}", "name", name, "type", type ? (const char *)type : "string", "array", array, "values",
                      values_of(p, array));
    xmlFree(name);
    xmlFree(type);
    xmlFree(text);
    return j;
}

static json_t *instance_json(xmlNode *n, bool first)
{
    xmlChar *cls = xmlGetNoNsProp(n, X("CLASSNAME")), *id = xml_property_text(xml_find_property(n, "InstanceID"));
    const char *device = id ? (const char *)id : "";
    struct guid vm;
    char place[80];
    const int lun = cls && is_disk((const char *)cls) ? xml_lun_of(n) : -1;
    /* The settings come from a class's first instance; of disks from those at a place we have. */
    const bool known = cls && (lun >= 0 || (first && class_of((const char *)cls)));
    json_t *list = json_array(), *j = NULL;
    if (id)
        (void)xml_instance_id((const char *)id, &vm, &device);
    if (lun >= 0) {                    /* one place has one name */
        snprintf(place, sizeof(place), SCSI_DEVICE "%d\\L", lun);
        device = place;
    }
    for (xmlNode *p = n->children; list && cls && p; p = p->next) {
        json_t *prop = xml_is(p, "PROPERTY") || xml_is(p, "PROPERTY.ARRAY") ? property_json((const char *)cls, known, p) : NULL;
        if (prop)
            json_array_append_new(list, prop);
    }
    if (list && cls && strcasecmp((const char *)cls, VERSION_CLASS) != 0 && (!known || json_array_size(list) > 0))
        j = json_pack("{s:s s:s s:O}", "class", cls, "device", device, "properties", list);
    json_decref(list);
    xmlFree(cls);
    xmlFree(id);
    return j;
}

json_t *settings_extras(struct settings_doc *d)
{
    xmlNode *root = d ? xmlDocGetRootElement(d->doc) : NULL;
    json_t *list = json_array(), *seen = json_object();
    for (xmlNode *n = root; n && list && seen; n = xml_walk(n, root, xml_is(n, "INSTANCE"))) {
        if (!xml_is(n, "INSTANCE"))
            continue;
        xmlChar *cls = xmlGetNoNsProp(n, X("CLASSNAME"));
        const struct xml_class *c = cls ? class_of((const char *)cls) : NULL;
        json_t *j = instance_json(n, !c || !json_object_get(seen, c->name));
        if (c)
            json_object_set_new(seen, c->name, json_true());
        if (j)
            json_array_append_new(list, j);
        xmlFree(cls);
    }
    json_decref(seen);
    return list;
}

/* ---- checks ---- */

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* A name of DSP0004: letters, digits and _, no digit first. */
static bool name_ok(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > 120 || isdigit((unsigned char)name[0]))
        return false;
    for (; *name; name++)
        if (!isascii((unsigned char)*name) || (!isalnum((unsigned char)*name) && *name != '_'))
            return false;
    return true;
}

static bool type_ok(const char *type)
{
    for (unsigned i = 0; i < ARRAY_SIZE(cim_types); i++)
        if (strcasecmp(type, cim_types[i]) == 0)
            return true;
    return false;
}

static int bad(struct hv_error *e, const char *cls, const char *prop, const char *what)
{
    char object[160];
    snprintf(object, sizeof(object), "%.70s%s%.70s", cls, prop[0] ? "." : "", prop);
    return hv_fail(e, HV_USAGE, object, "%s", what);
}

static int check_property(const char *cls, const json_t *p, struct hv_error *e)
{
    const json_t *values = json_object_get(p, "values"), *v;
    const char *name = text_of(p, "name");
    size_t i;
    if (!name_ok(name))
        return bad(e, cls, name, "no name of a property");
    if (!type_ok(text_of(p, "type")))
        return bad(e, cls, name, "no type of CIM");
    if (!json_is_null(values) && !json_is_array(values))
        return bad(e, cls, name, "it has no values");
    json_array_foreach((json_t *)(uintptr_t)values, i, v)
        if (!json_is_string(v) || json_string_length(v) > EXTRA_VALUE_MAX || !setting_text_ok(json_string_value(v)))
            return bad(e, cls, name, "a value is longer than 64 KiB, or has a control character");
    return 0;
}

int settings_extras_check(const json_t *extras, struct hv_error *e)
{
    const json_t *o, *p;
    size_t i, k, count = 0;
    if (!json_is_array(extras))
        return bad(e, "instances", "", "they are no list");
    json_array_foreach((json_t *)(uintptr_t)extras, i, o) {
        const char *cls = text_of(o, "class"), *device = text_of(o, "device");
        const json_t *list = json_object_get(o, "properties");
        if (!name_ok(cls))
            return bad(e, cls, "", "no name of a class");
        if (strlen(device) > 512 || !setting_text_ok(device))
            return bad(e, cls, "InstanceID", "longer than 512 characters, or with a control character");
        count++;
        json_array_foreach((json_t *)(uintptr_t)list, k, p) {
            int r = check_property(cls, p, e);
            if (r < 0)
                return r;
            count++;
        }
        if (count > EXTRAS_MAX)
            return bad(e, cls, "", "more than 4096 properties that are not known");
    }
    return 0;
}

/* ---- two of them ---- */

static json_t *find_instance_json(const json_t *list, const json_t *like)
{
    size_t i;
    json_t *o;
    json_array_foreach((json_t *)(uintptr_t)list, i, o)
        if (strcasecmp(text_of(o, "class"), text_of(like, "class")) == 0 &&
            strcasecmp(text_of(o, "device"), text_of(like, "device")) == 0)
            return o;
    return NULL;
}

static json_t *find_property_json(const json_t *instance, const char *name, size_t *ret_at)
{
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(instance, "properties"), i, p)
        if (strcasecmp(text_of(p, "name"), name) == 0) {
            *ret_at = i;
            return p;
        }
    return NULL;
}

json_t *settings_extras_merge(const json_t *base, const json_t *over)
{
    json_t *all = json_deep_copy(base), *o, *p;
    size_t i, k, at = 0;
    json_array_foreach((json_t *)(uintptr_t)over, i, o) {
        json_t *into = find_instance_json(all, o);
        if (!into) {
            json_array_append(all, o);
            continue;
        }
        json_array_foreach(json_object_get(o, "properties"), k, p) {
            if (find_property_json(into, text_of(p, "name"), &at))
                json_array_set(json_object_get(into, "properties"), at, p);
            else
                json_array_append(json_object_get(into, "properties"), p);
        }
    }
    return all;
}

/* "a, b" of a property's values; NULL where it is not there or has none. */
static json_t *shown(const json_t *p)
{
    const json_t *values = json_object_get(p, "values"), *v;
    char text[200] = "";
    size_t i, n = 0;
    if (!json_is_array(values))
        return json_null();
    json_array_foreach((json_t *)(uintptr_t)values, i, v)
        if (n < sizeof(text))
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%.60s", i ? ", " : "", json_string_value(v));
    json_t *j = json_string(text);         /* NULL where a character was cut in two */
    return j ? j : json_string("...");
}

static void note(json_t *changes, const json_t *instance, const char *prop, const json_t *old, const json_t *new)
{
    char key[260];
    snprintf(key, sizeof(key), "%s%s%s", text_of(instance, "class"), prop[0] ? "." : "", prop);
    json_array_append_new(changes, json_pack("{s:s s:o s:o}", "key", key, "old", shown(old), "new", shown(new)));
}

/* What of a has no equal in b, or is not there; twin: what is in both and differs is noted too. */
static void one_way(const json_t *a, const json_t *b, bool forward, json_t *changes)
{
    size_t i, k, at = 0;
    json_t *o, *p;
    json_array_foreach((json_t *)(uintptr_t)a, i, o) {
        const json_t *other = find_instance_json(b, o);
        if (!other && json_array_size(json_object_get(o, "properties")) == 0)
            note(changes, o, "", NULL, NULL);
        json_array_foreach(json_object_get(o, "properties"), k, p) {
            const json_t *twin = other ? find_property_json(other, text_of(p, "name"), &at) : NULL;
            if (!twin)
                note(changes, o, text_of(p, "name"), forward ? p : NULL, forward ? NULL : p);
            else if (forward && !json_equal(p, twin))
                note(changes, o, text_of(p, "name"), p, twin);
        }
    }
}

json_t *settings_extras_diff(const json_t *old, const json_t *new)
{
    json_t *changes = json_array();
    if (changes) {
        one_way(old, new, true, changes);
        one_way(new, old, false, changes);
    }
    return changes;
}

/* ---- into a tree ---- */

static int put_values(xmlNode *instance, const json_t *p)
{
    const json_t *values = json_object_get(p, "values"), *v;
    const char *name = text_of(p, "name"), *type = text_of(p, "type");
    const bool array = json_is_true(json_object_get(p, "array"));
    size_t i;
    int r = xml_put(instance, name, type, array, NULL);
    xmlNode *in = r == 0 ? xml_find_property(instance, name) : NULL;
    if (in && array && json_is_array(values))
        in = xmlNewChild(in, NULL, X("VALUE.ARRAY"), NULL);
    if (!in)
        return -ENOMEM;
    json_array_foreach((json_t *)(uintptr_t)values, i, v)
        if (!xmlNewTextChild(in, NULL, X("VALUE"), X(json_string_value(v))))
            return -ENOMEM;
    return 0;
}

/* Of a disk that the settings do not have: nothing of it is kept. */
static bool is_gone(const struct settings *s, const json_t *o)
{
    const int lun = is_disk(text_of(o, "class")) ? xml_lun_of_text(text_of(o, "device")) : -1;
    return lun >= 0 && !settings_disk(s, (unsigned)lun);
}

/* The instance of the new document that these properties belong to: one of ours, or a new one. */
static xmlNode *place_of(xmlDoc *doc, const struct guid *id, const json_t *o)
{
    const char *cls = text_of(o, "class"), *device = text_of(o, "device");
    const struct xml_class *c = class_of(cls);
    char guid[GUID_TEXT_SIZE];
    if (c && (!c->device || strcasecmp(device, c->device) == 0))
        return xml_need_instance(doc, c->name);
    const int lun = is_disk(cls) ? xml_lun_of_text(device) : -1;
    if (lun >= 0)
        return xml_disk_instance(doc, cls, (unsigned)lun);
    guid_format_upper(id, guid);
    hv_autofree char *instance_id = hv_asprintf("Microsoft:%s%s", guid, device);
    if (!instance_id)
        return NULL;
    const bool own = device[0] == 0 || device[0] == '\\';
    for (xmlNode *n = xml_next_instance(doc, cls, NULL); device[0] && n; n = xml_next_instance(doc, cls, n)) {
        xmlChar *text = xml_property_text(xml_find_property(n, "InstanceID"));
        bool same = text && strcasecmp((const char *)text, own ? instance_id : device) == 0;
        xmlFree(text);
        if (same)
            return n;
    }
    xmlNode *n = xml_new_instance(doc, cls);
    if (n && device[0] && xml_put(n, "InstanceID", "string", false, own ? instance_id : device) < 0)
        return NULL;
    return n;
}

int settings_doc_new(const struct settings *s, const struct guid *id, const char *name, const json_t *extras,
                     struct settings_doc **ret)
{
    struct settings_doc *d = hv_alloc(sizeof(*d));
    hv_autofree char *unused = NULL;
    json_t *o, *p;
    size_t i, k;
    if (!d || !(d->doc = xmlNewDoc(X("1.0")))) {
        free(d);
        return -ENOMEM;
    }
    int r = settings_xml_write(s, id, name, d, &unused, NULL);
    json_array_foreach((json_t *)(uintptr_t)extras, i, o) {
        if (is_gone(s, o))
            continue;
        xmlNode *n = r == 0 ? place_of(d->doc, id, o) : NULL;
        r = r < 0 ? r : n ? 0 : -ENOMEM;
        json_array_foreach(json_object_get(o, "properties"), k, p)
            r = r < 0 ? r : put_values(n, p);
    }
    if (r < 0)
        settings_doc_free(d);
    else
        *ret = d;
    return r;
}
