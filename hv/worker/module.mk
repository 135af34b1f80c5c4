$(call room, worker, hv/worker, libuv jansson libseccomp)
$(call program, hv-worker, hv/worker/worker_main.c, worker vm vsp disk vmbus hyperv boot platform machine engine engine_soft engine_kvm memory settings rpc base, libuv jansson libarchive liburing libseccomp)
