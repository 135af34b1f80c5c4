#!/usr/bin/env bats
# Restarts of guests that have less than they boot with, and smart paging: with workers without
# guests (tests/tools/fake_worker.c), which check the file that hvd hands them, and with a stock
# Debian guest, which checks its memory.
load helper

setup_file() {
    start_fake_service
    : >"$BATS_FILE_TMPDIR/kernel"
    hvctl host set --balancer-delay 0s -q
}

teardown_file() { stop_service; }

setup() { hvctl host set --vm-memory 2G -q; }

teardown() {
    hvctl stop --all --turn-off --yes -q
    local name
    for name in $(hvctl list -o name); do hvctl remove "$name" --yes -q; done
}

get() { hvctl memory show "$1" -o json | jq -r ".memory.$2"; }
mib() { hvctl memory show "$1" -o json | jq -r ".memory.$2 / 1048576 | floor"; }
is() { [ "$(get "$1" "$2")" = "$3" ]; }
off() { [ "$(hvctl show "$1" -o json | jq -r .state)" = off ]; }
trouble() { hvctl memory list -c +target,+paged; timeout 2 hvctl events --since 2m; }
at_most() { [ "$(mib "$1" assigned)" -le "$2" ]; }
ledger_holds() { hvctl host show -o json | jq -e '.memory | .charged + .free + .overhead <= '$((2 << 30)); }
event() { timeout 2 hvctl events "$1" --since 5m -o jsonl | grep -q "$2"; }

