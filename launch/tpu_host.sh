#!/usr/bin/env bash
# Runs on every host of a TPU slice, brought there by tpu_vm.sh, tpu_queue.sh and tpu_mig.sh. A run is independent of
# who started it: connections may break.
# usage: launch/tpu_host.sh setup FILE | start RUN ARGS... | running | follow | stop
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p run

# After a restart of the host the number may be that of another process.
running() { [ -f run/pid ] && grep -qs imagenet_jax "/proc/$(cat run/pid)/cmdline"; }

stop() {  # as a preemption does, so that all is saved
    running || return 0
    kill -TERM "$(cat run/pid)" || true
    for _ in $(seq 120); do running || return 0; sleep 1; done
    kill -KILL "$(cat run/pid)" || true
}

case ${1:-} in
    setup)  # FILE, which mounts disks, say; then Python and what requirements.txt pins
        bash -euo pipefail "$2"
        # Ubuntu 22.04, which the TPU software versions of v6e, v5p and v5e are made of, has Python 3.10.
        if [ ! -x .venv/bin/python ] && ! python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))'; then
            python3 -m pip install --quiet --user uv
            python3 -m uv venv --seed --python=3.12 .venv
        fi
        source launch/setup.sh
        jax=$(sed -n 's/^jax\(==[^ ]*\).*/jax[tpu]\1/p' requirements.txt)
        python -m pip install --quiet --disable-pip-version-check "$jax"
        ;;
    start)  # RUN is a word of its own for every attempt: to ask again for the same one changes nothing
        if running && [ "$(cat run/name)" = "$2" ]; then exit; fi
        stop
        echo "$2" >run/name
        rm -f run/code run/pid
        shift 2
        # shellcheck disable=SC2016
        setsid nohup bash -c '.venv/bin/python -m imagenet_jax "$@" & echo $! >run/pid; wait $!; echo $? >run/code' \
            imagenet_jax "$@" >>run/log 2>&1 </dev/null &
        until [ -s run/pid ]; do sleep 0.1; done
        ;;
    running) running ;;
    follow)
        touch run/log
        if running; then tail -n 20 -f --pid="$(cat run/pid)" run/log; else tail -n 20 run/log; fi
        for _ in $(seq 20); do [ -s run/code ] || sleep 0.1; done
        [ ! -s run/code ] || echo "the run ended with exit code $(cat run/code)"
        ;;
    stop) stop ;;
    *) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
