#!/usr/bin/env bash
# Make an initrd whose guest comes up with a shell on ttyS0, without being root.
#
#   mkinitrd.sh [-k cloud|generic|pae] [-m MODULE]... [-f FILE:PATH]... [-r SCRIPT] [-D] [-d] OUT
#
#   -k   whose kernel's modules (cloud; generic, backports, pae, which gets a 32-bit busybox)
#   -m   load this module too, after what it depends on; "NAME KEY=VALUE" with parameters; may be repeated
#   -f   put FILE of the host at PATH in the guest
#   -r   run SCRIPT in the guest once, before the shell (its output is on ttyS0)
#   -D   put Debian's hyperv-daemons in; `daemons` starts them
#   -d   no shell: load the modules, mount what root= names and go on there
#
# The guest: busybox init, a login shell with job control whose prompt is "demo:~# ",
# poweroff and reboot at that prompt, power off on the ACPI power button.
set -euo pipefail
umask 022
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/lib.sh"

kernel=cloud script= disk= daemons=
modules=(evdev button)
files=()
while getopts k:m:f:r:Ddh opt; do
    case $opt in
    k) kernel=$OPTARG ;;
    m) modules+=("$OPTARG") ;;
    f) files+=("$OPTARG") ;;
    r) script=$OPTARG ;;
    D) daemons=1 ;;
    d) disk=1 ;;
    h) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) die "unknown option" "mkinitrd.sh -h" ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 1 ] || die "one output file is needed" "mkinitrd.sh -h"
out=$1
command -v cpio >/dev/null || die "no cpio" "apt-get install cpio"
busybox=busybox
[ "$kernel" != pae ] || busybox=busybox32
"$here/fetch.sh" "$kernel" $busybox

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
root=$tmp/root
mkdir -p "$root"/{bin,dev,etc/acpi/PWRF,lib/modules,proc,root,run,sys,tmp}

install -m 755 "$(readlink -f "$cache/$busybox")" "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
ln -s bin "$root/sbin"
ln -s bin/init "$root/init"

# Modules and what they need, in the order of loading. A module's own ELF section says what that is.
[ -z "$disk" ] || modules=("${modules[@]:2}" sd_mod ext4)        # the others are for a shell
declare -A seen=()
add_module() {
    local name=${1%% *} path dep deps
    name=${name//-/_}
    [ -z "${seen[$name]:-}" ] || return 0
    seen[$name]=1
    path=$(find -L "$cache/modules-$kernel/kernel" -name "$name.ko*" -o -name "${name//_/-}.ko*" | head -n 1)
    if [ -z "$path" ]; then
        grep -q "/\(${name}\|${name//_/-}\)\.ko$" "$cache/modules-$kernel/modules.builtin" && return 0
        die "the $kernel kernel has no module $name"
    fi
    case $path in
    *.ko) cp -L "$path" "$tmp/module" ;;
    *.ko.xz) xz -dc "$path" >"$tmp/module" || die "cannot unpack the module $name" "apt-get install xz-utils" ;;
    *) die "the module $name is compressed, which this recipe does not know" ;;
    esac
    install -m 644 "$tmp/module" "$root/lib/modules/$name.ko"
    deps=$(tr '\0' '\n' <"$tmp/module" | sed -n 's/^depends=//p')
    for dep in ${deps//,/ }; do
        add_module "$dep"
    done
    printf '%s%s\n' "$name" "${1#"${1%% *}"}" >>"$root/etc/modules"
}
for module in "${modules[@]}"; do
    add_module "$module"
done

cat >"$root/etc/inittab" <<'EOF'
::sysinit:/etc/rc
ttyS0::respawn:-/bin/sh
::ctrlaltdel:/bin/reboot
EOF
cat >"$root/etc/rc" <<'EOF'
#!/bin/sh
mount -t proc proc /proc
grep -q ' /dev ' /proc/mounts || mount -t devtmpfs dev /dev
mount -t sysfs sys /sys
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
hostname demo
while read -r module parameters; do
    insmod "/lib/modules/$module.ko" $parameters
done </etc/modules
# acpid reads the input devices that are there when it starts.
acpid -l /dev/null -p /run/acpid.pid
[ ! -x /etc/rc.local ] || /etc/rc.local >/dev/ttyS0 2>&1 </dev/null
EOF
if [ -n "$disk" ]; then
    rm "$root/init"
    cat >"$root/init" <<'EOF'
#!/bin/sh
mkdir -p /dev /proc /sys /newroot
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module parameters; do
    insmod "/lib/modules/$module.ko" $parameters
done </etc/modules
root=$(sed -n 's/.*\<root=\([^ ]*\).*/\1/p' /proc/cmdline)
case $root in
UUID=* | LABEL=*) find='findfs "$root" 2>/dev/null' ;;
*) find='echo "$root"' ;;
esac
for i in $(seq 200); do
    dev=$(eval "$find")
    [ -b "$dev" ] && break
    sleep 0.05
done
if ! mount -t ext4 "$dev" /newroot; then
    echo "init: no root file system on ${root:-(no root= on the command line)}"
    exec sh
fi
mount --move /dev /newroot/dev
umount /sys /proc
exec switch_root /newroot /sbin/init
EOF
    chmod 755 "$root/init"
fi
cat >"$root/etc/profile" <<'EOF'
export HOME=/root PATH=/bin TERM=${TERM:-vt100} PS1='\h:\w\$ '
cd
EOF
cat >"$root/etc/acpi/PWRF/00000080" <<'EOF'
#!/bin/sh
exec poweroff
EOF
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
chmod 755 "$root/etc/rc" "$root/etc/acpi/PWRF/00000080"
[ -z "$script" ] || install -m 755 "$script" "$root/etc/rc.local"
if [ -n "$daemons" ]; then
    "$here/fetch.sh" daemons
    mkdir -p "$root/lib64" "$root/var/lib"
    install -m 755 "$cache"/daemons/hv_*_daemon "$root/bin/"
    install -m 755 "$cache/daemons/ld-linux-x86-64.so.2" "$root/lib64/"
    install -m 755 "$cache/daemons/libc.so.6" "$root/lib/"
    printf '%s\n' 'NAME="Demo Linux"' 'VERSION_ID="7"' >"$root/etc/os-release"
    cat >"$root/bin/daemons" <<'END'
#!/bin/sh
for d in ${*:-kvp vss fcopy}; do hv_${d}_daemon || echo "no $d daemon"; done
END
    chmod 755 "$root/bin/daemons"
fi
for pair in ${files[@]+"${files[@]}"}; do
    mkdir -p "$root/$(dirname "${pair#*:}")"
    cp -L --preserve=mode "${pair%%:*}" "$root/${pair#*:}"
done

# The same inputs give the same bytes: names sorted, owners root, times fixed, inodes numbered anew.
find "$root" -exec touch -h -d @"${SOURCE_DATE_EPOCH:-0}" {} +
(cd "$root" && find . -mindepth 1 | LC_ALL=C sort |
    cpio -o -H newc -R 0:0 --reproducible --quiet) >"$tmp/initrd" || die "cpio failed"
mkdir -p "$(dirname "$out")"
mv "$tmp/initrd" "$out"
