# Unit tests: every tests/unit/FOLDER/test_*.c is a cmocka program linked with all rooms.
#   make unit                 all of them
#   make unit T=base/test_units   one
UNIT_SRCS := $(filter-out $(if $(filter no,$(TRANSLATOR)),%/test_translate.c),$(sort $(wildcard tests/unit/*/test_*.c)))
UNIT_BINS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRCS))
UNIT_PKGS := cmocka
UNIT_ARCHIVES = $(foreach r,$(ROOMS),$(if $($(r)_OBJS),$(BUILD)/lib/$(r).a))

$(patsubst %.c,$(BUILD)/obj/%.o,$(UNIT_SRCS)): PKGS := $(UNIT_PKGS) $(sort $(foreach r,$(ROOMS),$($(r)_PKGS)))

$(UNIT_BINS): $(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $$(UNIT_ARCHIVES)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(call pkglibs,$(UNIT_PKGS) $(sort $(foreach r,$(ROOMS),$($(r)_PKGS)))) -lm

# Tests of the soft engine that run guest code: once more with every block translated at its first run.
TRANSLATED := blocks excp hostile interp paging soft soft_irq stop

.PHONY: unit
unit: $(if $(T),$(BUILD)/tests/$(T),$(filter-out $(addprefix $(BUILD)/tests/,$(UNIT_SKIP)),$(UNIT_BINS)))
	@tests/units.sh $(addsuffix :translated,$(filter $(addprefix $(BUILD)/tests/engine_soft/test_,$(TRANSLATED)),$^)) $(filter $(UNIT_BINS),$^)

# Tools of the tests: one VM in process, driven by a script of options.
TOOL_ROOMS := vm vsp disk vmbus hyperv boot platform machine engine engine_soft engine_kvm memory settings rpc base
$(BUILD)/obj/tests/tools/vmboot.o: PKGS := jansson libuv
$(BUILD)/tests/tools/vmboot: $(BUILD)/obj/tests/tools/vmboot.o $(foreach r,$(TOOL_ROOMS),$(BUILD)/lib/$(r).a)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(call pkglibs,jansson libuv libarchive liburing) -lm

# A worker without a guest: hvd with hundreds of VMs, and with guests that lie.
$(BUILD)/obj/tests/tools/fake_worker.o: PKGS := jansson libuv
$(BUILD)/tests/tools/fake_worker: $(BUILD)/obj/tests/tools/fake_worker.o $(foreach r,settings rpc base,$(BUILD)/lib/$(r).a)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(call pkglibs,jansson libuv)

# systemd's manager, for hosts without it: it notes what it is asked.
$(BUILD)/obj/tests/tools/fake_systemd.o: PKGS := libsystemd
$(BUILD)/tests/tools/fake_systemd: $(BUILD)/obj/tests/tools/fake_systemd.o
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(call pkglibs,libsystemd)

# Guest MIPS of the interpreter on plain loops.
$(BUILD)/tests/bench/interp_mips: $(BUILD)/obj/tests/bench/interp_mips.o $(BUILD)/lib/engine_soft.a $(BUILD)/lib/base.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) -lm

# The balancer over a simulated day, beside other policies.
$(BUILD)/tests/bench/dm_sim: $(BUILD)/obj/tests/bench/dm_sim.o $(BUILD)/lib/service.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^)

# Recordings for hvtop: the sample it ships (a simulated day), and those its tests replay.
HVREC_MAKE := $(BUILD)/tests/tools/hvrec_make
$(BUILD)/obj/tests/tools/hvrec_make.o: PKGS := jansson
$(HVREC_MAKE): $(BUILD)/obj/tests/tools/hvrec_make.o $(foreach r,hvtop service cli base,$(BUILD)/lib/$(r).a)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(call pkglibs,jansson libzstd ncursesw) -lm

all: $(BUILD)/share/hv/sample.hvrec
$(BUILD)/share/hv/sample.hvrec: $(HVREC_MAKE)
	$(call say,GEN,$@)
	@mkdir -p $(@D)
	$(Q)$(HVREC_MAKE) --day $@

# Small requests through the worker's disk queue.
DISK_IO := $(BUILD)/tests/bench/disk_io
$(BUILD)/obj/tests/bench/disk_io.o: PKGS := libuv
$(DISK_IO): $(BUILD)/obj/tests/bench/disk_io.o $(foreach r,disk rpc base,$(BUILD)/lib/$(r).a)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(call pkglibs,jansson libuv liburing) -lm
