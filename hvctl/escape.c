/* The escape key of the console. */
#include "hvctl/escape.h"

static bool press(struct escape *e, uint64_t now_ns)
{
    if (!e->presses || now_ns - e->first_ns > ESCAPE_WINDOW_NS) {
        e->presses = 0;
        e->first_ns = now_ns;
    }
    return ++e->presses >= 3;
}

enum escape_act escape_feed(struct escape *e, unsigned char byte, uint64_t now_ns)
{
    static const struct { unsigned char key; enum escape_act act; bool stays; } keys[] = {
        {'q', ESCAPE_DETACH, false}, {']', ESCAPE_SEND_KEY, false}, {'?', ESCAPE_HELP, true},
        {'l', ESCAPE_LOG, false},    {'r', ESCAPE_RESIZE, false},   {'b', ESCAPE_LATER, true},
        {'s', ESCAPE_LATER, true},
    };

    if (!e->key) {
        return ESCAPE_PASS;
    }
    if (byte == e->key) {
        if (press(e, now_ns)) {
            return ESCAPE_DETACH;
        }
        bool was_open = e->open;
        e->open = true;
        return was_open ? ESCAPE_KEEP : ESCAPE_OPEN;
    }
    if (!e->open) {
        return ESCAPE_PASS;
    }
    e->presses = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        if (byte == keys[i].key) {
            e->open = keys[i].stays;
            return keys[i].act;
        }
    }
    e->open = false;
    return ESCAPE_CLOSE;
}
