#!/usr/bin/env bats
# vhdtool check --filesystem, beside e2fsck and fsck.fat: what they call clean is, what they find is found.

load helper

setup_file() {
    cd "$BATS_FILE_TMPDIR"
    mkdir -p tree/a/b tree/d
    for i in $(seq 1 120); do echo "$i" >"tree/d/a-file-with-a-long-name-$i"; done
    head -c 200000 /dev/urandom >tree/a/data
    ln tree/a/data tree/a/b/again
    ln -s /x tree/a/link
    vhdtool build --from tree ext4.raw --size 64M --layout none
    truncate -s 40M fat.raw
    mkfs.fat -F 32 fat.raw >/dev/null
}
setup() { cd "$BATS_TEST_TMPDIR"; }

# damaged REGEX DEBUGFS-COMMAND...: e2fsck finds it, and so do we, with these words.
damaged() {
    local words=$1 c
    shift
    cp --sparse=always "$BATS_FILE_TMPDIR/ext4.raw" x.raw
    for c; do debugfs -w -R "$c" x.raw; done >/dev/null 2>&1
    run e2fsck -fn x.raw
    [ "$status" -ne 0 ] || { echo "no damage: $*"; return 1; }
    run -11 vhdtool check --filesystem x.raw
    grep -qE "^x.raw: ext4: $words" <<<"$output" || { echo "$output"; return 1; }
}

@test "check --filesystem: every kind of ext is clean where e2fsck says so" {
    for how in ext2 ext3 ext4 'ext4 -O ^metadata_csum,^64bit' 'ext4 -O inline_data' 'ext4 -b 1024' \
        'ext4 -O ^flex_bg,^resize_inode' 'ext4 -O meta_bg,^resize_inode' 'ext4 -O sparse_super2' 'ext4 -O mmp' \
        'ext4 -O quota' 'ext4 -O orphan_file' 'ext4 -O ea_inode,large_dir,casefold' 'ext4 -O ^uninit_bg,^metadata_csum'; do
        rm -f f.raw
        mke2fs -q -F -t $how -d "$BATS_FILE_TMPDIR/tree" f.raw 80M || continue     # -t $how: words on purpose
        e2fsck -fn f.raw >/dev/null 2>&1 || continue
        run -0 vhdtool check --filesystem f.raw
    done
    run -0 --separate-stderr vhdtool check --filesystem "$BATS_FILE_TMPDIR/ext4.raw"
    [ -z "$output" ]
}

@test "check --filesystem: what is wrong with an ext4 is named" {
    damaged "inode [0-9]+: says it has [0-9]+ blocks, and has" 'sif /a/data blocks 8'
    damaged "inode [0-9]+: says it has 9 names, and has 2" 'sif /a/data links_count 9'
    damaged "folder [0-9]+: 'data' is inode [0-9]+, which nobody uses" 'clri /a/data'
    damaged "inode [0-9]+ has no name" 'unlink /a/link'
    damaged "folder [0-9]+ has no name" 'unlink /a/b'
    damaged "blocks [0-9]+ to [0-9]+ are in use, the bitmap says they are free" 'freeb 1 200'
    damaged "blocks 9000 to 9009 belong to nobody, the bitmap says they are in use" 'setb 9000 10'
    damaged "inode [0-9]+ is in use, the bitmap says it is free" 'freei /a/data'
    damaged "inode 900 is used by nobody, the bitmap says it is in use" 'seti <900>'
    damaged "group 0 counts 3 free inodes" 'set_bg 0 free_inodes_count 3' 'set_bg 0 checksum calc'
    damaged "folder [0-9]+: 'link' says another type" 'sif /a/link mode 0100644'
    damaged "inode [0-9]+: block [0-9]+ lies outside|inode [0-9]+: blocks? .*[0-9]+ .*belong to somebody else|inode [0-9]+:" \
        'extent_open /a/data' 'sif /a/data block[5] 0x7fffffff'
    damaged "attributes of inode [0-9]+: block [0-9]+ belong" 'sif /a/data file_acl 5'
    damaged "there is no root folder" 'clri <2>'
}

