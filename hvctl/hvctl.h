/*
 * What the files of hvctl share: the connection to the service, targets, views of a VM, and
 * the nouns' command tables. One file per noun: cmd_*.c.
 */
#ifndef HVCTL_HVCTL_H
#define HVCTL_HVCTL_H

#include <stdio.h>

#include "hv/cli/call.h"
#include "hv/cli/column.h"

extern const struct cli_tool hvctl_tool;

/* ---- conn.c: one connection to the management service ---- */
struct conn;

/* Connects to the host that c->host names. Errors: HV_UNREACHABLE, HV_DENIED. */
int conn_open(struct cli_call *c, struct conn **ret, struct hv_error *e);
/* The same for completion: starts no service, says nothing. */
int conn_open_existing(struct cli_call *c, struct conn **ret);
void conn_close(struct conn *k);                      /* NULL is fine */
/* "system" or "user": whose service it is; "" where that cannot be known. */
const char *conn_mode(const struct conn *k);

/*
 * One call of org.hv.Manager: params (stolen, NULL = {}), *ret the reply, the caller's
 * reference. timeout_ns 0: --timeout counts, if there is one; UINT64_MAX: for ever. After HV_TIMEOUT the connection
 * is of no more use: close it.
 */
int conn_call(struct conn *k, const char *method, json_t *params, uint64_t timeout_ns, json_t **ret,
              struct hv_error *e);
/* fn for each reply; a non-zero return of fn ends it and is returned. */
int conn_stream(struct conn *k, const char *method, json_t *params, int (*fn)(void *arg, json_t *reply), void *arg,
                struct hv_error *e);
/* Join a VM's console: on 0 *ret_fd (the caller's, non-blocking) carries raw bytes, *extra
 * (malloc'ed) what had come already, and k can only be closed. */
struct console_how { bool read_only, take_over, history; };
int conn_console(struct conn *k, const char *name, const struct console_how *how, int *ret_fd, void **extra,
                 size_t *extra_len, struct hv_error *e);

/* ---- view.c: a VM as the tool shows it ---- */

/* The service's Vm object as one with keys nested by noun: {name, id, state, memory: {...}, ...}. New. */
json_t *view_vm(const json_t *vm);
/* Only name, id, state and one part ("memory"). New. */
json_t *view_part(const json_t *view, const char *part);

extern const struct cli_columns view_vm_columns, view_memory_columns, vm_stats_columns;

/* ---- image.c: vhdtool, run as the user ---- */
/* An absolute path of what the user wrote. free() it. */
char *image_path(const char *path);
/* HV_UNSUPPORTED where the service is on another host: vhdtool runs here. */
int image_here(const struct cli_call *c, const char *path, struct hv_error *e);
/* A file, and not a link, a device or nothing? */
bool image_is_file(const char *path);
/* Delete an image nobody has in use (HV_CONFLICT otherwise, with who). */
int image_delete(const char *path, struct hv_error *e);
/* vhdtool's answer to args (NULL-terminated, 100 at most) in JSON, as an array; what it cannot answer is not in it. New. */
int image_query(const char *const *args, json_t **ret, struct hv_error *e);
/* `vhdtool -q ARGS...` (args ends with NULL); it says itself what is wrong. */
int image_run(const char *const *args, struct hv_error *e);

/* ---- cmd_disk.c ---- */
/* A VM's disks: settings, with what the running VM says of each. New. */
json_t *disks_joined(const json_t *vm);
/* The service's Vm object of one name; the caller's reference. */
int fetch_vm(struct conn *k, const char *name, json_t **ret, struct hv_error *e);
/* A new image: dynamic of this size, or a child of parent. */
int disk_make(struct cli_call *c, const char *path, const char *size, const char *parent, struct hv_error *e);

/* ---- targets.c: which VMs a command is about ---- */
struct target {
    char *name;                 /* as the service knows it, or as typed where it does not */
    json_t *vm;                 /* the service's Vm object before the command; NULL: there is none */
    struct hv_error error;      /* how it went */
};
struct targets {
    struct target *t;
    unsigned n;
    bool one;                   /* a single literal name: JSON gives an object, not an array */
};

/*
 * Resolve the positional arguments from `first` on: names, GUIDs, globs, or --all (then filter
 * decides which, NULL: every VM). A name that is not there becomes a target with vm NULL and its error set.
 */
int targets_find(struct cli_call *c, struct conn *k, unsigned first, bool (*filter)(const json_t *vm),
                 struct targets *ret, struct hv_error *e);
void targets_free(struct targets *ts);

/*
 * Do fn for each target, --jobs at a time, each worker with its own connection. Errors are
 * printed as they happen. The result is the command's: 0, or with one target its error in e,
 * with several HV_PARTIAL in c->exit_code if some failed, and the common code if all did.
 */
int targets_each(struct cli_call *c, struct targets *ts,
                 int (*fn)(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e),
                 void *arg, struct hv_error *e);

/* With -o: the VMs as they are now, in the verb's form (json: an object for one literal name). */
int targets_print(struct cli_call *c, const struct targets *ts, const struct cli_columns *columns, const char *part,
                  struct hv_error *e);

/* ---- job.c ---- */

