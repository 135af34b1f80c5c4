#!/usr/bin/env bats
# Services on other hosts: -H ssh://, the bridge, the file of hosts. ssh is a script here that runs the far
# command on this machine, with another service; tests/guest/ssh.sh has a real one.
load helper

setup_file() {
    # The far host: its service, and a VM.
    start_service
    export FAR_RUN=$XDG_RUNTIME_DIR FAR_STATE=$XDG_STATE_HOME
    hvctl create far1 --kernel "$(some_kernel)" -q
    # Here there is nothing.
    mkdir -p "$BATS_FILE_TMPDIR/bin" "$BATS_FILE_TMPDIR/near" "$BATS_FILE_TMPDIR/conf/hv"
    chmod 700 "$BATS_FILE_TMPDIR/near"
    cat >"$BATS_FILE_TMPDIR/bin/ssh" <<'S'
#!/bin/bash
# ssh [options] -- HOST COMMAND; HOST says how it goes.
printf '%q ' "$@" >>"$SSH_LOG"
echo >>"$SSH_LOG"
while [ "$1" != -- ]; do shift; done
host=$2 command=$3
case $host in
far*) ;;
nobody) echo "ssh: Could not resolve hostname nobody: Name or service not known" >&2; exit 255 ;;
locked) echo "ann@locked: Permission denied (publickey,password)." >&2; exit 255 ;;
bare) exec sh -c "nosuchprogram bridge" ;;
talker) echo "Welcome to talker" ;;
outside) command="HV_HOST=/nowhere/hv.sock $command" ;;
esac
export XDG_RUNTIME_DIR=$FAR_RUN XDG_STATE_HOME=$FAR_STATE
[ "$host" = outside ] || export HV_HOST=user
[ "$host" != faraway ] || { sh -c "exec $command" <&0 & echo $! >"$SSH_LOG.pid"; wait $!; echo "Connection reset by peer" >&2; exit 255; }
exec sh -c "$command"
S
    chmod +x "$BATS_FILE_TMPDIR/bin/ssh"
    export PATH=$BATS_FILE_TMPDIR/bin:$PATH SSH_LOG=$BATS_FILE_TMPDIR/ssh.log
    export XDG_CONFIG_HOME=$BATS_FILE_TMPDIR/conf
    export XDG_RUNTIME_DIR=$BATS_FILE_TMPDIR/near XDG_STATE_HOME=$BATS_FILE_TMPDIR/near
    unset HV_HOST
}
teardown_file() {
    export XDG_RUNTIME_DIR=$FAR_RUN XDG_STATE_HOME=$FAR_STATE HV_HOST=user
    stop_service
}
setup() { : >"$SSH_LOG"; rm -f "$XDG_CONFIG_HOME/hv/hosts"; }

@test "remote: commands work there, and change what is there" {
    run -0 --separate-stderr hvctl -H ssh://far list -o name
    [ "$output" = far1 ]
    run -0 --separate-stderr hvctl -H ssh://ann@far:2222 memory set far1 --max 8G
    [ "$stderr" = "far1: max 1.0T -> 8.0G, now" ]
    HV_HOST=ssh://far run -0 --separate-stderr hvctl memory show far1 -o csv -c max --no-header
    [ "$output" = 8589934592 ]
    HV_HOST=ssh://far hvctl memory set far1 --max default
    [ "$(sed -n 2p "$SSH_LOG")" = '-T -a -x -o ConnectTimeout=15 -o ServerAliveInterval=15 -o BatchMode=yes -l ann -p 2222 -- far hvctl\ bridge\ -o\ json ' ]
    run -0 hvctl -H 'ssh://[far::1]' list -o name
    [ "$output" = far1 ]
    [[ $(tail -n 1 "$SSH_LOG") == *"-- far::1 "* ]]
}

# What lies here under the path of a disk there is somebody else's.
@test "remote: nothing here is deleted for a disk there" {
    vhdtool create "$BATS_TEST_TMPDIR/d.vhdx" --size 64M -q
    hvctl -H ssh://far create far3 --disk "$BATS_TEST_TMPDIR/d.vhdx" -q
    run -9 --separate-stderr hvctl -H ssh://far disk remove far3 scsi0:0 --delete --yes
    expect_error "hvctl: $BATS_TEST_TMPDIR/d.vhdx: a disk is made, resized and deleted where it lies, and that is another host" \
        "the same command there"
    run -9 hvctl -H ssh://far remove far3 --disks --yes
    [ -f "$BATS_TEST_TMPDIR/d.vhdx" ]
    [ "$(hvctl -H ssh://far disk list far3 -o csv -c location --no-header)" = scsi0:0 ]
    run -0 --separate-stderr hvctl -H ssh://far remove far3 --yes
    [ "$stderr" = $'far3: removed\nfar3: disk left: '"$BATS_TEST_TMPDIR/d.vhdx" ]
    [ -f "$BATS_TEST_TMPDIR/d.vhdx" ]
}

