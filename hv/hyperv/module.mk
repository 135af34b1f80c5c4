$(call room, hyperv, hv/hyperv, )
