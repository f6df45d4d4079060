"""The pictures of the documentation, made by the library from what ships with it.

    python docs/figures.py             # writes how-*, choosing-* and figures.json into docs/images
    python docs/figures.py --out DIR   # somewhere else

Everything that the pages say of these pictures is in ``figures.json``.

Legend: H W HR size, M classes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from figure_hoisting import hoisting
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.evaluation import make_pair, psnr
from pcsr_lightning.evaluation.plots import adaptive_thresholds, refinement_pair
from pcsr_lightning.images import read_rgb8
from pcsr_lightning.inference import (
    RoutingConfig,
    Session,
    UpscaleResult,
    all_heavy_flops,
    class_colours,
    class_map,
)
from pcsr_lightning.networks import PCSR, branch_macs
from pcsr_lightning.routing import CostRule
from pcsr_lightning.routing.adm import difficulty
from pcsr_lightning.routing.cost import class_costs

SCALE = 4
HERE = Path(__file__).parent
PHOTOS = {
    "coffee": "valid/coffee.png",
    "rocket": "train/rocket.jpg",
    "astronaut": "train/astronaut.png",
    "grass": "train/grass.png",
}
COLOURS = {"coffee": "#8c510a", "rocket": "#2166ac", "astronaut": "#762a83", "grass": "#1b7837"}
KS = (-0.5, 0.0, 0.5, 2.0)
THRESHOLDS = (-4.0, -2.0, 0.0, 2.0, 4.0)
CURVE = (-2.0, -1.0, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
BUDGETS = (0.55, 0.7)


class Photo(NamedTuple):
    """A shipped photograph, shrunk by 4 and looked at once."""

    name: str
    hr_13HW: Tensor
    session: Session
    heavy_gmacs: float

    @classmethod
    def of(cls, model: PCSR, name: str) -> Photo:
        """Runs the backbone and the classifier."""
        pair = make_pair(read_rgb8(SAMPLE_FOLDER / PHOTOS[name]), (SCALE, SCALE))
        session = Session(model, pair.lr_13hw, SCALE)
        H, W = pair.hr_13HW.shape[-2:]
        whole = all_heavy_flops(model, (H // SCALE, W // SCALE), (H, W)).gmacs
        return cls(name, pair.hr_13HW, session, whole)

    def run(self, routing: RoutingConfig) -> tuple[UpscaleResult, dict[str, float]]:
        """The enlarged photograph, and what is said of it."""
        result = self.session.run(routing)
        return result, {
            "psnr": round(psnr(result.image, self.hr_13HW, SCALE), 3),
            "of_all_heavy": round(result.flops.gmacs / self.heavy_gmacs, 4),
            "heavy_share": round(result.shares[0], 4),
        }


def figure(width: float, height: float) -> Figure:
    """An empty figure, drawn without a display."""
    layout = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05, wspace=0.02, hspace=0.02)
    return Figure(figsize=(width, height), dpi=130, layout=layout)


def show(axes: Axes, image_3HW: Tensor, title: str = "", below: str = "") -> None:
    """A picture without axes."""
    axes.imshow(image_3HW.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(below, fontsize=9.5)


def plain(axes: Axes) -> None:
    """A plot without its box."""
    axes.spines[["top", "right"]].set_visible(False)


def classes_over_k(photo: Photo) -> tuple[Figure, Any]:
    """One trained model, four values of ``k``: result and class map of each."""
    drawn, said = figure(13, 4.9), {}
    axes = drawn.subplots(2, len(KS))
    M = photo.session.model.num_classes
    for column, k in enumerate(KS):
        result, numbers = photo.run(RoutingConfig(k=k))
        said[f"{k:g}"] = numbers
        below = (
            f"{numbers['psnr']:.2f} dB, {100 * numbers['of_all_heavy']:.0f} % of all heavy's cost, "
            f"{100 * numbers['heavy_share']:.0f} % heavy"
        )
        show(axes[0, column], result.image[0], f"k = {k:g}")
        mapped = class_map(result.image[0], result.assignment[0], M, opacity=0.6)
        show(axes[1, column], mapped, below=below)
    return drawn, said


def threshold(photo: Photo) -> tuple[Figure, Any]:
    """For two classes ``k`` is one threshold on the probability of the heavy one."""
    model = photo.session.model
    costs_M = class_costs(branch_macs(model).branches(SCALE), CostRule.SOFTMAX)
    # p0 / c0^k >= p1 / c1^k, with p1 = 1 - p0
    at = {k: float(torch.sigmoid(k * (costs_M[0].log() - costs_M[1].log()))) for k in THRESHOLDS}
    prob_HW = photo.session.logits.softmax(dim=1)[0, 0]
    drawn = figure(13, 3.9)
    left, right = drawn.subplots(1, 2, width_ratios=[1, 1.35])
    left.imshow(prob_HW.numpy(), cmap="RdYlBu_r", vmin=0, vmax=1)
    left.set_xticks([])
    left.set_yticks([])
    left.spines[:].set_visible(False)
    left.set_title("what the classifier says: probability of the heavy class", fontsize=11)
    light, heavy = class_colours(2).flip(0).tolist()
    for part, edges, colour in (
        (prob_HW < at[0.0], bins(0.0, at[0.0]), light),
        (prob_HW >= at[0.0], bins(at[0.0], 1), heavy),
    ):
        right.hist(prob_HW[part].numpy(), bins=edges, color=colour, alpha=0.75)
    right.set_yscale("log")
    top = right.get_ylim()[1]
    for k, where in at.items():
        right.axvline(where, color="black", linestyle="-" if k == 0 else ":", linewidth=1.4)
        right.text(where, top * 1.15, f"k = {k:g}", ha="center", fontsize=9)
    right.set(xlim=(0, 1), xlabel="probability of the heavy class", ylabel="pixels")
    plain(right)
    heavier = {f"{k:g}": round(float((prob_HW >= cut).float().mean()), 4) for k, cut in at.items()}
    thresholds = {f"{k:g}": round(where, 4) for k, where in at.items()}
    return drawn, {
        "costs": [round(c, 4) for c in costs_M.tolist()],
        "thresholds": thresholds,
        "heavy": heavier,
    }


def clusters(photos: Sequence[Photo]) -> tuple[Figure, Any]:
    """ADM: each picture's difficulties in groups of their own."""
    drawn, said = figure(13, 3.3 * len(photos)), {}
    axes = drawn.subplots(len(photos), 2, width_ratios=[1, 1.6], squeeze=False)
    for row, photo in enumerate(photos):
        M = photo.session.model.num_classes
        result, numbers = photo.run(RoutingConfig("adaptive"))
        _, at_0 = photo.run(RoutingConfig(k=0.0))
        borders = adaptive_thresholds(photo.session.logits)
        said[photo.name] = {
            "borders": [round(border, 4) for border in borders],
            "adaptive": numbers,
            "k=0": at_0,
            "shares": [round(share, 4) for share in result.shares],
        }
        mapped = class_map(result.image[0], result.assignment[0], M, opacity=0.6)
        show(axes[row, 0], mapped, photo.name)
        hard_HW = difficulty(photo.session.logits)[0]
        edges, low = [0.0, *borders, 1.0], float(hard_HW.min())
        for j, colour in enumerate(class_colours(M).flip(0).tolist()):
            inside = hard_HW[(hard_HW > edges[j]) & (hard_HW <= edges[j + 1])]
            share = result.shares[M - 1 - j]
            name = {0: "light", M - 1: "heavy"}.get(j, "middle")
            axes[row, 1].hist(
                inside.numpy(),
                bins=bins(max(edges[j], low), edges[j + 1]),
                color=colour,
                label=f"{name}: {100 * share:.0f} % of the pixels",
            )
        for border in borders:
            axes[row, 1].axvline(border, color="black", linestyle=":", linewidth=1.4)
        axes[row, 1].set(yscale="log", ylabel="pixels", xlim=(0, 1))
        axes[row, 1].legend(fontsize=9, frameon=False, loc="upper right")
        plain(axes[row, 1])
    axes[-1, 1].set_xlabel("difficulty: probability of the heavy half of the classes")
    return drawn, said


