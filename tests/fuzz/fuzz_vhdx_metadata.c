/* Metadata table, items and parent locator of a VHDX, alone: as fuzz_vhdx.c, with patches to nothing else. */
#define FUZZ_PLACES 2 * MIB, 2 * MIB + 32, 2 * MIB + 64 * KIB, 2 * MIB + 64 * KIB + 512
#include "tests/fuzz/fuzz_vhdx.c"
