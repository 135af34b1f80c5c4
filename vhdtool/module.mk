$(call room, vhdtool, vhdtool, jansson)
$(call program, vhdtool, vhdtool/vhdtool_main.c, vhdtool cli disk base)
