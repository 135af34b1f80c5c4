/* The dynamic header and its parent locators of a VHD, alone: as fuzz_vhd.c, with patches to nothing else. */
#define FUZZ_PLACES 512, 512 + 16, 512 + 28, 512 + 40, 512 + 576, 2048
#include "tests/fuzz/fuzz_vhd.c"
