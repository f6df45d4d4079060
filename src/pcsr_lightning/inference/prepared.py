"""What is made from a network's weights once, and again when these have changed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Prepared(Generic[T]):
    """Keeps one value for each network and key; it goes with its network.

    Weights are compared by value: versions and addresses do not tell what is done through
    ``.data``.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[
            nn.Module, dict[Hashable, tuple[list[Tensor], T]]
        ] = weakref.WeakKeyDictionary()

    def get(self, module: nn.Module, key: Hashable, make: Callable[[], T]) -> T:
        """The value that was made for this network and key; made now if there is none."""
        weights = _weights(module)
        known = self._known.setdefault(module, {})
        if key not in known or not _equal(known[key][0], weights):
            known[key] = (weights, make())
        return known[key][1]


def _weights(module: nn.Module) -> list[Tensor]:
    """Copies of all parameters and buffers, as one vector for each type and device: a GPU compares
    one long vector in the time that it takes to start comparing."""
    groups: dict[object, list[Tensor]] = {}
    for part in (*module.parameters(), *module.buffers()):
        groups.setdefault((part.dtype, part.device), []).append(part.detach().reshape(-1))
    return [torch.cat(parts) for parts in groups.values()]


def _equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.device == y.device and torch.equal(x, y)
        for x, y in zip(a, b, strict=True)
    )
