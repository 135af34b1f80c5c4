/* The table of blocks and the sector bitmaps of a VHDX, alone: as fuzz_vhdx.c, with patches to nothing else. */
#define FUZZ_PLACES 3 * MIB, 3 * MIB + 16, 3 * MIB + 4096 * 8, 4 * MIB, 5 * MIB
#include "tests/fuzz/fuzz_vhdx.c"
