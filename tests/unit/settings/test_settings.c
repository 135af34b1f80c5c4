/* The settings table, its JSON and its XML. */
#include "hv/settings/settings.h"
#include "hv/settings/xml/classes.h"
#include "hv/settings/xml/xml.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

static void every_row_is_consistent(void **state)
{
    for (unsigned i = 0; i < SETTING_COUNT; i++) {
        const struct setting_desc *d = &setting_table[i];
        assert_ptr_equal(setting_find(d->name), d);
        assert_true(d->help[0] != 0);
        assert_int_equal(d->type == SETTING_ENUM, setting_names(d) != NULL);
        if (d->type == SETTING_ENUM) {
            unsigned n = 0;
            while (setting_names(d)[n])
                n++;
            assert_int_equal(n, d->max + 1);
        }
        if (d->type != SETTING_TEXT && d->type != SETTING_PATH) {
            assert_true(d->def >= d->min && d->def <= d->max);
        }
        for (unsigned j = 0; j < i; j++) {
            assert_string_not_equal(setting_table[j].name, d->name);
            assert_string_not_equal(setting_table[j].wmi, d->wmi);
        }
        char cls[64];
        snprintf(cls, sizeof(cls), "%.*s", (int)strcspn(d->wmi, "."), d->wmi);
        bool known = false;
        for (const struct xml_class *c = xml_classes; c->name; c++)
            known |= strcmp(c->name, cls) == 0;
        assert_true(known);
        /* a value of Hyper-V's own enumeration needs its numbers */
        if (d->type == SETTING_ENUM && strncmp(cls, "Msvm_", 5) == 0) {
            bool mapped = false;
            for (unsigned k = 0; k < xml_enum_count; k++)
                mapped |= xml_enums[k].id == i;
            assert_true(mapped);
        }
    }
}

static json_t *parse(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    return j;
}

static int overlay(struct settings *s, const char *text, struct hv_error *e)
{
    json_t *j = parse(text);
    int r = settings_from_json(s, j, e);
    json_decref(j);
    return r;
}

