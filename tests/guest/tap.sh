# One line "ok N - what" a test (TAP) for the recipes that boot guests. Sourced with $work set, the folder
# of the logs; in $only, a part of the names of those that are to run.
n=0 bad=0

# check NAME COMMAND...: one test; where it fails, the end of what it said stands below.
check() {
    local name=$1 log began=$SECONDS
    shift
    case $name in *"${only:-}"*) ;; *) return ;; esac
    n=$((n + 1))
    log=$work/$(basename "$0" .sh)-$n.log
    if "$@" >"$log" 2>&1; then
        echo "ok $n - $name ($((SECONDS - began)) s)"
    else
        bad=$((bad + 1))
        echo "not ok $n - $name"
        tail -n 40 "$log" | sed 's/^/# /'
    fi
}

# The last line, and how the script ends: well if there was a test and none failed.
tap_end() {
    echo "1..$n"
    [ "$bad" = 0 ] && [ "$n" -gt 0 ]
}
