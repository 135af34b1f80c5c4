/* The settings table's mechanics: defaults, JSON, text, validation. See table.h. */
#include "hv/settings/settings.h"

#include <errno.h>
#include <inttypes.h>

#include "hv/base/strbuf.h"
#include "hv/base/units.h"

static const char *const engine_names[] = {"auto", "kvm", "soft", NULL};
static const char *const mitigations_names[] = {"fast", "guest", NULL};
static const char *const on_start_names[] = {"nothing", "resume", "start", NULL};
static const char *const on_stop_names[] = {"shutdown", "save", "turn-off", NULL};
static const char *const on_reboot_names[] = {"restart", "off", NULL};

static const char *const demand_source_names[] = {"hybrid", "commit", "use", NULL};
static const char *const visible_names[] = {"startup", "max", NULL};

static const char *const *const enum_names[SETTING_COUNT] = {
    [SETTING_ENGINE] = engine_names,         [SETTING_MITIGATIONS] = mitigations_names,
    [SETTING_ON_START] = on_start_names,     [SETTING_ON_STOP] = on_stop_names,
    [SETTING_MEM_SOURCE] = demand_source_names, [SETTING_MEM_VISIBLE] = visible_names,
    [SETTING_BOOT_REBOOT] = on_reboot_names, [SETTING_BOOT_TRIPLE] = on_reboot_names,
};

/* Defaults are numbers for most types and strings (or NULL) for the rest; both columns exist. */
#define DEF_NUM_SIZE(d) (d)
#define DEF_NUM_UINT(d) (d)
#define DEF_NUM_DURATION(d) (d)
#define DEF_NUM_PCT(d)  (d)
#define DEF_NUM_BOOL(d) (d)
#define DEF_NUM_ENUM(d) (d)
#define DEF_NUM_TEXT(d) 0
#define DEF_NUM_PATH(d) 0
#define DEF_STR_SIZE(d) NULL
#define DEF_STR_UINT(d) NULL
#define DEF_STR_DURATION(d) NULL
#define DEF_STR_PCT(d)  NULL
#define DEF_STR_BOOL(d) NULL
#define DEF_STR_ENUM(d) NULL
#define DEF_STR_TEXT(d) (d)
#define DEF_STR_PATH(d) (d)

#define NAME_JOIN(group, key) (sizeof(group) > 1 ? group "." key : key)

const struct setting_desc setting_table[SETTING_COUNT] = {
#define S(id, group_, key_, type_, field, min_, max_, default_, live_, wmi_, help_)              \
    [SETTING_##id] = {.group = group_, .key = key_, .name = NAME_JOIN(group_, key_),             \
                      .type = SETTING_##type_, .offset = offsetof(struct settings, field),       \
                      .min = min_, .max = max_, .def = DEF_NUM_##type_(default_),                \
                      .def_text = DEF_STR_##type_(default_), .live = SETTING_##live_,            \
                      .wmi = wmi_, .help = help_},
#include "hv/settings/table.h"
};

const char *const *setting_names(const struct setting_desc *d)
{
    return enum_names[d - setting_table];
}

static bool is_string(const struct setting_desc *d)
{
    return d->type == SETTING_TEXT || d->type == SETTING_PATH;
}

static void *field(const struct settings *s, const struct setting_desc *d)
{
    return (char *)(uintptr_t)s + d->offset;
}

const struct setting_desc *setting_find(const char *name)
{
    for (unsigned i = 0; i < SETTING_COUNT; i++)
        if (strcmp(setting_table[i].name, name) == 0)
            return &setting_table[i];
    return NULL;
}

uint64_t setting_number(const struct settings *s, const struct setting_desc *d)
{
    hv_assert(!is_string(d));
    return d->type == SETTING_BOOL ? *(bool *)field(s, d) : *(uint64_t *)field(s, d);
}

void setting_set_number(struct settings *s, const struct setting_desc *d, uint64_t v)
{
    hv_assert(!is_string(d));
    if (d->type == SETTING_BOOL)
        *(bool *)field(s, d) = v != 0;
    else
        *(uint64_t *)field(s, d) = v;
}

const char *setting_string(const struct settings *s, const struct setting_desc *d)
{
    hv_assert(is_string(d));
    return *(char **)field(s, d);
}

int setting_set_string(struct settings *s, const struct setting_desc *d, const char *v)
{
    hv_assert(is_string(d));
    char *copy = NULL;
    if (v && !(copy = hv_strdup(v)))
        return -ENOMEM;
    free(*(char **)field(s, d));
    *(char **)field(s, d) = copy;
    return 0;
}

