#!/usr/bin/env bash
# The kvm engine on a real KVM where the host has none: QEMU's TCG emulates AMD-V, Debian's
# generic kernel with kvm-amd runs on it, and in it our VMs boot Debian's stock kernels, and
# Debian from a VHDX. TAP. Half an hour; nothing of it needs root.
#
#   kvm-nested.sh [-b] [-t SECONDS] [TEST...]
#
#   -b      measure instead: exits of a boot by kind beside QEMU's, and what a worker costs
#   -t      in all (3000)
#   TEST    only tests whose name has one of these words
#   BUILD   names the build folder
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
build=${BUILD:-build}
limit=3000 bench=
while getopts bt:h opt; do
    case $opt in
    b) bench=1 ;;
    t) limit=$OPTARG ;;
    *) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    esac
done
shift $((OPTIND - 1))
command -v qemu-system-x86_64 >/dev/null || skip "no qemu-system-x86_64"
vmboot=$build/tests/tools/vmboot
[ -x "$vmboot" ] || die "there is no $vmboot" "make $vmboot"
tests/guest/fetch.sh cloud generic busybox
work=$build/kvm-nested
mkdir -p "$work"
tests/guest/mkinitrd.sh -k cloud "$work/inner"
tests/guest/mkinitrd.sh -k generic "$work/inner-generic"
tests/guest/mkinitrd.sh -k cloud -m hv_vmbus -m hv_utils -m hv_balloon -m hv_storvsc -m sd_mod -m ext4 "$work/inner-disk"
# Debian's disk, a gigabyte, and its initrds come on a disk of the machine.
drive=() debian=
if [ -z "$bench" ]; then
    rm -rf "$work/disk" "$work/disk.raw"
    mkdir "$work/disk"
    if BUILD=$build tests/guest/debian-root.sh -i "$work/disk/root.vhdx" >"$work/debian.log" 2>&1; then
        "$build/bin/vhdtool" build "$work/disk.raw" -q --from "$work/disk" --layout none >>"$work/debian.log" 2>&1 || die "no disk for the machine ($work/debian.log)"
        drive=(-drive "file=$work/disk.raw,format=raw,if=virtio,snapshot=on")
        debian=1
    fi
    rm -rf "$work/disk"
fi

# The operator's way: a VM that hvctl creates, starts, watches, pauses, reboots, resets,
# stops and removes.
cat >"$work/life" <<'LIFE'
#!/bin/sh
# life CPUS [FLAVOUR]
set -ex
vm=n$1$2 prompt='demo:~# '
see() { hvctl console "$vm" --timeout 300s "$@" </dev/null; }
hvctl create "$vm" --engine kvm --cpus "$1" --memory 256M --kernel "/inner/vmlinuz$2" \
    --initrd "/inner/initrd$2" --cmdline "console=ttyS0 quiet noxsave"
hvctl start "$vm"
see --until "$prompt"
see --no-history --send 'echo cpus=$(nproc).' --until "cpus=$1\."
hvctl pause "$vm"
hvctl list | grep -i "$vm .*paused"
hvctl resume "$vm"
see --no-history --send 'echo al""ive' --until alive
hvctl show "$vm" -o json | grep kvm
see --no-history --send reboot --until BusyBox
see --until "$prompt"
see --no-history --send 'cut -d. -f1 /proc/uptime; echo a""gain' --until again
see --no-history --until "$prompt" &
hvctl restart "$vm" --reset --yes --timeout 120s
wait $!
see --no-history --send 'cut -d. -f1 /proc/uptime; echo on""ce more' --until 'once more'
hvctl stop "$vm" --timeout 120s
hvctl list | grep -i "$vm .*off"
hvctl remove "$vm" --yes
LIFE

