/*
 * One VM in this process, driven by a script of its options: for tests and benchmarks
 * that want to see below the service.
 *
 *   vmboot --kernel K [--initrd I] [--cmdline C] [--memory 512M] [--cpus 1] [--quiet] [--stats] ACTION...
 *
 * Actions, in order:  --until TEXT    wait for the text on the console
 *                     --send TEXT     type it, and Return
 *                     --for DURATION  let it run that long
 *                     --save          pause, save, load into a fresh VM, go on with that one
 *                     --button        press the power button
 *                     --reset         hard reset
 *                     --off           wait until the VM is off
 *                     --rebooted      wait until the guest has reset itself
 *                     --shutdown      ask the guest to power off through VMBus, --restart likewise
 *                     --heartbeat W   wait until the heartbeat is W (ok, lost, no-contact)
 *                     --guest TASK    "get KEY VALUE" (until it is so), "set KEY VALUE", "remove KEY", "freeze", "thaw",
 *                                     "copy FILE PATH [overwrite] [parents]"; with " -> WORDS" behind: it fails so
 *                     --driver        wait until the dynamic memory driver is bound
 *                     --reports N     wait for N of its reports
 *                     --target SIZE   move the guest's memory there; wait until that is done
 *                     --aim SIZE      the same, without waiting
 *                     --resident-below SIZE   the host must hold less than that
 *                     --attach DISK   a further disk while it runs, at the next address
 *                     --detach LUN    take one away
 *                     --grow LUN=SIZE make one larger
 * --disk PATH[,ro] and --dvd PATH (before the actions) are there from the start, at 0, 1, ...
 * --timeout DURATION bounds each action (60s). Exit 0 when all is done, 1 with a sentence on stderr.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/base/units.h"
#include "hv/disk/disk.h"
#include "hv/platform/console.h"
#include "hv/rpc/loop_uv.h"
#include "hv/vm/vm.h"

enum action_kind { ACT_UNTIL, ACT_SEND, ACT_FOR, ACT_SAVE, ACT_BUTTON, ACT_RESET, ACT_OFF, ACT_REBOOTED,
                   ACT_SHUTDOWN, ACT_RESTART, ACT_HEARTBEAT, ACT_DRIVER, ACT_REPORTS, ACT_TARGET, ACT_AIM, ACT_RESIDENT, ACT_ATTACH, ACT_DETACH, ACT_GROW, ACT_GUEST };
struct action { enum action_kind kind; const char *text; uint64_t ns; };

static struct {
    struct loop *loop;
    struct vm_config cfg;
    struct settings settings;
    struct vm *vm;
    struct console_watch watch;
    uint64_t pos;                      /* what was shown */
    char seen[8192];                   /* tail of the console since the last action */
    size_t seen_len;
    struct action action[512];
    unsigned count, at;
    unsigned resets_before;
    uint64_t timeout_ns, started_ns, action_ns;
    struct loop_timer *timer;
    struct loop_post look;
    struct { const char *path; bool dvd; } disk[64];
    unsigned disks;
    bool quiet, stats, advancing;
    bool asked, found;                 /* a --guest is under way; what it looks for is there */
    uint64_t ask_again_ns;
    char *typing;                      /* rest of a --send the guest's queue has not taken yet */
    int status;
} t;

static void advance(void);
static uint64_t size(const char *text);

/* Open a disk as "PATH[,ro]" says and put it at lun. */
static int attach_disk(struct vm *vm, const char *text, bool dvd, unsigned lun, struct hv_error *e)
{
    hv_autofree char *path = hv_strdup(text);
    char *comma = path ? strrchr(path, ',') : NULL;
    bool ro = dvd || (comma && strcmp(comma, ",ro") == 0);
    if (comma && strcmp(comma, ",ro") == 0)
        *comma = 0;
    struct disk *d;
    struct disk_options o = {.format = -1, .flags = ro ? 0 : DISK_WRITE};
    int r = path ? disk_open(path, &o, &d, e) : -ENOMEM;
    return r < 0 ? r : vm_disk_attach(vm, &(struct vm_disk){.lun = lun, .dvd = dvd, .read_only = ro}, d, e);
}

