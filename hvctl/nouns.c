/*
 * All nouns of the grammar. Those without commands are not in this version (rule 11).
 */
#include "hvctl/hvctl.h"

#include "hvctl/names.h"

static const struct cli_noun nouns[] = {
    {"vm", NULL, "virtual machines", vm_commands, .default_verb = "list"},
    {"processor", "cpu", "their processors", processor_commands, .default_verb = "list", .target_verb = "show"},
    {"memory", NULL, "their memory", memory_commands, .default_verb = "list", .target_verb = "show"},
    {"disk", NULL, "virtual disks", disk_commands, .default_verb = "list"},
    {"dvd", NULL, "virtual DVD drives", dvd_commands, .default_verb = "list"},
    {"integration", NULL, "integration services", integration_commands, .default_verb = "list", .target_verb = "list"},
    {"guest", NULL, "what the guest tells, and files for it", guest_commands, .target_verb = "show"},
    {"metering", NULL, "what virtual machines have used", metering_commands, .default_verb = "show", .target_verb = "show"},
    {"group", NULL, "names that stand for several virtual machines", group_commands, .default_verb = "list"},
    {"host", NULL, "this host", host_commands, .default_verb = "show"},
    {"job", NULL, "operations that take time", job_commands, .default_verb = "list"},
    {"events", NULL, "what happens, as it happens", events_commands},
    {"get", NULL, "settings as a document", get_commands},
    {"diff", NULL, "how the host differs from a document", diff_commands},
    {"apply", NULL, "make the host match a document", apply_commands},
    {"edit", NULL, "settings in an editor", edit_commands},
    {"completion", NULL, "print the completion file of a shell", completion_commands},
    {"help", NULL, "the manual page of a command", help_commands},
    {"shell", NULL, "the interactive shell, and scripts", shell_commands},
    {"bridge", NULL, "join stdin and stdout to the service", bridge_commands},
    {"net", "nic", "network adapters"},
    {"switch", NULL, "virtual switches"},
    {"checkpoint", "snapshot", "checkpoints"},
    {"firmware", NULL, "what a virtual machine boots from"},
    {"com", NULL, "serial ports"},
    {"replication", NULL, "replication to another host"},
    {"wmi", NULL, "the WMI endpoint"},
    {"access", NULL, "who may use a virtual machine"},
    {0},
};

const struct cli_tool hvctl_tool = {
    .name = "hvctl",
    .help = "manage virtual machines",
    .nouns = nouns,
    .default_noun = "vm",
    .bare = "shell",
    .later_hint = "man hv-from-hyperv",
    .complete = names_complete,
};
