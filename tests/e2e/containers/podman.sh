# A service in a container of Podman's: refused, left running, and brought back as two copies at once.
. /w/common.sh
pid() { podman inspect --format '{{.State.Pid}}' "$1"; }
tar -C fs -c . | podman import --quiet - localhost/app:1 >/dev/null || fail import
# shellcheck disable=SC2086
podman run --detach --name original --network none $volumes localhost/app:1 $service >/dev/null || fail run
original=$(pid original)
up "$original"
well "$original" 1 0
# Podman fails, the service has been told, and goes on.
tub container checkpoint original -- --no-such-option 2>/w/refused && fail "an unknown option was taken"
grep -q 'podman could not checkpoint container original' /w/refused || fail "$(cat /w/refused)"
well "$original" 2 1
# Nobody knows such a container.
tub container checkpoint nobody 2>/w/refused
is "exit code" 4 $?
tub container checkpoint original --export /w/running.tar --leave-running || fail "leave running"
well "$original" 3 2
tub container checkpoint original --export /w/copy.tar -- --compress none || fail checkpoint
for copy in one two; do
    tub container restore "$copy" --import /w/copy.tar || fail "restore $copy"
done
for copy in one two; do
    well "$(pid $copy)" 4 3
done
# The container itself, once more, after its archive was taken elsewhere.
tub container restore original || fail "restore original"
well "$(pid original)" 4 3
podman kill --all >/dev/null
