#!/usr/bin/env bash
# `make check-slow`: what is too long for every change. Ends with "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."
export BUILD=${BUILD:-build}
passed=0 failed=0

part() {
    local name=$1 began=$SECONDS rc=0
    shift
    printf '== %-40s ' "$name"
    mkdir -p "$BUILD/check"
    "$@" >"$BUILD/check/slow.log" 2>&1 || rc=$?
    if [ $rc = 0 ]; then
        passed=$((passed + 1))
        echo "ok ($((SECONDS - began)) s)"
    elif [ $rc = 77 ]; then             # what it needs cannot be had here
        tail -n 1 "$BUILD/check/slow.log"
    else
        failed=$((failed + 1))
        echo "FAILED ($((SECONDS - began)) s)"
        tail -n 30 "$BUILD/check/slow.log" | sed 's/^/   | /'
        cp "$BUILD/check/slow.log" "$BUILD/check/slow-$failed.log"
    fi
}

# Other seeds than the fixed one of `make check`: instruction forms against the host CPU, ten
# million cases at least of integer instructions, and the same of SSE and x87; and random code in the translator
# against the interpreter.
interp_seeds() {
    local seed program
    for seed in $(seq 1 "${SEEDS:-30}"); do
        for program in interp sse x87 translate; do
            HV_SEED=$seed "$BUILD/tests/engine_soft/test_$program" || { echo "HV_SEED=$seed test_$program"; return 1; }
        done
    done | tee "$BUILD/check/seeds.log" || return 1
    awk '/^[0-9]+ cases/ { n += $1 } END { print n " cases"; exit n < 10000000 }' "$BUILD/check/seeds.log"
}

# Stock kernels again and again: what is lost once in fifty boots.
boots() {
    local i
    tests/guest/mkinitrd.sh -k cloud "$BUILD/guest/initrd" || return 1
    . tests/guest/lib.sh
    for i in $(seq 1 "${BOOTS:-50}"); do
        timeout 120 "$BUILD/tests/tools/vmboot" --timeout 60s --kernel "$cache/vmlinuz-cloud" --initrd "$BUILD/guest/initrd" \
            --cmdline 'console=ttyS0 quiet' --cpus $((i % 4 + 1)) --until 'demo:~# ' --send 'sh -c "seq 1 20000 | sha256sum"' \
            --until "$(seq 1 20000 | sha256sum | cut -c1-64)" --save --send poweroff --off || { echo "boot $i"; return 1; }
    done
}

# Debian's user land with every block checked by the interpreter.
userland_lockstep() {
    (
        . tests/guest/lib.sh
        vmboot=$BUILD/tests/tools/vmboot work=$BUILD/guest
        . tests/guest/smp.sh
        . tests/guest/userland.sh
        export HV_SOFT_TRANSLATE=lockstep SMP_TIMEOUT=900s
        userland_guest cloud 1
    )
}

# The build that leaves the translator out: it says so, and computes the same.
interpreter_alone() {
    make -j"$(nproc)" TRANSLATOR=no BUILD="$BUILD-alone" "$BUILD-alone/tests/bench/interp_mips" >"$BUILD/check/alone.log" &&
        grep -q 'without its translator' "$BUILD/check/alone.log" || { tail "$BUILD/check/alone.log"; return 1; }
    ! nm "$BUILD-alone/tests/bench/interp_mips" | grep -E ' (emit_rm|cache_thunks|code_region_part)$' &&
        "$BUILD-alone/tests/bench/interp_mips" all 0.2 | tee "$BUILD/check/alone.out" && ! grep WRONG "$BUILD/check/alone.out"
}

# An hour of everything at once, with and without warm-up of blocks.
mixes() {
    local cpus how
    for cpus in 2 4; do
        for how in 0 256; do
            HV_SOFT_TRANSLATE=$how tests/guest/mixes.sh $((${MIX_SECONDS:-3600} / 4)) "$cpus" || { echo "HV_SOFT_TRANSLATE=$how, $cpus vCPUs"; return 1; }
        done
    done
}

asan_guest() {
    make -j"$(nproc)" SANITIZE=address,undefined BUILD="$BUILD-asan" "$BUILD-asan/tests/tools/vmboot" &&
        BUILD=$BUILD-asan tests/guest/check.sh
}

# VHDX stopped at every write, with every way of tearing it, for many loads; then hostile images.
vhdx_crashes() {
    local seed
    for seed in $(seq 1 "${SEEDS:-30}"); do
        HV_SEED=$seed HV_CRASH_CASES=0 "$BUILD/tests/disk/test_vhdx_crash" &&
            HV_SEED=$seed HV_CRASH_CASES=0 "$BUILD/tests/disk/test_vhdx_edit" &&
            HV_SEED=$seed "$BUILD/tests/disk/test_vhdx" &&
            HV_SEED=$seed HV_FUZZ_RUNS=5000 "$BUILD/tests/disk/test_fuzz_vhdx" || { echo "HV_SEED=$seed"; return 1; }
    done
}

