/*
 * Reading recordings. The file is anybody's: sizes are bounded before they are believed, a frame is
 * decompressed into one buffer with a limit, and a line that makes no sense is skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "hvtop/model.h"
#include "hvtop/record.h"

#define ZSTD_MAGIC_LE 0xfd2fb528u
#define FRAMES_MAX 1000000

struct frame { size_t at, len; };

struct replay {
    const uint8_t *data;
    size_t len;
    bool mapped, plain;
    struct frame *frame;
    size_t n_frames, cap_frames;
    size_t next_frame;                   /* the one after the one being read */
    size_t loaded;                       /* the one in text and one more; 0: none */
    char *text;                          /* the frame being read, NUL-terminated */
    size_t text_len, at;
    ZSTD_DCtx *z;
    json_t *header;
};

static int bad(struct hv_error *e, const char *why) { return hv_fail(e, HV_FAILED, NULL, "%s", why); }

static int add_frame(struct replay *r, size_t at, size_t len)
{
    if (r->n_frames >= FRAMES_MAX) {
        return -E2BIG;
    }
    if (r->n_frames == r->cap_frames) {
        size_t cap = r->cap_frames ? 2 * r->cap_frames : 64;
        struct frame *grown = hv_realloc_array(r->frame, cap, sizeof(*grown));
        if (!grown) {
            return -ENOMEM;
        }
        r->frame = grown;
        r->cap_frames = cap;
    }
    r->frame[r->n_frames++] = (struct frame){at, len};
    return 0;
}

/* Where frames begin. What follows the last whole one is a torn frame: its whole lines are kept. */
static int index_frames(struct replay *r)
{
    int err = 0;
    if (r->plain) {
        return add_frame(r, 0, r->len);
    }
    for (size_t at = 0; at < r->len && err == 0;) {
        size_t n = ZSTD_findFrameCompressedSize(r->data + at, r->len - at);
        n = ZSTD_isError(n) || n == 0 ? r->len - at : n;
        err = add_frame(r, at, n);
        at += n;
    }
    return err;
}

/* Decompress as much of a frame as is sound, at most RECORD_FRAME_MAX. */
static void load_frame(struct replay *r, size_t i)
{
    const struct frame *f = &r->frame[i];
    r->at = 0;
    if (r->loaded == i + 1 && r->text) {
        return;
    }
    r->loaded = i + 1;
    r->text_len = 0;
    free(r->text);
    r->text = NULL;
    if (r->plain) {
        size_t n = MIN(f->len, RECORD_FRAME_MAX);
        r->text = hv_alloc(n + 1);
        if (r->text) {
            memcpy(r->text, r->data + f->at, n);
            r->text_len = n;
        }
        return;
    }
    size_t cap = 1 << 16;
    ZSTD_inBuffer in = {r->data + f->at, f->len, 0};
    r->text = hv_alloc(cap + 1);
    ZSTD_DCtx_reset(r->z, ZSTD_reset_session_only);
    while (r->text) {
        ZSTD_outBuffer out = {r->text, cap, r->text_len};
        size_t before_in = in.pos, left = ZSTD_decompressStream(r->z, &out, &in);
        bool moved = out.pos > r->text_len || in.pos > before_in;
        r->text_len = out.pos;
        if (ZSTD_isError(left) || left == 0 || !moved) {
            break;
        }
        if (r->text_len == cap) {
            if (cap >= RECORD_FRAME_MAX) {
                break;
            }
            char *grown = hv_realloc_array(r->text, 2 * cap + 1, 1);
            if (!grown) {
                break;
            }
            r->text = grown;
            cap *= 2;
        }
    }
    if (r->text) {
        r->text[r->text_len] = '\0';
    }
}

/*
 * What a line of ours begins with: {"host":H,"time_ms":T,"NEXT... Then nothing has to be parsed to
 * know whose it is and of when. False: it begins in another way.
 */
