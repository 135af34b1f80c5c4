/*
 * Parser of varlink interface texts: a scanner of words and signs and one function
 * a production. Nesting is bounded, names are checked as the grammar has them, and
 * what is declared twice or referred to and not declared is refused with its line.
 */
#include <ctype.h>
#include <errno.h>
#include <pthread.h>

#include "hv/rpc/idl.h"

#define MAX_TEXT  ((size_t)1 << 20)
#define MAX_NEST  16                   /* of types inside types */
#define MAX_WORD  256

struct idl_node {
    struct idl_node *next;
    max_align_t data[];
};

struct parser {
    struct varlink_idl *idl;
    const char *p;
    unsigned line;
    struct hv_error *e;
    int err;                           /* first failure, sticky */
};

static int HV_PRINTF(2, 3) fail(struct parser *ps, const char *fmt, ...)
{
    char message[200];
    va_list ap;

    if (ps->err == 0) {
        va_start(ap, fmt);
        vsnprintf(message, sizeof(message), fmt, ap);
        va_end(ap);
        ps->err = hv_fail(ps->e, HV_USAGE, ps->idl->name, "line %u: %s", ps->line, message);
    }
    return ps->err;
}

static void *node(struct parser *ps, size_t len)
{
    struct idl_node *n = ps->err ? NULL : hv_alloc(sizeof(*n) + len);

    if (!n) {
        if (ps->err == 0) {
            ps->err = hv_fail(ps->e, HV_NO_RESOURCES, NULL, "out of memory");
        }
        return NULL;
    }
    n->next = ps->idl->nodes;
    ps->idl->nodes = n;
    return n->data;
}

static const char *copy(struct parser *ps, const char *s, size_t len)
{
    char *t = node(ps, len + 1);

    if (t) {
        memcpy(t, s, len);
    }
    return t;
}

static void skip_space(struct parser *ps)
{
    for (;; ps->p++) {
        if (*ps->p == '#') {
            ps->p += strcspn(ps->p, "\n");
        }
        if (*ps->p == '\n') {
            ps->line++;
        } else if (*ps->p != ' ' && *ps->p != '\t' && *ps->p != '\r') {
            return;
        }
    }
}

static bool accept_sign(struct parser *ps, const char *sign)
{
    size_t n = strlen(sign);

    skip_space(ps);
    if (strncmp(ps->p, sign, n) != 0) {
        return false;
    }
    ps->p += n;
    return true;
}

static bool expect(struct parser *ps, const char *sign)
{
    if (ps->err == 0 && !accept_sign(ps, sign)) {
        fail(ps, "'%s' is missing", sign);
    }
    return ps->err == 0;
}

static bool is_word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* The next word, not yet checked; "" if there is none. */
static size_t word(struct parser *ps, char *buf)
{
    size_t n = 0;

    skip_space(ps);
    while (is_word_char(ps->p[n])) {
        n++;
    }
    if (n >= MAX_WORD) {
        fail(ps, "a name is longer than %d characters", MAX_WORD - 1);
        n = 0;
    }
    memcpy(buf, ps->p, n);
    buf[n] = '\0';
    ps->p += n;
    return n;
}

/* [A-Z][A-Za-z0-9]* */
static bool is_type_name(const char *s)
{
    return *s >= 'A' && *s <= 'Z' && !strchr(s, '_');
}

/* [A-Za-z](_?[A-Za-z0-9])* */
static bool is_field_name(const char *s)
{
    return isalpha((unsigned char)*s) && !strstr(s, "__") && s[strlen(s) - 1] != '_';
}

/* Labels joined by points, two at least; a label does not begin or end with a dash, the first begins with a letter. */
static bool is_interface_name(const char *s)
{
    unsigned labels = 0;

    if (!isalpha((unsigned char)*s)) {
        return false;
    }
    for (;; s++) {
        size_t n = 0;
        while (isalnum((unsigned char)s[n]) || s[n] == '-') {
            n++;
        }
        if (n == 0 || s[0] == '-' || s[n - 1] == '-') {
            return false;
        }
        labels++;
        s += n;
        if (*s == '\0') {
            return labels >= 2;
        }
        if (*s != '.') {
            return false;
        }
    }
}

static struct idl_type *new_type(struct parser *ps, enum idl_kind kind)
{
    struct idl_type *t = node(ps, sizeof(*t));

    if (t) {
        t->kind = kind;
    }
    return t;
}

static struct idl_type *parse_type(struct parser *ps, unsigned depth);

