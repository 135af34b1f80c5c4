#!/usr/bin/env bash
# A Debian machine with systemd as the host of VMs, under QEMU's TCG: what only systemd, a boot and
# a power cut can show. Three boots of one disk:
#
#   1  units, group and folders; scopes, weight and limit; hvd restarted and killed under running guests;
#      a user's own service that lingers; ordered stop
#   2  what ran comes back by on-start, a user's too with nobody logged in; then the power goes
#   3  it comes back again, and what was not to is off and says why
#
# Needs root (an image with owners) and the network (Debian's packages). Ends with "N passed, M failed".
set -euo pipefail
umask 022
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
[ "$(id -u)" = 0 ] || skip "needs root"
command -v qemu-system-x86_64 >/dev/null && command -v mmdebstrap >/dev/null || skip "needs qemu-system-x86_64 and mmdebstrap"
build=$(readlink -f "${BUILD:-build}")
tests/guest/fetch.sh cloud busybox
work=$(mktemp -d "${TMPDIR:-/tmp}/hv-systemd-XXXXXX")
trap 'rm -rf "$work"' EXIT

# ---- the root file system: Debian's, cached, and the tree's own installation on top ----

tar=$cache/systemd-root2.tar
if [ ! -s "$tar" ]; then
    echo "making $tar"
    mmdebstrap --variant=minbase --include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,kmod,procps,jq,util-linux,libuv1,libjansson4,libxml2,libarchive13,libedit2,libseccomp2,liburing2,libext2fs2,libncursesw6,libfuse3-3,libzstd1 \
        bookworm "${tar%.tar}.part.tar" >"$work/mmdebstrap.log" 2>&1 || { tail "$work/mmdebstrap.log"; skip "Debian's packages cannot be had"; }
    mv "${tar%.tar}.part.tar" "$tar"
fi
mkdir "$work/root"
tar -C "$work/root" --numeric-owner -xf "$tar"
make -s BUILD="$build" DESTDIR="$work/root" PREFIX=/usr UNITS=/lib/systemd install >/dev/null
systemd-sysusers --root="$work/root" hv.conf
chroot "$work/root" useradd -m -s /bin/bash ann
for unit in hvd hv-guests; do
    ln -s "/lib/systemd/system/$unit.service" "$work/root/etc/systemd/system/multi-user.target.wants/$unit.service"
done
tests/guest/mkinitrd.sh -k cloud "$work/root/guest-initrd"
cp "$(readlink -f "$cache/vmlinuz-cloud")" "$work/root/guest-kernel"
echo /dev/vda / ext4 defaults 0 0 >"$work/root/etc/fstab"
: >"$work/root/etc/machine-id"
cat >"$work/root/etc/systemd/system/hv-test.service" <<'UNIT'
[Unit]
After=hvd.service hv-guests.service
Before=getty.target
[Service]
Type=simple
ExecStart=/bin/bash /hv-test
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0
[Install]
WantedBy=multi-user.target
UNIT
ln -s /etc/systemd/system/hv-test.service "$work/root/etc/systemd/system/multi-user.target.wants/"

