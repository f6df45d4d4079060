"""Trains one stage: from a composed config to a model file."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.errors import ConfigError, check_path, single_line
from pcsr_lightning.evaluation.loggers import finished_runs, is_wandb, make_loggers
from pcsr_lightning.evaluation.picture_metrics import build_metrics
from pcsr_lightning.networks import UnknownBackboneError, backbone_class, import_backbone
from pcsr_lightning.settings.hydra_job import output_dir
from pcsr_lightning.settings.instantiation import (
    called,
    configured,
    errors_of_settings,
    in_plain_values,
    instantiate,
)
from pcsr_lightning.settings.known_keys import check_top_level
from pcsr_lightning.settings.signatures import check_integer, check_type, parameters
from pcsr_lightning.training.callbacks.checkpoints import AtomicCheckpoints, validate_if_missing
from pcsr_lightning.training.callbacks.clock import Clock, parse_time
from pcsr_lightning.training.callbacks.last_validation import ValidateLastStep
from pcsr_lightning.training.callbacks.progress import quieten_lightning
from pcsr_lightning.training.callbacks.report import report_model
from pcsr_lightning.training.callbacks.stopping import (
    StopBetweenSteps,
    Stopped,
    checkpoint_of_restart,
)
from pcsr_lightning.training.earlier_run import scales
from pcsr_lightning.training.ending import CountSteps, finish
from pcsr_lightning.training.initialization import (
    earlier_model,
    initialize,
    network_of,
    stage_network,
)
from pcsr_lightning.training.modules import SRStage
from pcsr_lightning.training.optim.factories import check_follows_time
from pcsr_lightning.training.parts import loss_factory, schedule_factory
from pcsr_lightning.training.resuming import resume, run_facts
from pcsr_lightning.training.run_length import check_length, with_intervals
from pcsr_lightning.weights import LAST, file_hash, last_checkpoint
from pcsr_lightning.weights.runs import WEIGHTS

log = logging.getLogger(__name__)

WANDB_ID = "wandb.id"
"""In a run folder: the id of its run in W&B, so that a resumed training goes on there."""


def train(cfg: DictConfig, run_dir: str | Path) -> dict[str, float]:
    """Trains one stage, in a Hydra job or without one, as in a notebook.

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
    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if str(key) != "hydra"])
    with output_dir(Path(run_dir)):
        return _train(cfg, Path(run_dir))


def _train(cfg: DictConfig, run_dir: Path) -> dict[str, float]:
    check_settings(cfg)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    quieten_lightning()
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    given = checkpoint_of_restart(run_dir) or cfg.ckpt_path
    checkpoint = None if given is None else last_checkpoint(Path(given))
    stage = build_stage(cfg, resumes=checkpoint is not None)
    if checkpoint is not None:
        stage.hparams["run"] = resume(checkpoint, cfg, stage)
    with finished_runs(), errors_of_settings():
        data = instantiate(cfg.data, "data")
        trainer = make_trainer(cfg, run_dir, checkpoint)
        log_config(trainer, cfg, stage, data)
        fit(trainer, stage, data, checkpoint)
        trainer.save_checkpoint(run_dir / LAST, weights_only=False)
        validate_if_missing(trainer, stage, data)
        if trainer.is_global_zero:
            record = finish(trainer, stage, data, cfg, run_dir, metadata(cfg))
            if record.complete:
                report_model(trainer, run_dir / WEIGHTS, metadata(cfg))
        trainer.strategy.barrier("finished")  # the next stage of all ranks finds the model there
    return {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}


def fit(
    trainer: L.Trainer, stage: SRStage, data: L.LightningDataModule, checkpoint: Path | None
) -> None:
    """Lightning's training; Ctrl-C is a ``KeyboardInterrupt``."""
    try:
        with errors_of_settings():
            trainer.fit(stage, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except Stopped:
        raise
    except MisconfigurationException as error:  # of settings that Lightning checks on the way
        raise ConfigError(single_line(str(error))) from error
    except SystemExit:  # Lightning's own way out of Ctrl-C
        raise KeyboardInterrupt from None


def check_settings(cfg: DictConfig) -> None:
    """Whether all keys are known and all values usable, as far as can be told at once.

    Raises:
        ConfigError: names the first one that is not.
    """
    check_top_level(cfg, "train")
    bare = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if str(key) != "hydra"])
    missing = sorted(OmegaConf.missing_keys(bare))
    if missing:
        raise ConfigError(
            f"{missing[0]} has no default: give it on the command line as {missing[0]}=VALUE"
        )
    check_integer("num_classes", cfg.num_classes, 1)
    check_integer("seed", cfg.seed, 0)
    check_integer("threads", cfg.threads, 1, optional=True)
    check_length(cfg.trainer)
    for key, example in (("init", "MODEL"), ("ckpt_path", "FILE"), ("output", "DIR")):
        check_path(key, cfg[key], example)
    check_backbone(cfg.backbone)
    for key in ("data", "optimizer", "stage", "trainer"):
        configured(cfg[key], key)
    loss_factory(cfg.loss)
    schedule = schedule_factory(cfg.scheduler)
    if cfg.trainer.get("max_time") is not None:
        check_follows_time(schedule, cfg.trainer.max_steps)
    if cfg.ckpt_path is not None:
        last_checkpoint(Path(cfg.ckpt_path))


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


