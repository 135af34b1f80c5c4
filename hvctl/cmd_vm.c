/* The noun vm: its table. What the verbs do is in vm_*.c. */
#include "hvctl/console.h"
#include "hvctl/hvctl.h"

#define LATER(noun_, verb_, help_) {.noun = noun_, .verb = verb_, .help = help_}

static const struct cli_arg vms[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OR_ALL, .help = "name, GUID, @GROUP, or a glob in quotes"}, {0}};
static const struct cli_arg vms_off[] = {
    {"VM", CLI_VM_OFF, CLI_REPEAT | CLI_OR_ALL, .help = "name, GUID, @GROUP, or a glob in quotes"}, {0}};
static const struct cli_arg vms_running[] = {
    {"VM", CLI_VM_RUNNING, CLI_REPEAT | CLI_OR_ALL, .help = "name, GUID, @GROUP, or a glob in quotes"}, {0}};
static const struct cli_arg vms_optional[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OPTIONAL, .help = "only these; names, GUIDs, @GROUP, globs in quotes"}, {0}};
static const struct cli_arg new_name[] = {
    {"NAME", CLI_NAME, .help = "1 to 100 characters, no /, not starting with - or @"}, {0}};
static const struct cli_arg run_name[] = {
    {"NAME", CLI_NAME, CLI_OPTIONAL, .help = "its name; made up if left out"}, {0}};
static const struct cli_arg vm_and_name[] = {
    {"VM", CLI_VM, .help = "name or GUID"}, {"NEW", CLI_NAME, .help = "1 to 100 characters, no /, not starting with - or @"}, {0}};
static const struct cli_arg one_running[] = {{"VM", CLI_VM_RUNNING, .help = "a running VM"}, {0}};

