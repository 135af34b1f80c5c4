#!/usr/bin/env bash
# Disks beside qemu-img in one run: each pair in turn (A B A B ...), medians, and the ratio against
# its aim. Exits 1 when an aim is missed.
#
#   disk.sh [ROUNDS [MIB]]   rounds (9) of each pair, MIB of data (256) in a disk of four times that
#
# BUILD names the build folder, DISK_BENCH_DIR where the images go (a file system with O_DIRECT).
# Neither side waits for the host's disk when it converts: that is qemu-img's default and ours.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
rounds=${1:-9} mib=${2:-256}
command -v qemu-img >/dev/null || { echo "disk: qemu-img is not here (make deps-check)"; exit 0; }
vhdtool=$build/bin/vhdtool io=$build/tests/bench/disk_io
work=$(mktemp -d "${DISK_BENCH_DIR:-$build}/disk-bench.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

fail() { echo "disk: $*" >&2; exit 1; }
[ -x "$vhdtool" ] && [ -x "$io" ] || fail "not built: make $build/bin/vhdtool $build/tests/bench/disk_io"
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { printf "%.1f", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }

# ms FILE COMMAND...: milliseconds of wall clock, added to FILE. What was written before is on disk.
ms() {
    local to=$1 t0
    shift
    sync -f .
    t0=$EPOCHREALTIME
    "$@" >out 2>&1 </dev/null || { cat out >&2; fail "failed: $*"; }
    LC_ALL=C awk -v a="$t0" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f\n", (b - a) * 1000 }' >>"$to"
}

# verdict OK: the last column, and what the run exits with
verdict() { if [ "$1" = 1 ]; then echo yes; else echo NO; echo . >>missed; fi; }
holds() { LC_ALL=C awk "BEGIN { print ($1) ? 1 : 0 }"; }

# pair NAME AIM OURS THEIRS: functions; each makes what it makes anew
pair() {
    local a b ratio
    rm -f ours theirs
    for ((i = 0; i < rounds; i++)); do
        rm -f out.*; ms ours "$3"
        rm -f out.*; ms theirs "$4"
    done
    line "$1" "$2" "$(median ours)" "$(median theirs)"
}
line() { # NAME AIM OURS THEIRS
    local ratio
    ratio=$(LC_ALL=C awk -v a="$3" -v b="$4" 'BEGIN { printf "%.2f", b / a }')
    printf '%-44s %10s %10s %7s %6s  %s\n' "$1" "$3" "$4" "$ratio" "$2" "$(verdict "$(holds "$ratio >= $2")")"
}
most() { # NAME LIMIT MEASURED UNIT
    printf '%-44s %10s %10s %7s %6s  %s\n' "$1" "$3" - - "<$2$4" "$(verdict "$(holds "$3 < $2")")"
}

echo "disks: $mib MiB of data, medians of $rounds, $(nproc) CPUs, $(stat -f -c %T .), $(qemu-img --version | head -n 1)"
truncate -s $((mib * 4))M raw.raw
for i in 0 1 2 3; do
    dd if=/dev/urandom of=raw.raw bs=1M count=$((mib / 4)) seek=$((i * mib)) conv=notrunc status=none || fail dd
done
"$vhdtool" convert -q raw.raw d.vhdx && "$vhdtool" convert -q raw.raw d.vhd || fail convert
"$vhdtool" create -q empty.vhdx --size 32G && qemu-img create -q -f vhdx empty.q.vhdx 32G || fail create
"$vhdtool" create -q huge.vhdx --size 64T || fail create
cat ./*.raw d.* >/dev/null

printf '\n%-44s %10s %10s %7s %6s\n' 'ms' vhdtool qemu-img ratio aim
a() { "$vhdtool" create -q out.vhdx --size 32G; }
b() { qemu-img create -q -f vhdx out.vhdx 32G; }
pair 'create a dynamic VHDX of 32G' 0.95 a b
a() { "$vhdtool" create -q out.vhd --size 32G; }
b() { qemu-img create -q -f vpc out.vhd 32G; }
pair 'create a dynamic VHD of 32G' 0.95 a b
a() { "$vhdtool" convert -q raw.raw out.vhdx; }
b() { qemu-img convert -O vhdx raw.raw out.vhdx; }
pair 'convert raw to dynamic VHDX' 0.95 a b
a() { "$vhdtool" convert -q raw.raw out.vhd; }
b() { qemu-img convert -O vpc raw.raw out.vhd; }
pair 'convert raw to dynamic VHD' 0.95 a b
a() { "$vhdtool" info d.vhdx; }
b() { qemu-img info d.vhdx; }
pair 'info of a dynamic VHDX' 0.95 a b
a() { "$vhdtool" info d.vhd; }
b() { qemu-img info d.vhd; }
pair 'info of a dynamic VHD' 0.95 a b
a() { "$vhdtool" convert -q d.vhdx out.raw; }
b() { qemu-img convert -O raw d.vhdx out.raw; }
pair 'convert dynamic VHDX to raw' 2 a b
cmp raw.raw out.raw || fail "the conversion is not equal"

rm -f ours
for ((i = 0; i < rounds; i++)); do
    rm -f out.raw; ms ours "$vhdtool" convert -q empty.vhdx out.raw
done
most 'convert an empty VHDX of 32G to raw' 100 "$(median ours)" ms
rm -f ours out.raw
for ((i = 0; i < rounds; i++)); do ms ours "$vhdtool" info huge.vhdx; done
most 'info of an empty VHDX of 64T' 10 "$(median ours)" ms
most '  its memory' 10 "$(/usr/bin/time -f %M "$vhdtool" info huge.vhdx 2>&1 >out | awk '{ printf "%.1f", $1 / 1024 }')" M

# 4 KiB requests, 32 in flight, O_DIRECT: qemu-img bench as it comes (its threads), and with Linux's own
# asynchronous I/O for comparison. Places: one MiB and a page further each time; and random ones, where
# qemu-img, which knows steps only, goes 0.618 of the disk further, around its end: as scattered, each place once.
# A disk that gives 100,000 requests a second and no more makes equals of all who keep it busy: where files in
# memory can be opened so (Linux 6.6), the aim is for those, and the disk's rows tell what is left of it there.
count=20000 step=1052672 far=$(((mib * 256 * 618 / 1000 | 1) * 4096))
ours() { "$io" "$1" "$2" "$count" "$3" | awk '{ print $1 * 1000 }' >>"$4"; }
theirs() { # read|write FORMAT FILE STEP AIO TO
    local w=
    [ "$1" = read ] || w=-w
    qemu-img bench $w -t none -i "$5" -d 32 -s 4096 -S "$4" -c $count -f "$2" "$3" | sed -n 's/.* in \([0-9.]*\) seconds.*/\1/p' | awk '{ print $1 * 1000 }' >>"$6"
}
told() { # NAME - OURS THEIRS: without an aim
    printf '%-44s %10s %10s %7s\n' "$1" "$3" "$4" "$(LC_ALL=C awk -v a="$3" -v b="$4" 'BEGIN { printf "%.2f", b / a }')"
}
# flight FOLDER WHERE [AIM]: full.vhdx and full.raw in it
flight() {
    local m f i name row=line
    [ -n "${3:-}" ] || row=told
    for m in read write; do
        for f in vhdx raw; do
            rm -f o r t u n
            for ((i = 0; i < rounds; i++)); do
                ours $m "$1/full.$f" $step o; theirs $m $f "$1/full.$f" $step threads t
                ours $m "$1/full.$f" random r; theirs $m $f "$1/full.$f" $far threads u
                theirs $m $f "$1/full.$f" $far native n 2>/dev/null || true
            done
            name="$f, $2: $count ${m}s of 4K"
            $row "$name, strided" "${3:-}" "$(median o)" "$(median t)"
            $row "$name, random" "${3:-}" "$(median r)" "$(median u)"
            [ ! -s n ] || printf '%-44s %10s %10s\n' '  (qemu-img with -i native)' '' "$(median n)"
        done
    done
}
if "$io" read d.vhdx 100 random >/dev/null; then
    dd if=/dev/urandom of=full.raw bs=1M count="$mib" status=none
    "$vhdtool" convert -q full.raw full.vhdx && "$vhdtool" convert -q full.raw full.vhd || fail convert
    sync -f .
    if memory=$(mktemp -d /dev/shm/hv-bench.XXXXXX 2>/dev/null) && trap 'rm -rf "$work" "$memory"' EXIT &&
        cp full.raw full.vhdx "$memory" 2>/dev/null && "$io" read "$memory/full.vhdx" 100 random >/dev/null 2>&1; then
        flight "$memory" memory 1.5
        flight . disk
    else
        flight . disk 1.5
    fi
    [ -z "$memory" ] || rm -rf "$memory"

    # A chain of 20, its newest content spread over all of them, beside the same content in one disk.
    last=full.vhdx
    for i in $(seq 1 19); do
        "$vhdtool" create -q "c$i.vhdx" --parent "$last" && "$io" write "c$i.vhdx" 200 $((step * i)) >/dev/null || fail chain
        last=c$i.vhdx
    done
    "$vhdtool" convert -q --flatten "$last" one.vhdx || fail flatten
    sync -f .
    rm -f o r
    for ((i = 0; i < rounds; i++)); do ours read one.vhdx random o; ours read "$last" random r; done
    factor=$(LC_ALL=C awk -v a="$(median r)" -v b="$(median o)" 'BEGIN { printf "%.2f", a / b }')
    printf '%-44s %10s %10s %7s %6s  %s\n' 'random reads, chain of 20 (beside one disk)' "$(median r)" "$(median o)" "$factor" '<1.3' \
        "$(verdict "$(holds "$factor < 1.3")")"
else
    echo "no O_DIRECT here: requests in flight were not measured"
fi
echo
[ ! -e missed ] && echo "disks: all aims hold" || { echo "disks: $(wc -l <missed) aims do not hold"; exit 1; }
