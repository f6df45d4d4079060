"""What ``pcsr reproduce`` takes: a table, and settings as KEY=VALUE."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from pcsr_lightning.errors import ConfigError, check_path
from pcsr_lightning.evaluation.published import TABLES


def table_named(text: str) -> str:
    """``table1`` or ``appendix1`` as a key of :data:`~.published.TABLES`.

    Raises:
        ConfigError: there is no such table.
    """
    found = re.fullmatch(r"(table|appendix)[ _-]?(\d)", text.strip().lower())
    name = ""
    if found is not None:
        name = f"Table {found[2]}" if found[1] == "table" else f"Appendix Table {found[2]}"
    if name not in TABLES:
        raise ConfigError(f"there is no {text}: choose one of {', '.join(map(short, TABLES))}")
    return name


def short(table: str) -> str:
    """``Table 1`` as ``table1``, ``Appendix Table 1`` as ``appendix1``."""
    return table.lower().replace("appendix table", "appendix").replace(" ", "")


@dataclass
class ReproductionConfig:
    """Settings of ``pcsr reproduce``.

    Attributes:
        table: a key of :data:`~pcsr_lightning.evaluation.published.TABLES`.
        row: models as the table prints them, or backbones; all if empty. Capitals do not matter.
        sets: sets of pictures; if empty those of the table, and others that ``data`` names.
        data: the folder of a set by its name, of all sets as ``root``, or of ``DIV8K``.
        weights: a folder of published weights, such as ``save`` of the published code.
        models: the model of a row by its name, such as ``carn-classsr``, or of all rows of a method
            (``classsr``): a name, file or run folder. It takes the place of all other weights.
        ours: measures the released models too.
        oracle: measures also the best choice of classes, see ``evaluate oracle=true``.
        curve: values of ``k`` for the figure; empty for single points.
        device: ``auto``, ``cpu``, ``cuda``, ...
        threads: torch's; ``None`` leaves its own choice.
        output: where results go.
        debug: shows the trace of an error.
    """

    table: str
    row: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    data: dict[str, str] = field(default_factory=dict)
    weights: str | None = None
    models: dict[str, str] = field(default_factory=dict)
    ours: bool = True
    oracle: bool = False
    curve: list[float] = field(default_factory=lambda: [-1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    device: str = "auto"
    threads: int | None = None
    output: str = "outputs/reproduce"
    debug: bool = False

    @classmethod
    def of(cls, table: str, words: Sequence[str]) -> Self:
        """The settings that ``KEY=VALUE`` words give.

        Raises:
            ConfigError: names the first that is unknown or has the wrong type.
        """
        config = cls(table_named(table))
        for word in words:
            key, sign, text = word.partition("=")
            if not sign:
                raise ConfigError(f"{word}: settings are given as KEY=VALUE, such as row=carn")
            config._set(key.strip(), text)
        return config

    @property
    def folder(self) -> Path:
        """Where the results of this table go."""
        return Path(self.output).expanduser() / short(self.table)

    def _set(self, key: str, text: str) -> None:
        check_path(key, text, "VALUE")
        group, _, name = key.partition(".")
        if group in ("data", "models") and name:
            getattr(self, group)[name] = text
            return
        types = {f.name: f.type for f in fields(self) if f.name not in ("table", "data", "models")}
        if key not in types:
            near = difflib.get_close_matches(key, [*types, "data.root", "data.NAME"], n=1)
            hint = f"; did you mean {near[0]}?" if near else f": there are {', '.join(types)}"
            raise ConfigError(f"{key}: there is no such setting{hint}")
        setattr(self, key, _value(key, text, str(types[key])))


def _value(key: str, text: str, kind: str) -> Any:
    """A setting's text as its type wants it."""
    if kind.startswith("str"):
        return text
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{key}={text}: must be true or false")
        return text.lower() == "true"
    if kind == "int | None":
        if not text.isascii() or not text.isdecimal() or int(text) < 1:
            raise ConfigError(f"{key}={text}: must be a whole number of 1 at least")
        return int(text)
    several = [each.strip() for each in text.strip("[] ").split(",") if each.strip()]
    if "str" in kind:
        return several
    try:
        values = [float(each) for each in several]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise ConfigError(f"{key}={text}: must be numbers, such as [-1,0,1]")
    return values
