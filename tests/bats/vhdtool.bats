#!/usr/bin/env bats
# vhdtool: disks made, looked at, changed and compared, with qemu-img as an independent reader.

load helper

setup() {
    cd "$BATS_TEST_TMPDIR"
    # 64 MiB with data at its start, in the middle, and in the last sector.
    truncate -s 64M r.raw
    head -c 5000000 /dev/urandom | dd of=r.raw bs=1M conv=notrunc status=none iflag=fullblock
    head -c 1000000 /dev/urandom | dd of=r.raw bs=1M seek=33 conv=notrunc status=none iflag=fullblock
    head -c 512 /dev/urandom | dd of=r.raw bs=512 seek=131071 conv=notrunc status=none
}

# What an independent reader sees in a VHD equals r.raw.
qemu_sees() { qemu-img compare -f vpc -F raw "$1" "${2:-r.raw}"; }

@test "create: dynamic and fixed VHD from a raw disk; qemu-img reads the same" {
    run -0 --separate-stderr vhdtool create d.vhd --from r.raw
    [ "$stderr" = "d.vhd: dynamic vhd, 64M" ]
    run -0 vhdtool create f.vhd --from r.raw --type fixed
    qemu_sees d.vhd
    qemu_sees f.vhd
    [ "$(stat -c %s f.vhd)" = $((64 * 1024 * 1024 + 512)) ]
    [ "$(stat -c %s d.vhd)" -lt $((16 * 1024 * 1024)) ]
    run -0 vhdtool check d.vhd f.vhd
    run -0 vhdtool diff d.vhd f.vhd
    run -0 vhdtool diff d.vhd r.raw
}

@test "convert: what qemu-img wrote, back to raw and on to fixed, equal by hash" {
    for how in force_size=on subformat=fixed,force_size=on; do
        rm -f q.vhd back.raw f.vhd
        qemu-img convert -f raw -O vpc -o "$how" r.raw q.vhd
        run -0 vhdtool check q.vhd
        run -0 vhdtool convert q.vhd back.raw
        cmp r.raw back.raw
        [ "$(stat -c %b back.raw)" -lt 20000 ]          # holes stay holes
        run -0 vhdtool convert q.vhd f.vhd --type fixed
        qemu_sees f.vhd
    done
}

@test "convert: streams" {
    run -0 vhdtool create d.vhd --from r.raw
    vhdtool convert d.vhd - | cmp - r.raw
    vhdtool convert - s.raw <r.raw
    cmp s.raw r.raw
    run -9 --separate-stderr vhdtool convert - s.vhd <r.raw
    [[ $stderr == *"vhdtool convert - s.vhd --size SIZE"* ]]
    [ ! -e s.vhd ]
    cat r.raw | vhdtool create s.vhd --from - --size 64M
    qemu_sees s.vhd
    run -8 --separate-stderr vhdtool create t.vhd --from - --size 32M <r.raw
    expect_error "vhdtool: t.vhd: what comes from stdin is larger than the disk"
    [ ! -e t.vhd ]
}

@test "convert, create, build: a signal amid writing leaves nothing half-made" {
    local made=0 signal verb
    for signal in INT TERM HUP; do
        for verb in 'convert - x.vhdx' 'create x.raw --from - --size 64M' 'build x.vhd --from - --size 200M'; do
            rm -f stream && mkfifo stream
            exec 9<>stream                               # held open: there is no end of it
            # As an interactive shell has it: what goes to the background does not ignore SIGINT.
            env --default-signal=INT,TERM,HUP "$BIN/vhdtool" $verb <stream 9>&- 3>&- &
            pid=$!
            head -c 30000 r.raw >&9
            deadline=$((SECONDS + 5))
            until compgen -G 'x.*' >/dev/null || [ $SECONDS -ge $deadline ]; do sleep 0.02; done
            ! compgen -G 'x.*' >/dev/null || made=$((made + 1))
            kill -s "$signal" "$pid"
            rc=0; wait "$pid" || rc=$?
            [ "$rc" = $((128 + $(kill -l "$signal"))) ]
            exec 9>&-
            left=$(find . -name 'x.*')
            [ "$left" = "" ]
        done
    done
    [ "$made" -ge 6 ]
}

