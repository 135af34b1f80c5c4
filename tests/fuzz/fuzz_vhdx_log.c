/* The log of a VHDX, alone: as fuzz_vhdx.c, with patches to nothing else. */
#define FUZZ_PLACES MIB, MIB + 64, MIB + 4096, MIB + 8192, MIB + 12288, 64 * KIB + 48
#include "tests/fuzz/fuzz_vhdx.c"
