#!/usr/bin/env bash
# Bring the parts of the man pages that come from the command table up to date.
#
#   update.sh TOOL           rewrite them; TOOL is a built program (build/bin/hvctl)
#   update.sh --check TOOL   change nothing; say which pages are not up to date, exit 1
#
# In a page, what stands between `.\" @begin NOUN [VERB]` and `.\" @end` is made by
# `TOOL __mdoc NOUN [VERB]` (hv-settings.5: `hvctl __mdoc settings`); write anything but those lines by hand.
set -euo pipefail
check=
[ "${1:-}" != --check ] || { check=1; shift; }
tool=$(readlink -f "${1:?usage: update.sh [--check] TOOL}")
cd "$(dirname "$0")"
name=$(basename "$tool")
bad=0
pages=("$name".[1-8] "$name"-*.[1-8])
[ "$name" != hvctl ] || pages+=(hv-settings.5)
for page in "${pages[@]}"; do
    [ -f "$page" ] || continue
    new=$(while IFS= read -r line; do
        case $line in
        '.\" @begin '*)
            printf '%s\n' "$line"
            # shellcheck disable=SC2086 # noun and verb are two words
            "$tool" __mdoc ${line#'.\" @begin '}
            while IFS= read -r line && [ "$line" != '.\" @end' ]; do :; done
            printf '%s\n' "$line" ;;
        *) printf '%s\n' "$line" ;;
        esac
    done <"$page")
    if [ "$new" = "$(cat "$page")" ]; then
        continue
    elif [ -n "$check" ]; then
        echo "man/$page is not up to date: run man/update.sh"
        bad=1
    else
        printf '%s\n' "$new" >"$page"
        echo "man/$page"
    fi
done
exit $bad
