/* File copy: see fcopy.h. */
#include "hv/vsp/fcopy.h"

#include <errno.h>
#include <unistd.h>

#include "hv/base/endian.h"
#include "hv/vsp/ic.h"
#include "hv/vsp/utf16.h"

/* struct hv_fcopy_hdr, hv_start_fcopy, hv_do_fcopy (Linux include/uapi/linux/hyperv.h). */
enum { OP_START = 0, OP_WRITE = 1, OP_COMPLETE = 2, OP_CANCEL = 3 };
enum { HDR_OP = 0, HDR_LEN = 36 };
enum { START_NAME = 36, START_PATH = 556, START_FLAGS = 1076, START_SIZE = 1080, START_LEN = 1088, NAME_LEN = 520 };
enum { WRITE_OFFSET = 40, WRITE_SIZE = 48, WRITE_DATA = 52, WRITE_LEN = 6196, CHUNK = 6144 };
enum { FLAG_OVERWRITE = 1, FLAG_CREATE_PATH = 2 };

/* The driver answers for a daemon that hangs after 30 s. */
#define ANSWER_NS (40 * NS_PER_SEC)
#define READ_LEN  (64u * CHUNK)         /* the source is read in larger pieces */

#define STATES(X) X(IDLE) X(STARTING) X(PROBING) X(WRITING) X(COMPLETING) X(CANCELLING) X(ORPHAN_START) X(ORPHAN)
enum fcopy_state {
#define STATE_ENUM(name) FCOPY_##name,
    STATES(STATE_ENUM)
#undef STATE_ENUM
    FCOPY_STATES
};

/* What is sent next: not from within the reply before, which still takes up room that the guest's next one needs. */
enum fcopy_todo { TODO_NOTHING, TODO_WRITE, TODO_PROBE, TODO_CANCEL };

struct fcopy {
    struct ic *ic;
    struct loop *loop;
    struct loop_post post;
    enum fcopy_todo todo;
    void (*changed)(void *arg);
    void *arg;
    enum fcopy_state state;
    int fd;
    uint64_t size, sent, acked;         /* bytes; sent: with the piece under way */
    uint8_t *buf;                       /* buf[READ_LEN]: the source from buf_at on, buf_len of it */
    uint64_t buf_at;
    uint32_t buf_len;
    fcopy_done_fn *done;
    void *done_arg;
    bool cancelled;                     /* by fcopy_cancel(): goes on to CANCEL, not to the next piece */
    uint32_t result;                    /* what a cancel is told as */
    int result_err;
};

static const struct ic_service service = {
    .name = "file-copy",
    .class_id = {{0xe3, 0x4b, 0xd1, 0x34, 0xe4, 0xde, 0xc8, 0x41, 0x9a, 0xe7, 0x6b, 0x17, 0x49, 0x77, 0xc1, 0x92}},
    .instance_id = {{0x08, 0x54, 0x76, 0xeb, 0x5f, 0x10, 0xb6, 0x49, 0xb4, 0xaa, 0xc1, 0x23, 0xb6, 0x4d, 0x17, 0xd4}},
    .type = 7,
    .version = {IC_VERSION(1, 1)},
    .only_framework_3 = true,
};

static void end(struct fcopy *f, uint32_t status, int err)
{
    fcopy_done_fn *done = f->done;
    f->state = FCOPY_IDLE;
    f->todo = TODO_NOTHING;
    f->done = NULL;
    f->cancelled = false;
    hv_cleanup_close(&f->fd);
    f->fd = -1;
    free(f->buf);
    f->buf = NULL;
    f->size = f->sent = f->acked = 0;
    if (done)
        done(f->done_arg, status, err);
}

static void next(struct fcopy *f, enum fcopy_todo todo)
{
    f->todo = todo;
    loop_post(f->loop, &f->post);
}

static int ask(struct fcopy *f, const uint8_t *body, uint32_t len, enum fcopy_state state)
{
    int r = ic_request(f->ic, body, len, ANSWER_NS);
    if (r == 0)
        f->state = state;
    return r;
}

static int ask_short(struct fcopy *f, uint8_t op, enum fcopy_state state)
{
    uint8_t body[HDR_LEN] = {0};
    put_le32(body + HDR_OP, op);
    return ask(f, body, sizeof(body), state);
}

/* The daemon removes what it wrote. Never after a refused START: old daemons would remove what was there before. */
static void cancel(struct fcopy *f, uint32_t result, int err)
{
    f->result = result;
    f->result_err = err;
    next(f, TODO_CANCEL);
}

static uint32_t fill_start(uint8_t *body, const char *folder, const char *name, uint32_t flags, uint64_t size)
{
    put_le32(body + HDR_OP, OP_START);
    utf16_from_utf8(name, body + START_NAME, NAME_LEN);
    utf16_from_utf8(folder, body + START_PATH, NAME_LEN);
    put_le32(body + START_FLAGS, flags);
    put_le64(body + START_SIZE, size);
    return START_LEN;
}

