#!/usr/bin/env bash
# Stock kernels below the service: boots, power-off, reboot, reset, save and load in the
# middle of a boot. One line "ok N - what" a test (TAP).
#
#   check.sh [-k NAME]    BUILD names the build folder; -k: only tests whose name has NAME
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
. tests/guest/tap.sh
build=${BUILD:-build}
vmboot=$build/tests/tools/vmboot
work=$build/guest
only=
[ "${1:-}" = -k ] && only=$2
mkdir -p "$work"
tests/guest/fetch.sh cloud generic busybox || exit 1
tests/guest/mkinitrd.sh -k cloud "$work/initrd" || exit 1

boot() { "$vmboot" --timeout 120s --initrd "$work/initrd" --cmdline "console=ttyS0 ${quiet-quiet}" "$@"; }
prompt='demo:~# '
cloud=$cache/vmlinuz-cloud
generic=$cache/vmlinuz-generic

# The decompressed kernel as an ELF file: its Xen note makes it a PVH guest.
vmlinux() {
    [ -s "$work/vmlinux" ] && [ "$work/vmlinux" -nt "$cloud" ] || tests/guest/vmlinux.sh "$cloud" "$work/vmlinux"
}

check "bzImage, 512M: to the shell, poweroff" \
    boot --kernel "$cloud" --until "$prompt" --send 'poweroff' --off
check "bzImage, 6G: all of it is there" \
    boot --kernel "$cloud" --memory 6G --until "$prompt" \
    --send 'free -m | awk "/Mem:/ {print \"mem\", (\$2 > 5800 && \$2 < 6144) ? \"good\" : \$2}"' --until 'mem good' --send 'poweroff' --off
vmlinux
check "PVH ELF, 512M: to the shell, poweroff" \
    boot --kernel "$work/vmlinux" --until "$prompt" --send 'poweroff' --off
check "PVH ELF, 6G" \
    boot --kernel "$work/vmlinux" --memory 6G --until "$prompt" --send 'poweroff' --off
check "128M is enough for the cloud kernel" \
    boot --kernel "$cloud" --memory 128M --until "$prompt" --send 'poweroff' --off
# Every block of a boot and of small programs, run by the interpreter too; and the programs' results are the host's own.
gcc -O2 -std=gnu17 -static -o "$work/bench" tests/bench/guest/bench.c
printf '#!/bin/sh\necho\nbench all 1\npoweroff -f\n' >"$work/bench.sh"
tests/guest/mkinitrd.sh -k cloud -f "$work/bench:bin/bench" -r "$work/bench.sh" "$work/initrd-bench"
results() { tr -d '\r' | sed -n 's/^bench \([a-z0-9]*\) [0-9]* [0-9]* \(.*\)/\1 \2/p'; }
lockstep() {
    HV_SOFT_TRANSLATE=lockstep "$vmboot" --timeout 120s --stats --kernel "$cloud" --initrd "$work/initrd-bench" --cmdline 'console=ttyS0 quiet' \
        --off >"$work/lockstep.out" 2>&1 || { tail -n 60 "$work/lockstep.out"; return 1; }
    "$work/bench" all 1 | results >"$work/bench.host"
    results <"$work/lockstep.out" | diff "$work/bench.host" - || return 1
    awk '/lock_steps/ { print; n = $2 } END { exit n < 500000 }' "$work/lockstep.out"
}
check "boot and programs in lock-step with the interpreter" lockstep
# The Hyper-V interface: the kernel finds it, its own bus driver connects, also after a reboot and a load.
tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils -m hv_balloon -f tests/guest/complaints.sh:bin/complaints "$work/initrd-hv"
found='dmesg | grep -c -e "Hypervisor detected: Microsoft Hyper-V" -e "hv_vmbus: Vmbus version:5.3" -e "clocksource: hyperv_clocksource_tsc_page" | sed "s/^/found /"'
hyperv() {
    "$vmboot" --timeout 120s --initrd "$work/initrd-hv" --kernel "$cloud" --cmdline 'console=ttyS0 quiet' "$@"
}
check "Hyper-V is found, VMBus connects" \
    hyperv --until "$prompt" --send "$found" --until 'found 3' --send complaints --until 'kernel is quiet' --send 'poweroff' --off
