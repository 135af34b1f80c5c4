/*
 * A VM as hvctl shows it. The service keeps settings and run-time state apart; people and
 * scripts see one object with keys nested by noun, settings first (rule 2).
 */
#include <stdio.h>

#include "hv/base/units.h"
#include "hvctl/hvctl.h"

/* Run-time keys that stand elsewhere in the view: from runtime.FROM to TO, divided. */
static const struct { const char *from, *to; json_int_t divisor; } moves[] = {
    {"uptime_ms", "uptime_s", 1000},
    {"cpu_pct", "processor.cpu_pct", 0},
    {"engine", "engine_in_use", 0},
    {"kernel", "boot.kernel_version", 0},
    {"unit", "processor.unit", 0},
    {"cpu_ns", NULL, 0},
};

/* Members of from over those of into, objects inside one level deep. */
static void merge(json_t *into, const json_t *from)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)from, key, v) {
        json_t *there = json_object_get(into, key);
        if (json_is_object(there) && json_is_object(v)) {
            json_object_update(there, v);
        } else if (json_is_object(v)) {
            json_object_set_new(into, key, json_deep_copy(v));
        } else {
            json_object_set(into, key, v);
        }
    }
}

json_t *view_vm(const json_t *vm)
{
    json_t *view = json_object();
    json_t *runtime = json_deep_copy(json_object_get(vm, "runtime"));
    static const char *const head[] = {"name", "id", "state", "reason"};

    for (unsigned i = 0; i < ARRAY_SIZE(head); i++) {
        json_t *v = json_object_get(vm, head[i]);
        json_object_set(view, head[i], v ? v : json_null());
    }
    for (unsigned i = 0; i < ARRAY_SIZE(moves) && runtime; i++) {
        json_t *v = json_object_get(runtime, moves[i].from);
        if (v && moves[i].to && !json_is_null(v)) {
            cli_json_set_path(view, moves[i].to,
                              moves[i].divisor ? json_integer(json_integer_value(v) / moves[i].divisor) : json_incref(v));
        }
        json_object_del(runtime, moves[i].from);
    }
    merge(view, json_object_get(vm, "settings"));
    if (runtime) {
        json_object_del(runtime, "disks");
        merge(view, runtime);
    }
    json_object_set_new(view, "disks", disks_joined(vm));
    json_decref(runtime);
    return view;
}

json_t *view_part(const json_t *view, const char *part)
{
    json_t *o = json_object();
    static const char *const head[] = {"name", "id", "state"};
    for (unsigned i = 0; i < ARRAY_SIZE(head); i++) {
        json_object_set(o, head[i], json_object_get(view, head[i]));
    }
    json_t *v = json_object_get(view, part);
    json_object_set(o, part, v ? v : json_null());
    return o;
}

/* ---- columns ---- */

static enum cli_role status_role(const json_t *row, const json_t *v)
{
    const char *s = json_string_value(v);
    return !s ? ROLE_DIM : strcmp(s, "low") == 0 ? ROLE_LOW : strcmp(s, "warning") == 0 ? ROLE_WARNING : ROLE_NONE;
}

static enum cli_role state_role(const json_t *row, const json_t *v)
{
    const char *s = json_string_value(v);
    return s && strcmp(s, "off") == 0 ? ROLE_DIM : ROLE_NONE;
}

static const char *show_move(const json_t *row, const json_t *v, char *buf, size_t size)
{
    char number[32];
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v)) {
        return "-";
    }
    snprintf(buf, size, "%c%s", n < 0 ? '-' : '+', format_size((uint64_t)(n < 0 ? -n : n), number, sizeof(number)));
    return buf;
}

/* "boot 31s": how long its driver has been there and silent. */
static const char *show_why(const json_t *row, const json_t *v, char *buf, size_t size)
{
    const json_t *ms = cli_json_path(row, "memory.boot_ms");
    const char *why = json_string_value(v);
    if (!why || strcmp(why, "boot") != 0 || !json_is_integer(ms)) {
        return NULL;
    }
    snprintf(buf, size, "boot %llds", (long long)(json_integer_value(ms) / 1000));
    return buf;
}

