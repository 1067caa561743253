#!/usr/bin/env bash
# A tf.data service on this machine: a dispatcher and its workers, which decode for runs that are told
# --config.dataset.service=HOST:PORT. The workers listen on the ports after the dispatcher's. To add one on another
# machine, run there, with the dataset under the same path,
#   python -m imagenet_jax data_service --dispatcher=HOST:PORT --address=THAT_HOST --port=0
#
# Whoever can connect to it can run what they like here, without a password. By default only this machine can (on
# Linux): a run on another one comes through a tunnel, with --config.dataset.service=localhost:5050 after
#   ssh -N -L 5050:localhost:5050 -L 5051:localhost:5051 -L 5052:localhost:5052 THIS_HOST
# With HOST the service is open to all that reach this machine: only in a private network, or behind a firewall.
# usage: launch/data_service.sh [PORT] [WORKERS] [HOST]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh

port=${1:-5050} workers=${2:-2} host=${3:-localhost}
trap 'kill $(jobs -p) 2>/dev/null' EXIT
python -m imagenet_jax data_service --port="$port" --address="$host" &
for worker in $(seq "$workers"); do
    python -m imagenet_jax data_service --port=$((port + worker)) --dispatcher="$host:$port" --address="$host" &
done
wait
