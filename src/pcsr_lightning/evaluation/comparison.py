"""What several evaluations measured, set side by side: models, settings, values and seeds.

Rows that differ in their seed only are pooled; pools that differ in the routing's value only are
the points of a curve; curves on the same pictures are compared by BD-PSNR and BD-rate.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pcsr_lightning.evaluation.bjontegaard import Difference, bjontegaard_difference
from pcsr_lightning.evaluation.curves import ORACLE, Curve
from pcsr_lightning.evaluation.jobs import SEED, Settings, job_folders, swept
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.prepared import model_name
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.report import METRICS, SWEEP, measured_points
from pcsr_lightning.evaluation.seeds import Spread, by_seed

_log = logging.getLogger(__name__)

_SHOWN_ANYWAY = {"model", "scale", "protocol", "patch_size", "sweep", "sweep_values", "reference"}
"""Settings of an evaluation that tables tell in columns of their own."""
_NOT_OF_A_CURVE = {SEED, "target_psnr"}
"""Settings in which points of one curve may differ."""


@dataclass(frozen=True)
class Job:
    """A finished evaluation.

    Attributes:
        points: the mean over its pictures for each routing.
        published: the paper's numbers for them, if they were asked for.
        settings: of the evaluation; ``None`` where Hydra has left none.
        training: of its model; ``None`` unless that is the run folder of a training.
    """

    points: tuple[Measurement, ...]
    published: tuple[PublishedPoint, ...] = ()
    settings: Settings | None = None
    training: Settings | None = None


@dataclass(frozen=True)
class Row:
    """A mean over pictures, and what tells it from others.

    Attributes:
        measured: the mean.
        model: its model's name.
        settings: those that differ between the jobs, of the training and of the evaluation.
        training: all of the training's; see :class:`Job`.
    """

    measured: Measurement
    model: str
    settings: Mapping[str, str]
    training: Settings | None = None

    @property
    def where(self) -> tuple[Hashable, ...]:
        """Pixels on which numbers can be compared."""
        m = self.measured
        return m.data_root, m.dataset, m.scale, m.protocol, m.patch_size

    @property
    def curve(self) -> Hashable:
        """What points of one curve have in common, whatever their seed."""
        of_model = self.model if self.training is None else self.training.but_seed
        apart = {key: text for key, text in self.settings.items() if key not in _NOT_OF_A_CURVE}
        routing = self.measured.routing
        rule = None if routing is None else (routing.mode, routing.cost, routing.refine)
        return of_model, frozenset(apart.items()), rule, self.measured.oracle is not None

    @property
    def seed(self) -> str:
        """Of the training; empty if it is not known."""
        return "" if self.training is None else self.training.seed


@dataclass(frozen=True)
class Pool:
    """Rows that differ in the seed of their training only; often a single one."""

    rows: tuple[Row, ...]

    @property
    def first(self) -> Row:
        """One of them, for what is equal in all."""
        return self.rows[0]

    @property
    def model(self) -> str:
        """The model's name; of several its kind, such as ``carn-pcsr``."""
        return self.first.model if len(self.rows) == 1 else kind(self.first.measured)

    def spread(self, name: str) -> Spread | None:
        """Mean and deviation of a measured number."""
        return Spread.of([getattr(row.measured, name) for row in self.rows])

    def by_seed(self, name: str) -> dict[str, float | None]:
        """A measured number of each seed."""
        return {row.seed: getattr(row.measured, name) for row in self.rows}


@dataclass(frozen=True)
class Compared:
    """A curve beside the anchor's on the same pictures."""

    row: Row
    name: str
    anchor: str
    difference: Difference


def finished_jobs(folder: Path) -> list[Job]:
    """What the jobs of a multirun measured, in the order of their numbers.

    A job over several models or sets of pictures has a folder for each inside its own.
    """
    found = []
    for job in job_folders(folder):
        for path in job_folders(job) or [job]:
            points, published = _read(path)
            if points:
                training = training_settings(points[0].model)
                found.append(Job(points, published, Settings.of(job), training))
    return found


def _read(folder: Path) -> tuple[tuple[Measurement, ...], tuple[PublishedPoint, ...]]:
    for name in (SWEEP, METRICS):
        try:
            content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # not there: the job has failed, and has said so
        published = (PublishedPoint(**point) for point in content.get("published", ()))
        return tuple(measured_points(content)), tuple(published)
    return (), ()


def training_settings(model: str) -> Settings | None:
    """The settings that a model was trained with, if it is the run folder of a training."""
    path = Path(model).expanduser()
    if path.is_file():
        path = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    found = Settings.of(path) if path.is_dir() else None
    return found if found is not None and found.seed else None


