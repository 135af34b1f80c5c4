#!/usr/bin/env bats
# What outlives the service and the host: events, jobs, how a VM ended, what ran at a power cut, logs.

load helper

setup_file() {
    start_service
    need_guest
}
teardown_file() { stop_service; }
teardown() { no_vms; }

boot_vm() {
    hvctl create "$1" -q --memory 128M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet' "${@:2}"
    hvctl start "$1" -q --wait=console:demo -t 60s
}

kill_service() {
    kill -KILL "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" 2>/dev/null || true
    rm -f "$XDG_RUNTIME_DIR/hv/org.hv.Manager"
}

# A process that is not our child: wait until it is gone.
gone() {
    for _ in $(seq 200); do [ -e "/proc/$1" ] || return 0; sleep 0.05; done
    return 1
}

field() { hvctl show "$1" -o json | jq -r "$2"; }

# As after a power cut: service and workers gone at once, another boot of the host.
power_cut() {
    local pids
    pids=$(hvctl list -o json | jq -r '.[].name' | while read -r vm; do field "$vm" '.pid // empty'; done)
    kill_service
    for pid in $pids; do kill -KILL "$pid"; gone "$pid"; done
    rm -rf "$XDG_RUNTIME_DIR/hv"
    sed -i 's/^[^ ]*/an-earlier-boot/' "$XDG_STATE_HOME/hv/running/"* 2>/dev/null || true
    echo an-earlier-boot >"$XDG_STATE_HOME/hv/boot"
}

@test "a power cut: what ran is off and says so; resume and start come back, nothing does not" {
    boot_vm web1
    boot_vm web2 && hvctl vm set web2 -q --on-start resume
    hvctl create web3 -q --memory 128M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet'
    hvctl vm set web3 -q --on-start start
    hvctl create web4 -q --memory 128M --kernel "$KERNEL" && hvctl vm set web4 -q --on-start resume
    touch -d '03:12' "$XDG_STATE_HOME/hv/alive"
    power_cut
    start_service
    hvctl wait web2 --for running -q -t 20s
    hvctl wait web3 --for running -q -t 20s
    [ "$(field web1 .state)" = off ]
    [[ "$(field web1 .reason)" =~ ^'host stopped unexpectedly '.*'03:12'$ ]] || { field web1 .reason; false; }
    run -0 hvctl show web1
    [[ "$output" = *'off: host stopped unexpectedly'* ]]
    [ "$(field web4 .state)" = off ]
    # Once a boot: a service that is restarted starts nothing.
    hvctl stop web3 --turn-off --yes -q
    kill_service
    start_service
    [ "$(field web3 .state)" = off ]
    [[ "$(field web1 .reason)" = 'host stopped unexpectedly'* ]]
    hvctl start web1 -q && [ "$(field web1 .reason)" = null ]
}

@test "on-start waits for its delay" {
    boot_vm web1
    hvctl vm set web1 -q --on-start resume --start-delay 3s
    [ "$(field web1 .start_delay_ms)" = 3000 ]
    power_cut
    start_service
    [ "$(field web1 .state)" = off ]
    hvctl wait web1 --for running -q -t 20s
}

@test "the host stops: guests shut down or are turned off, none starts; it starts again: they come back" {
    boot_vm web1 && hvctl vm set web1 -q --on-start resume
    boot_vm web2 && hvctl vm set web2 -q --on-stop turn-off
    run -0 hvd --user --guests stop
    [ "$output" = '2 stopped' ]
    [ "$(field web1 .reason)" = 'the guest powered off' ]
    [ "$(field web2 .reason)" = 'turned off' ]
    run -4 hvctl start web2
    [[ "$output" = *'the host is stopping'* ]]
    run -0 hvd --user --guests start
    hvctl wait web1 --for running -q -t 20s
    [ "$(field web2 .state)" = off ]
    run -0 hvctl start web2
}

@test "a guest that ends while the service is away: the next service knows how" {
    boot_vm web1
    pid=$(field web1 .pid)
    hvctl console web1 --send 'sleep 1; poweroff -f' --until 'poweroff' -t 20s
    kill_service
    gone "$pid"
    start_service
    [ "$(field web1 .state)" = off ]
    [ "$(field web1 .reason)" = 'the guest powered off' ]
    run hvctl events --since 1h -n 100 -o json -t 1s web1
    [[ "$output" = *'off while the service was away: the guest powered off'* ]]
}

