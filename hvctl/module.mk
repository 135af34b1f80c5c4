$(call room, hvctl, hvctl, libedit jansson)
$(call program, hvctl, hvctl/hvctl_main.c, hvctl client cli settings rpc base)
