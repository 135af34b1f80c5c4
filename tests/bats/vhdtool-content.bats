#!/usr/bin/env bats
# vhdtool: what looks at, or changes, what is in a disk: resize, info --headers, diff --files, block devices.

load helper

setup_file() {
    cd "$BATS_FILE_TMPDIR"
    mkdir -p tree/etc tree/usr/share
    echo one >tree/etc/hostname
    head -c 300000 /dev/urandom >tree/usr/share/blob
    ln -s hostname tree/etc/link
    vhdtool build --from tree gpt.vhdx --size 256M
    vhdtool build --from tree mbr.vhdx --size 256M --layout mbr
    vhdtool build --from tree bare.vhdx --size 256M --layout none
}
setup() {
    cd "$BATS_TEST_TMPDIR"
    cp --sparse=always "$BATS_FILE_TMPDIR"/*.vhdx .
}

teardown() {
    ! mountpoint -q m || umount m
    [ ! -e loop ] || losetup -d "$(cat loop)"
}

fs_is_clean() { # DISK OFFSET
    rm -f raw.img
    vhdtool convert -q "$1" raw.img
    run -0 e2fsck -fn "raw.img?offset=$2"
}

@test "resize: smaller as far as nothing in use is cut off" {
    run -0 vhdtool resize gpt.vhdx 1G
    run -0 --separate-stderr vhdtool resize gpt.vhdx 512M
    [ "$stderr" = "gpt.vhdx: size 1G -> 512M" ]
    run -0 vhdtool check gpt.vhdx
    fs_is_clean gpt.vhdx 1048576
    run -0 sfdisk --verify raw.img                       # the backup is where the disk ends
    [[ $output == *"No errors"* ]]
    run -4 --separate-stderr vhdtool resize gpt.vhdx 128M
    expect_error "vhdtool: gpt.vhdx: cannot be made that small: what is in it ends at $((255 * 1048576 + 16896))B" "vhdtool resize gpt.vhdx --to-min"
    [ "$(vhdtool info gpt.vhdx -o json | jq .size)" = $((512 << 20)) ]
    run -0 vhdtool resize gpt.vhdx -- -200M
    [ "$(vhdtool info gpt.vhdx -o json | jq .size)" = $((312 << 20)) ]
    run -2 --separate-stderr vhdtool resize gpt.vhdx -- -2G
    run -2 --separate-stderr vhdtool resize gpt.vhdx 100M --grow-partition
}

@test "resize --to-min: behind the last partition, and what info says" {
    for disk in gpt mbr bare; do
        vhdtool resize -q $disk.vhdx 1G
        least=$(vhdtool info $disk.vhdx -o json | jq .min_size)
        run -0 vhdtool resize $disk.vhdx --to-min
        [ "$(vhdtool info $disk.vhdx -o json | jq .size)" = "$least" ]
        [ "$least" -le $((256 << 20)) ]
        run -0 vhdtool resize $disk.vhdx --to-min        # it is: nothing to do
        run -0 vhdtool check $disk.vhdx
        if [ $disk = bare ]; then at=0; else at=1048576; fi
        fs_is_clean $disk.vhdx $at
        [ $disk = bare ] || sfdisk --verify raw.img
        [ "$(vhdtool cat $disk.vhdx:/etc/hostname)" = one ]
    done
    vhdtool create -q empty.vhdx --size 1G
    run -9 --separate-stderr vhdtool resize empty.vhdx --to-min
    [[ $stderr == *"no partitions and no file system"* ]]
    vhdtool convert -q gpt.vhdx gpt.vhd
    run -9 --separate-stderr vhdtool resize gpt.vhd --to-min
    [[ $stderr == *"a VHD cannot be made smaller"* ]]
    run -2 --separate-stderr vhdtool resize gpt.vhdx 1G --to-min
    run -2 --separate-stderr vhdtool resize gpt.vhdx
}

@test "resize --grow-partition: the partition and its ext4, up and down again" {
    run -0 --separate-stderr vhdtool resize mbr.vhdx 3G --grow-partition
    [[ $stderr == *"p1 3"*", ext4 too"* ]]
    fs_is_clean mbr.vhdx 1048576
    run -3 --separate-stderr vhdtool resize mbr.vhdx +1G --grow-partition=2
}

@test "compact: what the file system gave up goes; a grown disk takes what it holds" {
    vhdtool resize -q gpt.vhdx 4G --grow-partition
    used=$(vhdtool convert -q gpt.vhdx raw.img && dumpe2fs -h 'raw.img?offset=1048576' 2>/dev/null |
        awk '/^Block count/ { n = $3 } /^Free blocks/ { f = $3 } END { print (n - f) * 4096 }')
    run -0 --separate-stderr vhdtool compact gpt.vhdx
    [[ $stderr == "gpt.vhdx: on disk "*" -> "*", file "*" -> "* ]]
    # Never more than what is in use (much of that, inode tables and the journal, is zeros), headers and a block of slack.
    [ $(($(stat -c %b gpt.vhdx) * 512)) -lt $((used + (8 << 20))) ]
    run -0 vhdtool convert gpt.vhdx small.vhdx --block-size 1M
    [ "$(stat -c %s small.vhdx)" -lt $((used + (32 << 20))) ]
    fs_is_clean small.vhdx 1048576
}

@test "info --headers: every structure, of damaged files too" {
    run -0 vhdtool info --headers gpt.vhdx
    for word in 'file identifier' 'header 1' 'header 2' 'region table 2' 'virtual disk size  *268435456'; do
        grep -q "$word" <<<"$output"
    done
    vhdtool create -q child.vhdx --parent gpt.vhdx
    vhdtool info --headers child.vhdx | grep -q 'relative_path  *.\\gpt.vhdx'
    vhdtool create -q p.vhd --size 64M
    vhdtool create -q c.vhd --parent p.vhd
    run -0 vhdtool info --headers c.vhd -o json
    [ "$(jq -r '.[] | select(.structure == "dynamic header" and .field == "parent name").value' <<<"$output")" = p.vhd ]
    printf 'x' | dd of=c.vhd bs=1 seek=600 conv=notrunc status=none
    run -2 --separate-stderr vhdtool info --headers c.vhd --format vmdk
    run -0 vhdtool info --headers c.vhd
    [[ $output == *"(wrong: 0x"* ]]
    head -c 100000 gpt.vhdx >cut.vhdx
    run -0 vhdtool info --headers cut.vhdx
    [[ $output == *"no signature"* ]]
    head -c 65536 /dev/urandom | dd of=gpt.vhdx bs=65536 seek=32 conv=notrunc status=none    # the metadata
    run -0 vhdtool info --headers gpt.vhdx
    run -3 --separate-stderr vhdtool info --headers missing.vhdx
}

@test "info: fragments and min size" {
    run -0 vhdtool info gpt.vhdx -o json
    [ "$(jq .fragments <<<"$output")" -ge 1 ]
    vhdtool create -q empty.vhdx --size 1G
    run -0 vhdtool info empty.vhdx -o json
    [ "$(jq -c '[.fragments, .min_size]' <<<"$output")" = '[null,null]' ]
}

@test "diff --files: what was done to a system" {
    cp --sparse=always gpt.vhdx b.vhdx
    run -0 vhdtool diff gpt.vhdx b.vhdx --files
    [ -z "$output" ]
    echo two >host
    touch -d @1000000000 host
    vhdtool cp host b.vhdx:/etc/hostname
    vhdtool cp host b.vhdx:/new
    run -11 vhdtool diff gpt.vhdx b.vhdx --files -o json
    [ "$(jq -r '.[] | select(.path == "/new").change' <<<"$output")" = added ]
    [[ $(jq -r '.[] | select(.path == "/etc/hostname").what' <<<"$output") == *content* ]]
    [ "$(jq '[.[] | select(.path == "/usr/share/blob" or .path == "/etc/link")] | length' <<<"$output")" = 0 ]
    run -11 vhdtool diff b.vhdx gpt.vhdx --files
    grep -q '^removed .*/new' <<<"$output"
    # The same files elsewhere: another layout, another format, other times of the file system.
    run -11 vhdtool diff gpt.vhdx bare.vhdx --files
    vhdtool convert -q gpt.vhdx g.vhd
    run -0 vhdtool diff gpt.vhdx g.vhd --files
    run -2 --separate-stderr vhdtool diff gpt.vhdx g.vhd --files --extents
}

