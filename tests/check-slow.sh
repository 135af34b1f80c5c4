#!/usr/bin/env bash
# The long tests, after `make check`: what takes minutes, or a machine within a machine.
# One line a stage; exit 1 if one failed. 77 of a stage: skipped, its reason is shown.
set -uo pipefail
cd "$(dirname "$0")/.."
export BUILD=${BUILD:-build}
failed=0
stage() {
    local name=$1 rc=0
    shift
    echo "== $name"
    "$@" || rc=$?
    case $rc in
    0) ;;
    77) echo "== $name: skipped" ;;
    *) failed=$((failed + 1)); echo "== $name: FAILED" ;;
    esac
}
make --no-print-directory BUILD="$BUILD" "$BUILD/tests/tools/vmboot" "$BUILD/tests/engine_kvm/test_kvm" || exit 1
stage kvm-nested tests/guest/kvm-nested.sh
echo "check-slow: $failed stages failed"
[ "$failed" = 0 ]
