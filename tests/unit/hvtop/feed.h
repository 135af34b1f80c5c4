/* A model that tests feed with messages, as the threads that ask services do. After cmocka.h. */
#ifndef TESTS_HVTOP_FEED_H
#define TESTS_HVTOP_FEED_H

#include "hvtop/ui.h"

#define T0 1795216800000ull

static struct model m;

/* One message, as JSON. */
static void feed(const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    json_t *o = json_loads(text, 0, NULL);
    assert_non_null(o);
    assert_int_equal(model_apply(&m, o), 0);
    json_decref(o);
}

#endif
