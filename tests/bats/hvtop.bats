#!/usr/bin/env bats
# hvtop in a real terminal (tmux): golden screens from a recording, every key, the way back.
# HV_GOLDEN=write writes the golden screens anew.
load helper

setup_file() {
    export TZ=UTC XDG_CONFIG_HOME=$BATS_FILE_TMPDIR/config
    "$BIN/../tests/tools/hvrec_make" --scene "$BATS_FILE_TMPDIR/one.hvrec" 1
    "$BIN/../tests/tools/hvrec_make" --scene "$BATS_FILE_TMPDIR/two.hvrec" 2
    start_service
    local v
    for v in alpha beta gamma; do hvctl create $v --kernel "$(some_kernel)" --memory 256M -q; done
    hvctl memory set beta --dynamic on --min 128M --max 1G -q
}
teardown_file() { stop_service; }

setup() { TMUX_SOCKET=$BATS_TEST_TMPDIR/tmux; }
teardown() { tm kill-server 2>/dev/null || true; }

tm() { tmux -S "$TMUX_SOCKET" -u -f /dev/null "$@"; }

# open WxH COMMAND: in a terminal of that size; its exit code is written to rc.
open() {
    rm -f "$BATS_TEST_TMPDIR/rc"
    tm new-session -d -x "${1%x*}" -y "${1#*x}" "$2; echo \$? >$BATS_TEST_TMPDIR/rc; exec sleep 1000"
}
shown() { tm capture-pane -p; }
keys() { tm send-keys "$@"; }

# see TEXT: wait until the screen has it. see -n: until it has not.
see() {
    local want=1 deadline=$((SECONDS + 20))
    [ "$1" != -n ] || { want=0; shift; }
    until [ "$(shown | grep -cF -- "$1" | sed 's/[1-9][0-9]*/1/')" = $want ]; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            printf 'waited for %s: %s\n' "$want" "$1"
            shown
            return 1
        fi
        sleep 0.05
    done
}
# The exit code of what open started.
ended() {
    local deadline=$((SECONDS + 20))
    until [ -s "$BATS_TEST_TMPDIR/rc" ]; do
        [ "$SECONDS" -lt "$deadline" ] || { shown; return 1; }
        sleep 0.05
    done
    cat "$BATS_TEST_TMPDIR/rc"
}

# golden NAME [-e]: the screen is, or soon will be, as it was written down; -e: with its colours.
golden() {
    local file=$TOP/tests/bats/hvtop/$1.txt deadline=$((SECONDS + 10)) screen=$BATS_TEST_TMPDIR/screen version before=
    version=$(hvtop --version | cut -d' ' -f2)
    [ "${HV_GOLDEN:-}" != write ] || deadline=0
    while :; do
        tm capture-pane -p ${2:+"$2"} | sed "s/[[:space:]]*\$//; s/\b$version\b/0.1.0/" >"$screen"
        if [ "$deadline" != 0 ]; then
            if cmp -s "$file" "$screen" || [ "$SECONDS" -ge "$deadline" ]; then break; fi
        else                              # written down: when it has stood still for a moment
            [ "$before" != "$(cat "$screen")" ] || break
            before=$(cat "$screen")
            sleep 0.4
        fi
        sleep 0.05
    done
    if [ "${HV_GOLDEN:-}" = write ]; then
        mkdir -p "$(dirname "$file")"
        cp "$screen" "$file"
    fi
    diff -u "$file" "$screen"
}
replay() { echo "hvtop --replay $BATS_FILE_TMPDIR/$1.hvrec --from-time 23:20:06 --speed 0"; }

# ---- screens from a recording ----

@test "hvtop: golden screens: one host at 80x24, in every screen" {
    open 80x24 "$(replay one)"
    see "replay  23:20:06"; golden memory-80x24
    keys 2; see "[2 CPU]"; golden cpu-80x24
    keys 3; see "[3 Disk]"; golden disk-80x24
    keys 5; see "Balancer"; golden host-80x24
    keys 6; see "[6 Events]"; golden events-80x24
    keys 1 Enter; see "> ci-runner"; golden detail-80x24
    keys Tab; see "of all its processors"; golden detail-cpu-80x24
    keys Escape; see "[1 Memory]"
    keys '?'; see "help: Esc"; golden help-80x24
}

@test "hvtop: golden screens: ASCII" {
    open 80x24 "$(replay one) --ascii"
    see "replay  23:20:06"; golden memory-80x24-ascii
    keys Enter; see "> ci-runner"; golden detail-80x24-ascii
    [ -z "$(shown | LC_ALL=C tr -d '\n\40-\176')" ]
}

