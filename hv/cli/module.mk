$(call room, cli, hv/cli, jansson)

# `TOOL completion SHELL` prints the files themselves.
$(BUILD)/obj/hv/cli/shells.o: completions/hvctl.bash completions/_hvctl completions/hvctl.fish
