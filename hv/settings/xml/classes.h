/* Tables of the XML form; private to this room and its test. */
#ifndef HV_SETTINGS_XML_CLASSES_H
#define HV_SETTINGS_XML_CLASSES_H

#include "hv/settings/settings.h"

struct xml_const { const char *name, *type, *value; };
struct xml_class {
    const char *name;
    const char *device;            /* InstanceID is "Microsoft:GUID" + this; NULL: keyed by Name */
    struct xml_const constant[8];  /* ends with {0} */
};
extern const struct xml_class xml_classes[];   /* ends with {0} */

struct xml_enum { enum setting_id id; uint16_t value[4]; };
extern const struct xml_enum xml_enums[];
extern const unsigned xml_enum_count;

#endif