struct line_head { unsigned host; uint64_t time_ms; bool sample; };
static bool peek(const char *line, size_t len, struct line_head *ret)
{
    char head[80];
    unsigned host;
    unsigned long long t;
    int used = 0;
    snprintf(head, sizeof(head), "%.*s", (int)MIN(len, sizeof(head) - 1), line);
    if (sscanf(head, "{\"host\":%3u,\"time_ms\":%15llu,%n", &host, &t, &used) != 2 || !used || host >= MODEL_HOSTS_MAX) {
        return false;
    }
    const char *next = head + used;
    *ret = (struct line_head){host, t, strncmp(next, "\"rows\"", 6) == 0 || strncmp(next, "\"columns\"", 9) == 0};
    return ret->sample || strncmp(next, "\"event\"", 7) == 0 || strncmp(next, "\"down\"", 6) == 0;
}

/* A sample before after_ms[its host]. */
static bool too_old(const char *line, size_t len, const uint64_t *after_ms)
{
    struct line_head h;
    return peek(line, len, &h) && h.sample && h.time_ms < after_ms[h.host];
}

/* The next line that is an object, the caller's. NULL: the end of this frame. after_ms may be NULL. */
static json_t *next_line_after(struct replay *r, const uint64_t *after_ms)
{
    while (r->text && r->at < r->text_len) {
        const char *line = r->text + r->at;
        const char *end = memchr(line, '\n', r->text_len - r->at);
        if (!end) {
            r->at = r->text_len;             /* torn */
            return NULL;
        }
        r->at += (size_t)(end - line) + 1;
        if (after_ms && too_old(line, (size_t)(end - line), after_ms)) {
            continue;
        }
        json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL);
        if (json_is_object(o)) {
            return o;
        }
        json_decref(o);
    }
    return NULL;
}

static json_t *next_line(struct replay *r) { return next_line_after(r, NULL); }

json_t *replay_next(struct replay *r) { return replay_next_after(r, NULL); }

json_t *replay_next_after(struct replay *r, const uint64_t *after_ms)
{
    for (;;) {
        json_t *o = next_line_after(r, after_ms);
        if (o && !json_object_get(o, "hvrec")) {
            return o;
        }
        if (o) {
            json_decref(o);
        } else if (r->next_frame < r->n_frames) {
            load_frame(r, r->next_frame++);
        } else {
            return NULL;
        }
    }
}

static int read_header(struct replay *r, struct hv_error *e)
{
    r->next_frame = 0;
    if (r->n_frames) {
        load_frame(r, r->next_frame++);
    }
    r->header = next_line(r);
    json_t *version = json_object_get(r->header, "hvrec"), *hosts = json_object_get(r->header, "hosts"), *v;
    size_t i;
    if (!json_is_integer(version) || !json_is_array(hosts) || !json_array_size(hosts) ||
        json_array_size(hosts) > MODEL_HOSTS_MAX) {
        return bad(e, "is no recording of hvtop");
    }
    json_array_foreach(hosts, i, v) {
        if (!json_is_string(v)) {
            return bad(e, "is no recording of hvtop");
        }
    }
    if (json_integer_value(version) != RECORD_VERSION) {
        return hv_fail(e, HV_UNSUPPORTED, NULL, "is a recording of version %lld; this hvtop reads %d",
                       (long long)json_integer_value(version), RECORD_VERSION);
    }
    return 0;
}

int replay_open_mem(const void *data, size_t len, struct replay **ret, struct hv_error *e)
{
    struct replay *r = hv_alloc(sizeof(*r));
    if (!r) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    r->data = data;
    r->len = len;
    r->plain = len > 0 && r->data[0] == '{';
    r->z = ZSTD_createDCtx();
    uint32_t magic = 0;
    if (len >= 4) {
        memcpy(&magic, data, 4);
        magic = le32toh(magic);
    }
    int err = !r->z ? hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory")
              : !r->plain && magic != ZSTD_MAGIC_LE ? bad(e, "is no recording of hvtop") : 0;
    if (err == 0 && index_frames(r) < 0) {
        err = bad(e, "is no recording of hvtop");
    }
    if (err == 0) {
        err = read_header(r, e);
    }
    if (err < 0) {
        replay_close(r);
        return err;
    }
    *ret = r;
    return 0;
}

int replay_open(const char *path, struct replay **ret, struct hv_error *e)
{
    hv_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        return hv_fail_errno(e, errno, path, "cannot read");
    }
    if (!S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size > RECORD_FILE_MAX) {
        return hv_fail(e, HV_FAILED, path, "is no recording of hvtop");
    }
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        return hv_fail_errno(e, errno, path, "cannot read");
    }
    int err = replay_open_mem(data, (size_t)st.st_size, ret, e);
    if (err < 0) {
        munmap(data, (size_t)st.st_size);
        if (e) {
            hv_strlcpy(e->object, path, sizeof(e->object));
        }
        return err;
    }
    (*ret)->mapped = true;
    return 0;
}

