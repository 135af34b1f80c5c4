/*
 * Where the service keeps its state and where its socket is: the one place that
 * says so, for hvd and for those who look for it.
 *
 *              system service     a user's own service
 *   state      /var/lib/hv        $XDG_STATE_HOME/hv, else ~/.local/state/hv
 *   run-time   /run/hv            $XDG_RUNTIME_DIR/hv, else /run/user/UID/hv,
 *                                 else /tmp/hv-UID
 *   socket     org.hv.Manager in the run-time folder
 *   log        hvd.log in the state folder (own service started on demand)
 *
 * A user's run-time folder is taken only if it belongs to the caller and nobody else
 * can write to it; /tmp/hv-UID must be 0700. The choice depends on nothing but the
 * environment and the file system, so client and service come to the same one.
 */
#ifndef HV_BASE_PATHS_H
#define HV_BASE_PATHS_H

#include "hv/base/error.h"

#define HV_MANAGER_SOCKET "org.hv.Manager"
#define HV_PATH_SIZE 256

enum hv_mode { HV_MODE_SYSTEM, HV_MODE_USER };

struct hv_paths {
    enum hv_mode mode;
    char state[HV_PATH_SIZE];
    char run[HV_PATH_SIZE];
    char socket[HV_PATH_SIZE];   /* short enough for sockaddr_un */
    char log[HV_PATH_SIZE];
};

/*
 * Work out the paths for the calling user; creates nothing, looks at nothing but
 * the candidates for the run-time folder. 0, -EACCES if /tmp/hv-UID is somebody
 * else's or open to others, -EINVAL if no home folder is known or a path is too long.
 */
int hv_paths_init(enum hv_mode mode, struct hv_paths *ret, struct hv_error *e);

/*
 * Create the state and the run-time folder (user mode: 0700, system mode: 0755 and
 * 0750 as they are made; hvd sets group and mode) with the folders above the first.
 * An existing one must be a folder of the caller that others cannot write to.
 */
int hv_paths_create(const struct hv_paths *p, struct hv_error *e);

/* One folder: created with mode, or an existing one checked as above. */
int hv_make_dir(const char *path, unsigned mode, struct hv_error *e);

#endif
