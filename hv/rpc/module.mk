$(call room, rpc, hv/rpc, libuv jansson)
