"""The table of all trials of a search, the best ones marked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from pcsr_lightning.distributed import launched_group
from pcsr_lightning.evaluation.jobs import job_folders
from pcsr_lightning.evaluation.report import write_json
from pcsr_lightning.evaluation.search import FAILED, MAXIMIZE, OBJECTIVES, directions
from pcsr_lightning.evaluation.tables import (
    UNKNOWN,
    Column,
    DataTable,
    print_path,
    print_table,
)

SEARCH = "search.json"


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


def _short(text: str) -> str:
    """A number with five digits, or the text."""
    try:
        return f"{float(text):.5g}"
    except ValueError:
        return text
