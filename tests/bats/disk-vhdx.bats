#!/usr/bin/env bats
# VHDX through vhdtool: made, looked at, changed, damaged; with qemu-img as an independent reader.

load helper

setup() {
    cd "$BATS_TEST_TMPDIR"
    # 64 MiB with data at its start, in the middle, and in the last sector.
    truncate -s 64M r.raw
    head -c 5000000 /dev/urandom | dd of=r.raw bs=1M conv=notrunc status=none iflag=fullblock
    head -c 1000000 /dev/urandom | dd of=r.raw bs=1M seek=33 conv=notrunc status=none iflag=fullblock
    head -c 512 /dev/urandom | dd of=r.raw bs=512 seek=131071 conv=notrunc status=none
}

qemu_sees() {
    qemu-img check -q -f vhdx "$1"
    qemu-img compare -q -f vhdx -F raw "$1" "${2:-r.raw}"
}

# Bytes at an offset of a file.
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

@test "vhdx: every type and block size, read by qemu-img and back" {
    for how in "--type dynamic" "--type dynamic --block-size 1M" "--type fixed --block-size 2M" "--block-size 256M"; do
        rm -f d.vhdx back.raw
        run -0 vhdtool create d.vhdx --from r.raw $how
        qemu_sees d.vhdx
        run -0 vhdtool check d.vhdx
        run -0 vhdtool convert d.vhdx back.raw
        cmp r.raw back.raw
    done
    [ "$(stat -c %s d.vhdx)" -gt $((256 << 20)) ]
    for how in subformat=dynamic,block_size=1M subformat=dynamic,block_size=64M subformat=fixed; do
        rm -f q.vhdx
        qemu-img convert -f raw -O vhdx -o "$how" r.raw q.vhdx
        run -0 vhdtool check q.vhdx
        vhdtool convert q.vhdx - | cmp - r.raw
    done
}

@test "vhdx: info of an empty 64T disk" {
    run -0 vhdtool create h.vhdx --size 64T --block-size 1M
    [ "$(stat -c %b h.vhdx)" -lt 2048 ]
    run -0 vhdtool info h.vhdx -o json
    [ "$(jq -r '.size, .block_size, .logical_sector, .physical_sector' <<<"$output" | paste -sd' ')" = "$((64 << 40)) $((1 << 20)) 512 4096" ]
    run -0 vhdtool check h.vhdx
}

@test "vhdx: grown beyond its BAT and compacted, the content stays" {
    run -0 vhdtool create d.vhdx --from r.raw --block-size 1M
    run -0 vhdtool resize d.vhdx 300G
    run -0 vhdtool check d.vhdx
    run -0 vhdtool compact d.vhdx
    qemu-img check -q -f vhdx d.vhdx
    [ "$(qemu-img info -f vhdx d.vhdx --output json | jq '."virtual-size"')" = $((300 << 30)) ]
    run -0 vhdtool convert d.vhdx back.raw
    [ "$(stat -c %s back.raw)" = $((300 << 30)) ]
    [ "$(stat -c %b back.raw)" -lt 20000 ]
    cmp -n $((64 << 20)) back.raw r.raw
    run -0 vhdtool check d.vhdx
    [ "$(stat -c %s d.vhdx)" -le $((16 << 20)) ]
}

@test "vhdx: damage is named with exit 11, and repaired" {
    run -0 vhdtool create d.vhdx --from r.raw --block-size 1M
    # Block 3 where block 1 is; a state that there is not; the first region table.
    dd if=d.vhdx of=d.vhdx bs=8 skip=$(((3 << 20) / 8 + 1)) seek=$(((3 << 20) / 8 + 10)) count=1 conv=notrunc status=none
    poke d.vhdx $(((3 << 20) + 20 * 8)) '\5'
    poke d.vhdx $(((192 << 10) + 30)) 'x'
    cp d.vhdx before.vhdx
    run -11 --separate-stderr vhdtool check d.vhdx
    [[ $output$stderr == *"block 10 (sectors 20480 to 22527) and block 1 (sectors 2048 to 4095) both at"* ]]
    [[ $output$stderr == *"block 20 (sectors 40960 to 43007): there is no state 5"* ]]
    [[ $output$stderr == *"region table 1: wrong checksum"* ]]
    cmp d.vhdx before.vhdx
    run -0 vhdtool repair d.vhdx
    run -0 vhdtool check d.vhdx
    qemu-img check -q -f vhdx d.vhdx
}

@test "vhdx: a chain, re-parented, is what it was" {
    run -0 vhdtool create base.vhdx --from r.raw
    run -0 vhdtool create child.vhdx --parent base.vhdx
    vhdtool convert child.vhdx - --flatten | cmp - r.raw
    mkdir sub
    mv base.vhdx sub/
    run -3 vhdtool convert child.vhdx x.raw --flatten
    run -0 vhdtool chain child.vhdx --set-parent sub/base.vhdx
    vhdtool convert child.vhdx - --flatten | cmp - r.raw
    run -0 vhdtool check child.vhdx
}
