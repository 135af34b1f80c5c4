#!/usr/bin/env bats
# vhdtool build: images out of archives and folders, looked at with e2fsprogs, fdisk, dosfstools.

load helper

MIB=1048576

setup_file() {
    cd "$BATS_FILE_TMPDIR"
    umask 022
    mkdir -p tree/{etc,bin,root,tmp,sub/deep,boot/efi/EFI/BOOT}
    printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n' >tree/etc/passwd
    printf 'root:*:19000:0:99999:7:::\nuser:!:19000::::::\n' >tree/etc/shadow
    chmod 640 tree/etc/shadow
    echo tool >tree/bin/a
    chmod 4755 tree/bin/a
    ln tree/bin/a tree/bin/b
    ln -s ../bin/a tree/sub/link
    ln -s "/$(printf 'long/%.0s' {1..30})end" tree/sub/longlink
    mkfifo tree/sub/fifo
    chmod 1777 tree/tmp
    head -c 300000 /dev/urandom >tree/random
    truncate -s 20M tree/sparse
    printf x | dd of=tree/sparse bs=1 seek=10000000 conv=notrunc status=none
    echo "efi program" >tree/boot/efi/EFI/BOOT/BOOTX64.EFI
    touch -d '2001-02-03 04:05:06.789 UTC' tree/bin/a tree/sub/deep
    setfattr -n user.note -v hello tree/bin/a 2>/dev/null && touch has-xattr
    # Owners, attributes and devices as a distribution's archive has them; no root needed.
    tar --owner=33:33 --group=44:44 --xattrs -C tree -cf a.tar .
    tar --owner=0:0 --group=0:0 -C / -rf a.tar dev/null dev/zero 2>/dev/null
    tar -C tree -c . | zstd -q >b.tar.zst 2>/dev/null || tar -C tree -c . | xz >b.tar.zst
}

setup() {
    cd "$BATS_TEST_TMPDIR"
    IN=$BATS_FILE_TMPDIR
    unset SOURCE_DATE_EPOCH
}

teardown() {
    ! mountpoint -q "$BATS_TEST_TMPDIR/mnt" || umount "$BATS_TEST_TMPDIR/mnt"
}

# at IMAGE PARTITION: what e2fsprogs call it.
at() { echo "$1?offset=$(($(sfdisk -J "$1" | jq ".partitiontable.partitions[$2 - 1].start") * 512))"; }
clean() { e2fsck -fn "$1" >fsck.log 2>&1 || { cat fsck.log; return 1; }; }
dbg() { debugfs -R "$2" "$1" 2>/dev/null; }
field() { dbg "$1" "stat $2" | grep -oP "$3:?\s+\K\S+" | head -n 1; }

@test "build: a tar becomes GPT and ext4, with owners, modes, times, links and devices" {
    run -0 --separate-stderr vhdtool build d.raw --from "$IN/a.tar" --size 128M
    [[ $stderr == "d.raw: gpt, p1 ext4 'root' 126M, "*" files, "* ]]
    sfdisk -V -q d.raw
    p=$(at d.raw 1)
    clean "$p"
    [ "$(field "$p" bin/a User)" = 33 ]
    [ "$(field "$p" bin/a Group)" = 44 ]
    [ "$(field "$p" bin/a Mode)" = 04755 ]
    [ "$(field "$p" bin/a Links)" = 2 ]
    [ "$(field "$p" bin/a Inode)" = "$(field "$p" bin/b Inode)" ]
    [ "$(field "$p" tmp Mode)" = 01777 ]
    [ "$(field "$p" sub/fifo Type)" = FIFO ]
    [ "$(field "$p" dev/null Type)" = character ]
    dbg "$p" "stat dev/null" | grep -q 'Device major/minor number: 01:03'
    dbg "$p" "stat sub/link" | grep -q 'Fast link dest: "../bin/a"'
    dbg "$p" "cat sub/longlink" | grep -qx "/\(long/\)*end"
    dbg "$p" "stat bin/a" | grep -q 'mtime: 0x3a7b8372'
    dbg "$p" "cat random" | cmp - "$IN/tree/random"
    dbg "$p" "cat sparse" | cmp - "$IN/tree/sparse"
    dumpe2fs -h "$p" 2>/dev/null >super
    grep -q 'Filesystem state: *clean' super
    for f in has_journal ext_attr resize_inode dir_index filetype extent 64bit flex_bg sparse_super large_file \
             huge_file dir_nlink extra_isize metadata_csum; do grep -q "features:.*$f" super; done
    grep -q 'volume name: *root' super
}