/* What a new VM is made of: the same for create and run. */
#define NEW_VM_OPTIONS                                                                                            \
    {.name = "memory", .type = CLI_SIZE, .arg = "SIZE", .def = "1G", .key = "memory.startup",                     \
     .help = "memory it boots with, a multiple of 2M"},                                                           \
    {.name = "min", .type = CLI_SIZE_REL, .arg = "SIZE", .key = "memory.min",                                     \
     .help = "never less than this; turns dynamic memory on"},                                                    \
    {.name = "max", .type = CLI_SIZE_REL, .arg = "SIZE", .key = "memory.max",                                     \
     .help = "never more than this; turns dynamic memory on"},                                                    \
    {.name = "buffer", .type = CLI_PERCENT, .arg = "PCT", .min = 5, .max = 2000, .def = "20",                     \
     .key = "memory.buffer_pct", .help = "head-room above demand; turns dynamic memory on"},                      \
    {.name = "cpus", .type = CLI_UINT, .arg = "N", .min = 1, .max = 64, .def = "1", .key = "processor.cpus",      \
     .help = "virtual processors"},                                                                               \
    {.name = "kernel", .type = CLI_FILE, .arg = "PATH", .values = "*", .key = "boot.kernel",                      \
     .help = "Linux kernel to boot directly: a bzImage or an ELF file"},                                          \
    {.name = "initrd", .type = CLI_FILE, .arg = "PATH", .values = "*", .key = "boot.initrd",                      \
     .help = "initial RAM disk for the kernel"},                                                                  \
    {.name = "cmdline", .type = CLI_STRING, .arg = "TEXT", .key = "boot.cmdline",                                 \
     .help = "kernel command line"},                                                                              \
    {.name = "notes", .type = CLI_STRING, .arg = "TEXT", .key = "notes", .help = "free text about it"},           \
    {.name = "engine", .type = CLI_ENUM, .arg = "ENGINE", .values = "auto|kvm|soft",                              \
     .def = "auto", .key = "engine", .help = "CPU engine: auto, kvm (the CPU's own), soft (in software)"},        \
    {.name = "mitigations", .type = CLI_ENUM, .arg = "WHO", .values = "fast|guest", .def = "fast",                \
     .key = "mitigations",                                                                                        \
     .help = "soft engine: fast tells the guest it needs none, guest lets it decide"},                            \
    {.name = "like", .type = CLI_VM, .arg = "VM", .help = "copy the settings of VM, never its disks"},            \
    {.name = "disk", .type = CLI_FILE, .flags = CLI_REPEAT, .arg = "PATH",                                        \
     .values = "*.vhdx|*.vhd|*.avhdx|*.avhd|*.raw|*.img", .help = "a disk, scsi0:0 and on; more than once for more"}, \
    {.name = "format", .type = CLI_ENUM, .arg = "FORMAT", .values = "raw|vhd|vhdx",                               \
     .help = "take the file for this format: raw, vhd or vhdx"},                                                  \
    {.name = "new-disk", .type = CLI_SIZE, .arg = "SIZE", .help = "a new dynamic disk, NAME.vhdx in the host's disk path"},      \
    {.name = "parent", .type = CLI_FILE, .arg = "BASE", .values = "*.vhdx|*.vhd|*.avhdx|*.avhd|*.raw|*.img",                       \
     .help = "a differencing disk: what is not written is BASE's"},   \
    {.name = "dvd", .type = CLI_FILE, .arg = "PATH", .values = "*.iso", .help = "a DVD drive with this in it"},   \
    {.name = "seed", .type = CLI_FILE, .arg = "USER-DATA", .values = "*", .help = "a DVD drive with this for cloud-init"},      \
    {.name = "net", .type = CLI_SWITCH_NAME, .flags = CLI_LATER | CLI_REPEAT, .arg = "SWITCH",                    \
     .help = "a network adapter on SWITCH"},                                                                      \
    {.name = "no-net", .type = CLI_BOOL, .flags = CLI_LATER, .help = "no network adapter"},                       \
    {.name = "publish", .type = CLI_STRING, .flags = CLI_LATER | CLI_REPEAT, .arg = "HOSTPORT:GUESTPORT",         \
     .help = "a port of the host that leads to the guest"},                                                       \
    {.name = "firmware", .type = CLI_ENUM, .flags = CLI_LATER, .arg = "KIND",                                     \
     .values = "auto|direct|bios|uefi", .help = "what it boots with"},                                            \
    {.name = "boot-order", .type = CLI_LIST, .flags = CLI_LATER, .arg = "LIST", .values = "disk|dvd|net",         \
     .help = "what is tried first"},                                                                              \
    {.name = "group", .type = CLI_GROUP, .arg = "G", .help = "put it into this group"},       \
    {.name = "vm-path", .type = CLI_DIR, .flags = CLI_LATER, .arg = "DIR", .help = "where its files go"}

static const struct cli_option show_options[] = {
    {.name = "settings", .type = CLI_BOOL, .help = "only what was set"},
    {.name = "state", .type = CLI_BOOL, .help = "only what it is now"},
    {0},
};
static const struct cli_option list_options[] = {
    {.name = "all-hosts", .type = CLI_BOOL, .help = "of every host that has a name in hv-hosts(5)"}, {0}};
static const struct cli_option create_options[] = {
    NEW_VM_OPTIONS,
    {.name = "if-missing", .type = CLI_BOOL, .help = "do nothing if there is one of that name"},
    {.name = "start", .type = CLI_BOOL, .help = "start it"},
    {.name = "console", .type = CLI_BOOL, .help = "start it and attach its console"},
    {0},
};
static const struct cli_option run_options[] = {
    NEW_VM_OPTIONS,
    {.name = "no-reboot", .type = CLI_BOOL, .help = "a reboot by the guest ends it as a power-off does"},
    CONSOLE_OPTIONS,
    {0},
};
static const struct cli_option start_options[] = {
    {.name = "paused", .type = CLI_BOOL, .help = "stop before the first instruction; vm resume goes on"},
    {.name = "console", .type = CLI_BOOL, .help = "attach its console"},
    {0},
};
static const struct cli_option stop_options[] = {
    {.name = "turn-off", .type = CLI_BOOL, .help = "pull the plug; asks first"},
    {.name = "then", .type = CLI_ENUM, .arg = "WHAT", .values = "turn-off|save", .later = "save",
     .help = "what to do at the timeout: turn-off"},
    {.name = "force", .type = CLI_BOOL, .help = "guest applications cannot refuse"},
    {.name = "save", .type = CLI_BOOL, .flags = CLI_LATER, .help = "save its state"},
    {0},
};
static const struct cli_option restart_options[] = {
    {.name = "reset", .type = CLI_BOOL, .help = "the reset line, not the guest's own reboot; asks first"}, {0}};
