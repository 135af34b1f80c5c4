/* hvctl: what an operator types. */
#include "hvctl/hvctl.h"

int main(int argc, char **argv)
{
    return cli_main(&hvctl_tool, argc, argv, NULL);
}
