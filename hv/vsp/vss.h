/*
 * Freeze and thaw: the guest's hv_vss_daemon stops writes to its file systems, so that what
 * is copied of its disks meanwhile is consistent. guest-abi 6.4.6.
 *
 *   thawed ──freeze──▶ asking ──▶ freezing ──▶ frozen ──thaw, or the limit──▶ thawing ──▶ thawed
 *                        └ refused: thawed        └ the guest goes: thawed
 *                                   └ too late ──answer──▶ thawing
 */
#ifndef HV_VSP_VSS_H
#define HV_VSP_VSS_H

#include "hv/vmbus/vmbus.h"

/* A guest is not left frozen for longer: its logs, mail and databases stand still. Guest time. */
#define VSS_LIMIT_NS (600 * NS_PER_SEC)

struct vss;
/* status: IC_OK, IC_NOT_CONNECTED: no daemon, IC_TIMEOUT, IC_GONE, or another word of ic.h. */
typedef void vss_done_fn(void *arg, uint32_t status);

struct vss_config {
    /* A frozen guest is so no more, without having been asked: limit, or it went. May be NULL. */
    void (*lost)(void *arg, bool limit);
    void (*changed)(void *arg);         /* ready or not. May be NULL */
    void *arg;
};

int vss_new(struct vmbus *bus, const struct vss_config *cfg, struct vss **ret, struct hv_error *e);
void vss_free(struct vss *v);
struct ic *vss_ic(struct vss *v);
/* Does the guest's driver listen? Only a freeze says whether its daemon does. */
bool vss_ready(const struct vss *v);
bool vss_frozen(const struct vss *v);

/*
 * Freeze, within timeout_ns of guest time; done comes later. After any failure the guest is
 * thawed as soon as it listens. 0; -ENOTCONN: no driver; -EALREADY: frozen; -EBUSY: it is on its way
 * to another state.
 */
int vss_freeze(struct vss *v, uint64_t timeout_ns, vss_done_fn *done, void *arg);
/* 0; -EALREADY: not frozen; -ENOTCONN, -EBUSY as above. */
int vss_thaw(struct vss *v, vss_done_fn *done, void *arg);

#endif
