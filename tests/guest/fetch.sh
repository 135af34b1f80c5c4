#!/usr/bin/env bash
# Get the parts of the test guests: Debian's kernels and a static busybox.
#
#   fetch.sh [--update] [cloud] [generic] [backports] [pae] [busybox] [busybox32] [daemons]
#
# Without arguments: cloud, generic and busybox. pae is Debian's 32-bit kernel, busybox32 the
# program of its architecture; backports is the cloud kernel of bookworm-backports.
#
# Packages are downloaded and unpacked, nothing is installed; any user may run it. What is
# there already is kept (and needs no network), --update looks for newer versions. The
# cache is $HV_TEST_CACHE, else ~/.cache/hv-tests; in it stand afterwards
#   vmlinuz-cloud vmlinuz-generic vmlinuz-pae ...   the kernels
#   modules-cloud modules-generic modules-pae ...      their /lib/modules/VERSION folders
#   busybox busybox32                               the program
#   daemons                                         Debian's hyperv-daemons, and the C library they run with
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

update=
parts=()
for arg; do
    case $arg in
    --update) update=1 ;;
    cloud | generic | backports | pae | busybox | busybox32 | daemons) parts+=("$arg") ;;
    -h | --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) die "unknown part: $arg" "fetch.sh -h" ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(cloud generic busybox)

# kernel NAME META-PACKAGE [i386|backports]
kernel() {
    local pkg dir version
    [ -n "$update" ] || [ ! -e "$cache/vmlinuz-$1" ] || [ ! -e "$cache/modules-$1" ] || return 0
    [ -z "${3:-}" ] || "update_$3" "$update"
    pkg=$(resolve_meta "$2" ${3:+"$3"})
    version=${pkg#linux-image-}
    [ -z "$update" ] || rm -rf "$cache/pkg/$pkg" "$cache/pkg/$pkg:${3:-}"
    dir=$(package "$pkg" ${3:+"$3"})
    [ -f "$dir/boot/vmlinuz-$version" ] || die "no kernel in $pkg"
    ln -sfn "${dir#"$cache"/}/lib/modules/$version" "$cache/modules-$1"
    ln -sfn "${dir#"$cache"/}/boot/vmlinuz-$version" "$cache/vmlinuz-$1"
}

lock_cache
for part in "${parts[@]}"; do
    case $part in
    cloud) kernel cloud linux-image-cloud-amd64 ;;
    generic) kernel generic linux-image-amd64 ;;
    backports) kernel backports linux-image-cloud-amd64 backports ;;
    pae) kernel pae linux-image-686-pae i386 ;;
    daemons)
        [ -n "$update" ] || [ ! -e "$cache/daemons" ] || continue
        [ -z "$update" ] || rm -rf "$cache/pkg/hyperv-daemons" "$cache/pkg/libc6"
        dir=$(package hyperv-daemons)
        libc=$(package libc6)
        rm -rf "$cache/.daemons"
        mkdir "$cache/.daemons"
        cp "$dir"/usr/sbin/hv_*_daemon "$(readlink -f "$libc"/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2)" \
            "$libc/lib/x86_64-linux-gnu/libc.so.6" "$cache/.daemons/"
        rm -rf "$cache/daemons"
        mv -T "$cache/.daemons" "$cache/daemons"
        ;;
    busybox32)
        [ -n "$update" ] || [ ! -x "$cache/busybox32" ] || continue
        update_i386 "$update"
        [ -z "$update" ] || rm -rf "$cache/pkg/busybox-static:i386"
        dir=$(package busybox-static i386)
        ln -sfn "${dir#"$cache"/}/bin/busybox" "$cache/busybox32"
        ;;
    busybox)
        [ -n "$update" ] || [ ! -x "$cache/busybox" ] || continue
        [ -z "$update" ] || rm -rf "$cache/pkg/busybox-static"
        dir=$(package busybox-static)
        ln -sfn "${dir#"$cache"/}/bin/busybox" "$cache/busybox"
        ;;
    esac
done
