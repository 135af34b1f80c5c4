/*
 * BLAKE2b (RFC 7693), and identifiers made of it: the same input gives the same GUIDs, so that
 * an image can be built twice with the same bytes. Not for secrets.
 */
#ifndef HV_FS_DIGEST_H
#define HV_FS_DIGEST_H

#include "hv/base/guid.h"

#define DIGEST_SIZE 32

struct digest {
    uint64_t h[8];
    uint64_t count;              /* bytes taken in so far; 2^64 are enough */
    uint8_t block[128];
    size_t used;
};

void digest_init(struct digest *d);
void digest_add(struct digest *d, const void *p, size_t len);
void digest_end(struct digest *d, uint8_t ret[DIGEST_SIZE]);

/*
 * A version 4 GUID for the thing called `what` ("disk", "partition 1") of the image with this
 * seed. rfc: the bytes in the order they are written (ext4, swap); else Microsoft's mixed
 * order (GPT). Both forms print the same text.
 */
void digest_guid(const uint8_t seed[DIGEST_SIZE], const char *what, bool rfc, uint8_t ret[16]);

#endif
