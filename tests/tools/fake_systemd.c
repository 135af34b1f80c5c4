/*
 * The part of systemd's manager that hvd talks to, for tests on hosts without it:
 *
 *   fake_systemd ADDRESS       takes the name org.freedesktop.systemd1 on that bus, then prints
 *                              "ready" and every call it gets, in sd_bus_message_dump()'s form
 *
 * A unit whose name holds "refused" is refused, as one is whose process is gone.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-bus.h>

static int start(sd_bus_message *m, void *arg, sd_bus_error *e)
{
    const char *name = "", *mode = "";
    int r = sd_bus_message_read(m, "ss", &name, &mode);
    if (r < 0)
        return r;
    if (strstr(name, "refused"))
        return sd_bus_error_setf(e, "org.freedesktop.systemd1.NoSuchProcess", "Process is gone");
    sd_bus_message_rewind(m, true);
    sd_bus_message_dump(m, stdout, SD_BUS_MESSAGE_DUMP_WITH_HEADER);
    fflush(stdout);
    return sd_bus_reply_method_return(m, "o", "/org/freedesktop/systemd1/job/1");
}

static int set(sd_bus_message *m, void *arg, sd_bus_error *e)
{
    sd_bus_message_dump(m, stdout, SD_BUS_MESSAGE_DUMP_WITH_HEADER);
    fflush(stdout);
    return sd_bus_reply_method_return(m, "");
}

static const sd_bus_vtable methods[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("StartTransientUnit", "ssa(sv)a(sa(sv))", "o", start, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("SetUnitProperties", "sba(sv)", "", set, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END,
};

int main(int argc, char **argv)
{
    sd_bus *bus = NULL;
    int r = argc == 2 ? sd_bus_new(&bus) : -1;
    if (r >= 0)
        r = sd_bus_set_address(bus, argv[1]);
    if (r >= 0)
        r = sd_bus_set_bus_client(bus, true);
    if (r >= 0)
        r = sd_bus_start(bus);
    if (r >= 0)
        r = sd_bus_add_object_vtable(bus, NULL, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", methods, NULL);
    if (r >= 0)
        r = sd_bus_request_name(bus, "org.freedesktop.systemd1", 0);
    if (r < 0) {
        fprintf(stderr, "fake_systemd: %s\n", strerror(-r));
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        r = sd_bus_process(bus, NULL);
        if (r == 0)
            r = sd_bus_wait(bus, UINT64_MAX);
        if (r < 0)
            return 0;                  /* the bus is gone */
    }
}
