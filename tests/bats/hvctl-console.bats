#!/usr/bin/env bats
# A guest that runs: life cycle, console, vm run. Boots a stock Debian kernel on the soft engine.
load helper

setup_file() {
    start_service
    need_guest
    hvctl create web1 --memory 256M --kernel "$KERNEL" --initrd "$INITRD" --cmdline "console=ttyS0 quiet" -q
}
teardown_file() { stop_service; }

# web1 runs and has its prompt.
booted() {
    hvctl start web1 -q --wait='console:demo:~#' -t 120s
}

@test "vm start: twice, and what list and show say" {
    hvctl stop web1 --turn-off --yes -q
    run -0 --separate-stderr hvctl start web1 --wait='console:demo:~#' -t 120s
    [[ ${stderr_lines[0]} == "web1: started ("*"s)" ]]
    [[ ${stderr_lines[1]} == "web1: console:demo:~# ("*"s)" ]]
    run -0 --separate-stderr hvctl start web1
    [ "$stderr" = "web1: already running" ]
    run -0 hvctl list -F state=running
    [[ ${lines[1]} =~ ^web1\ \ running\ +256M ]]
    [ "$(hvctl show web1 -o json | jq '.uptime_s >= 0 and .memory.assigned == 268435456 and .engine_in_use == "soft"')" = true ]
    [ "$(hvctl memory list -F 'assigned.ge=256M' -o name)" = web1 ]
    [ "$(hvctl stats web1 -o json | jq -r .state)" = running ]
}

@test "vm set: of one that runs says what waits for the next start" {
    booted
    run -0 --separate-stderr hvctl memory set web1 --startup 512M
    [ "$stderr" = "web1: startup 256M -> 512M, at next start" ]
    run -4 --separate-stderr hvctl memory set web1 --startup 1G --now
    [[ $stderr == "hvctl: web1: "* ]]
    hvctl memory set web1 --startup 256M -q
    run -4 --separate-stderr hvctl remove web1 --yes
    [[ $stderr == "hvctl: web1: "*"running"* ]]
}

@test "console: --send and --until, exit 0 on the match and 7 when the time is up" {
    booted
    run -0 --separate-stderr hvctl console web1 --send 'echo answer=$((6*7))' --until '^answer=42$' -t 30s
    [[ $output == *"answer=42"* ]]
    [ -z "$stderr" ]
    run -7 --separate-stderr hvctl console web1 --send true --until '^never$' -t 1s
    expect_error "hvctl: web1: no line matched '^never\$' in 1s"
}

@test "console: several steps in their order" {
    booted
    run -0 hvctl console web1 --send 'echo one-$((0+1))' --until 'one-1$' --send 'echo two-$((1+1))' --until '^two-2' -t 30s
    [[ $output == *one-1*two-2* ]]
}

@test "console: a prompt without an end of line counts" {
    booted
    run -0 hvctl console web1 --send "" --until '^demo:~# $' -t 30s
}

@test "console: without a terminal input is typed, its end does not detach" {
    booted
    # The guest answers after the input has ended.
    run -7 --separate-stderr bash -c "printf 'sleep 1; echo late-\$((1+1))\\r' | hvctl console web1 --no-history -t 4s"
    [[ $output == *late-2* ]]
}

@test "console: history and --no-history" {
    booted
    hvctl console web1 --send 'echo mark-$((3+4))' --until '^mark-7' -t 30s >/dev/null
    run -7 hvctl console web1 --read-only -t 1s
    [[ $output == *mark-7* ]]
    run -7 hvctl console web1 --read-only --no-history -t 1s
    [[ $output != *mark-7* ]]
}

@test "console: --read-only types nothing, --log keeps a copy" {
    booted
    run -7 bash -c "printf 'echo typed-\$((1+1))\\r' | hvctl console web1 --read-only --log '$BATS_TEST_TMPDIR/log' -t 1s"
    [[ $output != *typed-2* ]]
    [ -s "$BATS_TEST_TMPDIR/log" ]
    [ "$(stat -c %a "$BATS_TEST_TMPDIR/log")" = 600 ]
}

@test "console: one writes; a second is told who, may watch or take over" {
    booted
    sleep 30 | hvctl console web1 >/dev/null 3>&- &
    first=$!
    deadline=$((SECONDS + 10))
    until run --separate-stderr hvctl console web1 -t 100ms </dev/null && [ "$status" -eq 4 ]; do
        [ "$SECONDS" -lt "$deadline" ]
    done
    [[ $stderr == "hvctl: web1: "*"written to by"* ]]
    run -7 hvctl console web1 --read-only -t 200ms </dev/null
    run -0 hvctl console web1 --take-over --send 'echo mine-$((2+2))' --until '^mine-4' -t 30s
    kill "$first" 2>/dev/null || true
}

