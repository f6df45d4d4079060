"""Networks that ``torch.compile`` has wrapped, wholly or in parts, seen as they are without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, nn

WRAPPED = "_orig_mod"
"""Where ``torch.compile`` keeps the module that it wraps; part of the names in its state dict."""

Network = TypeVar("Network", bound=nn.Module)


def unwrapped(module: Network) -> Network:
    """The module inside ``torch.compile(module)``; any other module itself."""
    inner: Network = getattr(module, WRAPPED, module)
    return inner


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the names that its network has without ``torch.compile``."""
    return {key.replace(f"{WRAPPED}.", ""): value for key, value in state.items()}


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[nn.Module]:
    """Within it, ``module`` and its parts run without ``torch.compile``, and can be traced.

    Yields:
        The module itself, or the one inside ``torch.compile(module)``.
    """
    plain = unwrapped(module)
    # Parts that were wrapped, and those that were compiled in place by `part.compile()`.
    wrappers = [
        (parent, name, part)
        for parent in list(module.modules())
        for name, part in parent.named_children()
        if unwrapped(part) is not part
    ]
    in_place = [part for part in module.modules() if part._compiled_call_impl is not None]
    calls = [part._compiled_call_impl for part in in_place]
    try:
        for parent, name, part in wrappers:
            parent._modules[name] = unwrapped(part)
        for part in in_place:
            part._compiled_call_impl = None
        yield plain
    finally:
        for parent, name, part in wrappers:
            parent._modules[name] = part
        for part, call in zip(in_place, calls, strict=True):
            part._compiled_call_impl = call
