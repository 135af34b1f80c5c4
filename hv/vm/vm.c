/* Building one virtual machine and its life cycle. See vm.h for the states. */
#include "hv/vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <time.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/base/units.h"
#include "hv/vm/vm_private.h"

static const char *const state_words[] = {
#define VM_STATE_WORD(name, word) word,
    VM_STATES(VM_STATE_WORD)
#undef VM_STATE_WORD
};
static const char *const off_words[] = {
#define VM_OFF_WORD(name, word) word,
    VM_OFF_REASONS(VM_OFF_WORD)
#undef VM_OFF_WORD
};

static void handle_events(void *arg);

/* ---- building ---- */

static int plan(struct vm *vm, struct hv_error *e)
{
    const struct settings *s = &vm->settings;
    uint64_t max = s->memory.dynamic ? s->memory.max : s->memory.startup;
    int r = layout_plan(settings_boot_memory(s), max, VM_PHYS_BITS, &vm->layout, e);
    if (r == 0)
        r = mem_new(vm->name, -1, &vm->mem, e);
    if (r == 0)
        r = mem_add_ram(vm->mem, 0, vm->layout.low_bytes, e);
    if (r == 0 && vm->layout.high_bytes)
        r = mem_add_ram(vm->mem, MEM_HIGH_BASE, vm->layout.high_bytes, e);
    return r;
}

static enum engine_kind engine_wanted(const struct settings *s)
{
    switch ((enum set_engine)s->engine) {
    case SET_ENGINE_KVM: return ENGINE_KVM;
    case SET_ENGINE_SOFT: return ENGINE_SOFT;
    default: return ENGINE_AUTO;
    }
}

static int make_engine(struct vm *vm, int kvm_fd, struct hv_error *e)
{
    const struct settings *s = &vm->settings;
    const struct engine_ops *ops = engine_choose_fd(engine_wanted(s), kvm_fd > 0 ? kvm_fd : -1, e);
    if (!ops)
        return -EOPNOTSUPP;
    struct engine_config cfg = {
        .vcpus = (unsigned)s->processor.cpus,
        .phys_bits = VM_PHYS_BITS,
        .kvm_fd = kvm_fd,
        .mitigations_guest = s->mitigations == SET_MITIGATIONS_GUEST,
    };
    int r = ops->create(&cfg, &vm_engine_callbacks, vm, &vm->engine, e);
    if (r < 0)
        return r;
    vm->vcpus = cfg.vcpus;
    for (unsigned i = 0; i < vm->vcpus; i++) {
        vm->vcpu[i] = (struct vm_vcpu){.vm = vm, .vp = i, .vcpu = ops->vcpu(vm->engine, i)};
        struct cpuid_leaf *leaf = NULL;
        unsigned n = 0;
        r = ops->get_cpuid(vm->engine, i, &leaf, &n);
        if (r == 0)
            r = vm_cpuid(vm, &leaf, &n);
        if (r == 0)
            r = ops->set_cpuid(vm->engine, i, leaf, n);
        free(leaf);
        if (r < 0)
            return hv_fail_errno(e, -r, vm->name, "cannot set up vCPU %u", i);
    }
    return 0;
}

static int make_machine(struct vm *vm, struct hv_error *e)
{
    struct machine_hooks hooks = vm_machine_hooks;
    hooks.arg = vm;
    int r = machine_new(vm->mem, vm->loop, &hooks, &vm->machine, e);
    if (r < 0)
        return r;
    machine_clock_pause(vm->machine);       /* until vm_start */
    struct platform_config cfg = {0};
    vm_wire_platform(vm, &cfg);
    r = platform_new(vm->machine, &cfg, &vm->platform, e);
    if (r == 0)
        r = vm_synthetic_new(vm, e);
    if (r == 0)
        vm->engine->ops->stats(vm->engine, machine_stats(vm->machine));
    return r;
}

static int dup_fd(int fd, int *ret, struct hv_error *e, const char *what)
{
    *ret = -1;
    if (fd < 0)
        return 0;
    *ret = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return *ret < 0 ? hv_fail_errno(e, errno, what, "cannot keep it open") : 0;
}

