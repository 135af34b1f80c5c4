#!/usr/bin/env bash
# An hour of samples in hvtop's screen, thirty times as fast, while every screen is looked at: its memory after the
# first minutes is its memory at the end. Then a day of them under the address sanitizer, in a batch and on a screen.
#
#   hvtop-hour.sh [--asan]     BUILD names the build folder; --asan: builds and runs the second part as well
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(readlink -f "${BUILD:-build}")
work=$(mktemp -d)
export LC_ALL=C.UTF-8 TZ=UTC XDG_CONFIG_HOME=$work
tm() { tmux -S "$work/tmux" -u -f /dev/null "$@"; }
trap 'tm kill-server 2>/dev/null || true; rm -rf "$work"' EXIT
screens=(2 3 5 6 1 Enter Tab z Left Escape s Escape f Escape '?' Escape t / v m Escape)

# look PROGRAM SECONDS ROUNDS FILE OPTIONS: memory of the process, KiB, after each round
look() {
    local program=$1 seconds=$2 rounds=$3 i k pid
    shift 3
    tm new-session -d -x 160 -y 45 "$program $* 2>$work/err; echo \$? >$work/rc"
    until tm capture-pane -p | grep -q 'NAME'; do sleep 0.1; done
    pid=$(pgrep -P "$(tm display-message -p '#{pane_pid}')" -x hvtop)
    for ((i = 0; i < rounds; i++)); do
        sleep "$seconds"
        for k in "${screens[@]}"; do tm send-keys "$k"; done
        awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"
    done
    tm send-keys Escape; tm send-keys Escape; sleep 0.3
    tm send-keys q
    until [ -s "$work/rc" ]; do sleep 0.1; done
    [ "$(cat "$work/rc")" = 0 ] && [ ! -s "$work/err" ] || { cat "$work/err" >&2; return 1; }
    rm "$work/rc"
}

"$build/tests/tools/hvrec_make" --load "$work/hour.hvrec" 100 3700
mapfile -t kib < <(look "$build/bin/hvtop" 10 12 --replay "$work/hour.hvrec" --speed 30)
echo "KiB: ${kib[*]}"
[ ${#kib[@]} = 12 ]
grown=$((kib[11] - kib[1]))
echo "an hour of 100 VMs at 1 s: ${kib[11]} KiB, $grown KiB more than after five minutes"
[ "$grown" -lt 1024 ]
[ "${1:-}" = --asan ] || exit 0

make --no-print-directory BUILD="$build-asan" SANITIZE=address,undefined -j2 "$build-asan/bin/hvtop"
mkdir -p "$build-asan/share/hv"
cp "$build/share/hv/sample.hvrec" "$build-asan/share/hv/"
for format in csv jsonl table; do
    cmp <("$build/bin/hvtop" --replay --sample -b -o $format) <("$build-asan/bin/hvtop" --replay --sample -b -o $format)
done
look "$build-asan/bin/hvtop" 5 6 --replay --sample --speed 600 >/dev/null
echo "a day of 60 VMs under the sanitizer: nothing found, nothing left"
