/* The themes. Colour only repeats what a mark and a word say. */
#include "hvtop/theme.h"

enum { BLACK, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, WHITE, OWN = -1 };

const struct theme top_themes[] = {
    {"default", {
        [STYLE_NORMAL] = {OWN, 0}, [STYLE_TITLE] = {OWN, THEME_BOLD}, [STYLE_HEADER] = {OWN, THEME_BOLD},
        [STYLE_DIM] = {OWN, THEME_DIM}, [STYLE_ASSIGNED] = {BLUE, 0}, [STYLE_LOW] = {YELLOW, 0},
        [STYLE_WARNING] = {RED, 0}, [STYLE_ROOT] = {CYAN, 0}, [STYLE_BUSY] = {GREEN, 0}, [STYLE_KEY] = {OWN, THEME_BOLD},
        [STYLE_CHOSEN] = {OWN, THEME_BOLD}, [STYLE_ERROR] = {RED, 0} }},
    {"mono", {
        [STYLE_NORMAL] = {OWN, 0}, [STYLE_TITLE] = {OWN, THEME_BOLD}, [STYLE_HEADER] = {OWN, THEME_BOLD},
        [STYLE_DIM] = {OWN, THEME_DIM}, [STYLE_ASSIGNED] = {OWN, 0}, [STYLE_LOW] = {OWN, THEME_BOLD},
        [STYLE_WARNING] = {OWN, THEME_REVERSE}, [STYLE_ROOT] = {OWN, 0}, [STYLE_BUSY] = {OWN, 0},
        [STYLE_KEY] = {OWN, THEME_BOLD}, [STYLE_CHOSEN] = {OWN, THEME_BOLD}, [STYLE_ERROR] = {OWN, THEME_REVERSE} }},
    {"high-contrast", {
        [STYLE_NORMAL] = {WHITE, THEME_BOLD}, [STYLE_TITLE] = {WHITE, THEME_BOLD}, [STYLE_HEADER] = {WHITE, THEME_BOLD | THEME_UNDERLINE},
        [STYLE_DIM] = {WHITE, 0}, [STYLE_ASSIGNED] = {CYAN, THEME_BOLD}, [STYLE_LOW] = {YELLOW, THEME_BOLD},
        [STYLE_WARNING] = {RED, THEME_BOLD | THEME_REVERSE}, [STYLE_ROOT] = {MAGENTA, THEME_BOLD},
        [STYLE_BUSY] = {GREEN, THEME_BOLD}, [STYLE_KEY] = {YELLOW, THEME_BOLD}, [STYLE_CHOSEN] = {WHITE, THEME_REVERSE},
        [STYLE_ERROR] = {RED, THEME_BOLD | THEME_REVERSE} }},
    {"safe", {      /* for eyes that do not tell red from green: blue and orange */
        [STYLE_NORMAL] = {OWN, 0}, [STYLE_TITLE] = {OWN, THEME_BOLD}, [STYLE_HEADER] = {OWN, THEME_BOLD},
        [STYLE_DIM] = {OWN, THEME_DIM}, [STYLE_ASSIGNED] = {BLUE, 0}, [STYLE_LOW] = {BLUE, THEME_BOLD},
        [STYLE_WARNING] = {YELLOW, THEME_BOLD}, [STYLE_ROOT] = {CYAN, 0}, [STYLE_BUSY] = {BLUE, 0},
        [STYLE_KEY] = {OWN, THEME_BOLD}, [STYLE_CHOSEN] = {OWN, THEME_BOLD}, [STYLE_ERROR] = {YELLOW, THEME_BOLD} }},
    {"light", {     /* on white: no yellow, nothing dim */
        [STYLE_NORMAL] = {OWN, 0}, [STYLE_TITLE] = {OWN, THEME_BOLD}, [STYLE_HEADER] = {OWN, THEME_BOLD},
        [STYLE_DIM] = {OWN, 0}, [STYLE_ASSIGNED] = {BLUE, 0}, [STYLE_LOW] = {MAGENTA, 0},
        [STYLE_WARNING] = {RED, THEME_BOLD}, [STYLE_ROOT] = {BLUE, 0}, [STYLE_BUSY] = {BLUE, 0}, [STYLE_KEY] = {OWN, THEME_BOLD},
        [STYLE_CHOSEN] = {OWN, THEME_BOLD}, [STYLE_ERROR] = {RED, THEME_BOLD} }},
    {NULL, {{0}}},
};

const struct theme *theme_find(const char *name)
{
    for (const struct theme *t = top_themes; t->name; t++) {
        if (strcmp(t->name, name) == 0) {
            return t;
        }
    }
    return NULL;
}
