"""The known backbones: built-in, registered, and from entry points of installed packages."""

from __future__ import annotations

import inspect
import re
from importlib import import_module, metadata
from typing import Any, TypeVar

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks.backbones.base import Backbone
from pcsr_lightning.networks.backbones.bsrn import BSRN
from pcsr_lightning.networks.backbones.carn import CARN
from pcsr_lightning.networks.backbones.compact import Compact
from pcsr_lightning.networks.backbones.fsrcnn import FSRCNN
from pcsr_lightning.networks.backbones.srresnet import SRResNet

_BUILTIN = (FSRCNN, CARN, SRResNet, BSRN, Compact)
BACKBONES: dict[str, type[Backbone]] = {cls.name: cls for cls in _BUILTIN}
"""By name; :func:`register_backbone` adds to it."""
ENTRY_POINTS = "pcsr_lightning.backbones"
"""The group in which an installed package announces its backbones, by name."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)

Class = TypeVar("Class", bound=type[Backbone])


class UnknownBackboneError(ConfigError):
    """No backbone of this name is known here."""


def register_backbone(cls: Class) -> Class:
    """Registers a custom backbone under its ``name``; also a decorator.

    A class that is defined again, as in a notebook's cell that is run twice, replaces its former
    version.

    Args:
        cls: a subclass of :class:`Backbone` whose constructor takes plain values (numbers, strings,
            lists of them), each with a default.

    Returns:
        ``cls``.

    Raises:
        ConfigError: it is no such class, or another class has that name.

    Example:
        >>> @register_backbone
        ... class TinyNet(Backbone):
        ...     name = "tiny"
    """
    check_class(cls)
    for key, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(
                f"{dotted_path(cls)}: its argument {key} cannot be given by name, as a "
                "config does; name each one"
            )
        if key == "name":
            raise ConfigError(f"{dotted_path(cls)}: its constructor's argument name means another")
        if parameter.default is parameter.empty:
            raise ConfigError(
                f"{dotted_path(cls)}: its argument {key} needs a default, such as {key}=16"
            )
    known = BACKBONES.get(cls.name)
    if known is not None and known is not cls and not _same_place(known, cls):
        raise ConfigError(
            f"{dotted_path(cls)}: its name {cls.name!r} is {dotted_path(known)}'s; give it another"
        )
    BACKBONES[cls.name] = cls
    return cls


def check_class(cls: Any) -> None:
    """Checks that a class is a complete backbone with a valid name.

    Raises:
        ConfigError: it is not; the message says what is missing.
    """
    if not (isinstance(cls, type) and issubclass(cls, Backbone)):
        raise ConfigError(
            f"{dotted_path(cls)} is not a backbone: expected a class derived from "
            "pcsr_lightning.networks.Backbone"
        )
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(f"{dotted_path(cls)} does not define {', '.join(missing)}")
    name = getattr(cls, "name", None)
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        said = "" if name is None else f", not {name!r}"
        raise ConfigError(
            f"{dotted_path(cls)} needs a name of letters, digits, - and _ for configs and model "
            f'files, such as name = "tiny"{said}'
        )


def import_backbone(dotted: str) -> type[Backbone]:
    """Imports a custom backbone and registers it.

    Call it only with names given by the user, never with one read from a file: it runs code.

    Args:
        dotted: module and class, such as ``my_package.TinyNet``.

    Raises:
        ConfigError: there is no such module or class, importing it fails, or it is no backbone.
    """
    if not _DOTTED.fullmatch(dotted):
        raise ConfigError(
            f"{dotted!r} does not name a backbone: expected module and class, such as "
            "my_package.TinyNet"
        )
    module_name, _, class_name = dotted.rpartition(".")
    try:
        module = import_module(module_name)
    except Exception as error:  # arbitrary code of the module ran
        if isinstance(error, ModuleNotFoundError) and _is_above(error.name, module_name):
            raise ConfigError(
                f"{dotted}: there is no module {error.name} in the current folder or where Python "
                "looks; name its folder with PYTHONPATH"
            ) from None
        raise ConfigError(
            f"{dotted}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    cls: type[Backbone] | None = getattr(module, class_name, None)
    if cls is None:
        raise ConfigError(f"{dotted}: module {module_name} has no class {class_name}")
    return register_backbone(cls)


def backbone_class(name: Any, noted: Any = None) -> type[Backbone]:
    """The class of a name: registered, or announced by an installed package.

    Args:
        name: from a config or a file.
        noted: the class that a model file names. Used in the error message, never imported.

    Raises:
        UnknownBackboneError: there is none; the message says how to make it known.
    """
    if isinstance(name, str):
        if name not in BACKBONES:
            _import_announced(name)
        if name in BACKBONES:
            return BACKBONES[name]
    raise UnknownBackboneError(
        f"no backbone is called {name!r}; there are {', '.join(BACKBONES)}{_how_to_import(noted)}"
    )


def is_builtin(cls: type[Backbone]) -> bool:
    """Whether a backbone is one of this package's."""
    return cls in _BUILTIN


def dotted_path(cls: Any) -> str:
    """Module and class, as :func:`import_backbone` takes it where it can be imported at all."""
    name = getattr(cls, "__qualname__", None)
    return repr(cls) if name is None else f"{cls.__module__}.{name}"


def _import_announced(name: str) -> None:
    for point in metadata.entry_points(group=ENTRY_POINTS):
        if point.name == name:
            cls = import_backbone(f"{point.module}.{point.attr}")
            if cls.name != name:
                raise ConfigError(
                    f"an installed package announces backbone {name!r}, but {dotted_path(cls)} is "
                    f"called {cls.name!r}"
                )


def _is_above(missing: str | None, module: str) -> bool:
    """Whether the module that was not found is ``module`` or a package that it lies in."""
    return missing is not None and f"{module}.".startswith(f"{missing}.")


def _same_place(a: type[Backbone], b: type[Backbone]) -> bool:
    # A file run as a script is called __main__ there, and by its own name when it is imported.
    same = a.__module__ == b.__module__ or "__main__" in (a.__module__, b.__module__)
    return same and a.__qualname__ == b.__qualname__


def _how_to_import(noted: Any) -> str:
    if not (isinstance(noted, str) and len(noted) < 200 and _DOTTED.fullmatch(noted)):
        return ""
    name = noted.rpartition(".")[2]
    if noted.startswith("__main__."):
        return (
            f". The model's backbone is a class {name} of a script or notebook: put it into a "
            "module, and make it known with pcsr_lightning.networks.register_backbone"
        )
    return (
        f". The model was made with {noted}. If you trust that code, say so: in Python "
        f'pcsr_lightning.networks.import_backbone("{noted}"), for evaluate backbones=[{noted}], '
        f"for upscale --backbone {noted}"
    )
