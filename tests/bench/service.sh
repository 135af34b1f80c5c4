#!/usr/bin/env bash
# What the management service costs with many VMs defined: the time of list and show, of TAB without a
# service, and hvd's memory. Printed beside what is aimed at; nothing is asserted.
#
#   service.sh [VMS]      BUILD names the build folder
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
many=${1:-1000}
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT
export PATH=$build/bin:$PATH LC_ALL=C.UTF-8 XDG_RUNTIME_DIR=$work/run XDG_STATE_HOME=$work/state HV_HOST=user
unset HV_OUTPUT HV_TIMEOUT
mkdir -p -m 700 "$XDG_RUNTIME_DIR" "$XDG_STATE_HOME"

serve() {
    hvd --user --idle 0 >>"$work/hvd.log" 2>&1 &
    pid=$!
    until [ -S "$XDG_RUNTIME_DIR/hv/org.hv.Manager" ]; do kill -0 "$pid"; sleep 0.02; done
}

# Median of 15 runs in milliseconds, what stands in the log beside it.
measure() { # WHAT AIM COMMAND...
    local what=$1 aim=$2 i t0 t1
    shift 2
    for i in $(seq 16); do
        t0=$EPOCHREALTIME
        "$@" >/dev/null
        t1=$EPOCHREALTIME
        [ "$i" = 1 ] || echo $(((${t1/./} - ${t0/./})))
    done | sort -n | awk -v what="$what" -v aim="$aim" '{ v[NR] = $1 } END {
        printf "%-44s %7.1f ms   (%s; fastest %.1f, slowest %.1f)\n", what, v[int((NR + 1) / 2)] / 1000, aim, v[1] / 1000, v[NR] / 1000 }'
}

define() { # FROM TO
    local i
    {
        echo '['
        for ((i = $1; i <= $2; i++)); do
            [ "$i" = "$1" ] || echo ,
            printf '{"name": "vm-%04d", "notes": "number %d", "memory": {"dynamic": true, "startup": "1G", "min": "512M", "max": "4G"}}' "$i" "$i"
        done
        echo ']'
    } >"$work/vms.json"
    hvctl apply -q -f "$work/vms.json"
}

echo '{"name": "vm-0500", "notes": "x"}' >"$work/one.json"
serve
define 1 100
measure "hvctl list, 100 VMs" "under 20" hvctl list
t0=$EPOCHREALTIME
define 101 "$many" &
applying=$!
worst=0
while kill -0 "$applying" 2>/dev/null; do
    t1=$EPOCHREALTIME
    hvctl list >/dev/null
    t2=$EPOCHREALTIME
    worst=$((${t2/./} - ${t1/./} > worst ? ${t2/./} - ${t1/./} : worst))
done
wait "$applying"
t1=$EPOCHREALTIME
echo "hvctl apply, $((many - 100)) new VMs: $(((${t1/./} - ${t0/./}) / 1000)) ms; hvctl list meanwhile, slowest $((worst / 1000)) ms"
hvctl get --all >"$work/all.xml" || true
kill "$pid"
wait "$pid" 2>/dev/null || true
t0=$EPOCHREALTIME
serve
t1=$EPOCHREALTIME
echo "hvd serves $many VMs after $(((${t1/./} - ${t0/./}) / 1000)) ms"
measure "hvctl list, $many VMs" "under 50" hvctl list
measure "hvctl list -o json, $many VMs" "-" hvctl list -o json
measure "hvctl list, filtered to one" "-" hvctl list -F name=vm-0500 -o name
measure "hvctl show VM, $many VMs" "under 20" hvctl show vm-0500
measure "hvctl memory list, $many VMs" "-" hvctl memory list
measure "hvctl vm set --notes, $many VMs" "-" hvctl vm set vm-0500 --notes "$RANDOM" -q
measure "hvctl apply, one VM of $many" "-" hvctl apply -q -f "$work/one.json"
measure "TAB for a VM's name, $many VMs" "-" hvctl __complete --shell bash -- start vm-05
awk -v n="$many" '/VmHWM/ { h = $2 } /VmRSS/ { r = $2 } END {
    printf "hvd with %d VMs: %.1f MiB, at most %.1f MiB so far (under 64)\n", n, r / 1024, h / 1024 }' "/proc/$pid/status"
kill "$pid"
wait "$pid" 2>/dev/null || true
pid=
measure "TAB without a service" "under 300" hvctl __complete --shell bash -- start vm
measure "TAB for a command" "-" hvctl __complete --shell bash -- memory s
