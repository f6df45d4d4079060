"""Which numbers of a table are measured, with which weights, and where those come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.pairs import Protocol
from pcsr_lightning.evaluation.published import PublishedPoint, published_points
from pcsr_lightning.evaluation.reproduction.settings import ReproductionConfig
from pcsr_lightning.weights import list_models

PUBLISHED, OURS, GIVEN = "published", "ours", "given"
"""Whose weights."""
MAX = "-PCSR-MAX"
"""Ends the name of a PCSR model of which every pixel takes the heaviest class."""
_CODE = "https://github.com/3587jjh/PCSR (its folder save), given as weights=DIR"
_MULTI = "Table 5"


@dataclass(frozen=True)
class Weights:
    """A model for a row.

    Attributes:
        whose: :data:`PUBLISHED`, :data:`OURS` or :data:`GIVEN`.
        model: its name or file.
    """

    whose: str
    model: str


def wanted_points(config: ReproductionConfig) -> list[PublishedPoint]:
    """The numbers of the table that are asked for, and those of further sets, without numbers.

    Raises:
        ConfigError: ``row`` or ``sets`` names what the table does not have.
    """
    printed = published_points(scale=None, table=config.table)
    rows = [word.lower() for word in config.row]
    for word in rows:
        if not any(word in _names(point) for point in printed):
            models = dict.fromkeys(point.model for point in printed)
            raise ConfigError(f"row={word}: {config.table} has the rows {', '.join(models)}")
    printed = [p for p in printed if not rows or any(word in _names(p) for word in rows)]
    known = list(dict.fromkeys(point.dataset for point in printed))
    extra = [name for name in config.data if name not in ("root", "DIV8K")]
    sets = config.sets or [*known, *extra]
    by_name = {name.lower(): name for name in [*extra, *known]}
    points: list[PublishedPoint] = []
    for name in dict.fromkeys(by_name.get(each.lower(), each) for each in sets):
        own = [p for p in printed if p.dataset.lower() == name.lower()]
        points += own or _elsewhere(printed, name)
    return points


def _names(point: PublishedPoint) -> tuple[str, str]:
    return point.model.lower(), point.backbone.lower()


def _elsewhere(printed: Sequence[PublishedPoint], dataset: str) -> list[PublishedPoint]:
    """The rows of a table on a set that it lacks: with the numbers of another, if one has them."""
    found = []
    first = printed[0].dataset
    for point in (p for p in printed if p.dataset == first):
        others = published_points(dataset, point.backbone, point.scale)
        same = [p for p in others if p.model == point.model and p.psnr is not None]
        blank = replace(
            point, source="", dataset=dataset, psnr=None, gflops=None, percent=None,
            milliseconds=None,
        )  # fmt: skip
        found.append(same[0] if same and point.patch_size is None else blank)
    return found


def weights_of(point: PublishedPoint, config: ReproductionConfig) -> list[Weights]:
    """The models that are here for a row; none if there is none.

    Raises:
        ConfigError: a folder of published weights that is not there.
    """
    given = {key.lower(): path for key, path in config.models.items()}
    for key in (point.model.lower(), point.method.lower()):
        if key in given:
            return [Weights(GIVEN, given[key])]
    found = []
    if config.weights is not None:
        folder = Path(config.weights).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"weights={config.weights}: no such folder")
        stem = _published_stem(point, config)
        for path in (folder / f"{stem}.pth", folder / str(stem) / "iter_last.pth"):
            if stem is not None and path.is_file():
                found.append(Weights(PUBLISHED, str(path)))
    released = _released_name(point, config)
    if config.ours and released in list_models():
        found.append(Weights(OURS, str(released)))
    return found


def _published_stem(point: PublishedPoint, config: ReproductionConfig) -> str | None:
    backbone = point.backbone.lower()
    if point.method == "original" and point.scale == 4:
        return f"{backbone}-x4"
    two_classes = "class" not in point.model or "2class" in point.model
    if point.method == "PCSR" and two_classes and config.table != _MULTI:
        return f"{backbone}-pcsr-phase1"
    return None


def _released_name(point: PublishedPoint, config: ReproductionConfig) -> str | None:
    backbone = point.backbone.lower()
    if point.method == "original":
        return f"{backbone}-x{point.scale}"
    if point.method != "PCSR":
        return None
    if config.table == _MULTI:
        return f"{backbone}-pcsr-multi"
    return f"{backbone}-pcsr-x4" + ("-m3" if "3class" in point.model else "")


def where_from(point: PublishedPoint, config: ReproductionConfig) -> str:
    """What to do where a row has no weights here."""
    give = f"models.{point.model.lower()}=RUN"
    if point.method == "MGA":
        return "MGA is not part of this library"
    if point.method in ("ClassSR", "ARM"):
        stages = "classsr_branches, then stage=classsr" if point.method == "ClassSR" else "arm"
        how = f"train backbone={point.backbone.lower()} stage={stages} (docs/rivals.md)"
        return f"{how} and give {give}"
    recipe = f"train experiment=paper/{_recipe(point, config)} and give {give}"
    stem = _published_stem(point, config)
    return recipe if stem is None else f"{stem} of {_CODE}; or {recipe}"


def _recipe(point: PublishedPoint, config: ReproductionConfig) -> str:
    backbone = point.backbone.lower()
    if point.method == "original":
        return f"{backbone}_original_x{point.scale}"
    if config.table == _MULTI:
        return f"{backbone}_multi"
    return f"{backbone}_x4" + ("_m3" if "3class" in point.model else "")


def protocol_of(point: PublishedPoint) -> Protocol:
    """How the paper measures a row."""
    if point.patch_size is not None:
        return Protocol.PATCHES
    rival = point.method in ("ClassSR", "ARM")
    return Protocol.OVERLAPPED if rival else Protocol.PUBLISHED


def target_of(point: PublishedPoint) -> float | None:
    """The PSNR at which a PCSR model is compared; ``None`` where the paper prints none.

    The tables of running times and of refinement are at the PSNR of Table 1.
    """
    return next((p.psnr for p in _compared(point) if p.model == point.model), None)


def distance_of(point: PublishedPoint) -> float | None:
    """How many dB a row of the paper is below the original model; ``None`` where it is not said."""
    original = next((p.psnr for p in _compared(point) if p.method == "original"), None)
    target = target_of(point)
    return None if original is None or target is None else original - target


def _compared(point: PublishedPoint) -> list[PublishedPoint]:
    """The rows beside which a row stands, itself included."""
    if not point.source:
        return []
    at_table_1 = point.source in ("Appendix Table 2", "Appendix Table 3")
    table = "Table 1" if at_table_1 else point.source
    rows = published_points(point.dataset, point.backbone, point.scale, table)
    return [row for row in rows if row.patch_size == point.patch_size]


def case(point: PublishedPoint) -> str:
    """What a number is measured on: the set, and what else varies in its table."""
    text = point.dataset if point.scale == 4 else f"{point.dataset} x{point.scale}"
    if point.patch_size is not None:
        text += f", patches of {point.patch_size}"
    if point.heavy_neighbours is not None:
        text += f", #h = {point.heavy_neighbours}"
    return text
