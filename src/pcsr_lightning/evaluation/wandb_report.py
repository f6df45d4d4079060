"""Evaluations on Weights & Biases: a run each, in one group where they belong together.

Nothing here imports ``wandb`` unless it was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.job import class_file, picture_file
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.report import routing_words
from pcsr_lightning.images import read_rgb8
from pcsr_lightning.inference import Routing

SHOWN, WIDEST = 16, 1024
"""How many pictures are shown, and pixels of a side of each, from its middle: runs stay small."""
NUMBERS = ("psnr", "psnr_y", "ssim", "lpips", "gmacs", "gflops_published", "seconds")


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


def log_benchmark(run: Any, content: Mapping[str, Any], pictures: Path | None) -> None:
    """A benchmark's means, a table with a row a picture, and the pictures with their classes.

    Args:
        run: of W&B.
        content: what ``metrics.json`` holds.
        pictures: the folder that enlarged pictures were written to.
    """
    import wandb

    rows = [flat_numbers(image) for image in content["images"]]
    columns: list[str | int] = ["name", "height", "width", *rows[0]]
    data = [
        [image["name"], *image["size"], *row.values()]
        for image, row in zip(content["images"], rows, strict=True)
    ]
    logged: dict[str, Any] = {"images": wandb.Table(columns=columns, data=data)}
    if pictures is not None:
        for image in content["images"][:SHOWN]:
            shown = with_classes(picture_file(image["name"], pictures))
            # Each under a key of its own: W&B wants those under one to be of one size.
            logged[f"pictures/{image['name']}"] = wandb.Image(shown, caption=image["name"])
    numbers = {**flat_numbers(content), "pictures_used": content["pictures"]}
    numbers["pictures_skipped"] = len(content["skipped"])
    if content["k"] is not None:
        numbers["k"] = content["k"]  # found for a target, it is in no config
    _log(run, numbers, logged)


def log_points(runs: WandbRuns, name: str, content: Mapping[str, Any]) -> None:
    """A run for each routing of a sweep, with the names that :func:`log_benchmark` gives numbers.

    Args:
        runs: starts them.
        name: of what was measured.
        content: what ``sweep.json`` holds.
    """
    for point in content["points"]:
        words = routing_words(Routing(**point["routing"]))
        numbers = flat_numbers({**point, "bicubic": content["bicubic"]})
        with runs.run(f"{name}, {words}", routing=point["routing"]) as run:
            _log(run, {**numbers, "k": point["routing"]["k"]}, {})


def log_overview(run: Any, rows: Sequence[Mapping[str, Any]], figures: Sequence[Path]) -> None:
    """All that a group's runs found: the table ``results``, and PSNR against FLOPs.

    Args:
        run: of W&B.
        rows: of the table, see :func:`sweep_rows` and :func:`job_rows`.
        figures: the files.
    """
    import wandb

    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns: list[str | int] = [*keys]
    data = [[row.get(key) for key in keys] for row in rows]
    logged: dict[str, Any] = {"results": wandb.Table(columns=columns, data=data)}
    if figures:
        logged["psnr_flops"] = [wandb.Image(str(path)) for path in figures]
    _log(run, {}, logged)


def sweep_rows(
    content: Mapping[str, Any], published: Sequence[PublishedPoint] = ()
) -> list[dict[str, Any]]:
    """An overview's rows for a sweep: its points, and below them the paper's."""
    rows = []
    for point in content["points"]:
        words = routing_words(Routing(**point["routing"]))
        rows.append({"name": f"{content['model']}, {words}", **flat_numbers(point)})
    return rows + [published_row(point) for point in published]


def job_rows(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """An overview's rows for the jobs of a multirun, and below them the paper's."""
    rows = []
    for job in jobs:
        words = "original" if job["routing"] is None else routing_words(Routing(**job["routing"]))
        rows.append({"name": f"{job['model']} on {job['data_root']}, {words}", **flat_numbers(job)})
    theirs = [PublishedPoint(**point) for job in jobs for point in job["published"]]
    return rows + [published_row(point) for point in dict.fromkeys(theirs)]


def published_row(point: PublishedPoint) -> dict[str, Any]:
    """An overview's row for a point of the paper."""
    name = f"{point.model} on {point.dataset} (published, {point.source})"
    return {"name": name, "psnr": point.psnr, "gflops_published": point.gflops}


def flat_numbers(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a picture or of means, as W&B names them: ``psnr``, ``bicubic/psnr``, ...

    A number that is null, such as an infinite PSNR, stays ``None``. ``share/0`` is the heaviest
    class.
    """
    flat = {key: numbers[key] for key in NUMBERS if key in numbers}
    flat |= {f"share/{j}": share for j, share in enumerate(numbers.get("share", ()))}
    flat |= {f"bicubic/{key}": value for key, value in numbers.get("bicubic", {}).items()}
    return flat


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
