#!/usr/bin/env bats
# The shell: scripts from a file and from a pipe, and the interactive one on a terminal.
load helper

setup_file() {
    start_service
    for name in web1 web2 "a b"; do
        hvctl create "$name" --kernel "$(some_kernel)" -q
    done
}
teardown_file() { stop_service; }

# ---- scripts ----

@test "shell: commands from a pipe, no prompt, no banner" {
    run -0 --separate-stderr hvctl <<'S'
# names
list -o name

memory set web1 \
    --max 8G   # more
memory show web1 -o csv -c name,max --no-header
S
    [ "$output" = $'a b\nweb1\nweb2\nweb1,8589934592' ]
    [ "$stderr" = "web1: max 1.0T -> 8.0G, now" ]
}

@test "shell: a script stops at the first failure, with its exit code, and says where" {
    printf 'list -o name\nshow nope\nlist -o name\n' >"$BATS_TEST_TMPDIR/lab.hv"
    run -3 --separate-stderr hvctl -f "$BATS_TEST_TMPDIR/lab.hv"
    [ "$output" = $'a b\nweb1\nweb2' ]
    expect_error "hvctl: $BATS_TEST_TMPDIR/lab.hv:2: nope: no such VM"
    run -3 --separate-stderr hvctl -o json shell -f "$BATS_TEST_TMPDIR/lab.hv"
    [ "$(jq -r '.error | .where + " " + .object' <<<"$stderr")" = "$BATS_TEST_TMPDIR/lab.hv:2 nope" ]
    printf 'list \\\n -o \\\n nonsense\n' >"$BATS_TEST_TMPDIR/lab.hv"
    run -2 --separate-stderr hvctl -f "$BATS_TEST_TMPDIR/lab.hv"
    [[ $stderr == "hvctl: $BATS_TEST_TMPDIR/lab.hv:1: "* ]]
}

@test "shell: --keep-going runs on and ends with 10" {
    run -10 --separate-stderr hvctl --keep-going <<<$'show nope\nlist -o name\nstrat x'
    [ "$output" = $'a b\nweb1\nweb2' ]
    [[ $stderr == *"stdin:1: nope: no such VM"*"stdin:3: there is no 'strat'"* ]]
    run -0 hvctl --keep-going <<<'list -o name'
}

@test "shell: mistakes in the script itself" {
    run -2 --separate-stderr hvctl <<<"list 'x"
    expect_error "hvctl: stdin:1: 'x: the quote ' is never closed"
    run -2 --separate-stderr hvctl <<<$'\n| cat'
    expect_error "hvctl: stdin:2: a command is missing before |"
    run -2 --separate-stderr hvctl < <(printf 'list -o name\nli\0st\n')
    expect_error "hvctl: stdin:2: not text: a NUL byte"
    run -2 --separate-stderr hvctl < <(head -c 1100000 /dev/zero | tr '\0' x)
    expect_error "hvctl: stdin:1: a line is longer than 1M"
    run -2 --separate-stderr hvctl <<<"shell"
    expect_error "hvctl: stdin:1: this is the shell already"
    run -3 --separate-stderr hvctl -f "$BATS_TEST_TMPDIR/none"
    expect_error "hvctl: $BATS_TEST_TMPDIR/none: cannot read: No such file or directory"
}

@test "shell: nothing to read from is help, exit 2" {
    run -2 --separate-stderr hvctl </dev/null
    [ -z "$output" ]
    [[ $stderr == *"usage: hvctl NOUN VERB"* ]]
    run -2 --separate-stderr hvctl -o json </dev/null
    run -0 --separate-stderr hvctl shell </dev/null
    run -2 --separate-stderr hvctl --nonsense </dev/null
    expect_error "hvctl: there is no option --nonsense"
}

