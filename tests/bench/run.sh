#!/usr/bin/env bash
# Measurements beside QEMU's TCG in one run: the same kernel, initrd and command line, runs
# in turn (A B A B ...), medians and their ratio. Never a test: nothing here passes or fails.
#
#   run.sh [ROUNDS]     BUILD names the build folder
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
build=${BUILD:-build}
rounds=${1:-5}
work=$build/bench
vmboot=$build/tests/tools/vmboot
mkdir -p "$work"
tests/guest/fetch.sh cloud busybox
printf '#!/bin/sh\necho READY\npoweroff -f\n' >"$work/off.sh"
tests/guest/mkinitrd.sh -k cloud -r "$work/off.sh" "$work/initrd-off"
tests/guest/mkinitrd.sh -k cloud "$work/initrd"
kernel=$cache/vmlinuz-cloud
append='console=ttyS0 quiet'

seconds() { # seconds COMMAND...: wall seconds of a run
    local t0=$EPOCHREALTIME
    "$@" >"$work/out" 2>&1 </dev/null || { cat "$work/out" >&2; return 1; }
    LC_ALL=C awk -v a="$t0" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }'
}
stat3() { sort -n "$1" | LC_ALL=C awk '{ v[NR] = $1 } END { printf "%.2f %.2f %.2f", v[1], (v[int((NR+1)/2)] + v[int(NR/2)+1]) / 2, v[NR] }'; }
ratio() { LC_ALL=C awk -v a="$(stat3 "$1" | cut -d' ' -f2)" -v b="$(stat3 "$2" | cut -d' ' -f2)" 'BEGIN { printf "%.2f", a / b }'; }

ours() { "$vmboot" --quiet --timeout 300s --kernel "$kernel" --initrd "$work/initrd-off" --cmdline "$append" --off; }
tcg() {
    timeout 300 qemu-system-x86_64 -accel tcg -m 512 -nographic -no-reboot -nodefaults -serial stdio \
        -kernel "$kernel" -initrd "$work/initrd-off" -append "$append"
}

echo "host: $(nproc) CPUs, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
echo "kernel: $(basename "$(readlink -f "$kernel")"), 512M, 1 vCPU; $rounds rounds"
: >"$work/ours" >"$work/tcg"
have_qemu=
if command -v qemu-system-x86_64 >/dev/null; then have_qemu=1; fi
for ((i = 0; i < rounds; i++)); do
    seconds ours >>"$work/ours"
    [ -z "$have_qemu" ] || seconds tcg >>"$work/tcg"
done
echo
echo "process start to powered off by init      min   median  max  (s)"
printf 'hv soft                                   %s\n' "$(stat3 "$work/ours")"
if [ -n "$have_qemu" ]; then
    printf 'qemu tcg                                  %s\n' "$(stat3 "$work/tcg")"
    printf 'ratio of medians, hv / tcg                %s\n' "$(ratio "$work/ours" "$work/tcg")"
fi

# Programs in the guest, by the guest's own clock. The same bytes under both, checked for the same results.
gcc -O2 -std=gnu17 -static -o "$work/bench" tests/bench/guest/bench.c
printf '#!/bin/sh\necho\nbench all 5\npoweroff -f\n' >"$work/programs.sh"
tests/guest/mkinitrd.sh -k cloud -f "$work/bench:bin/bench" -r "$work/programs.sh" "$work/initrd-programs"
programs_ours() { "$vmboot" --timeout 900s --kernel "$kernel" --initrd "$work/initrd-programs" --cmdline "$append" --off; }
programs_tcg() {
    timeout 900 qemu-system-x86_64 -accel tcg -m 512 -nographic -no-reboot -nodefaults -serial stdio \
        -kernel "$kernel" -initrd "$work/initrd-programs" -append "$append"
}
: >"$work/programs.txt"
for ((i = 0; i < (rounds + 1) / 2; i++)); do
    for who in ours ${have_qemu:+tcg}; do
        "programs_$who" </dev/null 2>/dev/null | tr -d '\r' | sed -n "s/^bench \([a-z0-9]* [0-9].*\)/$who \1/p" >>"$work/programs.txt"
    done
