#!/usr/bin/env bats
# Dynamic Memory with stock Debian guests: their own driver reports, the balancer moves. The one
# thing that is not as it comes: the driver's first 45 s of silence are 2 (its own parameter).
load helper

setup_file() {
    start_service
    need_guest
    HV_INITRD=$BATS_FILE_TMPDIR/initrd-hv
    gcc -O2 -std=gnu17 -static -o "$BATS_FILE_TMPDIR/touchall" "$TOP/tests/guest/touchall.c"
    "$TOP/tests/guest/mkinitrd.sh" -k cloud -m hv_vmbus -m hv_utils -m 'hv_balloon pressure_report_delay=2' \
        -f "$BATS_FILE_TMPDIR/touchall:bin/touchall" "$HV_INITRD" >&2
    export HV_INITRD
    hvctl host set --vm-memory 2300M --balancer-delay 5s -q
    FREE_BEFORE=$(hvctl host show -o json | jq .memory.free)
    export FREE_BEFORE
    for vm in heavy light idle; do
        hvctl create $vm --memory 640M --min 256M --max 2G --kernel "$KERNEL" --initrd "$HV_INITRD" --cmdline 'console=ttyS0 quiet nokaslr' -q
    done
    hvctl memory set heavy --priority 100 --demand-source commit -q
    hvctl memory set light --priority 25 --demand-source commit -q
    hvctl memory set idle --buffer 100 -q
    hvctl start heavy light idle -q
}

teardown_file() { stop_service; }

