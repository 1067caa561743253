#!/usr/bin/env bash
# A run on a TPU slice of Compute Engine: a managed instance group (MIG) of v5p, v6e or TPU7x, which is waited for, and
# made again when it is taken away, until the run is done.
#   launch/tpu_mig.sh run NAME --zone=ZONE --accelerator=v6e --topology=4x4 --spot --setup=mount.sh -- \
#       train --config=configs/resnet50.py --workdir=/mnt/runs/resnet50
#   launch/tpu_mig.sh logs NAME --zone=ZONE      what the first host says
#   launch/tpu_mig.sh status NAME --zone=ZONE    the hosts, and what the group last failed at
#   launch/tpu_mig.sh stop NAME --zone=ZONE      the run saves itself and ends, once `run` is stopped
#   launch/tpu_mig.sh delete NAME --zone=ZONE    the group; its instance template and workload policy, NAME-ZONE
# run can be stopped and given again at any time, and finds how far it was; the hosts go on meanwhile. The workdir and
# the dataset lie under paths that all hosts share. When the run is done the slice is deleted. Flags:
#   --accelerator, --topology   v5p, v6e or tpu7x, and its chips such as 4x4 or 2x2x4: four a host, two hosts at least
#   --spot                  from spare capacity; by default on demand
#   --reservation=projects/PROJECT/reservations/NAME    from your reservation
#   --runtime=FAMILY        the image family of ubuntu-os-accelerator-images; by default Google's for the accelerator
#   --setup=FILE            lines of bash for every host, run before Python is set up: mount the disks there
#   --create_flags='...'    more flags for gcloud's instance-templates create, such as --network=... --scopes=...
#   --hours=24              that it may take until all hosts run
#   --restarts=5            start the run again as often on a slice
#   --keep                  do not delete the slice when the run is done
#   --dry_run               print what would be done
#
# After Google's pages under https://docs.cloud.google.com (copies of 2026, whose beginnings alone were found):
#   compute/docs/tpus/create-tpu-mig-multi-host-slice, tpu/docs/tpus-and-migs   policy, template, group
#   tpu/docs/spot-compute                   the template for spot; a preempted group is to be deleted and made again
#   tpu/docs/consume-reservation-compute    the template for a reservation, and the images' project
#   compute/docs/instance-groups/about-bulk-mode    all VMs at once, or none until there is room for all
#   tpu/docs/failure-recovery               on demand or reserved, Compute Engine restarts what failed by itself
#   sdk/gcloud/reference/compute/           resource-policies/create/workload-policy, instance-groups/managed/...
# Not found there, but in public accounts of such slices: the names of the image families; that boot disks have 10 GB
# by default, hence 100 here; that a workload policy is given by its URL; and that a topology needs bulk mode, which
# older copies of gcloud's reference have in alpha only, and .../bulk-create-instances-in-mig for reservations and
# flex-start only (which this does not use). Not found at all: whether TPU7x is to be had on spot; where bulk mode
# reports a quota, so that both places for errors are read; and whether JAX finds its hosts in a MIG. It asks for the
# metadata agent-worker-number and worker-network-endpoints (jax/_src/clusters/cloud_tpu_cluster.py), which no page
# promises: so every host is told its place by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/tpu.sh
topology='' reservation='' hours=24 hosts=() since=''
command=${1:-}
case $command in run | logs | status | stop | delete) shift ;; *) usage ;; esac
own_flag() {
    case $1 in
        --topology=*) topology=${1#*=} ;;
        --reservation=*) reservation=${1#*=} ;;
        --hours=*) hours=${1#*=} ;;
        --restarts=*) restarts=${1#*=} ;;
        --keep) keep=1 ;;
        *) false ;;
    esac
}
parse "$@"
[ -n "$zone" ] || fail "in which zone? Give --zone=ZONE"
[[ $restarts =~ ^[0-9]+$ && $hours =~ ^[0-9]+$ ]] || fail "--restarts and --hours are numbers"
place=${zone#--zone=}
region=${place%-*} plan=$name-$place  # other zones may have groups of that name
group=(gcloud compute instance-groups managed)
template=(gcloud compute instance-templates)
policy=(gcloud compute resource-policies)
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
logs="launch/tpu_mig.sh logs $name $zone" give_up="launch/tpu_mig.sh delete $name $zone"

need_slice() {  # sets $machine, $runtime, $model and $size
    local chips
    case $accelerator in
        v5p) machine=ct5p-hightpu-4t ;;
        v6e) machine=ct6e-standard-4t ;;
        tpu7x) machine=tpu7x-standard-4t runtime=${runtime:-ubuntu-accel-2404-amd64-tpu-tpu7x} ;;
        *) fail "which TPU? Give --accelerator=v5p, v6e or tpu7x (not '$accelerator'), and its size as --topology" ;;
    esac
    runtime=${runtime:-ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e}
    [[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] || fail "--topology=$topology is not of the form 4x4 or 2x2x4"
    chips=$((${topology//x/ * })) size=$((chips / 4))
    [[ $size -ge 2 && $((size * 4)) -eq $chips ]] ||
        fail "--topology=$topology is not made of two or more hosts with 4 chips; one host is an instance, and no group"
    case $tier$reservation in
        '') model=() ;;
        --spot) model=(--provisioning-model=SPOT --instance-termination-action=STOP) ;;
        projects/*/reservations/*)
            model=(--provisioning-model=reservation-bound --instance-termination-action=DELETE
                --reservation-affinity=specific "--reservation=$reservation") ;;
        *) fail "give --spot, or --reservation=projects/PROJECT/reservations/NAME, or neither of them" ;;
    esac
}

drop() {  # COMMAND...: deletes something; that it is not there is as good
    local said
    if [ -n "$dry_run" ]; then run "$@" --quiet; return; fi
    said=$("$@" --quiet 2>&1) && return
    case $said in *"not found"* | *NOT_FOUND*) ;; *) echo "$said" >&2; return 1 ;; esac
}

drop_plans() { drop "${template[@]}" delete "$plan" && drop "${policy[@]}" delete "$plan" --region="$region"; }
remove() { drop "${group[@]}" delete "$name" "$zone" && drop_plans; }

create() {  # what an earlier try left may be of other flags
    local url=projects/PROJECT/regions/$region/resourcePolicies/$plan
    # shellcheck disable=SC2086
    drop_plans &&
        run "${policy[@]}" create workload-policy "$plan" --region="$region" --type=HIGH_THROUGHPUT \
            --accelerator-topology="$topology" &&
        run "${template[@]}" create "$plan" --machine-type="$machine" --image-family="$runtime" \
            --image-project=ubuntu-os-accelerator-images --maintenance-policy=TERMINATE --boot-disk-size=100GB \
            "${model[@]}" $create_flags &&
        { [ -n "$dry_run" ] ||
            url=$("${policy[@]}" describe "$plan" --region="$region" --format='value(selfLink)'); } &&
        run "${group[@]}" create "$name" "$zone" --template="$plan" --size="$size" --target-size-policy-mode=bulk \
            --workload-policy="$url" ${tier:+--default-action-on-vm-failure=do-nothing}
}

list() {  # sets $hosts, whose order is that of the processes, and $state such as "3 RUNNING, 1 STAGING"; or NONE
    local lines said format='csv[no-heading](instance.basename(),instanceStatus,currentAction)'
    until lines=$("${group[@]}" list-instances "$name" "$zone" --format="$format" 2>"$errors"); do
        said=$(cat "$errors")
        case $said in *"not found"* | *NOT_FOUND*) state=NONE hosts=(); return ;; esac
        again "looking for $name" "$said"
    done
    mapfile -t hosts < <(awk -F, 'NF { print $1 }' <<<"$lines" | sort)
    state=$(awk -F, 'NF { print $3 == "NONE" ? $2 : $3 }' <<<"$lines" | sort | uniq -c | awk '{ print $1, $2 }' |
        paste -sd, - | sed 's/,/, /g')
    state=${state:-empty}
}

why() {  # what the group last failed at
    "${group[@]}" describe "$name" "$zone" \
        --format='value(status.bulkInstanceOperation.lastProgressCheck.error.errors[].message)' 2>/dev/null || true
    "${group[@]}" list-errors "$name" "$zone" --sort-by=~timestamp --limit=1 \
        --format='value(error.code,error.message)' 2>/dev/null || true
}

look() {  # list, for the loop of tpu.sh
    local said
    list
    case $state in
        NONE) since='' ;;
        "$size RUNNING") state=ACTIVE since='' ;;
        *)
            case $tier$state in --spot*TERMINATED* | --spot*STOP*) state=SUSPENDED since=''; return ;; esac
            said=$(why)
            case $state,$said in
                *RUNNING*,*) ;;
                *[Qq]uota* | *QUOTA* | *PERMISSION_DENIED*)  # it would wait for ever, and cost once nobody looks
                    remove || say "could not delete $name; $give_up does"
                    no_slice "$said"
                    ;;
            esac
            since=${since:-$SECONDS}
            [ $((SECONDS - since)) -lt $((hours * 3600)) ] ||
                fail "after $hours hours (--hours) $name is: $state. It last failed at: ${said:-nothing}. It stays," \
                    "and may cost: the same command waits on; $give_up ends it."
            ;;
    esac
}

at() {  # NUMBER COMMAND: a command line on a host, which is told its place among the others
    run gcloud compute ssh "${hosts[$1]}" "$zone" --quiet --command="export JAX_COORDINATOR_ADDRESS=${hosts[0]}:8476 \
JAX_NUM_PROCESSES=${#hosts[@]} JAX_PROCESS_ID=$1; $2"
}

copy_to() {  # NUMBER FILE...
    local host=${hosts[$1]}; shift
    run gcloud compute scp "$@" "$host:" "$zone" --quiet
}

everywhere() {  # FUNCTION ARGS...: calls it with the number of every host before ARGS, at once; fails if one does
    local function=$1 number job jobs=() failed=0; shift
    for number in "${!hosts[@]}"; do
        if [ -n "$dry_run" ]; then "$function" "$number" "$@"; continue; fi
        "$function" "$number" "$@" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || failed=1; done
    return $failed
}

on() { if [ "$1" = all ]; then everywhere at "${*:2}"; else at "$1" "${*:2}"; fi; }
copy() { everywhere copy_to "$@"; }

case $command in
    run)
        need_slice
        need_train
        [ -z "$dry_run" ] || for number in $(seq 0 $((size - 1))); do hosts+=("HOST_$number"); done
        keep_going
        ;;
    delete) remove ;;
    *)
        [ "$dry_run$command" != 1status ] || fail "status changes nothing: it has no --dry_run"
        if [ -n "$dry_run" ]; then hosts=(HOST_0 HOST_1); else list; fi
        [ "$state" != NONE ] || fail "there is no $name in $place"
        case $command in
            logs) there 0 follow ;;
            status) echo "$name: $state"; printf '%s\n' "${hosts[@]}"; why ;;
            stop) there all stop ;;
        esac
        ;;
esac
