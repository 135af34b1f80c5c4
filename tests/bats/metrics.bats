#!/usr/bin/env bats
# hv-metrics and `host metrics`: OpenMetrics text, by a client of three lines.
load helper

setup_file() {
    start_fake_service
    some_kernel >/dev/null
    hvctl host set --balancer-delay 0s --metrics 127.0.0.1:0 -q
    hvctl create web1 --memory 640M --min 256M --max 2G --kernel "$BATS_FILE_TMPDIR/kernel" --notes used=300 -q
    hvctl create 'a"b\c' --memory 512M --kernel "$BATS_FILE_TMPDIR/kernel" -q
    hvctl start web1 -q
    "$BIN/hv-metrics" >"$BATS_FILE_TMPDIR/metrics.log" 2>&1 </dev/null 3>&- &
    echo $! >"$BATS_FILE_TMPDIR/metrics.pid"
    until_true 20 port
    sleep 1.5
}

teardown_file() {
    kill "$(cat "$BATS_FILE_TMPDIR/metrics.pid")"
    stop_service
}

trouble() { cat "$BATS_FILE_TMPDIR/metrics.log"; }
port() { grep -o 'port [0-9]*' "$BATS_FILE_TMPDIR/metrics.log" | tail -n 1 | grep -o '[0-9]*$'; }
# get PATH [METHOD]: head and body.
get() {
    exec 4<>"/dev/tcp/127.0.0.1/$(port)"
    printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "${2:-GET}" "$1" >&4
    timeout 10 cat <&4
    exec 4<&-
}
body() { get "$1" | sed '1,/^\r$/d'; }

# Every line is one of the format's, families stand together, the end is marked.
valid() {
    awk '
        /^# EOF$/ { eof = NR; next }
        /^# (TYPE|UNIT|HELP) hv_[a-z_]+ / { if ($3 != family && seen[$3]++) { print "family twice: " $3; bad = 1 }; family = $3; next }
        /^hv_[a-z_]+(\{[a-z_]+="([^"\\\n]|\\["\\n])*"(,[a-z_]+="[^"]*")*\})? -?[0-9.e+-]+$/ {
            name = $0; sub(/[{ ].*/, "", name); sub(/_total$/, "", name)
            if (name != family) { print "outside its family: " $0; bad = 1 }
            next
        }
        { print "no line of OpenMetrics: " $0; bad = 1 }
        END { if (eof != NR) { print "no # EOF at the end"; bad = 1 }; exit bad }' <<<"$1"
}

@test "host metrics prints them once" {
    run -0 hvctl host metrics
    valid "$output"
    [[ $output == *'hv_up 1'* ]]
    [[ $output == *'hv_vm_memory_assigned_bytes{vm="web1"} '* ]]
    [[ $output == *'hv_vm_state{vm="a\"b\\c",hv_vm_state="off"} 1'* ]]
    [[ $output == *'hv_vm_memory_status{vm="web1",hv_vm_memory_status="ok"} 1'* ]]
    [[ $output == *'hv_host_vms 2'* ]]
}

@test "hv-metrics serves the same over HTTP, on loopback" {
    run -0 get /metrics
    [[ $output == "HTTP/1.1 200 OK"* ]]
    [[ $output == *"application/openmetrics-text; version=1.0.0"* ]]
    run -0 body /metrics
    valid "$output"
    [[ $output == *'hv_vm_memory_startup_bytes{vm="web1"} 671088640'* ]]
    run -0 get /metrics HEAD
    [[ $output == "HTTP/1.1 200 OK"* && $output != *hv_up* ]]
    [ "$(awk -v p="$(printf '%04X' "$(port)")" '$2 ~ ":" p "$" && $4 == "0A" { print $2 }' /proc/net/tcp)" = "0100007F:$(printf '%04X' "$(port)")" ]
}

@test "other paths and methods are refused" {
    run -0 get /other
    [[ $output == "HTTP/1.1 404"* ]]
    run -0 get /metrics POST
    [[ $output == "HTTP/1.1 405"* && $output == *"Allow: GET, HEAD"* ]]
    run -0 get /
    [[ $output == "HTTP/1.1 200"* ]]
}

@test "rubbish and open connections do not keep it from answering" {
    local i fds=()
    for i in $(seq 10); do
        exec {fd}<>"/dev/tcp/127.0.0.1/$(port)"
        printf 'GET /metr' >&$fd
        fds+=("$fd")
    done
    { exec 5<>"/dev/tcp/127.0.0.1/$(port)" && head -c 40000 /dev/urandom >&5; } 2>/dev/null || true
    run -0 get /metrics
    [[ $output == "HTTP/1.1 200 OK"* ]]
    for fd in "${fds[@]}"; do exec {fd}<&-; done
}

@test "while the service is away hv_up is 0; when it is back, 1; off closes the port" {
    kill_service
    sleep 0.7
    run -0 body /metrics
    valid "$output"
    [[ $output == *'hv_up 0'* && $output != *web1* ]]
    serve
    up() { body /metrics | grep -qx 'hv_up 1'; }
    until_true 10 up
    local was
    was=$(port)
    hvctl host set --metrics off -q
    closed() { ! (exec 6<>"/dev/tcp/127.0.0.1/$was") 2>/dev/null; }
    until_true 10 closed
}

@test "bad use" {
    run -2 --separate-stderr "$BIN/hv-metrics" --listen nowhere
    [[ $stderr == *"nowhere: is no address to listen at"* ]]
    run -2 --separate-stderr "$BIN/hv-metrics" extra
    [[ $stderr == usage:* ]]
}
