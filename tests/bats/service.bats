#!/usr/bin/env bats
# What an administrator trusts the service with: VMs outlive it, nothing is lost, races end well.

load helper

setup_file() {
    start_service
    need_guest
}
teardown_file() { stop_service; }
teardown() { no_vms; }

# Create and boot a small VM up to its prompt.
boot_vm() {
    hvctl create "$1" -q --memory 128M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet'
    hvctl start "$1" -q --wait=console:demo -t 60s
}

# How many workers of this build serve a VM of that name.
workers() { pgrep -f "^$(readlink -f "$BIN")/hv-worker .*--name $1\$" | wc -l; }

worker_of() { hvctl show "$1" -o json | jq .pid; }

@test "a killed hvd leaves VMs running; the next one takes them over" {
    boot_vm web1
    worker=$(worker_of web1)
    kill -KILL "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" 2>/dev/null || true
    kill -0 "$worker"
    rm -f "$XDG_RUNTIME_DIR/hv/org.hv.Manager"
    start_service
    run -0 hvctl wait web1 --for running -t 10s
    [ "$(worker_of web1)" = "$worker" ]
    run -0 hvctl console web1 --send 'echo al""ive' --until alive -t 20s
    run -0 hvctl stop web1 -t 60s
}

@test "a console survives the end of the service" {
    boot_vm web1
    hvctl console web1 --no-history --until 'se''en' -t 30s >"$BATS_TEST_TMPDIR/out" 2>&1 &
    reader=$!
    until hvctl console web1 --read-only --no-history --until . -t 300ms >/dev/null 2>&1 || [ $? = 7 ]; do sleep 0.1; done
    kill -KILL "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    rm -f "$XDG_RUNTIME_DIR/hv/org.hv.Manager"
    start_service
    hvctl wait web1 --for running -q -t 10s
    kill -0 "$reader"
    hvctl console web1 --take-over --send 'echo s""een' --until 'seen' -t 20s
    wait "$reader"
}

@test "a killed worker: the VM is off and says why" {
    boot_vm web1
    kill -KILL "$(worker_of web1)"
    run -0 hvctl wait web1 --for off -t 10s
    run -0 hvctl show web1 -o json
    [ "$(jq -r .state <<<"$output")" = off ]
    [[ "$(jq -r .reason <<<"$output")" = *'killed by signal 9'* ]]
    run -0 hvctl start web1
}

@test "starts that race for one VM all succeed, with one worker" {
    hvctl create web1 -q --memory 128M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet'
    pids=()
    for _ in 1 2 3 4 5 6 7 8; do hvctl start web1 -q & pids+=($!); done
    for pid in "${pids[@]}"; do wait "$pid"; done
    [ "$(workers web1)" = 1 ]
}

@test "a start and a remove that race: one of them is told why not" {
    hvctl create web1 -q --memory 128M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet'
    hvctl start web1 -q &
    start=$!
    run hvctl remove web1 --yes
    remove=$status
    if wait "$start"; then started=0; else started=$?; fi
    [ "$started/$remove" = 0/4 ] || [ "$started/$remove" = 3/0 ]
}

@test "a damaged file of a VM is reported, kept, and keeps no other VM from loading" {
    hvctl create web1 -q --memory 128M
    kill "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" 2>/dev/null || true
    echo '<CIM' >"$XDG_STATE_HOME/hv/vms/00000000-0000-4000-8000-000000000000.xml"
    start_service
    [ "$(hvctl list -o name)" = web1 ]
    grep -q 'not loaded' "$BATS_FILE_TMPDIR/hvd.log"
    [ "$(cat "$XDG_STATE_HOME/hv/vms/00000000-0000-4000-8000-000000000000.xml")" = '<CIM' ]
    rm "$XDG_STATE_HOME/hv/vms/00000000-0000-4000-8000-000000000000.xml"
}

@test "a socket that somebody removed is made again" {
    hvctl create web1 -q --memory 128M
    pid=$(cat "$BATS_FILE_TMPDIR/hvd.pid")
    rm "$XDG_RUNTIME_DIR/hv/org.hv.Manager"
    until_true 30 test -S "$XDG_RUNTIME_DIR/hv/org.hv.Manager"
    [ "$(hvctl list -o name)" = web1 ]
    kill -0 "$pid"
    grep -q 'was removed; listening there again' "$BATS_FILE_TMPDIR/hvd.log"
}

