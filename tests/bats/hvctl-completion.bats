#!/usr/bin/env bats
# Completion: the engine, and the three shells' files, bash and zsh on a terminal.
load helper

setup_file() { start_service; hvctl create web1 --kernel "$(some_kernel)" -q; hvctl create "a b" --kernel "$(some_kernel)" -q; }
teardown_file() { stop_service; }

complete_words() { hvctl __complete --shell "${SHELL_NAME:-bash}" -- "$@"; }

@test "completion: nouns and the verbs that may stand alone" {
    run -0 complete_words st
    [ "$output" = $'start\nstop\nstats' ]
    run -0 complete_words mem
    [ "$output" = memory ]
}

@test "completion: names of VMs from the service" {
    run -0 complete_words start w
    [ "$output" = web1 ]
    run -0 complete_words stop w
    [ -z "$output" ]
    run -0 complete_words memory set ""
    [ "$output" = $'a b\nweb1' ]
    run -0 complete_words memory w
    [ "$output" = web1 ]
}

@test "completion: values by type" {
    run -0 complete_words list -o js
    [ "$output" = $'json\njsonl' ]
    run -0 complete_words list --output=js
    [ "$output" = $'--output=json\n--output=jsonl' ]
    run -0 complete_words list -c name,upt
    [ "$output" = name,uptime_s ]
    run -0 complete_words list -s -upt
    [ "$output" = -uptime_s ]
    run -0 complete_words list -F sta
    [ "$output" = $'state=\nstatus=\nstartup=\nstart_delay_ms=' ]
    run -0 complete_words vm set web1 --lock ""
    [ "$output" = $'on\noff' ]
    run -0 complete_words create x --kernel ""
    [ "$output" = ":file *" ]
    run -0 complete_words events --kind state,jo
    [ "$output" = state,job ]
    run -0 complete_words completion f
    [ "$output" = fish ]
}

@test "completion: descriptions for zsh and fish only" {
    SHELL_NAME=fish run -0 complete_words memo
    [ "$output" = $'memory\ttheir memory' ]
}

@test "completion: silent and quick without a service" {
    HV_HOST=$BATS_TEST_TMPDIR/nobody run -0 --separate-stderr complete_words start ""
    [ -z "$output$stderr" ]
}

@test "completion: the files are what 'hvctl completion' prints" {
    hvctl completion bash | cmp - "$TOP/completions/hvctl.bash"
    hvctl completion zsh | cmp - "$TOP/completions/_hvctl"
    hvctl completion fish | cmp - "$TOP/completions/hvctl.fish"
    run -2 --separate-stderr hvctl completion tcsh
    expect_error "hvctl: tcsh: no such SHELL" "bash zsh fish"
}

@test "completion: bash syntax and zsh syntax" {
    bash -n "$TOP/completions/hvctl.bash"
    command -v zsh >/dev/null || skip "no zsh"
    zsh -n "$TOP/completions/_hvctl"
}

@test "completion: fish" {
    command -v fish >/dev/null || skip "no fish"
    run -0 fish --no-config -c "source '$TOP/completions/hvctl.fish'; complete -C 'hvctl memory set w'"
    [[ $output == *web1* ]]
    run -0 fish --no-config -c "source '$TOP/completions/hvctl.fish'; complete -C 'hvctl list --output=jsonl'"
    [[ $output == *--output=jsonl* ]]
}

# typed SHELL KEYS...: type into a shell on a terminal, one Tab after each; prints the line.
typed() {
    local socket=$BATS_TEST_TMPDIR/tmux shell=$1 deadline line
    shift
    tmux -S "$socket" -f /dev/null new-session -d -x 120 -y 20 "$shell"
    deadline=$((SECONDS + 15))
    until tmux -S "$socket" capture-pane -p | grep -q '^READY>'; do
        [ "$SECONDS" -lt "$deadline" ] || { tmux -S "$socket" capture-pane -p >&2; tmux -S "$socket" kill-server; return 1; }
        sleep 0.1
    done
    tmux -S "$socket" send-keys -l "$1"
    tmux -S "$socket" send-keys Tab
    deadline=$((SECONDS + 5))
    until line=$(tmux -S "$socket" capture-pane -p | sed -n 's/^READY> //p' | tail -n 1) && [[ $line == *"$2"* ]]; do
        [ "$SECONDS" -lt "$deadline" ] || break
        sleep 0.1
    done
    tmux -S "$socket" kill-server
    echo "$line"
}

@test "completion: bash on a terminal" {
    command -v tmux >/dev/null || skip "no tmux"
    cat >"$BATS_TEST_TMPDIR/rc" <<RC
PS1='READY> '
. '$TOP/completions/hvctl.bash'
RC
    run -0 typed "bash --noprofile --rcfile $BATS_TEST_TMPDIR/rc" "hvctl memory set web" "web1"
    [ "$output" = "hvctl memory set web1" ]
    run -0 typed "bash --noprofile --rcfile $BATS_TEST_TMPDIR/rc" "hvctl list --output=cs" "csv"
    [ "$output" = "hvctl list --output=csv" ]
    run -0 typed "bash --noprofile --rcfile $BATS_TEST_TMPDIR/rc" "hvctl start a" '\ b'
    [ "$output" = 'hvctl start a\ b' ]
    touch "$BATS_TEST_TMPDIR/vmlinuz"
    run -0 typed "bash --noprofile --rcfile $BATS_TEST_TMPDIR/rc" "hvctl create x --kernel $BATS_TEST_TMPDIR/vml" "vmlinuz"
    [[ $output == *"/vmlinuz" ]]
}

@test "completion: zsh on a terminal" {
    command -v tmux >/dev/null && command -v zsh >/dev/null || skip "no tmux or zsh"
    mkdir -p "$BATS_TEST_TMPDIR/z"
    cat >"$BATS_TEST_TMPDIR/z/.zshrc" <<RC
fpath=('$TOP/completions' \$fpath)
autoload -Uz compinit && compinit -u -d '$BATS_TEST_TMPDIR/z/dump'
PS1='READY> '
RC
    run -0 typed "env ZDOTDIR=$BATS_TEST_TMPDIR/z zsh -d" "hvctl memory set web" "web1"
    [[ $output == "hvctl memory set web1"* ]]
    run -0 typed "env ZDOTDIR=$BATS_TEST_TMPDIR/z zsh -d" "hvctl list --output=cs" "csv"
    [[ $output == "hvctl list --output=csv"* ]]
}