static int attach_all(struct vm *vm, struct hv_error *e)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < t.disks; i++)
        if (t.disk[i].path)
            r = attach_disk(vm, t.disk[i].path, t.disk[i].dvd, i, e);
    return r;
}

static void finish(int status, const char *why)
{
    if (why)
        fprintf(stderr, "vmboot: %s\n", why);
    t.status = status;
    loop_uv_stop(t.loop);
}

static void print_counter(void *arg, const struct stats_table *s, unsigned i, uint64_t v)
{
    if (v)
        fprintf(stderr, "  %s.%s %llu\n", s->group, s->desc[i].name, (unsigned long long)v);
}

static void on_output(void *arg)
{
    char buf[4096];
    size_t n;
    while ((n = console_read(vm_console(t.vm), &t.pos, buf, sizeof(buf), NULL))) {
        if (!t.quiet)
            fwrite(buf, 1, n, stdout);
        if (n > sizeof(t.seen) / 2)
            n = sizeof(t.seen) / 2;
        if (t.seen_len + n > sizeof(t.seen)) {
            size_t keep = sizeof(t.seen) / 2;
            memmove(t.seen, t.seen + t.seen_len - keep, keep);
            t.seen_len = keep;
        }
        memcpy(t.seen + t.seen_len, buf, n);
        t.seen_len += n;
    }
    fflush(stdout);
    loop_post(t.loop, &t.look);        /* not here: the next action may free the console that calls us */
}

static void type_more(void)
{
    if (!t.typing)
        return;
    size_t len = strlen(t.typing), n = console_input(vm_console(t.vm), t.typing, len);
    if (n == len) {
        free(t.typing);
        t.typing = NULL;
        loop_post(t.loop, &t.look);
    } else {
        memmove(t.typing, t.typing + n, len - n + 1);
    }
}

static void on_room(void *arg) { type_more(); }

static void attach(void)
{
    t.watch = (struct console_watch){.output = on_output, .room = on_room};
    t.pos = console_end(vm_console(t.vm));
    console_watch(vm_console(t.vm), &t.watch);
}

/* Pause, save, load into a fresh VM, resume that. */
static bool save_and_load(void)
{
    struct hv_error e = {0};
    struct save_writer w;
    struct load_reader r;
    struct vm *fresh = NULL;
    uint64_t t0 = hv_now_ns();
    save_init(&w);
    int err = vm_pause(t.vm, &e);
    on_output(NULL);                   /* what it said before belongs to the old one */
    if (err == 0)
        err = vm_save(t.vm, &w, &e);
    uint64_t t1 = hv_now_ns();
    console_unwatch(vm_console(t.vm), &t.watch);
    struct vm *old = t.vm;
    t.vm = NULL;
    vm_free(old);
    if (err == 0)
        err = load_init(&r, w.out.buf, w.out.len, &e);
    if (err == 0)
        err = vm_new(&t.cfg, &fresh, &e);
    if (err == 0)
        err = attach_all(fresh, &e);
    if (err == 0)
        err = vm_load(fresh, &r, &e);
    if (err == 0) {
        t.vm = fresh;
        attach();
        err = vm_resume(t.vm, &e);
    }
    fprintf(stderr, "vmboot: saved %zu MiB in %llu ms, loaded in %llu ms\n", w.out.len >> 20,
            (unsigned long long)((t1 - t0) / NS_PER_MS), (unsigned long long)((hv_now_ns() - t1) / NS_PER_MS));
    save_fini(&w);
    if (err < 0)
        finish(1, e.message);
    return err == 0;
}

/* ---- what is asked of the guest's daemons ---- */

static void on_task(void *arg, const struct hv_error *e)
{
    const char *task = arg, *fails = strstr(task, " -> ");
    t.asked = false;
    if (!t.vm || (e && !fails && e->code == HV_UNSUPPORTED))
        return;                        /* asked again: its daemon may be on its way */
    if (e)
        fprintf(stderr, "vmboot: %s: %s: %s\n", task, e->object, e->message);
    if (!fails == !e && (!e || strstr(e->message, fails + 4)))
        t.found = t.found || strncmp(task, "get ", 4) != 0;
    else
        finish(1, task);
    loop_post(t.loop, &t.look);
}