@test "settings that cannot be stored change nothing" {
    [ "$(id -u)" = 0 ] || skip "needs to mount a full file system"
    hvctl create web1 -q --memory 128M
    mount -t tmpfs -o size=4k,mode=700 none "$XDG_STATE_HOME/hv/vms"
    head -c 4096 /dev/zero >"$XDG_STATE_HOME/hv/vms/full" || true
    run -8 --separate-stderr hvctl memory set web1 --startup 256M
    [[ "$stderr" = *'cannot store'* ]] || { umount "$XDG_STATE_HOME/hv/vms"; echo "$stderr"; false; }
    umount "$XDG_STATE_HOME/hv/vms"
    [ "$(hvctl list -o json | jq '.[0].memory.startup')" = $((128 << 20)) ]
}

@test "fifty starts and stops leak nothing in the service" {
    hvctl create web1 -q --memory 128M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet'
    pid=$(cat "$BATS_FILE_TMPDIR/hvd.pid")
    hvctl start web1 -q && hvctl stop web1 --turn-off -q --yes
    before=$(ls "/proc/$pid/fd" | wc -l)
    for _ in $(seq 50); do
        hvctl start web1 -q
        hvctl stop web1 --turn-off -q --yes
    done
    # The last client's connection is closed at the next turn.
    for _ in $(seq 100); do
        after=$(ls "/proc/$pid/fd" | wc -l)
        [ "$after" -gt "$before" ] || break
        sleep 0.1
    done
    [ "$after" -le "$before" ]
    [ "$(workers web1)" = 0 ]
}

@test "a closed stdout is an error, and never becomes the service's socket" {
    hvctl create web1 -q --memory 128M
    run -1 --separate-stderr bash -c 'hvctl list >&-'
    [[ "$stderr" = *'cannot write the output'* ]] || { echo "$stderr"; false; }
    run -0 hvctl list -o name
}

@test "a thousand VMs: all are listed, one is shown alone, and the service stays under 64 MiB" {
    hvctl create vm0 -q --memory 128M
    kill "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" 2>/dev/null || true
    local first id
    first=$(ls "$XDG_STATE_HOME/hv/vms/"*.xml)
    id=$(basename "$first" .xml)
    for i in $(seq 999); do
        new=${id%????}$(printf %04x "$i")
        [ "$new" != "$id" ] || continue
        sed "s/$id/$new/Ig; s/>vm0</>vm$i</" "$first" >"$XDG_STATE_HOME/hv/vms/$new.xml"
    done
    start_service
    [ "$(hvctl list -o name | wc -l)" -ge 999 ]
    [ "$(hvctl show vm500 -o json | jq -r .name)" = vm500 ]
    run -3 --separate-stderr hvctl show vm5000
    [[ "$stderr" = *'no such VM'* ]]
    # All of them as one document, and back.
    hvctl get --all -o xml >"$BATS_TEST_TMPDIR/all.xml"
    [ "$(stat -c %s "$BATS_TEST_TMPDIR/all.xml")" -gt $((4 << 20)) ]
    run -0 --separate-stderr hvctl apply -f "$BATS_TEST_TMPDIR/all.xml"
    [ "$(grep -c ' unchanged$' <<<"$output")" -ge 999 ]
    rss=$(awk '/VmRSS/ { print $2 }' "/proc/$(cat "$BATS_FILE_TMPDIR/hvd.pid")/status")
    echo "$rss kB"
    [ "$rss" -lt 65536 ]
    head -c 17M /dev/zero | tr '\0' ' ' >>"$BATS_TEST_TMPDIR/all.xml"
    run -2 --separate-stderr hvctl apply -f "$BATS_TEST_TMPDIR/all.xml"
    [[ "$stderr" = *'more than 16 MiB'* ]]
}

@test "64 clients racing for one VM: each is answered, the VM and its job list are whole" {
    hvctl create web1 -q --memory 128M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet'
    pids=()
    for i in $(seq 64); do
        case $((i % 6)) in
        0) hvctl start web1 -q -t 60s & ;;
        1) hvctl stop web1 --turn-off --yes -q -t 60s & ;;
        2) hvctl vm set web1 --notes "note $i" -q & ;;
        3) hvctl pause web1 -q -t 60s & ;;
        4) hvctl resume web1 -q -t 60s & ;;
        5) hvctl show web1 -o json & ;;
        esac >/dev/null 2>&1
        pids+=($!)
    done
    # Done, or a reason: it is off, paused, stopping. Never a lost service or a wait without end.
    for pid in "${pids[@]}"; do
        code=0
        wait "$pid" || code=$?
        case $code in 0 | 1 | 4) ;; *) echo "exit $code"; return 1 ;; esac
    done
    hvctl job list -o json | jq -e 'all(.state != "running")'
    hvctl stop web1 --turn-off --yes -q
    hvctl start web1 -q --wait=console:demo -t 60s
    [ "$(workers web1)" = 1 ]
}
