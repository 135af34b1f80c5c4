$(call room, fs, hv/fs, ext2fs com_err)