@test "build: attributes, capabilities and ACLs" {
    [ -e "$IN/has-xattr" ] || skip "no user attributes here"
    cp -a "$IN/tree" t
    setfacl -m u:1234:rwx -d -m g:55:r t/sub || skip "no ACLs here"
    caps=
    [ "$(id -u)" != 0 ] || { setcap cap_net_raw+ep t/bin/a; caps=1; }
    tar --xattrs --xattrs-include='*' --acls -C t -cf t.tar .
    for from in t t.tar; do
        rm -f d.raw
        run -0 vhdtool build d.raw --from $from --layout none
        clean d.raw
        dbg d.raw "stat bin/a" | grep -q 'user.note (5) = "hello"'
        [ -z "$caps" ] || dbg d.raw "stat bin/a" | grep -q 'security.capability (20) = 01 00 00 02 00 20'
        dbg d.raw "ea_list sub" | grep -q 'posix_acl_access (28) = 01 00 00 00 01 00 07 00 02 00 07 00 d2 04 00 00'
        dbg d.raw "ea_list sub" | grep -q 'posix_acl_default (28)'
    done
}

@test "build: the same input gives the same bytes, in every format" {
    export SOURCE_DATE_EPOCH=1700000000
    for f in raw vhd vhdx; do
        run -0 vhdtool build 1.$f --from "$IN/a.tar" --esp 8M --swap 1M --root-password secret
        sleep 1.1                                    # another second on the clock
        run -0 vhdtool build 2.$f --from "$IN/a.tar" --esp 8M --swap 1M --root-password secret
        cmp 1.$f 2.$f
    done
    # Through a pipe, too; and another input has other identifiers.
    cat "$IN/a.tar" | vhdtool build 3.raw --from - --esp 8M --swap 1M --root-password secret
    cmp 1.raw 3.raw
    run -0 vhdtool build 4.raw --from "$IN/b.tar.zst"
    run -0 vhdtool build 5.raw --from "$IN/tree"
    cp -a "$IN/tree" copy
    run -0 vhdtool build 6.raw --from copy
    cmp 5.raw 6.raw
    [ "$(sfdisk --disk-id 4.raw)" != "$(sfdisk --disk-id 5.raw)" ]
    run -0 vhdtool build 7.raw --from copy --id-seed one
    run -0 vhdtool build 8.raw --from copy --id-seed two
    [ "$(sfdisk --disk-id 7.raw)" != "$(sfdisk --disk-id 8.raw)" ]
}

@test "build: ESP, swap and fstab" {
    run -0 vhdtool build d.raw --from "$IN/tree" --esp 40M --swap 8M
    sfdisk -V -q d.raw
    p=$(at d.raw 3)
    clean "$p"
    dbg "$p" "cat etc/fstab" >fstab
    root=$(dumpe2fs -h "$p" 2>/dev/null | sed -n 's/Filesystem UUID: *//p')
    grep -q "^UUID=$root"$'\t/\text4' fstab
    dd if=d.raw of=esp bs=1M skip=1 count=40 status=none
    dd if=d.raw of=swap bs=1M skip=41 count=8 status=none
    grep -q "^UUID=$(blkid -o value -s UUID -p esp)"$'\t/boot/efi\tvfat' fstab
    grep -q "^UUID=$(blkid -o value -s UUID -p swap)"$'\tnone\tswap' fstab
    [ "$(blkid -o value -s TYPE -p swap)" = swap ]
    fsck.fat -n esp
    [ "$(mtype -i esp ::EFI/BOOT/BOOTX64.EFI)" = "efi program" ]
    [ -z "$(dbg "$p" "ls boot/efi" | grep EFI)" ]
    # keep: as it came.
    echo "# mine" >fs && cp -a "$IN/tree" t && cp fs t/etc/fstab
    run -0 vhdtool build k.raw --from t --fstab keep --layout none
    dbg k.raw "cat etc/fstab" | cmp - fs
}

