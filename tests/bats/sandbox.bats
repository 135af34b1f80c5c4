#!/usr/bin/env bats
# What confines a worker, as seen from outside, under root and under an ordinary user. What each
# layer stops is tests/unit/worker/test_hostile.c's business.

load helper

setup_file() {
    start_service
    need_guest
}
teardown_file() { stop_service; }
teardown() { no_vms; }

boot_vm() {
    hvctl create "$1" -q --memory 128M --kernel "$KERNEL" --initrd "$INITRD" --cmdline 'console=ttyS0 quiet'
    hvctl start "$1" -q --wait=console:demo -t 60s
}

# field NAME of the worker's status
field() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$worker/status"; }

# Every layer that doctor says this host gives is on for a VM that runs.
layers_as_promised() {
    hvctl show web1 -o json | jq -e '[.sandbox[] | select(.on | not)] == []'
    ! hvctl host doctor -o json | jq -e '.[] | select(.name == "sandbox" and .status == "problem")'
}

code_is_shown() { hvctl stats web1 -o json | jq -e '.code >= 64 * 1024 and .code <= 24 * 1024 * 1024'; }

@test "a running worker: filtered threads, no capabilities, no new privileges, an empty root" {
    boot_vm web1
    worker=$(hvctl show web1 -o json | jq .pid)
    [ "$(field NoNewPrivs)" = 1 ]
    for set in CapInh CapPrm CapEff CapAmb; do [ "$(field $set)" = 0000000000000000 ]; done
    for thread in "/proc/$worker/task"/*; do
        grep -q '^Seccomp:.*2$' "$thread/status"
        filters=$(sed -n 's/^Seccomp_filters:[[:space:]]*//p' "$thread/status")
        [ -z "$filters" ] || [ "$filters" -ge 2 ]
    done
    # The soft engine still translates: executable memory without a file grew, and none is writable too.
    if [ "$(hvctl stats web1 -o json | jq -r .engine)" = soft ]; then
        perl -ne '/^(\w+)-(\w+) r-xp \S+ \S+ 0\s*$/ and $n += hex($2) - hex($1); /^\S+ .wx/ and die $_; END { exit($n < (64 << 10)) }' \
            "/proc/$worker/maps"
        until_true 30 code_is_shown    # a worker reports every second, and this guest boots in less
    fi
    hvctl host doctor -o json | jq -e '.[] | select(.name == "sandbox") | .message | test("namespaces")' || skip "no namespaces here"
    for ns in user mnt pid net ipc uts; do
        [ "$(readlink "/proc/$worker/ns/$ns")" != "$(readlink "/proc/self/ns/$ns")" ]
    done
    layers_as_promised
    hvctl host doctor -o json | jq -e 'map(.name) | contains(["kernel", "sandbox", "versions", "worker"])'
    hvctl host doctor -o json | jq -e '.[] | select(.name == "versions") | .message | test("^0 of 1 ")'
    [ -z "$(ls -A "/proc/$worker/root")" ]
}

@test "under root each worker has a user of its own, free again at its end and kept over a restart of the service" {
    [ "$(id -u)" = 0 ] || skip "needs root"
    boot_vm web1
    boot_vm web2
    worker=$(hvctl show web1 -o json | jq .pid); uid1=$(field Uid | cut -f1)
    worker=$(hvctl show web2 -o json | jq .pid); uid2=$(field Uid | cut -f1)
    [ "$uid1" -ge 1879048192 ] && [ "$uid2" -ge 1879048192 ] && [ "$uid1" != "$uid2" ]
    [ -L "/run/hv-uids/$uid1" ] && [ -L "/run/hv-uids/$uid2" ]
    kill -KILL "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/hvd.pid")" 2>/dev/null || true
    rm -f "$XDG_RUNTIME_DIR/hv/org.hv.Manager"
    start_service
    hvctl wait web1 --for running -q -t 10s
    [ -L "/run/hv-uids/$uid1" ]
    hvctl stop web1 web2 --turn-off --yes -q
    [ ! -e "/run/hv-uids/$uid1" ] && [ ! -L "/run/hv-uids/$uid1" ] && [ ! -L "/run/hv-uids/$uid2" ]
}

@test "an ordinary user's service confines its workers too" {
    [ "$(id -u)" = 0 ] || skip "needs root to become another user"
    local dir=$BATS_FILE_TMPDIR/ordinary
    mkdir -p "$dir/run" "$dir/state" "$dir/bin"
    # Neither the build folder nor the kernel's may be open to it.
    cp "$BIN/hvctl" "$BIN/hvd" "$BIN/hv-worker" "$dir/bin/"
    cp "$KERNEL" "$dir/kernel"
    cp "$INITRD" "$dir/initrd"
    chmod 755 "$BATS_RUN_TMPDIR" "$(dirname "$BATS_FILE_TMPDIR")" "$BATS_FILE_TMPDIR" "$dir"
    chmod 700 "$dir/run"
    chown -R nobody:nogroup "$dir"
    cat >"$dir/try" <<'TRY'
set -e
trap 'hvctl stop --all --turn-off --yes -q; kill $hvd; wait $hvd' EXIT
hvd --user --idle 0 2>"$XDG_STATE_HOME/log" 3>&- &
hvd=$!
until [ -S "$XDG_RUNTIME_DIR/hv/org.hv.Manager" ]; do sleep 0.05; kill -0 $hvd; done
hvctl create web1 -q --memory 128M --kernel "$dir/kernel" --initrd "$dir/initrd" --cmdline 'console=ttyS0 quiet'
hvctl start web1 -q --wait=console:demo -t 60s
hvctl show web1 -o json >"$dir/show"
hvctl host doctor -o json >"$dir/doctor"
worker=$(jq .pid "$dir/show")
grep -E '^(NoNewPrivs|CapEff|Seccomp):' /proc/$worker/status >"$dir/status"
hvctl stop web1 -q -t 60s
TRY
    run -0 env -i PATH="$dir/bin:/usr/bin:/bin" HOME="$dir" XDG_RUNTIME_DIR="$dir/run" XDG_STATE_HOME="$dir/state" HV_HOST=user \
        dir="$dir" setpriv --reuid nobody --regid nogroup --clear-groups bash "$dir/try"
    [ "$(tr -s '\t\n' ' ' <"$dir/status")" = "CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 " ]
    jq -e '[.sandbox[] | select(.name == "system-calls" and .on)] | length == 1' "$dir/show"
    jq -e '[.[] | select(.name == "sandbox" and (.message | test("no user: the service.s own")))] | length == 1' "$dir/doctor"
}

@test "hv-worker --probe names its layers" {
    run -0 bash -c "'$BIN/hv-worker' --probe | jq -r '.[].name' | tr '\n' ' '"
    [ "$output" = "root capabilities limits system-calls " ]
}
