#!/bin/sh
# In the guest: mixed load on every file system under /d, by one writer a CPU, checksummed.
#   diskload.sh write SECONDS   fill, copy, delete, sync, write and read at random places; keeps sums of what is there
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
                i=0 x=$w
                dd if=/dev/zero of=random bs=64k count=64 2>/dev/null
                while [ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ]; do
                    i=$((i + 1))
                    n=$((i % 7))
                    dd if=/dev/urandom of="f$n" bs=$((512 * (1 + i % 61))) count=$((20 + i % 90)) 2>/dev/null
                    [ $((i % 3)) = 0 ] && cp "f$n" "c$n"
                    [ $((i % 5)) = 0 ] && rm -f "c$(((i + 3) % 7))"
                    # 4 MiB, of which any sectors change and any are read, past the cache at times.
                    for k in 1 2 3 4; do
                        x=$(((x * 1103515245 + 12345) & 0x7fffffff))
                        dd if=/dev/urandom of=random bs=512 seek=$((x / 65536 % 8000)) count=$((1 + x / 16 % 64)) conv=notrunc 2>/dev/null
                        dd if=random of=/dev/null bs=4096 skip=$((x / 4096 % 1000)) count=$((1 + x / 32 % 24)) $([ $k = 1 ] && echo iflag=direct) 2>/dev/null
                    done
                    [ $((i % 11)) = 0 ] && sync
                done
                md5sum f* c* random 2>/dev/null >sums
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