@test "hvtop: a locale without UTF-8, and TERM=linux, get ASCII" {
    open 80x24 "LC_ALL=C $(replay one)"
    see "replay  23:20:06"; golden memory-80x24-ascii
    tm kill-server; sleep 0.2
    open 80x24 "TERM=linux $(replay one)"
    see "replay  23:20:06"; golden memory-80x24-ascii
}

@test "hvtop: golden screens: two hosts at 160x45" {
    open 160x45 "$(replay two)"
    see "2 hosts up"; golden memory-160x45
    keys Enter; see "> ci-runner"; golden detail-160x45
    keys Escape; keys 5; see "vmhost2  Linux"; golden host-160x45
}

@test "hvtop: golden screens: every size, UTF-8 and ASCII, colour and mono" {
    local chars look size w
    for chars in utf8 ascii; do
        for look in colour mono; do
            w="$(replay one)"
            [ $chars = utf8 ] || w+=" --ascii"
            [ $look = colour ] || w="NO_COLOR=1 $w"
            open 80x24 "TERM=screen $w"
            see "23:20:06"
            for size in 160x45 40x10 20x5 80x24; do
                tm resize-window -x "${size%x*}" -y "${size#*x}"
                # What only this size has: the wide header, cut names, no header, the usual one.
                case $size in
                160x45) see "1 host up" ;;
                40x10) see "[1 Memory]"; see -n "BUF/WANT" ;;
                20x5) see -n "[1 Memory]" ;;
                80x24) see "BUF/WANT" ;;
                esac
                golden "look/memory-$size-$chars-$look" -e
            done
            keys Enter; see "> ci-runner"
            golden "look/detail-80x24-$chars-$look" -e
            tm kill-server; sleep 0.2
        done
    done
}

@test "hvtop: golden screens: small windows" {
    local size
    for size in 40x10 38x8 20x5 20x2 5x1 120x3; do
        open $size "$(replay one)"
        see "ci-r"; golden memory-$size
        tm kill-server; sleep 0.2
    done
}

@test "hvtop: resized while it draws, in every screen and dialog" {
    open 80x24 "$(replay two)"
    see "ci-runner"
    local key
    for key in 1 2 3 5 6 Enter '?' s f / ; do
        keys $key
        tm resize-window -x 40 -y 10; tm resize-window -x 160 -y 45; tm resize-window -x 10 -y 3; tm resize-window -x 100 -y 30
        keys Escape
    done
    keys Escape Escape 1
    see "[1 Memory]"
    see "sql-a"
    keys q
    [ "$(ended)" = 0 ]
}

@test "hvtop: colour only repeats what marks say, and NO_COLOR is obeyed" {
    open 80x24 "TERM=screen $(replay one)"
    see "!!ci-runner"
    tm capture-pane -p -e | grep -F '!!' | grep -q $'\033\\[3[1-7]m'
    tm kill-server; sleep 0.2
    open 80x24 "TERM=screen NO_COLOR=1 $(replay one)"
    see "!!ci-runner"
    run ! grep $'\033\\[[0-9;]*3[1-7]m' <<<"$(tm capture-pane -p -e)"
    tm capture-pane -p -e | grep -F '!!' | grep -q $'\033\\[7m'
}

@test "hvtop: themes" {
    local theme
    for theme in default mono high-contrast safe light; do
        open 80x24 "TERM=screen $(replay one) --theme $theme"
        see "!!ci-runner"
        keys q
        [ "$(ended)" = 0 ]
        tm kill-server; sleep 0.2
    done
    run -2 --separate-stderr hvtop --theme pink
}

# ---- replay ----

@test "hvtop: replay: steps, events, times, speed, end" {
    open 80x24 "$(replay one)"
    see "23:20:06"
    keys Left Left; see "replay  23:20:02"
    keys Right; see "replay  23:20:04"
    keys b; see "go to"; keys '23:16' Enter; see "replay  23:16:00"
    keys n; see "23:17:08"
    keys b; keys '1m' Enter; see "23:16:08"
    keys b; keys 'soon' Enter; see "no time"
    keys Space; see "replay x1"
    keys ']'; see "replay x2"
    keys '[' '['; see "replay x1"
    keys ']' ']' ']' ']' ']'; see "end  23:20:06"
    keys Home; keys q
    [ "$(ended)" = 0 ]
}

