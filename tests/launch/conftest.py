"""A world in which gcloud, kubectl and scontrol are fakes."""

import os
import pathlib
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"

# Writes down each call with the name of what it asks for, and answers it by the next line of the file of that name,
# "CODE TEXT", or else by success.
FAKE = r"""#!/usr/bin/env bash
line="$(basename "$0") $*"
case $line in
    *--format=*failedData*) kind=reason ;;
    *list-instances*) kind=state ;;
    *--format=*selfLink*) kind=link ;;
    *--format=*bulkInstanceOperation* | *list-errors*) kind=why ;;
    *" describe "*) kind=state ;;
    *create\ workload-policy*) kind=policy ;;
    *instance-templates\ create*) kind=template ;;
    *instance-templates\ delete* | *resource-policies\ delete*) kind=drop ;;
    *queued-resources\ create* | *tpu-vm\ create* | *managed\ create*) kind=create ;;
    *queued-resources\ delete* | *tpu-vm\ delete* | *managed\ delete* | *delete\ jobset*) kind=delete ;;
    *tpu-vm\ scp* | *compute\ scp*) kind=copy ;;
    *tpu_host.sh\ running*) kind=running ;;
    *tpu_host.sh\ *) kind=${line#*tpu_host.sh }; kind=${kind%% *} ;;
    *tar\ -xzf*) kind=unpack ;;
    kubectl*) kind=$1; [ "$kind" != apply ] || cat >"$FAKE/applied" ;;
    *) kind=$(basename "$0") ;;
esac
echo "$kind $*" >>"$FAKE/calls"
if [ ! -s "$FAKE/$kind" ]; then [ $kind != state ]; exit; fi
answer=$(head -n 1 "$FAKE/$kind")
sed -i 1d "$FAKE/$kind"
text=${answer#* }
[ "${answer%% *}" = 0 ] && echo -e "$text" || echo -e "$text" >&2
exit "${answer%% *}"
"""


PYTHON = """#!/usr/bin/env bash
echo "$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES $JAX_PROCESS_ID $@" >>"$(dirname "$0")/../../../python"
[ "$2" != imagenet_jax ] || sleep 1
"""


@pytest.fixture
def world(tmp_path):
    """answers(kind=[...]), run(script, ...) and calls() with fakes in front of all programs."""

    class World:
        path = tmp_path

        def answers(self, **kinds):
            for kind, lines in kinds.items():
                (tmp_path / kind).write_text("".join(f"{line}\n" for line in lines))

        def hosts(self, gcloud, *names):
            """Directories that stand for hosts, where Python notes what it is asked; and the gcloud that knows them."""
            (tmp_path / "bin/gcloud").write_text(gcloud)
            for name in names:
                python = tmp_path / name / "imagenet_jax/.venv/bin/python"
                python.parent.mkdir(parents=True)
                python.write_text(PYTHON)
                python.chmod(0o755)

        def run(self, script, *args, **env):
            (tmp_path / "calls").write_text("")
            return subprocess.run([LAUNCH / script, *args], capture_output=True, text=True, timeout=60, cwd=tmp_path,
                                  env=self.env | env, stdin=subprocess.DEVNULL)

        def calls(self, *kinds):
            lines = (tmp_path / "calls").read_text().splitlines()
            return [line for line in lines if line.split()[0] in kinds] if kinds else [x.split()[0] for x in lines]

    for name in ("gcloud", "kubectl", "scontrol"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(FAKE)
        (tmp_path / "bin" / name).chmod(0o755)
    World.env = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "FAKE": str(tmp_path), "POLL": "0"}
    return World()