static void json_overlays_and_reports(void **state)
{
    struct settings s;
    struct hv_error e = {0};
    settings_init(&s);
    assert_int_equal(s.memory.startup, 1 * GIB);
    assert_int_equal(overlay(&s, "{\"memory\":{\"startup\":\"512M\",\"dynamic\":true},\"processor\":{\"cpus\":2},"
                                 "\"boot\":{\"kernel\":\"/k\"},\"notes\":\"a\"}", &e), 0);
    assert_int_equal(s.memory.startup, 512 * MIB);
    assert_true(s.memory.dynamic);
    assert_int_equal(s.processor.cpus, 2);
    assert_string_equal(s.boot.kernel, "/k");

    static const struct { const char *json, *object, *says; } wrong[] = {
        {"{\"memory\":{\"startup\":\"512\"}}", "memory.startup", "unit"},
        {"{\"memory\":{\"startup\":1048577}}", "memory.startup", "multiple of 2M"},
        {"{\"memory\":{\"startup\":\"16M\"}}", "memory.startup", "outside"},
        {"{\"memory\":{\"startup\":-1}}", "memory.startup", "whole number"},
        {"{\"memory\":{\"sturtap\":1}}", "sturtap", "no setting 'memory.sturtap'"},
        {"{\"memory\":1}", "memory", "no setting"},
        {"{\"processor\":{\"cpus\":0}}", "processor.cpus", "outside 1 to 64"},
        {"{\"boot\":{\"kernel\":\"k\"}}", "boot.kernel", "absolute"},
        {"{\"engine\":\"tcg\"}", "engine", "none of its values"},
        {"{\"lock\":\"on\"}", "lock", "true or false"},
        {"{\"notes\":\"a\\u0001b\"}", "notes", "control character"},
        {"{\"notes\":\"\\uffff\"}", "notes", "control character"},
        {"{\"boot\":{\"kernel\":\"/a\\u001b\"}}", "boot.kernel", "control character"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(overlay(&s, wrong[i].json, &e), -EINVAL);
        assert_int_equal(e.code, HV_USAGE);
        assert_non_null(strstr(e.object, wrong[i].object));
        assert_non_null(strstr(e.message, wrong[i].says));
        assert_int_equal(s.memory.startup, 512 * MIB);      /* unchanged */
    }
    assert_int_equal(overlay(&s, "{\"memory\":{\"startup\":null},\"notes\":null}", &e), 0);
    assert_int_equal(s.memory.startup, 1 * GIB);
    assert_null(s.notes);
    settings_fini(&s);
}

static void fields_are_checked_against_each_other(void **state)
{
    struct settings s;
    struct hv_error e = {0};
    settings_init(&s);
    s.memory.dynamic = true;
    s.memory.startup = 4 * GIB;
    s.memory.max = 3 * GIB;
    assert_true(settings_check(&s, "db1", &e) < 0);
    assert_string_equal(e.object, "db1");
    assert_string_equal(e.message, "maximum 3.0G is less than the startup memory 4.0G");
    assert_string_equal(e.hint, "hvctl memory set db1 --startup 3G --max 3G");
    s.memory.max = 8 * GIB;
    s.memory.min = 5 * GIB;
    assert_true(settings_check(&s, "db1", &e) < 0);
    s.memory.dynamic = false;
    assert_int_equal(settings_check(&s, "db1", &e), 0);
    s.boot.initrd = hv_strdup("/i");
    assert_true(settings_check(&s, "db1", &e) < 0);
    settings_fini(&s);
}

static void assert_same(const struct settings *a, const struct settings *b)
{
    for (unsigned i = 0; i < SETTING_COUNT; i++)
        if (!setting_equal(a, b, &setting_table[i]))
            fail_msg("%s differs", setting_table[i].name);
}

static void fill(struct settings *s)
{
    struct hv_error e = {0};
    settings_init(s);
    assert_int_equal(overlay(s, "{\"notes\":\"a <b> & \\\"c\\\"\\nd\",\"engine\":\"soft\",\"lock\":true,"
        "\"on_start\":\"resume\",\"on_stop\":\"turn-off\",\"memory\":{\"dynamic\":true,\"startup\":\"768M\",\"min\":\"256M\","
        "\"max\":\"6G\",\"buffer_pct\":35,\"priority\":80,\"smart_paging\":\"none\"},\"processor\":{\"cpus\":3},\"boot\":{\"kernel\":\"/b/vm\","
        "\"initrd\":\"/b/i\",\"cmdline\":\"console=ttyS0 a=\\\"x y\\\"\",\"on_reboot\":\"off\"}}", &e), 0);
}

static void json_round_trip(void **state)
{
    struct settings a, b;
    struct hv_error e = {0};
    fill(&a);
    settings_init(&b);
    json_t *j = settings_to_json(&a);
    assert_int_equal(settings_from_json(&b, j, &e), 0);
    json_decref(j);
    assert_same(&a, &b);
    settings_fini(&a);
    settings_fini(&b);
}

static void text_round_trip(void **state)
{
    struct settings a, b;
    struct hv_error e = {0};
    fill(&a);
    settings_init(&b);
    for (unsigned i = 0; i < SETTING_COUNT; i++) {
        char *t = setting_get_text(&a, &setting_table[i]);
        assert_int_equal(setting_set_text(&b, &setting_table[i], t ? t : "default", &e), 0);
        free(t);
    }
    assert_same(&a, &b);
    settings_fini(&a);
    settings_fini(&b);
}

static void xml_round_trip(void **state)
{
    struct settings a, b;
    struct hv_error e = {0};
    struct guid id, id2;
    char name[128], *xml = NULL, *again = NULL;
    size_t len = 0, len2 = 0;
    fill(&a);
    settings_init(&b);
    assert_int_equal(guid_new(&id), 0);
    assert_int_equal(settings_xml_write(&a, &id, "web <1>", NULL, &xml, &len), 0);
    assert_non_null(strstr(xml, "<PROPERTY NAME=\"VirtualQuantity\" TYPE=\"uint64\">"));
    assert_non_null(strstr(xml, "<VALUE>768</VALUE>"));
    assert_non_null(strstr(xml, "<VALUE>8000</VALUE>"));          /* priority 80 is weight 8000 */
    struct settings_doc *doc = NULL;
    assert_int_equal(settings_xml_read(xml, len, &b, &id2, name, sizeof(name), &doc, &e), 0);
    assert_true(guid_equal(&id, &id2));
    assert_string_equal(name, "web <1>");
    assert_same(&a, &b);
    assert_int_equal(settings_xml_write(&b, &id, name, doc, &again, &len2), 0);
    assert_int_equal(len, len2);
    assert_string_equal(xml, again);
    settings_doc_free(doc);
    free(xml);
    free(again);
    settings_fini(&a);
    settings_fini(&b);
}

static const char foreign[] =
    "<?xml version=\"1.0\"?>\n<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><DECLARATION><DECLGROUP>\n"
    "<VALUE.OBJECT><INSTANCE CLASSNAME=\"Msvm_ComputerSystem\">\n"
    "<PROPERTY NAME=\"Name\" TYPE=\"string\"><VALUE>0B0F7C1E-6F0A-4C57-9A4B-52D1E5A7C0D2</VALUE></PROPERTY>\n"
    "<PROPERTY NAME=\"ElementName\" TYPE=\"string\"><VALUE>old</VALUE></PROPERTY></INSTANCE></VALUE.OBJECT>\n"
    "<VALUE.OBJECT><INSTANCE CLASSNAME=\"Msvm_MemorySettingData\">\n"
    "<PROPERTY NAME=\"virtualquantity\" TYPE=\"uint64\"><VALUE>%s</VALUE></PROPERTY>\n"
    "<PROPERTY NAME=\"SgxSize\" TYPE=\"uint64\"><VALUE>7</VALUE></PROPERTY></INSTANCE></VALUE.OBJECT>\n"
    "<VALUE.OBJECT><INSTANCE CLASSNAME=\"Msvm_FutureThing\"><PROPERTY NAME=\"A\" TYPE=\"string\"><VALUE>kept"
    "</VALUE></PROPERTY></INSTANCE></VALUE.OBJECT></DECLGROUP></DECLARATION></CIM>\n";

static int read_text(const char *xml, struct settings *s, struct settings_doc **doc, struct hv_error *e)
{
    struct guid id;
    char name[64];
    return settings_xml_read(xml, strlen(xml), s, &id, name, sizeof(name), doc, e);
}

static void what_xml_does_not_know_survives(void **state)
{
    struct settings s;
    struct hv_error e = {0};
    struct settings_doc *doc = NULL;
    struct guid id = {{1}};
    char in[2048], *out = NULL;
    settings_init(&s);
    snprintf(in, sizeof(in), foreign, "640");
    assert_int_equal(read_text(in, &s, &doc, &e), 0);
    assert_int_equal(s.memory.startup, 640 * MIB);
    s.memory.startup = 642 * MIB;
    assert_int_equal(settings_xml_write(&s, &id, "new", doc, &out, NULL), 0);
    assert_non_null(strstr(out, "SgxSize"));
    assert_non_null(strstr(out, "Msvm_FutureThing"));
    assert_non_null(strstr(out, "<VALUE>642</VALUE>"));
    assert_null(strstr(out, "<VALUE>640</VALUE>"));
    free(out);
    settings_doc_free(doc);
    settings_fini(&s);
}

/* What can be set can be read again: blanks, line ends and all. */
static void every_text_survives(void **state)
{
    static const char *const texts[] = {"", " ", "\n", "\t x \r\n", "]]>", "&#1;", "<!-- -->", "\xc2\x85\xe2\x80\xa8", "\xef\xbf\xbd",
                                        "\xf0\x9f\x98\x80", "\x7f"};
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
        struct settings a, b;
        struct hv_error e = {0};
        struct guid id = {{7}}, id2;
        char name[128], *xml = NULL, *again = NULL;
        size_t len = 0;
        struct settings_doc *doc = NULL;
        settings_init(&a);
        settings_init(&b);
        assert_true(setting_text_ok(texts[i]));
        assert_int_equal(setting_set_string(&a, setting_find("notes"), texts[i]), 0);
        assert_int_equal(settings_xml_write(&a, &id, texts[i][0] ? texts[i] : "x", NULL, &xml, &len), 0);
        assert_int_equal(settings_xml_read(xml, len, &b, &id2, name, sizeof(name), &doc, &e), 0);
        assert_string_equal(b.notes, texts[i]);
        assert_string_equal(name, texts[i][0] ? texts[i] : "x");
        assert_int_equal(settings_xml_write(&b, &id, name, doc, &again, &len), 0);
        assert_string_equal(xml, again);
        settings_doc_free(doc);
        free(xml);
        free(again);
        settings_fini(&a);
        settings_fini(&b);
    }
}

