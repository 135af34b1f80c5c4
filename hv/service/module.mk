$(call room, service, hv/service, libuv jansson libxml-2.0 libseccomp libsystemd)
$(call program, hvd, hv/service/hvd_main.c, service settings_xml settings rpc base, libuv jansson libxml-2.0 libseccomp libsystemd)
