# Runs under bash on the host and in the guest; prints the same in both, or one is wrong.
# Nothing here depends on time, names, processors or chance.
exec 2>&1
data() { perl -e 'my $x = 12345; for (1 .. $ARGV[0]) { $x = ($x * 1103515245 + 12345) & 0x7fffffff; print chr($x >> 16 & 255) }' "$1"; }

data 100000 >/tmp/userland.data
for digest in md5 sha1 sha224 sha256 sha384 sha512 sha512-256 sha3-256 sha3-512 blake2b512 blake2s256 sm3 ripemd160 shake128; do
    printf '%s ' "$digest"
    openssl dgst -r "-$digest" /tmp/userland.data | cut -d' ' -f1
done
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
for cipher in aes-128-cbc aes-192-ctr aes-256-cbc aes-256-ctr aes-256-ofb aes-256-cfb aes-256-ecb aria-256-cbc \
    camellia-256-cbc chacha20 des-ede3-cbc sm4-ctr; do
    case $cipher in *128*|sm4*) k=${key:0:32} ;; *192*|des*) k=${key:0:48} ;; *) k=$key ;; esac
    iv="-iv ${key:0:32}"
    case $cipher in *ecb) iv= ;; des*) iv="-iv ${key:0:16}" ;; esac
    openssl enc "-$cipher" -K "$k" $iv -in /tmp/userland.data -out /tmp/userland.enc
    printf '%s %s ' "$cipher" "$(md5sum </tmp/userland.enc | cut -c1-32)"
    openssl enc -d "-$cipher" -K "$k" $iv -in /tmp/userland.enc | md5sum | cut -c1-32
done
openssl dgst -sha256 -hmac secret -r /tmp/userland.data | cut -d' ' -f1
openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:pw -kdfopt salt:salty -kdfopt iter:2000 PBKDF2
openssl prime -hex FFFFFFFFFFFFFFFFFFFFFFFFFFFFFF61 1FFFFFFFFFFFFFFFFFFFFF
perl -e '
    my ($s, $x) = (0, 0.1);
    for my $i (1 .. 20000) { $x = 3.9 * $x * (1 - $x); $s += sin($x * $i) * exp(-$x) + sqrt($i) + log($i) + atan2($x, $i) + $x ** 1.7 }
    printf "%.17g %.17g %a %e\n", $s, $x, $s, 1 / 3;
    printf "%s %s %s\n", 1e308 * 10, -1e308 * 10, 9**9**9 / 9**9**9 == 1 ? "eq" : "ne";
    printf "%d %d %d %u\n", -7 / 2, 7.99, -7.99, 2**53 + 1;
    printf "%.3f|%10.4e|%g|%g\n", $_, $_, $_, int $_ for 0.0005, 1.5, 2.5, 1e21, -0.0, 4.9e-324, 1.7976931348623157e308;
    my %h; $h{"k" . ($_ * 7919 % 4001)} .= $_ for 1 .. 8000;
    my $t = join ",", map { "$_=$h{$_}" } sort keys %h;
    print length $t, " ", unpack("%32C*", $t), "\n";
    my $n = () = $t =~ /k(\d)\d*\1=(?:\d{2})+(?=,)/g; print "$n matches\n";
    (my $u = $t) =~ s/(\d+)=(\d+)/$2 % 97 . "-" . $1/ge; print unpack("%32C*", $u), "\n";
    my @p = grep { my $v = $_; !grep { $v % $_ == 0 } 2 .. sqrt $v } 2 .. 3000; print scalar @p, " $p[-1]\n";
    print join(" ", unpack("N n C a* ", pack("N n C a*", 4000000000, 65000, 200, "tail"))), "\n";
    my $q = pack("d>f<q>", 3.14159, 2.71828, -5); print unpack("H*", $q), "\n";'
perl -e 'print $_ * 7919 % 20011, " ", chr(97 + $_ % 26) x ($_ % 7), "\n" for 1 .. 20000' >/tmp/userland.lines
sort -n /tmp/userland.lines | md5sum
sort -k2,2 -k1,1nr --parallel=4 /tmp/userland.lines | sha512sum
cut -d' ' -f2 /tmp/userland.lines | sort | uniq -c | sort -rn | head -n 5
tr a-z A-Z </tmp/userland.lines | fold -w 11 | paste - - - | cksum
od -An -tfD -N 256 /tmp/userland.data | md5sum
base64 -w 60 /tmp/userland.data | b2sum
factor 1234567890123456789 18446744073709551557 998244359987710471
for ((i = 0, s = 0; i < 20000; i++)); do ((s = (s * 31 + i) ^ (s >> 7))); done; echo "bash $s"
for i in 1 2 3 4 5 6 7 8; do (echo $((i * i)); exit "$i"); echo "status $?"; done | md5sum
for i in $(seq 1 30); do seq 1 $((i * 50)) | sort -rn | (read -r a; wc -l; echo "$a") & wait $!; done | md5sum
trap 'echo got USR1' USR1; kill -USR1 $$; trap - USR1
! command -v aligncheck >/dev/null || aligncheck
rm -f /tmp/userland.*
echo "end of userland"
