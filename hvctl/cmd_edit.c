/*
 * edit: a VM's document in the editor, and applied. The text is the user's: it goes away only when
 * it was applied or not changed; after any error it is kept, and said where.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hvctl/document.h"

struct editing {
    const char *name;
    bool json;
    char dir[300], path[340];
    char *base;                 /* the service's XML when the text was made, or last looked at */
    char *text;                 /* what was written to the file */
};

/* ---- the file ---- */

static int make_file(struct editing *ed, struct hv_error *e)
{
    const char *tmp = getenv("XDG_RUNTIME_DIR");
    tmp = tmp && tmp[0] == '/' ? tmp : getenv("TMPDIR");
    tmp = tmp && tmp[0] == '/' ? tmp : "/tmp";
    snprintf(ed->dir, sizeof(ed->dir), "%.250s/hvctl-edit-XXXXXX", tmp);
    if (!mkdtemp(ed->dir)) {
        int err = errno;
        hv_fail_errno(e, err, ed->dir, "cannot be made");
        ed->dir[0] = 0;
        return -err;
    }
    /* A name of its own: editors choose colours by its end. */
    snprintf(ed->path, sizeof(ed->path), "%s/settings.%s", ed->dir, ed->json ? "json" : "xml");
    int r = hv_replace_file(ed->path, ed->text, strlen(ed->text), 0600);
    return r < 0 ? hv_fail_errno(e, -r, ed->path, "cannot be written") : 0;
}

/* Is there anything of the user's in it? */
static bool changed(const struct editing *ed)
{
    hv_autofree char *text = NULL;
    return ed->dir[0] && hv_read_file(ed->path, SIZE_MAX - 1, &text, NULL) == 0 && strcmp(text, ed->text) != 0;
}

/* Backups that editors leave beside it go with it. */
static void drop_file(struct editing *ed)
{
    if (!ed->dir[0]) {
        return;
    }
    char backup[400];
    unlink(ed->path);
    snprintf(backup, sizeof(backup), "%s~", ed->path);
    unlink(backup);
    rmdir(ed->dir);
    ed->dir[0] = 0;
}

/* ---- the editor ---- */

static const char *editor(void)
{
    static const char *const names[] = {"VISUAL", "EDITOR"};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        const char *v = getenv(names[i]);
        if (v && v[0]) {
            return v;
        }
    }
    return access("/usr/bin/editor", X_OK) == 0 ? "editor" : "vi";
}

/* $EDITOR may have options: the shell takes it apart. While it runs, Ctrl-C is its own. */
static int run_editor(const struct editing *ed, struct hv_error *e)
{
    const char *program = editor();
    struct sigaction ignore = {.sa_handler = SIG_IGN}, was_int, was_quit;
    int status = 0;
    sigaction(SIGINT, &ignore, &was_int);
    sigaction(SIGQUIT, &ignore, &was_quit);
    hv_autofree char *line = hv_asprintf("%s \"$1\"", program);
    pid_t pid = line ? fork() : -1;
    if (pid == 0) {
        sigaction(SIGINT, &was_int, NULL);
        sigaction(SIGQUIT, &was_quit, NULL);
        execl("/bin/sh", "sh", "-c", line, "hvctl-edit", ed->path, (char *)NULL);
        _exit(127);
    }
    int err = pid < 0 ? errno : 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    sigaction(SIGINT, &was_int, NULL);
    sigaction(SIGQUIT, &was_quit, NULL);
    if (pid < 0) {
        return hv_fail_errno(e, err, program, "cannot be run");
    }
    if (WIFSIGNALED(status)) {
        return hv_fail(e, HV_FAILED, program, "was ended by signal %d", WTERMSIG(status));
    }
    if (WEXITSTATUS(status) == 127) {
        hv_fail(e, HV_NOT_FOUND, program, "cannot be run");
        hv_hint(e, "EDITOR=nano hvctl edit %s", ed->name);
        return -ENOENT;
    }
    return WEXITSTATUS(status) ? hv_fail(e, HV_FAILED, program, "ended with %d", WEXITSTATUS(status)) : 0;
}

/* ---- the VM ---- */

/* Its XML as it is stored now, and the VM itself. */
static int fetch(struct conn *k, const char *name, char **ret_xml, json_t **ret_vm, struct hv_error *e)
{
    json_t *reply;
    int r = conn_call(k, "Export", json_pack("{s:s}", "name", name), 0, &reply, e);
    if (r < 0) {
        return r;
    }
    const char *xml = json_string_value(json_object_get(reply, "xml"));
    char *copy = hv_strdup(xml ? xml : "");
    json_decref(reply);
    if (!copy) {
        return hv_fail(e, HV_NO_RESOURCES, name, "out of memory");
    }
    r = conn_call(k, "List", json_pack("{s:[s]}", "names", name), 0, &reply, e);
    if (r < 0) {
        free(copy);
        return r;
    }
    *ret_vm = json_incref(json_array_get(json_object_get(reply, "vms"), 0));
    json_decref(reply);
    free(*ret_xml);
    *ret_xml = copy;
    return 0;
}

