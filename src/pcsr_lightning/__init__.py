"""PCSR: a picture's pixels are sorted by difficulty, and each is paid for accordingly.

Example:
    >>> import torch, pcsr_lightning
    >>> model = pcsr_lightning.load("fsrcnn-pcsr-x4")
    >>> result = pcsr_lightning.upscale(model, torch.rand(1, 3, 60, 80), scale=4, k=0.0)
    >>> result.image.shape, result.flops.gmacs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from pcsr_lightning.inference import upscale as upscale
    from pcsr_lightning.weights import list_models as list_models
    from pcsr_lightning.weights import load as load

    __version__: str

__all__ = ["__version__", "conf_dir", "list_models", "load", "upscale"]


def conf_dir() -> Path:
    """The folder of Hydra configs: ``conf/`` of a checkout, or the copy inside the installed wheel.

    Raises:
        ConfigError: neither is there.
    """
    from pathlib import Path

    from pcsr_lightning.errors import ConfigError

    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError(f"the configs are missing: no train.yaml in {package / 'conf'}; reinstall")


def __getattr__(name: str) -> Any:
    """Fetches the public names when they are first asked for: importing the package stays cheap."""
    if name == "upscale":
        from pcsr_lightning.inference import upscale

        return upscale
    if name in ("load", "list_models"):
        from pcsr_lightning import weights

        return getattr(weights, name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("pcsr-lightning")
    except metadata.PackageNotFoundError:
        # Run from a source tree that is not installed.
        return "0+unknown"
