#!/usr/bin/env bats
# The system's service and users who are not root: who may connect, and what is done with their rights.
# Needs root. Its folders, /etc/group too, are those of a mount namespace of its own.

load helper

setup_file() {
    [ "$(id -u)" = 0 ] || skip "needs root: other users, the system's service"
    unshare -m true 2>/dev/null || skip "needs a mount namespace"
    command -v setpriv >/dev/null || skip "needs setpriv"
    # What users other than root have to reach: the programs may lie in a home folder.
    share=$BATS_FILE_TMPDIR/share
    mkdir -p "$share/bin" "$share/var" "$share/run"
    cp "$BIN"/{hvctl,hvd,hv-worker,vhdtool} "$share/bin/"
    for d in "$share" "$BATS_FILE_TMPDIR"; do chmod 755 "$d"; done
    for d in $BATS_FILE_TMPDIR; do while [ "$d" != / ]; do chmod o+x "$d"; d=$(dirname "$d"); done; done
    { grep -v '^hv:' /etc/group; echo hv:x:64321:; } >"$share/group"
    unshare -m --propagation private bash -c '
        mount --bind "$1/run" /run && mount --bind "$1/var" /var/lib && mount --bind "$1/group" /etc/group &&
        exec sleep 1000000' - "$share" 3>&- >/dev/null 2>&1 &
    echo $! >"$BATS_FILE_TMPDIR/space.pid"
    local deadline=$((SECONDS + 20))
    until inside grep -q '^hv:x:64321:' /etc/group 2>/dev/null && inside mountpoint -q /var/lib; do [ "$SECONDS" -lt "$deadline" ]; sleep 0.05; done
    # Its own number: the shell around it would wait for it.
    inside bash -c 'echo $$ >"$1/hvd.pid"; exec "$1/share/bin/hvd" --system' - "$BATS_FILE_TMPDIR" >"$BATS_FILE_TMPDIR/hvd.log" 2>&1 3>&- &
    until inside test -S /run/hv/org.hv.Manager; do
        [ "$SECONDS" -lt $((deadline + 20)) ] || { cat "$BATS_FILE_TMPDIR/hvd.log" >&2; return 1; }
        sleep 0.05
    done
}
teardown_file() {
    [ -f "$BATS_FILE_TMPDIR/hvd.pid" ] || return 0
    kill "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" "$(cat "$BATS_FILE_TMPDIR/space.pid")" || true
    wait
}
setup() { share=$BATS_FILE_TMPDIR/share; }

inside() { nsenter -m -t "$(cat "$BATS_FILE_TMPDIR/space.pid")" -- "$@"; }
# as root, as one who is in the group, as one who is not
root() { inside env HV_HOST=system "$share/bin/hvctl" "$@"; }
member() { inside setpriv --reuid nobody --regid nogroup --groups 64321 env -C / HV_HOST=system HOME=/ "$share/bin/hvctl" "$@"; }
stranger() { inside setpriv --reuid nobody --regid nogroup --clear-groups env -C / HV_HOST=system HOME=/ "$share/bin/hvctl" "$@"; }

@test "access: who is not in group hv is told so, exit 5" {
    [ "$(inside stat -c '%a %U %g' /run/hv/org.hv.Manager)" = '660 root 64321' ]
    run -5 --separate-stderr stranger list
    expect_error "hvctl: system: cannot connect: you are not in group hv" "sudo adduser nobody hv, then log in again"
    run -5 --separate-stderr stranger create x -o json
    [ "$(jq -r .error.code <<<"$stderr")" = denied ]
    run -5 stranger -H /run/hv/org.hv.Manager list
    run -0 member list
}

@test "access: a member's files are opened with his rights, and what he did bears his name" {
    head -c 4096 /dev/zero >"$share/secret"
    chmod 600 "$share/secret"
    run -5 --separate-stderr member create web1 --kernel "$share/secret"
    expect_error "hvctl: $share/secret: cannot open the kernel: Permission denied"
    run -0 root create web1 --kernel "$share/secret"
    # What root set a member cannot start: the start opens it.
    run -5 --separate-stderr member start web1
    [[ $stderr == *"$share/secret: cannot open the kernel: Permission denied"* ]]
    run -5 member disk add web1 "$share/secret"
    run -0 member vm set web1 --notes mine -q
    uid=$(root events web1 --since 1h -o jsonl -n 50 -t 1s | jq -rs 'map(select(.message | test("settings changed"))) | last.uid' || true)
    [ "$uid" = "$(id -u nobody)" ]
    run -0 root remove web1 --yes -q
}

@test "access: only root says that the host stops" {
    run -5 inside setpriv --reuid nobody --regid nogroup --groups 64321 "$share/bin/hvd" --system --guests stop
    [[ $output == *"only root and the service's own user may say that it stops"* ]]
}

@test "access: disks are deleted with the rights of who asks" {
    inside "$share/bin/vhdtool" create "$share/roots.vhdx" --size 64M -q
    run -0 root create web1 --disk "$share/roots.vhdx"
    run -5 --separate-stderr member remove web1 --disks --yes
    [[ $stderr == *"hvctl: $share/roots.vhdx: cannot delete it: Permission denied"* ]]
    [ -f "$share/roots.vhdx" ]
    run -3 member show web1
}