# The outer guest's program: one line "ok N - what" a test, and what failed above it.
cat >"$work/script" <<SCRIPT
#!/bin/sh
words='$*' bench='$bench' debian='$debian'
SCRIPT
cat >>"$work/script" <<'SCRIPT'
export PATH=/bin
n=0 bad=0
echo        # the firmware left the cursor behind its own text
prompt='demo:~# '
check() {
    name=$1
    shift
    if [ -n "$words" ]; then
        hit=
        for w in $words; do case $name in *"$w"*) hit=1 ;; esac; done
        [ -n "$hit" ] || return 0
    fi
    n=$((n + 1))
    began=$(cut -d. -f1 /proc/uptime)
    if "$@" >/tmp/log 2>&1; then
        ok=ok
    else
        ok="not ok" bad=$((bad + 1))
        tail -n 30 /tmp/log | sed 's/^/# /'
    fi
    sed -n 's/^  vcpu\([0-9]*\)\.\([a-z_]*\) \([0-9]*\)$/# vcpu\1 \2 \3/p' /tmp/log
    echo "$ok $n - $name ($(($(cut -d. -f1 /proc/uptime) - began)) s)"
}
# noxsave: QEMU's SVM does not intercept XSETBV, so kvm-amd enters guests with an XCR0 it never saw.
boot() {
    /bin/vmboot --set engine=kvm --stats --timeout 300s --memory 256M --kernel "/inner/vmlinuz$flavour" \
        --initrd "/inner/initrd$flavour" --cmdline "console=ttyS0 quiet noxsave" "$@"
}
# A service of the operator's own.
export HV_HOST=user XDG_RUNTIME_DIR=/run/user XDG_STATE_HOME=/state
mkdir -p /run/user /state && chmod 700 /run/user
flavour=
# What KVM itself counted of the one VM that runs now; of MSRs, what its trace point did.
trace=/sys/kernel/tracing/events/kvm/kvm_msr
count_msrs() { echo 'hist:keys=write' >$trace/trigger; }
counted() {
    kvm=/sys/kernel/debug/kvm
    printf '# %-14s' "$1"
    for f in exits pf_taken io_exits mmio_exits msr irq_window_exits halt_exits signal_exits; do
        case $f in
        msr) n=$(sed -n 's/^ *Hits: //p' $trace/hist) ;;
        *) n=$(cat $kvm/$f) ;;
        esac
        printf ' %8s' "$n"
    done
    echo
    echo '!hist:keys=write' >$trace/trigger
}
prompted() { # prompted LOG: the shell's prompt is there
    for i in $(seq 1 600); do grep -q "$prompt" "$1" && return 0; sleep 0.2; done
    tail -n 5 "$1" | sed 's/^/# /'
    return 1
}
/bin/test_kvm hold &        # the last VM never goes: test_kvm.c says why
if [ -n "$bench" ]; then
    mount -t debugfs none /sys/kernel/debug
    mount -t tracefs none /sys/kernel/tracing
    # As host doctor advises; QEMU's anonymous memory has huge pages without being asked.
    echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled
    echo "# to the shell, 1 vCPU; exits as KVM counts them"
    echo "#                     all    fault     port     mmio      msr   window     halt   signal"
    for flavour in "" -generic; do
        rm -f /tmp/ours.log /tmp/qemu.log
        touch /tmp/ours.log /tmp/qemu.log
        count_msrs
        (boot --until "$prompt" --for 10s >/tmp/ours.log 2>&1) &
        ours=$!
        prompted /tmp/ours.log && counted "hv${flavour:--cloud}"
        wait $ours
        count_msrs
        qemu-system-x86_64 -accel kvm -cpu host -m 256 -nodefaults -vga none -display none -serial file:/tmp/qemu.log \
            -L /qemu -kernel "/inner/vmlinuz$flavour" -initrd "/inner/initrd$flavour" \
            -append 'console=ttyS0 quiet noxsave' >/tmp/qemu.err 2>&1 &
        qemu=$!
        prompted /tmp/qemu.log && counted "qemu${flavour:--cloud}" || sed 's/^/# /' /tmp/qemu.err
        kill $qemu
        wait $qemu
    done
    flavour=
    for n in 1 2 3 4 5 6 7 8; do
        hvctl create "w$n" --engine kvm --memory 128M --kernel /inner/vmlinuz --initrd /inner/initrd \
            --cmdline 'console=ttyS0 quiet noxsave' >/dev/null && hvctl start "w$n" >/dev/null &&
            hvctl console "w$n" --until "$prompt" --timeout 120s </dev/null >/dev/null || echo "# w$n did not start"
    done
    # Proportional set size without the guest's RAM, which is the memfd.
    for pid in $(pidof hv-worker); do
        awk '/^[0-9a-f]+-/ { ram = /memfd:/ } /^Pss:/ && !ram { n += $2 } END { print n }' "/proc/$pid/smaps"
    done >/tmp/pss
    awk '{ n += $1; c++ } END { printf "# worker beside guest RAM: %.1f MiB PSS, mean of %d\n", n / c / 1024, c }' /tmp/pss
    echo "nested: done 0 failed"
    poweroff -f
