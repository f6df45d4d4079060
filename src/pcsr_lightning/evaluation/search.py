"""Searches over settings: what a job returns to an optimising sweeper, and the table of all trials.

Hydra's Optuna sweeper takes a float for one objective and a tuple for several; a text, which is no
number, counts as a failed trial, and the sweeper shows it.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.distributed import launched_group
from pcsr_lightning.errors import ConfigError, PCSRError
from pcsr_lightning.evaluation.jobs import job_folders
from pcsr_lightning.evaluation.report import write_json
from pcsr_lightning.evaluation.tables import (
    UNKNOWN,
    Column,
    DataTable,
    print_path,
    print_table,
)

log = logging.getLogger(__name__)

FAILED = "failed.json"
"""In the folder of a job of a multirun that ended without a result: what happened."""
OBJECTIVES = "objectives.json"
"""In the folder of a trial: its overrides, and what it returned to the sweeper."""
SEARCH = "search.json"
MAXIMIZE, MINIMIZE = "maximize", "minimize"
_BETTER = {
    MAXIMIZE: ("psnr", "psnr_y", "ssim", "ssim_y"),
    MINIMIZE: ("gmacs", "gflops_published", "lpips", "seconds", "loss"),
}


Returned = float | tuple[float, ...] | str | None
"""What a job returns to Hydra."""


@dataclass(frozen=True)
class Objectives:
    """What a search optimises.

    Attributes:
        names: of numbers that a job measures.
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, objective: Any) -> Objectives:
        """``objective`` of a config: a name, or a list of names.

        Raises:
            ConfigError: it is neither.
        """
        plain = OmegaConf.to_container(objective) if OmegaConf.is_config(objective) else objective
        given = plain if isinstance(plain, list) else [plain]
        names = tuple(name for name in given if isinstance(name, str) and name)
        if not names or len(names) < len(given):
            raise ConfigError(
                f"objective={plain}: expected the name of a measured number, or a list of names"
            )
        return cls(names)

    def check(self, known: Sequence[str]) -> None:
        """Refuses an objective that is not among the ``known`` numbers.

        Raises:
            ConfigError: names it, and all that are measured.
        """
        for name in self.names:
            if name not in known:
                raise ConfigError(
                    f"objective={name}: this is not measured; there are {', '.join(known)}"
                )

    def check_directions(self, sweeper: Mapping[str, Any]) -> None:
        """Refuses directions of a sweeper that do not fit, such as a PSNR to be minimised.

        Args:
            sweeper: ``hydra.sweeper`` of a config.

        Raises:
            ConfigError: with the setting to write.
        """
        given = directions(sweeper)
        if given is None:
            return
        wanted = [_direction(name) or MAXIMIZE for name in self.names]
        right = f"[{','.join(wanted)}]" if len(wanted) > 1 else wanted[0]
        if len(given) != len(self.names):
            raise ConfigError(
                f"objective has {len(self.names)} names and hydra.sweeper.direction "
                f"{len(given)}: write hydra.sweeper.direction={right}"
            )
        for name, direction in zip(self.names, given, strict=True):
            if _direction(name) not in (None, direction):
                raise ConfigError(
                    f"hydra.sweeper.direction would {direction} {name}: write "
                    f"hydra.sweeper.direction={right}"
                )


def directions(sweeper: Mapping[str, Any]) -> list[str] | None:
    """``maximize`` or ``minimize`` for each objective; ``None`` of a sweeper that has none."""
    given = sweeper.get("direction")
    if given is None:
        return None
    each = [given] if isinstance(given, str) or not isinstance(given, Sequence) else given
    return [str(getattr(one, "name", one)).lower() for one in each]


def returned(
    objectives: Objectives, measured: Mapping[str, float | None], run_dir: Path
) -> float | tuple[float, ...] | None:
    """What a job returns; kept in ``run_dir`` for :class:`SearchTable` if a sweeper optimises it.

    ``None`` where nobody does, and an objective is no finite number.

    Raises:
        ConfigError: an objective was not measured, or is optimised and no finite number.
    """
    job = HydraConfig.get()
    optimised = job.mode == RunMode.MULTIRUN and directions(job.sweeper) is not None
    if optimised or objectives.names not in (("psnr",), ("val/psnr",)):  # the defaults
        objectives.check(list(measured))
    numbers = [measured.get(name) for name in objectives.names]
    values = tuple(x for x in numbers if x is not None and math.isfinite(x))
    if len(values) < len(numbers):
        if not optimised:
            return None
        raise ConfigError(f"objective={','.join(objectives.names)}: not all are finite numbers")
    if optimised:
        content = {
            "overrides": list(job.overrides.task),
            "objectives": dict(zip(objectives.names, values, strict=True)),
        }
        run_dir.mkdir(parents=True, exist_ok=True)
        write_json(content, run_dir / OBJECTIVES)
    return values if len(values) > 1 else values[0]


