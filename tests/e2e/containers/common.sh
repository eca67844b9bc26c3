# What the scripts need. /w holds fs (of the containers), tub (the product), and, with Java, jdk, classes and
# application.
set -u
cd /w
fail() { echo "FAILED: $*"; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"; }
tub() { /w/tub/bin/tub "$@"; }
# start_engine NAME: with the image app:1, and what the containers said where the script fails
start_engine() {
    engine=$1
    [ "$engine" = podman ] || start_docker
    trap 'code=$?; [ $code = 0 ] || for one in $("$engine" ps --all --quiet); do "$engine" logs "$one"; done' EXIT
    tar -C fs -c . | "$engine" import - localhost/app:1 >/dev/null || fail import
}
# The daemon is gone when the script has ended.
start_docker() {
    dockerd --experimental --bridge=none --iptables=false --ip6tables=false >/w/dockerd.log 2>&1 &
    local daemon=$! _
    for _ in $(seq 300); do
        docker version >/dev/null 2>&1 && return
        kill -0 $daemon 2>/dev/null || break
        sleep 0.1
    done
    fail "dockerd: $(tail -5 /w/dockerd.log)"
}
# run NAME WORDS…: a container with nothing but the engine's defaults
run() {
    local name=$1
    shift
    "$engine" run --detach --name "$name" --network none "$@" >/dev/null || fail "run $name"
}
# pid NAME: its main process, as it is seen from outside
pid() { "$engine" inspect --format '{{.State.Pid}}' "$1"; }
# get NAME PATH: from inside of the network namespace of the container
get() {
    nsenter -t "$(pid "$1")" -n timeout 5 bash -c \
        'exec 3<>/dev/tcp/127.0.0.1/8080; printf "GET %s HTTP/1.0\r\n\r\n" "$1" >&3; cat <&3' get "$2" \
        2>/dev/null | tr -d '\r' | sed '1,/^$/d'
}
# up NAME [ANSWER]: waits for the first answer, the right one if it is known
up() {
    local answer _
    for _ in $(seq 600); do
        answer=$(get "$1" /)
        if [ -n "$answer" ]; then
            [ $# -eq 1 ] || is "the first answer of $1" "$2" "$answer"
            return
        fi
        [ -d "/proc/$(pid "$1")" ] || break
        sleep 0.05
    done
    fail "$1 does not answer"
}
# Of the service of the tests.
service="/tub/bin/tub run -- /jdk/bin/java -Xmx256m -cp /classes Service 8080 plain /tmp/left-open.log"
with_jdk="-v /w/jdk:/jdk:ro -v /w/classes:/classes:ro -v /w/application:/application:ro"
# well NAME COUNT ROUNDS: right in every respect, from where it stood, told so many times
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
# Spring Boot, the unchanged example.
spring="/tub/bin/tub run -- /jdk/bin/java -Xmx256m -jar /application/greetings-1.0.0.jar"
greeting='Greetings from Spring Boot!'
# Python, the unchanged example, with nothing mounted.
python="-e PYTHONPATH=/app localhost/app:1 /tub/bin/tub run -- python3 /app/told.py"
# stands NAME LIFE COUNT: `restored 7` and the like is what it answers, before its random number
stands() { is "answer of $1" "$2 $3" "$(get "$1" / | cut -d' ' -f1,2)"; }
# logged NAME PATTERN
logged() { "$engine" logs "$1" 2>&1 | grep "$2"; }
