#!/usr/bin/env bats
# What `make install` leaves works from any prefix.

load helper

@test "installed under a prefix the build did not know: hvctl finds its service" {
    local dest=$BATS_TEST_TMPDIR/dest
    make -s -C "$TOP" BUILD="$(dirname "$BIN")" DESTDIR="$dest" PREFIX=/opt/elsewhere install >/dev/null
    export XDG_RUNTIME_DIR=$BATS_TEST_TMPDIR/run XDG_STATE_HOME=$BATS_TEST_TMPDIR/state
    mkdir -m 700 "$XDG_RUNTIME_DIR"
    run -0 --separate-stderr "$dest/opt/elsewhere/bin/hvctl" -H user host show -o json
    [ "$(jq -r .mode <<<"$output")" = user ]
    for exe in /proc/[0-9]*/exe; do
        [ "$(readlink "$exe")" != "$dest/opt/elsewhere/libexec/hv/hvd" ] || kill "$(cut -d/ -f3 <<<"$exe")"
    done
    [ -f "$dest/opt/elsewhere/share/man/man1/hvctl.1" ]
    [ -f "$dest/opt/elsewhere/share/bash-completion/completions/hvctl" ]
}
