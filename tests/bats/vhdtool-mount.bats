#!/usr/bin/env bats
# vhdtool mount: a disk as files through FUSE, loop devices on them, and the end of it all.

load helper

setup_file() {
    cd "$BATS_FILE_TMPDIR"
    mkdir -p tree/{etc,sub}
    echo hello >tree/etc/motd
    ln -s ../etc/motd tree/sub/link
    head -c 3000000 /dev/urandom >tree/random
    vhdtool build d.vhdx --from tree --size 200M -q
}

setup() {
    [ -r /dev/fuse ] && [ -w /dev/fuse ] || skip "no /dev/fuse"
    cd "$BATS_TEST_TMPDIR"
    IN=$BATS_FILE_TMPDIR
    export XDG_RUNTIME_DIR=$BATS_TEST_TMPDIR/run
    mkdir -m 700 run
    mkdir mnt m2
    cp "$IN/d.vhdx" d.vhdx
    vhdtool mount d.vhdx mnt >/dev/null || skip "FUSE cannot be mounted here"
    vhdtool unmount mnt
}

teardown() {
    ! mountpoint -q m2 || umount m2
    vhdtool mounts -o name 2>/dev/null | while read -r dir; do vhdtool unmount "$dir" || true; done
}

loop() { [ "$(id -u)" = 0 ] && mount -o loop "$1" m2 || skip "no loop devices"; }

@test "mount: the disk and its partitions as files, read-only" {
    run -0 vhdtool mount d.vhdx mnt
    [ "$output" = "$PWD/mnt" ]
    [ "$(ls mnt)" = $'disk.raw\np1' ]
    vhdtool convert d.vhdx - | cmp - mnt/disk.raw
    [ "$(stat -c %s mnt/disk.raw)" = $((200 * 1024 * 1024)) ]
    e2fsck -fn mnt/p1
    run dd if=/dev/zero of=mnt/p1 bs=512 count=1 conv=notrunc
    [ "$status" != 0 ]
    run -0 vhdtool mounts -o json
    [ "$(jq -r '.[0] | .dir + " " + .image + " " + .access + " " + .shows' <<<"$output")" = "$PWD/mnt $PWD/d.vhdx read disk" ]
    run -0 vhdtool unmount d.vhdx
    [ -z "$(ls mnt)" ]
    run -0 vhdtool mounts -o name
    [ -z "$output" ]
}

@test "mount --write: a loop mount writes, trims, and the disk is whole afterwards" {
    run -0 vhdtool mount d.vhdx mnt --write
    loop mnt/p1
    cmp m2/random "$IN/tree/random"
    echo new >m2/etc/new
    dd if=/dev/urandom of=m2/big bs=1M count=60 conv=fsync status=none
    rm m2/big
    sync -f m2
    before=$(stat -c %b d.vhdx)
    fstrim m2
    umount m2
    run -0 vhdtool unmount mnt
    run -0 vhdtool check d.vhdx
    [ "$(vhdtool cat d.vhdx /etc/new)" = new ]
    vhdtool convert d.vhdx c.raw -q
    e2fsck -fn "c.raw?offset=1048576"
    # The 60 MiB of the removed file are the host's again.
    [ "$(stat -c %b d.vhdx)" -lt $((before - 50 * 2048)) ]
}

@test "mount: what is in use is not unmounted, exit 4, with who" {
    run -0 vhdtool mount d.vhdx mnt --write
    exec 7<mnt/p1
    run -4 --separate-stderr vhdtool unmount mnt
    [[ $stderr == "vhdtool: $PWD/mnt: in use by "*"(pid "* ]]
    exec 7<&-
    run -4 --separate-stderr vhdtool cp "$IN/tree/etc/motd" d.vhdx:/x
    [[ $stderr == *"in use by vhdtool (pid "* ]]
    run -0 vhdtool unmount mnt
    run -3 --separate-stderr vhdtool unmount mnt
    expect_error "vhdtool: mnt: is not mounted by vhdtool" "vhdtool mounts"
}

