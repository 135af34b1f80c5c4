#!/usr/bin/env bash
# Unpack the ELF kernel out of a bzImage: vmlinux.sh BZIMAGE OUT
# Offsets of the payload as in Linux's boot protocol: setup_sects 0x1f1, payload_offset 0x248,
# payload_length 0x24c. LZ4 (legacy frame), xz, gzip and zstd by libarchive's or their own tools.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ $# -eq 2 ] || die "usage: vmlinux.sh BZIMAGE OUT"
word() { od -An -t "u$2" -j "$1" -N "$2" "$image" | tr -d ' '; }
image=$1 out=$2
sects=$(word $((0x1f1)) 1)
off=$(((sects + 1) * 512 + $(word $((0x248)) 4)))
len=$(word $((0x24c)) 4)
tail -c +$((off + 1)) "$image" | head -c $((len - 4)) >"$out.packed" || [ -s "$out.packed" ]
case $(od -An -t x1 -N 4 "$out.packed" | tr -d ' ') in
02214c18) tool=lz4 ;;
fd377a58) tool=xz ;;
1f8b*) tool=gzip ;;
28b52ffd) tool=zstd ;;
*) die "unknown compression of the payload" ;;
esac
command -v "$tool" >/dev/null || die "no $tool" "apt-get install $tool"
"$tool" -dc <"$out.packed" >"$out.tmp" 2>/dev/null || [ -s "$out.tmp" ]
rm -f "$out.packed"
mv "$out.tmp" "$out"
