/* libxml2's tree of a CIM document (DSP0201): found, walked, changed; and how one is parsed. */
#include "hv/settings/xml/tree.h"

#include <errno.h>
#include <libxml/SAX2.h>
#include <libxml/parser.h>
#include <libxml/parserInternals.h>

bool xml_is(const xmlNode *n, const char *name)
{
    return n->type == XML_ELEMENT_NODE && strcmp((const char *)n->name, name) == 0;
}

bool xml_attr_is(xmlNode *n, const char *attr, const char *value)
{
    xmlChar *v = xmlGetNoNsProp(n, X(attr));
    bool same = v && strcasecmp((const char *)v, value) == 0;
    xmlFree(v);
    return same;
}

xmlNode *xml_walk(xmlNode *n, const xmlNode *root, bool skip)
{
    if (!skip && n->children && n->type != XML_ENTITY_REF_NODE)
        return n->children;
    while (n != root && !n->next)
        n = n->parent;
    return n == root ? NULL : n->next;
}

xmlNode *xml_find_instance(xmlDoc *doc, const char *cls)
{
    return xml_next_instance(doc, cls, NULL);
}

xmlNode *xml_next_instance(xmlDoc *doc, const char *cls, xmlNode *after)
{
    xmlNode *root = xmlDocGetRootElement(doc);
    for (xmlNode *n = after ? xml_walk(after, root, true) : root; n; n = xml_walk(n, root, xml_is(n, "INSTANCE")))
        if (xml_is(n, "INSTANCE") && xml_attr_is(n, "CLASSNAME", cls))
            return n;
    return NULL;
}

xmlNode *xml_find_property(xmlNode *instance, const char *name)
{
    for (xmlNode *n = instance ? instance->children : NULL; n; n = n->next)
        if ((xml_is(n, "PROPERTY") || xml_is(n, "PROPERTY.ARRAY")) && xml_attr_is(n, "NAME", name))
            return n;
    return NULL;
}

xmlNode *xml_find_child(xmlNode *n, const char *name)
{
    for (xmlNode *c = n->children; c; c = c->next)
        if (xml_is(c, name))
            return c;
    return NULL;
}

xmlChar *xml_property_text(xmlNode *prop)
{
    if (!prop)
        return NULL;
    if (xml_is(prop, "PROPERTY.ARRAY")) {
        prop = xml_find_child(prop, "VALUE.ARRAY");
        if (!prop)
            return NULL;
    }
    xmlNode *value = xml_find_child(prop, "VALUE");
    return value ? xmlNodeGetContent(value) : NULL;
}

bool xml_parse_number(const char *text, uint64_t *ret)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || text[0] < '0' || text[0] > '9' || *end)
        return false;
    *ret = v;
    return true;
}

bool xml_instance_id(const char *text, struct guid *ret, const char **ret_device)
{
    char guid[GUID_TEXT_SIZE];
    if (strncasecmp(text, "Microsoft:", 10) != 0 || strlen(text + 10) < sizeof(guid) - 1)
        return false;
    memcpy(guid, text + 10, sizeof(guid) - 1);
    guid[sizeof(guid) - 1] = 0;
    *ret_device = text + 10 + sizeof(guid) - 1;
    return guid_parse(guid, ret) == 0 && (**ret_device == 0 || **ret_device == '\\');
}

int xml_lun_of_text(const char *id)
{
    const char *at = strcasestr(id, SCSI_DEVICE);
    const char *digits = at ? at + strlen(SCSI_DEVICE) : "";
    size_t n = strspn(digits, "0123456789");
    unsigned long lun = n > 0 && n < 4 ? strtoul(digits, NULL, 10) : SETTING_DISKS_MAX;
    return lun < SETTING_DISKS_MAX && strcasecmp(digits + n, "\\L") == 0 ? (int)lun : -1;
}

int xml_lun_of(xmlNode *instance)
{
    xmlChar *id = xml_property_text(xml_find_property(instance, "InstanceID"));
    int lun = id ? xml_lun_of_text((const char *)id) : -1;
    xmlFree(id);
    return lun;
}

