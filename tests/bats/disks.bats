#!/usr/bin/env bats
# Disks of VMs through hvctl: with the VM off and running, by what the guest and vhdtool see.

load helper

setup_file() {
    start_service
    need_guest
    "$TOP/tests/guest/mkinitrd.sh" -k cloud -m hv_vmbus -m hv_utils -m hv_storvsc -m sd_mod -m sr_mod -m ext4 "$BATS_FILE_TMPDIR/initrd-disk"
}
teardown_file() { stop_service; }
setup() { cd "$BATS_TEST_TMPDIR"; }
teardown() { no_vms; }

create() {
    hvctl create "$1" -q --memory 256M --kernel "$KERNEL" --initrd "$BATS_FILE_TMPDIR/initrd-disk" --cmdline 'console=ttyS0 quiet' "${@:2}"
}
start() { hvctl start "$1" -q --wait=console:demo -t 60s; }
guest() { hvctl console "$1" --send "$2; echo en\"\"d" --until end -t 30s; }

@test "disk: a new one is written by the guest, and is there after it is off" {
    vhdtool create -q d.vhdx --size 200M
    create vm1 --disk d.vhdx
    run -0 hvctl disk list vm1
    [[ ${lines[1]} =~ ^vm1\ +scsi0:0\ +.*d.vhdx\ +disk ]]
    start vm1
    run -0 guest vm1 'mke2fs -q /dev/sda; mkdir -p /m; mount -t ext4 /dev/sda /m; echo kept >/m/f; umount /m; sync'
    # In use: nobody else writes to it, and the message says who does.
    run -4 --separate-stderr vhdtool resize d.vhdx 1G
    [[ ${stderr_lines[0]} == *"d.vhdx: in use by vm1 (pid "* ]]
    [ "${stderr_lines[1]}" = "  try: hvctl disk resize vm1 d.vhdx 1G" ]
    run -4 --separate-stderr vhdtool compact d.vhdx
    [ "${stderr_lines[1]}" = "  try: hvctl stop vm1, or hvctl disk list vm1" ]
    run -0 vhdtool info d.vhdx
    [[ $output == *"in use:"*"vm1 (pid "* ]]
    # The counters come with the worker's next report.
    for _ in $(seq 50); do
        [ "$(hvctl disk list vm1 -o json | jq '.[0].writes > 0')" = true ] && break
        sleep 0.1
    done
    [ "$(hvctl disk list vm1 -o json | jq '.[0] | .writes > 0 and .errors == 0 and .format == "vhdx"')" = true ]
    run -0 hvctl stop vm1 --turn-off --yes -q
    run -0 vhdtool check d.vhdx
    start vm1
    run -0 guest vm1 'mkdir -p /m; mount -t ext4 /dev/sda /m; cat /m/f; umount /m'
    [[ $output == *kept* ]]
}

@test "disk: added, resized and removed while the guest runs" {
    create vm1
    start vm1
    run -0 --separate-stderr hvctl disk add vm1 new.vhdx --new 64M
    [[ $stderr == "vm1: scsi0:0 is "*"/new.vhdx" ]]
    [ "$(hvctl disk list vm1 -o json | jq '.[0].size')" = 67108864 ]
    run -0 guest vm1 'while [ ! -e /dev/sda ]; do sleep 0.1; done; cat /sys/block/sda/size'
    [[ $output == *131072* ]]
    run -0 --separate-stderr hvctl disk resize vm1 scsi0:0 +64M
    [ "$stderr" = "vm1: scsi0:0: size 64M -> 128M, now; in the guest: growpart /dev/sda 1 && resize2fs /dev/sda1" ]
    [ "$(hvctl disk list vm1 -o json | jq '.[0].size')" = 134217728 ]
    run -0 guest vm1 'while [ "$(cat /sys/block/sda/size)" != 262144 ]; do sleep 0.1; done; echo gr""own'
    [[ $output == *grown* ]]
    run -9 --separate-stderr hvctl disk resize vm1 new.vhdx 1M
    run -0 hvctl disk remove vm1 new.vhdx
    run -0 guest vm1 'while [ -e /dev/sda ]; do sleep 0.1; done; echo go""ne'
    [[ $output == *gone* ]]
    [ -e new.vhdx ]
    run -0 vhdtool check new.vhdx
    [ "$(vhdtool info new.vhdx -o json | jq .size)" = $((128 << 20)) ]
    [ "$(hvctl disk list vm1 -o json)" = "[]" ]
}