void replay_close(struct replay *r)
{
    if (r) {
        if (r->mapped) {
            munmap((void *)(uintptr_t)r->data, r->len);
        }
        free(r->frame);
        free(r->text);
        ZSTD_freeDCtx(r->z);
        json_decref(r->header);
        free(r);
    }
}

unsigned replay_hosts(const struct replay *r)
{
    return (unsigned)json_array_size(json_object_get(r->header, "hosts"));
}

const char *replay_host(const struct replay *r, unsigned i)
{
    return json_string_value(json_array_get(json_object_get(r->header, "hosts"), i));
}

/* ---- jumping ---- */

static uint64_t time_of(const json_t *o, bool sample)
{
    json_int_t t = json_integer_value(json_object_get(o, "time_ms"));
    return t > 0 && (!sample || json_object_get(o, "rows")) ? (uint64_t)t : 0;
}

/* The time of the next message of this frame that has one (sample: of the next sample); 0 at its end. */
static uint64_t next_time(struct replay *r, bool sample)
{
    while (r->text && r->at < r->text_len) {
        const char *line = r->text + r->at;
        const char *end = memchr(line, '\n', r->text_len - r->at);
        struct line_head h;
        if (!end) {
            return 0;
        }
        if (peek(line, (size_t)(end - line), &h)) {
            r->at += (size_t)(end - line) + 1;
            if (h.time_ms && (h.sample || !sample)) {
                return h.time_ms;
            }
            continue;
        }
        json_t *o = next_line(r);
        uint64_t t = time_of(o, sample);
        json_decref(o);
        if (t) {
            return t;
        }
    }
    return 0;
}

/* The time of the first message of a frame that has one; UINT64_MAX if none has. */
static uint64_t frame_ms(struct replay *r, size_t i)
{
    load_frame(r, i);
    uint64_t t = next_time(r, false);
    return t ? t : UINT64_MAX;
}

/* The last frame that begins no later than time_ms; 0 if all begin later. */
static size_t frame_at(struct replay *r, uint64_t time_ms)
{
    size_t lo = 0, hi = r->n_frames;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (frame_ms(r, mid) <= time_ms) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
    return lo;
}

void replay_seek(struct replay *r, uint64_t time_ms)
{
    size_t i = frame_at(r, time_ms);
    load_frame(r, i);
    r->next_frame = i + 1;
}

/* The last (or, first, the first) sample of a frame before time_ms. */
static uint64_t sample_in(struct replay *r, size_t i, uint64_t time_ms, bool first)
{
    uint64_t found = 0;
    load_frame(r, i);
    for (uint64_t t; !(first && found) && (t = next_time(r, true));) {
        found = t < time_ms ? t : found;
    }
    return found;
}

/* Reading on is where it was after any of these. */
static uint64_t look(struct replay *r, size_t from, uint64_t time_ms, bool first)
{
    size_t frame = r->next_frame, at = r->at;
    uint64_t found = 0;
    if (first) {
        for (size_t i = 0; i < r->n_frames && !found; i++) {
            found = sample_in(r, i, UINT64_MAX, true);
        }
    } else {
        for (size_t i = from + 1; i-- > 0 && !found;) {
            found = sample_in(r, i, time_ms, false);
        }
    }
    if (frame > 0) {
        load_frame(r, frame - 1);
        r->at = at;
    }
    return found;
}

uint64_t replay_before(struct replay *r, uint64_t time_ms)
{
    size_t frame = r->next_frame, at = r->at, from = frame_at(r, time_ms);
    r->next_frame = frame;
    r->at = at;
    return look(r, from, time_ms, false);
}

uint64_t replay_first_ms(struct replay *r)
{
    return r->n_frames ? look(r, 0, UINT64_MAX, true) : 0;
}

uint64_t replay_last_ms(struct replay *r)
{
    return r->n_frames ? look(r, r->n_frames - 1, UINT64_MAX, false) : 0;
}