def bins(low: float, high: float) -> list[float]:
    """Edges from one number to another, all about as far apart."""
    return torch.linspace(low, high, 1 + max(1, round((high - low) / 0.008))).tolist()


def seams(photo: Photo) -> tuple[Figure, Any]:
    """What refinement changes."""
    rough, off = photo.run(RoutingConfig(k=0.5, refine=False))
    fine, on = photo.run(RoutingConfig(k=0.5))
    M = photo.session.model.num_classes
    captions = (f"without, {off['psnr']:.3f} dB", f"with refinement, {on['psnr']:.3f} dB")
    drawn = refinement_pair(rough.image[0], fine.image[0], fine.assignment[0], M, captions)
    return drawn, {"off": off, "on": on}


def curves(photos: Sequence[Photo]) -> tuple[Figure, Any]:
    """Gain over all light against cost, for the same model on different pictures."""
    drawn, said = figure(8.6, 4.8), {}
    axes = drawn.subplots()
    for photo in photos:
        colour = COLOURS[photo.name]
        _, light = photo.run(RoutingConfig(fixed_class=1))
        points: dict[str, dict[str, float]] = {"all light": light}
        points |= {f"k={k:g}": photo.run(RoutingConfig(k=k))[1] for k in CURVE}
        points["adaptive"] = photo.run(RoutingConfig("adaptive"))[1]
        points |= {f"budget={b:g}": photo.run(RoutingConfig(budget=b))[1] for b in BUDGETS}
        points["all heavy"] = photo.run(RoutingConfig(fixed_class=0))[1]
        said[photo.name] = points
        line = [points[f"k={k:g}"] for k in reversed(CURVE)]
        axes.plot(*gains(line, light), color=colour, linewidth=1.4, label=photo.name)
        marks = {"o": ["k=0"], "D": ["adaptive"], "s": [f"budget={b:g}" for b in BUDGETS]}
        for marker, names in marks.items():
            x, y = gains([points[name] for name in names], light)
            axes.plot(x, y, marker, color=colour, markersize=7, markeredgecolor="white")
    for marker, name in {"o": "k = 0", "D": "adaptive", "s": "budget"}.items():
        axes.plot([], [], marker, color="#444444", label=name)
    for budget in BUDGETS:
        axes.axvline(100 * budget, color="#999999", linestyle=":", linewidth=1.2, zorder=0)
    axes.set_xlabel("cost, % of sending every pixel to the heavy upsampler (GMACs)")
    axes.set_ylabel("PSNR over all light, dB")
    axes.legend(fontsize=9, frameon=False, ncols=2)
    axes.grid(color="#eeeeee")
    plain(axes)
    return drawn, said