void settings_init(struct settings *s)
{
    *s = (struct settings){0};
    for (unsigned i = 0; i < SETTING_COUNT; i++) {
        const struct setting_desc *d = &setting_table[i];
        if (!is_string(d))
            setting_set_number(s, d, d->def);
    }
}

void settings_fini(struct settings *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < SETTING_COUNT; i++)
        if (is_string(&setting_table[i])) {
            free(*(char **)field(s, &setting_table[i]));
            *(char **)field(s, &setting_table[i]) = NULL;
        }
    settings_disks_fini(s);
}

int settings_copy(struct settings *dst, const struct settings *src)
{
    struct settings fresh;
    settings_init(&fresh);
    for (unsigned i = 0; i < SETTING_COUNT; i++) {
        const struct setting_desc *d = &setting_table[i];
        if (!is_string(d)) {
            setting_set_number(&fresh, d, setting_number(src, d));
        } else if (setting_set_string(&fresh, d, setting_string(src, d)) < 0) {
            settings_fini(&fresh);
            return -ENOMEM;
        }
    }
    if (settings_disks_copy(&fresh, src) < 0) {
        settings_fini(&fresh);
        return -ENOMEM;
    }
    settings_fini(dst);
    *dst = fresh;
    return 0;
}

static int check_number(const struct setting_desc *d, uint64_t v, struct hv_error *e)
{
    char lo[32], hi[32], got[32];
    if (d->type == SETTING_SIZE && v % (2 * MIB)) {
        hv_fail(e, HV_USAGE, d->name, "%s is no multiple of 2M",
                format_size_exact(v, got, sizeof(got)));
        hv_hint(e, "%s", format_size_exact(ROUND_UP(v, 2 * MIB), hi, sizeof(hi)));
        return -EINVAL;
    }
    if (v >= d->min && v <= d->max)
        return 0;
    if (d->type == SETTING_SIZE)
        return hv_fail(e, HV_USAGE, d->name, "%s is outside %s to %s",
                       format_size_exact(v, got, sizeof(got)),
                       format_size_exact(d->min, lo, sizeof(lo)),
                       format_size_exact(d->max, hi, sizeof(hi)));
    if (d->type == SETTING_DURATION && d->min == 0) {
        format_age(d->max / 1000, hi, sizeof(hi));
        return hv_fail(e, HV_USAGE, d->name, "%s is more than %s", format_age(v / 1000, got, sizeof(got)), hi);
    }
    return hv_fail(e, HV_USAGE, d->name, "%" PRIu64 " is outside %" PRIu64 " to %" PRIu64, v,
                   d->min, d->max);
}

bool setting_text_ok(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        if ((*p < 0x20 && *p != '\t' && *p != '\n' && *p != '\r') || (p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe))
            return false;
    return true;
}

static int check_string(const struct setting_desc *d, const char *v, struct hv_error *e)
{
    size_t len = strlen(v);
    if (!setting_text_ok(v))
        return hv_fail(e, HV_USAGE, d->name, "it has a control character that XML cannot hold");
    if (len > d->max)
        return hv_fail(e, HV_USAGE, d->name, "%zu characters are more than the %" PRIu64 " allowed",
                       len, d->max);
    if (d->type == SETTING_PATH && v[0] != '/')
        return hv_fail(e, HV_USAGE, d->name, "'%s' is no absolute path", v);
    return 0;
}

static int set_enum(struct settings *s, const struct setting_desc *d, const char *text,
                    struct hv_error *e)
{
    const char *const *names = setting_names(d);
    strbuf_auto all = {0};
    for (unsigned i = 0; names[i]; i++) {
        if (strcmp(names[i], text) == 0) {
            setting_set_number(s, d, i);
            return 0;
        }
        strbuf_addf(&all, "%s%s", i ? ", " : "", names[i]);
    }
    hv_fail(e, HV_USAGE, d->name, "'%s' is none of its values", text);
    hv_hint(e, "%s", all.buf ? all.buf : "");
    return -EINVAL;
}

