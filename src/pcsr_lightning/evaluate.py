"""The evaluating door: ``python -m pcsr_lightning.evaluate model=NAME_OR_FILE data.root=DIR``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluate_settings import EvaluateSettings
from pcsr_lightning.evaluation.benchmark import PictureScore, benchmark, check_fits
from pcsr_lightning.evaluation.pairs import Protocol, scale_pair
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.published import PublishedPoint, published_points
from pcsr_lightning.evaluation.report import (
    build_table,
    metrics,
    print_table,
    routing_words,
    write_metrics,
)
from pcsr_lightning.evaluation.sweep import sweep
from pcsr_lightning.evaluation.sweep_report import (
    FIGURE,
    SWEEP,
    draw_sweep,
    sweep_table,
    write_sweep,
)
from pcsr_lightning.evaluation.target import Found, check_target, find_k
from pcsr_lightning.hydra_door import run_hydra_door
from pcsr_lightning.inference import UpscaleResult, class_map
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.pictures import Picture, write
from pcsr_lightning.settings import typed
from pcsr_lightning.weights import DEFAULT_MODEL, load

EXAMPLE = f"python -m pcsr_lightning.evaluate model={DEFAULT_MODEL} data.root=path/to/Set14 scale=4"
UNTELLING = {"model", "last", "best", "checkpoints"}
"""Names that every training's run folder has inside."""