@test "remote: errors of the service there are what they are here" {
    run -3 --separate-stderr hvctl -H ssh://far show far2
    expect_error "hvctl: far2: no such VM" "far1"
    run -2 --separate-stderr hvctl -H ssh://far memory set far1 --dynamic on --min 9G
    [[ $stderr == "hvctl: far1: "* ]]
}

@test "remote: why ssh fails is said, with an exit code" {
    run -6 --separate-stderr hvctl -H ssh://nobody list
    expect_error "hvctl: ssh://nobody: cannot connect: Could not resolve hostname nobody: Name or service not known" \
        "ssh nobody hvctl --version"
    run -5 --separate-stderr hvctl -H ssh://ann@locked list
    expect_error "hvctl: ssh://ann@locked: cannot connect: ann@locked: Permission denied (publickey,password)." \
        "ssh ann@locked hvctl --version"
    run -6 --separate-stderr hvctl -H ssh://bare list
    expect_error "hvctl: ssh://bare: hvctl is not installed there, or not where ssh finds it" "ssh bare hvctl --version"
    run -6 --separate-stderr hvctl -H ssh://outside list
    [[ $stderr == "hvctl: ssh://outside: /nowhere/hv.sock: cannot connect: "* ]]
    run -6 --separate-stderr hvctl -H ssh://talker list
    [[ $stderr == *"try: 'ssh talker true' must work and print nothing" ]]
    run -9 --separate-stderr env PATH="$BIN" hvctl -H ssh://far list
    expect_error "hvctl: ssh://far: there is no ssh here" "apt install openssh-client"
    run -6 --separate-stderr hvctl -H ssh://nobody list -o json
    [ "$(jq -r .error.code <<<"$stderr")" = unreachable ]
}

@test "remote: an address can be nothing else" {
    for bad in ssh:// ssh://-oProxyCommand=x 'ssh://a b' ssh://x@ ssh://@x 'ssh://x;id' ssh://x:22x ssh://x: 'ssh://[::1' \
        'ssh://$(id)' ssh://-l@x ssh://x/y; do
        run -2 --separate-stderr hvctl -H "$bad" list
        expect_error "hvctl: $bad: not the address of a host" "ssh://[USER@]HOST[:PORT]"
    done
    [ ! -s "$SSH_LOG" ]
}

@test "remote: a connection that breaks while a call waits is said, and the job's number" {
    rm -f "$SSH_LOG.pid"
    hvctl -H ssh://faraway wait far1 --for running 2>"$BATS_TEST_TMPDIR/err" 3>&- &
    local pid=$! deadline=$((SECONDS + 10))
    until [ -s "$SSH_LOG.pid" ]; do
        [ "$SECONDS" -lt "$deadline" ]
        sleep 0.05
    done
    sleep 0.3
    kill "$(cat "$SSH_LOG.pid")"
    local code=0
    wait "$pid" || code=$?
    [ "$code" = 6 ]
    [ "$(head -n 1 "$BATS_TEST_TMPDIR/err")" = "hvctl: ssh://faraway: cannot connect: Connection reset by peer" ]
}

@test "remote: nothing is left behind" {
    hvctl -H ssh://far list -o name
    run -0 hvctl -H ssh://far -o name <<<$'list\nlist | cat\nlist'
    local deadline=$((SECONDS + 5))
    while pgrep -f 'hvctl bridge -o json' >/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || { pgrep -af 'hvctl bridge'; return 1; }
        sleep 0.1
    done
}

@test "remote: a console, through and through" {
    need_guest
    hvctl -H ssh://far create guest --memory 256M --kernel "$KERNEL" --initrd "$INITRD" --cmdline "console=ttyS0 quiet" -q
    run -0 --separate-stderr timeout 120 hvctl -H ssh://far start guest --wait='console:demo:~#' -t 120s
    run -0 --separate-stderr timeout 60 hvctl -H ssh://far console guest --send 'echo re""mote' --until '^remote' -t 30s
    [[ $output == *remote* ]]
    run -0 hvctl -H ssh://far stop guest --turn-off --yes
    hvctl -H ssh://far remove guest --yes
}

@test "remote: a disk is not made here for a VM there" {
    run -9 --separate-stderr hvctl -H ssh://far disk add far1 "$BATS_TEST_TMPDIR/new.vhdx" --new 1G
    expect_error "hvctl: $BATS_TEST_TMPDIR/new.vhdx: a disk is made, resized and deleted where it lies, and that is another host" \
        "the same command there"
    [ ! -e "$BATS_TEST_TMPDIR/new.vhdx" ]
}

