/* Walking and changing libxml2's tree of a CIM document; private to this room. */
#ifndef HV_SETTINGS_XML_TREE_H
#define HV_SETTINGS_XML_TREE_H

#include <libxml/tree.h>

#include "hv/base/guid.h"
#include "hv/settings/xml/xml.h"

#define X(s) ((const xmlChar *)(s))
#define VERSION_CLASS "Hv_SettingsFile"
#define DISK_CLASS    "Msvm_StorageAllocationSettingData"
#define DISK_EXTRA    "Hv_StorageAllocationSettingData"
#define HOST_CLASS    "Hv_HostSettingData"
/* specs/wmi-compat 2: the SCSI controller's sub-type; controller 0, then the place, then the medium. */
#define SCSI_DEVICE   "\\d422512d-2bf2-4752-809d-7b82b5fcb1b4\\0\\"

struct settings_doc { xmlDocPtr doc; };

bool xml_is(const xmlNode *n, const char *name);
/* Does the attribute have this value? CIM names know no case. */
bool xml_attr_is(xmlNode *n, const char *attr, const char *value);
/* Next node of the tree in document order, not below n if skip. NULL: n was the last. */
xmlNode *xml_walk(xmlNode *n, const xmlNode *root, bool skip);
/* The first INSTANCE of the class, through whatever wrappers there are; the first behind `after` (NULL: of all). */
xmlNode *xml_find_instance(xmlDoc *doc, const char *cls);
xmlNode *xml_next_instance(xmlDoc *doc, const char *cls, xmlNode *after);
xmlNode *xml_find_property(xmlNode *instance, const char *name);
xmlNode *xml_find_child(xmlNode *n, const char *name);
/* The text of a property's (first) VALUE; NULL if it has none. xmlFree() it. */
xmlChar *xml_property_text(xmlNode *prop);
/* A whole number without a sign, nothing behind it. */
bool xml_parse_number(const char *text, uint64_t *ret);
/* The place of a storage instance on the SCSI controller by its InstanceID, or -1: not one of those. */
int xml_lun_of(xmlNode *instance);
int xml_lun_of_text(const char *instance_id);
/* The instance of the class for that place; NULL: there is none. */
xmlNode *xml_disk_instance(xmlDoc *doc, const char *cls, unsigned lun);
/* The GUID of "Microsoft:GUID..." and what stands behind it; false: it is none. */
bool xml_instance_id(const char *text, struct guid *ret, const char **ret_device);

/* A new instance of the class; the first there is, or a new one. NULL without memory. */
xmlNode *xml_new_instance(xmlDoc *doc, const char *cls);
xmlNode *xml_need_instance(xmlDoc *doc, const char *cls);
/* Set one property, keeping its place; text NULL: present without a value (CIM NULL). instance NULL: -ENOMEM. */
int xml_put(xmlNode *instance, const char *name, const char *type, bool array, const char *text);

/*
 * The tree of buf[len], which is UTF-8 whatever it declares. Refused with HV_USAGE: a document type
 * definition, before anything in it is looked at; more than SETTINGS_XML_MAX_DEPTH levels; what is no XML.
 * Blank text between elements is left out, that of values is kept.
 */
int xml_parse(const char *buf, size_t len, xmlDoc **ret, struct hv_error *e);

/*
 * The settings that the document gives a value, as nested JSON; "disks" where it has any, or where whole says
 * that what it does not have is not there. Checks the format's version too.
 */
int settings_xml_given(xmlDoc *doc, bool whole, json_t **ret, struct hv_error *e);

#endif
