# Debian's user land in a guest: bash, coreutils, openssl and perl of this host with the
# libraries they link, and a script whose output has to be the host's. Sourced after smp.sh.

# The host's programs: the guest then runs the very bytes that the host's run ran.
userland_files() {
    local program file
    for program in bash openssl perl sort md5sum sha512sum tr od factor cksum b2sum base64 shuf uniq wc paste fold; do
        program=$(command -v "$program") || return 1
        for file in "$program" $(ldd "$program" | grep -o '/[^ ]*'); do
            printf '%s:%s\n' "$file" "${file#/}"
        done
    done | sort -u
}

# Debian's busybox puts everything in /bin; the host's programs stay in /usr/bin, which goes first.
userland_initrd() {
    local args=() pair
    while read -r pair; do
        args+=(-f "$pair")
    done < <(userland_files)
    [ ${#args[@]} -gt 20 ] || { echo "the host has no bash, openssl, perl or coreutils"; return 1; }
    tests/guest/mkinitrd.sh -k "$1" "${args[@]}" -f tests/guest/userland-run.sh:usr/lib/userland-run \
        -f tests/guest/complaints.sh:bin/complaints ${aligncheck:+-f "$aligncheck/aligncheck:bin/aligncheck"} "$2"
}

# Alignment checks differ between makers in what they leave out; the guest's CPU is an Intel one.
userland_aligncheck() {
    aligncheck=
    grep -qm1 GenuineIntel /proc/cpuinfo || return 0
    aligncheck=$(realpath "$work")/userland-bin
    mkdir -p "$aligncheck"
    gcc -std=gnu17 -O2 -Wall -static -o "$aligncheck/aligncheck" tests/guest/aligncheck.c
}

# userland_guest KERNEL CPUS
userland_guest() {
    local bash want aligncheck
    bash=$(command -v bash)
    userland_aligncheck || return 1
    userland_initrd "$1" "$work/initrd-userland" || return 1
    want=$(env -i PATH="${aligncheck:+$aligncheck:}/usr/bin:/bin" LC_ALL=C "$bash" tests/guest/userland-run.sh | tee "$work/userland.host" | sha256sum | cut -c1-64)
    grep -q '^end of userland' "$work/userland.host" || { cat "$work/userland.host"; return 1; }
    "$vmboot" --timeout "${SMP_TIMEOUT:-100s}" --kernel "$cache/vmlinuz-$1" --initrd "$work/initrd-userland" \
        --cmdline 'console=ttyS0 quiet' --cpus "$2" --memory 1G --until 'demo:~# ' \
        --send "env -i PATH=/usr/bin:/bin LC_ALL=C $bash /usr/lib/userland-run >/tmp/out; cat /tmp/out; sha256sum </tmp/out" \
        --until "$want" --send complaints --until 'kernel is quiet' --send poweroff --off ||
        { echo "the host's output:"; cat "$work/userland.host"; return 1; }
}
