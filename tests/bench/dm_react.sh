#!/usr/bin/env bash
# Reaction of Dynamic Memory: from the report that shows a guest short to its pressure at most 100,
# with host memory free and with a donor that has to give first. Stock Debian guests in which a
# program commits to 450 MiB at once; the time the guest's own kernel took for what it was given is
# printed apart. Demand is what is committed here: a guest that fills memory faster than one second's
# report tells would need swap, and its own paging would be measured.
#
# What is counted: samples, ten a second, in which the guest has a pressure above 100, and 100 ms for
# the time from the report to the balancer's early look, which is what first shows it.
#
#   dm_react.sh [JUMPS]     of each kind (50); BUILD names the build folder
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(readlink -f "${BUILD:-build}")
jumps=${1:-50}
export PATH=$build/bin:$PATH LC_ALL=C
cache=${HV_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/hv-tests}
dir=$(mktemp -d "${TMPDIR:-/tmp}/hv-react.XXXXXX")
export XDG_RUNTIME_DIR=$dir/run XDG_STATE_HOME=$dir/state HV_HOST=user
mkdir -m 700 "$dir/run" "$dir/state"
sampler=
end() {
    [ -z "$sampler" ] || kill "$sampler" 2>/dev/null || true
    hvctl stop --all --turn-off --yes -q >/dev/null 2>&1 || true
    [ ! -f "$dir/pid" ] || kill "$(cat "$dir/pid")" 2>/dev/null || true
    rm -rf "$dir"
}
trap end EXIT
tests/guest/fetch.sh cloud busybox
tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils -m 'hv_balloon pressure_report_delay=2' "$dir/initrd"
"$build/bin/hvd" --user --idle 0 >"$dir/log" 2>&1 </dev/null &
echo $! >"$dir/pid"
disown
for _ in $(seq 100); do hvctl list >/dev/null 2>&1 && break; sleep 0.1; done
hvctl host set --vm-memory 4G --balancer-delay 2s -q >/dev/null
for vm in a b; do
    hvctl create $vm --memory 640M --min 256M --max 1536M --kernel "$cache/vmlinuz-cloud" --initrd "$dir/initrd" --cmdline 'console=ttyS0 quiet' -q
    hvctl start $vm -q
done
for vm in a b; do
    hvctl console $vm --until 'demo:~# ' --timeout 120s </dev/null >/dev/null
    hvctl memory set $vm --demand-source commit -q
    hvctl console $vm --no-history --timeout 20s --send 'mkfifo /f; sleep 99999 >/f & echo rea""dy' --until ready </dev/null >/dev/null
done
sleep 4

mib() { hvctl memory show "$1" -o json | sed -n "s/^ *\"$2\": \([0-9]*\).*/\1/p" | head -n 1 | awk '{ print int($1 / 1048576) }'; }
guest() { hvctl console "$1" --no-history --timeout 60s --send "$2; echo do\"\"ne" --until 'done' </dev/null >/dev/null; }
# A program that waits for a pipe holds a buffer of so many MiB, 150 each; and its end.
commit() { guest "$1" "for i in 1 2 3; do dd if=/f of=/dev/null bs=$(($2 / 3))M 2>/dev/null & done"; }
release() { guest "$1" 'killall dd 2>/dev/null'; }
# Samples of pressure, ten a second, each with its time.
begin() {
    "$build/bin/hvtop" -b -d 100ms -o csv -c name,pressure_pct,assigned 2>/dev/null </dev/null \
        > >(while IFS= read -r line; do echo "$EPOCHREALTIME,$line"; done >"$dir/samples") &
    sampler=$!
}
# A jump of MIB in VM.
jump() {
    commit "$1" "$2"
    local i
    for i in $(seq 100); do
        p=$(hvctl memory show "$1" -o json | sed -n 's/^ *"pressure_pct": \([0-9]*\).*/\1/p' | head -n 1)
        [ "${p:-0}" -gt 100 ] || break
        sleep 0.1
    done
    last=$(hvctl memory show "$1" -o json | sed -n 's/^ *"took_ms": \([0-9]*\).*/\1/p' | head -n 1)
    echo "${last:-0}" >>"$dir/guest"
    sleep 1
}
# Lengths in ms of the episodes above 100 in the samples.
episodes() {
    awk -F, '$2 == "name" || $3 == "" { next }
        $3 > 100 && !($2 in since) { since[$2] = $1 }
        $3 <= 100 && ($2 in since) { printf "%d\n", ($1 - since[$2]) * 1000 + 100; delete since[$2] }' "$dir/samples" | sort -n
}
summary() {
    local name=$1 limit=$2 all
    all=$(episodes)
    awk -v name="$name" -v limit="$limit" -v asked="$jumps" '
        NF { v[++n] = $1 }
        END {
            if (n == 0) { printf "%-28s no episode of pressure above 100 in %d jumps\n", name, asked; exit 0 }
            p50 = v[int((n + 1) / 2)]; at = int(n * 0.99); p99 = v[at < n * 0.99 ? at + 1 : at]      # nearest rank
            printf "%-28s %d jumps, %d above 100: p50 %d ms, p99 %d ms, worst %d ms (aim: p99 < %d ms) %s\n",
                name, asked, n, p50, p99, v[n], limit, p99 < limit ? "holds" : "DOES NOT HOLD"
        }' <<<"$all"
    sort -n "$dir/guest" | awk '{ v[NR] = $1 } END { printf "%-28s p50 %d ms, p99 %d ms\n", "  of it in the guest, last op", v[int((NR + 1) / 2)], v[int(NR * 0.99) < NR * 0.99 ? int(NR * 0.99) + 1 : NR * 0.99] }'
}

# With free memory: between the jumps a small limit makes the guest give everything back.
: >"$dir/guest"
begin
for i in $(seq "$jumps"); do
    release a
    hvctl host set --vm-memory 700M -q >/dev/null
    for _ in $(seq 60); do [ "$(mib a assigned)" -gt 400 ] || break; sleep 0.1; done
    hvctl host set --vm-memory 4G -q >/dev/null
    sleep 0.3
    jump a 450
done
kill "$sampler"; wait "$sampler" 2>/dev/null || true
summary "host memory free" 2000

# With a donor: what one gives up the other needs.
: >"$dir/guest"
release a
release b
hvctl host set --vm-memory 1400M -q >/dev/null
sleep 8
begin
for i in $(seq "$jumps"); do
    if [ $((i % 2)) = 0 ]; then from=a to=b; else from=b to=a; fi
    release $from
    sleep 1.2
    jump $to 600
done
kill "$sampler"; wait "$sampler" 2>/dev/null || true
sampler=
summary "with a donor" 4000
