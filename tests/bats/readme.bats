#!/usr/bin/env bats
# The README tells the truth about what is built.

load helper

@test "README: the list of what is not there yet is the command table's" {
    "$TOP/tests/readme.sh" --check "$BIN/hvctl"
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
