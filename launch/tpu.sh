# shellcheck shell=bash disable=SC2034
# Sourced by tpu_vm.sh and tpu_queue.sh: their flags, and how they reach the hosts of a TPU slice.
# What runs on the hosts is tpu_host.sh; the code lies there in ~/imagenet_jax, what the run says in run/log in it.

poll=${POLL:-30}  # seconds between two questions
name='' zone='' accelerator='' runtime='' tier='' setup='' create_flags='' dry_run='' train=()

say() { echo "$(date +%H:%M:%S) $*" >&2; }
fail() { echo "error: $*" >&2; exit 2; }
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }  # the comment at the head of the script

parse() {  # NAME [--flag[=value]]... [-- command of imagenet_jax]
    for flag; do [ "$flag" != -- ] || break; [ "$flag" != --help ] || usage; done
    name=${1:-}
    [[ $name =~ ^[a-z][a-z0-9-]*$ ]] || fail "'$name' is no name for a TPU (small letters, digits and -); see --help"
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            --zone=*) zone=$1 ;;
            --accelerator=*) accelerator=${1#*=} ;;
            --runtime=*) runtime=${1#*=} ;;
            --spot | --reserved) tier=$1 ;;
            --setup=*) setup=${1#*=} ;;
            --create_flags=*) create_flags=${1#*=} ;;
            --dry_run) dry_run=1 ;;
            --) shift; train=("$@"); break ;;
            *) own_flag "$1" || fail "'$1' is no flag of ${0##*/}; see --help. The command to run comes after --" ;;
        esac
        shift
    done
    [ -n "$dry_run" ] || command -v gcloud >/dev/null || fail "gcloud is missing: install Google's Cloud CLI"
    [ -z "$setup" ] || [ -f "$setup" ] || fail "--setup=$setup is not a file"
}

need_accelerator() {
    [ -n "$accelerator" ] || fail "which TPU? Give its type and size, such as --accelerator=v6e-16"
    case $accelerator in
        tpu7x* | v7*) fail "TPU7x is not made by the Cloud TPU API; use launch/gke.sh" ;;
        v6e-*) runtime=${runtime:-v2-alpha-tpuv6e} ;;
        v5p-*) runtime=${runtime:-v2-alpha-tpuv5} ;;
        v5litepod-*) runtime=${runtime:-v2-alpha-tpuv5-lite} ;;
        v[234]-*) runtime=${runtime:-tpu-ubuntu2204-base} ;;
    esac
    [ -n "$runtime" ] || fail "which software is --accelerator=$accelerator to have? Say it by --runtime=VERSION"
}

need_train() {  # what runs must find its workdir on every slice that ever runs it
    [ ${#train[@]} -gt 0 ] || fail "nothing to run: give a command of imagenet_jax after --, such as train --config=..."
    local arg workdir=''
    for arg in "${train[@]}"; do case $arg in --workdir=*) workdir=${arg#*=} ;; esac; done
    case $workdir in
        /*) ;;
        '') [ "${train[0]}" != train ] || fail "give train --workdir=PATH on a disk that all hosts share" ;;
        *) fail "--workdir=$workdir: give an absolute path on a disk that all hosts share; --setup mounts it" ;;
    esac
    case " ${train[*]} " in *' --distributed '*) ;; *) train+=(--distributed) ;; esac
}

run() {  # a command that changes something; with --dry_run it is only shown
    if [ -n "$dry_run" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

on() {  # WORKER COMMAND...: a command line on a host, or on all
    local worker=$1; shift
    run gcloud compute tpus tpu-vm ssh "$name" ${zone:+"$zone"} --quiet --worker="$worker" --command="$*"
}

there() {  # WORKER ARGS...: launch/tpu_host.sh on a host, or on all
    local worker=$1; shift
    on "$worker" "cd imagenet_jax && bash launch/tpu_host.sh $(printf '%q ' "$@")"
}

set_up() {  # brings the code of this directory, and has the hosts install what it needs
    local box status=0
    box=$(mktemp -d)
    tar -czf "$box/imagenet_jax.tgz" --exclude=__pycache__ configs imagenet_jax launch requirements*.txt pyproject.toml
    cat ${setup:+"$setup"} </dev/null >"$box/imagenet_jax_setup.sh"
    { run gcloud compute tpus tpu-vm scp "$box/imagenet_jax.tgz" "$box/imagenet_jax_setup.sh" "$name:" \
        ${zone:+"$zone"} --quiet --worker=all &&
        on all "mkdir -p imagenet_jax && tar -xzf imagenet_jax.tgz -C imagenet_jax" &&
        there all setup ../imagenet_jax_setup.sh; } || status=$?
    rm -r "$box"
    return $status
}

follow() {  # shows what host 0 says until the run ends; then $code is its exit code, '' if the connection broke
    if [ -n "$dry_run" ]; then there 0 follow; code=0; return; fi
    code=$(there 0 follow | tee >(cat >&2) | sed -n 's/^the run ended with exit code \([0-9]*\).*/\1/p') || true
}