static bool has_member(const struct idl_type *t, const char *name)
{
    for (const struct idl_member *m = t->members; m; m = m->next) {
        if (strcmp(m->name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* After "(": members up to ")". The first one says whether it is a struct or an enum. */
static struct idl_type *parse_members(struct parser *ps, unsigned depth)
{
    struct idl_type *t = new_type(ps, IDL_STRUCT);
    struct idl_member **link = t ? &t->members : NULL;
    char name[MAX_WORD];

    if (!t || accept_sign(ps, ")")) {
        return t;
    }
    do {
        word(ps, name);
        if (ps->err == 0 && !is_field_name(name)) {
            fail(ps, "'%s' is no name of a member", name);
        }
        if (ps->err == 0 && has_member(t, name)) {
            fail(ps, "member %s is declared twice", name);
        }
        struct idl_member *m = node(ps, sizeof(*m));
        if (!m) {
            return NULL;
        }
        m->name = copy(ps, name, strlen(name));
        if (link == &t->members) {
            skip_space(ps);
            t->kind = *ps->p == ':' ? IDL_STRUCT : IDL_ENUM;
        }
        if (t->kind == IDL_STRUCT && expect(ps, ":")) {
            m->type = parse_type(ps, depth);
        }
        if (ps->err) {
            return NULL;
        }
        *link = m;
        link = &m->next;
    } while (accept_sign(ps, ","));
    return expect(ps, ")") ? t : NULL;
}

static struct idl_type *parse_element(struct parser *ps, unsigned depth)
{
    static const struct {
        const char *word;
        enum idl_kind kind;
    } basic[] = {
        { "bool", IDL_BOOL },     { "int", IDL_INT },       { "float", IDL_FLOAT },
        { "string", IDL_STRING }, { "object", IDL_OBJECT }, { "any", IDL_ANY },
    };
    char name[MAX_WORD];

    if (accept_sign(ps, "(")) {
        return parse_members(ps, depth);
    }
    word(ps, name);
    for (unsigned i = 0; i < ARRAY_SIZE(basic); i++) {
        if (strcmp(name, basic[i].word) == 0) {
            return new_type(ps, basic[i].kind);
        }
    }
    if (!is_type_name(name)) {
        fail(ps, *name ? "'%s' is no type" : "a type is missing%s", name);
        return NULL;
    }
    struct idl_type *t = new_type(ps, IDL_NAME);
    if (t) {
        t->name = copy(ps, name, strlen(name));
    }
    return t;
}

static struct idl_type *parse_type(struct parser *ps, unsigned depth)
{
    struct idl_type *t, **inner = &t;
    bool maybe = false;

    t = NULL;
    for (;;) {
        enum idl_kind kind;
        if (depth++ >= MAX_NEST) {
            fail(ps, "types are nested too deep");
            return NULL;
        }
        if (accept_sign(ps, "?")) {
            kind = IDL_MAYBE;
        } else if (accept_sign(ps, "[")) {
            kind = accept_sign(ps, "string") ? IDL_MAP : IDL_ARRAY;
            if (!expect(ps, "]")) {
                return NULL;
            }
        } else {
            *inner = parse_element(ps, depth);
            return ps->err ? NULL : t;
        }
        if (kind == IDL_MAYBE && maybe) {
            fail(ps, "'?' of '?'");
            return NULL;
        }
        maybe = kind == IDL_MAYBE;
        *inner = new_type(ps, kind);
        if (!*inner) {
            return NULL;
        }
        inner = &(*inner)->elem;
    }
}

static const struct idl_decl *find_any(const struct varlink_idl *i, const char *name)
{
    for (const struct idl_decl *d = i->decls; d; d = d->next) {
        if (strcmp(d->name, name) == 0) {
            return d;
        }
    }
    return NULL;
}

/* A struct is required (methods, errors). */
static struct idl_type *parse_struct(struct parser *ps)
{
    if (!expect(ps, "(")) {
        return NULL;
    }
    struct idl_type *t = parse_members(ps, 1);
    if (ps->err == 0 && t->kind != IDL_STRUCT) {
        fail(ps, "a struct is needed here");
    }
    return ps->err ? NULL : t;
}

static void parse_decl(struct parser *ps, const char *keyword, struct idl_decl **link)
{
    char name[MAX_WORD];
    struct idl_decl *d = node(ps, sizeof(*d));

    word(ps, name);
    if (!d) {
        return;
    }
    if (!is_type_name(name)) {
        fail(ps, "'%s' is no name of a %s", name, keyword);
    } else if (find_any(ps->idl, name)) {
        fail(ps, "%s is declared twice", name);
    }
    d->name = copy(ps, name, strlen(name));
    if (strcmp(keyword, "type") == 0) {
        d->kind = IDL_DECL_TYPE;
        if (expect(ps, "(")) {
            d->in = parse_members(ps, 1);
        }
    } else if (strcmp(keyword, "error") == 0) {
        d->kind = IDL_DECL_ERROR;
        d->in = parse_struct(ps);
    } else {
        d->kind = IDL_DECL_METHOD;
        d->in = parse_struct(ps);
        if (expect(ps, "->")) {
            d->out = parse_struct(ps);
        }
    }
    if (ps->err == 0) {
        *link = d;
    }
}

static void parse_interface(struct parser *ps)
{
    char name[MAX_WORD];

    word(ps, name);
    if (strcmp(name, "interface") != 0) {
        fail(ps, "the text does not begin with 'interface'");
        return;
    }
    skip_space(ps);
    size_t n = strspn(ps->p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-");
    if (n >= MAX_WORD) {
        fail(ps, "a name is longer than %d characters", MAX_WORD - 1);
        return;
    }
    memcpy(name, ps->p, n);
    name[n] = '\0';
    ps->p += n;
    if (!is_interface_name(name)) {
        fail(ps, "'%s' is no name of an interface", name);
        return;
    }
    ps->idl->name = copy(ps, name, n);

    struct idl_decl **link = &ps->idl->decls;
    while (ps->err == 0 && (skip_space(ps), *ps->p)) {
        size_t len = word(ps, name);
        if (strcmp(name, "type") != 0 && strcmp(name, "method") != 0 && strcmp(name, "error") != 0) {
            fail(ps, len ? "'%s' is neither type nor method nor error" : "type, method or error is missing%s",
                 len ? name : "");
            return;
        }
        parse_decl(ps, name, link);
        if (*link) {
            link = &(*link)->next;
        }
    }
}

/* Every IDL_NAME gets its type. The nesting is the parsed one, so MAX_NEST bounds the recursion. */
static void resolve(struct parser *ps, struct idl_type *t)
{
    if (!t || ps->err) {
        return;
    }
    if (t->kind == IDL_NAME) {
        const struct idl_decl *d = idl_find(ps->idl, IDL_DECL_TYPE, t->name);
        if (!d) {
            fail(ps, "type %s is not declared", t->name);
            return;
        }
        t->elem = d->in;
        return;
    }
    resolve(ps, t->elem);
    for (struct idl_member *m = t->members; m; m = m->next) {
        resolve(ps, m->type);
    }
}

int varlink_idl_parse(const char *text, struct varlink_idl **ret, struct hv_error *e)
{
    struct varlink_idl *i = hv_alloc(sizeof(*i));
    struct parser ps = { .idl = i, .p = text, .line = 1, .e = e };
    size_t len = strlen(text);

    if (!i) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    if (len > MAX_TEXT) {
        fail(&ps, "the text is longer than %zu bytes", MAX_TEXT);
    } else {
        i->text = copy(&ps, text, len);
        parse_interface(&ps);
        for (struct idl_decl *d = i->decls; d; d = d->next) {
            resolve(&ps, d->in);
            resolve(&ps, d->out);
        }
    }
    if (ps.err) {
        varlink_idl_free(i);
        return ps.err;
    }
    *ret = i;
    return 0;
}

void varlink_idl_free(struct varlink_idl *i)
{
    if (!i) {
        return;
    }
    for (struct idl_node *n = i->nodes, *next; n; n = next) {
        next = n->next;
        free(n);
    }
    free(i);
}

const struct idl_decl *idl_find(const struct varlink_idl *i, enum idl_decl_kind kind, const char *name)
{
    const struct idl_decl *d = find_any(i, name);

    return d && d->kind == kind ? d : NULL;
}

static struct varlink_idl *known[2];
static pthread_once_t known_once = PTHREAD_ONCE_INIT;

static void parse_known(void)
{
    const char *const texts[] = { org_hv_Manager_varlink, org_hv_Worker_varlink };

    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
        /* out of memory leaves it unchecked; a text that does not parse is caught by the tests */
        varlink_idl_parse(texts[i], &known[i], NULL);
    }
}

const struct varlink_idl *idl_known(const char *interface, size_t len)
{
    pthread_once(&known_once, parse_known);
    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        if (known[i] && strlen(known[i]->name) == len && memcmp(known[i]->name, interface, len) == 0) {
            return known[i];
        }
    }
    return NULL;
}
