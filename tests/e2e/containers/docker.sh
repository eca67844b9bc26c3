# docker.sh JAVA PYTHON: services in containers of Docker's: refused, left running, and brought back twice.
. /w/common.sh
start_engine docker
goes_on() {
    local name=$1
    shift
    tub container checkpoint "$name" "$@" 2>refused && fail "$name was checkpointed: $*"
    grep -q "docker could not checkpoint container $name" refused || fail "$(cat refused)"
}

if [ "$1" = java ]; then
    # shellcheck disable=SC2086
    run original $with_jdk localhost/app:1 $service
    up original
    well original 1 0
    goes_on original -- --no-such-option
    well original 2 1
    tub container checkpoint original --export /w/x.tar 2>refused
    is "exit code" 2 $?
    tub container checkpoint original --leave-running --checkpoint first || fail "leave running"
    well original 3 2
    tub container checkpoint original || fail checkpoint
    for _ in one two; do
        tub container restore original || fail restore
        well original 4 3
        docker kill original >/dev/null
    done
fi

if [ "$2" = python ]; then
    # shellcheck disable=SC2086
    run python $python
    up python
    stands python original 2
    printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != network-lock ]\n' >fail.sh
    chmod +x fail.sh
    echo 'action-script /w/fail.sh' >/etc/criu/default.conf
    goes_on python
    stands python failed 3
    # An action script comes too late: the container was frozen before CRIU was called. It goes on.
    echo 'action-script /w/tub/bin/tub' >/etc/criu/default.conf
    docker checkpoint create --leave-running python late 2>/dev/null && fail "it was not prepared"
    stands python failed 4
    rm /etc/criu/default.conf
    # Docker's own commands, with coordination before and around them.
    tub prepare "$(pid python)" || fail prepare
    docker checkpoint create --leave-running python first >/dev/null || fail checkpoint
    tub resume "$(pid python)" || fail resume
    stands python resumed 5
    tub prepare "$(pid python)" || fail prepare
    docker checkpoint create python second >/dev/null || fail checkpoint
    # It may find its own content from before (see docs/containers.md).
    for _ in $(seq 10); do
        docker start --checkpoint second python && break
        sleep 0.05
    done
    up python
    stands python restored 7
    # The container is killed while it waits for its image.
    waiting=$(pid python)
    tub prepare "$waiting" || fail prepare
    docker kill python >/dev/null
    docker wait python >/dev/null
    tub resume "$waiting" 2>refused
    is "exit code" 4 $?
    tub container checkpoint python 2>refused
    is "exit code" 4 $?
fi

if [ "$1" = java ] && [ -d application ]; then
    # shellcheck disable=SC2086
    run spring $with_jdk localhost/app:1 $spring
    up spring "$greeting"
    tub container checkpoint spring || fail checkpoint
    for _ in one two; do
        tub container restore spring || fail restore
        is answer "$greeting" "$(get spring /)"
        docker kill spring >/dev/null
    done
fi
