#!/usr/bin/env bash
# A run on a TPU slice of GKE, by JobSet (which the cluster must have; GKE's node pool, too).
#   launch/gke.sh run NAME --image=IMAGE --claim=CLAIM --accelerator=tpu-v6e-slice --topology=4x4 -- \
#       train --config=configs/resnet50.py --workdir=/shared/runs/resnet50
#   launch/gke.sh logs NAME       what the first host says, until the run is done
#   launch/gke.sh delete NAME
# run may be given again, and follows what is there; that goes on without it. Flags:
#   --image=IMAGE          made by launch/Dockerfile
#   --claim=CLAIM          a volume claim that many nodes may write at once (Filestore); it is /shared on all of them
#   --accelerator, --topology, --chips=4    as the node pool has them: chips of a host
#   --spot                 on spot nodes
#   --restarts=10          start all again as often when a host fails; preemptions are not counted
#   --dry_run              print what would be done
# Accelerators are called tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice, tpu7x; their topologies and chips a
# host are in https://docs.cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus. The node pool of TPU7x is
# made with a workload policy instead of --tpu-topology (.../concepts/tpu-ironwood, a copy of 2026).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "$(date +%H:%M:%S) $*" >&2; }
fail() { echo "error: $*" >&2; exit 2; }
run() { if [ -n "$dry_run" ]; then printf '%q ' "$@"; echo; else "$@"; fi; }
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }

command=${1:-} name=${2:-}
case $command in run | logs | delete) ;; *) usage ;; esac
[ "$name" != --help ] || usage
[[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || fail "'$name' is no name (small letters, digits and -); see --help"
shift 2
image='' claim='' accelerator='' topology='' chips=4 spot='' restarts=10 dry_run='' args=()
while [ $# -gt 0 ]; do
    case $1 in
        --image=*) image=${1#*=} ;;
        --claim=*) claim=${1#*=} ;;
        --accelerator=*) accelerator=${1#*=} ;;
        --topology=*) topology=${1#*=} ;;
        --chips=*) chips=${1#*=} ;;
        --restarts=*) restarts=${1#*=} ;;
        --spot) spot=1 ;;
        --dry_run) dry_run=1 ;;
        --help) usage ;;
        --) shift; args=("$@"); break ;;
        *) fail "'$1' is no flag of gke.sh; see --help. The command to run comes after --" ;;
    esac
    shift
done

json() {  # a list of strings
    local text='' item
    for item; do
        item=${item//\\/\\\\}
        text+=", \"${item//\"/\\\"}\""
    done
    echo "[${text#, }]"
}

jobset() {  # gke_jobset.yaml, filled in
    local hosts arg
    for arg in image claim accelerator topology; do
        [ -n "${!arg}" ] || fail "a run needs --$arg; see launch/gke.sh --help"
    done
    [[ $topology =~ ^[0-9]+(x[0-9]+){1,2}$ ]] || fail "--topology=$topology is not of the form 4x4 or 2x2x2"
    [[ $chips =~ ^[1-9][0-9]*$ && $restarts =~ ^[0-9]+$ ]] || fail "--chips and --restarts are numbers"
    hosts=$((${topology//x/ * } / chips))
    [[ $hosts -ge 1 && $((hosts * chips)) -eq $((${topology//x/ * })) ]] ||
        fail "a slice of $topology is not made of hosts with $chips chips (--chips)"
    [ ${#args[@]} -gt 0 ] || fail "nothing to run: give a command of imagenet_jax after --, such as train --config=..."
    if [ "${args[0]}" = train ]; then
        [[ " ${args[*]} " == *' --workdir=/shared/'* ]] || fail "give train --workdir=/shared/..., which all hosts see"
    fi
    case " ${args[*]} " in *' --distributed '*) ;; *) args+=(--distributed) ;; esac
    NAME=$name RESTARTS=$restarts HOSTS=$hosts ACCELERATOR=$accelerator TOPOLOGY=$topology CHIPS=$chips IMAGE=$image \
        CLAIM=$claim ARGS=$(json "${args[@]}") SPOT=$spot awk '
            /# only with --spot$/ && !ENVIRON["SPOT"] { next }
            /^ *#/ { next }
            { out = ""
              while (match($0, /\$\{[A-Z]+\}/)) {
                  out = out substr($0, 1, RSTART - 1) ENVIRON[substr($0, RSTART + 2, RLENGTH - 3)]
                  $0 = substr($0, RSTART + RLENGTH)
              }
              print out $0 }' launch/gke_jobset.yaml
}

follow() {
    local state before=''
    while true; do
        state=$(kubectl get jobset "$name" --output='jsonpath={.status.terminalState} {.status.restarts}') ||
            fail "kubectl does not know the state of $name; it says why above. What runs goes on without this."
        [ "$state" = "$before" ] || say "$name: ${state/#[[:space:]]/not done, restarts: }"
        before=$state
        case $state in
            Completed*) say "the run is done"; return ;;
            Failed*) fail "$name failed for good. See launch/gke.sh logs $name; delete it before it is run again." ;;
        esac
        kubectl logs --follow --tail=100 \
            --selector="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0" || true
        sleep "${POLL:-30}"
    done
}

case $command in
    run)
        text=$(jobset)
        if [ -n "$dry_run" ]; then echo "$text"; else kubectl apply --filename=- <<<"$text" && follow; fi
        ;;
    logs) if [ -n "$dry_run" ]; then fail "logs changes nothing: it has no --dry_run"; else follow; fi ;;
    delete) run kubectl delete jobset "$name" --ignore-not-found ;;
esac
