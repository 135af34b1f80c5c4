/* org.varlink.service: what every varlink service answers about itself (varlink.org/Service). */
#include "hv/rpc/server.h"

const char varlink_service_text[] =
    "# What every varlink service tells about itself.\n"
    "interface org.varlink.service\n"
    "\n"
    "# Who made this service, and which interfaces it has.\n"
    "method GetInfo() -> (\n"
    "  vendor: string,\n"
    "  product: string,\n"
    "  version: string,\n"
    "  url: string,\n"
    "  interfaces: []string\n"
    ")\n"
    "\n"
    "# The text of one of them.\n"
    "method GetInterfaceDescription(interface: string) -> (description: string)\n"
    "\n"
    "error InterfaceNotFound (interface: string)\n"
    "error MethodNotFound (method: string)\n"
    "# The interface declares the method, this service does not have it.\n"
    "error MethodNotImplemented (method: string)\n"
    "error InvalidParameter (parameter: string)\n"
    "error PermissionDenied ()\n"
    "# The method only makes sense with more.\n"
    "error ExpectedMore ()\n";

static void get_info(void *arg, struct varlink_call *call, const json_t *params)
{
    const struct varlink_server *s = arg;
    json_t *names = json_array();

    /* org.varlink.service first, as other services list it */
    for (unsigned i = 0; i < s->interface_count; i++) {
        unsigned n = (i + s->interface_count - 1) % s->interface_count;
        json_array_append_new(names, json_string(s->interfaces[n].idl->name));
    }
    varlink_reply(call,
                  json_pack("{s:s, s:s, s:s, s:s, s:o}", "vendor", "hv", "product", s->product, "version",
                            HV_VERSION, "url", "", "interfaces", names),
                  false);
}

static void get_interface_description(void *arg, struct varlink_call *call, const json_t *params)
{
    const struct varlink_server *s = arg;
    const char *name = json_string_value(json_object_get(params, "interface"));

    for (unsigned i = 0; i < s->interface_count; i++) {
        if (strcmp(s->interfaces[i].idl->name, name) == 0) {
            varlink_reply(call, json_pack("{s:s}", "description", s->interfaces[i].idl->text), false);
            return;
        }
    }
    call_reply_error_named(call, "org.varlink.service.InterfaceNotFound", json_pack("{s:s}", "interface", name));
}

const struct varlink_method varlink_service_methods[] = {
    { "GetInfo", get_info },
    { "GetInterfaceDescription", get_interface_description },
    { 0 },
};
