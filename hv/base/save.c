/*
 * Saved-state streams: writer and reader of save.h's framing.
 *
 * The writer is ours, so misuse of it is asserted; the reader's bytes come from a
 * file or another host and every length is checked before it is used.
 */
#include "hv/base/save.h"

#include <errno.h>

#include "hv/base/endian.h"

#define SAVE_HEADER     "HVSAVE1\n"
#define SAVE_HEADER_LEN 8
#define SAVE_FIXED_LEN  12               /* instance, version, length */

void save_init(struct save_writer *w)
{
    *w = (struct save_writer){ 0 };
    strbuf_add(&w->out, SAVE_HEADER, SAVE_HEADER_LEN);
}

void save_fini(struct save_writer *w)
{
    if (w) {
        strbuf_fini(&w->out);
        *w = (struct save_writer){ 0 };
    }
}

static bool tag_ok(const uint8_t *tag, size_t len)
{
    if (len == 0 || len > SAVE_MAX_TAG) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (tag[i] <= ' ' || tag[i] > '~') {
            return false;
        }
    }
    return true;
}

/* Outside a section nothing may be written: a device that forgot save_begin. */
static void put(struct save_writer *w, const void *p, size_t len)
{
    hv_assert(w->in_section);
    strbuf_add(&w->out, p, len);
}

void save_begin(struct save_writer *w, const char *tag, uint32_t instance, uint32_t version)
{
    size_t len = strlen(tag);

    hv_assert(!w->in_section && tag_ok((const uint8_t *)tag, len));
    w->in_section = true;
    save_u8(w, (uint8_t)len);
    save_bytes(w, tag, len);
    save_u32(w, instance);
    save_u32(w, version);
    w->section_len_pos = w->out.len;
    save_u32(w, 0);
}

void save_u8(struct save_writer *w, uint8_t v)
{
    put(w, &v, 1);
}

void save_u16(struct save_writer *w, uint16_t v)
{
    uint8_t b[2];

    put_le16(b, v);
    put(w, b, sizeof(b));
}

void save_u32(struct save_writer *w, uint32_t v)
{
    uint8_t b[4];

    put_le32(b, v);
    put(w, b, sizeof(b));
}

void save_u64(struct save_writer *w, uint64_t v)
{
    uint8_t b[8];

    put_le64(b, v);
    put(w, b, sizeof(b));
}

void save_bytes(struct save_writer *w, const void *p, size_t len)
{
    put(w, p, len);
}

void save_end(struct save_writer *w)
{
    hv_assert(w->in_section);
    w->in_section = false;
    if (w->out.err) {
        return;
    }
    size_t len = w->out.len - w->section_len_pos - 4;
    if (len > UINT32_MAX) {
        w->out.err = EFBIG;
        return;
    }
    put_le32(w->out.buf + w->section_len_pos, (uint32_t)len);
}

int save_status(const struct save_writer *w)
{
    return w->out.err ? -w->out.err : 0;
}

struct section {
    const uint8_t *tag;
    size_t tag_len;
    uint32_t instance, version;
    const uint8_t *body;
    size_t len;
};

/* The section at *pos, which then moves behind it. 1, 0 at the end, -EINVAL if it is cut or malformed. */
static int next_section(const struct load_reader *r, size_t *pos, struct section *s)
{
    const uint8_t *p = r->buf + *pos;
    size_t left = r->len - *pos;

    if (left == 0) {
        return 0;
    }
    s->tag_len = p[0];
    s->tag = p + 1;
    if (left < 1 + s->tag_len + SAVE_FIXED_LEN || !tag_ok(s->tag, s->tag_len)) {
        return -EINVAL;
    }
    p += 1 + s->tag_len;
    left -= 1 + s->tag_len + SAVE_FIXED_LEN;
    s->instance = get_le32(p);
    s->version = get_le32(p + 4);
    s->len = get_le32(p + 8);
    s->body = p + SAVE_FIXED_LEN;
    if (s->len > left) {
        return -EINVAL;
    }
    *pos = (size_t)(s->body - r->buf) + s->len;
    return 1;
}

static bool same(const struct section *s, const void *tag, size_t tag_len, uint32_t instance)
{
    return s->instance == instance && s->tag_len == tag_len && memcmp(s->tag, tag, tag_len) == 0;
}

/* Whether a section before `end` has the same name: which of two is meant nobody can say. */
static bool is_repeated(const struct load_reader *r, const struct section *s, size_t end)
{
    size_t pos = SAVE_HEADER_LEN;
    struct section other;

    while (pos < end && next_section(r, &pos, &other) == 1 && other.tag < s->tag) {
        if (same(&other, s->tag, s->tag_len, s->instance)) {
            return true;
        }
    }
    return false;
}

int load_init(struct load_reader *r, const void *buf, size_t len, struct hv_error *e)
{
    struct load_reader all = { .buf = buf, .len = len };
    size_t pos = SAVE_HEADER_LEN;
    unsigned count = 0;
    struct section s;
    int more;

    if (len < SAVE_HEADER_LEN || memcmp(buf, SAVE_HEADER, SAVE_HEADER_LEN) != 0) {
        hv_fail(e, HV_FAILED, NULL, "this is no saved state, or one of a newer version");
        return -EINVAL;
    }
    while ((more = next_section(&all, &pos, &s)) == 1) {
        if (++count > SAVE_MAX_SECTIONS) {
            hv_fail(e, HV_FAILED, NULL, "the saved state has more than %u sections", SAVE_MAX_SECTIONS);
            return -EINVAL;
        }
        if (is_repeated(&all, &s, pos)) {
            hv_fail(e, HV_FAILED, NULL, "the saved state has section %.*s %u twice", (int)s.tag_len,
                    (const char *)s.tag, s.instance);
            return -EINVAL;
        }
    }
    if (more < 0) {
        hv_fail(e, HV_FAILED, NULL, "the saved state is cut or damaged at byte %zu", pos);
        return -EINVAL;
    }
    *r = all;
    return 0;
}

int load_find(const struct load_reader *r, const char *tag, uint32_t instance, struct load_section *ret)
{
    size_t pos = SAVE_HEADER_LEN, tag_len = strlen(tag);
    struct section s;

    while (next_section(r, &pos, &s) == 1) {
        if (same(&s, tag, tag_len, instance)) {
            *ret = (struct load_section){ .p = s.body, .end = s.body + s.len, .version = s.version };
            return 0;
        }
    }
    return -ENOENT;
}

void load_bytes(struct load_section *s, void *p, size_t len)
{
    if (s->bad || len > (size_t)(s->end - s->p)) {
        s->bad = true;
        if (len) {
            memset(p, 0, len);
        }
        return;
    }
    if (len) {
        memcpy(p, s->p, len);
    }
    s->p += len;
}

uint8_t load_u8(struct load_section *s)
{
    uint8_t b;

    load_bytes(s, &b, 1);
    return b;
}

uint16_t load_u16(struct load_section *s)
{
    uint8_t b[2];

    load_bytes(s, b, sizeof(b));
    return get_le16(b);
}

uint32_t load_u32(struct load_section *s)
{
    uint8_t b[4];

    load_bytes(s, b, sizeof(b));
    return get_le32(b);
}

uint64_t load_u64(struct load_section *s)
{
    uint8_t b[8];

    load_bytes(s, b, sizeof(b));
    return get_le64(b);
}

int load_done(const struct load_section *s)
{
    return s->bad || s->p != s->end ? -EINVAL : 0;
}
