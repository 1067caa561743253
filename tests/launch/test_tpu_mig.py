"""launch/tpu_mig.sh makes a managed instance group, runs on all its hosts, and goes on when hosts were lost."""

import pytest

TRAIN = ("--", "train", "--config=configs/resnet50.py", "--workdir=/mnt/runs/a", "--config.optimizer.name='a b'")
ZONE = "--zone=us-east5-a"
RUN = ("run", "run-1", ZONE, "--accelerator=v6e", "--topology=2x4")
GONE = ("1 ERROR: (gcloud.compute.instance-groups.managed.list-instances) Could not fetch resource:\\n - The resource "
        "'projects/p/zones/us-east5-a/instanceGroupManagers/run-1' was not found")
DONE, DROPPED = "0 step 7\\nthe run ended with exit code 0", "255 Connection reset by peer"
MAKE = ["drop", "drop", "policy", "template", "link", "create"]
START = ["running", *["copy"] * 2, *["unpack"] * 2, *["setup"] * 2, *["start"] * 2, "follow"]
REMOVE = ["delete", "drop", "drop"]


def hosts(*words):
    """What list-instances says of hosts b, a, ... in these states; an action goes before the status of the instance."""
    rows = (f"run-1-{name},RUNNING,NONE" if word == "RUNNING" else f"run-1-{name},{word}"
            for name, word in zip("badc", words, strict=False))
    return "0 " + "\\n".join(rows)


UP = hosts("RUNNING", "RUNNING")
CREATING, RECREATING, PREEMPTED = hosts(",CREATING", ",CREATING"), hosts("STOPPING,RECREATING", "RUNNING"), hosts(
    "TERMINATED,NONE", "TERMINATED,NONE")


def test_from_nothing_to_the_end(world):
    world.answers(state=[GONE, CREATING, hosts("STAGING,CREATING", "RUNNING"), UP], running=["0 idle"], follow=[DONE],
                  link=["0 https://compute/policies/run-1"])
    told = world.run("tpu_mig.sh", *RUN, "--create_flags=--network=n --scopes=cloud-platform", *TRAIN)
    assert told.returncode == 0, told.stderr
    assert world.calls() == ["state", *MAKE, "state", "why", "why", "state", "why", "why", "state", *START, *REMOVE]
    policy, template, group = world.calls("policy", "template", "create")
    assert policy.endswith("create workload-policy run-1-us-east5-a --region=us-east5 --type=HIGH_THROUGHPUT "
                           "--accelerator-topology=2x4")
    assert "--machine-type=ct6e-standard-4t" in template and template.endswith(" --network=n --scopes=cloud-platform")
    assert group.endswith(f"managed create run-1 {ZONE} --template=run-1-us-east5-a --size=2 "
                          "--target-size-policy-mode=bulk --workload-policy=https://compute/policies/run-1")
    assert [line.split(" compute ")[1] for line in world.calls("delete", "drop")[2:]] == [
        f"instance-groups managed delete run-1 {ZONE} --quiet", "instance-templates delete run-1-us-east5-a --quiet",
        "resource-policies delete run-1-us-east5-a --region=us-east5 --quiet"]
    assert "2 CREATING" in told.stderr and "1 CREATING, 1 RUNNING" in told.stderr and "step 7" in told.stderr


def test_every_host_is_told_its_place_in_the_order_of_the_names(world):
    world.answers(state=[UP], running=["0 idle"], follow=[DONE])
    assert world.run("tpu_mig.sh", *RUN, "--keep", *TRAIN).returncode == 0
    assert world.calls() == ["state", *START]
    for number, (name, line) in enumerate(zip("ab", sorted(world.calls("start")), strict=True)):
        assert f"compute ssh run-1-{name} {ZONE} " in line and "--workdir=/mnt/runs/a" in line
        assert (f"export JAX_COORDINATOR_ADDRESS=run-1-a:8476 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID={number}; cd imagenet"
                in line)
    follow, = world.calls("follow")
    assert "ssh run-1-a " in follow


@pytest.mark.parametrize("end", [DROPPED, "0 the run ended with exit code 75", "0 the run ended with exit code 143"])
def test_after_a_repair_the_same_workdir_is_run_again(world, end):
    world.answers(state=[UP, RECREATING, hosts("STAGING,RECREATING", "RUNNING"), UP], running=["0 idle"] * 2,
                  follow=[end, DONE])
    told = world.run("tpu_mig.sh", *RUN, "--restarts=0", "--keep", *TRAIN)
    assert told.returncode == 0, told.stderr
    assert world.calls() == ["state", *START, *["state", "why", "why"] * 2, "state", *START]
    starts = [line.split(" train ")[1] for line in world.calls("start")]
    assert len(starts) == 4 and len(set(starts)) == 1 and "--workdir=/mnt/runs/a" in starts[0]