/*
 * Follow the job of a reply {"job": ...}: to its end, or with --no-wait print its number.
 * *ret_null (may be NULL): there was none, the end state already held. patience_ns: call
 * impatient(arg) once if it takes longer; 0: never.
 */
struct job_follow {
    uint64_t timeout_ns;        /* 0: --timeout */
    uint64_t patience_ns;
    void (*impatient)(void *arg);
    void *arg;
};
int job_follow(struct cli_call *c, struct conn *k, const json_t *reply, const struct job_follow *how, bool *ret_null,
               struct hv_error *e);

/* ---- time.c ---- */
/* A TIME of rule 5 as milliseconds since 1970: "22:20", "2026-11-20T22:20", "24h" ago. */
int time_parse(const char *text, const char *object, uint64_t now_ns, int64_t *ret_ms, struct hv_error *e);

/* ---- vm_*.c ---- */
int vm_list(struct cli_call *c, struct hv_error *e);
int vm_show(struct cli_call *c, struct hv_error *e);
int vm_stats(struct cli_call *c, struct hv_error *e);
int vm_create(struct cli_call *c, struct hv_error *e);
int vm_set(struct cli_call *c, struct hv_error *e);
int vm_remove(struct cli_call *c, struct hv_error *e);
int vm_rename(struct cli_call *c, struct hv_error *e);
int vm_start(struct cli_call *c, struct hv_error *e);
int vm_stop(struct cli_call *c, struct hv_error *e);
int vm_restart(struct cli_call *c, struct hv_error *e);
int vm_pause(struct cli_call *c, struct hv_error *e);
int vm_resume(struct cli_call *c, struct hv_error *e);
int vm_wait(struct cli_call *c, struct hv_error *e);
int vm_console(struct cli_call *c, struct hv_error *e);
int vm_run(struct cli_call *c, struct hv_error *e);

/* ---- list_hosts.c ---- */
int list_all_hosts(struct cli_call *c, const struct cli_columns *columns, struct hv_error *e);

/* Rows in the form p wants, XML too, where rows have the id of a VM. */
int print_rows(struct cli_call *c, struct cli_printer *p, const json_t *rows, bool one, struct hv_error *e);
/* Sample, print, again every --delay under --watch. *ret of sample: rows, new. */
int watch_rows(struct cli_call *c, struct cli_printer *p,
               int (*sample)(struct cli_call *c, void *arg, json_t **ret, struct hv_error *e), void *arg, bool one,
               struct hv_error *e);
/* Shared by listings: fetch, view, print, again every --delay under --watch. part: NULL, "memory". */
int list_vms(struct cli_call *c, const struct cli_columns *columns, const char *part, struct hv_error *e);
int show_vms(struct cli_call *c, const struct cli_columns *columns, const char *part, struct hv_error *e);
/* Store or apply settings on each target and say what changed; build() makes them for one VM (stolen). */
int set_vms(struct cli_call *c, json_t *(*build)(struct cli_call *c, const json_t *vm, struct hv_error *e),
            const struct cli_columns *columns, const char *part, struct hv_error *e);
/* ---- new_disks.c: disks made with a VM ---- */
struct new_disks { char *path[8]; bool seed[8]; unsigned n; };
/* Does the command ask for any? And is this one of its values that do? */
bool new_disks_wanted(const struct cli_call *c);
bool new_disks_is(const struct cli_value *v);
/* Make the one that v asks for and add it to the settings' disks. */
int new_disks_add(struct cli_call *c, struct conn *k, const char *name, const struct cli_value *v, json_t *disks,
                  struct new_disks *made, struct hv_error *e);
/* Delete the files; forget the names. */
void new_disks_remove(struct new_disks *made);
void new_disks_fini(struct new_disks *made);

/* What the options of create and run ask for, over the settings of --like. Disks are made on the way: made.
 *  New, NULL with e filled. */
json_t *create_settings(struct cli_call *c, struct conn *k, const char *name, struct new_disks *made, struct hv_error *e);
/* Wait for a condition of a VM, until --timeout has passed since began_ns (monotonic). */
int wait_for(struct cli_call *c, struct conn *k, const char *name, const char *cond, uint64_t began_ns,
             struct hv_error *e);
/* Attach the console of a VM and say how it ended; the exit code goes to c->exit_code. */
int attach_console(struct cli_call *c, const char *name, struct hv_error *e);
/* Conditions of the grammar that this version lacks; what is behind a colon belongs to them. */
#define CONDITIONS_LATER "saved|port"

/* Exit code bits of a command. */
#define CODE(x) (1u << HV_##x)

/* ---- settings_mdoc.c ---- */
/* Every setting, its values and its place in XML, for hv-settings(5): `hvctl __mdoc settings`. */
void settings_mdoc(FILE *f);

/* ---- tables ---- */
extern const struct cli_command vm_commands[], memory_commands[], host_commands[], job_commands[], events_commands[],
    help_commands[], completion_commands[], disk_commands[], dvd_commands[], integration_commands[], guest_commands[],
    shell_commands[], get_commands[], diff_commands[], apply_commands[], edit_commands[], bridge_commands[],
    group_commands[], processor_commands[], metering_commands[];

#endif
