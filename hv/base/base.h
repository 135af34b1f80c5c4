/*
 * What every room may use: fixed-width types, small macros, checked structs,
 * assertions that stay on in all builds, and scope-bound clean-up.
 */
#ifndef HV_BASE_H
#define HV_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/base/banned.h"

/* A guest physical address. Never a bare integer in an interface. */
typedef uint64_t gpa_t;

#define HV_PAGE_SHIFT 12
#define HV_PAGE_SIZE  ((uint64_t)1 << HV_PAGE_SHIFT)
#define HV_PAGE_MASK  (~(HV_PAGE_SIZE - 1))

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)

#define NS_PER_MS  ((uint64_t)1000000)
#define NS_PER_SEC ((uint64_t)1000000000)

#define ARRAY_SIZE(a)      (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)          ((a) < (b) ? (a) : (b))
#define MAX(a, b)          ((a) > (b) ? (a) : (b))
#define ROUND_UP(x, to)    (((x) + ((to) - 1)) / (to) * (to))
#define ROUND_DOWN(x, to)  ((x) / (to) * (to))
#define CONTAINER_OF(p, type, member) ((type *)(void *)((char *)(p) - offsetof(type, member)))

#define HV_LIKELY(x)   __builtin_expect(!!(x), 1)
#define HV_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define HV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define HV_NORETURN __attribute__((noreturn))
#define HV_UNUSED   __attribute__((unused))

/*
 * Our own bug: prints the expression, place and process name on stderr and
 * aborts. On in every build. Never for what a guest, a file or a user can cause.
 */
#define hv_assert(expr) \
    (HV_LIKELY(expr) ? (void)0 : hv_assert_fail(#expr, __FILE__, __LINE__, __func__))
HV_NORETURN void hv_assert_fail(const char *expr, const char *file, int line, const char *func);

/*
 * Long-lived structs start with `uint32_t magic`; public entry points check it.
 * HV_CHECK(r, RING_MAGIC) aborts on a NULL, freed or foreign pointer.
 */
#define HV_CHECK(p, want) hv_assert((p) != NULL && (p)->magic == (want))

/* Scope-bound clean-up: `hv_autofree char *s = ...;` `hv_autoclose int fd = -1;` */
#define hv_cleanup(fn) __attribute__((cleanup(fn)))
void hv_cleanup_free(void *p);   /* p is the address of a pointer from hv_alloc/malloc */
void hv_cleanup_close(int *fd);  /* closes if >= 0, keeps errno */
#define hv_autofree  hv_cleanup(hv_cleanup_free)
#define hv_autoclose hv_cleanup(hv_cleanup_close)

/* Moves ownership out of a variable that has a clean-up attached. */
#define hv_steal(p)  ({ __typeof__(p) steal_ = (p); (p) = NULL; steal_; })
#define hv_steal_fd(fd) ({ int steal_ = (fd); (fd) = -1; steal_; })

/*
 * Zeroed memory, or NULL. The only allocators of this project besides the
 * libraries' own: they pass the fault-injection gate (fault.h). Free with free().
 */
void *hv_alloc(size_t len);
void *hv_alloc_array(size_t count, size_t len);                /* NULL on overflow too */
void *hv_realloc_array(void *p, size_t count, size_t len);     /* new part is not zeroed */
char *hv_strdup(const char *s);
char *hv_asprintf(const char *fmt, ...) HV_PRINTF(1, 2);

/* Copies at most size-1 bytes and always terminates. Returns false if it cut. */
bool hv_strlcpy(char *dst, const char *src, size_t size);
/* Is all of p[len] zero? */
bool hv_is_zero(const void *p, size_t len);
/* The value of a hexadecimal digit, in either case; -1: it is none. */
int hv_hex_digit(char c);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t hv_now_ns(void);
/* CLOCK_REALTIME in nanoseconds since 1970. */
uint64_t hv_wall_ns(void);

/* Whole-buffer I/O: loop over short counts and EINTR. 0, or -errno (-EPIPE, -EIO on early end). */
int hv_write_all(int fd, const void *buf, size_t len);
int hv_read_all(int fd, void *buf, size_t len);
/* Reads a whole file of at most max bytes into a fresh NUL-terminated buffer. -EFBIG if larger. */
int hv_read_file(const char *path, size_t max, char **ret, size_t *ret_len);
/* The same of a file that we keep: what is no regular file (a pipe would be waited for) is -EINVAL, never opened to wait. */
int hv_read_own_file(const char *path, size_t max, char **ret, size_t *ret_len);
/* Replaces a file: temp beside it, fsync, rename, fsync of the folder (DESIGN 12). */
int hv_replace_file(const char *path, const void *buf, size_t len, unsigned mode);
/*
 * The same in steps, for many files at once: begin each (the temp is written, and on its way to the disk), sync each
 * (it is there), commit each (it has the name), then hv_sync_folder() once (so it stays). Failed, commit leaves the old
 * file. fini takes away what is left over, before the commit the new file, after it the old one. Zeroed is nothing begun.
 */
struct hv_replacement { char *path, *temp; int fd; };
int hv_replacement_begin(struct hv_replacement *f, const char *path, const void *buf, size_t len, unsigned mode);
int hv_replacement_sync(struct hv_replacement *f);
int hv_replacement_commit(struct hv_replacement *f);
void hv_replacement_fini(struct hv_replacement *f);
/* Names in the folder of path are what they are now, also after a power cut. */
int hv_sync_folder(const char *path);
/* Removes what processes that were killed in hv_replace_file() left in this folder. Nobody may be in it there now. */
void hv_remove_temps(const char *folder);

#endif