@test "mount: a folder of its own where none is given" {
    run -0 vhdtool mount d.vhdx
    dir=$output
    [ "$dir" = "$XDG_RUNTIME_DIR/hv/mnt/d.vhdx" ]
    [ -e "$dir/disk.raw" ]
    run -0 vhdtool unmount d.vhdx
    [ ! -e "$dir" ]
}

@test "mount --fs: the files themselves, read-only" {
    run -0 vhdtool mount d.vhdx mnt --fs
    diff -r "$IN/tree/sub" mnt/sub
    cmp mnt/random "$IN/tree/random"
    [ "$(readlink mnt/sub/link)" = ../etc/motd ]
    [ "$(cat mnt/sub/link)" = hello ]
    [ "$(stat -c %Y mnt/random)" = "$(stat -c %Y "$IN/tree/random")" ]
    run touch mnt/x
    [ "$status" != 0 ]
    df mnt >/dev/null
    run -0 vhdtool unmount mnt
    run -0 vhdtool mount d.vhdx mnt --fs=1
    run -0 vhdtool unmount mnt
    run -3 vhdtool mount d.vhdx mnt --fs=5
    run -3 vhdtool mount d.vhdx nowhere
}

@test "mount --fs --write: files changed in every way, e2fsck and our check find nothing" {
    run -0 vhdtool mount d.vhdx mnt --fs --write
    cp -a "$IN/tree" mnt/tree
    diff -r "$IN/tree" mnt/tree
    head -c 5000000 /dev/urandom >want
    cp want mnt/big
    for how in 'truncate -s 1000001' 'truncate -s 6000000'; do $how want; $how mnt/big; cmp want mnt/big; done
    printf 'in the middle' | dd of=want bs=1 seek=70000 conv=notrunc status=none
    printf 'in the middle' | dd of=mnt/big bs=1 seek=70000 conv=notrunc status=none
    echo end >>want && echo end >>mnt/big
    cmp want mnt/big
    ln mnt/big mnt/tree/hard && rm mnt/big && cmp want mnt/tree/hard
    mkdir -p mnt/a/b/c
    mv mnt/a/b mnt/tree/moved
    [ "$(ls mnt/tree/moved)" = c ]
    run mv mnt/tree mnt/tree/moved/c/x
    [ "$status" != 0 ]
    run rmdir mnt/tree
    [ "$status" != 0 ]
    rmdir mnt/a
    ln -s ../x mnt/tree/sym && mkfifo mnt/tree/fifo
    for i in $(seq 1 600); do : >"mnt/tree/moved/file-number-$i"; done
    rm mnt/tree/moved/file-number-*[02468]
    [ "$(ls mnt/tree/moved | wc -l)" = 301 ]
    chmod 640 mnt/etc/motd && touch -d @1000000000 mnt/etc/motd
    echo over >mnt/etc/new && mv mnt/etc/new mnt/etc/motd
    [ "$(cat mnt/etc/motd)" = over ]
    run dd if=/dev/zero of=mnt/full bs=1M status=none                # until it is full
    [ "$status" != 0 ]
    rm mnt/full
    run -0 vhdtool unmount mnt
    run -0 vhdtool check --filesystem d.vhdx
    vhdtool convert -q d.vhdx c.raw
    run -0 e2fsck -fn "c.raw?offset=1048576"
    vhdtool cat d.vhdx /tree/hard | cmp - want
    [ "$(vhdtool ls d.vhdx /tree/sym -o json | jq -r '.[0].target')" = ../x ]
    # FAT is for reading; and without --write nothing is written.
    vhdtool build -q e.vhdx --from "$IN/tree" --size 200M --esp 40M
    run -9 vhdtool mount e.vhdx mnt --fs=1 --write
}