@test "convert --size: larger, with the GPT's backup at its end" {
    run -0 vhdtool convert gpt.vhdx g.vhd --size 1G
    vhdtool convert -q g.vhd raw.img
    run -0 sfdisk --verify raw.img
    [[ $output == *"No errors"* ]]
    run -0 vhdtool convert - piped.vhd --size 300M < <(vhdtool convert gpt.vhdx -)
    [ "$(vhdtool info piped.vhd -o json | jq .size)" = $((300 << 20)) ]
    run -0 vhdtool diff gpt.vhdx piped.vhd --files
    run -2 --separate-stderr vhdtool convert gpt.vhdx h.vhdx --size 100M
    [ ! -e h.vhdx ]
}

@test "convert onto a block device: asked for, refused while in use, equal" {
    [ "$(id -u)" = 0 ] || skip "needs root"
    vhdtool build -q --from "$BATS_FILE_TMPDIR/tree" gpt.vhd --size 48M
    vhdtool build -q --from "$BATS_FILE_TMPDIR/tree" bare.vhd --size 48M --layout none
    head -c 60M /dev/urandom >dev.img
    loop=$(losetup -f --show dev.img) || skip "no loop devices"
    echo "$loop" >loop
    run -2 --separate-stderr vhdtool convert gpt.vhd "$loop" </dev/null
    [[ $stderr == *"overwriting all of $BATS_TEST_TMPDIR/dev.img (loop), 60M needs --yes"* ]]
    run -0 vhdtool convert gpt.vhd "$loop" --yes
    run -0 vhdtool diff "$loop" gpt.vhd --files                         # larger, but every file is there
    run -0 sfdisk --verify "$loop"                                       # the backup is at the device's end
    [[ $output == *"No errors"* ]]
    run -0 e2fsck -fn "$loop?offset=1048576"
    run -1 cmp <(tail -c +$((50 << 20)) "$loop" | head -c 1M) <(head -c 1M /dev/zero)    # behind the disk: as it was
    vhdtool convert -q bare.vhd "$loop" --yes
    vhdtool convert -q bare.vhd want.raw
    cmp -n $((48 << 20)) want.raw "$loop"
    vhdtool resize -q gpt.vhd 1G
    run -8 --separate-stderr vhdtool convert gpt.vhd "$loop" --yes
    [[ $stderr == *"has 60M, gpt.vhd needs 1G"* ]]
    run -2 --separate-stderr vhdtool convert bare.vhd "$loop" --yes --type fixed
    mkdir m                              # last: it may stay mounted in a namespace that another test made
    mount "$loop" m
    run -4 --separate-stderr vhdtool convert bare.vhd "$loop" --yes
    expect_error "vhdtool: $loop: is mounted on $BATS_TEST_TMPDIR/m" "umount $BATS_TEST_TMPDIR/m"
    umount m
}

