"""Two real processes (DDP over gloo) compute the gradients that one does on the whole batch."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from tests.warm_python import warm_python
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
    "+callbacks.keeper._target_=keeper.KeepGradients",
)


def train(cwd: Path, *settings: str) -> None:
    (cwd / "keeper.py").write_text(KEEPER)
    path = os.pathsep.join([str(cwd), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [warm_python(), "-m", "pcsr_lightning.train", *SMALL, *settings],
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
    keeper = f"+callbacks.keeper.path={folder}/g.pt"
    train(folder, "stage=1", "trainer.max_steps=1", "hydra.run.dir=one", keeper)
    return folder / "one"


@pytest.mark.parametrize("stage", ["1", "2"])
def test_two_halves_make_the_whole(stage: str, first_stage: Path, tmp_path: Path) -> None:
    found: list[dict[str, Tensor]] = []
    for devices in (1, 2):
        words = [
            f"stage={stage}",
            "trainer.max_steps=1",
            f"hydra.run.dir=of-{devices}",
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
