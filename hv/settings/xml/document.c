/*
 * Documents of any number of virtual machines, from outside: taken apart into one JSON object a
 * machine. Runs in a sealed process (DESIGN 11); who gets the answer checks all of it again.
 *
 * A DECLGROUP (or the whole document, where there is none) holds one machine, or several whose
 * instances tell by their GUIDs which they belong to.
 */
#include <errno.h>

#include "hv/settings/xml/tree.h"

#define VMS_MAX 4096u

struct part {
    struct guid id;
    bool has_id;
    xmlDoc *doc;
    long line;
};

struct reading {
    struct part *part;
    unsigned parts, first;             /* first: of the present group */
    bool whole;                        /* the present group is a file of ours */
    json_t *host;
};

static int no_memory(struct hv_error *e) { return hv_fail(e, HV_NO_RESOURCES, "settings", "out of memory"); }

static int bad_at(struct hv_error *e, const xmlNode *n, const char *what, const char *message)
{
    char object[160];
    snprintf(object, sizeof(object), "line %ld: %.100s", xmlGetLineNo((xmlNode *)(uintptr_t)n), what);
    return hv_fail(e, HV_USAGE, object, "%s", message);
}

/* The machine an instance belongs to by its own words; false: it does not say. */
static bool owner(xmlNode *n, const char *cls, struct guid *ret)
{
    const char *device;
    bool found = false;
    xmlChar *id = NULL;
    if (strcasecmp(cls, "Msvm_ComputerSystem") == 0)
        id = xml_property_text(xml_find_property(n, "Name"));
    else if (strcasecmp(cls, "Msvm_VirtualSystemSettingData") == 0)
        id = xml_property_text(xml_find_property(n, "VirtualSystemIdentifier"));
    if (id)
        found = guid_parse((const char *)id, ret) == 0;
    xmlFree(id);
    if (found)
        return true;
    id = xml_property_text(xml_find_property(n, "InstanceID"));
    found = id && xml_instance_id((const char *)id, ret, &device);
    xmlFree(id);
    return found;
}

static int add_part(struct reading *r, xmlNode *n, const struct guid *id, struct part **ret, struct hv_error *e)
{
    if (r->parts == VMS_MAX)
        return bad_at(e, n, "INSTANCE", "more than 4096 virtual machines");
    struct part *grown = hv_realloc_array(r->part, r->parts + 1, sizeof(*grown));
    if (!grown)
        return no_memory(e);
    r->part = grown;
    struct part *p = *ret = &r->part[r->parts];
    *p = (struct part){.has_id = id != NULL, .doc = xmlNewDoc(X("1.0")), .line = xmlGetLineNo(n)};
    xmlNode *root = p->doc ? xmlNewDocNode(p->doc, NULL, X("CIM"), NULL) : NULL;
    if (!root) {
        xmlFreeDoc(p->doc);
        return no_memory(e);
    }
    xmlDocSetRootElement(p->doc, root);
    if (id)
        p->id = *id;
    r->parts++;
    return 0;
}

static int copy_into(struct part *p, xmlNode *n, struct hv_error *e)
{
    xmlNode *copy = xmlDocCopyNode(n, p->doc, 1);
    return copy && xmlAddChild(xmlDocGetRootElement(p->doc), copy) ? 0 : no_memory(e);
}

static int read_host(struct reading *r, xmlNode *n, struct hv_error *e)
{
    static const struct { const char *prop, *key; enum { NUMBER, FLAG, TEXT } type; } keys[] = {
        {"VmMemory", "vm_memory", NUMBER}, {"RootReserve", "root_reserve", NUMBER}, {"Balancer", "balancer", FLAG},
        {"BalancerDelay", "balancer_delay_ms", NUMBER}, {"Metrics", "metrics", TEXT},
    };
    if (!r->host && !(r->host = json_object()))
        return no_memory(e);
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        xmlChar *text = xml_property_text(xml_find_property(n, keys[i].prop));
        const char *t = (const char *)text;
        uint64_t v = 0;
        json_t *j = NULL;
        if (t && keys[i].type == NUMBER && xml_parse_number(t, &v) && v <= INT64_MAX)
            j = json_integer((json_int_t)v);
        else if (t && keys[i].type == FLAG && (strcasecmp(t, "true") == 0 || strcasecmp(t, "false") == 0))
            j = json_boolean(strcasecmp(t, "true") == 0);
        else if (t && keys[i].type == TEXT)
            j = json_string(t);
        xmlFree(text);
        if (j)
            json_object_set_new(r->host, keys[i].key, j);
        else if (t)
            return bad_at(e, n, HOST_CLASS, "a value that is no number, or neither TRUE nor FALSE");
    }
    return 0;
}

/* One instance of a group whose machines are known: to the one it names, else to the only one. */
static int deal(struct reading *r, xmlNode *n, struct hv_error *e)
{
    struct guid id;
    struct hv_error why = {0};
    xmlChar *cls = xmlGetNoNsProp(n, X("CLASSNAME"));
    int ret = cls && cls[0] ? 0 : bad_at(e, n, "INSTANCE", "it has no CLASSNAME");
    if (ret < 0 || strcasecmp((const char *)cls, HOST_CLASS) == 0) {
        xmlFree(cls);
        return ret < 0 ? ret : read_host(r, n, e);
    }
    const unsigned count = r->parts - r->first;
    struct part *p = NULL;
    if (owner(n, (const char *)cls, &id)) {
        for (unsigned i = r->first; !p && i < r->parts; i++)
            if (guid_equal(&r->part[i].id, &id))
                p = &r->part[i];
    } else if (strcasecmp((const char *)cls, VERSION_CLASS) == 0) {
        r->whole = true;
        for (unsigned i = r->first; ret == 0 && i < r->parts; i++)
            ret = copy_into(&r->part[i], n, &why);
    } else if (count == 1) {
        p = &r->part[r->first];
    } else {
        ret = bad_at(&why, n, (const char *)cls, "which of the virtual machines it belongs to cannot be told");
    }
    if (ret == 0 && p)
        ret = copy_into(p, n, &why);
    if (ret < 0)
        *e = why;
    xmlFree(cls);
    return ret;
}

