# What check-smp.sh and matrix.sh share: the workload for both widths, initrds with it, and
# the host's own output. Sourced after lib.sh, with $work and $vmboot set.

# The 32-bit libc comes from Debian's packages, unpacked beside the others: nothing is installed.
build_smpload() {
    local src=tests/guest/smpload.c flags=(-std=gnu17 -O2 -static -pthread -Wall)
    [ "$work/smpload" -nt "$src" ] || gcc "${flags[@]}" -o "$work/smpload" "$src" || return 1
    [ "${1:-}" = 32 ] || return 0
    [ "$work/smpload32" -nt "$src" ] && return 0
    local libc gcc32
    libc=$(lock_cache && package libc6-dev-i386) || return 1
    gcc32=$(lock_cache && package lib32gcc-"$(gcc -dumpversion | cut -d. -f1)"-dev) || return 1
    gcc32=$(echo "$gcc32"/usr/lib/gcc/*/*/32)
    gcc "${flags[@]}" -m32 -msse2 -B"$libc/usr/lib32" -L"$libc/usr/lib32" -B"$gcc32" -L"$gcc32" \
        -isystem "$libc/usr/include/x86_64-linux-gnu" -isystem "$libc/usr/include" \
        -isystem "/usr/include/$(gcc -dumpmachine)" -o "$work/smpload32" "$src"
}

# smp_initrd KERNEL OUT: a shell, and the workload of the kernel's width as /bin/smpload.
smp_initrd() {
    local program=$work/smpload
    [ "$1" != pae ] || program=$work/smpload32
    tests/guest/mkinitrd.sh -k "$1" -f "$program:bin/smpload" \
        -f tests/guest/complaints.sh:bin/complaints "$2"
}

# host_sum PROGRAM ARGUMENT...: the digest of what it prints here.
host_sum() { "$@" | sha256sum | cut -c1-64; }

# smp_guest KERNEL CPUS MEMORY ARGUMENTS: boots, counts processors, works, powers off.
# The digest is of the workload's whole output; on a difference the log shows the lines.
smp_guest() {
    local kernel=$1 cpus=$2 memory=$3 arguments=$4 program=$work/smpload want
    [ "$kernel" != pae ] || program=$work/smpload32
    want=$(host_sum "$program" $arguments) || return 1
    "$vmboot" --timeout "${SMP_TIMEOUT:-100s}" --kernel "$cache/vmlinuz-$kernel" --initrd "$work/initrd-smp-$kernel" \
        --cmdline 'console=ttyS0 quiet' --cpus "$cpus" --memory "$memory" --until 'demo:~# ' \
        --send 'echo "cpus $(grep -c ^processor /proc/cpuinfo)."' --until "cpus $cpus." \
        --send "smpload $arguments >/tmp/out; cat /tmp/out; sha256sum </tmp/out" --until "$want" \
        --send complaints --until 'kernel is quiet' --send poweroff --off >"$work/smp.out" 2>&1
    local r=$?
    cat "$work/smp.out"
    [ $r = 0 ] || { echo "the host's output:"; "$program" $arguments; return 1; }
}
