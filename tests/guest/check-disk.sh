#!/usr/bin/env bash
# Disks under a stock kernel's own storvsc: content, hot add and remove, save and load, by
# what the guest and vhdtool find afterwards. One line "ok N - what" a test (TAP).
#
#   check-disk.sh [-k NAME]    BUILD names the build folder; -k: only tests whose name has NAME
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
. tests/guest/tap.sh
build=${BUILD:-build}
vmboot=$build/tests/tools/vmboot
vhdtool=$build/bin/vhdtool
work=$build/guest-disk
only=
[ "${1:-}" = -k ] && only=$2
rm -rf "$work"
mkdir -p "$work"
tests/guest/fetch.sh cloud generic busybox || exit 1
cloud=$cache/vmlinuz-cloud
modules=(-m hv_vmbus -m hv_utils -m hv_storvsc -m sd_mod -m sr_mod -m ext4)
tests/guest/mkinitrd.sh -k cloud "${modules[@]}" -f tests/guest/diskload.sh:bin/diskload "$work/initrd" || exit 1

boot() { "$vmboot" --timeout 120s --kernel "$cloud" --initrd "$work/initrd" --cmdline "console=ttyS0 quiet" "$@"; }
prompt='demo:~# '
# What stands in the argument of a step is echoed by the shell; "x""y" in it prints xy.
mount_new='for d in sda sdb sdc sdd; do [ -e /dev/$d ] || continue; mke2fs /dev/$d >/dev/null; mkdir -p /d/$d; mount -t ext4 /dev/$d /d/$d; done; echo mount""ed'
mount_old='for d in sda sdb sdc sdd; do [ -e /dev/$d ] || continue; mkdir -p /d/$d; mount -t ext4 /dev/$d /d/$d; done; echo mount""ed'
# How many of the controller's channels have been interrupted so often by now, each on a CPU of its own.
channels='cd /sys/bus/vmbus/devices/f80e1c2b*/channels; n=0; for c in *; do [ $(cat $c/interrupts) -gt 20 ] && n=$((n + 1)); done; echo busy channels: $n on $(cat */cpu | sort -u | wc -l) CPUs; cd /'
leave='umount /d/* && echo un""mounted'

disks() {
    "$vhdtool" create "$work/dyn.vhdx" --size 2G --block-size "${1:-32M}" &&
        "$vhdtool" create "$work/base.vhdx" --size 1G && "$vhdtool" create "$work/child.vhdx" --parent "$work/base.vhdx" &&
        "$vhdtool" create "$work/dyn.vhd" --size 1G &&
        "$vhdtool" create "$work/base.vhd" --size 1G && "$vhdtool" create "$work/child.vhd" --parent "$work/base.vhd" &&
        sha256sum "$work"/base.* >"$work/parents"
}
given=(--disk "$work/dyn.vhdx" --disk "$work/child.vhdx" --disk "$work/dyn.vhd" --disk "$work/child.vhd")
# All sound, and no parent written to.
clean() { "$vhdtool" check "$work"/{dyn,child,base}.vhdx "$work"/{dyn,child,base}.vhd && sha256sum -c --quiet "$work/parents"; }

# Mixed load from 4 vCPUs, checksums across dropped caches, a reboot of the guest, and a new VM.
load_and_reboot() {
    boot --cpus 4 "${given[@]}" --until "$prompt" --send "$mount_new" --until mounted --send 'diskload write 8' --until 'load ended' \
        --send "$channels" --until 'busy channels: 4 on 4 CPUs' \
        --send 'diskload verify' --until 'sums good' --send "$leave" --until unmounted --send 'reboot' --rebooted \
        --until "$prompt" --send "$mount_old" --until mounted --send 'diskload verify' --until 'sums good' \
        --send "$leave" --until unmounted --send poweroff --off && clean &&
        boot --cpus 2 "${given[@]}" --until "$prompt" --send "$mount_old" --until mounted --send 'diskload verify' \
            --until 'sums good' --send "$leave; poweroff" --off && clean
}

# Saved and loaded five times while the load runs.
save_under_load() {
    boot --cpus 4 "${given[@]}" --until "$prompt" --send "$mount_old" --until mounted --send 'diskload write 10' --for 1s --save --for 1s \
        --save --for 1s --save --for 1s --save --for 1s --save --until 'load ended' --send "$channels" \
        --until 'busy channels: 4 on 4 CPUs' --send 'diskload verify' --until 'sums good' --send "$leave; poweroff" --off && clean
}

