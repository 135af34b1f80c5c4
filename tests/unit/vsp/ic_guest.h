/* The guest's side of integration services: as Linux' hv_util answers. */
#ifndef TESTS_VSP_IC_GUEST_H
#define TESTS_VSP_IC_GUEST_H

#include "hv/vsp/ic.h"
#include "tests/unit/vmbus/guest.h"

struct ic_message { uint8_t b[16384]; int len; uint64_t transaction; };

/* The host's next message; false: there is none. */
static HV_UNUSED bool ic_next(struct guest_channel *c, struct ic_message *m)
{
    uint16_t type;
    m->len = guest_recv(c, &type, &m->transaction, m->b, sizeof(m->b));
    if (m->len < 0)
        return false;
    hv_assert(type == VMBUS_PKT_INBAND && m->transaction && m->len >= 28 && get_le32(m->b) == 1 &&
              get_le32(m->b + 4) <= (uint32_t)m->len - 8 && get_le16(m->b + 18) == get_le32(m->b + 4) - 20 &&
              m->b[25] == 3 && get_le32(m->b + 20) == 0);
    return true;
}

static HV_UNUSED void ic_answer(struct guest_channel *c, struct ic_message *m, uint32_t status)
{
    put_le32(m->b + 20, status);
    m->b[25] = 5;
    guest_send(c, m->transaction, m->b, (uint32_t)m->len);
}

/* Answer the negotiation with these versions; 0, 0: nothing fits. */
static HV_UNUSED void ic_negotiate(struct guest_channel *c, uint32_t framework, uint32_t version)
{
    struct ic_message m;
    hv_assert(ic_next(c, &m) && get_le16(m.b + 12) == 0);
    unsigned n = get_le16(m.b + 28) + get_le16(m.b + 30);
    hv_assert(n >= 2 && get_le16(m.b + 18) == 8 + 4 * n);
    put_le16(m.b + 28, version != 0);
    put_le16(m.b + 30, version != 0);
    put_le32(m.b + 36, framework);
    put_le32(m.b + 40, version);
    ic_answer(c, &m, 0);
}

#endif