@test "hvtop: replay: where it begins" {
    local t want
    while read -r t want; do
        run -0 bash -c "hvtop --replay '$BATS_FILE_TMPDIR/one.hvrec' --from-time $t -b -o csv -c time --no-header | head -n 1"
        [ "$output" = "2026-11-20T${want}Z" ]
    done <<'END'
23:18 23:18:00
23:18:30 23:18:30
2026-11-20T23:19 23:19:00
10s 23:19:56
1h 23:15:08
END
    open 80x24 "hvtop --replay $BATS_FILE_TMPDIR/one.hvrec --from-time 23:18:30 --speed 0"
    see "23:18:30"
}

@test "hvtop: replay: the sample that ships with it" {
    open 100x30 "hvtop --replay --sample"
    see "60 VMs: 60 running"
    keys q
    [ "$(ended)" = 0 ]
}

@test "hvtop: replay: what is no recording" {
    echo hello >"$BATS_TEST_TMPDIR/x"
    run -1 --separate-stderr hvtop --replay "$BATS_TEST_TMPDIR/x"
    expect_error "hvtop: $BATS_TEST_TMPDIR/x: is no recording of hvtop"
    run -3 --separate-stderr hvtop --replay "$BATS_TEST_TMPDIR/nothing"
    run -2 --separate-stderr hvtop --replay
    expect_error "hvtop: --replay: a file is missing" "hvtop --replay FILE, or hvtop --replay --sample"
    run -2 --separate-stderr hvtop --sample
    run -2 --separate-stderr hvtop --replay --sample -H user
    run -2 --separate-stderr hvtop --replay "$BATS_FILE_TMPDIR/one.hvrec" --from-time noon
}

# ---- live: keys ----

# every_key WHERE: presses what the key table of hvtop has for WHERE (live, replay), and sees what the table below
# says: KEY;keys before;what is seen then (-TEXT: what is not);keys back. A key without a line fails.
every_key() {
    local where=$1 c key prepare want back missing=
    declare -A line
    while IFS=';' read -r key prepare want back; do
        line[$key]="$prepare;$want;$back"
    done
    while read -r c; do
        case $c in
        TOP_KEY_PAGE_UP) key=PageUp ;;
        TOP_KEY_PAGE_DOWN) key=PageDown ;;
        TOP_KEY_BACK_TAB) key=BTab ;;
        TOP_KEY_ESC) key=Escape ;;
        TOP_KEY_*) key=${c#TOP_KEY_}; key=${key:0:1}${key,,}; key=${key:0:1}${key:2} ;;
        "' '") key=Space ;;
        *) key=${c:1:1} ;;
        esac
        if [ -z "${line[$key]:-}" ]; then
            missing+=" $key"
            continue
        fi
        IFS=';' read -r prepare want back <<<"${line[$key]}"
        # shellcheck disable=SC2086 # several keys
        [ -z "$prepare" ] || keys $prepare
        keys "$key"
        if [ "${want:0:1}" = - ]; then see -n "${want:1}"; else see "$want"; fi || { echo "key $key"; return 1; }
        # shellcheck disable=SC2086
        [ -z "$back" ] || keys $back
    done < <(if [ "$where" = live ]; then grep -v ONLY_REPLAY "$TOP/hvtop/keys.c"; else grep -v ONLY_LIVE "$TOP/hvtop/keys.c"; fi |
        sed -nE "s/^    \{(TOP_KEY_[A-Z0-9_]+|'.'), .*/\1/p" | awk '!seen[$0]++')
    [ -z "$missing" ] || { echo "keys without a test:$missing"; return 1; }
}

@test "hvtop: live: every key of its table" {
    open 100x24 "EDITOR=true hvtop"
    see "3 VMs: 0 running, 3 off"
    see ">  alpha"
    every_key live <<'END'
Enter;;> alpha;Escape
Escape;/ g a m Enter;-filter:;
k;G;>  beta;g
j;g;>  beta;g
Up;G;>  beta;g
Down;g;>  beta;g
PageUp;G;>  alpha;
PageDown;g;>  gamma;
Home;;>  alpha;
g;G;>  alpha;
End;;>  gamma;
G;g;>  gamma;
1;2;[1 Memory];
2;;[2 CPU];
3;;[3 Disk];
4;;networks: not in this version;
5;;Balancer  off;
6;;beta: created;1
Tab;;[2 CPU];1
BTab;;[6 Events];1
/;;filter:;g a m Escape
s;;sort by: Enter;Home j Enter
<;;sorted by uptime_s;
>;;sorted by name;
r;;by NAME reversed;r
f;;columns: Space;Escape
w;;written to;
t;;grouped by host;t t
#;;-CPU ▕;#
Space;g;*  alpha;
u;;-*  alpha;
z;;span 1h;z z z
Left;;off    -;End
Right;Left Left;off    -;End
d;;sample every: 2s;Escape
p;;paused;p
.;;by NAME;
m;;memory of;Escape
S;g;start alpha? y/n;n
T;;stop alpha? y/n;n
R;;restart alpha? y/n;n
c;;[Return goes back to hvtop];Enter
e;;[Return goes back to hvtop];Enter
x;;checkpoints: not in this version;
:;;:hvctl;Escape
?;;help: Esc;Escape
F1;;help: Esc;Escape
q;;-q quit;
END
    [ "$(ended)" = 0 ]
    rm "$XDG_CONFIG_HOME/hv/hvtop.conf"
}