# A disk that comes, grows and goes twenty times while others are under load.
hot_plug() {
    local steps=() i
    "$vhdtool" create "$work/hot.vhdx" --size 64M || return 1
    for i in $(seq 20); do
        steps+=(--attach "$work/hot.vhdx" --send "while [ ! -e /dev/sde ]; do sleep 0.05; done; echo here $i: \$(dd if=/dev/sde bs=1M count=1 2>/dev/null | wc -c)"
            --until "here $i: 1048576" --grow $((i + 3))=$((64 + i))M
            --send "until [ \$(cat /sys/block/sde/size) = $(((64 + i) * 2048)) ]; do head -c 512 /dev/sde >/dev/null; sleep 0.05; done; echo gro\"\"wn $i: \$(dd if=/dev/sde bs=1M skip=$((63 + i)) 2>/dev/null | wc -c)"
            --until "grown $i: 1048576" --detach $((i + 3))
            --send "while [ -e /dev/sde ]; do sleep 0.05; done; echo go\"\"ne $i:" --until "gone $i:")
    done
    boot --cpus 2 "${given[@]}" --until "$prompt" --send "$mount_old" --until mounted --send '(diskload write 12) & echo back""ground' --until background \
        "${steps[@]}" --send 'wait; diskload verify' --until 'sums good' --send "$leave; poweroff" --off && clean
}

# What the guest gives back leaves the file: discard of a file system, also of what has just been written.
trim() {
    local before after
    before=$("$vhdtool" info "$work/dyn.vhdx" -o json | jq .allocated)
    boot "${given[@]}" --until "$prompt" --send "$mount_old" --until mounted \
        --send 'dd if=/dev/urandom of=/d/sda/fill bs=1M count=100 2>/dev/null; sync; rm -rf /d/*/*; sync; for d in /d/*; do fstrim $d; done; echo trim""med' \
        --until trimmed --send "$leave; poweroff" --off && clean || return 1
    after=$("$vhdtool" info "$work/dyn.vhdx" -o json | jq .allocated)
    echo "allocated: $before before, $after after"
    [ "$after" -lt "$before" ]
}

# As many as a controller has addresses, each with content of its own, also after a load.
sixty_four() {
    local i all=()
    for i in $(seq 0 63); do
        "$vhdtool" create -q "$work/many$i.vhdx" --size 16M || return 1
        all+=(--disk "$work/many$i.vhdx")
    done
    boot "${all[@]}" --until "$prompt" --send 'until [ $(ls /sys/block | grep -c "^sd") = 64 ]; do sleep 0.1; done; for d in /dev/sd*; do echo $d | dd of=$d bs=512 conv=sync 2>/dev/null; done; sync; echo writ""ten' \
        --until written --save --send 'echo 3 >/proc/sys/vm/drop_caches; n=0; for d in /dev/sd*; do [ "$(head -c ${#d} $d)" = $d ] && n=$((n + 1)); done; echo own cont""ent: $n.' \
        --until 'own content: 64.' --send poweroff --off && "$vhdtool" check -q "$work"/many*.vhdx
    i=$?
    rm -f "$work"/many*
    return $i
}

dvd() {
    local sum
    head -c 5000000 /dev/urandom >"$work/cd.iso"
    truncate -s 5001216 "$work/cd.iso"
    sum=$(md5sum <"$work/cd.iso" | cut -d' ' -f1)
    boot --dvd "$work/cd.iso" --until "$prompt" --send 'md5sum /dev/sr0' --until "$sum" --send 'echo x >/dev/sr0 || echo re""fused' \
        --until refused --send poweroff --off
}

# Pages of code that a read overwrites, called on two processors, translated and interpreted.
code_pages() {
    local translate
    gcc -O1 -std=gnu17 -static -pthread -o "$work/codepage" tests/guest/codepage.c || return 1
    tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_storvsc -m sd_mod -f "$work/codepage:bin/codepage" "$work/initrd-code" || return 1
    "$vhdtool" create "$work/code.vhdx" --size 16M || return 1
    for translate in 256 off; do
        HV_SOFT_TRANSLATE=$translate boot --initrd "$work/initrd-code" --cpus 2 --disk "$work/code.vhdx" --until "$prompt" \
            --send 'codepage /dev/sda 300' --until 'calls right' --send 'poweroff -f' --off || return 1
    done
}

check "disks: mixed load from 4 vCPUs, dropped caches, reboot, another boot" eval 'disks && load_and_reboot'
check "disks: saved and loaded five times under load" save_under_load
check "disks: a disk comes, grows and goes twenty times under load" hot_plug
check "disks: what is discarded leaves the file" trim
check "disks: code that a read overwrites is executed as it is now" code_pages
check "disks: sixty-four at once" sixty_four
check "disks: a DVD is read and not written" dvd
tap_end
