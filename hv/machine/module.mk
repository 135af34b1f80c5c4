$(call room, machine, hv/machine, )
