#!/usr/bin/env bash
# Chaos: the service, workers and clients are killed at random moments while VMs are created,
# started, changed, watched and stopped. Afterwards nothing may be lost, torn or left over.
#
#   chaos.sh KILLS [SEED]     prints what it did, "chaos: N passed, M failed" at the end
#
# The seed decides who is killed and when; what the machine makes of it is its own. A failure
# names the seed. As root and as an ordinary user; folders of its own, nothing else is touched.
set -uo pipefail
cd "$(dirname "$0")/.."
kills=${1:?usage: chaos.sh KILLS [SEED]}
seed=${2:-$(date +%s)}
RANDOM=$seed
build=$(readlink -f "${BUILD:-build}")
export PATH=$build/bin:$PATH LC_ALL=C.UTF-8 HV_HOST=user
unset HV_OUTPUT HV_TIMEOUT
work=$(mktemp -d "${TMPDIR:-/tmp}/hv-chaos-XXXXXX")
export XDG_RUNTIME_DIR=$work/run XDG_STATE_HOME=$work/state
mkdir -m 700 "$XDG_RUNTIME_DIR" "$XDG_STATE_HOME"
run=$XDG_RUNTIME_DIR/hv state=$XDG_STATE_HOME/hv
passed=0 failed=0 hvd=
declare -A killed=([hvd]=0 [worker]=0 [client]=0)

. tests/guest/lib.sh
tests/guest/fetch.sh cloud busybox >/dev/null || { echo "chaos: no guest kernel"; exit 1; }
tests/guest/mkinitrd.sh -k cloud "$work/initrd" || exit 1
kernel=$(readlink -f "$cache/vmlinuz-cloud")

check() {                 # check NAME COMMAND...
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s (seed %s)\n%s\n' "$name" "$seed" "$out"
    fi
}

# ---- the service ----

start_hvd() {
    hvd --user --idle 0 2>>"$work/hvd.log" &
    hvd=$!
    local deadline=$((SECONDS + 20))
    # Its socket file may be the one of the service before it: ask.
    until [ -S "$run/org.hv.Manager" ] && hvctl host show -o json -t 2s >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "chaos: the service does not come back (seed $seed)"; tail "$work/hvd.log"; return 1; }
        if ! kill -0 "$hvd" 2>/dev/null; then
            hvd --user --idle 0 2>>"$work/hvd.log" &
            hvd=$!
        fi
        sleep 0.02
    done
    # A client may have started one before us: ours ended then, and that one serves.
    hvd=$(service_pid)
}

# Who holds the lock of the run-time folder.
service_pid() {
    local inode
    inode=$(stat -c %i "$run/hvd.lock")
    awk -v i=":$inode\$" '$6 ~ i { print $5; exit }' /proc/locks
}

