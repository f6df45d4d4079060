"""The folders of a multirun's jobs, and the settings that tell the jobs apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

SEED = "seed"
ASIDE = re.compile(r"(output|ckpt_path|debug|threads|devices?)$|(logger|callbacks|hydra)(\.|$)")
"""Settings that are no matter of what is trained or measured."""


@dataclass(frozen=True)
class Settings:
    """The settings of a job of Hydra.

    Attributes:
        overrides: those of its command line.
        values: all of its composed config, by dotted keys.
    """

    overrides: Mapping[str, str]
    values: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> Settings | None:
        """The settings that Hydra has left in a job's folder; ``None`` if it has left none."""
        config, given = load_config(folder), folder / ".hydra" / "overrides.yaml"
        if config is None:
            return None
        words = OmegaConf.load(given) if given.is_file() else ()
        pairs = (str(word).lstrip("+~").partition("=") for word in words)
        overrides = {key: value.strip("'\"") for key, _, value in pairs}
        return cls(overrides, dict(_flat(OmegaConf.to_container(config))))

    def text(self, key: str) -> str:
        """A setting's value: as composed, or as given for a group of settings; may be empty."""
        chosen = self.values.get(key, self.overrides.get(key))
        return self.values.get(f"{key}.name", "") if chosen is None else chosen

    @property
    def seed(self) -> str:
        """Of a training; empty if it has none."""
        return self.text(SEED)

    @property
    def but_seed(self) -> frozenset[tuple[str, str]]:
        """What is equal in trainings that differ in their seed only.

        ``init`` is left out too: a stage may be built on the stage before of the same seed.
        """
        return frozenset(
            (key, value)
            for key, value in self.values.items()
            if key not in (SEED, "init") and not ASIDE.match(key)
        )


def swept(jobs: Sequence[Settings]) -> list[str]:
    """The settings of the jobs' command lines that differ between the jobs."""
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    return [
        key for key in keys if not ASIDE.match(key) and len({job.text(key) for job in jobs}) > 1
    ]


def job_folders(folder: Path) -> list[Path]:
    """The folders of a multirun's jobs, in the order of their numbers."""
    found = [p for p in folder.iterdir() if p.name.isdecimal()] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def load_config(folder: Path) -> DictConfig | None:
    """The config that Hydra composed for the job of a folder; ``None`` if it has left none."""
    file = folder / ".hydra" / "config.yaml"
    config = OmegaConf.load(file) if file.is_file() else None
    return config if isinstance(config, DictConfig) else None


def _flat(config: Any, above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", _text(value)


def _text(value: Any) -> str:
    """As it is written on a command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
