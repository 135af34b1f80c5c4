$(call room, metrics, hv/metrics, libmicrohttpd jansson)
$(call program, hv-metrics, hv/metrics/metrics_main.c, metrics client cli rpc base, libuv)