static void on_item(void *arg, const char *pool, const char *key, const char *value)
{
    const char *want = (const char *)arg + 4;
    size_t n = strlen(key);
    if (strncmp(want, key, n) == 0 && want[n] == ' ' && strcmp(want + n + 1, value) == 0)
        t.found = true;
}

static int already(int r, const char *what, struct hv_error *e)
{
    return r == 1 ? hv_fail(e, HV_CONFLICT, "vmboot", "%s", what) : r;
}

static int ask(const char *task, struct hv_error *e)
{
    hv_autofree char *words = hv_strdup(task);
    char *arrow = strstr(words, " -> "), *word[8] = {0}, *save = NULL;
    if (arrow)
        *arrow = 0;
    unsigned n = 0;
    for (char *w = strtok_r(words, " ", &save); w && n < 7; w = strtok_r(NULL, " ", &save))
        word[n++] = w;
    void *arg = (void *)(uintptr_t)task;
    if (strcmp(word[0], "get") == 0)
        return vm_items(t.vm, on_item, on_task, arg, e);
    if (strcmp(word[0], "set") == 0 || strcmp(word[0], "remove") == 0)
        return vm_item_set(t.vm, word[1], word[2], on_task, arg, e);
    if (strcmp(word[0], "freeze") == 0)
        return already(vm_freeze(t.vm, 60 * NS_PER_SEC, on_task, arg, e), "it is frozen already", e);
    if (strcmp(word[0], "thaw") == 0)
        return already(vm_thaw(t.vm, on_task, arg, e), "it is not frozen", e);
    struct vm_copy c = {.fd = open(word[1], O_RDONLY | O_CLOEXEC), .path = word[2]};
    for (unsigned i = 3; i < n; i++) {
        c.overwrite = c.overwrite || strcmp(word[i], "overwrite") == 0;
        c.parents = c.parents || strcmp(word[i], "parents") == 0;
    }
    c.size = c.fd >= 0 ? (uint64_t)lseek(c.fd, 0, SEEK_END) : 0;
    return vm_copy(t.vm, &c, on_task, arg, e);
}

/* True once it is over; a get is asked again until the item is as wanted, the others until there is a daemon. */
static bool guest_task(const char *task, bool first)
{
    struct hv_error e = {0};
    if (first)
        t.found = false;
    if (t.found || t.asked)
        return t.found;
    if (hv_now_ns() < t.ask_again_ns)
        return false;
    t.ask_again_ns = hv_now_ns() + 100 * NS_PER_MS;
    t.asked = true;
    if (ask(task, &e) == 0)
        return false;
    on_task((void *)(uintptr_t)task, &e);
    return t.found;
}