/* Is it the daemon that refused, or is there none? A daemon says that the folder "/" exists and changes nothing. */
static int probe(struct fcopy *f)
{
    uint8_t body[START_LEN] = {0};
    return ask(f, body, fill_start(body, "/", ".", 0, 0), FCOPY_PROBING);
}

/* Have the source's bytes at `at` in buf. */
static int fill(struct fcopy *f, uint64_t at)
{
    ssize_t n;
    if (at >= f->buf_at && at < f->buf_at + f->buf_len)
        return 0;
    do {
        n = pread(f->fd, f->buf, MIN(f->size - at, (uint64_t)READ_LEN), (off_t)at);
    } while (n < 0 && errno == EINTR);
    f->buf_at = at;
    f->buf_len = n > 0 ? (uint32_t)n : 0;
    return n < 0 ? -errno : n == 0 ? -ENODATA : 0;
}

static int write_next(struct fcopy *f)
{
    uint8_t body[WRITE_LEN] = {0};
    if (f->sent == f->size)
        return ask_short(f, OP_COMPLETE, FCOPY_COMPLETING);
    int r = fill(f, f->sent);
    if (r < 0) {
        cancel(f, IC_INVALID, r == -ENODATA ? 0 : r);
        return 0;
    }
    uint32_t n = (uint32_t)MIN(f->buf_at + f->buf_len - f->sent, (uint64_t)CHUNK);
    put_le32(body + HDR_OP, OP_WRITE);
    put_le64(body + WRITE_OFFSET, f->sent);
    put_le32(body + WRITE_SIZE, n);
    memcpy(body + WRITE_DATA, f->buf + (f->sent - f->buf_at), n);
    r = ask(f, body, sizeof(body), FCOPY_WRITING);
    if (r == 0)
        f->sent += n;
    return r;
}

static void go_on(void *arg)
{
    struct fcopy *f = arg;
    enum fcopy_todo todo = f->todo;
    if (todo == TODO_NOTHING || ic_busy(f->ic))
        return;
    f->todo = TODO_NOTHING;
    int r = todo == TODO_WRITE ? write_next(f) : todo == TODO_PROBE ? probe(f) : ask_short(f, OP_CANCEL, FCOPY_CANCELLING);
    if (r == -EAGAIN)
        f->todo = todo;                 /* paused: on_writable comes */
    else if (r < 0)
        end(f, IC_GONE, 0);
}

/* What a copy leaves behind that nobody waits for any more, with a request at the guest. */
static enum fcopy_state orphan_of(enum fcopy_state s)
{
    switch (s) {
    case FCOPY_STARTING: case FCOPY_ORPHAN_START: return FCOPY_ORPHAN_START;
    case FCOPY_WRITING: case FCOPY_COMPLETING: case FCOPY_ORPHAN: return FCOPY_ORPHAN;
    default: return FCOPY_IDLE;
    }
}

/* The guest has given that request back. */
static void drop_orphan(struct fcopy *f, uint32_t status)
{
    if (f->state == FCOPY_ORPHAN || (f->state == FCOPY_ORPHAN_START && status == IC_OK))
        cancel(f, IC_GONE, 0);
    else if (f->state == FCOPY_ORPHAN_START)
        f->state = FCOPY_IDLE;
}

static void on_reply(void *arg, uint32_t status, const uint8_t *body, uint32_t len)
{
    struct fcopy *f = arg;
    if (status == IC_GONE)
        return;                         /* on_gone is next */
    if (status == IC_TIMEOUT) {
        /* The guest still has the request: what it wrote is removed when it gives it back. */
        enum fcopy_state left = orphan_of(f->state);
        end(f, status, 0);
        f->state = left;
        return;
    }
    switch (f->state) {
    case FCOPY_STARTING:
        if (status == IC_OK) {
            f->state = FCOPY_WRITING;
            if (f->cancelled)
                cancel(f, IC_CANCELLED, 0);
            else
                next(f, TODO_WRITE);
        } else if (status == IC_FAIL) {
            next(f, TODO_PROBE);
        } else {
            end(f, status, 0);
        }
        break;
    case FCOPY_PROBING:
        end(f, status == IC_EXISTS ? IC_FAIL : IC_NOT_CONNECTED, 0);
        break;
    case FCOPY_WRITING:
        f->acked = f->sent;
        if (status != IC_OK)
            cancel(f, status, 0);
        else if (f->cancelled)
            cancel(f, IC_CANCELLED, 0);
        else
            next(f, TODO_WRITE);
        break;
    case FCOPY_COMPLETING:
        end(f, status, 0);
        break;
    case FCOPY_CANCELLING:
        end(f, f->result, f->result_err);
        break;
    case FCOPY_ORPHAN_START:            /* of before a load, whose source is not there any more */
    case FCOPY_ORPHAN:
        drop_orphan(f, status);
        break;
    default:
        break;
    }
}