@test "mount: a server that is killed leaves no trace; one that is asked closes the disk" {
    run -0 vhdtool mount d.vhdx mnt --write
    pid=$(vhdtool mounts -o json | jq '.[0].pid')
    printf 'abcd' | dd of=mnt/disk.raw bs=1 seek=100 conv=notrunc,fsync status=none
    kill "$pid"
    deadline=$((SECONDS + 20))
    while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $deadline ]; do sleep 0.05; done
    run -0 vhdtool check d.vhdx
    [ "$(vhdtool convert d.vhdx - | head -c 104 | tail -c 4)" = abcd ]
    run -0 vhdtool mount d.vhdx mnt --write
    pid=$(vhdtool mounts -o json | jq '.[0].pid')
    kill -9 "$pid"
    while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $deadline ]; do sleep 0.05; done
    run -0 vhdtool mounts -o name
    [ -z "$output" ]
    umount -l mnt 2>/dev/null || fusermount3 -u -z mnt
    run -0 vhdtool mount d.vhdx mnt                  # and it can be mounted again
    run -0 vhdtool unmount mnt
}

@test "mount --fs --write: killed amid writing, e2fsck on p1 brings back all that was flushed" {
    run -0 vhdtool mount d.vhdx mnt --fs --write
    pid=$(vhdtool mounts -o json | jq '.[0].pid')
    mkdir mnt/kept && cp "$IN/tree/random" mnt/kept/random && echo one >mnt/kept/one
    sync mnt/kept/one mnt/kept                                    # fsync: that of any file is for all
    { i=0; while echo "$i" >"mnt/later-$i" && cp "$IN/tree/etc/motd" mnt/kept/copy; do i=$((i + 1)); done; } 2>/dev/null 3>&- &
    writer=$!
    deadline=$((SECONDS + 20))
    until [ -e mnt/later-50 ] || [ $SECONDS -ge $deadline ]; do sleep 0.05; done
    kill -9 "$pid"
    wait "$writer" || true
    while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $deadline ]; do sleep 0.05; done
    umount -l mnt 2>/dev/null || fusermount3 -u -z mnt
    run -0 vhdtool check d.vhdx
    run -11 vhdtool check --filesystem d.vhdx
    [[ $output == *"was not unmounted"* ]]
    run -4 --separate-stderr vhdtool mount d.vhdx mnt --fs --write
    expect_error "vhdtool: d.vhdx: the file system is marked as damaged" "run e2fsck on the partition"
    run -0 vhdtool mount d.vhdx mnt --write
    run e2fsck -fy mnt/p1
    [ "$status" -le 1 ]
    run -0 e2fsck -fn mnt/p1
    run -0 vhdtool unmount mnt
    run -0 vhdtool check --filesystem d.vhdx
    run -0 vhdtool mount d.vhdx mnt --fs --write
    cmp mnt/kept/random "$IN/tree/random"
    [ "$(cat mnt/kept/one)" = one ]
    run -0 vhdtool unmount mnt
}

@test "mount --fs --write: what was changed goes to the disk unasked" {
    run -0 vhdtool mount d.vhdx mnt --fs --write
    echo soon >mnt/soon
    deadline=$((SECONDS + 60))
    until [ "$(vhdtool cat d.vhdx /soon 2>/dev/null)" = soon ]; do [ $SECONDS -lt $deadline ]; sleep 0.2; done
    run -0 vhdtool unmount mnt
}

@test "mount: an ordinary user" {
    [ "$(id -u)" = 0 ] || skip "only root can become another user"
    d=$BATS_TEST_TMPDIR
    while [ "$d" != "${BATS_TMPDIR:-/tmp}" ] && [ "$d" != / ]; do chmod a+rx "$d"; d=$(dirname "$d"); done
    chown -R nobody . && chmod 700 run
    as() { runuser -u nobody -- env PATH="$PATH" XDG_RUNTIME_DIR="$XDG_RUNTIME_DIR" HOME="$PWD" "$@"; }
    as vhdtool mount "$PWD/d.vhdx" "$PWD/mnt" --fs || skip "nobody may not use FUSE here"
    [ "$(as cat "$PWD/mnt/etc/motd")" = hello ]
    as vhdtool unmount "$PWD/mnt"
}