typedef int instance_fn(struct reading *r, xmlNode *n, struct hv_error *e);

/* Which machines are there? */
static int find_owner(struct reading *r, xmlNode *n, struct hv_error *e)
{
    struct guid id;
    struct part *p;
    xmlChar *cls = xmlGetNoNsProp(n, X("CLASSNAME"));
    bool named = cls && owner(n, (const char *)cls, &id);
    xmlFree(cls);
    for (unsigned i = r->first; named && i < r->parts; i++)
        if (guid_equal(&r->part[i].id, &id))
            return 0;
    return named ? add_part(r, n, &id, &p, e) : 0;
}

/* One without a GUID, if the group has anything of a machine at all. */
static int find_nameless(struct reading *r, xmlNode *n, struct hv_error *e)
{
    struct part *p;
    bool other = xml_attr_is(n, "CLASSNAME", HOST_CLASS) || xml_attr_is(n, "CLASSNAME", VERSION_CLASS);
    return other || r->parts > r->first ? 0 : add_part(r, n, NULL, &p, e);
}

static int each_instance(struct reading *r, xmlNode *top, instance_fn *fn, struct hv_error *e)
{
    int ret = 0;
    for (xmlNode *n = top; n && ret == 0; n = xml_walk(n, top, xml_is(n, "INSTANCE")))
        if (xml_is(n, "INSTANCE"))
            ret = fn(r, n, e);
    return ret;
}

static json_t *part_json(const struct part *p, bool whole, struct hv_error *e)
{
    char guid[GUID_TEXT_SIZE];
    struct settings_doc d = {.doc = p->doc};
    json_t *settings = NULL;
    xmlNode *system = xml_find_instance(p->doc, "Msvm_ComputerSystem");
    xmlNode *data = xml_find_instance(p->doc, "Msvm_VirtualSystemSettingData");
    xmlChar *name = xml_property_text(xml_find_property(system, "ElementName"));
    if (!name)
        name = xml_property_text(xml_find_property(data, "ElementName"));
    json_t *j = NULL;
    if (!name && !p->has_id) {
        char object[64];
        snprintf(object, sizeof(object), "line %ld", p->line);
        hv_fail(e, HV_USAGE, object, "a virtual machine without a name: Msvm_ComputerSystem.ElementName");
    } else if (settings_xml_given(p->doc, whole, &settings, e) == 0) {
        j = json_pack("{s:s? s:s? s:i s:b s:o s:o}", "name", name, "id", p->has_id ? guid_format(&p->id, guid) : NULL, "line",
                      (int)p->line, "whole", whole, "settings", settings, "extras", settings_extras(&d));
        if (!j)
            no_memory(e);
    }
    xmlFree(name);
    return j;
}

/* One group: who is in it, what belongs to whom, and each as JSON. */
static int read_group(struct reading *r, xmlNode *top, json_t *vms, struct hv_error *e)
{
    r->first = r->parts;
    r->whole = false;
    int ret = each_instance(r, top, find_owner, e);
    if (ret == 0)
        ret = each_instance(r, top, find_nameless, e);
    if (ret == 0)
        ret = each_instance(r, top, deal, e);
    for (unsigned i = r->first; ret == 0 && i < r->parts; i++) {
        json_t *j = part_json(&r->part[i], r->whole, e);
        ret = j ? json_array_append_new(vms, j) : -EINVAL;
    }
    for (unsigned i = r->first; i < r->parts; i++) {
        xmlFreeDoc(r->part[i].doc);
        r->part[i].doc = NULL;
    }
    return ret;
}

static bool is_group(const xmlNode *n)
{
    return xml_is(n, "DECLGROUP") || xml_is(n, "DECLGROUP.WITHNAME") || xml_is(n, "DECLGROUP.WITHPATH");
}

int settings_xml_document(const char *buf, size_t len, json_t **ret, struct hv_error *e)
{
    struct reading r = {0};
    xmlDoc *doc;
    if (len > SETTINGS_DOCUMENT_MAX)
        return hv_fail(e, HV_USAGE, "settings", "more than %zu MiB", SETTINGS_DOCUMENT_MAX >> 20);
    int err = xml_parse(buf, len, &doc, e);
    if (err < 0)
        return err;
    json_t *vms = json_array();
    xmlNode *root = xmlDocGetRootElement(doc);
    bool groups = false;
    for (xmlNode *n = root; n && err == 0; n = xml_walk(n, root, is_group(n) || xml_is(n, "INSTANCE")))
        if (is_group(n)) {
            groups = true;
            err = read_group(&r, n, vms, e);
        }
    if (err == 0 && !groups)
        err = read_group(&r, root, vms, e);
    if (err == 0 && !json_array_size(vms) && !r.host)
        err = hv_fail(e, HV_USAGE, "settings", "there is no virtual machine in it: no INSTANCE");
    if (err == 0)
        *ret = r.host ? json_pack("{s:O s:O}", "vms", vms, "host", r.host) : json_pack("{s:O}", "vms", vms);
    for (unsigned i = 0; i < r.parts; i++)
        xmlFreeDoc(r.part[i].doc);
    free(r.part);
    json_decref(r.host);
    json_decref(vms);
    xmlFreeDoc(doc);
    return err;
}
