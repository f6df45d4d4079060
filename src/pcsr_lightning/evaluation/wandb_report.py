"""Evaluations on Weights & Biases: a run each, in one group where they belong together.

Nothing here imports ``wandb`` unless it was chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.benchmark import Benchmark
from pcsr_lightning.evaluation.job import class_file, picture_file
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.images import read_rgb8

SHOWN, WIDEST = 16, 1024
"""How many pictures are shown, and pixels of a side of each, from its middle: runs stay small."""


@dataclass(frozen=True)
class WandbRuns:
    """Starts the runs that belong to one evaluation or sweep.

    Attributes:
        logger: ``logger`` of the config, resolved: what ``lightning``'s ``WandbLogger`` takes.
        config: the whole config, resolved.
        group: of runs to be compared, unless ``logger`` names one.
        tags: of all runs, unless ``logger`` names others.
    """

    logger: Mapping[str, Any]
    config: Mapping[str, Any]
    group: str | None = None
    tags: Sequence[str] = ()

    @contextmanager
    def run(self, name: str, job_type: str = "evaluation", **config: Any) -> Iterator[Any]:
        """A run, finished whatever happens; marked as failed where something was raised.

        Args:
            name: of the run, unless ``logger`` names it.
            job_type: ``evaluation``, or ``overview`` of several.
            config: what differs from the config at large.

        Raises:
            ConfigError: W&B does not take a setting, or cannot be reached.
        """
        import wandb

        # What lightning calls save_dir and offline, W&B calls dir and mode.
        options = {k: v for k, v in self.logger.items() if k not in ("_target_", "offline")}
        folder = options.pop("save_dir", None)
        options["name"] = options.get("name") or name
        options["group"] = options.get("group") or self.group
        options["tags"] = options.get("tags") or list(self.tags)
        if self.logger.get("offline"):
            options["mode"] = "offline"
        try:
            run = wandb.init(
                dir=folder, job_type=job_type, config={**self.config, **config}, **options
            )
        except (wandb.errors.Error, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"logger=wandb: {reason}; logger.offline=true needs no network"
            ) from None
        code = 1
        try:
            yield run
            code = 0
        finally:
            wandb.finish(code)


def group_name(folder: Path) -> str:
    """The group of the runs that a sweep's folder stands for."""
    return "-".join(folder.resolve().parts[-2:])


def log_benchmark(run: Any, result: Benchmark, k: float | None, pictures: Path | None) -> None:
    """A benchmark's means, a table with a row a picture, and the pictures with their classes.

    Args:
        run: of W&B.
        result: what was measured.
        k: of the routing, where it has one.
        pictures: the folder that upscaled pictures were written to.
    """
    import wandb

    rows = [{"name": image.name, **_size(image), **image.flat()} for image in result.images]
    logged: dict[str, Any] = {"images": _table(rows)}
    if pictures is not None:
        for image in result.images[:SHOWN]:
            shown = with_classes(picture_file(image.name, pictures))
            # Each under a key of its own: W&B wants those under one to be of one size.
            logged[f"pictures/{image.name}"] = wandb.Image(shown, caption=image.name)
    numbers = {**result.mean.flat(), "pictures_used": len(result.images)}
    numbers["pictures_skipped"] = len(result.skipped)
    # k may have been found for a target, it is in no config then
    _log(run, {**numbers, "k": k}, logged)


def log_points(runs: WandbRuns, name: str, points: Sequence[Measurement]) -> None:
    """A run for each routing of a sweep, with the names that :func:`log_benchmark` gives numbers.

    Args:
        runs: starts them.
        name: of what was measured.
        points: of the sweep.
    """
    for point in points:
        routing = point.setup()["routing"]
        with runs.run(f"{name}, {point.routing_name}", routing=routing) as run:
            _log(run, {**point.flat(), "k": point.k}, {})


def log_overview(run: Any, rows: Sequence[Mapping[str, Any]], figures: Sequence[Path]) -> None:
    """All that a group's runs measured: the table ``results``, and PSNR against FLOPs.

    Args:
        run: of W&B.
        rows: of the table, see :func:`overview_rows`.
        figures: the files.
    """
    import wandb

    logged: dict[str, Any] = {"results": _table(rows)}
    if figures:
        logged["psnr_flops"] = [wandb.Image(str(path)) for path in figures]
    _log(run, {}, logged)


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


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    import wandb

    keys = list(dict.fromkeys(key for row in rows for key in row))
    return wandb.Table(columns=[*keys], data=[[row.get(key) for key in keys] for row in rows])


def _size(image: Measurement) -> dict[str, int]:
    return {} if image.size is None else dict(zip(("height", "width"), image.size, strict=True))


def with_classes(path: Path) -> NDArray[np.uint8]:
    """A picture's middle and, if there is one, its class map's beside it, ``(H, W, 3)``."""
    files = [file for file in (path, class_file(path)) if file.is_file()]
    parts = []
    for file in files:
        pixels_3HW = read_rgb8(file)
        rows, columns = (
            slice(max(0, (n - WIDEST) // 2), (n + WIDEST) // 2) for n in pixels_3HW.shape[-2:]
        )
        parts.append(pixels_3HW[:, rows, columns])
    beside: NDArray[np.uint8] = torch.cat(parts, dim=2).permute(1, 2, 0).numpy()
    return beside


def _log(run: Any, numbers: Mapping[str, Any], media: Mapping[str, Any]) -> None:
    """In the history, and numbers in the summary too, which is what runs are compared by."""
    known = {key: value for key, value in numbers.items() if value is not None}
    run.log({**known, **media})
    run.summary.update(known)