def evaluate(cfg: DictConfig, run_dir: Path, console: Console | None = None) -> dict[str, Any]:
    """Measures a model on a folder of pictures.

    Args:
        cfg: composed from ``conf/evaluate.yaml``.
        run_dir: where ``metrics.json``, and with ``save_images`` the folder ``pictures``, go.
        console: where the table goes; stdout if not given.

    Returns:
        What ``metrics.json`` holds, see :func:`pcsr_lightning.evaluation.metrics`; among the facts
        ``k`` (null where the routing has none) and ``target_psnr`` (null where none was asked for).

    Raises:
        PCSRError: a setting, the model or the pictures cannot be used.
    """
    if OmegaConf.is_missing(cfg.data, "root") or cfg.data.get("root") is None:
        raise ConfigError(f"data.root is missing: name a folder of pictures, such as {EXAMPLE}")
    settings = typed(cfg, EvaluateSettings)
    settings.check()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    scale, routing = scale_pair(settings.scale), settings.chosen_routing()
    device, protocol = settings.chosen_device(), Protocol(settings.protocol)
    model = load(settings.model, device)
    check_fits(model, scale, routing, protocol)
    check_target(model, routing, settings.target_psnr)
    folder = Path(settings.data.root).expanduser()
    beside = paper_rows(folder, model, scale) if settings.published else []
    console = console or Console()
    if settings.sweep is not None:
        return evaluate_sweep(settings, model, beside, run_dir, console)
    found: Found | None = None
    if settings.target_psnr is not None and isinstance(model, PCSR):
        found = find_k(
            model,
            folder,
            settings.target_psnr,
            scale,
            routing,
            protocol,
            settings.patch_size,
            progress=True,
        )
        routing = replace(routing, k=found.k)

    def keep(score: PictureScore, result: UpscaleResult) -> None:
        save_pictures(score.name, result, run_dir / "pictures")

    result = benchmark(
        model,
        folder,
        scale,
        routing,
        protocol,
        on_picture=keep if settings.save_images else None,
        progress=True,
        patch_size=settings.patch_size,
        lpips=settings.lpips,
    )
    original = isinstance(model, Original)
    layout = Layout.of(protocol, settings.patch_size)
    facts = {
        "model": settings.model,
        "backbone": model.backbone.name,
        "classes": model.num_classes if isinstance(model, PCSR) else 1,
        "routing": None if original else asdict(routing),
        "scale": list(scale) if scale[0] != scale[1] else scale[0],
        "protocol": settings.protocol,
        "patch_size": None if layout is None else layout.side,
        "target_psnr": settings.target_psnr,
        "k": routing.k if not original and routing.mode == "k" else None,
        "data_root": settings.data.root,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    facts["published"] = [asdict(point) for point in beside]
    content = metrics(result, facts)
    path = write_metrics(content, run_dir)
    words = "original" if original else routing_words(routing)
    if found is not None:
        words += (
            f" for {found.target:g} dB" if found.reached else f", nearest to {found.target:g} dB"
        )
    label = f"{model_name(settings.model)} ({words})"
    count = f"{len(result.images)} picture{'s' * (len(result.images) != 1)}"
    left_out = f", {len(result.skipped)} left out" if result.skipped else ""
    title = (
        f"{settings.data.root}: {count}{left_out}, x{settings.scale}, protocol {settings.protocol}"
        + (f" of {layout.side}, one every {layout.step}" if layout else "")
    )
    print_table(build_table(result, label, settings.per_image, title, beside), console)
    console.print(f"{path}", soft_wrap=True, highlight=False, markup=False)
    return content


def evaluate_sweep(
    settings: EvaluateSettings,
    model: PCSR | Original,
    beside: Sequence[PublishedPoint],
    run_dir: Path,
    console: Console,
) -> dict[str, Any]:
    """Scores every value of a sweep, with the network run once a picture.

    Returns:
        What ``sweep.json`` holds, see :func:`write_sweep`.

    Raises:
        ConfigError: an original model has nothing to sweep.
    """
    if isinstance(model, Original) or model.num_classes == 1:
        raise ConfigError("sweep=k: this model has one class only, no k changes anything")
    base, folder = settings.chosen_routing(), Path(settings.data.root).expanduser()
    found = sweep(
        model,
        folder,
        [replace(base, k=k) for k in settings.sweep_values],
        scale_pair(settings.scale),
        settings.protocol,
        settings.patch_size,
        progress=True,
    )
    facts = {
        "model": settings.model,
        "backbone": model.backbone.name,
        "classes": model.num_classes,
        "scale": settings.scale,
        "protocol": settings.protocol,
        "data_root": settings.data.root,
    }
    content = write_sweep(found, facts, run_dir)
    name, words = model_name(settings.model), f"x{settings.scale}, protocol {settings.protocol}"
    title = f"{name}, {settings.data.root}: {found.pictures} pictures, {words}"
    # A line of its own: the table is too narrow for it.
    console.print(title, soft_wrap=True, highlight=False, markup=False)
    print_table(sweep_table(found.points, found.bicubic_psnr, beside), console)
    draw_sweep(found.points, run_dir / FIGURE, name, f"{folder.resolve().name}, {words}", beside)
    for path in (run_dir / SWEEP, run_dir / FIGURE):
        console.print(f"{path}", soft_wrap=True, highlight=False, markup=False)
    return content


def paper_rows(
    folder: Path, model: PCSR | Original, scale: tuple[float, float]
) -> list[PublishedPoint]:
    """What the paper's tables say of a data set, known by its folder's name, and a backbone.

    Raises:
        ConfigError: they say nothing of them at this scale.
    """
    found = [
        point
        for point in published_points(folder.resolve().name, model.backbone.name, scale=None)
        if scale == (point.scale, point.scale)
    ]
    if not found:
        sets = sorted({point.dataset for point in published_points(scale=None)})
        raise ConfigError(
            f"published=true: the paper has no row for a data set called {folder.resolve().name} "
            f"with {model.backbone.name} at this scale; it knows {', '.join(sets)}"
        )
    return found


def save_pictures(name: str, result: UpscaleResult, folder: Path) -> None:
    """Writes ``NAME.png``, and where classes differ ``NAME.classes.png``, keeping sub-folders."""
    path = folder / (name if name.lower().endswith(".png") else f"{name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Picture(result.image[0]), path)
    if len(result.shares) > 1:
        colours_3HW = class_map(result.image[0], result.assignment[0], len(result.shares))
        write(Picture(colours_3HW), path.with_name(f"{path.stem}.classes.png"))


def model_name(name_or_file: str | None) -> str:
    """A model's name for a folder: a file's stem, with its run's name where that says nothing."""
    path = Path(str(name_or_file)).expanduser()
    parts = [path.stem if path.suffix in (".safetensors", ".ckpt", ".pth") else path.name]
    if parts[0] in UNTELLING:
        parts = [p for p in (*path.resolve().parts[-3:-1], parts[0]) if p != "checkpoints"][-2:]
    return re.sub(r"[^\w.=-]+", "_", "-".join(parts)).strip("._") or "model"


def run(cfg: DictConfig) -> None:
    """One job of the command line."""
    evaluate(cfg, Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    """Entry point of ``python -m pcsr_lightning.evaluate``."""
    OmegaConf.register_new_resolver("model_name", model_name, replace=True)
    run_hydra_door(run, "evaluate", EvaluateSettings)


if __name__ == "__main__":
    main()