# Guests that play foul on the Hyper-V interface, the bus, the storage controller and the services, under the sanitizers.
hostile_guests() {
    local seed t
    for t in hyperv/test_fuzz_hyperv vmbus/test_fuzz_vmbus vsp/test_fuzz_storage vsp/test_fuzz_services; do
        make -j"$(nproc)" SANITIZE=address,undefined BUILD="$BUILD-asan" "$BUILD-asan/tests/$t" || return 1
        for seed in $(seq 1 "${SEEDS:-10}"); do
            HV_SEED=$seed HV_FUZZ_RUNS=6000 "$BUILD-asan/tests/$t" || { echo "HV_SEED=$seed HV_FUZZ_RUNS=6000 $t"; return 1; }
        done
    done
}

# Every verb that changes a disk or the ext4 in it, and a load on VHD, stopped at every write.
verb_crashes() {
    local seed
    for seed in $(seq 1 "${SEEDS:-30}"); do
        HV_SEED=$seed HV_CRASH_CASES=0 "$BUILD/tests/disk/test_verbs_crash" &&
            HV_SEED=$seed HV_CRASH_CASES=0 "$BUILD/tests/disk/test_vhd_crash" || { echo "HV_SEED=$seed"; return 1; }
    done
    for seed in $(seq 1 "$((${SEEDS:-30} / 6 + 1))"); do
        HV_SEED=$seed HV_CRASH_CASES=0 "$BUILD/tests/fs/test_ext4_crash" || { echo "HV_SEED=$seed"; return 1; }
    done
}

# The fuzzers of images and of what is in them, one after the other.
fuzz_images() {
    local t
    make fuzz || return 1
    for t in vhd vhd_footer vhd_header vhd_bat vhdx vhdx_header vhdx_regions vhdx_metadata vhdx_log vhdx_bat \
        partition fat ext4; do
        mkdir -p "$BUILD/fuzz-corpus/$t"
        build-fuzz/fuzz/fuzz_$t -max_total_time="${FUZZ_SECONDS:-60}" -max_len=4096 -rss_limit_mb=1024 -timeout=20 \
            -artifact_prefix="$BUILD/check/fuzz-$t-" "$BUILD/fuzz-corpus/$t" || { echo "fuzz_$t"; return 1; }
    done
}

# Hostile guests of the integration services, other seeds than the fixed one.
services_seeds() {
    local seed
    for seed in $(seq 1 "${SEEDS:-30}"); do
        HV_SEED=$seed HV_FUZZ_RUNS=5000 "$BUILD/tests/vsp/test_fuzz_services" || { echo "HV_SEED=$seed"; return 1; }
    done
}

mkdir -p "$BUILD/guest"
make -j"$(nproc)" "$BUILD"/tests/{engine_soft/test_interp,engine_soft/test_sse,engine_soft/test_x87,engine_soft/test_translate,engine_kvm/test_kvm,vsp/test_fuzz_services,disk/test_{vhdx,vhdx_crash,vhdx_edit,fuzz_vhdx,verbs_crash,vhd_crash},fs/test_ext4_crash,tools/vmboot} >/dev/null || exit 1
part "decoder, every opcode against Zydis" tests/decode-corpus.sh --sweep
part "interpreter against the host CPU, more seeds" interp_seeds
part "VHDX: every crash, many loads" vhdx_crashes
part "VHD, verbs, ext4: every crash" verb_crashes
part "fuzzers of images, partitions, file systems" fuzz_images
part "boots with 1 to 4 vCPUs, save and load" boots
part "Debian's user land in lock-step" userland_lockstep
part "a build without the translator" interpreter_alone
part "everything at once, while the kernel patches itself" mixes
part "stock kernels under the sanitizers" asan_guest
part "hostile guests, ten seeds" hostile_guests
part "devices under the thread sanitizer" tests/tsan.sh
part "Debian root file systems, two kernels, 1 and 4 vCPUs" tests/guest/debian-root.sh
part "the kernel of bookworm-backports" tests/guest/backports.sh
part "hostile guests of the services, more seeds" services_seeds
part "hyperv-daemons in a stock guest, saved and loaded" env CHECK_SLOW=1 tests/guest/check.sh -k daemons
part "drivers unloaded and loaded" env CHECK_SLOW=1 tests/guest/check.sh -k drivers
part "fifty starts and stops with disks: nothing stays" tests/leaks.sh 50
part "an hour of samples in hvtop: nothing stays" tests/hvtop-hour.sh --asan
part "memory taken and given back, a hundred times" tests/guest/check-memory.sh 100
part "hvd away for a minute under load" env HV_SLOW=1 bats tests/bats/memory-dynamic.bats
part "an hour of random load in three guests, one pool" tests/guest/memory-load.sh "${LOAD_SECONDS:-3600}"
part "the same in guests that put no added memory online" tests/guest/memory-load.sh -o "${LOAD_SECONDS:-900}"
part "a thousand kills of service, workers and clients" env CHAOS_PAUSE_MS=600 tests/chaos.sh 1000 "${CHAOS_SEED:-$RANDOM}"
part "restarts short of memory" env HV_SLOW=1 bats tests/bats/memory-paging.bats
part "examples that wait for guests to report" env HV_SLOW=1 bats tests/bats/examples.bats
part "services of other hosts, through sshd" tests/guest/ssh.sh
part "Debian packages" tests/deb.sh
part "a host with systemd, three boots" tests/guest/systemd-host.sh
for more in tests/guest/kvm-nested.sh tests/guest/matrix.sh tests/guest/python.sh; do
    [ ! -x "$more" ] || part "$more" "$more"
done
printf 'check-slow: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
