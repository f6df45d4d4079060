"""Models by name: the released ones, and whatever file or run folder a path points at."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Literal, overload

import torch

from pcsr_lightning.errors import ModelFileError, check_path
from pcsr_lightning.networks import PCSR, AnyNetwork, Original, fix_strength
from pcsr_lightning.weights.files import load_model_file, of_full_images
from pcsr_lightning.weights.hub import from_pretrained, is_repo_id

DEFAULT_MODEL = "carn-pcsr-multi"
RELEASED = Path(__file__).parent / "released"
"""What ships with the package: six megabytes at most, all together."""
CHECKOUT = Path(__file__).resolve().parents[3] / "models"
"""What is too large for that; a checkout has it, an installed wheel does not."""


def list_models() -> list[str]:
    """The names of the released models: those of the package, and in a checkout of ``models/``."""
    return sorted(path.stem for folder in _folders() for path in folder.glob("*.safetensors"))


def _folders() -> list[Path]:
    # Beside an installed wheel, a folder of that name could belong to something else.
    checkout = CHECKOUT.with_name("pyproject.toml").is_file()
    return [RELEASED, CHECKOUT] if checkout else [RELEASED]


def find_model(name_or_file: str | Path) -> Path:
    """The model file that a name or a path means.

    A path may be a ``.safetensors`` or ``.ckpt`` file, a published ``.pth`` checkpoint, the run
    folder of a training, whose last weights are then taken, or a folder that ``save_pretrained``
    wrote.

    Raises:
        ModelFileError: neither a released model nor an existing file.
        ConfigError: an empty name.
    """
    check_path("model", name_or_file, "NAME_OR_FILE")
    if str(name_or_file) in list_models():
        files = (folder / f"{name_or_file}.safetensors" for folder in _folders())
        return next(file for file in files if file.is_file())
    try:
        path = Path(name_or_file).expanduser()
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    # RuntimeError: there is no such user, whose folder ~ would be.
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"{name_or_file}: cannot be opened ({reason})") from None
    if stat.S_ISDIR(mode):
        for inside in ("model.safetensors", "checkpoints/last.ckpt"):
            if (path / inside).is_file():
                return path / inside
        raise ModelFileError(
            f"{path}: a folder without model.safetensors or checkpoints/last.ckpt in it; expected "
            "the run folder of a training or one that save_pretrained wrote"
        )
    if stat.S_ISREG(mode):
        return path
    if mode:
        raise ModelFileError(f"{path}: is a pipe, socket or device, not a model file")
    raise ModelFileError(
        f"no model is called {str(name_or_file)!r} and no such file exists; expected a released "
        f"model ({', '.join(list_models()) or 'none here'}), a .safetensors, .ckpt or published "
        ".pth file, a run folder, a folder of save_pretrained, or owner/name on the Hugging Face "
        "Hub, which is asked where there is no folder owner here"
    )


@overload
def load(
    name_or_file: str | Path,
    device: torch.device | str = ...,
    denoise: float | None = ...,
    *,
    patch_routed: Literal[False] = ...,
) -> PCSR | Original: ...


@overload
def load(
    name_or_file: str | Path,
    device: torch.device | str = ...,
    denoise: float | None = ...,
    *,
    patch_routed: bool,
) -> AnyNetwork: ...


def load(
    name_or_file: str | Path,
    device: torch.device | str = "cpu",
    denoise: float | None = None,
    *,
    patch_routed: bool = False,
) -> AnyNetwork:
    """A trained network, in evaluation mode on ``device``.

    Args:
        name_or_file: a released model's name (see :func:`list_models`), a ``.safetensors`` or
            ``.ckpt`` file, a ``.pth`` checkpoint of the published PCSR or of Real-ESRGAN's compact
            network (``SRVGGNetCompact``), a run folder, a folder that ``save_pretrained`` wrote, or
            a model ``owner/name`` on the Hugging Face Hub. The Hub is asked only where there is
            neither such a file nor a folder ``owner``.
        device: where to put it.
        denoise: how much it cleans, from 0 (noise and compression stay) to 1, of a model that was
            trained for that (``denoise=true``); ``None`` for all it can.
        patch_routed: whether it may be a ClassSR or ARM model, which works on patches alone.

    Raises:
        ModelFileError: no such model, or a damaged or foreign file.
        ConfigError: a strength out of range, or of a model that has none; or a model that routes
            patches, unless these are taken.

    Example:
        >>> model = load("fsrcnn-pcsr-x4")
        >>> model.num_classes
        2
    """
    model: AnyNetwork
    if is_repo_id(name_or_file):
        model = from_pretrained(name_or_file, map_location=device)
    else:
        model, _ = load_model_file(find_model(name_or_file))
    if not patch_routed:
        model = of_full_images(model, name_or_file)
    if denoise is not None:
        fix_strength(model, denoise)
    return model.to(device)
