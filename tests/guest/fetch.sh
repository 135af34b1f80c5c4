#!/usr/bin/env bash
# Get the parts of the test guests: Debian's kernels and a static busybox.
#
#   fetch.sh [--update] [cloud] [generic] [busybox]      all three without arguments
#
# Packages are downloaded and unpacked, nothing is installed; any user may run it. What is
# there already is kept (and needs no network), --update looks for newer versions. The
# cache is $HV_TEST_CACHE, else ~/.cache/hv-tests; in it stand afterwards
#   vmlinuz-cloud vmlinuz-generic       the kernels
#   modules-cloud modules-generic       their /lib/modules/VERSION folders
#   busybox                             the program
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

update=
parts=()
for arg; do
    case $arg in
    --update) update=1 ;;
    cloud | generic | busybox) parts+=("$arg") ;;
    -h | --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) die "unknown part: $arg" "fetch.sh [--update] [cloud] [generic] [busybox]" ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(cloud generic busybox)

# kernel NAME META-PACKAGE
kernel() {
    local pkg dir version
    [ -n "$update" ] || [ ! -e "$cache/vmlinuz-$1" ] || [ ! -e "$cache/modules-$1" ] || return 0
    pkg=$(resolve_meta "$2")
    version=${pkg#linux-image-}
    [ -z "$update" ] || rm -rf "$cache/pkg/$pkg"
    dir=$(package "$pkg")
    [ -f "$dir/boot/vmlinuz-$version" ] || die "no kernel in $pkg"
    ln -sfn "pkg/$pkg/lib/modules/$version" "$cache/modules-$1"
    ln -sfn "pkg/$pkg/boot/vmlinuz-$version" "$cache/vmlinuz-$1"
}

lock_cache
for part in "${parts[@]}"; do
    case $part in
    cloud) kernel cloud linux-image-cloud-amd64 ;;
    generic) kernel generic linux-image-amd64 ;;
    busybox)
        [ -n "$update" ] || [ ! -x "$cache/busybox" ] || continue
        [ -z "$update" ] || rm -rf "$cache/pkg/busybox-static"
        dir=$(package busybox-static)
        ln -sfn "${dir#"$cache"/}/bin/busybox" "$cache/busybox"
        ;;
    esac
done
