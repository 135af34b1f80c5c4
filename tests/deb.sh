#!/usr/bin/env bash
# Debian packages: they build from a clean copy of the tree, lintian finds no error, they hold what
# they have to, and, under root, install and remove without a trace but the group.
set -uo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/tmp}/hv-deb-XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
check() {
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n%s\n' "$name" "$(tail -n 30 <<<"$out")"
    fi
}

build() { (cd "$work/hv" && dpkg-buildpackage -b -us -uc -j"$(nproc)"); }
holds() {
    local f
    dpkg -c "$work"/hv_*.deb | awk '{print $6}' >"$work/list"
    for f in usr/bin/hvctl usr/libexec/hv/hvd usr/libexec/hv/hv-worker lib/systemd/system/hvd.service \
        lib/systemd/system/hv-guests.service usr/lib/sysusers.d/hv.conf usr/lib/tmpfiles.d/hv.conf \
        usr/share/man/man8/hvd.8.gz usr/share/bash-completion/completions/hvctl; do
        grep -qx "./$f" "$work/list" || { echo "not in the package: $f"; return 1; }
    done
}
# The build needs what `make deps` installs, and says so.
build_depends() {
    local d
    for d in $(make -s -f - print <<'MK'
include Makefile
print: ; @echo $(filter-out libc6-dev,$(filter %-dev,$(DEPS)))
MK
    ); do
        grep -q "^ *$d,\?\$" debian/control || { echo "debian/control does not build-depend on $d"; return 1; }
    done
}
same_version() { [ "$(sed -n 's/^VERSION *:= *//p' Makefile)" = "$(dpkg-parsechangelog -S Version)" ]; }

# In a copy of this host that is thrown away. Maintainer scripts leave the group, and dpkg and systemd their own notes.
install_and_remove() {
    unshare -m bash -euc '
        mount -t tmpfs none "$1/mnt"
        mkdir "$1"/mnt/{upper,work,root}
        mount -t overlay none -o lowerdir=/,upperdir="$1/mnt/upper",workdir="$1/mnt/work" "$1/mnt/root"
        root=$1/mnt/root
        mount -t proc proc "$root/proc"
        mount --bind /dev "$root/dev"
        cp "$1"/hv_*.deb "$root/hv.deb"
        left() { (cd "$1/mnt/upper" && find . -type f -o -type l | grep -vE "^\./(hv\.deb|var/(lib/(dpkg|systemd|ucf)|cache|log)/|etc/(group|gshadow|passwd|shadow)-?$|etc/\.pwd\.lock$|root/|tmp/|run/systemd/)" | sort); }
        chroot "$root" env DEBIAN_FRONTEND=noninteractive dpkg -i /hv.deb
        chroot "$root" hvctl --version
        chroot "$root" getent group hv
        [ -L "$root/etc/systemd/system/multi-user.target.wants/hvd.service" ]
        [ -L "$root/etc/systemd/system/multi-user.target.wants/hv-guests.service" ]
        chroot "$root" systemd-analyze verify hvd.service hv-guests.service
        chroot "$root" dpkg -P hv
        ! chroot "$root" sh -c "command -v hvctl"
        left "$1" >"$1/left"
        ! grep . "$1/left"
    ' - "$work"
}

mkdir "$work/hv" "$work/mnt"
{ git ls-files -z --cached --others --exclude-standard 2>/dev/null || find . -type f -print0; } | xargs -0 cp --parents -t "$work/hv"
check "versions agree" same_version
check "build dependencies" build_depends
check "dpkg-buildpackage" build
check "lintian" lintian --fail-on error --suppress-tags bad-distribution-in-changes-file "$work"/hv_*.changes
check "contents" holds
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
    check "installs and removes" install_and_remove
fi
echo "deb: $passed passed, $failed failed"
[ "$failed" = 0 ]