xmlNode *xml_disk_instance(xmlDoc *doc, const char *cls, unsigned lun)
{
    for (xmlNode *n = xml_next_instance(doc, cls, NULL); n; n = xml_next_instance(doc, cls, n))
        if (xml_lun_of(n) == (int)lun)
            return n;
    return NULL;
}

/* ---- changing ---- */

/* The element all instances go under; made if the document is new or has none. */
static xmlNode *group_of(xmlDoc *doc)
{
    xmlNode *root = xmlDocGetRootElement(doc);
    if (!root) {
        root = xmlNewDocNode(doc, NULL, X("CIM"), NULL);
        if (!root)
            return NULL;
        xmlDocSetRootElement(doc, root);
        xmlNewProp(root, X("CIMVERSION"), X("2.0"));
        xmlNewProp(root, X("DTDVERSION"), X("2.0"));
    }
    for (xmlNode *n = root; n; n = xml_walk(n, root, xml_is(n, "INSTANCE")))
        if (xml_is(n, "DECLGROUP"))
            return n;
    xmlNode *decl = xmlNewChild(root, NULL, X("DECLARATION"), NULL);
    return decl ? xmlNewChild(decl, NULL, X("DECLGROUP"), NULL) : NULL;
}

xmlNode *xml_new_instance(xmlDoc *doc, const char *cls)
{
    xmlNode *group = group_of(doc);
    xmlNode *object = group ? xmlNewChild(group, NULL, X("VALUE.OBJECT"), NULL) : NULL;
    xmlNode *n = object ? xmlNewChild(object, NULL, X("INSTANCE"), NULL) : NULL;
    if (n)
        xmlNewProp(n, X("CLASSNAME"), X(cls));
    return n;
}

xmlNode *xml_need_instance(xmlDoc *doc, const char *cls)
{
    xmlNode *n = xml_find_instance(doc, cls);
    return n ? n : xml_new_instance(doc, cls);
}

int xml_put(xmlNode *instance, const char *name, const char *type, bool array, const char *text)
{
    if (!instance)
        return -ENOMEM;
    xmlNode *prop = xml_find_property(instance, name);
    if (!prop) {
        prop = xmlNewChild(instance, NULL, X(array ? "PROPERTY.ARRAY" : "PROPERTY"), NULL);
        if (!prop)
            return -ENOMEM;
        xmlNewProp(prop, X("NAME"), X(name));
        xmlNewProp(prop, X("TYPE"), X(type));
    }
    for (xmlNode *c = prop->children, *next; c; c = next) {
        next = c->next;
        if (xml_is(c, "VALUE") || xml_is(c, "VALUE.ARRAY")) {
            xmlUnlinkNode(c);
            xmlFreeNode(c);
        }
    }
    if (!text)
        return 0;
    xmlNode *in = array ? xmlNewChild(prop, NULL, X("VALUE.ARRAY"), NULL) : prop;
    return in && xmlNewTextChild(in, NULL, X("VALUE"), X(text)) ? 0 : -ENOMEM;
}

/* ---- parsing ---- */

struct watch { bool dtd, deep; unsigned depth; startElementNsSAX2Func start; endElementNsSAX2Func end; };

static void no_output(void *ctx, const char *fmt, ...) { }

/* Entities can be declared nowhere but in a document type: the parser never gets to see one. */
static void on_dtd(void *ctx, const xmlChar *name, const xmlChar *external, const xmlChar *system)
{
    xmlParserCtxt *p = ctx;
    ((struct watch *)p->_private)->dtd = true;
    xmlStopParser(p);
}

static void on_start(void *ctx, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri, int namespaces,
                     const xmlChar **namespace, int attributes, int defaulted, const xmlChar **attribute)
{
    xmlParserCtxt *p = ctx;
    struct watch *w = p->_private;
    if (++w->depth > SETTINGS_XML_MAX_DEPTH) {
        w->deep = true;
        xmlStopParser(p);
    } else {
        w->start(ctx, name, prefix, uri, namespaces, namespace, attributes, defaulted, attribute);
    }
}

