$(call room, vsp, hv/vsp, )
