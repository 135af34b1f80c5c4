/* Making the host match a document: what apply_plan.c and apply.c share. */
#ifndef HV_SERVICE_APPLY_H
#define HV_SERVICE_APPLY_H

#include "hv/service/service.h"

#define APPLY_OBJECTS_MAX 4096u

/* A change of one disk of a running VM, which its worker has to take. */
struct apply_disk { enum disk_op op; unsigned lun; };

struct apply_item {
    struct apply *apply;
    bool host;                         /* else a VM */
    char name[4 * VM_NAME_MAX + 1];
    struct guid id;                    /* of a VM; has_id: the document's own words */
    bool has_id, there, running, differs;
    struct settings fresh, before;     /* as it shall be; once stored, what was */
    json_t *extras, *old_extras;       /* NULL: they stay as they are */
    struct host_settings host_fresh, host_before;
    json_t *changes;                   /* [{key, old, new, applied}] */
    bool any_now;                      /* the worker is to be told */
    struct apply_disk op[2 * SETTING_DISKS_MAX];
    unsigned ops, next_op;
    const json_t *entry;               /* the document's words, whose plan this is */
    uint64_t revision;                 /* of the VM that was planned against */
    struct svc_vm *made;               /* a new one, until it is one of the host's */
    struct hv_replacement file;        /* its document to come */
    bool staged;                       /* which is on disk */
    bool created, stored;
    struct hv_error error;             /* of what could not be carried out */
};

struct apply {
    struct varlink_call *call;
    struct service *svc;
    bool dry_run;
    json_t *params, *doc;
    struct apply_item *item;
    unsigned items, pending;
    unsigned step, at, synced, rounds; /* apply.c */
    struct loop_post turn;
    json_t *errors;                    /* of the document: nothing is done then */
    struct apply *next;                /* of the service's, until it begins to change anything */
};

/*
 * What the object of the document means for what is here now: fills everything up to `ops`. 0, or -errno with e, and the
 * item is not to be carried out. entry: {name, id, settings, extras, whole}, hostile; earlier items are a->item[0..items).
 */
int apply_plan_vm(struct apply *a, struct apply_item *it, const json_t *entry, struct hv_error *e);
int apply_plan_host(struct apply *a, struct apply_item *it, const json_t *entry, struct hv_error *e);
/* The VM of the item, as it is called now; NULL: it is gone. */
struct svc_vm *apply_vm(const struct apply_item *it);

#endif
