#!/usr/bin/env bash
# A Debian installation on a VHDX over storvsc: mmdebstrap's tree and the kernels' own modules become
# a disk by `vhdtool build`, systemd comes up on it, with the cloud and the generic kernel and 1
# and 4 vCPUs, one after the other on the same disk. TAP. A boot takes half a minute, the tree
# (cached) the network and a minute.
#
#   debian-root.sh [-k NAME] [-i IMAGE]    BUILD names the build folder
#
#   -k   only tests whose name has NAME
#   -i   no test: make the disk at IMAGE (raw if it ends in .raw) and the initrds IMAGE.cloud, IMAGE.generic
set -uo pipefail
umask 022
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
. tests/guest/tap.sh
build=${BUILD:-build}
vmboot=$build/tests/tools/vmboot
vhdtool=$build/bin/vhdtool
only= image=
while getopts k:i:h opt; do
    case $opt in
    k) only=$OPTARG ;;
    i) image=$OPTARG ;;
    *) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    esac
done
work=$build/debian-root
rm -rf "$work"
mkdir -p "$work"
tests/guest/fetch.sh cloud generic || exit 1

tar=$cache/debian-root.tar
if [ ! -s "$tar" ]; then
    command -v mmdebstrap >/dev/null || skip "needs mmdebstrap"
    mmdebstrap --variant=important --include=systemd-sysv,udev,dbus,libpam-systemd bookworm "$work/root.tar" >"$work/mmdebstrap.log" 2>&1 || {
        tail -n 3 "$work/mmdebstrap.log" >&2
        skip "Debian's packages cannot be had"
    }
    mv "$work/root.tar" "$tar"
fi

# The modules of both kernels as their packages have them; what an installation does with depmod.
for flavour in cloud generic; do
    version=$(basename "$(readlink -f "$cache/modules-$flavour")")
    mkdir -p "$work/modules/usr/lib/modules"
    cp -a "$(readlink -f "$cache/modules-$flavour")" "$work/modules/usr/lib/modules/"
    PATH=$PATH:/sbin:/usr/sbin depmod -b "$work/modules/usr" "$version" || exit 1
    tests/guest/mkinitrd.sh -k "$flavour" -d -m hv_vmbus -m hv_storvsc -m virtio_pci -m virtio_blk -m crc32c_generic "${image:-$work/initrd}.$flavour" || exit 1
done
make_disk() {
    "$vhdtool" build "$1" --from "$tar" --from "$work/modules" --size 3G --root-password none --hostname guest "${@:2}"
}
if [ -n "$image" ]; then
    make_disk "$image" -y
    rm -rf "$work/modules"
    exit
fi

disk=$work/root.vhdx
# The root file system of a disk whose guest has gone, by e2fsprogs: nothing to repair, no journal to replay.
file_system_clean() {
    "$vhdtool" check "$disk" && "$vhdtool" convert "$disk" "$work/root.raw" -y -q || return 1
    local start
    start=$(sfdisk -J "$work/root.raw" | jq '.partitiontable.partitions[0].start')
    ! dumpe2fs -h "$work/root.raw?offset=$((start * 512))" 2>/dev/null | grep -q needs_recovery &&
        e2fsck -fn "$work/root.raw?offset=$((start * 512))"
    local r=$?
    rm -f "$work/root.raw"
    return $r
}

# boot FLAVOUR CPUS: to the login prompt, in, no unit failed, all drivers bound, a channel a CPU, what the
# last boot wrote is there; then it goes down by the shutdown service.
boot() {
    local kernel=$cache/vmlinuz-$1 prompt='guest:~# '
    "$vmboot" --timeout 300s --memory 1G --cpus "$2" --kernel "$kernel" --initrd "$work/initrd.$1" --disk "$disk" \
        --cmdline 'console=ttyS0 root=/dev/sda1 systemd.show_status=no' \
        --until 'Hypervisor detected: Microsoft Hyper-V' --until 'Vmbus version:5.' --until 'guest login: ' --send root --until "$prompt" \
        --send 'bind "set enable-bracketed-paste off"; systemctl is-system-running --wait; systemctl --failed --no-legend; echo "failed: $(systemctl --failed --no-legend | wc -l)."' \
        --until 'running' --until 'failed: 0.' \
        --send 'for d in hv_storvsc hv_utils hv_balloon hyperv_keyboard; do echo "$d: $(ls -d /sys/bus/vmbus/drivers/$d/*-*-* | wc -l)"; done' \
        --until 'hv_storvsc: 1' --until 'hv_balloon: 1' --until 'hyperv_keyboard: 1' \
        --send 'echo "channels: $(ls -d /sys/bus/vmbus/drivers/hv_storvsc/*-*-*/channels/* | wc -l), CPUs: $(nproc)."' \
        --until "channels: $2, CPUs: $2." \
        --send '[ ! -e sums ] || md5sum -c --quiet sums && echo "sums go""od"; find /usr/bin /etc -type f | head -n 200 | xargs cat >"data.$(ls | wc -l)"; md5sum data.* >sums; systemd-analyze' \
        --until 'sums good' --until 'Startup finished' --until "$prompt" --shutdown --off &&
        file_system_clean
}

check "debian: a root file system becomes a VHDX" make_disk "$disk"
for flavour in cloud generic; do
    for cpus in 1 4; do
        check "debian: $flavour kernel, $cpus vCPU: login, no failed unit, shut down, clean" boot "$flavour" "$cpus"
    done
done
rm -rf "$work/modules"
tap_end
