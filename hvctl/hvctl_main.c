/* hvctl: what an operator types. */
#include <string.h>

#include "hvctl/hvctl.h"

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "__mdoc") == 0 && strcmp(argv[2], "settings") == 0) {
        settings_mdoc(stdout);
        return 0;
    }
    return cli_main(&hvctl_tool, argc, argv, NULL);
}
