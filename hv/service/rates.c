/*
 * What a VM does a second: disks, exits, processors, from one report of its worker to a later one.
 * Counters that went back (another disk, a restart) make no rate.
 */
#include <math.h>

#include "hv/service/service.h"

#define DISKS_MAX 64u

/* JSON null where it is not known. */
static json_t *number(double v) { return isnan(v) ? json_null() : json_integer((json_int_t)(v + 0.5)); }

static double value(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) && json_integer_value(v) >= 0 ? (double)json_integer_value(v) : NAN;
}

/* How much a counter grew; NAN: it is not in both, or went back. */
static double growth(const json_t *was, const json_t *is, const char *key)
{
    double d = value(is, key) - value(was, key);
    return d >= 0 ? d : NAN;
}

static const json_t *same_disk(const json_t *list, const json_t *disk)
{
    const json_t *at = json_object_get(disk, "location"), *path = json_object_get(disk, "path");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *d = json_array_get(list, i);
        if (json_equal(json_object_get(d, "location"), at) && json_equal(json_object_get(d, "path"), path))
            return d;
    }
    return NULL;
}

struct disk_sum { double read, write, requests, wait, queue, used, size; unsigned n; };

/* Sums pass over what is not known; all unknown is unknown. */
static void add(double *sum, double v)
{
    if (!isnan(v))
        *sum = isnan(*sum) ? v : *sum + v;
}

static json_t *disk_rates(const json_t *was, const json_t *disk, double seconds, struct disk_sum *sum)
{
    const json_t *before = same_disk(was, disk);
    double reads = growth(before, disk, "reads"), writes = growth(before, disk, "writes"), wait = growth(before, disk, "wait_ns");
    double requests = reads + writes;
    double read = growth(before, disk, "read_bytes") / seconds, write = growth(before, disk, "written_bytes") / seconds;
    add(&sum->read, read);
    add(&sum->write, write);
    add(&sum->requests, requests);
    add(&sum->wait, wait);
    add(&sum->queue, value(disk, "queue"));
    add(&sum->used, value(disk, "used"));
    add(&sum->size, value(disk, "size"));
    sum->n++;
    return json_pack("[O?O?O?ooooooo]", json_object_get(disk, "location"), json_object_get(disk, "path"), json_object_get(disk, "type"),
                     number(read), number(write), number(requests / seconds), number(requests > 0 ? wait / requests / 1000 : NAN),
                     number(value(disk, "queue")), number(value(disk, "used")), number(value(disk, "size")));
}

json_t *rates_json(const json_t *was, const json_t *is, uint64_t elapsed_ns)
{
    double seconds = elapsed_ns ? (double)elapsed_ns / (double)NS_PER_SEC : NAN;
    const json_t *disks = json_object_get(is, "disks"), *before = json_object_get(was, "disks");
    const json_t *now = json_object_get(is, "counters"), *then = json_object_get(was, "counters");
    const json_t *times = json_object_get(is, "vcpu_ns"), *last = json_object_get(was, "vcpu_ns");
    struct disk_sum sum = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, 0};
    json_t *list = json_array(), *vcpus = json_array();
    for (size_t i = 0; i < MIN(json_array_size(disks), (size_t)DISKS_MAX); i++)
        json_array_append_new(list, disk_rates(before, json_array_get(disks, i), seconds, &sum));
    for (size_t i = 0; i < json_array_size(times); i++) {
        json_int_t a = json_integer_value(json_array_get(last, i)), b = json_integer_value(json_array_get(times, i));
        bool known = i < json_array_size(last) && b >= a && elapsed_ns;
        json_array_append_new(vcpus, known ? number(MIN(100.0 * (double)(b - a) / (double)elapsed_ns, 100)) : json_null());
    }
    const char *path = json_string_value(json_object_get(json_array_get(disks, 0), "path"));
    json_t *o = json_pack("{s:o s:o s:o s:o s:o s:o s:o s:s? s:o s:o s:o}", "read", number(sum.read), "write", number(sum.write), "iops",
                          number(sum.requests / seconds), "latency_us",
                          number(sum.requests > 0 ? sum.wait / sum.requests / 1000 : NAN), "queue", number(sum.queue),
                          "disk_used", number(sum.used), "disk_size", number(sum.size), "disk_path", path, "exits",
                          number(growth(then, now, "exits") / seconds), "hypercalls",
                          number(growth(then, now, "hypercalls") / seconds), "interrupts",
                          number(growth(then, now, "interrupts") / seconds));
    if (o) {
        json_object_set_new(o, "vcpu_pct", vcpus);
        json_object_set_new(o, "disks", list);
    }
    return o;
}

void rates_note(struct svc_vm *vm)
{
    static const char *const keys[] = {"disks", "counters", "vcpu_ns"};
    uint64_t now = hv_now_ns();
    if (vm->rated && now < vm->rated_ns + RATES_MIN_NS)
        return;                        /* a report because something changed: too soon for a rate */
    json_decref(vm->rated_before);
    vm->rated_before = vm->rated;
    vm->rated_elapsed_ns = vm->rated ? now - vm->rated_ns : 0;
    vm->rated = json_object();
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {       /* copies: the report's numbers change in place */
        json_t *v = json_object_get(vm->runtime, keys[i]);
        if (v)
            json_object_set_new(vm->rated, keys[i], json_deep_copy(v));
    }
    vm->rated_ns = now;
}

json_t *rates_of(const struct svc_vm *vm)
{
    return vm->rated ? rates_json(vm->rated_before, vm->rated, vm->rated_elapsed_ns) : NULL;
}

void rates_forget(struct svc_vm *vm)
{
    json_decref(vm->rated_before);
    json_decref(vm->rated);
    vm->rated_before = vm->rated = NULL;
}
