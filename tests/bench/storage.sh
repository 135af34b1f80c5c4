#!/usr/bin/env bash
# The guest's disk beside QEMU's: storvsc on a VHDX here, virtio-blk on the same content under TCG, both
# past the host's page cache; medians and their ratio. Then a Debian root file system from process start
# to its login prompt. Runs are in turn. Called by run.sh; nothing here passes or fails.
#
#   storage.sh [ROUNDS]     BUILD names the build folder
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
build=${BUILD:-build}
rounds=${1:-3}
work=$build/bench
vmboot=$build/tests/tools/vmboot
vhdtool=$build/bin/vhdtool
seconds=${HV_BENCH_SECONDS:-2}
mkdir -p "$work"
tests/guest/fetch.sh cloud busybox
kernel=$cache/vmlinuz-cloud
have_qemu=
if command -v qemu-system-x86_64 >/dev/null; then have_qemu=1; fi
qemu=(qemu-system-x86_64 -accel tcg -nographic -no-reboot -nodefaults -serial stdio -kernel "$kernel")
drive=if=virtio,format=raw,cache=none,aio=io_uring

gcc -O2 -std=gnu17 -static -o "$work/diskbench" tests/bench/guest/diskbench.c
for who in hv tcg; do
    case $who in
    hv) disks="sda /dev/sdb" modules=(-m hv_vmbus -m hv_storvsc -m sd_mod) ;;
    tcg) disks="vda /dev/vdb" modules=(-m virtio_pci -m virtio_blk) ;;
    esac
    printf '#!/bin/sh\necho\nuntil [ -e /dev/%s ]; do sleep 0.1; done\nsleep 1\ndiskbench /dev/%s %s\npoweroff -f\n' \
        "${disks#*/dev/}" "$disks" "$seconds" >"$work/diskbench.sh"
    tests/guest/mkinitrd.sh -k cloud "${modules[@]}" -f "$work/diskbench:bin/diskbench" -r "$work/diskbench.sh" "$work/initrd-disk-$who"
done
head -c 256M /dev/urandom >"$work/disk.raw"
"$vhdtool" convert "$work/disk.raw" "$work/disk.vhdx" -y -q
"$vhdtool" create "$work/empty.vhdx" --size 1G -y -q
: >"$work/disk.txt"
for ((i = 0; i < rounds; i++)); do
    "$vmboot" --timeout 300s --kernel "$kernel" --initrd "$work/initrd-disk-hv" --cmdline 'console=ttyS0 quiet' \
        --disk "$work/disk.vhdx" --disk "$work/empty.vhdx" --off 2>/dev/null </dev/null | tr -d '\r' | sed -n 's/^diskbench /hv /p' >>"$work/disk.txt"
    [ -z "$have_qemu" ] || timeout 300 "${qemu[@]}" -m 512 -initrd "$work/initrd-disk-tcg" -append 'console=ttyS0 quiet' \
        -drive "file=$work/disk.raw,$drive" -drive driver=null-co,size=1G,read-zeroes=on,if=virtio \
        2>/dev/null </dev/null | tr -d '\r' | sed -n 's/^diskbench /tcg /p' >>"$work/disk.txt"
done
rm -f "$work"/disk.{raw,vhdx} "$work/empty.vhdx"
printf '\ndisk of a guest, 1 vCPU, 4 KiB or 1 MiB requests      hv soft    qemu tcg   hv / tcg (medians of %d)\n' "$rounds"
LC_ALL=C awk '
    NF == 4 { key = $1 " " $2; v[key, ++n[key]] = $3; unit[$2] = $4; if (!seen[$2]++) order[++count] = $2 }
    function median(key,   i, k, t, m) {
        m = n[key]
        for (i = 2; i <= m; i++) for (k = i; k > 1 && v[key, k] < v[key, k - 1]; k--) { t = v[key, k]; v[key, k] = v[key, k - 1]; v[key, k - 1] = t }
        return m ? (v[key, int((m + 1) / 2)] + v[key, int(m / 2) + 1]) / 2 : 0 }
    END { for (i = 1; i <= count; i++) {
        name = order[i]; a = median("hv " name); b = median("tcg " name)
        printf "%-48s %12.1f %11.1f   %6.2f  %s%s\n", name, a, b, (b ? a / b : 0), unit[name], (unit[name] == "us" ? ", less is better" : "") } }' "$work/disk.txt"

# ---- a distribution's own start ----

if ! BUILD=$build tests/guest/debian-root.sh -i "$work/root.raw" >"$work/out" 2>&1; then
    echo "no Debian root file system: $(tail -n 1 "$work/out")"
    exit 0
fi
"$vhdtool" convert "$work/root.raw" "$work/root.vhdx" -y -q
to_login() { # to_login COMMAND...: seconds from its start to the prompt
    local t0=$EPOCHREALTIME pid
    : >"$work/login.out"
    "$@" >"$work/login.out" 2>&1 </dev/null &
    pid=$!
    for ((k = 0; k < 6000; k++)); do
        ! grep -q 'guest login: ' "$work/login.out" || break
        kill -0 $pid 2>/dev/null || { tail -n 3 "$work/login.out" >&2; return 1; }
        sleep 0.05
    done
    LC_ALL=C awk -v a="$t0" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f\n", b - a }'
    kill $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
}
login_hv() {
    exec "$vmboot" --memory 1G --timeout 300s --kernel "$kernel" --initrd "$work/root.raw.cloud" --cmdline 'console=ttyS0 quiet root=/dev/sda1' \
        --disk "$work/now.vhdx" --until 'guest login: ' --for 60s
}
login_tcg() {
    exec "${qemu[@]}" -m 1024 -initrd "$work/root.raw.cloud" -append 'console=ttyS0 quiet root=/dev/vda1' -drive "file=$work/now.raw,$drive"
}
: >"$work/login-hv" >"$work/login-tcg"
for ((i = 0; i < (rounds + 1) / 2; i++)); do
    cp --sparse=always "$work/root.vhdx" "$work/now.vhdx"
    to_login login_hv >>"$work/login-hv"
    [ -z "$have_qemu" ] || { cp --sparse=always "$work/root.raw" "$work/now.raw" && to_login login_tcg >>"$work/login-tcg"; }
done
rm -f "$work"/{root,now}.{raw,vhdx}
middle() { sort -n "$1" | LC_ALL=C awk '{ v[NR] = $1 } END { printf "%.2f", NR ? (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 : 0 }'; }
a=$(middle "$work/login-hv") b=$(middle "$work/login-tcg")
LC_ALL=C awk -v a="$a" -v b="$b" 'BEGIN { printf "Debian to its login prompt, 1 vCPU, seconds     %12.2f %11.2f   %6.2f\n", a, b, (b ? a / b : 0) }'