@test "console: SIGTERM ends it with 128+15 and the VM runs on" {
    booted
    hvctl console web1 </dev/null >/dev/null 2>&1 3>&- &
    pid=$!
    sleep 0.5
    kill -TERM "$pid"
    rc=0
    wait "$pid" || rc=$?
    [ "$rc" -eq 143 ]
    [ "$(hvctl show web1 -o json | jq -r .state)" = running ]
}

@test "console: on a terminal, the escape line, help, detach; the terminal is as before" {
    command -v tmux >/dev/null || skip "no tmux"
    booted
    local s=$BATS_TEST_TMPDIR/tmux
    tmux -S "$s" -f /dev/null new-session -d -x 100 -y 24 "env HV_HOST=user bash --norc"
    seen() {
        local deadline=$((SECONDS + 15))
        until tmux -S "$s" capture-pane -p | grep -qE -- "$1"; do
            [ "$SECONDS" -lt "$deadline" ] || { tmux -S "$s" capture-pane -p; tmux -S "$s" kill-server; return 1; }
            sleep 0.1
        done
    }
    tmux -S "$s" send-keys "stty -a >$BATS_TEST_TMPDIR/before; hvctl console web1; echo rc=\$?; stty -a >$BATS_TEST_TMPDIR/after" Enter
    seen 'demo:~#'
    tmux -S "$s" send-keys 'echo tty-$((4+5))' Enter
    seen '^tty-9'
    tmux -S "$s" send-keys C-c          # goes to the guest, not to us
    tmux -S "$s" send-keys 'echo again-$((4+6))' Enter
    seen '^again-10'
    tmux -S "$s" send-keys 'C-]'
    seen 'q detach'
    tmux -S "$s" send-keys b
    seen 'not in this version'
    tmux -S "$s" send-keys x            # any other key closes the line
    tmux -S "$s" send-keys 'C-]' q
    seen 'web1: detached'
    seen '^rc=0'
    deadline=$((SECONDS + 5))
    until [ -s "$BATS_TEST_TMPDIR/after" ] || [ "$SECONDS" -ge "$deadline" ]; do sleep 0.1; done
    cmp "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
    # Three times the key detaches at once.
    tmux -S "$s" send-keys 'clear; hvctl console web1 --no-history; echo rc=$?' Enter
    sleep 0.5
    tmux -S "$s" send-keys 'C-]' 'C-]' 'C-]'
    seen 'web1: detached'
    # Killed, it still puts the terminal back.
    tmux -S "$s" send-keys 'clear; hvctl console web1 --no-history; stty -a >'"$BATS_TEST_TMPDIR/killed" Enter
    sleep 0.5
    kill -TERM "$(pgrep -P "$(tmux -S "$s" display-message -p '#{pane_pid}')")"
    deadline=$((SECONDS + 5))
    until [ -s "$BATS_TEST_TMPDIR/killed" ] || [ "$SECONDS" -ge "$deadline" ]; do sleep 0.1; done
    cmp "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/killed"
    tmux -S "$s" kill-server
}

@test "vm pause and resume" {
    booted
    run -0 --separate-stderr hvctl pause web1
    [ "$stderr" = "web1: paused" ]
    run -0 --separate-stderr hvctl pause web1
    [ "$stderr" = "web1: already paused" ]
    run -0 hvctl wait web1 --for paused -t 5s
    sleep 1.1            # the balancer's next look
    [ "$(hvctl memory show web1 -o json | jq -c '.memory | [.why, .visible]')" = '["static","startup"]' ]
    run -4 --separate-stderr hvctl stop web1
    [[ $stderr == "hvctl: web1: a paused guest cannot shut down"* ]]
    run -0 --separate-stderr hvctl resume web1
    [ "$stderr" = "web1: running" ]
    run -0 hvctl console web1 --send 'echo back-$((5+5))' --until '^back-10' -t 30s
}

@test "vm restart --reset: boots again" {
    booted
    run -2 --separate-stderr hvctl restart web1 --reset </dev/null
    expect_error "hvctl: web1: resetting it needs --yes when nobody can be asked"
    run -0 --separate-stderr hvctl restart web1 --reset --yes
    [ "$stderr" = "web1: restarted" ]
    run -0 hvctl console web1 --no-history --until '^demo:~# $' -t 120s
}

@test "vm start --no-wait prints a job, job wait follows it" {
    hvctl stop web1 --turn-off --yes -q
    run -0 --separate-stderr hvctl start web1 --no-wait
    [[ $output =~ ^[0-9]+$ ]]
    [ -z "$stderr" ]
    run -0 --separate-stderr hvctl job wait "$output"
    [[ $stderr == "job "*": done" ]]
}

