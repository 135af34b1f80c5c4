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
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DHV_VERSION='"$(VERSION)"' -DHV_PREFIX='"$(PREFIX)"' -I. \
             -I$(BUILD)/gen -fno-strict-aliasing -fno-common -fstack-protector-strong -pthread \
             $(WARN) $(if $(WERROR),-Werror) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer) $(CFLAGS)
ALL_LDFLAGS = -pthread -Wl,--as-needed -Wl,-z,relro,-z,now $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(LDFLAGS)

Q := $(if $(V),,@)
say = @$(if $(V),true,printf '  %-6s %s\n' $(1) $(2))

.PHONY: all
all:

# $(call room,NAME,FOLDER,PKG-CONFIG NAMES): every .c of the folder but *_main.c becomes lib/NAME.a.
ROOMS :=
PROGRAMS :=
define room_template
ROOMS += $(1)
$(1)_SRCS := $$(filter-out %_main.c,$$(wildcard $(2)/*.c))
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

MODULES := $(sort $(shell find hv hvctl hvtop vhdtool wmi-compat completions man tests -name module.mk))
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
	@{ echo '['; sep=; for f in $$(find hv hvctl hvtop vhdtool wmi-compat tests -name '*.c' | sort); do \
	  printf '%s{"directory":"%s","file":"%s","arguments":["gcc","-std=gnu17","-D_GNU_SOURCE","-I.","-I$(BUILD)/gen","-c","%s"]}\n' "$$sep" "$(CURDIR)" "$$f" "$$f"; sep=,; done; echo ']'; } > $@
