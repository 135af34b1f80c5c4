#!/bin/sh
# In the guest: mixed load on every file system under /d, by one writer a CPU, checksummed.
#   diskload.sh write SECONDS   fill, copy, delete, sync; keeps sums of what is there
#   diskload.sh verify          drop caches and compare; prints "sums good" or what differs
cpus=$(grep -c ^processor /proc/cpuinfo)
case $1 in
write)
    end=$(($(cut -d. -f1 /proc/uptime) + $2))
    for d in /d/*; do
        for w in $(seq "$cpus"); do
            (
                mkdir -p "$d/$w"
                cd "$d/$w" || exit 1
                i=0
                while [ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ]; do
                    i=$((i + 1))
                    n=$((i % 7))
                    dd if=/dev/urandom of="f$n" bs=$((512 * (1 + i % 61))) count=$((20 + i % 90)) 2>/dev/null
                    [ $((i % 3)) = 0 ] && cp "f$n" "c$n"
                    [ $((i % 5)) = 0 ] && rm -f "c$(((i + 3) % 7))"
                    [ $((i % 11)) = 0 ] && sync
                done
                md5sum f* c* 2>/dev/null >sums
            ) &
        done
    done
    wait
    sync
    echo "load ended" ;;
verify)
    sync
    echo 3 >/proc/sys/vm/drop_caches
    bad=0 n=0
    for s in /d/*/*/sums; do
        (cd "$(dirname "$s")" && md5sum -c sums) >/tmp/verify 2>&1 || { bad=1; grep -v OK /tmp/verify; }
        n=$((n + $(grep -c OK /tmp/verify)))
    done
    [ "$bad" = 0 ] && [ "$n" -gt 0 ] && echo "sums good: $n files" ;;
esac
