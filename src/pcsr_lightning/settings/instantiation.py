"""Objects from a Hydra config: what ``_target_`` names, after a check of every key and type."""

from __future__ import annotations

import difflib
import logging
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import hydra
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.settings.known_keys import RENAMED, group_keys
from pcsr_lightning.settings.signatures import check_type, parameters

log = logging.getLogger(__name__)


def instantiate(node: Mapping[str, Any] | DictConfig, key: str, **objects: Any) -> Any:
    """What a config's node describes.

    Args:
        node: has ``_target_``, and values for its arguments.
        key: of the node in the config, for messages.
        objects: further arguments, which no config can hold.

    Raises:
        PCSRError: it cannot be made from these settings.
    """
    return called(configured(node, key), key, **objects)


def called(factory: Callable[..., Any], key: str, *arguments: Any, **objects: Any) -> Any:
    """What a factory returns; its refusal of a value is a :class:`ConfigError` that names ``key``.

    Raises:
        PCSRError: the factory refuses its arguments.
    """
    try:
        return factory(*arguments, **objects)
    except (TypeError, ValueError, ImportError, MisconfigurationException) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(f"{key}: cannot be used as set: {lines[0]}") from error


def configured(node: Mapping[str, Any] | DictConfig, key: str) -> partial[Any]:
    """What a node's ``_target_`` names, with the node's values filled in.

    Values that belong to another choice of the same group are left out: with
    ``optimizer._target_=torch.optim.SGD`` the node still has Adam's ``betas``.

    Raises:
        ConfigError: names the first key that is unknown or has a value of the wrong type.
    """
    values = in_plain_values(node, key)
    target = values.get("_target_")
    if not isinstance(target, str):
        raise ConfigError(f"{key}._target_={target}: expected the dotted path of a class")
    try:
        takes, more = parameters(pkgutil.resolve_name(target))
    except (ImportError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{key}._target_={target}: {str(error).splitlines()[0]}") from None
    known = {name for name in values if name.startswith("_") or name in takes or more}
    elsewhere = {name for name in values if name not in known and name in group_keys(key)}
    for name, value in values.items():
        new = RENAMED.get(f"{key}.{name}")
        if new is not None:  # in a file; the command line's are translated
            raise ConfigError(f"{key}.{name} is called {new} now")
        if name in takes:
            check_type(f"{key}.{name}", value, takes[name])
        elif name not in known | elsewhere:
            raise ConfigError(
                f"{key}.{name}: {target} takes no such setting{suggestion(key, name, takes)}"
            )
    if elsewhere:
        log.debug("%s: %s takes no %s", key, target, ", ".join(sorted(elsewhere)))
    kept = {name: value for name, value in values.items() if name in known}
    try:
        made = hydra.utils.instantiate({**kept, "_partial_": True, "_convert_": "all"})
    except hydra.errors.InstantiationException as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"{key}: cannot be used as set: {reason}") from error
    assert isinstance(made, partial)
    return made


def in_plain_values(node: Mapping[str, Any] | DictConfig, key: str) -> dict[str, Any]:
    """A node as a dictionary, with nothing left to be looked up.

    Raises:
        ConfigError: a value that it refers to is missing.
    """
    if not isinstance(node, DictConfig):
        return dict(node)
    try:
        plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        raise ConfigError(f"{error.full_key or key}: {reason}") from None
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def suggestion(key: str, name: str, known: Iterable[str]) -> str:
    """``; did you mean ...?`` with the nearest known name, if one is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {key}.{close[0]}?" if close else ""
