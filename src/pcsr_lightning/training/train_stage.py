"""Trains one stage: from a composed config to a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig, OmegaConf

from pcsr_lightning.errors import ConfigError, single_line
from pcsr_lightning.evaluation.loggers import finished_runs
from pcsr_lightning.evaluation.picture_metrics import build_metrics
from pcsr_lightning.networks import start_from_identity
from pcsr_lightning.networks.backbones import is_builtin
from pcsr_lightning.settings.hydra_job import output_dir
from pcsr_lightning.settings.instantiation import (
    called,
    configured,
    errors_of_settings,
    instantiate,
)
from pcsr_lightning.training.callbacks.checkpoints import validate_if_missing
from pcsr_lightning.training.callbacks.progress import quieten_lightning
from pcsr_lightning.training.callbacks.report import report_model
from pcsr_lightning.training.callbacks.stopping import (
    Stopped,
    checkpoint_of_restart,
)
from pcsr_lightning.training.ending import finish
from pcsr_lightning.training.initialization import (
    earlier_model,
    initialize,
    network_of,
)
from pcsr_lightning.training.modules import SRStage
from pcsr_lightning.training.parts import loss_factory, schedule_factory
from pcsr_lightning.training.resuming import resume, run_facts
from pcsr_lightning.training.settings_check import check_settings
from pcsr_lightning.training.trainer import log_config, make_trainer
from pcsr_lightning.weights import LAST, file_hash, last_checkpoint
from pcsr_lightning.weights.runs import WEIGHTS


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
    trained: Any = getattr(network, "backbone", None)
    if found is None and is_builtin(type(trained)):  # others may come with weights of their own
        start_from_identity(trained)
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
    scale = OmegaConf.select(cfg, "data.scale")
    found = scale if isinstance(scale, ListConfig) else [scale]
    if not all(isinstance(s, int | float) for s in found):
        return {}  # a data module of the user's own need not have scales
    return {"scales": [float(s) for s in dict.fromkeys((min(found), max(found)))]}