@test "build: layouts, formats and sizes" {
    run -0 vhdtool build m.raw --from "$IN/tree" --layout mbr --size 200M
    sfdisk -J m.raw | jq -e '.partitiontable | .label == "dos" and .partitions[0].bootable'
    clean "$(at m.raw 1)"
    [ "$(stat -c %s m.raw)" = $((200 * MIB)) ]
    run -0 vhdtool build n.raw --from "$IN/tree" --layout none
    clean n.raw
    run -0 vhdtool build d.vhdx --from "$IN/b.tar.zst" --size 4G
    [ "$(stat -c %b d.vhdx)" -lt $((300 * MIB / 512)) ]
    qemu-img convert -f vhdx -O raw d.vhdx d.raw
    clean "$(at d.raw 1)"
    run -0 vhdtool build a.vhd --azure --from "$IN/tree"
    [ $(($(stat -c %s a.vhd) % MIB)) = 512 ]
    run -0 vhdtool build s.vhdx --from "$IN/tree" --logical-sector 4096 --esp 20M
    run -0 vhdtool info s.vhdx -o json
    [ "$(jq -r ".logical_sector // .[0].logical_sector" <<<"$output")" = 4096 ]
    run -0 vhdtool build j.raw --from "$IN/tree" -o json
    [ "$(jq -r .root_uuid <<<"$output")" = "$(dumpe2fs -h "$(at j.raw 1)" 2>/dev/null | sed -n 's/Filesystem UUID: *//p')" ]
}

@test "build: sources laid over each other" {
    mkdir -p over/etc over/usr/lib/x over/sub
    echo new >over/etc/passwd
    echo now-a-file >over/sub/deep
    mkdir over/bin && echo c >over/bin/c
    ln -s usr/lib over/lib
    mkdir -p third/lib && echo y >third/lib/y
    run -0 vhdtool build d.raw --layout none --from "$IN/tree" --from over --from third --fstab keep
    clean d.raw
    [ "$(dbg d.raw "cat etc/passwd")" = new ]
    [ "$(dbg d.raw "cat bin/a")" = tool ]
    [ "$(dbg d.raw "cat bin/c")" = c ]
    [ "$(dbg d.raw "cat sub/deep")" = now-a-file ]
    [ "$(dbg d.raw "cat usr/lib/y")" = y ]
}

@test "build: host name, password, key, autologin" {
    mkdir -p over/usr/lib/systemd && touch over/usr/lib/systemd/systemd
    echo "ssh-ed25519 AAAA me" >k.pub
    run -0 vhdtool build d.raw --layout none --from "$IN/tree" --from over --hostname web1 --root-password 'p w:1' \
        --ssh-key k.pub --autologin
    clean d.raw
    [ "$(dbg d.raw "cat etc/hostname")" = web1 ]
    dbg d.raw "cat etc/hosts" | grep -q '^127.0.1.1'$'\tweb1$'
    dbg d.raw "cat etc/shadow" >shadow
    grep -q '^user:!:19000' shadow
    hash=$(sed -n 's/^root:\([^:]*\):.*/\1/p' shadow)
    [[ $hash == '$6$'* ]]
    [ "$(perl -e 'print crypt($ARGV[0], $ARGV[1])' 'p w:1' "$hash")" = "$hash" ]
    [ "$(field d.raw etc/shadow Mode)" = 0640 ]
    [ "$(dbg d.raw "cat root/.ssh/authorized_keys")" = "ssh-ed25519 AAAA me" ]
    [ "$(field d.raw root/.ssh Mode)" = 0700 ]
    [ "$(field d.raw root/.ssh/authorized_keys Mode)" = 0600 ]
    dbg d.raw "cat etc/systemd/system/serial-getty@.service.d/autologin.conf" | grep -q -- '--autologin root'
    run -0 vhdtool build e.raw --layout none --from "$IN/tree" --root-password none
    dbg e.raw "cat etc/shadow" | grep -q '^root::'
    mkdir over/etc && echo 'ENCRYPT_METHOD YESCRYPT' >over/etc/login.defs
    run -0 vhdtool build y.raw --layout none --from "$IN/tree" --from over --root-password x
    dbg y.raw "cat etc/shadow" | grep -q '^root:[$]y[$]'
}

@test "build: no path leads out of the image" {
    mkdir in && cd in
    mkdir -p d/e && echo evil >d/e/f
    tar -cPf ../evil.tar --transform='s,^d/e/f,../../../evil1,' d/e/f
    tar -rPf ../evil.tar --transform="s,^d/e/f,$BATS_TEST_TMPDIR/evil2," d/e/f
    ln -s "$BATS_TEST_TMPDIR" link
    tar -rf ../evil.tar link
    rm link && mkdir link && echo evil >link/evil3
    tar -rf ../evil.tar link/evil3
    cd ..
    run -0 vhdtool build d.raw --layout none --from evil.tar
    clean d.raw
    [ ! -e evil1 ] && [ ! -e ../evil1 ] && [ ! -e evil2 ] && [ ! -e evil3 ]
    [ "$(dbg d.raw "cat evil1")" = evil ]
    [ "$(dbg d.raw "cat $BATS_TEST_TMPDIR/evil2")" = evil ]
    [ "$(dbg d.raw "cat $BATS_TEST_TMPDIR/evil3")" = evil ]
}

@test "build: cpio and ISO" {
    (cd "$IN/tree" && find . | sort | cpio -o -H newc --quiet) >t.cpio
    run -0 vhdtool build c.raw --layout none --from t.cpio
    clean c.raw
    [ "$(dbg c.raw "cat bin/a")" = tool ]
    [ "$(dbg c.raw "cat bin/b")" = tool ]
    [ "$(field c.raw bin/a Links)" = 2 ]
    command -v xorriso || skip "no xorriso"
    xorriso -as mkisofs -R -quiet -o t.iso "$IN/tree"
    run -0 vhdtool build i.raw --layout none --from t.iso
    clean i.raw
    dbg i.raw "cat random" | cmp - "$IN/tree/random"
}

@test "build: an OCI layout, with what its layers remove" {
    mkdir -p l1/etc l1/gone/x l1/old l2/etc l2/old oci/blobs/sha256
    echo one >l1/etc/a && echo one >l1/etc/b && echo x >l1/gone/x/y && echo old >l1/old/file
    echo two >l2/etc/b && touch l2/etc/.wh.a l2/.wh.gone l2/old/.wh..wh..opq && echo new >l2/old/new
    blob() { local h; h=$(sha256sum <"$1" | cut -d' ' -f1); cp "$1" "oci/blobs/sha256/$h"; echo "sha256:$h"; }
    tar -C l1 -czf 1.tgz . && tar -C l2 -cf 2.tar old/new old/.wh..wh..opq etc .wh.gone
    jq -n --arg a "$(blob 1.tgz)" --arg b "$(blob 2.tar)" '{schemaVersion: 2, layers: [{digest: $a}, {digest: $b}]}' >m
    jq -n --arg m "$(blob m)" '{manifests: [{digest: "sha256:00", platform: {os: "linux", architecture: "arm64"}},
        {digest: $m, platform: {os: "linux", architecture: "amd64"}}]}' >i
    jq -n --arg i "$(blob i)" '{schemaVersion: 2, manifests: [{digest: $i}]}' >oci/index.json
    echo '{"imageLayoutVersion": "1.0.0"}' >oci/oci-layout
    run -0 vhdtool build d.raw --layout none --fstab keep --from oci
    clean d.raw
    run -0 vhdtool ls -r d.raw -o name
    [ "$output" = $'etc\netc/b\nlost+found\nold\nold/new' ]
    [ "$(vhdtool cat d.raw /etc/b)" = two ]
    jq '.manifests[0].digest = "sha256:../../../etc"' oci/index.json >x && mv x oci/index.json
    run -1 --separate-stderr vhdtool build e.raw --from oci
    [[ $stderr == *"OCI layout without layers"* ]]
}

