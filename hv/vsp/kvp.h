/*
 * Key-values: what a guest tells of itself, and what host and guest leave for each other.
 * The guest's hv_kvp_daemon keeps them in files, a pool each. guest-abi 6.4.5.
 */
#ifndef HV_VSP_KVP_H
#define HV_VSP_KVP_H

#include "hv/vmbus/vmbus.h"

#define KVP_POOLS(X)                                                     \
    X(EXTERNAL, "external")       /* the host's, for the guest */         \
    X(GUEST, "guest")             /* the guest's, for the host */         \
    X(AUTO, "auto")               /* facts of the guest */                \
    X(AUTO_EXTERNAL, "host")      /* facts of the host, for the guest */  \
    X(AUTO_INTERNAL, "internal")
enum kvp_pool {
#define KVP_POOL_ENUM(name, word) KVP_##name,
    KVP_POOLS(KVP_POOL_ENUM)
#undef KVP_POOL_ENUM
    KVP_POOL_COUNT
};

/* In UTF-16 units, terminators aside: what Linux can store and tell again. */
#define KVP_KEY_MAX    254u
#define KVP_VALUE_MAX  1022u
#define KVP_COUNT_LISTED (KVP_AUTO_EXTERNAL + 1u)   /* pools that anybody fills */
#define KVP_ITEMS_MAX  1024u        /* of a pool that are listed */
#define KVP_QUEUE_MAX  64u          /* requests that wait */

struct kvp;

/* status: IC_OK, IC_NO_MORE_ITEMS: no such key, IC_TIMEOUT, IC_GONE, or another word of ic.h. */
typedef void kvp_done_fn(void *arg, uint32_t status);
/* One item of a list; strings are UTF-8 of the guest's choosing, valid during the call. */
typedef void kvp_item_fn(void *arg, const char *key, const char *value);

/* changed: the guest's daemon is there, or its channel went. May be NULL. */
int kvp_new(struct vmbus *bus, void (*changed)(void *arg), void *arg, struct kvp **ret, struct hv_error *e);
void kvp_free(struct kvp *k);
struct ic *kvp_ic(struct kvp *k);
const char *kvp_pool_word(enum kvp_pool p);
/* Has a daemon shown itself, and does it answer? */
bool kvp_ready(const struct kvp *k);

/*
 * Requests, done one after the other; done comes later, once. 0;
 * -ENOTCONN: no daemon; -EBUSY: too many wait; -EINVAL: an empty or too long key or value; -ENOMEM.
 *
 * A single item is found by listing: Linux' driver answers GET with a value that lacks its
 * first four bytes (hv_kvp.c reads it where enumerations have theirs).
 */
int kvp_list(struct kvp *k, enum kvp_pool pool, kvp_item_fn *item, kvp_done_fn *done, void *arg);
int kvp_set(struct kvp *k, enum kvp_pool pool, const char *key, const char *value, kvp_done_fn *done, void *arg);
int kvp_remove(struct kvp *k, enum kvp_pool pool, const char *key, kvp_done_fn *done, void *arg);

#endif
