"""What a routed picture costs, by two counts: what is really executed, and the paper's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from pcsr_lightning.networks import (
    PCSR,
    BranchMacs,
    Original,
    PixelMLP,
    branch_macs,
    count_macs,
    evaluating,
    hoisted_macs,
)
from pcsr_lightning.routing import RoutingConfig, make_policy
from pcsr_lightning.routing.cost import PictureMacs

PROBE = 16
"""Side of the small picture that a backbone's cost per LR pixel is counted on (Eq. 9's h0, w0)."""


@dataclass(frozen=True)
class Flops:
    """The cost of a whole batch.

    Attributes:
        gmacs: giga multiply-adds that are really executed, first layers hoisted.
        gflops_published: the paper's count, ``2e-9`` times the multiply-adds of the same work in
            the un-hoisted network. An original FSRCNN's transposed convolution is counted at the
            output's size, which is far more than it really costs.
    """

    gmacs: float
    gflops_published: float

    def plus(self, other: Flops) -> Flops:
        """The cost of both."""
        return Flops(self.gmacs + other.gmacs, self.gflops_published + other.gflops_published)


@dataclass(frozen=True)
class ModelMacs:
    """Multiply-adds of a PCSR's parts; they depend on its architecture alone.

    Attributes:
        plain: un-hoisted, as the paper counts.
        project_M: an upsampler's hoisted first layer, per LR pixel, heaviest first.
        tail_M: the rest of it, per query pixel.
        classifier: the classifier's ``(project, tail)``.
    """

    plain: BranchMacs
    project_M: tuple[float, ...]
    tail_M: tuple[float, ...]
    classifier: tuple[float, float]

    def flops(
        self,
        lr_pixels: int,
        counts_M: Sequence[int],
        projected_M: Sequence[int] | None = None,
        classified: bool = True,
    ) -> Flops:
        """The cost of ``lr_pixels`` whose result has ``counts_M[j]`` pixels in class ``j``.

        Args:
            lr_pixels: ``B * h * w``.
            counts_M: query pixels of each class, heaviest first.
            projected_M: on how many LR pixels each upsampler's first layer ran; all of them for
                every class that has a pixel, if not given.
            classified: whether the classifier ran.
        """
        if projected_M is None:
            projected_M = [lr_pixels if count else 0 for count in counts_M]
        real = lr_pixels * self.plain.backbone
        for j, count in enumerate(counts_M):
            real += projected_M[j] * self.project_M[j] + count * self.tail_M[j]
        plain = self.plain
        if classified:
            real += lr_pixels * self.classifier[0] + sum(counts_M) * self.classifier[1]
        else:
            plain = replace(plain, classifier=0.0)
        return Flops(real / 1e9, 2 * plain.picture((1, lr_pixels), counts_M) / 1e9)

    def of_picture(self, lr_size: tuple[int, int], size: tuple[int, int]) -> PictureMacs:
        """What a routing rule needs to know of a picture.

        Args:
            lr_size: ``(h, w)``.
            size: ``(H, W)``.
        """
        M, lr_pixels, pixels = len(self.tail_M), lr_size[0] * lr_size[1], size[0] * size[1]
        light_M, heavy_M = [0] * (M - 1) + [pixels], [pixels] + [0] * (M - 1)
        fixed = lr_pixels * (self.plain.backbone + self.classifier[0] + sum(self.project_M))
        return PictureMacs(
            pixels=pixels,
            pixel_M=self.tail_M,
            fixed=fixed + pixels * self.classifier[1],
            all_heavy=1e9 * self.flops(lr_pixels, heavy_M, classified=False).gmacs,
            all_light=1e9 * self.flops(lr_pixels, light_M, classified=M > 1).gmacs,
            branches_M=tuple(self.plain.branches((size[0] / lr_size[0], size[1] / lr_size[1]))),
        )


# Counted by fvcore once per architecture: tracing a network takes longer than running it.
_KNOWN: dict[str, ModelMacs] = {}
_ORIGINALS: dict[str, Flops] = {}


def model_macs(model: PCSR) -> ModelMacs:
    """The costs of a model's parts, counted by fvcore once per architecture."""
    key = _architecture(model)
    if key not in _KNOWN:
        with evaluating(model):
            split = [_split(model.upsampler(j)) for j in range(model.num_classes)]
            _KNOWN[key] = ModelMacs(
                plain=branch_macs(model, PROBE, PROBE),
                project_M=tuple(project for project, _ in split),
                tail_M=tuple(tail for _, tail in split),
                classifier=(0.0, 0.0) if model.classifier is None else _split(model.classifier),
            )
    return _KNOWN[key]


def _split(mlp: PixelMLP) -> tuple[float, float]:
    return hoisted_macs(mlp, 1, 0), hoisted_macs(mlp, 0, 1)


def all_heavy_flops(
    model: PCSR, lr_size: tuple[int, int], size: tuple[int, int], batch: int = 1
) -> Flops:
    """What it costs to send every pixel to the heaviest upsampler, without the classifier."""
    counts_M = [batch * size[0] * size[1]] + [0] * (model.num_classes - 1)
    lr_pixels = batch * lr_size[0] * lr_size[1]
    return model_macs(model).flops(lr_pixels, counts_M, classified=False)


def routing_note(
    model: PCSR, lr_size: tuple[int, int], size: tuple[int, int], routing: RoutingConfig
) -> str | None:
    """What the user should know of a routing of this picture; ``None`` if there is nothing to say.

    Args:
        model: the network.
        lr_size: ``(h, w)``.
        size: ``(H, W)`` of the result.
        routing: of it.
    """
    return make_policy(routing, model_macs(model).of_picture(lr_size, size)).note()


def original_flops(model: Original, lr_pixels: int) -> Flops:
    """The cost of an original model on ``lr_pixels`` LR pixels."""
    key = _architecture(model)
    if key not in _ORIGINALS:
        probe = torch.zeros(1, 3, PROBE, PROBE, device=model.mean.device, dtype=model.mean.dtype)
        with evaluating(model), torch.no_grad():
            per_pixel = count_macs(model, probe) / PROBE**2
        published = per_pixel
        for part in model.tail.modules():
            if isinstance(part, nn.ConvTranspose2d):
                at_input = part.weight[0].numel() * part.in_channels
                published += at_input * (part.stride[0] * part.stride[1] - 1)
        _ORIGINALS[key] = Flops(per_pixel / 1e9, 2 * published / 1e9)
    each = _ORIGINALS[key]
    return Flops(lr_pixels * each.gmacs, lr_pixels * each.gflops_published)


def _architecture(model: PCSR | Original) -> str:
    return json.dumps(model.config(), sort_keys=True)