@test "create: what is wrong is said, and nothing is left behind" {
    run -2 --separate-stderr vhdtool create a.vhd
    expect_error "vhdtool: a.vhd: needs a size" "vhdtool create a.vhd --size 20G"
    run -2 --separate-stderr vhdtool create a.qcow2 --size 1G
    run -2 --separate-stderr vhdtool create a.vhd --size 3T
    [[ $stderr == *"a dynamic VHD holds at most 2040G"* ]]
    run -2 --separate-stderr vhdtool create a.vhd --size 1G --block-size 3M
    run -9 --separate-stderr vhdtool create a.vhd --size 1G --logical-sector 4096
    run -3 --separate-stderr vhdtool create a.vhd --parent nothing.vhd
    run -2 --separate-stderr vhdtool create a.vhd --parent nothing.vhd --type fixed
    expect_error "vhdtool: --type: a disk with a parent is a differencing one: leave it out"
    run -3 --separate-stderr vhdtool create a.vhd --from nothing.raw
    [ "$(echo a.*)" = "a.*" ]
    run -0 vhdtool create a.vhd --size 1G
    run -4 --separate-stderr vhdtool create a.vhd --size 2G
    expect_error "vhdtool: a.vhd: exists already"
    run -0 --separate-stderr vhdtool create a.vhd --size 2G --if-missing
    [ "$(vhdtool info a.vhd -o json | jq .size)" = $((1 << 30)) ]
}

@test "create --azure: fixed, a whole MiB, sparse" {
    truncate -s 30000001 odd.raw
    run -0 vhdtool create az.vhd --azure --from odd.raw
    [ "$(stat -c %s az.vhd)" = $((29 * 1024 * 1024 + 512)) ]
    [ "$(stat -c %b az.vhd)" -lt 100 ]
    [ "$(vhdtool info az.vhd -o json | jq -r .type)" = fixed ]
    run -2 --separate-stderr vhdtool create az2.raw --azure --size 1G
}

@test "info: one disk as a list, several as a table, all of it as JSON" {
    run -0 vhdtool create d.vhd --from r.raw
    run -0 vhdtool create c.vhd --parent d.vhd
    run -0 vhdtool info c.vhd
    [[ ${lines[0]} =~ ^path:\ +c.vhd$ ]]
    [[ ${lines[1]} =~ ^format:\ +vhd,\ differencing$ ]]
    [[ ${lines[2]} =~ ^size:\ +64M$ ]]
    [[ ${lines[3]} =~ ^on\ disk:\ .*\(0\ of\ 32\ blocks\ of\ 2M\)$ ]]
    [[ $output == *"512 logical, 512 physical"* ]]
    [[ $output =~ parent:\ +(.*/)?d.vhd ]]
    [ "$(vhdtool info --chain c.vhd -o json | jq -r '.chain[0].type')" = dynamic ]
    [ "$(vhdtool info d.vhd c.vhd -o json | jq length)" = 2 ]
    run -3 --separate-stderr vhdtool info nothing.vhd
    run -10 --separate-stderr vhdtool info nothing.vhd d.vhd
    # A child whose parent is away still says what it is.
    mv d.vhd elsewhere.vhd
    run -0 vhdtool info c.vhd
    [[ $output =~ parent:.*d.vhd ]]
}

@test "map: extents of the whole chain" {
    run -0 vhdtool create d.vhd --from r.raw
    run -0 vhdtool create c.vhd --parent d.vhd
    [ "$(vhdtool map c.vhd -o json | jq '[.[].length] | add')" = $((64 << 20)) ]
    [ "$(vhdtool map c.vhd -o json | jq '[.[] | select(.state == "data") | .layer] | unique[]')" = 1 ]
    [ "$(vhdtool map c.vhd -F state=absent -o json | jq 'length > 0')" = true ]
}