@test "build: what goes wrong is said, and nothing is left behind" {
    run -2 --separate-stderr vhdtool build d.raw
    expect_error "vhdtool: --from: nothing to build from" "vhdtool build d.raw --from rootfs.tar.zst"
    run -3 --separate-stderr vhdtool build d.raw --from nowhere.tar
    [[ $stderr == "vhdtool: nowhere.tar: cannot open: "* ]]
    run -8 --separate-stderr vhdtool build d.raw --from "$IN/a.tar" --size 20M
    [[ $stderr == *"the file system is full"*"try: give a larger --size"* ]]
    head -c 100000 /dev/urandom >junk
    run -1 --separate-stderr vhdtool build d.raw --from junk
    [[ $stderr == "vhdtool: junk: is damaged or no archive: "* ]]
    head -c 200000 "$IN/a.tar" >cut.tar
    run -1 --separate-stderr vhdtool build d.raw --from cut.tar --size 100M
    [[ $stderr == *"cut.tar: "*"damaged"* ]]
    run -2 vhdtool build d.raw --from "$IN/a.tar" --layout none --esp 10M
    run -2 vhdtool build d.raw --from "$IN/a.tar" --label much-too-long-a-label
    run -2 vhdtool build d.raw --from "$IN/a.tar" --hostname 'a b'
    run -3 vhdtool build d.raw --from "$IN/a.tar" --autologin
    run -9 vhdtool build d.raw --from "$IN/a.tar" --prepare
    [ "$(echo d.raw*)" = 'd.raw*' ]
    echo mine >d.raw
    run -4 vhdtool build d.raw --from "$IN/a.tar"
    [ "$(cat d.raw)" = mine ]
    # Leftovers of a killed build are no obstacle.
    echo half >e.raw.part
    run -0 vhdtool build e.raw --from "$IN/a.tar"
    [ ! -e e.raw.part ]
}

@test "build: an ordinary user; the kernel mounts it" {
    [ "$(id -u)" = 0 ] || skip "only root can become another user and mount"
    for d in "$BATS_TEST_TMPDIR" "$IN"; do
        while [ "$d" != "${BATS_TMPDIR:-/tmp}" ] && [ "$d" != / ]; do chmod a+rx "$d"; d=$(dirname "$d"); done
    done
    chmod 644 "$IN/a.tar"
    mkdir out && chown nobody out
    run -0 runuser -u nobody -- env PATH="$PATH" vhdtool build "$PWD/out/d.raw" --from "$IN/a.tar" --size 200M
    clean "$(at out/d.raw 1)"
    mkdir mnt
    mount -o loop,offset=$MIB out/d.raw mnt || skip "no loop devices"
    [ "$(stat -c '%u:%g:%a' mnt/bin/a)" = 33:44:4755 ]
    cmp mnt/random "$IN/tree/random"
    dd if=/dev/zero of=mnt/more bs=1M count=5 status=none
    for i in $(seq 300); do echo "$i" >"mnt/sub/file-$i"; done
    umount mnt
    clean "$(at out/d.raw 1)"
}
