"""What the training benchmark trains, and the processes in which it trains.

Legend: N any number of crops, h w LR size, H W HR size, Q query pixels.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import plain_training
import torch
from _inputs import shared_folder
from _measure import peak_bytes
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from plain_training import BATCH, Clock
from torch import Tensor, nn

import pcsr_lightning
from pcsr_lightning.data import SRDataModule
from pcsr_lightning.data.batches import TrainBatch
from pcsr_lightning.data.pairs import validation_pair
from pcsr_lightning.data.sample_pictures import SAMPLE_FOLDER
from pcsr_lightning.data.whole_pictures import RawPicture
from pcsr_lightning.inference.flops import model_macs, original_flops
from pcsr_lightning.networks import PCSR, Original, evaluating
from pcsr_lightning.training import FreezeEarlierStages, SRStage, cosine
from pcsr_lightning.training.callbacks.progress import quieten_lightning
from pcsr_lightning.training.callbacks.stopping import StopBetweenSteps
from pcsr_lightning.training.initialization import initialize, stage_network
from pcsr_lightning.training.modules import FirstStage, LaterStage, OriginalStage

SCALE, CROP = 4, 128
QUERIES = 2048
"""HR pixels that ours draws from each crop a step."""
WAYS = {
    "plain": ("fp32", None),
    "ours": ("bf16", QUERIES),
    "ours, fp32, all pixels": ("fp32", None),
}
"""Precision and queries of each way."""
LIGHTNING = {"bf16": "bf16-mixed", "fp32": "32-true"}
RATES = {"fsrcnn": 1e-3}
"""Learning rates of Sec. 4.1; 2e-4 for all others."""
SEED = 0


# What is trained on and measured on.


def picture_folders(named: Path | None) -> tuple[Path, Path | None]:
    """The folders of training and of validation pictures, the latter ``valid`` beside it."""
    shared = shared_folder()
    root = named or (SAMPLE_FOLDER if shared is None else shared / "images") / "train"
    if named is None and not root.is_dir():
        root = SAMPLE_FOLDER / "train"
    valid = root.parent / "valid"
    return root, valid if valid.is_dir() else None


def data_module(root: Path, val_root: Path | None) -> SRDataModule:
    """The library's own data, as ``data=folder`` sets it up."""
    return SRDataModule(root, val_root, batch_size=BATCH, scale=SCALE, seed=SEED)