@test "chain: a moved parent is missed with the cure; a changed one is refused" {
    run -0 vhdtool create base.vhd --from r.raw
    run -0 vhdtool create c.vhd --parent base.vhd
    mkdir sub
    mv base.vhd sub
    run -3 --separate-stderr vhdtool convert c.vhd x.raw --flatten
    [[ $stderr == *"vhdtool chain c.vhd --set-parent PATH"* ]]
    run -0 vhdtool chain c.vhd --set-parent sub/base.vhd
    run -0 vhdtool convert c.vhd x.raw --flatten
    cmp x.raw r.raw
    mv sub/base.vhd .
    run -0 vhdtool chain c.vhd --relocate .
    run -0 vhdtool diff c.vhd r.raw
    run -0 vhdtool set base.vhd --new-id
    run -11 vhdtool check --chain c.vhd
    run -11 vhdtool check c.vhd
    [ "$output" = "c.vhd: chain: base.vhd: was changed after its child c.vhd was made, or is another disk" ]
    mv base.vhd sub
    run -0 vhdtool check c.vhd                       # by itself it is whole: --chain complains
    [[ $output == *"its parent"*"was not found"* ]]
    run -11 vhdtool check --chain c.vhd
    mv sub/base.vhd .
    run -4 --separate-stderr vhdtool chain c.vhd --set-parent base.vhd
    run -0 vhdtool chain c.vhd --set-parent base.vhd --ignore-id
    run -0 vhdtool check --chain c.vhd
    run -2 --separate-stderr vhdtool chain base.vhd --set-parent c.vhd
    run -2 --separate-stderr vhdtool convert c.vhd y.raw
    [[ $stderr == *"--flatten"* ]]
}