def test_a_preempted_group_is_made_again(world):
    world.answers(state=[UP, PREEMPTED, GONE, UP], running=["0 idle"] * 2, follow=[DROPPED, DONE])
    told = world.run("tpu_mig.sh", *RUN, "--spot", "--restarts=0", *TRAIN)
    assert told.returncode == 0, told.stderr
    assert world.calls() == ["state", *START, "state", *REMOVE, "state", *MAKE, "state", *START, *REMOVE]
    template, group = world.calls("template", "create")
    assert template.endswith("--provisioning-model=SPOT --instance-termination-action=STOP")
    assert group.endswith("--default-action-on-vm-failure=do-nothing")


def test_on_demand_a_stopped_host_is_waited_for(world):
    world.answers(state=[PREEMPTED, UP], running=["0 runs"], follow=[DONE])
    assert world.run("tpu_mig.sh", *RUN, *TRAIN).returncode == 0
    assert world.calls() == ["state", "why", "why", "state", "running", "follow", *REMOVE]


def test_a_reservation_is_named_in_the_template(world):
    world.answers(state=[GONE, UP], running=["0 idle"], follow=[DONE])
    told = world.run("tpu_mig.sh", "run", "run-1", ZONE, "--accelerator=tpu7x", "--topology=2x2x2",
                     "--reservation=projects/p/reservations/r", "--runtime=mine", *TRAIN)
    assert told.returncode == 0, told.stderr
    template, = world.calls("template")
    assert "--machine-type=tpu7x-standard-4t --image-family=mine" in template and template.endswith(
        "--provisioning-model=reservation-bound --instance-termination-action=DELETE --reservation-affinity=specific "
        "--reservation=projects/p/reservations/r")


@pytest.mark.parametrize("answers, calls", [
    ({"state": [GONE], "create": ["1 ERROR: Quota 'TPUS_PER_TPU_FAMILY' exceeded"]}, ["state", *MAKE]),
    ({"state": [CREATING], "why": ["0 ", "0 QUOTA_EXCEEDED\\tQuota 'TPUS_PER_TPU_FAMILY' exceeded"]},
     ["state", "why", "why", *REMOVE])])
def test_a_quota_is_told_and_no_group_waits_for_it(world, answers, calls):
    world.answers(**answers)
    told = world.run("tpu_mig.sh", *RUN, *TRAIN)
    assert told.returncode == 2 and world.calls() == calls, told.stderr
    assert "there is no slice to be had" in told.stderr and "'TPUS_PER_TPU_FAMILY' exceeded" in told.stderr
    assert told.stderr.count("error:") == 1 and "the same command goes on" in told.stderr


def test_a_group_that_does_not_become_whole_is_told(world):
    world.answers(state=[CREATING], why=["0 no room for 2 VMs in us-east5-a"])
    told = world.run("tpu_mig.sh", *RUN, "--hours=0", *TRAIN)
    assert told.returncode == 2 and world.calls() == ["state", "why", "why"]
    assert told.stderr.count("error:") == 1 and "2 CREATING" in told.stderr and "no room for 2 VMs" in told.stderr
    assert f"launch/tpu_mig.sh delete run-1 {ZONE} ends it" in told.stderr


def test_a_run_that_fails_on_a_group_that_stands_is_not_started_for_ever(world):
    world.answers(state=[UP] * 3, running=["0 idle"] * 2, follow=["0 the run ended with exit code 1"] * 2)
    told = world.run("tpu_mig.sh", *RUN, "--restarts=1", *TRAIN)
    assert told.returncode == 2 and world.calls() == [*["state", *START] * 2, "state"]
    assert "exit code 1, 2 times on run-1. It is kept, and costs." in told.stderr
    assert f"See launch/tpu_mig.sh logs run-1 {ZONE}; then" in told.stderr


