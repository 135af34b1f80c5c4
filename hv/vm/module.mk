$(call room, vm, hv/vm, jansson)
