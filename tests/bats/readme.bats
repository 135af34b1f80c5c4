#!/usr/bin/env bats
# The README tells the truth about what is built.

load helper

@test "README: the list of what is not there yet is the command table's" {
    "$TOP/tests/readme.sh" --check "$BIN/hvctl"
}

# words KIND: what it lists, one a line.
words() { sed -n "/^$1: /,/^\$/p" "$TOP/README.md" | tr '\n' ' ' | grep -oE '`[^`]+`' | tr -d '`'; }

@test "README: what it lists as not there yet answers so, exit 9" {
    export HV_HOST=/nowhere
    [ "$(words Values | wc -l)" -ge 5 ]
    while read -r line; do
        tool=hvctl
        case $line in hvtop\ * | vhdtool\ *) tool=${line%% *} line=${line#* } ;; esac
        set -- $line
        [ $tool != hvctl ] || [ $# = 1 ] || set -- "$@" x
        run -9 --separate-stderr "$tool" "$@"
        [[ $stderr == "$tool: "*": not in this version"* ]] || { echo "$tool $*: $stderr"; return 1; }
    done < <(words Nouns; words Verbs; words Options; words Values)
}

@test "README: the columns of hvtop that it lists are those that hvtop knows of" {
    in_readme=$(tr '\n' ' ' <"$TOP/README.md" | sed 's/.*net screen; the columns \(.*\) - checkpoints.*/\1/; s/ and /, /; s/[ ,][ ,]*/ /g')
    in_source=$(sed -n '/^static int columns_are_built/,/^}/s/.*later\[\] = {\(.*\)};/\1/p' "$TOP/hvtop/options.c" | tr -d '",')
    [ "$(tr -s ' ' '\n' <<<"$in_readme" | sort)" = "$(tr -s ' ' '\n' <<<"$in_source" | sort)" ] || { echo "$in_readme / $in_source"; return 1; }
    for column in $in_readme; do
        run -9 hvtop --batch -n 1 --columns "+$column"
    done
}

@test "README: its commands parse" {
    # Every hvctl line of the tour names a command that exists and is built.
    grep -oE '^hvctl [a-z]+( [a-z]+)?' "$TOP/README.md" | sort -u | while read -r _ first second; do
        hvctl "$first" ${second:+"$second"} --help >/dev/null 2>&1 || hvctl "$first" --help >/dev/null || {
            echo "hvctl $first $second"
            exit 1
        }
    done
}
