"""What one evaluation measures, in words that every process that shares the work can be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from pcsr_lightning.distributed import ALONE, ProcessGroup
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.benchmark import Benchmark, OnPicture, benchmark
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.pairs import Protocol
from pcsr_lightning.evaluation.spawned import in_processes
from pcsr_lightning.evaluation.sweep import Sweep, sweep
from pcsr_lightning.images import Picture, write
from pcsr_lightning.inference import Routing, UpscaleResult, class_map
from pcsr_lightning.networks import PCSR, Original, import_backbone
from pcsr_lightning.weights import load

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """An evaluation.

    Attributes:
        folder: of HR pictures.
        scale: (vertical, horizontal).
        protocol: which pixels count.
        patch_size: for protocol ``patches``.
        routing: how pixels find their class.
        lpips: measures LPIPS too.
        pictures: the folder that enlarged pictures go to, if they are kept.
        sweep: routings to measure instead, each picture being seen by the network once.
    """

    folder: Path
    scale: tuple[float, float]
    protocol: Protocol
    patch_size: int | None
    routing: Routing
    lpips: bool = False
    pictures: Path | None = None
    sweep: tuple[Routing, ...] = ()

    def benchmark(self, model: PCSR | Original, processes: ProcessGroup = ALONE) -> Benchmark:
        """The scores of ``routing``."""
        return benchmark(
            model,
            self.folder,
            self.scale,
            self.routing,
            self.protocol,
            on_picture=None if self.pictures is None else keeper(self.pictures),
            progress=True,
            patch_size=self.patch_size,
            lpips=self.lpips,
            processes=processes,
        )

    def sweep_points(self, model: PCSR | Original, processes: ProcessGroup = ALONE) -> Sweep:
        """The points of all routings in ``sweep``.

        Raises:
            ConfigError: an original model has none.
        """
        if isinstance(model, Original):
            raise ConfigError("a sweep needs a model that has classes to choose from")
        return sweep(
            model,
            self.folder,
            self.sweep,
            self.scale,
            self.protocol,
            self.patch_size,
            progress=True,
            processes=processes,
        )


def spread(
    work: Callable[[PCSR | Original, ProcessGroup], T],
    name: str,
    backbones: Sequence[str],
    devices: Sequence[torch.device],
    threads: int,
) -> T:
    """Does a job's work in fresh processes, one a device, each with the model loaded for itself.

    Args:
        work: :meth:`Job.benchmark` or :meth:`Job.sweep_points` of a job.
        name: of the model, or its file.
        backbones: see :func:`load_model`.
        devices: of the processes.
        threads: of torch, in each of them.
    """
    return in_processes(devices, threads, partial(_with_model, work, name, tuple(backbones)))


def _with_model(
    work: Callable[[PCSR | Original, ProcessGroup], T],
    name: str,
    backbones: Sequence[str],
    processes: ProcessGroup,
    device: torch.device,
) -> T:
    model = processes.run_collectively(lambda: load_model(name, backbones, device))
    return work(model, processes)


def load_model(name: str, backbones: Sequence[str], device: torch.device) -> PCSR | Original:
    """A model, made with backbones from outside the package if any are named.

    Raises:
        PCSRError: there is no such backbone or model.
    """
    for dotted in backbones:
        import_backbone(dotted)
    return load(name, device)


def keeper(folder: Path) -> OnPicture:
    """Writes each picture that was enlarged into a folder."""

    def keep(measured: Measurement, result: UpscaleResult) -> None:
        save_pictures(measured.name, result, folder)

    return keep


def save_pictures(name: str, result: UpscaleResult, folder: Path) -> None:
    """Writes ``NAME.png``, and where classes differ ``NAME.classes.png``, keeping sub-folders."""
    path = picture_file(name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Picture(result.image[0]), path)
    if len(result.shares) > 1:
        colours_3HW = class_map(result.image[0], result.assignment[0], len(result.shares))
        write(Picture(colours_3HW), class_file(path))


def picture_file(name: str, folder: Path) -> Path:
    """Where a picture goes once it is enlarged."""
    return folder / (name if name.lower().endswith(".png") else f"{name}.png")


def class_file(path: Path) -> Path:
    """Where its class map goes."""
    return path.with_name(f"{path.stem}.classes.png")
