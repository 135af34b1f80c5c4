# The translator writes x86-64 code: built for such hosts only. TRANSLATOR=no leaves it out there too.
TRANSLATOR ?= $(if $(filter x86_64%,$(shell $(CC) -dumpmachine)),yes,no)
SOFT_TRANSLATOR := $(addprefix hv/engine/soft/,translate.c translate_flow.c translate_int.c translate_mem.c translate_sse.c \
                     translate_sys.c translate_x87.c cache.c emit.c code_region.c lockstep.c)
ifeq ($(TRANSLATOR),yes)
engine_soft_LEAVE_OUT := hv/engine/soft/translate_none.c
else
engine_soft_LEAVE_OUT := $(SOFT_TRANSLATOR)
$(info   NOTE   the soft engine is built without its translator: it interprets only)
endif

$(call room, engine_soft, hv/engine/soft, )

# Op handlers hand over by tail calls, which -O0 and ThreadSanitizer's function exits would make real
# calls, as AddressSanitizer's checks of the stack would; and guest races are the guest's. See op.h.
$(BUILD)/obj/hv/engine/soft/interp%.o: EXTRA_CFLAGS := -O2 -foptimize-sibling-calls -fno-sanitize=thread --param asan-stack=0
