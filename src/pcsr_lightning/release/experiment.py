"""Trains an experiment of ``conf/experiment/release`` in a process of its own."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pcsr_lightning import conf_dir
from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.errors import INTERRUPTED, ConfigError, TrainingError
from pcsr_lightning.training.own_process import train_in_own_process
from pcsr_lightning.training.stage_configs import deciding
from pcsr_lightning.weights import RECORD, is_finished

GLOBAL = "# @package _global_"
"""The first line of an experiment."""
PICTURES = ("data._target_", "data.root", "data.val_root", "data.val_count")
"""Settings that say where the pictures are; a card describes the pictures instead."""


@dataclass(frozen=True)
class StageRun:
    """A finished stage: its label (``1``, ``1-part-2``, ``original``) and its run folder."""

    label: str
    folder: Path

    @property
    def config(self) -> DictConfig:
        """What Hydra composed for it.

        Raises:
            ConfigError: that is missing.
        """
        path = self.folder / ".hydra" / "config.yaml"
        if not path.is_file():
            raise ConfigError(f"{path}: missing, though the stage is finished; train it again")
        found = OmegaConf.load(path)
        assert isinstance(found, DictConfig)
        return found

    @property
    def record(self) -> dict[str, Any]:
        """Its ``run.json``: steps done, when it finished, validation PSNR."""
        content = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content

    def settings(self) -> list[str]:
        """Its settings that are not the training command's own, as overrides."""
        config = self.config
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            usual = deciding(compose("train", [f'stage="{config.stage.name}"']))
        return [
            f"{key}={value}"
            for key, value in deciding(config).items()
            if key not in PICTURES and (key not in usual or usual[key] != value)
        ]


GPU = "gpu"
"""The folder in ``conf/experiment/release`` of the recipes for a GPU, which are by the clock."""


def list_experiments(folder: str = "") -> list[str]:
    """The names in ``conf/experiment/release``, or in a folder there."""
    files = (conf_dir() / "experiment" / "release" / folder).glob("*.yaml")
    return sorted(path.stem for path in files if path.stem != "base")


def train_experiment(
    name_or_file: str, overrides: Sequence[str], output: Path, on_gpu: bool = False
) -> list[StageRun]:
    """Trains what is not trained yet of an experiment's stages.

    A finished stage is left as it is; one with a checkpoint resumes from it, and unless it is by
    the clock it ends in the very weights that it would have had without the interruption.

    Args:
        name_or_file: an experiment of ``conf/experiment/release`` by its name, or a YAML file of
            that form.
        overrides: further settings of every stage's training (where the data is, ...).
        output: the model gets a folder below, with a folder for each stage inside.
        on_gpu: takes the recipe of that name for a GPU.

    Returns:
        The stages in order.

    Raises:
        ConfigError: there is no such experiment, or no GPU.
        TrainingError: the training ended without a result; its own messages stand above.
    """
    name = model_name(name_or_file)
    folder = output / name
    if not is_finished(folder):
        choice = _of_gpu(name, overrides) if on_gpu else _choice(name_or_file, folder)
        _train(name, [*choice, "stage=all", *overrides], folder)
    paths = folder.glob(f"stage-*/{RECORD}")
    runs = [StageRun(path.parent.name.removeprefix("stage-"), path.parent) for path in paths]
    return sorted(runs, key=lambda run: float(run.record["finished"]))


def model_name(name_or_file: str) -> str:
    """The name of the model that an experiment trains.

    Raises:
        ConfigError: there is no such experiment; the message lists those there are.
    """
    path = Path(name_or_file)
    if path.suffix == ".yaml" and path.is_file():
        return path.stem
    if name_or_file not in list_experiments():
        raise ConfigError(
            f"no experiment is called {name_or_file!r} and no such file exists; there are "
            f"{', '.join(list_experiments())}; or give a .yaml file"
        )
    return name_or_file


def _of_gpu(name: str, overrides: Sequence[str]) -> list[str]:
    """Arguments that choose a recipe for a GPU, where there is one or another device is named."""
    if name not in list_experiments(GPU):
        raise ConfigError(f"--on gpu: {name} has no recipe for a GPU; leave out --on")
    elsewhere = any(word.startswith(("trainer=", "trainer.accelerator=")) for word in overrides)
    if not elsewhere and not (CUDAAccelerator.is_available() or MPSAccelerator.is_available()):
        raise ConfigError(
            "--on gpu: PyTorch finds no GPU here; without --on gpu (ON=gpu) the model is trained "
            "by its recipe for a CPU"
        )
    return [f"experiment=release/{GPU}/{name}"]


def _choice(name_or_file: str, folder: Path) -> list[str]:
    """Arguments that choose an experiment; a file is copied to where Hydra finds it."""
    if name_or_file in list_experiments():
        return [f"experiment=release/{name_or_file}"]
    path, conf = Path(name_or_file), folder / "conf"
    try:
        text = path.read_text(encoding="utf-8")
        content = OmegaConf.create(text)
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error})") from None
    if not isinstance(content, DictConfig) or "stages" not in content:
        raise ConfigError(f"{path}: expected a mapping with a key stages, the overrides of each")
    if not text.startswith(GLOBAL):
        raise ConfigError(f"{path}: an experiment begins with the line {GLOBAL!r}")
    (conf / "experiment").mkdir(parents=True, exist_ok=True)
    atomic_write(conf / "experiment" / path.name, text.encode())
    return ["--config-dir", str(conf), f"experiment={path.stem}"]


def _train(name: str, arguments: Sequence[str], folder: Path) -> None:
    code = train_in_own_process([*arguments, f"hydra.run.dir={folder}"])
    if code in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    if code != 0 or not is_finished(folder):
        raise TrainingError(
            f"{name}: the training ended with exit code {code}, see above; the same command "
            "resumes from the last checkpoint"
        )
