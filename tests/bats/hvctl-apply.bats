#!/usr/bin/env bats
# Settings as documents: get, diff, apply, edit; and documents that mean harm.
load helper

setup_file() { start_service; }
teardown_file() { stop_service; }
setup() { no_vms; KERNEL=$(some_kernel); cd "$BATS_TEST_TMPDIR"; }

# The documents' folder of the service and its own words, before and after: nothing was changed.
stored() { cat "$XDG_STATE_HOME"/hv/vms/*.xml 2>/dev/null | sha256sum; }

# The service dies; the next one.
crash_service() {
    kill -9 "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" 2>/dev/null || true
    rm -f "$XDG_RUNTIME_DIR/hv/org.hv.Manager"
    start_service
}

# An instance of a class with a property: INSTANCE NAME TYPE VALUE
instance() { printf '<INSTANCE CLASSNAME="%s"><PROPERTY NAME="%s" TYPE="%s"><VALUE>%s</VALUE></PROPERTY></INSTANCE>' "$@"; }

@test "get | apply is the identity, as XML and as JSON, of one and of many" {
    hvctl create web1 --memory 2G --kernel "$KERNEL" --cmdline 'a="b c" <&>' --notes $'two\nlines  ' -q
    truncate -s 8M d.raw
    hvctl create db1 --max 4G --min 256M --disk d.raw --dvd "$KERNEL" -q
    hvctl vm set db1 --on-start resume --start-delay 90s -q
    before=$(stored)
    for form in json xml ""; do
        hvctl get web1 db1 ${form:+-o $form} >both 2>err || { [ "$form" = xml ] && grep -q 'not in this version' err && continue; }
        run -0 --separate-stderr hvctl apply -f both
        [ "$output" = $'vm web1   unchanged\nvm db1    unchanged' ]
        [ -z "$stderr" ]
        run -0 --separate-stderr hvctl diff -f both
        [ -z "$output$stderr" ]
    done
    [ "$(stored)" = "$before" ]
    # As another host would see it.
    hvctl get --all >both
    no_vms
    run -0 hvctl apply -f both
    [ "$output" = $'vm db1    created\nvm web1   created' ]
    [ "$(stored)" = "$before" ]
}

@test "apply: the contract's report, exit codes of diff and --dry-run" {
    hvctl create web1 --memory 1G --max 4G --cpus 2 -q
    cat >lab.json <<'EOF'
{"vms": [{"name": "web1", "memory": {"max": "8G"}, "processor": {"cpus": 4}},
         {"name": "ci-runner", "memory": {"startup": 536870912}}]}
EOF
    run -11 --separate-stderr hvctl diff -f lab.json
    [ "$output" = $'vm web1        change     memory.max 4.0G -> 8.0G (now), processor.cpus 2 -> 4 (now)\nvm ci-runner   create' ]
    run -11 hvctl apply -f lab.json --dry-run
    [ "$(hvctl list -o name)" = web1 ]
    run -0 --separate-stderr hvctl apply -f lab.json
    [ "$output" = $'vm web1        changed    memory.max 4.0G -> 8.0G (now), processor.cpus 2 -> 4 (now)\nvm ci-runner   created' ]
    [ -z "$stderr" ]
    [ "$(hvctl show ci-runner -o json | jq -c '[.memory.startup, .memory.min]')" = "[536870912,536870912]" ]
    run -0 hvctl apply -f lab.json
    [ "$output" = $'vm web1        unchanged\nvm ci-runner   unchanged' ]
    run -0 hvctl apply --dry-run -f lab.json
    [ -z "$output" ]
    run -0 bash -c 'hvctl apply -o json -f - <lab.json'
    [ "$(jq -c '[.[] | [.kind, .name, .result]]' <<<"$output")" = '[["vm","web1","unchanged"],["vm","ci-runner","unchanged"]]' ]
    run -0 --separate-stderr hvctl apply -q -f lab.json
    [ -z "$output$stderr" ]
}

@test "apply: nothing is changed if one object does not fit, and each says why" {
    hvctl create web1 -q
    before=$(stored)
    cat >bad.json <<'EOF'
[{"name": "web1", "notes": "fine"}, {"name": "db1", "memory": {"max": "3G", "startup": "4G", "dynamic": true}},
 {"name": "x1", "memory": {"max": 2048}}, {"name": "x2", "memory": {"maxx": 1}}, {"name": "a/b"}, {"name": "web1"},
 {"name": "x3", "boot": {"kernel": "/nowhere/vmlinuz"}}, {"name": "x4", "id": "web1"}]
EOF
    run -2 --separate-stderr hvctl apply -f bad.json
    [ -z "$output" ]
    expected='hvctl: bad.json: db1: maximum 3.0G is less than the startup memory 4.0G
  try: hvctl memory set db1 --startup 3G --max 3G
hvctl: bad.json: x1: memory.max: 2K is no multiple of 2M
  try: 2M
hvctl: bad.json: x2: maxx: there is no setting '\''memory.maxx'\''
hvctl: bad.json: a/b: a name has 1 to 100 characters, none of them '\''/'\'' or a control character
hvctl: bad.json: web1: it is in the document twice
hvctl: bad.json: x3: /nowhere/vmlinuz: cannot open the kernel: No such file or directory
hvctl: bad.json: web1: is no GUID'
    [ "$stderr" = "$expected" ] || { diff <(echo "$stderr") <(echo "$expected"); return 1; }
    [ "$(stored)" = "$before" ]
    [ "$(hvctl list -o name)" = web1 ]
}

@test "apply: who is meant: by name, by id, and what contradicts" {
    hvctl create web1 -q
    hvctl create web2 -q
    id=$(hvctl show web1 -o json | jq -r .id)
    run -0 hvctl apply -f - <<<"{\"id\": \"$id\", \"notes\": \"by id\"}"
    [ "$(hvctl show web1 -o json | jq -r .notes)" = "by id" ]
    run -4 --separate-stderr hvctl apply -f - <<<"{\"id\": \"$id\", \"name\": \"other\"}"
    expect_error "hvctl: -: other: the VM with its id is called web1 here" \
        "hvctl rename web1 other, or take its id out of the document"
    run -4 --separate-stderr hvctl apply -f - <<<'{"id": "11111111-2222-3333-4444-555555555555", "name": "web2"}'
    [[ $stderr == "hvctl: -: web2: it is here with another id"* ]]
    run -3 --separate-stderr hvctl apply -f - <<<'{"id": "11111111-2222-3333-4444-555555555555"}'
    run -0 hvctl apply -f - <<<'{"id": "11111111-2222-3333-4444-555555555555", "name": "new"}'
    [ "$(hvctl show new -o json | jq -r .id)" = 11111111-2222-3333-4444-555555555555 ]
}

@test "apply: bad use" {
    run -2 --separate-stderr hvctl apply
    expect_error "hvctl: 'apply' needs a document" "hvctl apply -f FILE"
    run -3 --separate-stderr hvctl apply -f /nowhere
    expect_error "hvctl: /nowhere: cannot read: No such file or directory"
    run -2 --separate-stderr hvctl apply -f /dev/null
    expect_error "hvctl: /dev/null: it is empty"
    run -2 --separate-stderr hvctl apply -f - <<<'{"name": "a", "name": "b"}'
    [[ $stderr == "hvctl: -: line 1, column "*": it is no JSON: duplicate object key"* ]]
    run -2 --separate-stderr hvctl apply -f - <<<'["web1"]'
    [[ $stderr == "hvctl: -: it is no document of settings"* ]]
    run -9 --separate-stderr hvctl apply -f - <<<'{"vms": [], "switches": [{"name": "lan"}]}'
    expect_error "hvctl: switches: not in this version"
    run -9 --separate-stderr hvctl get switch:lan
    expect_error "hvctl: switch:lan: not in this version" "man hv-from-hyperv"
    run -3 --separate-stderr hvctl get nobody
    [[ $stderr == "hvctl: nobody: no such VM"* ]]
    hvctl create web1 -q
    run -3 --separate-stderr hvctl get web1 nobody
    [ -z "$output" ]
    run -2 --separate-stderr hvctl get web1 -o csv
    expect_error "hvctl: --output: documents are xml or json" "hvctl show VM, for tables and lists"
}

@test "apply: the host's own settings" {
    run -0 hvctl get host -o json
    [ "$(jq -c '.host | [.vm_memory, .root_reserve, .balancer]' <<<"$output")" = '[null,null,true]' ]
    hvctl get host >before.xml
    run -0 hvctl diff -f before.xml
    run -0 hvctl apply -f - <<<'{"host": {"vm_memory": "64G", "root_reserve": 1073741824}}'
    [ "$output" = "host   changed    host.vm_memory auto -> 64.0G (now), host.root_reserve auto -> 1.0G (now)" ]
    hvctl get host >host.xml
    run -0 hvctl diff -f host.xml
    run -0 hvctl apply -f - <<<'{"host": {"vm_memory": "auto", "root_reserve": null}}'
    run -11 hvctl diff -f host.xml
    run -0 hvctl apply -f host.xml
    [ "$(hvctl get host -o json | jq .host.vm_memory)" = 68719476736 ]
    run -0 hvctl apply -f - <<<'{"host": {"balancer": false, "balancer_delay_ms": "3s", "metrics": "off"}}'
    [[ $output == *"host.balancer_delay_ms "*" -> 3000ms (now), host.balancer on -> off (now), host.metrics "*" -> off (now)" ]]
    run -2 --separate-stderr hvctl apply -f - <<<'{"host": {"metrics": "nowhere:1:2"}}'
    hvctl get host | hvctl diff -f -
    hvctl apply -q -f before.xml
    run -2 --separate-stderr hvctl apply -f - <<<'{"host": {"vm_mem": 1}}'
    expect_error "hvctl: -: host: vm_mem: the host has no setting 'vm_mem'"
}

@test "apply: what the table does not know is kept, changed and compared" {
    hvctl create web1 -q
    hvctl get web1 >web1.xml
    more=$(instance Msvm_FutureThing Colour string blue)
    sed "s|</DECLGROUP>|<VALUE.OBJECT>$more</VALUE.OBJECT></DECLGROUP>|
         s|<PROPERTY NAME=\"Reservation\"|<PROPERTY NAME=\"SgxSize\" TYPE=\"uint64\"><VALUE>7</VALUE></PROPERTY>&|" web1.xml >more.xml
    run -0 hvctl apply -f more.xml
    [ "$output" = "vm web1   changed    Msvm_MemorySettingData.SgxSize - -> 7 (now), Msvm_FutureThing.Colour - -> blue (now)" ]
    run -0 hvctl apply -f more.xml
    [ "$output" = "vm web1   unchanged" ]
    hvctl vm set web1 --notes x -q
    hvctl get web1 >again.xml
    grep -q Msvm_FutureThing again.xml
    grep -q SgxSize again.xml
    run -0 hvctl apply -f again.xml
    [ "$output" = "vm web1   unchanged" ]
    # JSON says nothing of it, and takes nothing away.
    hvctl get web1 -o json | hvctl apply -q -f -
    hvctl get web1 | grep -q Msvm_FutureThing
    # A whole document without it does.
    run -0 hvctl apply -f web1.xml
    [[ $output == *"Msvm_FutureThing.Colour blue -> -"* ]]
    run -1 grep -q Msvm_FutureThing <(hvctl get web1)
    # It survives the service.
    hvctl apply -q -f more.xml
    before=$(hvctl get web1)
    crash_service
    [ "$(hvctl get web1)" = "$before" ]
}

@test "apply: a few properties written by hand are a document" {
    hvctl create web1 --disk "$(truncate -s 4M d.raw; realpath d.raw)" -q
    { echo '<CIM>'; instance Msvm_VirtualSystemSettingData ElementName string web1
      instance Msvm_MemorySettingData VirtualQuantity uint64 640; echo '</CIM>'; } >hand.xml
    run -0 --separate-stderr hvctl apply -f hand.xml
    [ "$output" = "vm web1   changed    memory.startup 1.0G -> 640M (now)" ]
    [ "$(hvctl show web1 -o json | jq '.disks | length')" = 1 ]
    sed -i s/web1/web2/ hand.xml
    run -0 hvctl apply -f hand.xml
    [ "$output" = "vm web2   created" ]
}

@test "apply: hostile XML is refused in its sealed process" {
    hvctl create web1 -q
    before=$(stored)
    refused() { # TEXT-IN-STDERR <document
        run -2 --separate-stderr hvctl apply -f -
        [[ $stderr == "hvctl: -: "*"$1"* ]] || { echo "$1: $stderr"; return 1; }
    }
    refused "a document type definition is not accepted" <<<'<!DOCTYPE a [<!ENTITY b "c">]><CIM>&b;</CIM>'
    refused "a document type definition is not accepted" <<<'<!DOCTYPE a SYSTEM "file:///etc/passwd"><CIM/>'
    refused "a document type definition is not accepted" <<<'<!DOCTYPE a PUBLIC "-//x" "http://127.0.0.1:1/x.dtd"><CIM/>'
    { echo '<!DOCTYPE a [<!ENTITY l0 "ha">'
      for i in $(seq 30); do echo "<!ENTITY l$i \"&l$((i - 1));&l$((i - 1));\">"; done
      echo ']><CIM>&l30;</CIM>'; } >laughs
    refused "a document type definition is not accepted" <laughs
    refused "Entity 'x' not defined" <<<'<CIM>&x;</CIM>'
    refused "nested deeper than 16" < <(printf '<a>%.0s' $(seq 3000))
    refused "more than 16 MiB" < <(head -c 17000000 /dev/zero | tr '\0' ' ')
    refused "it is no XML" < <(head -c 16000000 /dev/zero | tr '\0' '<')
    refused "neither UTF-8 nor UTF-16" < <(printf '<CIM a="\xff\xfe"/>')
    refused "neither UTF-8 nor UTF-16" < <(printf '<CIM a="\xed\xa0\x80"/>')
    refused "and is no UTF-16 text" < <(printf '\xff\xfe<')
    refused "and is no UTF-16 text" < <(printf '\xff\xfe\x00\xd8<\x00')
    refused "the encoding iso-8859-1 is not accepted" <<<'<?xml version="1.0" encoding="iso-8859-1"?><CIM/>'
    refused "the encoding utf-7 is not accepted" <<<"<?xml version='1.0' encoding='utf-7'?><CIM/>"
    refused "it is no XML" < <(printf '<CIM a="\x01"/>')
    refused "there is no virtual machine in it" <<<'<html><body>404</body></html>'
    refused "it takes too long, or too much memory, to read" < <(printf '<CIM '; seq -f 'a%.0f=""' 230000; printf '/>')
    refused "which of the virtual machines it belongs to cannot be told" < <(
        echo '<CIM>'; instance Msvm_ComputerSystem Name string 11111111-2222-3333-4444-555555555555
        instance Msvm_ComputerSystem Name string 11111111-2222-3333-4444-666666666666
        instance Msvm_MemorySettingData Limit uint64 1024; echo '</CIM>')
    refused "a virtual machine without a name" < <(echo '<CIM>'; instance Msvm_MemorySettingData Limit uint64 1024; echo '</CIM>')
    refused "line 1: Msvm_MemorySettingData.Limit: it has to be a whole number" < <(
        printf '<CIM>'; instance Msvm_VirtualSystemSettingData ElementName string web1
        instance Msvm_MemorySettingData Limit uint64 0x400; echo '</CIM>')
    refused "web1: bad name: no name of a class" < <(
        printf '<CIM>'; instance Msvm_VirtualSystemSettingData ElementName string web1
        instance "bad name" A string x; echo '</CIM>')
    refused "no type of CIM" < <(
        printf '<CIM>'; instance Msvm_VirtualSystemSettingData ElementName string web1
        instance Msvm_X A 'string&quot;&lt;' x; echo '</CIM>')
    [ "$(stored)" = "$before" ]
    # The service is as it was, and leaves no process of a reader behind.
    run -0 hvctl apply -f - <<<'{"name": "web1"}'
    run -1 pgrep -P "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
}

@test "apply --prune: what is in the group and not in the document goes, and nothing else" {
    for vm in web1 old1 old2 other; do hvctl create $vm -q; done
    hvctl group create lab -q
    hvctl group add lab web1 old1 old2 -q
    echo '[{"name": "web1", "notes": "n"}, {"name": "new"}]' >lab.json
    run -2 --separate-stderr hvctl apply -f lab.json --prune lab </dev/null
    expect_error "hvctl: old1: removing it needs --yes when nobody can be asked"
    run -11 hvctl apply -f lab.json --prune lab --dry-run
    [ "$output" = $'vm web1   change     notes - -> n (now)\nvm new    create\nvm old1   remove\nvm old2   remove' ]
    hvctl vm set old2 --lock on -q
    run -4 --separate-stderr hvctl apply -f lab.json --prune lab --yes
    [[ $stderr == "hvctl: old2: cannot remove: it is locked"* ]]
    [ "$(hvctl list -o name)" = $'old1\nold2\nother\nweb1' ]
    hvctl vm set old2 --lock off -q
    run -0 hvctl apply -f lab.json --prune lab --yes
    [ "$output" = $'vm web1   changed    notes - -> n (now)\nvm new    created\nvm old1   removed\nvm old2   removed' ]
    [ "$(hvctl list -o name)" = $'new\nother\nweb1' ]
    run -3 --separate-stderr hvctl apply -f lab.json --prune nope --yes
    [[ $stderr == "hvctl: nope: no such group"* ]]
    hvctl group remove lab --yes -q || hvctl group remove lab -q
}

@test "apply: a UTF-16 document, as Windows writes them" {
    hvctl create web1 --notes 'Grüße 😀' -q
    { printf '\xff\xfe'; hvctl get web1 | sed 's/utf-8/utf-16/' | iconv -f UTF-8 -t UTF-16LE; } >le.xml
    { printf '\xfe\xff'; hvctl get web1 | sed 's/utf-8/utf-16/' | iconv -f UTF-8 -t UTF-16BE; } >be.xml
    { printf '\xef\xbb\xbf'; hvctl get web1; } >bom.xml
    for f in le be bom; do
        run -0 --separate-stderr hvctl diff -f $f.xml
        [ -z "$output$stderr" ]
    done
}

@test "edit: changes, keeps the text after an error, and sees who was faster" {
    hvctl create web1 --memory 1G -q
    export TMPDIR=$BATS_TEST_TMPDIR VISUAL=
    kept() { ls -d "$XDG_RUNTIME_DIR"/hvctl-edit-*/settings.* 2>/dev/null; }
    EDITOR="sed -i 's/>1024</>2048</'" run -0 --separate-stderr hvctl edit web1
    [ "$output" = "vm web1   changed    memory.startup 1.0G -> 2.0G (now)" ]
    EDITOR=true run -0 --separate-stderr hvctl edit web1
    [ "$stderr" = "web1: nothing to change" ]
    EDITOR='truncate -s 0' run -0 --separate-stderr hvctl edit web1
    [ "$stderr" = "web1: the text is empty: nothing changed" ]
    EDITOR="sed -i 's/2147483648/1073741824/'" run -0 --separate-stderr hvctl edit web1 -o json
    [ "$(hvctl show web1 -o json | jq .memory.startup)" = 1073741824 ]
    [ -z "$(kept)" ]

    EDITOR="sed -i 's/>1024</>1023</'" run -2 --separate-stderr hvctl edit web1
    [[ $stderr == *"web1: your text is kept in "*"hvctl: web1: line "*"1023M is no multiple of 2M" ]]
    grep -q '>1023<' "$(kept)"
    sed -i 's/>1023</>1026</' "$(kept)"
    run -0 hvctl apply -f "$(kept)"
    rm -r "$(dirname "$(kept)")"

    EDITOR="sh -c 'hvctl vm set web1 --notes theirs -q; sed -i \"s/>1026</>4096</\" \$1' x" run -4 --separate-stderr hvctl edit web1
    [[ $stderr == *"web1: meanwhile others changed: notes"*"hvctl: web1: it was changed meanwhile" ]]
    [ "$(hvctl show web1 -o json | jq -r '[.memory.startup, .notes] | join(" ")')" = "1075838976 theirs" ]
    rm -r "$(dirname "$(kept)")"

    EDITOR="sed -i 's/\"web1\"/\"web2\"/'" run -2 --separate-stderr hvctl edit web1 -o json
    [[ $stderr == *"the document calls it web2"* ]]
    rm -r "$(dirname "$(kept)")"
    EDITOR=/nowhere/editor run -3 --separate-stderr hvctl edit web1
    [[ $stderr == *"hvctl: /nowhere/editor: cannot be run"* ]]
    EDITOR=false run -1 --separate-stderr hvctl edit web1
    [[ $stderr == *"hvctl: false: ended with 1" ]]
    run -3 --separate-stderr hvctl edit nobody
    [ -z "$(kept)" ]
}

