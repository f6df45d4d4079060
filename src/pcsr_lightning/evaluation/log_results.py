"""Logs what was measured: numbers, tables and pictures, in every logger that takes them.

Tables go to W&B alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcsr_lightning.evaluation.benchmark import Benchmark
from pcsr_lightning.evaluation.loggers import (
    Loggers,
    RunLoggers,
    is_wandb,
    plain_name,
    wandb_logger,
)
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.saved_pictures import class_file, picture_file
from pcsr_lightning.images import read_rgb8

SHOWN, WIDEST = 16, 1024
"""How many pictures are shown, and pixels of a side of each, from its middle: runs stay small."""


def log_benchmark(
    loggers: Loggers, result: Benchmark, k: float | None, pictures: Path | None
) -> None:
    """A benchmark's means, and its pictures with their classes; in W&B also a row a picture.

    Args:
        loggers: of the run.
        result: what was measured.
        k: of the routing, where it has one.
        pictures: the folder that upscaled pictures were written to.
    """
    # k may have been found for a target, it is in no config then
    numbers = {**result.mean.flat(), "k": k, "pictures_used": len(result.images)}
    log_numbers(loggers, {**numbers, "pictures_skipped": len(result.skipped)})
    rows = [{"name": image.name, **_size(image), **image.flat()} for image in result.images]
    log_table(loggers, "images", rows)
    if pictures is None or not loggers:
        return
    for image in result.images[:SHOWN]:
        # Each under a key of its own: W&B wants those under one to be of one size.
        shown = with_classes(picture_file(image.name, pictures))
        log_pictures(loggers, f"pictures/{image.name}", {image.name: shown})


def log_points(loggers: RunLoggers, name: str, points: Sequence[Measurement]) -> None:
    """A run for each routing of a sweep, with the names that :func:`log_benchmark` gives numbers.

    Args:
        loggers: of the runs.
        name: of what was measured.
        points: of the sweep.
    """
    for point in points:
        routing = point.setup()["routing"]
        with loggers.run(f"{name}, {point.routing_name}", routing=routing) as of_run:
            log_numbers(of_run, {**point.flat(), "k": point.k})


def log_overview(
    loggers: Loggers, rows: Sequence[Mapping[str, Any]], figures: Sequence[Path]
) -> None:
    """All that a group's runs measured: PSNR against FLOPs, and in W&B the table ``results``.

    Args:
        loggers: of the run.
        rows: of the table, see :func:`overview_rows`.
        figures: the files.
    """
    log_table(loggers, "results", rows)
    if figures:
        shown = {path.stem: read_rgb8(path).permute(1, 2, 0).numpy() for path in figures}
        log_pictures(loggers, "psnr_flops", shown)


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


def log_numbers(loggers: Loggers, numbers: Mapping[str, float | None]) -> None:
    """Numbers that are known; in W&B also in the summary, which is what runs are compared by."""
    known = {key: value for key, value in numbers.items() if value is not None}
    for logger in loggers:
        logger.log_metrics(known)
        if is_wandb(logger):
            logger.experiment.summary.update(known)


def log_table(loggers: Loggers, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as a table in W&B; other loggers have no tables."""
    logger = wandb_logger(loggers)
    if logger is not None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[row.get(column) for column in columns] for row in rows]
        logger.log_table(key, columns=columns, data=data)


def log_pictures(
    loggers: Loggers, key: str, pictures: Mapping[str, NDArray[np.uint8]], step: int = 0
) -> None:
    """Pictures, in every logger that takes some.

    These are Lightning's loggers with ``log_image`` (W&B's and any of that form), those whose
    ``experiment`` has TensorBoard's ``add_image``, and those whose ``experiment`` has MLflow's
    ``log_image``.

    Args:
        loggers: of the run.
        key: of the pictures.
        pictures: ``(H, W, 3)`` by name.
        step: of the training.
    """
    for logger in loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(logger, "log_image"):
            at = {} if step == 0 else {"step": step}
            names, images = list(pictures), list(pictures.values())
            logger.log_image(key, images, caption=names, **at)
            continue
        for name, image_HW3 in pictures.items():
            label = key if key.endswith(name) else f"{key}/{name}"
            if hasattr(experiment, "add_image"):
                experiment.add_image(label, image_HW3, step, dataformats="HWC")
            elif hasattr(experiment, "log_image") and hasattr(logger, "run_id"):
                file = f"{plain_name(label)}_{step}.png" if step else f"{plain_name(label)}.png"
                experiment.log_image(logger.run_id, image_HW3, file)


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
