/*
 * The escape key of the console: a small machine fed with what is typed. It knows no terminal
 * and no socket (specs/operator-surface, section 5).
 */
#ifndef HVCTL_ESCAPE_H
#define HVCTL_ESCAPE_H

#include "hv/base/base.h"

enum escape_act {
    ESCAPE_PASS,         /* give the byte to the guest */
    ESCAPE_OPEN,         /* show the line with the keys */
    ESCAPE_KEEP,         /* the line stays as it is */
    ESCAPE_CLOSE,        /* take the line away */
    ESCAPE_DETACH,
    ESCAPE_SEND_KEY,     /* close, and send the escape key itself */
    ESCAPE_HELP,
    ESCAPE_LOG,
    ESCAPE_RESIZE,       /* tell the guest the size of this terminal */
    ESCAPE_LATER,        /* break, SysRq: the answer is "not in this version" */
};

struct escape {
    unsigned char key;   /* 0: no key is special */
    bool open;
    unsigned presses;
    uint64_t first_ns;   /* of the presses that count together */
};

/* Three presses within this time detach at once. */
#define ESCAPE_WINDOW_NS NS_PER_SEC

/* One byte typed at now_ns (monotonic): what to do. */
enum escape_act escape_feed(struct escape *e, unsigned char byte, uint64_t now_ns);

#endif
