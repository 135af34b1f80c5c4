/* completion: the completion file of a shell, as installed. */
#include "vhdtool/vhdtool.h"

static const struct cli_arg shells[] = {{"SHELL", CLI_ENUM, .values = "bash|zsh|fish", .help = "bash, zsh or fish"}, {0}};

const struct cli_command completion_commands[] = {
    {.noun = "completion", .help = "print the completion file of a shell", .args = shells, .run = cli_completion,
     .examples = EXAMPLES({"vhdtool completion bash > /etc/bash_completion.d/vhdtool", "for everybody"})},
    {0},
};
