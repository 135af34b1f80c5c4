/* Documents of settings: XML as Hyper-V's WMI has it, or JSON with the operator's keys. */
#ifndef HVCTL_DOCUMENT_H
#define HVCTL_DOCUMENT_H

#include "hvctl/hvctl.h"

/* As many bytes as the service reads (hv/settings/xml/xml.h). */
#define DOCUMENT_MAX ((size_t)16 << 20)

/* The bytes of a file, "-" is stdin; at most DOCUMENT_MAX. *ret is the caller's. */
int document_read(struct cli_call *c, const char *path, char **ret, size_t *ret_len, struct hv_error *e);
/*
 * What org.hv.Manager.Apply takes for text[len], called path in errors: {"xml": ...} or {"objects": ...}. New. XML may be
 * UTF-8 or, with its byte order mark, UTF-16; it is not looked into here.
 */
int document_parse(const char *path, const char *text, size_t len, json_t **ret, struct hv_error *e);

/* The service has no name for what it was handed: put path where it says "line 7", or only that it is the document. */
void document_name_error(const char *path, struct hv_error *e);

/* One XML document of these VMs (names or GUIDs), and of the host's settings where given, on c->out. */
int document_print_xml(struct cli_call *c, struct conn *k, const json_t *names, const json_t *host, struct hv_error *e);
/* A VM as a JSON document has it: name, id, and the settings. New. */
json_t *document_vm(const json_t *vm);
/* The text between <DECLGROUP> and </DECLGROUP> of a document of the service, both included. */
const char *document_group(const char *xml, size_t *ret_len);

/* ---- document_report.c ---- */
/* A value of a change for people: sizes as everywhere else where that loses nothing. */
const char *document_value(const char *key, const char *text, char buf[32]);
/*
 * What Apply answered. The document's own errors: printed, the last one in e, nothing was done. Else the objects on
 * c->out (dry: what would be, and only what differs) and the exit code in c->exit_code; errors of single objects are
 * printed as well.
 */
int document_report(struct cli_call *c, const char *path, const json_t *reply, bool dry, struct hv_error *e);

#endif
