/* hvtop: virtual machines and their memory, live. */
#include "hvtop/hvtop.h"

int main(int argc, char **argv)
{
    return cli_main(&hvtop_tool, argc, argv, NULL);
}
