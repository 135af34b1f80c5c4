#!/usr/bin/env bats
# Groups, new names, processors, cancelled jobs.
load helper

setup_file() { start_service; }
teardown_file() { stop_service; }
setup() {
    no_vms
    for g in $(hvctl group list -o name); do hvctl group remove "$g" -q; done
    for name in web1 web2 db1; do hvctl create "$name" --kernel "$(some_kernel)" -q; done
}

@test "group: create, add, list, drop, rename, remove" {
    run -0 --separate-stderr hvctl group create lab
    [ "$stderr" = "@lab: created" ]
    run -4 --separate-stderr hvctl group create lab
    expect_error "hvctl: lab: this group exists already"
    run -0 --separate-stderr hvctl group add lab 'web*'
    [ "$stderr" = "@lab: 2 in it" ]
    hvctl group add @lab web1 -q
    run -0 hvctl group
    [ "$output" = $'NAME  VMS  MEMBERS\nlab     2  web1, web2' ]
    run -0 hvctl group list -o json
    [ "$(jq -c '[.[0].name, .[0].count, .[0].vms]' <<<"$output")" = '["lab",2,["web1","web2"]]' ]
    [ "$(hvctl show web1 -o json | jq -c .groups)" = '["lab"]' ]
    run -0 hvctl list -F groups=lab -o name
    [ "$output" = $'web1\nweb2' ]
    run -0 --separate-stderr hvctl group rename lab test -o json
    [ "$(jq -r .name <<<"$output")" = test ]
    hvctl group drop test web2 -q
    run -0 hvctl list @test -o name
    [ "$output" = web1 ]
    run -0 --separate-stderr hvctl group remove test
    [ "$stderr" = "@test: removed; its VMs stay" ]
    [ "$(hvctl list -o name)" = $'db1\nweb1\nweb2' ]
}

@test "group: @GROUP is a target of every verb" {
    hvctl group create lab -q
    hvctl group add lab web1 web2 -q
    run -0 --separate-stderr hvctl memory set @lab --max 8G
    [ "$(sort <<<"$stderr")" = $'web1: max 1.0T -> 8.0G, now\nweb2: max 1.0T -> 8.0G, now' ]
    run -0 hvctl show @lab -o json
    [ "$(jq -c 'map(.name)' <<<"$output")" = '["web1","web2"]' ]
    hvctl group drop lab web2 -q
    run -0 hvctl show @lab -o json
    [ "$(jq -c 'map(.name)' <<<"$output")" = '["web1"]' ]
    run -3 --separate-stderr hvctl stop @lib
    expect_error "hvctl: @lib: no such group" "@lab"
    hvctl group drop lab --all -q
    run -0 hvctl stop @lab
    run -0 hvctl __complete --shell bash -- start @
    [ "$output" = @lab ]
    run -0 hvctl __complete --shell bash -- group add l
    [ "$output" = lab ]
}

@test "group: bad names and missing ones" {
    run -2 --separate-stderr hvctl group create ''
    run -2 --separate-stderr hvctl group create a/b
    run -3 --separate-stderr hvctl group add lab web1
    expect_error "hvctl: lab: no such group" "hvctl group list"
    hvctl group create lab -q
    run -3 --separate-stderr hvctl group add lab web1 web9
    [[ $stderr == "hvctl: web9: no such VM"* ]]
    [ "$(hvctl group list -o json | jq '.[0].count')" = 0 ]
    run -3 --separate-stderr hvctl create x --group lib --kernel "$(some_kernel)"
    expect_error "hvctl: lib: no such group" "hvctl group create lib"
    [ -z "$(hvctl list -F name=x -o name)" ]
    hvctl create x --group lab --kernel "$(some_kernel)" -q
    [ "$(hvctl list @lab -o name)" = x ]
}

@test "group: kept over a restart of the service; a VM that is removed is out of it" {
    hvctl group create lab -q
    hvctl group create empty -q
    hvctl group add lab web1 web2 -q
    hvctl remove web2 --yes -q
    kill -KILL "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" 2>/dev/null || true
    start_service
    run -0 hvctl group list -o csv --no-header
    [ "$output" = $'empty,0,\nlab,1,web1' ]
    [ "$(jq -c '.lab | length' "$XDG_STATE_HOME/hv/groups.json")" = 1 ]
}

