#!/usr/bin/env bats
# The nouns integration and guest, the guest's conditions of vm wait, restarts and crashes, with
# Debian's own hyperv-daemons in the guest.

load helper

setup_file() {
    export HV_GUEST_PATIENCE_MS=500
    start_service
    need_guest
    tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils -m hv_storvsc -m sd_mod -m ext4 -m dummy -D "$BATS_FILE_TMPDIR/initrd-daemons" >&2
}
teardown_file() { stop_service; }
teardown() { no_vms; }

boot_vm() {
    vhdtool create -q "$BATS_TEST_TMPDIR/disk.vhdx" --size 64M
    hvctl create "$1" -q --memory 512M --disk "$BATS_TEST_TMPDIR/disk.vhdx" --kernel "$KERNEL" --initrd "$BATS_FILE_TMPDIR/initrd-daemons" \
        --cmdline 'console=ttyS0 quiet panic=1'
    hvctl start "$1" -q --wait=heartbeat -t 60s
}

# typed TEXT UNTIL: at the guest's prompt.
typed() { hvctl console vm1 --send "$1" --until "$2" -t 30s; }

# happened TEXT: the event with it, as JSON; waits for it.
happened() {
    local i event
    for i in $(seq 60); do
        event=$(hvctl events vm1 --since 1h -o jsonl -t 0.3s 2>/dev/null | grep -m 1 "$1") && break
    done
    echo "$event"
    [ -n "$event" ]
}

@test "guest: what is not running, not there or not named" {
    hvctl create vm1 -q --memory 512M --kernel "$(some_kernel)"
    run -4 --separate-stderr hvctl guest show vm1
    expect_error "hvctl: vm1: it is off" "hvctl start vm1"
    run -4 --separate-stderr hvctl guest copy /etc/hostname vm1:/x
    run -4 --separate-stderr hvctl guest freeze vm1
    run -4 hvctl wait vm1 --for ip
    for what in port:22 saved; do
        run -9 --separate-stderr hvctl wait vm1 --for $what
        expect_error "hvctl: --for $what: not in this version" "man hv-from-hyperv"
    done
    run -2 --separate-stderr hvctl wait vm1 --for happiness
    expect_error "hvctl: --for happiness: there is no such condition" "running, off, paused, heartbeat, ip, kvp:KEY, kvp:KEY=VALUE, memory-ok, console:TEXT"
    run -0 hvctl wait vm1 --for off
    run -3 --separate-stderr hvctl guest show nobody
    [[ $stderr == "hvctl: nobody: no such VM"* ]]
    run -3 hvctl integration list nobody
    run -2 --separate-stderr hvctl guest copy /etc/hostname vm1
    expect_error "hvctl: vm1: it has to be VM:PATH, with an absolute path in the guest" "hvctl guest copy /etc/hostname web1:/root/"
    run -2 --separate-stderr hvctl guest kvp set vm1 color
    expect_error "hvctl: 'guest kvp set' needs a value" "hvctl guest kvp set VM KEY VALUE"
    run -2 hvctl guest kvp remove vm1
    run -2 hvctl guest kvp list vm1
    run -3 hvctl guest copy /nonexistent vm1:/x
    run -2 hvctl integration enable vm1 telepathy
    run -0 hvctl integration list vm1 -o csv
    [ "${lines[0]}" = service,enabled,status,version ]
    [ "${lines[4]}" = kvp,on,, ] || [ "${lines[4]}" = kvp,true,, ]
    hvctl set vm1 -q --hyperv off
}

