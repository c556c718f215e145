"""The scripts and the manifest that start studies on GPUs, clusters and pods.

Programs that only clusters have (srun, gcloud) are stood in for by small ones that do locally what
those do elsewhere: copy files, and start one process a task or worker with its variables.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from absl import flags
from ml_collections import config_flags

from autoscale_jax.config import from_flags, validate

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
ASKED = ["--config=configs/gpt2_ddo.py:local", "--config.data.domains={'a b': 'x*.txt'}"]

# What SLURM tells each task. A pod's workers ask Google's metadata server instead, which is not
# here: the stand-in for gcloud gives them these.
TASK = """
task() {{
  SLURM_JOB_ID=1 SLURM_STEP_NODELIST=127.0.0.1 SLURM_STEP_NUM_NODES=1 SLURM_NTASKS=2 \\
    SLURM_PROCID="$1" SLURM_LOCALID="$1" JAX_COORDINATOR_PORT={port} "${{@:2}}"
}}
both() {{
  "$@" 0 & first=$!
  "$@" 1 & second=$!
  wait $first; status=$?
  wait $second && return $status
}}
"""
SRUN = """#!/usr/bin/env bash
{task}
[ "$1" = --kill-on-bad-exit=1 ] && shift
command=("$@")
one() {{ task "$1" "${{command[@]}}"; }}
both one
"""
GCLOUD = """#!/usr/bin/env bash
{task}
[ "$1 $2 $3" = "compute tpus tpu-vm" ] || exit 64
verb="$4"; shift 4
for argument in "$@"; do
  case "$argument" in
    --command=*) command="${{argument#--command=}}" ;;
    --worker=all | --zone=here | --project=mine | my-pod) ;;
    my-pod:*) to="${{argument#my-pod:}}" ;;
    *) [ "$verb" = scp ] && from="$argument" || exit 64 ;;
  esac
done
one() {{
  cd {workers}/"$1" || exit 1
  if [ "$verb" = scp ]; then cp "$from" "$to"; else task "$1" bash -c "$command"; fi
}}
both one
"""
# Stands in for Python: writes down how it was called.
RECORD = """#!{python}
import json, os, sys
keys = ("SLURM_PROCID", "CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_MEM_FRACTION")
call = {{"arguments": sys.argv[1:], "folder": os.getcwd()}}
call |= {{key: os.environ.get(key) for key in keys}}
with open({calls!r}, "a") as file:
    file.write(json.dumps(call) + "\\n")
"""


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def recorder(tmp_path):
    """A stand-in for Python, and what it was called with."""
    calls = tmp_path / "calls.jsonl"
    text = RECORD.format(python=sys.executable, calls=str(calls))
    return program(tmp_path / "python", text), lambda: [
        json.loads(line) for line in calls.read_text().splitlines()
    ]


@pytest.fixture
def cluster(tmp_path):
    """An environment in which srun and gcloud run two tasks or workers on this machine."""
    task = TASK.format(port=free_port())
    workers = tmp_path / "workers"
    program(tmp_path / "bin" / "srun", SRUN.format(task=task))
    program(tmp_path / "bin" / "gcloud", GCLOUD.format(task=task, workers=workers))
    return {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def start(script, *arguments, **environment):
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=900,
    )


def pod(tmp_path, interpreter):
    """Two workers' home folders, each with an environment that is already set up."""
    for i in range(2):
        bin = tmp_path / "workers" / str(i) / "autoscale_jax" / ".venv" / "bin"
        program(bin / "python", f'#!/usr/bin/env bash\nexec {interpreter} "$@"\n')
        program(bin / "uv", '#!/usr/bin/env bash\necho "$@" >> uv.txt\n')
    return {"TPU": "my-pod", "ZONE": "here", "PROJECT": "mine", "PYTHON": sys.executable}


