/*
 * From an access to the device that owns it. Ports through a byte index of all 64 Ki
 * (one load), MMIO and MSRs by binary search over disjoint ascending ranges. Nothing
 * here is locked: the tables only change while the vCPUs are parked.
 *
 * An access that one device can take whole goes to it in one call. What is wider than
 * the device (max_size), hangs over its end, or has an odd length is cut into the largest
 * power-of-two pieces that fit, from the low address up; pieces nobody owns read
 * as ones.
 */
#include "hv/machine/machine_impl.h"

#include <errno.h>

#include "hv/base/endian.h"

/* ---- registration ---- */

void machine_add_ports(struct machine *m, uint16_t first, unsigned count,
                       const struct port_ops *ops, void *dev)
{
    HV_CHECK(m, MACHINE_MAGIC);
    hv_assert(count > 0 && (uint32_t)first + count <= 0x10000 && m->ports < MAX_PORT_RANGES);
    hv_assert(ops->in && ops->out);
    hv_assert(ops->max_size == 1 || ops->max_size == 2 || ops->max_size == 4);
    m->port[m->ports++] = (struct port_range){ first, (uint16_t)(first + count - 1), ops, dev };
    for (unsigned i = 0; i < count; i++) {
        hv_assert(m->port_index[first + i] == 0);
        m->port_index[first + i] = (uint8_t)m->ports;
    }
}

void machine_add_mmio(struct machine *m, gpa_t gpa, uint64_t len, const struct mmio_ops *ops,
                      void *dev)
{
    HV_CHECK(m, MACHINE_MAGIC);
    hv_assert(len > 0 && gpa + (len - 1) >= gpa && m->mmios < MAX_MMIO_RANGES);
    hv_assert(ops->read && ops->write);
    unsigned at = 0;
    while (at < m->mmios && m->mmio[at].first < gpa) {
        at++;
    }
    hv_assert(at == 0 || m->mmio[at - 1].last < gpa);
    hv_assert(at == m->mmios || gpa + (len - 1) < m->mmio[at].first);
    memmove(&m->mmio[at + 1], &m->mmio[at], (m->mmios - at) * sizeof(m->mmio[0]));
    m->mmio[at] = (struct mmio_range){ gpa, gpa + (len - 1), ops, dev };
    m->mmios++;
}

void machine_add_msrs(struct machine *m, uint32_t first, uint32_t count,
                      const struct msr_ops *ops, void *dev)
{
    HV_CHECK(m, MACHINE_MAGIC);
    hv_assert(count > 0 && first + (count - 1) >= first && m->msrs < MAX_MSR_RANGES);
    hv_assert(ops->read && ops->write);
    unsigned at = 0;
    while (at < m->msrs && m->msr[at].first < first) {
        at++;
    }
    hv_assert(at == 0 || m->msr[at - 1].last < first);
    hv_assert(at == m->msrs || first + (count - 1) < m->msr[at].first);
    memmove(&m->msr[at + 1], &m->msr[at], (m->msrs - at) * sizeof(m->msr[0]));
    m->msr[at] = (struct msr_range){ first, first + (count - 1), ops, dev };
    m->msrs++;
}

/* ---- helpers ---- */

static void count_unclaimed(struct machine *m, enum machine_counter which, const char *what,
                            uint64_t where)
{
    stats_add(&m->stats, which, 1);
    if (HV_LIKELY(!log_debug_on("machine"))) {
        return;
    }
    pthread_mutex_lock(&m->log_lock);
    bool ok = log_ratelimit_ok(&m->log_limit);
    pthread_mutex_unlock(&m->log_lock);
    if (ok) {
        log_debug("machine", "unclaimed %s 0x%llx", what, (unsigned long long)where);
    }
}

/* Elements of size 1, 2 or 4 as they lie in the guest's string operand: little-endian. */
static uint32_t get_element(const uint8_t *p, unsigned size)
{
    return size == 1 ? *p : size == 2 ? get_le16(p) : get_le32(p);
}

static void put_element(uint8_t *p, unsigned size, uint32_t v)
{
    if (size == 1) {
        *p = (uint8_t)v;
    } else if (size == 2) {
        put_le16(p, (uint16_t)v);
    } else {
        put_le32(p, v);
    }
}

static uint64_t size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (size * 8)) - 1;
}

/* The largest power of two (at most cap, itself one) that is <= len. */
static unsigned piece(uint64_t len, unsigned cap)
{
    while (cap > len) {
        cap >>= 1;
    }
    return cap;
}

/* ---- ports ---- */

static const struct port_range *port_find(const struct machine *m, uint32_t port)
{
    unsigned i = port <= 0xFFFF ? m->port_index[port] : 0;
    return i ? &m->port[i - 1] : NULL;
}

/* Does one call to r serve the whole access? */
static bool port_whole(const struct port_range *r, uint32_t port, unsigned size)
{
    return r && size <= r->ops->max_size && port + size - 1 <= r->last;
}

static uint32_t pio_in_split(struct machine *m, uint16_t port, unsigned size)
{
    uint32_t val = 0;
    bool claimed = false;
    for (unsigned done = 0; done < size;) {
        uint32_t at = (uint32_t)port + done;
        const struct port_range *r = port_find(m, at);
        unsigned n = 1;
        uint32_t part = 0xFF;
        if (r) {
            n = piece(MIN(size - done, r->last - at + 1), r->ops->max_size);
            part = r->ops->in(r->dev, (uint16_t)at, n) & (uint32_t)size_mask(n);
            claimed = true;
        }
        val |= part << (done * 8);
        done += n;
    }
    if (!claimed) {
        count_unclaimed(m, COUNT_PIO_READ, "read of port", port);
    }
    return val;
}

