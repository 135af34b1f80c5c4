$(call room, base, hv/base, )
