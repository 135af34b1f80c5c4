/*
 * What the worker gives up before its guest runs (DESIGN 9), in two steps:
 *
 *   main ─▶ Setup arrives ─▶ sandbox_confine() ─▶ vm_new(): KVM VM, threads, guest memory
 *        ─▶ sandbox_seal() ─▶ Start: the kernel is read, guest code runs
 *
 * Confine needs the capabilities of the namespaces hvd made and gives them up before there
 * is a second thread, as capabilities are a thread's. Seal binds every thread there is to a
 * system call filter, and from then on nothing executable can be mapped. Nothing a guest or
 * a file says is looked at before the seal.
 *
 * A layer this host does not allow is left out and says why; `hvctl host doctor` shows it.
 */
#ifndef HV_WORKER_SANDBOX_H
#define HV_WORKER_SANDBOX_H

#include <jansson.h>

#include "hv/base/base.h"

#define SANDBOX_LAYERS_MAX 8

struct sandbox_layer {
    const char *name;            /* root, capabilities, limits, system-calls */
    bool on;
    char why[128];               /* why it is off, or "" */
};

struct sandbox_report {
    struct sandbox_layer layer[SANDBOX_LAYERS_MAX];
    unsigned count;
};

/*
 * Empty root folder (where this process has a mount namespace of its own), no capabilities,
 * no new privileges, limits. Once, while there is one thread.
 */
void sandbox_confine(struct sandbox_report *r);

/*
 * The one region that may become executable after the seal: the code cache of an engine that
 * translates. len 0: none, else a power of two that base is a multiple of. It is mapped (read
 * and write) before the seal and has a page that cannot be accessed behind it.
 */
struct sandbox_code {
    const void *base;
    size_t len;
};

/*
 * No further process or thread, and the system call filter: every thread gets the outer one,
 * the calling thread, which is the loop's, the narrower one of loops. Once.
 */
void sandbox_seal(const struct sandbox_code *code, struct sandbox_report *r);

/* The calling thread, sealed already, runs a vCPU: it needs less than the loop. */
void sandbox_seal_vcpu(void);
/* The calling thread, sealed already, waits for disks: less than the loop needs, and other things than a vCPU. */
void sandbox_seal_disk(void);

/* [{"name", "on", "why"}]; NULL without memory. */
json_t *sandbox_json(const struct sandbox_report *r);

/* ---- between the two files ---- */
void sandbox_note(struct sandbox_report *r, const char *name, bool on, const char *fmt, ...) HV_PRINTF(4, 5);

#endif