@test "shell: pipes, files, sh, and their exit codes" {
    cd "$BATS_TEST_TMPDIR"
    run -0 --separate-stderr hvctl <<'S'
list -o name -F name~^(web1|web2) | sort -r | head -n 1
list -o name -s -name > "out 1"
list -o csv --no-header -c name >> "out 1"
!echo "from sh"
S
    [ "$output" = $'web2\nfrom sh' ]
    [ "$(cat 'out 1')" = $'web2\nweb1\na b\na b\nweb1\nweb2' ]
    run -3 --separate-stderr hvctl <<<'!exit 3'
    expect_error "hvctl: stdin:1: exit code 3"
    run -4 --separate-stderr hvctl <<<'list | exit 4'
    run -3 --separate-stderr hvctl <<<'show nope | cat'
    run -3 --separate-stderr hvctl <<<'list > none/x'
    expect_error "hvctl: stdin:1: none/x: cannot write: No such file or directory"
    # The script is not what commands read.
    run -0 --separate-stderr hvctl <<<$'!cat\nlist -o name | cat\nexit\nstrat'
    [ "$output" = $'a b\nweb1\nweb2' ]
    run -137 --separate-stderr hvctl <<<'!kill -KILL $$'
}

@test "shell: a reader who leaves early is no failure" {
    run -0 --separate-stderr hvctl <<<'help | head -n 1'
    [ "$output" = "hvctl: manage virtual machines" ]
}

@test "shell: use names the VM of commands that need one" {
    run -2 --separate-stderr hvctl <<'S'
use web2
set --notes "of the script"
show -o csv -c name,notes --no-header
show web1 -o csv -c name --no-header
memory set --priority 60
list -o name
use
show
S
    [ "$output" = $'web2,of the script\nweb1\na b\nweb1\nweb2' ]
    [[ $stderr == *"stdin:8: 'vm show' needs a VM"* ]]
    run -2 --separate-stderr hvctl <<<'use web*'
    expect_error "hvctl: stdin:1: web*: 'use' takes one VM, this means several"
    run -3 --separate-stderr hvctl <<<'use wbe2'
    expect_error "hvctl: stdin:1: wbe2: no such VM" "web2"
}

@test "shell: the universal options of the shell are every command's" {
    run -0 --separate-stderr hvctl -o csv --quiet <<<$'list -c name\nset -o table web1 --notes x'
    [ "$output" = $'name\na b\nweb1\nweb2' ]
    [ -z "$stderr" ]
}

# ---- on a terminal ----

SOCKET=0
tm() { tmux -S "$BATS_TEST_TMPDIR/tmux$SOCKET" "$@"; }
screen() { tm capture-pane -pJ; }

# sees TEXT: until the screen has it.
sees() {
    local deadline=$((SECONDS + 20))
    until screen | grep -qF -- "$1"; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "not seen: $1"; screen; return 1; }
        sleep 0.1
    done
}

