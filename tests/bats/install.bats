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

@test "installed units: right programs, accepted by systemd; the group and folders are declared" {
    command -v systemd-analyze >/dev/null || skip "no systemd"
    local dest=$BATS_TEST_TMPDIR/dest
    make -s -C "$TOP" BUILD="$(dirname "$BIN")" DESTDIR="$dest" PREFIX=/opt/elsewhere install >/dev/null
    for unit in hvd.service hv-guests.service; do
        [[ "$(grep -h ^ExecStart= "$dest/opt/elsewhere/lib/systemd/system/$unit")" == ExecStart=/opt/elsewhere/libexec/hv/hvd* ]]
        ! grep '@' "$dest/opt/elsewhere/lib/systemd/system/$unit"
    done
    # The programs are where the units will say only after the installation: verify with them in place of /opt.
    sed -i "s|/opt/elsewhere|$dest/opt/elsewhere|" "$dest"/opt/elsewhere/lib/systemd/*/*.service
    run -0 systemd-analyze verify --man=no --recursive-errors=no "$dest"/opt/elsewhere/lib/systemd/system/{hvd,hv-guests}.service
    [ -z "$output" ]
    run -0 systemd-sysusers --dry-run "$dest/opt/elsewhere/lib/sysusers.d/hv.conf"
    grep -q '^d /run/hv 0750 root hv' "$dest/opt/elsewhere/lib/tmpfiles.d/hv.conf"
}
