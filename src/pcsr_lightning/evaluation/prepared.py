"""An evaluation once all its settings are checked, before a picture is read."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from pcsr_lightning.distributed import ProcessGroup
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.benchmark import check_fits
from pcsr_lightning.evaluation.config import EvaluationConfig
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.published import PublishedPoint, published_points
from pcsr_lightning.evaluation.spawned import run_in_processes
from pcsr_lightning.evaluation.target import check_target
from pcsr_lightning.inference import RoutingConfig
from pcsr_lightning.networks import AnyNetwork, import_backbone
from pcsr_lightning.weights import load, scale_warning

_log = logging.getLogger(__name__)

GENERIC_NAMES = {"model", "last", "best", "checkpoints"}
"""Names that every training's run folder has inside. Multiruns number their jobs."""

T = TypeVar("T")


@dataclass(frozen=True)
class PreparedEvaluation:
    """An evaluation that can start.

    Attributes:
        config: checked; without ``sweep`` for a model in which no value would change anything.
        model: on its device; on the CPU where each device gets a process and a model of its own.
        routings: to measure: one, or the values of a sweep.
        devices: one for each process to start; one alone where none is started.
        group: the processes that share the work, started from outside.
        published: the paper's numbers, if they were asked for.
        run_dir: where results go.
    """

    config: EvaluationConfig
    model: AnyNetwork
    routings: tuple[RoutingConfig, ...]
    devices: list[torch.device]
    group: ProcessGroup
    published: list[PublishedPoint]
    run_dir: Path

    @property
    def first(self) -> bool:
        """Whether this process prints and writes."""
        return self.group.rank == 0

    @property
    def threads(self) -> int:
        """Of torch, in each of the processes."""
        given, shared = self.config.threads, torch.get_num_threads() // len(self.devices)
        return max(1, shared) if given is None else given

    @property
    def layout(self) -> Layout | None:
        """Where patches lie; ``None`` for full images."""
        return Layout.of(self.config.chosen_protocol, self.config.patch_size)

    @property
    def pictures(self) -> Path | None:
        """The folder that upscaled pictures are kept in, if they are kept."""
        return self.run_dir / "pictures" if self.config.save_images else None

    @property
    def name(self) -> str:
        """Which model is measured on which pictures."""
        c = self.config
        return f"{model_name(c.model)} on {c.data_name} x{c.scale}"

    def measure(self, work: Callable[[AnyNetwork, ProcessGroup], T]) -> T:
        """What all processes measured, each of them with the model on its device.

        Args:
            work: importable, or a ``functools.partial`` of what is.
        """
        if len(self.devices) == 1:
            return work(self.model, self.group)
        c = self.config
        with_model = partial(_with_model, work, c.model, tuple(c.backbones))
        return run_in_processes(self.devices, self.threads, with_model)


def prepare(config: EvaluationConfig, run_dir: Path, group: ProcessGroup) -> PreparedEvaluation:
    """Checks what can be checked before a picture is read, and loads the model.

    Raises:
        PCSRError: the first thing that is wrong.
    """
    config.check(group)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    elif group.size > 1:
        torch.set_num_threads(group.threads())
    scale, routing = config.scale_pair, config.chosen_routing
    routing = routing.replace(refine=routing.refines(scale))
    devices = config.chosen_devices(group)
    here = devices[0] if len(devices) == 1 else torch.device("cpu")
    model = load_model(config.model, config.backbones, here)
    check_fits(model, scale, routing, config.chosen_protocol)
    check_target(model, routing, config.target_psnr)
    warning = scale_warning(model, config.model, scale)
    if warning is not None and group.rank == 0:
        _log.warning("%s", warning)
    published = published_for(config.data_name, model, scale) if config.published else []
    routings: tuple[RoutingConfig, ...] = (routing,)
    if config.oracle and model.num_classes == 1:
        if group.rank == 0:
            _log.warning("%s has one class only: an oracle has no choice", config.model)
        config = replace(config, oracle=False)
    if config.sweep is not None and model.num_classes == 1:
        if group.rank == 0:
            _log.warning("%s has one class only: measured once, not swept", config.model)
        config = replace(config, sweep=None)
    elif config.sweep is not None:
        routings = config.sweep_routings(routing)
    return PreparedEvaluation(config, model, routings, devices, group, published, run_dir)


def published_for(
    dataset: str, model: AnyNetwork, scale: tuple[float, float]
) -> list[PublishedPoint]:
    """What the paper's tables say of a data set and a backbone.

    Raises:
        ConfigError: they say nothing of them at this scale.
    """
    points = [
        point
        for point in published_points(dataset, model.backbone.name, scale=None)
        if scale == (point.scale, point.scale)
    ]
    if not points:
        sets = sorted({point.dataset for point in published_points(scale=None)})
        raise ConfigError(
            f"published=true: the paper has no row for a data set called {dataset} "
            f"with {model.backbone.name} at this scale; it knows {', '.join(sets)}"
        )
    return points


def load_model(name: str, backbones: Sequence[str], device: torch.device) -> AnyNetwork:
    """A model, made with backbones from outside the package if any are named."""
    for dotted in backbones:
        import_backbone(dotted)
    return load(name, device, patch_routed=True)


def model_name(name_or_file: str | None) -> str:
    """A model's name for a folder: a file's stem, with its run's name where that is generic."""
    path = Path(str(name_or_file)).expanduser()
    parts = [path.stem if path.suffix in (".safetensors", ".ckpt", ".pth") else path.name]
    if parts[0] in GENERIC_NAMES or parts[0].isdecimal():
        parts = [p for p in (*path.resolve().parts[-3:-1], parts[0]) if p != "checkpoints"][-2:]
    return re.sub(r"[^\w.=-]+", "_", "-".join(parts)).strip("._") or "model"


def _with_model(
    work: Callable[[AnyNetwork, ProcessGroup], T],
    name: str,
    backbones: Sequence[str],
    group: ProcessGroup,
    device: torch.device,
) -> T:
    model = group.run_collectively(lambda: load_model(name, backbones, device))
    return work(model, group)
