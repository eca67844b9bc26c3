# What both scripts need. /w holds fs (of the container), tub (the product), jdk, classes.
set -u
cd /w
fail() { echo "FAILED: $*"; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"; }
tub() { /w/tub/bin/tub "$@"; }
# get PID PATH: from inside of the network namespace of the container
get() {
    nsenter -t "$1" -n timeout 5 bash -c \
        'exec 3<>/dev/tcp/127.0.0.1/8080; printf "GET %s HTTP/1.0\r\n\r\n" "$1" >&3; cat <&3' get "$2" \
        2>/dev/null | tr -d '\r' | sed '1,/^$/d'
}
# up PID: waits for the first answer
up() {
    for _ in $(seq 600); do
        [ "$(get "$1" /)" = hello ] && return
        sleep 0.05
    done
    fail "process $1 does not answer"
}
# well PID COUNT ROUNDS: right in every respect, from where it stood, told so many times
well() {
    is answer hello "$(get "$1" /)"
    is work 1088890 "$(get "$1" /work)"
    is count "$2" "$(get "$1" /count)"
    local told='' _
    for _ in $(seq "$3"); do told="${told}before server
after server
"; done
    is told "$(printf %s "$told")" "$(get "$1" /told)"
}
service="/tub/bin/tub run -- /jdk/bin/java -Xmx256m -cp /classes Service 8080 plain /tmp/left-open.log"
volumes="-v /w/tub:/tub:ro -v /w/jdk:/jdk:ro -v /w/classes:/classes:ro"