@test "hvtop: replay: every key of its table" {
    open 100x24 "$(replay one)"
    see "replay  23:20:06"
    every_key replay <<'END'
Enter;;> ci-runner;Escape
Escape;/ w e b Enter;-filter:;
k;G;>  win-ad;g
j;g;> !db1;g
Up;g j;>!!ci-runner;
Down;g;> !db1;g
PageUp;G;>!!ci-runner;
PageDown;g;>  build-old;
Home;;>!!ci-runner;
g;G;>!!ci-runner;
End;;>  build-old;
G;g;>  build-old;g
1;2;[1 Memory];
2;;[2 CPU];
3;;[3 Disk];
4;;networks: not in this version;
5;;Balancer  short;
6;;build-old: job 318;1
Tab;;[2 CPU];1
BTab;;[6 Events];1
/;;filter:;w e b Escape
s;;sort by: Enter;Home j Enter
<;;sorted by uptime_s;
>;;sorted by name;
r;;by NAME reversed;r
f;;columns: Space;Escape
w;;written to;
t;;grouped by host;t t
#;;-CPU ▕;#
u;;build-old;
z;;span 1h;z z z
Left;;replay  23:20:04;
Right;;replay  23:20:06;
p;;replay;p
Space;b 1 m Enter;replay x1;Space
[;Space ];replay x1  23;Space
];Space;replay x2;Space
b;;go to;2 3 : 1 6 Enter
n;;23:17:08;
?;;help: Esc;Escape
F1;;help: Esc;Escape
q;;-q quit;
END
    [ "$(ended)" = 0 ]
    rm "$XDG_CONFIG_HOME/hv/hvtop.conf"
}

@test "hvtop: live: filters, groups, marks" {
    hvctl group create duo -q
    hvctl group add duo alpha gamma -q
    open 80x24 hvtop
    see "3 VMs: 0 running, 3 off"
    keys /; keys gam; see "filter: gam"; see -n "alpha  "; keys Escape; see "alpha"
    keys /; keys 'state=off' Enter; see "filter: state=off"; keys Escape; see -n "filter:"
    keys t t; see "grouped by group"; see "▾ duo   2 VMs"; see "▾ in no group   1 VM "
    keys t; see "not grouped"; see -n "▾"
    keys g Space Space u; see -n "*  "
    keys q
    [ "$(ended)" = 0 ]
    hvctl group remove duo -q
}

@test "hvtop: live: delay, pause, sample, back in time" {
    open 80x24 "hvtop -d 5s"
    see "every 5s"
    keys d; see "sample every: 5s"; keys C-u 300ms Enter; see "every 300ms"
    keys d; keys C-u 3 Enter; see "needs a unit"; keys Escape
    keys p; see "paused"; keys p; see -n "paused"
    # Paused it stands still; a sample that is asked for comes all the same.
    keys p; see "paused"
    hvctl create late --kernel "$(some_kernel)" --memory 64M -q
    sleep 0.7; run ! grep -q late <<<"$(shown)"
    keys .; see "   late"; see "paused"
    hvctl remove late --yes -q
    keys p; see -n "   late"
    # Looking back, the moment stands still while time goes on.
    keys Left Left Left; see "off    -6s"; see "off    -9s"; keys Right; see "off    -7s"; keys End; see -n "off    -"
    keys q
    [ "$(ended)" = 0 ]
}

