$(call room, hvctl, hvctl, libedit jansson)
$(call program, hvctl, hvctl/hvctl_main.c, hvctl client cli settings rpc base)

# `hvctl completion SHELL` prints the files themselves.
$(BUILD)/obj/hvctl/cmd_completion.o: completions/hvctl.bash completions/_hvctl completions/hvctl.fish
