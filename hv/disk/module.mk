$(call room, disk, hv/disk, liburing)