int setting_set_text(struct settings *s, const struct setting_desc *d, const char *text,
                     struct hv_error *e)
{
    uint64_t v = 0;
    bool on = false;
    int r = 0;
    if (strcmp(text, "default") == 0) {
        if (is_string(d))
            return setting_set_string(s, d, d->def_text);
        setting_set_number(s, d, d->def);
        return 0;
    }
    switch (d->type) {
    case SETTING_TEXT:
    case SETTING_PATH:
        /* Without a folder for paging is another thing than without a word on it. */
        if (strcmp(text, "none") == 0 && d != &setting_table[SETTING_MEM_PAGING])
            return setting_set_string(s, d, NULL);
        r = check_string(d, text, e);
        return r < 0 ? r : setting_set_string(s, d, text);
    case SETTING_ENUM:
        return set_enum(s, d, text, e);
    case SETTING_BOOL:
        r = parse_switch(text, d->name, &on, e);
        v = on;
        break;
    case SETTING_SIZE:
        r = parse_size(text, d->name, &v, e);
        break;
    case SETTING_PCT:
        r = parse_percent(text, d->name, &v, e);
        break;
    case SETTING_DURATION:
        r = parse_duration(text, d->name, &v, e);
        v /= NS_PER_MS;
        break;
    case SETTING_UINT:
        r = parse_uint(text, d->name, 0, UINT64_MAX, &v, e);
        break;
    }
    if (r == 0)
        r = check_number(d, v, e);
    if (r == 0)
        setting_set_number(s, d, v);
    return r;
}

char *setting_get_text(const struct settings *s, const struct setting_desc *d)
{
    char buf[32];
    if (is_string(d))
        return setting_string(s, d) ? hv_strdup(setting_string(s, d)) : NULL;
    uint64_t v = setting_number(s, d);
    switch (d->type) {
    case SETTING_SIZE:
        return hv_strdup(format_size_exact(v, buf, sizeof(buf)));
    case SETTING_DURATION:
        return hv_asprintf(v % 1000 ? "%" PRIu64 "ms" : "%" PRIu64 "s", v % 1000 ? v : v / 1000);
    case SETTING_BOOL:
        return hv_strdup(v ? "on" : "off");
    case SETTING_ENUM:
        return hv_strdup(setting_names(d)[v]);
    default:
        return hv_asprintf("%" PRIu64, v);
    }
}

bool setting_equal(const struct settings *a, const struct settings *b, const struct setting_desc *d)
{
    if (!is_string(d))
        return setting_number(a, d) == setting_number(b, d);
    const char *x = setting_string(a, d), *y = setting_string(b, d);
    return x == y || (x && y && strcmp(x, y) == 0);
}

static int wrong_type(const struct setting_desc *d, const char *want, struct hv_error *e)
{
    return hv_fail(e, HV_USAGE, d->name, "it has to be %s", want);
}

static int set_json(struct settings *s, const struct setting_desc *d, const json_t *v,
                    struct hv_error *e)
{
    int r;
    if (json_is_null(v))
        return setting_set_text(s, d, "default", e);
    switch (d->type) {
    case SETTING_TEXT:
    case SETTING_PATH:
        if (!json_is_string(v))
            return wrong_type(d, "a string", e);
        r = check_string(d, json_string_value(v), e);
        return r < 0 ? r : setting_set_string(s, d, json_string_value(v));
    case SETTING_ENUM:
        return json_is_string(v) ? set_enum(s, d, json_string_value(v), e)
                                 : wrong_type(d, "a string", e);
    case SETTING_BOOL:
        if (!json_is_boolean(v))
            return wrong_type(d, "true or false", e);
        setting_set_number(s, d, json_is_true(v));
        return 0;
    default:
        if (json_is_string(v) && (d->type == SETTING_SIZE || d->type == SETTING_DURATION))
            return setting_set_text(s, d, json_string_value(v), e);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return wrong_type(d, d->type == SETTING_SIZE ? "bytes as a whole number, or a size with a unit"
                                                         : "a whole number", e);
        r = check_number(d, (uint64_t)json_integer_value(v), e);
        if (r == 0)
            setting_set_number(s, d, (uint64_t)json_integer_value(v));
        return r;
    }
}

static const struct setting_desc *find_in(const char *group, const char *key)
{
    for (unsigned i = 0; i < SETTING_COUNT; i++)
        if (strcmp(setting_table[i].group, group) == 0 && strcmp(setting_table[i].key, key) == 0)
            return &setting_table[i];
    return NULL;
}

static bool is_group(const char *key)
{
    for (unsigned i = 0; i < SETTING_COUNT; i++)
        if (setting_table[i].group[0] && strcmp(setting_table[i].group, key) == 0)
            return true;
    return false;
}

static int group_from_json(struct settings *s, const char *group, const json_t *obj,
                           struct hv_error *e)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)obj, key, v) {
        const struct setting_desc *d = find_in(group, key);
        int r;
        if (d)
            r = set_json(s, d, v, e);
        else if (!group[0] && strcmp(key, "disks") == 0)
            r = settings_disks_from_json(s, v, e);
        else if (!group[0] && is_group(key) && json_is_object(v))
            r = group_from_json(s, key, v, e);     /* one level: groups hold no groups */
        else
            r = hv_fail(e, HV_USAGE, key, "there is no setting '%s%s%s'", group, group[0] ? "." : "", key);
        if (r < 0)
            return r;
    }
    return 0;
}

