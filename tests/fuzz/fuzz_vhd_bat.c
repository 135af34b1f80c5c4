/* The table of blocks and their bitmaps of a VHD, alone: as fuzz_vhd.c, with patches to nothing else. */
#define FUZZ_PLACES 1536, 1536 + 12, 4096 - 512, 4096, 6144, 4096 + 512 * KIB
#include "tests/fuzz/fuzz_vhd.c"