@test "check --filesystem: overlapping files, folders in a loop" {
    cp --sparse=always "$BATS_FILE_TMPDIR/ext4.raw" x.raw
    # Two inodes with the same extent.
    debugfs -w -R 'copy_inode /d/a-file-with-a-long-name-2 /d/a-file-with-a-long-name-1' x.raw
    run -11 vhdtool check --filesystem x.raw
    [[ $output == *"belong to somebody else too"* ]]
    # c contains a, a contains c: nobody leads there.
    cp --sparse=always "$BATS_FILE_TMPDIR/ext4.raw" x.raw
    debugfs -w -R 'mkdir /c' x.raw
    for step in 'ln /a /c/a' 'ln /c /a/c' 'unlink /a' 'unlink /c'; do debugfs -w -R "$step" x.raw; done
    run -11 vhdtool check --filesystem x.raw
    [[ $output == *"does not hang on the root"* ]]
}

@test "check --filesystem: FAT, its tables and chains" {
    cp --sparse=always "$BATS_FILE_TMPDIR/fat.raw" f.raw
    run -0 vhdtool check --filesystem f.raw
    # What build makes, with files in it.
    mkdir -p k
    vhdtool build -q --from "$BATS_FILE_TMPDIR/tree" e.raw --size 128M --esp 40M
    run -0 vhdtool check --filesystem e.raw
    fat=$((32 * 512))
    printf '\x05\x00\x00\x00' | dd of=f.raw bs=1 seek=$((fat + 4 * 100)) conv=notrunc status=none
    run -11 vhdtool check --filesystem f.raw
    [[ $output == *"the tables of clusters differ"* && $output == *"1 clusters are in use and belong to nobody"* ]]
    cp --sparse=always "$BATS_FILE_TMPDIR/fat.raw" f.raw
    root=$(($(od -An -t u4 -j 36 -N 4 f.raw) * 512 * 2 + fat))
    # A file of 5000 bytes at cluster 9, which is free; a folder at cluster 70000000.
    printf 'LOST    TXT\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09\x00\x88\x13\x00\x00' |
        dd of=f.raw bs=1 seek=$root conv=notrunc status=none
    printf 'FOLDER     \x10\x00\x00\x00\x00\x00\x00\x00\x00\x2c\x04\x00\x00\x00\x00\x80\x1d\x00\x00\x00\x00' |
        dd of=f.raw bs=1 seek=$((root + 32)) conv=notrunc status=none
    run -11 vhdtool check --filesystem f.raw
    [[ $output == *"LOST    TXT: its chain of clusters is broken"* && $output == *"FOLDER  ___: cluster 70000000 does not exist"* ]] ||
        [[ $output == *"LOST"* && $output == *"FOLDER"* ]]
    run fsck.fat -n f.raw
    [ "$status" -ne 0 ]
}

@test "check --filesystem: partition tables, other file systems, JSON" {
    vhdtool build -q --from "$BATS_FILE_TMPDIR/tree" g.vhdx --size 128M
    run -0 vhdtool check --filesystem g.vhdx
    vhdtool resize -q g.vhdx 200M
    run -0 vhdtool check --filesystem g.vhdx                    # the backup is not at the end: said, no damage
    [[ $output == *"partition table:"* ]]
    vhdtool resize -q g.vhdx --to-min
    vhdtool convert -q g.vhdx g.raw
    printf 'x' | dd of=g.raw bs=1 seek=520 conv=notrunc status=none
    run -11 vhdtool check --filesystem g.raw -o json
    [[ $(jq -r '.[0].problem' <<<"$output") == *"primary header"* ]]
    truncate -s 10M s.raw
    mkswap s.raw >/dev/null
    run -0 vhdtool check --filesystem s.raw
}