@test "vm stop: the guest shuts down; the console says how it ended" {
    booted
    hvctl console web1 --no-history </dev/null >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
    pid=$!
    run -0 --separate-stderr hvctl stop web1 -t 60s
    [[ $stderr =~ ^web1:\ shutting\ down\ \.\.\.\ off\ \([0-9]+s\)$ ]]
    wait "$pid"
    [ "$(cat "$BATS_TEST_TMPDIR/err")" = "web1: console closed: the guest powered off" ]
    run -0 hvctl show web1 -c state
    [ "$output" = "state:  off: the guest powered off" ]
}

@test "vm stop --turn-off asks, and pulls the plug" {
    booted
    run -2 --separate-stderr hvctl stop web1 --turn-off </dev/null
    expect_error "hvctl: web1: turning it off needs --yes when nobody can be asked"
    run -0 --separate-stderr hvctl stop web1 --turn-off --yes
    [ "$stderr" = "web1: turned off" ]
}

# A guest that has a shell and nothing that hears the power button.
deaf() {
    hvctl create deaf --memory 256M --kernel "$KERNEL" --initrd "$INITRD" \
        --cmdline "console=ttyS0 quiet rdinit=/bin/sh" -q --if-missing
    hvctl start deaf -q
    # The kernel takes the button's events; nobody listens.
    hvctl console deaf --send '' --until '# $' --send 'insmod /lib/modules/button.ko; echo now-$((1+1))' --until '^now-2' -t 120s >/dev/null
}

@test "vm stop: a guest that does not react is left running, exit 7" {
    deaf
    run -7 --separate-stderr hvctl stop deaf -t 11s
    [ "${stderr_lines[0]}" = "deaf: no reaction yet" ]
    [ "${stderr_lines[1]}" = "  try: hvctl stop deaf --turn-off" ]
    [[ ${stderr_lines[2]} == "hvctl: deaf: the guest did not shut down in time" ]]
    [ "$(hvctl show deaf -o json | jq -r .state)" = running ]
}

@test "vm stop --then turn-off: turned off when the time is up" {
    deaf
    run -0 --separate-stderr hvctl stop deaf -t 1s --then turn-off
    [ "$stderr" = "deaf: no reaction; turned off after 1s" ]
}

@test "vm stop: a guest that cannot hear the button says so at once" {
    hvctl stop deaf --turn-off --yes -q
    hvctl start deaf -q
    hvctl console deaf --until '# $' -t 120s >/dev/null
    run --separate-stderr hvctl stop deaf -t 60s
    [ "$status" -eq 7 ]
    expect_error "hvctl: deaf: the guest runs no shutdown service and has not enabled its ACPI power button" "hvctl stop deaf --turn-off"
    run -0 --separate-stderr hvctl stop deaf -t 60s --then turn-off
    [[ "$stderr" =~ ^"deaf: no shutdown service in the guest; turned off after "[0-9]+s$ ]]
}

@test "vm stop: Ctrl-C leaves the job running and says its number, exit 130" {
    deaf
    env --default-signal=INT hvctl stop deaf -t 5s 2>"$BATS_TEST_TMPDIR/err" 3>&- &
    pid=$!
    deadline=$((SECONDS + 10))
    until job=$(hvctl job list -F 'state=running,object=deaf' -o name) && [ -n "$job" ]; do [ "$SECONDS" -lt "$deadline" ]; done
    sleep 0.3
    kill -INT "$pid"
    rc=0
    wait "$pid" || rc=$?
    [ "$rc" -eq 130 ]
    [ "$(cat "$BATS_TEST_TMPDIR/err")" = "job $job goes on" ]
    run -7 hvctl job wait "$job"
    hvctl stop deaf --turn-off --yes -q
    hvctl remove deaf --yes -q
}

@test "several at once: --all, one that is off already, one that runs" {
    booted
    hvctl create idle --kernel "$KERNEL" -q
    run -0 --separate-stderr hvctl stop --all -t 60s
    [[ $stderr == *"idle: already off"* ]]
    [[ $stderr =~ web1:\ shutting\ down\ \.\.\.\ off\ \([0-9]+s\) ]]
    hvctl remove idle --yes -q
}