/* Is the present action complete? Does what it takes to begin it when `first`. */
static bool done(const struct action *a, bool first)
{
    switch (a->kind) {
    case ACT_UNTIL: {
        char *hit = memmem(t.seen, t.seen_len, a->text, strlen(a->text));
        if (!hit)
            return false;
        size_t used = (size_t)(hit - t.seen) + strlen(a->text);
        memmove(t.seen, t.seen + used, t.seen_len - used);
        t.seen_len -= used;
        return true;
    }
    case ACT_SEND:
        if (first) {
            t.typing = hv_asprintf("%s\n", a->text);
            type_more();
        }
        return !t.typing;
    case ACT_FOR:
        return hv_now_ns() - t.action_ns >= a->ns;
    case ACT_SAVE:
        return save_and_load();
    case ACT_BUTTON:
        return vm_power_button(t.vm);
    case ACT_RESET:
        return vm_reset(t.vm, NULL) == 0;
    case ACT_OFF:
        return vm_state(t.vm) == VM_OFF;
    case ACT_REBOOTED:
        if (vm_resets(t.vm) == t.resets_before)
            return false;
        t.seen_len = 0;                /* what it said before it went down */
        return true;
    case ACT_SHUTDOWN:
        return vm_guest_shutdown(t.vm, false, false);
    case ACT_RESTART:
        return vm_guest_shutdown(t.vm, true, false);
    case ACT_HEARTBEAT: {
        struct vm_guest g;
        vm_guest(t.vm, &g);
        return strcmp(g.heartbeat, a->text) == 0;
    }
    case ACT_DRIVER:
    case ACT_REPORTS: {
        struct vm_memory m;
        vm_memory(t.vm, &m);
        return a->kind == ACT_DRIVER ? m.driver : m.reports >= a->ns;
    }
    case ACT_ATTACH:
    case ACT_DETACH:
    case ACT_GROW: {
        struct hv_error e = {0};
        unsigned lun = (unsigned)strtoul(a->text, NULL, 10);
        int r;
        if (a->kind == ACT_ATTACH) {
            r = attach_disk(t.vm, a->text, false, t.disks, &e);
            t.disk[t.disks++].path = a->text;
        } else if (a->kind == ACT_DETACH) {
            r = vm_disk_detach(t.vm, lun, &e);
            t.disk[lun].path = NULL;
        } else {
            r = vm_disk_resize(t.vm, lun, size(strchr(a->text, '=') + 1), &e);
        }
        if (r < 0)
            finish(1, e.message);
        return r >= 0;
    }
    case ACT_GUEST: return guest_task(a->text, first);
    case ACT_AIM:
    case ACT_TARGET: {
        struct vm_memory m;
        struct hv_error e = {0};
        if (first && vm_memory_target(t.vm, a->ns, &e) < 0) {
            finish(1, e.message);
            return false;
        }
        if (a->kind == ACT_AIM)
            return true;
        vm_memory(t.vm, &m);
        if (m.assigned != a->ns || strcmp(m.op, "idle") != 0)
            return false;
        fprintf(stderr, "vmboot: assigned %llu MiB, the host holds %llu MiB, guest: %llu MiB available, demand %llu\n",
                (unsigned long long)(m.assigned >> 20), (unsigned long long)(m.resident >> 20),
                (unsigned long long)(m.available >> 20), (unsigned long long)(m.demand >> 20));
        return true;
    }
    case ACT_RESIDENT: {
        uint64_t have = vm_memory_resident(t.vm);
        if (have >= a->ns) {
            fprintf(stderr, "vmboot: the host holds %llu MiB\n", (unsigned long long)(have >> 20));
            finish(1, "the host holds too much");
            return false;
        }
        return true;
    }
    }
    return false;
}

/* What only time changes is looked at again and again; the rest announces itself. */
static bool polled(enum action_kind k) { return k >= ACT_SHUTDOWN || k == ACT_BUTTON; }

static void arm(void)
{
    const struct action *a = &t.action[t.at];
    uint64_t end = t.action_ns + (a->kind == ACT_FOR ? a->ns : t.timeout_ns);
    loop_timer_set(t.loop, t.timer, polled(a->kind) ? MIN(end, hv_now_ns() + 20 * NS_PER_MS) : end);
}

static void advance(void)
{
    if (t.advancing || t.status >= 0)
        return;
    t.advancing = true;
    while (t.at < t.count && t.status < 0) {
        bool first = t.action_ns == 0;
        if (first)
            t.action_ns = hv_now_ns();
        if (!done(&t.action[t.at], first)) {
            arm();
            break;
        }
        if (t.action[t.at].kind == ACT_REBOOTED)
            t.resets_before = vm_resets(t.vm);
        t.at++;
        t.action_ns = 0;
    }
    if (t.at == t.count && t.status < 0)
        finish(0, NULL);
    t.advancing = false;
}

static void on_look(void *arg) { advance(); }

static void on_timer(void *arg)
{
    const struct action *a = &t.action[t.at];
    char why[300];
    if (t.at < t.count && (a->kind == ACT_FOR || (polled(a->kind) && hv_now_ns() < t.action_ns + t.timeout_ns))) {
        advance();
        return;
    }
    snprintf(why, sizeof(why), "timed out at action %u%s%s", t.at + 1, a->text ? ": " : "", a->text ? a->text : "");
    finish(1, why);
}

static void on_changed(void *arg)
{
    const char *text = "";
    char why[400];
    if (!t.vm || t.advancing)
        return;
    if (vm_state(t.vm) == VM_OFF) {
        on_output(NULL);
        enum vm_off_reason r = vm_off_reason(t.vm, &text);
        if (t.status < 0 && !(t.at < t.count && t.action[t.at].kind == ACT_OFF)) {
            snprintf(why, sizeof(why), "the VM went off: %s %s", vm_off_reason_word(r), text);
            finish(r == VM_OFF_EXIT_CODE ? (int)vm_exit_code(t.vm) : 1, why);
            return;
        }
    }
    advance();
}