cat >"$work/root/hv-test" <<'TEST'
export HV_HOST=system LC_ALL=C.UTF-8
phase=$(cat /phase 2>/dev/null || echo 1)
check() {                 # check NAME COMMAND...
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then echo "RESULT ok $phase: $name"; else
        echo "RESULT FAILED $phase: $name"
        printf '%s\n' "$out" | tail -n 12
    fi
}
state() { hvctl show "$1" -o json | jq -r .state; }
pid() { hvctl show "$1" -o json | jq -r .pid; }
is() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; return 1; }; }
boot_vm() {
    hvctl create "$1" -q --memory 96M --kernel /guest-kernel --initrd /guest-initrd --cmdline 'console=ttyS0 quiet' &&
        hvctl start "$1" -q --wait=console:demo -t 400s
}
main_pid() { systemctl show -p MainPID --value hvd; }
same_workers() { is "$(pid keep)" "$keep" && is "$(pid pull)" "$pull" && hvctl console keep --send 'echo al""ive' --until alive -t 120s; }
killed_and_back() {
    local old
    old=$(main_pid)
    kill -KILL "$old"
    for _ in $(seq 200); do [ "$(main_pid)" != 0 ] && [ "$(main_pid)" != "$old" ] && systemctl -q is-active hvd && break; sleep 0.3; done
    hvctl wait keep --for running -q -t 60s && same_workers
}
# The control group of a process, and a file in it.
group() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }
in_group() { cat "/sys/fs/cgroup$(group "$1")/$2"; }
at_least() { [ "$1" -ge "$2" ] || { echo "$1 is less than $2"; return 1; }; }
unit_of() { hvctl show "$1" -o json | jq -r .processor.unit; }
capped() {
    systemctl set-property --runtime hv.slice MemoryMax=1G && is "$(hvctl host show -o json | jq .memory.total)" 1073741824 &&
        systemctl set-property --runtime hv.slice MemoryMax=infinity
}
# A user with nobody logged in.
ann() { setpriv --reuid ann --regid ann --init-groups env -C / HOME=/home/ann XDG_RUNTIME_DIR="/run/user/$(id -u ann)" HV_HOST=user "$@"; }
ann_state() { ann hvctl show anns -o json | jq -r .state; }
linger() {
    loginctl enable-linger ann
    for _ in $(seq 200); do [ -S "/run/user/$(id -u ann)/bus" ] && break; sleep 0.3; done
    ann systemctl --user enable --now hvd hv-guests
}
ann_vm() {
    ann hvctl create anns -q --memory 96M --kernel /guest-kernel --initrd /guest-initrd --cmdline 'console=ttyS0 quiet' &&
        ann hvctl vm set anns -q --on-start start && ann hvctl start anns -q --wait=console:demo -t 400s
}
ann_scope() {
    local pid
    pid=$(ann hvctl show anns -o json | jq .pid)
    is "$(group "$pid")" "/user.slice/user-$(id -u ann).slice/user@$(id -u ann).service/hv.slice/hv-anns-$pid.scope"
}
as_user() { setpriv --reuid nobody --regid nogroup "$@"; }
denied() { as_user --clear-groups hvctl list; is $? 5; }

case $phase in
1)
    check "hvd is up and says so" systemctl is-active hvd hv-guests
    check "the socket is the group's" is "$(stat -c '%a %U %G' /run/hv/org.hv.Manager)" '660 root hv'
    check "one who is not in the group is denied" denied
    check "one who is may list" as_user --groups hv hvctl list
    check "a VM boots" boot_vm keep
    check "another" boot_vm pull
    hvctl vm set keep -q --on-start resume
    hvctl vm set pull -q --on-stop turn-off
    keep=$(pid keep) pull=$(pid pull)
    check "no layer of the sandbox is missing" is "$(hvctl show keep -o json | jq -r '[.sandbox[] | select(.on | not) | .name] | join(" ")')" ""
    check "a user of its own" test "$(sed -n 's/^Uid:\t\([0-9]*\).*/\1/p' "/proc/$keep/status")" -ge 1879048192
    check "each has a scope in hv.slice, named after it" is "$(group "$keep")" "/hv.slice/hv-keep-$keep.scope"
    check "systemd-cgls shows them by name" sh -c 'systemd-cgls -u hv.slice | grep -c "hv-\(keep\|pull\)-[0-9]*.scope" | grep -qx 2'
    check "its memory is counted" at_least "$(systemctl show -p MemoryCurrent --value "hv-keep-$keep.scope")" 30000000
    check "weight and limit, now" hvctl processor set keep --weight 20 --limit 50 -q
    sleep 1
    check "weight is the kernel's" is "$(in_group "$keep" cpu.weight)" 20
    check "limit is the kernel's" is "$(in_group "$keep" cpu.max)" "50000 100000"
    hvctl processor set keep --weight default --limit none -q
    check "a limit of hv.slice is the host's" capped
    check "systemctl restart hvd" systemctl restart hvd
    check "guests do not notice" same_workers
    check "their scopes are known" is "$(unit_of keep) $(unit_of pull)" "hv-keep-$keep.scope hv-pull-$pull.scope"
    check "hvd killed: systemd starts the next, guests do not notice" killed_and_back
    check "a new hvd changes the limit" hvctl processor set keep --limit 80 -q
    sleep 1
    check "of the scope it found" is "$(in_group "$keep" cpu.max)" "80000 100000"
    systemctl stop hvd
    check "hvd stopped: workers run" test -d "/proc/$keep"
    systemctl start hvd
    check "and are there when it starts" same_workers
    check "a user's own service lingers" linger
    check "his VM boots" ann_vm
    check "in a scope of his own" ann_scope
    check "doctor says so" sh -c "$(declare -f ann); ann hvctl host doctor | grep 'VMs run on after you log out'"
    echo 2 >/phase
    echo "PHASE END"
    systemctl reboot ;;
