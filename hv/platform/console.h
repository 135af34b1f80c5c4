/*
 * What a serial port says and hears, between the guest's vCPU and whoever looks on.
 *
 *   UART THR ──put──▶ ring of the last 256 KiB ──read by position──▶ any number of readers
 *   UART RBR ◀─take── queue of 4 KiB ◀──────────console_input────── whoever types
 *
 * Positions are absolute: bytes since power-on. A reader keeps its own, so a slow one
 * only loses its oldest bytes (and is told how many); it never holds up the guest.
 */
#ifndef HV_PLATFORM_CONSOLE_H
#define HV_PLATFORM_CONSOLE_H

#include "hv/base/loop.h"
#include "hv/base/save.h"

#define CONSOLE_RING_SIZE  ((size_t)256 * 1024)   /* output kept; a power of two */
#define CONSOLE_QUEUE_SIZE 4096u                  /* characters typed ahead; a power of two */

struct console;

/*
 * Somebody to wake. The struct is the caller's and lives until it is removed. Both
 * functions run on the loop's thread and may be NULL; either may add or remove watchers.
 */
struct console_watch {
    void (*output)(void *arg);   /* output arrived since the last call; coalesced to once a loop turn */
    void (*room)(void *arg);     /* console_input() had refused something and would take more now */
    void *arg;
    struct console_watch *next;  /* the console's */
};

int console_new(struct loop *loop, struct console **ret);
/* Loop thread, or after the loop has stopped. Watchers still there are forgotten. */
void console_free(struct console *c);

/* Loop thread. */
void console_watch(struct console *c, struct console_watch *w);
void console_unwatch(struct console *c, struct console_watch *w);   /* no-op if it is not there */

/* The position after the newest byte, and of the oldest one still kept. Any thread. */
uint64_t console_end(struct console *c);
uint64_t console_start(struct console *c);

/*
 * Copy out what there is from *pos on, at most len bytes into buf, and move *pos past
 * it. A *pos before the oldest byte kept skips to that one and adds the gap to
 * *ret_lost (which may be NULL); one past the end is set to the end. Returns the bytes
 * copied: 0 if there is nothing new. Any thread.
 */
size_t console_read(struct console *c, uint64_t *pos, void *buf, size_t len, uint64_t *ret_lost);

/*
 * Type buf[len]. Returns how many bytes the queue took, in order; if fewer than len, the
 * watchers' `room` says when to come back with the rest. Any thread without device locks.
 */
size_t console_input(struct console *c, const void *buf, size_t len);
/* Type a break (the guest's sysrq). False if the queue is full; as above. */
bool console_break(struct console *c);

/* ---- the device's side; any thread ---- */

/* Called by console_input() once something was queued, on its thread, console unlocked. */
void console_set_device(struct console *c, void (*ready)(void *dev), void *dev);
/* Output: copies and posts at most once a loop turn; never waits for a reader. */
void console_put(struct console *c, const void *buf, size_t len);

#define CONSOLE_BREAK 0x100
/* The next character typed, CONSOLE_BREAK, or -1 if there is none. */
int console_take(struct console *c);

/* The typed-ahead queue belongs to the machine's state; output already given is history. */
void console_save(struct console *c, struct save_writer *w);
int console_load(struct console *c, struct load_section *s);
/* Forget what was typed and not yet read. */
void console_flush_input(struct console *c);

#endif
