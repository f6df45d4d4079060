"""SLURM: the launcher's configs, and what a job does at its time limit and when it comes back."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from tests.commands import SMALL_TRAINING, run_command

from pcsr_lightning import conf_dir
from pcsr_lightning.cli.routing_group import register_routing
from pcsr_lightning.cli.train import check_multirun
from pcsr_lightning.weights import read_checkpoint

HAS_PLUGIN = importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is not None
needs_plugin = pytest.mark.skipif(
    not HAS_PLUGIN, reason="hydra-submitit-launcher is missing: pip install -e '.[slurm]'"
)


def launcher(*words: str, config: str = "train") -> dict[str, Any]:
    register_routing()  # as the evaluating command does
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(config, list(words), return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.job.name = config
    found = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


@needs_plugin
def test_one_task_a_device() -> None:
    four = launcher("hydra/launcher=slurm", "trainer=ddp", "trainer.devices=4")
    assert (four["nodes"], four["tasks_per_node"], four["gpus_per_node"]) == (1, 4, 4)
    words = ["trainer=ddp", "trainer.devices=2", "trainer.num_nodes=3"]
    spread = launcher("hydra/launcher=slurm", *words, "hydra.launcher.partition=gpu")
    assert (spread["nodes"], spread["tasks_per_node"], spread["partition"]) == (3, 2, "gpu")
    cpu = launcher("hydra/launcher=slurm_cpu", "trainer=cpu")
    assert (cpu["tasks_per_node"], cpu["gpus_per_node"]) == (1, None)
    assert launcher("hydra/launcher=slurm", "model=x", config="evaluate")["tasks_per_node"] == 1
    with pytest.raises(OmegaConfBaseException):  # how many tasks that is, is not known here
        launcher("hydra/launcher=slurm", "trainer=ddp", "trainer.devices=auto")


@needs_plugin
def test_what_is_handed_to_sbatch() -> None:
    """Written by submitit itself: the job can be requeued, and is warned before its limit."""
    from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

    found = launcher("hydra/launcher=slurm", "trainer=ddp", "trainer.devices=4")
    for key in ("_target_", "submitit_folder", "max_num_timeout"):
        found.pop(key)
    given = {key: value for key, value in found.items() if value is not None}
    names = SlurmExecutor._equivalence_dict()
    given = {names.get(key, key): value for key, value in given.items()}
    script = _make_sbatch_string(command="train", folder=Path("logs"), **given)
    for line in (
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --time=1440",
        "#SBATCH --job-name=pcsr-train",
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",
    ):
        assert line in script.splitlines()
    assert "@180" in script


@needs_plugin
def test_a_multirun_on_several_devices_is_allowed_in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"JOB_ID": 77, "STEP_ID": 0, "PROCID": 0, "LOCALID": 0, "NODEID": 0}
    for key, value in {**step, "STEP_TASKS_PER_NODE": 4}.items():
        monkeypatch.setenv(f"SLURM_{key}", str(value))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        check_multirun(compose("train", ["trainer=ddp", "trainer.devices=4"]))


SCONTROL = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
"""
SENDER = '''
import os
import lightning as L

class Send(L.Callback):
    """Sends this process a signal amid a step."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_step == self.step and "SLURM_RESTART_COUNT" not in os.environ:
            os.kill(os.getpid(), self.number)
'''
WORDS = (
    *SMALL_TRAINING,
    "backbone.upsamplers=[[8,8],[8]]",
    "trainer.max_steps=12",
    "+callbacks.send._target_=slurm_sender.Send",
)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A command as srun starts it, where ``scontrol`` only keeps what it is asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(SCONTROL)
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    (tmp_path / "slurm_sender.py").write_text(SENDER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for key, value in {
        "JOB_ID": 77, "STEP_ID": 0, "JOB_NAME": "train", "NTASKS": 1, "NTASKS_PER_NODE": 1,
        "PROCID": 0, "LOCALID": 0, "NODEID": 0, "NNODES": 1, "STEP_TASKS_PER_NODE": 1,
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SLURM_{key}", str(value))
    before = {n: signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGUSR2)}
    yield lambda *settings: run_command("train", *WORDS, *settings).code
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("requeued_by", ["lightning", "submitit"])
def test_warned_of_its_limit_a_job_saves_is_requeued_and_goes_on(
    requeued_by: str, job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    number = signal.SIGUSR1
    if requeued_by == "submitit":  # its own handlers stand in for it

        def requeue(signum: int, frame: object) -> None:
            [last] = tmp_path.glob("outputs/**/last.ckpt")
            asked.append((signum, read_checkpoint(last)[0]["stage"]))
            raise SystemExit(-1)

        number = signal.SIGUSR2
        signal.signal(number, requeue)
        monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    send = ["+callbacks.send.step=5", f"+callbacks.send.number={int(number)}"]
    assert job("output=whole", "+callbacks.send.step=99", send[1]) == 0
    assert job(*send) == 143
    [run] = tmp_path.glob("outputs/train/*/stage-1/*")
    assert run.name == "slurm-77-0"
    assert not (run / "model.safetensors").exists()
    assert not list(run.glob("hpc_ckpt*"))  # Lightning's handler would have saved amid the step
    if requeued_by == "submitit":
        assert asked == [(signal.SIGUSR2, "1")]
    else:
        assert (tmp_path / "bin" / "asked").read_text() == "requeue 77\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert job(*send) == 0
    [whole] = tmp_path.glob("whole/train/*/stage-1/*")
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_under_submitit_sigterm_saves_and_goes_on(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes SIGTERM by, since its own signal, at which it requeues, is still to come."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    send = ["+callbacks.send.step=5", f"+callbacks.send.number={int(signal.SIGTERM)}"]
    assert job(*send) == 0
    assert list(tmp_path.glob("outputs/train/*/stage-1/*/run.json"))


@needs_plugin
@pytest.mark.slow
def test_the_command_submits(tmp_path: Path) -> None:
    """With ``sbatch`` and ``srun`` that start nothing: what would be queued."""
    (tmp_path / "bin").mkdir()
    for name, says in {"srun": "", "sbatch": 'cp "$1" "$(dirname "$0")/script"; exit 1'}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "pcsr_lightning.train", "-m", "hydra/launcher=slurm", "trainer=ddp",
         "trainer.devices=2", "data=sample", "backbone=fsrcnn,carn"],
        cwd=tmp_path, text=True, capture_output=True, check=False, timeout=200,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert "Submitit 'slurm' sweep output dir" in done.stdout + done.stderr
    script = (tmp_path / "bin" / "script").read_text()
    for line in ("--array=0-1%2", "--ntasks-per-node=2", "--requeue", "--nodes=1"):
        assert f"#SBATCH {line}\n" in script
