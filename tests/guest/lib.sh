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

# apt for i386, with lists and settings of its own: the host's dpkg never hears of that
# architecture. Sources are the host's own that come from Debian.
apt_i386() {
    local dir=$cache/apt-i386 program=$1
    shift
    mkdir -p "$dir"/{lists,archives,sources}/partial
    [ -s "$dir/status" ] || : >"$dir/status"
    "$program" -qq -o APT::Architecture=i386 -o APT::Architectures::=i386 -o APT::Sandbox::User="$(id -un)" \
        -o Debug::NoLocking=1 -o Dir::State="$dir" -o Dir::State::lists="$dir/lists" -o Dir::State::status="$dir/status" \
        -o Dir::Cache="$dir" -o Dir::Cache::archives="$dir/archives" -o Dir::Etc::SourceList="$dir/sources.list" \
        -o Dir::Etc::SourceParts="$dir/sources" "$@"
}

# Look for what i386 has, once, and again with a first argument.
update_i386() {
    local dir=$cache/apt-i386 uri release component
    local key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -z "${1:-}" ] && [ -e "$dir/updated" ] && return 0
    mkdir -p "$dir"
    [ -r "$key" ] && key=" signed-by=$key" || key=
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' | sort -u |
        while read -r uri release component; do
            [ "$component" != main ] || printf 'deb [arch=i386%s] %s %s main\n' "$key" "$uri" "$release"
        done >"$dir/sources.list"
    [ -s "$dir/sources.list" ] || die "apt has no lists of a Debian archive" "apt-get update"
    # One archive that answers badly does not matter while another has what is asked for:
    # apt leaves out what it could not verify.
    apt_i386 apt-get update || printf '%s: not every i386 list could be had\n' "${0##*/}" >&2
    apt_i386 apt-cache show linux-image-686-pae >/dev/null 2>&1 || die "cannot look for i386 packages (offline?)"
    : >"$dir/updated"
}

# apt for bookworm-backports, likewise with lists of its own: a newer kernel than the release has.
apt_backports() {
    local dir=$cache/apt-backports program=$1
    shift
    mkdir -p "$dir"/{lists,archives,sources}/partial
    : >>"$dir/status"
    "$program" -qq -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 -o Dir::State="$dir" \
        -o Dir::State::lists="$dir/lists" -o Dir::State::status="$dir/status" -o Dir::Cache="$dir" \
        -o Dir::Cache::archives="$dir/archives" -o Dir::Etc::SourceList="$dir/sources.list" \
        -o Dir::Etc::SourceParts="$dir/sources" "$@"
}

# From where the release itself comes: an archive that has the suite is asked for it.
update_backports() {
    local dir=$cache/apt-backports uri
    local key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -z "${1:-}" ] && [ -e "$dir/updated" ] && return 0
    mkdir -p "$dir"
    [ -r "$key" ] && key="[signed-by=$key] " || key=
    apt-get indextargets --format '$(REPO_URI) $(SUITE) $(CODENAME)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' |
        awk '$3 == "bookworm" { print $1 }' | sort -u |
        while read -r uri; do printf 'deb %s%s bookworm-backports main\n' "$key" "$uri"; done >"$dir/sources.list"
    [ -s "$dir/sources.list" ] || die "apt has no lists of Debian 12" "apt-get update"
    apt_backports apt-get update || printf '%s: not every list of backports could be had\n' "${0##*/}" >&2
    apt_backports apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || die "cannot look for backports (offline?)"
    : >"$dir/updated"
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

# package PACKAGE [i386|backports]: the folder it is unpacked in, fetched when not there yet. Prints the folder.
package() (
    dir=$cache/pkg/$1${2:+:$2}
    if [ ! -d "$dir" ]; then
        mkdir -p "$cache/pkg"
        tmp=$(mktemp -d "$cache/pkg/.new.XXXXXX")
        trap 'rm -rf "$tmp"' EXIT
        mkdir "$tmp/deb" "$tmp/root"
        if [ -n "${2:-}" ]; then
            log=$(cd "$tmp/deb" && "apt_$2" apt-get download "$1" 2>&1) || die "cannot download $1 for $2"$'\n'"$log"
        else
            download "$tmp/deb" "$1"
        fi
        dpkg-deb -x "$tmp"/deb/*.deb "$tmp/root" || die "cannot unpack $1"
        mv -T "$tmp/root" "$dir"
    fi
    printf '%s\n' "$dir"
)

# resolve_meta PACKAGE [i386|backports]: what a meta package stands for now,
# linux-image-cloud-amd64 -> linux-image-6.1.0-56-cloud-amd64.
resolve_meta() {
    local name
    command -v apt-cache >/dev/null || die "no apt-cache: these recipes take their parts from Debian packages"
    name=$(${2:+"apt_$2"} apt-cache depends --important "$1" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
    [ -n "$name" ] || die "apt knows no package $1" "apt-get update"
    printf '%s\n' "$name"
}