@test "hvtop: live: commands, and what they print" {
    open 80x24 hvtop
    see ">  alpha"
    keys ':' ; keys 'memory list -c name,startup' Enter; see "hvctl memory list"; see "STARTUP"; keys Escape; see -n "STARTUP"
    keys ':' ; keys 'vm set % --notes hello' Enter; see "notes"
    [ "$(hvctl show alpha -o json | jq -r .notes)" = hello ]
    keys ':' ; keys 'nonsense' Enter; see "there is no 'nonsense'"; keys Escape
    keys ':' ; keys 'memo' Tab; see ":hvctl memory"; keys Escape
    keys ':' ; keys 'st' Tab; see "start  stop  stats"; keys Escape
    keys ':' ; keys 'remove %' Enter; see "needs --yes"; keys Escape
    hvctl create "zz'b" --kernel "$(some_kernel)" --memory 64M -q
    keys ':' ; keys 'show zz' Tab; see ":hvctl show 'zz'\\''b'"; keys Enter; see "zz'b  "; see "state:"; keys Escape
    hvctl remove "zz'b" --yes -q
    keys ':' ; keys 'events' Enter; keys C-c; see "Return goes back"; keys Enter; see ">  "
    keys q
    [ "$(ended)" = 0 ]
}

@test "hvtop: live: the memory form" {
    open 80x24 hvtop
    see ">  alpha"
    keys j m; see "memory of beta"; see "it is not balanced now"
    keys Tab Tab C-u 2G; see "it is not balanced"
    keys C-u 5; see "a size needs a unit"
    keys C-u 2G Enter; see "max 1.0G -> 2.0G"
    [ "$(hvctl memory show beta -o json | jq .memory.max)" = 2147483648 ]
    keys m Enter; see "nothing changed"
    keys m Escape q
    [ "$(ended)" = 0 ]
}

@test "hvtop: live: what changes things asks, and is off under --read-only" {
    open 80x24 hvtop
    see ">  alpha"
    keys T; see "stop alpha? y/n"; keys n; see "left as it is"
    keys Space Space T; see "stop alpha, beta? y/n"; keys y; see "stop --no-wait -- alpha beta: done"
    keys q
    [ "$(ended)" = 0 ]
    tm kill-server; sleep 0.2
    open 80x24 "hvtop --read-only"
    see ">  alpha"
    local key
    for key in S T R m c e :; do keys $key; see "read-only"; keys Escape; done
    keys q
    [ "$(ended)" = 0 ]
}

@test "hvtop: the layout is written and read" {
    open 100x24 "hvtop --theme safe"
    see ">  alpha"
    keys s Home; keys j Enter w; see "written to"
    keys q
    [ "$(ended)" = 0 ]
    grep -qx 'theme = safe' "$XDG_CONFIG_HOME/hv/hvtop.conf"
    grep -qx 'memory.sort = name' "$XDG_CONFIG_HOME/hv/hvtop.conf"
    tm kill-server; sleep 0.2
    open 100x24 hvtop
    see "by NAME"
    echo 'colour = blue' >>"$XDG_CONFIG_HOME/hv/hvtop.conf"
    run -2 --separate-stderr hvtop -b -n 1
    [[ $stderr == *"hvtop.conf:"*"no such key"* ]]
    local bad
    for bad in 'delay = 0' 'delay = 2h' 'memory.sort =' 'theme = pink' 'span = 7m' nonsense; do
        echo "$bad" >"$XDG_CONFIG_HOME/hv/hvtop.conf"
        run -2 --separate-stderr hvtop -b -n 1
        [[ $stderr == "hvtop: $XDG_CONFIG_HOME/hv/hvtop.conf:1: "* ]]
    done
    rm "$XDG_CONFIG_HOME/hv/hvtop.conf"
}

# mouse BUTTON COLUMN ROW: as a terminal reports it (X10), from 0.
mouse() { tm send-keys -H 1b 5b 4d "$(printf %x $((32 + $1)))" "$(printf %x $((33 + $2)))" "$(printf %x $((33 + $3)))"; }

@test "hvtop: mouse: rows, headers, wheel" {
    open 80x24 "TERM=screen hvtop"
    see ">  alpha"
    mouse 0 5 8; mouse 3 5 8; see ">  gamma"
    mouse 64 5 8; see ">  alpha"
    mouse 65 5 8; see ">  gamma"
    mouse 0 4 5; mouse 3 4 5; see "by NAME"
    mouse 0 5 7; mouse 3 5 7; see ">  beta"
    mouse 0 5 7; mouse 3 5 7; see "> beta"
    keys q
    [ "$(ended)" = 0 ]
    tm kill-server; sleep 0.2
    open 80x24 "TERM=screen hvtop --no-mouse"
    see ">  alpha"
    [ "$(tm display-message -p '#{mouse_any_flag}')" = 0 ]
}