@test "edit: on a terminal it asks, and edits again" {
    command -v tmux >/dev/null || skip "no tmux"
    hvctl create web1 --memory 1G -q
    # First a mistake, then what was meant.
    cat >ed <<'EOF'
#!/bin/sh
if grep -q '>1023<' "$1"; then sed -i 's/>1023</>2048</' "$1"; else sed -i 's/>1024</>1023</' "$1"; fi
EOF
    chmod +x ed
    tmux -S "$BATS_TEST_TMPDIR/t" -f /dev/null new-session -d -x 100 -y 24 \
        "VISUAL= EDITOR=$PWD/ed hvctl edit web1; echo \"exit \$?\"; sleep 100"
    see() { for _ in $(seq 100); do tmux -S "$BATS_TEST_TMPDIR/t" capture-pane -p | grep -qF "$1" && return; sleep 0.1; done
            tmux -S "$BATS_TEST_TMPDIR/t" capture-pane -p; return 1; }
    see "edit again? [Y/n]"
    tmux -S "$BATS_TEST_TMPDIR/t" send-keys y Enter
    see "exit 0"
    tmux -S "$BATS_TEST_TMPDIR/t" kill-server
    [ "$(hvctl show web1 -o json | jq .memory.startup)" = 2147483648 ]
}

