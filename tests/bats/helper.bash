# What the bats files of hvctl share. BUILD names the build folder.
bats_require_minimum_version 1.5.0

TOP=$(cd "${BATS_TEST_DIRNAME}/../.." && pwd)
case ${BUILD:-build} in
/*) BIN=${BUILD}/bin ;;
*) BIN=$TOP/${BUILD:-build}/bin ;;
esac
PATH=$BIN:$PATH
export PATH LC_ALL=C.UTF-8
unset HV_HOST HV_OUTPUT HV_TIMEOUT NO_COLOR

# A service of one's own, in folders of one's own: nothing of the user's is touched.
start_service() {
    export XDG_RUNTIME_DIR=$BATS_FILE_TMPDIR/run XDG_STATE_HOME=$BATS_FILE_TMPDIR/state HV_HOST=user
    mkdir -p "$XDG_RUNTIME_DIR" "$XDG_STATE_HOME"
    chmod 700 "$XDG_RUNTIME_DIR"
    serve
}

# The same, with workers that have no guest: they say what their VM's notes tell them (tests/tools/fake_worker.c).
start_fake_service() {
    mkdir "$BATS_FILE_TMPDIR/bin"
    cp "$BIN/hvd" "$BATS_FILE_TMPDIR/bin/hvd"
    cp "${BIN%/bin}/tests/tools/fake_worker" "$BATS_FILE_TMPDIR/bin/hv-worker"
    start_service
}

# Its hvd, or the next one after kill_service. A client that came before its socket would start another.
serve() {
    local hvd=$BATS_FILE_TMPDIR/bin/hvd deadline=$((SECONDS + 20))
    [ -x "$hvd" ] || hvd=$BIN/hvd
    rm -f "$XDG_RUNTIME_DIR/hv/org.hv.Manager"
    "$hvd" --user --idle 0 >>"$BATS_FILE_TMPDIR/hvd.log" 2>&1 </dev/null 3>&- &
    echo $! >"$BATS_FILE_TMPDIR/hvd.pid"
    disown
    until [ -S "$XDG_RUNTIME_DIR/hv/org.hv.Manager" ]; do
        if [ "$SECONDS" -ge "$deadline" ] || ! kill -0 "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"; then
            cat "$BATS_FILE_TMPDIR/hvd.log" >&2
            return 1
        fi
        sleep 0.05
    done
}

# end_service SIGNAL: and it is gone when this returns.
end_service() {
    local pid
    pid=$(cat "$BATS_FILE_TMPDIR/hvd.pid")
    kill "$1" "$pid" || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
}

# As a crash would.
kill_service() { end_service -9; }

stop_service() {
    hvctl stop --all --turn-off --yes -q -t 20s || true
    # Under set -e a VM left running would go unseen: workers outlive the service.
    end_service -TERM
}

# until_true SECONDS COMMAND...: until it holds. If it never does, `trouble` shows what a reader wants to know.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "not within its time: $*"
            trouble
            return 1
        fi
        sleep 0.2
    done
}
trouble() {
    hvctl memory list -c +target,+operation,+balloon
    hvctl host show
    timeout 3 hvctl events --since 5m
}

# No VM of an earlier test.
no_vms() {
    hvctl stop --all --turn-off --yes -q -t 20s
    hvctl remove --all --yes -q
}

# KERNEL and INITRD of a stock Debian kernel with a shell on ttyS0; skips where they cannot be had.
need_guest() {
    KERNEL=$("$TOP/tests/guest/fetch.sh" cloud busybox >&2 &&
        readlink -f "${HV_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hv-tests}/vmlinuz-cloud") ||
        skip "no guest kernel"
    INITRD=$BATS_FILE_TMPDIR/initrd
    [ -f "$INITRD" ] || "$TOP/tests/guest/mkinitrd.sh" -k cloud "$INITRD" >&2 || skip "no guest initrd"
    export KERNEL INITRD
}

# A file that can be named as a kernel where nothing is booted.
some_kernel() {
    [ -f "$BATS_FILE_TMPDIR/kernel" ] || head -c 4096 /dev/zero >"$BATS_FILE_TMPDIR/kernel"
    echo "$BATS_FILE_TMPDIR/kernel"
}

# expect_error TEXT [HINT]: what `run --separate-stderr` left on stderr, exactly.
expect_error() {
    local want=$1
    [ $# -lt 2 ] || want+=$'\n'"  try: $2"
    if [ "$stderr" != "$want" ]; then
        printf 'stderr:\n%s\nexpected:\n%s\n' "$stderr" "$want"
        return 1
    fi
}
