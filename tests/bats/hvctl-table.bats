#!/usr/bin/env bats
# The command table against what is made from it: help, manual pages, completion.
load helper

setup() {
    export HV_HOST=$BATS_TEST_TMPDIR/nobody
    DUMP=$(hvctl __dump)
}

# Lines "NOUN VERB" of the commands this version has; the verb is empty where a noun has none.
commands() {
    jq -r '.nouns[] | select(.later | not) | .commands[] | select(.later or .hidden | not)
           | [.noun, .verb // ""] | join(" ")' <<<"$DUMP"
}

# The options of a command, without those that are later.
options() {
    jq -r --arg n "$1" --arg v "$2" '.nouns[].commands[] | select(.noun == $n and (.verb // "") == $v)
           | .options[] | select(.later | not) | .name' <<<"$DUMP"
}

@test "table: every option of every command is in its --help" {
    while read -r noun verb; do
        help=$(hvctl "$noun" ${verb:+"$verb"} --help)
        while read -r option; do
            [[ $help =~ --$option([^a-z-]|$) ]] || { echo "$noun $verb: --$option"; return 1; }
        done < <(options "$noun" "$verb")
    done < <(commands)
}

@test "table: every option of every command is completed" {
    while read -r noun verb; do
        words=$(hvctl __complete --shell bash -- "$noun" ${verb:+"$verb"} --)
        while read -r option; do
            grep -qx -- "--$option" <<<"$words" || { echo "$noun $verb: --$option"; return 1; }
        done < <(options "$noun" "$verb")
    done < <(commands)
}

@test "table: every command and option is in a manual page" {
    universal=$(jq -r '[.nouns[].commands[].options[] | select(.universal and (.later | not)) | .name] | unique[]' <<<"$DUMP")
    main=$(mandoc -T ascii -O width=200 "$TOP/man/hvctl.1" | col -b)
    for option in $universal; do
        [[ $main =~ --$option([^a-z-]|$) ]] || { echo "hvctl.1: --$option"; return 1; }
    done
    while read -r noun verb; do
        case $noun in help | completion)
            [[ $main == *"hvctl $noun"* ]] || { echo "hvctl.1: $noun"; return 1; }
            continue ;;
        esac
        page=$(mandoc -T ascii -O width=200 "$TOP/man/hvctl-$noun.1" | col -b)
        [[ $page == *"hvctl $noun${verb:+ $verb}"* ]] || { echo "hvctl-$noun.1: $verb"; return 1; }
        while read -r option; do
            [[ $page =~ --$option([^a-z-]|$) || $universal =~ (^|[[:space:]])$option([[:space:]]|$) ]] ||
                { echo "hvctl-$noun.1: $verb --$option"; return 1; }
        done < <(options "$noun" "$verb")
    done < <(commands)
}

@test "table: the pages are up to date" {
    run -0 "$TOP/man/update.sh" --check "$BIN/hvctl"
}

@test "table: every verb that is later is in hv-from-hyperv or its own page" {
    page=$(mandoc -T ascii -O width=200 "$TOP/man/hv-from-hyperv.7" "$TOP"/man/hvctl-*.1 | col -b)
    while read -r verb; do
        [[ $page =~ [^a-z]$verb([^a-z]|$) ]] || { echo "$verb"; return 1; }
    done < <(jq -r '.nouns[].commands[] | select(.later) | .verb' <<<"$DUMP")
    while read -r noun; do
        [[ $page =~ [^a-z]$noun([^a-z]|$) || $noun =~ ^(shell|bridge|diff|apply|edit|get)$ ]] || { echo "$noun"; return 1; }
    done < <(jq -r '.nouns[] | select(.later) | .name' <<<"$DUMP")
}

@test "table: help fits 80 columns" {
    { hvctl --help
      while read -r noun verb; do
        hvctl "$noun" ${verb:+"$verb"} --help
        hvctl "$noun" --help
      done < <(commands); } >"$BATS_TEST_TMPDIR/help"
    # Examples are command lines and stay whole.
    run awk 'length > 80 && !/^  hvctl /' "$BATS_TEST_TMPDIR/help"
    [ -z "$output" ]
}

@test "table: every example of the table parses" {
    # Whatever it would do, it must get as far as asking for a service.
    cd "$BATS_TEST_TMPDIR"
    echo '{"name": "web1"}' >lab.xml
    jq -r '.nouns[].commands[].examples[]' <<<"$DUMP" | while IFS= read -r example; do
        # The shell reads from a terminal, a file or a pipe: hvctl-shell.bats.
        case $example in *'$('* | *completion* | 'hvctl help'* | 'ssh '* | hvctl | 'hvctl -f '* | *'| hvctl '*) continue ;; esac
        run --separate-stderr timeout 20 bash -o pipefail -c "$example </dev/null"
        [ "$status" -eq 6 ] || { echo "$example: $status: $stderr"; exit 1; }
    done
}