def build_stage(cfg: DictConfig, resumes: bool = False) -> SRStage:
    """The LightningModule that the config names, starting from what earlier stages trained.

    Args:
        cfg: of the training.
        resumes: all weights will come from a checkpoint, and no earlier model is looked for.

    Raises:
        PCSRError: its settings or its earlier model cannot be used.
    """
    network = network_of(cfg)
    init, found = None, None if resumes else earlier_model(cfg, network)
    if found is not None:
        earlier, path = found
        initialize(network, earlier)
        init = {"path": str(path.resolve()), "sha256": file_hash(path)}
    stage = instantiate(
        cfg.stage, "stage",
        network=network,
        loss=loss_factory(cfg.loss)(),
        optimizer=configured(cfg.optimizer, "optimizer"),
        scheduler=schedule_factory(cfg.scheduler),
        metrics=build_metrics(cfg.get("metrics")),
        metadata=metadata(cfg),
    )  # fmt: skip
    assert isinstance(stage, SRStage)
    stage.hparams["run"] = run_facts(cfg, init)
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
        **trained_scales(cfg),
    }


def trained_scales(cfg: DictConfig) -> dict[str, list[float]]:
    """``scales`` of a model file: the scale of the training, or the lowest and the highest."""
    if OmegaConf.select(cfg, "data.scale") is None:
        return {}  # a data module of the user's own need not have scales
    return {"scales": list(dict.fromkeys(scales(cfg)))}


def make_trainer(cfg: DictConfig, run_dir: Path, checkpoint: Path | None = None) -> L.Trainer:
    """Lightning's trainer with the loggers and callbacks that the config names.

    Args:
        cfg: of the run.
        run_dir: of the run.
        checkpoint: that the run resumes from, if any; its W&B run goes on.

    Raises:
        ConfigError: Lightning does not take a setting, or there is no such device.
    """
    loggers = run_loggers(cfg, run_dir, checkpoint)
    callbacks = [
        instantiate(node, f"callbacks.{name}")
        for name, node in (cfg.get("callbacks") or {}).items()
        if node
    ]
    if not loggers:
        callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
    options = with_intervals(in_plain_values(cfg.trainer, "trainer"))
    # Without ours Lightning would put a bar and a checkpoint callback of its own there.
    options["enable_progress_bar"] &= any(isinstance(c, ProgressBar) for c in callbacks)
    if not options["enable_progress_bar"]:
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    options.setdefault("enable_checkpointing", any(isinstance(c, Checkpoint) for c in callbacks))
    duration = parse_time(options.pop("max_time", None))
    # The clock first: the others have to know that this was the last step.
    clock = [] if duration is None else [Clock(duration)]
    ours = [*clock, ValidateLastStep(), StopBetweenSteps(run_dir / LAST), CountSteps()]
    trainer = instantiate(
        options, "trainer",
        logger=loggers,
        callbacks=[*ours, *callbacks],
        plugins=[AtomicCheckpoints()],
        default_root_dir=run_dir,
        enable_model_summary=False,
    )  # fmt: skip
    assert isinstance(trainer, L.Trainer)
    return trainer


def run_loggers(cfg: DictConfig, run_dir: Path, checkpoint: Path | None) -> list[Any]:
    """The loggers that the config names; W&B's goes on with the run that is resumed.

    Raises:
        ConfigError: one of them does not take a setting, or cannot be reached.
    """
    settings = in_plain_values(cfg.get("logger") or {}, "logger")
    backbone, stage, classes = cfg.backbone.name, cfg.stage.name, cfg.num_classes
    of_wandb = {
        "name": f"{backbone}-m{classes}-stage-{stage}",
        "group": f"{backbone}-m{classes}",
        "tags": [backbone, f"stage {stage}", f"M = {classes}", str(cfg.optimizer._target_)],
    }
    if any(map(is_wandb, filter(None, settings.values()))):
        of_wandb["id"] = wandb_id(run_dir, checkpoint)
    return make_loggers(settings, of_wandb)


def wandb_id(run_dir: Path, checkpoint: Path | None) -> str:
    """The id of a run in W&B, kept in its folder: that of the run which is resumed, or a new one.

    Args:
        run_dir: of the run.
        checkpoint: that it resumes from, in ``checkpoints/`` of its own folder or another one.
    """
    folders = [run_dir, *(() if checkpoint is None else [checkpoint.parent.parent])]
    kept = [folder / WANDB_ID for folder in folders if (folder / WANDB_ID).is_file()]
    run_dir.mkdir(parents=True, exist_ok=True)
    found = kept[0].read_text(encoding="utf-8").strip() if kept else uuid.uuid4().hex[:8]
    rank_zero_only(atomic_write)(run_dir / WANDB_ID, f"{found}\n".encode())
    return found


def log_config(
    trainer: L.Trainer, cfg: DictConfig, stage: L.LightningModule, data: L.LightningDataModule
) -> None:
    """Logs the whole config, and nothing else as hyper-parameters, in every logger."""
    for part in (stage, data):
        # Lightning would log what they have saved for checkpoints: "1" in place of all of `stage`.
        part._log_hyperparams = False
    for logger in trainer.loggers:
        logger.log_hyperparams(in_plain_values(cfg, "config"))
