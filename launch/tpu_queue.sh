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
#   v5p, v6e, TPU7x launch/tpu_mig.sh: managed instance groups of Compute Engine (tpu/docs/tpus-and-migs).
#   TPU7x           launch/gke.sh, too; the Cloud TPU API does not make it (tpu/docs/create-tpu-vm).
# A reservation of calendar mode needs flags of gcloud alpha (tpu/docs/consume-reservation), which are not used here.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/tpu.sh
delete=''
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
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
logs="launch/tpu_vm.sh logs $name" give_up="launch/tpu_queue.sh $name ${zone:+$zone }--delete"

describe() { "${queue[@]}" describe "$name" ${zone:+"$zone"} --format="value($1)"; }
reason() { describe state.failedData.error.message; }
remove() { run "${queue[@]}" delete "$name" ${zone:+"$zone"} --force --quiet; }
create() {
    # shellcheck disable=SC2086
    run "${queue[@]}" create "$name" --node-id="$name" ${zone:+"$zone"} --accelerator-type="$accelerator" \
        --runtime-version="$runtime" ${tier:+"$tier"} $create_flags
}

look() {  # sets $state; NONE if there is no such request
    local said
    until state=$(describe state.state 2>"$errors"); do
        said=$(cat "$errors")
        case $said in *NOT_FOUND*) state=NONE; return ;; esac
        again "looking for $name" "$said"
    done
}

if [ -n "$delete" ]; then
    if [ -z "$dry_run" ]; then look; [ "$state" != NONE ] || { say "there is no $name"; exit; }; fi
    remove
    exit
fi
need_accelerator
need_train
keep_going
