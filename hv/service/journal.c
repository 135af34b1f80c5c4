/* Files of JSON lines; see journal.h. */
#include "hv/service/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/fault.h"
#include "hv/base/log.h"

int journal_init(struct journal *j, const char *path)
{
    *j = (struct journal){.fd = -1, .path = hv_strdup(path)};
    return j->path ? 0 : -ENOMEM;
}

void journal_fini(struct journal *j)
{
    hv_cleanup_close(&j->fd);
    free(j->path);
    *j = (struct journal){.fd = -1};
}

static void read_one(const char *path, void (*fn)(void *arg, json_t *line), void *arg)
{
    hv_autofree char *text = NULL;
    /* Twice its size at most: one line may go over it. */
    if (hv_read_own_file(path, 2 * JOURNAL_MAX, &text, NULL) < 0)
        return;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *o = json_loads(line, 0, NULL);
        if (json_is_object(o))
            fn(arg, o);
        json_decref(o);
    }
}

void journal_read(const struct journal *j, void (*fn)(void *arg, json_t *line), void *arg)
{
    hv_autofree char *old = hv_asprintf("%s.1", j->path);
    if (old)
        read_one(old, fn, arg);
    read_one(j->path, fn, arg);
}

static int open_at_end(struct journal *j)
{
    struct stat st;
    char last = '\n';
    int r = fault_check(FAULT_OPEN);
    if (r < 0)
        return r;
    j->fd = open(j->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (j->fd < 0 || fstat(j->fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode)) {        /* a pipe that nobody reads would hold us */
        hv_cleanup_close(&j->fd);
        j->fd = -1;
        return -EINVAL;
    }
    j->size = (uint64_t)st.st_size;
    /* A service that was killed in the middle of a line. */
    if (j->size)
        j->torn = pread(j->fd, &last, 1, st.st_size - 1) != 1 || last != '\n';
    return 0;
}

static int rotate(struct journal *j)
{
    hv_autofree char *old = hv_asprintf("%s.1", j->path);
    if (!old || rename(j->path, old) < 0)
        return old ? -errno : -ENOMEM;
    hv_cleanup_close(&j->fd);
    j->fd = -1;
    return open_at_end(j);
}

static int append(struct journal *j, const char *text, size_t len)
{
    int r = j->fd < 0 ? open_at_end(j) : 0;
    if (r == 0 && j->size >= JOURNAL_MAX)
        r = rotate(j);
    if (r == 0 && j->torn)
        r = hv_write_all(j->fd, "\n", 1);
    if (r == 0)
        r = hv_write_all(j->fd, text, len);
    j->torn = r < 0;
    j->size += r == 0 ? len : 0;
    return r;
}

void journal_add(struct journal *j, const json_t *line)
{
    hv_autofree char *text = json_dumps(line, JSON_COMPACT);
    size_t len = text ? strlen(text) : 0;
    if (!text || !j->path)
        return;
    text[len] = '\n';                  /* over the NUL: one write, so that a reader sees whole lines */
    int r = append(j, text, len + 1);
    if (r < 0 && !j->told)
        log_warning("%s: %s; what happens is not kept there", j->path, strerror(-r));
    j->told = r < 0;
}
