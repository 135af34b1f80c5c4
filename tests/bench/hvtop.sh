#!/usr/bin/env bash
# What hvtop costs: its share of a CPU with 512 VMs that all change every second, in a terminal of
# 160x45, and how long the first screen takes. Printed, never asserted.
#
#   hvtop.sh [SECONDS]      BUILD names the build folder
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
seconds=${1:-20}
command -v tmux >/dev/null || { echo "hvtop: tmux is not here (make deps-check)"; exit 0; }
work=$(mktemp -d)
tm() { tmux -S "$work/tmux" -u -f /dev/null "$@"; }
trap 'tm kill-server 2>/dev/null || true; rm -rf "$work"' EXIT
export LC_ALL=C.UTF-8
"$build/tests/tools/hvrec_make" --load "$work/load.hvrec" 512 $((seconds + 20))

t0=$EPOCHREALTIME
tm new-session -d -x 160 -y 45 "exec $build/bin/hvtop --replay $work/load.hvrec"
until tm capture-pane -p 2>/dev/null | grep -q 'vm-0'; do :; done
t1=$EPOCHREALTIME
pid=$(tm display-message -p '#{pane_pid}')

ticks() { awk '{ print $14 + $15 }' "/proc/$pid/stat"; }
sleep 2
before=$(ticks)
sleep "$seconds"
after=$(ticks)
LC_ALL=C awk -v a="$before" -v b="$after" -v s="$seconds" -v hz="$(getconf CLK_TCK)" -v t0="$t0" -v t1="$t1" 'BEGIN {
    printf "hvtop, 512 VMs at 1 s, 160x45: %.1f%% of a CPU over %d s; first screen after %.0f ms (tmux included)\n",
        100 * (b - a) / hz / s, s, (t1 - t0) * 1000 }'
