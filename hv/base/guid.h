/* GUIDs: text form, Microsoft's mixed-endian bytes, fresh random ones. */
#ifndef HV_BASE_GUID_H
#define HV_BASE_GUID_H

#include "hv/base/base.h"

struct guid { uint8_t b[16]; };   /* mixed-endian, as in VMBus, VHDX and SMBIOS */
#define GUID_TEXT_SIZE 37

int guid_new(struct guid *ret);                               /* version 4 from getrandom */
/* guid_new() gives what fn says from now on, in every thread: for images that have to come out the
 * same twice. NULL: by chance again. */
void guid_set_source(void (*fn)(void *arg, struct guid *ret), void *arg);
/* With or without braces, any case. 0 or -EINVAL. */
int guid_parse(const char *text, struct guid *ret);
const char *guid_format(const struct guid *g, char buf[GUID_TEXT_SIZE]);        /* lower case */
const char *guid_format_upper(const struct guid *g, char buf[GUID_TEXT_SIZE]);
bool guid_equal(const struct guid *a, const struct guid *b);
bool guid_is_zero(const struct guid *g);

#endif