@test "apply: a running machine takes what it can, and names what it cannot" {
    need_guest
    truncate -s 8M a.raw b.raw
    hvctl create web1 --memory 256M --kernel "$KERNEL" --initrd "$INITRD" --cmdline console=ttyS0 --disk a.raw -q
    hvctl start web1 --paused -q
    run -0 --separate-stderr hvctl apply -f - <<<'{"name": "web1", "notes": "n", "memory": {"startup": "512M"}, "processor": {"cpus": 2}}'
    [ "$output" = "vm web1   changed    notes - -> n (now), memory.startup 256M -> 512M (next start), processor.cpus 1 -> 2 (next start)" ]
    before=$(stored)
    run -4 --separate-stderr hvctl apply -f - <<<"{\"name\": \"web1\", \"notes\": \"m\", \"disks\": [
        {\"location\": \"scsi0:0\", \"path\": \"$PWD/b.raw\", \"read_only\": true}]}"
    expect_error "hvctl: -: web1: cannot be changed while it is paused: disks.scsi0:0.path, disks.scsi0:0.read_only" "hvctl stop web1"
    [ "$(stored)" = "$before" ]
    run -0 --separate-stderr hvctl apply -f - <<<"{\"name\": \"web1\", \"disks\": [
        {\"location\": \"scsi0:0\", \"path\": \"$PWD/a.raw\", \"max_iops\": 500},
        {\"location\": \"scsi0:3\", \"path\": \"$PWD/b.raw\"}]}"
    [ "$output" = "vm web1   changed    disks.scsi0:0.max_iops 0 -> 500 (now), disks.scsi0:3 - -> $PWD/b.raw (now)" ]
    [ "$(hvctl disk list web1 -o json | jq -c '[.[] | [.location, .format]]')" = '[["scsi0:0","raw"],["scsi0:3","raw"]]' ]
    # One that cannot be had: said, the rest is done, and what is stored is what is there.
    hvctl create db1 --kernel "$KERNEL" --initrd "$INITRD" --memory 128M -q
    hvctl start db1 --paused -q
    run -10 --separate-stderr hvctl apply -f - <<<"[{\"name\": \"db1\", \"notes\": \"x\", \"disks\": [{\"path\": \"$PWD/b.raw\"}]},
        {\"name\": \"web1\", \"notes\": \"y\"}]"
    [[ ${lines[0]} == "vm db1    failed     notes - -> x (now)" ]]
    [[ ${lines[1]} == "vm web1   changed    notes n -> y (now)" ]]
    [[ $stderr == "hvctl: $PWD/b.raw: in use"* || $stderr == *"b.raw"*"in use"* ]]
    [ "$(hvctl show db1 -o json | jq '.disks | length')" = 0 ]
    run -0 hvctl apply -f - <<<'{"name": "web1", "disks": []}'
    [ -z "$(hvctl disk list web1 -o name)" ]
    run -0 hvctl get web1 db1
}

@test "apply: 64 clients racing with documents: what is stored is one of them, whole" {
    hvctl create web1 -q
    hvctl get web1 >base.xml
    pids=()
    for i in $(seq 64); do
        case $((i % 4)) in
        0) sed "s/>1024</>$((1024 + 2 * i))</; s/>512</>$((512 + 2 * i))</" base.xml >r$i.xml; hvctl apply -q -f r$i.xml & ;;
        1) hvctl apply -q -f - <<<"{\"name\": \"web1\", \"memory\": {\"startup\": \"$((1024 + 2 * i))M\", \"min\": \"$((512 + 2 * i))M\"}}" & ;;
        2) hvctl memory set web1 --startup $((1024 + 2 * i))M --min $((512 + 2 * i))M -q & ;;
        3) VISUAL= EDITOR="sed -i -E 's/(startup|min)\": [0-9]+/&/'" hvctl edit web1 -o json -q & ;;
        esac >/dev/null 2>&1
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        code=0
        wait "$pid" || code=$?
        case $code in 0 | 4) ;; *) echo "exit $code"; return 1 ;; esac
    done
    now=$(hvctl show web1 -o json | jq -c '[.memory.startup, .memory.min]')
    [ "$(jq '.[0] - .[1]' <<<"$now")" = $((512 << 20)) ]
    crash_service
    [ "$(hvctl show web1 -o json | jq -c '[.memory.startup, .memory.min]')" = "$now" ]
    hvctl events --kind config --since 1m -n 1 -q
}