@test "disk: a chain of parents is opened; a parent that is missing is said, and the VM stays off" {
    vhdtool create -q base.vhdx --size 64M
    vhdtool create -q mid.vhdx --parent base.vhdx
    vhdtool create -q top.vhdx --parent mid.vhdx
    create vm1 --disk top.vhdx
    start vm1
    run -0 guest vm1 'echo written-here | dd of=/dev/sda bs=512 seek=100 conv=sync 2>/dev/null; sync'
    run -0 hvctl stop vm1 --turn-off --yes -q
    [ "$(vhdtool info base.vhdx -o json | jq .blocks_present)" = 0 ]
    run -0 vhdtool check --chain top.vhdx
    run -0 bash -c 'vhdtool convert --flatten top.vhdx - | grep -c written-here'
    mv mid.vhdx away.vhdx
    run -3 --separate-stderr hvctl start vm1
    [[ $stderr == *"mid.vhdx was not found"* ]]
    [[ $stderr == *"vhdtool chain"* ]]
    # Whoever hears of the failure finds the VM off, not on its way there.
    for _ in $(seq 20); do
        run -3 hvctl start vm1
        [ "$(hvctl list vm1 -o json | jq -r '.[0].state')" = off ]
    done
    mv away.vhdx mid.vhdx
    start vm1
}

@test "disk: what cannot be attached is said, and nothing changes" {
    create vm1
    run -3 --separate-stderr hvctl disk add vm1 nothing.vhdx
    run -3 --separate-stderr hvctl disk add nobody nothing.vhdx --new 64M
    [ ! -e nothing.vhdx ]
    vhdtool create -q d.vhdx --size 64M
    run -0 hvctl disk add vm1 d.vhdx --location scsi0:7
    run -4 --separate-stderr hvctl disk add vm1 d.vhdx
    [[ $stderr == *"it has "*"d.vhdx already, at scsi0:7"* ]]
    run -2 --separate-stderr hvctl disk add vm1 e.vhdx --new 64M --location ide0:0
    [ ! -e e.vhdx ]
    run -3 --separate-stderr hvctl disk remove vm1 scsi0:3
    start vm1
    qemu-img create -q -f qcow2 q.qcow2 64M
    run -9 --separate-stderr hvctl disk add vm1 q.qcow2
    [[ $stderr == *"is a qcow2 image"* ]]
    head -c 1048576 /dev/urandom >broken.vhdx
    printf vhdxfile | dd of=broken.vhdx conv=notrunc status=none
    run ! hvctl disk add vm1 broken.vhdx
    [ "$(hvctl disk list vm1 -o json | jq length)" = 1 ]
    # The same disk in two VMs: the second does not start, and says why.
    create vm2 --disk d.vhdx
    run -4 --separate-stderr hvctl start vm2
    [[ $stderr == *"in use by vm1 (pid "* ]]
}

@test "disk: a limit of requests a second holds" {
    vhdtool create -q d.vhdx --size 64M
    create vm1
    start vm1
    run -0 hvctl disk add vm1 d.vhdx --max-iops 50
    run -0 guest vm1 'while [ ! -e /dev/sda ]; do sleep 0.1; done; a=$(cut -d. -f1 /proc/uptime); for i in $(seq 150); do dd if=/dev/sda bs=4k count=1 skip=$((i * 40)) iflag=direct 2>/dev/null >/dev/null; done; b=$(cut -d. -f1 /proc/uptime); echo took $((b - a))'
    took=$(sed -n 's/.*took \([0-9][0-9]*\).*/\1/p' <<<"$output" | tail -1)
    [ "$took" -ge 2 ]
    run -0 hvctl disk set vm1 scsi0:0 --max-iops 0
}

@test "disk: kept across the end of the service, and gone with remove --delete" {
    vhdtool create -q d.vhdx --size 64M
    create vm1 --disk d.vhdx
    start vm1
    kill -9 "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    "$BIN/hvd" --user --idle 0 >>"$BATS_FILE_TMPDIR/hvd.log" 2>&1 3>&- &
    echo $! >"$BATS_FILE_TMPDIR/hvd.pid"
    run -0 hvctl wait vm1 --for running -t 20s
    run -0 hvctl disk list vm1
    [[ $output == *"d.vhdx"* ]]
    run -0 guest vm1 'dd if=/dev/zero of=/dev/sda bs=1M count=4 2>/dev/null; sync'
    run -0 hvctl disk add vm1 more.vhdx --new 64M
    run -2 --separate-stderr hvctl disk remove vm1 scsi0:1 --delete </dev/null
    [ -e more.vhdx ]
    run -0 hvctl disk remove vm1 scsi0:1 --delete --yes
    [ ! -e more.vhdx ]
}

@test "dvd: a drive, its medium changed and ejected" {
    head -c 2097152 /dev/urandom >a.iso
    head -c 2097152 /dev/urandom >b.iso
    create vm1 --dvd a.iso
    start vm1
    run -0 guest vm1 'md5sum /dev/sr0'
    [[ $output == *"$(md5sum <a.iso | cut -d' ' -f1)"* ]]
    run -0 hvctl dvd insert vm1 b.iso
    run -0 guest vm1 'sleep 1; md5sum /dev/sr0'
    [[ $output == *"$(md5sum <b.iso | cut -d' ' -f1)"* ]]
    run -0 hvctl dvd eject vm1
    run -0 guest vm1 'md5sum /dev/sr0 || echo em""pty'
    [[ $output == *empty* ]]
    run -0 hvctl dvd list
    [[ $output == *"scsi0:0"* ]]
    run -0 hvctl dvd remove vm1
    [ "$(hvctl dvd list -o json)" = "[]" ]
}

