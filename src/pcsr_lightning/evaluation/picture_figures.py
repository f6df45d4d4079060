"""The paper's kinds of figures for one picture: what ``pcsr figures`` draws."""

from __future__ import annotations

from pathlib import Path

from pcsr_lightning.evaluation.curves import psnr_flops
from pcsr_lightning.evaluation.demo import SCALE, prepare
from pcsr_lightning.evaluation.figures import Panel, save_figure, side_by_side, telling_boxes
from pcsr_lightning.evaluation.measurement import Measurement, decibels
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.oracle import Oracle
from pcsr_lightning.evaluation.plots import difficulty_density, refinement_pair
from pcsr_lightning.evaluation.published import published_points
from pcsr_lightning.images import bicubic
from pcsr_lightning.inference import RoutingConfig, Session, class_map
from pcsr_lightning.networks import PCSR

SWEEP = (-1.0, -0.5, -0.25, 0.0, 0.5, 1.0, 2.0)
PUBLISHED_SET = "Test2K"
"""Whose published points stand beside the sweep of a picture."""


def figures(picture: Path, model: PCSR, name: str, out: Path, oracle: bool = False) -> list[Path]:
    """Shrinks a photograph, upscales it again under many routings, and draws what came out.

    Args:
        picture: any picture file; cut to a multiple of 4.
        model: with two classes or more.
        name: what to call it.
        out: a folder, made where missing.
        oracle: draws also what the best classifier would reach, and where this one errs.

    Returns:
        The figures: ``psnr_flops.png``, ``difficulty.png``, ``refinement.png``, ``class_map.png``;
        with ``oracle`` also ``regret.png``.

    Raises:
        PCSRError: the picture cannot be used, or the model has one class.
    """
    pair = prepare(picture, model, out)
    session = Session(model, pair.lr_13hw, SCALE)
    runs = {k: session.run(RoutingConfig(k=k)) for k in SWEEP}
    decibel = {k: psnr(run.image, pair.hr_13HW, SCALE) for k, run in runs.items()}
    at_0, classes_HW = runs[0.0], runs[0.0].assignment[0]
    rough = session.run(RoutingConfig(k=0.0, refine=False))
    theirs = published_points(PUBLISHED_SET, model.backbone.name, SCALE)
    bound = Oracle(model, pair, (SCALE, SCALE)) if oracle else None
    drawn = {
        "psnr_flops": psnr_flops(
            [
                Measurement(routing=RoutingConfig(k=k)).of_result(run, psnr=decibel[k])
                for k, run in runs.items()
            ],
            [point for point in theirs if point.source == theirs[0].source],  # the main comparison
            name=f"{name} (ours)",
            title=f"{picture.name}, x{SCALE}",
            beside=f"the paper, {PUBLISHED_SET}, x{SCALE}",
            bound=bound.sweep([RoutingConfig(k=k) for k in SWEEP]) if bound else (),
        ),
        "difficulty": difficulty_density(
            session.logits, title=f"{picture.name}, x{SCALE}, {model.num_classes} classes"
        ),
        "refinement": refinement_pair(
            rough.image[0],
            at_0.image[0],
            classes_HW,
            model.num_classes,
            captions=(
                # three decimals: refinement moves the mean by thousandths
                f"without refinement, {psnr(rough.image, pair.hr_13HW, SCALE):.3f} dB",
                f"with refinement, {decibel[0.0]:.3f} dB",
            ),
        ),
        "class_map": side_by_side(
            [
                Panel(f"PCSR at k = 0, {decibels(decibel[0.0])} dB", at_0.image[0]),
                Panel("classes", class_map(at_0.image[0], classes_HW, model.num_classes)),
            ],
            telling_boxes(
                bicubic(pair.lr_13hw, session.size)[0],
                at_0.image[0],
                pair.hr_13HW[0],
                classes_HW,
                model.num_classes,
            ),
            shares=(1, at_0.shares),
        ),
    }
    if bound is not None:
        drawn["regret"] = side_by_side(
            [
                Panel("classes", class_map(at_0.image[0], classes_HW, model.num_classes)),
                Panel("regret", bound.regret_map(RoutingConfig(k=0.0))),
            ],
            shares=(0, at_0.shares),
        )
    paths = []
    for stem, figure in drawn.items():
        paths.append(out / f"{stem}.png")
        save_figure(figure, paths[-1])
    return paths
