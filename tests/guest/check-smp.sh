#!/usr/bin/env bash
# Several processors: the workload of smpload.c on stock kernels of both widths, and Debian's
# user land, print what they print on the host. One line "ok N - what" a test (TAP).
#
#   check-smp.sh [-k NAME]    BUILD names the build folder; -k: only tests whose name has NAME
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
. tests/guest/tap.sh
vmboot=${BUILD:-build}/tests/tools/vmboot
work=${BUILD:-build}/guest
. tests/guest/smp.sh
. tests/guest/userland.sh
only=
[ "${1:-}" = -k ] && only=$2
mkdir -p "$work"

build_smpload || exit 1
smp_initrd cloud "$work/initrd-smp-cloud" || exit 1
check "cloud, 2 vCPUs: the workload's output is the host's" smp_guest cloud 2 512M "-n 4"
check "cloud, 4 vCPUs: the workload's output is the host's" smp_guest cloud 4 512M "-n 4"
# The 32-bit part needs packages that the others do not: without network it is left out, loudly.
if build_smpload 32 >"$work/smp-32.log" 2>&1 && smp_initrd pae "$work/initrd-smp-pae" >>"$work/smp-32.log" 2>&1; then
    check "686-pae, 2 vCPUs: the workload's output is the host's" smp_guest pae 2 512M "-n 4"
else
    echo "# no 32-bit tests: $(tail -n 1 "$work/smp-32.log")"
fi
check "a kernel that patches its code, and everything else at once" tests/guest/mixes.sh 4 3
check "Debian's user land prints what it prints here" userland_guest cloud 2
tap_end
