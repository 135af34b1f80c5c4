#!/usr/bin/env bats
# What needs no service: bad use, help, what is later. Words and exit codes are the contract's.
load helper

setup() {
    # Nothing here may reach a service: where one would be asked there is none.
    export HV_HOST=$BATS_TEST_TMPDIR/nobody
}

@test "usage: without arguments help goes to stderr, exit 2" {
    run -2 --separate-stderr hvctl </dev/null
    [ -z "$output" ]
    [[ $stderr == *"usage: hvctl NOUN VERB"* ]]
}

@test "usage: a size needs a unit" {
    run -2 --separate-stderr hvctl memory set web1 --max 2048
    expect_error "hvctl: --max 2048: a size needs a unit" "--max 2048M"
}

@test "usage: an unknown verb names near ones" {
    run -2 --separate-stderr hvctl vm strat web1
    expect_error "hvctl: there is no 'vm strat'" "start, restart, stats"
}

@test "usage: an option that lives elsewhere is shown there" {
    run -2 --separate-stderr hvctl vm set web1 --memory 4G
    expect_error "hvctl: 'vm set' has no --memory" "hvctl memory set web1 --startup 4G"
}

@test "usage: a bare filter key" {
    run -2 --separate-stderr hvctl memory list -F demand
    expect_error "hvctl: --filter demand: a comparison is missing" \
        "--filter demand.gt=2G (a bare > is the shell's redirection)"
}

@test "usage: an unknown noun" {
    run -2 --separate-stderr hvctl memroy list
    expect_error "hvctl: there is no 'memroy'" "memory"
}

@test "usage: words are matched whole" {
    run -2 --separate-stderr hvctl mem list
    [[ $stderr == "hvctl: there is no 'mem'"* ]]
    run -2 --separate-stderr hvctl list --colum name
    [[ $stderr == "hvctl: 'vm list' has no --colum"* ]]
}

@test "usage: a missing target" {
    run -2 --separate-stderr hvctl start
    expect_error "hvctl: 'vm start' needs a VM" "hvctl vm start VM, or --all"
}

@test "usage: names and --all exclude each other" {
    run -2 --separate-stderr hvctl stop web1 --all
    expect_error "hvctl: 'vm stop': names and --all exclude each other"
}

@test "usage: a bad regular expression" {
    run -2 --separate-stderr hvctl console web1 --until '('
    [[ $stderr == "hvctl: --until (: not a regular expression: "* ]]
}

@test "usage: there is nothing yet to be relative to" {
    run --separate-stderr hvctl create web1 --max +1G
    [ "$status" -eq 2 ] || [ "$status" -eq 6 ]
}

@test "usage: with -o json the error is one object on stderr" {
    run -2 --separate-stderr hvctl -o json list --nonsense
    [ -z "$output" ]
    [ "$(jq -r .error.code <<<"$stderr")" = usage ]
    [ "$(jq -r .error.message <<<"$stderr")" = "'vm list' has no --nonsense" ]
}

@test "usage: HV_OUTPUT decides the form of errors too, and a bad one is named" {
    HV_OUTPUT=json run -2 --separate-stderr hvctl list --nonsense
    [ "$(jq -r .error.code <<<"$stderr")" = usage ]
    HV_OUTPUT=yaml run -2 --separate-stderr hvctl list
    expect_error "hvctl: HV_OUTPUT: no such form of output: yaml"
}

@test "later: a noun" {
    for noun in net nic switch checkpoint snapshot firmware com \
        replication wmi access; do
        run -9 --separate-stderr hvctl "$noun" list x
        expect_error "hvctl: $noun: not in this version" "man hv-from-hyperv"
    done
}

@test "later: a verb, with and without its noun" {
    for verb in save discard clone export import move screenshot nmi key; do
        run -9 --separate-stderr hvctl vm "$verb" web1
        expect_error "hvctl: vm $verb: not in this version" "man hv-from-hyperv"
        run -9 --separate-stderr hvctl "$verb" web1
        expect_error "hvctl: vm $verb: not in this version" "man hv-from-hyperv"
    done
}

