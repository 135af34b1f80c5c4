#!/usr/bin/env bats
# memory plan and memory report: what would be, and what was, from the host's own history. Workers
# without guests say what they use (tests/tools/fake_worker.c).
load helper

setup_file() {
    start_fake_service
    hvctl host set --vm-memory 4G --balancer-delay 0s -q
    some_kernel >/dev/null
}

teardown_file() { stop_service; }

setup() { no_vms; }

# vm NAME NOTES: dynamic, 640M to start with, at most 2G, and running.
vm() {
    hvctl create "$1" --memory 640M --min 256M --max 2G --kernel "$BATS_FILE_TMPDIR/kernel" --notes "$2" -q
    hvctl start "$1" -q
}
# A minute of history in which it is known what it needs.
known() { [ "$(hvctl memory report -o json | jq --arg vm "$1" '.vms[] | select(.name == $vm) | .used > 0')" = true ]; }
plan() { hvctl memory plan "$@" -o json | jq -c '[.add, .fit, .low, .warning]'; }

@test "plan without any history says so, and counts new VMs with their maximum" {
    run -0 --separate-stderr hvctl memory plan --add 3 --startup 512M --max 1G
    [ "$output" = "3 more fit: no VM would go Low, none Warning" ]
    [[ $stderr =~ "there is no history yet" ]]
    # Five of 1G and their workers' overhead do not fit 4G: none has what it needs.
    run -0 --separate-stderr hvctl memory plan --add 5 --startup 512M --max 1G
    [ "$output" = "5 more fit: no VM would go Low, 5 Warning" ]
}

@test "plan: how many fit by admission is what can be started" {
    # 4096M at 536M each, 512M and 24M of overhead: seven.
    run -0 --separate-stderr hvctl memory plan --add 9 --startup 512M --max 512M
    [ "$output" = "7 of 9 more fit: no VM would go Low, none Warning" ]
    [ "$(plan --add 9 --startup 512M --max 512M | cut -d, -f1-2)" = "[9,7" ]
    local i
    for i in 1 2 3 4 5 6 7; do
        hvctl create "n$i" --memory 512M --kernel "$BATS_FILE_TMPDIR/kernel" -q
        hvctl start "n$i" -q
    done
    hvctl create n8 --memory 512M --kernel "$BATS_FILE_TMPDIR/kernel" -q
    run -8 --separate-stderr hvctl start n8
    [[ $stderr =~ "it needs 512M to start" ]]
    [ "$(plan --add 1 --startup 512M --max 512M | cut -d, -f1-2)" = "[1,0" ]
}

@test "plan: more VMs like those that are there, their buffers first, then their needs" {
    vm model 'used=300'
    until_true 20 known model
    run -0 --separate-stderr hvctl memory plan --add 1 --startup 512M --max 1G
    [ "$output" = "1 more fit: no VM would go Low, none Warning" ]
    [ "$stderr" = "" ]
    # It needs some 480M: five of them fit 4G with their buffers; seven without; ten do not.
    [ "$(plan --add 5 --startup 256M --max 1G)" = "[5,5,0,0]" ]
    [ "$(plan --add 7 --startup 256M --max 1G | jq '.[2] > 0 and .[3] == 0')" = true ]
    [ "$(plan --add 10 --startup 256M --max 1G | jq '.[3] > 0')" = true ]
    # A new VM gets no more than its maximum, whatever it is like: Low, for it has no buffer then.
    [ "$(plan --add 8 --startup 256M --max 300M)" = "[8,8,8,0]" ]
}

@test "plan changes nothing" {
    vm model 'used=300'
    until_true 20 known model
    before=$(hvctl list -o json | jq -c '[.[].name]')
    plan --add 100 --startup 64M --max 8G
    [ "$(hvctl list -o json | jq -c '[.[].name]')" = "$before" ]
    [ "$(hvctl memory show model -o json | jq -r .memory.status)" = ok ]
}

@test "plan: bad use" {
    run -2 --separate-stderr hvctl memory plan --add 0
    [[ $stderr == *"--add 0: must be from 1 to 512"* ]]
    run -2 --separate-stderr hvctl memory plan --add 513
    [[ $stderr == *"must be from 1 to 512"* ]]
    run -2 --separate-stderr hvctl memory plan --startup 2G --max 1G
    [[ $stderr == *"max: at least the startup memory"* ]]
    run -2 --separate-stderr hvctl memory plan --startup 16M
    [[ $stderr == *"at least 32M"* ]]
}

@test "report: maximum, what static sizing would take, what was used, and the sums" {
    vm a 'used=300'
    hvctl create s --memory 512M --kernel "$BATS_FILE_TMPDIR/kernel" --notes 'used=100' -q
    hvctl start s -q
    hvctl create never --memory 512M --kernel "$BATS_FILE_TMPDIR/kernel" -q
    until_true 20 known a
    until_true 20 known s
    json=$(hvctl memory report -o json)
    [ "$(jq -c '[.vms[].name]' <<<"$json")" = '["a","s"]' ]             # who never ran saved nothing
    need=$(hvctl memory show a -o json | jq .memory.demand)
    [ "$(jq --argjson need "$need" '.vms[0] | .max == 2147483648 and .static_size >= $need * 1.2 and .static_size <= $need * 1.3' <<<"$json")" = true ]
    [ "$(jq '.vms[0].used >= 268435456 and .vms[0].used <= 1073741824' <<<"$json")" = true ]
    [ "$(jq -c '.vms[1] | [.max, .static_size, .used, .warning_pct]' <<<"$json")" = '[536870912,536870912,536870912,0]' ]
    [ "$(jq '.total.vms == 2 and .total.max == ([.vms[].max] | add) and .total.static_size == ([.vms[].static_size] | add)
             and .total.used == ([.vms[].used] | add)' <<<"$json")" = true ]
    run -0 hvctl memory report
    [[ ${lines[0]} =~ NAME.*MAX.*STATIC_SIZE.*USED.*WARNING ]]
    [[ ${lines[-1]} =~ ^"2 VMs: maxima 2.5G, static sizing " ]]
    run -0 hvctl memory report -o csv
    [[ ${lines[0]} == name,max,static_size,used,warning_pct && ${#lines[@]} = 3 ]]
}

@test "report: the share of time in Warning is that of samples, not of minutes" {
    hvctl host set --balancer off -q
    vm short 'used=600'                                 # 640M are not enough, and nothing moves
    status_is() { [ "$(hvctl memory show short -o json | jq -r .memory.status)" = "$1" ]; }
    until_true 20 status_is warning
    sleep 4
    hvctl host set --balancer on -q
    until_true 20 status_is ok
    share() { hvctl memory report -o json | jq '.vms[] | select(.name == "short") | .warning_pct > 0 and .warning_pct < 75'; }
    between() { [ "$(share)" = true ]; }
    until_true 40 between
    [ "$(hvctl memory report -o json | jq '.total.warning_pct > 0')" = true ]
}

@test "report: since when" {
    vm a 'used=300'
    until_true 20 known a
    [ "$(hvctl memory report --since 1h -o json | jq '.total.vms')" = 1 ]
    hvctl memory report --since 1m >/dev/null
    run -2 --separate-stderr hvctl memory report --since never
    [[ $stderr == *"--since"* ]]
}
