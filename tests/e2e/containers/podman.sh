# podman.sh JAVA PYTHON: services in containers of Podman's: refused, left running, and brought back as several
# copies at once.
. /w/common.sh
start_engine podman
# goes_on NAME WORDS…: its checkpoint fails in Podman or in CRIU, and it goes on
goes_on() {
    local name=$1
    shift
    tub container checkpoint "$name" "$@" 2>refused && fail "$name was checkpointed: $*"
    grep -q "podman could not checkpoint container $name" refused || fail "$(cat refused)"
}

if [ "$1" = java ]; then
    # shellcheck disable=SC2086
    run original $with_jdk localhost/app:1 $service
    up original
    well original 1 0
    # Podman fails, the service has been told, and goes on.
    goes_on original -- --no-such-option
    well original 2 1
    # Nobody knows such a container.
    tub container checkpoint nobody 2>refused
    is "exit code" 4 $?
    tub container checkpoint original --export /w/running.tar --leave-running || fail "leave running"
    well original 3 2
    tub container checkpoint original --export /w/copy.tar -- --compress none || fail checkpoint
    for copy in one two; do
        tub container restore "$copy" --import /w/copy.tar || fail "restore $copy"
    done
    for copy in one two; do well "$copy" 4 3; done
    # The container itself, once more, after its archive was taken elsewhere.
    tub container restore original || fail "restore original"
    well original 4 3
    podman kill --all >/dev/null
fi

if [ "$2" = python ]; then
    # shellcheck disable=SC2086
    run python $python
    up python
    stands python original 2
    # CRIU fails once everything is frozen.
    printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != network-lock ]\n' >fail.sh
    chmod +x fail.sh
    echo 'action-script /w/fail.sh' >/etc/criu/default.conf
    goes_on python
    stands python failed 3
    # CRIU's action script is all that tells it.
    echo 'action-script /w/tub/bin/tub' >/etc/criu/default.conf
    podman container checkpoint python --export /w/script.tar --leave-running >/dev/null || fail script
    stands python resumed 4
    rm /etc/criu/default.conf
    # Podman's own commands, with coordination before and around them.
    tub prepare "$(pid python)" || fail prepare
    podman container checkpoint python --export /w/python.tar --leave-running >/dev/null || fail checkpoint
    tub resume "$(pid python)" || fail resume
    stands python resumed 5
    for copy in python-1 python-2; do
        podman container restore --import /w/python.tar --name "$copy" >/dev/null || fail "restore $copy"
    done
    for copy in python-1 python-2; do up "$copy"; done
    for copy in python-1 python-2; do get "$copy" /; done >told
    is answers 'restored 6' "$(cut -d' ' -f1,2 told | sort -u)"
    is 'different numbers' 2 "$(sort -u told | wc -l)"
    # The container is killed while it waits for its image.
    waiting=$(pid python)
    tub prepare "$waiting" || fail prepare
    podman kill python >/dev/null
    podman wait python >/dev/null
    tub resume "$waiting" 2>refused
    is "exit code" 4 $?
    tub container checkpoint python 2>refused
    is "exit code" 4 $?
fi

if [ "$1" = java ] && [ -d application ]; then
    # shellcheck disable=SC2086
    run spring $with_jdk localhost/app:1 $spring
    up spring "$greeting"
    tub container checkpoint spring --export /w/spring.tar -- --compress none || fail checkpoint
    for copy in spring-1 spring-2; do
        tub container restore "$copy" --import /w/spring.tar || fail "restore $copy"
    done
    for copy in spring-1 spring-2; do is "answer of $copy" "$greeting" "$(get $copy /)"; done
fi
podman kill --all >/dev/null