# squeezed [OPTIONS OF memory set]: vm1, which boots with 1G, has 640M at most, and nothing is free but about 128M.
squeezed() {
    hvctl create vm1 --memory 1G --min 256M --max 1G --kernel "$BATS_FILE_TMPDIR/kernel" --notes 'used=300' -q
    [ $# -eq 0 ] || hvctl memory set vm1 "$@" -q
    hvctl start vm1 -q
    until_true 10 is vm1 status ok
    hvctl host set --vm-memory 700M -q
    until_true 20 at_most vm1 640
    hvctl host set --vm-memory 2G -q
    hvctl create full --memory 1200M --kernel "$BATS_FILE_TMPDIR/kernel" --notes 'used=1200 nodriver' -q
    hvctl start full -q
}
# Not one of every check: tests/check-slow.sh runs them all.
slow() { [ -n "${HV_SLOW:-}" ] || skip "HV_SLOW=1 runs it"; }
restart() { hvctl restart vm1 --reset --yes -q "$@"; }

@test "what others can give within seconds is given: no file is made" {
    slow
    hvctl create vm1 --memory 1G --min 256M --max 1G --kernel "$BATS_FILE_TMPDIR/kernel" --notes 'used=200' -q
    hvctl create giver --memory 768M --min 256M --max 2G --kernel "$BATS_FILE_TMPDIR/kernel" --notes 'used=300' -q
    hvctl start vm1 giver -q
    until_true 10 is vm1 status ok
    hvctl host set --vm-memory 1300M -q
    until_true 20 at_most vm1 640
    hvctl host set --vm-memory 2G -q
    hvctl memory set giver --demand-source commit -q
    hvctl vm set giver --notes 'used=300 commit=1100' -q
    until_true 20 sh -c '[ "$(hvctl memory show giver -o json | jq .memory.assigned)" -gt 1150000000 ]'
    restart
    [ "$(mib vm1 assigned)" = 1024 ]
    is vm1 paging_in_use false
    ledger_holds
    ! event vm1 'smart paging'
}

@test "a full host: it restarts with the rest on disk and is whole when memory comes free, also where hvd is killed" {
    squeezed
    hvctl vm set vm1 --notes 'used=1000 refuse' -q        # its balloon gives nothing
    restart --no-wait
    until_true 3 sh -c 'hvctl memory show vm1 -o json | jq -e ".memory.needs != null"'
    kill_service
    sleep 0.3
    serve
    is vm1 needs $((1 << 30))           # it waits still: nobody gave it what is not there
    until_true 15 is vm1 paging_in_use true
    until_true 5 is vm1 why host        # with the next plan
    [ "$(mib vm1 paged)" -gt 100 ]
    [ "$(mib vm1 assigned)" = 1024 ]
    [ "$(($(mib vm1 paged) + $(mib vm1 granted)))" = 1024 ]
    run -0 hvctl memory list --no-header -c name,paging_in_use,paged
    [[ $output =~ vm1\ +on\ +[0-9]+M ]]
    event vm1 'smart paging: it restarts with .* of its memory on disk'
    ledger_holds
    kill_service
    sleep 0.3
    serve
    sleep 1.2                           # the balancer takes nothing from it, and nothing is granted that is not there
    is vm1 paging_in_use true
    ledger_holds
    hvctl stop full --turn-off --yes -q
    until_true 10 is vm1 paging_in_use false
    is vm1 assigned $((1 << 30))
    until_true 5 event vm1 'smart paging is over'
    ledger_holds
}

@test "what its balloon gives makes room for what is on disk" {
    slow
    squeezed
    restart
    until_true 10 event vm1 'smart paging: it restarts'
    until_true 10 is vm1 paging_in_use false
    at_most vm1 800
    until_true 5 event vm1 'smart paging is over'
    ledger_holds
}

@test "after ten minutes it is paused, with an event" {
    slow
    squeezed
    hvctl vm set vm1 --notes 'used=1000 refuse old' -q
    restart
    is vm1 paging_in_use true
    [ "$(hvctl show vm1 -o json | jq -r .state)" = running ]
    kill_service        # the next one knows its age from the guest's
    sleep 0.5
    serve
    until_true 10 sh -c '[ "$(hvctl show vm1 -o json | jq -r .state)" = paused ]'
    event vm1 'on disk after 10 minutes of smart paging'
    hvctl resume vm1 -q
    sleep 1.5
    [ "$(hvctl show vm1 -o json | jq -r .state)" = running ]
}

# refused TEXT: the guest stays off, and list, event and the command that asked say why.
refused() {
    run -1 --separate-stderr hvctl restart vm1 --reset --yes
    [[ $stderr =~ "cannot restart: it needs 1.0G" && $stderr =~ $1 ]]
    until_true 5 off vm1
    [[ $(hvctl show vm1 -o json | jq -r .reason) =~ $1 ]]
    event vm1 'cannot restart: it needs 1.0G, this host has'
    hvctl start vm1 -q 2>/dev/null || true          # a cold start never pages
    off vm1
    hvctl remove vm1 --yes -q
}

@test "a folder that is not there: it stays off and says why" {
    squeezed --smart-paging "$BATS_TEST_TMPDIR/gone"
    refused 'No such file'
    event vm1 "$BATS_TEST_TMPDIR/gone"
}

@test "a folder that is none" {
    slow
    squeezed --smart-paging "$BATS_FILE_TMPDIR/kernel"
    refused 'Not a directory'
}

@test "a folder that is in memory itself" {
    slow
    [ "$(stat -f -c %T /dev/shm)" = tmpfs ] || skip "no tmpfs here"
    squeezed --smart-paging /dev/shm
    refused 'in memory itself'
}

@test "smart paging off: no restart without memory" {
    slow
    squeezed --smart-paging none
    refused 'smart paging is off'
}

@test "a folder without room or rights: it stays off and says why" {
    slow
    if [ "$(id -u)" != 0 ]; then
        mkdir -m 500 "$BATS_TEST_TMPDIR/shut"
        squeezed --smart-paging "$BATS_TEST_TMPDIR/shut"
        refused 'Permission denied'
        return
    fi
    truncate -s 16M "$BATS_TEST_TMPDIR/small"
    mke2fs -q -t ext4 "$BATS_TEST_TMPDIR/small"
    mkdir "$BATS_TEST_TMPDIR/mnt"
    mount -o loop "$BATS_TEST_TMPDIR/small" "$BATS_TEST_TMPDIR/mnt" || skip "no loop device here"
    squeezed --smart-paging "$BATS_TEST_TMPDIR/mnt"
    refused 'no room for the .* of smart paging' || { umount "$BATS_TEST_TMPDIR/mnt"; return 1; }
    [ "$(find "$BATS_TEST_TMPDIR/mnt" -name '.hv*' | wc -l)" = 0 ]
    umount "$BATS_TEST_TMPDIR/mnt"
}

@test "static memory, or a minimum that is the startup memory, never pages" {
    slow
    squeezed
    hvctl memory set vm1 --min 1G -q
    refused 'a minimum below startup'
}

@test "memory set --smart-paging: a folder, none, default, and what it refuses" {
    hvctl create vm1 --memory 1G --kernel "$BATS_FILE_TMPDIR/kernel" -q
    is vm1 smart_paging null
    cd "$BATS_TEST_TMPDIR"
    hvctl memory set vm1 --smart-paging here -q
    is vm1 smart_paging "$PWD/here"
    hvctl memory set vm1 --smart-paging none -q
    is vm1 smart_paging none
    hvctl get vm1 >vm1.xml
    hvctl memory set vm1 --smart-paging default -q
    is vm1 smart_paging null
    hvctl apply -q -f vm1.xml
    is vm1 smart_paging none
    run -2 --separate-stderr hvctl apply -f - <<<'{"vms": [{"name": "vm1", "memory": {"smart_paging": "here"}}]}'
    [[ $stderr =~ "is no absolute path of a folder for smart paging" ]]
}

@test "a stock guest on a full host: what it has in memory and on disk is as it wrote it" {
    slow
    need_guest
    end_service -TERM
    cp "$BIN/hv-worker" "$BATS_FILE_TMPDIR/bin/hv-worker.new"
    mv "$BATS_FILE_TMPDIR/bin/hv-worker.new" "$BATS_FILE_TMPDIR/bin/hv-worker"
    serve
    # Its driver is loaded by hand: after its restart it has none, and gives nothing back.
    balloon=$(find -L "${HV_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hv-tests}/modules-cloud" -name 'hv_balloon.ko')
    "$TOP/tests/guest/mkinitrd.sh" -k cloud -m hv_vmbus -m hv_utils -f "$balloon:/hv_balloon.ko" "$BATS_FILE_TMPDIR/initrd-paging" >&2
    hvctl create vm1 --memory 512M --min 128M --max 512M --kernel "$KERNEL" --initrd "$BATS_FILE_TMPDIR/initrd-paging" \
        --cmdline 'console=ttyS0 quiet' -q
    hvctl start vm1 -q
    hvctl console vm1 --until 'demo:~# ' --timeout 120s </dev/null >/dev/null
    hvctl console vm1 --no-history --timeout 60s --send 'insmod /hv_balloon.ko pressure_report_delay=1; echo load""ed' --until loaded </dev/null >/dev/null
    until_true 20 is vm1 status ok
    hvctl host set --vm-memory 350M -q
    until_true 40 at_most vm1 330
    hvctl host set --vm-memory 2G -q
    hvctl create full --memory 1600M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet rdinit=/bin/sh' -q
    hvctl start full -q
    restart
    is vm1 paging_in_use true
    [ "$(mib vm1 paged)" -gt 60 ]
    until_true 90 hvctl console vm1 --no-history --timeout 3s --send 'echo u""p' --until '^up' </dev/null
    # Two thirds of what it has, so that some of it lies on the file.
    sum() {
        hvctl console vm1 --no-history --timeout 100s --send 'md5sum /r; echo ""done' --until '^done' </dev/null | tr -d '\r' | grep -o '^[0-9a-f]\{32\}'
    }
    hvctl console vm1 --no-history --timeout 100s --send 'dd if=/dev/urandom of=/r bs=1M count=310; echo fil""led' --until filled </dev/null >/dev/null
    before=$(sum)
    [ "${#before}" = 32 ]
    is vm1 paging_in_use true
    [ "$(ls -l /proc/"$(hvctl show vm1 -o json | jq .pid)"/fd | grep -c 'vms/.*deleted')" = 1 ]
    hvctl stop full --turn-off --yes -q
    until_true 30 is vm1 paging_in_use false
    [ "$(ls -l /proc/"$(hvctl show vm1 -o json | jq .pid)"/fd | grep -c 'vms/.*deleted')" = 0 ]
    [ "$(sum)" = "$before" ]
    is vm1 assigned $((512 << 20))
}