def test_scripts_pass_shellcheck():
    linter = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if linter is None:
        pytest.skip("shellcheck is not installed")
    scripts = map(str, sorted(LAUNCH.glob("*.sh")))
    done = subprocess.run([linter, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("script", "variables", "devices"),
    [
        ("gpu.sh", {"GPU": "3"}, "3"),
        ("node.sh", {"GPUS": "0,1,2,3"}, "0,1,2,3"),
        ("node.sh", {}, None),
    ],
)
def test_one_machine_is_one_process(recorder, script, variables, devices):
    python, calls = recorder
    done = start(script, *ASKED, PYTHON=str(python), **variables)
    assert done.returncode == 0, done.stderr
    (call,) = calls()
    assert call["arguments"] == ["-m", "autoscale_jax.launch", *ASKED]
    assert call["folder"] == str(ROOT)
    assert call["CUDA_VISIBLE_DEVICES"] == devices
    assert 0.75 < float(call["XLA_PYTHON_CLIENT_MEM_FRACTION"]) < 1


def test_slurm_starts_every_task_with_the_same_command(recorder, cluster):
    python, calls = recorder
    done = start("slurm.sh", *ASKED, PYTHON=str(python), SLURM_SUBMIT_DIR=str(ROOT), **cluster)
    assert done.returncode == 0, done.stderr
    assert {call["SLURM_PROCID"] for call in calls()} == {"0", "1"}
    for call in calls():
        assert call["arguments"] == ["-m", "autoscale_jax.launch", "--coordinator=auto", *ASKED]
        assert call["folder"] == str(ROOT)


def test_slurm_asks_for_a_task_a_gpu():
    """What jax.distributed takes for granted under SLURM."""
    options = dict(re.findall(r"#SBATCH --([\w-]+)(?:=(\S+))?", (LAUNCH / "slurm.sh").read_text()))
    assert options["gpus-per-node"] == options["ntasks-per-node"]
    assert "requeue" in options


def test_a_pod_gets_the_code_is_set_up_and_started(recorder, cluster, tmp_path):
    python, calls = recorder
    done = start("tpu_pod.sh", *ASKED, **pod(tmp_path, python), **cluster)
    assert done.returncode == 0, done.stderr
    assert {call["SLURM_PROCID"] for call in calls()} == {"0", "1"}
    for call in calls():
        assert call["arguments"] == ["-m", "autoscale_jax.launch", "--coordinator=auto", *ASKED]
        folder = Path(call["folder"])
        assert folder == tmp_path / "workers" / call["SLURM_PROCID"] / "autoscale_jax"
        assert (folder / "configs" / "gpt2_ddo.py").exists()
        assert "-e .[train,tpu]" in (folder / "uv.txt").read_text()


def test_a_pod_without_a_name_is_refused():
    done = start("tpu_pod.sh", *ASKED, TPU="", ZONE="here")
    assert done.returncode != 0 and "set TPU to the name of the TPU" in done.stderr


def test_a_worker_that_fails_fails_the_start(cluster, tmp_path):
    done = start("tpu_pod.sh", *ASKED, **pod(tmp_path, "false"), **cluster)
    assert done.returncode != 0


def test_the_jobset_is_one_and_its_command_is_ours():
    """The fields that JobSet v1alpha2 and the Job in it require, and a command that parses."""
    jobset = yaml.safe_load((LAUNCH / "gke.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", jobset["metadata"]["name"])
    (job,) = jobset["spec"]["replicatedJobs"]
    assert job["name"] and job["replicas"] == 1
    spec = job["template"]["spec"]
    pod_spec = spec["template"]["spec"]
    assert pod_spec["restartPolicy"] in ("Never", "OnFailure")
    (container,) = pod_spec["containers"]
    assert container["name"] and container["image"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod_spec["volumes"]}
    # machines x chips of each = chips of the topology; every machine has its pod
    shape = pod_spec["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = int(shape[0]) * int(shape[1])
    assert spec["parallelism"] == spec["completions"]
    assert spec["parallelism"] * container["resources"]["limits"]["google.com/tpu"] == chips
    python, dash_m, module, *arguments = container["command"]
    assert (python, dash_m, module) == (".venv/bin/python", "-m", "autoscale_jax.launch")
    argv = ["launch", *(a.replace("=configs/", f"={ROOT}/configs/") for a in arguments)]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    for name in ("workdir", "coordinator"):
        flags.DEFINE_string(name, None, name, flag_values=values)
    config = from_flags(values, argv)
    validate(config)
    assert values.coordinator == "auto" and values.workdir.startswith("/shared/")
    assert chips % (config.mesh.fsdp * config.mesh.tensor) == 0
    assert config.train.batch_size % (chips * config.train.accumulation) == 0


def test_the_image_holds_what_the_manifest_starts():
    lines = [line.split() for line in (LAUNCH / "Dockerfile").read_text().splitlines()]
    copied = [path for verb, *paths in filter(None, lines) if verb == "COPY" for path in paths[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    needed = ("launch/setup.sh", "requirements.lock", "setup.py", "configs", "autoscale_jax")
    assert all(path.split("/")[0] in copied for path in needed)
    (folder,) = (rest[0] for verb, *rest in filter(None, lines) if verb == "WORKDIR")
    (container,) = pod_of_the_manifest()["containers"]
    assert container["workingDir"] == folder
    assert ["RUN", "bash", "launch/setup.sh", '"$EXTRA"'] in lines  # makes the command's .venv


def pod_of_the_manifest():
    (job,) = yaml.safe_load((LAUNCH / "gke.yaml").read_text())["spec"]["replicatedJobs"]
    return job["template"]["spec"]["template"]["spec"]


@pytest.mark.slow
def test_two_pods_train_a_study(tmp_path, tiny_file):
    """The manifest's command with what GKE tells each pod of a slice, on two devices each."""
    (container,) = pod_of_the_manifest()["containers"]
    ours = {"--config=": str(tiny_file), "--workdir=": str(tmp_path), "--config.mesh.fsdp=": "2"}
    command = [sys.executable, *container["command"][1:]]
    for flag, value in ours.items():
        (i,) = (i for i, argument in enumerate(command) if argument.startswith(flag))
        command[i] = flag + value
    slice_of_two = {
        "TPU_WORKER_HOSTNAMES": "127.0.0.1,127.0.0.1",
        "MEGASCALE_COORDINATOR_ADDRESS": "127.0.0.1",
        "MEGASCALE_NUM_SLICES": "1",
        "MEGASCALE_SLICE_ID": "0",
        "JAX_COORDINATOR_PORT": str(free_port()),
        "JAX_FORCE_TPU_INIT": "1",  # as on a machine that has the chips
        "JAX_PLATFORMS": "cpu",
    }
    rest = ["--config.execute.slots=1", "--config.verify.seeds=0"]
    rest += ["--config.study.budgets=(2000,4000)", "--config.study.target_tokens=6000"]
    pods = [
        subprocess.Popen(
            [*command, *rest],
            env=os.environ | slice_of_two | {"TPU_WORKER_ID": str(i)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    for pod in pods:
        output = pod.communicate(timeout=1500)[0]
        assert pod.returncode == 0, output[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["runs"] and all(run["status"] == "ok" for run in report["runs"])


@pytest.mark.slow
@pytest.mark.parametrize("script", ["slurm.sh", "tpu_pod.sh"])
def test_two_processes_train_a_study(script, cluster, tmp_path, tiny_file):
    """For real: auto-detection, two processes that train as one, a report at the end."""
    given = {"SLURM_SUBMIT_DIR": str(ROOT), "PYTHON": sys.executable}
    if script == "tpu_pod.sh":
        given = pod(tmp_path, sys.executable)
    workdir = tmp_path / "study"
    done = start(
        *(script, f"--config={tiny_file}", f"--workdir={workdir}"),
        *("--config.execute.slots=1", "--config.verify.seeds=0"),
        **given,
        **cluster,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((workdir / "report.json").read_text())
    assert report["runs"] and all(run["status"] == "ok" for run in report["runs"])
