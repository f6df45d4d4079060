"""The model card: architecture, training, measurements and limits of a model."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pcsr_lightning.evaluation import Measurement
from pcsr_lightning.evaluation.tables import Column, markdown_table, number, scale_text
from pcsr_lightning.networks import PCSR, Original, has_bias_shifts
from pcsr_lightning.release.experiment import StageRun
from pcsr_lightning.release.robustness import Robustness

WIDTH = 100
CURVE_POINTS = 8
"""How many validations of each stage are listed, spread over its length."""
LIMITS = (
    "Made for clean pictures, downscaled by bicubic interpolation: it sharpens compression "
    "artefacts and noise instead of removing them. It adds no texture: lost detail stays smooth."
)
SMOOTHED = " It takes some of these patterns for noise and smooths them: only features are limited."
PHOTO_LIMITS = (
    "Made for photographs with noise and compression artefacts; clean pictures keep more detail "
    "with a model for those. Fine texture below the noise goes with it: a lower `denoise` keeps "
    "more of both. It adds no texture: lost detail stays smooth."
)
"""Of models whose strength of cleaning can be set."""


@dataclass(frozen=True)
class ModelCard:
    """The content of a card.

    Attributes:
        name: the model's.
        model: the trained network.
        scales: it was trained for.
        made: Markdown: how it was trained, and the command that does it again.
        about_data: what it was trained and validated on, with licences.
        measured: on the test sets; may be empty.
        robust: what synthetic pictures do to it.
    """

    name: str
    model: PCSR | Original
    scales: Sequence[float]
    made: str
    about_data: str
    measured: Sequence[Measurement]
    robust: Sequence[Robustness]


def write_card(card: ModelCard) -> str:
    """The card as Markdown."""
    parts = [
        f"# {card.name}",
        _fill(_what(card)),
        "## Trained on",
        card.about_data.strip(),
        "## Schedule",
        card.made.strip(),
        *_tables(card),
        "## Pictures unlike photographs",
        *_robustness(card),
        "## Limits",
        _fill(
            f"{PHOTO_LIMITS if has_bias_shifts(card.model) else LIMITS} "
            f"{_trained_scales(card.scales)}"
        ),
    ]
    return "\n\n".join(parts) + "\n"


def schedule(runs: Sequence[StageRun], commit: str, seed: int, command: str) -> str:
    """How stages were trained by one command, as Markdown.

    Args:
        runs: the stages in order.
        commit: of the code, or its version.
        seed: of the training.
        command: that makes it.
    """
    parts = [
        _fill(
            f"Seed {seed}, code of {commit}. Each stage with its settings, and validation "
            "PSNR (RGB; routed at k = 0 if there are classes) after the given number of steps:"
        ),
        "\n".join(_stage(run) for run in runs),
        "One command trains it; after an interruption the same command continues:",
        f"```\n{command}\n```",
    ]
    return "\n\n".join(parts)


def _robustness(card: ModelCard) -> list[str]:
    robust = card.robust
    several = len({r.scale for r in robust}) > 1
    lines = ["| picture | off by, of 255 | allowed | largest feature |", "|---|---|---|---|"]
    for r in robust:
        features = "" if r.features is None else f"{r.features:.2f}"
        at = f", x{r.scale}" if several else ""
        lines.append(f"| {r.pattern}{at} | {r.off:.0f} | {r.allowed:.0f} | {features} |")
    text = (
        "Off by: the largest difference between an LR pixel and the mean of the result over its "
        "area, at k = 0. Allowed: 50, or the error of the paper's own weights of the same backbone "
        "(60, or the error of another backbone, if there are none). Largest feature: relative to a "
        "photograph's, at most 10."
        f"{SMOOTHED if has_bias_shifts(card.model) else ''}"
    )
    return [_fill(text), "\n".join(lines)]


def _what(card: ModelCard) -> str:
    model, config = card.model, card.model.config()
    args = {k: v for k, v in config["backbone"].items() if k not in ("name", "class")}
    arguments = ", ".join(f"{k}={v}" for k, v in args.items())
    backbone = f"{config['backbone']['name']} ({arguments})"
    parameters = f"{sum(p.numel() for p in model.parameters()):,} parameters."
    if isinstance(model, Original):
        return (
            f"The original model, for comparison with PCSR: {backbone} with its own upsampling "
            f"tail for x{model.scale}. {parameters}"
        )
    widths = "; ".join(
        "-".join(str(w) for w in hidden) or "none (bilinear)" for hidden in config["upsamplers"]
    )
    hidden = config["classifier"]
    classifier = "-".join(str(w) for w in hidden) if hidden else "linear"
    strength = " Its strength of cleaning can be set (`denoise`)." if has_bias_shifts(model) else ""
    return (
        f"PCSR with {model.num_classes} classes: backbone {backbone}, upsamplers {widths}, "
        f"classifier {classifier}. {parameters}{strength}"
    )


def _trained_scales(scales: Sequence[float]) -> str:
    if len(scales) == 1:
        return f"Trained at x{scales[0]:g} only; other scales work, but were not trained for."
    return f"Trained at scales from {scales[0]:g} to {scales[-1]:g}; beyond them it extrapolates."


def _stage(run: StageRun) -> str:
    stage = f"stage {run.label}: `{' '.join(run.settings())}`"
    return f"- {stage}\n  - {describe_validation(learning_curve(run.folder))}"


def learning_curve(folder: Path) -> list[tuple[int, float]]:
    """``(steps done, validation PSNR in dB)`` of a run, over all its interruptions."""
    curve: dict[int, float] = {}
    for path in sorted(folder.glob("logs*/metrics.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row.get("val/psnr"):
                    curve[int(row["step"]) + 1] = float(row["val/psnr"])
    return sorted(curve.items())


def describe_validation(curve: Sequence[tuple[int, float]]) -> str:
    """A learning curve as text, at no more than ``CURVE_POINTS`` places."""
    if not curve:
        return "no validation was logged"
    last = len(curve) - 1
    count = min(CURVE_POINTS, len(curve))
    chosen = sorted({round(last * (n + 1) / count) for n in range(count)} | {last})
    return ", ".join(f"{curve[n][1]:.2f} dB after {curve[n][0]:,}" for n in chosen)


def _tables(card: ModelCard) -> list[str]:
    if not card.measured:
        return []
    parts = [
        "## Measured",
        _fill(
            "RGB PSNR by the tables' protocol, proportional cost, refinement from x4 up: "
            "`python -m pcsr_lightning.evaluate model=NAME data.root=DIR protocol=published "
            "routing.cost=proportional routing.k=K`. The test sets were used for nothing else."
        ),
    ]
    for (dataset, scale), rows in groupby(card.measured, lambda m: (m.dataset, m.scale)):
        found = sorted(rows, key=lambda m: m.gmacs)
        columns = [
            Column[Measurement](
                f"{dataset}, x{scale_text(scale)}", lambda row: row.name or row.routing_name
            ),
            *map(number, ("psnr", "gmacs", "gflops_published")),
            Column("heaviest class", _heaviest),
        ]
        parts.append(markdown_table(columns, [found[0].bicubic_row(), *found]))
    return parts


def _heaviest(row: Measurement) -> str:
    return f"{100 * row.share[0]:.0f} %" if row.share else "-"


def _fill(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
