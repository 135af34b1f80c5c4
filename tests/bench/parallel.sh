#!/usr/bin/env bash
# What a further vCPU adds: sha256 in one process and in one for each vCPU at once, one vCPU fewer than the host
# has CPUs. The figure is what one of them gets done in a second over what one gets done alone: pairs of half a
# second each, one after the other in the same guest, and the median of their ratios. What the host itself makes
# of it is measured in turn with it:
#
#   processes of the host    the same program, no hypervisor
#   machines of one vCPU     as many guests at once as the other has vCPUs, and one alone: the engine's code, with
#                            nothing in common. Hardware threads that share a core share it the more, the denser
#                            the code, and a translator's is denser than what it was made from
#
# A guest's vCPUs lose by the engine what they lose beyond these. "Undisturbed" is the ratio of the rates at which
# the quickest pieces of half a millisecond were done, in the quickest turn of either kind: what processes at once
# lose to each other by what they share, and not to anything else on the machine.
# Called by run.sh; nothing here passes or fails.
#
#   parallel.sh [ROUNDS]     BUILD names the build folder
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
build=${BUILD:-build}
rounds=${1:-3}
work=$build/bench
vmboot=$build/tests/tools/vmboot
pairs=${HV_BENCH_SHORT:+2}
pairs=${pairs:-6}
ms=500
mkdir -p "$work"
tests/guest/fetch.sh cloud busybox
kernel=$cache/vmlinuz-cloud
append='console=ttyS0 quiet'
cpus=$(($(nproc) - 1))
load=$(cut -d" " -f1 /proc/loadavg)
if [ "$cpus" -lt 2 ]; then
    printf '\nsha256 on several vCPUs at once: not measured, as this host has %d CPUs\n' $((cpus + 1))
    exit 0
fi

gcc -O2 -std=gnu17 -static -o "$work/bench" tests/bench/guest/bench.c
for n in 1 "$cpus"; do
    printf '#!/bin/sh\necho\nbench parallel %d %d %d\npoweroff -f\n' "$n" "$pairs" $ms >"$work/parallel.sh"
    tests/guest/mkinitrd.sh -k cloud -f "$work/bench:bin/bench" -r "$work/parallel.sh" "$work/initrd-parallel$n"
done
hv() { # hv VCPUS
    "$vmboot" --cpus "$1" --timeout 300s --kernel "$kernel" --initrd "$work/initrd-parallel$1" --cmdline "$append" --off </dev/null 2>/dev/null
}
tcg() {
    timeout 300 qemu-system-x86_64 -accel tcg,thread=multi -smp "$cpus" -m 512 -nographic -no-reboot -nodefaults -serial stdio \
        -kernel "$kernel" -initrd "$work/initrd-parallel$cpus" -append "$append" </dev/null 2>/dev/null
}
rates() { tr -d '\r' | sed -n 's/^bench-parallel [0-9]* //p'; }
pair_ratios() { LC_ALL=C awk '{ print $2 / $1, $3, $4 }'; }

# Of machines of one vCPU: their mean over that of one alone just before.
machines() {
    local i pids=()
    rm -f "$work"/parallel.of[0-9]*
    hv 1 | rates >"$work/parallel.one"
    for ((i = 0; i < cpus; i++)); do
        hv 1 | rates >"$work/parallel.of$i" &
        pids+=($!)
    done
    wait "${pids[@]}"
    LC_ALL=C awk '{ alone = FILENAME ~ /one$/; n[alone]++; sum[alone] += ($1 + $2) / 2 }
        END { if (n[0] && n[1]) print (sum[0] / n[0]) / (sum[1] / n[1]) }' "$work/parallel.one" "$work"/parallel.of[0-9]*
}

: >"$work/parallel.hv" >"$work/parallel.host" >"$work/parallel.machines" >"$work/parallel.tcg"
for ((i = 0; i < rounds; i++)); do
    hv "$cpus" | rates | pair_ratios >>"$work/parallel.hv"
    "$work/bench" parallel "$cpus" "$pairs" $ms | rates | pair_ratios >>"$work/parallel.host"
    machines >>"$work/parallel.machines"
    ! command -v qemu-system-x86_64 >/dev/null || tcg | rates | pair_ratios >>"$work/parallel.tcg"
done

median='function median(v, n) { return n ? (v[int((n + 1) / 2)] + v[int(n / 2) + 1]) / 2 : 0 }'
middle() { sort -n "$1" | LC_ALL=C awk "$median"'{ v[NR] = $1 } END { print median(v, NR) }'; }
row() { # row NAME FILE [NOTE]
    local undisturbed
    undisturbed=$(LC_ALL=C awk 'NF == 3 { if ($2 > one) one = $2; if ($3 > all) all = $3 } END { if (one) printf "%.2f", all / one }' "$work/parallel.$2")
    sort -n "$work/parallel.$2" | LC_ALL=C awk -v name="$1" -v undisturbed="$undisturbed" -v note="${3:-}" "$median"'{ v[NR] = $1 } END {
        if (NR) printf "%-34s %6.2f %6.2f %6.2f %12s   %s\n", name, median(v, NR), v[1], v[NR], undisturbed, note }'
}
printf '\nsha256, %d at once: rate of each over the rate of one alone   (%d rounds; load average before %s)\n' "$cpus" "$rounds" "$load"
printf '%-34s %6s %6s %6s %12s\n' '' median min max undisturbed
row "hv soft, $cpus vCPUs" hv 'at least 0.9, by the median'
row 'processes of the host' host 'the most there is: no hypervisor'
row "hv soft, $cpus machines of one vCPU" machines 'the same for code of the engine'
row "qemu tcg, $cpus vCPUs" tcg
LC_ALL=C awk -v a="$(middle "$work/parallel.hv")" -v b="$(middle "$work/parallel.host")" -v c="$(middle "$work/parallel.machines")" \
    'BEGIN { if (b && c) printf "vCPUs over processes of the host %.2f, over machines of one vCPU %.2f\n", a / b, a / c }'
