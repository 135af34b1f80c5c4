/*
 * A pager between us and a terminal, for output that is read rather than used.
 */
#include "hv/cli/call.h"

#include <stdio.h>

bool cli_pager_begin(struct cli_call *c)
{
    const char *pager = getenv("HV_PAGER");
    if (!pager || !*pager) {
        pager = getenv("PAGER");
    }
    if (!pager || !*pager) {
        pager = "less";
    }
    if (!c->tty_out || c->batch || c->no_pager || strcmp(pager, "cat") == 0) {
        return false;
    }
    /* less leaves by itself what fits on one screen, and lets colours through. */
    setenv("LESS", "FRX", 0);
    fflush(c->out);
    FILE *f = popen(pager, "w");
    if (!f) {
        return false;
    }
    c->out = f;
    return true;
}

void cli_pager_end(struct cli_call *c, bool begun)
{
    if (begun) {
        pclose(c->out);             /* one that was left early is no failure of ours */
        c->out = stdout;
    }
}
