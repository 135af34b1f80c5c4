#!/usr/bin/env bash
# Three stock Debian guests under Dynamic Memory, in a pool smaller than the sum of their maxima,
# with loads that go up and down at random (memload.c): nothing is killed in a guest, what programs
# wrote is there, what is promised stays within the pool, and at the end the host has its memory back.
#
#   memory-load.sh [-o] [SECONDS]    3600; BUILD names the build folder
#
#   -o   the guests' kernels do not put added memory online (memhp_default_state=offline)
#
# The loads of two guests now and then use more than the pool has for both; the third's is smaller
# than its share. Memory that a guest uses is never taken from it, so all have a swap disk, as
# Debian's installer makes one: who comes late pages. SEED=N repeats a run.
set -euo pipefail
cd "$(dirname "$0")/../.."
offline=
[ "${1:-}" != -o ] || { offline=1; shift; }
seconds=${1:-3600}
build=$(readlink -f "${BUILD:-build}")
export PATH=$build/bin:$PATH LC_ALL=C
cache=${HV_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/hv-tests}
seed=${SEED:-$RANDOM}
pool=2300
vms=(web db cache)
dir=$(mktemp -d "${TMPDIR:-/tmp}/hv-load.XXXXXX")
export XDG_RUNTIME_DIR=$dir/run XDG_STATE_HOME=$dir/state HV_HOST=user
mkdir -m 700 "$dir/run" "$dir/state"
end() {
    hvctl stop --all --turn-off --yes -q >/dev/null 2>&1 || true
    [ ! -f "$dir/pid" ] || kill "$(cat "$dir/pid")" 2>/dev/null || true
    rm -rf "$dir"
}
trap end EXIT
failed=0
check() { # check NAME COMMAND...
    local name=$1
    shift
    if "$@"; then echo "ok - $name"; else echo "not ok - $name"; failed=1; fi
}

tests/guest/fetch.sh cloud busybox
gcc -O2 -std=gnu17 -static -o "$dir/memload" tests/guest/memload.c
tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils -m hv_storvsc -m sd_mod -m hv_balloon -f "$dir/memload:bin/memload" "$dir/initrd"
# MiB: what the host could give to programs, and what hvd itself holds.
available() { awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo; }
own() { awk '/^Pss:/ { print int($2 / 1024) }' "/proc/$(cat "$dir/pid")/smaps_rollup"; }
"$build/bin/hvd" --user --idle 0 >"$dir/log" 2>&1 </dev/null &
echo $! >"$dir/pid"
disown
for _ in $(seq 100); do hvctl list >/dev/null 2>&1 && break; sleep 0.1; done
hvctl host set --vm-memory ${pool}M -q >/dev/null
before=$(available) own_before=$(own)
guest() { hvctl console "$1" --no-history --timeout "${3:-60s}" --send "$2" --until "${4:-^done}" </dev/null; }
for vm in "${vms[@]}"; do
    vhdtool create -q "$dir/$vm.vhdx" --size 1G
    hvctl create "$vm" --memory 640M --min 256M --max 1536M --disk "$dir/$vm.vhdx" --kernel "$(readlink -f "$cache/vmlinuz-cloud")" \
        --initrd "$dir/initrd" --cmdline "console=ttyS0 quiet${offline:+ memhp_default_state=offline}" -q
    hvctl start "$vm" -q
done
for vm in "${vms[@]}"; do
    hvctl console "$vm" --until 'demo:~# ' --timeout 180s </dev/null >/dev/null
    guest "$vm" 'mkswap /dev/sda >/dev/null && swapon /dev/sda && echo do""ne' >/dev/null
done
# Linux' driver is silent for its first 45 s, and the balancer leaves a guest alone for its first minute.
ready() { [ "$(hvctl memory list -o json | jq '[.[] | select(.memory.demand != null)] | length')" = 3 ]; }
for _ in $(seq 200); do ! ready || break; sleep 1; done
check "all three guests report" ready

