# decode_vs_zydis: the decoder beside Zydis. Only the decoder's objects, so that it builds alone;
# Debian's libzydis-dev has no pkg-config file.
DVZ_OBJS := $(addprefix $(BUILD)/obj/,hv/engine/soft/decode.o hv/engine/soft/decode_tab.o hv/engine/soft/insn_format.o \
  tests/tools/zydis_compare.o tests/tools/zydis_except.o tests/tools/decode_vs_zydis.o)
$(BUILD)/tests/tools/decode_vs_zydis: $(DVZ_OBJS) $(BUILD)/lib/base.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) -lZydis
