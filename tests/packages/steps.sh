#!/bin/bash
# The steps of a boot: what follows this is appended to it. Each says when it has been taken.
exec > /root/steps.log 2>&1
say() { echo "step: $*"; }
wait_for() { for _ in $(seq 200); do "$@" 2>/dev/null && return 0; sleep 0.2; done; echo "in vain: $*"; return 1; }
answers() {
    exec 3<>/dev/tcp/127.0.0.1/8100 && printf 'GET /health HTTP/1.0\r\nhost: localhost\r\n\r\n' >&3 &&
        grep -q '"status":"ok"' <&3
}
healthy() { wait_for answers; }
as_me() { setpriv --reuid=me --regid=me --init-groups env HOME=/home/me XDG_RUNTIME_DIR=/run/user/1000 "$@"; }
running() { ls -l /proc/*/exe 2>/dev/null | grep -q '/baton$'; }
# The process of a unit, of which systemctl is asked with the arguments behind it.
process_of() { unit=$1; shift; "$@" show -P MainPID "$unit"; }
is_another() { now=$(process_of "${@:2}"); [ "$now" -gt 0 ] && [ "$now" != "$1" ]; }
# Kills the process of a unit, and waits until it has another one and the cluster answers.
comes_back() {
    old=$(process_of "$@")
    [ "$old" -gt 0 ] && kill -KILL "$old" && wait_for is_another "$old" "$@" && healthy
}
