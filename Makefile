# One make for the whole tree (DESIGN: non-recursive, a module.mk a folder, out-of-tree build).
#
#   make            programs in build/bin        make check       what CI runs
#   make demo       the five-minute tour         make check-slow  the long tests
#   make deps       Debian packages              make bench       measurements beside QEMU
#   make install    DESTDIR= PREFIX=/usr/local   make SANITIZE=address,undefined check
#
# V=1 shows commands. WERROR=1 makes warnings errors (CI).

MAKEFLAGS += -rR --no-print-directory
.SUFFIXES:
.SECONDEXPANSION:
.DELETE_ON_ERROR:
SHELL := /bin/bash

comma := ,
empty :=
space := $(empty) $(empty)

PREFIX   ?= /usr/local
DESTDIR  ?=
SANITIZE ?=
BUILD    ?= build$(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))
VERSION  := 0.1.0

CC      := gcc
AR      := gcc-ar
CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla \
           -Wundef -Wwrite-strings -Wno-unused-parameter -Wno-missing-field-initializers \
           -Wno-override-init
ALL_CFLAGS = $(CPPFLAGS) -std=gnu17 -D_GNU_SOURCE -DHV_VERSION='"$(VERSION)"' -DHV_PREFIX='"$(PREFIX)"' -I. \
             -I$(BUILD)/gen -fno-strict-aliasing -fno-common -fstack-protector-strong -pthread \
             $(WARN) $(if $(WERROR),-Werror) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer) $(CFLAGS)
ALL_LDFLAGS = -pthread -Wl,--as-needed -Wl,-z,relro,-z,now $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(LDFLAGS)

Q := $(if $(V),,@)
say = @$(if $(V),true,printf '  %-6s %s\n' $(1) $(2))

.PHONY: all
all:

