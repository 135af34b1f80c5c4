$(call room, rpc, hv/rpc, libuv jansson)

# The interface files become strings: org.hv.Manager.varlink -> org_hv_Manager_varlink[].
RPC_IDL      := $(wildcard hv/rpc/*.varlink)
RPC_IDL_OBJS := $(patsubst hv/rpc/%,$(BUILD)/obj/gen/%.o,$(RPC_IDL))

$(BUILD)/gen/%.varlink.c: hv/rpc/%.varlink hv/rpc/module.mk
	$(call say,GEN,$@)
	@mkdir -p $(@D)
	$(Q){ echo 'extern const char $(subst .,_,$*)_varlink[];'; \
	      echo 'const char $(subst .,_,$*)_varlink[] ='; \
	      sed -e 's/[\\"]/\\&/g' -e 's/.*/    "&\\n"/' $<; echo '    "";'; } > $@

.SECONDARY: $(patsubst hv/rpc/%,$(BUILD)/gen/%.c,$(RPC_IDL))

$(BUILD)/obj/gen/%.varlink.o: $(BUILD)/gen/%.varlink.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/lib/rpc.a: $(RPC_IDL_OBJS)
