"""Where an evaluation keeps the pictures that it upscales, and their class maps."""

from __future__ import annotations

from pathlib import Path

from pcsr_lightning.evaluation.oracle import Oracle
from pcsr_lightning.images import Picture, write
from pcsr_lightning.images.picture import floats
from pcsr_lightning.inference import RoutingConfig, UpscaleResult, class_map


def save_pictures(name: str, result: UpscaleResult, folder: Path) -> None:
    """Writes ``NAME.png``, and where classes differ ``NAME.classes.png``, keeping sub-folders."""
    path = picture_file(name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Picture(result.image[0]), path)
    if len(result.shares) > 1:
        colours_3HW = class_map(floats(result.image[0]), result.assignment[0], len(result.shares))
        write(Picture(colours_3HW), class_file(path))


def save_regret(routing: RoutingConfig, folder: Path, name: str, oracle: Oracle) -> None:
    """Writes ``NAME.regret.png``, see :meth:`Oracle.regret_map`."""
    path = picture_file(name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Picture(oracle.regret_map(routing)), path.with_name(f"{path.stem}.regret.png"))


def picture_file(name: str, folder: Path) -> Path:
    """Where an upscaled picture is kept."""
    return folder / (name if name.lower().endswith(".png") else f"{name}.png")


def class_file(path: Path) -> Path:
    """Where its class map is kept."""
    return path.with_name(f"{path.stem}.classes.png")
