$(call room, settings, hv/settings, jansson)
