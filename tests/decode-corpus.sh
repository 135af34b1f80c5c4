#!/usr/bin/env bash
# The decoder beside Zydis: every byte offset of libc, libm and two Debian kernels, made-up
# instructions in three modes, and the decoder's speed. BUILD names the build folder.
#
#   decode-corpus.sh [--sweep]     --sweep: also every opcode of every map (half a minute)
#
# Without network and without kernels in the cache the kernels are left out, loudly.
set -euo pipefail
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
. tests/guest/lib.sh
tool=$BUILD/tests/tools/decode_vs_zydis
unpacked=$BUILD/cache
passed=0 failed=0

make --no-print-directory BUILD="$BUILD" "$tool"
mkdir -p "$unpacked"

# run NAME COMMAND...: one test.
run() {
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1)) && printf 'ok %s\n' "$name"
    else
        failed=$((failed + 1)) && printf 'FAILED: %s\n' "$name"
    fi
}

# vmlinux NAME: unpacked from the cached bzImage when that is newer. Prints the file.
vmlinux() {
    local image=$cache/vmlinuz-$1 out=$unpacked/vmlinux-$1
    [ -e "$image" ] || tests/guest/fetch.sh "$1" >&2 || return 1
    [ "$out" -nt "$(readlink -f "$image")" ] || tests/guest/vmlinux.sh "$image" "$out" >&2 || return 1
    printf '%s\n' "$out"
}

libc=$(ldd "$tool" | sed -n 's/.*libc\.so.* => \([^ ]*\).*/\1/p')
libs=("$libc")
for lib in libm.so.6 libcrypto.so.3 libstdc++.so.6; do
    [ ! -e "${libc%/*}/$lib" ] || libs+=("${libc%/*}/$lib")
done
run libraries "$tool" elf "${libs[@]}"
for kernel in cloud generic; do
    if elf=$(vmlinux "$kernel"); then
        run "kernel-$kernel" "$tool" elf "$elf"
    else
        printf 'NOT TESTED: kernel-%s is not in %s and could not be fetched\n' "$kernel" "$cache"
    fi
done
run random "$tool" random 2000000 1
[ "${1:-}" != --sweep ] || run sweep "$tool" sweep
"$tool" speed "$libc"
printf 'decoder: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
