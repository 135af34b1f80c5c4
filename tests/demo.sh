#!/usr/bin/env bash
# The five-minute tour behind `make demo`: a stock Debian kernel boots under hvctl, and two
# guests share a small pool of memory by demand.
#
#   demo.sh          run it; on a terminal the VM stays afterwards
#   demo.sh clean    turn that VM off and remove it
#
# Dynamic Memory is shown with a service of its own, in a folder of its own: the limit it needs for
# all VMs together, and the kill of its hvd, are no business of VMs that run here already.
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

steps=12
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
    timeout 3 "$hvctl" events --since 5m >&2 2>/dev/null || true
    pool_end
    "$hvctl" stop "$vm" --turn-off --yes >/dev/null 2>&1 || true
    "$hvctl" remove "$vm" --yes --if-exists >/dev/null 2>&1 || true
}
trap failed ERR
trap pool_end EXIT

# ---- a service of its own ----

pool=
hvd=
pool_begin() {
    pool=$(mktemp -d "${TMPDIR:-/tmp}/hv-demo.XXXXXX")
    mkdir -m 700 "$pool/run" "$pool/state"
    before=("${XDG_RUNTIME_DIR-}" "${XDG_STATE_HOME-}" "${HV_HOST-}")
    export XDG_RUNTIME_DIR=$pool/run XDG_STATE_HOME=$pool/state HV_HOST=user
    pool_serve
}
pool_serve() {
    "$build/bin/hvd" --user --idle 0 >>"$pool/hvd.log" 2>&1 </dev/null &
    hvd=$!
    disown
    for _ in $(seq 100); do
        "$hvctl" list >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    cat "$pool/hvd.log" >&2
    return 1
}
pool_end() {
    [ -n "$pool" ] || return 0
    [ -z "$watcher" ] || kill "$watcher" 2>/dev/null || true
    "$hvctl" stop --all --turn-off --yes >/dev/null 2>&1 || true
    kill "$hvd" 2>/dev/null || true
    rm -rf "$pool"
    pool= watcher=
    local i name names=(XDG_RUNTIME_DIR XDG_STATE_HOME HV_HOST)
    for i in 0 1 2; do
        name=${names[i]}
        if [ -n "${before[i]}" ]; then export "$name=${before[i]}"; else unset "$name"; fi
    done
}
watcher=
# MiB that a VM has / its guest needs.
mib() { "$hvctl" memory list "$1" -c "$2" -o csv --raw --no-header | awk '{ print int($1 / 1048576) }'; }
# True when web has more than it had and db less, and nobody is short.
moved() {
    [ "$(mib web assigned)" -ge $((web_had + 128)) ] && [ "$(mib db assigned)" -le $((db_had - 64)) ] &&
        [ "$(mib web demand)" -le "$(mib web assigned)" ]
}
# within SECONDS COMMAND...
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.5
    done
}

dynamic_memory() {
    say "Two guests under Dynamic Memory, in a pool that is too small for both maxima"
    echo "  A service of its own keeps them: its limit and its end do not touch your VMs."
    pool_begin
    shown hvctl host set --vm-memory 1500M --balancer-delay 3s
    "$hvctl" host set --vm-memory 1500M --balancer-delay 3s >/dev/null
    # Linux' driver is silent for its first 45 s; its own parameter makes that 2. Nothing else is special.
    tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils -m 'hv_balloon pressure_report_delay=2' "$pool/initrd"
    local name
    for name in web db; do
        run create $name --memory 640M --min 256M --max 1152M --kernel "$cache/vmlinuz-cloud" --initrd "$pool/initrd" \
            --cmdline 'console=ttyS0 quiet' --start
    done
    for name in web db; do
        "$hvctl" console $name --until 'demo:~# ' --timeout 120s </dev/null >/dev/null
    done
    echo "  Both are up; their balloon drivers begin to report."
    within 60 reports
    run memory list

    say "A load starts in web: it needs more, gets it, and db gives what it does not need"
    web_had=$(mib web assigned) db_had=$(mib db assigned)
    local fill='mkdir /big; mount -t tmpfs -o size=2G none /big; for i in 1 2 3 4 5; do dd if=/dev/zero of=/big/$i bs=1M count=80 2>/dev/null; sleep 1; done'
    shown hvctl console web --send "$fill"
    "$hvctl" console web --no-history --timeout 60s --send "$fill; echo load is\"\" on" --until 'load is on' </dev/null >"$pool/load.log" 2>&1 &
    local load=$!
    local watch=(-b -d 2s -s name -c name,demand,assigned,buffer_now_pct,status,target)
    shown hvtop "${watch[@]}"
    "$build/bin/hvtop" "${watch[@]}" </dev/null &
    watcher=$!
    if ! wait $load || ! within 60 moved; then
        tail -n 3 "$pool/load.log" >&2
        return 1
    fi
    sleep 2.5                           # one more sample of how it came out
    kill $watcher
    wait $watcher 2>/dev/null || true
    watcher=
    printf '  web: %d MiB -> %d MiB, db: %d MiB -> %d MiB\n' "$web_had" "$(mib web assigned)" "$db_had" "$(mib db assigned)"

    say "hvd is killed: both guests go on, and the next hvd takes them over"
    web_had=$(mib web assigned)
    local talk='for i in 1 2 3 4 5 6; do sleep 1; echo "  web runs, $(ls /big | wc -l) files"; done'
    shown hvctl console web --send "$talk"
    "$hvctl" console web --no-history --timeout 60s --send "$talk; echo that is\"\" all" --until 'that is all' </dev/null >"$pool/console.log" 2>&1 &
    local console=$!
    within 30 grep -q '^  web runs' "$pool/console.log"
    shown kill -9 "$hvd"
    kill -9 "$hvd"
    sleep 0.2
    ! kill -0 "$hvd" 2>/dev/null
    local lines
    lines=$(grep -c '^  web runs' "$pool/console.log")
    echo "  hvd is gone. The console of web, which is still open:"
    wait $console
    tail -n "+$((lines + 1))" <(grep '^  web runs' "$pool/console.log") | tr -d '\r'
    [ "$(grep -c '^  web runs' "$pool/console.log")" -gt "$lines" ]
    shown hvd --user
    pool_serve
    within 30 reports
    run list
    [ "$(mib web assigned)" -ge $((web_had - 64)) ]
    pool_end
}
# Both guests have said what they need.
reports() {
    local name
    for name in web db; do
        [ "$(mib $name demand)" -gt 0 ] || return 1
    done
}

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
    --cmdline "root=LABEL=root console=ttyS0 quiet"

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
    say "Leave $vm running for you"
    dynamic_memory
    say "Done in $(elapsed "$t0") s"
    done_step
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
dynamic_memory
done_step
trap - ERR
cat <<END

demo: done in $(elapsed "$t0") s. Try next:
  $hvctl run --memory 512M --kernel $cache/vmlinuz-cloud --initrd $initrd --disk $disk --cmdline 'root=LABEL=root console=ttyS0 quiet'
  $vhdtool info $disk
  $hvctl help
  man -l $PWD/man/hvctl.1
END