@test "later: an option, a value" {
    run -9 --separate-stderr hvctl create web1 --net lan
    expect_error "hvctl: --net: not in this version" "man hv-from-hyperv"
    run -9 --separate-stderr hvctl stop web1 --then save
    expect_error "hvctl: --then save: not in this version" "man hv-from-hyperv"
    run -9 --separate-stderr hvctl help hyperv-export
    expect_error "hvctl: help hyperv-export: not in this version" "man hv-from-hyperv"
}

@test "later: hidden from TAB" {
    run -0 hvctl __complete --shell bash -- ""
    [[ $output != *checkpoint* ]]
    run -0 hvctl __complete --shell bash -- vm ""
    [[ $output != *save* ]]
    run -0 hvctl __complete --shell bash -- vm create x --
    [[ $output == *--memory* ]]
    [[ $output != *--net* ]]
    run -0 hvctl __complete --shell bash -- vm create x --engine ""
    [ "$output" = $'auto\nkvm\nsoft' ]
}

@test "help: of the tool, a noun and a command, on stdout" {
    run -0 --separate-stderr hvctl --help
    [[ $output == "hvctl: manage virtual machines"* ]]
    [ -z "$stderr" ]
    run -0 hvctl vm --help
    [[ $output == "hvctl vm: virtual machines"* ]]
    run -0 hvctl start -h
    [[ $output == "hvctl vm start: "* ]]
    run -0 hvctl memory set --help --nonsense
    [[ $output == "hvctl memory set: "* ]]
}

@test "help: the command prints the same without a terminal" {
    [ "$(hvctl help memory set)" = "$(hvctl memory set --help)" ]
    [ "$(hvctl help memory)" = "$(hvctl memory --help)" ]
    [ "$(hvctl help)" = "$(hvctl --help)" ]
    run -2 --separate-stderr hvctl help vm strat
    [[ $stderr == "hvctl: there is no 'vm strat'"* ]]
    run -9 hvctl help vm save
}

@test "help: the version is one line" {
    run -0 hvctl --version
    [[ $output =~ ^hvctl\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
}

@test "columns: help lists them without a service" {
    run -0 hvctl memory list -c help
    [[ $output == *"* buffer_now_pct"* ]]
    run -2 --separate-stderr hvctl list -c nmae
    expect_error "hvctl: --columns nmae: no such column" "name"
}

@test "service: none at the path named is exit 6" {
    run -6 --separate-stderr hvctl list
    [[ $stderr == "hvctl: "* ]]
    [ -z "$output" ]
    run -6 --separate-stderr hvctl list -o json
    [ "$(jq -r .error.code <<<"$stderr")" = unreachable ]
}

@test "output: one that cannot be written is an error" {
    run -8 --separate-stderr bash -c 'hvctl --help >/dev/full'
    # Also where it was flushed earlier, and stdio has forgotten why.
    run -8 --separate-stderr bash -c 'vhdtool create "$1"/full.vhdx --size 8M -q; vhdtool info "$1"/full.vhdx >/dev/full' - "$BATS_TEST_TMPDIR"
    expect_error "vhdtool: cannot write the output: No space left on device"
    [[ $stderr == *"cannot write the output"* ]]
}

@test "words that are no UTF-8, and sizes beyond all, are refused by name" {
    local words
    for words in $'start \xff' $'create a\xffb' $'rename web1 \xff' $'group create \xff' $'disk add web1 \xff.raw' \
        $'list \xff' $'wait web1 --for console:\xff' $'set web1 --notes \xff' $'-H \xff list'; do
        run -2 --separate-stderr hvctl $words
        [[ $stderr == "hvctl: "*": it is not UTF-8 text" || $stderr == *": the value is not UTF-8 text"* ]] || { echo "$words: $stderr"; return 1; }
    done
    printf '{' >"$BATS_TEST_TMPDIR/"$'\xff.json'
    run -2 --separate-stderr hvctl diff -f "$BATS_TEST_TMPDIR/"$'\xff.json'
    [[ $stderr == *": it is no JSON: "* ]] || { echo "$stderr"; return 1; }
    for words in "create a --memory 16383P" "memory set a --max +16383P" "host set --vm-memory 8192P"; do
        run -2 --separate-stderr hvctl $words
        [[ $stderr == *": this size is too large"* ]] || { echo "$words: $stderr"; return 1; }
    done
}
