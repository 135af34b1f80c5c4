/*
 * Packets to the guest, and the guest memory that packets and GPADLs of the guest's name:
 * page lists are checked and pinned as adjacent pieces, ready for vectored I/O.
 */
#include <errno.h>

#include "hv/vmbus/vmbus_impl.h"

/* ---- sending ---- */

static int send_packet(struct vmbus_channel *ch, uint16_t type, uint16_t flags, uint64_t transaction,
                       uint32_t payload_at, const struct iovec *iov, unsigned n)
{
    HV_CHECK(ch, CHANNEL_MAGIC);
    bool signal = false;
    if (!ch->open)
        return -ENOTCONN;
    if (!ch->bus->running) {            /* resuming says that there is room */
        ch->blocked = true;
        return -EAGAIN;
    }
    int r = ring_write(&ch->out, type, flags, transaction, payload_at, iov, n, &signal);
    if (r == -EPROTO) {
        vmbus_channel_fault(ch, "the guest's read index makes no sense");
        return -ENOTCONN;
    }
    if (r == -EAGAIN) {
        count(ch->bus, COUNT_NO_ROOM);
        ch->blocked = true;
        if (!ring_peer_honours_pending(&ch->out))
            bus_poll_room(ch->bus);
    }
    if (r < 0)
        return r;
    count(ch->bus, COUNT_PACKETS_OUT);
    if (signal)
        channel_signal(ch);
    return 0;
}

int vmbus_send_iov(struct vmbus_channel *ch, uint64_t transaction, bool want_completion, const struct iovec *iov,
                   unsigned n)
{
    return send_packet(ch, VMBUS_PKT_INBAND, want_completion ? PKT_FLAG_COMPLETION : 0, transaction, PKT_HEADER, iov,
                       n);
}

int vmbus_send(struct vmbus_channel *ch, uint64_t transaction, bool want_completion, const void *data, uint32_t len)
{
    struct iovec v = {(void *)(uintptr_t)data, len};
    return vmbus_send_iov(ch, transaction, want_completion, &v, 1);
}

int vmbus_complete(struct vmbus_channel *ch, uint64_t transaction, const void *data, uint32_t len)
{
    struct iovec v = {(void *)(uintptr_t)data, len};
    return send_packet(ch, VMBUS_PKT_COMPLETION, 0, transaction, PKT_HEADER, &v, 1);
}

int vmbus_send_xfer(struct vmbus_channel *ch, uint64_t transaction, bool want_completion, uint16_t set,
                    const struct vmbus_xfer_range *range, unsigned ranges, const void *data, uint32_t len)
{
    uint8_t head[PKT_XFER_RANGES - PKT_HEADER + VMBUS_XFER_MAX * PKT_XFER_RANGE] = {0};
    hv_assert(ranges >= 1 && ranges <= VMBUS_XFER_MAX);
    put_le16(head + PKT_XFER_SET - PKT_HEADER, set);
    put_le32(head + PKT_XFER_COUNT - PKT_HEADER, ranges);
    uint32_t at = PKT_XFER_RANGES - PKT_HEADER;
    for (unsigned i = 0; i < ranges; i++, at += PKT_XFER_RANGE) {
        put_le32(head + at, range[i].len);
        put_le32(head + at + 4, range[i].offset);
    }
    struct iovec v[2] = {{head, at}, {(void *)(uintptr_t)data, len}};
    return send_packet(ch, VMBUS_PKT_XFER_PAGES, want_completion ? PKT_FLAG_COMPLETION : 0, transaction,
                       PKT_HEADER + at, v, 2);
}

/* ---- guest memory ---- */

/* Pages yet to come, at most: what buf's arrays have to hold. */
static int buffer_new(uint64_t pieces, struct vmbus_buffer *ret)
{
    *ret = (struct vmbus_buffer){0};
    ret->pin = hv_alloc_array(pieces, sizeof(*ret->pin));
    ret->iov = hv_alloc_array(pieces, sizeof(*ret->iov));
    if (ret->pin && ret->iov)
        return 0;
    vmbus_buffer_unpin(ret);
    return -ENOMEM;
}

/* One range: len bytes from offset on in the pages that pfn_at[] lists (little-endian, unaligned). */
static int pin_range(struct mem *m, const uint8_t *pfns, uint32_t offset, uint32_t len, enum mem_access access,
                     struct vmbus_buffer *buf)
{
    while (len) {
        uint64_t pfn = get_le64(pfns);
        uint32_t piece = MIN(len, (uint32_t)HV_PAGE_SIZE - offset), pages = 1;
        if (pfn > UINT64_MAX >> HV_PAGE_SHIFT)
            return -EFAULT;
        /* As long as the next page follows this one it is one piece. */
        while (piece < len && get_le64(pfns + 8 * pages) == pfn + pages) {
            piece += MIN(len - piece, (uint32_t)HV_PAGE_SIZE);
            pages++;
        }
        gpa_t gpa = (pfn << HV_PAGE_SHIFT) + offset;
        struct mem_pin *pin = &buf->pin[buf->count];
        int r = mem_pin(m, gpa, piece, access, pin);
        if (r == -EFAULT && pages > 1) {   /* adjacent pages may lie in two regions */
            piece = MIN(len, (uint32_t)HV_PAGE_SIZE - offset);
            pages = 1;
            r = mem_pin(m, gpa, piece, access, pin);
        }
        if (r < 0)
            return r;
        buf->iov[buf->count++] = (struct iovec){pin->hva, piece};
        buf->len += piece;
        len -= piece;
        offset = 0;
        pfns += 8 * pages;
    }
    return 0;
}

