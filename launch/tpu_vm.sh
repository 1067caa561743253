#!/usr/bin/env bash
# A TPU VM or pod slice that is there at once, or not at all.
#   launch/tpu_vm.sh create NAME --accelerator=v5litepod-16 [--spot | --reserved]
#   launch/tpu_vm.sh setup NAME [--setup=FILE]   brings this code, installs what it needs, on all hosts
#   launch/tpu_vm.sh run NAME -- train --config=configs/resnet50.py --workdir=/mnt/runs/resnet50
#   launch/tpu_vm.sh logs NAME                   what the first host says
#   launch/tpu_vm.sh stop NAME                   the run saves itself and ends
#   launch/tpu_vm.sh delete NAME
# A command may be given again: what is done is not done twice. run goes on when this terminal closes; logs comes back
# to it. The workdir and the dataset lie under paths that all hosts share. Flags of all:
#   --zone=ZONE             by default gcloud's own, as the project is
#   --runtime=VERSION       the TPU software version; by default the one that Google names for the accelerator
#   --setup=FILE            lines of bash for every host, run before Python is set up: mount the disks there
#   --create_flags='...'    more flags for gcloud's create, such as --network=... --service-account=...
#   --dry_run               print what would be done
#
# v2 to v6e are made like this, after https://docs.cloud.google.com/tpu/docs/create-tpu-vm and .../runtimes (copies of
# 2025 and 2026): this API gets no new features any more and does not make TPU7x, which goes through launch/tpu_mig.sh
# or launch/gke.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/tpu.sh
command=${1:-}
case $command in create | setup | run | logs | stop | delete) shift ;; *) usage ;; esac
own_flag() { false; }
parse "$@"

exists() {  # sets $answer, its state
    answer=$(gcloud compute tpus tpu-vm describe "$name" ${zone:+"$zone"} --format='value(state)' 2>&1) && return
    case $answer in *NOT_FOUND*) return 1 ;; *) fail "gcloud says: $answer" ;; esac
}

case $command in
    create)
        need_accelerator
        if [ -z "$dry_run" ] && exists; then say "$name is there: $answer"; exit; fi
        # shellcheck disable=SC2086
        run gcloud compute tpus tpu-vm create "$name" ${zone:+"$zone"} --accelerator-type="$accelerator" \
            --version="$runtime" ${tier:+"$tier"} $create_flags
        ;;
    setup) set_up ;;
    run)
        need_train
        there all start "$(date +%s)" "${train[@]}"
        follow
        [ -n "$code" ] || fail "the connection broke; the run goes on. Come back to it: launch/tpu_vm.sh logs $name"
        exit "$code"
        ;;
    logs) there 0 follow ;;
    stop) there all stop ;;
    delete)
        if [ -z "$dry_run" ] && ! exists; then say "there is no $name"; exit; fi
        run gcloud compute tpus tpu-vm delete "$name" ${zone:+"$zone"} --quiet
        ;;
esac
