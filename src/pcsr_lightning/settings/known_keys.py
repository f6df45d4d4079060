"""The settings that the files of ``conf/`` know, for messages about those that they do not know."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from pcsr_lightning import conf_dir
from pcsr_lightning.errors import EMPTY, ConfigError
from pcsr_lightning.settings.signatures import parameters

RENAMED = {
    "stage.optimizer": "optimizer",
    "stage.lr": "optimizer.lr",
    "stage.betas": "optimizer.betas",
    "stage.vector_lr": "optimizer.vector_lr",
    "stage.weight_decay": "optimizer.weight_decay",
    "stage.schedule": "scheduler",
    "stage.lr_min": "scheduler.lr_min",
    "stage.warmup": "scheduler.warmup",
    "stage.decay": "scheduler.decay",
    "stage.max_steps": "trainer.max_steps",
    "stage.recon": "loss",
    "stage.revive": "stage.reinitialize_dead_units",
    "data.shrinks": "data.downscale_factors",
}
"""What a setting was called before, and what it is called now."""


def check_given(arguments: Sequence[str]) -> None:
    """Refuses ``KEY=`` on a command line: in ``data.root=$FOLDER`` the variable may not be set.

    Raises:
        ConfigError: names the setting.
    """
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if sign and not key.startswith(("-", "~")) and not value.strip("'\" "):
            raise ConfigError(f"{key.lstrip('+')} {EMPTY}: write {key}=VALUE, or leave it out")


@cache
def group_keys(group: str) -> frozenset[str]:
    """The keys below ``group`` in all choices of a config group: ``betas`` of ``optimizer``, say.

    Choices are files, or registered from Python as those of ``routing`` are.
    """
    nodes = [_node(path, group) for path in (conf_dir() / group).glob("*.yaml")]
    nodes += [choice.node for choice in ConfigStore.instance().repo.get(group, {}).values()]
    own = frozenset(key for node in nodes for key in _flat(node))
    inner = _groups_below(group)
    return own.union(inner, *({f"{i}.{key}" for key in group_keys(f"{group}/{i}")} for i in inner))


def default_choice(config_name: str, group: str) -> str:
    """What ``conf/CONFIG_NAME.yaml`` chooses of a config group; ``null`` for nothing."""
    return str(_groups(_load(conf_dir() / f"{config_name}.yaml")).get(group) or "null")


def choices(group: str) -> list[str]:
    """The files of a config group, those in its sub-folders too: ``paper/carn_x4``.

    A sub-folder that is a group of its own, as ``data/degradation``, has its own choices.
    """
    folder, inner = conf_dir() / group, _groups_below(group)
    files = (path.relative_to(folder) for path in folder.rglob("*.yaml"))
    return sorted(p.with_suffix("").as_posix() for p in files if p.parts[0] not in inner)


def _groups_below(group: str) -> set[str]:
    """The groups that files of a group choose from in its sub-folders: ``degradation``."""
    folder = conf_dir() / group
    named = {name for path in folder.glob("*.yaml") for name in _groups(_load(path))}
    return {name for name in named if (folder / name).is_dir()}


def known_keys(config_name: str) -> list[str]:
    """All settings of ``conf/CONFIG_NAME.yaml`` and of every choice of its groups."""
    main = _load(conf_dir() / f"{config_name}.yaml")
    found = dict.fromkeys(_flat(main))
    for group in _groups(main):
        found.update(dict.fromkeys(f"{group}.{key}" for key in group_keys(group)))
    return sorted(key for key in found if not re.search(r"\b(_\w+_|hydra|defaults)\b", key))


def more_keys(config_name: str, overrides: Sequence[str]) -> list[str]:
    """What the ``_target_`` of each group takes beyond that: ``trainer.max_time`` and the like."""
    given = dict(word.lstrip("+").split("=", 1) for word in overrides if "=" in word)
    found: list[str] = []
    for group, default in _groups(_load(conf_dir() / f"{config_name}.yaml")).items():
        path = conf_dir() / group / f"{given.get(group, default)}.yaml"
        own = _node(path, group).get("_target_") if path.is_file() else None
        target = given.get(f"{group}._target_", own)
        if target is not None:
            takes, _ = parameters(hydra.utils.get_object(target))
            found += [f"{group}.{name}" for name in takes if name != "self"]
    return sorted(set(found) - set(known_keys(config_name)))


def check_top_level(cfg: DictConfig, config_name: str) -> None:
    """Refuses what a file or ``+KEY`` has put beside the known settings, and nothing refers to.

    Raises:
        ConfigError: names the first such key, and the nearest known one.
    """
    main = _load(conf_dir() / f"{config_name}.yaml")
    known, text = {"hydra", *_groups(main), *map(str, main)}, OmegaConf.to_yaml(cfg)
    for key in map(str, cfg):
        if key not in known and not re.search(rf"\$\{{{key}\b", text):
            raise ConfigError(f"{key}: there is no such setting{_suggestion(key, config_name, ())}")


def in_one_line(
    error: Exception, config_name: str | None = None, overrides: Sequence[str] = ()
) -> str:
    """What Hydra says on several lines, without the hints that fit its own users alone.

    Args:
        error: of Hydra or OmegaConf.
        config_name: whose settings are suggested in place of an unknown one.
        overrides: of the command line.
    """
    unknown = re.match(r"Could not (?:override|delete) .*?'([^']+)'", str(error))
    if unknown:
        key = str(unknown.group(1))
        return f"{key}: there is no such setting{_suggestion(key, config_name, overrides)}"
    there = re.match(r"Could not append to config\. An item is already at '([^']+)'", str(error))
    if there:
        return f"+{there.group(1)}: there is such a setting already; leave out the +"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!s}: cannot be read as KEY=VALUE; a value with special characters "
            "needs quotes within quotes, such as 'data.root=\"my (pictures)\"'"
        )
    ambiguous = re.match(r"Ambiguous value for argument '(.*)'\n", str(error))
    if ambiguous:
        return (
            f"{ambiguous.group(1)}: a value with a comma needs quotes within quotes, a list "
            "brackets, and several runs --multirun"
        )
    missing = re.search(r"Could not (?:find|load) '(.+)/([^/']+)'", str(error))
    if missing:
        return _missing_choice(missing[1], missing[2], str(error), config_name)
    text = str(error).split("Config search path:")[0].split("See https:")[0]
    return " ".join(text.split()) or type(error).__name__


def _missing_choice(folder: str, name: str, text: str, config_name: str | None) -> str:
    groups = [] if config_name is None else _groups(_load(conf_dir() / f"{config_name}.yaml"))
    group = next((group for group in groups if f"{folder}/".startswith(f"{group}/")), folder)
    if folder.removeprefix(f"{group}/") in _groups_below(group):
        group = folder
    chosen = f"{folder}/{name}".removeprefix(f"{group}/")
    there = choices(group) or re.findall(r"^\t(\S+)$", text, re.MULTILINE)
    close = difflib.get_close_matches(chosen, there, n=1)
    near = f"did you mean {group}={close[0]}? There" if close else "there"
    hint = ""
    if (group, chosen) == ("hydra/sweeper", "optuna"):
        hint = "; it is an extra, pip install -e '.[optuna]'"
    return f"{group}={chosen}: there is no such choice; {near} are {', '.join(there)}{hint}"


def _suggestion(key: str, config_name: str | None, overrides: Sequence[str]) -> str:
    if config_name is None:
        return ""
    known, more = known_keys(config_name), more_keys(config_name, overrides)
    group = key.split(".")[0]
    if key in known:
        return f" with what else was chosen (only some choices of {group} know it)"
    inside = [k for k in known if k.startswith(f"{key}.")]
    if inside:
        return f", but a group of them: {', '.join(inside)}"
    groups = _groups(_load(conf_dir() / f"{config_name}.yaml"))
    close = difflib.get_close_matches(key, [*known, *more, *groups], n=1)
    if close:
        return f"; did you mean {close[0]}?"
    beside = [k for k in known if k.startswith(f"{group}.")] or known
    return f"; there are {', '.join(beside)}"


def _groups(main: DictConfig) -> dict[str, str | None]:
    """The config groups of a main file, each with its default choice."""
    entries = [entry for entry in main.get("defaults", ()) if isinstance(entry, DictConfig)]
    found = {str(group): entry[group] for entry in entries for group in entry}
    return {group: choice for group, choice in found.items() if not group.startswith("optional")}


def _node(path: Path, group: str) -> DictConfig:
    """What a file of a group says below the group's key."""
    node = _load(path)
    if path.read_text(encoding="utf-8").startswith("# @package _global_"):
        node = node.get(group) or OmegaConf.create()
    return node


def _load(path: Path) -> DictConfig:
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)
    return node


def _flat(node: DictConfig, above: str = "") -> Iterator[str]:
    for key, value in _items(node):
        if isinstance(value, DictConfig) and len(value):
            yield from _flat(value, f"{above}{key}.")
        elif key != "defaults":
            yield f"{above}{key}"


def _items(node: DictConfig) -> Iterator[tuple[str, Any]]:
    for key in node:
        yield str(key), node._get_node(key)