@test "guest: without daemons the answer is immediate, with the cure; with them everything works; a crash is told" {
    boot_vm vm1
    for what in "show vm1" "kvp get vm1" "kvp set vm1 a b"; do
        run -9 --separate-stderr hvctl guest $what
        expect_error "hvctl: vm1: no key-value daemon in the guest" "apt install hyperv-daemons there"
    done
    run -9 --separate-stderr hvctl wait vm1 --for ip
    expect_error "hvctl: vm1: no key-value daemon in the guest" "apt install hyperv-daemons there"
    run -9 --separate-stderr hvctl guest copy /etc/hostname vm1:/root/
    expect_error "hvctl: vm1: no file copy daemon in the guest" "apt install hyperv-daemons there"
    run -9 --separate-stderr hvctl guest freeze vm1
    expect_error "hvctl: vm1: no freeze daemon in the guest" "apt install hyperv-daemons there"
    run -0 --separate-stderr hvctl guest thaw vm1
    [ "$stderr" = "vm1: not frozen" ]

    typed 'ip addr add 10.9.8.7/24 dev dummy0; ip link set dummy0 up; daemons; echo sta""rted' started
    run -0 hvctl wait vm1 --for ip -t 30s
    run -0 hvctl guest show vm1
    [[ $output == *"os:            Demo Linux"* ]]
    [ "$(hvctl guest show vm1 -o json | jq -r '.addresses[0]')" = 10.9.8.7 ]
    # What the guest finds: who and where it is.
    [ "$(hvctl guest kvp get vm1 VirtualMachineName)" = vm1 ]

    run -0 hvctl guest kvp set vm1 color "dark blue"
    [ "$(hvctl guest kvp get vm1 color)" = "dark blue" ]
    run -0 hvctl wait vm1 --for "kvp:color=dark blue" -t 30s
    run -7 hvctl wait vm1 --for kvp:color=red -t 1s
    typed 'tr -d "\000" </var/lib/hyperv/.kvp_pool_0; echo' 'colordark blue'
    run -3 --separate-stderr hvctl guest kvp get vm1 colour
    expect_error "hvctl: colour: there is no such key in vm1" color
    run -0 hvctl guest kvp remove vm1 color
    run -3 hvctl guest kvp remove vm1 color

    head -c 100000 /dev/urandom >"$BATS_TEST_TMPDIR/data"
    run -0 --separate-stderr hvctl guest copy "$BATS_TEST_TMPDIR/data" vm1:/root/new/ --parents
    [[ $stderr == "vm1: /root/new/data copied ("* ]]
    typed 'md5sum /root/new/data' "$(md5sum <"$BATS_TEST_TMPDIR/data" | cut -d' ' -f1)"
    # Files of the kernel's, which say they have no size, or a page.
    run -0 hvctl guest copy /proc/version vm1:/root/version
    typed 'md5sum /root/version' "$(md5sum </proc/version | cut -d' ' -f1)"
    run -0 hvctl guest copy /sys/kernel/mm/transparent_hugepage/enabled vm1:/root/thp
    typed 'md5sum /root/thp' "$(md5sum </sys/kernel/mm/transparent_hugepage/enabled | cut -d' ' -f1)"
    run -4 --separate-stderr hvctl guest copy "$BATS_TEST_TMPDIR/data" vm1:/root/new/data
    expect_error "hvctl: /root/new/data: it exists in the guest" --overwrite
    run -0 hvctl guest copy "$BATS_TEST_TMPDIR/data" vm1:/root/new/data --overwrite
    run -1 --separate-stderr hvctl guest copy "$BATS_TEST_TMPDIR/data" vm1:/no/where
    run -0 hvctl job wait "$(hvctl guest copy "$BATS_TEST_TMPDIR/data" vm1:/tmp/ --no-wait)"
    # Cancelled in the middle: the job says so, the guest keeps nothing, and the next copy arrives.
    truncate -s 1G "$BATS_TEST_TMPDIR/long"
    job=$(hvctl guest copy "$BATS_TEST_TMPDIR/long" vm1:/root/long --no-wait)
    # While it lasts the VM does what else it is asked: its console answers, it pauses and goes on.
    typed 'while [ ! -s /root/long ]; do sleep 0.05; done; echo beg""un' begun
    run -0 hvctl pause vm1
    run -0 hvctl resume vm1
    run -4 --separate-stderr hvctl guest copy "$BATS_TEST_TMPDIR/data" vm1:/tmp/two
    expect_error "hvctl: vm1: its file copy daemon has something else to do"
    run -0 --separate-stderr hvctl job cancel "$job"
    [ "$stderr" = "job $job: cancelled" ]
    run -1 --separate-stderr hvctl job wait "$job"
    [[ $stderr == "hvctl: vm1: the job was cancelled: nothing of the file stays in the guest"* ]]
    typed '[ -e /root/long ] || echo go""ne' gone
    run -0 hvctl guest copy "$BATS_TEST_TMPDIR/data" vm1:/root/after
    typed 'md5sum /root/after' "$(md5sum <"$BATS_TEST_TMPDIR/data" | cut -d' ' -f1)"

    typed 'mke2fs /dev/sda >/dev/null 2>&1; mkdir /d; mount -t ext4 /dev/sda /d && echo mount""ed' mounted
    run -0 --separate-stderr hvctl guest freeze vm1
    [ "$stderr" = "vm1: frozen, for 10 minutes at most" ]
    typed '(echo x >/d/y; echo writ""ten) & sleep 0.5; [ -s /d/y ] || echo no""thing' nothing
    run -0 --separate-stderr hvctl guest freeze vm1
    [ "$stderr" = "vm1: already frozen" ]
    run -0 --separate-stderr hvctl guest thaw vm1
    [ "$stderr" = "vm1: thawed" ]
    typed 'cat /d/y' '^x'

    # A service that is taken away is gone at once, and comes back.
    run -0 --separate-stderr hvctl integration disable vm1 kvp
    [ "$stderr" = "vm1: kvp disabled" ]
    run -4 --separate-stderr hvctl guest show vm1
    expect_error "hvctl: vm1: its service kvp is off" "hvctl integration enable vm1 kvp"
    run -0 hvctl integration list vm1 -F service=kvp --no-header
    [[ $output == "kvp"*"off"* ]]
    run -0 hvctl integration enable vm1 kvp
    typed 'while ! daemons kvp; do sleep 0.1; done; echo ag""ain' again
    local i
    for i in $(seq 50); do          # it is there in a moment, and until then it is not
        run --separate-stderr hvctl wait vm1 --for kvp:OSName -t 30s
        [ "$status" -ne 9 ] && break
        sleep 0.1
    done
    [ "$status" -eq 0 ]

    # A crash is an event with what the guest said; the guest comes back, and restarts when it is asked to.
    typed 'echo c >/proc/sysrq-trigger' sysrq
    crash=$(happened 'kernel crashed')
    [ "$(jq -r .severity <<<"$crash")" = error ]
    [ "$(jq -r .message <<<"$crash")" = "the guest's kernel crashed: Kernel panic - not syncing: sysrq triggered crash" ]
    [ "$(jq '.data.parameters | length' <<<"$crash")" = 5 ]
    [[ "$(jq -r .data.log <<<"$crash")" == *"sysrq: Trigger a crash"* ]]
    run -0 hvctl wait vm1 --for heartbeat -t 30s
    run -0 --separate-stderr hvctl restart vm1 --wait=heartbeat -t 60s
    [[ $stderr == *"vm1: restarted"* ]]
    [ "$(hvctl show vm1 -o json | jq .resets)" -ge 2 ]
    run -0 hvctl stop vm1 --force -t 60s
}