static void on_returned(void *arg, uint32_t status)
{
    struct fcopy *f = arg;
    drop_orphan(f, status);
    if (f->changed)
        f->changed(f->arg);
}

static void on_writable(void *arg)
{
    struct fcopy *f = arg;
    loop_post(f->loop, &f->post);
}

static void on_ready(void *arg)
{
    struct fcopy *f = arg;
    if (f->changed)
        f->changed(f->arg);
}

static void on_gone(void *arg)
{
    struct fcopy *f = arg;
    end(f, IC_GONE, 0);
    if (f->changed)
        f->changed(f->arg);
}

static void on_save(void *arg, struct save_writer *w)
{
    struct fcopy *f = arg;
    save_u8(w, orphan_of(f->state));
}

static int on_load(void *arg, struct load_section *s)
{
    struct fcopy *f = arg;
    uint8_t state = load_u8(s);
    if (s->bad || state >= FCOPY_STATES || orphan_of(state) != state || (state != FCOPY_IDLE && !ic_ready(f->ic)))
        return -EINVAL;
    f->state = state;
    if (state == FCOPY_ORPHAN && !ic_busy(f->ic))
        f->todo = TODO_CANCEL;          /* saved between two requests */
    else if (!ic_busy(f->ic))
        f->state = FCOPY_IDLE;
    return 0;
}

static const struct ic_ops ops = {
    .ready = on_ready, .gone = on_gone, .reply = on_reply, .returned = on_returned, .writable = on_writable,
    .save = on_save, .load = on_load,
};

int fcopy_new(struct vmbus *bus, void (*changed)(void *arg), void *arg, struct fcopy **ret, struct hv_error *e)
{
    struct fcopy *f = hv_alloc(sizeof(*f));
    if (!f)
        return hv_fail(e, HV_NO_RESOURCES, service.name, "out of memory");
    f->changed = changed;
    f->arg = arg;
    f->fd = -1;
    f->loop = machine_loop(vmbus_machine(bus));
    f->post = (struct loop_post){.fn = go_on, .arg = f};
    int r = ic_new(bus, &service, &ops, f, &f->ic, e);
    if (r < 0) {
        free(f);
        return r;
    }
    *ret = f;
    return 0;
}

void fcopy_free(struct fcopy *f)
{
    if (!f)
        return;
    f->changed = NULL;
    ic_free(f->ic);
    end(f, IC_GONE, 0);
    loop_post_cancel(f->loop, &f->post);
    free(f);
}

struct ic *fcopy_ic(struct fcopy *f) { return f ? f->ic : NULL; }
bool fcopy_ready(const struct fcopy *f) { return f && ic_ready(f->ic) && !ic_stalled(f->ic); }

void fcopy_progress(const struct fcopy *f, uint64_t *ret_done, uint64_t *ret_size)
{
    *ret_done = f->done ? f->acked : 0;
    *ret_size = f->done ? f->size : 0;
}

static int check_names(const struct fcopy_job *j)
{
    if (j->folder[0] != '/' || !j->name[0] || strchr(j->name, '/') || strcmp(j->name, ".") == 0 || strcmp(j->name, "..") == 0)
        return -EINVAL;
    return strlen(j->folder) + 1 + strlen(j->name) > FCOPY_PATH_MAX ? -ENAMETOOLONG : 0;
}

int fcopy_start(struct fcopy *f, const struct fcopy_job *j)
{
    hv_autoclose int fd = j->fd;
    uint8_t body[START_LEN] = {0};
    /* The daemon makes only folders that are followed by a slash. */
    hv_autofree char *folder = hv_asprintf("%s%s", j->folder, j->folder[0] && j->folder[strlen(j->folder) - 1] == '/' ? "" : "/");
    int r = check_names(j);
    if (r == 0 && !ic_ready(f->ic))
        r = -ENOTCONN;
    if (r == 0 && (f->state != FCOPY_IDLE || ic_busy(f->ic)))
        r = -EBUSY;
    if (r == 0 && (!folder || !(f->buf = hv_alloc(READ_LEN))))
        r = -ENOMEM;
    if (r < 0)
        return r;
    r = ic_request(f->ic, body,
                   fill_start(body, folder, j->name, (j->overwrite ? FLAG_OVERWRITE : 0) | (j->parents ? FLAG_CREATE_PATH : 0), j->size),
                   ANSWER_NS);
    if (r < 0) {
        free(f->buf);
        f->buf = NULL;
        return r == -EAGAIN ? -EBUSY : r;
    }
    f->state = FCOPY_STARTING;
    f->fd = fd;
    fd = -1;
    f->size = j->size;
    f->sent = f->acked = f->buf_at = 0;
    f->buf_len = 0;
    f->done = j->done;
    f->done_arg = j->arg;
    return 0;
}

void fcopy_cancel(struct fcopy *f)
{
    if (!f->done)
        return;
    f->cancelled = true;
    if (f->todo == TODO_WRITE)          /* between two requests; else the answer that is still to come goes on to CANCEL */
        cancel(f, IC_CANCELLED, 0);
}
