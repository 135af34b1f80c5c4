$(call room, cli, hv/cli, jansson)
