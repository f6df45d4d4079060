"""Builds a backbone from its name and plain values, and gives its config back."""

from __future__ import annotations

import inspect
import json
import weakref
from collections.abc import Mapping
from typing import Any

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks.backbones.base import Backbone
from pcsr_lightning.networks.backbones.probe import Measured, measure
from pcsr_lightning.networks.backbones.registry import (
    backbone_class,
    check_class,
    dotted_path,
    is_builtin,
)
from pcsr_lightning.networks.compiled import unwrapped

# Of custom backbones, by their arguments: halo and channels depend on nothing else.
_MEASURED: weakref.WeakKeyDictionary[type[Backbone], dict[str, Measured]] = (
    weakref.WeakKeyDictionary()
)


def build_backbone(name: str, **args: Any) -> Backbone:
    """The feature extractor called ``name`` with its constructor's ``args``.

    Raises:
        ConfigError: no such backbone, an argument it does not take, or a custom one that does not
            do what a backbone must.
    """
    cls = backbone_class(name)
    takes = list(inspect.signature(cls).parameters)
    unknown = sorted(set(args) - set(takes))
    if unknown:
        raise ConfigError(f"backbone {name} takes {', '.join(takes)}, not {', '.join(unknown)}")
    if is_builtin(cls):
        for key, value in args.items():
            least = 0 if key in ("m", "blocks") else 1  # how many layers, or how wide
            if type(value) is not int or value < least:
                raise ConfigError(
                    f"backbone {name}: {key} must be a whole number of at least {least}, not "
                    f"{value!r}"
                )
        return cls(**args)
    plain = arguments(cls, args)
    backbone = cls(**plain)
    backbone.args = plain
    validate_backbone(backbone)
    return backbone


def arguments(cls: type[Backbone], given: Mapping[str, Any]) -> dict[str, Any]:
    """All of a constructor's arguments as plain values, as a file gives them back.

    Raises:
        ConfigError: one is something else, or missing.
    """
    try:
        bound = inspect.signature(cls).bind(**given)
    except TypeError as error:
        raise ConfigError(f"backbone {cls.name}: {error}") from None
    bound.apply_defaults()
    plain = {}
    for key, value in bound.arguments.items():
        try:
            plain[key] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            raise ConfigError(
                f"backbone {cls.name}: its argument {key}={value!r} cannot be kept in a model "
                "file; expected numbers, strings, booleans, or lists of them"
            ) from None
    return plain


def class_config(cls: type[Backbone], given: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's part of a network's config: its name, its arguments, and a custom one's class.

    The key ``class`` cannot collide with an argument: it is a keyword of Python.

    Raises:
        ConfigError: an argument is not plain, or missing.
    """
    return {**_named(cls), **arguments(cls, given)}


def backbone_config(backbone: Backbone) -> dict[str, Any]:
    """The config of an existing backbone, see :func:`class_config`.

    Raises:
        ConfigError: its arguments are not known.
    """
    backbone = unwrapped(backbone)
    cls, args = type(backbone), vars(backbone).get("args")
    takes = list(inspect.signature(cls).parameters)
    if args is None and takes:
        raise ConfigError(
            f"backbone {cls.name} does not know its arguments {', '.join(takes)}: make it with "
            f"build_backbone({cls.name!r}, ...), or keep them in self.args"
        )
    return {**_named(cls), **(args or {})}


def _named(cls: type[Backbone]) -> dict[str, str]:
    return {"name": cls.name} | ({} if is_builtin(cls) else {"class": dotted_path(cls)})


def validate_backbone(backbone: Backbone) -> None:
    """Measures ``out_channels`` and ``halo`` of a custom backbone, or checks them if it sets them.

    Raises:
        ConfigError: it fails on some image size, or its ``out_channels`` or ``halo`` are wrong.
    """
    cls, said = type(backbone), vars(backbone)
    if is_builtin(cls):
        return
    check_class(cls)
    what = f"backbone {cls.name} ({dotted_path(cls)})"
    found = _measured(backbone, what)
    channels = said.setdefault("out_channels", found.channels)
    if channels != found.channels:
        raise ConfigError(f"{what} says out_channels={channels} and gives {found.channels}")
    halo = said.setdefault("halo", found.halo)
    # More than needed costs time only, and None is always right.
    if halo is not None and (found.halo is None or halo < found.halo):
        raise ConfigError(
            f"{what} says halo={halo}; measured is {found.halo}, and with less, tiles would show "
            "seams. Leave it out: it is then measured"
        )


def _measured(backbone: Backbone, what: str) -> Measured:
    args = vars(backbone).get("args")
    if args is None:
        return measure(backbone, what)
    known = _MEASURED.setdefault(type(backbone), {})
    key = json.dumps(args, sort_keys=True, default=repr)
    if key not in known:
        known[key] = measure(backbone, what)
    return known[key]
