/* Footers, the one in front and (bit 0x40) the one at the end, of a VHD, alone: as fuzz_vhd.c, with patches to nothing else. */
#define FUZZ_PLACES 0, 16, 48, 60, 64
#include "tests/fuzz/fuzz_vhd.c"
