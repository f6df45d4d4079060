"""Trains one stage: from a composed config to a model file."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from omegaconf import DictConfig, OmegaConf

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import (
    PCSR,
    Original,
    UnknownBackboneError,
    backbone_class,
    import_backbone,
)
from pcsr_lightning.settings.signatures import check_integer, check_type, parameters
from pcsr_lightning.training.callbacks.checkpoints import AtomicCheckpoints, validate_if_missing
from pcsr_lightning.training.callbacks.freezing import FreezeEarlierStages
from pcsr_lightning.training.callbacks.progress import quieten_lightning
from pcsr_lightning.training.callbacks.stopping import (
    StopBetweenSteps,
    Stopped,
    checkpoint_of_restart,
)
from pcsr_lightning.training.callbacks.wandb_report import report_model
from pcsr_lightning.training.initialization import earlier_model, initialize, stage_network
from pcsr_lightning.training.instantiation import (
    called,
    configured,
    in_plain_values,
    instantiate,
)
from pcsr_lightning.training.modules import SRStage
from pcsr_lightning.weights import LAST, RunRecord, read_checkpoint, save

log = logging.getLogger(__name__)


def train(cfg: DictConfig, run_dir: Path) -> dict[str, float]:
    """Trains one stage.

    Args:
        cfg: composed from ``conf/train.yaml``.
        run_dir: where checkpoints, logs, the model file and the run's record go. Afterwards it
            holds ``model.safetensors`` and ``model.json``, ``checkpoints/last.ckpt`` and
            ``best.ckpt``, and ``run.json``.

    Returns:
        What the last validation has measured, such as ``val/psnr`` in dB.

    Raises:
        PCSRError: a setting, the data or an earlier model cannot be used; raised before training.
    """
    check_settings(cfg)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    quieten_lightning()
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    stage = build_stage(cfg)
    checkpoint = checkpoint_of_restart(run_dir) or cfg.ckpt_path
    if checkpoint is not None:
        check_resumable(Path(checkpoint), metadata(cfg))
    try:
        data = instantiate(cfg.data, "data")
        trainer = make_trainer(cfg, run_dir)
        if trainer.logger is not None:
            trainer.logger.log_hyperparams(in_plain_values(cfg, "config"))
        fit(trainer, stage, data, checkpoint)
        trainer.save_checkpoint(run_dir / LAST, weights_only=False)
        validate_if_missing(trainer, stage, data)
        if trainer.is_global_zero:
            model = finish(trainer, stage, cfg, run_dir)
            report_model(trainer, model, metadata(cfg))
        trainer.strategy.barrier("finished")  # the next stage of all ranks finds the model there
    finally:
        wandb = sys.modules.get("wandb")  # imported by its logger alone
        if wandb is not None and wandb.run is not None:
            wandb.finish()
    return {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}


def fit(
    trainer: L.Trainer, stage: SRStage, data: L.LightningDataModule, checkpoint: str | None
) -> None:
    """Lightning's training; Ctrl-C is a ``KeyboardInterrupt``."""
    try:
        trainer.fit(stage, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except Stopped:
        raise
    except SystemExit:  # Lightning's own way out of Ctrl-C
        raise KeyboardInterrupt from None


def check_settings(cfg: DictConfig) -> None:
    """Whether all keys are known and all values usable, as far as can be told at once.

    Raises:
        ConfigError: names the first one that is not.
    """
    bare = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if str(key) != "hydra"])
    missing = sorted(OmegaConf.missing_keys(bare))
    if missing:
        raise ConfigError(
            f"{missing[0]} has no default: give it on the command line as {missing[0]}=VALUE"
        )
    check_integer("num_classes", cfg.num_classes, 1)
    check_integer("seed", cfg.seed, 0)
    check_integer("threads", cfg.threads, 1, optional=True)
    for key in ("max_steps", "val_check_interval", "log_every_n_steps"):
        check_integer(f"trainer.{key}", cfg.trainer.get(key), 1)
    check_backbone(cfg.backbone)
    for key in ("data", "loss", "optimizer", "scheduler", "stage", "trainer"):
        configured(cfg[key], key)
    if cfg.ckpt_path is not None and not Path(cfg.ckpt_path).is_file():
        raise ConfigError(f"ckpt_path={cfg.ckpt_path}: no such file")


def check_backbone(backbone: DictConfig) -> None:
    """Whether there is such a backbone; imports one from outside the package.

    Raises:
        ConfigError: there is none, it is called something else, or a size is of the wrong type.
    """
    values = in_plain_values(backbone, "backbone")
    target = values.pop("_target_", None)
    name = values.pop("name")
    check_type("backbone.lr", values.pop("lr"), float)
    takes, _ = parameters(stage_network)
    for key, value in values.items():
        if key not in takes:
            raise ConfigError(f"backbone.{key}: there is no such setting")
        check_type(f"backbone.{key}", value, takes[key])
    if target is None:
        try:
            backbone_class(name)
        except UnknownBackboneError as error:
            raise ConfigError(
                f"backbone.name: {error}; for one of your own give backbone._target_, such as "
                "my_package.MyNet"
            ) from None
        return
    own = import_backbone(target).name
    if name != own:
        raise ConfigError(
            f"backbone.name={name}: {target} is called {own!r}; write backbone.name={own}"
        )