static void bad_xml_is_refused_with_the_place(void **state)
{
    struct settings s;
    struct hv_error e = {0};
    char in[2048];
    settings_init(&s);
    static const char *const values[] = {"abc", "-640", "641", "99999999999999999999", "18446744073709551615"};
    for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
        snprintf(in, sizeof(in), foreign, values[i]);
        assert_int_equal(read_text(in, &s, NULL, &e), -EINVAL);
        assert_non_null(strstr(e.object, "Msvm_MemorySettingData.VirtualQuantity"));
        assert_non_null(strstr(e.object, "line 7"));
        assert_int_equal(s.memory.startup, 1 * GIB);
    }
    assert_int_equal(read_text("", &s, NULL, &e), -EINVAL);
    assert_int_equal(read_text("<CIM", &s, NULL, &e), -EINVAL);
    assert_int_equal(read_text("<CIM/>", &s, NULL, &e), -EINVAL);
    assert_int_equal(read_text("<!DOCTYPE a [<!ENTITY b \"c\">]><CIM>&b;</CIM>", &s, NULL, &e), -EINVAL);
    assert_non_null(strstr(e.message, "document type"));

    char deep[1200] = "";
    size_t n = 0;
    for (unsigned i = 0; i < 100; i++)
        n += (size_t)snprintf(deep + n, sizeof(deep) - n, "<a>");
    for (unsigned i = 0; i < 100; i++)
        n += (size_t)snprintf(deep + n, sizeof(deep) - n, "</a>");
    assert_int_equal(read_text(deep, &s, NULL, &e), -EINVAL);
    assert_non_null(strstr(e.message, "nested"));

    char newer[3000];
    snprintf(in, sizeof(in), foreign, "640");
    snprintf(newer, sizeof(newer), "<CIM><DECLARATION><DECLGROUP><VALUE.OBJECT><INSTANCE CLASSNAME=\"Hv_SettingsFile\">"
             "<PROPERTY NAME=\"Version\" TYPE=\"uint32\"><VALUE>2</VALUE></PROPERTY></INSTANCE></VALUE.OBJECT>"
             "</DECLGROUP></DECLARATION></CIM>");
    assert_int_equal(read_text(newer, &s, NULL, &e), -EOPNOTSUPP);
    settings_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_consistent),
        cmocka_unit_test(json_overlays_and_reports),
        cmocka_unit_test(fields_are_checked_against_each_other),
        cmocka_unit_test(json_round_trip),
        cmocka_unit_test(text_round_trip),
        cmocka_unit_test(xml_round_trip),
        cmocka_unit_test(what_xml_does_not_know_survives),
        cmocka_unit_test(every_text_survives),
        cmocka_unit_test(bad_xml_is_refused_with_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
