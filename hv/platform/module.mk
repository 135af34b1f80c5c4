$(call room, platform, hv/platform, )