echo "# $seconds s of load, seed $seed, pool ${pool} MiB, maxima 3 x 1536 MiB${offline:+, added memory stays offline}"
i=0
for vm in "${vms[@]}"; do
    i=$((i + 1))
    load="$((seed * 10 + i)) 900 16 100"
    [ "$vm" != cache ] || load="$((seed * 10 + i)) 350 8 125"
    guest "$vm" "memload $load $seconds >/tmp/load 2>&1 & echo do\"\"ne" >/dev/null
done
: >"$dir/samples" >"$dir/host"
until=$((SECONDS + seconds))
while [ "$SECONDS" -lt "$until" ]; do
    hvctl memory list -c name,assigned,demand,status,resident -o csv --raw --no-header >>"$dir/samples"
    hvctl host show -o json | jq -r '.memory | "\(.charged) \(.overhead) \(.free)"' >>"$dir/host"
    sleep 3
done
sleep 5

verdict() { guest "$1" 'wait; cat /tmp/load' 300s 'memload: [^\r\n]*' | grep -a 'memload: ' | tail -n 1 | tr -d '\r'; }
killed() { guest "$1" 'echo "killed $(dmesg | grep -c "invoked oom-killer") times"' 60s 'killed [0-9]+ times' | grep -ao 'killed [0-9]* times'; }
for vm in "${vms[@]}"; do
    said=$(verdict "$vm" || true) oom=$(killed "$vm" || true)
    echo "# $vm: $said; $oom"
    check "$vm: its load ran to the end, and read what it wrote" [ "${said%all as written}" != "$said" ]
    check "$vm: nothing was killed for want of memory" [ "$oom" = "killed 0 times" ]
    [ "$oom" = "killed 0 times" ] || guest "$vm" 'dmesg | grep -iE "oom|swap|free:|killed"; echo "do""ne"' 60s | tail -n 30 | sed 's/^/# /' || true
done
awk -F, '{ n[$1]++; s[$1, tolower($4)]++; sum[$1] += $2; if ($2 > most[$1]) most[$1] = $2; if (!least[$1] || $2 < least[$1]) least[$1] = $2 }
    END { for (v in n) printf "# %s: assigned %d to %d MiB, mean %d; OK %.1f %%, Low %.1f %%, Warning %.1f %% of %d looks\n", v, least[v] / 1048576,
        most[v] / 1048576, sum[v] / n[v] / 1048576, 100 * s[v, "ok"] / n[v], 100 * s[v, "low"] / n[v], 100 * s[v, "warning"] / n[v], n[v] }' "$dir/samples"
check "what is promised stayed within the pool at all $(wc -l <"$dir/host") looks" \
    awk -v pool=$((pool << 20)) 'NF != 3 || $1 + $2 > pool { print "# charged " $1 ", overhead " $2; bad = 1 } END { exit bad || NR == 0 }' "$dir/host"
[ -n "$offline" ] || check "memory moved: each guest had more than it started with, and less" \
    awk -F, '{ if ($2 > 704 * 1048576) up[$1] = 1; if ($2 < 576 * 1048576) down[$1] = 1 } END { exit !(length(up) >= 2 && length(down) >= 2) }' "$dir/samples"
[ -z "$offline" ] || check "no guest has more than what it began with and one block" \
    awk -F, '$2 > 640 * 1048576 + 128 * 1048576 { print "# " $0; bad = 1 } END { exit bad }' "$dir/samples"
held() { hvctl memory list -o json | jq -e 'all(.[].memory; .resident <= .assigned + 16777216)' >/dev/null; }
check "the host holds no more for a guest than it has" held

hvctl stop --all --turn-off --yes -q
back() { after=$(available); [ "$after" -ge $((before - before / 100)) ]; }
for _ in $(seq 150); do ! back || break; sleep 2; done       # other programs come and go
check "with all off the host's memory is back: $before MiB before, $after MiB after" back
gone() { [ -z "$(pgrep -P "$(cat "$dir/pid")")" ] && [ "$(own)" -le $((own_before + 16)) ]; }
check "no worker is left, and hvd holds $(own) MiB, $own_before before" gone
hvctl host show -o json | jq -r '"# charged \(.memory.charged), free \(.memory.free / 1048576 | floor) MiB"'
exit $failed
