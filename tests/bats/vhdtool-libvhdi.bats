#!/usr/bin/env bats
# Our chains as libvhdi reads them: every level by its hash, beside what vhdtool makes of it.
#
# Its defects, and how the disks here stay clear of them:
#   - VHD, differencing: of a byte of the sector bitmap that is set in part only, sectors are lost.
#     Writes here are 4 KiB at multiples of 4 KiB: 8 sectors, a whole byte.
#   - VHDX: a block that is "zero" in a child shows the parent. Nothing is zeroed or discarded here;
#     qemu-img and the unit tests look at that.
#   - Absolute paths of parents are looked for below the child's folder as that was typed: it is run there.
#   - VHDX: a log that waits to be replayed is ignored. All disks here were closed.

load helper

setup_file() {
    command -v vhdimount >/dev/null || skip "no libvhdi (Debian: libvhdi-utils)"
    [ -r /dev/fuse ] && [ -w /dev/fuse ] || skip "no /dev/fuse"
    cd "$BATS_FILE_TMPDIR"
    export XDG_RUNTIME_DIR=$BATS_FILE_TMPDIR/run
    mkdir -m 700 run mnt
    truncate -s 20M r.raw
    head -c 4000001 /dev/urandom | dd of=r.raw conv=notrunc status=none
    head -c 300000 /dev/urandom | dd of=r.raw bs=1M seek=16 conv=notrunc status=none
    for kind in vhd vhdx; do
        vhdtool create -q "1.$kind" --from r.raw
        chain "$kind" 2
        chain "$kind" 3
    done
}

# Child N of N-1, with pages of its own spread over it, and a stretch at its end.
chain() {
    local dir=$BATS_FILE_TMPDIR/mnt i
    vhdtool create -q "$2.$1" --parent "$(($2 - 1)).$1"
    vhdtool mount "$2.$1" "$dir" --write >/dev/null
    for i in $(seq 1 20); do
        head -c 4096 /dev/urandom | dd of="$dir/disk.raw" bs=4096 seek=$((i * 431 * $2 % 5120)) conv=notrunc status=none
    done
    head -c 1M /dev/urandom | dd of="$dir/disk.raw" bs=1M seek=19 conv=notrunc status=none
    vhdtool unmount "$dir"
}

setup() {
    cd "$BATS_FILE_TMPDIR"
    mkdir -p theirs
}
teardown() { ! mountpoint -q theirs || umount theirs || fusermount3 -u theirs; }

sum() { sha256sum <"$1"; }

levels() { # KIND: vhdiN of the last child's mount is level N of the chain
    local i
    vhdtool check --chain "3.$1"
    vhdimount "3.$1" theirs
    for i in 1 2 3; do
        vhdtool convert -q --flatten "$i.$1" "$i.raw"
        echo "level $i"
        [ "$(sum "$i.raw")" = "$(sum "theirs/vhdi$i")" ]
        rm "$i.raw"
    done
}

@test "libvhdi: a chain of three VHDs, every level equal" { levels vhd; }
@test "libvhdi: a chain of three VHDXs, every level equal" { levels vhdx; }

@test "libvhdi: sizes, types and parents" {
    for kind in vhd vhdx; do
        run -0 vhdiinfo "3.$kind"
        grep -q 'Disk type.*Differential' <<<"$output"
        grep -q 'Media size.*(20971520 bytes)' <<<"$output"
        grep -qE "Parent filename.*2\.$kind" <<<"$output"
    done
    vhdtool convert -q r.raw f.vhd --type fixed
    run -0 vhdiinfo f.vhd
    grep -q 'Disk type.*Fixed' <<<"$output"
    vhdtool create -q 4k.vhdx --size 1G --logical-sector 4096
    run -0 vhdiinfo 4k.vhdx
    grep -q 'Bytes per sector.*4096' <<<"$output"
}

@test "libvhdi: a chain that was merged, and one that was moved" {
    for kind in vhd vhdx; do
        mkdir -p moved
        cp --sparse=always 1.$kind 2.$kind 3.$kind moved/
        vhdtool convert -q --flatten 3.$kind want.raw
        run -0 vhdtool chain moved/3.$kind --relocate moved
        (cd moved && vhdimount 3.$kind ../theirs)
        [ "$(sum want.raw)" = "$(sum theirs/vhdi3)" ]
        umount theirs || fusermount3 -u theirs
        run -0 vhdtool merge moved/3.$kind --yes
        (cd moved && vhdimount 2.$kind ../theirs)
        [ "$(sum want.raw)" = "$(sum theirs/vhdi2)" ]
        umount theirs || fusermount3 -u theirs
        rm -rf moved want.raw
    done
}