int vmbus_packet_pin(struct vmbus_channel *ch, const struct vmbus_packet *p, enum mem_access access, uint64_t max,
                     struct vmbus_buffer *ret)
{
    enum { HEAD = PKT_GPA_RANGES - PKT_HEADER };
    HV_CHECK(ch, CHANNEL_MAGIC);
    if (p->type != VMBUS_PKT_GPA_DIRECT || p->extra_len < HEAD)
        return -EPROTO;
    uint32_t count_ = get_le32(p->extra + PKT_GPA_COUNT - PKT_HEADER);
    uint64_t total = 0, pages = 0;
    const uint8_t *at = p->extra + HEAD, *end = p->extra + p->extra_len;
    /* First only look: every range lies in the header, the sum is within max. */
    for (uint32_t i = 0; i < count_; i++) {
        if (end - at < 16)
            return -EPROTO;
        uint32_t len = get_le32(at), offset = get_le32(at + 4);
        uint64_t n = ((uint64_t)offset + len + HV_PAGE_SIZE - 1) / HV_PAGE_SIZE;
        if (!len || offset >= HV_PAGE_SIZE || n * 8 > (uint64_t)(end - at) - 8)
            return -EPROTO;
        total += len;
        pages += n;
        at += 8 + n * 8;
    }
    if (!count_)
        return -EPROTO;
    if (total > max)
        return -EMSGSIZE;
    struct vmbus_buffer buf;
    int r = buffer_new(pages, &buf);
    at = p->extra + HEAD;
    for (uint32_t i = 0; r == 0 && i < count_; i++) {
        uint32_t len = get_le32(at), offset = get_le32(at + 4);
        r = pin_range(ch->bus->mem, at + 8, offset, len, access, &buf);
        at += 8 + 8 * (((uint64_t)offset + len + HV_PAGE_SIZE - 1) / HV_PAGE_SIZE);
    }
    if (r < 0) {
        vmbus_buffer_unpin(&buf);
        return r;
    }
    *ret = buf;
    return 0;
}

int vmbus_gpadl_pin(struct vmbus_channel *ch, uint32_t handle, enum mem_access access, struct vmbus_buffer *ret)
{
    HV_CHECK(ch, CHANNEL_MAGIC);
    struct gpadl *g = gpadl_find(&ch->bus->gpadls, handle);
    struct gpadl_range range;
    struct vmbus_buffer buf;
    if (!g || g->relid != ch->relid || g->ending || !gpadl_complete(g))
        return -ENOENT;
    int r = buffer_new(g->bytes / 8, &buf);
    for (unsigned i = 0; r == 0 && gpadl_range(g, i, &range) == 0; i++)
        r = pin_range(ch->bus->mem, (const uint8_t *)range.pfn, range.offset, range.len, access, &buf);
    if (r < 0) {
        vmbus_buffer_unpin(&buf);
        return r;
    }
    g->users++;
    *ret = buf;
    return 0;
}

void vmbus_gpadl_unpin(struct vmbus_channel *ch, uint32_t handle, struct vmbus_buffer *buf)
{
    HV_CHECK(ch, CHANNEL_MAGIC);
    struct gpadl *g = gpadl_find(&ch->bus->gpadls, handle);
    vmbus_buffer_unpin(buf);
    hv_assert(g);
    gpadl_unuse(ch->bus, g);
}

void vmbus_buffer_unpin(struct vmbus_buffer *buf)
{
    for (unsigned i = 0; i < buf->count; i++)
        mem_unpin(&buf->pin[i]);
    free(buf->pin);
    free(buf->iov);
    *buf = (struct vmbus_buffer){0};
}

static int buffer_copy(const struct vmbus_buffer *buf, uint64_t off, uint8_t *p, uint64_t len, bool write)
{
    if (off > buf->len || len > buf->len - off)
        return -EFAULT;
    for (unsigned i = 0; len; i++) {
        uint64_t have = buf->iov[i].iov_len;
        if (off >= have) {
            off -= have;
            continue;
        }
        uint64_t n = MIN(len, have - off);
        uint8_t *at = (uint8_t *)buf->iov[i].iov_base + off;
        if (write) {
            memcpy(at, p, n);
            mem_pin_written(&buf->pin[i], off, n);
        } else {
            memcpy(p, at, n);
        }
        p += n;
        len -= n;
        off = 0;
    }
    return 0;
}

int vmbus_buffer_read(const struct vmbus_buffer *buf, uint64_t off, void *data, uint64_t len)
{
    return buffer_copy(buf, off, data, len, false);
}

int vmbus_buffer_write(const struct vmbus_buffer *buf, uint64_t off, const void *data, uint64_t len)
{
    return buffer_copy(buf, off, (uint8_t *)(uintptr_t)data, len, true);
}
