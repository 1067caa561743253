#!/usr/bin/env bash
# A tf.data service on this machine: a dispatcher and its workers, which decode for runs that are told
# --config.dataset.service=HOST:PORT. To add workers on another machine, run there, with the dataset under the same path,
#   python -m imagenet_jax data_service --dispatcher=HOST:PORT --address=THAT_HOST --port=0
# usage: launch/data_service.sh [PORT] [WORKERS] [HOST]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh

port=${1:-5050} workers=${2:-2} host=${3:-localhost}
trap 'kill $(jobs -p) 2>/dev/null' EXIT
python -m imagenet_jax data_service --port="$port" --address="$host" &
for _ in $(seq "$workers"); do
    python -m imagenet_jax data_service --port=0 --dispatcher="$host:$port" --address="$host" &
done
wait
