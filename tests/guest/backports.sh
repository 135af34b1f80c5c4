#!/usr/bin/env bash
# A newer kernel than the release's: that of bookworm-backports, with its own Hyper-V drivers. The kernel
# finds the interface, complains of nothing, and disks, memory and services work. TAP.
#
#   backports.sh [-k NAME]    BUILD names the build folder; -k: only tests whose name has NAME
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
. tests/guest/tap.sh
build=${BUILD:-build}
vmboot=$build/tests/tools/vmboot
vhdtool=$build/bin/vhdtool
work=$build/backports
only=
[ "${1:-}" = -k ] && only=$2
rm -rf "$work"
mkdir -p "$work"
(tests/guest/fetch.sh backports busybox daemons) || skip "no kernel of bookworm-backports can be had"
printf '%s\n' '#!/bin/sh' 'echo 0 >/sys/module/hv_balloon/parameters/pressure_report_delay' >"$work/rc"
tests/guest/mkinitrd.sh -k backports -m hv_vmbus -m hv_utils -m hv_storvsc -m sd_mod -m ext4 -m hv_balloon -D \
    -f tests/guest/complaints.sh:bin/complaints -f tests/guest/diskload.sh:bin/diskload -r "$work/rc" "$work/initrd" || exit 1
prompt='demo:~# '
boot() {
    "$vmboot" --timeout 120s --kernel "$cache/vmlinuz-backports" --initrd "$work/initrd" \
        --cmdline 'console=ttyS0 quiet memhp_default_state=online' "$@"
}
quiet=(--send complaints --until 'kernel is quiet')
said() { printf 'dmesg | grep -c %s | sed "s/^/sa""id /"' "$(printf -- '-e "%s" ' "$@")"; }

identity() {
    boot --cpus "$1" --until "$prompt" --heartbeat ok \
        --send "$(said 'Hypervisor detected: Microsoft Hyper-V' 'hv_vmbus: Vmbus version:5.3' 'Cold memory discard hint enabled' \
            'Dynamic Memory protocol version 2.0' 'Heartbeat IC version 3.0' 'Shutdown IC version 3.2' 'TimeSync IC version 4.0' \
            'VSS IC version 5.0')" --until 'said 8' "${quiet[@]}" --save --send "echo al\"\"ive" --until alive \
        --restart --rebooted --until "$prompt" --heartbeat ok "${quiet[@]}" --shutdown --off
}
disks() {
    "$vhdtool" create -q "$work/a.vhdx" --size 512M && "$vhdtool" create -q "$work/b.vhd" --size 512M || return 1
    boot --cpus 4 --disk "$work/a.vhdx" --disk "$work/b.vhd" --until "$prompt" \
        --send 'for d in sda sdb; do mke2fs /dev/$d >/dev/null; mkdir -p /d/$d; mount -t ext4 /dev/$d /d/$d; done; echo mount""ed' --until mounted \
        --send 'diskload write 6' --for 1s --save --until 'load ended' --send 'diskload verify' --until 'sums good' \
        --send 'umount /d/*; echo un""mounted' --until unmounted "${quiet[@]}" --shutdown --off && "$vhdtool" check "$work/a.vhdx" "$work/b.vhd"
}
# Channels move to one processor while they are busy, the others go and come, channels move again.
processors() {
    local move='for f in /sys/bus/vmbus/devices/*/channels/*/cpu; do echo'
    rm -f "$work/c.vhdx" && "$vhdtool" create -q "$work/c.vhdx" --size 512M || return 1
    boot --cpus 4 --disk "$work/c.vhdx" --until "$prompt" --send 'mke2fs /dev/sda >/dev/null; mkdir -p /d/sda; mount -t ext4 /dev/sda /d/sda; echo mount""ed' \
        --until mounted --send "(diskload write 6) & sleep 1; $move 0 >\$f; done; for c in 1 2 3; do echo 0 >/sys/devices/system/cpu/cpu\$c/online; done; echo le\"\"ft \$(nproc)." \
        --until 'left 1.' --save --send "for c in 1 2 3; do echo 1 >/sys/devices/system/cpu/cpu\$c/online; done; $move 2 >\$f; done; echo ba\"\"ck \$(nproc)." \
        --until 'back 4.' --until 'load ended' --send 'diskload verify' --until 'sums good' --send 'umount /d/*; echo un""mounted' --until unmounted \
        "${quiet[@]}" --shutdown --off && "$vhdtool" check "$work/c.vhdx"
}
memory() {
    local steps=() i
    for i in 1 2 3; do steps+=(--target 1G --target 448M --resident-below 449M); done
    steps+=(--target 1G)
    boot --cpus 2 --until "$prompt" --driver --reports 1 "${steps[@]}" \
        --send 'awk "/MemTotal/ { print \"to\" \"tal\", (\$2 > 950000) }" /proc/meminfo' --until 'total 1' --save --target 400M --target 512M \
        "${quiet[@]}" --shutdown --off
}
# Small pages are reported too where the guest's own parameter says so: the host has them back.
small_pages() {
    boot --until "$prompt" --driver --send 'echo 2 >/sys/module/page_reporting/parameters/page_reporting_order; dd if=/dev/zero of=/tmp/fill bs=1M count=200; rm /tmp/fill; sleep 6; echo wait""ed' \
        --until waited --resident-below 256M --send "$(said 'cold memory discard hypercall')" --until 'said 0' "${quiet[@]}" --shutdown --off
}
services() {
    boot --until "$prompt" --heartbeat ok --send 'daemons kvp vss; echo sta""rted' --until started --guest 'set color green' \
        --guest 'get color green' --guest freeze --save --guest thaw --guest "copy $0 /x -> no file copy daemon" "${quiet[@]}" --shutdown --off
}

check "backports: the interface is found, nothing is complained of, saved, loaded and restarted" identity 1
check "backports: the same on four processors" identity 4
check "backports: disks under load from four processors, saved and loaded" disks
check "backports: channels move and processors go and come under load" processors
check "backports: memory taken, given back and added" memory
check "backports: free pages of every size go back to the host" small_pages
check "backports: key-values and freeze; file copy has no driver any more, and that is said" services
tap_end
