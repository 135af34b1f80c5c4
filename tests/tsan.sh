#!/usr/bin/env bash
# Devices under ThreadSanitizer: their unit tests, then a stock kernel on four processors whose disks, memory and
# services are used while its state moves. What vCPUs and devices do to guest memory at the same time is the
# guest's own affair; every other race fails. Ends with "N passed, N failed".
#
#   tsan.sh     BUILD names the build folder; the instrumented programs are in $BUILD-tsan
set -uo pipefail
cd "$(dirname "$0")/.."
. tests/guest/lib.sh
build=${BUILD:-build}
tree=$build-tsan
work=$tree/tsan
passed=0 failed=0
rooms=(hyperv vmbus vsp machine memory platform)
programs=()
for room in "${rooms[@]}"; do
    # Programs of one thread with many thousand steps show nothing here and take long.
    for t in tests/unit/"$room"/test_*.c; do
        case $t in */test_fuzz_storage.c) ;; */test_fuzz_* | */test_dynmem.c | */test_platform.c) continue ;; esac
        programs+=("$tree/tests/$room/$(basename "$t" .c)")
    done
done
mkdir -p "$work"
make -j"$(nproc)" SANITIZE=thread BUILD="$tree" "${programs[@]}" "$tree/tests/tools/vmboot" >"$work/build.log" 2>&1 || {
    tail "$work/build.log"
    exit 1
}

# races LOG: the reports in it that are not of guest memory, which is a memfd.
races() {
    awk '/^WARNING: ThreadSanitizer/ { text = "" ; on = 1 }
         on { text = text $0 "\n" }
         /^SUMMARY: ThreadSanitizer/ { if (on && text !~ /Location is global .*memfd:/) printf "%s\n", text; on = 0 }' "$1"
}

# run NAME COMMAND...
run() {
    local name=$1 log=$work/$1.log r=0
    shift
    TSAN_OPTIONS="exitcode=0 history_size=4" "$@" >"$log" 2>&1 || r=$?
    races "$log" >"$work/$name.races"
    if [ $r = 0 ] && [ ! -s "$work/$name.races" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$name: status $r"
        head -n 60 "$work/$name.races"
        [ $r = 0 ] || tail -n 20 "$log"
    fi
}

for program in "${programs[@]}"; do
    run "$(basename "$program")" env HV_FUZZ_RUNS=300 timeout 600 "$program"
done

tests/guest/fetch.sh cloud busybox daemons || exit 1
printf '%s\n' '#!/bin/sh' 'echo 0 >/sys/module/hv_balloon/parameters/pressure_report_delay' >"$work/rc"
tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils -m hv_storvsc -m sd_mod -m ext4 -m hv_balloon -D \
    -f tests/guest/diskload.sh:bin/diskload -r "$work/rc" "$work/initrd" || exit 1
make -j"$(nproc)" BUILD="$build" "$build/bin/vhdtool" >/dev/null &&
    rm -f "$work"/?.vhdx && "$build/bin/vhdtool" create -q "$work/a.vhdx" --size 256M && "$build/bin/vhdtool" create -q "$work/b.vhdx" --size 64M || exit 1
head -c 100000 /dev/urandom >"$work/file"
run guest timeout 900 "$tree/tests/tools/vmboot" --timeout 300s --kernel "$cache/vmlinuz-cloud" --initrd "$work/initrd" \
    --cmdline 'console=ttyS0 quiet memhp_default_state=online' --cpus 4 --disk "$work/a.vhdx" --until 'demo:~# ' --heartbeat ok --driver \
    --send 'mke2fs /dev/sda >/dev/null; mkdir -p /d/sda; mount -t ext4 /dev/sda /d/sda; daemons; echo mount""ed' --until mounted \
    --send 'diskload write 8' --for 1s --save --attach "$work/b.vhdx" --target 400M --target 640M --for 1s --grow 1=96M --save --detach 1 \
    --until 'load ended' --send 'diskload verify' --until 'sums good' --guest 'set color green' --guest 'get color green' \
    --guest "copy $work/file /x" --guest freeze --guest thaw --restart --rebooted --until 'demo:~# ' --heartbeat ok --reset \
    --until 'demo:~# ' --heartbeat ok --shutdown --off
printf 'tsan: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
