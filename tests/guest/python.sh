#!/usr/bin/env bash
# Python's own test programs, from Debian's packages, say the same in a guest as on the host,
# test by test: numbers, strings, hashes, compression, processes, threads, signals, files. TAP.
#
#   python.sh [MODULE...]     BUILD names the build folder
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/lib.sh
vmboot=${BUILD:-build}/tests/tools/vmboot
work=${BUILD:-build}/guest/python
[ $# -gt 0 ] || set -- test_math test_cmath test_float test_long test_int test_complex test_struct test_array test_bytes \
    test_unicode test_re test_json.test_float test_json.test_decode test_decimal test_fractions test_random test_hashlib \
    test_hmac test_zlib test_bz2 test_lzma test_binascii test_heapq test_bisect test_sort test_dict test_set test_mmap \
    test_fork1 test_threading_local test_queue test_pipes test_select test_selectors test_posix test_time test_generators
mkdir -p "$work"

# The interpreter and what it links, unpacked side by side: the guest's root and the host's alike.
root=$work/root
if [ ! -e "$root/complete" ]; then
    rm -rf "$root"
    mkdir -p "$root"
    for p in libc6 libgcc-s1 libcrypt1 libexpat1 zlib1g libbz2-1.0 liblzma5 libffi8 libssl3 libuuid1 libtinfo6 libncursesw6 \
        libreadline8 libsqlite3-0 libdb5.3 libnsl2 libtirpc3 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libcom-err2 \
        libkrb5support0 libkeyutils1 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libpython3.11-testsuite \
        bash dash coreutils libselinux1 libpcre2-8-0 libacl1 libattr1 libgmp10; do
        dir=$(lock_cache && package "$p") || die "no package $p"
        cp -a "$dir/." "$root/" || exit 1
    done
    ln -sfn dash "$root/bin/sh"
    mkdir -p "$root"/{tmp,proc,dev,etc}
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    touch "$root/complete"
fi

# One line a test: its name and how it ended. Durations and addresses are left out.
cat >"$root/run" <<'RUN'
import os, sys, unittest
import test.support
test.support.use_resources = set()      # no network, no sound, no hours
os.chdir("/tmp")
os.environ.update(HOME="/tmp", LC_ALL="C.UTF-8", TMPDIR="/tmp")
class Result(unittest.TestResult):
    def say(self, test, word):
        print(test.id(), word, file=out, flush=True)
    def addSuccess(self, test): self.say(test, "ok")
    def addFailure(self, test, err): self.say(test, "FAILED")
    def addError(self, test, err): self.say(test, "ERROR")
    def addSkip(self, test, why): self.say(test, "skipped")
    def addExpectedFailure(self, test, err): self.say(test, "expected failure")
    def addUnexpectedSuccess(self, test): self.say(test, "UNEXPECTED")
out = sys.stdout
sys.stdout = open(os.devnull, "w")      # what tests print of their own
for name in sys.argv[1:]:
    try:
        unittest.defaultTestLoader.loadTestsFromName("test." + name).run(Result())
    except unittest.SkipTest:
        print(name, "skipped", file=out)
print("end of python", file=out)
RUN

# Started from a background job or not: signals are as at login.
run='/usr/bin/env -i --default-signal PATH=/usr/bin:/bin LC_ALL=C.UTF-8 PYTHONHASHSEED=1 /usr/bin/python3.11 -W ignore /run-tests'
cp "$root/run" "$root/run-tests"
host() { # in the same root: as root by chroot, else in a namespace of one's own
    local inside="mount -t proc proc $root/proc && mount -t tmpfs tmpfs $root/tmp && mount --rbind /dev $root/dev && exec chroot $root $run $*"
    if [ "$(id -u)" = 0 ]; then unshare -m -p -f sh -c "$inside"; else unshare -r -m -p -f sh -c "$inside"; fi
}
host "$@" 2>/dev/null </dev/null >"$work/host.txt"
grep -q '^end of python' "$work/host.txt" || { tail -n 5 "$work/host.txt"; echo "not ok 1 - python's tests on the host"; echo 1..1; exit 1; }
printf '# %d tests, %d did not pass on the host itself\n' "$(wc -l <"$work/host.txt")" "$(grep -cE ' (FAILED|ERROR|UNEXPECTED)$' "$work/host.txt")"

# The guest: that root as a second archive, unpacked by the kernel under /root-python.
tests/guest/mkinitrd.sh -k cloud -f tests/guest/complaints.sh:bin/complaints "$work/initrd" || exit 1
(cd "$work" && find root | sed 's|^root|root|' | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$work/initrd-root"
cat "$work/initrd" "$work/initrd-root" >"$work/initrd-both"
want=$(sha256sum <"$work/host.txt" | cut -c1-64)
"$vmboot" --timeout 1500s --kernel "$cache/vmlinuz-cloud" --initrd "$work/initrd-both" --memory 3G --cpus 2 \
    --cmdline 'console=ttyS0 quiet' --until 'demo:~# ' \
    --send 'cd /; mount -t proc proc /root/proc; mount -t tmpfs tmpfs /root/tmp; mount -t devtmpfs dev /root/dev' \
    --send "chroot /root $run $* </dev/null 2>/dev/null >/out; sha256sum </out; cat /out; echo guest\"\" is done" \
    --until 'guest is done' --send complaints --until 'kernel is quiet' --send poweroff --off >"$work/guest.log" 2>&1
rc=$?
tr -d '\r' <"$work/guest.log" | sed -n '/ [-]$/,$p' | grep -E '^[a-z_.A-Z0-9]+ .*|^end of' | grep -E ' (ok|FAILED|ERROR|skipped|expected failure|UNEXPECTED)$|^end of python' >"$work/guest.txt"
if [ $rc = 0 ] && grep -q "$want" "$work/guest.log"; then
    echo "ok 1 - python's tests: the guest's $(wc -l <"$work/host.txt") results are the host's"
else
    diff "$work/host.txt" "$work/guest.txt" | head -n 30 | sed 's/^/# /'
    tail -n 5 "$work/guest.log" | sed 's/^/# /'
    echo "not ok 1 - python's tests: the guest's results are the host's"
    rc=1
fi
echo 1..1
exit $rc
