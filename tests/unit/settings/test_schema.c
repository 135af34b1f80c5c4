/* wmi-compat/schema, the settings table and written documents say the same of every class and property. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <libxml/parser.h>
#include <libxml/valid.h>

#include "hv/settings/xml/classes.h"
#include "hv/settings/xml/tree.h"

#define FOLDER "wmi-compat/schema/"

static xmlDoc *schema[3];              /* cim, msvm, hv: a superclass is found in any of them */
static xmlDtd *dtd;

static bool valid(xmlDoc *doc)
{
    xmlValidCtxt *v = xmlNewValidCtxt();
    bool ok = xmlValidateDtd(v, doc, dtd);
    xmlFreeValidCtxt(v);
    return ok;
}

static int setup(void **state)
{
    static const char *const files[] = { FOLDER "cim.xml", FOLDER "msvm.xml", FOLDER "hv.xml" };
    dtd = xmlParseDTD(NULL, X(FOLDER "cim.dtd"));
    for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
        schema[i] = xmlReadFile(files[i], NULL, XML_PARSE_NONET);
    return dtd && schema[0] && schema[1] && schema[2] ? 0 : -1;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(schema); i++)
        xmlFreeDoc(schema[i]);
    xmlFreeDtd(dtd);
    return 0;
}

static xmlNode *class_of(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(schema); i++) {
        xmlNode *root = xmlDocGetRootElement(schema[i]);
        for (xmlNode *n = root; n; n = xml_walk(n, root, false))
            if (xml_is(n, "CLASS") && xml_attr_is(n, "NAME", name))
                return n;
    }
    return NULL;
}

/* The declaration of a property, in the class or in what it derives from. */
static xmlNode *property_of(const char *cls, const char *name)
{
    char at[128];
    unsigned depth = 0;
    snprintf(at, sizeof(at), "%s", cls);
    for (xmlNode *c = class_of(at); c; c = class_of(at)) {
        for (xmlNode *p = c->children; p; p = p->next)
            if ((xml_is(p, "PROPERTY") || xml_is(p, "PROPERTY.ARRAY")) && xml_attr_is(p, "NAME", name))
                return p;
        xmlChar *super = xmlGetProp(c, X("SUPERCLASS"));
        if (!super)
            break;
        snprintf(at, sizeof(at), "%s", (const char *)super);
        xmlFree(super);
        assert_true(++depth < 10);
        assert_non_null(class_of(at));
    }
    return NULL;
}

static void check_property(const char *cls, const char *name, const char *type, bool array)
{
    xmlNode *p = property_of(cls, name);
    if (!p || xml_is(p, "PROPERTY.ARRAY") != array || !xml_attr_is(p, "TYPE", type))
        fail_msg("%s.%s: not in the schema as %s%s", cls, name, type, array ? "[]" : "");
}

static void every_file_is_valid_and_no_class_is_there_twice(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(schema); i++) {
        assert_true(valid(schema[i]));
        xmlNode *root = xmlDocGetRootElement(schema[i]);
        for (xmlNode *n = root; n; n = xml_walk(n, root, false)) {
            if (!xml_is(n, "CLASS"))
                continue;
            xmlChar *name = xmlGetProp(n, X("NAME")), *super = xmlGetProp(n, X("SUPERCLASS"));
            assert_ptr_equal(class_of((const char *)name), n);
            if (super)
                assert_non_null(class_of((const char *)super));
            /* Companions stand beside Hyper-V's classes, never below them. */
            if (i == 2 && super)
                assert_true(strncmp((const char *)super, "CIM_", 4) == 0);
            xmlFree(name);
            xmlFree(super);
        }
    }
}

static void every_setting_and_constant_is_declared(void **state)
{
    for (const struct setting_desc *d = setting_table; d < setting_table + SETTING_COUNT; d++) {
        char cls[64], name[64], type[16];
        assert_int_equal(sscanf(d->wmi, "%63[^.].%63[^:]:%15[a-z0-9]", cls, name, type), 3);
        check_property(cls, name, type, strstr(d->wmi, "[]") != NULL);
    }
    for (const struct xml_class *c = xml_classes; c->name; c++)
        for (const struct xml_const *k = c->constant; k->name; k++)
            check_property(c->name, k->name, k->type, false);
}

static void what_is_written_is_declared(void **state)
{
    struct settings s;
    struct guid id = {{9}};
    struct setting_disk disk = {.lun = 3, .path = (char *)(uintptr_t)"/d.vhdx", .format = SET_FORMAT_VHDX, .max_iops = 7};
    struct setting_disk drive = {.lun = 5, .dvd = true};
    char *xml = NULL;
    unsigned seen = 0;
    settings_init(&s);
    assert_int_equal(setting_set_string(&s, setting_find("notes"), "x"), 0);
    assert_int_equal(settings_disk_put(&s, &disk), 0);
    assert_int_equal(settings_disk_put(&s, &drive), 0);
    assert_int_equal(settings_xml_write(&s, &id, "web", NULL, &xml, NULL), 0);
    xmlDoc *doc = xmlReadMemory(xml, (int)strlen(xml), NULL, NULL, XML_PARSE_NONET);
    assert_non_null(doc);
    assert_true(valid(doc));
    xmlNode *root = xmlDocGetRootElement(doc);
    for (xmlNode *n = root; n; n = xml_walk(n, root, false)) {
        if (!xml_is(n, "PROPERTY") && !xml_is(n, "PROPERTY.ARRAY"))
            continue;
        xmlChar *cls = xmlGetProp(n->parent, X("CLASSNAME")), *name = xmlGetProp(n, X("NAME")), *type = xmlGetProp(n, X("TYPE"));
        check_property((const char *)cls, (const char *)name, (const char *)type, xml_is(n, "PROPERTY.ARRAY"));
        xmlFree(cls);
        xmlFree(name);
        xmlFree(type);
        seen++;
    }
    assert_true(seen >= SETTING_COUNT);
    xmlFreeDoc(doc);
    free(xml);
    settings_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file_is_valid_and_no_class_is_there_twice),
        cmocka_unit_test(every_setting_and_constant_is_declared),
        cmocka_unit_test(what_is_written_is_declared),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