static void on_end(void *ctx, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri)
{
    xmlParserCtxt *p = ctx;
    struct watch *w = p->_private;
    w->depth--;
    w->end(ctx, name, prefix, uri);
}

/* Indentation would keep new elements from being indented; a value of blanks is a value. */
static void drop_blanks(xmlDoc *doc)
{
    xmlNode *root = xmlDocGetRootElement(doc);
    for (xmlNode *n = root, *next; n; n = next) {
        next = xml_walk(n, root, false);
        if (n->type == XML_TEXT_NODE && xmlIsBlankNode(n) && !(n->parent && xml_is(n->parent, "VALUE"))) {
            xmlUnlinkNode(n);
            xmlFreeNode(n);
        }
    }
}

/* What it declares has to be what it is: readers that believe the declaration would see something else. */
static int check_encoding(const char *buf, size_t len, struct hv_error *e)
{
    static const char *const fine[] = {"utf-8", "utf8", "us-ascii", "ascii", "utf-16", "utf-16le", "utf-16be", "unicode"};
    char head[256], name[64];
    size_t n = MIN(len, sizeof(head) - 1);
    memcpy(head, buf, n);
    head[n] = 0;
    char *end = strncmp(head, "<?xml", 5) == 0 ? strstr(head, "?>") : NULL;
    if (!end)
        return 0;
    *end = 0;
    const char *at = strstr(head, "encoding");
    if (!at || sscanf(at + 8, " = %*[\"']%63[^\"' ]", name) != 1)
        return 0;
    for (unsigned i = 0; i < ARRAY_SIZE(fine); i++)
        if (strcasecmp(name, fine[i]) == 0)
            return 0;
    hv_fail(e, HV_USAGE, "line 1", "the encoding %.40s is not accepted", name);
    hv_hint(e, "UTF-8, or UTF-16 with its byte order mark");
    return -EINVAL;
}

int xml_parse(const char *buf, size_t len, xmlDoc **ret, struct hv_error *e)
{
    struct watch w = {0};
    int r = check_encoding(buf, len, e);
    if (r < 0)
        return r;
    xmlSetGenericErrorFunc(NULL, no_output);
    xmlParserCtxt *p = xmlNewParserCtxt();
    if (!p)
        return hv_fail(e, HV_NO_RESOURCES, "settings", "out of memory");
    w.start = p->sax->startElementNs;
    w.end = p->sax->endElementNs;
    p->_private = &w;
    p->sax->internalSubset = on_dtd;
    p->sax->startElementNs = on_start;
    p->sax->endElementNs = on_end;
    xmlDoc *doc = xmlCtxtReadMemory(p, buf, (int)len, NULL, "UTF-8",
                                    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NOCDATA |
                                        XML_PARSE_BIG_LINES);
    if (w.dtd) {
        r = hv_fail(e, HV_USAGE, "settings", "a document type definition is not accepted");
    } else if (w.deep) {
        r = hv_fail(e, HV_USAGE, "settings", "nested deeper than %d", SETTINGS_XML_MAX_DEPTH);
    } else if (!doc) {
        const xmlError *x = xmlCtxtGetLastError(p);
        char place[32] = "settings";
        if (x && x->line > 0)
            snprintf(place, sizeof(place), "line %d", x->line);
        r = x && x->code == XML_ERR_NO_MEMORY
                ? hv_fail(e, HV_NO_RESOURCES, place, "out of memory")
                : hv_fail(e, HV_USAGE, place, "it is no XML: %.*s",
                          x && x->message ? (int)strcspn(x->message, "\n") : 10, x && x->message ? x->message : "no element");
    }
    xmlFreeParserCtxt(p);
    if (r < 0) {
        xmlFreeDoc(doc);
        return r;
    }
    drop_blanks(doc);
    *ret = doc;
    return 0;
}
