$(call room, engine_soft, hv/engine/soft, )

# Op handlers hand over by tail calls, which -O0 and ThreadSanitizer's function exits would make real
# calls, as AddressSanitizer's checks of the stack would; and guest races are the guest's. See op.h.
$(BUILD)/obj/hv/engine/soft/interp%.o: EXTRA_CFLAGS := -O2 -foptimize-sibling-calls -fno-sanitize=thread --param asan-stack=0
