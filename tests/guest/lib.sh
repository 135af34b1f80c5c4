# What the guest recipes share: where the cache is, how a Debian package gets into it.
# Sourced by bash scripts that have `set -euo pipefail`.

# Downloads and what is made of them, kept across builds: $HV_TEST_CACHE, else the user's cache folder.
cache=${HV_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/hv-tests}

# die MESSAGE [HINT]
die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    [ $# -lt 2 ] || printf '  try: %s\n' "$2" >&2
    exit 1
}

# skip REASON: exit 77, which test harnesses count as skipped.
skip() {
    printf '%s: skipped: %s\n' "${0##*/}" "$1" >&2
    exit 77
}

# One process at a time works on the cache; the lock goes with the process.
lock_cache() {
    mkdir -p "$cache" || die "cannot make the cache folder $cache" "HV_TEST_CACHE=FOLDER"
    exec 9>"$cache/lock"
    flock 9
}

# apt as an ordinary user: no sandbox user, who could not write here, and no questions.
apt_get() {
    apt-get -qq -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 "$@"
}

# download FOLDER PACKAGE...: the .deb files of the packages' current versions.
download() {
    local folder=$1 log
    shift
    command -v apt-get >/dev/null || die "no apt-get: these recipes take their parts from Debian packages"
    apt-cache show "$1" >/dev/null 2>&1 || die "apt knows no package $1" "apt-get update"
    log=$(cd "$folder" && apt_get download "$@" 2>&1) ||
        die "cannot download $* (offline?)"$'\n'"$log" "apt-get update, or a machine with network"
}

# package PACKAGE: the folder it is unpacked in, fetched when not there yet. Prints the folder.
package() (
    dir=$cache/pkg/$1
    if [ ! -d "$dir" ]; then
        mkdir -p "$cache/pkg"
        tmp=$(mktemp -d "$cache/pkg/.new.XXXXXX")
        trap 'rm -rf "$tmp"' EXIT
        mkdir "$tmp/deb" "$tmp/root"
        download "$tmp/deb" "$1"
        dpkg-deb -x "$tmp"/deb/*.deb "$tmp/root" || die "cannot unpack $1"
        mv -T "$tmp/root" "$dir"
    fi
    printf '%s\n' "$dir"
)

# The package that a meta package stands for now: linux-image-cloud-amd64 -> linux-image-6.1.0-56-cloud-amd64.
resolve_meta() {
    local name
    command -v apt-cache >/dev/null || die "no apt-cache: these recipes take their parts from Debian packages"
    name=$(apt-cache depends --important "$1" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
    [ -n "$name" ] || die "apt knows no package $1" "apt-get update"
    printf '%s\n' "$name"
}