@test "group: a damaged file is put aside" {
    hvctl group create lab -q
    kill -KILL "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" 2>/dev/null || true
    echo '{"lab": [1]}' >"$XDG_STATE_HOME/hv/groups.json"
    start_service
    run -0 hvctl group list -o name
    [ -z "$output" ]
    [ -f "$XDG_STATE_HOME/hv/groups.json.damaged" ]
    run -0 hvctl events --since 1h -F 'message~groups.json: not readable' -n 1 -t 30s
    hvctl group create lab -q
}

@test "rename: off, and what is refused" {
    id=$(hvctl show web1 -o json | jq -r .id)
    run -0 --separate-stderr hvctl rename web1 www --dry-run
    [ "$stderr" = "web1: would be renamed to www" ]
    run -0 --separate-stderr hvctl vm rename web1 www
    [ "$stderr" = "web1: renamed to www" ]
    [ "$(hvctl show www -o json | jq -r .id)" = "$id" ]
    [ "$(hvctl list -o name)" = $'db1\nweb2\nwww' ]
    run -3 hvctl show web1
    run -0 --separate-stderr hvctl rename www www
    [ "$stderr" = "www: has this name" ]
    run -4 --separate-stderr hvctl rename www db1
    expect_error "hvctl: db1: it exists already"
    run -2 --separate-stderr hvctl rename www -- -x
    run -2 --separate-stderr hvctl rename www a/b
    run -2 --separate-stderr hvctl rename 'w*' x
    expect_error "hvctl: w*: 'vm rename' takes one VM"
    run -3 --separate-stderr hvctl rename wwv x
    expect_error "hvctl: wwv: no such VM" "www"
    run -0 --separate-stderr hvctl rename "$id" 'a name' -o json
    [ "$(jq -r .name <<<"$output")" = 'a name' ]
    kill -KILL "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" 2>/dev/null || true
    start_service
    [ "$(hvctl list -o name)" = $'a name\ndb1\nweb2' ]
}

@test "processor: list, show, set" {
    run -0 --separate-stderr hvctl processor set web1 web2 --cpus 4
    [ "$(sort <<<"$stderr")" = $'web1: cpus 1 -> 4, now\nweb2: cpus 1 -> 4, now' ]
    run -0 hvctl cpu
    [ "$(head -n 3 <<<"$output")" = $'NAME  STATE  CPUS  CPU  WEIGHT  LIMIT\ndb1   off       1    -     100   100%\nweb1  off       4    -     100   100%' ]
    run -0 hvctl processor web1 -o json
    [ "$(jq -c '[.name, .processor.cpus]' <<<"$output")" = '["web1",4]' ]
    run -0 --separate-stderr hvctl cpu set web1 --cpus default --dry-run
    [ "$stderr" = "web1: cpus 4 -> 1, would apply now" ]
    run -2 --separate-stderr hvctl processor set web1 --cpus 65
    run -2 --separate-stderr hvctl processor set web1
    [[ $stderr == "hvctl: 'processor set' needs something to set"* ]]
    run -9 --separate-stderr hvctl processor set web1 --reserve 20
    expect_error "hvctl: --reserve: not in this version" "man hv-from-hyperv"
    run -2 --separate-stderr hvctl vm set web1 --cpus 2
    expect_error "hvctl: 'vm set' has no --cpus" "hvctl processor set web1 --cpus 2"
}

