#!/usr/bin/env bash
# Does anything stay behind? A VM with disks is started and stopped COUNT times, then reset COUNT
# times while it runs; the service after the first, and the worker after the second, have as many
# descriptors and threads as before, and hardly more memory of their own.
#
#   leaks.sh [COUNT]     BUILD names the build folder (5)
set -uo pipefail
cd "$(dirname "$0")/.."
build=$(readlink -f "${BUILD:-build}")
count=${1:-5}
PATH=$build/bin:$PATH
tmp=$(mktemp -d)
export XDG_RUNTIME_DIR=$tmp/run XDG_STATE_HOME=$tmp/state HV_HOST=user
mkdir -m 700 "$XDG_RUNTIME_DIR" "$XDG_STATE_HOME"
hvd --user --idle 0 >"$tmp/hvd.log" 2>&1 &
hvd=$!
cleanup() {
    hvctl stop --all --turn-off --yes -q -t 20s
    kill "$hvd"
    wait "$hvd" 2>/dev/null
    rm -rf "$tmp"
}
trap cleanup EXIT
until [ -S "$XDG_RUNTIME_DIR/hv/org.hv.Manager" ]; do
    kill -0 "$hvd" || { cat "$tmp/hvd.log"; exit 1; }
    sleep 0.05
done
passed=0 failed=0

tests/guest/fetch.sh cloud busybox || exit 1
tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils -m hv_storvsc -m sd_mod "$tmp/initrd" || exit 1
cache=${HV_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hv-tests}
vhdtool create -q "$tmp/base.vhdx" --size 1G
vhdtool create -q "$tmp/child.vhdx" --parent "$tmp/base.vhdx"
vhdtool create -q "$tmp/dyn.vhd" --size 1G
hvctl create vm1 -q --memory 256M --kernel "$(readlink -f "$cache/vmlinuz-cloud")" --initrd "$tmp/initrd" --cmdline 'console=ttyS0 quiet' \
    --disk "$tmp/child.vhdx" --disk "$tmp/dyn.vhd" || exit 1

# what PID: descriptors, threads, KiB of memory that is its own (not the guest's, which is shared).
what() {
    echo "$(find "/proc/$1/fd" -mindepth 1 2>/dev/null | wc -l) $(awk '/^Threads:/ {print $2}' "/proc/$1/status")" \
        "$(awk '/^RssAnon:/ {print $2}' "/proc/$1/status")"
}

# same NAME BEFORE AFTER KIB: nothing left but for so many KiB.
same() {
    local b a
    read -r -a b <<<"$2"
    read -r -a a <<<"$3"
    echo "$1: descriptors ${b[0]} -> ${a[0]}, threads ${b[1]} -> ${a[1]}, memory ${b[2]}K -> ${a[2]}K"
    if [ "${a[0]}" -le "${b[0]}" ] && [ "${a[1]}" -le "${b[1]}" ] && [ "${a[2]}" -le $((b[2] + $4)) ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        find "/proc/$hvd/fd" -mindepth 1 -printf '   | %f %l\n'
    fi
}

cycle() { hvctl start vm1 -q "$@" && hvctl stop vm1 -q --turn-off --yes; }
boots() { hvctl start vm1 -q --wait=heartbeat -t 60s && hvctl stop vm1 -q -t 60s; }

# Four of five only to their first instruction, to be many; the rest boot and shut down (none where they are few).
cycle --paused && cycle --paused || exit 1
before=$(what "$hvd")
for i in $(seq "$count"); do
    if [ $((i % 5)) = 0 ] && [ "$count" -ge 10 ]; then boots; else cycle --paused; fi || { echo "cycle $i"; failed=$((failed + 1)); break; }
done
# It keeps the last 2000 events and 200 jobs: some 16 KiB a cycle until there are so many.
same "hvd, $count starts and stops" "$before" "$(what "$hvd")" $((512 + 16 * count))

hvctl start vm1 -q --wait=heartbeat -t 60s || exit 1
worker=$(hvctl show vm1 -o json | jq .pid)
resets() {
    for _ in $(seq "$1"); do
        hvctl restart vm1 -q --reset --yes --wait=heartbeat -t 60s || return 1
    done
}
resets 1 || exit 1
before=$(what "$worker")
resets $(((count + 4) / 5)) || failed=$((failed + 1))
same "worker, $(((count + 4) / 5)) resets" "$before" "$(what "$worker")" 4096
printf 'leaks: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