fi
check "/dev/kvm is there" test -c /dev/kvm
check "unit: payloads on kvm" env HV_NEED_KVM=1 HV_UNDER_TCG=1 /bin/test_kvm
check "1 vCPU: the shell" boot --until "$prompt"
exits=$(sed -n 's/^  vcpu0\.exits //p' /tmp/log)
check "exits of the boot counted: ${exits:-none}" test "${exits:-99999}" -le 10000
check "1 vCPU: poweroff" boot --until "$prompt" --send poweroff --off
check "2 vCPUs: both are up, poweroff" boot --cpus 2 --until "$prompt" \
    --send 'echo cpus=$(nproc).' --until 'cpus=2.' --send poweroff --off
check "save and load in process, 1 vCPU" boot --until "$prompt" --save --send 'echo al""ive' --until 'alive' \
    --save --send poweroff --off
check "save and load in process, 2 vCPUs" boot --cpus 2 --until "$prompt" --save \
    --send 'sleep 1; echo al""ive' --until 'alive' --send poweroff --off
check "reboot" boot --until "$prompt" --send reboot --rebooted --until "$prompt" --send poweroff --off
check "the ACPI power button (level SCI)" boot --until "$prompt" --for 1s --button --off
check "hard reset" boot --until "$prompt" --reset --until "$prompt"
check "auto takes kvm" sh -c '/bin/vmboot --timeout 300s --stats --memory 256M --kernel /inner/vmlinuz \
    --initrd /inner/initrd --cmdline "console=ttyS0 quiet noxsave" --until "demo:~# " && grep -q "vcpu0.exits" /tmp/log'
flavour=-disk
check "a VHDX over storvsc: written, read again from the disk, whole" sh -c '
    vhdtool create -q /tmp/d.vhdx --size 256M && exec /bin/vmboot --set engine=kvm --timeout 300s --memory 256M --cpus 2 \
        --kernel /inner/vmlinuz --initrd /inner/initrd-disk --cmdline "console=ttyS0 quiet noxsave" --disk /tmp/d.vhdx \
        --until "demo:~# " --send "dmesg | grep -c -e Hyper-V -e storvsc; mke2fs -q /dev/sda; mkdir -p /m; mount -t ext4 /dev/sda /m; echo mount\"\"ed" \
        --until mounted --send "dd if=/dev/urandom of=/m/x bs=64k count=300; md5sum /m/x >/tmp/s; sync; echo 3 >/proc/sys/vm/drop_caches; md5sum -c /tmp/s" \
        --until "x: OK" --send "umount /m; poweroff" --off'
check "the VHDX is clean" vhdtool check /tmp/d.vhdx
flavour=
# debian FLAVOUR CPUS: to the login prompt and in; no unit failed, the drivers are bound; down by the shutdown service.
debian() {
    kernel=-$1
    /bin/vmboot --set engine=kvm --timeout 900s --memory 768M --cpus "$2" --kernel "/inner/vmlinuz${kernel#-cloud}" --initrd "/disk/root.vhdx.$1" \
        --disk /disk/root.vhdx --cmdline 'console=ttyS0 noxsave root=/dev/sda1 systemd.show_status=no' \
        --until 'Hypervisor detected: Microsoft Hyper-V' --until 'Vmbus version:5.' --until 'guest login: ' --send root --until 'guest:~# ' \
        --send 'bind "set enable-bracketed-paste off"; systemctl is-system-running --wait; systemctl --failed --no-legend; echo "failed: $(systemctl --failed --no-legend | wc -l)."' \
        --until running --until 'failed: 0.' \
        --send 'for d in hv_storvsc hv_utils hv_balloon; do ls -d /sys/bus/vmbus/drivers/$d/*-*-* >/dev/null && echo "$d bo""und"; done; echo "CPUs: $(nproc)."' \
        --until 'hv_storvsc bound' --until 'hv_utils bound' --until 'hv_balloon bound' --until "CPUs: $2." \
        --send 'systemd-analyze' --until 'Startup finished' --shutdown --off && vhdtool check /disk/root.vhdx
}
if [ -n "$debian" ]; then
    mkdir /disk
    mount -t ext4 /dev/vda /disk || echo "# debian: the disk cannot be mounted"
    for flavour in cloud generic; do
        for cpus in 1 4; do
            check "debian: $flavour kernel, $cpus vCPU: login, no failed unit, shut down" debian $flavour $cpus
        done
    done
    umount /disk
    flavour=
