#!/usr/bin/env bats
# What the service does through the guest's own Hyper-V drivers: shutdown, and memory by hand.

load helper

setup_file() {
    start_service
    need_guest
    tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils -m hv_balloon "$BATS_FILE_TMPDIR/initrd-vmbus"
}
teardown_file() { stop_service; }
teardown() { no_vms; }

boot_vm() {
    hvctl create "$1" -q --memory 512M --kernel "$KERNEL" --initrd "${2:-$BATS_FILE_TMPDIR/initrd-vmbus}" \
        --cmdline 'console=ttyS0 quiet memhp_default_state=online'
    hvctl start "$1" -q --wait=console:demo -t 60s
}

# Wait until a value of the VM's run-time state is as given: field FILTER VALUE.
reaches() {
    for _ in $(seq 200); do
        [ "$(hvctl show vm1 -o json | jq -r "$1")" = "$2" ] && return 0
        sleep 0.2
    done
    hvctl show vm1 -o json
    return 1
}

@test "memory set --startup moves the memory of a running guest; stop asks its shutdown service" {
    boot_vm vm1
    reaches .memory.driver true        # reports come once a second
    run -9 --separate-stderr hvctl wait vm1 --for memory-ok
    expect_error "hvctl: vm1: its memory is static, which has no status"
    run -0 --separate-stderr hvctl memory set vm1 --startup 384M
    reaches .memory.assigned $((384 << 20))
    run -0 --separate-stderr hvctl memory set vm1 --startup 1G
    reaches .memory.assigned $((1 << 30))
    run -0 hvctl console vm1 --send 'awk "/MemTotal/ {print \"to\" \"tal\", (\$2 > 900000)}" /proc/meminfo' --until 'total 1' -t 20s
    run -0 hvctl console vm1 --send 'killall acpid; echo dea""f' --until deaf -t 20s
    run -0 hvctl stop vm1 -t 60s
}

@test "memory set --startup of a guest without the driver waits for the next start" {
    boot_vm vm1 "$INITRD"
    run -0 --separate-stderr hvctl memory set vm1 --startup 384M
    [[ "$output$stderr" == *"next start"* ]]
    [ "$(hvctl show vm1 -o json | jq .memory.assigned)" = $((512 << 20)) ]
}
