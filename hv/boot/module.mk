$(call room, boot, hv/boot, libarchive)
