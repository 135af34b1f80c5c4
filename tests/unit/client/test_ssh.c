/* Addresses of other hosts: what goes to ssh is a name and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "hv/client/ssh.h"

static void addresses_are_taken_apart(void **state)
{
    static const struct { const char *url, *user, *host, *port; } t[] = {
        {"ssh://vmhost1", "", "vmhost1", ""},
        {"ssh://ann@vmhost1.lab", "ann", "vmhost1.lab", ""},
        {"ssh://ann@vmhost1:2222", "ann", "vmhost1", "2222"},
        {"ssh://[fe80::1%eth0]:22", "", "fe80::1%eth0", "22"},
        {"ssh://ann@[::1]", "ann", "::1", ""},
        {"ssh://fe80::1", "", "fe80::1", ""},
        {"ssh://a.b_c-d@h", "a.b_c-d", "h", ""},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        struct ssh_address a;
        struct hv_error e = {0};
        assert_int_equal(ssh_address_parse(t[i].url, &a, &e), 0);
        assert_string_equal(a.user, t[i].user);
        assert_string_equal(a.host, t[i].host);
        assert_string_equal(a.port, t[i].port);
    }
}

static void nothing_else_gets_through(void **state)
{
    static const char *const bad[] = {
        "ssh://", "ssh://@", "ssh://@x", "ssh://x@", "ssh://-x", "ssh://-l@x", "ssh://x@-y", "ssh://x y", "ssh://x;y",
        "ssh://x/y", "ssh://x:", "ssh://x:2b", "ssh://x:12345678", "ssh://[x", "ssh://[x]y", "ssh://[]", "ssh://[-x]",
        "ssh://$x", "ssh://`x`", "ssh://x\n", "ssh://x'", "ssh://x\\y",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct ssh_address a;
        struct hv_error e = {0};
        assert_int_equal(ssh_address_parse(bad[i], &a, &e), -EINVAL);
        assert_int_equal(e.code, HV_USAGE);
    }
    /* Too long for its field, in each of them. */
    char url[2048] = "ssh://";
    memset(url + 6, 'x', 300);
    assert_int_equal(ssh_address_parse(url, &(struct ssh_address){.port = ""}, NULL), -EINVAL);
    url[200] = '@';
    assert_int_equal(ssh_address_parse(url, &(struct ssh_address){.port = ""}, NULL), 0);
    memset(url + 6, 'x', 300);
    url[290] = '@';
    assert_int_equal(ssh_address_parse(url, &(struct ssh_address){.port = ""}, NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_taken_apart), cmocka_unit_test(nothing_else_gets_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