int settings_from_json(struct settings *s, const json_t *obj, struct hv_error *e)
{
    if (!json_is_object(obj))
        return hv_fail(e, HV_USAGE, "settings", "they have to be an object");
    struct settings fresh;
    settings_init(&fresh);
    int r = settings_copy(&fresh, s);
    if (r == 0)
        r = group_from_json(&fresh, "", obj, e);
    else
        hv_fail(e, HV_NO_RESOURCES, "settings", "out of memory");
    if (r < 0) {
        settings_fini(&fresh);
        return r;
    }
    settings_fini(s);
    *s = fresh;
    return 0;
}

static json_t *value_json(const struct settings *s, const struct setting_desc *d)
{
    if (is_string(d)) {
        const char *v = setting_string(s, d);
        json_t *j = v ? json_string(v) : json_null();
        return j ? j : json_null();
    }
    uint64_t v = setting_number(s, d);
    switch (d->type) {
    case SETTING_BOOL: return json_boolean(v != 0);
    case SETTING_ENUM: return json_string(setting_names(d)[v]);
    default: return json_integer((json_int_t)v);
    }
}

static bool wanted(const json_t *groups, const char *group)
{
    size_t i;
    json_t *g;
    if (!groups)
        return true;
    json_array_foreach((json_t *)(uintptr_t)groups, i, g)
        if (json_is_string(g) && strcmp(json_string_value(g), group) == 0)
            return true;
    return false;
}

json_t *settings_to_json_groups(const struct settings *s, const json_t *groups)
{
    json_t *top = json_object(), *in = top;
    const char *group = "";
    bool want = wanted(groups, group);
    for (unsigned i = 0; top && i < SETTING_COUNT; i++) {
        const struct setting_desc *d = &setting_table[i];
        if (strcmp(d->group, group) != 0) {
            group = d->group;
            want = wanted(groups, group);
            in = group[0] && want ? json_object_get(top, group) : top;
            if (!in) {
                in = json_object();
                json_object_set_new(top, group, in);
            }
        }
        if (want)
            json_object_set_new_nocheck(in, d->key, value_json(s, d));
    }
    if (top && wanted(groups, "disks"))
        json_object_set_new(top, "disks", settings_disks_to_json(s));
    return top;
}

json_t *settings_to_json(const struct settings *s)
{
    return settings_to_json_groups(s, NULL);
}

static int less_than(const char *vm, const char *a, uint64_t av, const char *b, uint64_t bv,
                     const char *opt_a, const char *opt_b, struct hv_error *e)
{
    char x[SIZE_TEXT], y[SIZE_TEXT];
    format_sizes(av, x, bv, y);
    hv_fail(e, HV_USAGE, vm, "%s %s is less than the %s memory %s", a, x, b, y);
    hv_hint(e, "hvctl memory set %s %s %s %s %s", vm, opt_b, format_size_exact(av, x, sizeof(x)), opt_a,
            format_size_exact(av, y, sizeof(y)));
    return -EINVAL;
}

int settings_check(const struct settings *s, const char *vm, struct hv_error *e)
{
    if (s->memory.dynamic && s->memory.max < s->memory.startup)
        return less_than(vm, "maximum", s->memory.max, "startup", s->memory.startup, "--max",
                         "--startup", e);
    if (s->memory.dynamic && s->memory.startup < s->memory.min)
        return less_than(vm, "startup", s->memory.startup, "minimum", s->memory.min, "--startup",
                         "--min", e);
    const char *paging = s->memory.smart_paging;
    if (paging && paging[0] != '/' && strcmp(paging, "none") != 0) {
        hv_fail(e, HV_USAGE, paging, "is no absolute path of a folder for smart paging");
        hv_hint(e, "--smart-paging DIR, none, or default");
        return -EINVAL;
    }
    if (!s->boot.kernel && (s->boot.initrd || s->boot.cmdline)) {
        hv_fail(e, HV_USAGE, vm, "%s needs a kernel", s->boot.initrd ? "an initrd" : "a command line");
        hv_hint(e, "--kernel PATH");
        return -EINVAL;
    }
    return 0;
}

uint64_t settings_boot_memory(const struct settings *s)
{
    return s->memory.dynamic && s->memory.visible == SET_VISIBLE_MAX ? s->memory.max : s->memory.startup;
}
