/* Both region tables of a VHDX, alone: as fuzz_vhdx.c, with patches to nothing else. */
#define FUZZ_PLACES 192 * KIB, 192 * KIB + 16, 256 * KIB, 256 * KIB + 16
#include "tests/fuzz/fuzz_vhdx.c"
