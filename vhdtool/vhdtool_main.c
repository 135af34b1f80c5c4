/* vhdtool: virtual disks, without a service and without root. */
#include "vhdtool/vhdtool.h"

int main(int argc, char **argv)
{
    return cli_main(&vhdtool, argc, argv, NULL);
}
