#!/usr/bin/env bats
# vhdtool's command table against what is made from it: help, the manual page, completion.
load helper

setup() { DUMP=$(vhdtool __dump); }

commands() {
    jq -r '.nouns[] | select(.later | not) | .commands[] | select(.later or .hidden | not) | .noun' <<<"$DUMP"
}

options() {
    jq -r --arg n "$1" '.nouns[].commands[] | select(.noun == $n) | .options[] | select(.later | not) | .name' <<<"$DUMP"
}

@test "vhdtool: every option is in --help, completed, and in the manual page" {
    page=$(mandoc -T ascii -O width=200 "$TOP"/man/vhdtool*.1 "$TOP/man/hvctl.1" | col -b)
    while read -r noun; do
        help=$(vhdtool "$noun" --help)
        words=$(vhdtool __complete --shell bash -- "$noun" --)
        [[ $page == *"vhdtool $noun"* ]] || { echo "vhdtool.1: $noun"; return 1; }
        while read -r option; do
            [[ $help =~ --$option([^a-z-]|$) ]] || { echo "$noun: --$option: help"; return 1; }
            grep -qx -- "--$option" <<<"$words" || { echo "$noun: --$option: completion"; return 1; }
            [[ $page =~ --$option([^a-z-]|$) ]] || { echo "$noun: --$option: manual page"; return 1; }
        done < <(options "$noun")
    done < <(commands)
}

@test "vhdtool: the page is up to date" {
    run -0 "$TOP/man/update.sh" --check "$BIN/vhdtool"
}

@test "vhdtool: help fits 80 columns" {
    { vhdtool --help
      while read -r noun; do vhdtool "$noun" --help; done < <(commands); } >"$BATS_TEST_TMPDIR/help"
    run awk 'length > 80 && !/^  vhdtool /' "$BATS_TEST_TMPDIR/help"
    [ -z "$output" ]
}

@test "vhdtool: completion of files, words, and all three shells" {
    run -0 vhdtool __complete --shell bash -- info ''
    [[ $output == ":file "* ]]
    run -0 vhdtool __complete --shell bash -- create x.vhd --type ''
    [ "$output" = $'dynamic\nfixed' ]
    for shell in bash zsh fish; do
        run -0 vhdtool completion "$shell"
        [[ $output == *vhdtool* && $output != *hvctl* ]]
    done
    bash -n <(vhdtool completion bash)
}

@test "vhdtool: what is not in this version says so, exit 9" {
    run -9 --separate-stderr vhdtool boot-prepare x.vhdx
    run -9 --separate-stderr vhdtool boot x.vhdx
    run -2 --separate-stderr vhdtool creat x.vhd
    [[ $stderr == *create* ]]
}

@test "--host is refused: there is no service to ask" {
    run -2 --separate-stderr vhdtool info -H server1 x.vhdx
    [ "$stderr" = "vhdtool: --host: vhdtool works on files and asks no service
  try: ssh server1 vhdtool info ..." ]
    run -0 vhdtool --help
    [[ $output != *--host* ]]
}
