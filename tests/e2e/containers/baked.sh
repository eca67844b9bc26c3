# baked.sh ENGINE JAVA PYTHON: our own engine inside of default containers. A service is warmed up in one, its image
# is baked into a container image, and `tub restore` is the entry point of several containers at once.
. /w/common.sh
start_engine "$1"
case $engine in
docker) capabilities=00000000a80425fb ;;
podman) capabilities=00000000800405fb ;;
esac
# has_ended NAME CODE
has_ended() { is "exit code of $1" "$2" "$(timeout 30 "$engine" wait "$1")"; }
# checkpoint NAME: from the inside, as a user does; the container ends with its process
checkpoint() {
    "$engine" exec "$1" /tub/bin/tub checkpoint 1 --image /image || fail "checkpoint of $1: $?"
    has_ended "$1" 137
}
entry='ENTRYPOINT ["/tub/bin/tub", "restore", "/image", "--pids", "new", "--"]'
# All that is left of a container once it has ended is what it wrote: the image.
bake() {
    "$engine" commit --change "$entry" --change 'CMD []' "$1" "localhost/$1:warm" >/dev/null || fail "bake $1"
}
zombies() { "$engine" exec "$1" sh -c 'grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null | wc -l'; }

if [ "$3" = python ]; then
    # shellcheck disable=SC2086
    run python $python
    up python
    is seccomp 'Seccomp:	2' "$("$engine" exec python grep ^Seccomp: /proc/1/status)"
    is capabilities "CapEff:	$capabilities" "$("$engine" exec python grep ^CapEff: /proc/1/status)"
    for count in $(seq 2 10); do stands python original "$count"; done
    checkpoint python
    bake python
    copies='python-1 python-2 python-3'
    for copy in $copies; do run "$copy" localhost/python:warm; done
    for copy in $copies; do up "$copy"; done
    for copy in $copies; do
        get "$copy" /
        logged "$copy" '^instance '
    done >told
    is answers 'restored 12' "$(grep ^restored told | cut -d' ' -f1,2 | sort -u)"
    is 'different numbers and ids' 6 "$(cut -d' ' -f2- told | sort -u | wc -l)"
    # The entry point is process 1 of its container: it reaps whom others leave to it, passes signals on, and
    # ends as its process does.
    "$engine" exec python-1 sh -c 'for one in 1 2 3; do (sleep 0.2 &); done'
    sleep 0.5
    is zombies 0 "$(zombies python-1)"
    "$engine" stop --time 20 python-1 >/dev/null
    has_ended python-1 143
    "$engine" exec python-2 kill -TERM 1
    has_ended python-2 143
    main=$("$engine" exec python-3 pidof python3)
    "$engine" exec python-3 kill -KILL "$main"
    has_ended python-3 137
    # A container starts again as often as one likes.
    "$engine" start python-1 >/dev/null || fail "start python-1"
    # And one of an image that was built, instead of one that was committed.
    mkdir context
    "$engine" cp python:/image context/image || fail cp
    printf 'FROM localhost/app:1\nCOPY image /image\n%s\n' "$entry" >context/Dockerfile
    "$engine" build --network none -t localhost/built:warm context >build.log 2>&1 || fail "$(cat build.log)"
    run built -e COLOR=red localhost/built:warm one two
    for copy in built python-1; do up "$copy"; done
    for copy in built python-1; do stands "$copy" restored 12; done
    logged built '^instance .* red one two$' >/dev/null || fail "no variable, or no words, in a copy"
fi

if [ "$2" = java ] && [ -d application ]; then
    # shellcheck disable=SC2086
    run spring $with_jdk localhost/app:1 $spring
    up spring "$greeting"
    for _ in $(seq 20); do get spring / >/dev/null; done
    checkpoint spring
    bake spring
    copies='spring-1 spring-2 spring-3'
    # shellcheck disable=SC2086
    for copy in $copies; do run "$copy" $with_jdk localhost/spring:warm; done
    for _ in 1 2 3; do
        for copy in $copies; do up "$copy" "$greeting"; done
    done
    "$engine" stop --time 20 spring-1 >/dev/null
    has_ended spring-1 143
    "$engine" kill spring-2 spring-3 >/dev/null
    has_ended spring-3 137
fi
