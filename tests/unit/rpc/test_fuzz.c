/* The fuzz target of varlink with a fixed seed: good conversations, damaged in every way. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fuzz/fuzz_varlink.c"

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % below;
}

/* N stands for the NUL that ends a message. */
static const char *const corpus[3][3] = {
    {
        "interface a.b\ntype T (a: ?int, b: []T, c: [string]string)\nmethod M(x: T) -> (y: (one, two))\nerror E ()",
        "# c\ninterface org.x-1.y\nmethod M() -> ()\ntype Q (o: object, a: any, f: float)",
        "interface a.b type E (one, two) error X (a: E, b: bool)",
    },
    {
        "9{\"method\":\"org.hv.Fuzz.Echo\",\"parameters\":{\"a\":[1,\"x\",{\"y\":null}]}}N{\"method\":\"org.hv.Fuzz.Drop\"}N",
        "2{\"method\":\"org.hv.Fuzz.More\",\"parameters\":{\"n\":7},\"more\":true}N{\"method\":\"org.varlink.service.GetInfo\"}N",
        "0{\"method\":\"org.hv.Fuzz.Plant\",\"parameters\":{\"t\":{\"v\":1,\"t\":[{\"v\":2,\"t\":[]}]}},\"oneway\":true}N"
        "{\"method\":\"org.hv.Fuzz.Fd\"}N",
    },
    {
        "{\"parameters\":{\"version\":1,\"build\":\"x\",\"vm\":\"web1\",\"id\":\"i\",\"pid\":5,\"state\":\"off\"}}N"
        "{\"parameters\":{\"state\":\"running\",\"runtime\":{}},\"continues\":true}N{\"parameters\":{\"state\":\"off\",\"runtime\":{}}}N",
        "{\"error\":\"org.hv.Worker.Failed\",\"parameters\":{\"code\":\"conflict\",\"object\":\"\",\"message\":\"m\",\"hint\":\"\"}}N",
        "{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{\"method\":\"x\"}}N{}N{\"continues\":true}N",
    },
};

static void conversation(unsigned kind)
{
    const char *text = corpus[kind][rnd(3)];
    uint8_t buf[600];
    size_t len = strlen(text);

    hv_assert(len < sizeof(buf) - 1);
    buf[0] = (uint8_t)kind;
    for (size_t i = 0; i < len; i++) {
        buf[i + 1] = (uint8_t)(text[i] == 'N' && kind ? '\0' : text[i]);
    }
    len++;
    for (unsigned k = rnd(4); k > 0; k--) {
        static const char signs[] = "{}[]\",:\\?()#0-1.e tn";
        size_t at = 1 + rnd((uint32_t)len - 1);
        switch (rnd(4)) {
        case 0: buf[at] = (uint8_t)rnd(256); break;
        case 1: buf[at] = (uint8_t)signs[rnd(sizeof(signs))]; break;
        case 2:
            memmove(buf + at, buf + at + 1, len - at - 1);
            len--;
            break;
        default: len = at + 1; break;
        }
        if (len < 3) {
            break;
        }
    }
    LLVMFuzzerTestOneInput(buf, len);
}

static void damaged_texts(void **state)
{
    for (unsigned i = 0; i < 20000; i++) {
        conversation(0);
    }
}

static void damaged_calls(void **state)
{
    for (unsigned i = 0; i < 1500; i++) {
        conversation(1);
    }
}

static void damaged_replies(void **state)
{
    for (unsigned i = 0; i < 2500; i++) {
        conversation(2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_texts),
        cmocka_unit_test(damaged_calls),
        cmocka_unit_test(damaged_replies),
    };
    return cmocka_run_group_tests_name("rpc/fuzz", tests, NULL, NULL);
}