# ---- the service comes and goes ----

@test "hvtop: says that the service is gone, and goes on when it is back" {
    open 80x24 "hvtop -d 200ms"
    see ">  alpha"
    kill "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    see "trying again"
    see ">? alpha"
    start_service
    see -n "trying again"
    see ">  alpha"
    keys q
    [ "$(ended)" = 0 ]
}

@test "hvtop: a service that says nothing is stale after three delays, and comes back" {
    open 80x24 "hvtop -d 300ms"
    see ">  alpha"
    kill -STOP "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    see ">? alpha"
    see "? 3s"                                  # the age goes on though no sample comes
    keys j; see ">? beta"
    kill -CONT "$(cat "$BATS_FILE_TMPDIR/hvd.pid")"
    see ">  beta"; see "   alpha"
    keys q
    [ "$(ended)" = 0 ]
}

@test "hvtop: a host that is not there: exit 6; beside one that is: a line" {
    HV_HOST=$BATS_TEST_TMPDIR/nobody run -6 --separate-stderr hvtop -b -n 1
    [ -z "$output" ]
    open 80x24 "HV_HOST=$BATS_TEST_TMPDIR/nobody hvtop"
    [ "$(ended)" = 6 ]
    see "cannot connect"
    tm kill-server; sleep 0.2
    open 100x24 "hvtop -H $BATS_TEST_TMPDIR/nobody -H user"
    see "alpha"
    see "trying again"
    keys q
    [ "$(ended)" = 0 ]
    # Nobody waits for it: so many samples of those that answer, and a word about it, once.
    run -0 --separate-stderr timeout 20 hvtop -b -n 2 -d 100ms -H "$BATS_TEST_TMPDIR/nobody" -H user -o name
    [ "${#lines[@]}" = 6 ]
    [ "$(grep -c "nobody: cannot connect" <<<"$stderr")" = 1 ]
}

# ---- a guest ----

@test "hvtop: a guest: its memory, its console, a past that was kept" {
    need_guest
    hvctl create guest --kernel "$KERNEL" --initrd "$INITRD" --cmdline "console=ttyS0 quiet" --memory 256M -q
    hvctl start guest --wait=console:demo -q -t 90s
    # The service samples every two seconds; three are enough to be seen.
    until [ "$(hvctl show guest -o json | jq .uptime_s)" -ge 7 ]; do sleep 0.2; done
    open 80x24 "hvtop guest --screen memory"
    see ">  guest"; see "256M"
    keys c; see "console; ^]"; keys 'echo in the $((40 + 2))' Enter; see "in the 42"
    keys C-]; keys q; see ">  guest"
    keys Enter; see "> guest  running"; see "heartbeat"
    # hvd remembers: what was assigned before hvtop came stands in the graph, not only the last column.
    keys z z z; see "span 1m"
    shown | grep -qE '▔{8}' || { shown; false; }
    keys Escape T y; see "- off"
    keys q
    [ "$(ended)" = 0 ]
    hvctl stop guest --turn-off --yes -q -t 20s
    hvctl remove guest --yes -q
}

# ---- the terminal afterwards ----

# terminal_is_back: as the shell left it, with the main screen and a cursor.
terminal_is_back() {
    [ "$(tm display-message -p '#{alternate_on} #{cursor_flag}')" = "0 1" ]
    [ "$(cat "$BATS_TEST_TMPDIR/before")" = "$(cat "$BATS_TEST_TMPDIR/after")" ]
}
in_shell() { # in_shell COMMAND: its settings before and after are kept
    open 80x24 "stty -a >$BATS_TEST_TMPDIR/before; $1; r=\$?; stty -a >$BATS_TEST_TMPDIR/after; (exit \$r)"
}
pid_of_hvtop() { pgrep -P "$(tm display-message -p '#{pane_pid}')" -x hvtop; }

@test "hvtop: the terminal is put back: q, Ctrl-C, signals, crashes" {
    local how code
    for how in q C-c TERM HUP INT QUIT SEGV ABRT; do
        in_shell hvtop
        see ">  alpha"
        case $how in
        q | C-c) keys $how ;;
        *) kill -$how "$(pid_of_hvtop)" ;;
        esac
        code=$(ended)
        case $how in
        q) [ "$code" = 0 ] ;;
        C-c | INT) [ "$code" = 130 ] ;;
        TERM) [ "$code" = 143 ] ;;
        HUP) [ "$code" = 129 ] ;;
        QUIT) [ "$code" = 131 ] ;;
        SEGV) [ "$code" = 139 ] ;;
        ABRT) [ "$code" = 134 ] ;;
        esac
        terminal_is_back
        tm kill-server; sleep 0.2
    done
}

