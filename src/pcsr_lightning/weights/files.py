"""Model files: ``X.safetensors`` with the architecture beside it in ``X.json``, or a checkpoint.

Nothing here ever executes what a file contains: safetensors hold numbers only, and checkpoints,
Lightning's and the published ones, are read with ``weights_only=True``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.errors import ConfigError, ModelFileError, shortened
from pcsr_lightning.networks import (
    PCSR,
    AnyNetwork,
    Original,
    PatchRouted,
    UnknownBackboneError,
    build_network,
    folded_state,
    unwrapped,
    without_wrappers,
)
from pcsr_lightning.weights.limits import (
    MAX_CONFIG_BYTES,
    Limited,
    TooLargeError,
    check_claims,
    check_regular,
)
from pcsr_lightning.weights.plain_pickles import read_plain
from pcsr_lightning.weights.published import read_published

FORMAT = 1
WEIGHTS_NAME, CONFIG_NAME = "model.safetensors", "config.json"
"""Of a model in a folder of its own: a training's run, or one in the layout of the Hub."""

# Raised by values of the wrong type or size in an architecture read from a file.
_UNFIT = (
    ConfigError,
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
)


def save(
    model: AnyNetwork,
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    half: bool = False,
) -> Path:
    """Writes ``path.safetensors`` and ``path.json``, each atomically.

    Args:
        model: its weights and its ``config()``.
        path: with or without a suffix.
        metadata: plain values to keep beside the architecture (training data, scores, ...);
            ``scales`` is the model's own ``trained_scales`` if it is not given.
        half: keep weight matrices and kernels in half precision, where that fits (see
            :func:`stored`). The file is about half as large; what is loaded is float32 again.

    Returns:
        The path of the ``.safetensors`` file.
    """
    path = Path(path)
    if path.suffix in (".safetensors", ".json"):
        path = path.with_suffix("")
    weights = Path(f"{path}.safetensors")
    write_model(model, Path(f"{path}.json"), weights, metadata, half=half)
    return weights


def write_model(
    model: AnyNetwork,
    config: Path,
    weights: Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    half: bool = False,
) -> None:
    """Writes the two files of a model under the names given; see :func:`save`."""
    model = unwrapped(model)
    state = folded_state(without_wrappers(model.state_dict()))
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    if half:
        tensors = {k: stored(v) for k, v in tensors.items()}
    scales = model.trained_scales
    known = {} if scales is None else {"scales": list(dict.fromkeys(scales))}
    content = {"format": FORMAT, "network": model.config(), **known, **(metadata or {})}
    text = json.dumps(content, indent=2)
    atomic_write(config, (text + "\n").encode())
    atomic_write(weights, to_bytes(tensors))


def stored(tensor: Tensor) -> Tensor:
    """``tensor`` in half precision if it is a float matrix or kernel that float16 can hold.

    Vectors stay: biases, slopes, batch-norm statistics and the mean are few and may be large or
    tiny. A matrix stays if in any of its rows rounding moves the values by more, in the root mean
    square, than the 2^-11 that float16 promises of its normal numbers: then they overflow, or are
    so small that they lose digits. By rows, since a later batch norm may enlarge a small one.
    """
    if tensor.ndim < 2 or tensor.dtype not in (torch.float32, torch.float64):
        return tensor
    half = tensor.half()
    rows = tensor.flatten(1).double()
    moved = (half.flatten(1).double() - rows).norm(dim=1)
    # Written so that a NaN fails it.
    return half if bool((moved <= 2**-11 * rows.norm(dim=1)).all()) else tensor