@test "names as long as a name can be: repair, merge, build and seed have room for theirs" {
    long() { printf "%0.s$1" $(seq $(((255 - ${#2}) / 2))); printf '%s' "${3:-}$2"; }      # of characters of two bytes
    vhdx=$(long é .vhdx) other=$(long é .vhdx | sed 's/éé.vhdx$/aeé.vhdx/')
    [ "$(printf %s "$vhdx" | wc -c)" = 255 ] && [ "$(printf %s "$other" | wc -c)" = 255 ]
    for f in "$vhdx" "$other"; do
        vhdtool create "$f" --size 16M -q
        dd if=/dev/zero of="$f" bs=1 seek=65536 count=4 conv=notrunc status=none
        run -0 --separate-stderr vhdtool repair "$f"
        run -0 vhdtool check "$f"
    done
    # What was there is kept, of each for itself.
    [ "$(find . -name '*.orig-header' | wc -l)" = 2 ]
    find . -name '*.orig-header' | iconv -f utf-8 -t utf-8 >/dev/null
    rm -- *.orig-header "$other"
    child=$(long ü .vhdx)
    vhdtool create "$child" --parent "$vhdx" -q
    run -0 vhdtool merge "$child" --yes -q
    mkdir tree && echo x >tree/x
    run -0 vhdtool build "$(long ö .raw a)" --from tree --size 64M -q
    run -0 vhdtool seed "$(long ä .iso a)" --hostname x -q
    [ "$(find . -name '*.part' -o -name '*.merging' | wc -l)" = 0 ]
}

@test "merge: into the parent, into a new disk, and again after an interruption" {
    run -0 vhdtool create base.vhd --size 64M
    run -0 vhdtool create c.vhd --parent base.vhd
    run -0 vhdtool create g.vhd --parent c.vhd
    # Content through a grandchild: what a guest would have written.
    run -0 vhdtool merge g.vhd --to whole.vhd
    run -0 vhdtool create r.vhd --from r.raw
    run -0 vhdtool create r2.vhd --parent r.vhd
    run -2 --separate-stderr vhdtool merge r2.vhd </dev/null
    [[ $stderr == *"--yes"* ]]
    run -0 --separate-stderr vhdtool merge r2.vhd --yes
    [ ! -e r2.vhd ]
    [ ! -e r2.vhd.merging ]
    qemu_sees r.vhd
    run -0 --separate-stderr vhdtool merge g.vhd --into base.vhd --keep-child --yes
    [ -e g.vhd ]
    run -2 --separate-stderr vhdtool merge g.vhd --into r.vhd --yes
    run -2 --separate-stderr vhdtool merge g.vhd --depth 5 --yes
}

@test "resize: larger; the content stays" {
    run -0 vhdtool create d.vhd --from r.raw
    run -0 --separate-stderr vhdtool resize d.vhd +36M
    [ "$stderr" = "d.vhd: size 64M -> 100M" ]
    truncate -s 100M r.raw
    qemu_sees d.vhd
    run -0 vhdtool resize d.vhd 200G             # the BAT has to move
    run -0 vhdtool check d.vhd
    [ "$(qemu-img info -f vpc d.vhd --output json | jq '."virtual-size"')" = $((200 << 30)) ]
    run -9 --separate-stderr vhdtool resize d.vhd 10M
    run -2 --separate-stderr vhdtool resize d.vhd
}

@test "compact: blocks of zeros go" {
    run -0 vhdtool create d.vhd --from r.raw
    # Zeros as data: a block that qemu-io wrote.
    qemu-io -f vpc -c 'write -P 0 6M 10M' d.vhd >/dev/null
    before=$(stat -c %s d.vhd)
    run -0 vhdtool compact d.vhd
    [ "$(stat -c %s d.vhd)" -le $((before - 8 * 1024 * 1024)) ]
    qemu_sees d.vhd
    run -0 vhdtool check d.vhd
    run -9 --separate-stderr vhdtool compact r.raw
}

@test "check and repair: exit 11 with what is wrong, the headers are kept" {
    run -0 vhdtool create d.vhd --from r.raw
    truncate -s -512 d.vhd
    run -11 --separate-stderr vhdtool check d.vhd
    [ "${lines[0]}" = "d.vhd: footer: the one at the end is missing or damaged" ]
    [ "${lines[1]}" = "  try: vhdtool repair d.vhd" ]
    [ "$(vhdtool check d.vhd -o json | jq -r '.[0].repairable')" = true ]
    run -11 --separate-stderr vhdtool repair d.vhd --dry-run
    run -11 vhdtool check d.vhd
    run -0 --separate-stderr vhdtool repair d.vhd
    [ -e d.vhd.orig-header ]
    run -0 vhdtool check d.vhd
    qemu_sees d.vhd
}

@test "a disk in use: looked at, not written" {
    run -0 vhdtool create d.vhd --from r.raw
    # Somebody who holds it for writing: a conversion to a pipe that nobody reads holds it for reading.
    mkfifo hold
    vhdtool convert d.vhd - >hold &
    exec 4<hold
    until grep -q OFDLCK /proc/$!/fdinfo/* 2>/dev/null; do sleep 0.05; done
    run -4 --separate-stderr vhdtool compact d.vhd
    [[ $stderr == *"d.vhd: in use by vhdtool (pid $!)"* ]]
    run -0 vhdtool info d.vhd
    exec 4<&-
    wait $! || true
    run -0 vhdtool compact d.vhd
}

@test "what is no disk, and what is another's format" {
    run -2 --separate-stderr vhdtool info .
    mkfifo pipe
    run -2 --separate-stderr vhdtool info pipe
    qemu-img create -q -f qcow2 q.qcow2 64M
    run -9 --separate-stderr vhdtool info q.qcow2
    [[ $stderr == *"is a qcow2 image"*"qemu-img convert -O vhdx"* ]]
    run -0 vhdtool info q.qcow2 --format raw
    : >empty.vhd
    run -2 --separate-stderr vhdtool info empty.vhd
    run -2 --separate-stderr vhdtool check empty.vhd
    expect_error "vhdtool: empty.vhd: is too short for a disk (0 bytes)"
    printf 'conectix' >short.vhd
    run ! vhdtool info short.vhd
}
