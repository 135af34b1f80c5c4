$(call room, hvtop, hvtop, ncursesw libzstd jansson)
$(call program, hvtop, hvtop/hvtop_main.c, hvtop client cli settings rpc base)