def load_model_file(path: Path) -> tuple[AnyNetwork, dict[str, Any]]:
    """The network in a model file, in evaluation mode on the CPU, and the metadata beside it.

    Raises:
        ModelFileError: the file is missing, damaged, or of an unknown kind; the message says which.
    """
    _check_openable(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    if path.suffix == ".ckpt":
        return _load_checkpoint(path)
    if path.suffix == ".pth":
        config, tensors, metadata = read_published(path)
        return _assemble(path, config, tensors, metadata), metadata
    raise ModelFileError(
        f"{path}: expected a .safetensors file with its .json beside it, a Lightning .ckpt, or a "
        "published .pth"
    )


def of_full_images(model: AnyNetwork, name: str | Path) -> PCSR | Original:
    """The model, if it upscales full images.

    Raises:
        ConfigError: it is one that routes patches.
    """
    if isinstance(model, PatchRouted):
        raise ConfigError(
            f"{name} is a {type(model).__name__} model, which is here to be measured beside PCSR: "
            "use python -m pcsr_lightning.evaluate with protocol=overlapped, or in Python "
            "load(..., patch_routed=True)"
        )
    return model


def _load_safetensors(path: Path) -> tuple[AnyNetwork, dict[str, Any]]:
    config_path, name = path.with_suffix(".json"), f"{path.stem}.json"
    if path.name == WEIGHTS_NAME:
        # A run folder has model.json, one that save_pretrained wrote config.json.
        name = f"{name} or {CONFIG_NAME}"
        if not config_path.exists():
            config_path = path.with_name(CONFIG_NAME)
    try:
        check_regular(config_path)
        if (size := config_path.stat().st_size) > MAX_CONFIG_BYTES:
            raise ModelFileError(f"{config_path}: {size:,} bytes, too large for an architecture")
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFileError(
            f"{path}: its architecture is missing, expected in {name} beside it"
        ) from None
    # ValueError: not UTF-8, not JSON, or a number of absurd length.
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{config_path}: cannot be read as JSON ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ModelFileError(
            f'{config_path}: expected a JSON object with "format": {FORMAT} and "network"'
        )
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{path}: cannot be read as safetensors ({error})") from None
    metadata = {k: v for k, v in config.items() if k not in ("format", "network")}
    return _assemble(path, config.get("network"), tensors, metadata), metadata


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The hyperparameters and the network's tensors in a checkpoint of a stage.

    Returns:
        The hyperparameters (``network`` the architecture, ``stage``, ``backbone``,
        ``num_classes``, ...) and the network's state dict.

    Raises:
        ModelFileError: it cannot be read, holds more than plain values, or is not of a stage.
    """
    _check_openable(path)
    content = read_plain(path)
    try:
        hparams = dict(content["hyper_parameters"])
        known = {"network", "stage", "backbone", "num_classes"} <= set(hparams)
        state = content["state_dict"].items()
        known &= all(isinstance(key, str) for key, _ in state)
    except (KeyError, TypeError, AttributeError, ValueError):
        known = False
    if not known:
        raise ModelFileError(
            f"{path}: not a checkpoint of a pcsr_lightning stage (expected "
            "hyper_parameters.network and state_dict)"
        )
    state = without_wrappers(dict(state)).items()
    return hparams, {k.removeprefix("network."): v for k, v in state if k.startswith("network.")}


def _load_checkpoint(path: Path) -> tuple[AnyNetwork, dict[str, Any]]:
    hparams, tensors = read_checkpoint(path)
    return _assemble(path, hparams.pop("network"), tensors, hparams), hparams


def read_scales(metadata: Mapping[str, Any]) -> tuple[float, float] | None:
    """The lowest and the highest scale that a model was trained for: ``scales`` of its metadata.

    ``None`` if that is missing, or not one number or two.
    """
    scales = metadata.get("scales")
    numbers = isinstance(scales, list) and all(
        isinstance(s, int | float) and math.isfinite(s) for s in scales
    )
    if not isinstance(scales, list) or not numbers or len(scales) not in (1, 2):
        return None
    return float(min(scales)), float(max(scales))


def _assemble(
    path: Path, config: Any, tensors: dict[str, Tensor], metadata: Mapping[str, Any]
) -> AnyNetwork:
    if not isinstance(config, dict):
        raise ModelFileError(
            f"{path}: its architecture should be a mapping, not {type(config).__name__}"
        )
    held: list[Any] = list(tensors.values())  # a checkpoint may say anything
    if not all(isinstance(t, Tensor) and not t.is_complex() for t in held):
        raise ModelFileError(f"{path}: some of its weights are not tensors of real numbers")
    check_claims(tensors.values(), path)
    try:
        with Limited(tensors.values()):
            model = build_network(config)
        model.load_state_dict(folded_state(tensors))
    except TooLargeError as error:
        raise ModelFileError(
            f"{path}: the architecture's sizes are not its weights': {error}"
        ) from None
    except UnknownBackboneError as error:
        raise ModelFileError(f"{path}: {shortened(error)}") from None
    except _UNFIT as error:
        raise ModelFileError(
            f"{path}: weights and architecture do not fit: {shortened(error)}"
        ) from None
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelFileError(f"{path}: {name} holds NaN or infinite values")
    model.trained_scales = read_scales(metadata)
    return model.eval()


def _check_openable(path: Path) -> None:
    try:
        check_regular(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"{path}: cannot be opened ({reason})") from None
