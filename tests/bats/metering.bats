#!/usr/bin/env bats
# Metering: what VMs have used, over restarts of the service too. Workers without guests
# (tests/tools/fake_worker.c) count a hundredth of a processor and have the memory they are told.
load helper

setup_file() {
    start_fake_service
    : >"$BATS_FILE_TMPDIR/kernel"
    hvctl host set --balancer-delay 0s -q >/dev/null
    for vm in web1 web2 db1; do
        hvctl create $vm --memory 512M --kernel "$BATS_FILE_TMPDIR/kernel" --notes 'used=300' -q
    done
    hvctl group create customer1 -q
    hvctl group add customer1 web1 web2 -q
}

teardown_file() { stop_service; }

trouble() { hvctl metering show; }
get() { hvctl show "$1" -o json | jq ".metering.$2"; }
ran() { [ "$(get "$1" run_s)" -ge "$2" ]; }

@test "not metered: null, and show of one says so" {
    run -4 --separate-stderr hvctl metering show web1
    expect_error "hvctl: web1: it is not metered" "hvctl metering enable web1"
    run -4 --separate-stderr hvctl metering reset web1
    expect_error "hvctl: web1: it is not metered" "hvctl metering enable web1"
    run -0 hvctl metering -o json
    [ "$(jq -c .vms <<<"$output")" = '[]' ]
    [ "$(hvctl show web1 -o json | jq .metering)" = null ]
    run -3 hvctl metering show nobody
    run -3 hvctl metering show @nobody
}

@test "enabled: memory, processor and time count while it runs" {
    run -0 --separate-stderr hvctl metering enable @customer1
    [[ $stderr$output =~ "web1: metering enabled" ]]
    run -0 --separate-stderr hvctl metering enable web1
    [[ $stderr$output =~ "web1: metering is enabled already" ]]
    [ "$(get web1 memory_max)" = 0 ]        # it has not run
    hvctl start web1 web2 -q
    until_true 10 ran web1 2
    [ "$(get web1 memory_avg)" = $((512 << 20)) ]
    [ "$(get web1 memory_min)" = $((512 << 20)) ]
    [ "$(get web1 memory_max)" = $((512 << 20)) ]
    [ "$(get db1 run_s)" = null ]
}

@test "memory that moves: the least, the most, and between them the average" {
    hvctl stop web2 --turn-off --yes -q
    hvctl memory set web2 --dynamic on --min 256M --max 1G -q
    hvctl metering reset web2 -q
    hvctl start web2 -q
    hvctl vm set web2 --notes 'used=700' -q
    until_true 20 sh -c '[ "$(hvctl show web2 -o json | jq .metering.memory_max)" -gt 640000000 ]'
    until_true 10 sh -c 'hvctl show web2 -o json | jq -e ".metering | .memory_avg > .memory_min and .memory_avg < .memory_max"'
    [ "$(get web2 memory_min)" = $((512 << 20)) ]
}

@test "sums of a group" {
    run -0 hvctl metering show @customer1 -o json
    [ "$(jq -c '[.vms[].name]' <<<"$output")" = '["web1","web2"]' ]
    [ "$(jq '.total.vms' <<<"$output")" = 2 ]
    jq -e '.total.memory_max == ([.vms[].memory_max] | add) and .total.memory_avg == ([.vms[].memory_avg] | add)
        and .total.cpu_s == ([.vms[].cpu_s] | add)' <<<"$output"
    run -0 hvctl metering show @customer1
    [[ ${lines[-1]} =~ ^"2 VMs: CPU " ]]
    run -0 hvctl metering show web1 -o csv -c name,run_s,memory_avg
    [ "${lines[0]}" = name,run_s,memory_avg ]
    [[ ${lines[1]} =~ ^web1,[0-9]+,536870912$ ]]
}

@test "a service that is killed loses nothing: time, processor and memory go on" {
    hvctl metering reset web1 -q
    until_true 10 ran web1 2
    cpu() { hvctl show web1 -o json | jq .metering.cpu_s; }
    since=$(get web1 since)
    kill_service
    sleep 2
    serve
    [ "$(get web1 since)" = "$since" ]
    until_true 10 ran web1 4            # what passed before and while it was away counts
    [ "$(get web1 memory_avg)" = $((512 << 20)) ]
    run -0 hvctl metering show web1 -o json
    jq -e '.vms[0] | .cpu_avg_pct > 0.5 and .cpu_avg_pct < 2' <<<"$output"      # what its worker says: 1 %
}

@test "off and on again adds up; time that it is off does not count" {
    hvctl stop web1 --turn-off --yes -q
    before=$(get web1 run_s)
    sleep 1.5
    [ "$(get web1 run_s)" = "$before" ]
    hvctl start web1 -q
    until_true 10 ran web1 $((before + 1))
    [ "$(get web1 run_s)" -le $((before + 5)) ]
}

@test "disable forgets, and a removed machine takes its meter along" {
    run -0 --separate-stderr hvctl metering disable web1
    [ "$(hvctl show web1 -o json | jq .metering)" = null ]
    run -0 --separate-stderr hvctl metering disable web1
    [[ $stderr$output =~ "web1: metering is disabled already" ]]
    hvctl metering enable db1 -q
    hvctl remove db1 --yes -q
    end_service -TERM
    [ "$(jq '.vms | length' "$XDG_STATE_HOME/hv/metering.json")" = 1 ]      # web2's
    serve
    hvctl create db1 --memory 512M --kernel "$BATS_FILE_TMPDIR/kernel" -q
    [ "$(hvctl show db1 -o json | jq .metering)" = null ]
}

@test "a damaged file is said and metering begins anew; the service starts" {
    end_service -TERM
    for text in '{"at_ms": 1, "vms": {"x": 3, "y"' '[]' '{"vms": 7}' \
        "{\"at_ms\": -5, \"vms\": {\"$(hvctl_id)\": {\"run_ms\": -1, \"disk\": [1, \"x\"], \"last_disks\": [4], \"last_pid\": \"p\"}}}"; do
        echo "$text" >"$XDG_STATE_HOME/hv/metering.json"
        serve
        run -0 hvctl metering -o json
        end_service -TERM
    done
    grep -q 'metering.json: .*: metering begins anew' "$BATS_FILE_TMPDIR/hvd.log"
    serve
}
hvctl_id() { sed -n 's/.*\(........-....-....-....-............\)\.xml/\1/p' <<<"$(ls "$XDG_STATE_HOME"/hv/vms/*.xml | head -n 1)"; }
