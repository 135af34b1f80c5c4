/* Documents of many machines, from outside; what the settings table does not know; bytes that mean harm. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "hv/base/strbuf.h"
#include "hv/settings/xml/xml.h"

#define A "0B0F7C1E-6F0A-4C57-9A4B-52D1E5A7C0D2"
#define B "11111111-2222-3333-4444-555555555555"
#define OBJECT(cls, properties) "<VALUE.OBJECT><INSTANCE CLASSNAME=\"" cls "\">" properties "</INSTANCE></VALUE.OBJECT>"
#define P(name, type, value) "<PROPERTY NAME=\"" name "\" TYPE=\"" type "\"><VALUE>" value "</VALUE></PROPERTY>"
#define SYSTEM(id, name) OBJECT("Msvm_ComputerSystem", P("Name", "string", id) P("ElementName", "string", name))
#define MEMORY(id, limit) OBJECT("Msvm_MemorySettingData", P("InstanceID", "string", "Microsoft:" id "\\x") P("Limit", "uint64", limit))

static json_t *read_text(const char *xml, struct hv_error *e)
{
    json_t *j = NULL;
    *e = (struct hv_error){0};
    int r = settings_xml_document(xml, strlen(xml), &j, e);
    assert_int_equal(r < 0, j == NULL);
    assert_int_equal(r < 0, hv_error_is_set(e));
    return j;
}

static json_int_t limit_of(const json_t *doc, unsigned i)
{
    const json_t *vm = json_array_get(json_object_get(doc, "vms"), i);
    return json_integer_value(json_object_get(json_object_get(json_object_get(vm, "settings"), "memory"), "max"));
}

static void machines_are_told_by_their_groups_and_ids(void **state)
{
    struct hv_error e;
    /* Two groups, and one in which instances of two are mixed. */
    static const char *const texts[] = {
        "<CIM><DECLARATION><DECLGROUP>" SYSTEM(A, "a") MEMORY(A, "1024") "</DECLGROUP><DECLGROUP>" SYSTEM(B, "b") MEMORY(B, "2048")
        "</DECLGROUP></DECLARATION></CIM>",
        "<CIM>" MEMORY(A, "1024") MEMORY(B, "2048") SYSTEM(B, "b") SYSTEM(A, "a") "</CIM>",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
        json_t *j = read_text(texts[i], &e);
        assert_int_equal(json_array_size(json_object_get(j, "vms")), 2);
        assert_int_equal(limit_of(j, 0), 1024 * MIB);
        assert_int_equal(limit_of(j, 1), 2048 * MIB);
        assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(j, "vms"), 1), "name")), "b");
        json_decref(j);
    }
    assert_null(read_text("<CIM>" SYSTEM(A, "a") SYSTEM(B, "b") OBJECT("Msvm_MemorySettingData", P("Limit", "uint64", "1")) "</CIM>", &e));
    assert_non_null(strstr(e.message, "cannot be told"));
}

/* Every setting of a machine, through its own document, is given again, and nothing else is. */
static void what_was_written_is_given(void **state)
{
    struct settings s, t;
    struct hv_error e = {0};
    struct guid id = {{9}};
    char *xml = NULL;
    struct setting_disk d = {.lun = 3, .path = (char *)(uintptr_t)"/d.vhdx", .format = SET_FORMAT_VHDX, .max_iops = 7, .read_only = true};
    struct setting_disk drive = {.lun = 5, .dvd = true};
    settings_init(&s);
    s.memory.max = 3 * GIB;
    assert_int_equal(setting_set_string(&s, setting_find("notes"), " \n<&>"), 0);
    assert_int_equal(settings_disk_put(&s, &d), 0);
    assert_int_equal(settings_disk_put(&s, &drive), 0);
    assert_int_equal(settings_xml_write(&s, &id, "web", NULL, &xml, NULL), 0);
    json_t *j = read_text(xml, &e), *vm = json_array_get(json_object_get(j, "vms"), 0), *all = settings_to_json(&s);
    assert_true(json_is_true(json_object_get(vm, "whole")));
    assert_true(json_equal(json_object_get(vm, "settings"), all));
    assert_int_equal(json_array_size(json_object_get(vm, "extras")), 0);
    settings_init(&t);
    assert_int_equal(settings_from_json(&t, json_object_get(vm, "settings"), &e), 0);
    assert_true(settings_disks_equal(&s, &t));
    json_decref(all);
    json_decref(j);
    free(xml);
    settings_fini(&s);
    settings_fini(&t);
}