# get VM KEY: of `memory show`. mib VM KEY: the same in MiB.
get() { hvctl memory show "$1" -o json | jq -r ".memory.$2"; }
mib() { hvctl memory show "$1" -o json | jq -r ".memory.$2 / 1048576 | floor"; }
has_below() { local v; v=$(get "$1" assigned); [ "$v" -lt $(($2 << 20)) ]; }
has_above() { local v; v=$(get "$1" assigned); [ "$v" -gt $(($2 << 20)) ]; }
status_is() { [ "$(get "$1" status)" = "$2" ]; }
says() { [ "$(hvctl memory show "$1" -o json | jq -r "\"\(.memory.status) \(.memory.why)\"")" = "$2" ]; }
# commit VM MIB: programs in it reserve so much, 150 MiB each, and use none of it.
commit() {
    hvctl console "$1" --no-history --timeout 60s --send \
        "mkfifo /f; sleep 9999 >/f & for i in \$(seq $(($2 / 150))); do dd if=/f of=/dev/null bs=150M 2>/dev/null & done; sleep 0.5; echo reserv\"\"ed" --until reserved </dev/null >/dev/null
}
no_oom() {
    hvctl console "$1" --no-history --timeout 30s --send 'echo "killed $(dmesg | grep -c "Out of memory") times"' --until 'killed [0-9]+ ' </dev/null >"$BATS_TEST_TMPDIR/out"
    grep -q 'killed 0 times' "$BATS_TEST_TMPDIR/out"
}

@test "a guest that has just booted is left alone, and the list says so" {
    until_true 10 says idle "null boot"
    run -0 hvctl memory list --no-header -c name,assigned,why
    [[ $output =~ idle\ +640M\ +boot ]]
    for vm in heavy light idle; do
        hvctl console $vm --until 'demo:~# ' --timeout 120s </dev/null >/dev/null
    done
}

@test "idle guests report, are OK, and give memory back" {
    for vm in heavy light; do until_true 60 has_below $vm 600; done
    for vm in heavy light idle; do until_true 20 status_is $vm ok; done
    [ "$(mib idle demand)" -gt 100 ]
    [ "$(get light ballooned)" -gt 0 ]
    [ "$(get light last_move.op)" = balloon ]
    [ "$(get light last_move.bytes)" -lt 0 ]
}

# touch VM TIMES: its kernel reads all of its memory, whoever has it now.
touch_all() {
    hvctl console "$1" --no-history --timeout 60s --send "touchall 16 640 $2 >/touched 2>&1 & echo star\"\"ted" --until started </dev/null >/dev/null
}
holds_no_more() { [ "$(get "$1" resident)" -le $(($(get "$1" assigned) + (16 << 20))) ]; }

@test "memory that was given back and is used has that taken again; a guest that goes on is paused" {
    until_true 60 has_below light 560
    touch_all light 1
    told() { timeout 3 hvctl events light --since 5m -o jsonl | grep -q "the guest used memory that it had given back: it was taken again"; }
    until_true 30 told
    until_true 30 holds_no_more light
    [ "$(hvctl show light -o json | jq -r .state)" = running ]      # once is what a dump does
    touch_all light 100000
    paused() { [ "$(hvctl show light -o json | jq -r .state)" = paused ]; }
    until_true 60 paused
    output=$(timeout 3 hvctl events light --since 5m -o jsonl || true)
    [[ $output == *"paused: the guest keeps using memory that it gave back"*"hvctl resume VM"* ]]
    until_true 10 holds_no_more light                               # paused it keeps nothing of it
    # Put right in the guest, it goes on.
    hvctl resume light -q
    hvctl console light --no-history --timeout 60s --send 'killall -9 touchall; echo qui""et' --until quiet </dev/null >/dev/null
    [ "$(hvctl show light -o json | jq -r .state)" != off ]
    hvctl resume light -q || true                                   # it may have been quicker
    until_true 20 holds_no_more light
    [ "$(hvctl show light -o json | jq -r .state)" = running ]
    no_oom light
}

# Whose share is not bound by its floor or its need has it by its weight, to a block of 128 MiB.
shared_4_to_1() {
    local heavy light
    heavy=$(mib heavy assigned) light=$(mib light assigned)
    [ $((heavy - 4 * light)) -le 144 ] && [ $((4 * light - heavy)) -le 144 ]
}

@test "two that want more than there is share by weight: 10000 and 2500 are 4 to 1" {
    commit heavy 2400
    commit light 1200
    until_true 90 shared_4_to_1
    sleep 3
    shared_4_to_1                                   # and stays
    for vm in heavy light; do
        [ "$(mib $vm demand)" -gt "$(mib $vm assigned)" ]               # not at its need...
        [ "$(mib $vm assigned)" -gt $(($(mib $vm assigned) - $(mib $vm guest.available) + 120)) ]   # ...nor at its floor
    done
}

@test "buffers go first: the idle guest keeps what it needs, all three say host" {
    until_true 30 says heavy "warning host"
    until_true 30 says light "warning host"
    until_true 30 says idle "low host"
    [ "$(mib idle assigned)" -ge "$(mib idle demand)" ]
    [ "$(get idle buffer_now_pct)" -lt 60 ]
    run -0 hvctl list --no-header -c name,status
    [[ $output =~ heavy\ +Warning && $output =~ idle\ +Low ]]
}

@test "what all VMs hold stays within what they may have together" {
    sum=0
    for vm in heavy light idle; do sum=$((sum + $(get $vm assigned))); done
    [ "$sum" -le $((2300 << 20)) ]
    run -0 hvctl host show -o json
    [ "$(jq .memory.charged <<<"$output")" -ge "$sum" ]
    [ "$(jq '.memory.charged + .memory.free + .memory.overhead' <<<"$output")" -le $((2300 << 20)) ]
}

@test "hvd is killed: guests keep what they have, and the next one goes on balancing" {
    had=$(get heavy assigned)
    kill_service
    sleep "$([ -z "${HV_SLOW:-}" ] && echo 2 || echo 60)"
    serve
    until_true 30 hvctl memory show heavy
    until_true 30 says heavy "warning host"
    [ "$(get heavy assigned)" -ge $((had - (128 << 20))) ]
}

@test "a load goes and another comes: it is met from what the first had, and nothing is killed in a guest" {
    hvctl console heavy --no-history --timeout 30s --send 'killall dd sleep; echo fre""e' --until free </dev/null >/dev/null
    hvctl console light --no-history --timeout 30s --send 'killall dd sleep; echo fre""e' --until free </dev/null >/dev/null
    hvctl memory set idle --buffer 20 -q
    until_true 60 status_is idle ok
    hvctl console idle --no-history --timeout 180s --send \
        'mkdir -p /big; mount -t tmpfs -o size=2G none /big; for i in 1 2 3 4 5 6; do dd if=/dev/zero of=/big/$i bs=1M count=80 2>/dev/null; sleep 1; done; echo load is"" on' --until 'load is on' </dev/null
    until_true 60 has_above idle 700
    until_true 60 status_is idle ok
    [ "$(mib idle demand)" -gt 600 ]
    for vm in heavy light idle; do no_oom $vm; done
}

@test "hot-added memory that the guest does not put online is noticed, said, and not repeated" {
    hvctl stop heavy light idle --turn-off --yes -q
    hvctl create offline --memory 640M --min 256M --max 2G --kernel "$KERNEL" --initrd "$HV_INITRD" --cmdline 'console=ttyS0 quiet memhp_default_state=offline' -q
    hvctl memory set offline --demand-source commit -q
    hvctl start offline -q
    hvctl console offline --until 'demo:~# ' --timeout 120s </dev/null >/dev/null
    until_true 60 status_is offline ok
    commit offline 1200
    until_true 60 says offline "warning guest"
    [ "$(get offline can_hot_add)" = false ]
    had=$(get offline assigned)
    output=$(timeout 3 hvctl events offline --since 5m -o jsonl || true)
    [[ $output == *"does not put them online"* ]]
    [[ $output == *"memhp_default_state=online"* ]]
    sleep 3
    [ "$(get offline assigned)" = "$had" ]
    no_oom offline
    hvctl stop offline --turn-off --yes -q
}

@test "with all off, the host has its memory back" {
    run -0 hvctl host show -o json
    [ "$(jq .memory.charged <<<"$output")" = 0 ]
    free=$(jq .memory.free <<<"$output")
    [ "$free" -ge $((FREE_BEFORE / 100 * 99)) ]
}

@test "a start that does not fit is refused with the numbers" {
    hvctl create big --memory 6G --kernel "$KERNEL" -q
    run -8 --separate-stderr hvctl start big
    [[ $stderr =~ "it needs 6.0G to start, this host has" ]]
    hvctl remove big --yes -q
}

@test "limits of the host are shown, and default takes them away" {
    run -0 hvctl host show -c vm_memory --no-header -o csv
    [[ $output =~ 2411724800 ]]
    hvctl host set --vm-memory default -q
    run -0 hvctl host show -c vm_memory --no-header -o csv
    [[ $output =~ ^0 ]]
    run -2 --separate-stderr hvctl host set
    [[ $stderr =~ "nothing to change" ]]
}

@test "the balancer's switch and delay and the metrics address are checked, stored and shown" {
    run -0 hvctl host show -o json
    [ "$(jq -c '[.balancer_on, .balancer_delay_ms, .metrics]' <<<"$output")" = '[true,5000,"127.0.0.1:9177"]' ]
    hvctl host set --balancer off --balancer-delay 7s --metrics '[::1]:9200' -q
    run -0 hvctl host show -o json
    [ "$(jq -c '[.balancer_on, .balancer_delay_ms, .metrics]' <<<"$output")" = '[false,7000,"[::1]:9200"]' ]
    [ "$(jq -r .metrics "$XDG_STATE_HOME/hv/host.json")" = '[::1]:9200' ]
    for bad in localhost:1 1.2.3.4 1.2.3.4:70000 :80 '[::1:80'; do
        run -2 --separate-stderr hvctl host set --metrics "$bad"
        [[ $stderr =~ "is no address to listen at" ]]
    done
    hvctl host set --balancer on --balancer-delay default --metrics off -q
    run -0 hvctl host show -o json
    [ "$(jq -c '[.balancer_on, .balancer_delay_ms, .metrics]' <<<"$output")" = '[true,60000,null]' ]
}
