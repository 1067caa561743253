#!/usr/bin/env bash
# A tf.data service, which decodes for runs that are told --config.dataset.service=HOST:PORT: a dispatcher and workers.
#   launch/data_service.sh                                            # both here, for runs on this machine
#   launch/data_service.sh --address=HOST                             # the same on HOST, for runs elsewhere
#   launch/data_service.sh --address=OTHER --dispatcher=HOST:5050     # on OTHER: more workers for the dispatcher of HOST
# All machines find the dataset under the same path. Workers may come and go while runs go on. Flags:
#   --address=localhost     the name under which runs, and workers elsewhere, reach this machine
#   --port=5050             the dispatcher listens on it, the workers on the ports after it
#   --workers=2             how many on this machine
#   --dispatcher=HOST:PORT  start workers alone, for the dispatcher there
#   --dry_run               print what would be started
#
# Whoever can connect to it can run what they like here, without a password. As localhost only this machine can (on
# Linux): a run on another one comes through a tunnel, with --config.dataset.service=localhost:5050 after
#   ssh -N -L 5050:localhost:5050 -L 5051:localhost:5051 -L 5052:localhost:5052 THIS_HOST
# Under any other name it is open to all that reach this machine: only in a private network, or behind a firewall.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "error: $*" >&2; exit 2; }
port=5050 workers=2 address=localhost dispatcher='' dry_run=''
for flag; do
    case $flag in
        --port=*) port=${flag#*=} ;;
        --workers=*) workers=${flag#*=} ;;
        --address=*) address=${flag#*=} ;;
        --dispatcher=*) dispatcher=${flag#*=} ;;
        --dry_run) dry_run=1 ;;
        --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit ;;
        *) fail "'$flag' is no flag of data_service.sh; see --help" ;;
    esac
done
[[ $port =~ ^[1-9][0-9]*$ && $workers =~ ^[1-9][0-9]*$ ]] || fail "--port and --workers are numbers from 1 on"
[[ -z $dispatcher || $dispatcher =~ ^[^/]+:[0-9]+$ ]] || fail "--dispatcher=$dispatcher is not HOST:PORT"
[[ -z $dispatcher || $dispatcher = localhost:* || $address != localhost ]] ||
    fail "runs would look for these workers on their own machine: give --address=THIS_HOST, which they can reach"

[ -n "$dry_run" ] || source launch/setup.sh
start() {
    set -- python -m imagenet_jax data_service "$@" --address="$address"
    if [ -n "$dry_run" ]; then echo "$*"; else "$@" & fi
}
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
[ -n "$dispatcher" ] || start --port="$port"
for worker in $(seq "$workers"); do
    start --port=$((port + worker)) --dispatcher="${dispatcher:-$address:$port}"
done
code=0
for job in $(jobs -p); do wait "$job" || code=$?; done
exit "$code"
