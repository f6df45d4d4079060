"""Published checkpoints as this library's networks: PCSR's, and Real-ESRGAN's compact ones.

A file of PCSR holds ``{"model": {"name", "args", "sd"}, ...}``: an original model, or PCSR of one
class (``pcsr-phase0``) or two (``pcsr-phase1``). One of Real-ESRGAN holds the tensors alone, under
``params_ema``, ``params`` or nothing. Every tensor is carried over by its name; one that is
missing, or that no name stands for, is an error.

Two things differ in PCSR's: the classifier's outputs are ordered light, heavy, and the first layer
of an MLP is one matrix over ``[z, dy, dx, cell_y, cell_x]``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcsr_lightning.errors import ModelFileError, shortened
from pcsr_lightning.networks import default_config
from pcsr_lightning.weights.plain_pickles import read_plain
from pcsr_lightning.weights.published_layouts import (
    FEATURES,
    WEIGHT_AND_BIAS,
    Layout,
    Misfit,
    Tensors,
    find_layout,
)

OFFSETS = 4
"""Inputs of an MLP after the features: ``dy, dx, cell_y, cell_x``."""


def read_published(path: Path) -> tuple[dict[str, Any], Tensors, dict[str, Any]]:
    """Reads a published checkpoint.

    Returns:
        Our config of the network, its tensors under our names, and metadata on their origin.

    Raises:
        ModelFileError: it is not one; the message says what is missing.
    """
    try:
        name, args, state = _open(path)
        split = any(key.startswith("encoder.") for key in state)
        config, tensors = _pcsr(args, state) if split else _original(name, args, state)
    except Misfit as misfit:
        raise ModelFileError(
            f"{path}: not a published checkpoint of a kind that is read: {shortened(misfit)}"
        ) from None
    tensors["mean"] = torch.tensor(config["mean"], dtype=torch.float32)
    return config, tensors, {"imported": {"file": path.name, "model": name}}


def _open(path: Path) -> tuple[str, dict[str, Any], Tensors]:
    content = read_plain(path)
    elsewhere = _real_esrgan(content)
    if elsewhere is not None:
        return COMPACT, {}, _named_tensors(elsewhere)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        held = f" (it holds {_some(content)})" if isinstance(content, dict) and content else ""
        raise Misfit(f"'model' with 'name', 'args' and 'sd' is missing{held}")
    model = content["model"]
    lacking = [key for key, kind in _PARTS.items() if not isinstance(model.get(key), kind)]
    if lacking:
        raise Misfit(f"its 'model' lacks {', '.join(lacking)}")
    return model["name"], model["args"], _named_tensors(model["sd"])


_PARTS = {"name": str, "args": dict, "sd": dict}

COMPACT = "SRVGGNetCompact"
_OTHERS = {
    ".rdb1.conv1.": "RRDBNet, Real-ESRGAN's large network",
    ".RDB1.conv1.": "RRDBNet, ESRGAN's network",
    ".overlap_attn.": "HAT",
    ".residual_group.": "SwinIR or a transformer like it",
}
"""Well-known networks by a part of their tensors' names."""


def _real_esrgan(content: Any) -> dict[Any, Any] | None:
    """The tensors in a file laid out as Real-ESRGAN's; ``None`` if it is laid out otherwise.

    Raises:
        Misfit: they are of another network than the compact one; it is named where it is known.
    """
    if not isinstance(content, dict):
        return None
    inner = (content.get(key) for key in ("params_ema", "params"))
    state = next((one for one in inner if isinstance(one, dict)), content)
    first = state.get(FEATURES["compact"])
    if isinstance(first, Tensor) and first.ndim == 4:
        return state
    if not any(isinstance(value, Tensor) for value in state.values()):
        return None
    names = [str(key) for key in state]
    known = (said for part, said in _OTHERS.items() if any(part in name for name in names))
    found = next(known, f"an unknown network ({_some(names)})")
    raise Misfit(f"it holds {found}; of networks from elsewhere, {COMPACT} is read")


def _named_tensors(content: Mapping[Any, Any]) -> Tensors:
    state: Tensors = {}
    for key, value in content.items():
        counts = str(key).endswith(".num_batches_tracked")
        plain = isinstance(value, Tensor) and value.layout == torch.strided
        if not isinstance(key, str) or not plain or value.device.type != "cpu":
            raise Misfit(f"{key!r} is not a named tensor")
        if not (value.is_floating_point() or counts):
            raise Misfit(f"{key} holds {value.dtype}, not floating-point weights")
        state[key] = value
    return state


def _original(name: str, args: Mapping[str, Any], state: Tensors) -> tuple[dict[str, Any], Tensors]:
    backbone, layout = find_layout(state, "its 'sd'")
    _compare(layout.names, state)
    _check_args(f"'{name}'", args, layout)
    said = args.get("upscale", args.get("scale"))
    scale = said if layout.scale is None else layout.scale
    if scale == 0:
        raise Misfit(f"the upsampling tail of {backbone} is missing")
    if not isinstance(scale, int) or (said is not None and said != scale):
        raise Misfit(f"model.args says scale {said!r}, its tensors {layout.scale or 'no other'}")
    config = {
        "kind": "original",
        "backbone": {"name": backbone, **layout.args},
        "scale": scale,
        "mean": default_config(backbone)["mean"],
    }
    return config, {ours: state[theirs] for theirs, ours in layout.names.items()}


