$(call room, vhdtool, vhdtool, jansson libarchive fuse3 libcrypt)
$(call program, vhdtool, vhdtool/vhdtool_main.c, vhdtool cli fs disk base)
