/* Interface texts: the grammar, what is refused, and checks of values against them. */
#include "hv/rpc/varlink.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include "hv/base/fault.h"
#include "hv/base/strbuf.h"
#include "hv/rpc/idl.h"

/* ---- texts ---- */

static void built_in_texts_parse(void **state)
{
    static const struct { const char *text, *name, *method; } rows[] = {
        { org_hv_Manager_varlink, "org.hv.Manager", "Create" },
        { org_hv_Worker_varlink, "org.hv.Worker", "Setup" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct hv_error e = { 0 };
        struct varlink_idl *idl;
        if (varlink_idl_parse(rows[i].text, &idl, &e) < 0) {
            fail_msg("%s: %s", rows[i].name, e.message);
        }
        assert_string_equal(idl->name, rows[i].name);
        assert_non_null(idl_find(idl, IDL_DECL_METHOD, rows[i].method));
        /* every interface of ours has the one error, with these members and no other */
        const struct idl_decl *d = idl_find(idl, IDL_DECL_ERROR, "Failed");
        assert_non_null(d);
        static const char *const members[] = { "code", "object", "message", "hint" };
        const struct idl_member *m = d->in->members;
        for (unsigned k = 0; k < ARRAY_SIZE(members); k++, m = m->next) {
            assert_non_null(m);
            assert_string_equal(m->name, members[k]);
            assert_int_equal(m->type->kind, IDL_STRING);
        }
        assert_null(m);
        varlink_idl_free(idl);
        assert_non_null(idl_known(rows[i].name, strlen(rows[i].name)));
    }
    assert_null(idl_known("org.hv.Manage", 13));
    assert_null(idl_known("org.hv.Manager2", 15));
}

/* The embedded text is the file, byte for byte: the build's sed must not lose a quote or a backslash. */
static void built_in_texts_are_the_files(void **state)
{
    static const struct { const char *path, *text; } rows[] = {
        { "hv/rpc/org.hv.Manager.varlink", org_hv_Manager_varlink },
        { "hv/rpc/org.hv.Worker.varlink", org_hv_Worker_varlink },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        char *text;
        if (hv_read_file(rows[i].path, MIB, &text, NULL) < 0) {
            skip();                                  /* not run from the top of the tree */
        }
        assert_string_equal(text, rows[i].text);
        free(text);
    }
}

static void the_whole_grammar_parses(void **state)
{
    static const char text[] =
        "# leading comment\n"
        "interface org.example-1.more.x9#comment right behind\n"
        "type Empty ()\n"
        "type E (one, two_2, three)\r\n"
        "\ttype S (a:bool,b:int,c:float,d:string,e:object,f:any,\n"
        "  g: ?int, h: []int, i: [string]int, j: ?[]?[string]?E, k: [][]S, # in between\n"
        "  l: (x: int, y: (p, q)), m: (on, off), n: ?(z: [](w: int)))\n"
        "method M() -> ()\n"
        "method Later(x: S) -> (y: ?Empty)\n"
        "error Bad (why: string)\n"
        "error None ()";
    struct varlink_idl *idl;
    struct hv_error e = { 0 };

    if (varlink_idl_parse(text, &idl, &e) < 0) {
        fail_msg("%s", e.message);
    }
    assert_string_equal(idl->name, "org.example-1.more.x9");
    assert_string_equal(idl->text, text);
    assert_non_null(idl_find(idl, IDL_DECL_TYPE, "E"));
    assert_int_equal(idl_find(idl, IDL_DECL_TYPE, "E")->in->kind, IDL_ENUM);
    assert_null(idl_find(idl, IDL_DECL_METHOD, "E"));
    varlink_idl_free(idl);
}

static void bad_texts_are_refused_with_their_line(void **state)
{
#define I "interface a.b\n"
    static const struct { const char *text, *message; } rows[] = {
        { "", "line 1: the text does not begin with 'interface'" },
        { "# only a comment", "line 1: the text does not begin with 'interface'" },
        { "interface", "line 1: '' is no name of an interface" },
        { "interface org", "line 1: 'org' is no name of an interface" },
        { "interface .a.b", "line 1: '.a.b' is no name of an interface" },
        { "interface a..b", "line 1: 'a..b' is no name of an interface" },
        { "interface a.b.", "line 1: 'a.b.' is no name of an interface" },
        { "interface 1.b", "line 1: '1.b' is no name of an interface" },
        { "interface a.-b", "line 1: 'a.-b' is no name of an interface" },
        { "interface a.b-", "line 1: 'a.b-' is no name of an interface" },
        { I "metod M() -> ()", "line 2: 'metod' is neither type nor method nor error" },
        { I "\n\n)", "line 4: type, method or error is missing" },
        { I "method m() -> ()", "line 2: 'm' is no name of a method" },
        { I "method M_x() -> ()", "line 2: 'M_x' is no name of a method" },
        { I "method M()", "line 2: '->' is missing" },
        { I "method M() -> ", "line 2: '(' is missing" },
        { I "method M(a) -> ()", "line 2: a struct is needed here" },
        { I "error E (a, b)", "line 2: a struct is needed here" },
        { I "type T", "line 2: '(' is missing" },
        { I "type T (", "line 2: '' is no name of a member" },
        { I "type T (a: int", "line 2: ')' is missing" },
        { I "type T (a: int,)", "line 2: '' is no name of a member" },
        { I "type T (a: int, b)", "line 2: ':' is missing" },
        { I "type T (a, b: int)", "line 2: ')' is missing" },
        { I "type T (a: int, a: int)", "line 2: member a is declared twice" },
        { I "type T (a, a)", "line 2: member a is declared twice" },
        { I "type T (_a: int)", "line 2: '_a' is no name of a member" },
        { I "type T (a_: int)", "line 2: 'a_' is no name of a member" },
        { I "type T (a__b: int)", "line 2: 'a__b' is no name of a member" },
        { I "type T (1: int)", "line 2: '1' is no name of a member" },
        { I "type T (a: )", "line 2: a type is missing" },
        { I "type T (a: integer)", "line 2: 'integer' is no type" },
        { I "type T (a: ??int)", "line 2: '?' of '?'" },
        { I "type T (a: [int]int)", "line 2: ']' is missing" },
        { I "type T (a: [string int)", "line 2: ']' is missing" },
        { I "type T (a: Other)", "type Other is not declared" },
        { I "method M() -> ()\ntype T (a: M)", "type M is not declared" },
        { I "type T ()\nmethod T() -> ()", "line 3: T is declared twice" },
        { I "type T (a: [][][][][][][][][][][][][][][][][]int)", "line 2: types are nested too deep" },
        { I "type T (a: (a: (a: (a: (a: (a: (a: (a: (a: (a: (a: (a: (a: (a: (a: (a: (a: (a: int"
            "))))))))))))))))))", "line 2: types are nested too deep" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct varlink_idl *idl = NULL;
        struct hv_error e = { 0 };
        int r = varlink_idl_parse(rows[i].text, &idl, &e);
        if (r != -EINVAL || !strstr(e.message, rows[i].message)) {
            fail_msg("%s: %d '%s'", rows[i].text, r, e.message);
        }
        assert_null(idl);
    }
}

static void every_cut_of_a_text_is_handled(void **state)
{
    size_t len = strlen(org_hv_Manager_varlink);
    unsigned good = 0;

    for (size_t n = 0; n < len; n += n < 2000 ? 1 : 7) {
        struct varlink_idl *idl;
        char *cut = malloc(n + 1);                   /* exact size: ASan sees a read too far */
        memcpy(cut, org_hv_Manager_varlink, n);
        cut[n] = '\0';
        if (varlink_idl_parse(cut, &idl, NULL) == 0) {
            good++;
            varlink_idl_free(idl);
        }
        free(cut);
    }
    assert_true(good > 0 && good < len / 2);
}

static void long_names_and_texts_are_refused(void **state)
{
    strbuf_auto sb = { 0 };
    struct varlink_idl *idl;
    struct hv_error e = { 0 };

    strbuf_adds(&sb, "interface a.b\ntype T (");
    for (unsigned i = 0; i < 300; i++) {
        strbuf_addc(&sb, 'x');
    }
    strbuf_adds(&sb, ": int)");
    assert_int_equal(varlink_idl_parse(sb.buf, &idl, &e), -EINVAL);
    assert_non_null(strstr(e.message, "longer than 255"));
    strbuf_reset(&sb);
    while (sb.len < 2 * MIB) {
        strbuf_adds(&sb, "# a comment line that goes on and on\n");
    }
    assert_int_equal(varlink_idl_parse(sb.buf, &idl, &e), -EINVAL);
    assert_non_null(strstr(e.message, "the text is longer"));
}

static void every_failed_allocation_is_reported(void **state)
{
    for (uint64_t n = 1;; n++) {
        struct varlink_idl *idl = NULL;
        struct hv_error e = { 0 };
        fault_arm(FAULT_ALLOC, n, ENOMEM);
        int r = varlink_idl_parse(org_hv_Worker_varlink, &idl, &e);
        bool fired = fault_calls(FAULT_ALLOC) >= n;
        fault_arm(FAULT_ALLOC, 0, 0);
        if (!fired) {
            assert_int_equal(r, 0);
            assert_true(n > 50);
            varlink_idl_free(idl);
            break;
        }
        assert_int_equal(r, -ENOMEM);
        assert_int_equal(e.code, HV_NO_RESOURCES);
    }
}

/* ---- values ---- */

static const char types[] =
    "interface a.b\n"
    "type En (one, two)\n"
    "type Tree (name: string, kids: []Tree)\n"
    "method B(v: bool) -> ()\n"
    "method I(v: int) -> ()\n"
    "method F(v: float) -> ()\n"
    "method S(v: string) -> ()\n"
    "method O(v: object) -> ()\n"
    "method A(v: any) -> ()\n"
    "method N(v: ?int) -> ()\n"
    "method L(v: []int) -> ()\n"
    "method M(v: [string]int) -> ()\n"
    "method E(v: En) -> ()\n"
    "method T(v: Tree) -> ()\n"
    "method Q(v: ?[]?[string]?int) -> ()\n"
    "method X(v: [][]any) -> (w: int)\n";

static void values_are_checked(void **state)
{
    static const struct { const char *method, *json, *object, *message; } rows[] = {
        { "B", "{\"v\":true}" }, { "B", "{\"v\":0}", "v", "must be true or false" },
        { "I", "{\"v\":-9223372036854775808}" }, { "I", "{\"v\":1.0}", "v", "must be a whole number" },
        { "I", "{\"v\":\"1\"}", "v", "must be a whole number" },
        { "F", "{\"v\":1}" }, { "F", "{\"v\":1.5}" }, { "F", "{\"v\":true}", "v", "must be a number" },
        { "S", "{\"v\":\"\"}" }, { "S", "{\"v\":null}", "v", "must be a string" },
        { "O", "{\"v\":{\"x\":[1]}}" }, { "O", "{\"v\":[]}", "v", "must be an object" },
        { "O", "{\"v\":null}", "v", "must be an object" },
        { "A", "{\"v\":null}" }, { "A", "{\"v\":[{}]}" }, { "A", "{\"v\":3}" }, { "A", "{}", "v", "is missing" },
        { "N", "{}" }, { "N", "{\"v\":null}" }, { "N", "{\"v\":3}" }, { "N", "{\"v\":\"\"}", "v", "must be a whole number" },
        { "L", "{\"v\":[]}" }, { "L", "{\"v\":[1,2]}" }, { "L", "{\"v\":[1,null]}", "v[1]", "must be a whole number" },
        { "L", "{\"v\":{}}", "v", "must be an array" },
        { "M", "{\"v\":{}}" }, { "M", "{\"v\":{\"x\":1}}" }, { "M", "{\"v\":{\"x\":\"\"}}", "v.x", "must be a whole number" },
        { "M", "{\"v\":[]}", "v", "must be an object" },
        { "E", "{\"v\":\"two\"}" }, { "E", "{\"v\":\"three\"}", "v", "must be one of the declared words" },
        { "E", "{\"v\":1}", "v", "must be one of the declared words" },
        { "T", "{\"v\":{\"name\":\"a\",\"kids\":[{\"name\":\"b\",\"kids\":[]}]}}" },
        { "T", "{\"v\":{\"name\":\"a\",\"kids\":[{\"name\":\"b\"}]}}", "v.kids[0].kids", "is missing" },
        { "T", "{\"v\":{\"name\":\"a\",\"kids\":[],\"x\":1}}", "v.x", "is not known" },
        { "Q", "{\"v\":[null,{\"a\":null,\"b\":2}]}" },
        { "Q", "{\"v\":[{\"a\":\"\"}]}", "v[0].a", "must be a whole number" },
        { "X", "{\"v\":[[1,\"a\",null],[]]}" }, { "X", "{\"v\":[1]}", "v[0]", "must be an array" },
        { "B", "{\"v\":true,\"w\":1}", "w", "is not known" },
        { "B", "[]", "parameters", "must be an object" },
    };
    struct varlink_idl *idl;

    assert_int_equal(varlink_idl_parse(types, &idl, NULL), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        json_t *v = json_loads(rows[i].json, 0, NULL);
        struct hv_error e = { 0 };
        assert_non_null(v);
        int r = varlink_idl_check(idl, rows[i].method, false, v, &e);
        if (r != (rows[i].object ? -EINVAL : 0) ||
            (rows[i].object && (strcmp(e.object, rows[i].object) != 0 || strcmp(e.message, rows[i].message) != 0))) {
            fail_msg("%s %s: %d '%s' '%s'", rows[i].method, rows[i].json, r, e.object, e.message);
        }
        json_decref(v);
    }
    varlink_idl_free(idl);
}

static void methods_are_named_with_and_without_interface(void **state)
{
    struct varlink_idl *idl;
    struct hv_error e = { 0 };
    json_t *v = json_pack("{s:i}", "w", 1), *more = json_pack("{s:i, s:i}", "w", 1, "z", 2);

    assert_int_equal(varlink_idl_parse(types, &idl, NULL), 0);
    assert_int_equal(varlink_idl_check(idl, "X", true, v, &e), 0);
    assert_int_equal(varlink_idl_check(idl, "a.b.X", true, v, &e), 0);
    assert_int_equal(varlink_idl_check(idl, "a.c.X", true, v, &e), -ENOENT);
    assert_int_equal(varlink_idl_check(idl, "Tree", true, v, &e), -ENOENT);
    assert_int_equal(varlink_idl_check(idl, "X", false, v, &e), -EINVAL);
    /* a reply of a newer service may have more, one of ours may not */
    assert_int_equal(varlink_idl_check(idl, "X", true, more, &e), -EINVAL);
    assert_int_equal(idl_check_reply(idl, "X", more, &e), 0);
    json_decref(v);
    json_decref(more);
    varlink_idl_free(idl);
}

static void recursive_values_are_bounded(void **state)
{
    struct varlink_idl *idl;
    struct hv_error e = { 0 };
    json_t *v = json_pack("{s:s, s:[]}", "name", "x", "kids");

    for (unsigned i = 0; i < 1000; i++) {
        v = json_pack("{s:s, s:[o]}", "name", "x", "kids", v);
    }
    v = json_pack("{s:o}", "v", v);
    assert_int_equal(varlink_idl_parse(types, &idl, NULL), 0);
    assert_int_equal(varlink_idl_check(idl, "T", false, v, &e), -EINVAL);
    assert_string_equal(e.message, "is nested too deep");
    json_decref(v);
    varlink_idl_free(idl);
}

/* Replies as the interface's comments describe them. */
static void examples_of_the_interfaces_fit(void **state)
{
    static const struct { const char *method; bool output; const char *json; } rows[] = {
        { "org.hv.Manager.Create", false, "{\"name\":\"web1\",\"settings\":{\"memory\":{\"startup\":1073741824},\"processor\":{\"cpus\":1}}}" },
        { "org.hv.Manager.List", false, "{}" },
        { "org.hv.Manager.List", true, "{\"vms\":[{\"name\":\"web1\",\"id\":\"x\",\"state\":\"off\",\"reason\":null,\"settings\":{},\"runtime\":{}}]}" },
        { "org.hv.Manager.Stop", false, "{\"name\":\"web1\",\"mode\":\"shutdown\",\"timeout_ms\":120000,\"then\":\"turn-off\"}" },
        { "org.hv.Manager.Start", true, "{\"job\":null}" },
        { "org.hv.Manager.Stats", true, "{\"columns\":[\"name\",\"cpu_pct\"],\"rows\":[[\"web1\",12.5],[\"db1\",null]],\"time_ms\":1}" },
        { "org.hv.Manager.Doctor", true, "{\"checks\":[{\"name\":\"kvm\",\"status\":\"ok\"}]}" },
        { "org.hv.Worker.Setup", false, "{\"name\":\"web1\",\"id\":\"x\",\"settings\":{},\"fds\":{\"kernel\":0}}" },
        { "org.hv.Worker.Watch", true, "{\"state\":\"off\",\"runtime\":{},\"exit\":{\"reason\":\"power-off\"}}" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        const char *dot = strrchr(rows[i].method, '.');
        const struct varlink_idl *idl = idl_known(rows[i].method, (size_t)(dot - rows[i].method));
        struct hv_error e = { 0 };
        json_t *v = json_loads(rows[i].json, 0, NULL);
        if (varlink_idl_check(idl, rows[i].method, rows[i].output, v, &e) < 0) {
            fail_msg("%s: %s %s", rows[i].method, e.object, e.message);
        }
        json_decref(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(built_in_texts_parse),
        cmocka_unit_test(built_in_texts_are_the_files),
        cmocka_unit_test(the_whole_grammar_parses),
        cmocka_unit_test(bad_texts_are_refused_with_their_line),
        cmocka_unit_test(every_cut_of_a_text_is_handled),
        cmocka_unit_test(long_names_and_texts_are_refused),
        cmocka_unit_test(every_failed_allocation_is_reported),
        cmocka_unit_test(values_are_checked),
        cmocka_unit_test(methods_are_named_with_and_without_interface),
        cmocka_unit_test(recursive_values_are_bounded),
        cmocka_unit_test(examples_of_the_interfaces_fit),
    };
    return cmocka_run_group_tests_name("rpc/idl", tests, NULL, NULL);
}
