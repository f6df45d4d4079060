"""Whether a model stays sound on pictures unlike those it was trained on.

A network that is good on photographs may break where they never are: features of one FSRCNN grew
three hundred times as large on a checkerboard as on a photograph, and its result turned black. So a
model is tried on synthetic pictures before it is released. Two things are measured: how far the
mean of the result over an LR pixel's area is from that LR pixel, and how large the features become.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import TrainingError
from pcsr_lightning.images import read
from pcsr_lightning.inference import RoutingConfig, Session, upscale
from pcsr_lightning.networks import PCSR, Original, has_bias_shifts

MOST_OFF = 50.0
"""Of 255: what the mean over an LR pixel's area may be off by."""
MOST_FEATURES = 10.0
"""How many times as large as on a photograph the features may become."""
PUBLISHED: dict[str, dict[str, dict[int, dict[str, float]]]] = {
    "pcsr": {
        "fsrcnn": {
            2: {
                "white text on black": 85.4,
                "checkerboard, 1 pixel": 118.7,
                "pixel art": 64.7,
                "pure colours": 58.3,
            },
            3: {
                "white text on black": 52.1,
                "checkerboard, 1 pixel": 139.4,
                "pixel art": 51.0,
                "pure colours": 50.5,
            },
            4: {"checkerboard, 1 pixel": 173.0, "pure colours": 51.9},
        },
        "carn": {2: {"white text on black": 77.4}, 3: {"white text on black": 50.2}, 4: {}},
    },
    "original": {
        "fsrcnn": {4: {"checkerboard, 1 pixel": 90.0, "checkerboard, 8 pixels": 54.6}},
        "carn": {4: {"checkerboard, 1 pixel": 59.9}},
    },
}
"""Where the paper's own weights are off by more than :data:`MOST_OFF` at a scale: by how much."""
UNPUBLISHED_OFF = 60.0
"""The same for backbones without published weights, unless those of another are off by more."""
SIZE = (48, 64)
"""Height and width of most of the synthetic pictures."""
NOISE = 25 / 255
"""Standard deviation of the noise: one that denoising is usually tried with."""


@dataclass(frozen=True)
class Robustness:
    """What one synthetic picture does to a model.

    Attributes:
        pattern: the picture's name.
        scale: it was enlarged by.
        off: the largest difference between an LR pixel and the mean of the result over its area,
            of 255, at ``k = 0``.
        allowed: what that may be.
        features: the largest feature, in those of a photograph; ``None`` for an original model.
    """

    pattern: str
    scale: int
    off: float
    allowed: float
    features: float | None

    @property
    def sound(self) -> bool:
        """Whether both are within bounds; NaN is not."""
        return self.off <= self.allowed and (self.features or 0.0) <= MOST_FEATURES


def patterns() -> dict[str, Tensor]:
    """Synthetic pictures by name, each ``(1, 3, h, w)`` in [0, 1]."""
    draws = torch.Generator().manual_seed(0)
    h, w = SIZE
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")

    def grey(plane_hw: Tensor) -> Tensor:
        return plane_hw.float().expand(1, 3, -1, -1)

    def in_cells(colours_3hw: Tensor) -> Tensor:
        return F.interpolate(colours_3hw[None], size=SIZE, mode="nearest")

    corners_83 = torch.tensor([[n >> 2 & 1, n >> 1 & 1, n & 1] for n in range(8)]).float()
    palette_N3 = torch.rand(12, 3, generator=draws)
    sprite_hw = torch.randint(12, (16, 12), generator=draws)
    sprite_hw = torch.cat([sprite_hw, sprite_hw.flip(1)], 1)  # such figures are symmetric
    return {
        "white text on black": grey(_text()),
        "checkerboard, 1 pixel": grey((x + y) % 2),
        "checkerboard, 8 pixels": grey((x // 8 + y // 8) % 2),
        "dots": grey((x % 8 == 4) & (y % 8 == 4)),
        "pixel art": in_cells(palette_N3[sprite_hw].permute(2, 0, 1)),
        "pure colours": in_cells(corners_83.T.reshape(3, 2, 4)),
        "noise": (0.5 + NOISE * torch.randn(1, 3, h, w, generator=draws)).clamp(0, 1),
    }


def _text() -> Tensor:
    picture = Image.new("L", (160, 120))
    for n in range(8):
        ImageDraw.Draw(picture).text((3, 2 + 14 * n), f"$ ls -la /home/user/{n}", fill=255)
    return torch.from_numpy(np.array(picture)) / 255


def robustness(model: PCSR | Original, scales: Sequence[float] = (4,)) -> list[Robustness]:
    """Tries a model on every synthetic picture.

    Args:
        model: on the CPU.
        scales: integers to try it at; an original has its own.

    Returns:
        One entry for every picture at every scale.
    """
    usual = 0.0
    if isinstance(model, PCSR):
        photograph_13hw = read(SAMPLE_FOLDER / "valid" / "coffee.png").rgb[None]
        usual = _largest_feature(Session(model, photograph_13hw, scale=1))
    found = []
    for pattern, lr_13hw in patterns().items():
        for scale in map(int, scales):
            image_13HW, largest = _upscaled(model, lr_13hw, scale)
            off = 255 * float((F.avg_pool2d(image_13HW, scale) - lr_13hw).abs().max())
            features = largest / usual if largest is not None else None
            allowed = allowed_off(model, pattern, scale)
            found.append(Robustness(pattern, scale, off, allowed, features))
    return found


def allowed_off(model: PCSR | Original, pattern: str, scale: int) -> float:
    """What a model may be off by on a synthetic picture at a scale, of 255.

    One that cleans takes most of these patterns for noise and smooths them: only its features are
    limited.
    """
    if has_bias_shifts(model):
        return 255.0
    published = PUBLISHED["pcsr" if isinstance(model, PCSR) else "original"]
    at_scale = {name: known.get(scale, {}).get(pattern, 0.0) for name, known in published.items()}
    if model.backbone.name in published:
        return max(MOST_OFF, at_scale[model.backbone.name])
    return max(UNPUBLISHED_OFF, *at_scale.values())


def check_robustness(found: Sequence[Robustness], name: str) -> None:
    """Refuses a model that breaks.

    Raises:
        TrainingError: names the pictures on which it does.
    """
    broken = [
        f"{r.pattern} at x{r.scale} (off by {r.off:.0f} of 255, at most {r.allowed:.0f}"
        + (f"; features {r.features:.1f} times a photograph's" if r.features else "")
        + ")"
        for r in found
        if not r.sound
    ]
    if broken:
        raise TrainingError(
            f"{name} is not sound on pictures unlike photographs: {', '.join(broken)}. Train it "
            "longer, or its first stage again with stage.weight_decay=0.01 stage.vector_lr=0.2; "
            "--allow-unsound releases it all the same"
        )


def _upscaled(model: PCSR | Original, lr_13hw: Tensor, scale: int) -> tuple[Tensor, float | None]:
    """The result at ``k = 0``, ``(1, 3, H, W)`` in [0, 1], and a PCSR model's largest feature."""
    if isinstance(model, Original):
        return upscale(model, lr_13hw, scale=scale).image, None
    session = Session(model, lr_13hw, scale)
    return session.run(RoutingConfig(k=0.0)).image, _largest_feature(session)


def _largest_feature(session: Session) -> float:
    return float(session.feat_BDhw.abs().max())
