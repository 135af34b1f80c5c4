/* The settings table as mdoc, for hv-settings(5). */
#include <inttypes.h>
#include <stdio.h>

#include "hv/base/units.h"
#include "hv/settings/settings.h"
#include "hvctl/hvctl.h"

/* A dash that may be copied. */
static void text(FILE *f, const char *s)
{
    for (; *s; s++) {
        fprintf(f, *s == '-' ? "\\-" : "%c", *s);
    }
}

static void number(FILE *f, const struct setting_desc *d, uint64_t v)
{
    char buf[32];
    if (d->type == SETTING_SIZE) {
        text(f, format_size_exact(v, buf, sizeof(buf)));
    } else {
        fprintf(f, "%" PRIu64, v);
    }
}

static void values(FILE *f, const struct setting_desc *d)
{
    static const char *const types[] = {[SETTING_SIZE] = "A size", [SETTING_UINT] = "A number", [SETTING_PCT] = "Per cent",
                                        [SETTING_DURATION] = "Milliseconds, or a duration with a unit"};
    const char *const *names = setting_names(d);
    switch (d->type) {
    case SETTING_BOOL:
        fprintf(f, "true or false, by default %s.", d->def ? "true" : "false");
        break;
    case SETTING_ENUM:
        for (unsigned i = 0; names[i]; i++) {
            fprintf(f, "%s", i ? names[i + 1] ? ", " : " or " : "");
            text(f, names[i]);
        }
        fprintf(f, ", by default ");
        text(f, names[d->def]);
        fprintf(f, ".");
        break;
    case SETTING_TEXT:
        fprintf(f, "Text of at most %" PRIu64 " bytes, or null.", d->max);
        break;
    case SETTING_PATH:
        fprintf(f, "An absolute path, or null.");
        break;
    default:
        fprintf(f, "%s, ", types[d->type]);
        number(f, d, d->min);
        fprintf(f, " to ");
        number(f, d, d->max);
        fprintf(f, ", by default ");
        number(f, d, d->def);
        fprintf(f, ".");
    }
    fputc('\n', f);
}

/* "Class.Property:type*2^20": where it is, and in which unit. */
static void place(FILE *f, const struct setting_desc *d)
{
    size_t n = strcspn(d->wmi, ":");
    const char *op = strpbrk(d->wmi + n, "*/");
    fprintf(f, "In XML\n.Va %.*s%s\n", (int)n, d->wmi, op ? " ," : " .");
    if (op) {
        fprintf(f, "%s.\n", strcmp(op, "*2^20") == 0 ? "in MiB" : "a hundred times as large");
    }
}

void settings_mdoc(FILE *f)
{
    static const char *const when[] = {[SETTING_NOW] = "A running machine takes it at once.",
                                       [SETTING_NEXT] = "A running machine takes it at its next start.",
                                       [SETTING_NEVER] = "It cannot be changed later."};
    fprintf(f, ".Bl -tag -width Ds\n");
    for (unsigned i = 0; i < SETTING_COUNT; i++) {
        const struct setting_desc *d = &setting_table[i];
        fprintf(f, ".It Va %s\n", d->name);
        text(f, d->help);
        fprintf(f, ".\n");
        values(f, d);
        fprintf(f, "%s\n", when[d->live]);
        place(f, d);
    }
    fprintf(f, ".El\n");
}
