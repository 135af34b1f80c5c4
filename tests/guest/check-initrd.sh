#!/usr/bin/env bash
# Boot what mkinitrd.sh and mkinitramfs-tools.sh make with another hypervisor (QEMU, TCG)
# and try what they promise: so that a failing test of hv is hv's. Half a minute.
#
#   check-initrd.sh [-k cloud|generic]
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/lib.sh"

kernel=cloud
while getopts k:h opt; do
    case $opt in
    k) kernel=$OPTARG ;;
    *) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    esac
done
command -v qemu-system-x86_64 >/dev/null || skip "no qemu-system-x86_64"
tmp=$(mktemp -d)
pid=
trap 'rm -rf "$tmp"; [ -z "$pid" ] || kill "$pid" 2>/dev/null || :' EXIT
"$here/mkinitrd.sh" -k "$kernel" "$tmp/initrd"

log=$tmp/log
# start INITRD APPEND
start() {
    : >"$log"
    # The console and, behind Ctrl-A c, QEMU's monitor.
    coproc QEMU { exec qemu-system-x86_64 -accel tcg -m 512 -nographic -net none -no-reboot \
        -kernel "$cache/vmlinuz-$kernel" -initrd "$1" -append "console=ttyS0 quiet $2" 2>&1; }
    pid=$QEMU_PID     # bash forgets the variable when the process ends
    exec 8<&"${QEMU[0]}" 7>&"${QEMU[1]}"
}
# expect TEXT SECONDS: read the console until TEXT stands in it; what came before is dropped.
seen=
expect() {
    local until=$((SECONDS + $2)) c
    while [[ $seen != *"$1"* ]]; do
        if ! IFS= read -r -d '' -n 1 -t 1 -u 8 c; then
            kill -0 "$pid" 2>/dev/null || break
            [ $SECONDS -lt $until ] || break
            continue
        fi
        seen+=$c
        printf %s "$c" >>"$log"
    done
    [[ $seen == *"$1"* ]] || { cat "$log" >&2; die "the console did not say: $1"; }
    seen=${seen#*"$1"}
}
say() { printf '%s' "$1" >&7; }
# gone SECONDS: the guest has to end by itself.
gone() {
    local until=$((SECONDS + $1))
    while kill -0 "$pid" 2>/dev/null; do
        IFS= read -r -d '' -n 1 -t 1 -u 8 c && printf %s "$c" >>"$log" || :
        [ $SECONDS -lt $until ] || { cat "$log" >&2; die "the guest did not end: $2"; }
    done
    exec 7>&- 8<&-
    wait "$pid" 2>/dev/null || :
    pid=
    seen=
}

echo "1..5"
start "$tmp/initrd" ''
expect 'demo:~# ' 120
say $'echo job$((40 + 2)); uname -s\n'
expect job42 20
expect Linux 20
expect 'demo:~# ' 20
# Job control: Ctrl-C ends a command, not the shell.
say $'echo started$((1)); sleep 1000\n'
expect started1 20
say $'\x03'
expect 'demo:~# ' 20
echo "ok 1 - a shell with job control comes up on ttyS0"
say $'poweroff\n'
gone 60 poweroff
echo "ok 2 - poweroff at the prompt ends the guest"
start "$tmp/initrd" ''
expect 'demo:~# ' 120
say $'reboot\n'
gone 60 reboot
echo "ok 3 - reboot at the prompt resets the machine"
start "$tmp/initrd" ''
expect 'demo:~# ' 120
say $'\x01c'
expect '(qemu)' 20
say $'system_powerdown\n'
gone 60 'power button'
echo "ok 4 - the ACPI power button powers off"
rc=0
"$here/mkinitramfs-tools.sh" -k "$kernel" "$tmp/initramfs" 2>"$tmp/why" || rc=$?
if [ $rc = 77 ]; then
    echo "ok 5 - initramfs-tools # SKIP $(cat "$tmp/why")"
    exit 0
fi
[ $rc = 0 ] || { cat "$tmp/why" >&2; exit 1; }
start "$tmp/initramfs" break=top
expect '(initramfs) ' 120
say $'ls /scripts/init-top/udev && poweroff -f\n'
gone 60 'poweroff -f'
echo "ok 5 - an initramfs of initramfs-tools stops at its prompt"
