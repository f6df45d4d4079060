"""Evaluations in Lightning's loggers: one run a routing, in one group where they belong together.

W&B also gets tables and pictures. Lightning is imported only where a logger was chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.errors import InstantiationException
from numpy.typing import NDArray
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.benchmark import Benchmark
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.saved_pictures import class_file, picture_file
from pcsr_lightning.images import read_rgb8

SHOWN, WIDEST = 16, 1024
"""How many pictures are shown, and pixels of a side of each, from its middle: runs stay small."""


@dataclass(frozen=True)
class RunLoggers:
    """Makes a logger for each run of an evaluation or sweep.

    Attributes:
        settings: ``logger`` of the config: ``_target_`` and what that takes; null values are left
            out.
        config: the whole config in plain values.
        group: of runs to be compared in W&B, unless the settings name one.
        tags: of all runs in W&B, unless the settings name others.
    """

    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    group: str | None = None
    tags: Sequence[str] = ()

    @contextmanager
    def run(self, name: str, job_type: str = "evaluation", **config: Any) -> Iterator[Any]:
        """A logger, finished whatever happens; a W&B run that raised something counts as failed.

        Args:
            name: of the run, unless the settings name it.
            job_type: ``evaluation``, or ``overview`` of several.
            config: what differs from the config at large.

        Raises:
            ConfigError: the logger does not take a setting, or cannot be reached.
        """
        settings = {key: value for key, value in self.settings.items() if value is not None}
        to_wandb = is_wandb(settings)
        if to_wandb:
            of_run = {"name": name, "group": self.group, "tags": list(self.tags)}
            settings = {**of_run, **settings, "job_type": job_type}
        else:  # a folder for each run
            version = settings.get("version", "logs")
            settings = {"name": "", **settings, "version": f"{version}/{plain_name(name)}"}
        code = 1
        try:
            logger = _instantiate(settings)
            logger.log_hyperparams({**self.config, **config})
            yield logger
            logger.finalize("success")
            code = 0
        finally:
            if to_wandb:
                import wandb

                wandb.finish(code)


def is_wandb(logger: Any) -> bool:
    """Whether a logger, or ``logger`` of a config, is W&B's."""
    name = logger.get("_target_") if isinstance(logger, Mapping) else type(logger).__name__
    return str(name).endswith("WandbLogger")


def _instantiate(settings: Mapping[str, Any]) -> Any:
    try:
        logger: Any = hydra.utils.instantiate(settings)
        logger.experiment  # noqa: B018, W&B starts its run here
    except InstantiationException as error:
        reason: BaseException = error.__cause__ or error
    except Exception as error:
        if not is_wandb(settings):
            raise
        reason = error
    else:
        return logger
    text = str(reason).splitlines()[0]
    hint = "; logger.offline=true needs no network" if is_wandb(settings) else ""
    raise ConfigError(f"logger: {text}{hint}") from reason


def group_name(folder: Path) -> str:
    """The group of the runs that a sweep's folder stands for."""
    return "-".join(folder.resolve().parts[-2:])


def plain_name(text: str) -> str:
    """A text as the name of a file or folder."""
    return re.sub(r"[^\w.=-]+", "_", text).strip("._")


def log_benchmark(logger: Any, result: Benchmark, k: float | None, pictures: Path | None) -> None:
    """A benchmark's means; in W&B also a row a picture, and the pictures with their classes.

    Args:
        logger: of the run.
        result: what was measured.
        k: of the routing, where it has one.
        pictures: the folder that upscaled pictures were written to.
    """
    # k may have been found for a target, it is in no config then
    numbers = {**result.mean.flat(), "k": k, "pictures_used": len(result.images)}
    log_numbers(logger, {**numbers, "pictures_skipped": len(result.skipped)})
    rows = [{"name": image.name, **_size(image), **image.flat()} for image in result.images]
    log_table(logger, "images", rows)
    if pictures is not None and is_wandb(logger):
        for image in result.images[:SHOWN]:
            shown = with_classes(picture_file(image.name, pictures))
            # Each under a key of its own: W&B wants those under one to be of one size.
            logger.log_image(f"pictures/{image.name}", [shown], caption=[image.name])


def log_points(loggers: RunLoggers, name: str, points: Sequence[Measurement]) -> None:
    """A run for each routing of a sweep, with the names that :func:`log_benchmark` gives numbers.

    Args:
        loggers: of the runs.
        name: of what was measured.
        points: of the sweep.
    """
    for point in points:
        routing = point.setup()["routing"]
        with loggers.run(f"{name}, {point.routing_name}", routing=routing) as logger:
            log_numbers(logger, {**point.flat(), "k": point.k})


def log_overview(logger: Any, rows: Sequence[Mapping[str, Any]], figures: Sequence[Path]) -> None:
    """All that a group's runs measured, in W&B: the table ``results``, and PSNR against FLOPs.

    Args:
        logger: of the run.
        rows: of the table, see :func:`overview_rows`.
        figures: the files.
    """
    log_table(logger, "results", rows)
    if figures and is_wandb(logger):
        logger.log_image("psnr_flops", [str(path) for path in figures])


def overview_rows(
    measured: Sequence[Measurement], published: Iterable[PublishedPoint] = ()
) -> list[dict[str, Any]]:
    """An overview's rows: the points of a sweep or the jobs of a multirun, then the paper's."""
    ours = [{"name": f"{m.model} on {m.data_root}, {m.routing_name}", **m.flat()} for m in measured]
    return ours + [
        {
            "name": f"{point.model} on {point.dataset} (published, {point.source})",
            "psnr": point.psnr,
            "gflops_published": point.gflops,
        }
        for point in dict.fromkeys(published)
    ]


def log_numbers(logger: Any, numbers: Mapping[str, float | None]) -> None:
    """Numbers that are known; in W&B also in the summary, which is what runs are compared by."""
    known = {key: value for key, value in numbers.items() if value is not None}
    logger.log_metrics(known)
    if is_wandb(logger):
        logger.experiment.summary.update(known)


def log_table(logger: Any, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as a table in W&B; other loggers have no tables."""
    if is_wandb(logger):
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[row.get(column) for column in columns] for row in rows]
        logger.log_table(key, columns=columns, data=data)


def with_classes(path: Path) -> NDArray[np.uint8]:
    """A picture's middle and, if there is one, its class map's beside it, ``(H, W, 3)``."""
    return side_by_side([read_rgb8(f) for f in (path, class_file(path)) if f.is_file()])


def side_by_side(parts_3HW: Sequence[Tensor]) -> NDArray[np.uint8]:
    """The middle of pictures of one size (uint8) beside each other, ``(H, W, 3)``."""
    size = parts_3HW[0].shape[-2:]
    rows, columns = (slice(max(0, (n - WIDEST) // 2), (n + WIDEST) // 2) for n in size)
    wide_3HW = torch.cat([part[:, rows, columns] for part in parts_3HW], dim=2)
    pixels: NDArray[np.uint8] = wide_3HW.permute(1, 2, 0).cpu().numpy()
    return pixels


def _size(image: Measurement) -> dict[str, int]:
    return {} if image.size is None else dict(zip(("height", "width"), image.size, strict=True))
