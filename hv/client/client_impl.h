/* Inside of libhv. */
#ifndef HV_CLIENT_CLIENT_IMPL_H
#define HV_CLIENT_CLIENT_IMPL_H

#include "hv/base/paths.h"
#include "hv/client/ssh.h"

#define CLIENT_MAGIC 0x6876636cu

struct hv_client {
    uint32_t magic;
    struct varlink_client *varlink;
    bool over_ssh;
    struct ssh_link ssh;          /* where over_ssh */
    char mode[16];
    char path[HV_PATH_SIZE];
};

#endif
