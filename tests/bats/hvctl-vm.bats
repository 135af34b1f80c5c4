#!/usr/bin/env bats
# VMs in the registry: everything that needs the service and no running guest.
load helper

setup_file() { start_service; }
teardown_file() { stop_service; }
setup() { no_vms; KERNEL=$(some_kernel); }

@test "vm: an empty list prints nothing, in JSON an array" {
    run -0 --separate-stderr hvctl list
    [ -z "$output$stderr" ]
    run -0 --separate-stderr hvctl list -o json
    [ "$output" = "[]" ]
    run -0 --separate-stderr hvctl list -o csv
    [ -z "$output" ]
}

@test "vm create: says so on stderr, nothing on stdout; twice is a conflict" {
    run -0 --separate-stderr hvctl create web1 --kernel "$KERNEL"
    [ -z "$output" ]
    [ "$stderr" = "web1: created" ]
    run -4 --separate-stderr hvctl create web1
    [[ $stderr == "hvctl: web1: "* ]]
    run -0 --separate-stderr hvctl create web1 --if-missing
    [ "$stderr" = "web1: exists" ]
    run -0 --separate-stderr hvctl create web1 --memory 2G --if-missing
    [ "$stderr" = $'web1: exists, differs: memory.startup\n  try: hvctl apply' ]
}

@test "vm create: quiet says nothing, -o json gives the object" {
    run -0 --separate-stderr hvctl create web1 --memory 2G --cpus 1 --notes "my notes" -q -o json
    [ -z "$stderr" ]
    [ "$(jq -r .name <<<"$output")" = web1 ]
    [ "$(jq -r .state <<<"$output")" = off ]
    [ "$(jq -r .memory.startup <<<"$output")" = 2147483648 ]
    [ "$(jq -r .memory.dynamic <<<"$output")" = false ]
    [ "$(jq -r .notes <<<"$output")" = "my notes" ]
    [[ $(jq -r .id <<<"$output") =~ ^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$ ]]
}

@test "vm create: a minimum, maximum or buffer turns dynamic memory on" {
    hvctl create web1 --memory 1G --max 4G -q
    [ "$(hvctl memory show web1 -o json | jq -c '[.memory.dynamic, .memory.max]')" = "[true,4294967296]" ]
}

@test "vm create: --like copies settings, options come over them" {
    hvctl create web1 --memory 2G --kernel "$KERNEL" --cmdline "a b" -q
    hvctl create web2 --like web1 --memory 1G -q
    [ "$(hvctl show web2 -o json | jq -r '[.memory.startup, .boot.cmdline] | join(" ")')" = "1073741824 a b" ]
    run -3 --separate-stderr hvctl create web3 --like nobody
    [[ $stderr == "hvctl: nobody: no such VM"* ]]
}

@test "vm create: --dry-run checks and creates nothing" {
    run -0 --separate-stderr hvctl create web1 --dry-run
    [ "$stderr" = "web1: would be created" ]
    [ -z "$(hvctl list)" ]
    run -2 hvctl create web1 --memory 3M --dry-run
}

@test "vm create: paths are the caller's" {
    cd "$BATS_FILE_TMPDIR"
    hvctl create web1 --kernel ./kernel -q
    [ "$(hvctl show web1 -o json | jq -r .boot.kernel)" = "$BATS_FILE_TMPDIR/kernel" ]
    run -3 --separate-stderr hvctl create web2 --kernel ./no-such-file
    [[ $stderr == "hvctl: "*"no-such-file: "* ]]
}

@test "vm create: names that a script could not live with" {
    for name in "a/b" "@x" "" "$(printf 'a\tb')"; do
        run -2 hvctl create -- "$name"
    done
    run -2 hvctl create -- -x
    [ -z "$(hvctl list)" ]
}