int vm_new(const struct vm_config *cfg, struct vm **ret, struct hv_error *e)
{
    struct vm *vm = hv_alloc(sizeof(*vm));
    if (!vm)
        return hv_fail(e, HV_NO_RESOURCES, cfg->name, "out of memory");
    vm->magic = VM_MAGIC;
    hv_strlcpy(vm->name, cfg->name, sizeof(vm->name));
    vm->id = cfg->id;
    vm->kernel_fd = vm->initrd_fd = -1;
    vm->loop = cfg->loop;
    vm->hooks = cfg->hooks;
    vm->state = VM_BUILT;
    vm->park = true;
    vm->post = (struct loop_post){.fn = handle_events, .arg = vm};
    pthread_mutex_init(&vm->lock, NULL);
    pthread_cond_init(&vm->cond, NULL);
    settings_init(&vm->settings);

    int r = settings_copy(&vm->settings, cfg->settings);
    if (r < 0)
        hv_fail(e, HV_NO_RESOURCES, cfg->name, "out of memory");
    if (r == 0)
        r = settings_check(&vm->settings, vm->name, e);
    if (r == 0)
        r = dup_fd(cfg->kernel_fd, &vm->kernel_fd, e, "kernel");
    if (r == 0)
        r = dup_fd(cfg->initrd_fd, &vm->initrd_fd, e, "initrd");
    if (r == 0)
        r = plan(vm, e);
    if (r == 0)
        r = make_engine(vm, cfg->kvm_fd, e);
    if (r == 0)
        r = make_machine(vm, e);
    if (r == 0)
        r = vm_wire_memory(vm, e);
    if (r == 0)
        r = vm_threads_start(vm, e);
    if (r < 0) {
        vm_free(vm);
        return r;
    }
    *ret = vm;
    return 0;
}

void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    HV_CHECK(vm, VM_MAGIC);
    if (vm->engine)
        vm_threads_stop(vm);
    loop_post_cancel(vm->loop, &vm->post);
    if (vm->mem)
        mem_set_listener(vm->mem, NULL);
    vm_synthetic_free(vm);
    platform_free(vm->platform);
    if (vm->machine)
        machine_free(vm->machine);
    if (vm->engine)
        vm->engine->ops->destroy(vm->engine);
    mem_free(vm->mem);
    settings_fini(&vm->settings);
    if (vm->kernel_fd >= 0)
        close(vm->kernel_fd);
    if (vm->initrd_fd >= 0)
        close(vm->initrd_fd);
    pthread_cond_destroy(&vm->cond);
    pthread_mutex_destroy(&vm->lock);
    vm->magic = 0;
    free(vm);
}

/* ---- life cycle ---- */

static void changed(struct vm *vm)
{
    if (vm->hooks.changed)
        vm->hooks.changed(vm->hooks.arg);
}

static int wrong_state(struct vm *vm, const char *what, struct hv_error *e)
{
    return hv_fail(e, HV_CONFLICT, vm->name, "cannot %s: it is %s", what, state_words[vm->state]);
}

static struct boot_board vm_board(const struct vm *vm)
{
    struct boot_board b = BOOT_BOARD_DEFAULT;
    b.vmbus = vm->vmbus != NULL;
    return b;
}

/* Parked, memory clear, devices and engine in power-on state: put the kernel in and point vp 0 at it. */
static int boot(struct vm *vm, struct hv_error *e)
{
    if (vm->kernel_fd < 0) {
        hv_fail(e, HV_UNSUPPORTED, vm->name, "cannot start: it has nothing to boot");
        hv_hint(e, "give it a kernel: --kernel PATH --initrd PATH");
        return -EOPNOTSUPP;
    }
    struct boot_config cfg = {
        .name = vm->name,
        .id = vm->id,
        .vcpus = vm->vcpus,
        .layout = &vm->layout,
        .board = vm_board(vm),
        .kernel_fd = vm->kernel_fd,
        .initrd_fd = vm->initrd_fd,
        .kernel_name = vm->settings.boot.kernel,
        .initrd_name = vm->settings.boot.initrd,
        .cmdline = vm->settings.boot.cmdline,
    };
    struct boot_result res;
    int r = boot_prepare(&cfg, vm->mem, &res, e);
    if (r == 0)
        r = vm_enter(vm, &res.entry, e);
    if (r == 0) {
        hv_strlcpy(vm->kernel_name, res.kernel, sizeof(vm->kernel_name));
        vm->up_since_ns = machine_clock_ns(vm->machine);
    }
    return r;
}

