#!/usr/bin/env bash
# Runs unit test programs, half as many at a time as there are CPUs but at least two (guests'
# threads and I/O threads of one test need room), each one's output whole and in the order of
# their ends.
#
#   units.sh PROGRAM...    PROGRAM may end in :translated: once with every block translated at its first run
set -uo pipefail
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

# one PROGRAM: runs it, then prints what it said in one piece.
one() {
    local program=${1%:translated} out
    [[ $program == */* ]] && [[ $program != /* ]] && program=./$program
    out=$(mktemp "$dir/XXXXXX")
    if [[ $1 == *:translated ]]; then
        echo "$program, every block translated:" >"$out"
        export HV_SOFT_TRANSLATE=0
    fi
    "$program" >>"$out" 2>&1 || { echo "FAILED: $1" >>"$out"; : >"$dir/failed"; }
    exec 9>>"$dir/lock" && flock 9
    cat "$out"
}
export -f one
export dir
at_once=$((($(nproc) + 1) / 2))
at_once=$((at_once > 2 ? at_once : 2))
printf '%s\0' "$@" | xargs -0 -n 1 -P "$at_once" bash -c 'one "$1"' one
[ ! -e "$dir/failed" ]
