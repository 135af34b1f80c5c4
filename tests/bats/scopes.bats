#!/usr/bin/env bats
# Scopes of workers: what hvd asks systemd for, seen by one that only notes it. What systemd makes of
# it is tests/guest/systemd-host.sh's business.

load helper

run_dir=$BATS_FILE_TMPDIR/run

start_bus() {
    mkdir -p -m 700 "$run_dir"
    dbus-daemon --session --nofork --nopidfile --address="unix:path=$run_dir/bus" >"$BATS_FILE_TMPDIR/bus.log" 2>&1 3>&- &
    echo $! >"$BATS_FILE_TMPDIR/bus.pid"
    local deadline=$((SECONDS + 20))
    until [ -S "$run_dir/bus" ]; do [ "$SECONDS" -lt "$deadline" ] || { cat "$BATS_FILE_TMPDIR/bus.log" >&2; return 1; }; sleep 0.05; done
}
start_systemd() {
    "${BIN%/bin}/tests/tools/fake_systemd" "unix:path=$run_dir/bus" >"$BATS_FILE_TMPDIR/asked" 2>&1 3>&- &
    wait_for_words "$BATS_FILE_TMPDIR/asked" ready
}
setup_file() {
    start_bus
    start_systemd
    start_service
    need_guest
}
teardown_file() {
    stop_service
    kill "$(cat "$BATS_FILE_TMPDIR/bus.pid")"          # the other ends with it
}
teardown() { no_vms; }

wait_for_words() {        # wait_for_words FILE REGEX: until a line of it matches
    local deadline=$((SECONDS + 20))
    until grep -q -- "$2" "$1" 2>/dev/null; do [ "$SECONDS" -lt "$deadline" ] || { cat "$1" >&2; return 1; }; sleep 0.05; done
}
# property NAME: its value in the last call
property() { awk -v name="STRING \"$1\";" '/Member=/ { v = "" } index($0, name) { at = NR } at && NR == at + 2 { v = $2; sub(/;$/, "", v) } END { print v }' "$BATS_FILE_TMPDIR/asked"; }
calls() { grep -c "Member=$1" "$BATS_FILE_TMPDIR/asked"; }
unit() { hvctl show "$1" -o json | jq -r .processor.unit; }
has_unit() { local deadline=$((SECONDS + 20)); until [ "$(unit "$1")" != null ]; do [ "$SECONDS" -lt "$deadline" ] || return 1; sleep 0.05; done; }
new_vm() { hvctl create "$1" -q --memory 128M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet' "${@:2}"; }

@test "a worker gets a scope of its own, named after the VM, in hv.slice" {
    new_vm 'we b.1'
    hvctl processor set 'we b.1' --cpus 2 --weight 50 --limit 75 -q
    hvctl start 'we b.1' -q
    has_unit 'we b.1'
    pid=$(hvctl show 'we b.1' -o json | jq .pid)
    [ "$(unit 'we b.1')" = "hv-we\\x20b.1-$pid.scope" ]
    grep -qF "hv-we\\x20b.1-$pid.scope" "$BATS_FILE_TMPDIR/asked"
    grep -qF 'STRING "Virtual machine we b.1"' "$BATS_FILE_TMPDIR/asked"
    grep -qF 'STRING "hv.slice"' "$BATS_FILE_TMPDIR/asked"
    grep -qF "UINT32 $pid;" "$BATS_FILE_TMPDIR/asked"
    grep -qF 'STRING "hv-guests.service"' "$BATS_FILE_TMPDIR/asked"
    grep -qF 'UINT64 50;' "$BATS_FILE_TMPDIR/asked"
    grep -qF 'UINT64 1500000;' "$BATS_FILE_TMPDIR/asked"       # 75 % of two processors, microseconds a second
    run -0 hvctl processor show 'we b.1' -o json
    [ "$(jq -c '[.processor.weight, .processor.limit_pct]' <<<"$output")" = '[50,75]' ]
}

@test "weight and limit change now, and none of the rest asks anybody" {
    new_vm web1
    hvctl start web1 -q
    has_unit web1
    n=$(calls SetUnitProperties) || true
    run -0 --separate-stderr hvctl processor set web1 --limit 30
    [ "$stderr" = "web1: limit_pct 100 -> 30, now" ]
    wait_for_words "$BATS_FILE_TMPDIR/asked" 'UINT64 300000;'
    run -0 --separate-stderr hvctl processor set web1 --weight 0 --limit none
    [ "$stderr" = $'web1: weight 100 -> 0, now\nweb1: limit_pct 30 -> 100, now' ]
    wait_for_words "$BATS_FILE_TMPDIR/asked" 'UINT64 18446744073709551615;'
    hvctl vm set web1 --notes x -q
    [ "$(calls SetUnitProperties)" = $((n + 2)) ]
}

@test "doctor knows of scopes, and the worker of a stopped VM has none" {
    new_vm web1
    hvctl start web1 -q
    has_unit web1
    run -0 hvctl host doctor -o json
    [ "$(jq -r '.[] | select(.name == "scopes") | .message' <<<"$output")" = "each VM has a scope in hv.slice" ]
    hvctl stop web1 --turn-off --yes -q
    [ "$(unit web1)" = null ]
}

@test "a refused scope is a warning, and the VM runs" {
    new_vm refused1
    run -0 hvctl start refused1 -q
    wait_for_words "$BATS_FILE_TMPDIR/hvd.log" 'its worker gets no scope: Process is gone'
    [ "$(unit refused1)" = null ]
}

@test "without systemd: weight and limit are refused by name, and doctor says why" {
    new_vm web1
    kill "$(cat "$BATS_FILE_TMPDIR/bus.pid")"
    local deadline=$((SECONDS + 20))
    until hvctl host doctor -o json | jq -e '.[] | select(.name == "scopes") | .hint'; do [ "$SECONDS" -lt "$deadline" ]; sleep 0.1; done
    run -9 --separate-stderr hvctl processor set web1 --weight 50
    [[ "$stderr" = "hvctl: web1: cannot weigh its processors: "* ]]
    [ "${stderr##*$'\n'}" = "  try: hvctl host doctor" ]
    run -9 --separate-stderr hvctl processor set web1 --limit 50
    [[ "$stderr" = "hvctl: web1: cannot limit its processors: "* ]]
    run -0 hvctl processor set web1 --limit default --weight 100 -q
    run -0 hvctl start web1 -q
    run -2 hvctl processor set web1 --limit 0
    run -2 hvctl processor set web1 --limit 101
    run -2 hvctl processor set web1 --weight 10001
    start_bus
    start_systemd
    # It is there again: nobody has to restart anything.
    until hvctl processor set web1 --weight 50 -q 2>/dev/null; do [ "$SECONDS" -lt $((deadline + 20)) ]; sleep 0.5; done
}