@test "disks: vm create makes them, and the seed; not twice, and not for nothing" {
    local path
    cd "$BATS_TEST_TMPDIR"
    vhdtool create -q base.vhdx --size 1G
    printf '#cloud-config\npackages: [hyperv-daemons]\n' >user-data
    run -0 --separate-stderr hvctl create vm9 --kernel "$(some_kernel)" --new-disk 2G --parent base.vhdx --seed user-data
    [ "$stderr" = "vm9: created" ]
    path=$XDG_STATE_HOME/hv/disks
    run -0 hvctl disk list vm9 -o csv -c location,path,type,format
    [ "${lines[1]}" = "scsi0:0,$path/vm9.vhdx,disk,vhdx" ]
    [ "${lines[2]}" = "scsi0:1,$path/vm9-2.vhdx,disk,vhdx" ]
    [ "${lines[3]}" = "scsi0:2,$path/vm9-seed.iso,dvd," ]
    [ "$(vhdtool info "$path/vm9.vhdx" -o json | jq .size)" = $((2 << 30)) ]
    [[ "$(vhdtool info "$path/vm9-2.vhdx" -o json | jq -r '.parent')" == *base.vhdx* ]]
    run -0 vhdtool cat "$path/vm9-seed.iso" /user-data
    [[ $output == *hyperv-daemons* ]]
    # One that is there is left alone, and nothing is made where no VM comes to be.
    run -4 --separate-stderr hvctl create vm9 --new-disk 1G
    expect_error "hvctl: vm9: it exists already"
    run -0 hvctl create vm9 --new-disk 1G --if-missing
    run -0 hvctl create vm10 --kernel "$(some_kernel)" --new-disk 1G --dry-run
    run -2 hvctl create vm10 --kernel "$(some_kernel)" --new-disk 1G --memory 3M
    run -3 hvctl create vm10 --kernel "$(some_kernel)" --new-disk 1G --parent nothing.vhdx
    run -3 --separate-stderr hvctl create vm10 --kernel "$(some_kernel)" --new-disk 1G --seed nothing
    [ "$stderr" = "hvctl: $PWD/nothing: cannot read: No such file or directory" ]
    run -3 --separate-stderr hvctl create vm10 --kernel "$(some_kernel)" --new-disk 1G --seed nothing -o json
    [ "$(jq -r '.error.code + " " + .error.object' <<<"$stderr")" = "not-found $PWD/nothing" ]
    [ -z "$output" ]
    [ "$(ls "$path" | wc -l)" -eq 3 ]
    run -0 --separate-stderr hvctl remove vm9 --yes
    [[ $stderr == *"vm9: disk left: $path/vm9.vhdx"* ]]
    rm "$path"/vm9*
}

@test "vm remove --disks deletes what only it uses, and nothing else" {
    cd "$BATS_TEST_TMPDIR"
    for d in own base shared; do vhdtool create $d.vhdx --size 64M -q; done
    vhdtool create child.vhdx --parent base.vhdx -q
    vhdtool create mine.vhdx --parent shared.vhdx -q
    ln -s own.vhdx link.vhdx
    : >seed.iso
    hvctl create rm1 --disk own.vhdx --disk base.vhdx --disk shared.vhdx --disk link.vhdx --disk mine.vhdx --dvd seed.iso -q
    hvctl create rm2 --disk child.vhdx --disk shared.vhdx -q
    run -2 --separate-stderr hvctl remove rm1 --disks
    expect_error "hvctl: rm1: removing it and deleting $PWD/own.vhdx, $PWD/mine.vhdx needs --yes when nobody can be asked"
    run -0 --separate-stderr hvctl remove rm1 --disks --dry-run --yes
    [ "$(hvctl list -o name | grep -c rm1)" = 1 ]
    [ -f own.vhdx ]
    run -0 --separate-stderr hvctl remove rm1 --disks --yes
    [ "$stderr" = "rm1: removed
rm1: disk deleted: $PWD/own.vhdx
rm1: disk left: $PWD/base.vhdx: a disk of rm2 rests on it
rm1: disk left: $PWD/link.vhdx: it is no file
rm1: disk deleted: $PWD/mine.vhdx" ]
    [ "$(ls *.vhdx *.iso | tr '\n' ' ')" = 'base.vhdx child.vhdx link.vhdx seed.iso shared.vhdx ' ]
    # Both at once: what they had together goes with the last of them.
    hvctl create rm3 --disk shared.vhdx -q
    run -0 hvctl remove rm2 rm3 --disks --yes -q --jobs 1
    [ "$(ls *.vhdx *.iso | tr '\n' ' ')" = 'base.vhdx link.vhdx seed.iso ' ]
}

