#!/usr/bin/env bash
# -H ssh://HOST through a real sshd: Debian's, unpacked and not installed, on the loopback interface (as root in
# a network and mount namespace of its own). Ends with "N passed, N failed"; 77 where there is no sshd to be had.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$(readlink -f "${BUILD:-$top/build}")/bin

for program in ssh ssh-keygen ip unshare; do
    command -v "$program" >/dev/null || skip "no $program"
done
lock_cache
server=$(package openssh-server) || skip "no openssh-server"
wrap=$(package libwrap0) || skip "no libwrap0"
nsl=$(package libnsl2) || skip "no libnsl2"
exec 9>&-
if [ "$(id -u)" = 0 ] && [ -z "${SSH_SH_INSIDE:-}" ]; then
    SSH_SH_INSIDE=1 exec unshare -mn --propagation private "$0" "$@"
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/hv-ssh.XXXXXX")
port=2222
end() {
    [ ! -s "$dir/hvd.pid" ] || kill "$(cat "$dir/hvd.pid")" 2>/dev/null || true
    [ ! -s "$dir/sshd.pid" ] || kill "$(cat "$dir/sshd.pid")" 2>/dev/null || true
    rm -rf "$dir"
}
trap end EXIT
mkdir -p "$dir"/{far,near,bin}
chmod 700 "$dir" "$dir/far" "$dir/near"

if [ "$(id -u)" = 0 ]; then
    ip link set lo up
    # sshd wants a user and a folder of its own, and a login that is not locked.
    grep -v '^sshd:' /etc/passwd >"$dir/passwd"
    echo 'sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin' >>"$dir/passwd"
    sed 's/^root:[^:]*:/root:*:/' /etc/shadow >"$dir/shadow"
    mount --bind "$dir/passwd" /etc/passwd
    mount --bind "$dir/shadow" /etc/shadow
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/sshd
fi

ssh-keygen -q -t ed25519 -N '' -f "$dir/host"
ssh-keygen -q -t ed25519 -N '' -f "$dir/key"
ssh-keygen -q -t ed25519 -N '' -f "$dir/other"
cp "$dir/key.pub" "$dir/authorized"
cat >"$dir/sshd_config" <<C
Port $port
ListenAddress 127.0.0.1
HostKey $dir/host
AuthorizedKeysFile $dir/authorized
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
SetEnv PATH=$bin:/usr/bin:/bin XDG_RUNTIME_DIR=$dir/far XDG_STATE_HOME=$dir/far HV_HOST=user
C
LD_LIBRARY_PATH=$wrap/lib/x86_64-linux-gnu:$wrap/usr/lib/x86_64-linux-gnu:$nsl/usr/lib/x86_64-linux-gnu:$nsl/lib/x86_64-linux-gnu \
    "$server/usr/sbin/sshd" -D -e -f "$dir/sshd_config" >"$dir/sshd.log" 2>&1 &
echo $! >"$dir/sshd.pid"

# The client's own configuration, and a name.
cat >"$dir/ssh_config" <<C
Host lab
    IdentityFile $dir/key
Host stranger
    IdentityFile $dir/other
Host lab stranger
    HostName 127.0.0.1
    Port $port
    IdentitiesOnly yes
    UserKnownHostsFile $dir/known
    StrictHostKeyChecking yes
Host unknown
    HostName 127.0.0.1
    Port $port
    UserKnownHostsFile /dev/null
    StrictHostKeyChecking yes
Host nothing
    HostName 127.0.0.1
    Port 1
C
echo "[127.0.0.1]:$port $(cut -d' ' -f1-2 "$dir/host.pub")" >"$dir/known"
printf '#!/bin/sh\nexec %s -F %s "$@"\n' "$(command -v ssh)" "$dir/ssh_config" >"$dir/bin/ssh"
chmod +x "$dir/bin/ssh"
export PATH=$dir/bin:$bin:$PATH XDG_RUNTIME_DIR=$dir/near XDG_STATE_HOME=$dir/near XDG_CONFIG_HOME=$dir/near
unset HV_HOST HV_OUTPUT HV_TIMEOUT SSH_AUTH_SOCK

passed=0 failed=0
# check NAME EXIT-CODE TEXT COMMAND...: the code, and the text somewhere in what it says.
check() {
    local name=$1 want=$2 text=$3 code=0 said
    shift 3
    said=$(timeout 60 "$@" 2>&1 </dev/null) || code=$?
    if [ "$code" = "$want" ] && [[ $said == *"$text"* ]]; then
        passed=$((passed + 1))
        echo "ok: $name"
    else
        failed=$((failed + 1))
        printf 'FAILED: %s: exit %s, wanted %s and "%s"\n%s\n' "$name" "$code" "$want" "$text" "$said"
    fi
}

deadline=$((SECONDS + 20))
until ssh lab true 2>"$dir/first"; do
    [ "$SECONDS" -lt "$deadline" ] || { cat "$dir/first" "$dir/sshd.log"; die "sshd does not let us in"; }
    sleep 0.1
done

head -c 4096 /dev/zero >"$dir/kernel"
check "a VM is created there, by a service that is started there" 0 "web1: created" \
    hvctl -H ssh://lab create web1 --kernel "$dir/kernel"
check "and is not here" 0 "" test ! -e "$dir/near/hv/org.hv.Manager"
check "it is listed" 0 web1 hvctl -H ssh://lab list -o name
check "with its user and port" 0 web1 hvctl -H "ssh://$(id -un)@lab:$port" list -o name
check "an error of the service there" 3 "hvctl: web2: no such VM" hvctl -H ssh://lab show web2
check "hvtop sees it" 0 web1 hvtop -H ssh://lab -b -n 1 -o csv
check "a key that is not known there" 5 "Permission denied" hvctl -H ssh://stranger list
check "a host whose key is not known here" 6 "Host key verification failed" hvctl -H ssh://unknown list
check "nobody listens" 6 "Connection refused" hvctl -H ssh://nothing list
printf 'list -o name\nshow web1 -o name\n' >"$dir/script"
check "a script of several commands" 0 $'web1\nweb1' hvctl -H ssh://lab -f "$dir/script"

# The connection is cut while a call waits: the session's sshd is killed.
hvctl -H ssh://lab wait web1 --for running >"$dir/cut" 2>&1 &
waiting=$!
deadline=$((SECONDS + 20))
until pgrep -P "$(cat "$dir/sshd.pid")" >/dev/null || [ "$SECONDS" -ge "$deadline" ]; do sleep 0.1; done
sleep 1                                 # until the call waits; sooner is the same test
for pid in $(pgrep -P "$(cat "$dir/sshd.pid")"); do kill "$pid" || true; done
code=0
wait "$waiting" || code=$?
check "a connection that is cut is exit 6" 0 "" test "$code" = 6
check "and says so" 0 "hvctl: ssh://lab: " cat "$dir/cut"

began=$(date +%s%N)
for _ in 1 2 3 4 5; do ssh lab true; done
echo "ssh alone: $((($(date +%s%N) - began) / 5000000)) ms"
began=$(date +%s%N)
for _ in 1 2 3 4 5; do hvctl -H ssh://lab list -o name >/dev/null; done
echo "a list through ssh: $((($(date +%s%N) - began) / 5000000)) ms"
hvctl -H ssh://lab remove web1 --yes -q
for pid in $(pgrep -x hvd); do
    if tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qxF "XDG_RUNTIME_DIR=$dir/far"; then echo "$pid" >"$dir/hvd.pid"; fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