static void add(enum action_kind kind, const char *text, uint64_t ns)
{
    hv_assert(t.count < ARRAY_SIZE(t.action));
    t.action[t.count++] = (struct action){kind, text, ns};
}

static int open_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "vmboot: %s: %s\n", path, strerror(errno));
        exit(2);
    }
    return fd;
}

static void set_text(const char *key, const char *text)
{
    struct hv_error e = {0};
    if (setting_set_text(&t.settings, setting_find(key), text, &e) < 0) {
        fprintf(stderr, "vmboot: %s: %s\n", e.object, e.message);
        exit(2);
    }
}

static uint64_t duration(const char *text)
{
    struct hv_error e = {0};
    uint64_t ns;
    if (parse_duration(text, "duration", &ns, &e) < 0) {
        fprintf(stderr, "vmboot: %s: %s\n", e.object, e.message);
        exit(2);
    }
    return ns;
}

static uint64_t size(const char *text)
{
    struct hv_error e = {0};
    uint64_t bytes;
    if (parse_size(text, "size", &bytes, &e) < 0) {
        fprintf(stderr, "vmboot: %s: %s\n", e.object, e.message);
        exit(2);
    }
    return bytes;
}

static void on_guest_event(void *arg, bool warning, const char *message, const char *hint)
{
    fprintf(stderr, "vmboot: guest: %s%s%s\n", message, hint ? ": " : "", hint ? hint : "");
}

static void on_memory_event(void *arg, bool warning, const char *message, const char *hint)
{
    fprintf(stderr, "vmboot: memory: %s%s%s\n", message, hint ? ": " : "", hint ? hint : "");
}

