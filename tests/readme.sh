#!/usr/bin/env bash
# The README's list of what the grammar has and this version lacks comes from hvctl's own
# command table.
#
#   readme.sh [--check] HVCTL     rewrite the part between the markers, or exit 1 if it differs
set -euo pipefail
cd "$(dirname "$0")/.."
check=
[ "${1:-}" != --check ] || { check=1; shift; }
hvctl=${1:?usage: readme.sh [--check] HVCTL}
begin='<!-- from hvctl'\''s command table: tests/readme.sh -->' end='<!-- end -->'

later() {
    "$hvctl" __dump | jq -r '
        def join_or($s): if length == 0 then empty else join(", ") | $s + . + "." end;
        ([.nouns[] | select(.later) | "`\(.name)`"] | join_or("Nouns: ")),
        ([.nouns[] | select(.later | not) | .commands[] | select(.later and (.hidden | not)) | "`\(.noun) \(.verb)`"]
            | unique | join_or("\nVerbs: ")),
        ([.nouns[] | select(.later | not) | .commands[] | select(.later | not) | .noun as $n | .verb as $v
            | .options[] | select(.later and (.universal | not)) | "`\($n) \($v) --\(.name)`"]
            | unique | join_or("\nOptions: "))' | fold -s -w 100 | sed 's/ *$//'
}

tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT
grep -qF "$begin" README.md || { echo "readme.sh: README.md has no marker" >&2; exit 1; }
{
    sed "/^$(sed 's/[.*\/]/\\&/g' <<<"$begin")\$/q" README.md
    later
    sed -n "/^$end\$/,\$p" README.md
} >"$tmp"
if [ -n "$check" ]; then
    diff -u README.md "$tmp" || { echo "readme.sh: run tests/readme.sh $hvctl" >&2; exit 1; }
else
    cat "$tmp" >README.md
fi