@test "vm list: the contract's table" {
    hvctl create web1 --memory 1G -q
    hvctl create build-old --memory 2G -q
    run -0 hvctl list
    [ "$output" = "NAME       STATE  ASSIGNED  DEMAND  STATUS  CPU  UPTIME
build-old  off           -       -  -         -       -
web1       off           -       -  -         -       -" ]
    run -0 hvctl list -o name -s -name
    [ "$output" = $'web1\nbuild-old' ]
    run -0 hvctl list -F name~^w -o csv -c name,startup
    [ "$output" = $'name,startup\nweb1,1073741824' ]
    run -0 hvctl list 'build*' -o jsonl -c name,startup
    [ "$output" = '{"name":"build-old","memory":{"startup":2147483648}}' ]
    run -3 --separate-stderr hvctl list wbe1
    expect_error "hvctl: wbe1: no such VM" "web1"
}

@test "vm list: --watch repeats, a table below the other in a pipe" {
    hvctl create web1 -q
    run -0 hvctl list --watch -n 2 -d 100ms -c name
    [ "$output" = $'NAME\nweb1\n\nNAME\nweb1' ]
    run -0 hvctl list --watch -n 3 -d 50ms -o jsonl -c name
    [ "$output" = $'{"name":"web1"}\n{"name":"web1"}\n{"name":"web1"}' ]
}

@test "vm show: an object for one literal name, an array else" {
    hvctl create web1 -q
    hvctl create web2 -q
    [ "$(hvctl show web1 -o json | jq -r type)" = object ]
    [ "$(hvctl show web1 web2 -o json | jq -r type)" = array ]
    [ "$(hvctl show 'web1*' -o json | jq -r type)" = array ]
    [ "$(hvctl show --all -o json | jq -r length)" = 2 ]
    id=$(hvctl show web1 -o json | jq -r .id)
    [ "$(hvctl show "$id" -o name)" = web1 ]
    [ "$(hvctl show "${id^^}" -o name)" = web1 ]
    run -3 --separate-stderr hvctl show wbe1
    expect_error "hvctl: wbe1: no such VM" "web1"
    run -10 --separate-stderr hvctl show web1 nobody -o name
    [ "$output" = web1 ]
    expect_error "hvctl: nobody: no such VM"
    run -3 --separate-stderr hvctl show 'x*'
    expect_error "hvctl: x*: no VM has such a name"
    run -3 --separate-stderr hvctl show @lab
    expect_error "hvctl: @lab: no such group" "hvctl group list"
}

@test "vm show: halves" {
    hvctl create web1 -q
    [ "$(hvctl show web1 --settings -o json | jq '.memory | has("startup")')" = true ]
    [ "$(hvctl show web1 --state -o json | jq 'has("notes")')" = false ]
}

@test "vm set: says what applies when, stores nothing on --dry-run" {
    hvctl create web1 -q
    run -0 --separate-stderr hvctl set web1 --notes "hello" --dry-run
    [ "$stderr" = "web1: notes - -> hello, would apply now" ]
    [ "$(hvctl show web1 -o json | jq -r .notes)" = null ]
    run -0 --separate-stderr hvctl set web1 --notes "hello"
    [ "$stderr" = "web1: notes - -> hello, now" ]
    run -0 --separate-stderr hvctl set web1 --notes "hello"
    [ "$stderr" = "web1: nothing to change" ]
    run -0 --separate-stderr hvctl set web1 --notes none
    [ "$(hvctl show web1 -o json | jq -r .notes)" = null ]
    run -2 --separate-stderr hvctl set web1
    expect_error "hvctl: 'vm set' needs something to set" "hvctl vm set --help"
    run -2 --separate-stderr hvctl set web1 --notes x --now --next-start
    expect_error "hvctl: --now and --next-start exclude each other"
}

@test "memory set: absolute, relative, refused" {
    hvctl create web1 --memory 1G --max 4G -q
    run -0 --separate-stderr hvctl memory set web1 --max 8G --startup +1G
    [[ $stderr == *"web1: startup 1.0G -> 2.0G, now"* ]]
    [[ $stderr == *"web1: max 4.0G -> 8.0G, now"* ]]
    run -0 --separate-stderr hvctl memory set web1 --max -512M
    [ "$(hvctl memory show web1 -o json | jq .memory.max)" = 8053063680 ]
    run -2 --separate-stderr hvctl memory set web1 --max -9G
    [[ $stderr == "hvctl: --max -9G: it has only 7.5G"* ]]
    # The service's rule between two settings, in the contract's words.
    run -2 --separate-stderr hvctl memory set web1 --max 1G
    [[ $stderr == "hvctl: web1: "*"maximum"*"less than the startup memory"* ]]
    run -0 --separate-stderr hvctl memory set web1 --startup 2100M
    [[ $stderr == *"hvctl: --startup 2100M: no multiple of 128M: "* ]]
    run -0 --separate-stderr hvctl memory set web1 --buffer default --priority 70
    [ "$(hvctl memory web1 -o json | jq -c '[.memory.buffer_pct,.memory.priority]')" = "[20,70]" ]
}

@test "memory list: only its noun in JSON" {
    hvctl create web1 -q
    [ "$(hvctl memory list -o json | jq -c '.[0] | keys')" = '["id","memory","name","state"]' ]
    run -0 hvctl memory list
    [[ ${lines[0]} == "NAME  DYNAMIC  ASSIGNED  DEMAND  BUFFER  WANT  STATUS  WHY  STARTUP  MIN  MAX  PRIORITY" ]]
    run -3 --separate-stderr hvctl memory shwo
    expect_error "hvctl: shwo: no such VM" "show"
}

@test "vm remove: needs --yes when nobody can be asked" {
    hvctl create web1 -q
    run -2 --separate-stderr hvctl remove web1 </dev/null
    expect_error "hvctl: web1: removing it needs --yes when nobody can be asked"
    [ "$(hvctl list -o name)" = web1 ]
    run -0 --separate-stderr hvctl remove web1 --yes --dry-run
    [ "$stderr" = "web1: would be removed" ]
    run -0 --separate-stderr hvctl remove web1 --yes
    [ "$stderr" = "web1: removed" ]
    run -3 --separate-stderr hvctl remove web1 --yes
    expect_error "hvctl: web1: no such VM"
    run -0 --separate-stderr hvctl remove web1 --yes --if-exists
    [ "$stderr" = "web1: not there" ]
}

@test "vm remove: a locked one stays" {
    hvctl create web1 -q
    hvctl set web1 --lock on -q
    run -4 --separate-stderr hvctl remove web1 --yes
    [[ $stderr == "hvctl: web1: "*"locked"* ]]
    hvctl set web1 --lock off -q
}

@test "several targets: each reported, exit 10 if only some succeeded" {
    hvctl create web1 -q
    hvctl create web2 -q
    run -10 --separate-stderr hvctl set web1 nobody --notes x
    [[ $stderr == *"web1: notes - -> x, now"* ]]
    [[ $stderr == *"hvctl: nobody: no such VM"* ]]
    run -3 --separate-stderr hvctl set nobody noone --notes x
    run -0 hvctl set 'web*' --notes y -q
    [ "$(hvctl list -F notes=y -o name)" = $'web1\nweb2' ]
    run -0 hvctl set --all --notes z -q --jobs 1
    [ "$(hvctl list -F notes=z -o name)" = $'web1\nweb2' ]
}

@test "vm start: nothing to boot, and --wait with a blank" {
    hvctl create empty -q
    run --separate-stderr hvctl start empty
    [ "$status" -eq 9 ]
    [[ $stderr == "hvctl: empty: cannot start: "* ]]
    run -3 --separate-stderr hvctl start empty --wait ip
    [[ $stderr == *$'hvctl: ip: no such VM\n  try: --wait=ip'* ]]
}

@test "vm start: a kernel that is none says so and leaves nothing running" {
    hvctl create web1 --memory 128M --kernel "$KERNEL" -q
    run -2 --separate-stderr hvctl start web1
    [[ $stderr == "hvctl: $KERNEL: is not a kernel: "* ]]
    run -0 hvctl wait web1 --for off -t 10s
}

@test "vm start: more memory than there is, exit 8" {
    hvctl create big --memory 8T --kernel "$KERNEL" -q
    run -8 --separate-stderr hvctl start big
    [[ $stderr == "hvctl: big: cannot start: it needs 8.0T to start, this host has "*" free"* ]]
}

@test "vm start: --dry-run says what is missing, and starts nothing" {
    cd "$BATS_TEST_TMPDIR"
    truncate -s 8M d.raw
    hvctl create web1 --memory 128M --kernel "$KERNEL" --disk d.raw -q
    hvctl create web2 --memory 128M --kernel "$KERNEL" --disk d.raw -q
    jobs=$(hvctl job list -o json)
    run -0 --separate-stderr hvctl start web1 --dry-run --console
    [ "$stderr" = "web1: would be started" ]
    [ -z "$output" ]
    run -0 --separate-stderr hvctl start web1 --dry-run -o json
    [ "$(jq -r .name,.state <<<"$output")" = $'web1\noff' ]
    # In use, by another of its own disks here, or gone: what the start itself would say.
    ln -s d.raw same.raw
    hvctl disk add web2 same.raw -q
    run -4 --separate-stderr hvctl start web2 --dry-run
    [[ $stderr == *"same.raw: in use by "* ]]
    mv d.raw e.raw
    run -3 --separate-stderr hvctl start web1 --dry-run
    [[ $stderr == *"d.raw: cannot open the disk: No such file or directory"* ]]
    mv e.raw d.raw
    hvctl create bare -q
    run -9 --separate-stderr hvctl start bare --dry-run
    [[ $stderr == "hvctl: bare: cannot start: it has nothing to boot"* ]]
    run -3 --separate-stderr hvctl start nobody --dry-run
    [ "$(hvctl list -o name -F state=off | wc -l)" = 3 ]
    [ "$(hvctl job list -o json)" = "$jobs" ]
}

@test "vm start: --dry-run counts the memory of all that are named together" {
    hvctl host set --vm-memory 2G -q
    hvctl create a --memory 1200M --kernel "$KERNEL" -q
    hvctl create b --memory 1200M --kernel "$KERNEL" -q
    run -0 --separate-stderr hvctl start a --dry-run
    run -0 --separate-stderr hvctl start b --dry-run
    run -10 --separate-stderr hvctl start a b --dry-run
    [[ $stderr == "a: would be started"$'\n'"hvctl: b: cannot start: it needs 1200M to start, this host has "*"M free"* ]]
    hvctl host set --vm-memory default -q
}

@test "vm stop: off already is fine" {
    hvctl create web1 -q
    run -0 --separate-stderr hvctl stop web1
    [ "$stderr" = "web1: already off" ]
    run -0 --separate-stderr hvctl stop --all --turn-off --yes
    run -2 --separate-stderr hvctl stop web1 --turn-off --then turn-off
    expect_error "hvctl: --turn-off and --then exclude each other"
}

@test "vm wait: time passes, exit 7; a state that holds is at once" {
    hvctl create web1 -q
    run -0 hvctl wait web1 --for off
    run --separate-stderr hvctl wait web1 --for running -t 200ms
    [ "$status" -eq 7 ] || [ "$status" -eq 4 ]
    run -4 --separate-stderr hvctl wait web1 --for heartbeat
    run -2 --separate-stderr hvctl wait web1 --for runing
}

@test "vm console: of one that is off, exit 4" {
    hvctl create web1 -q
    run -4 --separate-stderr hvctl console web1 </dev/null
    [[ $stderr == "hvctl: web1: "* ]]
    run -3 --separate-stderr hvctl console nobody </dev/null
    run -2 --separate-stderr hvctl console web1 --read-only --send x
    expect_error "hvctl: --send and --read-only exclude each other"
}

@test "vm run: what is wrong with it is said before anything is left behind" {
    run --separate-stderr hvctl run bad --memory 128M --kernel "$KERNEL" </dev/null
    [ "$status" -ne 0 ]
    [ -z "$(hvctl list)" ]
}

@test "events: what happened, filtered, as lines and as JSON" {
    hvctl create web1 -q
    hvctl set web1 --notes x -q
    run -0 hvctl events web1 --since 1h -n 2 --kind config -o jsonl
    [ "$(jq -r .message <<<"${lines[0]}")" = created ]
    [[ $(jq -r .time <<<"${lines[0]}") =~ ^20[0-9][0-9]-[0-9-]+T[0-9:]+Z$ ]]
    run -0 hvctl events --since 1h -n 1 -o json
    [ "$(jq length <<<"$output")" = 1 ]
    run -7 --separate-stderr hvctl events web1 -t 100ms
    expect_error "hvctl: events: the time is up"
    run -2 --separate-stderr hvctl events --since yesterday
    [[ $stderr == "hvctl: --since yesterday: not a time"* ]]
}

@test "job: list, show, wait" {
    hvctl create web1 --memory 128M --kernel "$KERNEL" -q
    hvctl start web1 -q || true
    id=$(hvctl job list -F object=web1 -o name | head -n 1)
    [[ $id =~ ^[0-9]+$ ]]
    [ "$(hvctl job show "$id" -o json | jq -r '.verb + " " + .object')" = "start web1" ]
    run --separate-stderr hvctl job wait "$id"
    [ "$status" -ne 0 ]
    run -3 --separate-stderr hvctl job show 999999
    expect_error "hvctl: 999999: no such job" "hvctl job list"
    run -3 hvctl job wait 999999
    run -2 hvctl job show x
}

@test "host: show and doctor" {
    run -0 hvctl host show -o json
    [ "$(jq -r .mode <<<"$output")" = user ]
    [ "$(jq '.memory.total > 0' <<<"$output")" = true ]
    run hvctl host doctor
    [[ ${lines[0]} =~ ^(ok|warning|problem)\ +[a-z]+:\  ]]
    [ "$(hvctl host doctor -o json | jq -r type)" = array ]
}

@test "-vv shows what is sent and received, on stderr" {
    run -0 --separate-stderr hvctl list -vv
    [[ $stderr == *"-> List {"*"<- List {"* ]]
}

@test "vm list: asks for what it shows, and shows the same as if it had asked for all" {
    hvctl create web1 --memory 1G --max 4G --cpus 3 --notes n --kernel "$KERNEL" -q
    hvctl create web2 --memory 2G -q
    for noun in vm memory; do
        [ "$noun" = vm ] && list="hvctl list" show="hvctl show" || list="hvctl memory list" show="hvctl memory show"
        while read -r _ column _; do
            [ "$($list -c "name,$column" -o csv)" = "$($show web1 web2 -c "name,$column" -o csv)" ] ||
                { echo "$noun: $column"; return 1; }
        done < <($list -c help | sed 's/^ /-/')
    done
    [ "$(hvctl list -F cpus.gt=1 -o name)" = web1 ]
    [ "$(hvctl list -s -startup -o name)" = $'web2\nweb1' ]
    [ "$(hvctl list -F notes=n,max=4G -c name,state -o csv)" = $'name,state\nweb1,off' ] || hvctl list -c help | grep -vq notes
    [ "$(hvctl memory list -F dynamic=on -s max -o name)" = web1 ]
}

@test "a condition that is none is refused before anything is done" {
    hvctl create web1 --kernel "$(some_kernel)" -q
    for bad in nonsense '' kvp: console: kvp:=1; do
        run -2 --separate-stderr hvctl start web1 --wait="$bad"
        expect_error "hvctl: --wait=$bad: there is no such condition" \
            "running, off, paused, heartbeat, ip, kvp:KEY, kvp:KEY=VALUE, memory-ok, console:TEXT"
        [ "$(hvctl list -F state=off -o name)" = web1 ]
        run -2 --separate-stderr hvctl wait web1 --for "$bad"
        [ "${stderr%%$'\n'*}" = "hvctl: --for $bad: there is no such condition" ]
    done
    for later in saved port:22; do
        run -9 --separate-stderr hvctl start nobody --wait=$later
        expect_error "hvctl: --wait=$later: not in this version" "man hv-from-hyperv"
        run -9 --separate-stderr hvctl wait nobody --for $later
        expect_error "hvctl: --for $later: not in this version" "man hv-from-hyperv"
    done
}
