/* BLAKE2b with a 32-byte result and no key, RFC 7693. */
#include "hv/fs/digest.h"

#include "hv/base/endian.h"

static const uint64_t iv[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

/* RFC 7693 2.7; rounds 10 and 11 repeat the first two. */
static const uint8_t sigma[10][16] = {
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
    { 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3 },
    { 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4 },
    { 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8 },
    { 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13 },
    { 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9 },
    { 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11 },
    { 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10 },
    { 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5 },
    { 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0 },
};

static uint64_t ror(uint64_t v, unsigned by)
{
    return v >> by | v << (64 - by);
}

static inline void mix(uint64_t *v, unsigned a, unsigned b, unsigned c, unsigned d, uint64_t x, uint64_t y)
{
    v[a] += v[b] + x;
    v[d] = ror(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = ror(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = ror(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = ror(v[b] ^ v[c], 63);
}

static void compress(struct digest *d, const uint8_t *block, bool last)
{
    uint64_t v[16], m[16];

    for (unsigned i = 0; i < 8; i++) {
        v[i] = d->h[i];
        v[i + 8] = iv[i];
    }
    for (unsigned i = 0; i < 16; i++) {
        m[i] = get_le64(block + 8 * i);
    }
    v[12] ^= d->count;
    v[14] = last ? ~v[14] : v[14];
    for (unsigned r = 0; r < 12; r++) {
        const uint8_t *s = sigma[r % 10];
        for (unsigned i = 0; i < 4; i++) {
            mix(v, i, 4 + i, 8 + i, 12 + i, m[s[2 * i]], m[s[2 * i + 1]]);
        }
        for (unsigned i = 0; i < 4; i++) {
            mix(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[s[8 + 2 * i]], m[s[9 + 2 * i]]);
        }
    }
    for (unsigned i = 0; i < 8; i++) {
        d->h[i] ^= v[i] ^ v[i + 8];
    }
}

void digest_init(struct digest *d)
{
    *d = (struct digest){ 0 };
    memcpy(d->h, iv, sizeof(iv));
    d->h[0] ^= 0x01010000 ^ DIGEST_SIZE;
}

void digest_add(struct digest *d, const void *p, size_t len)
{
    const uint8_t *from = p;

    while (len > 0) {
        if (d->used == sizeof(d->block)) {         /* the last block waits for digest_end() */
            d->count += sizeof(d->block);
            compress(d, d->block, false);
            d->used = 0;
        }
        size_t n = MIN(len, sizeof(d->block) - d->used);
        memcpy(d->block + d->used, from, n);
        d->used += n;
        from += n;
        len -= n;
    }
}

void digest_end(struct digest *d, uint8_t ret[DIGEST_SIZE])
{
    d->count += d->used;
    memset(d->block + d->used, 0, sizeof(d->block) - d->used);
    compress(d, d->block, true);
    for (unsigned i = 0; i < DIGEST_SIZE / 8; i++) {
        put_le64(ret + 8 * i, d->h[i]);
    }
}

void digest_guid(const uint8_t seed[DIGEST_SIZE], const char *what, bool rfc, uint8_t ret[16])
{
    static const uint8_t mixed[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
    struct digest d;
    uint8_t h[DIGEST_SIZE];

    digest_init(&d);
    digest_add(&d, seed, DIGEST_SIZE);
    digest_add(&d, what, strlen(what));
    digest_end(&d, h);
    h[6] = (uint8_t)((h[6] & 0x0f) | 0x40);     /* RFC 4122 4.1.3: version 4 */
    h[8] = (uint8_t)((h[8] & 0x3f) | 0x80);     /* RFC 4122 4.1.1: variant */
    for (unsigned i = 0; i < 16; i++) {
        ret[rfc ? i : mixed[i]] = h[i];
    }
}
