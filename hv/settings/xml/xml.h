/*
 * Settings as WMI-compatible XML: CIM DTD 2.0 instances of Hyper-V's own classes
 * (specs/wmi-compat 2.2 to 2.6, 3.8), companion Hv_* instances for what Hyper-V has no
 * property for. This is the form on disk, of export and of the WMI endpoint.
 *
 * Which property holds which setting is the table's business (hv/settings/table.h);
 * unknown classes and properties survive a read and write (DESIGN 11).
 */
#ifndef HV_SETTINGS_XML_XML_H
#define HV_SETTINGS_XML_XML_H

#include "hv/base/guid.h"
#include "hv/settings/settings.h"

#define SETTINGS_XML_VERSION 1
#define SETTINGS_XML_MAX ((size_t)512 << 10)    /* bytes of one document */
#define SETTINGS_XML_MAX_DEPTH 16

/* A document that was read, kept for what we do not know in it. */
struct settings_doc;
void settings_doc_free(struct settings_doc *d);

/*
 * Read buf[len]. s is overlaid with what the document says (init it before); *ret_id and
 * name[name_size] get the VM's identity; *ret_doc may be NULL if the rest is not wanted.
 *
 * HV_USAGE: not XML, a DTD, too deep, too large, a wrong TYPE or a value out of range;
 * HV_UNSUPPORTED: written by a newer version. e names line, class and property.
 * Outside documents are parsed in a sealed child by the caller (DESIGN 11), not here.
 */
int settings_xml_read(const char *buf, size_t len, struct settings *s, struct guid *ret_id, char *name,
                      size_t name_size, struct settings_doc **ret_doc, struct hv_error *e);

/* The document for these settings; doc (may be NULL) gives what else it holds and is updated.
 * *ret is NUL-terminated, free() it. -ENOMEM. */
int settings_xml_write(const struct settings *s, const struct guid *id, const char *name, struct settings_doc *doc,
                       char **ret, size_t *ret_len);

/* ---- documents from outside ---- */

#define SETTINGS_DOCUMENT_MAX ((size_t)16 << 20)

/*
 * Take buf[len], any number of machines, apart: {"vms": [{"name", "id", "line", "whole", "settings", "extras"}],
 * "host": {...}}. name or id may be null, not both; settings holds what is given; whole: it is a file of ours
 * (Hv_SettingsFile), and what it does not have is not there. HV_USAGE with the line. To be called in a sealed
 * process only; the answer is as hostile as the document was.
 */
int settings_xml_document(const char *buf, size_t len, json_t **ret, struct hv_error *e);

/* Classes and properties that the table does not know (extras.c has the form). New; NULL without memory. */
json_t *settings_extras(struct settings_doc *d);
/* Could they stand in a file? HV_USAGE naming class and property. */
int settings_extras_check(const json_t *extras, struct hv_error *e);
/* base with over's properties in place of its own. New. */
json_t *settings_extras_merge(const json_t *base, const json_t *over);
/* [{"key": "Msvm_X.Y", "old", "new"}], empty where they are the same. New. */
json_t *settings_extras_diff(const json_t *old, const json_t *new);
/* A document of these settings with checked extras in it, for settings_xml_write(). -ENOMEM */
int settings_doc_new(const struct settings *s, const struct guid *id, const char *name, const json_t *extras,
                     struct settings_doc **ret);

#endif