@contextmanager
def failure_kept(run_dir: Path, abrupt: bool = False) -> Iterator[list[str]]:
    """Lets the other jobs of a multirun run where one fails, and keeps what happened.

    Otherwise the first error would end the process, and with it the sweep.

    Args:
        run_dir: of the job.
        abrupt: lets every error through, which ends the multirun.

    Yields:
        A list, which holds the error's text once there was one.
    """
    failures: list[str] = []
    try:
        yield failures
    except Exception as error:
        if abrupt:
            raise
        if not isinstance(error, PCSRError):
            log.exception("this job failed")
        failures.append(" ".join(str(error).split()) or type(error).__name__)
        content = {"overrides": list(HydraConfig.get().overrides.task), "error": failures[0]}
        run_dir.mkdir(parents=True, exist_ok=True)
        atomic_write(run_dir / FAILED, json.dumps(content, indent=2).encode())
        print(f"error: {failures[0]}", file=sys.stderr)


@dataclass(frozen=True)
class Trial:
    """A job of a search.

    Attributes:
        job: its number.
        overrides: its settings, by key.
        objectives: what it returned, by name; empty if it failed.
    """

    job: int
    overrides: Mapping[str, str]
    objectives: Mapping[str, float]


class SearchTable(Callback):
    """Prints all trials of a search, the best ones marked. Set under ``hydra.callbacks``."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Removes the results of an earlier search in the same folder."""
        if launched_group().rank == 0:
            for folder in job_folders(Path(config.hydra.sweep.dir)):
                (folder / OBJECTIVES).unlink(missing_ok=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints a row for each trial, and writes ``search.json``, ``.csv`` and ``.tex``."""
        given = directions(config.hydra.sweeper)
        if launched_group().rank > 0 or given is None:
            return
        folder = Path(config.hydra.sweep.dir)
        found = trials(folder)
        if not any(trial.objectives for trial in found):
            return
        table, console = search_table(found, given), Console()
        print_table(table, console)
        best = pareto(found, given)
        rows = [
            {"trial": trial.job, **trial.overrides, **trial.objectives, "best": trial.job in best}
            for trial in found
        ]
        write_json({"directions": given, "trials": rows}, folder / SEARCH)
        for path in (folder / SEARCH, *table.write(folder, "search")):
            print_path(path, console)


def trials(folder: Path) -> list[Trial]:
    """The trials in a sweep's folder, in order; failed ones without objectives."""
    found = []
    for path in job_folders(folder):
        for name in (OBJECTIVES, FAILED):
            if (path / name).is_file():
                content = json.loads((path / name).read_text(encoding="utf-8"))
                pairs = (word.lstrip("+~").partition("=") for word in content["overrides"])
                overrides = {key: value for key, _, value in pairs}
                found.append(Trial(int(path.name), overrides, content.get("objectives", {})))
                break
    return found


def searched_keys(found: Sequence[Trial]) -> list[str]:
    """The settings that differ between trials; all settings of a single one."""
    keys = dict.fromkeys(key for trial in found for key in trial.overrides)
    if len(found) == 1:
        return list(keys)
    return [key for key in keys if len({trial.overrides.get(key) for trial in found}) > 1]


def pareto(found: Sequence[Trial], directions: Sequence[str]) -> set[int]:
    """The jobs of trials that no other trial beats in every objective, or equals and beats in one.

    With one objective, the best trial, or several that are equal.
    """
    signs = [1 if direction == MAXIMIZE else -1 for direction in directions]
    scores = {
        trial.job: [s * v for s, v in zip(signs, trial.objectives.values(), strict=True)]
        for trial in found
        if trial.objectives
    }

    def beaten(score: Sequence[float]) -> bool:
        return any(
            other != score and all(o >= s for o, s in zip(other, score, strict=True))
            for other in scores.values()
        )

    return {job for job, score in scores.items() if not beaten(score)}


def search_table(found: Sequence[Trial], directions: Sequence[str]) -> DataTable[Trial]:
    """A row a trial: its number, what was searched, what it gave, and whether it is among the best.

    Args:
        found: all trials.
        directions: of the objectives.
    """
    names, best = next(list(t.objectives) for t in found if t.objectives), pareto(found, directions)
    mark = "best" if len(names) == 1 else "Pareto"

    def setting(key: str) -> Column[Trial]:
        def text(trial: Trial) -> str:
            return _short(trial.overrides.get(key, UNKNOWN))

        return Column(key, text, value=lambda trial: trial.overrides.get(key), key=key)

    def objective(name: str, direction: str) -> Column[Trial]:
        def text(trial: Trial) -> str:
            return f"{trial.objectives[name]:.4f}" if trial.objectives else UNKNOWN

        heading = f"{name} ({direction})"
        return Column(heading, text, value=lambda trial: trial.objectives.get(name), key=name)

    def state(trial: Trial) -> str:
        return mark if trial.job in best else "" if trial.objectives else "failed"

    columns = [
        Column("trial", lambda trial: str(trial.job)),
        *map(setting, searched_keys(found)),
        *map(objective, names, directions),
        Column("", state, "left", key="state"),
    ]
    return DataTable(columns, [found], "all trials")


def _direction(name: str) -> str | None:
    last = name.rsplit("/", 1)[-1]
    return next((direction for direction, names in _BETTER.items() if last in names), None)


def _short(text: str) -> str:
    """A number with five digits, or the text."""
    try:
        return f"{float(text):.5g}"
    except ValueError:
        return text