@test "remote: names of hosts are in a file" {
    cat >"$XDG_CONFIG_HOME/hv/hosts" <<'S'
# name   address            groups
lab1     ssh://ann@far       @lab @all
lab2     ssh://far2          @lab    # the other one
S
    run -0 hvctl -H lab1 list -o name
    [ "$output" = far1 ]
    [[ $(cat "$SSH_LOG") == *"-l ann -- far "* ]]
    run -3 --separate-stderr hvctl -H lab3 list
    expect_error "hvctl: lab3: no such host" "lab1, lab2"
    run -3 --separate-stderr hvctl -H elsewhere list
    expect_error "hvctl: elsewhere: no such host" \
        "system, user, ssh://HOST, the path of a socket, or a name of hv-hosts(5)"
    run -0 hvctl __complete --shell bash -- -H la
    [ "$output" = $'lab1\nlab2' ]
    echo "lab3 http://x" >>"$XDG_CONFIG_HOME/hv/hosts"
    run -2 --separate-stderr hvctl -H lab3 list
    expect_error "hvctl: $XDG_CONFIG_HOME/hv/hosts:4: not a line of this file" "NAME ADDRESS [@GROUP]...; man hv-hosts"
    run -0 hvctl -H lab1 list -o name
}

@test "remote: names of the far VMs complete" {
    # It may be too slow for TAB: then nothing; and ssh is not let ask.
    run -0 hvctl __complete --shell bash -- -H ssh://far start f
    [ -z "$output" ] || [ "$output" = far1 ]
    [[ $(cat "$SSH_LOG") == *BatchMode=yes* ]]
}

@test "remote: the shell shows where it is" {
    command -v tmux >/dev/null || skip "no tmux"
    local t=(tmux -S "$BATS_TEST_TMPDIR/tmux") deadline=$((SECONDS + 15))
    "${t[@]}" -f /dev/null new-session -d -x 80 -y 20 "hvctl -H ssh://ann@far -q"
    until "${t[@]}" capture-pane -p | grep -q '^hv@far>'; do [ "$SECONDS" -lt "$deadline" ]; sleep 0.1; done
    "${t[@]}" send-keys -l "list -o name"
    "${t[@]}" send-keys Enter
    until "${t[@]}" capture-pane -p | grep -q '^far1'; do [ "$SECONDS" -lt "$deadline" ]; sleep 0.1; done
    "${t[@]}" kill-server
}

@test "remote: hvtop shows several hosts, and one that cannot be reached" {
    run -0 --separate-stderr hvtop -b -n 1 -o csv -H ssh://far -H ssh://nobody
    [[ $output == *",ssh://far,far1,off,"* || $output == *far1* ]]
    run -6 --separate-stderr hvtop -b -n 1 -H ssh://nobody
    [[ $stderr == *"Could not resolve hostname nobody"* ]]
}

@test "bridge: bytes as they are, both ways; it ends when either side does" {
    export XDG_RUNTIME_DIR=$FAR_RUN XDG_STATE_HOME=$FAR_STATE HV_HOST=user
    run -0 --separate-stderr bash -c "printf '{\"method\":\"org.hv.Manager.GetInfo\"}\\0' | timeout 10 hvctl bridge | tr '\\0' '\\n'"
    [ "$(jq -r .parameters.mode <<<"$output")" = user ]
    run -0 timeout 10 hvctl bridge </dev/null
    # Not varlink: the service closes.
    run -0 timeout 10 bash -c "(echo nonsense; head -c 9000000 /dev/zero; sleep 5) | hvctl bridge"
    HV_HOST=/nowhere/s run -6 hvctl bridge </dev/null
}

@test "remote: vm list --all-hosts" {
    run -3 --separate-stderr hvctl list --all-hosts
    expect_error "hvctl: --all-hosts: no host has a name here" "man hv-hosts"
    printf 'lab1 ssh://far\nlab2 ssh://far2\n' >"$XDG_CONFIG_HOME/hv/hosts"
    run -0 --separate-stderr hvctl list --all-hosts
    [ "$(wc -l <<<"$output")" = 3 ]
    [[ $output == "NAME "*" HOST"* ]]
    run -0 hvctl list --all-hosts -F host=lab2 -o json
    [ "$(jq -c 'map([.host, .name])' <<<"$output")" = '[["lab2","far1"]]' ]
    echo 'lab3 ssh://nobody' >>"$XDG_CONFIG_HOME/hv/hosts"
    run -10 --separate-stderr hvctl list --all-hosts -o name
    [ "$output" = $'far1\nfar1' ]
    [[ $stderr == "hvctl: ssh://nobody: cannot connect: "* ]]
    echo 'lab3 ssh://nobody' >"$XDG_CONFIG_HOME/hv/hosts"
    run -6 hvctl list --all-hosts
    run -2 --separate-stderr hvctl list far1 --all-hosts
    expect_error "hvctl: names and --all-hosts exclude each other" "hvctl list --all-hosts -F name=far1"
}