check "Hyper-V and VMBus on 4 vCPUs, saved and loaded, rebooted" \
    hyperv --cpus 4 --until "$prompt" --save --send "$found" --until 'found 3' --send complaints --until 'kernel is quiet' \
    --send reboot --rebooted --until "$prompt" --send "$found" --until 'found 3' --send 'poweroff' --off
check "hyperv=off hides it" \
    hyperv --set hyperv=off --until "$prompt" --send "$found" --until 'found 0' --send 'poweroff' --off
# What the stock kernel makes of --mitigations: with fast nothing that costs; with guest what it does on unknown hardware.
mitigations() {
    local how=$1 file
    shift
    "$vmboot" --timeout 120s --set mitigations="$how" --initrd "$work/initrd" --kernel "$cloud" --cmdline 'console=ttyS0 quiet' \
        --until "$prompt" --send 'cd /sys/devices/system/cpu/vulnerabilities; grep . *; grep -m1 -o -w pti /proc/cpuinfo; echo li""sted' \
        --until listed --send 'poweroff' --off | tr -d '\r' >"$work/mitigations-$how.out" || return 1
    [ "$(grep -c ':Not affected$' "$work/mitigations-$how.out")" -ge 8 ] || { cat "$work/mitigations-$how.out"; return 1; }
    for file; do
        grep -q "$file" "$work/mitigations-$how.out" || { echo "not so: $file"; cat "$work/mitigations-$how.out"; return 1; }
    done
}
mitigations_fast() {
    mitigations fast '^meltdown:Not affected' '^l1tf:Not affected' '^mds:Not affected' '^mmio_stale_data:Not affected' \
        '^spec_store_bypass:Not affected' '^spectre_v2:Mitigation: Enhanced' &&
        ! grep -E '^[a-z0-9_]+:(Vulnerable|Unknown)|^pti|Retpoline|RSB filling' "$work/mitigations-fast.out"
}
check "mitigations: fast has the kernel take none that cost" mitigations_fast
check "mitigations: guest has it take them all" mitigations guest '^meltdown:Mitigation: PTI' '^pti$' \
    '^spectre_v2:Mitigation: Retpolines' 'RSB filling' '^l1tf:Mitigation' '^mds:.*Clear CPU buffers'
check "reboot restarts the guest" \
    boot --kernel "$cloud" --until "$prompt" --send 'reboot' --rebooted --until "$prompt" --send 'poweroff' --off
check "triple fault restarts the guest as Hyper-V does" \
    boot --kernel "$cloud" --cmdline 'console=ttyS0 quiet reboot=t' --until "$prompt" --send 'reboot -f' --rebooted --until "$prompt"
check "the ACPI power button powers off" \
    boot --kernel "$cloud" --until "$prompt" --for 1s --button --off
check "hard reset" \
    boot --kernel "$cloud" --until "$prompt" --reset --until "$prompt"
check "save and load in the middle of a boot, five times" \
    env quiet= "$vmboot" --timeout 120s --initrd "$work/initrd" --cmdline 'console=ttyS0' --kernel "$cloud" \
    --until 'BIOS-e820' --save --until 'Memory:' --save --until 'NET: Registered' --save \
    --until 'Freeing unused kernel' --save --until "$prompt" --save --send 'echo al''ive' --until 'alive' --send poweroff --off
check "time goes on: sleep 2 takes two seconds" \
    boot --kernel "$cloud" --until "$prompt" \
    --send 'a=$(cut -d. -f1 /proc/uptime); sleep 2; b=$(cut -d. -f1 /proc/uptime); echo slept $((b-a>=2 && b-a<=4))' --until 'slept 1'
check "sha256sum in the guest equals the host's" \
    boot --kernel "$cloud" --until "$prompt" --send 'sh -c "seq 1 200000 | sha256sum"' --until "$(seq 1 200000 | sha256sum | cut -c1-64)"
