#!/usr/bin/env bash
# The five-minute tour behind `make demo`: a stock Debian kernel boots under hvctl.
#
#   demo.sh          run it; on a terminal the VM stays afterwards
#   demo.sh clean    turn that VM off and remove it
#
# BUILD names the build folder (build). Nothing is installed; the kernel and busybox are
# downloaded as Debian packages into the test cache and unpacked there.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(readlink -f "${BUILD:-build}")
hvctl=$build/bin/hvctl
vhdtool=$build/bin/vhdtool
vm=hv-demo
disk=$build/demo/root.vhdx
initrd=$build/demo/initrd
cache=${HV_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/hv-tests}
interactive=
[ -t 0 ] && [ -t 1 ] && interactive=1

if [ "${1:-}" = clean ]; then
    "$hvctl" stop "$vm" --turn-off --yes 2>/dev/null || true
    "$hvctl" remove "$vm" --yes --if-exists
    rm -rf "$build/demo"
    echo "demo: $vm is gone"
    exit
fi

steps=9
step=0
began=
t0=$EPOCHREALTIME
elapsed() { LC_ALL=C awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }
done_step() { [ -z "$began" ] || printf '    (%s s)\n' "$(elapsed "$began")"; began=; }
say() {
    done_step
    step=$((step + 1))
    began=$EPOCHREALTIME
    printf '\n[%d/%d] %s\n' "$step" "$steps" "$1"
}
# The command as one would type it.
shown() {
    local word
    printf '  $ %s' "$1"
    shift
    for word; do
        case $word in *[!A-Za-z0-9_./:=,-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    echo
}
run() {
    shown hvctl "$@"
    "$hvctl" "$@"
}
# The console as a pipe: busybox asks the terminal where its cursor is, and the answer would
# be waiting in the shell afterwards.
console() {
    shown hvctl console "$@"
    "$hvctl" console "$@" </dev/null | sed -u 's/\x1b\[6n//g'
}
failed() {
    printf '\ndemo: step %d failed\n' "$step" >&2
    "$hvctl" events -n 5 --since 5m >&2 2>/dev/null || true
    "$hvctl" stop "$vm" --turn-off --yes >/dev/null 2>&1 || true
    "$hvctl" remove "$vm" --yes --if-exists >/dev/null 2>&1 || true
}
trap failed ERR

say "What this host offers"
run host doctor

say "Debian's own kernel, and an initrd with its Hyper-V drivers"
tests/guest/fetch.sh cloud busybox
mkdir -p "$build/demo"
tests/guest/mkinitrd.sh -k cloud -d -m hv_vmbus -m hv_utils -m hv_balloon -m hv_storvsc "$initrd"
printf '  kernel  %s\n  initrd  %s, %d KiB\n' "$(basename "$(readlink -f "$cache/vmlinuz-cloud")")" \
    "$initrd" $(($(stat -c %s "$initrd") / 1024))

say "A disk with a small root file system, without root or mount"
"$hvctl" stop "$vm" --turn-off --yes >/dev/null 2>&1 || true
"$hvctl" remove "$vm" --yes --if-exists >/dev/null 2>&1 || true
rm -f "$disk"
tests/guest/mkinitrd.sh -k cloud "$build/demo/root.cpio"
shown vhdtool build "$disk" --from "$build/demo/root.cpio" --size 256M
"$vhdtool" build "$disk" --from "$build/demo/root.cpio" --size 256M

say "Create a VM"
run create "$vm" --memory 512M --cpus 1 --disk "$disk" --kernel "$cache/vmlinuz-cloud" --initrd "$initrd" \
    --cmdline "root=/dev/sda1 console=ttyS0 quiet"

say "Boot it and watch its console up to the prompt"
run start "$vm"
console "$vm" --until 'demo:~# ' --timeout 120s
echo

say "Run a command in it"
console "$vm" --no-history --send 'uname -a; grep -E "model name|MHz" /proc/cpuinfo; free -m; df -h /' \
    --until '% /$' --timeout 30s
echo

say "List VMs"
run list

if [ -n "$interactive" ]; then
    say "Leave it running for you"
    say "Done in $(elapsed "$t0") s"
    trap - ERR
    cat <<END

Try next:
  $hvctl console $vm           type in it; ^] then q leaves
  $hvctl stop $vm              press its power button, wait until it is off
  make demo-clean              turn it off and remove it
END
    exit
fi

say "Power it off"
run stop "$vm" --timeout 60s
run list

say "The disk is whole; remove the VM"
shown vhdtool check "$disk"
"$vhdtool" check "$disk"
run remove "$vm" --yes
done_step
trap - ERR
cat <<END

demo: done in $(elapsed "$t0") s. Try next:
  $hvctl run --memory 512M --kernel $cache/vmlinuz-cloud --initrd $initrd --disk $disk --cmdline 'root=/dev/sda1 console=ttyS0 quiet'
  $vhdtool info $disk
  $hvctl help
  man -l $PWD/man/hvctl.1
END