2)
    check "what ran comes back" hvctl wait keep --for running -q -t 300s
    check "what was not to stays off" is "$(state pull)" off
    check "they were stopped in order" sh -c 'hvctl events --since 1h -o jsonl -n 1000 -t 2s | grep -q "the host stops"'
    check "a guest shut down" sh -c 'hvctl events keep --since 1h -o jsonl -n 1000 -t 2s | grep -q "the guest powered off"'
    check "a user's VM starts with nobody logged in" ann hvctl wait anns --for running -q -t 300s
    check "it was shut down in order" sh -c "$(declare -f ann); ann hvctl events anns --since 1h -o jsonl -n 1000 -t 2s | grep -q 'the guest powered off'"
    check "the guest is up" hvctl console keep --until demo -t 400s
    hvctl start pull -q -t 60s
    sleep 3
    echo 3 >/phase
    sync
    echo "PHASE END"
    echo b >/proc/sysrq-trigger
    sleep 60 ;;
3)
    check "after a power cut what ran comes back" hvctl wait keep --for running -q -t 300s
    check "the other is off" is "$(state pull)" off
    check "and says why" sh -c 'hvctl show pull | grep "off: host stopped unexpectedly"'
    check "no user is leased twice" sh -c 'ls -l /run/hv-uids | grep -c "workers/" | grep -qx 1'
    check "nothing failed" is "$(systemctl --failed --plain --no-legend | wc -l)" 0
    echo "PHASE END"
    systemctl poweroff ;;
esac
TEST
mke2fs -q -t ext4 -d "$work/root" "$work/disk" 1500M

# ---- a first root that loads the disk's drivers and goes over ----

tests/guest/mkinitrd.sh -k cloud -m virtio_pci -m virtio_blk -m crc32c_generic -m ext4 "$work/initrd"
mkdir "$work/over"
cat >"$work/over/init" <<'INIT'
#!/bin/sh
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev
while read -r m; do insmod "/lib/modules/$m.ko"; done </etc/modules
mkdir -p /new
for i in 1 2 3 4 5 6 7 8 9; do [ -b /dev/vda ] && break; sleep 1; done
mount -t ext4 /dev/vda /new && exec switch_root /new /sbin/init
echo "no root"; poweroff -f
INIT
chmod 755 "$work/over/init"
(cd "$work/over" && echo init | cpio --quiet -o -H newc | gzip) >>"$work/initrd"

# ---- the boots ----

for boot in 1 2 3; do
    echo "== boot $boot"
    timeout "${SYSTEMD_TIMEOUT:-1500}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2G -nographic -no-reboot -nic none \
        -kernel "$cache/vmlinuz-cloud" -initrd "$work/initrd" -append 'console=ttyS0 quiet panic=-1 systemd.show_status=false' \
        -drive "file=$work/disk,format=raw,if=virtio" </dev/null >"$work/boot$boot.log" 2>&1 || true
    tr -d '\r' <"$work/boot$boot.log" | grep -aE '^RESULT|^[^ ].*is not' || true
    grep -aq 'PHASE END' "$work/boot$boot.log" || { echo "RESULT FAILED $boot: it came to its end"; tail -n 20 "$work/boot$boot.log"; break; }
done
passed=$(cat "$work"/boot?.log | grep -ac 'RESULT ok') || true
failed=$(cat "$work"/boot?.log | grep -ac 'RESULT FAILED') || true
[ "$boot" = 3 ] && grep -aq 'PHASE END' "$work/boot3.log" || failed=$((failed + 1))
echo "systemd-host: $passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -ge 38 ]