static void run(struct vm *vm)
{
    machine_clock_resume(vm->machine);
    vm_synthetic_resume(vm);
    vm->state = VM_RUNNING;
    vm_unpark(vm);
}

static int boot_anew(struct vm *vm, struct hv_error *e)
{
    vm->engine->ops->reset(vm->engine);
    machine_reset(vm->machine);
    return boot(vm, e);
}

static void go(struct vm *vm, bool paused)
{
    if (paused)
        vm->state = VM_PAUSED;
    else
        run(vm);
    changed(vm);
}

int vm_start(struct vm *vm, bool paused, struct hv_error *e)
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->state != VM_BUILT)
        return wrong_state(vm, "start", e);
    int r = boot_anew(vm, e);
    if (r == 0)
        go(vm, paused);
    return r;
}

int vm_pause(struct vm *vm, struct hv_error *e)
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->state != VM_RUNNING)
        return wrong_state(vm, "pause", e);
    vm_park(vm);
    vm_synthetic_pause(vm);
    machine_clock_pause(vm->machine);
    vm->state = VM_PAUSED;
    changed(vm);
    return 0;
}

int vm_resume(struct vm *vm, struct hv_error *e)
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->state != VM_PAUSED)
        return wrong_state(vm, "resume", e);
    run(vm);
    changed(vm);
    return 0;
}

void vm_go_off(struct vm *vm, enum vm_off_reason reason, const char *text)
{
    vm_park(vm);
    vm_synthetic_pause(vm);
    machine_clock_pause(vm->machine);
    vm->state = VM_OFF;
    vm->off_reason = reason;
    hv_strlcpy(vm->off_text, text, sizeof(vm->off_text));
    changed(vm);
}

/* The reset went wrong: what is left of the VM is no machine that could run. */
static int reset_failed(struct vm *vm, int r, const struct hv_error *why, struct hv_error *e)
{
    char text[sizeof(vm->off_text)];
    snprintf(text, sizeof(text), "reset failed: %.200s", why->message);
    vm_go_off(vm, VM_OFF_ERROR, text);
    if (e)
        *e = *why;
    return r;
}

int vm_reboot(struct vm *vm, bool paused, struct hv_error *e)
{
    struct hv_error why = {0};
    int r = boot_anew(vm, &why);
    if (r < 0)
        return reset_failed(vm, r, &why, e);
    vm->resets++;
    go(vm, paused);
    return 0;
}

int vm_reset(struct vm *vm, struct hv_error *e)
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->state != VM_RUNNING && vm->state != VM_PAUSED)
        return wrong_state(vm, "reset", e);
    bool paused = vm->state == VM_PAUSED;
    struct hv_error why = {0};
    vm_park(vm);
    vm_synthetic_pause(vm);
    vm->events = 0;
    machine_clock_pause(vm->machine);
    int r = mem_clear(vm->mem);
    if (r < 0) {
        hv_fail_errno(&why, -r, vm->name, "cannot clear its memory");
        return reset_failed(vm, r, &why, e);
    }
    if (vm_reset_waits(vm, paused)) {
        changed(vm);
        return 0;
    }
    return vm_reboot(vm, paused, e);
}

void vm_turn_off(struct vm *vm)
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->state != VM_OFF)
        vm_go_off(vm, VM_OFF_TURNED_OFF, "");
}

bool vm_power_button(struct vm *vm)
{
    HV_CHECK(vm, VM_MAGIC);
    return vm->state == VM_RUNNING && platform_power_button(vm->platform);
}

