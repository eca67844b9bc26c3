# A service in a container of Docker's: refused, left running, and brought back twice.
. /w/common.sh
pid() { docker inspect --format '{{.State.Pid}}' "$1"; }
dockerd --experimental --bridge=none --iptables=false --ip6tables=false >/w/dockerd.log 2>&1 &
daemon=$!
for _ in $(seq 300); do
    docker version >/dev/null 2>&1 && break
    sleep 0.1
done
tar -C fs -c . | docker import - app:1 >/dev/null || fail "import: $(tail -5 /w/dockerd.log)"
# shellcheck disable=SC2086
docker run --detach --name original --network none $volumes app:1 $service >/dev/null || fail run
original=$(pid original)
up "$original"
well "$original" 1 0
tub container checkpoint original -- --no-such-option 2>/w/refused && fail "an unknown option was taken"
grep -q 'docker could not checkpoint container original' /w/refused || fail "$(cat /w/refused)"
well "$original" 2 1
tub container checkpoint original --export /w/x.tar 2>/w/refused
is "exit code" 2 $?
tub container checkpoint original --leave-running --checkpoint first || fail "leave running"
well "$original" 3 2
tub container checkpoint original || fail checkpoint
for _ in one two; do
    tub container restore original || fail restore
    well "$(pid original)" 4 3
    docker kill original >/dev/null
done
kill $daemon
wait $daemon
