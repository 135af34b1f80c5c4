#!/usr/bin/env bats
# Dynamic Memory with stock Debian guests: their own driver reports, the balancer moves.
load helper

setup_file() {
    start_service
    need_guest
    HV_INITRD=$BATS_FILE_TMPDIR/initrd-hv
    "$TOP/tests/guest/mkinitrd.sh" -k cloud -m hv_vmbus -m hv_utils -m hv_balloon "$HV_INITRD" >&2
    export HV_INITRD
    hvctl host set --vm-memory 3G -q
    for vm in one two; do
        hvctl create $vm --memory 1G --kernel "$KERNEL" --initrd "$HV_INITRD" --cmdline 'console=ttyS0 quiet' -q
        hvctl memory set $vm --dynamic on --min 512M --max 2G -q
        hvctl start $vm -q
    done
    for vm in one two; do
        hvctl console $vm --until 'demo:~# ' --timeout 120s </dev/null >/dev/null
    done
}

teardown_file() { stop_service; }

# get VM KEY: of `memory show`.
get() { hvctl memory show "$1" -o json | jq -r ".memory.$2"; }
# until_true SECONDS COMMAND...
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || { hvctl memory list; hvctl events -n 30 --since 10m; return 1; }
        sleep 1
    done
}
has_below() { local v; v=$(get "$1" assigned); [ "$v" -lt $(($2 << 20)) ]; }
has_above() { local v; v=$(get "$1" assigned); [ "$v" -gt $(($2 << 20)) ]; }
status_is() { [ "$(get "$1" status)" = "$2" ]; }

@test "a guest that has just booted is left alone, and the list says so" {
    run -0 hvctl memory list
    [[ $output =~ one\ +on\ +1.0G\ .*boot ]]
}

@test "idle guests report, are OK, and give memory back" {
    until_true 240 has_below one 1000
    until_true 120 has_below two 1000
    status_is one ok
    [ "$(get one demand)" -gt $((100 << 20)) ]
    [ "$(get one ballooned)" -gt 0 ]
}

@test "a load is met: demand and what is assigned rise, and nothing is killed in the guest" {
    before=$(get one assigned)
    hvctl console one --no-history --timeout 180s --send \
        'mkdir -p /big; mount -t tmpfs -o size=2G none /big; for i in 1 2 3 4 5 6; do dd if=/dev/zero of=/big/$i bs=1M count=100 2>/dev/null; sleep 2; done; echo load is"" on' --until 'load is on' </dev/null
    until_true 60 has_above one 1000
    until_true 60 status_is one ok
    [ "$(get one assigned)" -gt "$before" ]
    [ "$(get one demand)" -gt $((700 << 20)) ]
    hvctl console one --no-history --timeout 30s --send 'echo "killed $(dmesg | grep -c "Out of memory") times"' --until 'killed [0-9]+ ' </dev/null | tee "$BATS_TEST_TMPDIR/out"
    grep -q 'killed 0 times' "$BATS_TEST_TMPDIR/out"
}

@test "what all VMs hold stays within what they may have together" {
    sum=0
    for vm in one two; do sum=$((sum + $(get $vm assigned))); done
    [ "$sum" -le $((3 << 30)) ]
    run -0 hvctl host show -o json
    [ "$(jq .memory.charged <<<"$output")" -ge "$sum" ]
    [ "$(jq '.memory.charged + .memory.free + .memory.overhead' <<<"$output")" -le $((3 << 30)) ]
}

@test "hvd is killed: guests keep what they have, and the next one goes on balancing" {
    had=$(get one assigned)
    kill -9 "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    sleep 5
    "$BIN/hvd" --user --idle 0 >>"$BATS_FILE_TMPDIR/hvd.log" 2>&1 3>&- &
    echo $! >"$BATS_FILE_TMPDIR/hvd.pid"
    until_true 30 hvctl memory show one
    until_true 30 status_is one ok
    [ "$(get one assigned)" -ge "$had" ]
    hvctl console one --no-history --timeout 30s --send 'echo still"" here' --until 'still here' </dev/null
}

@test "a start that does not fit is refused with the numbers" {
    hvctl create big --memory 6G --kernel "$KERNEL" -q
    run -8 --separate-stderr hvctl start big
    [[ $stderr =~ "it needs 6.0G to start, this host has" ]]
    hvctl remove big --yes -q
}

@test "limits of the host are shown, and default takes them away" {
    run -0 hvctl host show -c vm_memory --no-header -o csv
    [[ $output =~ 3221225472 ]]
    hvctl host set --vm-memory default -q
    run -0 hvctl host show -c vm_memory --no-header -o csv
    [[ $output =~ ^0 ]]
    run -2 --separate-stderr hvctl host set
    [[ $stderr =~ "nothing to change" ]]
}

@test "the balancer's switch and delay and the metrics address are checked, stored and shown" {
    run -0 hvctl host show -o json
    [ "$(jq -c '[.balancer_on, .balancer_delay_ms, .metrics]' <<<"$output")" = '[true,60000,"127.0.0.1:9177"]' ]
    hvctl host set --balancer off --balancer-delay 5s --metrics '[::1]:9200' -q
    run -0 hvctl host show -o json
    [ "$(jq -c '[.balancer_on, .balancer_delay_ms, .metrics]' <<<"$output")" = '[false,5000,"[::1]:9200"]' ]
    [ "$(jq -r .metrics "$XDG_STATE_HOME/hv/host.json")" = '[::1]:9200' ]
    for bad in localhost:1 1.2.3.4 1.2.3.4:70000 :80 '[::1:80'; do
        run -2 --separate-stderr hvctl host set --metrics "$bad"
        [[ $stderr =~ "is no address to listen at" ]]
    done
    hvctl host set --balancer on --balancer-delay default --metrics off -q
    run -0 hvctl host show -o json
    [ "$(jq -c '[.balancer_on, .balancer_delay_ms, .metrics]' <<<"$output")" = '[true,60000,null]' ]
}
