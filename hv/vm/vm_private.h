/* Shared by the files of this room only. */
#ifndef HV_VM_PRIVATE_H
#define HV_VM_PRIVATE_H

#include <pthread.h>

#include "hv/boot/boot.h"
#include "hv/engine/engine.h"
#include "hv/hyperv/hyperv.h"
#include "hv/machine/machine.h"
#include "hv/memory/memory.h"
#include "hv/platform/platform.h"
#include "hv/vm/vm.h"
#include "hv/vmbus/vmbus.h"

#define VM_MAGIC 0x564d4831u
#define VM_MAX_VCPUS BOOT_VCPUS_MAX
/* Physical address width shown to every guest: hot-add range and MMIO windows lie below 2^46. */
#define VM_PHYS_BITS 46

struct vm_vcpu {
    struct vm *vm;
    unsigned vp;
    struct vcpu *vcpu;
    pthread_t thread;
    bool started;
};

struct vm {
    uint32_t magic;
    char name[128];
    struct guid id;
    struct settings settings;
    int kernel_fd, initrd_fd;
    struct loop *loop;
    struct vm_hooks hooks;

    struct layout layout;
    struct mem *mem;
    struct machine *machine;
    struct platform *platform;
    struct hyperv *hyperv;           /* NULL with vmbus where the settings say so */
    struct vmbus *vmbus;
    struct heartbeat *heartbeat;     /* and these with it */
    struct shutdown *shutdown;
    struct timesync *timesync;
    struct keyboard *keyboard;
    struct kvp *kvp;
    struct vss *vss;
    struct fcopy *fcopy;
    struct guest *guest;             /* what the services above know of it */
    struct dynmem *dynmem;
    struct storage *storage;
    struct disk_queue *disk_queue;
    struct engine *engine;

    enum vm_state state;
    enum vm_off_reason off_reason;
    char off_text[256];
    char kernel_name[96];
    uint32_t exit_code;
    unsigned resets;
    bool reset_paused;               /* VM_RESETTING: it was paused */
    uint64_t granted;                /* bytes that may be in memory while a part is on the paging file */
    uint64_t up_since_ns;            /* guest clock at start or last reset */

    /* vCPU threads wait here while parked; lock guards the next five. */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool park, quit;
    unsigned running;
    enum vm_off_reason fatal;        /* set by a vCPU thread that cannot go on */
    char fatal_text[256];
    _Atomic uint32_t events;         /* 1 << enum machine_event, and VM_EVENT_* */
    struct loop_post post, crash_post;
    struct vm_vcpu vcpu[VM_MAX_VCPUS];
    unsigned vcpus;
};

enum { VM_EVENT_TRIPLE_FAULT = 1 << 16, VM_EVENT_FATAL = 1 << 17 };

/* vcpu.c: the threads. vm_park returns once no vCPU is inside the engine. */
int vm_threads_start(struct vm *vm, struct hv_error *e);
void vm_threads_stop(struct vm *vm);
void vm_park(struct vm *vm);
void vm_unpark(struct vm *vm);
/* Any thread: note events, stop the vCPUs at their next boundary, have the loop look. */
void vm_raise(struct vm *vm, uint32_t events);

/* vm.c: the second half of a reset; memory is clear, or on the paging file. And the end. */
int vm_reboot(struct vm *vm, bool paused, struct hv_error *e);
void vm_go_off(struct vm *vm, enum vm_off_reason reason, const char *text);

/* paging.c: does the reset wait for memory? The VM is then VM_RESETTING. */
bool vm_reset_waits(struct vm *vm, bool paused);

/* services.c: providers on the bus. */
int vm_services_new(struct vm *vm, struct hv_error *e);
void vm_services_free(struct vm *vm);
/* The maximum may be another. */
void vm_memory_apply(struct vm *vm);

/* guest.c: key-values, freeze, file copy, and what they tell. The others of services.c are there before. */
int vm_guest_new(struct vm *vm, struct hv_error *e);
void vm_guest_free(struct vm *vm);
void vm_guest_resumed(struct vm *vm);       /* the VM runs (again), perhaps after a load */
void vm_guest_changed(void *vm);            /* something of its services did */
void vm_services_apply(struct vm *vm);      /* offer what the settings say */

/* disks.c: the SCSI controller and the queue under it. */
int vm_disks_new(struct vm *vm, struct hv_error *e);
void vm_disks_free(struct vm *vm);

/* wire.c: everything that one part calls of another. */
extern const struct engine_callbacks vm_engine_callbacks;
extern const struct machine_hooks vm_machine_hooks;      /* arg filled by the caller */
int vm_wire_memory(struct vm *vm, struct hv_error *e);
void vm_wire_platform(struct vm *vm, struct platform_config *cfg);

/* synthetic.c: the Hyper-V interface and VMBus. Each does nothing where settings.hyperv is off. */
int vm_cpuid(struct vm *vm, struct cpuid_leaf **leaf, unsigned *n);   /* adds the interface's leaves */
int vm_synthetic_new(struct vm *vm, struct hv_error *e);
void vm_synthetic_free(struct vm *vm);
/* vCPUs are parked: nothing of the bus touches guest memory until it is resumed. */
void vm_synthetic_pause(struct vm *vm);
void vm_synthetic_resume(struct vm *vm);
void vm_synthetic_go_on(struct vm *vm);      /* the same after a stop that nobody needs to know of */
/* Enter vp 0 where boot_prepare() said; the others stay as after reset. */
int vm_enter(struct vm *vm, const struct boot_entry *entry, struct hv_error *e);

#endif
