/* The completion files of the shells: one text for all tools, with the tool's name in it. */
#include <stdio.h>
#include <string.h>

#include "hv/cli/call.h"

/* The files themselves, so that there is one text of each. Paths are from the top of the tree. */
#define EMBED(name, path)                                                             \
    extern const char name[], name##_end[];                                           \
    __asm__(".section .rodata\n.global " #name "\n" #name ":\n.incbin \"" path "\"\n" \
            ".global " #name "_end\n" #name "_end:\n.byte 0\n.previous\n")
EMBED(completion_bash, "completions/hvctl.bash");
EMBED(completion_zsh, "completions/_hvctl");
EMBED(completion_fish, "completions/hvctl.fish");

#define WRITTEN_FOR "hvctl"

void cli_print_completion(const struct cli_tool *tool, const char *shell, FILE *out)
{
    const char *from = strcmp(shell, "bash") == 0 ? completion_bash
                       : strcmp(shell, "zsh") == 0 ? completion_zsh : completion_fish;

    for (const char *next; (next = strstr(from, WRITTEN_FOR)); from = next + strlen(WRITTEN_FOR)) {
        fwrite(from, 1, (size_t)(next - from), out);
        fputs(tool->name, out);
    }
    fputs(from, out);
}

int cli_completion(struct cli_call *c, struct hv_error *e)
{
    (void)e;
    cli_print_completion(c->tool, c->args[0], c->out);
    return 0;
}
