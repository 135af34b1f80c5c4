#!/bin/bash
# Every project #include has to be allowed by ARCHITECTURE.md's table of rooms.
# Prints the offenders; exit 1 if there is one, 2 if the table cannot be read.
set -eu
cd "$(dirname "$0")/.."
# What git knows or would take; in a tree without it, every source.
sources() {
    git ls-files --cached --others --exclude-standard '*.c' '*.h' 2>/dev/null || find hv hvctl hvtop tests -name '*.[ch]'
}
awk -v list="$(sources | tr '\n' ' ')" '
    function trim(s) { gsub(/^[ `]+|[ `]+$/, "", s); return s }
    /^\| `/ {
        split($0, col, "|"); room = trim(col[2]); allowed[room] = "," col[4] ","; gsub(/ /, "", allowed[room]); rooms++
    }
    # the room of a path: the longest listed folder that holds it
    function room_of(path,   best, r) {
        best = ""
        for (r in allowed) if (index(path, r "/") == 1 && length(r) > length(best)) best = r
        return best
    }
    END {
        if (rooms < 10) { print "rooms.sh: the table in ARCHITECTURE.md was not found"; exit 2 }
        n = split(list, files, " ")
        for (i = 1; i <= n; i++) {
            f = files[i]; from = room_of(f)
            if (from == "") { print f ": lies in no room"; bad = 1; continue }
            if (index(allowed[from], ",anything,")) continue
            line = 0
            while ((getline text < f) > 0) {
                line++
                if (text !~ /^#[ ]*include "/) continue
                sub(/^#[ ]*include "/, "", text); sub(/".*/, "", text)
                to = room_of(text)
                if (to == from || (to == "" && text !~ /\//)) continue
                short = to; sub(/^hv\//, "", short)
                if (to == "" || !index(allowed[from], "," short ",")) {
                    print f ":" line ": " from " may not include " text; bad = 1
                }
            }
            close(f); seen++
        }
        if (!bad) print seen " files, " rooms " rooms: every include is allowed"
        exit bad ? 1 : 0
    }' ARCHITECTURE.md
