#!/usr/bin/env bash
# Dynamic memory with a stock kernel's own balloon driver, beyond what check.sh shows: many times, with
# content that is looked at, and what guests do that do not go along. TAP.
#
#   check-memory.sh [-k NAME] [TIMES]    how often memory is taken and given back (10); BUILD names the build
#                                        folder; -k: only tests whose name has NAME
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
. tests/guest/tap.sh
build=${BUILD:-build}
only=
[ "${1:-}" != -k ] || { only=$2; shift 2; }
times=${1:-10}
vmboot=$build/tests/tools/vmboot
work=$build/guest-memory
rm -rf "$work"
mkdir -p "$work"
tests/guest/fetch.sh cloud busybox || exit 1
cloud=$cache/vmlinuz-cloud
prompt='demo:~# '

# In the guest: fills most of its memory with copies of something random, compares them, lets go of them.
cat >"$work/fill" <<'FILL'
#!/bin/sh
mkdir -p /big
[ -e /big/sum ] || { mount -t tmpfs -o size=1G big /big; head -c 16000000 /dev/urandom >/big/0; md5sum </big/0 >/big/sum; }
i=0
while [ $i -lt "$1" ]; do i=$((i + 1)); cp /big/0 "/big/c$i" || exit 1; done
for f in /big/0 /big/c*; do [ "$(md5sum <"$f")" = "$(cat /big/sum)" ] || { echo "$f is not what it was"; exit 1; }; done
rm /big/c*
echo "filled $1 times, all equal"
FILL
chmod 755 "$work/fill"
printf '%s\n' '#!/bin/sh' 'echo 0 >/sys/module/hv_balloon/parameters/pressure_report_delay' >"$work/rc"
printf '%s\n' '#!/bin/sh' 'insmod /lib/modules/hv_balloon.ko hot_add=0' >"$work/rc-static"
balloon=$(find -L "$cache/modules-cloud" -name 'hv_balloon.ko')
[ -n "$balloon" ] || die "the cloud kernel has no hv_balloon.ko"
modules=(-m hv_vmbus -m hv_utils)
tests/guest/mkinitrd.sh -k cloud "${modules[@]}" -m hv_balloon -f "$work/fill:bin/fill" -r "$work/rc" "$work/initrd" &&
    tests/guest/mkinitrd.sh -k cloud "${modules[@]}" "$work/initrd-none" &&
    tests/guest/mkinitrd.sh -k cloud "${modules[@]}" -f "$balloon:lib/modules/hv_balloon.ko" -r "$work/rc-static" "$work/initrd-static" || exit 1
boot() { "$vmboot" --timeout 120s --kernel "$cloud" --cmdline "console=ttyS0 quiet memhp_default_state=online" "$@"; }

# All of it in use, then a third taken: the host must hold no more than what is left, each time.
down_and_up() {
    local steps=() i left=$times some
    while [ "$left" -gt 0 ]; do              # a run of vmboot has so many steps
        some=$((left < 60 ? left : 60)) steps=()
        left=$((left - some))
        for i in $(seq "$some"); do
            steps+=(--send 'fill 20' --until 'all equal' --target 352M --resident-below 353M --send 'fill 6' --until 'all equal' --target 512M)
        done
        boot --initrd "$work/initrd" --until "$prompt" --driver "${steps[@]}" --send 'fill 20' --until 'all equal' \
            --send 'dmesg | grep -c "Out of memory" >/tmp/oom; echo "kil""led $(cat /tmp/oom)."' --until 'killed 0.' --shutdown --off || return 1
    done
}

# Memory beyond what it started with: used, taken and given back like the rest.
grown() {
    boot --initrd "$work/initrd" --until "$prompt" --driver --target 1G \
        --send 'awk "/MemTotal/ { print \"to\" \"tal\", (\$2 > 950000) }" /proc/meminfo' --until 'total 1' \
        --send 'fill 45' --until 'all equal' --target 600M --resident-below 601M --send 'fill 15' --until 'all equal' \
        --target 1G --save --send 'fill 45' --until 'all equal' --shutdown --off
}

# A command that must fail and say why.
refused() {
    local text=$1
    shift
    "$@" 2>"$work/stderr" && return 1
    tee /dev/stderr <"$work/stderr" | grep -qF "$text"
}

# Below Linux' own floor: it gives what it can, says so, and lives.
short() {
    boot --initrd "$work/initrd" --until "$prompt" --driver --aim 64M --for 5s --send 'echo al""ive' --until alive --shutdown --off 2>&1 |
        tee "$work/short.log"
    [ "${PIPESTATUS[0]}" = 0 ] && grep -q 'memory: the guest gave back [0-9.]*M of the 448M it was asked for' "$work/short.log"
}

check "memory: taken and given back $times times, in use before and after" down_and_up
check "memory: grown beyond what it started with, then taken, given back, saved and loaded" grown
check "memory: less than the guest can do with: it gives what it can, and that is said" short
check "memory: a guest that takes none (hot_add=0) is not asked" \
    refused 'vmboot: the guest refuses added memory' boot --initrd "$work/initrd-static" --until "$prompt" --driver --target 400M --target 512M --aim 640M --for 2s --aim 640M
check "memory: a guest without the driver is not asked" \
    refused 'the guest has no dynamic memory driver running' boot --initrd "$work/initrd-none" --until "$prompt" --heartbeat ok --target 400M
tap_end
