/* The table of keys. Order is the help's and the footer's. */
#include "hvtop/keys.h"

const struct top_binding top_bindings[] = {
    {TOP_KEY_ENTER, TOP_OPEN, TOP_ON_TABLE, "Enter", "one VM in detail", "detail"},
    {TOP_KEY_ESC, TOP_BACK, TOP_ON_ALL, "Esc", "out again; clears the filter", NULL},
    {TOP_KEY_UP, TOP_UP, TOP_ON_ALL, "up k", "move up", NULL},
    {'k', TOP_UP, TOP_ON_ALL},
    {TOP_KEY_DOWN, TOP_DOWN, TOP_ON_ALL, "down j", "move down", NULL},
    {'j', TOP_DOWN, TOP_ON_ALL},
    {TOP_KEY_PAGE_UP, TOP_PAGE_UP, TOP_ON_ALL, "PgUp PgDn", "a page", NULL},
    {TOP_KEY_PAGE_DOWN, TOP_PAGE_DOWN, TOP_ON_ALL},
    {TOP_KEY_HOME, TOP_FIRST, TOP_ON_ALL, "Home g", "first row", NULL},
    {'g', TOP_FIRST, TOP_ON_ALL},
    {TOP_KEY_END, TOP_LIVE, TOP_ON_TABLE | TOP_ON_LIST, "End G", "last row; End: back to now", NULL},
    {'G', TOP_LAST, TOP_ON_ALL},
    {'1', TOP_SCREEN_MEMORY, TOP_ON_ALL, "1 2 3 5 6", "screens: Memory, CPU, Disk, Host, Events", NULL},
    {'2', TOP_SCREEN_CPU, TOP_ON_ALL},
    {'3', TOP_SCREEN_DISK, TOP_ON_ALL},
    {'4', TOP_SCREEN_NET, TOP_ON_ALL},
    {'5', TOP_SCREEN_HOST, TOP_ON_ALL},
    {'6', TOP_SCREEN_EVENTS, TOP_ON_ALL},
    {TOP_KEY_TAB, TOP_NEXT_SCREEN, TOP_ON_ALL, "Tab", "next screen; in detail the other graph", NULL},
    {TOP_KEY_BACK_TAB, TOP_PREV_SCREEN, TOP_ON_ALL},
    {'/', TOP_FILTER, TOP_ON_TABLE | TOP_ON_LIST, "/", "filter as you type: text, or demand>2G,state=running", "filter"},
    {'s', TOP_SORT, TOP_ON_TABLE, "s", "choose what to sort by", "sort"},
    {'<', TOP_SORT_LEFT, TOP_ON_TABLE, "< >", "sort by the column to the left, right", NULL},
    {'>', TOP_SORT_RIGHT, TOP_ON_TABLE},
    {'r', TOP_REVERSE, TOP_ON_TABLE, "r", "sort the other way round", NULL},
    {'f', TOP_COLUMNS, TOP_ON_TABLE, "f", "choose columns", "columns"},
    {'w', TOP_SAVE, TOP_ON_ALL, "w", "write the layout to hvtop.conf", NULL},
    {'t', TOP_TREE, TOP_ON_TABLE, "t", "group by host, by group, not at all", NULL},
    {'#', TOP_FOLD, TOP_ON_ALL, "#", "fold the header to one line", NULL},
    {' ', TOP_MARK, TOP_ON_TABLE | TOP_ONLY_LIVE, "Space", "mark; verbs act on what is marked", NULL},
    {'u', TOP_UNMARK, TOP_ON_TABLE, "u", "unmark all", NULL},
    {TOP_KEY_LEFT, TOP_LEFT, TOP_ON_TABLE | TOP_ON_LIST, "left right", "back in time, and forward; detail: other VM", NULL},
    {TOP_KEY_RIGHT, TOP_RIGHT, TOP_ON_TABLE | TOP_ON_LIST},
    {TOP_KEY_LEFT, TOP_LEFT, TOP_ON_DETAIL, "<- ->", NULL, "VM"},
    {TOP_KEY_RIGHT, TOP_RIGHT, TOP_ON_DETAIL},
    {'d', TOP_DELAY, TOP_ON_ALL | TOP_ONLY_LIVE, "d", "set the sampling interval", NULL},
    {'p', TOP_PAUSE, TOP_ON_ALL, "p", "pause the display", "pause"},
    {'.', TOP_SAMPLE, TOP_ON_ALL | TOP_ONLY_LIVE, ".", "a sample now", NULL},
    {'m', TOP_MEMORY, TOP_ON_TABLE | TOP_ON_DETAIL | TOP_ONLY_LIVE | TOP_CHANGES, "m", "memory settings, with a preview", "memory"},
    {'S', TOP_START, TOP_ON_TABLE | TOP_ON_DETAIL | TOP_ONLY_LIVE | TOP_CHANGES, "S T R", "start, stop, restart (asks)", NULL},
    {'T', TOP_STOP, TOP_ON_TABLE | TOP_ON_DETAIL | TOP_ONLY_LIVE | TOP_CHANGES},
    {'R', TOP_RESTART, TOP_ON_TABLE | TOP_ON_DETAIL | TOP_ONLY_LIVE | TOP_CHANGES},
    {'c', TOP_CONSOLE, TOP_ON_TABLE | TOP_ON_DETAIL | TOP_ONLY_LIVE | TOP_CHANGES, "c", "console; ^] q comes back", "console"},
    {'e', TOP_EDIT, TOP_ON_TABLE | TOP_ON_DETAIL | TOP_ONLY_LIVE | TOP_CHANGES, "e", "edit all settings, in $EDITOR", NULL},
    {'x', TOP_LATER, TOP_ON_TABLE | TOP_ON_DETAIL | TOP_ONLY_LIVE},
    {':', TOP_COMMAND, TOP_ON_ALL | TOP_ONLY_LIVE | TOP_CHANGES, ":", "any hvctl command; % is the VM of the cursor", "command"},
    {'z', TOP_SPAN, TOP_ON_TABLE | TOP_ON_DETAIL, "z", "span of graphs and trends: 1m 5m 1h 24h", "span"},
    {' ', TOP_PLAY, TOP_ON_ALL | TOP_ONLY_REPLAY, "Space", "replay: play, stand still", "play"},
    {'[', TOP_SLOWER, TOP_ON_ALL | TOP_ONLY_REPLAY, "[ ]", "replay: slower, faster", NULL},
    {']', TOP_FASTER, TOP_ON_ALL | TOP_ONLY_REPLAY},
    {'b', TOP_JUMP, TOP_ON_ALL | TOP_ONLY_REPLAY, "b", "replay: go to a time", "go to"},
    {'n', TOP_NEXT_EVENT, TOP_ON_ALL | TOP_ONLY_REPLAY, "n", "replay: go to the next event", "next event"},
    {'?', TOP_HELP, TOP_ON_ALL, "? F1", "this help", "help"},
    {TOP_KEY_F1, TOP_HELP, TOP_ON_ALL},
    {'q', TOP_QUIT, TOP_ON_ALL, "q", "quit", "quit"},
    {0},
};

const struct top_binding *top_binding_find(int key, unsigned screen, bool replay)
{
    for (const struct top_binding *b = top_bindings; b->action != TOP_NONE; b++) {
        if (b->key == key && (b->where & screen) && !((b->where & TOP_ONLY_LIVE) && replay) &&
            !((b->where & TOP_ONLY_REPLAY) && !replay)) {
            return b;
        }
    }
    return &top_bindings[ARRAY_SIZE(top_bindings) - 1];
}
