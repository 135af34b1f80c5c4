$(call room, client, hv/client, libuv jansson)