/* Minimum, maximum, buffer and priority mean nothing where memory is static. */
static const char *dynamic_only(const json_t *row, const json_t *v, char *buf, size_t size)
{
    if (!json_is_integer(v) || !json_is_true(cli_json_path(row, "memory.dynamic"))) {
        return "-";
    }
    return NULL;
}

/* "off: the guest powered off" in `vm show`. */
static const char *state_detail(const json_t *row, const json_t *v, char *buf, size_t size)
{
    const char *reason = json_string_value(json_object_get(row, "reason"));
    if (!json_is_string(v) || !reason || !*reason) {
        return NULL;
    }
    snprintf(buf, size, "%s: %s", json_string_value(v), reason);
    return buf;
}

#define TEXT CLI_UNIT_TEXT
#define SIZE CLI_UNIT_SIZE

static const struct cli_column vm_columns[] = {
    {"name", .cut = true, .help = "its name"},
    {"id", .help = "its GUID"},
    {"state", .detail = state_detail, .role = state_role, .help = "off starting running paused stopping"},
    {"reason", .cut = true, .help = "why it is off or in this state"},
    {"assigned", "memory.assigned", .unit = SIZE, .help = "memory it has"},
    {"demand", "memory.demand", .unit = SIZE, .help = "memory the guest needs, without the buffer"},
    {"status", "memory.status", .unit = CLI_UNIT_STATUS, .role = status_role, .help = "ok, low or warning"},
    {"change", "memory.change", .unit = SIZE, .help = "assigned now less what it was an hour ago"},
    {"cpu_pct", "processor.cpu_pct", "CPU", CLI_UNIT_PCT, .help = "share of its processors in use"},
    {"uptime_s", NULL, "UPTIME", CLI_UNIT_AGE_S, .help = "since it started"},
    {"cpus", "processor.cpus", .unit = CLI_UNIT_NUMBER, .help = "virtual processors"},
    {"startup", "memory.startup", .unit = SIZE, .help = "memory the guest boots with"},
    {"dynamic", "memory.dynamic", .unit = CLI_UNIT_SWITCH, .help = "dynamic memory"},
    {"min", "memory.min", .unit = SIZE, .show = dynamic_only, .help = "memory is never taken away below this"},
    {"max", "memory.max", .unit = SIZE, .show = dynamic_only, .help = "memory is never given above this"},
    {"engine", .help = "CPU engine asked for"},
    {"engine_in_use", .help = "CPU engine it runs on"},
    {"mitigations", .help = "who decides on mitigations (soft engine)"},
    {"kernel", "boot.kernel", .cut = true, .help = "Linux kernel booted directly"},
    {"kernel_version", "boot.kernel_version", .cut = true, .help = "what was booted"},
    {"initrd", "boot.initrd", .cut = true, .help = "initial RAM disk"},
    {"cmdline", "boot.cmdline", .cut = true, .help = "kernel command line"},
    {"host", .help = "with --all-hosts: which one"},
    {"groups", .help = "groups it is in"},
    {"on_start", .help = "what happens to it when the host starts"},
    {"start_delay_ms", .unit = CLI_UNIT_NUMBER, .help = "how long after the host's start that happens, in milliseconds"},
    {"on_stop", .help = "what happens to it when the host stops"},
    {"hyperv", .unit = CLI_UNIT_SWITCH, .help = "the guest sees the Hyper-V interface"},
    {"lock", .unit = CLI_UNIT_SWITCH, .help = "remove and turn-off are refused"},
    {"transient", .unit = CLI_UNIT_SWITCH, .help = "gone when it ends (vm run)"},
    {"pid", .unit = CLI_UNIT_NUMBER, .help = "process of its worker"},
    {"notes", .cut = true, .help = "free text"},
    {0},
};
const struct cli_columns view_vm_columns = {
    .col = vm_columns, .defaults = "name,state,assigned,demand,status,cpu_pct,uptime_s", .sort = "name", .xml = true,
};