static void pio_out_split(struct machine *m, uint16_t port, unsigned size, uint32_t val)
{
    bool claimed = false;
    for (unsigned done = 0; done < size;) {
        uint32_t at = (uint32_t)port + done;
        const struct port_range *r = port_find(m, at);
        unsigned n = 1;
        if (r) {
            n = piece(MIN(size - done, r->last - at + 1), r->ops->max_size);
            r->ops->out(r->dev, (uint16_t)at, n, (val >> (done * 8)) & (uint32_t)size_mask(n));
            claimed = true;
        }
        done += n;
    }
    if (!claimed) {
        count_unclaimed(m, COUNT_PIO_WRITE, "write to port", port);
    }
}

void machine_pio_in(struct machine *m, uint16_t port, unsigned size, void *data, uint32_t count)
{
    hv_assert(size == 1 || size == 2 || size == 4);
    const struct port_range *r = port_find(m, port);
    bool whole = port_whole(r, port, size);
    uint8_t *p = data;
    if (whole && r->ops->in_bulk && count > 1) {
        r->ops->in_bulk(r->dev, port, size, data, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++, p += size) {
        put_element(p, size, whole ? r->ops->in(r->dev, port, size) : pio_in_split(m, port, size));
    }
}

void machine_pio_out(struct machine *m, uint16_t port, unsigned size, const void *data,
                     uint32_t count)
{
    hv_assert(size == 1 || size == 2 || size == 4);
    const struct port_range *r = port_find(m, port);
    bool whole = port_whole(r, port, size);
    const uint8_t *p = data;
    if (whole && r->ops->out_bulk && count > 1) {
        r->ops->out_bulk(r->dev, port, size, data, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++, p += size) {
        uint32_t val = get_element(p, size);
        if (whole) {
            r->ops->out(r->dev, port, size, val);
        } else {
            pio_out_split(m, port, size, val);
        }
    }
}

/* ---- MMIO ---- */

static const struct mmio_range *mmio_find(const struct machine *m, gpa_t gpa)
{
    unsigned lo = 0, hi = m->mmios;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (gpa < m->mmio[mid].first) {
            hi = mid;
        } else if (gpa > m->mmio[mid].last) {
            lo = mid + 1;
        } else {
            return &m->mmio[mid];
        }
    }
    return NULL;
}

void machine_mmio_read(struct machine *m, gpa_t gpa, void *data, unsigned len)
{
    hv_assert(len >= 1 && len <= 8);
    uint8_t *p = data;
    bool claimed = false;
    for (unsigned done = 0; done < len;) {
        gpa_t at = gpa + done;
        const struct mmio_range *r = mmio_find(m, at);
        unsigned n = 1;
        if (r) {
            uint8_t bytes[8];
            n = piece(MIN((uint64_t)(len - done), r->last - at + 1), 8);
            put_le64(bytes, r->ops->read(r->dev, at - r->first, n));
            memcpy(p + done, bytes, n);
            claimed = true;
        } else {
            p[done] = 0xFF;
        }
        done += n;
    }
    if (!claimed) {
        count_unclaimed(m, COUNT_MMIO_READ, "read of GPA", gpa);
    }
}

void machine_mmio_write(struct machine *m, gpa_t gpa, const void *data, unsigned len)
{
    hv_assert(len >= 1 && len <= 8);
    const uint8_t *p = data;
    bool claimed = false;
    for (unsigned done = 0; done < len;) {
        gpa_t at = gpa + done;
        const struct mmio_range *r = mmio_find(m, at);
        unsigned n = 1;
        if (r) {
            uint8_t bytes[8] = { 0 };
            n = piece(MIN((uint64_t)(len - done), r->last - at + 1), 8);
            memcpy(bytes, p + done, n);
            r->ops->write(r->dev, at - r->first, n, get_le64(bytes));
            claimed = true;
        }
        done += n;
    }
    if (!claimed) {
        count_unclaimed(m, COUNT_MMIO_WRITE, "write to GPA", gpa);
    }
}

/* ---- MSRs and hypercalls ---- */

static const struct msr_range *msr_find(const struct machine *m, uint32_t msr)
{
    unsigned lo = 0, hi = m->msrs;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (msr < m->msr[mid].first) {
            hi = mid;
        } else if (msr > m->msr[mid].last) {
            lo = mid + 1;
        } else {
            return &m->msr[mid];
        }
    }
    return NULL;
}

int machine_msr_read(struct machine *m, unsigned vp, uint32_t msr, uint64_t *ret)
{
    const struct msr_range *r = msr_find(m, msr);
    if (!r) {
        count_unclaimed(m, COUNT_MSR_READ, "read of MSR", msr);
        return -ENOENT;
    }
    return r->ops->read(r->dev, vp, msr, ret);
}

int machine_msr_write(struct machine *m, unsigned vp, uint32_t msr, uint64_t val)
{
    const struct msr_range *r = msr_find(m, msr);
    if (!r) {
        count_unclaimed(m, COUNT_MSR_WRITE, "write to MSR", msr);
        return -ENOENT;
    }
    return r->ops->write(r->dev, vp, msr, val);
}

int machine_hypercall(struct machine *m, unsigned vp)
{
    if (!m->hypercall) {
        count_unclaimed(m, COUNT_HYPERCALL, "hypercall by VP", vp);
        return -ENOSYS;
    }
    return m->hypercall(m->hypercall_dev, vp);
}
