#!/usr/bin/env bats
# The examples of the manual pages are run from there. In a page's EXAMPLES a literal block of
# "$ command" lines and what they print has a line before it:
#
#   .\" @run SETUP [header]      SETUP is a function here; header: of a table only its header counts
#
# Words, columns and exit codes have to be the same; numbers, ids, times and the order of lines that
# several machines print are not compared. Of JSON the keys have to be there.
load helper

setup_file() {
    start_service
    export HV_BLOCKS=$BATS_FILE_TMPDIR/blocks
    mkdir "$HV_BLOCKS"
    local page
    for page in "$TOP"/man/*.[1-8]; do
        awk -v out="$HV_BLOCKS/$(basename "$page")" '
            /^\.Sh / { in_examples = /EXAMPLES/; run = "" }
            !in_examples { next }
            /^\.\\" @run / { run = substr($0, 10); next }
            /^\.Bd -literal/ { block = ++n; file = out "." block; text = ""; next }
            /^\.Ed/ { if (text ~ /^\$ /) { print (run ? run : "?") > (file ".run"); printf "%s", text > file } run = ""; block = 0; next }
            block { gsub(/\\-/, "-"); gsub(/\\&/, ""); gsub(/\\e/, "\\"); text = text $0 "\n" }' "$page"
    done
}
teardown_file() { stop_service; }
setup() { cd "$BATS_TEST_TMPDIR"; no_vms; }

# ---- what the examples are run against ----

plain() { # two machines that are off
    hvctl create web1 -q
    hvctl create db1 --memory 4G --max 8G -q
    vhdtool create -q cache.vhdx --size 64M
    hvctl disk add web1 cache.vhdx --location scsi0:1 -q
}

# As plain made them, without doing all of it again.
again_plain() {
    hvctl remove web2 --yes --if-exists -q
    hvctl memory set db1 --startup 4G --max 8G -q
}

small() { # a host that cannot give what is asked for
    hvctl create ci-runner --memory 1G --kernel "$(some_kernel)" -q
    hvctl host set --vm-memory 700M -q >/dev/null
}

lab() { # machines that run, with their drivers; one has none; and one that is off
    need_guest
    local vm hv=$BATS_FILE_TMPDIR/initrd-hv
    [ -f "$hv" ] || "$TOP/tests/guest/mkinitrd.sh" -k cloud -m hv_vmbus -m hv_utils -m hv_balloon -m hv_storvsc "$hv" >&2
    vhdtool create -q web1.vhdx --size 20G
    hvctl create web1 --memory 256M --min 128M --max 4G --cpus 2 --kernel "$KERNEL" --initrd "$hv" --cmdline 'console=ttyS0 quiet' --disk web1.vhdx -q
    hvctl create db1 --memory 256M --min 128M --max 256M --buffer 2000 --kernel "$KERNEL" --initrd "$hv" --cmdline 'console=ttyS0 quiet' -q
    hvctl create win-ad --memory 128M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet rdinit=/bin/sh' -q
    hvctl create mail -q
    for vm in web1 db1 win-ad; do hvctl start $vm -q; done
    for vm in web1 db1; do hvctl console $vm --until 'demo:~# ' -t 120s </dev/null >/dev/null; done
    {
        echo '<CIM CIMVERSION="2.0" DTDVERSION="2.0"><DECLARATION><DECLGROUP>'
        lab_vm web1 memory 8192 cpus 4
        echo '</DECLGROUP><DECLGROUP>'
        lab_vm ci-runner memory 2048 cpus 1
        echo '</DECLGROUP></DECLARATION></CIM>'
    } >lab.xml
}
reports() { # the same, when the guests' drivers have spoken, three quarters of a minute later
    lab
    until [ "$(hvctl list -F status=ok -o name)" = web1 ]; do sleep 0.2; done
    until [ "$(hvctl memory list -F status.ne=ok -o name)" = db1 ]; do sleep 0.2; done
}
again_reports() { again_lab; }

again_lab() { # booting takes longest
    hvctl remove ci-runner --yes --if-exists -q
    hvctl memory set web1 --startup 256M --max 4G -q
    hvctl apply -q -f - <<<'{"name": "web1", "processor": {"cpus": 2}}'
}
lab_vm() { # NAME memory MAX cpus N
    printf '<INSTANCE CLASSNAME="Msvm_VirtualSystemSettingData"><PROPERTY NAME="ElementName" TYPE="string"><VALUE>%s</VALUE></PROPERTY></INSTANCE>' "$1"
    printf '<INSTANCE CLASSNAME="Msvm_MemorySettingData"><PROPERTY NAME="Limit" TYPE="uint64"><VALUE>%s</VALUE></PROPERTY></INSTANCE>' "$3"
    printf '<INSTANCE CLASSNAME="Msvm_ProcessorSettingData"><PROPERTY NAME="VirtualQuantity" TYPE="uint64"><VALUE>%s</VALUE></PROPERTY></INSTANCE>\n' "$5"
}

# As one who is not in the group, where there is a service of the system's. The function hides the program for this test.
denied() {
    mkdir -p "$BATS_FILE_TMPDIR/bin"
    cp "$BIN/hvctl" "$BATS_FILE_TMPDIR/bin/"
    local d=$BATS_FILE_TMPDIR
    while [ "$d" != / ]; do chmod o+x "$d"; d=$(dirname "$d"); done
    export -f hvctl_of_ann
    { grep -v '^hv:' /etc/group; echo hv:x:64321:; } >"$BATS_FILE_TMPDIR/group"
    hvctl() {
        unshare -m bash -c 'mount -t tmpfs none /run && mkdir -m 750 /run/hv && mount --bind "$BATS_FILE_TMPDIR/group" /etc/group &&
            hvctl_of_ann "$@"' - "$@"
    }
}
hvctl_of_ann() {
    exec setpriv --reuid nobody --regid nogroup --clear-groups env -C / HOME=/ "$BATS_FILE_TMPDIR/bin/hvctl" "$@"
}

# ---- running and comparing ----

# Numbers and what hangs on them, ids, times, blanks between columns.
mask() {
    sed -E "s#$PWD/##g"'
        s/adduser [a-z]+ hv/adduser USER hv/
        s/[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}/ID/g
        s/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]+Z/TIME/g
        s/-?[0-9]+(\.[0-9]+)?(ms|[BKMGTsmhd%])\b/SIZE/g
        s/\b(web|db|vm|sd[a-z]|scsi|ide)([0-9]+)/\1@/g
        s/(scsi@:)[0-9]+/\1@/g
        s/-?[0-9]+(\.[0-9]+)?/N/g
        s/SIZE( SIZE)+/SIZE/g
        s/  +/  /g; s/ +$//'
}

# same COMMAND EXPECTED ACTUAL HOW
same() {
    local want=$2 have=$3
    if [ "$4" = header ]; then
        want=$(head -n 1 <<<"$want" | sed 's/  */ /g') have=$(head -n 1 <<<"$have" | sed 's/  */ /g')
    elif [[ $want == [{[]* ]]; then
        # Every key of the example is there; others may be.
        want=$(jq -r '[paths | map(if type == "number" then "[]" else . end) | join(".")] | unique[]' <<<"$want")
        have=$(jq -r '[paths | map(if type == "number" then "[]" else . end) | join(".")] | unique[]' <<<"$have")
        have=$(grep -Fx "$want" <<<"$have" | sort) want=$(sort <<<"$want")
    else
        want=$(mask <<<"$want" | sort) have=$(mask <<<"$have" | sort)
    fi
    [ "$want" = "$have" ] || { printf '$ %s\n' "$1"; diff <(echo "$want") <(echo "$have"); return 1; }
}

# One block: each command with what stands below it.
run_block() { # FILE HOW
    local line command='' want='' code=0 have here='' failed=0
    finish() {
        [ -n "$command" ] || return 0
        have=$( (exit "$code"); eval "$command" 2>&1) && code=0 || code=$?
        same "$command" "${want%$'\n'}" "$have" "$2" || failed=1
        command='' want=''
    }
    while IFS= read -r line; do
        if [ -n "$here" ]; then
            command+=$'\n'$line
            [ "$line" = EOF ] && here=
        elif [[ $line == '$ '* ]]; then
            finish "$@"
            command=${line#\$ }
            [[ $command == *"<<'EOF'"* ]] && here=1
        else
            want+=$line$'\n'
        fi
    done <"$1"
    finish "$@"
    return $failed
}

run_all() { # SETUP
    local file how any=
    for file in "$HV_BLOCKS"/*.run; do
        read -r what how <"$file"
        [ "$what" = "$1" ] || continue
        if [ -n "$any" ] && [ "$(type -t "again_$1")" = function ]; then
            "again_$1"
        else
            no_vms
            rm -f ./*
            "$1"
        fi
        any=1
        echo "${file%.run}:"
        run_block "${file%.run}" "$how"
    done
    "$BIN/hvctl" apply -q -f - <<<'{"host": {"vm_memory": null}}'
    [ -n "$any" ]
}

@test "examples: every block of commands in EXAMPLES says what it is run against" {
    run grep -l '^?' "$HV_BLOCKS"/*.run
    [ "$status" = 1 ] || { echo "$output"; return 1; }
    [ "$(ls "$HV_BLOCKS"/*.run | wc -l)" -ge 10 ]
    for file in "$HV_BLOCKS"/*.run; do
        read -r what how <"$file"
        [ "$(type -t "$what")" = function ] || { echo "$file: $what"; return 1; }
    done
}
@test "examples: machines that are off" { run_all plain; }
@test "examples: a host without memory" { run_all small; }
@test "examples: machines that run" { run_all lab; }
@test "examples: a user who is not in the group" {
    [ "$(id -u)" = 0 ] || skip "needs root: another user"
    unshare -m true 2>/dev/null || skip "needs a mount namespace"
    run_all denied
}
@test "examples: machines that have reported" {
    [ -n "${HV_SLOW:-}" ] || skip "a minute: make check-slow"
    run_all reports
}