workers() {               # process numbers of all workers of this run
    local f pid
    for f in "$run"/workers/*.pid; do
        [ -e "$f" ] && read -r pid _ <"$f" && [ -e "/proc/$pid" ] && echo "$pid"
    done
}

# ---- the load ----

vms=(chaos-{a..f})
# What an operator does, for ever, each client on its own; whatever it is told is fine.
client() {
    local vm
    RANDOM=$1              # its own sequence: a local one would be a plain variable
    while :; do
        vm=${vms[RANDOM % ${#vms[@]}]}
        case $((RANDOM % 14)) in
        0 | 1 | 2 | 3) hvctl start "$vm" -q -t 20s ;;
        4) hvctl stop "$vm" --turn-off --yes -q -t 20s ;;
        5) hvctl stop "$vm" -q -t 3s --then turn-off ;;
        6) hvctl pause "$vm" -q -t 5s ;;
        7) hvctl resume "$vm" -q -t 5s ;;
        8) hvctl restart "$vm" --reset --yes -q -t 10s ;;
        9) hvctl vm set "$vm" -q --notes "note $RANDOM" ;;
        10) hvctl memory set "$vm" -q --startup $((80 + RANDOM % 4 * 16))M ;;
        11) hvctl console "$vm" --send 'echo x' --until x -t 2s ;;
        12) hvctl list ;;
        13) hvctl create "x$1" -q --memory 64M --if-missing && hvctl remove "x$1" --yes -q ;;
        esac
    done </dev/null >/dev/null 2>&1
}

clients=()
end_clients() {
    local c
    for c in "${clients[@]}"; do kill -KILL -- "-$c" 2>/dev/null; wait "$c" 2>/dev/null; done
    clients=()
}
start_clients() {
    while [ ${#clients[@]} -lt 4 ]; do
        set -m                # a group of its own, to be ended whole
        client $((RANDOM + 1)) &
        clients+=($!)
        set +m
    done
}

# ---- the kills ----

kill_one() {
    local pids pid i
    case $((RANDOM % 10)) in
    0 | 1 | 2)
        pid=$(service_pid)
        [ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null && killed[hvd]=$((killed[hvd] + 1))
        # Now and then the next one is late: things end while nobody looks.
        [ $((RANDOM % 3)) != 0 ] || sleep 0.$((RANDOM % 5))
        wait "$hvd" 2>/dev/null
        start_hvd || return 1 ;;
    3 | 4 | 5 | 6)
        mapfile -t pids < <(workers)
        [ ${#pids[@]} -gt 0 ] || return 2
        kill -KILL "${pids[RANDOM % ${#pids[@]}]}" 2>/dev/null && killed[worker]=$((killed[worker] + 1)) ;;
    *)
        i=$((RANDOM % ${#clients[@]}))
        pid=$(pgrep -P "${clients[i]}" | head -n 1)
        [ -n "$pid" ] || return 2
        kill -KILL "$pid" 2>/dev/null && killed[client]=$((killed[client] + 1)) ;;
    esac
    return 0
}

cleanup() {
    local pid
    end_clients
    for pid in $(workers); do kill -KILL "$pid" 2>/dev/null; done
    pid=$(service_pid 2>/dev/null)
    [ -z "$pid" ] || kill "$pid" 2>/dev/null
    wait 2>/dev/null
    [ "$failed" != 0 ] && echo "chaos: left for a look: $work" || rm -rf "$work"
}
trap cleanup EXIT

# ---- what has to hold afterwards ----

all_there() { [ "$(hvctl list -o name | grep '^chaos-' | sort | tr '\n' ' ')" = "${vms[*]} " ]; }

files_whole() {
    # Every service that was started read all of them.
    ! grep 'not loaded' "$work/hvd.log"
}

# Every line of both journals but those a kill cut: they are passed over, and there is at most one a kill.
journals_whole() {
    local f lines whole
    for f in "$state"/{events,jobs}.jsonl*; do
        lines=$(wc -l <"$f")
        whole=$(jq -Rn '[inputs | fromjson? | select(type == "object")] | length' "$f")
        [ $((lines - whole)) -le "${killed[hvd]}" ] || { echo "$f: $whole of $lines lines are whole"; return 1; }
    done
}

jobs_ended() {
    hvctl job list -o json | jq -e 'all(.state == "done" or ((.state == "failed" or .state == "interrupted") and .error.message != ""))' >/dev/null ||
        { hvctl job list -o json | jq -c '.[] | select(.state == "running" or (.state != "done" and .error.message == ""))'; return 1; }
}

event_numbers() {
    jq -Rn '[inputs | fromjson? | .seq] | . == (. | unique) and . == sort' "$state/events.jsonl" | grep -qx true
}

no_process() {
    local pid
    pid=$(pgrep -f "^$build/bin/hv-worker .*--name chaos-[a-f]\$")
    [ -z "$pid" ] || { echo "workers $pid are left"; return 1; }
    [ -z "$(workers)" ]
}

nothing_in_workers() { [ -z "$(ls -A "$run/workers")" ] || { ls -lA "$run/workers"; return 1; }; }
nothing_running_noted() { [ -z "$(ls -A "$state/running")" ] || { ls -lA "$state/running"; return 1; }; }
no_temps() { ! find "$state" "$run" -name '.?*.??????' | grep .; }
no_lease() {
    [ -d /run/hv-uids ] || return 0
    local l
    for l in /run/hv-uids/*; do
        case $(readlink "$l") in "$work"/*) echo "lease left: $l"; return 1 ;; esac
    done
}
nothing_charged() { hvctl host show -o json | jq -e '.memory.charged == 0 and .running == 0' >/dev/null || { hvctl host show -o json | jq -c .memory; return 1; }; }
no_descriptor_left() {
    local now=0
    # Connections of clients that went are closed at the next turn.
    for _ in $(seq 50); do
        now=$(ls "/proc/$hvd/fd" | wc -l)
        [ "$now" -gt "$fds_before" ] || return 0
        sleep 0.1
    done
    echo "$fds_before descriptors before, $now now"
    ls -l "/proc/$hvd/fd"
    return 1
}
no_zombie() { ! ps -o stat= --ppid "$hvd" | grep Z; }

# ---- run ----

echo "chaos: seed $seed, $kills kills"
start_hvd || exit 1
for vm in "${vms[@]}"; do
    hvctl create "$vm" -q --memory 96M --kernel "$kernel" --initrd "$work/initrd" --cmdline 'console=ttyS0 quiet' || exit 1
done
start_clients
began=$SECONDS
for ((n = 0; n < kills; )); do
    sleep "0.$(printf %03d $((RANDOM % ${CHAOS_PAUSE_MS:-900})))"
    kill_one
    case $? in
    0) n=$((n + 1)) ;;
    1) failed=$((failed + 1)); break ;;
    esac
done
end_clients
echo "chaos: killed ${killed[hvd]} services, ${killed[worker]} workers, ${killed[client]} clients in $((SECONDS - began)) s"

# One more service, so that what the last kills left is taken over; then all is stopped in order.
kill -KILL "$(service_pid)" 2>/dev/null
wait "$hvd" 2>/dev/null
start_hvd || { failed=$((failed + 1)); }
hvctl start "${vms[0]}" -q -t 30s && hvctl stop "${vms[0]}" --turn-off --yes -q -t 30s       # its journals are open then
# A run in which little happened would show nothing.
real_load() {
    jq -Rn '[inputs | fromjson? | select(.state != "running") | .verb + " " + .state] | group_by(.) | map("\(length) \(.[0])") | join(", ")' -r "$state"/jobs.jsonl*
    jq -Rne --argjson kills "$kills" '[inputs | fromjson? | select(.state == "done")] | length > $kills / 2 and (map(.verb) | unique | length >= 4)' "$state"/jobs.jsonl* >/dev/null
}
echo "chaos: jobs: $(real_load || true)"
check "the load was real" real_load
check "every VM is there" all_there
check "no file is torn" files_whole
check "journals are whole" journals_whole
check "event numbers go on" event_numbers
hvctl stop --all --turn-off --yes -q -t 30s
fds_before=$(ls "/proc/$hvd/fd" | wc -l)
hvctl start "${vms[@]}" -q -t 60s
check "every VM runs when it is started" hvctl wait "${vms[@]}" --for running -q -t 30s
check "every VM is turned off" hvctl stop --all --turn-off --yes -q -t 30s
check "every job ended in a stated way" jobs_ended
check "no process is left" no_process
check "no socket or record is left" nothing_in_workers
check "nothing is noted as running" nothing_running_noted
check "no half-written file is left" no_temps
check "no user is leased" no_lease
check "nothing is charged" nothing_charged
check "no descriptor of the service is left" no_descriptor_left
check "no dead child is left" no_zombie
hvctl remove --all --yes -q
check "every VM can be removed" test -z "$(hvctl list -o name)"
check "no file is left" test -z "$(ls -A "$state/vms")"
grep -E 'assertion failed|Sanitizer|Segmentation' "$work/hvd.log" "$state"/log/* 2>/dev/null && failed=$((failed + 1))
echo "chaos: $passed passed, $failed failed"
[ "$failed" = 0 ]