# On disk first: of files without extents, Linux 6.18 tells cp too that what is not yet there is a hole.
is_r() {
    sync -f "$1"
    vhdtool convert "$1" - | cmp - r.raw
    [ "$(stat -c %b "$1")" -lt $((22 << 11)) ]          # of 16 MiB of data
    rm "$1"
}

@test "convert: equal on file systems that make room beforehand, that cannot, and that are full" {
    [ "$(id -u)" = 0 ] || skip "needs root"
    truncate -s 64M r.raw
    head -c 16M /dev/urandom | dd of=r.raw bs=1M seek=8 conv=notrunc status=none iflag=fullblock
    dd if=/dev/zero of=r.raw bs=1M seek=24 count=12 conv=notrunc status=none      # zeros that take room
    vhdtool convert -q r.raw d.vhdx --block-size 1M
    mkdir m
    for fs in extent ^extent tmpfs; do
        rm -f fs.img; truncate -s 80M fs.img
        case $fs in
        tmpfs) mount -t tmpfs -o size=70M none m ;;
        *) mkfs.ext4 -q -O "$fs,^64bit" -m 0 fs.img && mount -o loop fs.img m || skip "no loop devices" ;;
        esac
        for to in raw vhdx vhd; do
            run -0 vhdtool convert d.vhdx m/x.$to
            run -0 vhdtool check m/x.$to
            is_r m/x.$to
            run -0 vhdtool convert r.raw m/x.$to         # looks for zeros
            is_r m/x.$to
        done
        # Not without extents: the writeback of Linux 6.18 may hang there when little is left.
        if [ "$fs" != ^extent ]; then
            head -c 60M /dev/urandom >m/other
            for to in raw vhdx vhd; do
                run -8 --separate-stderr vhdtool convert d.vhdx m/x.$to
                expect_error "vhdtool: m/x.$to: cannot copy d.vhdx: No space left on device"
                [ "$(find m -type f)" = m/other ]
            done
        fi
        umount m
    done
}
