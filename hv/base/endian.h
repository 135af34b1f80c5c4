/* Unaligned little- and big-endian access to wire, file and guest bytes. */
#ifndef HV_BASE_ENDIAN_H
#define HV_BASE_ENDIAN_H

#include <endian.h>

#include "hv/base/base.h"

#define HV_ENDIAN_PAIR(bits)                                                              \
    static inline uint##bits##_t get_le##bits(const void *p)                              \
    { uint##bits##_t v; memcpy(&v, p, sizeof(v)); return le##bits##toh(v); }              \
    static inline uint##bits##_t get_be##bits(const void *p)                              \
    { uint##bits##_t v; memcpy(&v, p, sizeof(v)); return be##bits##toh(v); }              \
    static inline void put_le##bits(void *p, uint##bits##_t v)                            \
    { v = htole##bits(v); memcpy(p, &v, sizeof(v)); }                                     \
    static inline void put_be##bits(void *p, uint##bits##_t v)                            \
    { v = htobe##bits(v); memcpy(p, &v, sizeof(v)); }
HV_ENDIAN_PAIR(16)
HV_ENDIAN_PAIR(32)
HV_ENDIAN_PAIR(64)
#undef HV_ENDIAN_PAIR

#endif
