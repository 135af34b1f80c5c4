/* CRC-32C by the processor's instruction, or eight bytes at a time from tables. */
#include "hv/disk/crc32c.h"

#include <pthread.h>

#include "hv/base/endian.h"

#define POLYNOMIAL 0x82F63B78u

static uint32_t tables[8][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool by_instruction;

/* tables[k][b]: what byte b becomes when k more bytes follow it. */
static void prepare(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t v = b;

        for (int bit = 0; bit < 8; bit++) {
            v = v & 1 ? v >> 1 ^ POLYNOMIAL : v >> 1;
        }
        tables[0][b] = v;
    }
    for (int k = 1; k < 8; k++) {
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t v = tables[k - 1][b];

            tables[k][b] = v >> 8 ^ tables[0][v & 0xff];
        }
    }
#if defined(__x86_64__)
    by_instruction = __builtin_cpu_supports("sse4.2");
#endif
}

static uint32_t update_tables(uint32_t v, const uint8_t *p, size_t len)
{
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t x = get_le64(p) ^ v;

        v = 0;
        for (int k = 0; k < 8; k++) {
            v ^= tables[7 - k][x >> 8 * k & 0xff];
        }
    }
    for (; len > 0; p++, len--) {
        v = v >> 8 ^ tables[0][(v ^ *p) & 0xff];
    }
    return v;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t update_instruction(uint32_t v, const uint8_t *p, size_t len)
{
    uint64_t wide = v;

    for (; len >= 8; p += 8, len -= 8) {
        wide = __builtin_ia32_crc32di(wide, get_le64(p));
    }
    v = (uint32_t)wide;
    for (; len > 0; p++, len--) {
        v = __builtin_ia32_crc32qi(v, *p);
    }
    return v;
}
#else
#define update_instruction update_tables
#endif

uint32_t crc32c(uint32_t crc, const void *buf, size_t len)
{
    pthread_once(&once, prepare);
    return ~(by_instruction ? update_instruction(~crc, buf, len) : update_tables(~crc, buf, len));
}

uint32_t crc32c_table(uint32_t crc, const void *buf, size_t len)
{
    pthread_once(&once, prepare);
    return ~update_tables(~crc, buf, len);
}
