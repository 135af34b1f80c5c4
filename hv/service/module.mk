$(call room, service, hv/service, libuv jansson libxml-2.0 libseccomp libcap-ng)
