#!/usr/bin/env bash
# What hvd costs with many VMs whose demand moves: processor time of the whole service over half a
# minute, workers without guests (tests/tools/fake_worker.c). In it: a report of each worker every
# second, received, checked and kept; the balancer's ticks, once a second and early when one runs
# short; history; the host's own files. Not in it: the workers; and memory that moves, for guests as
# small as these are not worth it (a grow or shrink is one small call).
#
#   dm_feeder.sh [VMS]      512
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(readlink -f "${BUILD:-build}")
vms=${1:-512}
export LC_ALL=C
dir=$(mktemp -d "${TMPDIR:-/tmp}/hv-feed.XXXXXX")
export XDG_RUNTIME_DIR=$dir/run XDG_STATE_HOME=$dir/state HV_HOST=user PATH=$build/bin:$PATH
mkdir -m 700 "$dir/run" "$dir/state" "$dir/bin"
cp "$build/bin/hvd" "$dir/bin/hvd"
cp "$build/tests/tools/fake_worker" "$dir/bin/hv-worker"
end() {
    hvctl stop --all --turn-off --yes -q --jobs 16 >/dev/null 2>&1 || true
    kill "$hvd" 2>/dev/null || true
    rm -rf "$dir"
}
trap end EXIT
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
"$dir/bin/hvd" --user --idle 0 >"$dir/log" 2>&1 </dev/null &
hvd=$!
disown
for _ in $(seq 100); do hvctl list >/dev/null 2>&1 && break; sleep 0.1; done
: >"$dir/kernel"
hvctl host set --balancer-delay 0s -q >/dev/null
for i in $(seq "$vms"); do
    echo "create vm$i --memory 32M --min 32M --max 64M --kernel $dir/kernel --notes 'used=10 wave=1' -q"
done >"$dir/script"
hvctl -f "$dir/script" >/dev/null
# As many as this host's memory admits: each is charged with 56 MiB, of which it uses little.
hvctl start --all --jobs 16 -q >/dev/null 2>&1 || true
sleep 10
ticks() { awk '{ print $14 + $15 }' "/proc/$hvd/stat"; }
demand() { hvctl memory list -c name,demand -o csv --raw --no-header | sort; }
demand >"$dir/before"
a=$(ticks) began=$EPOCHREALTIME
sleep 30
b=$(ticks)
ended=$EPOCHREALTIME
demand >"$dir/after"
needs=$(join -t, "$dir/before" "$dir/after" | awk -F, '$2 != $3 { n++ } END { print n + 0 }')
up=$(hvctl list -F state=running -o name | wc -l)
awk -v t=$((b - a)) -v hz="$(getconf CLK_TCK)" -v s="$began" -v e="$ended" -v needs="$needs" -v n="$vms" -v up="$up" 'BEGIN {
    pct = 100 * t / hz / (e - s)
    all = up < n ? pct * n / up : pct
    printf "hvd with %d VMs, of which %d needed another size after 30 s: %.2f %% of a core", up, needs, pct
    if (up < n) printf "; in proportion %.2f %% with %d, which this host has no memory for", all, n
    printf " (aim: 2) %s\n", all <= 2 ? "holds" : "DOES NOT HOLD" }'