# types TEXT, and keys by name behind it.
types() {
    [ -z "$1" ] || tm send-keys -l -- "$1"
    shift
    [ $# -eq 0 ] || tm send-keys "$@"
}

open_shell() {
    command -v tmux >/dev/null || skip "no tmux"
    cd "$BATS_TEST_TMPDIR"
    SOCKET=$((SOCKET + 1))              # a server that was ended may still be leaving the old one
    tm -f /dev/null new-session -d -x "${WIDTH:-100}" -y 45 "hvctl $*; echo \"[left: \$?]\"; cat"
    sees "hv> "
}

teardown() { tm kill-server 2>/dev/null || true; }

@test "shell: commands on a terminal; an error does not end it; EOF does" {
    open_shell
    sees "TAB completes"
    types "list -o name | sort -r" Enter
    sees $'web2'
    types "show nope" Enter
    sees "hvctl: nope: no such VM"
    types "!echo x''y" Enter
    sees "xy"
    types "" C-d
    sees "[left: 0]"
}

@test "shell: TAB completes commands, options, values, names and files" {
    touch "$BATS_TEST_TMPDIR/my kernel"
    open_shell
    types "memo" Tab
    sees "hv> memory"
    types "set we" Tab
    sees "hv> memory set web"
    types "" Tab
    sees "web1  off"
    sees "web2  off"
    types "1" Tab
    types "--prio" Tab
    sees "hv> memory set web1 --priority"
    types "" C-c
    sees "^C"
    types "start a" Tab
    sees 'hv> start a\ b'
    types "" C-c
    types 'start "a' Tab
    sees 'hv> start "a b" '
    types "" C-c
    types "list --output=cs" Tab
    sees "hv> list --output=csv"
    types "" C-c
    types "create x --kernel my" Tab
    sees 'hv> create x --kernel my\ kernel'
    types "" C-c
    types "list > my" Tab
    sees 'hv> list > my\ kernel'
    types "" C-c
    types "us" Tab
    sees "hv> use"
    types "web2" Enter
    sees "hv:web2> "
    types "set --notes 'from the shell'" Enter
    sees "hv:web2> "
    types "show -o csv -c notes --no-header" Enter
    sees "from the shell"
    types "use" Enter
    types "quit" Enter
    sees "[left: 0]"
}

@test "shell: ? shows what can stand at the cursor, and is a character elsewhere" {
    open_shell
    types "memory "
    sees "hv> memory "
    types "?"
    sees "change memory settings"
    types "set "
    types "?"
    sees "usage: hvctl memory set VM...|--all [options]"
    types "" C-c
    types "list -F name~web?" Enter
    sees "hv> list -F name~web?"
    sees "web1"
}

@test "shell: Ctrl-C drops the line, and ends a command but not the shell" {
    open_shell
    types "list --nonsense" C-c
    sees "^C"
    types "!sleep 1000" Enter
    sees "sleep 1000"
    types "" C-c
    types "wait web1 --for running" Enter
    sees "wait web1"
    types "" C-c
    types "!echo still''here" Enter
    sees "stillhere"
    ! screen | grep -q nonsense.*such
}

@test "shell: Ctrl-C ends a script" {
    command -v tmux >/dev/null || skip "no tmux"
    printf '!echo begun\nwait web1 --for running\nlist -o name\n' >"$BATS_TEST_TMPDIR/wait.hv"
    tm -f /dev/null new-session -d -x 100 -y 45 "bash -c 'trap : INT; hvctl -f \"$BATS_TEST_TMPDIR/wait.hv\"; echo \"[left: \$?]\"; cat'"
    sees begun
    types "" C-c
    sees "[left: 130]"
}

@test "shell: history is kept for the next one, in a file of one's own, but for lines with a blank in front" {
    rm -f "$XDG_STATE_HOME/hv/history"
    open_shell
    types "list -o name" Enter
    sees "web2"
    types " list -c name" Enter
    sees "NAME"
    types "" C-d
    sees "[left: 0]"
    [ "$(cat "$XDG_STATE_HOME/hv/history")" = "list -o name" ]
    [ "$(stat -c %a "$XDG_STATE_HOME/hv/history")" = 600 ]
    tm kill-server
    open_shell
    types "" Up
    sees "hv> list -o name"
    types "" C-c
    types "" C-r
    types "-o na" Enter
    sees "web2"
    tm kill-server
    # One that has grown is cut, newest kept.
    for i in $(seq 3000); do echo "show x$i"; done >"$XDG_STATE_HOME/hv/history"
    open_shell
    types "" Up
    sees "hv> show x3000"
    types "" C-c C-d
    sees "[left: 0]"
    [ "$(wc -l <"$XDG_STATE_HOME/hv/history")" = 1000 ]
    [ "$(head -n 1 "$XDG_STATE_HOME/hv/history")" = "show x2001" ]
}

@test "shell: the terminal is resized under it, and a narrow one is enough" {
    WIDTH=30 open_shell
    tm resize-window -x 60 -y 20
    types "memory list -c name" Enter
    sees "web2"
    types "" C-d
    sees "[left: 0]"
}
