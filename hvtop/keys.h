/* One table: which key does what where, and what help and the footer say of it. */
#ifndef HVTOP_KEYS_H
#define HVTOP_KEYS_H

#include "hv/base/base.h"

/* Keys are code points; those without one: */
enum {
    TOP_KEY_NONE = 0,
    TOP_KEY_TAB = 9, TOP_KEY_ENTER = 13, TOP_KEY_ESC = 27, TOP_KEY_BACKSPACE = 127,
    TOP_KEY_UP = 0x200000, TOP_KEY_DOWN, TOP_KEY_LEFT, TOP_KEY_RIGHT, TOP_KEY_PAGE_UP, TOP_KEY_PAGE_DOWN,
    TOP_KEY_HOME, TOP_KEY_END, TOP_KEY_BACK_TAB, TOP_KEY_DELETE, TOP_KEY_F1,
};

#define TOP_ACTIONS(X) \
    X(NONE) X(UP) X(DOWN) X(PAGE_UP) X(PAGE_DOWN) X(FIRST) X(LAST) X(OPEN) X(BACK) \
    X(SCREEN_MEMORY) X(SCREEN_CPU) X(SCREEN_DISK) X(SCREEN_NET) X(SCREEN_HOST) X(SCREEN_EVENTS) \
    X(NEXT_SCREEN) X(PREV_SCREEN) X(FILTER) X(SORT) X(SORT_LEFT) X(SORT_RIGHT) X(REVERSE) X(COLUMNS) \
    X(SAVE) X(TREE) X(MARK) X(UNMARK) X(DELAY) X(PAUSE) X(SAMPLE) X(MEMORY) X(START) X(STOP) X(RESTART) \
    X(CONSOLE) X(EDIT) X(COMMAND) X(SPAN) X(LEFT) X(RIGHT) X(LIVE) X(FOLD) X(HELP) X(QUIT) \
    X(PLAY) X(SLOWER) X(FASTER) X(JUMP) X(NEXT_EVENT) X(LATER)
enum top_action {
#define TOP_ACTION_ENUM(id) TOP_##id,
    TOP_ACTIONS(TOP_ACTION_ENUM)
#undef TOP_ACTION_ENUM
    TOP_ACTION_COUNT
};

/* Where a binding holds. */
enum {
    TOP_ON_TABLE = 1, TOP_ON_DETAIL = 2, TOP_ON_LIST = 4,       /* LIST: host and events */
    TOP_ON_ALL = 7,
    TOP_ONLY_LIVE = 8, TOP_ONLY_REPLAY = 16,
    TOP_CHANGES = 32,            /* off under --read-only and in a replay */
};

struct top_binding {
    int key;
    enum top_action action;
    unsigned where;
    const char *shown;           /* "Enter"; NULL: as the binding before */
    const char *help;            /* one line; NULL: not in the help (another key of the same action) */
    const char *foot;            /* in the footer: "detail"; NULL: not there */
};
extern const struct top_binding top_bindings[];      /* ends with action TOP_NONE */

/* What a key does on a screen (one of TOP_ON_*); TOP_NONE if nothing. */
const struct top_binding *top_binding_find(int key, unsigned screen, bool replay);

#endif