# ---- VMBus: the stock drivers against our side of it ----
# The balloon driver keeps silent for its first 45 reports; tests have no time for that.
printf '%s\n' '#!/bin/sh' 'echo 0 >/sys/module/hv_balloon/parameters/pressure_report_delay' >"$work/vmbus.rc"
tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils -m hv_balloon -r "$work/vmbus.rc" "$work/initrd-vmbus" || exit 1
# Debian's hv_balloon cannot be unloaded, and holds the bus: the others without it.
tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils "$work/initrd-utils" || exit 1
vmbus() { boot --kernel "$cloud" --initrd "$work/initrd-vmbus" --cmdline "console=ttyS0 loglevel=7 memhp_default_state=online" "$@"; }
offline() {
    vmbus --cmdline 'console=ttyS0 quiet memhp_default_state=offline' "$@" 2>&1 | tee "$work/offline.log"
    grep -q 'memhp_default_state=online' "$work/offline.log" && grep -q 'is in use now' "$work/offline.log"
}
up=(--until "$prompt" --heartbeat ok --driver)
balloon=()
for _ in 1 2 3 4 5 6 7 8 9 10; do balloon+=(--target 320M --resident-below 320M --target 512M); done
total() { printf 'awk "/MemTotal/ {print \\"to\\" \\"tal\\", (\\$2 %s)}" /proc/meminfo' "$1"; }
check "VMBus 5.3, utilities and balloon bound; a shutdown request powers off" \
    vmbus --until 'Vmbus version:5.3' "${up[@]}" \
    --send 'until [ "$(dmesg | grep -c -e "Heartbeat IC version 3.0" -e "Shutdown IC version 3.2" -e "TimeSync IC version 4.0" -e "Memory protocol version 2.0")" = 4 ]; do sleep 0.1; done; echo al""l bound' \
    --until 'all bound' --shutdown --off
check "VMBus on four processors; a restart request restarts" \
    vmbus --cpus 4 "${up[@]}" --restart --rebooted "${up[@]}" --shutdown --off
check "VMBus: the balloon takes memory and gives it back, ten times" \
    vmbus "${up[@]}" --send 'dd if=/dev/zero of=/tmp/fill bs=1M count=250; rm /tmp/fill; sleep 2; echo fil""led' --until filled \
    "${balloon[@]}" --send "$(total '> 450000')" --until 'total 1' --shutdown --off
check "VMBus: added memory is used; a restart takes it away" \
    vmbus "${up[@]}" --reports 1 --target 1G --send "$(total '> 950000')" --until 'total 1' \
    --send 'mount -t tmpfs -o size=700M big /mnt || { mkdir /mnt; mount -t tmpfs -o size=700M big /mnt; }; dd if=/dev/zero of=/mnt/fill bs=1M count=450 && echo us""ed' --until used --restart --rebooted "${up[@]}" \
    --send "$(total '< 520000')" --until 'total 1' --resident-below 320M --shutdown --off
check "VMBus: added memory that stays offline is noticed and said, and when it is put online by hand" \
    offline "${up[@]}" --reports 1 --target 640M --reports 10 \
    --send 'for f in $(grep -l offline /sys/devices/system/memory/memory*/state); do echo online >$f; done; sleep 4; echo "now on"line' \
    --until 'now online' --target 768M --shutdown --off
reload='rmmod hv_utils && rmmod hv_vmbus && echo un""loaded'
load='insmod /lib/modules/hv_vmbus.ko; insmod /lib/modules/hv_utils.ko'
check "VMBus: drivers and the bus unloaded and loaded, three times" \
    vmbus --initrd "$work/initrd-utils" --until "$prompt" --heartbeat ok \
    --send "$reload" --until unloaded --heartbeat no-contact --send "$load" --heartbeat ok \
    --send "$reload" --until unloaded --heartbeat no-contact --send "$load" --heartbeat ok \
    --send "$reload" --until unloaded --heartbeat no-contact --send "$load" --heartbeat ok --shutdown --off
check "VMBus: save and load with every channel open, ballooned and grown" \
    vmbus --cpus 2 --until 'Vmbus version' --save "${up[@]}" --reports 1 --save --target 400M --save --target 768M --save \
    --heartbeat ok --target 512M --save --target 640M --send 'echo al""ive' --until alive --shutdown --off