def held_out(data: SRDataModule, batches: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of LR and HR crops of validation pictures, the middles of as many as it takes."""
    pairs = []
    pictures = [raw for raw in data.val_dataloader() if min(raw.hr_B3HW.shape[2:]) >= CROP]
    for number in range(batches * BATCH):
        hr_B3HW = pictures[number % len(pictures)].hr_B3HW
        # Of few pictures several crops: they move along the diagonal.
        spare = [side - CROP for side in hr_B3HW.shape[2:]]
        share = 0.5 if len(pictures) >= batches * BATCH else number / (batches * BATCH)
        top, left = (round(s * share) for s in spare)
        hr_B3HW = hr_B3HW[:, :, top : top + CROP, left : left + CROP]
        pair = validation_pair(RawPicture(hr_B3HW, ""), SCALE)
        pairs.append((pair.lr, pair.hr))
    lr_N3hw, hr_N3HW = (torch.cat(pictures) for pictures in zip(*pairs, strict=True))
    return list(zip(torch.split(lr_N3hw, BATCH), torch.split(hr_N3HW, BATCH), strict=True))


def earlier_model(backbone: str) -> PCSR:
    """What stage 2 builds on: a trained model's backbone and heavy upsampler where there is one."""
    network = stage_network("1", backbone, 2)
    assert isinstance(network, PCSR)
    name, shared = f"{backbone}-pcsr-x4", shared_folder()
    published = None if shared is None else shared / "reference" / f"{backbone}-pcsr-phase1.pth"
    if name in pcsr_lightning.list_models():
        trained = pcsr_lightning.load(name)
    elif published is not None and published.is_file():
        trained = pcsr_lightning.load(published)
    else:
        return network
    assert isinstance(trained, PCSR)
    network.backbone.load_state_dict(trained.backbone.state_dict())
    network.upsampler(0).load_state_dict(trained.upsampler(0).state_dict())
    return network


def build_stage(backbone: str, stage: str, steps: int, queries: int | str | None) -> SRStage:
    """The stage, with the same weights in every process; its rate falls to nothing at the end."""
    L.seed_everything(SEED, verbose=False)
    earlier = earlier_model(backbone) if stage == "2" else None
    network = stage_network(stage, backbone, 2, scale=SCALE)
    if earlier is not None:
        initialize(network, earlier)
    kinds = {"original": OriginalStage, "1": FirstStage, "2": LaterStage}
    drawn = {} if stage == "original" else {"queries": queries, "seed": SEED}
    lr = RATES.get(backbone, 2e-4)
    return kinds[stage](
        network,
        loss=nn.L1Loss(),
        optimizer=partial(torch.optim.Adam, lr=lr, betas=(0.9, 0.99), fused=True),
        scheduler=partial(cosine, steps=steps),
        metadata={"backbone": backbone, "num_classes": 2},
        **drawn,
    )


# In a way's own process.


class Turns(L.Callback):
    """Tells a clock about the steps of a Lightning trainer."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *_: self.clock.mark("optimizer"))

    def on_train_batch_start(self, *_: object) -> None:
        self.clock.mark("data")

    def on_before_backward(self, *_: object) -> None:
        self.clock.mark("forward")

    def on_after_backward(self, *_: object) -> None:
        self.clock.mark("backward")

    def on_train_batch_end(self, *_: object) -> None:
        self.clock.step_done()


def work(job: dict[str, Any]) -> None:
    """Trains one way of one stage, block by block as told on stdin, and reports in the end."""
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not get between the lines of the talk

    def turn() -> None:
        print("{}", file=pipe)
        if not sys.stdin.readline():
            raise SystemExit(1)

    quieten_lightning()
    logging.getLogger("pcsr_lightning").setLevel(logging.WARNING)
    precision, queries = WAYS[job["way"]]
    folder = Path(job["folder"])
    stage = build_stage(job["backbone"], job["stage"], job["steps"], queries)
    clock = Clock(job["warm"], job["block"], turn)
    if job["way"] == "plain":
        plain_training.train(stage, folder / "crops", job["steps"], clock)
    else:
        val_root = job["val_root"] and Path(job["val_root"])
        trainer = make_trainer(precision, job["steps"], folder, clock)
        trainer.fit(stage, datamodule=data_module(Path(job["root"]), val_root))
    peak = peak_bytes()
    untrained = build_stage(job["backbone"], job["stage"], job["steps"], queries)
    report = {
        "loss_at_start": held_out_loss(untrained, folder),
        "loss": held_out_loss(stage, folder),
        "parts": clock.medians(),
        "peak": peak,
        "gmacs": gmacs(stage, queries, hoisted=job["way"] != "plain"),
    }
    print(json.dumps(report), file=pipe)


def make_trainer(precision: str, steps: int, folder: Path, clock: Clock) -> L.Trainer:
    """The trainer of ``python -m pcsr_lightning.train`` without bar, validation and checkpoints."""
    run_dir = Path(tempfile.mkdtemp(dir=folder))
    callbacks: list[L.Callback] = [
        FreezeEarlierStages(),
        StopBetweenSteps(run_dir / "last.ckpt"),
        LearningRateMonitor("step"),
        Turns(clock),  # last, so that the others' work is counted
    ]
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        precision=LIGHTNING[precision],  # type: ignore[arg-type]
        max_steps=steps,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        log_every_n_steps=min(50, steps),
        check_val_every_n_epoch=None,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=CSVLogger(run_dir),
        callbacks=callbacks,
        default_root_dir=run_dir,
    )


def held_out_loss(stage: SRStage, folder: Path) -> float:
    """The stage's loss on the held-out crops, by the same independent code for every way."""
    batches = [TrainBatch(lr, hr) for lr, hr in torch.load(folder / "held_out.pt")]
    with evaluating(stage.network), torch.no_grad():
        losses = [float(plain_training.plain_loss(stage, batch)) for batch in batches]
    return statistics.fmean(losses)


def gmacs(stage: SRStage, queries: int | None, hoisted: bool) -> float:
    """Giga multiply-adds of a step: a forward pass, and twice as much again for what is trained."""
    network = stage.network
    lr_pixels, Q = BATCH * (CROP // SCALE) ** 2, BATCH * (queries or CROP**2)
    if isinstance(network, Original):
        return 3 * original_flops(network, lr_pixels).gmacs
    macs = model_macs(network)
    parts: list[tuple[nn.Module, float]] = [(network.backbone, lr_pixels * macs.plain.backbone)]
    mlps = [*network.upsamplers, *([network.classifier] if network.classifier else [])]
    split = [*zip(macs.project_M, macs.tail_M, strict=True), macs.classifier]
    plain = [*macs.plain.upsamplers, macs.plain.classifier]
    for mlp, (project, tail), whole in zip(mlps, split, plain, strict=False):
        parts.append((mlp, lr_pixels * project + Q * tail if hoisted else Q * whole))
    trained = set(stage.trained_parts().values())
    return sum((3 if part in trained else 1) * cost for part, cost in parts) / 1e9