static const char foreign[] =
    "<CIM>" SYSTEM(A, "a")
    OBJECT("Msvm_MemorySettingData", P("InstanceID", "string", "Microsoft:" A "\\4764334d-e001-4176-82ee-5594ec9b530e")
           P("Limit", "uint64", "1024") P("SgxSize", "uint64", "7") P("ResourceType", "uint16", "4"))
    OBJECT("Msvm_VirtualSystemSettingData", P("VirtualSystemSubType", "string", "Microsoft:Hyper-V:SubType:2")
           P("InstanceID", "string", "Microsoft:" A))
    OBJECT("Msvm_X", P("InstanceID", "string", "Microsoft:" A "\\dev\\1")
           "<PROPERTY.ARRAY NAME=\"L\" TYPE=\"string\"><VALUE.ARRAY><VALUE>1</VALUE><VALUE> </VALUE></VALUE.ARRAY></PROPERTY.ARRAY>"
           "<PROPERTY NAME=\"Nothing\" TYPE=\"sint8\"/>")
    OBJECT("Msvm_Y", P("Free", "string", "&lt;x&gt;")) "</CIM>";

static const json_t *first_extras(const json_t *doc)
{
    return json_object_get(json_array_get(json_object_get(doc, "vms"), 0), "extras");
}

static void what_is_not_known_comes_back_under_another_id(void **state)
{
    struct hv_error e;
    struct settings s, t;
    struct guid id = {{3}}, got;
    char *xml = NULL, *again = NULL, name[64];
    size_t len = 0;
    struct settings_doc *doc = NULL, *kept = NULL;
    json_t *j = read_text(foreign, &e);
    const json_t *extras = first_extras(j);
    assert_int_equal(json_array_size(extras), 4);                     /* SgxSize, the sub-type, X, Y */
    assert_int_equal(settings_extras_check(extras, &e), 0);
    settings_init(&s);
    settings_init(&t);
    assert_int_equal(settings_doc_new(&s, &id, "n", extras, &doc), 0);
    assert_int_equal(settings_xml_write(&s, &id, "n", doc, &xml, &len), 0);
    assert_null(strcasestr(xml, A));
    assert_int_equal(settings_xml_read(xml, len, &t, &got, name, sizeof(name), &kept, &e), 0);
    json_t *back = settings_extras(kept);
    json_t *diff = settings_extras_diff(extras, back);
    assert_int_equal(json_array_size(diff), 0);
    assert_int_equal(settings_xml_write(&t, &id, "n", kept, &again, NULL), 0);
    assert_string_equal(xml, again);
    json_decref(diff);
    json_decref(back);
    json_decref(j);
    settings_doc_free(doc);
    settings_doc_free(kept);
    settings_fini(&s);
    settings_fini(&t);
    free(xml);
    free(again);
}

static json_t *list(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    return j;
}

static void extras_merge_and_compare(void **state)
{
    json_t *a = list("[{\"class\":\"X\",\"device\":\"\",\"properties\":[{\"name\":\"P\",\"type\":\"string\",\"array\":false,\"values\":[\"1\"]},"
                     "{\"name\":\"Q\",\"type\":\"string\",\"array\":false,\"values\":null}]}]");
    json_t *b = list("[{\"class\":\"x\",\"device\":\"\",\"properties\":[{\"name\":\"p\",\"type\":\"string\",\"array\":false,\"values\":[\"2\"]}]},"
                     "{\"class\":\"Z\",\"device\":\"d\",\"properties\":[]}]");
    json_t *all = settings_extras_merge(a, b), *diff = settings_extras_diff(a, all);
    assert_int_equal(json_array_size(all), 2);
    assert_int_equal(json_array_size(diff), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(diff, 0), "key")), "X.P");
    assert_string_equal(json_string_value(json_object_get(json_array_get(diff, 0), "old")), "1");
    assert_string_equal(json_string_value(json_object_get(json_array_get(diff, 0), "new")), "2");
    assert_string_equal(json_string_value(json_object_get(json_array_get(diff, 1), "key")), "Z");
    json_t *none = settings_extras_merge(a, NULL), *same = settings_extras_diff(a, none);
    assert_int_equal(json_array_size(same), 0);
    json_decref(a);
    json_decref(b);
    json_decref(all);
    json_decref(diff);
    json_decref(none);
    json_decref(same);
}

static void extras_that_could_not_be_stored_are_refused(void **state)
{
    static const char *const wrong[] = {
        "{}", "[{\"class\":\"\"}]", "[{\"class\":\"a b\"}]", "[{\"class\":\"9\"}]", "[{\"class\":\"a\\\"><b\"}]",
        "[{\"class\":\"X\",\"device\":\"\\u0001\"}]", "[{\"class\":\"X\",\"properties\":[{\"name\":\"\",\"type\":\"string\",\"values\":null}]}]",
        "[{\"class\":\"X\",\"properties\":[{\"name\":\"P\",\"type\":\"reference\",\"values\":null}]}]",
        "[{\"class\":\"X\",\"properties\":[{\"name\":\"P\",\"type\":\"string\"}]}]",
        "[{\"class\":\"X\",\"properties\":[{\"name\":\"P\",\"type\":\"string\",\"values\":[1]}]}]",
        "[{\"class\":\"X\",\"properties\":[{\"name\":\"P\",\"type\":\"string\",\"values\":[\"\\u0008\"]}]}]",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct hv_error e = {0};
        json_t *j = list(wrong[i]);
        assert_int_equal(settings_extras_check(j, &e), -EINVAL);
        json_decref(j);
    }
    json_t *many = json_array(), *big = list("[{\"class\":\"X\",\"properties\":[{\"name\":\"P\",\"type\":\"string\",\"values\":[\"\"]}]}]");
    struct hv_error e = {0};
    for (unsigned i = 0; i < 5000; i++)
        json_array_append_new(many, json_pack("{s:s}", "class", "X"));
    assert_int_equal(settings_extras_check(many, &e), -EINVAL);
    assert_int_equal(settings_extras_check(big, &e), 0);
    char *text = calloc(1, 70000);
    memset(text, 'x', 69999);
    json_array_set_new(json_object_get(json_array_get(json_object_get(json_array_get(big, 0), "properties"), 0), "values"), 0, json_string(text));
    assert_int_equal(settings_extras_check(big, &e), -EINVAL);
    free(text);
    json_decref(many);
    json_decref(big);
}

