"""The launch scripts make the right calls in the right order: against fakes of gcloud, kubectl, srun and scontrol."""

import pathlib
import re
import signal
import subprocess
import time

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
TRAIN = ("--", "train", "--config=configs/resnet50.py", "--workdir=/mnt/runs/a", "--config.optimizer.name='a b'")
SLICE = ("--accelerator=v6e-16", "--zone=europe-west4-a", "--spot")

GONE = "1 ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: it was not found"
DONE, DROPPED = "0 step 7\\nthe run ended with exit code 0", "255 Connection reset by peer"


def states(*names):
    return [GONE if name == "NONE" else f"0 {name}" for name in names]


START = ["running", "copy", "unpack", "setup", "start", "follow"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_it(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.parametrize("script", ["data_service.sh", "tpu_vm.sh", "tpu_queue.sh", "gke.sh", "slurm.sbatch"])
def test_help(world, script):
    told = world.run(script, "--help")
    assert told.returncode == 0 and f"launch/{script}" in told.stdout
    assert not re.search("^(set -e|SBATCH)", told.stdout, re.MULTILINE)
    assert not world.calls()


def test_from_the_queue_to_the_end(world):
    world.answers(state=states("NONE", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"),
                  running=["0 idle"], follow=[DONE], delete=["1 ERROR: no network"])
    told = world.run("tpu_queue.sh", "run-1", *SLICE, *TRAIN)
    assert told.returncode == 0, told.stderr
    assert world.calls() == ["state", "create", *["state"] * 4, *START, "delete", "delete"]
    assert world.calls("create") == [
        "create compute tpus queued-resources create run-1 --node-id=run-1 --zone=europe-west4-a "
        "--accelerator-type=v6e-16 --runtime-version=v2-alpha-tpuv6e --spot"]
    assert world.calls("delete")[0].endswith("queued-resources delete run-1 --zone=europe-west4-a --force --quiet")
    start, = world.calls("start")
    assert "--worker=all" in start and "--workdir=/mnt/runs/a" in start and "--distributed" in start
    assert "WAITING_FOR_RESOURCES" in told.stderr and "step 7" in told.stderr


@pytest.mark.parametrize("end", [DROPPED, "0 the run ended with exit code 143", "0 the run ended with exit code 2"])
def test_a_slice_that_was_taken_away_is_made_again_and_goes_on_in_the_same_workdir(world, end):
    world.answers(state=states("NONE", "ACTIVE", "SUSPENDING", "SUSPENDED", "NONE", "PROVISIONING", "ACTIVE"),
                  running=["0 idle", "0 idle"], follow=[end, DONE])
    told = world.run("tpu_queue.sh", "run-1", *SLICE, "--restarts=0", *TRAIN)
    assert told.returncode == 0, told.stderr
    assert world.calls() == ["state", "create", "state", *START, "state", "state", "delete", "state", "create", "state",
                             "state", *START, "delete"]
    first, second = (line.split(" train ")[1] for line in world.calls("start"))
    assert first == second and "--workdir=/mnt/runs/a" in first
    assert len(set(world.calls("create"))) == 1


def test_a_connection_that_breaks_is_made_again_and_nothing_is_started_twice(world):
    world.answers(state=states("ACTIVE", "ACTIVE") + ["1 ERROR: no network", "0 ACTIVE"],
                  running=["0 runs", "255 Connection timed out", "0 runs"], follow=[DROPPED, DONE])
    told = world.run("tpu_queue.sh", "run-1", *SLICE, *TRAIN)
    assert told.returncode == 0, told.stderr
    assert world.calls() == ["state", "running", "follow", "state", "running", "state", "state", "running", "follow",
                             "delete"]
    assert "the connection broke" in told.stderr and "no network" in told.stderr


def test_a_run_that_fails_is_started_again_but_not_for_ever(world):
    world.answers(state=states(*["ACTIVE"] * 5), running=["0 idle"] * 3,
                  follow=["0 the run ended with exit code 1"] * 2 + [DONE])
    assert world.run("tpu_queue.sh", "run-1", *SLICE, "--restarts=2", "--keep", *TRAIN).returncode == 0
    assert world.calls() == [*["state", *START] * 3]
    world.answers(state=states(*["ACTIVE"] * 5), running=["0 idle"] * 3, setup=["1 mount: no such host"] * 3)
    told = world.run("tpu_queue.sh", "run-1", *SLICE, "--restarts=1", *TRAIN)
    assert told.returncode == 2 and "the setup failed, 2 times on run-1. It is kept, and costs." in told.stderr
    assert "no such host" in told.stderr and not world.calls("start", "delete")


def test_a_quota_is_told_and_the_same_command_goes_on_later(world):
    world.answers(state=states("NONE"), create=["1 ERROR: RESOURCE_EXHAUSTED: Quota limit 'TPUV6E' exceeded"])
    told = world.run("tpu_queue.sh", "run-1", *SLICE, *TRAIN)
    assert told.returncode == 2 and "Quota limit 'TPUV6E'" in told.stderr and "same command" in told.stderr
    assert world.calls() == ["state", "create"]
    world.answers(state=states("NONE", "FAILED"), reason=["0 Quota exceeded for v6e"])
    told = world.run("tpu_queue.sh", "run-1", *SLICE, *TRAIN)
    assert told.returncode == 2 and "Quota exceeded for v6e" in told.stderr
    assert world.calls() == ["state", "create", "state", "reason"]
    world.answers(state=states("FAILED", "NONE", "ACTIVE"), running=["0 idle"], follow=[DONE])
    assert world.run("tpu_queue.sh", "run-1", *SLICE, *TRAIN).returncode == 0
    assert world.calls() == ["state", "delete", "state", "create", "state", *START, "delete"]


def test_what_failed_is_asked_for_again_but_not_for_ever(world):
    world.answers(state=states(*["NONE", "FAILED"] * 3), reason=["0 no capacity in this zone"] * 3)
    told = world.run("tpu_queue.sh", "run-1", *SLICE, "--restarts=2", *TRAIN)
    assert told.returncode == 2 and told.stderr.count("no capacity") == 3
    assert world.calls() == (["state", "create", "state", "reason", "delete"] * 3)[:-1]


def test_a_request_is_deleted(world):
    world.answers(state=states("ACTIVE", "NONE"))
    assert world.run("tpu_queue.sh", "run-1", "--delete").returncode == 0
    assert world.calls() == ["state", "delete"]
    assert "there is no run-1" in world.run("tpu_queue.sh", "run-1", "--delete").stderr


@pytest.mark.parametrize("args, words", [
    ((), "'' is no name for a TPU"),
    (("Run",), "'Run' is no name"),
    (("a", "--acelerator=v6e-8"), "'--acelerator=v6e-8' is no flag of tpu_queue.sh"),
    (("a", *TRAIN), "which TPU?"),
    (("a", "--accelerator=tpu7x-16", *TRAIN), "use launch/gke.sh or launch/tpu_mig.sh"),
    (("a", "--accelerator=v9-16", *TRAIN), "--runtime=VERSION"),
    (("a", "--setup=nowhere", *SLICE, *TRAIN), "--setup=nowhere is not a file"),
    (("a", "--restarts=some", *SLICE, *TRAIN), "--restarts=some is not a number"),
    (("a", *SLICE), "nothing to run"),
    (("a", *SLICE, "--", "train", "--config=c.py"), "give train --workdir=PATH"),
    (("a", *SLICE, "--", "train", "--workdir=runs/a"), "--workdir=runs/a: give an absolute path"),
    (("a", *SLICE, "--", "train", "--workdir=gs://b/a"), "on a disk that all hosts share"),
])
def test_mistakes_are_told_before_anything_is_made(world, args, words):
    told = world.run("tpu_queue.sh", *args)
    assert told.returncode == 2 and words in told.stderr and not world.calls()


def test_a_slice_by_hand(world):
    world.answers(state=[GONE, "0 READY"], create=["0 made", "1 ERROR: Quota exceeded"], follow=[DONE, DROPPED])
    (world.path / "mount.sh").write_text("sudo mount 10.0.0.2:/share /mnt\n")
    create = "create", "tpu-a", "--accelerator=v5litepod-16", "--reserved", "--create_flags=--network=n --internal-ips"
    assert world.run("tpu_vm.sh", *create).returncode == 0
    assert world.calls("create")[0].endswith("tpu-vm create tpu-a --accelerator-type=v5litepod-16 --version=v2-alpha-"
                                             "tpuv5-lite --reserved --network=n --internal-ips")
    assert "tpu-a is there: READY" in world.run("tpu_vm.sh", *create).stderr and world.calls() == ["state"]
    assert world.run("tpu_vm.sh", "setup", "tpu-a", f"--setup={world.path / 'mount.sh'}").returncode == 0
    assert world.calls() == ["copy", "unpack", "setup"]
    assert world.run("tpu_vm.sh", "run", "tpu-a", *TRAIN).returncode == 0 and world.calls() == ["start", "follow"]
    told = world.run("tpu_vm.sh", "run", "tpu-a", *TRAIN)
    assert told.returncode == 2 and "Come back to it: launch/tpu_vm.sh logs tpu-a" in told.stderr
    assert world.run("tpu_vm.sh", "stop", "tpu-a").returncode == 0 and "--worker=all" in world.calls("stop")[0]
    world.answers(state=["0 READY", GONE])
    assert world.run("tpu_vm.sh", "delete", "tpu-a").returncode == 0 and world.calls() == ["state", "delete"]
    assert world.run("tpu_vm.sh", "delete", "tpu-a").returncode == 0 and world.calls() == ["state"]
    assert "no flag" in world.run("tpu_vm.sh", "create", "tpu-a", "--keep").stderr


@pytest.mark.parametrize("args", [
    ("tpu_queue.sh", "a", *SLICE), ("tpu_vm.sh", "create", "a", *SLICE), ("tpu_vm.sh", "setup", "a"),
    ("tpu_vm.sh", "run", "a"), ("tpu_vm.sh", "stop", "a"), ("tpu_vm.sh", "delete", "a"), ("gke.sh", "delete", "a")])
def test_a_dry_run_only_says_what_would_be_done(world, args):
    script, *flags = args
    told = world.run(script, *flags, "--dry_run", *TRAIN)
    assert told.returncode == 0 and not world.calls()
    assert all(line.split()[0] in ("gcloud", "kubectl") for line in told.stdout.splitlines()) and told.stdout
    if script == "tpu_queue.sh":
        assert "queued-resources create" in told.stdout and told.stdout.count("\n") == 7


HOST_PYTHON = """#!/usr/bin/env bash
[ "$3" != fail ] || exit 7
trap 'echo saved; exit 143' TERM
echo "$@"
for _ in $(seq 400); do sleep 0.05; [ ! -e finish ] || exit 0; done
"""


@pytest.fixture
def host(tmp_path):
    """A host of a slice: calls tpu_host.sh there."""
    (tmp_path / "launch").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "launch/tpu_host.sh").write_text((LAUNCH / "tpu_host.sh").read_text())
    python = tmp_path / ".venv/bin/python"
    python.write_text(HOST_PYTHON)
    python.chmod(0o755)

    def call(*args):
        done = subprocess.run(["bash", tmp_path / "launch/tpu_host.sh", *args], capture_output=True, text=True,
                              timeout=30)
        if args[2:] and args[2] == "train":  # run number N has begun when N lines say so
            while (tmp_path / "run/log").read_text().count("-m ") < int(args[1]):
                time.sleep(0.02)
        return done

    return call


def test_a_run_on_a_host_outlives_connections(host, tmp_path):
    assert host("running").returncode == 1
    assert host("start", "1", "train", "--config.x=('a b',)").returncode == 0
    pid = (tmp_path / "run/pid").read_text()
    assert host("start", "1", "train").returncode == 0 and (tmp_path / "run/pid").read_text() == pid
    assert host("running").returncode == 0
    assert host("start", "2", "train").returncode == 0 and (tmp_path / "run/pid").read_text() != pid
    (tmp_path / "finish").touch()
    said = host("follow").stdout
    assert "-m imagenet_jax train --config.x=('a b',)" in said and "saved" in said
    assert said.endswith("the run ended with exit code 0\n") and host("running").returncode


def test_a_run_on_a_host_is_stopped_and_its_failure_told(host):
    host("start", "1", "train")
    assert host("stop").returncode == 0
    assert host("follow").stdout.endswith("saved\nthe run ended with exit code 143\n")
    host("start", "2", "fail")
    assert host("follow").stdout.endswith("the run ended with exit code 7\n")


TWO_HOSTS = r"""#!/usr/bin/env bash
line=$*
name=$(echo "$line" | sed -n 's/.* \(tpu-vm\|queued-resources\) \([a-z]*\) .*/\2/p')
case "$*" in *--worker=all*) hosts="0 1" ;; *) hosts=0 ;; esac
echo "$name" >>"$FAKE/calls"
for host in $hosts; do
    case $name in
        describe) cat "$FAKE/state" || { echo NOT_FOUND >&2; exit 1; } ;;
        create) echo ACTIVE >"$FAKE/state" ;;
        delete) rm "$FAKE/state" ;;
        scp) cp "$5" "$6" "$FAKE/host_$host" ;;
        ssh) (cd "$FAKE/host_$host" && bash -c "${line#*--command=}") || exit ;;
    esac
done
"""


def test_code_and_command_reach_every_host(world):
    """gcloud is a fake that copies to two directories and runs commands there; only Python is no Python."""
    world.hosts(TWO_HOSTS, "host_0", "host_1")
    (world.path / "mount.sh").write_text("touch mounted\n")
    told = world.run("tpu_queue.sh", "run-1", SLICE[0], f"--setup={world.path / 'mount.sh'}", *TRAIN)
    assert told.returncode == 0, told.stderr
    assert world.calls() == ["describe", "create", "describe", "ssh", "scp", "ssh", "ssh", "ssh", "ssh", "delete"]
    jax, = (line for line in (LAUNCH.parent / "requirements.txt").read_text().splitlines() if line.startswith("jax=="))
    for host in ("host_0", "host_1"):
        code = world.path / host / "imagenet_jax"
        assert (code / "configs/resnet50.py").exists() and (code / "imagenet_jax/__main__.py").exists()
        assert (code / "mounted").exists()
        requirements, tpu, run = (world.path / host / "python").read_text().splitlines()
        assert requirements.endswith("-r requirements.txt") and tpu.endswith(jax.replace("jax==", " jax[tpu]=="))
        assert run.lstrip() == f"-m imagenet_jax {' '.join(TRAIN[1:])} --distributed"


SRUN = """#!/usr/bin/env bash
echo "srun $*" >>"$FAKE/calls"
trap 'exit 143' TERM
[ ! -e "$FAKE/short" ] || exit 0
touch "$FAKE/started"
while true; do sleep 0.05; done
"""


@pytest.mark.parametrize("number, code, calls", [
    (signal.SIGUSR1, 0, ["srun", "scontrol"]), (signal.SIGTERM, 143, ["srun"]), (None, 0, ["srun"])])
def test_slurm_queues_the_job_again_when_its_time_is_over(world, number, code, calls):
    (world.path / "bin/srun").write_text(SRUN)
    (world.path / "bin/srun").chmod(0o755)
    (world.path / "calls").touch()
    if not number:
        (world.path / "short").touch()
    env = world.env | {"SLURM_JOB_ID": "42", "SLURM_CPUS_ON_NODE": "96", "SLURMD_NODENAME": "node-1"}
    with subprocess.Popen([LAUNCH / "slurm.sbatch", *TRAIN[1:]], env=env) as job:
        while number and not (world.path / "started").exists():
            time.sleep(0.02)
        if number:
            job.send_signal(number)
        assert job.wait(30) == code
    assert [call for call in world.calls() if call in ("srun", "scontrol")] == calls
    said = (world.path / "calls").read_text()
    assert "--cpus-per-task=96" in said and "node-1:20042" in said and "--workdir=/mnt/runs/a" in said
    assert ("requeue 42" in said) == (number == signal.SIGUSR1)


@pytest.mark.parametrize("code, env, requeued", [
    (75, {}, True), (137, {"SLURM_RESTART_COUNT": "9"}, True), (1, {"SLURM_RESTART_COUNT": "10"}, False),
    (75, {"SLURM_RESTART_COUNT": "1", "RESTARTS": "1"}, False), (2, {}, False)])
def test_slurm_queues_a_run_that_failed_again_but_not_for_ever(world, code, env, requeued):
    (world.path / "bin/srun").write_text(f"#!/usr/bin/env bash\nexit {code}\n")
    (world.path / "bin/srun").chmod(0o755)
    told = world.run("slurm.sbatch", *TRAIN[1:], SLURM_JOB_ID="42", **env)
    assert world.calls() == ["scontrol"] * requeued and told.returncode == (0 if requeued else code), told.stderr
    assert ("queued again" in told.stderr) == (code != 2) and ("that is all" in told.stderr) == (
        code != 2 and not requeued)


def test_slurm_gives_a_node_to_one_process():
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    options = {line.split()[1] for line in lines if line.startswith("#SBATCH ")}
    assert {"--ntasks-per-node=1", "--exclusive", "--requeue", "--signal=B:USR1@300"} <= options


def test_slurm_says_what_a_job_would_do(world):
    told = world.run("slurm.sbatch", *TRAIN[1:], DRY_RUN="1")
    assert told.stdout.startswith("srun --kill-on-bad-exit=1") and "FIRST_NODE" in told.stdout and not world.calls()
    assert world.run("slurm.sbatch", "train", "--config=c.py").returncode == 2
    assert "RESTARTS=some is not" in world.run("slurm.sbatch", *TRAIN[1:], DRY_RUN="1", RESTARTS="some").stderr


# Fields and required ones of jobset.x-k8s.io/v1alpha2 and of a Job in it: api/jobset/v1alpha2/jobset_types.go, and the
# published schema, config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml at commit 0107852.
FIELDS = {
    "": ({"apiVersion", "kind", "metadata", "spec"}, set()),
    "spec": ({"replicatedJobs", "failurePolicy"}, {
        "network", "successPolicy", "startupPolicy", "suspend", "coordinator", "managedBy", "ttlSecondsAfterFinished",
        "volumeClaimPolicies"}),
    "spec.failurePolicy": ({"maxRestarts"}, {"restartStrategy", "rules"}),
    "spec.failurePolicy.rules": ({"name", "action"}, {"onJobFailureReasons", "onJobFailureMessagePatterns",
                                                      "targetReplicatedJobs"}),
    "spec.replicatedJobs": ({"name", "template"}, {"groupName", "replicas", "dependsOn"}),
    "spec.replicatedJobs.template": ({"spec"}, {"metadata"}),
    "spec.replicatedJobs.template.spec": ({"template", "parallelism", "completions", "backoffLimit"},
                                          {"completionMode", "podFailurePolicy"}),
    "spec.replicatedJobs.template.spec.podFailurePolicy.rules": ({"action", "onPodConditions"}, set()),
    "spec.replicatedJobs.template.spec.podFailurePolicy.rules.onPodConditions": ({"type", "status"}, set()),
    "spec.replicatedJobs.template.spec.template.spec": ({"containers", "restartPolicy"}, {
        "nodeSelector", "tolerations", "volumes", "terminationGracePeriodSeconds"}),
}


def at(tree, path):
    for key in filter(None, path.split(".")):
        tree = tree[key]
        if isinstance(tree, list) and len(tree) == 1:
            tree, = tree
    return tree


GKE = ("run", "run-1", "--image=europe-docker.pkg.dev/p/r/i:1", "--claim=filestore", "--accelerator=tpu-v6e-slice",
       "--topology=4x4")
IN_GKE = ("--", "train", "--config=configs/resnet50.py", "--workdir=/shared/runs/a", r"--config.freeze=('!^\d&"+'"',)
ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}


@pytest.mark.parametrize("spot", [False, True])
def test_the_jobset_has_the_fields_that_its_schema_has(world, spot):
    told = world.run("gke.sh", *GKE, "--dry_run", *["--spot"] * spot, *IN_GKE)
    assert told.returncode == 0 and not world.calls(), told.stderr
    jobset = yaml.safe_load(told.stdout)
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2" and jobset["kind"] == "JobSet"
    for path, (required, optional) in FIELDS.items():
        assert required <= at(jobset, path).keys() <= required | optional, path
    rule = at(jobset, "spec.failurePolicy.rules")
    assert rule["action"] in ACTIONS and re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    job = at(jobset, "spec.replicatedJobs.template.spec")
    assert job["parallelism"] == job["completions"] == 4 and job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # or a Job may have no podFailurePolicy
    container, = pod["containers"]
    assert container["args"] == [*IN_GKE[1:], "--distributed"]
    assert container["resources"]["requests"] == container["resources"]["limits"] == {"google.com/tpu": 4}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    assert ("tolerations" in pod) == ("cloud.google.com/gke-spot" in pod["nodeSelector"]) == spot


def test_a_run_in_gke_is_followed_to_its_end(world):
    world.answers(get=["0  0", "0  1", "0 Completed 1"], logs=["1 container is waiting to start", "0 step 7"])
    told = world.run("gke.sh", *GKE, *IN_GKE)
    assert told.returncode == 0 and world.calls() == ["apply", "get", "logs", "get", "logs", "get"], told.stderr
    assert "restarts: 1" in told.stderr and "step 7" in told.stdout
    assert yaml.safe_load((world.path / "applied").read_text())["metadata"]["name"] == "run-1"
    world.answers(get=["0 Failed 10"])
    told = world.run("gke.sh", "logs", "run-1")
    assert told.returncode == 2 and "failed for good" in told.stderr
    assert world.run("gke.sh", "delete", "run-1").returncode == 0 and world.calls() == ["delete"]


@pytest.mark.parametrize("args, words", [
    (("run", "Run"), "'Run' is no name"),
    (GKE[:3], "needs --claim"),
    ((*GKE[:-1], "--topology=4", *IN_GKE), "not of the form 4x4"),
    ((*GKE, "--chips=5", *IN_GKE), "is not made of hosts with 5 chips"),
    (GKE, "nothing to run"),
    ((*GKE, *TRAIN), "--workdir=/shared/"),
])
def test_mistakes_in_gke(world, args, words):
    told = world.run("gke.sh", *args)
    assert told.returncode == 2 and words in told.stderr and not world.calls()