int main(int argc, char **argv)
{
    enum { KERNEL = 1, INITRD, CMDLINE, MEMORY, CPUS, QUIET, STATS, TIMEOUT, UNTIL, SEND, FOR, SAVE, BUTTON, RESET, OFF, REBOOTED, SET,
           SHUTDOWN, RESTART, HEARTBEAT, DRIVER, REPORTS, TARGET, AIM, RESIDENT, DISK, DVD, ATTACH, DETACH, GROW, GUEST };
    static const struct option o[] = {
        {"kernel", 1, 0, KERNEL}, {"initrd", 1, 0, INITRD}, {"cmdline", 1, 0, CMDLINE}, {"memory", 1, 0, MEMORY},
        {"cpus", 1, 0, CPUS}, {"quiet", 0, 0, QUIET}, {"stats", 0, 0, STATS}, {"timeout", 1, 0, TIMEOUT},
        {"until", 1, 0, UNTIL}, {"send", 1, 0, SEND}, {"for", 1, 0, FOR}, {"save", 0, 0, SAVE}, {"button", 0, 0, BUTTON},
        {"reset", 0, 0, RESET}, {"off", 0, 0, OFF}, {"rebooted", 0, 0, REBOOTED}, {"set", 1, 0, SET},
        {"shutdown", 0, 0, SHUTDOWN}, {"restart", 0, 0, RESTART}, {"heartbeat", 1, 0, HEARTBEAT}, {"driver", 0, 0, DRIVER},
        {"reports", 1, 0, REPORTS}, {"target", 1, 0, TARGET}, {"aim", 1, 0, AIM}, {"resident-below", 1, 0, RESIDENT}, {"disk", 1, 0, DISK},
        {"dvd", 1, 0, DVD}, {"attach", 1, 0, ATTACH}, {"detach", 1, 0, DETACH}, {"grow", 1, 0, GROW},
        {"guest", 1, 0, GUEST}, {0}};
    int c, kernel = -1, initrd = -1;
    log_init("vmboot");
    settings_init(&t.settings);
    set_text("memory.startup", "512M");
    t.timeout_ns = 60 * NS_PER_SEC;
    t.status = -1;
    while ((c = getopt_long(argc, argv, "", o, NULL)) != -1) {
        switch (c) {
        case KERNEL: kernel = open_file(optarg); set_text("boot.kernel", "/given"); break;
        case INITRD: initrd = open_file(optarg); set_text("boot.initrd", "/given"); break;
        case CMDLINE: set_text("boot.cmdline", optarg); break;
        case MEMORY: set_text("memory.startup", optarg); break;
        case CPUS: set_text("processor.cpus", optarg); break;
        case SET: {
            char *eq = strchr(optarg, '=');
            if (!eq)
                return 2;
            *eq = 0;
            set_text(optarg, eq + 1);
            break;
        }
        case QUIET: t.quiet = true; break;
        case STATS: t.stats = true; break;
        case TIMEOUT: t.timeout_ns = duration(optarg); break;
        case UNTIL: add(ACT_UNTIL, optarg, 0); break;
        case SEND: add(ACT_SEND, optarg, 0); break;
        case FOR: add(ACT_FOR, NULL, duration(optarg)); break;
        case SAVE: add(ACT_SAVE, NULL, 0); break;
        case BUTTON: add(ACT_BUTTON, NULL, 0); break;
        case RESET: add(ACT_RESET, NULL, 0); break;
        case OFF: add(ACT_OFF, NULL, 0); break;
        case REBOOTED: add(ACT_REBOOTED, NULL, 0); break;
        case SHUTDOWN: add(ACT_SHUTDOWN, NULL, 0); break;
        case RESTART: add(ACT_RESTART, NULL, 0); break;
        case HEARTBEAT: add(ACT_HEARTBEAT, optarg, 0); break;
        case DRIVER: add(ACT_DRIVER, NULL, 0); break;
        case REPORTS: add(ACT_REPORTS, NULL, strtoull(optarg, NULL, 10)); break;
        case TARGET: add(ACT_TARGET, optarg, size(optarg)); break;
        case AIM: add(ACT_AIM, optarg, size(optarg)); break;
        case DISK:
        case DVD:
            hv_assert(t.disks < ARRAY_SIZE(t.disk));
            t.disk[t.disks].path = optarg;
            t.disk[t.disks++].dvd = c == DVD;
            break;
        case ATTACH: add(ACT_ATTACH, optarg, 0); break;
        case DETACH: add(ACT_DETACH, optarg, 0); break;
        case GROW: add(ACT_GROW, optarg, 0); break;
        case GUEST: add(ACT_GUEST, optarg, 0); break;
        case RESIDENT: add(ACT_RESIDENT, optarg, size(optarg)); break;
        default: return 2;
        }
    }
    struct hv_error e = {0};
    if (kernel < 0 || loop_uv_new(&t.loop) < 0 || loop_timer_new(t.loop, on_timer, NULL, &t.timer) < 0)
        return 2;
    t.cfg = (struct vm_config){.name = "vmboot", .settings = &t.settings, .kernel_fd = kernel, .initrd_fd = initrd,
                               .loop = t.loop, .hooks = {.changed = on_changed, .memory_event = on_memory_event, .guest_event = on_guest_event}};
    t.look = (struct loop_post){.fn = on_look};
    guid_new(&t.cfg.id);
    t.started_ns = hv_now_ns();
    if (vm_new(&t.cfg, &t.vm, &e) < 0) {
        fprintf(stderr, "vmboot: %s: %s\n", e.object, e.message);
        return 1;
    }
    if (attach_all(t.vm, &e) < 0) {
        fprintf(stderr, "vmboot: %s: %s\n", e.object, e.message);
        return 1;
    }
    attach();
    t.advancing = true;                /* not before the start has returned */
    if (vm_start(t.vm, false, &e) < 0) {
        fprintf(stderr, "vmboot: %s: %s\n", e.object, e.message);
        return 1;
    }
    t.advancing = false;
    advance();
    if (t.status < 0)
        loop_uv_run(t.loop);
    double s = (double)(hv_now_ns() - t.started_ns) / 1e9;
    if (t.vm && t.stats) {
        fprintf(stderr, "vmboot: %.3f s wall, %.3f s vCPU, %llu MiB resident\n", s, (double)vm_cpu_ns(t.vm) / 1e9,
                (unsigned long long)(vm_memory_resident(t.vm) >> 20));
        stats_each(vm_stats(t.vm), print_counter, NULL);
    }
    struct vm *vm = t.vm;
    t.vm = NULL;
    vm_free(vm);
    loop_timer_free(t.loop, t.timer);
    loop_uv_free(t.loop);
    settings_fini(&t.settings);
    return t.status;
}