def gains(points: Sequence[dict[str, float]], light: dict[str, float]) -> tuple[Any, Any]:
    """Costs in percent, and decibels over all light."""
    return (
        [100 * point["of_all_heavy"] for point in points],
        [point["psnr"] - light["psnr"] for point in points],
    )


def main() -> None:
    """Draws all pictures."""
    parser = argparse.ArgumentParser(description="Draws the documentation's pictures.")
    parser.add_argument("--out", type=Path, default=HERE / "images")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    models = {name: load(name) for name in ("carn-pcsr-x4", "fsrcnn-pcsr-x4", "carn-pcsr-x4-m3")}
    two, three = models["carn-pcsr-x4"], models["carn-pcsr-x4-m3"]
    photos = {name: Photo.of(two, name) for name in PHOTOS}
    coffee = photos["coffee"]
    of_three = [Photo.of(three, name) for name in ("rocket", "grass")]
    hoisted = {"FSRCNN-PCSR": models["fsrcnn-pcsr-x4"], "CARN-PCSR": two}
    drawn: dict[str, Callable[[], tuple[Figure, Any]]] = {
        "how-classes.jpg": lambda: classes_over_k(coffee),
        "how-threshold.png": lambda: threshold(coffee),
        "how-adm.png": lambda: clusters(of_three),
        "how-hoisting.png": lambda: hoisting(figure(13, 4.6), coffee.session, hoisted),
        "how-refinement.jpg": lambda: seams(coffee),
        "choosing-curves.png": lambda: curves(list(photos.values())),
    }
    said = {}
    for name, draw in drawn.items():
        picture, said[name] = draw()
        options = {"pil_kwargs": {"quality": 88}} if name.endswith("jpg") else {}
        picture.savefig(out / name, dpi=100 if name == "how-refinement.jpg" else 130, **options)
        if name.endswith("png"):  # 256 colours: a third of the bytes
            Image.open(out / name).convert("RGB").quantize(256).save(out / name, optimize=True)
    (out / "figures.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def load(name: str) -> PCSR:
    """A released model with classes."""
    model = pcsr_lightning.load(name)
    assert isinstance(model, PCSR)
    return model


if __name__ == "__main__":
    main()