@test "hvtop: stopped and continued" {
    tm new-session -d -x 80 -y 24 "PS1='ready> ' bash --norc --noprofile -i"
    see "ready>"
    keys 'hvtop' Enter; see ">  alpha"
    keys C-z; see "Stopped"
    [ "$(tm display-message -p '#{alternate_on}')" = 0 ]
    keys 'echo typed' Enter; see "typed"
    keys 'fg' Enter; see ">  alpha"
    keys j; see ">  beta"
    kill -TSTP "$(pid_of_hvtop)"; see "Stopped"
    keys 'fg' Enter; see ">  beta"
    kill -STOP "$(pid_of_hvtop)"; sleep 0.3
    keys 'fg' Enter; see ">  beta"
    keys k; see ">  alpha"
    keys q; see -n ">  alpha"
    keys 'echo end' Enter; see "end"
}

@test "hvtop: an editor has the terminal: stopped and continued with it, ended with it" {
    printf '#!/bin/sh\necho editor >&2\nexec sleep 300\n' >"$BATS_TEST_TMPDIR/ed"
    chmod +x "$BATS_TEST_TMPDIR/ed"
    tm new-session -d -x 80 -y 24 "PS1='ready> ' bash --norc --noprofile -i"
    see "ready>"
    keys "EDITOR=$BATS_TEST_TMPDIR/ed hvtop" Enter; see ">  alpha"
    keys e; see "editor"
    keys C-z; see "Stopped"
    keys 'echo ty""ped' Enter; see "typed"
    keys 'fg' Enter; see "hvtop"
    keys C-c; see "edit again?"; keys n Enter; see "Return goes back"
    keys Enter; see ">  alpha"
    keys q; see -n ">  alpha"
    tm kill-server; sleep 0.2
    in_shell "EDITOR=$BATS_TEST_TMPDIR/ed hvtop"
    see ">  alpha"
    keys e; see "editor"
    local pid
    pid=$(pid_of_hvtop)
    kill -TERM "$pid"
    [ "$(ended)" = 143 ]
    terminal_is_back
    run ! pgrep -P "$pid"
}

@test "hvtop: an unknown terminal" {
    local t
    for t in no-such-thing lpr; do             # none at all, and one that only prints
        open 80x24 "TERM=$t hvtop"
        [ "$(ended)" = 0 ]
        see "hvtop: $t: no such terminal type"
        see "try: TERM=xterm hvtop"
        see "gamma         -"
        run ! grep -q $'\033' <<<"$(tm capture-pane -p)"
        tm kill-server; sleep 0.2
    done
    open 80x24 "TERM=vt100 hvtop --ascii"
    see ">  alpha"
    keys q
    [ "$(ended)" = 0 ]
}

# ---- batch ----

@test "hvtop: batch: one sample into a pipe, no escape sequences" {
    run -0 --separate-stderr hvtop
    [ -z "$stderr" ]
    [[ ${lines[1]} == NAME*ASSIGNED*STATUS* ]]
    [ "${#lines[@]}" = 5 ]
    run ! grep -q $'\033' <<<"$output"
    run -0 bash -c 'TERM=dumb hvtop | wc -l'
    [ "$output" = 5 ]
}

@test "hvtop: batch: CSV has fixed keys, JSON lines are nested" {
    run -0 --separate-stderr hvtop -b -n 2 -d 100ms -o csv
    [[ ${lines[0]} == time,host,name,state,assigned,demand,* ]]
    [ "${#lines[@]}" = 7 ]
    run -0 --separate-stderr bash -c 'hvtop -b -n 1 -o jsonl | jq -r ".name, .memory.startup"'
    [ "$output" = $'alpha\n268435456\nbeta\n268435456\ngamma\n268435456' ]
    run -0 --separate-stderr hvtop -b -n 1 -F name~^b -c name,max --no-header -o csv
    [ "${lines[0]}" = beta,2147483648 ] || [ "${lines[0]}" = beta,1073741824 ]
    run -0 --separate-stderr hvtop -b -n 1 -o name 'g*' alpha
    [ "$output" = $'alpha\ngamma' ]
}