/* What somebody else made of it since: "memory.max, notes". */
static void say_what_changed(struct cli_call *c, const char *name, const json_t *was, const json_t *now)
{
    char keys[300] = "";
    const char *noun, *key;
    json_t *part, *v;
    size_t n = 0;
    json_object_foreach(json_object_get(now, "settings"), noun, part) {
        const json_t *old = json_object_get(json_object_get(was, "settings"), noun);
        if (json_equal(part, old)) {
            continue;
        }
        if (!json_is_object(part)) {
            n += (size_t)snprintf(keys + n, n < sizeof(keys) ? sizeof(keys) - n : 0, "%s%s", n ? ", " : "", noun);
            n = MIN(n, sizeof(keys) - 1);
            continue;
        }
        json_object_foreach(part, key, v) {
            if (!json_equal(v, json_object_get(old, key))) {
                n += (size_t)snprintf(keys + n, sizeof(keys) - n, "%s%s.%s", n ? ", " : "", noun, key);
                n = MIN(n, sizeof(keys) - 1);
            }
        }
    }
    if (n) {
        cli_note(c, "%s: meanwhile others changed: %s", name, keys);
    }
}

/* ---- one round ---- */

/* Apply what is in the file. base is what the VM was when the text was made. */
static int send(struct cli_call *c, struct conn *k, struct editing *ed, const char *text, size_t len, struct hv_error *e)
{
    json_t *params = NULL, *reply = NULL;
    int r = document_parse(ed->name, text, len, &params, e);
    if (r < 0) {
        return r;
    }
    json_object_set_new(params, "only", json_string(ed->name));
    json_object_set_new(params, "base", json_string(ed->base));
    r = conn_call(k, "Apply", params, 0, &reply, e);
    if (r == 0) {
        r = document_report(c, "", reply, false, e);
    } else {
        document_name_error(ed->name, e);
    }
    json_decref(reply);
    return r;
}

static bool edit_again(struct cli_call *c)
{
    char answer[16] = "";
    if (c->batch || !c->tty_in || !c->tty_err) {
        return false;
    }
    fprintf(c->err, "edit again? [Y/n] ");
    fflush(c->err);
    if (!fgets(answer, sizeof(answer), c->in)) {
        fputc('\n', c->err);
        return false;
    }
    return answer[0] != 'n' && answer[0] != 'N';
}

/* Until it is applied, given up, or nobody can be asked. */
static int rounds(struct cli_call *c, struct conn *k, struct editing *ed, json_t **vm, struct hv_error *e)
{
    for (;;) {
        hv_autofree char *text = NULL;
        size_t len = 0;
        int r = run_editor(ed, e);
        if (r == 0) {
            r = hv_read_file(ed->path, DOCUMENT_MAX, &text, &len);
            r = r < 0 ? hv_fail_errno(e, -r, ed->path, "cannot be read") : 0;
        }
        if (r == 0 && (strcmp(text, ed->text) == 0 || strspn(text, " \t\r\n") == len)) {
            cli_note(c, "%s: %s", ed->name, len == 0 || strcmp(text, ed->text) ? "the text is empty: nothing changed" : "nothing to change");
            return 0;
        }
        if (r == 0) {
            r = send(c, k, ed, text, len, e);
        }
        if (r == 0 || e->code == HV_UNREACHABLE) {
            return r;
        }
        if (e->code == HV_CONFLICT) {
            json_t *now = NULL;
            struct hv_error why = {0};
            if (fetch(k, ed->name, &ed->base, &now, &why) == 0) {
                say_what_changed(c, ed->name, *vm, now);
                json_decref(*vm);
                *vm = now;
            }
        }
        if (!c->tty_in || !c->tty_err || c->batch) {
            return r;
        }
        cli_print_error(c, e);
        if (!edit_again(c)) {
            return hv_fail(e, HV_FAILED, ed->name, "nothing was changed");
        }
        hv_error_clear(e);
    }
}

static int edit(struct cli_call *c, struct hv_error *e)
{
    struct editing ed = {.name = c->args[0], .json = c->format == CLI_FMT_JSON};
    struct conn *k;
    json_t *vm = NULL;
    if (!ed.json && c->format != CLI_FMT_DEFAULT && c->format != CLI_FMT_XML) {
        return hv_fail(e, HV_USAGE, "--output", "documents are xml or json");
    }
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = fetch(k, ed.name, &ed.base, &vm, e);
    if (r == 0 && ed.json) {
        json_t *o = document_vm(vm);
        hv_autofree char *dump = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
        ed.text = dump ? hv_asprintf("%s\n", dump) : NULL;
        json_decref(o);
    } else if (r == 0) {
        ed.text = hv_strdup(ed.base);
    }
    if (r == 0 && !ed.text) {
        r = hv_fail(e, HV_NO_RESOURCES, ed.name, "out of memory");
    }
    if (r == 0) {
        r = make_file(&ed, e);
    }
    if (r == 0) {
        r = rounds(c, k, &ed, &vm, e);
    }
    if ((r < 0 || c->exit_code) && changed(&ed)) {
        cli_note(c, "%s: your text is kept in %s", ed.name, ed.path);
    } else {
        drop_file(&ed);
    }
    json_decref(vm);
    free(ed.base);
    free(ed.text);
    conn_close(k);
    return r;
}

static const struct cli_arg one_vm[] = {{"VM", CLI_VM, .help = "name or GUID"}, {0}};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command edit_commands[] = {
    {.noun = "edit", .help = "change the settings of a machine in $EDITOR", .args = one_vm,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(NO_RESOURCES) | CODE(UNSUPPORTED), .run = edit,
     .examples = EXAMPLES({"hvctl edit web1", "its XML"}, {"EDITOR=nano hvctl edit web1 -o json", "the same as JSON, in nano"})},
    {0},
};
