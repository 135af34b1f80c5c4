#!/usr/bin/env bash
# The README's list of what the grammar has and this version lacks comes from the tools' own
# command tables.
#
#   readme.sh [--check] HVCTL     rewrite the part between the markers, or exit 1 if it differs;
#                                 the other tools lie beside HVCTL
set -euo pipefail
cd "$(dirname "$0")/.."
check=
[ "${1:-}" != --check ] || { check=1; shift; }
hvctl=${1:?usage: readme.sh [--check] HVCTL}
begin='<!-- from the command tables: tests/readme.sh -->' end='<!-- end -->'

# Of all three tools, as lines "Nouns<TAB>`net`"; what is not hvctl's is named with its tool.
words() {
    local tool
    for tool in hvctl vhdtool hvtop; do
        "$(dirname "$hvctl")/$tool" __dump | jq -r --arg tool "$tool" '
            def name($words): ([(if $tool == "hvctl" or $words[0] == $tool then empty else $tool end)] + $words
                | map(select(.)) | join(" "));
            def built: select(.later | not);
            (.nouns[] | select(.later) | "Nouns\t" + name([.name])),
            (.nouns[] | built | .commands[] | select(.later and (.hidden | not)) | "Verbs\t" + name([.noun, .verb])),
            (.nouns[] | built | .commands[] | built | . as $c | .options[] | select(.universal | not)
                | if .later then "Options\t" + name([$c.noun, $c.verb, "--" + .name])
                  elif .later_values then .name as $o | .later_values / "|" | .[]
                      | "Values\t" + name([$c.noun, $c.verb, "--" + $o, .])
                  else empty end)'
    done
}

# A paragraph for each kind. Nouns as the grammar has them, the rest by name.
later() {
    local kind all
    all=$(words)
    for kind in Nouns Verbs Options Values; do
        [ "$kind" = Nouns ] || echo
        sed -n "s/^$kind\t//p" <<<"$all" | { [ "$kind" = Nouns ] && cat || LC_ALL=C sort -u; } |
            jq -Rrn --arg kind "$kind" '$kind + ": " + ([inputs | "`\(.)`"] | join(", ")) + "."' | fold -s -w 100 | sed 's/ *$//'
    done
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
