#!/usr/bin/env bats
# vhdtool ls, cat, cp and seed: files in disks, without mounting them.

load helper

setup_file() {
    cd "$BATS_FILE_TMPDIR"
    umask 022
    mkdir -p tree/{etc,bin,sub/deep}
    echo 'root:x:0:0:root:/root:/bin/sh' >tree/etc/passwd
    echo tool >tree/bin/a
    chmod 755 tree/bin/a
    ln tree/bin/a tree/bin/b
    ln -s ../bin/a tree/sub/link
    head -c 3000000 /dev/urandom >tree/random
    truncate -s 5M tree/sparse
    echo end | dd of=tree/sparse bs=1 seek=5000000 conv=notrunc status=none
    mkdir -p tree/boot/efi/loader && echo "timeout 3" >tree/boot/efi/loader/loader.conf
    touch -d '2001-02-03 04:05:06 UTC' tree/bin/a
    vhdtool build d.vhdx --from tree --esp 8M --size 200M -q
    vhdtool build m.raw --from tree --layout none -q
}

setup() {
    cd "$BATS_TEST_TMPDIR"
    IN=$BATS_FILE_TMPDIR
}

# The ext4 of d.vhdx as e2fsck sees it.
clean() {
    vhdtool convert "$1" c.raw -q
    local start
    start=$(sfdisk -J c.raw | jq '.partitiontable.partitions[1].start')
    e2fsck -fn "c.raw?offset=$((start * 512))" >fsck.log 2>&1 || { cat fsck.log; return 1; }
    rm c.raw
}

