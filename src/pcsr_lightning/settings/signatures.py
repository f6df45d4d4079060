"""Which arguments a callable takes, and whether a value of a config fits one."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pcsr_lightning.errors import ConfigError

_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def parameters(target: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """The arguments that a callable takes by name, with their types.

    Of a class whose constructor hands ``**options`` on, those of its bases too.

    Returns:
        The types by name, and whether it takes further names that nobody can know.
    """
    functions: list[Callable[..., Any]] = [target]
    if inspect.isclass(target):
        functions = [vars(c)["__init__"] for c in target.__mro__[:-1] if "__init__" in vars(c)]
    found: dict[str, Any] = {}
    for function in functions:
        given = list(inspect.signature(function).parameters.values())
        hints = _hints(function)
        for parameter in given:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, hints.get(parameter.name, Any))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in given):
            return found, False
    return found, True


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (NameError, TypeError):  # names that exist for type checkers only
        return {}


def check_type(key: str, value: Any, kind: Any) -> None:
    """Refuses a value that is of another type than an argument.

    Raises:
        ConfigError: names the setting, its value and what was expected.
    """
    if not fits(value, kind):
        raise ConfigError(f"{key}={value}: expected {type_name(kind)}")


def fits(value: Any, kind: Any) -> bool:
    """Whether a plain value can be an argument of a type; types unknown here take anything."""
    if kind is Any or getattr(kind, "_is_protocol", False):
        return True
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inside)
    if origin is Literal:
        return value in inside
    if isinstance(value, dict):  # a mapping, or the description of another object
        return kind not in _NAMES
    if isinstance(value, list):
        if origin is tuple and Ellipsis not in inside:
            return len(value) == len(inside) and all(map(fits, value, inside))
        if origin in (tuple, list, Sequence, Collection, Iterable):
            return all(fits(one, inside[0]) for one in value)
        return kind not in _NAMES
    if kind is int or kind is float:
        return type(value) in ((int,) if kind is int else (int, float))
    if inspect.isclass(kind) and origin is None:
        return isinstance(value, kind) or (kind is Path and isinstance(value, str))
    return origin is None or (value is not None and not isinstance(value, str | bool | int | float))


def type_name(kind: Any) -> str:
    """A type as a user reads it."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        names = [type_name(one) for one in inside if not _only_in_code(one)]
        return " or ".join(dict.fromkeys(names))
    if origin is Literal:
        return ", ".join(dict.fromkeys(map(str, inside)))
    if origin in (tuple, list, Sequence, Collection, Iterable):
        return "a list"
    return "null" if kind is type(None) else _NAMES.get(kind, getattr(kind, "__name__", str(kind)))


def _only_in_code(kind: Any) -> bool:
    return inspect.isclass(kind) and kind not in _NAMES and kind is not type(None)


def check_integer(key: str, value: Any, least: int, optional: bool = False) -> None:
    """Refuses what is no integer of at least ``least``.

    Raises:
        ConfigError: names the setting and its value.
    """
    if value is None and optional:
        return
    if type(value) is not int or value < least:
        null = ", or null" if optional else ""
        raise ConfigError(f"{key}={value}: must be a whole number of at least {least}{null}")