def _pcsr(args: Mapping[str, Any], state: Tensors) -> tuple[dict[str, Any], Tensors]:
    parts: dict[str, Tensors] = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = value
    light = {"light_sampler", "classifier"}
    wanted = {"encoder", "heavy_sampler"} | (light if light & set(parts) else set())
    _compare(wanted, parts, "part")
    encoder = parts["encoder"]
    backbone, layout = find_layout(encoder, "its encoder")
    if layout.scale != 0:
        raise Misfit("its encoder has an upsampling tail of its own")
    _compare([f"encoder.{n}" for n in layout.names], [f"encoder.{n}" for n in encoder])
    _check_args("encoder_spec", _inner(args, "encoder_spec"), layout)
    tensors = {ours: encoder[theirs] for theirs, ours in layout.names.items()}

    config = default_config(backbone, num_classes=1)
    config["backbone"] = {"name": backbone, **layout.args}
    channels = encoder[FEATURES[backbone]].shape[0]
    hidden = {}
    for part, ours, outputs in _MLPS:
        if part in parts:
            hidden[part], found = _mlp(part, parts[part], channels, outputs)
            tensors |= {f"{ours}.{name}": value for name, value in found.items()}
            said = _inner(_inner(args, f"{part}_spec"), "imnet_spec").get("hidden_list")
            if said is not None and said != hidden[part]:
                raise Misfit(f"{part} has hidden layers {hidden[part]}, model.args says {said}")
    config["upsamplers"] = [hidden[part] for part, _, _ in _MLPS[:2] if part in hidden]
    config["classifier"] = hidden.get("classifier")
    return config, tensors


_MLPS = [
    ("heavy_sampler", "upsamplers.0", 3),
    ("light_sampler", "upsamplers.1", 3),
    ("classifier", "classifier", 2),
]


def _mlp(part: str, state: Tensors, channels: int, outputs: int) -> tuple[list[int], Tensors]:
    """An MLP's hidden widths, and its tensors under our names."""
    count = 0
    while f"imnet.layers.{2 * count}.weight" in state:  # linear layers, with ReLUs between them
        count += 1
    places = [2 * i for i in range(max(count, 1))]
    theirs = [f"imnet.layers.{place}.{kind}" for place in places for kind in WEIGHT_AND_BIAS]
    _compare([f"{part}.{n}" for n in theirs], [f"{part}.{n}" for n in state])
    layers = [[state[f"imnet.layers.{p}.{kind}"] for kind in WEIGHT_AND_BIAS] for p in places]
    if part == "classifier":
        layers[-1] = [value.flip(0) for value in layers[-1]]  # heavy, light
    taken, widths = channels + OFFSETS, []
    for place, (weight, bias) in zip(places, layers, strict=True):
        if weight.ndim != 2 or weight.shape[1] != taken or bias.shape != weight.shape[:1]:
            raise Misfit(
                f"{part}.imnet.layers.{place}.weight is {list(weight.shape)} where {taken} inputs "
                "arrive"
            )
        taken = weight.shape[0]
        widths.append(taken)
    if taken != outputs:
        raise Misfit(f"{part} has {taken} outputs where {outputs} were expected")
    first, bias = layers[0]
    ours = {
        "project.weight": first[:, :channels],
        "project.bias": bias,
        "offset.weight": first[:, channels:],
    }
    for place, values in zip(places[1:], layers[1:], strict=True):
        for kind, value in zip(WEIGHT_AND_BIAS, values, strict=True):
            ours[f"tail.{place - 1}.{kind}"] = value
    return widths[:-1], ours


def _check_args(where: str, args: Mapping[str, Any], layout: Layout) -> None:
    inner = args.get("args", args)
    for key, found in layout.theirs.items():
        said = inner.get(key, found) if isinstance(inner, dict) else found
        if said != found:
            raise Misfit(f"{where} says {key}={said!r} where its tensors have {found}")


def _inner(args: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The arguments in a published ``{"name", "args"}`` entry; empty where there is none."""
    entry = args.get(key)
    inner = entry.get("args") if isinstance(entry, dict) else None
    return inner if isinstance(inner, dict) else {}


def _compare(wanted: Collection[str], found: Collection[str], what: str = "tensor") -> None:
    missing, unknown = set(wanted) - set(found), set(found) - set(wanted)
    for names, problem in ((missing, "missing"), (unknown, "unknown")):
        if names:
            raise Misfit(f"{problem} {what}{'s' * (len(names) > 1)}: {_some(names)}")


def _some(names: Collection[Any]) -> str:
    shown = sorted(str(name) for name in names)
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