/* A document with bytes changed, cut out and doubled: an answer or an error, never more; and what is answered can be stored. */
static void damaged_documents(void **state)
{
    const char *runs_text = getenv("HV_FUZZ_RUNS"), *seed_text = getenv("HV_SEED");
    const unsigned runs = runs_text ? (unsigned)strtoul(runs_text, NULL, 10) : 3000;
    static const char *const words[] = {"<INSTANCE", "</INSTANCE>", "<VALUE>", "</VALUE>", "<DECLGROUP>", "</DECLGROUP>", "<!DOCTYPE a [",
                                        "]>", "&lt;", "&#0;", "&#xfffe;", "<![CDATA[", "]]>", "<!--", "<?xml version=\"1.0\" encoding=\"x\"?>",
                                        "\xef\xbf\xbf", "CLASSNAME=\"Hv_SettingsFile\"", "PROPERTY.ARRAY", "\\", "Microsoft:", "18446744073709551616"};
    struct settings s;
    struct guid id = {{1}};
    char *base = NULL;
    struct setting_disk d = {.lun = 0, .path = (char *)(uintptr_t)"/d"};
    unsigned accepted = 0;
    srandom(seed_text ? (unsigned)strtoul(seed_text, NULL, 10) : 1);
    settings_init(&s);
    assert_int_equal(settings_disk_put(&s, &d), 0);
    assert_int_equal(settings_xml_write(&s, &id, "n", NULL, &base, NULL), 0);
    for (unsigned run = 0; run < runs; run++) {
        strbuf_auto text = {0};
        struct hv_error e = {0};
        const char *from = run % 2 ? foreign : base;
        strbuf_adds(&text, from);
        for (unsigned k = 1 + (unsigned)random() % 3; k < 4; k++) {
            const size_t at = (size_t)random() % text.len, n = random() % 2 ? (size_t)random() % 40 : 0;
            strbuf_auto next = {0};
            const char *word = words[(size_t)random() % ARRAY_SIZE(words)];
            strbuf_add(&next, text.buf, at);
            switch (random() % 4) {
            case 0: strbuf_adds(&next, word); break;
            case 1: strbuf_addc(&next, (char)random()); break;
            case 2: strbuf_addc(&next, (char)('0' + random() % 10)); break;
            default: break;
            }
            if (at + n < text.len)
                strbuf_add(&next, text.buf + at + n, text.len - at - n);
            struct strbuf swap = text;
            text = next;
            next = swap;
        }
        json_t *j = NULL;
        const int r = settings_xml_document(text.buf, text.len, &j, &e);
        assert_int_equal(r < 0, hv_error_is_set(&e));
        if (r < 0)
            continue;
        accepted++;
        size_t i;
        json_t *vm;
        json_array_foreach(json_object_get(j, "vms"), i, vm) {
            struct settings t;
            struct settings_doc *doc = NULL;
            char *xml = NULL, name[500];
            size_t len = 0;
            struct guid got;
            settings_init(&t);
            if (settings_from_json(&t, json_object_get(vm, "settings"), &e) == 0 &&
                settings_extras_check(json_object_get(vm, "extras"), &e) == 0) {
                struct settings again;
                settings_init(&again);
                assert_int_equal(settings_doc_new(&t, &id, "n", json_object_get(vm, "extras"), &doc), 0);
                assert_int_equal(settings_xml_write(&t, &id, "n", doc, &xml, &len), 0);
                if (settings_xml_read(xml, len, &again, &got, name, sizeof(name), NULL, &e) < 0)
                    fail_msg("%s: %s\n%s", e.object, e.message, xml);
                settings_fini(&again);
            }
            settings_doc_free(doc);
            free(xml);
            settings_fini(&t);
        }
        json_decref(j);
    }
    printf("%u of %u accepted\n", accepted, runs);
    assert_true(accepted > runs / 20);
    free(base);
    settings_fini(&s);
}

int main(void)
{
#define T(f) cmocka_unit_test(f)
    const struct CMUnitTest tests[] = {
        T(machines_are_told_by_their_groups_and_ids), T(what_was_written_is_given), T(what_is_not_known_comes_back_under_another_id),
        T(extras_merge_and_compare), T(extras_that_could_not_be_stored_are_refused), T(damaged_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
