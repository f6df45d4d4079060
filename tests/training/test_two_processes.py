"""Two real processes (DDP over gloo) compute the gradients that one does on the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

KEEPER = '''
import lightning as L
import torch

class KeepGradients(L.Callback):
    """Writes what the optimizer is about to use."""

    def __init__(self, path):
        self.path = path

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.is_global_zero and trainer.global_step == 0:
            named = pl_module.network.named_parameters()
            torch.save({k: p.grad for k, p in named if p.grad is not None}, self.path)
'''
RANKS = '''
import lightning as L
import torch

class DeadUnits(L.Callback):
    """Switches units off before training, and writes what each rank ends with."""

    def __init__(self, folder):
        self.folder = folder

    def on_fit_start(self, trainer, pl_module):
        pl_module.network.upsampler(0).project.bias.data[:3] = -100.0

    def on_train_end(self, trainer, pl_module):
        mlp = pl_module.network.upsampler(0).state_dict()
        torch.save(mlp, f"{self.folder}/rank-{trainer.global_rank}.pt")
'''
SMALL = (
    "backbone.args={d:8,s:4,m:1}",
    "backbone.upsamplers=[[8,8],[8]]",
    "data=sample",
    "data.augment=false",  # drawn by each rank for itself
    "data.lr_crop=8",
    "data.shrinks=[1.0]",
    "data.val_limit=1",
    "threads=1",
    "logger=none",
    "callbacks.progress=null",
    "trainer.accelerator=cpu",
)


def train(cwd: Path, *settings: str) -> None:
    (cwd / "keeper.py").write_text(KEEPER)
    (cwd / "ranks.py").write_text(RANKS)
    path = os.pathsep.join([str(cwd), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pcsr_lightning.train", *SMALL, *settings],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    train(folder, "stage=1", "trainer.max_steps=1", "hydra.run.dir=one")
    return folder / "one"


@pytest.mark.parametrize("stage", ["1", "2"])
def test_two_halves_make_the_whole(stage: str, first_stage: Path, tmp_path: Path) -> None:
    found: list[dict[str, Tensor]] = []
    for devices in (1, 2):
        words = [
            f"stage={stage}",
            "trainer.max_steps=1",
            f"hydra.run.dir=of-{devices}",
            "+callbacks.keeper._target_=keeper.KeepGradients",
            f"+callbacks.keeper.path={tmp_path}/gradients-{devices}.pt",
            *(["trainer=ddp", "trainer.devices=2"] if devices == 2 else []),
            *([f"init={first_stage}"] if stage == "2" else []),
        ]
        # The group must come before what overrides it.
        train(tmp_path, *words, *(["trainer.accelerator=cpu"] if devices == 2 else []))
        found.append(torch.load(tmp_path / f"gradients-{devices}.pt", weights_only=True))
        # One rank writes, and what it wrote is whole.
        run = tmp_path / f"of-{devices}"
        assert (run / "run.json").is_file()
        assert (run / "model.safetensors").is_file()
        assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    one, two = found
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        error = float((gradient - two[name]).norm() / gradient.norm())
        assert error < 1e-5, f"{name}: {error:.1e}"
    assert any(float(g.abs().max()) > 1e-4 for g in one.values())
    if stage == "2":
        assert all(name.startswith(("classifier", "upsamplers.1")) for name in one)


def test_units_started_anew_are_the_same_on_both(tmp_path: Path) -> None:
    """Each rank judges by crops of its own; what is started anew must agree all the same."""
    train(
        tmp_path, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "stage=1",
        "stage.reinitialize_dead_units=1", "trainer.max_steps=2", "hydra.run.dir=two",
        "+callbacks.ranks._target_=ranks.DeadUnits", f"+callbacks.ranks.folder={tmp_path}",
    )  # fmt: skip
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert (first["project.bias"].abs() < 50).all()
    for name, weights in first.items():
        assert torch.equal(weights, second[name]), name
