#!/usr/bin/env bash
# A run on a TPU slice that is waited for in Google's queue, made again when it is taken away, until the run is done.
#   launch/tpu_queue.sh NAME --accelerator=v6e-16 --spot --setup=mount.sh -- \
#       train --config=configs/resnet50.py --workdir=/mnt/runs/resnet50
# It can be stopped and given again at any time, and finds how far it was. The run itself goes on meanwhile; see it by
# launch/tpu_vm.sh logs NAME, end it by launch/tpu_vm.sh stop NAME once this is stopped. The workdir and the dataset lie
# under paths that all hosts share. When the run is done the slice is deleted. Flags:
#   --spot, --reserved      from spare capacity, or from your reservation; by default on demand
#   --zone=ZONE             by default gcloud's own, as the project is
#   --runtime=VERSION       the TPU software version; by default the one that Google names for the accelerator
#   --setup=FILE            lines of bash for every host, run before Python is set up: mount the disks there
#   --create_flags='...'    more flags for gcloud's create, such as --network=... --service-account=...
#   --restarts=5            start the run again as often on a slice, and ask again as often for one that FAILED
#   --keep                  do not delete the slice when the run is done
#   --dry_run               print what would be done
# To give up: launch/tpu_queue.sh NAME --delete
#
# How each generation is made, after Google's pages under https://docs.cloud.google.com (copies of 2025 and 2026):
#   v2 to v6e, v5p  this script: tpu/docs/queued-resources, tpu/docs/runtimes, sdk/gcloud/reference/compute/tpus/
#                   queued-resources/create. tpu/docs/create-tpu-vm says that this API gets only fixes now.
#   v5p, v6e, TPU7x may also be managed instance groups of Compute Engine (tpu/docs/tpus-and-migs). There is no script
#                   for them here: the pages were not found whole, and that JAX finds its hosts there was not tried.
#   TPU7x           launch/gke.sh; the Cloud TPU API does not make it (tpu/docs/create-tpu-vm).
# A reservation of calendar mode needs flags of gcloud alpha (tpu/docs/consume-reservation), which are not used here.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/tpu.sh
restarts=5 keep='' delete=''
own_flag() {
    case $1 in
        --restarts=*) restarts=${1#*=} ;;
        --keep) keep=1 ;;
        --delete) delete=1 ;;
        *) false ;;
    esac
}
parse "$@"
[[ $restarts =~ ^[0-9]+$ ]] || fail "--restarts=$restarts is not a number"
queue=(gcloud compute tpus queued-resources)
errors=$(mktemp) tries=0
trap 'rm -f "$errors"' EXIT

describe() { "${queue[@]}" describe "$name" ${zone:+"$zone"} --format="value($1)"; }
remove() { run "${queue[@]}" delete "$name" ${zone:+"$zone"} --force --quiet; }
create() {
    # shellcheck disable=SC2086
    run "${queue[@]}" create "$name" --node-id="$name" ${zone:+"$zone"} --accelerator-type="$accelerator" \
        --runtime-version="$runtime" ${tier:+"$tier"} $create_flags
}

again() {  # WHAT SAID: gcloud failed; waits for the next try, of at most 30 in a row, for networks do fail for a while
    tries=$((tries + 1))
    [ $tries -lt 30 ] || fail "$1 failed $tries times in a row; at last: $2"
    say "$1 failed, and is tried again in $poll s: $2"
    sleep "$poll"
}

look() {  # sets $state; NONE if there is no such request
    until state=$(describe state.state 2>"$errors"); do
        said=$(cat "$errors")
        case $said in *NOT_FOUND*) state=NONE; return ;; esac
        again "looking for $name" "$said"
    done
}

refused() {  # WHY there will be no slice for this request; returns if it makes sense to ask again
    refusals=$((refusals + 1))
    case $1 in *[Qq]uota* | *PERMISSION_DENIED* | *INVALID_ARGUMENT*) refusals=$((restarts + 1)) ;; esac
    [ $refusals -le "$restarts" ] || fail "there is no slice to be had: $1
Once this is mended (a quota is one of an accelerator, a zone, and of spot or not), the same command goes on."
    say "asked for again ($refusals of $restarts): $1"
}

if [ -n "$delete" ]; then
    if [ -z "$dry_run" ]; then look; [ "$state" != NONE ] || { say "there is no $name"; exit; }; fi
    remove
    exit
fi
need_accelerator
need_train
if [ -n "$dry_run" ]; then
    create
    set_up
    there all start NUMBER "${train[@]}"
    follow
    [ -n "$keep" ] || remove
    exit
fi

give_up="launch/tpu_queue.sh $name ${zone:+$zone }--delete"
trap 'say "stopped looking. What is there stays, and costs: the same command goes on; $give_up ends it"; exit 130' INT
state='' problem='' starts=0 refusals=0
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
                refused "$(describe state.failedData.error.message || true)"
            fi
            remove || say "could not delete $name; tried again in $poll s"
            ;;
        ACTIVE)
            refusals=0
            if [ -n "$problem" ]; then  # and the slice was not taken away, so that is not why
                [ $starts -le "$restarts" ] || fail "$problem, $starts times on $name. It is kept, and costs. See" \
                    "launch/tpu_vm.sh logs $name; then the same command goes on, or $give_up ends it."
                say "$problem; started again ($starts of $restarts)"
                problem=''
            fi
            # no word of the two: host 0 is not reached, so that it is not known whether the run is there
            answer=$(on 0 "bash imagenet_jax/launch/tpu_host.sh running 2>/dev/null && echo runs || echo idle") ||
                answer=''
            case $answer in
                *runs*) ;;
                *idle*)
                    starts=$((starts + 1))
                    { set_up && there all start "$(date +%s)" "${train[@]}"; } || problem="the setup failed" ;;
                *) again "reaching host 0 of $name" "see above"; continue ;;
            esac
            tries=0
            if [ -z "$problem" ]; then
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
            fi
            ;;
    esac
    sleep "$poll"
done
