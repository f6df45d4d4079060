"""A table of the paper, measured again as far as its pictures and weights are here."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from rich.console import Console

from pcsr_lightning.errors import DataError
from pcsr_lightning.evaluation.config import find_device
from pcsr_lightning.evaluation.curves import Curve
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.reproduction.measuring import Measurer
from pcsr_lightning.evaluation.reproduction.picture_sets import check_set, known_set, prepare_set
from pcsr_lightning.evaluation.reproduction.report import (
    Line,
    curves_of,
    lines_of,
    notes,
    table_of,
    write_all,
)
from pcsr_lightning.evaluation.reproduction.rows import (
    PUBLISHED,
    Weights,
    case,
    distance_of,
    target_of,
    wanted_points,
    weights_of,
    where_from,
)
from pcsr_lightning.evaluation.reproduction.settings import ReproductionConfig
from pcsr_lightning.evaluation.tables import print_path, print_table
from pcsr_lightning.networks import AnyNetwork
from pcsr_lightning.weights import load

_log = logging.getLogger(__name__)


def reproduce(config: ReproductionConfig, console: Console | None = None) -> list[Line]:
    """Measures the rows of a table, prints them beside the paper's, and writes them.

    Args:
        config: which rows, on which pictures, with which weights.
        console: where the table goes; stdout if not given.

    Returns:
        The lines of the table.

    Raises:
        DataError: rows were named, and nothing of them is here.
        PCSRError: a setting, a model or the pictures cannot be used.
    """
    console = console or Console()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    points = wanted_points(config)
    run = _Run(config)
    for point in points:
        run.add(point)
    if config.row and not any(line.measured for line in run.lines):
        raise DataError(f"nothing of this is here: {'; '.join(notes(run.lines))}")
    title = f"{config.table} of the paper"
    print_table(table_of(run.lines, title), console)
    for note in notes(run.lines):
        console.print(f"not here: {note}", soft_wrap=True, highlight=False, markup=False)
    for path in write_all(run.lines, title, run.curves, config.folder):
        print_path(path, console)
    return run.lines


class _Run:
    """What has been measured of a table so far."""

    def __init__(self, config: ReproductionConfig) -> None:
        self._config, self._device = config, find_device(config.device)
        self._measurer = Measurer()
        self._models: dict[str, AnyNetwork] = {}
        self._folders: dict[str, Path | None] = {}
        self._rivals: dict[tuple[str, str, str], float] = {}
        self.lines: list[Line] = []
        self.curves: dict[str, list[Curve]] = {}

    def add(self, point: PublishedPoint) -> None:
        """Measures a row on a set with each of the weights that are here, or says what is not."""
        config = self._config
        found = weights_of(point, config)
        folder = self._folder(point.dataset)
        if folder is None or not found:
            chosen = known_set(point.dataset)
            missing = [] if found else [where_from(point, config)]
            missing += [] if folder else [f"get {chosen.name} from {chosen.source}"]
            self.lines.append(Line(point, remark="; ".join(missing)))
            return
        for weights in found:
            model = self._model(weights.model)
            target = self._target(point, weights, folder)
            measured = self._measurer.measure(
                model, point, folder, target, config.curve, config.oracle
            )
            self.lines += lines_of(point, weights.whose, weights.model, measured)
            self.curves.setdefault(point.dataset, []).extend(
                curves_of(point, weights.whose, measured)
            )
            self._rivals[point.backbone, point.method, case(point)] = measured.mean.psnr

    def _target(self, point: PublishedPoint, weights: Weights, folder: Path) -> float | None:
        """The PSNR at which a PCSR model is compared.

        The paper's own for the published weights. Other weights reach other PSNR: they are compared
        with ClassSR or ARM where those are measured too and some ``k`` reaches their PSNR, else as
        far below their own all-heavy PSNR as the paper's are below the original model.
        """
        printed = target_of(point)
        if point.method != "PCSR" or weights.whose == PUBLISHED:
            return printed
        model = self._model(weights.model)
        for method in ("ClassSR", "ARM"):
            rival = self._rivals.get((point.backbone, method, case(point)))
            if rival is not None and self._measurer.reaches(model, point, folder, rival):
                return rival
        distance = distance_of(point)
        if distance is None:
            return printed
        return self._measurer.all_heavy(model, point, folder) - distance

    def _model(self, name: str) -> AnyNetwork:
        if name not in self._models:
            self._models[name] = load(name, self._device, patch_routed=True)
        return self._models[name]

    def _folder(self, dataset: str) -> Path | None:
        if dataset not in self._folders:
            chosen = known_set(dataset)
            into = Path(self._config.output).expanduser() / "sets"
            folder = self._folders[dataset] = prepare_set(chosen, self._config.data, into)
            for wrong in [] if folder is None else check_set(chosen, folder):
                _log.warning("%s", wrong)
        return self._folders[dataset]
