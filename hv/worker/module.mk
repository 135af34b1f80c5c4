$(call room, worker, hv/worker, libuv jansson libseccomp libcap-ng)