done
echo
LC_ALL=C awk -v json="$work/programs.json" '
    { key = $1 " " $2; n[key]++; v[key, n[key]] = $4 / $3; names[$2] = 1
      if (!($2 in check)) check[$2] = $5; else if (check[$2] != $5) wrong[$2] = 1
      if (!seen[$2]++) order[++count] = $2 }
    function median(key,   i, k, t, m) {
        m = n[key]
        for (i = 2; i <= m; i++) for (k = i; k > 1 && v[key, k] < v[key, k - 1]; k--) { t = v[key, k]; v[key, k] = v[key, k - 1]; v[key, k - 1] = t }
        return m ? (v[key, int((m + 1) / 2)] + v[key, int(m / 2) + 1]) / 2 : 0 }
    END {
        print "program in the guest      hv soft    qemu tcg   rate of hv over tcg   (medians, ms a round)"
        printf "{" >json
        for (i = 1; i <= count; i++) {
            name = order[i]; a = median("ours " name); b = median("tcg " name)
            printf "%-20s %12.2f %11.2f   %6.2f%s\n", name, a / 1e6, b / 1e6, (a ? b / a : 0), ((name in wrong) ? "   RESULTS DIFFER" : "")
            printf "%s\"%s\": {\"hv_ns\": %d, \"tcg_ns\": %d}", (i > 1 ? ", " : ""), name, a, b >json
            if (name == "loop" && a) mips = 16000000 / a * 1000
            if (a && b) { logs += log(b / a); both++ } }
        print "}" >json
        if (both) printf "geometric mean of the rates            %6.2f\n", exp(logs / both)
        printf "integer loop: %.0f MIPS (at least 100)\n", mips }' "$work/programs.txt"

# Its disk, and a distribution's start from one.
BUILD=$build tests/bench/storage.sh $(((rounds + 1) / 2))

# Exits and worker cost on a real KVM, in the nested machine.
if [ -n "$have_qemu" ] && [ -z "${HV_BENCH_SHORT:-}" ]; then
    echo
    BUILD=$build tests/guest/kvm-nested.sh -b -t 600 | sed 's/^# //'
fi

# What a further vCPU adds.
BUILD=$build tests/bench/parallel.sh $(((rounds + 1) / 2))

# What a worker holds beside the guest's memory (which is shared memory): PSS, mean of eight guests at their prompts.
workers=8
state=$(mktemp -d)
(
    export XDG_RUNTIME_DIR=$state/run XDG_STATE_HOME=$state/state HV_HOST=user
    mkdir -m 700 -p "$XDG_RUNTIME_DIR" "$XDG_STATE_HOME"
    "$build/bin/hvd" --user --idle 0 >"$work/hvd.log" 2>&1 &
    hvd=$!
    for ((i = 0; i < 100; i++)); do [ ! -S "$XDG_RUNTIME_DIR/hv/org.hv.Manager" ] || break; sleep 0.1; done
    for ((i = 1; i <= workers; i++)); do
        "$build/bin/hvctl" create "pss$i" --memory 256M --kernel "$kernel" --initrd "$work/initrd" --cmdline "$append" --engine soft --start -q
    done
    sleep 20
    pgrep -P "$hvd" hv-worker | while read -r pid; do
        awk '/^Pss:/ { pss = $2 } /^Pss_Shmem:/ { ram = $2 } END { printf "%.1f\n", (pss - ram) / 1024 }' "/proc/$pid/smaps_rollup"
    done >"$work/pss"
    "$build/bin/hvctl" stop --all --turn-off --yes -q -t 20s || true
    kill "$hvd"
    wait "$hvd" 2>/dev/null || true
) || true
rm -rf "$state"
LC_ALL=C awk -v want="$workers" '{ sum += $1; n++; if ($1 > most) most = $1 }
    END { if (n == want) printf "\nworker beside guest RAM: %.1f MiB PSS (mean of %d, most %.1f)\n", sum / n, n, most
          else print "\nworker beside guest RAM: not measured" }' "$work/pss"

# CPU time of an idle guest at its prompt.
"$vmboot" --timeout 300s --kernel "$kernel" --initrd "$work/initrd" --cmdline "$append" \
    --until 'demo:~# ' --for 3s --send 'echo idle-begins' --until 'idle-begins' --for 30s >"$work/idle.out" 2>&1 &
pid=$!
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
for ((i = 0; i < 3000; i++)); do
    [ "$(grep -c 'idle-begins' "$work/idle.out" || true)" -lt 2 ] || break
    kill -0 $pid 2>/dev/null || break
    sleep 0.1
done
sleep 2
a=$(ticks $pid)
sleep 20
b=$(ticks $pid)
wait $pid || true
LC_ALL=C awk -v a="$a" -v b="$b" -v hz="$(getconf CLK_TCK)" \
    'BEGIN { printf "\nidle guest at its prompt: %.2f %% of a core (20 s)\n", 100 * (b - a) / hz / 20 }'
