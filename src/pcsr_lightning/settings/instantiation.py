"""Objects from a Hydra config: what ``_target_`` names, after a check of every key and type."""

from __future__ import annotations

import difflib
import logging
import pkgutil
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pcsr_lightning.errors import ConfigError, PCSRError, single_line
from pcsr_lightning.settings.known_keys import RENAMED, group_keys
from pcsr_lightning.settings.signatures import check_type, parameters

log = logging.getLogger(__name__)

_KEYS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""The key of each object that was made from settings, for :func:`errors_of_settings`."""
_LIBRARIES = {"lightning", "pcsr_lightning", "pytorch_lightning", "torch", "torchmetrics"}


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
    """What a factory returns; whatever it raises is a :class:`ConfigError` that names ``key``.

    Raises:
        PCSRError: the factory refuses its arguments, or fails.
    """
    try:
        made = factory(*arguments, **objects)
    except PCSRError:
        raise
    except Exception as error:  # the factory may be anybody's
        raise ConfigError(f"{key}: cannot be used as set: {first_line(error)}") from error
    # The trainer calls all others: what they raise is not its fault. What ours raise is a bug.
    if key != "trainer" and not type(made).__module__.startswith("pcsr_lightning."):
        with suppress(TypeError):  # of a kind that takes no weak references
            _KEYS[made] = key
    return made


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type, too, where the message says little."""
    text = next((line for line in str(error).splitlines() if line.strip()), "").strip()
    kind = type(error).__name__
    return text if len(text.split()) > 2 else f"{kind}: {text}".removesuffix(": ")


@contextmanager
def errors_of_settings() -> Iterator[None]:
    """Within it, what an object made from settings raises is a :class:`ConfigError` of one line.

    The object is a callback, logger, loss or the like, of Lightning, torch or the user. Errors of
    this package, and of libraries below it, keep their type and traceback.

    Raises:
        ConfigError: names the object's key, what was raised, and where.
    """
    try:
        yield
    except PCSRError:
        raise
    except Exception as error:
        found = _blamed(error)
        if found is None:
            raise
        key, frame = found
        code, kind, text = frame.f_code, type(error).__name__, first_line(error).removesuffix(".")
        where = f"{Path(code.co_filename).name}, {code.co_name}"
        said = text if text.startswith(kind) else f"{kind}: {text}"
        raise ConfigError(f"{key}: {said} (in {where}; debug=true shows all)") from error


def _blamed(error: BaseException) -> tuple[str, FrameType] | None:
    """The settings' key of the innermost object that was made from settings, and its frame."""
    from torch.optim import Optimizer  # most commands that get here have torch already
    from torch.optim.lr_scheduler import LRScheduler

    owned = {type(made).__module__.partition(".")[0]: key for made, key in list(_KEYS.items())}
    for frame in reversed([frame for frame, _ in traceback.walk_tb(error.__traceback__)]):
        made, package = frame.f_locals.get("self"), str(frame.f_globals.get("__name__"))
        if package.startswith("pcsr_lightning."):
            return None  # ours: a bug, or what a library says
        for kind, key in ((Optimizer, "optimizer"), (LRScheduler, "scheduler")):
            if isinstance(made, kind):
                return key, frame
        with suppress(TypeError):
            if made is not None and made in _KEYS:
                return _KEYS[made], frame
        root = package.partition(".")[0]
        if root in owned and root not in _LIBRARIES:
            return owned[root], frame
    return None


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
        raise ConfigError(f"{key}._target_={target}: {single_line(str(error))}") from error
    known = {name for name in values if name.startswith("_") or name in takes or more}
    of_group = {name.partition(".")[0] for name in group_keys(key)}
    elsewhere = {name for name in values if name not in known and name in of_group}
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
        reason = first_line(error.__cause__ or error)
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