def test_what_is_there_is_seen_stopped_and_deleted(world):
    world.answers(state=[UP] * 3 + [GONE], follow=["0 step 7"], why=["0 ", "0 no room"])
    assert "step 7" in world.run("tpu_mig.sh", "logs", "run-1", ZONE).stdout and world.calls() == ["state", "follow"]
    assert world.run("tpu_mig.sh", "stop", "run-1", ZONE).returncode == 0
    assert world.calls() == ["state", "stop", "stop"]
    assert world.run("tpu_mig.sh", "status", "run-1", ZONE).stdout.split("\n")[:3] == [
        "run-1: 2 RUNNING", "run-1-a", "run-1-b"]
    assert "there is no run-1 in us-east5-a" in world.run("tpu_mig.sh", "logs", "run-1", ZONE).stderr
    world.answers(delete=[GONE], drop=["1 ERROR: it is used"])
    told = world.run("tpu_mig.sh", "delete", "run-1", ZONE)
    assert told.returncode == 1 and "it is used" in told.stderr and world.calls() == ["delete", "drop"]
    assert world.run("tpu_mig.sh", "delete", "run-1", ZONE).returncode == 0 and world.calls() == REMOVE


@pytest.mark.parametrize("args", [RUN, ("stop", "run-1", ZONE), ("logs", "run-1", ZONE), ("delete", "run-1", ZONE)])
def test_a_dry_run_only_says_what_would_be_done(world, args):
    told = world.run("tpu_mig.sh", *args, "--dry_run", *TRAIN)
    assert told.returncode == 0 and not world.calls(), told.stderr
    assert told.stdout and all(line.startswith("gcloud compute ") for line in told.stdout.splitlines())
    assert (args is RUN) == ("HOST_1 --zone=us-east5-a --quiet --command=export" in told.stdout and
                             "--target-size-policy-mode=bulk" in told.stdout)


def test_help_comes_from_the_head_of_the_script(world):
    told = world.run("tpu_mig.sh", "run", "--help")
    assert told.returncode == 0 and "launch/tpu_mig.sh run NAME" in told.stdout and "set -e" not in told.stdout
    assert world.run("tpu_mig.sh").stdout == told.stdout and not world.calls()


@pytest.mark.parametrize("args, words", [
    (("run", "Run"), "'Run' is no name"),
    (("run", "a", *TRAIN), "Give --zone=ZONE"),
    (("run", "a", ZONE, *TRAIN), "which TPU?"),
    (("run", "a", ZONE, "--accelerator=v5litepod-16", *TRAIN), "not 'v5litepod-16'"),
    ((*RUN[:-1], "--topology=8", *TRAIN), "--topology=8 is not of the form 4x4"),
    ((*RUN[:-1], "--topology=2x2", *TRAIN), "two or more hosts"),
    ((*RUN[:-1], "--topology=3x3", *TRAIN), "two or more hosts"),
    ((*RUN, "--reserved", *TRAIN), "--reservation=projects/PROJECT/reservations/NAME"),
    ((*RUN, "--spot", "--reservation=projects/p/reservations/r", *TRAIN), "or neither of them"),
    ((*RUN, "--hours=soon", *TRAIN), "--hours are numbers"),
    ((*RUN, "--worker=0", *TRAIN), "'--worker=0' is no flag of tpu_mig.sh"),
    (RUN, "nothing to run"),
    ((*RUN, "--", "train", "--workdir=gs://b/a"), "on a disk that all hosts share"),
    (("status", "a", ZONE, "--dry_run"), "it has no --dry_run"),
])
def test_mistakes_are_told_before_anything_is_made(world, args, words):
    told = world.run("tpu_mig.sh", *args)
    assert told.returncode == 2 and words in told.stderr and not world.calls(), told.stderr


TWO_HOSTS = r"""#!/usr/bin/env bash
line=$*
case $line in
    *list-instances*) printf 'one,RUNNING,NONE\ntwo,RUNNING,NONE\n' ;;
    "compute scp "*) cp "$3" "$4" "$FAKE/${5%:}" ;;
    "compute ssh "*) cd "$FAKE/$3" && bash -c "${line#*--command=}" ;;
esac
"""


def test_code_command_and_place_reach_every_host(world):
    """gcloud is a fake that copies to two directories and runs commands there; only Python is no Python."""
    world.hosts(TWO_HOSTS, "one", "two")
    told = world.run("tpu_mig.sh", *RUN, *TRAIN)
    assert told.returncode == 0, told.stderr
    for number, host in enumerate(("one", "two")):
        assert (world.path / host / "imagenet_jax/configs/resnet50.py").exists()
        assert (world.path / host / "python").read_text().splitlines()[-1] == (
            f"one:8476 2 {number} -m imagenet_jax {' '.join(TRAIN[1:])} --distributed")