/* What vCPU threads and devices raised; they are stopped or about to. */
static void handle_events(void *arg)
{
    struct vm *vm = arg;
    HV_CHECK(vm, VM_MAGIC);
    uint32_t ev = __atomic_exchange_n((uint32_t *)&vm->events, 0, __ATOMIC_SEQ_CST);
    if (!ev || vm->state == VM_OFF || vm->state == VM_BUILT || vm->state == VM_RESETTING)
        return;
    vm_park(vm);
    if (ev & VM_EVENT_FATAL) {
        vm_go_off(vm, VM_OFF_ERROR, vm->fatal_text);
    } else if (ev & (1u << MACHINE_EVENT_SHUTDOWN_CODE)) {
        vm->exit_code = platform_exit_code(vm->platform);
        vm_go_off(vm, VM_OFF_EXIT_CODE, "");
    } else if (ev & (1u << MACHINE_EVENT_POWER_OFF)) {
        vm_go_off(vm, VM_OFF_POWER_OFF, "");
    } else if (ev & VM_EVENT_TRIPLE_FAULT &&
               vm->settings.boot.on_triple_fault == SET_ON_REBOOT_OFF) {
        vm_go_off(vm, VM_OFF_CRASH, "triple fault");
    } else if (vm->settings.boot.on_reboot == SET_ON_REBOOT_OFF) {
        vm_go_off(vm, VM_OFF_RESET, "the guest rebooted");
    } else {
        (void)vm_reset(vm, NULL);       /* on failure the VM is off and says why */
    }
}

/* ---- queries ---- */

enum vm_state vm_state(const struct vm *vm)
{
    HV_CHECK(vm, VM_MAGIC);
    return vm->state;
}

const char *vm_state_word(enum vm_state st) { return state_words[st]; }
const char *vm_off_reason_word(enum vm_off_reason r) { return off_words[r]; }

enum vm_off_reason vm_off_reason(const struct vm *vm, const char **ret_text)
{
    HV_CHECK(vm, VM_MAGIC);
    if (ret_text)
        *ret_text = vm->off_text;
    return vm->off_reason;
}

uint32_t vm_exit_code(const struct vm *vm) { return vm->exit_code; }
unsigned vm_resets(const struct vm *vm) { return vm->resets; }

uint64_t vm_uptime_ns(struct vm *vm)
{
    return vm->state == VM_BUILT ? 0 : machine_clock_ns(vm->machine) - vm->up_since_ns;
}

uint64_t vm_vcpu_ns(struct vm *vm, unsigned vp_index)
{
    clockid_t clock;
    struct timespec ts;
    bool known = vp_index < vm->vcpus && vm->vcpu[vp_index].started &&
                 pthread_getcpuclockid(vm->vcpu[vp_index].thread, &clock) == 0 && clock_gettime(clock, &ts) == 0;
    return known ? (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec : 0;
}

uint64_t vm_cpu_ns(struct vm *vm)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < vm->vcpus; i++)
        sum += vm_vcpu_ns(vm, i);
    return sum;
}

uint64_t vm_memory_assigned(struct vm *vm)
{
    struct vm_memory m;
    vm_memory(vm, &m);
    return m.assigned;
}
uint64_t vm_memory_resident(struct vm *vm) { return mem_resident_bytes(vm->mem); }
const char *vm_engine_name(const struct vm *vm) { return vm->engine->ops->name; }
void vm_code_region(const struct vm *vm, const void **ret_base, size_t *ret_len)
{
    *ret_base = NULL;
    *ret_len = 0;
    if (vm->engine->ops->code_region)
        vm->engine->ops->code_region(vm->engine, ret_base, ret_len);
}

const char *vm_kernel_name(const struct vm *vm) { return vm->kernel_name; }
struct console *vm_console(struct vm *vm) { return platform_console(vm->platform); }
struct machine *vm_machine(struct vm *vm) { return vm->machine; }
struct mem *vm_mem(struct vm *vm) { return vm->mem; }
const struct settings *vm_settings(const struct vm *vm) { return &vm->settings; }
struct stats_registry *vm_stats(struct vm *vm) { return machine_stats(vm->machine); }

int vm_apply(struct vm *vm, const struct settings *s)
{
    HV_CHECK(vm, VM_MAGIC);
    for (unsigned i = 0; i < SETTING_COUNT; i++) {
        const struct setting_desc *d = &setting_table[i];
        if (d->live != SETTING_NOW || setting_equal(&vm->settings, s, d))
            continue;
        if (d->type == SETTING_TEXT || d->type == SETTING_PATH) {
            int r = setting_set_string(&vm->settings, d, setting_string(s, d));
            if (r < 0)
                return r;
        } else {
            setting_set_number(&vm->settings, d, setting_number(s, d));
        }
    }
    vm_memory_apply(vm);
    vm_services_apply(vm);
    return 0;
}
