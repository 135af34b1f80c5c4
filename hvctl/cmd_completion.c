/* completion: the completion file of a shell, as installed. */
#include <stdio.h>

#include "hvctl/hvctl.h"

/* The files themselves, so that there is one text of each. Paths are from the top of the tree. */
#define EMBED(name, path)                                                             \
    extern const char name[], name##_end[];                                           \
    __asm__(".section .rodata\n.global " #name "\n" #name ":\n.incbin \"" path "\"\n" \
            ".global " #name "_end\n" #name "_end:\n.byte 0\n.previous\n")
EMBED(completion_bash, "completions/hvctl.bash");
EMBED(completion_zsh, "completions/_hvctl");
EMBED(completion_fish, "completions/hvctl.fish");

static int completion(struct cli_call *c, struct hv_error *e)
{
    const char *shell = c->args[0], *from, *to;
    if (strcmp(shell, "bash") == 0) {
        from = completion_bash;
        to = completion_bash_end;
    } else if (strcmp(shell, "zsh") == 0) {
        from = completion_zsh;
        to = completion_zsh_end;
    } else {
        from = completion_fish;
        to = completion_fish_end;
    }
    fwrite(from, 1, (size_t)(to - from), c->out);
    return 0;
}

static const struct cli_arg shells[] = {{"SHELL", CLI_ENUM, .values = "bash|zsh|fish", .help = "bash, zsh or fish"}, {0}};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command completion_commands[] = {
    {.noun = "completion", .help = "print the completion file of a shell", .args = shells, .run = completion,
     .examples = EXAMPLES({"hvctl completion bash > /etc/bash_completion.d/hvctl", "for everybody"})},
    {0},
};
