/* How far a long thing is: one line on a terminal that is written over, wiped at the end. */
#include <stdio.h>
#include <string.h>

#include "vhdtool/vhdtool.h"

void progress_begin(struct progress *p, const struct cli_call *c, const char *object)
{
    const char *when = cli_text(c, "progress", "auto");

    *p = (struct progress){
        .call = c, .object = object, .started_ns = hv_now_ns(), .shown_pct = -1,
        .enabled = !c->quiet && (strcmp(when, "always") == 0 || (strcmp(when, "auto") == 0 && c->tty_err && !c->batch)),
    };
    if (strcmp(when, "always") == 0) {
        p->started_ns = 0;               /* at once */
    }
}

void progress_update(void *arg, uint64_t done, uint64_t total)
{
    struct progress *p = arg;
    uint64_t now;
    int pct;

    if (!p->enabled || total == 0) {
        return;
    }
    pct = (int)(MIN(done, total) / (total / 100 ? total / 100 : 1));
    pct = MIN(pct, 100);
    now = hv_now_ns();
    if (pct == p->shown_pct || now - p->started_ns < NS_PER_SEC || now - p->shown_ns < 100 * NS_PER_MS) {
        return;
    }
    p->shown_pct = pct;
    p->shown_ns = now;
    if (p->call->tty_err) {
        fprintf(p->call->err, "\r%s: %3d%%", p->object, pct);
    } else {
        fprintf(p->call->err, "%s: %d%%\n", p->object, pct);
    }
    fflush(p->call->err);
}

void progress_end(struct progress *p)
{
    if (p->enabled && p->shown_pct >= 0 && p->call->tty_err) {
        fprintf(p->call->err, "\r\033[K");
        fflush(p->call->err);
    }
    p->enabled = false;
}
