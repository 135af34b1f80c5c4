/*
 * Replies of a service, which may be of another version or lie: types are checked
 * against the interface text where this program has it, errors become hv_error.
 */
#include "hv/rpc/reply.h"

#include <errno.h>

#include "hv/rpc/idl.h"

json_t *call_message(const char *method, json_t *params, const char *flag)
{
    json_t *msg = json_pack("{s:s}", "method", method);

    if (msg && params && json_object_set(msg, "parameters", params) < 0) {
        json_decref(msg);
        msg = NULL;
    }
    json_decref(params);
    if (msg && flag) {
        json_object_set_new(msg, flag, json_true());
    }
    return msg;
}

static const char *text(const json_t *obj, const char *key)
{
    const char *s = json_string_value(json_object_get(obj, key));

    return s ? s : "";
}

static int service_error(const char *name, const json_t *params, const char *method, struct hv_error *e)
{
    if (strcmp(name, "InterfaceNotFound") == 0 || strcmp(name, "MethodNotFound") == 0 ||
        strcmp(name, "MethodNotImplemented") == 0) {
        int r = hv_fail(e, HV_UNSUPPORTED, method, "this service does not have it");
        hv_hint(e, "it may be of another version than this program: restart it after an upgrade");
        return r;
    }
    if (strcmp(name, "InvalidParameter") == 0) {
        return hv_fail(e, HV_USAGE, text(params, "parameter"), "%s does not take this value", method);
    }
    if (strcmp(name, "PermissionDenied") == 0) {
        return hv_fail(e, HV_DENIED, method, "not permitted");
    }
    if (strcmp(name, "ExpectedMore") == 0) {
        return hv_fail(e, HV_USAGE, method, "answers only with several replies");
    }
    return hv_fail(e, HV_FAILED, method, "org.varlink.service.%s", name);
}

static int error_reply(const char *error, const json_t *params, const char *method, struct hv_error *e)
{
    static const char service[] = "org.varlink.service.";
    const char *dot = strrchr(error, '.');

    if (strncmp(error, service, sizeof(service) - 1) == 0) {
        return service_error(error + sizeof(service) - 1, params, method, e);
    }
    if (!dot || strcmp(dot + 1, "Failed") != 0) {
        return hv_fail(e, HV_FAILED, method, "%s", error);
    }
    enum hv_code code = hv_code_from_word(text(params, "code"));
    if (code == HV_OK) {
        code = HV_FAILED;
    }
    int r = hv_fail(e, code, text(params, "object"), "%s", text(params, "message"));
    if (*text(params, "hint")) {
        hv_hint(e, "%s", text(params, "hint"));
    }
    return r;
}

static int not_a_reply(const char *method, const char *what, struct hv_error *e)
{
    hv_fail(e, HV_FAILED, method, "the service's reply is malformed: %s", what);
    return -EPROTO;
}

int reply_read(json_t *msg, const char *method, bool more, struct reply *ret, struct hv_error *e)
{
    json_t *params = json_object_get(msg, "parameters");
    const json_t *error = json_object_get(msg, "error");
    const json_t *continues = json_object_get(msg, "continues");
    const char *dot = strrchr(method, '.');

    if (!params || json_is_null(params)) {
        params = json_object();
        if (!params || json_object_set_new(msg, "parameters", params) < 0) {
            return not_a_reply(method, "out of memory", e);
        }
    }
    if (!json_is_object(params) || (error && !json_is_string(error)) || (continues && !json_is_boolean(continues))) {
        return not_a_reply(method, "wrong types", e);
    }
    if (error) {
        int r = error_reply(json_string_value(error), params, method, e);
        return json_is_true(continues) ? not_a_reply(method, "an error that goes on", e) : r;
    }
    if (json_is_true(continues) && !more) {
        return not_a_reply(method, "more replies than were asked for", e);
    }
    const struct varlink_idl *idl = dot ? idl_known(method, (size_t)(dot - method)) : NULL;
    struct hv_error why = { 0 };
    if (idl && idl_check_reply(idl, method, params, &why) < 0) {
        hv_fail(e, HV_FAILED, method, "the service's reply is malformed: %s %s", why.object, why.message);
        return -EPROTO;
    }
    ret->params = params;
    ret->continues = json_is_true(continues);
    return 0;
}
