"""A command line's words as Hydra takes them: options first, today's names, ``+`` where needed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from pcsr_lightning import conf_dir
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.settings.known_keys import (
    RENAMED,
    choices,
    default_choice,
    group_keys,
    known_keys,
)
from pcsr_lightning.settings.signatures import parameters

NAMED_OBJECTS = ("callbacks", "logger")
"""Groups of any number of objects, each below a name of its own."""
LIGHTNINGS = ("monitor", "interval", "frequency")
"""Settings of a scheduler that are Lightning's own."""
_WITH_VALUE = {
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn",
    "--config-dir", "-cd", "--experimental-rerun",
}  # fmt: skip
_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)+")


def split_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's options with their values, and all else: the settings.

    Hydra reads no settings behind an option that stands between two of them.
    """
    options, settings = [], []
    left = iter(words)
    for word in left:
        if not word.startswith("-"):
            settings.append(word)
            continue
        options.append(word)
        if word in _WITH_VALUE:
            options.extend(value for value in [next(left, None)] if value is not None)
    return options, settings


def without_null_choices(words: Sequence[str], config_name: str) -> list[str]:
    """``logger=null`` as ``logger=none``, and nothing for ``experiment=null``.

    Hydra takes only names as choices of a config group.
    """
    kept = []
    for word in words:
        group, _, value = word.partition("=")
        if value.lower() not in ("null", "none") or not (conf_dir() / group).is_dir():
            kept.append(word)
        elif "none" in choices(group):
            kept.append(f"{group}=none")
        elif default_choice(config_name, group) != "null":
            kept.append(word)  # Hydra refuses it
    return kept


def renamed(argument: str) -> str:
    """``stage.lr=1e-3`` as ``optimizer.lr=1e-3``, with a warning: earlier names keep working."""
    key, sign, value = argument.partition("=")
    old = key.lstrip("+~")
    if old not in RENAMED:
        return argument
    return _with_warning(old, RENAMED[old], key[: len(key) - len(old)], sign + value)


def with_logger_names(words: Sequence[str], config_name: str) -> list[str]:
    """``logger.offline=true`` as ``logger.wandb.offline=true``: each logger has a name.

    A logger that is given as ``logger._target_=...`` is called ``own``.
    """
    given = [word.partition("=")[2] for word in words if word.startswith("logger=")]
    chosen = re.findall(r"[\w./-]+", given[-1] if given else default_choice(config_name, "logger"))
    chosen = [name for name in chosen if name not in ("none", "null")]
    names = {path.stem for path in (conf_dir() / "logger").glob("*.yaml")} | set(chosen)
    own = any(re.match(r"\+*logger\._target_=", word) for word in words)
    renamed_words = []
    for word in words:
        flat = re.fullmatch(r"([+~]*)logger\.(\w+)(=.*)?", word, re.DOTALL)
        if flat is None or flat[2] in names or not (own or chosen):
            renamed_words.append(word)
        elif own:
            renamed_words.append(f"{flat[1]}logger.own.{flat[2]}{flat[3] or ''}")
        else:
            of = next((name for name in chosen if name != "csv"), chosen[0])
            old, new = f"logger.{flat[2]}", f"logger.{of}.{flat[2]}"
            renamed_words.append(_with_warning(old, new, flat[1], flat[3] or ""))
    return renamed_words


def with_plus(words: Sequence[str], config_name: str, options: Sequence[str] = ()) -> list[str]:
    """``trainer.max_time=...`` as ``++trainer.max_time=...`` if Lightning's ``Trainer`` takes it.

    Likewise every key that the ``_target_`` beside it takes as an argument, and a new logger or
    callback. Other keys stay as they are, and Hydra refuses those that it does not know.

    Args:
        words: overrides.
        config_name: of the file in ``conf/`` that they override.
        options: of Hydra; ``--config-dir`` among them names a further folder of config files.
    """
    # With a + as it was before conf/ had this key.
    words = [f"+{word}" if word.startswith("+trainer.max_time=") else word for word in words]
    known = set(known_keys(config_name))
    pairs = [word.lstrip("+").partition("=") for word in words]
    targets = {
        key.removesuffix("._target_"): value.strip("'\"")
        for key, _, value in pairs
        if key.endswith("._target_")
    }
    new = [word for word in words if _is_new(word, known, targets)]
    if not new:
        return list(words)
    rest = [word for word in words if word not in new]
    cfg = _composed([*rest, *_search_path(options)], config_name)
    if cfg is None:  # Hydra says what is wrong
        return list(words)
    return [f"++{word}" if word in new and _taken(word, cfg, targets) else word for word in words]


def check_taken(cfg: DictConfig, words: Sequence[str]) -> None:
    """Refuses ``optimizer.betas=...`` on the command line if the chosen optimizer takes none.

    Only there: a file may have values for other choices of the group.

    Args:
        cfg: the composed config.
        words: overrides of the command line.

    Raises:
        ConfigError: names the setting.
    """
    for key in (word.lstrip("+").partition("=")[0] for word in words):
        node, _, name = key.rpartition(".")
        if node not in ("optimizer", "scheduler", "loss") or name not in group_keys(node):
            continue
        target = OmegaConf.select(cfg, f"{node}._target_")
        if isinstance(target, str) and name != "_target_" and not takes(target, name):
            raise ConfigError(f"{key}: {target} takes no such setting")


def takes(target: str, name: str) -> bool:
    """Whether the object at a dotted path takes an argument of that name."""
    try:
        found, any_name = parameters(hydra.utils.get_object(target))
    except (ImportError, ValueError, AttributeError, TypeError):
        return True  # refused elsewhere, with the reason
    return name != "self" and (name in found or any_name)


def _search_path(options: Sequence[str]) -> list[str]:
    for n, word in enumerate(options):
        option, _, folder = word.partition("=")
        if option in ("--config-dir", "-cd"):
            folder = folder or options[n + 1]
            return [f"hydra.searchpath=['file://{Path(folder).resolve()}']"]
    return []


def _with_warning(old: str, new: str, sigil: str, rest: str) -> str:
    print(f"warning: {old} is called {new} now: write {sigil}{new}{rest}", file=sys.stderr)
    return f"{sigil}{new}{rest}"


def _is_new(word: str, known: set[str], targets: Mapping[str, str]) -> bool:
    key, sign, _ = word.partition("=")
    node = key.rpartition(".")[0]
    if not sign or not _KEY.fullmatch(key) or key.startswith("hydra.") or node in NAMED_OBJECTS:
        return False
    return key not in known or node in targets


def _taken(word: str, cfg: DictConfig, targets: Mapping[str, str]) -> bool:
    node, _, name = word.partition("=")[0].rpartition(".")
    if name == "_target_":
        return node.count(".") == 1 and node.split(".")[0] in NAMED_OBJECTS
    if node == "scheduler" and name in LIGHTNINGS:
        return True
    target = targets.get(node) or OmegaConf.select(cfg, f"{node}._target_")
    return isinstance(target, str) and takes(target, name)


def _composed(words: Sequence[str], config_name: str) -> DictConfig | None:
    """The config of these overrides, with the first value of each that is swept."""
    try:
        single = []
        for override in OverridesParser.create().parse_overrides(list(words)):
            if not override.is_sweep_override():
                single.append(str(override.input_line))
            elif not override.is_interval_sweep():
                first = next(iter(override.sweep_string_iterator()))
                single.append(f"{override.get_key_element()}={first}")
        with _hydra():
            return hydra.compose(config_name, single)
    except Exception:  # Hydra raises it again, and the command says it
        return None


@contextmanager
def _hydra() -> Iterator[None]:
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield
