#!/usr/bin/env bash
# Make the initramfs that Debian's own initramfs-tools makes for a stock kernel, without
# installing either: both are unpacked from their packages, mkinitramfs runs in a chroot.
#
#   mkinitramfs-tools.sh [-k cloud|generic] OUT
#
# "break=top" on the guest's command line stops it at the "(initramfs)" prompt. Needs root,
# or user namespaces; exits 77 with the reason where there is neither.
set -euo pipefail
umask 022
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/lib.sh"

kernel=cloud
while getopts k:h opt; do
    case $opt in
    k) kernel=$OPTARG ;;
    h) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) die "unknown option" "mkinitramfs-tools.sh -h" ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 1 ] || die "one output file is needed" "mkinitramfs-tools.sh -h"
out=$1

# A mount namespace of our own; for an ordinary user with a user namespace around it.
if [ "$(id -u)" = 0 ]; then namespace=(unshare -m); else namespace=(unshare -rm); fi
"${namespace[@]}" true 2>/dev/null || skip "no permission for namespaces (root, or kernel.unprivileged_userns_clone=1)"
"$here/fetch.sh" "$kernel"

# What mkinitramfs and its hooks run, down to libc. None of their install scripts is needed.
packages=(
    bash busybox coreutils cpio dash debianutils dpkg e2fsprogs findutils gcc-12-base grep gzip initramfs-tools
    initramfs-tools-core klibc-utils kmod libacl1 libattr1 libblkid1 libbz2-1.0 libc-bin libc6 libcap2 libcap-ng0 libcrypt1
    libgcc-s1 libgmp10 libklibc libkmod2 liblz4-1 liblzma5 libmd0 libmount1 libpcre2-8-0 libselinux1 libsmartcols1
    libssl3 libtinfo6 libudev1 libuuid1 libxxhash0 libzstd1 logsave lz4 mawk mount sed udev util-linux
    zlib1g zstd
)
root=$cache/initramfs-root
(
    lock_cache
    [ ! -e "$root/done" ] || exit 0
    tmp=$(mktemp -d "$cache/.root.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    mkdir -p "$tmp/deb" "$tmp/root"/{dev,etc,proc,sys,tmp,boot,work} "$tmp"/root/usr/{bin,sbin,lib,lib64}
    for d in bin sbin lib lib64; do ln -s "usr/$d" "$tmp/root/$d"; done
    download "$tmp/deb" "${packages[@]}"
    for deb in "$tmp"/deb/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" |
            tar -x -C "$tmp/root" --keep-directory-symlink --no-same-owner --exclude='./usr/share/doc' \
                --exclude='./usr/share/man' --exclude='./usr/share/locale' || die "cannot unpack ${deb##*/}"
    done
    ln -sf dash "$tmp/root/usr/bin/sh"
    ln -sf mawk "$tmp/root/usr/bin/awk"
    touch "$tmp/root/etc/fstab" "$tmp/root/done"
    rm -rf "$root"
    mv -T "$tmp/root" "$root"
)

modules=$(readlink -f "$cache/modules-$kernel")
version=${modules##*/}
# depmod writes beside the modules, so it gets a folder of its own: of hard links, which cost nothing.
tmp=$(mktemp -d "$cache/.tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/modules/$version" "$tmp/work"
cp -al "$modules/." "$tmp/modules/$version/"
config=$(dirname "$(readlink -f "$cache/vmlinuz-$kernel")")/config-$version

"${namespace[@]}" sh -euc '
    root=$1 tmp=$2 version=$3 config=$4
    mount --bind "$root" "$root"
    cd "$root"
    mount -t tmpfs tmpfs usr/lib/modules 2>/dev/null || { mkdir -p usr/lib/modules && mount -t tmpfs tmpfs usr/lib/modules; }
    mkdir "usr/lib/modules/$version"
    mount --bind "$tmp/modules/$version" "usr/lib/modules/$version"
    mount --bind "$tmp/work" work
    mount --rbind /dev dev
    mount --rbind /proc proc
    mount -t tmpfs tmpfs tmp
    mount -t tmpfs tmpfs boot
    cp "$config" boot/
    exec env -i PATH=/usr/sbin:/usr/bin LC_ALL=C TMPDIR=/tmp chroot . /bin/sh -euc "
        depmod $version
        mkinitramfs -o /work/initrd $version"
' sh "$root" "$tmp" "$version" "$config" >"$tmp/log" 2>&1 || { cat "$tmp/log" >&2; die "mkinitramfs failed"; }
[ -s "$tmp/work/initrd" ] || { cat "$tmp/log" >&2; die "mkinitramfs made nothing"; }
mkdir -p "$(dirname "$out")"
mv "$tmp/work/initrd" "$out"
