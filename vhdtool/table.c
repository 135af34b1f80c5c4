/* All commands of the grammar. Those without an entry are not in this version (rule 11). */
#include "vhdtool/vhdtool.h"

static const struct cli_noun nouns[] = {
    {"create", NULL, "make a new disk", create_commands},
    {"info", NULL, "what a disk is", info_commands},
    {"check", NULL, "look for damage", check_commands},
    {"repair", NULL, "put right what can be", repair_commands},
    {"convert", NULL, "copy into another format", convert_commands},
    {"resize", NULL, "grow or shrink", resize_commands},
    {"compact", NULL, "give back room", compact_commands},
    {"merge", NULL, "write a child's changes into its parent", merge_commands},
    {"diff", NULL, "compare two disks", diff_commands},
    {"chain", NULL, "parents of a differencing disk", chain_commands},
    {"set", NULL, "identifier and sector size", set_commands},
    {"map", NULL, "where the data is", map_commands},
    {"completion", NULL, "print the completion file of a shell", completion_commands},
    {"mount", NULL, "show a disk as files", mount_commands},
    {"unmount", NULL, "end a mount", unmount_commands},
    {"mounts", NULL, "what is mounted", mounts_commands},
    {"ls", NULL, "list files in a disk", ls_commands},
    {"cat", NULL, "print a file of a disk", cat_commands},
    {"cp", NULL, "copy files into and out of a disk", cp_commands},
    {"build", NULL, "a disk from a root file system", build_commands},
    {"boot-prepare", NULL, "make a disk boot under hv"},
    {"boot", NULL, "boot a disk"},
    {"seed", NULL, "a cloud-init disk", seed_commands},
    {0},
};

const struct cli_tool vhdtool = {
    .name = "vhdtool",
    .help = "make, look at and change virtual disks",
    .nouns = nouns,
    .files_only = true,
    .later_hint = "man vhdtool",
};
