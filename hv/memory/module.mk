$(call room, memory, hv/memory, )
