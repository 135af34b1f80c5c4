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

# In hv-from-hyperv(7) bold is what is built, italics what is not: "noun verb, verb --option, --option".
@test "table: hv-from-hyperv says of each command whether it is built" {
    local -A noun_at=() verb_at=() option_at=()
    local macro text item noun verb word later n=0
    while IFS=$'\t' read -r noun later; do noun_at[$noun]=$later; done < <(jq -r '.nouns[] | [.name, (.later // false)] | @tsv' <<<"$DUMP")
    while IFS=$'\t' read -r item later; do verb_at[$item]=$later; done < <(jq -r '.nouns[].commands[] | ["\(.noun) \(.verb // "")", (.later // false)] | @tsv' <<<"$DUMP")
    while IFS=$'\t' read -r item later; do option_at[$item]=$later; done < <(jq -r '.nouns[].commands[] | "\(.noun) \(.verb // "")" as $c | .options[] | ["\($c) \(.name)", (.later // false)] | @tsv' <<<"$DUMP")
    while read -r macro text; do
        text=${text//[\\\"]/} text=${text% ;} noun=
        IFS=, read -ra items <<<"$text"
        for item in "${items[@]}"; do
            # shellcheck disable=SC2086 # words
            set -- ${item#hvctl }
            [ "$1" != hvctl ] || shift
            [ "$1" != vhdtool ] || { [ "$macro" = .Sy ]; continue 2; }
            if [ -n "${noun_at[$1]:-}" ]; then noun=$1 verb=; shift; fi
            [ -n "$noun" ] || continue 2                # no command: an option of all, or a word of explanation
            later=${noun_at[$noun]}
            if [ -n "${verb_at["$noun ${1:-}"]:-}" ]; then verb=$1 later=$later${verb_at["$noun $1"]}; shift; fi
            for word; do
                case $word in --*) word=${word#--} later=$later${option_at["$noun $verb ${word%%=*}"]:-} ;; esac
            done
            n=$((n + 1))
            case $macro$later in
            .Em*true* | .Sy*) [ "$macro" = .Em ] || [[ $later != *true* ]] || { echo "bold, and not built: $text"; return 1; } ;;
            .Em*) [[ " ${verb_at[*]} " != *" $noun "* ]] && [ -z "$verb" ] || { echo "italics, and built: $text"; return 1; } ;;
            esac
        done
    done < <(sed -n '/^\.Sh VIRTUAL/,/^\.Sh IN EVERY/p' "$TOP/man/hv-from-hyperv.7" | grep -E '^\.(Sy|Em) "')
    [ "$n" -gt 60 ]
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
