#!/usr/bin/env bash
# Debian's cloud, generic and 686-pae kernels with 1, 2 and 4 vCPUs and 128 MiB, 2 GiB and
# 6 GiB: to a shell, and the workload of smpload.c prints what it prints on the host. TAP.
#
#   matrix.sh [KERNEL...]     SCALE: how much work (3); BUILD names the build folder
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
. tests/guest/tap.sh
vmboot=${BUILD:-build}/tests/tools/vmboot
work=${BUILD:-build}/guest/matrix
. tests/guest/smp.sh
SMP_TIMEOUT=300s
mkdir -p "$work"
[ $# -gt 0 ] || set -- cloud generic pae
for kernel; do
    width=
    [ "$kernel" != pae ] || width=32
    build_smpload $width && smp_initrd "$kernel" "$work/initrd-smp-$kernel" || exit 1
    for cpus in 1 2 4; do
        for memory in 128M 2G 6G; do
            check "$kernel, $cpus vCPUs, $memory" smp_guest "$kernel" $cpus $memory "-n 4 -s ${SCALE:-3}"
        done
    done
done
tap_end