else
    echo "# debian: skipped: no root file system (debian.log in the build folder says why)"
fi
check "hvctl: 1 vCPU, pause, resume, reboot, reset, power-off" sh /bin/life 1
check "hvctl: 2 vCPUs, pause, resume, reboot, reset, power-off" sh /bin/life 2
flavour=-generic
check "hvctl: generic kernel, 1 vCPU, the same" sh /bin/life 1 -generic
check "hvctl: generic kernel, 2 vCPUs, the same" sh /bin/life 2 -generic
check "generic kernel, 1 vCPU: the shell" boot --until "$prompt"
exits=$(sed -n 's/^  vcpu0\.exits //p' /tmp/log)
check "exits of the generic kernel counted: ${exits:-none}" test "${exits:-99999}" -le 10000
check "generic kernel, 1 vCPU, save and load, poweroff" boot --until "$prompt" --save --send 'echo al""ive' --until alive \
    --send poweroff --off
check "generic kernel, 2 vCPUs, save and load, poweroff" boot --cpus 2 --until "$prompt" --save \
    --send 'echo cpus=$(nproc).' --until 'cpus=2.' --send poweroff --off
echo "1..$n"
echo "nested: done $bad failed"
poweroff -f
SCRIPT

for p in hvctl hvd hv-worker vhdtool; do
    [ -x "$build/bin/$p" ] || die "there is no $build/bin/$p" "make"
done
files=(-f "$work/life:/bin/life" -f "$build/bin/hvctl:/bin/hvctl" -f "$build/bin/hvd:/bin/hvd" -f "$build/bin/hv-worker:/bin/hv-worker"
       -f "$build/bin/vhdtool:/bin/vhdtool" -f "$work/inner-disk:/inner/initrd-disk")
files+=(-f "$vmboot:/bin/vmboot" -f "$(readlink -f "$cache/vmlinuz-cloud"):/inner/vmlinuz" -f "$work/inner:/inner/initrd")
files+=(-f "$(readlink -f "$cache/vmlinuz-generic"):/inner/vmlinuz-generic" -f "$work/inner-generic:/inner/initrd-generic")
unit=$build/tests/engine_kvm/test_kvm
[ -x "$unit" ] || die "there is no $unit" "make unit T=engine_kvm/test_kvm"
files+=(-f "$unit:/bin/test_kvm")
programs=("$vmboot" "$unit" "$build"/bin/{hvctl,hvd,hv-worker,vhdtool})
if [ -n "$bench" ]; then
    qemu=$(command -v qemu-system-x86_64)
    programs+=("$qemu")
    files+=(-f "$qemu:/bin/qemu-system-x86_64")
    for rom in bios-256k.bin linuxboot_dma.bin kvmvapic.bin; do
        for dir in /usr/share/qemu /usr/share/seabios; do
            [ ! -e "$dir/$rom" ] || files+=(-f "$dir/$rom:/qemu/$rom")
        done
    done
fi
while read -r lib; do
    files+=(-f "$lib:$lib")
done < <(ldd "${programs[@]}" | grep -o '/[^ ]*\.so[^ ]*' | sort -u)
tests/guest/mkinitrd.sh -k generic -m irqbypass -m kvm -m ccp -m kvm-amd -m virtio_pci -m virtio_blk -m crc32c_generic -m ext4 "${files[@]}" -r "$work/script" "$work/outer"

# A TSC that Linux trusts, and a CPU of this age: on AMD's first 64-bit families, which QEMU's own
# claims to be of, kernels look for an AGP bridge on all 256 buses, 33 000 port accesses.
timeout "$limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu max,-vmx,family=23,model=49 -m 3072 -smp 2 -nographic -no-reboot -net none "${drive[@]}" \
    -kernel "$cache/vmlinuz-generic" -initrd "$work/outer" -append 'console=ttyS0 quiet panic=-1 tsc=reliable' \
    </dev/null 2>&1 | stdbuf -o0 tr -d '\r' | tee "$work/log" | grep --line-buffered -aE '^(ok|not ok|# |1\.\.|nested:)' || :
rm -f "$work/disk.raw"
grep -aq '^nested: done 0 failed' "$work/log"
