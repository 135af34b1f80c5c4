/*
 * The vCPU threads. Each alternates between the engine and a parking place:
 *
 *   loop thread: park = true, kick all, wait until running == 0   (vm_park)
 *   vCPU thread: engine_run() returns -> if park: wait on cond
 *
 * Kicks are sticky in the engine, so one that comes before the run makes the next run
 * return. A guest that powers off or resets must not execute anything afterwards: the
 * device's event sets park from the vCPU's own thread, inside the exit.
 */
#include <signal.h>

#include "hv/base/log.h"
#include "hv/vm/vm_private.h"

void vm_raise(struct vm *vm, uint32_t events)
{
    vm->events |= events;
    pthread_mutex_lock(&vm->lock);
    vm->park = true;
    pthread_mutex_unlock(&vm->lock);
    for (unsigned i = 0; i < vm->vcpus; i++)
        vm->engine->ops->kick(vm->vcpu[i].vcpu);
    loop_post(vm->loop, &vm->post);
}

static void fatal(struct vm *vm, const struct hv_error *e, unsigned vp)
{
    pthread_mutex_lock(&vm->lock);
    vm->fatal = VM_OFF_ERROR;
    snprintf(vm->fatal_text, sizeof(vm->fatal_text), "vCPU %u: %.200s", vp,
             e->message[0] ? e->message : "the engine stopped");
    pthread_mutex_unlock(&vm->lock);
    vm_raise(vm, VM_EVENT_FATAL);
}

static void *vcpu_main(void *arg)
{
    struct vm_vcpu *t = arg;
    struct vm *vm = t->vm;
    char name[16];
    snprintf(name, sizeof(name), "vcpu%u", t->vp);
    pthread_setname_np(pthread_self(), name);

    bool begun = false;
    pthread_mutex_lock(&vm->lock);
    while (!vm->quit) {
        if (vm->park) {
            pthread_cond_wait(&vm->cond, &vm->lock);
            continue;
        }
        vm->running++;
        pthread_mutex_unlock(&vm->lock);
        if (!begun && vm->hooks.vcpu_begins)
            vm->hooks.vcpu_begins(vm->hooks.arg);
        begun = true;

        struct hv_error e = {0};
        enum engine_stop stop = vm->engine->ops->run(t->vcpu, &e);
        if (stop == ENGINE_STOP_SHUTDOWN)
            vm_raise(vm, VM_EVENT_TRIPLE_FAULT);
        else if (stop == ENGINE_STOP_ERROR)
            fatal(vm, &e, t->vp);

        pthread_mutex_lock(&vm->lock);
        vm->running--;
        pthread_cond_broadcast(&vm->cond);
    }
    pthread_mutex_unlock(&vm->lock);
    return NULL;
}

int vm_threads_start(struct vm *vm, struct hv_error *e)
{
    /* Signals are the main thread's business. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int err = 0;
    for (unsigned i = 0; !err && i < vm->vcpus; i++) {
        struct vm_vcpu *t = &vm->vcpu[i];
        err = pthread_create(&t->thread, NULL, vcpu_main, t);
        t->started = !err;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err)
        return hv_fail_errno(e, err, vm->name, "cannot start a vCPU thread");
    return 0;
}

void vm_park(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->park = true;
    pthread_mutex_unlock(&vm->lock);
    for (unsigned i = 0; i < vm->vcpus; i++)
        if (vm->vcpu[i].started)
            vm->engine->ops->kick(vm->vcpu[i].vcpu);
    pthread_mutex_lock(&vm->lock);
    while (vm->running)
        pthread_cond_wait(&vm->cond, &vm->lock);
    pthread_mutex_unlock(&vm->lock);
}

void vm_unpark(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->park = vm->events != 0;      /* a guest that asked for its end runs no further */
    pthread_cond_broadcast(&vm->cond);
    pthread_mutex_unlock(&vm->lock);
}

void vm_threads_stop(struct vm *vm)
{
    vm_park(vm);
    pthread_mutex_lock(&vm->lock);
    vm->quit = true;
    pthread_cond_broadcast(&vm->cond);
    pthread_mutex_unlock(&vm->lock);
    for (unsigned i = 0; i < vm->vcpus; i++)
        if (vm->vcpu[i].started) {
            pthread_join(vm->vcpu[i].thread, NULL);
            vm->vcpu[i].started = false;
        }
}