@test "hvtop: batch: ends when nobody reads, and on a signal" {
    run -0 timeout 20 bash -c 'hvtop -b -d 100ms -o jsonl | head -n 4 | wc -l'
    [ "$output" = 4 ]
    hvtop -b -d 100ms >"$BATS_TEST_TMPDIR/out" 3>&- &
    local pid=$!
    until [ -s "$BATS_TEST_TMPDIR/out" ]; do sleep 0.05; done
    kill -TERM $pid
    local rc=0
    wait $pid || rc=$?
    [ $rc = 143 ]
    run -0 timeout 20 hvtop -b -d 100ms --stop-after 500ms
}

@test "hvtop: batch: bad use" {
    run -2 --separate-stderr hvtop -s nope
    run -2 --separate-stderr hvtop -F nope=1
    run -2 --separate-stderr hvtop -c +nope
    run -2 --separate-stderr hvtop --nope
    run -2 --separate-stderr hvtop --speed 2
    run -0 hvtop --columns help
    [[ $output == *buffer_now_pct* ]]
    run -3 --separate-stderr hvtop -b -n 1 alpha nosuch -o name
    [ "$output" = alpha ]
    expect_error "hvtop: nosuch: no such VM"
    run -0 hvtop -b -n 1 'nosuch*' -o name
    run -0 hvtop -b -n 1 --screen disk --no-header
    [[ ${lines[1]} == alpha\ *-* ]]
    run -0 hvtop -b -n 1 --screen disk
    [[ ${lines[1]} == NAME*READ*WRITE*IOPS*LATENCY*QUEUE*USED/SIZE*PATH ]]
    run -9 --separate-stderr hvtop -c name,+limit
    expect_error "hvtop: --columns limit: not in this version" "man hvtop"
    run -9 --separate-stderr hvtop -s -rx
    run -9 --separate-stderr hvtop --screen net
    expect_error "hvtop: --screen net: not in this version" "man hvtop"
    run -0 hvtop --version
    [[ $output == hvtop\ * ]]
}

@test "hvtop: recorded, and replayed as it was" {
    local f=$BATS_TEST_TMPDIR/x.hvrec
    run -0 --separate-stderr timeout 30 hvtop --record "$f" -b -n 3 -d 100ms -o csv
    local live=$output
    run -0 --separate-stderr hvtop --replay "$f" -b -o csv
    [ "$output" = "$live" ]
    run -0 --separate-stderr timeout 30 hvtop --record "$f" --stop-after 500ms -d 100ms
    [ -z "$output" ]
    run -0 bash -c "hvtop --replay $f -b -o name | sort -u"
    [ "$output" = $'alpha\nbeta\ngamma' ]
    echo precious >"$BATS_TEST_TMPDIR/notes.txt"
    run -4 --separate-stderr hvtop --record "$BATS_TEST_TMPDIR/notes.txt" -b -n 1
    [ "$(cat "$BATS_TEST_TMPDIR/notes.txt")" = precious ]
    # Killed while it writes: what it wrote can be read.
    rm "$f"
    hvtop --record "$f" -d 100ms >/dev/null 3>&- &
    local pid=$!
    until [ -s "$f" ] && [ "$(hvtop --replay "$f" -b -o name 2>/dev/null | wc -l)" -ge 6 ]; do sleep 0.1; done
    kill -KILL $pid
    wait $pid 2>/dev/null || true
    [ "$(hvtop --replay "$f" -b -o name | wc -l)" -ge 6 ]
}

# ---- completion ----

@test "hvtop: completion" {
    run -0 hvtop __complete --shell bash -- --the
    [ "$output" = --theme ]
    run -0 hvtop __complete --shell bash -- --theme s
    [ "$output" = safe ]
    run -0 hvtop __complete --shell bash -- be
    [ "$output" = beta ]
    run -0 hvtop __complete --shell bash -- --replay ""
    [ "$output" = ":file *.hvrec" ]
    run -0 hvtop __complete --shell bash -- -s -dem
    [ "$output" = -demand ]
    run -0 bash -n <(hvtop __completion bash)
    grep -q '^complete -F _hvtop hvtop' <(hvtop __completion bash)
}

@test "hvtop: the manual has every option and every key" {
    run -0 "$TOP/man/update.sh" --check "$BIN/hvtop"
    # What the key table explains stands in the manual, word for word.
    local help missing=
    while IFS= read -r help; do
        mandoc -T ascii "$TOP/man/hvtop.1" | col -bx | tr -s ' \n' ' ' | grep -qF -- "$help" || missing+="$help;"
    done < <(sed -nE 's/^    \{[^"]*, "[^"]*", "([^"]*)", .*\},$/\1/p' "$TOP/hvtop/keys.c")
    [ -z "$missing" ]
}
