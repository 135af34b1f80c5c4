/*
 * Parsed varlink interface texts, for the files of this room.
 *
 * The grammar is that of https://varlink.org/Interface-Definition: bool, int, float,
 * string, object, ?type, []type, [string]type, (structs), (enums), type names. One
 * extension, the same as systemd's: `any` is any JSON value.
 */
#ifndef HV_RPC_IDL_H
#define HV_RPC_IDL_H

#include "hv/rpc/varlink.h"

enum idl_kind {
    IDL_BOOL, IDL_INT, IDL_FLOAT, IDL_STRING, IDL_OBJECT, IDL_ANY,
    IDL_MAYBE, IDL_ARRAY, IDL_MAP,     /* of elem */
    IDL_NAME,                          /* elem is the named type, once resolved */
    IDL_STRUCT, IDL_ENUM,
};

struct idl_member {
    const char *name;
    struct idl_type *type;             /* NULL in an enum */
    struct idl_member *next;
};

struct idl_type {
    enum idl_kind kind;
    struct idl_type *elem;
    const char *name;                  /* IDL_NAME */
    struct idl_member *members;        /* IDL_STRUCT, IDL_ENUM */
};

enum idl_decl_kind { IDL_DECL_TYPE, IDL_DECL_METHOD, IDL_DECL_ERROR };

struct idl_decl {
    enum idl_decl_kind kind;
    const char *name;
    struct idl_type *in, *out;         /* out: methods only */
    struct idl_decl *next;
};

struct idl_node;                       /* everything parsed, chained for freeing */

struct varlink_idl {
    const char *name;                  /* of the interface */
    const char *text;                  /* a copy */
    struct idl_decl *decls;
    struct idl_node *nodes;
};

/* NULL if there is none. */
const struct idl_decl *idl_find(const struct varlink_idl *i, enum idl_decl_kind kind, const char *name);

/*
 * As varlink_idl_check for a reply, but members the text does not know pass: a newer
 * peer may add fields. The depth of obj is bounded by the parser of messages (wire.h).
 */
int idl_check_reply(const struct varlink_idl *i, const char *method, const json_t *obj, struct hv_error *e);

/* The parsed text of an interface this program knows ("org.hv.Worker"), NULL for others. Any thread. */
const struct varlink_idl *idl_known(const char *interface, size_t len);

#endif
