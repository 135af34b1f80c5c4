#!/usr/bin/env bash
# Everything at once in one guest: the workload of smpload.c and the bench programs, whose results have to be
# the host's, round after round, while the kernel has its code patched (textload.c).
#
#   mixes.sh SECONDS [CPUS]     BUILD names the build folder, HV_SOFT_TRANSLATE how the engine translates
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
vmboot=${BUILD:-build}/tests/tools/vmboot
work=${BUILD:-build}/guest
. tests/guest/smp.sh
seconds=${1:?how many seconds} cpus=${2:-4}
mkdir -p "$work"
tests/guest/fetch.sh cloud busybox && build_smpload || exit 1
for program in textload:tests/guest/textload.c bench:tests/bench/guest/bench.c; do
    [ "$work/${program%%:*}" -nt "${program#*:}" ] ||
        gcc -O2 -std=gnu17 -static -Wall -o "$work/${program%%:*}" "${program#*:}" || exit 1
done
modules=() files=()
for module in fs/nls/nls_cp862 fs/nls/nls_iso8859-7 lib/ts_kmp; do
    path=$(find -L "$cache/modules-cloud/kernel" -path "*/$module.ko" | head -n 1)
    [ -n "$path" ] || continue
    modules+=("/lib/m/$(basename "$path")")
    files+=(-f "$path:lib/m/$(basename "$path")")
done
sums() { sed -n 's/^bench \([a-z0-9]*\) [0-9]* [0-9]* \(.*\)/\1 \2/p'; }
smp=$(host_sum "$work/smpload" -n 4) || exit 1
"$work/bench" all 1 | sums >"$work/mix.bench"
cat >"$work/mix-rc.sh" <<EOF
#!/bin/sh
echo
textload $seconds ${modules[*]} >/tmp/text 2>&1 &
text=\$!
rounds=0
while :; do
    smpload -n 4 >/tmp/out
    bench all 1 | sed -n 's/^bench \([a-z0-9]*\) [0-9]* [0-9]* \(.*\)/\1 \2/p' >/tmp/bench
    if [ "\$(sha256sum </tmp/out | cut -c1-64)" != $smp ] || ! cmp -s /tmp/bench /lib/mix.bench; then
        echo "mix: round \$rounds differs"
        cat /tmp/out /tmp/bench
        poweroff -f
    fi
    rounds=\$((rounds + 1))
    kill -0 \$text 2>/dev/null || break
done
wait \$text
cat /tmp/text
echo "mix: \$rounds rounds"
complaints
poweroff -f
EOF
tests/guest/mkinitrd.sh -k cloud -f "$work/smpload:bin/smpload" -f "$work/bench:bin/bench" -f "$work/textload:bin/textload" \
    -f "$work/mix.bench:lib/mix.bench" -f tests/guest/complaints.sh:bin/complaints "${files[@]}" -r "$work/mix-rc.sh" "$work/initrd-mix" || exit 1
"$vmboot" --timeout "$((seconds * 2 + 180))s" --cpus "$cpus" --stats --kernel "$cache/vmlinuz-cloud" --initrd "$work/initrd-mix" \
    --cmdline 'console=ttyS0 quiet' --off >"$work/mix.out" 2>&1 </dev/null
r=$?
tr -d '\r' <"$work/mix.out" | grep -aE '^(textload|mix|FAILED)|quiet$|_flushes|code_drops|translations'
[ $r = 0 ] && grep -aq 'kernel is quiet' "$work/mix.out" && grep -aqE 'mix: [1-9][0-9]* rounds' "$work/mix.out" &&
    grep -aE '^textload: traces' "$work/mix.out" | grep -qvE ' 0( |.?$)' || { tail -n 60 "$work/mix.out"; exit 1; }
