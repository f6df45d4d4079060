"""What ``conf/train.yaml`` may hold: its keys, types and ranges."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import UnknownBackboneError, backbone_class, import_backbone


@dataclass
class BackboneSettings:
    name: str
    lr: float
    args: dict[str, Any] | None = None
    upsamplers: list[list[int]] | None = None
    classifier: list[int] | None = None
    mean: list[float] | None = None
    _target_: str | None = None

    def check(self) -> None:
        """Whether there is such a backbone; imports one from outside the package.

        Raises:
            ConfigError: there is none, or it is called something else.
        """
        if self._target_ is None:
            try:
                backbone_class(self.name)
            except UnknownBackboneError as error:
                raise ConfigError(
                    f"backbone.name: {error}; for one of your own give backbone._target_, such as "
                    "my_package.MyNet"
                ) from None
            return
        name = import_backbone(self._target_).name
        if self.name != name:
            raise ConfigError(
                f"backbone.name={self.name}: {self._target_} is called {name!r}; write "
                f"backbone.name={name}"
            )


@dataclass
class StageSettings:
    name: str
    max_steps: int
    lr: float
    lr_min: float
    betas: list[float]
    optimizer: str
    schedule: str
    warmup: int
    decay: float
    recon: str
    vector_lr: float = 1.0
    weight_decay: float = 0.0
    queries: int | None = None
    w_recon: float = 1000.0
    w_avg: float = 3.0
    teacher: str | None = None
    teacher_share: float = 1.0
    revive: int | None = None


@dataclass
class DataSettings:
    """All that a ``data`` group may say; see ``pcsr_lightning.data.SRDataModule``."""

    _target_: str
    root: str | None = None
    val_root: str | None = None
    val_count: int = 8
    val_limit: int | None = None
    batch_size: int = 16
    scale: Any = 4  # a number or [lowest, highest]
    val_scale: float | None = None
    lr_crop: int = 32
    stride: int = 64
    min_rest: int = 48
    shrinks: list[float] = field(default_factory=list)
    augment: bool = True
    num_workers: int = 0
    seed: int = 0
    cache_dir: str | None = None
    download: bool = False
    url: str | None = None


@dataclass
class TrainSettings:
    """``conf/train.yaml`` with its types; what the trainer takes is lightning.Trainer's to say."""

    backbone: BackboneSettings
    stage: StageSettings
    data: DataSettings
    trainer: dict[str, Any]
    logger: dict[str, Any]
    callbacks: dict[str, Any]
    num_classes: int
    seed: int
    init: str | None
    ckpt_path: str | None
    output: str
    threads: int | None
    debug: bool
    experiment: Any = field(default=None)

    def check(self) -> None:
        """Ranges and choices, which types cannot say.

        Raises:
            ConfigError: names the first setting that cannot be used.
        """
        self.backbone.check()
        for key, value, least in (
            ("seed", self.seed, 0),
            ("threads", self.threads, 1),
            ("stage.queries", self.stage.queries, 1),
        ):
            if value is not None and value < least:
                raise ConfigError(f"{key}={value}: must be at least {least}")
        for key in ("lr", "lr_min", "w_recon", "w_avg"):
            value = getattr(self.stage, key)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"stage.{key}={value}: must be a finite number of at least 0")
        if len(self.stage.betas) != 2 or not all(0 <= b < 1 for b in self.stage.betas):
            raise ConfigError(f"stage.betas={self.stage.betas}: must be two numbers in [0, 1)")
        scale = self.data.scale
        numbers = scale if isinstance(scale, list) else [scale]
        if not all(type(n) in (int, float) for n in numbers) or len(numbers) > 2:
            raise ConfigError(f"data.scale={scale}: must be a number or [lowest, highest]")
        for key in ("max_steps", "val_check_interval", "log_every_n_steps"):
            steps = self.trainer.get(key)
            if type(steps) is not int or steps < 1:
                raise ConfigError(f"trainer.{key}={steps}: must be a whole number of at least 1")
        if type(self.trainer.get("enable_progress_bar")) is not bool:
            raise ConfigError("trainer.enable_progress_bar: must be true or false")
        takes = inspect.signature(L.Trainer.__init__).parameters
        for key in self.trainer:
            if key not in takes:
                raise ConfigError(f"trainer.{key}: lightning.Trainer has no such setting")
        if self.ckpt_path is not None and not Path(self.ckpt_path).is_file():
            raise ConfigError(f"ckpt_path={self.ckpt_path}: no such file")

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of its run."""
        return {
            "stage": self.stage.name,
            "backbone": self.backbone.name,
            "num_classes": self.num_classes,
            "seed": self.seed,
        }
