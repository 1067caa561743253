# shellcheck shell=bash disable=SC2034
# Sourced by tpu_vm.sh, tpu_queue.sh and tpu_mig.sh: their flags, how they reach the hosts of a TPU slice (tpu_mig.sh
# has an `on` and a `copy` of its own), and the loop that keeps a run going.
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
        tpu7x* | v7*) fail "TPU7x is not made by the Cloud TPU API; use launch/gke.sh or launch/tpu_mig.sh" ;;
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

copy() {  # FILE...: to the home of every host
    run gcloud compute tpus tpu-vm scp "$@" "$name:" ${zone:+"$zone"} --quiet --worker=all
}

set_up() {  # brings the code of this directory, and has the hosts install what it needs
    local box status=0
    box=$(mktemp -d)
    tar -czf "$box/imagenet_jax.tgz" --exclude=__pycache__ configs imagenet_jax launch requirements*.txt pyproject.toml
    cat ${setup:+"$setup"} </dev/null >"$box/imagenet_jax_setup.sh"
    { copy "$box/imagenet_jax.tgz" "$box/imagenet_jax_setup.sh" &&
        on all "mkdir -p imagenet_jax && tar -xzf imagenet_jax.tgz -C imagenet_jax" &&
        there all setup ../imagenet_jax_setup.sh; } || status=$?
    rm -r "$box"
    return $status
}

follow() {  # shows what host 0 says until the run ends; then $code is its exit code, '' if the connection broke
    if [ -n "$dry_run" ]; then there 0 follow; code=0; return; fi
    code=$(there 0 follow | tee >(cat >&2) | sed -n 's/^the run ended with exit code \([0-9]*\).*/\1/p') || true
}

# The loop. Whose slice it is says how to create and remove it, to look (sets $state) and the reason why it FAILED; and
# which commands show the $logs and $give_up.
restarts=5 keep='' tries=0 starts=0 refusals=0 state='' before='' problem='' logs='' give_up=''

again() {  # WHAT SAID: gcloud failed; waits for the next try, of at most 30 in a row, for networks do fail for a while
    tries=$((tries + 1))
    [ $tries -lt 30 ] || fail "$1 failed $tries times in a row; at last: $2"
    say "$1 failed, and is tried again in $poll s: $2"
    sleep "$poll"
}

no_slice() {  # WHY
    fail "there is no slice to be had: $1
Once this is mended (a quota is one of an accelerator, a zone, and of spot or not), the same command goes on."
}

refused() {  # WHY there will be no slice for this request; returns if it makes sense to ask again
    refusals=$((refusals + 1))
    case $1 in *[Qq]uota* | *PERMISSION_DENIED* | *INVALID_ARGUMENT*) refusals=$((restarts + 1)) ;; esac
    [ $refusals -le "$restarts" ] || no_slice "$1"
    say "asked for again ($refusals of $restarts): $1"
}

attend() {  # the slice is there: starts the run unless it runs, and follows it; exits when it is done
    local answer
    refusals=0
    if [ -n "$problem" ]; then  # and the slice was not taken away, so that is not why
        [ $starts -le "$restarts" ] || fail "$problem, $starts times on $name. It is kept, and costs. See" \
            "$logs; then the same command goes on, or $give_up ends it."
        say "$problem; started again ($starts of $restarts)"
        problem=''
    fi
    # no word of the two: host 0 is not reached, so that it is not known whether the run is there
    answer=$(on 0 "bash imagenet_jax/launch/tpu_host.sh running 2>/dev/null && echo runs || echo idle") || answer=''
    case $answer in
        *runs*) ;;
        *idle*)
            starts=$((starts + 1))
            { set_up && there all start "$(date +%s)" "${train[@]}"; } || problem="the setup failed" ;;
        *) again "reaching host 0 of $name" "see above"; return ;;
    esac
    tries=0
    [ -z "$problem" ] || return 0
    follow
    case $code in
        0)
            say "the run is done"
            until [ -n "$keep" ] || remove; do again "deleting $name" "see above"; done
            exit
            ;;
        '') say "the connection broke" ;;
        *) problem="the run ended with exit code $code" ;;
    esac
}

keep_going() {  # until the run is done; with --dry_run, what that is
    if [ -n "$dry_run" ]; then
        create
        set_up
        there all start NUMBER "${train[@]}"
        follow
        [ -n "$keep" ] || remove
        exit
    fi
    local said
    trap 'say "stopped looking. What is there stays, and costs: the same command goes on;" \
        "$give_up ends it"; exit 130' INT
    while true; do
        before=$state
        look
        [ "$state" = "$before" ] || say "$name: $state"
        case $state in
            NONE)
                starts=0 problem=''
                if ! said=$(create 2>&1); then refused "$said"; fi
                ;;
            FAILED | SUSPENDED)
                if [ "$state" = FAILED ] && [ -n "$before" ]; then  # else it failed before this was started
                    refused "$(reason || true)"
                fi
                remove || say "could not delete $name; tried again in $poll s"
                ;;
            ACTIVE) attend ;;
            *) tries=0 starts=0 problem='' ;;  # the slice is being made or mended, which is why the run ended
        esac
        sleep "$poll"
    done
}
