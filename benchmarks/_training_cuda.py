"""Training on a CUDA device: that captured steps train the same, and how fast."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import plain_training
import torch
from _measure import markdown, say
from _training_ways import LIGHTNING, QUERIES, SCALE, SEED, build_stage
from plain_training import BATCH
from torch import Tensor

from pcsr_lightning.data import SRDataModule
from pcsr_lightning.errors import PCSRError
from pcsr_lightning.networks.cuda_graph import WARM_UP
from pcsr_lightning.training import FreezeEarlierStages, SRStage

CASES = (("carn", 128), ("carn", 256), ("fsrcnn", 512))
"""Backbones, and crops of a captured step."""
PER_PIXEL = "per_pixel:2"
SAME = 20
"""Steps after which weights are compared."""


class Pace(L.Callback):
    """Times steps after the first ones."""

    def __init__(self, warm: int) -> None:
        self.warm, self.steps, self.start, self.seconds = warm, 0, 0.0, 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        self.step_done(trainer.max_steps, trainer.strategy.root_device)

    def step_done(self, last: int, device: torch.device) -> None:
        """Waits for the device after the first steps and after the last one."""
        self.steps += 1
        if self.steps in (self.warm, last):
            if device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.seconds, self.start = now - self.start, now


def require_cuda() -> None:
    """Raises:
    PCSRError: there is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise PCSRError("--device cuda: there is no CUDA device here; leave it out for the CPU")


def fit(
    stage: SRStage, data: SRDataModule, steps: int, precision: str, device: str, **options: Any
) -> L.Trainer:
    """Trains up to a step."""
    callbacks = [FreezeEarlierStages(), *options.pop("callbacks", [])]
    trainer = L.Trainer(
        accelerator=device, devices=1, precision=LIGHTNING[precision], max_steps=steps,  # type: ignore[arg-type]
        limit_val_batches=0, logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False, callbacks=callbacks,
    )  # fmt: skip
    trainer.fit(stage, datamodule=data, weights_only=True, **options)
    return trainer


def pictures(root: Path, val_root: Path | None, batch: int, on_device: bool | None) -> SRDataModule:
    """The training data of one way."""
    return SRDataModule(
        root, val_root, batch_size=batch, scale=SCALE, seed=SEED, on_device=on_device
    )


def crops_a_second(
    job: dict[str, Any], way: str, roots: tuple[Path, Path | None], device: str, steps: int
) -> float:
    """Of one way of training: ``plain``, ``today`` or ``captured``."""
    pace, batch = Pace(steps // 2), job["batch"] if way == "captured" else BATCH
    queries = {"plain": None, "today": QUERIES, "captured": PER_PIXEL}[way]
    stage = build_stage(job["backbone"], job["stage"], steps, queries)
    stage.captured = way == "captured"
    data = pictures(*roots, batch, None if way == "captured" else False)
    if way == "plain":
        plain_steps(stage, data, steps, torch.device(device), pace)
    else:
        fit(stage, data, steps, "bf16", device, callbacks=[pace])
    return batch * (steps - pace.warm) / pace.seconds


def plain_steps(
    stage: SRStage, data: SRDataModule, steps: int, device: torch.device, pace: Pace
) -> None:
    """The plain loop's arithmetic, on one batch again and again: its files are not read here."""
    data.setup()
    plain_training.prepare(stage.to(device))
    batch = data.pairs.train_batch(data.step_batches(1)[0])
    batch = batch._replace(lr_B3hw=batch.lr_B3hw.to(device), hr_B3HW=batch.hr_B3HW.to(device))
    trained = [p for p in stage.network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        plain_training.plain_loss(stage, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        pace.step_done(steps, device)


def weights(stage: SRStage) -> dict[str, Tensor]:
    """The network's parameters and statistics, on the CPU."""
    return {k: v.detach().cpu().clone() for k, v in stage.network.state_dict().items()}


def difference(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """The largest of any number."""
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def same_weights(
    backbone: str, stage: str, roots: tuple[Path, Path | None], device: str
) -> dict[str, float]:
    """How far captured steps come from plain ones in fp32, and resumed ones from uninterrupted."""
    made = {name: build_stage(backbone, stage, SAME, PER_PIXEL) for name in ("plain", "captured")}
    start = weights(made["plain"])
    for name, module in made.items():
        module.captured = name == "captured"
        fit(module, pictures(*roots, BATCH, False), SAME, "fp32", device)
    begun, resumed = (build_stage(backbone, stage, SAME, PER_PIXEL) for _ in range(2))
    begun.captured = resumed.captured = True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "half.ckpt"
        half = SAME // 2
        fit(begun, pictures(*roots, BATCH, False), half, "fp32", device).save_checkpoint(path)
        fit(resumed, pictures(*roots, BATCH, False), SAME, "fp32", device, ckpt_path=path)
    plain, captured = weights(made["plain"]), weights(made["captured"])
    return {
        "moved by": difference(start, plain),
        "captured - plain": difference(captured, plain),
        "resumed - uninterrupted": difference(weights(resumed), captured),
    }


def report(
    roots: tuple[Path, Path | None],
    backbones: tuple[str, ...],
    stages: tuple[str, ...],
    steps: int,
    device: str = "cuda",
) -> str:
    """Both tables."""
    assert steps > 2 * WARM_UP + 1  # the timed half is to be replayed
    cases = [(b, n) for b, n in CASES if b in backbones]
    wanted = [stage for stage in ("1", "2") if stage in stages]
    if not cases or not wanted:
        raise PCSRError("--device cuda measures stages 1 and 2 of carn and fsrcnn")
    head: list[str] = []
    same, speed = [], []
    for backbone in dict.fromkeys(b for b, _ in cases):
        for stage in wanted:
            say(f"{backbone}, stage {stage}: the same weights?")
            found = same_weights(backbone, stage, roots, device)
            same.append([f"{backbone}, stage {stage}", *(f"{v:.1e}" for v in found.values())])
            head = ["stage", *found]
    for backbone, batch in cases:
        for stage in wanted:
            job = {"backbone": backbone, "stage": stage, "batch": batch}
            row = []
            for way in ("plain", "today", "captured"):
                say(f"{backbone}, stage {stage}, {way}")
                row.append(crops_a_second(job, way, roots, device, steps))
            times = [f"{row[2] / row[1]:.1f}"]
            names = [f"{backbone}, stage {stage}", str(batch)]
            speed.append([*names, *(f"{rate:.0f}" for rate in row), *times])
    columns = ["stage", "crops of a captured step", "plain", "today", "captured", "times today's"]
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return "\n\n".join(
        [
            f"# Training on {where}, torch {torch.__version__}",
            f"## Weights after {SAME} steps in fp32: largest differences",
            markdown(head, same),
            f"## Crops a second; plain and today's way with {BATCH} crops a step",
            markdown(columns, speed),
        ]
    )
