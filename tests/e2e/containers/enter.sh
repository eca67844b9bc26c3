#!/bin/bash
# enter.sh ROOT WORK COMMAND...: runs COMMAND with ROOT (`cargo xtask test` unpacks it) as its root file
# system and WORK at /w. Everything that COMMAND starts dies with it, even if this script is killed.
# Further directories of the host may be named in BINDS, as NAME=DIRECTORY, and lie at /w/NAME.
set -u
export ROOT=$1 WORK=$2
shift 2
# crun saves the whole cgroup v2 tree that its caller is in: a leaf keeps that small.
unified=/sys/fs/cgroup/unified
there=$(echo /sys/fs/cgroup/*/docker)
leaf=$unified/tub-$$
if [ -d "$unified" ]; then mkdir -p "$leaf" && echo $$ >"$leaf/cgroup.procs"; fi
# The image store is in memory of the engines' own: /var of ROOT stays as it was unpacked.
setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --propagation private -- bash -c '
    set -e
    mount --bind "$ROOT" "$ROOT"
    mount --bind "$WORK" "$ROOT/w"
    for bind in ${BINDS:-}; do
        mkdir -p "$ROOT/w/${bind%%=*}"
        mount --bind "${bind#*=}" "$ROOT/w/${bind%%=*}"
    done
    cd "$ROOT"
    mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mount -t tmpfs tmpfs dev/shm
    umount sys/fs/cgroup/unified 2>/dev/null || true # crun refuses hybrid control groups
    mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp
    mount --bind run var/run # what a killed daemon leaves there would stop the next one
    mkdir -p etc/criu; mount -t tmpfs tmpfs etc/criu
    mount --bind "$WORK/lib" var/lib
    pivot_root . host; cd /; umount -l host
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root
    export PODMAN_IGNORE_CGROUPSV1_WARNING=1
    exec tini -- "$@"' enter "$@" </dev/null
code=$?
if [ -d "$unified" ]; then echo $$ >"$unified/cgroup.procs"; fi
# What the engines leave empty, unless it is of an engine of the host's.
for left in "$leaf" /sys/fs/cgroup/*/libpod_parent /sys/fs/cgroup/*/docker; do
    [[ " $there " == *" $left "* ]] || [ ! -d "$left" ] || find "$left" -depth -type d -exec rmdir {} + 2>/dev/null
done
exit $code
