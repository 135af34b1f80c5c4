/* File identifier and both headers of a VHDX, alone: as fuzz_vhdx.c, with patches to nothing else. */
#define FUZZ_PLACES 0, 64 * KIB, 128 * KIB, 64 * KIB + 48
#include "tests/fuzz/fuzz_vhdx.c"
