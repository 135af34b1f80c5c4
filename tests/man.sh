#!/usr/bin/env bash
# Every man page is clean for mandoc's linter.
set -uo pipefail
cd "$(dirname "$0")/.."
bad=0 good=0
for page in man/*.[1-8]; do
    if out=$(mandoc -T lint -W warning "$page" 2>&1) && [ -z "$out" ]; then
        good=$((good + 1))
    else
        printf '%s\n' "$out"
        bad=$((bad + 1))
    fi
done
echo "man: $good passed, $bad failed"
[ "$bad" = 0 ] && [ "$good" -gt 0 ]
