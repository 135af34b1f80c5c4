#!/usr/bin/env bash
# `make check` after the build: runs the stages in order, goes on after a failure, and
# ends with one line "N passed, N failed" that counts single tests.
#
#   check.sh STAGE...     stages: see below; BUILD names the build folder
set -uo pipefail
cd "$(dirname "$0")/.."
export BUILD=${BUILD:-build}
logs=$BUILD/check
mkdir -p "$logs"
passed=0 failed=0
broken=()

# count LOG: adds what the runner in this log counted; cmocka's lines, TAP's, or the plain one.
count() {
    local p f
    p=$(grep -cE '^\[       OK \]|^ok [0-9]+' "$1")
    f=$(grep -cE '^\[  FAILED  \] [a-z_0-9]+$|^not ok [0-9]+' "$1")
    while read -r a b; do p=$((p + a)) f=$((f + b)); done < <(sed -nE 's/^([a-z-]+: )?([0-9]+) passed, ([0-9]+) failed.*/\2 \3/p' "$1")
    passed=$((passed + p)) failed=$((failed + f))
    counted="$p passed, $f failed"
}

# stage NAME COMMAND...: output to a log; its tail is shown when it fails.
stage() {
    local name=$1 log=$logs/$1.log began=$SECONDS rc
    shift
    printf '== %-14s ' "$name"
    "$@" >"$log" 2>&1
    rc=$?
    local before=$failed
    count "$log"
    if [ $rc -ne 0 ] && [ "$failed" = "$before" ]; then
        failed=$((failed + 1))
    elif [ $rc -eq 0 ] && [ "$counted" = "0 passed, 0 failed" ]; then
        passed=$((passed + 1))       # a check that counts nothing of its own is one test
        counted="ok"
    fi
    printf '%s (%d s)\n' "$counted" $((SECONDS - began))
    if [ $rc -ne 0 ]; then
        broken+=("$name")
        grep -nE 'ERROR|FAILED|not ok|error:|Sanitizer|mismatch' "$log" | head -n 20
        tail -n 30 "$log" | sed 's/^/   | /'
    fi
}

units() { make --no-print-directory -j"$(nproc)" "$@" unit; }
# Three lots side by side. Disks' own tests need no service; those of memory and guests mostly
# wait, and none of their VMs has a name that service.bats counts. A lot's output comes in one piece.
bats_run() {
    local disks=(tests/bats/{vhdtool*,disk-vhdx}.bats) guests=(tests/bats/{memory-*,guest*,disks}.bats)
    local rest=() f rc=0 lots=()
    for f in tests/bats/*.bats; do
        [[ " ${disks[*]} ${guests[*]} " == *" $f "* ]] || rest+=("$f")
    done
    bats --tap --timing --print-output-on-failure "${disks[@]}" >"$logs/bats-disks.log" 2>&1 &
    lots+=($!)
    bats --tap --timing --print-output-on-failure "${guests[@]}" >"$logs/bats-guests.log" 2>&1 &
    lots+=($!)
    bats --tap --timing --print-output-on-failure "${rest[@]}" || rc=$?
    for f in "${lots[@]}"; do wait "$f" || rc=$?; done
    cat "$logs/bats-disks.log" "$logs/bats-guests.log"
    return $rc
}

# Unit tests of the loaders look at real kernels too; the guest stage fails where they cannot be had.
tests/guest/fetch.sh || echo "check: no guest kernels: tests that need one skip or fail"
for s; do
    case $s in
    rooms) stage rooms tests/rooms.sh ;;
    unit) stage unit units BUILD="$BUILD" ;;
    unit-asan) stage unit-asan units SANITIZE=address,undefined BUILD="$BUILD-asan" UNIT_SKIP="$UNIT_SKIP_ASAN" ;;
    decoder) stage decoder tests/decode-corpus.sh ;;
    guest) stage guest tests/guest/check.sh ;;
    smp) stage smp tests/guest/check-smp.sh ;;
    disk) stage disk tests/guest/check-disk.sh ;;
    bats) stage bats bats_run ;;
    leaks) stage leaks tests/leaks.sh 5 ;;
    chaos) stage chaos tests/chaos.sh 50 1 ;;
    man) stage man tests/man.sh ;;
    *) echo "check.sh: there is no stage '$s'" >&2; exit 2 ;;
    esac
done
[ ${#broken[@]} -eq 0 ] || printf 'failed stages: %s (logs in %s)\n' "${broken[*]}" "$logs"
printf 'check: %d passed, %d failed\n' "$passed" "$failed"
[ ${#broken[@]} -eq 0 ] && [ "$failed" -eq 0 ]