def rows_of(jobs: Sequence[Job]) -> list[Row]:
    """A row for each point of each job."""
    of_evaluations = [job.settings for job in jobs if job.settings is not None]
    of_trainings = [job.training for job in jobs if job.training is not None]
    evaluated = [key for key in swept(of_evaluations) if not _shown_anyway(key)]
    trained = [key for key in swept(of_trainings) if key != "init"]
    rows = []
    for job in jobs:
        settings: dict[str, str] = {}
        if job.training is not None:
            settings |= {key: job.training.text(key) for key in trained}
        if job.settings is not None:
            settings |= {key: job.settings.text(key) for key in evaluated}
        for point in job.points:
            rows.append(Row(point, model_name(point.model), settings, job.training))
    models: dict[str, set[str]] = {}
    for row in rows:
        models.setdefault(row.model, set()).add(row.measured.model)
    return [
        row if len(models[row.model]) == 1 else replace(row, model=row.measured.model)
        for row in rows
    ]


def _shown_anyway(key: str) -> bool:
    group, _, name = key.partition(".")
    if group == "routing":
        return name not in ("cost", "refine")
    return group == "data" or key in _SHOWN_ANYWAY


def pools_of(rows: Sequence[Row]) -> list[Pool]:
    """Rows that differ in their seed only, together."""
    groups = by_seed(
        rows,
        lambda row: (row.where, row.curve, row.measured.routing, row.measured.oracle),
        lambda row: row.seed,
    )
    return [Pool(tuple(group)) for group in groups]


def curves_of(pools: Sequence[Pool]) -> list[tuple[Row, Curve]]:
    """The curves of pools on the same pictures, each with one of its rows.

    Points whose PSNR is infinite are left out.
    """
    series: dict[Hashable, list[Pool]] = {}
    for pool in pools:
        if math.isfinite(_mean(pool).psnr):
            series.setdefault(pool.first.curve, []).append(pool)
    names = _names([members[0] for members in series.values()])
    found = []
    for name, members in zip(names, series.values(), strict=True):
        spreads = [pool.spread("psnr") for pool in members]
        deviations = [math.nan if s is None else s.deviation or math.nan for s in spreads]
        bars = () if all(map(math.isnan, deviations)) else tuple(deviations)
        bound = members[0].first.measured.oracle is not None
        found.append((members[0].first, Curve(name, tuple(map(_mean, members)), bars, bound)))
    return found


def _mean(pool: Pool) -> Measurement:
    psnr, gflops = (
        math.nan if spread is None else spread.mean
        for spread in (pool.spread("psnr"), pool.spread("gflops_published"))
    )
    return replace(pool.first.measured, psnr=psnr, gflops_published=gflops)


def _names(firsts: Sequence[Pool]) -> list[str]:
    """A name for each curve: the model's, and the settings that differ between them."""
    keys = list(dict.fromkeys(key for pool in firsts for key in pool.first.settings))
    keys = [key for key in keys if len({_text(p, key) for p in firsts}) > 1]
    keys = [key for key in keys if key not in _NOT_OF_A_CURVE]
    rules = {pool.first.measured.routing for pool in firsts}
    modes = len({rule.mode for rule in rules if rule is not None}) > 1
    return [
        ", ".join(
            [
                pool.model,
                *(f"{key}={_text(pool, key)}" for key in keys if _text(pool, key)),
                *([_rule(pool)] if modes and pool.first.measured.routing is not None else []),
                *([ORACLE] if pool.first.measured.oracle is not None else []),
            ]
        )
        for pool in firsts
    ]


def _text(pool: Pool, key: str) -> str:
    return pool.first.settings.get(key, "")


def _rule(pool: Pool) -> str:
    routing = pool.first.measured.routing
    assert routing is not None
    return routing.mode.replace("_", " ")


def compare(curves: Sequence[tuple[Row, Curve]], reference: str | None = None) -> list[Compared]:
    """BD-PSNR and BD-rate of curves on the same pictures against one of them, the anchor.

    Curves of one point, such as an original model's, are left out.

    Args:
        curves: see :func:`curves_of`.
        reference: the anchor's model, as it was given or by its name; the first if not given.
    """
    long = [(row, curve) for row, curve in curves if len(curve.points) > 1]
    wanted = [
        (row, curve)
        for row, curve in long
        if reference in (None, row.model, row.measured.model) or curve.name == reference
    ]
    if len(long) < 2:
        return []
    if not wanted:
        _log.warning(
            "reference=%s: has no curve here; %s takes its place", reference, long[0][1].name
        )
    _, anchor = (wanted or long)[0]
    found = []
    for row, curve in long:
        if curve is anchor:
            continue
        difference = bjontegaard_difference(_points(anchor), _points(curve))
        if difference.reason:
            _log.warning("%s against %s: %s", curve.name, anchor.name, difference.reason)
        found.append(Compared(row, curve.name, anchor.name, difference))
    return found


def _points(curve: Curve) -> list[tuple[float, float]]:
    return [(point.gflops_published, point.psnr) for point in curve.points]


def kind(measured: Measurement) -> str:
    """What a model is, as the paper names it: ``carn``, ``carn-pcsr``, ``carn-pcsr-3class``."""
    if measured.routing is None:
        return measured.backbone
    classes = "" if measured.classes == 2 else f"-{measured.classes}class"
    return f"{measured.backbone}-pcsr{classes}"
