#!/usr/bin/env bats
# The way of an image from an archive to a clean end, all of it as an ordinary user: build, ls, cp in and
# out, mount by FUSE, write, unmount, check, fsck.

load helper

setup_file() {
    [ -r /dev/fuse ] && [ -w /dev/fuse ] || skip "no /dev/fuse"
    cd "$BATS_FILE_TMPDIR"
    mkdir -p root/{etc,dev,usr/bin,home/ann}
    echo web >root/etc/hostname
    echo '#!/bin/sh' >root/usr/bin/tool && chmod 4755 root/usr/bin/tool
    head -c 2000000 /dev/urandom >root/home/ann/data
    ln root/home/ann/data root/home/ann/again
    ln -s ../usr/bin root/bin
    tar=(tar --numeric-owner --sort=name -C root)
    if [ "$(id -u)" = 0 ]; then
        mknod root/dev/null c 1 3
        chown -R 1234:1234 root/home/ann
    fi
    if command -v zstd >/dev/null; then
        "${tar[@]}" -cf - . | zstd -q >rootfs.tar.zst
    else
        "${tar[@]}" -cJf rootfs.tar.xz .
    fi
    mkdir -p work
    mv rootfs.tar.* work/
    # Root runs all of it as nobody; others as themselves.
    if [ "$(id -u)" = 0 ]; then
        d=$BATS_FILE_TMPDIR
        while [ "$d" != "${BATS_TMPDIR:-/tmp}" ] && [ "$d" != / ]; do chmod a+rx "$d"; d=$(dirname "$d"); done
        chown -R nobody work
    fi
}

setup() { cd "$BATS_FILE_TMPDIR/work"; }

as_user() {
    local env=(env "PATH=$PATH" "XDG_RUNTIME_DIR=$PWD/run" "HOME=$PWD" LC_ALL=C.UTF-8)
    if [ "$(id -u)" = 0 ]; then
        runuser -u nobody -- "${env[@]}" "$@"
    else
        "${env[@]}" "$@"
    fi
}

@test "an ordinary user: build, ls, cp, mount, write, unmount, check, fsck.ext4" {
    as_user mkdir -m 700 run mnt
    as_user test -x "$BIN/vhdtool" || skip "the build folder is not readable to others"
    as_user test -w /dev/fuse || skip "/dev/fuse is not for users here"
    [ "$(as_user id -u)" != 0 ]
    as_user vhdtool build web.vhdx --from rootfs.tar.* --size 8G
    # Owners, modes, devices and hard links are the archive's, whoever builds.
    ls=$(as_user vhdtool ls web.vhdx /usr/bin -o json)
    [ "$(jq -r '.[0] | "\(.mode) \(.uid) \(.gid)"' <<<"$ls")" = '-rwsr-xr-x 0 0' ] || [ "$(id -u)" != 0 ]
    [ "$(as_user vhdtool ls web.vhdx /home/ann -o json | jq -r '.[0].links')" = 2 ]
    # In and out.
    as_user sh -c 'echo in >in.txt'
    as_user vhdtool cp in.txt web.vhdx:/etc/in.txt
    as_user vhdtool cp web.vhdx:/home/ann/data out.bin
    cmp out.bin "$BATS_FILE_TMPDIR/root/home/ann/data"
    # Mounted, to look.
    as_user vhdtool mount web.vhdx mnt --fs
    [ "$(as_user cat mnt/etc/in.txt)" = in ]
    as_user vhdtool unmount mnt
    # Mounted, to write: the files themselves.
    as_user vhdtool mount web.vhdx mnt --fs --write
    as_user sh -c 'echo written >mnt/etc/written && mkdir mnt/srv && cp out.bin mnt/srv/ && mv mnt/srv/out.bin mnt/srv/moved && rm mnt/etc/in.txt'
    as_user vhdtool unmount mnt
    # And the disk: its partition through FUSE, changed by debugfs.
    as_user vhdtool mount web.vhdx mnt --write
    as_user debugfs -w -R 'write in.txt by-debugfs' mnt/p1
    as_user vhdtool unmount mnt
    [ "$(as_user vhdtool cat web.vhdx /by-debugfs)" = in ]
    [ "$(as_user vhdtool cat web.vhdx /etc/written)" = written ]
    as_user vhdtool cat web.vhdx /srv/moved | cmp - out.bin
    as_user vhdtool check --filesystem web.vhdx
    # fsck on the partition, as it is seen through the mount and as a raw disk.
    as_user vhdtool mount web.vhdx mnt
    as_user fsck.ext4 -fn mnt/p1
    as_user vhdtool unmount mnt
    as_user vhdtool convert web.vhdx web.raw
    as_user fsck.ext4 -fn 'web.raw?offset=1048576'
    [ -z "$(as_user vhdtool mounts -o name)" ]
}

@test "an ordinary user: grow, compact, chains and checks" {
    as_user test -e web.vhdx || skip "no image"
    as_user vhdtool resize web.vhdx +1G --grow-partition
    as_user vhdtool compact web.vhdx
    as_user vhdtool create test.vhdx --parent web.vhdx
    as_user vhdtool cp in.txt test.vhdx:/only-here
    as_user vhdtool check --chain --filesystem test.vhdx
    run as_user vhdtool diff web.vhdx test.vhdx --files
    [ "$status" = 11 ]
    [[ $output == *"added"*"/only-here"* ]]
    as_user vhdtool merge test.vhdx --yes
    [ "$(as_user vhdtool cat web.vhdx /only-here)" = in ]
    as_user vhdtool check --filesystem web.vhdx
}