@test "job: a shutdown that waits is cancelled, and so is a start; running VMs take new names" {
    need_guest
    # No VMBus: the wish to shut down is a press of the power button, and nobody in this guest heeds it.
    hvctl create guest --memory 256M --kernel "$KERNEL" --initrd "$INITRD" --cmdline "console=ttyS0 quiet" -q
    hvctl vm set guest --hyperv off -q
    hvctl start guest --wait='console:demo:~#' -t 180s
    job=$(hvctl stop guest -t 10m --no-wait)
    [ "$(hvctl show guest -o json | jq -r .state)" = stopping ]
    run -0 --separate-stderr hvctl job cancel "$job"
    [ "$stderr" = "job $job: cancelled" ]
    [ "$(hvctl show guest -o json | jq -r .state)" = running ]
    run -0 hvctl job show "$job" -o json
    [ "$(jq -r .state <<<"$output")" = cancelled ]
    run -1 --separate-stderr hvctl job wait "$job"
    [[ $stderr == "hvctl: guest: the job was cancelled"* ]]
    run -4 --separate-stderr hvctl job cancel "$job"
    expect_error "hvctl: job $job: it has ended"
    run -3 --separate-stderr hvctl job cancel 999999
    # A new name while it runs, over a restart of the service.
    hvctl rename guest other -q
    run -0 --separate-stderr timeout 60 hvctl console other --send 'echo st""ill' --until '^still' -t 30s
    kill -KILL "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" 2>/dev/null || true
    start_service
    [ "$(hvctl show other -o json | jq -r .state)" = running ]
    [ "$(hvctl job show "$job" -o json | jq -r .state)" = cancelled ]
    hvctl stop other --turn-off --yes -q
    # A start: cancelled in time, or done before.
    job=$(hvctl start other --no-wait)
    code=0
    hvctl job cancel "$job" -q || code=$?
    if [ "$code" = 0 ] && [ "$(hvctl job show "$job" -o json | jq -r .state)" = cancelled ]; then
        [ "$(hvctl show other -o json | jq -r .state)" = off ]
        [[ $(hvctl show other -o json | jq -r .reason) == *"its start was cancelled"* ]]
    fi
}

@test "xml: every listing and verb of VMs gives the document that apply reads" {
    hvctl memory set web1 --max 8G -q
    run -0 hvctl list -F name=web1 -o xml
    [[ $output == "<?xml "*web1* ]]
    [[ $output != *web2* ]]
    [ "$output" = "$(hvctl get web1)" ]
    [ "$(hvctl memory show web1 -o xml)" = "$(hvctl get web1)" ]
    [ "$(hvctl list -s -name -o xml | grep -o 'web[12]' | uniq | tr '\n' ' ')" = "web2 web1 " ]
    hvctl list -o xml >"$BATS_TEST_TMPDIR/all.xml"
    run -0 hvctl diff -f "$BATS_TEST_TMPDIR/all.xml"
    run -0 --separate-stderr hvctl processor set web1 --cpus 2 -o xml
    [[ $output == *"<CIM "* ]]
    run -9 --separate-stderr hvctl job list -o xml
    expect_error "hvctl: --output xml: this has no form in XML" "--output json"
    run -3 --separate-stderr hvctl show nope -o xml
    [ -z "$output" ]
}

@test "watch: every list repeats; names of all kinds choose events and stats" {
    hvctl group create lab -q
    hvctl group add lab web1 -q
    for what in "vm list" "memory list" "processor list" "job list" "group list" "disk list" "dvd list"; do
        run -0 hvctl $what --watch -n 2 -d 10ms -o json
        [ "$(jq -s length <<<"$output")" = 2 ] || { echo "$what"; false; }
    done
    run -0 hvctl stats @lab 'web2*' -o name
    [ "$output" = $'web1\nweb2' ]
    run -0 hvctl events @lab --since 1h -n 1 -t 30s -o csv -c vm --no-header
    [ "$output" = web1 ]
    run -0 hvctl events 'db*' --since 1h -n 1 -t 30s -o csv -c vm --no-header
    [ "$output" = db1 ]
}

@test "remove: the disks that stay and that nobody else has are named" {
    cd "$BATS_TEST_TMPDIR"
    vhdtool create -q own.vhdx --size 8M
    vhdtool create -q both.vhdx --size 8M
    hvctl disk add web1 own.vhdx -q
    hvctl disk add web1 both.vhdx -q
    hvctl disk add web2 both.vhdx -q
    run -0 --separate-stderr hvctl remove web1 --dry-run
    [ "$stderr" = "web1: would be removed"$'\n'"web1: disk left: $PWD/own.vhdx" ]
    run -0 --separate-stderr hvctl remove web1 --yes
    [ "$stderr" = "web1: removed"$'\n'"web1: disk left: $PWD/own.vhdx" ]
    run -0 --separate-stderr hvctl remove web2 --yes
    [[ $stderr == *"disk left: $PWD/both.vhdx" ]]
    [ -f own.vhdx ] && [ -f both.vhdx ]
}
