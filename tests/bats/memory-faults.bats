#!/usr/bin/env bats
# The balancer and guests that fail or lie. Workers without guests (tests/tools/fake_worker.c) say
# what their VM's notes tell them; hvd is the real one.
load helper

setup_file() {
    start_fake_service
    hvctl host set --vm-memory 2G --balancer-delay 0s -q
    some_kernel >/dev/null
}

teardown_file() { stop_service; }

teardown() {
    hvctl stop --all --turn-off --yes -q
    local name
    for name in $(hvctl list -o name); do hvctl remove "$name" --yes -q; done
}

# vm NAME NOTES [OPTIONS OF memory set]: created and running.
vm() {
    local name=$1 notes=$2
    shift 2
    hvctl create "$name" --memory 640M --min 256M --max 2G --kernel "$BATS_FILE_TMPDIR/kernel" --notes "$notes" -q
    [ $# -eq 0 ] || hvctl memory set "$name" "$@" -q
    hvctl start "$name" -q
}
now() { hvctl vm set "$1" --notes "$2" -q; }
mib() { hvctl memory show "$1" -o json | jq -r ".memory.$2 / 1048576 | floor"; }
says() { [ "$(hvctl memory show "$1" -o json | jq -r '"\(.memory.status) \(.memory.why)"')" = "$2" ]; }
# What is charged, what is free and the overhead are within the limit at every look.
ledger_holds() {
    hvctl host show -o json | jq -e '.memory | .charged + .free + .overhead <= '"${1:-2147483648}"
}
at_least() { [ "$(mib "$1" assigned)" -ge "$2" ]; }
at_most() { [ "$(mib "$1" assigned)" -le "$2" ]; }
event() { timeout 2 hvctl events "$1" --since 5m -o jsonl | grep -q "$2"; }

@test "a worker is killed: its VM is off and says so, the others get its memory" {
    vm a 'used=500'
    vm b 'used=300 commit=2400' --demand-source commit
    until_true 20 says b "warning host"
    had=$(mib b assigned)
    kill -9 "$(hvctl show a -o json | jq .pid)"
    until_true 10 sh -c 'hvctl list -F state=off -o name | grep -qx a'
    until_true 10 at_least b $((had + 256))
    ledger_holds
}

@test "wait --for memory-ok: it comes true when the shortage is over and not before; and a guest that goes ends it" {
    local waiting code=0
    vm a 'used=500'
    vm b 'used=300 commit=2400' --demand-source commit
    until_true 20 says b "warning host"
    hvctl wait b --for memory-ok -t 60s 2>"$BATS_TEST_TMPDIR/err" 3>&- &
    waiting=$!
    run -7 --separate-stderr hvctl wait b --for memory-ok -t 2s
    expect_error "hvctl: b: timed out waiting for memory-ok"
    kill -0 "$waiting"
    [ "$(hvctl memory show b -o json | jq -r .memory.status)" = warning ]
    now b 'used=300'
    wait "$waiting"
    [ "$(hvctl memory show b -o json | jq -r .memory.status)" = ok ]
    run -0 --separate-stderr hvctl wait b --for memory-ok -t 5s
    now b 'used=300 commit=2400'
    until_true 20 says b "warning host"
    hvctl wait b --for memory-ok -t 60s 2>"$BATS_TEST_TMPDIR/err" 3>&- &
    waiting=$!
    hvctl stop b --turn-off --yes -q
    wait "$waiting" || code=$?
    cat "$BATS_TEST_TMPDIR/err"
    [ "$code" = 4 ]
}

@test "hvd is killed under load: nothing changes while it is away, and the next one goes on" {
    vm a 'used=300'
    vm b 'used=300 commit=1200' --demand-source commit
    until_true 20 at_least b 1200
    had=$(mib b assigned)
    kill_service
    sleep 1
    serve
    at_least b "$had"
    ledger_holds
    now a 'used=600'
    until_true 20 at_least a 740
}

@test "a guest that says everything is free keeps its minimum and hurts nobody" {
    vm liar 'used=400 lie-free'
    vm b 'used=300'
    until_true 10 says b "ok null"
    now b 'used=300 commit=2400'
    hvctl memory set b --demand-source commit -q
    until_true 20 says b "warning host"
    sleep 2
    at_least liar 400       # asked for what it says is free, it has no more to give than it has
    until_true 10 ledger_holds
    at_least liar 256
}

@test "a guest that says nothing is free gets its share, not the others' needs" {
    vm b 'used=500'
    until_true 10 says b "ok null"
    vm liar 'used=300 lie-none'
    until_true 20 says liar "warning host"
    sleep 2
    [ "$(mib b assigned)" -ge "$(mib b demand)" ]
    ledger_holds
    at_most liar 1400
}

@test "absurd numbers are one guest's own trouble" {
    vm b 'used=500'
    until_true 10 says b "ok null"
    vm liar 'used=300 lie-absurd'
    until_true 10 sh -c 'hvctl memory show liar -o json | jq -e ".memory.demand != null"'
    sleep 2
    [ "$(mib liar demand)" -le $((4 * 2048)) ]
    [ "$(mib b assigned)" -ge "$(mib b demand)" ]
    ledger_holds
}

@test "reports whose time runs back are not acted upon, and the service lives" {
    vm liar 'used=300 lie-time'
    vm b 'used=500'
    until_true 10 says b "ok null"
    until_true 10 says liar "null stale"        # an age of years is not acted upon
    [ "$(mib liar assigned)" -ge 256 ]
    ledger_holds
}

@test "no driver: static after a while, with an event and what to do" {
    hvctl host set --balancer-delay 1s -q
    vm mute 'used=300 nodriver'
    until_true 10 says mute "null boot"
    until_true 10 says mute "null static"
    hvctl host set --balancer-delay 0s -q
    event mute "no balloon driver in the guest reports"
    event mute "modprobe hv_balloon"
    [ "$(mib mute assigned)" = 640 ]
}

@test "a guest that cannot hot-add: it says guest, and nothing is tried in a loop" {
    vm g 'used=600 nohotadd'
    until_true 10 says g "warning guest"
    [ "$(mib g assigned)" = 640 ]
    ledger_holds
}

@test "short answers start a back-off" {
    vm s 'used=200 short'
    vm b 'used=300'
    until_true 10 says b "ok null"
    hvctl memory set b --demand-source commit -q
    now b 'used=300 commit=2400'
    until_true 10 sh -c 'hvctl memory show s -o json | jq -e ".memory.balloon > 0"'
    sleep 1
    had=$(mib s assigned)
    sleep 3
    [ "$(mib s assigned)" = "$had" ]            # not asked again each second
    at_least s 300
}

@test "a guest that refuses keeps what it has and is left alone" {
    vm r 'used=200 refuse'
    vm b 'used=300 commit=2400' --demand-source commit
    until_true 20 says b "warning host"
    sleep 2
    [ "$(mib r assigned)" = 640 ]
    ledger_holds
}

@test "a reboot on a full host: it has its startup memory again, at the cost of buffers and of those above their share" {
    vm a 'used=100'
    vm b 'used=300 commit=2400' --demand-source commit
    until_true 20 says b "warning host"
    until_true 20 at_most a 420
    had=$(mib b assigned)
    hvctl restart a --reset --yes -q
    until_true 10 at_least a 256
    until_true 20 ledger_holds
    until_true 20 at_least b $((had - 300))
}

@test "a start that does not fit says by how much" {
    vm a 'used=500'
    hvctl create big --memory 1536M --kernel "$BATS_FILE_TMPDIR/kernel" -q
    run -8 --separate-stderr hvctl start big
    [[ $stderr =~ "it needs 1.5G to start, this host has 1.3G free" ]]
}

@test "another program takes memory: it is no longer there for VMs" {
    hvctl host set --vm-memory default -q
    free() { hvctl host show -o json | jq '.memory.free / 1048576 | floor'; }
    before=$(free)
    { head -c 1200M /dev/zero; sleep 5; } | tail -c 1200M >/dev/null 3>&- &     # tail keeps it until the end
    gone() { [ "$(free)" -le $((before - 500)) ]; }
    until_true 10 gone
    hvctl host set --vm-memory 2G -q
}

@test "the balancer switched off moves nothing" {
    hvctl host set --balancer off -q
    vm a 'used=600'
    until_true 10 sh -c 'hvctl memory show a -o json | jq -e ".memory.status == \"warning\""'
    sleep 2
    [ "$(mib a assigned)" = 640 ]
    hvctl host set --balancer on -q
    until_true 10 at_least a 768
}