# ---- Debian's own hyperv-daemons in the guest, below the service; make check has them above it ----
if [ -n "${CHECK_SLOW:-}" ]; then
tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils -m hv_storvsc -m sd_mod -m ext4 -m dummy -D "$work/initrd-daemons" || exit 1
daemons() {
    "$build/bin/vhdtool" create -q "$work/frozen.vhdx" --size 64M || return 1
    boot --kernel "$cloud" --initrd "$work/initrd-daemons" --disk "$work/frozen.vhdx" --until "$prompt" --heartbeat ok \
        --send 'mke2fs /dev/sda >/dev/null 2>&1; mkdir /d; mount -t ext4 /dev/sda /d; ip addr add 10.9.8.7/24 dev dummy0; ip link set dummy0 up; echo mount""ed' \
        --until mounted "$@" --shutdown --off
    local r=$?
    rm -f "$work/frozen.vhdx"
    return $r
}
start=(--send 'daemons; echo sta""rted' --until started)
head -c 300001 /dev/urandom >"$work/copied"
copied=$(md5sum <"$work/copied" | cut -d' ' -f1)
check "daemons: key-values and files after a load; frozen, writes wait, also after one; thawed, they go on; reset while frozen" \
    daemons --guest 'set a b -> no key-value daemon' "${start[@]}" --guest 'set color green' --save --guest 'get color green' \
    --guest "copy $work/copied /d/x" --send 'md5sum /d/x' --until "$copied" --guest "copy $work/copied /d/n/e/w/x parents" \
    --send 'dd if=/dev/zero of=/d/fill bs=1M count=100 2>/dev/null; sync; echo fil""led' --until filled --guest "copy $work/copied /d/z -> full" \
    --send 'rm /d/fill; [ -e /d/z ] || echo remo""ved' --until removed --guest freeze --guest 'freeze -> frozen already' --save --send '(echo x >/d/y; echo writ""ten) & sleep 1; echo wai""ted' \
    --until waited --send '[ -s /d/y ] || echo no""thing' --until nothing --guest thaw --until written --guest 'thaw -> not frozen' \
    --guest freeze --reset --until "$prompt" --heartbeat ok --guest 'thaw -> not frozen any more' --guest 'thaw -> it is not frozen'
# Every driver that lets itself be unloaded (Debian's hv_balloon does not), with disks behind it.
again=()
for i in 1 2 3; do
    again+=(--send "umount /d; killall hv_kvp_daemon hv_vss_daemon hv_fcopy_daemon; sleep 0.3; rmmod hv_storvsc hv_utils; [ ! -e /dev/sda ] && echo go\"\"ne $i" --until "gone $i" --heartbeat no-contact
        --send "insmod /lib/modules/hv_utils.ko; insmod /lib/modules/hv_storvsc.ko; while ! mount -t ext4 /dev/sda /d 2>/dev/null; do sleep 0.1; done; daemons; md5sum /d/x"
        --until "$copied" --heartbeat ok --guest "set round $i" --guest "get round $i" --guest "copy $work/copied /d/x overwrite" --guest freeze --guest thaw)
done
check "drivers of storage and services unloaded and loaded three times, with a disk" \
    daemons "${start[@]}" --guest "copy $work/copied /d/x" "${again[@]}"
check "drivers likewise on four processors, saved and loaded in between" \
    daemons --cpus 4 "${start[@]}" --guest "copy $work/copied /d/x" "${again[@]:0:22}" --save "${again[@]:22}"
fi
# Debian's own initramfs, where one can be made here (root or user namespaces).
tests/guest/mkinitramfs-tools.sh -k cloud "$work/initramfs" >"$work/initramfs.log" 2>&1
case $? in
0)
    for size in 512M 6G; do
        for image in "$cloud" "$work/vmlinux"; do
            check "initramfs-tools, $(basename "$image"), $size: to its shell, poweroff" \
                boot --kernel "$image" --initrd "$work/initramfs" --memory $size --cmdline 'console=ttyS0 break=top' \
                --until '(initramfs)' --send 'poweroff -f' --off
        done
    done
    ;;
77) echo "# no initramfs-tools boots: $(tail -n 1 "$work/initramfs.log")" ;;
*) check "an initramfs by initramfs-tools" cat "$work/initramfs.log" /nonexistent ;;
esac
check "the generic kernel boots to the shell" \
    boot --kernel "$generic" --until "$prompt" --send 'poweroff' --off
tap_end