def build_stage(cfg: DictConfig) -> SRStage:
    """The LightningModule that the config names, starting from what earlier stages trained.

    Raises:
        PCSRError: its settings or its earlier model cannot be used.
    """
    name, backbone = cfg.stage.name, in_plain_values(cfg.backbone, "backbone")
    sizes = {key: backbone.get(key) for key in ("args", "upsamplers", "classifier", "mean")}
    scale = in_plain_values(cfg.data, "data")["scale"]
    if name == "original" and (not isinstance(scale, int | float) or scale != int(scale)):
        raise ConfigError(f"data.scale={scale}: an original model is made for one integer scale")
    network: PCSR | Original = stage_network(
        name, cfg.backbone.name, cfg.num_classes, **sizes,
        scale=int(scale) if name == "original" else 4,
    )  # fmt: skip
    earlier = earlier_model(name, cfg.backbone.name, cfg.num_classes, cfg.init, Path(cfg.output))
    if earlier is not None:
        initialize(network, earlier)
    stage = instantiate(
        cfg.stage, "stage",
        network=network,
        loss=instantiate(cfg.loss, "loss"),
        optimizer=configured(cfg.optimizer, "optimizer"),
        scheduler=configured(cfg.scheduler, "scheduler"),
        metadata=metadata(cfg),
    )  # fmt: skip
    assert isinstance(stage, SRStage)
    # Made here for their own checks: a wrong value is reported before the data is read.
    called(stage.configure_optimizers, "optimizer and scheduler")
    return stage


def metadata(cfg: DictConfig) -> dict[str, Any]:
    """What a checkpoint says of its run."""
    return {
        "stage": cfg.stage.name,
        "backbone": cfg.backbone.name,
        "num_classes": cfg.num_classes,
        "seed": cfg.seed,
    }


def make_trainer(cfg: DictConfig, run_dir: Path) -> L.Trainer:
    """Lightning's trainer with the logger and callbacks that the config names.

    Raises:
        ConfigError: Lightning does not take a setting, or there is no such device.
    """
    logger = instantiate(with_own_folder(cfg.logger), "logger") if cfg.logger else False
    callbacks = [instantiate(c, f"callbacks.{name}") for name, c in cfg.callbacks.items() if c]
    if logger is False:
        callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
    options = in_plain_values(cfg.trainer, "trainer")
    for key in ("val_check_interval", "log_every_n_steps"):  # a short run is logged too
        options[key] = min(options[key], options["max_steps"])
    # Without ours Lightning would put a bar of its own there.
    options["enable_progress_bar"] &= any(isinstance(c, ProgressBar) for c in callbacks)
    if not options["enable_progress_bar"]:
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    trainer = instantiate(
        options, "trainer",
        logger=logger,
        callbacks=[FreezeEarlierStages(), StopBetweenSteps(run_dir / LAST), *callbacks],
        plugins=[AtomicCheckpoints()],
        default_root_dir=run_dir,
        check_val_every_n_epoch=None,
        enable_model_summary=False,
    )  # fmt: skip
    assert isinstance(trainer, L.Trainer)
    return trainer


def with_own_folder(logger: DictConfig) -> DictConfig:
    """A CSV logger for a folder not yet there: it would delete what a resumed run has logged."""
    if not str(logger.get("_target_")).endswith("CSVLogger"):
        return logger
    folder, first = Path(logger.save_dir) / logger.name, str(logger.version)
    version, count = first, 1
    while (folder / version).exists():
        count += 1
        version = f"{first}-{count}"
    renamed = OmegaConf.merge(logger, {"version": version})
    assert isinstance(renamed, DictConfig)
    return renamed


def check_resumable(path: Path, now: dict[str, Any]) -> None:
    """Refuses a checkpoint of another stage, backbone or number of classes, naming both.

    Args:
        path: of the checkpoint.
        now: the metadata of this run.

    Raises:
        ConfigError: it is of another kind.
        ModelFileError: it is damaged, or no checkpoint of ours.
    """
    kept, _ = read_checkpoint(path)
    kinds = [
        ", ".join(f"{key}={found[key]}" for key in ("stage", "backbone", "num_classes"))
        for found in (kept, now)
    ]
    if kinds[0] != kinds[1]:
        raise ConfigError(f"ckpt_path={path} is of {kinds[0]}; this run is {kinds[1]}")


def finish(trainer: L.Trainer, stage: SRStage, cfg: DictConfig, run_dir: Path) -> Path:
    """Writes the model file, and the record that marks the run as finished; returns the former."""
    psnr = trainer.callback_metrics.get("val/psnr")
    val_psnr = None if psnr is None else round(float(psnr), 4)
    steps = trainer.global_step or cfg.trainer.max_steps  # spawned processes keep theirs
    path = save(
        stage.network,
        run_dir / "model",
        {**metadata(cfg), "steps": steps, "val_psnr": val_psnr},
    )
    RunRecord(
        cfg.stage.name, cfg.backbone.name, cfg.num_classes, steps, time.time(), val_psnr
    ).write(run_dir)
    log.info("trained %d steps; validation PSNR %s dB; %s", steps, val_psnr, path)
    return path