@test "a guest that reboots while the service is away: the same worker, and the next service knows" {
    boot_vm web1
    pid=$(field web1 .pid)
    [ "$(field web1 .resets)" = 0 ]
    # The console is the worker's: it goes on without a service, up to the prompt of the next boot.
    hvctl console web1 --no-history --send 'sleep 3; re""boot -f' --until 'demo:' -t 90s >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
    reader=$!
    until grep -q sleep "$BATS_TEST_TMPDIR/out"; do kill -0 $reader; sleep 0.05; done
    kill_service
    wait $reader
    start_service
    hvctl wait web1 --for running -q -t 20s
    [ "$(field web1 '"\(.pid) \(.resets) \(.state)"')" = "$pid 1 running" ]
    run -0 hvctl restart web1 --reset --yes -q
    run -0 hvctl console web1 --until demo -t 60s
    [ "$(field web1 '"\(.pid) \(.resets)"')" = "$pid 2" ]
}

@test "a worker killed while the service is away: off, and said" {
    boot_vm web1
    pid=$(field web1 .pid)
    kill_service
    kill -KILL "$pid"
    gone "$pid"
    start_service
    [ "$(field web1 .state)" = off ]
    [ "$(field web1 .reason)" = 'its worker ended while the service was away' ]
    run -0 hvctl start web1
}

@test "a transient VM outlives the service, and goes when it is off" {
    hvctl vm run web9 --memory 128M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet' \
        --until never -t 60s </dev/null >/dev/null 2>&1 3>&- &
    runner=$!
    for _ in $(seq 100); do [ "$(hvctl list -o name)" = web9 ] && break; sleep 0.1; done
    hvctl wait web9 --for running -q -t 20s
    kill -KILL "$runner"              # it would ask for the service, and start one
    kill_service
    start_service
    [ "$(field web9 .transient)" = true ]
    [ "$(field web9 .state)" = running ]
    hvctl stop web9 --turn-off --yes -q
}

@test "events outlive the service, and their numbers go on" {
    hvctl create web1 -q --memory 128M
    before=$({ hvctl events --since 1h -o jsonl -n 1000 -t 1s || true; } | jq -s 'map(.seq) | max')
    kill_service
    start_service
    hvctl create web2 -q --memory 128M
    hvctl events --since 1h -o jsonl -n 1000 -t 1s >"$BATS_TEST_TMPDIR/events" || [ $? = 7 ]
    jq -se --argjson before "$before" 'any(.vm == "web1" and .message == "created" and .seq <= $before)' "$BATS_TEST_TMPDIR/events"
    jq -se --argjson before "$before" 'any(.vm == "web2" and .message == "created" and .seq > $before)' "$BATS_TEST_TMPDIR/events"
    jq -se 'map(.seq) == (map(.seq) | unique)' "$BATS_TEST_TMPDIR/events"
}

@test "a job under way when the service dies ends as interrupted" {
    boot_vm web1
    hvctl console web1 --send 'killall acpid; echo dea""f' --until deaf -t 20s
    run -0 hvctl stop web1 --no-wait -t 60s
    id=$(hvctl job list -o json | jq 'map(select(.verb == "stop" and .state == "running"))[0].id')
    kill_service
    start_service
    [ "$(hvctl job list -o json | jq -r ".[] | select(.id == $id) | .state")" = interrupted ]
    run -1 --separate-stderr hvctl job wait "$id"
    [[ "$stderr" = *'interrupted: the service ended'* ]]
    [ "$(field web1 .state)" = running ]
    hvctl stop web1 --turn-off --yes -q
    [ "$(hvctl job list -o json | jq 'map(.id) | max')" -gt "$id" ]
}

@test "a VM has a log of its own, with times, that is put aside when it is full" {
    boot_vm web1
    id=$(field web1 .id)
    log=$XDG_STATE_HOME/hv/log/$id.log
    [ -f "$log" ]
    worker=$(field web1 .pid)
    head -c 1100000 /dev/zero | tr '\0' 'x' >>"$log"
    for _ in $(seq 100); do [ -f "$log.1" ] && break; sleep 0.1; done
    [ -f "$log.1" ]
    for _ in $(seq 50); do [ "$(readlink "/proc/$worker/fd/2")" = "$(readlink -f "$log")" ] && break; sleep 0.1; done
    [ "$(readlink "/proc/$worker/fd/2")" = "$(readlink -f "$log")" ]
    hvctl stop web1 -q -t 60s
    grep -qE '^[0-9-]+T[0-9:.]+Z hv-worker: web1: off: power-off' "$log"
    hvctl remove web1 --yes -q
    [ ! -e "$log" ] && [ ! -e "$log.1" ]
}