static const struct cli_option wait_options[] = {
    {.name = "for", .type = CLI_COND, .arg = "COND", .def = "running", .later = CONDITIONS_LATER,
     .help = "running, off, paused, heartbeat, ip, kvp:KEY, kvp:KEY=VALUE, memory-ok or console:TEXT"},
    {0},
};
static const struct cli_option set_options[] = {
    {.name = "notes", .type = CLI_STRING, .arg = "TEXT", .flags = CLI_NONE_DEFAULT, .key = "notes",
     .help = "free text about it; none clears it"},
    {.name = "mitigations", .type = CLI_ENUM, .arg = "WHO", .flags = CLI_NONE_DEFAULT, .values = "fast|guest",
     .key = "mitigations", .help = "soft engine: who decides on mitigations against speculation"},
    {.name = "on-start", .type = CLI_ENUM, .arg = "WHAT", .flags = CLI_NONE_DEFAULT, .values = "nothing|resume|start",
     .key = "on_start", .help = "when the host starts; resume: if it was running"},
    {.name = "start-delay", .type = CLI_DURATION, .flags = CLI_NONE_DEFAULT, .arg = "DURATION", .key = "start_delay_ms",
     .help = "how long after the host's start"},
    {.name = "on-stop", .type = CLI_ENUM, .arg = "WHAT", .flags = CLI_NONE_DEFAULT,
     .values = "shutdown|save|turn-off", .later = "save", .key = "on_stop", .help = "when the host stops"},
    {.name = "hyperv", .type = CLI_SWITCH, .arg = "on|off", .key = "hyperv",
     .help = "show the guest the Hyper-V interface and its devices (on)"},
    {.name = "lock", .type = CLI_SWITCH, .arg = "on|off", .key = "lock", .help = "refuse remove and turn-off"},
    {.name = "kernel", .type = CLI_FILE, .arg = "PATH", .flags = CLI_NONE_DEFAULT, .values = "*",
     .key = "boot.kernel", .help = "Linux kernel to boot directly"},
    {.name = "initrd", .type = CLI_FILE, .arg = "PATH", .flags = CLI_NONE_DEFAULT, .values = "*",
     .key = "boot.initrd", .help = "initial RAM disk for the kernel"},
    {.name = "cmdline", .type = CLI_STRING, .arg = "TEXT", .flags = CLI_NONE_DEFAULT, .key = "boot.cmdline",
     .help = "kernel command line"},
    {.name = "test-device", .type = CLI_SWITCH, .arg = "on|off", .key = "boot.test_device",
     .help = "give test kernels the ports by which they end"},
    {.name = "now", .type = CLI_BOOL, .help = "fail unless all of it takes effect at once"},
    {.name = "next-start", .type = CLI_BOOL, .help = "only store it"},
    {.name = "on-critical", .type = CLI_ENUM, .flags = CLI_LATER, .arg = "WHAT", .values = "pause|none",
     .help = "when its disk fails"},
    {.name = "critical-timeout", .type = CLI_DURATION, .flags = CLI_LATER, .arg = "DURATION", .help = "for how long"},
    {.name = "checkpoint-type", .type = CLI_ENUM, .flags = CLI_LATER, .arg = "TYPE",
     .values = "production|production-only|standard|disabled", .help = "kind of its checkpoints"},
    {0},
};
static const struct cli_elsewhere set_elsewhere[] = {
    {"cpus", "processor set", "cpus"}, {"memory", "memory set", "startup"}, {"startup", "memory set", "startup"}, {"min", "memory set", "min"},
    {"max", "memory set", "max"}, {"buffer", "memory set", "buffer"}, {"priority", "memory set", "priority"}, {0},
};
static const struct cli_option remove_options[] = {
    {.name = "if-exists", .type = CLI_BOOL, .help = "a VM that is not there is no error"},
    {.name = "disks", .type = CLI_BOOL, .help = "delete disks only it uses; without it they are left, and named"},
    {0},
};
static const struct cli_option console_options_table[] = {
    CONSOLE_OPTIONS,
    {.name = "no-history", .type = CLI_BOOL, .help = "do not show what was kept of the output so far"},
    {.name = "take-over", .type = CLI_BOOL, .help = "become the one who writes"},
    {.name = "com", .type = CLI_UINT, .flags = CLI_LATER, .arg = "N", .help = "another serial port"},
    {0},
};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command vm_commands[] = {
    {.noun = "vm", .verb = "list", .help = "list virtual machines", .args = vms_optional, .options = list_options,
     .use = CLI_USE_LIST | CLI_USE_WATCH, .columns = &view_vm_columns, .codes = CODE(NOT_FOUND), .run = vm_list,
     .examples = EXAMPLES({"hvctl list", "every VM"}, {"hvctl list -F state=running -o name", "names for a loop"},
                          {"hvctl list -c +engine_in_use -s -assigned", "one column more, largest first"})},
    {.noun = "vm", .verb = "show", .help = "show settings and state of virtual machines", .args = vms,
     .options = show_options, .use = CLI_USE_LIST | CLI_USE_TARGETS, .columns = &view_vm_columns,
     .codes = CODE(NOT_FOUND), .run = vm_show,
     .examples = EXAMPLES({"hvctl show web1", "all there is to know"}, {"hvctl show web1 -o json", "for a program"})},
    {.noun = "vm", .verb = "create", .help = "create a virtual machine", .args = new_name, .options = create_options,
     .use = CLI_USE_DRY | CLI_USE_JOB, .columns = &view_vm_columns,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(NO_RESOURCES) | CODE(UNSUPPORTED), .run = vm_create,
     .examples = EXAMPLES({"hvctl create web1 --memory 1G --kernel vmlinuz --initrd initrd.img", "a VM that boots a kernel"},
                          {"hvctl create web2 --like web1 --start --console", "another like it"})},
    {.noun = "vm", .verb = "run", .help = "run a transient virtual machine with its console here", .args = run_name,
     .options = run_options, .columns = &view_vm_columns,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(NO_RESOURCES) | CODE(UNSUPPORTED), .run = vm_run,
     .examples = EXAMPLES({"hvctl run --kernel vmlinuz --initrd initrd.img --cmdline console=ttyS0", "until it powers off"},
                          {"hvctl run --kernel k --initrd i --no-reboot --until '^login:' -t 2m", "a test: does it boot"})},
    {.noun = "vm", .verb = "start", .help = "start virtual machines", .args = vms_off, .options = start_options,
     .use = CLI_USE_TARGETS | CLI_USE_DRY | CLI_USE_JOB | CLI_USE_WAIT, .columns = &view_vm_columns,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(NO_RESOURCES) | CODE(UNSUPPORTED) | CODE(PARTIAL),
     .run = vm_start,
     .examples = EXAMPLES({"hvctl start web1 --console", "and watch it boot"}, {"hvctl start 'web*'", "several at once"},
                          {"hvctl start --all --dry-run", "would they all fit, with what they need"},
                          {"hvctl start web1 --wait=console:login -t 90s", "until it is up"})},
    {.noun = "vm", .verb = "stop", .help = "shut virtual machines down, or turn them off", .args = vms_running,
     .options = stop_options, .use = CLI_USE_TARGETS | CLI_USE_JOB | CLI_USE_ASK, .columns = &view_vm_columns,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(PARTIAL), .run = vm_stop,
     .examples = EXAMPLES({"hvctl stop web1", "ask the guest, wait two minutes"},
                          {"hvctl stop --all --then turn-off -t 1m", "all of them, whatever they say"},
                          {"hvctl stop web1 --turn-off --yes", "pull the plug"})},
    {.noun = "vm", .verb = "restart", .help = "reboot virtual machines", .args = vms_running,
     .options = restart_options, .use = CLI_USE_TARGETS | CLI_USE_JOB | CLI_USE_WAIT | CLI_USE_ASK,
     .columns = &view_vm_columns, .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(PARTIAL),
     .run = vm_restart,
     .examples = EXAMPLES({"hvctl restart web1 --wait=heartbeat", "ask the guest, and until it is up again"},
                          {"hvctl restart web1 --reset --yes", "press the reset button"})},
    {.noun = "vm", .verb = "pause", .help = "stop the processors of virtual machines", .args = vms_running,
     .use = CLI_USE_TARGETS | CLI_USE_JOB, .columns = &view_vm_columns,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(PARTIAL), .run = vm_pause,
     .examples = EXAMPLES({"hvctl pause web1", "it keeps its memory"})},
    {.noun = "vm", .verb = "resume", .help = "let paused virtual machines go on", .args = vms,
     .use = CLI_USE_TARGETS | CLI_USE_JOB, .columns = &view_vm_columns,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(PARTIAL), .run = vm_resume,
     .examples = EXAMPLES({"hvctl resume web1", "from where it was"})},
    {.noun = "vm", .verb = "wait", .help = "wait until something holds for virtual machines", .args = vms,
     .options = wait_options, .use = CLI_USE_TARGETS, .columns = &view_vm_columns,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(PARTIAL), .run = vm_wait,
     .examples = EXAMPLES({"hvctl wait web1 --for off -t 5m", "until it has ended"},
                          {"hvctl wait web1 --for 'console:login:'", "until it asks for a name"})},
    {.noun = "vm", .verb = "set", .help = "change settings that belong to no other noun", .args = vms,
     .options = set_options, .elsewhere = set_elsewhere, .use = CLI_USE_TARGETS | CLI_USE_DRY,
     .columns = &view_vm_columns, .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(PARTIAL),
     .run = vm_set,
     .examples = EXAMPLES({"hvctl set web1 --notes 'ask Ann before stopping it' --lock on", "hands off"})},
    {.noun = "vm", .verb = "remove", .help = "remove virtual machines", .args = vms_off,
     .options = remove_options, .use = CLI_USE_TARGETS | CLI_USE_DRY | CLI_USE_ASK, .columns = &view_vm_columns,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(PARTIAL), .run = vm_remove,
     .examples = EXAMPLES({"hvctl remove web1 --yes --if-exists", "in a script that may run twice; its disks stay"},
                          {"hvctl remove web1 --disks", "and the disks that only it uses, after asking"})},
    {.noun = "vm", .verb = "rename", .help = "give a virtual machine another name", .args = vm_and_name,
     .use = CLI_USE_DRY, .columns = &view_vm_columns, .codes = CODE(NOT_FOUND) | CODE(CONFLICT), .run = vm_rename,
     .examples = EXAMPLES({"hvctl rename web1 www", "running or off; its disks keep their names"})},
    {.noun = "vm", .verb = "console", .help = "join this terminal to the serial port of a virtual machine",
     .args = one_running, .options = console_options_table, .columns = &view_vm_columns,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT), .run = vm_console,
     .examples = EXAMPLES({"hvctl console web1", "^]q leaves"},
                          {"hvctl console web1 --send uptime --until 'load average' -t 30s", "one command, one answer"})},
    {.noun = "vm", .verb = "stats", .help = "one sample of the counters of virtual machines", .args = vms,
     .use = CLI_USE_LIST | CLI_USE_WATCH | CLI_USE_TARGETS, .columns = &vm_stats_columns, .codes = CODE(NOT_FOUND),
     .run = vm_stats,
     .examples = EXAMPLES({"hvctl stats --all --watch -o jsonl", "a feed for a monitor"})},
    LATER("vm", "save", "save the state and stop"),
    LATER("vm", "discard", "drop a saved state"),
    LATER("vm", "clone", "copy a virtual machine"),
    LATER("vm", "export", "copy a virtual machine into a folder"),
    LATER("vm", "import", "take a virtual machine from a folder"),
    LATER("vm", "move", "move a virtual machine to another host"),
    LATER("vm", "screenshot", "a picture of the screen"),
    LATER("vm", "nmi", "send a non-maskable interrupt"),
    LATER("vm", "key", "press keys"),
    {0},
};