static const struct cli_column memory_columns[] = {
    {"name", .cut = true, .help = "the VM"},
    {"state", .role = state_role, .help = "off starting running paused stopping"},
    {"dynamic", "memory.dynamic", .unit = CLI_UNIT_SWITCH, .help = "does the balancer move its memory"},
    {"assigned", "memory.assigned", .unit = SIZE, .help = "memory it has"},
    {"demand", "memory.demand", .unit = SIZE, .help = "memory the guest needs, without the buffer"},
    {"buffer_now_pct", "memory.buffer_now_pct", "BUFFER", CLI_UNIT_PCT, .help = "what it has above its demand"},
    {"buffer_pct", "memory.buffer_pct", "WANT", CLI_UNIT_PCT, .show = dynamic_only, .help = "what it should have above its demand"},
    {"status", "memory.status", .unit = CLI_UNIT_STATUS, .role = status_role, .help = "ok, low or warning"},
    {"why", "memory.why", .show = show_why, .help = "what stands in the way or goes on: max host moving guest static"},
    {"startup", "memory.startup", .unit = SIZE, .help = "memory the guest boots with"},
    {"min", "memory.min", .unit = SIZE, .show = dynamic_only, .help = "memory is never taken away below this"},
    {"max", "memory.max", .unit = SIZE, .show = dynamic_only, .help = "memory is never given above this"},
    {"priority", "memory.priority", .unit = CLI_UNIT_NUMBER, .show = dynamic_only, .help = "who gets memory first, 0 to 100"},
    {"resident", "memory.resident", .unit = SIZE, .help = "memory the host holds for it"},
    {"balloon", "memory.balloon", .unit = SIZE, .help = "taken back by the balloon"},
    {"hot_added", "memory.hot_added", .unit = SIZE, .help = "given beyond startup"},
    {"change", "memory.change", .unit = SIZE, .help = "assigned now less what it was an hour ago"},
    {"pressure_pct", "memory.pressure_pct", "PRESSURE", CLI_UNIT_PCT, .help = "demand in per cent of assigned"},
    {"demand_source", "memory.demand_source", .help = "how demand is worked out"},
    {"visible", "memory.visible", .help = "what the guest sees at boot: startup max"},
    {"visible_now", "memory.visible_now", .unit = SIZE, .help = "what the guest sees, balloon included"},
    {"paging_in_use", "memory.paging_in_use", "PAGING", CLI_UNIT_SWITCH, .help = "a part of its memory is on disk since it restarted"},
    {"paged", "memory.paged", .unit = SIZE, .help = "how much of it"},
    {"smart_paging", "memory.smart_paging", .help = "folder for that, or none"},
    {"target", "memory.balancer_target", .unit = SIZE, .help = "what the balancer wants it to have"},
    {"operation", "memory.operation", .help = "what goes on in the guest: idle balloon unballoon hot-add"},
    {"last_move", "memory.last_move.bytes", .unit = CLI_UNIT_NUMBER, .show = show_move, .help = "what was moved last"},
    {"last_move_op", "memory.last_move.op", .help = "how"},
    {"last_move_ms", "memory.last_move.took_ms", .unit = CLI_UNIT_NUMBER, .help = "how long the guest took, in milliseconds"},
    {"can_balloon", "memory.can_balloon", .unit = CLI_UNIT_SWITCH, .help = "the guest can give memory back"},
    {"can_hot_add", "memory.can_hot_add", .unit = CLI_UNIT_SWITCH, .help = "the guest can take more than it booted with"},
    {"committed", "memory.guest.committed", .unit = SIZE, .help = "committed in the guest"},
    {"available", "memory.guest.available", .unit = SIZE, .help = "available in the guest"},
    {0},
};
const struct cli_columns view_memory_columns = {
    .col = memory_columns,
    .defaults = "name,dynamic,assigned,demand,buffer_now_pct,buffer_pct,status,why,startup,min,max,priority",
    .sort = "name", .xml = true,
};