@test "ls: the ext4 without being told, partitions by number, formats of output" {
    run -0 vhdtool ls "$IN/d.vhdx" -o name
    [ "$output" = $'bin\nboot\netc\nlost+found\nrandom\nsparse\nsub' ]
    run -0 vhdtool ls "$IN/d.vhdx:1" -o name
    [ "$output" = loader ]
    run -0 vhdtool ls "$IN/d.vhdx:2:/bin"
    [[ ${lines[1]} =~ ^-rwxr-xr-x\ +[0-9]+\ +[0-9]+\ +5\ +2001-02-03T04:05:06Z\ +a$ ]]
    run -0 vhdtool ls "$IN/d.vhdx" /sub
    [[ $output == *"link -> ../bin/a"* ]]
    run -0 vhdtool ls "$IN/d.vhdx" /sub/link -o json
    [ "$(jq -r '.[0].type' <<<"$output")" = file ]
    run -0 vhdtool ls "$IN/d.vhdx:/bin" -o json
    [ "$(jq -r '.[] | select(.name == "b") | .links' <<<"$output")" = 2 ]
    [ "$(jq -r '.[] | select(.name == "b") | .permissions' <<<"$output")" = $((8#755)) ]
    run -0 vhdtool ls -r "$IN/m.raw" -o name
    [ "$output" = "$( (cd "$IN/tree" && find . -mindepth 1; echo ./lost+found; echo ./etc/fstab) | sed 's,^\./,,' | sort)" ]
}

@test "cat: to stdout, byte for byte; links inside the image" {
    vhdtool cat "$IN/d.vhdx" /random | cmp - "$IN/tree/random"
    vhdtool cat "$IN/d.vhdx:/sparse" | cmp - "$IN/tree/sparse"
    [ "$(vhdtool cat "$IN/d.vhdx" /sub/link)" = tool ]
    [ "$(vhdtool cat "$IN/d.vhdx" /../../bin/a /sub/deep/../link)" = $'tool\ntool' ]
    [ "$(vhdtool cat "$IN/d.vhdx:1:/loader/loader.conf")" = "timeout 3" ]
}

@test "cp: in, out, over, between, and the file system stays clean" {
    cp "$IN/d.vhdx" d.vhdx
    echo hello >motd
    run -0 vhdtool cp motd d.vhdx:/etc/motd
    [ "$(vhdtool cat d.vhdx /etc/motd)" = hello ]
    echo "changed" >passwd
    run -0 vhdtool cp passwd d.vhdx:/etc/
    run -0 vhdtool ls d.vhdx /etc/passwd -o json
    [ "$(jq '.[0] | [.uid, .gid]' -c <<<"$output")" = "[$(id -u),$(id -g)]" ]     # as it was
    [ "$(vhdtool cat d.vhdx /etc/passwd)" = changed ]
    vhdtool cp - d.vhdx:/piped <"$IN/tree/random"
    vhdtool cat d.vhdx /piped | cmp - "$IN/tree/random"
    run -0 vhdtool cp -r "$IN/tree" d.vhdx:/copy
    run -0 vhdtool cp -r --owner 5:6 motd d.vhdx:/copy/
    run -0 vhdtool ls d.vhdx /copy/motd -o json
    [ "$(jq '.[0] | [.uid, .gid]' -c <<<"$output")" = "[5,6]" ]
    run -0 vhdtool ls d.vhdx /copy/bin -o json
    [ "$(jq '.[0].links' <<<"$output")" = 2 ]                # hard links too
    for i in $(seq 60); do echo "$i" >"a-name-long-enough-to-fill-a-block-of-the-folder-soon-$i"; done
    mkdir many && mv a-name-* many/
    run -0 vhdtool cp -r many d.vhdx:/
    clean d.vhdx
    run -0 vhdtool cp -r d.vhdx:/copy out
    rm out/motd
    diff -r "$IN/tree" out
    [ "$(stat -c %Y out/bin/a)" = "$(stat -c %Y "$IN/tree/bin/a")" ]
    [ "$(stat -c %i out/bin/a)" = "$(stat -c %i out/bin/b)" ]
    [ "$(stat -c %b out/sparse)" -lt 4000 ]
    run -0 vhdtool cp d.vhdx:/etc/motd d.vhdx:/etc/motd2
    cp "$IN/m.raw" m.raw
    run -0 vhdtool cp d.vhdx:/etc/motd m.raw:/etc/
    [ "$(vhdtool cat m.raw /etc/motd)" = hello ]
    e2fsck -fn m.raw
    run -0 vhdtool cp d.vhdx:1:/loader/loader.conf .
    [ "$(cat loader.conf)" = "timeout 3" ]
    run -0 vhdtool check d.vhdx
}

@test "cp: a full file system gets nothing half-written" {
    cp "$IN/m.raw" m.raw
    head -c 60M /dev/zero | tr '\0' x >big
    run -8 --separate-stderr vhdtool cp big m.raw:/big
    [[ $stderr == *"the file system is full"* ]]
    e2fsck -fn m.raw
    run -3 vhdtool cat m.raw /big
    echo small >small
    run -0 vhdtool cp small m.raw:/small
    e2fsck -fn m.raw
}

@test "cp: a host that is full is named, and leaves a file system that is whole" {
    unshare -m mount -t tmpfs none "$PWD" 2>/dev/null || skip "needs to mount"
    mkdir -p small what && echo x >small/x
    for n in $(seq 60); do mkdir "what/d$n" && head -c $((n * 300)) /dev/urandom >"what/f$n"; done
    head -c 3000000 /dev/urandom >"what/random"
    for form in vhdx vhd raw; do
        vhdtool build "d.$form" --from small --size 64M -q
        for free in 0 4 60 200 900; do
            FORM=$form FREE=$free run -0 unshare -m --propagation private bash -ec '
                mkdir full && mount -t tmpfs -o size=8m none full && cp --sparse=always "d.$FORM" full && cd full
                dd if=/dev/zero of=filler bs=1k count=$(($(df --output=avail . | tail -1) - FREE)) status=none
                ! vhdtool cp -r ../what "d.$FORM:/" 2>../err
                rm filler
                vhdtool check "d.$FORM" >/dev/null
                rm -f ../c.raw && vhdtool convert "d.$FORM" ../c.raw -q
                cd .. && umount full && rmdir full'
            grep -q "^vhdtool: d.$form: cannot write /what.*: No space left on device" err || { cat err; return 1; }
            e2fsck -fn "c.raw?offset=1048576" >fsck.log 2>&1 || { echo "$form, $free KiB free"; cat err fsck.log; return 1; }
        done
    done
}

@test "cp: files that say they have no size, or a page, are read to their end" {
    cp "$IN/d.vhdx" .
    thp=/sys/kernel/mm/transparent_hugepage/enabled
    for f in /proc/version $thp; do
        run -0 --separate-stderr vhdtool cp "$f" d.vhdx:/etc/of-the-kernel
        [ "$(vhdtool cat d.vhdx:/etc/of-the-kernel | sha256sum)" = "$(sha256sum <"$f")" ]
        [ "$(vhdtool ls d.vhdx:/etc/of-the-kernel -o json | jq '.[0].size')" = "$(wc -c <"$f")" ]
    done
    mkdir from && ln -s $thp from/link && : >from/empty && truncate -s 4096 from/hole && head -c 4097 /dev/urandom >from/more
    run -0 vhdtool cp -r from d.vhdx:/from
    for f in empty hole more; do
        [ "$(vhdtool cat d.vhdx:/from/$f | sha256sum)" = "$(sha256sum <from/$f)" ]
    done
    clean d.vhdx
}

@test "cp: an image that would write elsewhere does not" {
    mkdir -p t/a && echo evil >t/a/victim
    run -0 vhdtool build e.raw --from t --layout none --fstab keep
    # Two entries of one name, the link first: only debugfs makes those.
    mkdir elsewhere
    debugfs -w -R "symlink b $PWD/elsewhere" e.raw 2>/dev/null
    inode=$(debugfs -R "stat a" e.raw 2>/dev/null | sed -n 's/^Inode: *\([0-9]*\).*/\1/p')
    debugfs -w -R "ln <$inode> b" e.raw 2>/dev/null
    run vhdtool cp -r e.raw:/ out
    [ ! -e elsewhere/victim ]
}

@test "ISO 9660 and FAT are read; what cannot be written says so" {
    run -0 --separate-stderr vhdtool seed s.iso --hostname web --user-data "$IN/tree/etc/passwd"
    [ "$stderr" = "s.iso: NoCloud, iso9660" ]
    [ "$(vhdtool ls s.iso -o name)" = $'meta-data\nuser-data' ]
    vhdtool cat s.iso /user-data | cmp - "$IN/tree/etc/passwd"
    run -9 --separate-stderr vhdtool cp "$IN/tree/bin/a" s.iso:/x
    [[ $stderr == *"iso9660"* ]]
    cp "$IN/d.vhdx" d.vhdx
    run -9 --separate-stderr vhdtool cp "$IN/tree/bin/a" d.vhdx:1:/x
    [[ $stderr == *"vfat can only be read"* ]]
    command -v xorriso || skip "no xorriso"
    xorriso -as mkisofs -R -quiet -o t.iso "$IN/tree"
    run -0 vhdtool cp -r t.iso:/ out
    diff -r "$IN/tree" out
}

@test "info shows partitions; resize --grow-partition takes the ext4 along; compact knows what is free" {
    run -0 vhdtool build g.vhd --from "$IN/tree" --esp 8M --size 300M
    run -0 vhdtool info g.vhd
    [[ $output =~ partitions:\ +p1\ 8M\ vfat\ \'ESP\'\ [0-9A-F-]{9},\ p2\ 290M\ ext4\ \'root\'\ [0-9a-f-]{36} ]]
    run -0 --separate-stderr vhdtool resize g.vhd 3G --grow-partition
    [ "$stderr" = "g.vhd: size 300M -> 3G; p2 3062M, ext4 too" ]
    clean g.vhd
    vhdtool cat g.vhd /random | cmp - "$IN/tree/random"
    run -9 --separate-stderr vhdtool resize g.vhd 4G --grow-partition=1
    expect_error "vhdtool: g.vhd: partition 1 cannot grow: partition 2 comes after it"
    [ "$(vhdtool info g.vhd -o json | jq '(.size // .[0].size)')" = $((3 << 30)) ]
    head -c 100M /dev/urandom >big
    run -0 vhdtool cp big g.vhd:/big
    start=$(vhdtool info g.vhd -o json | jq '(.partitions // .[0].partitions)[1].offset')
    vhdtool convert g.vhd r.raw -q
    debugfs -w -R "rm big" "r.raw?offset=$start" 2>/dev/null
    e2fsck -fn "r.raw?offset=$start"
    vhdtool convert r.raw c.vhd -q
    before=$(stat -c %s c.vhd)
    run -0 vhdtool compact c.vhd
    [ "$(stat -c %s c.vhd)" -lt $((before - 90000000)) ]
    run -0 vhdtool check c.vhd
    vhdtool cat c.vhd /random | cmp - "$IN/tree/random"
    clean c.vhd
}

@test "what is wrong is said, with its exit code" {
    run -3 --separate-stderr vhdtool ls "$IN/d.vhdx:7"
    expect_error "vhdtool: $IN/d.vhdx: has no partition 7" "vhdtool info $IN/d.vhdx"
    run -3 --separate-stderr vhdtool ls "$IN/d.vhdx" /nope
    expect_error "vhdtool: $IN/d.vhdx: /nope: No such file or directory"
    run -3 vhdtool cat "$IN/d.vhdx" /nope
    run -2 --separate-stderr vhdtool cat "$IN/d.vhdx"
    [[ $stderr == *"which file?"* ]]
    run -2 --separate-stderr vhdtool cp "$IN/d.vhdx:/etc" x
    expect_error "vhdtool: /etc: is a folder" "give --recursive"
    run -2 vhdtool cp here there
    truncate -s 10M empty.raw
    run -9 --separate-stderr vhdtool ls empty.raw
    expect_error "vhdtool: empty.raw: no ext4, vfat or ISO 9660 in it"
    # A journal that has to be replayed: read with a warning, not written.
    cp "$IN/m.raw" j.raw
    debugfs -w -R "feature needs_recovery" j.raw 2>/dev/null
    run -0 --separate-stderr vhdtool ls j.raw
    [[ $stderr == *"the journal was not replayed"* ]]
    run -4 --separate-stderr vhdtool cp "$IN/tree/bin/a" j.raw:/x
    [[ $stderr == *"its journal has to be replayed first"* ]]
}

@test "seed: NoCloud as ISO and as a disk" {
    echo '#cloud-config' >u
    echo 'version: 2' >n
    echo 'ssh-ed25519 AAAA me' >k.pub
    run -0 vhdtool seed s.iso --user-data u --network n --hostname 'w"b' --ssh-key k.pub
    [ "$(blkid -o value -s LABEL -p s.iso)" = CIDATA ]
    vhdtool cat s.iso /network-config | cmp - n
    run -0 vhdtool cat s.iso /meta-data
    [[ ${lines[0]} =~ ^instance-id:\ iid-[0-9a-f]{16}$ ]]
    [ "${lines[1]}" = 'local-hostname: "w\"b"' ]
    [ "${lines[3]}" = '  - "ssh-ed25519 AAAA me"' ]
    id=${lines[0]}
    run -0 vhdtool seed s.iso --user-data u --network n --hostname 'w"b' --ssh-key k.pub
    [ "$(vhdtool cat s.iso /meta-data | head -n 1)" = "$id" ]
    echo '# more' >>u
    run -0 vhdtool seed s.iso --user-data u --network n --hostname 'w"b' --ssh-key k.pub
    [ "$(vhdtool cat s.iso /meta-data | head -n 1)" != "$id" ]
    run -0 vhdtool seed s.raw --user-data u
    [ "$(blkid -o value -s LABEL -p s.raw)" = CIDATA ]
    fsck.fat -n s.raw
    vhdtool cat s.raw /user-data | cmp - u
    run -2 vhdtool seed s.iso --meta-data u --hostname x
    run -3 vhdtool seed s.iso --user-data nowhere
    run -2 vhdtool seed s.unknown
    vhdtool create -q disk.vhdx --size 64M
    cp disk.vhdx before.vhdx
    run -4 --separate-stderr vhdtool seed disk.vhdx --user-data u
    expect_error "vhdtool: disk.vhdx: exists already, and is no seed"
    cmp disk.vhdx before.vhdx
}

@test "an ordinary user reads and writes files in a disk" {
    [ "$(id -u)" = 0 ] || skip "only root can become another user"
    d=$BATS_TEST_TMPDIR
    while [ "$d" != "${BATS_TMPDIR:-/tmp}" ] && [ "$d" != / ]; do chmod a+rx "$d"; d=$(dirname "$d"); done
    cp "$IN/d.vhdx" d.vhdx && chown nobody d.vhdx . && echo x >x
    run -0 runuser -u nobody -- env PATH="$PATH" vhdtool cp "$PWD/x" "$PWD/d.vhdx:/etc/x"
    run -0 runuser -u nobody -- env PATH="$PATH" vhdtool cat "$PWD/d.vhdx" /etc/x
    [ "$output" = x ]
    clean d.vhdx
}