@test "on a terminal: an empty list says where it looked, a question is asked, show is paged" {
    command -v tmux >/dev/null || skip "no tmux"
    local s=$BATS_TEST_TMPDIR/tmux
    tmux -S "$s" -f /dev/null new-session -d -x 100 -y 24 "env HV_PAGER='sed s/^/paged-/' bash --norc"
    seen() {
        local deadline=$((SECONDS + 15))
        until tmux -S "$s" capture-pane -p | grep -qE -- "$1"; do
            [ "$SECONDS" -lt "$deadline" ] || { tmux -S "$s" capture-pane -p; tmux -S "$s" kill-server; return 1; }
            sleep 0.1
        done
    }
    tmux -S "$s" send-keys "hvctl show web1" Enter
    seen '^paged-name: '
    tmux -S "$s" send-keys "clear; hvctl create q1 -q; hvctl remove q1; echo rc=\$?" Enter
    seen '^q1: removing it: go on\? \[y/N\]'
    tmux -S "$s" send-keys "n" Enter
    seen '^hvctl: q1: not done'
    seen '^rc=1'
    tmux -S "$s" send-keys "clear; hvctl remove q1" Enter
    seen 'go on\?'
    tmux -S "$s" send-keys "y" Enter
    seen '^q1: removed'
    tmux -S "$s" send-keys "clear; XDG_RUNTIME_DIR=$BATS_TEST_TMPDIR XDG_STATE_HOME=$BATS_TEST_TMPDIR hvctl list; echo rc=\$?" Enter
    seen "^no VMs here \\(your own service\\); the system's: hvctl -H system list"
    seen '^rc=0'
    tmux -S "$s" kill-server
    # That list started a service of its own: ended by its number.
    pid=$(pgrep -u "$(id -u)" -x hvd | while read -r p; do
        if tr '\0' '\n' <"/proc/$p/environ" | grep -qx "XDG_STATE_HOME=$BATS_TEST_TMPDIR"; then echo "$p"; fi
    done)
    [ -n "$pid" ]
    kill "$pid"
}

run_vm() {
    hvctl run "$@" --memory 256M --kernel "$KERNEL" --initrd "$INITRD" --cmdline "console=ttyS0 quiet"
}

@test "vm run: exit 0 when the guest powers itself off, and it is gone" {
    run -0 --separate-stderr run_vm run1 --until '^demo:~# $' --send 'echo in-$((7+7)); poweroff' -t 120s </dev/null
    [[ $output == *in-14* ]]
    [ "$stderr" = "run1: console closed: the guest powered off" ]
    run -3 hvctl show run1
}

@test "vm run: input from a pipe" {
    run -0 --separate-stderr run_vm run2 -t 120s < <(sleep 6; printf 'echo pipe-$((8+8))\rpoweroff\r'; sleep 30)
    [[ $output == *pipe-16* ]]
}

@test "vm run: the last --until ends it, exit 0; exit 7 in time; nothing stays" {
    run -0 --separate-stderr run_vm run3 --until '^demo:~# $' -t 120s </dev/null
    run -7 --separate-stderr run_vm run4 --until '^never$' -t 2s </dev/null
    expect_error "hvctl: run4: no line matched '^never\$' in 2s"
    [ -z "$(hvctl list 'run*' -o name)" ]
}

@test "vm run: ending without the match is exit 1" {
    run -1 --separate-stderr run_vm run5 --until '^demo:~# $' --send poweroff --until '^never$' -t 120s </dev/null
    expect_error "hvctl: run5: it ended before a line matched '^never\$': the guest powered off"
}

@test "vm run: a reboot by the guest goes on, with --no-reboot it ends as a power-off" {
    run -0 --separate-stderr run_vm run6 --no-reboot --until '^demo:~# $' --send 'reboot -f' -t 120s </dev/null
    [[ $stderr == "run6: console closed: "* ]]
    run -0 --separate-stderr run_vm run7 --until '^demo:~# $' --send 'reboot -f' --until '^demo:~# $' --send 'poweroff' -t 120s </dev/null
}

@test "vm run: a triple fault is exit 1 with the reason" {
    run -1 --separate-stderr hvctl run run8 --memory 256M --kernel "$KERNEL" --initrd "$INITRD" \
        --cmdline "console=ttyS0 quiet reboot=t,force" --until '^demo:~# $' --send 'reboot -f' -t 120s </dev/null
    [[ $stderr == "hvctl: run8: "*"triple fault"* ]]
    [ -z "$(hvctl list 'run*' -o name)" ]
}

@test "vm run: Ctrl-C and SIGTERM turn it off and remove it" {
    for sig in INT TERM; do
        # A shell in the background has SIGINT ignored.
        env --default-signal=INT hvctl run run9 --memory 256M --kernel "$KERNEL" --initrd "$INITRD" \
            --cmdline console=ttyS0 </dev/null >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
        pid=$!
        deadline=$((SECONDS + 30))
        until grep -q 'Linux version' "$BATS_TEST_TMPDIR/out"; do [ "$SECONDS" -lt "$deadline" ]; sleep 0.1; done
        kill "-$sig" "$pid"
        rc=0
        wait "$pid" || rc=$?
        [ "$rc" -eq $((128 + $(kill -l "$sig"))) ]
        [ -z "$(hvctl list 'run*' -o name)" ]
        rm "$BATS_TEST_TMPDIR/out"
    done
}