@test "a disk that is full at any one write: the client is told, nothing is lost, torn or half done" {
    one='{"name": "one", "notes": "1"}'
    three='[{"name": "one", "notes": "3"}, {"name": "two"}, {"name": "three"}]'
    hits=0
    for n in $(seq 1 14); do
        no_vms
        hvctl create zero --notes kept -q
        kill "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
        wait "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" 2>/dev/null || true
        HV_FAULT=write=$n:ENOSPC start_service
        want=
        step() { # COMMAND...: done, or refused with the reason
            run --separate-stderr "$@"
            [ "$status" = 0 ] && return 0
            hits=$((hits + 1))
            [ "$status" = 8 ] && [[ $stderr == *"cannot store"*"No space left on device"* ]] || { echo "$n: $*: $status: $stderr"; exit 1; }
            return 1
        }
        if step hvctl create one; then want=null; fi
        if step hvctl apply -f - <<<"$one"; then want='"1"'; fi
        if step hvctl apply -f - <<<"$three"; then want='"3"' rest=$'three\ntwo\n'; else rest=; fi
        step hvctl vm set zero --notes changed && zero=changed || zero=kept
        names=$([ -z "$want" ] || echo one; printf '%s' "$rest"; echo zero)
        for round in now after; do
            [ "$(hvctl list -o name)" = "$names" ] || { echo "$n $round: $(hvctl list -o name)"; return 1; }
            [ -z "$want" ] || [ "$(hvctl show one -o json | jq -c .notes)" = "$want" ]
            [ "$(hvctl show zero -o json | jq -r .notes)" = $zero ]
            [ $round = after ] && break
            crash_service
        done
        run -1 grep 'not loaded' "$BATS_FILE_TMPDIR/hvd.log"
    done
    echo "$hits writes failed"
    [ "$hits" -ge 5 ]
}
