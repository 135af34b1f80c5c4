/*
 * The settings of one virtual machine: a struct for the code, and one table
 * (table.h) from which text, JSON and XML forms are made.
 */
#ifndef HV_SETTINGS_SETTINGS_H
#define HV_SETTINGS_SETTINGS_H

#include <jansson.h>

#include "hv/base/error.h"

/* Values of the ENUM settings, in the order of their names in settings.c. */
enum set_engine { SET_ENGINE_AUTO, SET_ENGINE_KVM, SET_ENGINE_SOFT };
enum set_mitigations { SET_MITIGATIONS_FAST, SET_MITIGATIONS_GUEST };
enum set_on_start { SET_ON_START_NOTHING, SET_ON_START_RESUME, SET_ON_START_START };
enum set_on_stop { SET_ON_STOP_SHUTDOWN, SET_ON_STOP_SAVE, SET_ON_STOP_TURN_OFF };
enum set_on_reboot { SET_ON_REBOOT_RESTART, SET_ON_REBOOT_OFF };

enum set_demand_source { SET_DEMAND_HYBRID, SET_DEMAND_COMMIT, SET_DEMAND_USE };
enum set_visible { SET_VISIBLE_STARTUP, SET_VISIBLE_MAX };

enum set_format { SET_FORMAT_UNKNOWN, SET_FORMAT_RAW, SET_FORMAT_VHD, SET_FORMAT_VHDX };

#define SETTING_DISKS_MAX 64u          /* places of the one SCSI controller, as Hyper-V's */
#define SETTING_IOPS_MAX  100000000
#define SETTING_LOCATION_SIZE 16

/* A disk, or a DVD drive (path NULL: empty). */
struct setting_disk {
    unsigned lun;                      /* "scsi0:LUN" */
    bool dvd, read_only;
    enum set_format format;            /* found out once, when it is attached */
    uint32_t max_iops;                 /* 0: no limit */
    char *path;
};

/* Strings are owned by the struct; NULL is "not set". */
struct settings {
    char *notes;
    uint64_t engine, mitigations, on_start, on_stop, start_delay_ms;
    bool hyperv, lock;
    struct { bool dynamic; uint64_t startup, min, max, buffer_pct, priority, demand_source, visible; char *smart_paging; } memory;
    struct { uint64_t cpus, weight, limit_pct; } processor;
    struct { bool heartbeat, shutdown, time_sync, kvp, vss, file_copy; } services;
    struct { char *kernel, *initrd, *cmdline; uint64_t on_reboot, on_triple_fault; bool test_device; } boot;
    struct setting_disk *disk;          /* disk[disks], in order of lun */
    unsigned disks;
};

enum setting_id {
#define S(id, ...) SETTING_##id,
#include "hv/settings/table.h"
    SETTING_COUNT
};
enum setting_type { SETTING_SIZE, SETTING_UINT, SETTING_PCT, SETTING_BOOL, SETTING_ENUM, SETTING_DURATION, SETTING_TEXT, SETTING_PATH };
enum setting_live { SETTING_NOW, SETTING_NEXT, SETTING_NEVER };

struct setting_desc {
    const char *group, *key;            /* "" = top level */
    const char *name;                   /* "memory.startup", "notes" */
    enum setting_type type;
    size_t offset;                      /* in struct settings */
    uint64_t min, max;                  /* of the value, or of a string's length */
    uint64_t def;
    const char *def_text;
    enum setting_live live;
    const char *wmi;
    const char *help;
};
extern const struct setting_desc setting_table[SETTING_COUNT];

/* The words of an ENUM setting, NULL-terminated; NULL for the other types. */
const char *const *setting_names(const struct setting_desc *d);
/* NULL if there is no such setting; name as in .name. */
const struct setting_desc *setting_find(const char *name);

void settings_init(struct settings *s);                     /* defaults; cannot fail */
void settings_fini(struct settings *s);
int settings_copy(struct settings *dst, const struct settings *src);   /* dst initialised; -ENOMEM */

/*
 * Overlay obj (nested by group, any subset) on s. Sizes: integers are bytes, strings need
 * units. null puts the default back. Unknown keys and wrong types are HV_USAGE naming the
 * key; then s is unchanged. Ranges are checked here, rules between fields in settings_check().
 */
int settings_from_json(struct settings *s, const json_t *obj, struct hv_error *e);
/* A new object with every key; not set strings are null. */
json_t *settings_to_json(const struct settings *s);
/* Only these groups: [group...], "" is the top level's own keys, "disks" the list of disks. NULL: all. */
json_t *settings_to_json_groups(const struct settings *s, const json_t *groups);

/* Can a text (UTF-8) be stored? XML 1.0 has no control characters but TAB, LF and CR, and neither U+FFFE nor U+FFFF. */
bool setting_text_ok(const char *text);

/* One value as text an operator can type back ("1G", "on", "auto"); -EINVAL if it does not parse. */
int setting_set_text(struct settings *s, const struct setting_desc *d, const char *text, struct hv_error *e);
char *setting_get_text(const struct settings *s, const struct setting_desc *d);    /* NULL: not set */
bool setting_equal(const struct settings *a, const struct settings *b, const struct setting_desc *d);

/* ---- the list of disks: "disks" in JSON, replaced as a whole by settings_from_json() ---- */
void setting_disk_fini(struct setting_disk *d);
/* The one at lun, or NULL. */
struct setting_disk *settings_disk(const struct settings *s, unsigned lun);
int settings_disk_free_lun(const struct settings *s);       /* -ENOSPC */
/* Put a copy at d->lun, in place of what is there. -ENOMEM */
int settings_disk_put(struct settings *s, const struct setting_disk *d);
void settings_disk_remove(struct settings *s, unsigned lun);
bool settings_disks_equal(const struct settings *a, const struct settings *b);
const char *setting_disk_location(const struct setting_disk *d, char buf[SETTING_LOCATION_SIZE]);
int setting_disk_parse_location(const char *text, unsigned *ret_lun, struct hv_error *e);
int setting_format_parse(const char *word, enum set_format *ret);
const char *setting_format_word(enum set_format f);         /* NULL: not known */
json_t *setting_disk_to_json(const struct setting_disk *d);
/* location may be left out: *ret_has_location. */
int setting_disk_from_json(const json_t *o, struct setting_disk *ret, bool *ret_has_location, struct hv_error *e);
json_t *settings_disks_to_json(const struct settings *s);
int settings_disks_from_json(struct settings *s, const json_t *list, struct hv_error *e);
int settings_disks_copy(struct settings *dst, const struct settings *src);
void settings_disks_fini(struct settings *s);

/* The number or flag behind a non-string setting, and the string behind the others. */
uint64_t setting_number(const struct settings *s, const struct setting_desc *d);
void setting_set_number(struct settings *s, const struct setting_desc *d, uint64_t v);
const char *setting_string(const struct settings *s, const struct setting_desc *d);
int setting_set_string(struct settings *s, const struct setting_desc *d, const char *v);   /* NULL: not set */

/*
 * Rules between fields (dynamic-memory 1.2): min <= startup <= max where memory is dynamic;
 * initrd and cmdline need a kernel. vm names the object of the error. Never changes s.
 */
int settings_check(const struct settings *s, const char *vm, struct hv_error *e);

/* What the guest boots with, bytes: startup, or its maximum where that is what it is to see. */
uint64_t settings_boot_memory(const struct settings *s);

#endif