# $(call room,NAME,FOLDER,PKG-CONFIG NAMES): every .c of the folder but *_main.c and NAME_LEAVE_OUT becomes lib/NAME.a.
ROOMS :=
PROGRAMS :=
define room_template
ROOMS += $(1)
$(1)_SRCS := $$(filter-out %_main.c $$($(1)_LEAVE_OUT),$$(wildcard $(2)/*.c))
$(1)_OBJS := $$(patsubst %.c,$$(BUILD)/obj/%.o,$$($(1)_SRCS))
$(1)_PKGS := $(3)
$$(BUILD)/lib/$(1).a: $$($(1)_OBJS)
$$($(1)_OBJS): PKGS := $(3)
endef
room = $(eval $(call room_template,$(strip $(1)),$(strip $(2)),$(strip $(3))))

# $(call program,NAME,MAIN SOURCE,ROOMS,EXTRA PKGS): build/bin/NAME.
define program_template
PROGRAMS += $(1)
$(1)_ROOMS := $(3)
$(1)_XPKGS := $(4)
$$(BUILD)/obj/$$(patsubst %.c,%.o,$(2)): PKGS := $(4) $$(foreach r,$(3),$$($$(r)_PKGS))
$$(BUILD)/bin/$(1): $$(BUILD)/obj/$$(patsubst %.c,%.o,$(2)) $$(foreach r,$(3),$$(BUILD)/lib/$$(r).a)
$$(BUILD)/bin/$(1): LINKPKGS = $(4) $$(foreach r,$(3),$$($$(r)_PKGS))
endef
program = $(eval $(call program_template,$(strip $(1)),$(strip $(2)),$(strip $(3)),$(strip $(4))))

MODULES := $(sort $(shell find $(wildcard hv hvctl hvtop vhdtool wmi-compat completions man tests) -name module.mk))
include $(MODULES)

all: $(addprefix $(BUILD)/bin/,$(PROGRAMS))

pkgcflags = $(if $(strip $(1)),$(shell pkg-config --cflags $(1)))
pkglibs = $(if $(strip $(1)),$(shell pkg-config --libs $(1)))

$(BUILD)/obj/%.o: %.c Makefile
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(call pkgcflags,$(PKGS)) $(EXTRA_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/lib/%.a:
	$(call say,AR,$@)
	@mkdir -p $(@D) && rm -f $@
	$(Q)$(AR) rcs $@ $(filter %.o,$^)

$(addprefix $(BUILD)/bin/,$(PROGRAMS)): $(BUILD)/bin/%:
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(call pkglibs,$(sort $(LINKPKGS))) $(EXTRA_LIBS) -lm

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

.PHONY: clean compile_commands.json
clean:
	rm -rf $(BUILD)

# For clangd and clang-tidy: one entry a source, flags as the build uses them.
compile_commands.json:
	@{ echo '['; sep=; for f in $$(find $(wildcard hv hvctl hvtop vhdtool wmi-compat tests) -name '*.c' | sort); do \
	  printf '%s{"directory":"%s","file":"%s","arguments":["gcc","-std=gnu17","-D_GNU_SOURCE","-I.","-I$(BUILD)/gen","-c","%s"]}\n' "$$sep" "$(CURDIR)" "$$f" "$$f"; sep=,; done; echo ']'; } > $@

# ---- Debian packages ----

DEPS       := gcc make libc6-dev pkg-config git libuv1-dev libjansson-dev libxml2-dev libarchive-dev \
              libedit-dev liburing-dev libncurses-dev libzstd-dev libseccomp-dev cpio ca-certificates \
              libext2fs-dev comerr-dev libfuse3-dev libcrypt-dev libmicrohttpd-dev libsystemd-dev
DEPS_CHECK := bats libcmocka-dev libzydis-dev libzycore-dev tmux mandoc zsh fish acpica-tools jq \
              binutils xz-utils lz4 util-linux qemu-utils libvhdi-utils \
              e2fsprogs dosfstools fdisk attr acl libcap2-bin fuse3 dbus
DEPS_SLOW  := dpkg-dev debhelper lintian mmdebstrap kmod qemu-system-x86
DEPS_BENCH := qemu-system-x86 qemu-utils time mmdebstrap kmod
DEPS_FUZZ  := clang libclang-rt-14-dev

# Installs what is missing, says what, and does nothing when all is there.
define install_packages
	@missing=; for p in $(1); do \
	  dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -q '^installed' || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then echo "$@: all there"; exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif command -v sudo >/dev/null; then sudo=sudo; else \
	  echo "$@: missing:$$missing"; echo "  try: as root: apt-get install$$missing"; exit 1; fi; \
	echo "$@: installing$$missing"; \
	$$sudo apt-get -qq update && DEBIAN_FRONTEND=noninteractive $$sudo apt-get -qq -y --no-install-recommends install $$missing >$(BUILD_LOG) 2>&1 || \
	{ tail -n 20 $(BUILD_LOG); exit 1; }
endef
BUILD_LOG = /tmp/hv-deps-$$(id -u).log

.PHONY: deps deps-check deps-slow deps-bench deps-fuzz
deps:
	$(call install_packages,$(DEPS))
deps-check: deps
	$(call install_packages,$(DEPS_CHECK))
deps-slow: deps
	$(call install_packages,$(DEPS_SLOW))
deps-bench: deps
	$(call install_packages,$(DEPS_BENCH))
deps-fuzz: deps
	$(call install_packages,$(DEPS_FUZZ))

# ---- the tour ----

.PHONY: demo demo-clean
demo: deps
	@$(MAKE) -j$$(nproc) all
	@BUILD=$(BUILD) tests/demo.sh
demo-clean:
	@BUILD=$(BUILD) tests/demo.sh clean

# ---- tests ----

STAGES ?= rooms unit unit-asan decoder guest smp disk bats leaks chaos man
# Long differential runs that a sanitizer slows down most; they run in `unit` as they are.
export UNIT_SKIP_ASAN :=

.PHONY: check check-slow bench
check: deps deps-check
	@$(MAKE) -j$$(nproc) all $(BUILD)/tests/tools/vmboot $(BUILD)/tests/tools/fake_worker $(BUILD)/tests/tools/fake_systemd
	@BUILD=$(BUILD) tests/check.sh $(STAGES)

check-slow: check deps-slow
	@BUILD=$(BUILD) tests/check-slow.sh

bench: deps deps-bench
	@$(MAKE) -j$$(nproc) all $(BUILD)/tests/tools/vmboot $(BUILD)/tests/tools/fake_worker $(BUILD)/tests/bench/dm_sim $(BUILD)/tests/bench/disk_io
	@BUILD=$(BUILD) tests/bench/run.sh
	@$(BUILD)/tests/bench/dm_sim && $(BUILD)/tests/bench/dm_sim --time
	@BUILD=$(BUILD) tests/bench/dm_react.sh
	@BUILD=$(BUILD) tests/bench/dm_feeder.sh
	@BUILD=$(BUILD) tests/bench/hvtop.sh
	@BUILD=$(BUILD) tests/bench/service.sh
	@BUILD=$(BUILD) tests/bench/disk.sh

# ---- installation ----

# Operator's tools with a command table: they print their own completion files.
CLI_TOOLS := hvctl vhdtool hvtop
LIBEXEC = $(DESTDIR)$(PREFIX)/libexec/hv
# systemd's folders; sysusers.d and tmpfiles.d lie beside the prefix's own.
UNITS   ?= $(PREFIX)/lib/systemd
.PHONY: install
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(LIBEXEC) $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	  $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	for t in $(CLI_TOOLS); do install -m 755 $(BUILD)/bin/$$t $(DESTDIR)$(PREFIX)/bin/ && \
	  $(BUILD)/bin/$$t __completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$t && \
	  $(BUILD)/bin/$$t __completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_$$t && \
	  $(BUILD)/bin/$$t __completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/$$t.fish || exit; done
	install -d $(DESTDIR)$(PREFIX)/share/hv
	install -m 644 $(BUILD)/share/hv/sample.hvrec $(DESTDIR)$(PREFIX)/share/hv/
	install -d $(DESTDIR)$(PREFIX)/share/hv/schema
	install -m 644 wmi-compat/schema/* $(DESTDIR)$(PREFIX)/share/hv/schema/
	install -m 755 $(BUILD)/bin/hvd $(BUILD)/bin/hv-worker $(BUILD)/bin/hv-metrics $(LIBEXEC)/
	install -d $(DESTDIR)$(UNITS)/system $(DESTDIR)$(UNITS)/user $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
	for u in hvd.service:system/hvd.service hv-guests.service:system/hv-guests.service hv-metrics.service:system/hv-metrics.service hvd-user.service:user/hvd.service hv-guests-user.service:user/hv-guests.service; do \
	  sed 's|@LIBEXEC@|$(PREFIX)/libexec/hv|' packaging/$${u%%:*}.in >$(DESTDIR)$(UNITS)/$${u#*:} && \
	  chmod 644 $(DESTDIR)$(UNITS)/$${u#*:} || exit; done
	install -m 644 packaging/hv.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/hv.conf
	install -m 644 packaging/hv.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/hv.conf
	for s in 1 5 7 8; do set -- man/*.$$s; [ -e "$$1" ] || continue; \
	  install -d $(DESTDIR)$(PREFIX)/share/man/man$$s; install -m 644 "$$@" $(DESTDIR)$(PREFIX)/share/man/man$$s/; done

# ---- fuzzing: libFuzzer programs in build-fuzz/fuzz/; run one with its corpus folder as argument ----

FUZZERS      := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_PKGS    := libuv jansson libarchive libzstd ncursesw liburing ext2fs com_err
FUZZ_PARTS   := $(foreach r,vsp disk vmbus boot platform machine memory rpc base,$(BUILD)/lib/$(r).a) \
                $(addprefix $(BUILD)/obj/hv/engine/soft/,decode.o decode_tab.o insn_format.o) $(BUILD)/obj/tests/tools/zydis_compare.o $(BUILD)/obj/tests/tools/zydis_except.o
# A whole VM: the engine's archive has the decoder.
FUZZ_GUEST_PARTS := $(foreach r,$(TOOL_ROOMS),$(BUILD)/lib/$(r).a)
.PHONY: fuzz fuzzers
fuzz: deps-fuzz deps-check
	@$(MAKE) -j$$(nproc) CC=clang SANITIZE=fuzzer-no-link,address,undefined BUILD=build-fuzz WARN=-w fuzzers
fuzzers: $(FUZZERS)
$(filter-out %/fuzz_guest,$(FUZZERS)): $(FUZZ_PARTS)
$(BUILD)/fuzz/fuzz_guest: $(FUZZ_GUEST_PARTS)
$(BUILD)/fuzz/fuzz_hyperv: $(BUILD)/lib/hyperv.a
$(BUILD)/fuzz/fuzz_partition $(BUILD)/fuzz/fuzz_fat $(BUILD)/fuzz/fuzz_ext4: $(BUILD)/lib/fs.a
$(BUILD)/fuzz/fuzz_hvrec: $(BUILD)/lib/hvtop.a $(BUILD)/lib/cli.a $(BUILD)/lib/client.a
$(FUZZERS): $(BUILD)/fuzz/%: tests/fuzz/%.c
	$(call say,FUZZ,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $(call pkgcflags,$(FUZZ_PKGS)) -o $@ $< $(filter %.o,$^) \
	  -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(call pkglibs,$(FUZZ_PKGS)) -lZydis -lcmocka -lm
