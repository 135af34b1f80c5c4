/*
 * Saved state: a stream of tagged, versioned sections, one a device (DESIGN 16).
 *
 *   header   "HVSAVE1\n"
 *   section  u8 taglen, tag, u32 instance, u32 version, u32 len, len bytes
 *   ...      all little-endian
 *
 * A section is written and read in field order. A reader accepts the current
 * version and, where a device says so, older ones. Loaded fields pass the same
 * checks as live guest writes; the reader checks lengths, the device values.
 */
#ifndef HV_BASE_SAVE_H
#define HV_BASE_SAVE_H

#include "hv/base/error.h"
#include "hv/base/strbuf.h"

#define SAVE_MAX_SECTIONS 4096u  /* keeps the check for repeated ones cheap on hostile streams */
#define SAVE_MAX_TAG      64u    /* visible ASCII */

struct save_writer { struct strbuf out; size_t section_len_pos; bool in_section; };

void save_init(struct save_writer *w);
void save_fini(struct save_writer *w);
void save_begin(struct save_writer *w, const char *tag, uint32_t instance, uint32_t version);
void save_u8(struct save_writer *w, uint8_t v);
void save_u16(struct save_writer *w, uint16_t v);
void save_u32(struct save_writer *w, uint32_t v);
void save_u64(struct save_writer *w, uint64_t v);
void save_bytes(struct save_writer *w, const void *p, size_t len);
void save_end(struct save_writer *w);
/* 0 or -ENOMEM: whether everything written so far is there. */
int save_status(const struct save_writer *w);

struct load_reader { const uint8_t *buf; size_t len; };       /* the whole stream, caller's memory */
struct load_section { const uint8_t *p, *end; uint32_t version; bool bad; };

/* Checks header and framing of the whole stream. 0 or -EINVAL with e filled. */
int load_init(struct load_reader *r, const void *buf, size_t len, struct hv_error *e);
/* 0; -ENOENT if there is no such section. */
int load_find(const struct load_reader *r, const char *tag, uint32_t instance,
              struct load_section *ret);
/* Reading past the end of a section gives zeros and marks it bad. */
uint8_t load_u8(struct load_section *s);
uint16_t load_u16(struct load_section *s);
uint32_t load_u32(struct load_section *s);
uint64_t load_u64(struct load_section *s);
void load_bytes(struct load_section *s, void *p, size_t len);
/* 0 if every byte was read and no read went past the end, else -EINVAL. */
int load_done(const struct load_section *s);

#endif
