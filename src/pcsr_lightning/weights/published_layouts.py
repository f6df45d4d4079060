"""The backbones of published checkpoints: which tensor there is which one here.

A layout is found by the names and shapes of its tensors; nothing is matched by position.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Tensors = dict[str, Tensor]
WEIGHT_AND_BIAS = ("weight", "bias")
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Misfit(Exception):
    """Why a file is not a published checkpoint."""


class Layout(NamedTuple):
    """How a backbone is laid out, found by the shapes of its tensors.

    Attributes:
        args: of our backbone.
        theirs: its arguments under the published names, to be compared with ``model.args``.
        names: published name -> our name, of every tensor, the tail's included.
        scale: of the tail; 0 without one, ``None`` where shapes do not tell it.
    """

    args: dict[str, int]
    theirs: dict[str, int]
    names: dict[str, str]
    scale: int | None


def _fsrcnn(state: Tensors) -> Layout:
    d, s = state["head_conv.0.weight"].shape[0], _size(state, "body_conv.0.0.weight", 0)
    m = 0
    while _ndim(state, f"body_conv.{m + 1}.weight") == 4:  # the PReLU after them has one dimension
        m += 1
    names: dict[str, str] = {}
    for theirs, ours in [("head_conv", "head"), ("body_conv.0", "shrink")]:
        names |= _both(f"{theirs}.0", f"backbone.{ours}.0")
        names[f"{theirs}.1.weight"] = f"backbone.{ours}.1.weight"
    for i in range(m):
        names |= _both(f"body_conv.{i + 1}", f"backbone.mapping.{i}")
    names[f"body_conv.{m + 1}.weight"] = f"backbone.mapping.{m}.weight"
    names |= _both(f"body_conv.{m + 2}.0", "backbone.expand.0")
    names[f"body_conv.{m + 2}.1.weight"] = "backbone.expand.1.weight"
    tail = any(key.startswith("tail_conv.") for key in state)
    if tail:
        names |= _both("tail_conv", "tail")
    args = {"d": d, "s": s, "m": m}
    return Layout(args, args, names, None if tail else 0)


def _carn(state: Tensors) -> Layout:
    nf = state["entry.weight"].shape[0]
    group = nf // max(1, _size(state, "b1.b1.body.0.weight", 1))
    names = _both("entry", "backbone.entry")
    for block in range(3):
        unit, ours = f"b{block + 1}.b1.body", f"backbone.body.blocks.{block}"
        for place in (0, 2, 4):
            names |= _both(f"{unit}.{place}", f"{ours}.residual.body.{place}")
        names |= _merges(f"b{block + 1}.", ours)
    names |= _merges("", "backbone.body")
    steps = 0
    while f"upsample.up.body.{3 * steps}.weight" in state:
        names |= _both(f"upsample.up.body.{3 * steps}", f"tail.{3 * steps}")
        steps += 1
    if steps or "exit.weight" in state:
        names |= _both("exit", f"tail.{3 * steps}")
    return Layout({"nf": nf, "group": group}, {"nf": nf}, names, 2**steps if steps else 0)


def _merges(theirs: str, ours: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for i in range(3):
        names[f"{theirs}c{i + 1}.0.weight"] = f"{ours}.merges.{i}.0.weight"
        names |= {f"{theirs}c{i + 1}.1.{k}": f"{ours}.merges.{i}.1.{k}" for k in NORM}
    return names


def _srresnet(state: Tensors) -> Layout:
    nf = state["conv_first.weight"].shape[0]
    blocks = len({key.split(".")[1] for key in state if key.startswith("recon_trunk.")})
    names = _both("conv_first", "backbone.head.0")
    for i in range(blocks):
        names |= _both(f"recon_trunk.{i}.conv1", f"backbone.trunk.{i}.body.0")
        names |= _both(f"recon_trunk.{i}.conv2", f"backbone.trunk.{i}.body.2")
    steps = 0
    while f"upconv{steps + 1}.weight" in state:
        names |= _both(f"upconv{steps + 1}", f"tail.{3 * steps}")
        steps += 1
    if steps or "conv_last.weight" in state:
        names |= _both("HRconv", f"tail.{3 * steps}")
        names |= _both("conv_last", f"tail.{3 * steps + 2}")
    args = {"nf": nf, "blocks": blocks}
    return Layout(args, {"nf": nf, "nb": blocks}, names, 2**steps if steps else 0)


def _compact(state: Tensors) -> Layout:
    """``SRVGGNetCompact`` of Real-ESRGAN: convolutions at even places, PReLUs between them."""
    last = 0
    while _ndim(state, f"body.{last + 2}.weight") == 4:
        last += 2
    if last == 0:
        raise Misfit("body.2.weight, a convolution's, is missing")
    nf, channels = state["body.0.weight"].shape[:2]
    outputs = _size(state, f"body.{last}.weight", 0)
    scale = math.isqrt(outputs // 3)
    if channels != 3 or 3 * scale**2 != outputs:
        raise Misfit(
            f"its first convolution takes {channels} channels and its last gives {outputs}; "
            "expected 3 for RGB, and 3 s^2 for an integer scale s"
        )
    if not any(_ndim(state, f"body.{place}.weight") == 1 for place in range(1, last, 2)):
        raise Misfit(
            "its activation (ReLU or leaky ReLU, with which slope) is not in the file; only "
            "SRVGGNetCompact with PReLU is read"
        )
    names = _both(f"body.{last}", "tail.0")
    for place in range(0, last, 2):
        names |= _both(f"body.{place}", f"backbone.body.{place}")
        names[f"body.{place + 1}.weight"] = f"backbone.body.{place + 1}.weight"
    return Layout({"nf": nf, "blocks": last // 2 - 1}, {}, names, scale)


_LAYOUTS: dict[str, tuple[str, Callable[[Tensors], Layout]]] = {
    "fsrcnn": ("head_conv.0.weight", _fsrcnn),
    "carn": ("entry.weight", _carn),
    "srresnet": ("conv_first.weight", _srresnet),
    "compact": ("body.0.weight", _compact),
}
# The tensor that has as many output channels as the features.
FEATURES = {backbone: first for backbone, (first, _) in _LAYOUTS.items()}


def find_layout(state: Tensors, where: str) -> tuple[str, Layout]:
    """The backbone that these tensors, named as published, are of.

    Raises:
        Misfit: of none that is known here; ``where`` says of what this is said.
    """
    for backbone, (first, read) in _LAYOUTS.items():
        if _ndim(state, first) == 4:
            return backbone, read(state)
    known = ", ".join(f"{first} ({name})" for name, first in FEATURES.items())
    raise Misfit(f"{where} is no known backbone; one of these tensors is missing: {known}")


def _both(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in WEIGHT_AND_BIAS}


def _ndim(state: Tensors, key: str) -> int:
    return state[key].ndim if key in state else -1


def _size(state: Tensors, key: str, dim: int) -> int:
    """A tensor's size, 0 where there is no such tensor or dimension."""
    return state[key].shape[dim] if _ndim(state, key) > dim else 0
