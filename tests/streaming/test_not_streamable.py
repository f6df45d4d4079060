"""What rows cannot tell is refused with its reason, and then goes another way, as exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.streaming.nets import Net
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.inference.features import TiledRows, feature_rows
from pcsr_lightning.networks import build_backbone
from pcsr_lightning.streaming import NotStreamable, plan_rows


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def conv(channels: int = 3, out: int = 3, kernel: int = 3, **options: Any) -> nn.Conv2d:
    options.setdefault("padding", kernel // 2)
    return nn.Conv2d(channels, out, kernel, **options)


def _in_place_then_read(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    z = F.relu(y, inplace=True)
    return m.b(z) + y


def _method_in_place(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    y.relu_()
    return m.b(y)


def _sum_in_place(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    z = y
    z += m.b(x)
    return m.b(z) * y


def _pre_activation(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    return m.b(m.relu(y)) + y


def _through_another_name(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    return m.b(m.same(y).relu_()) + y


def _unused(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    torch.sigmoid(y)
    return y


def hooked() -> nn.Module:
    """Old ways of normalising weights are hooks; a trace passes them by."""
    module = nn.Sequential(conv(), nn.ReLU())
    module[0].register_forward_hook(lambda part, inputs, out: out + 1)
    return module


def grown(*sizes: Any, **options: Any) -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(*sizes, **options))


A = {"a": conv()}
AB = {"a": conv(), "b": conv()}

# Every one keeps the size, so that the other way can be compared with the whole picture.
KEEP_SIZE: dict[str, tuple[nn.Module, str]] = {
    "reflect": (nn.Sequential(conv(padding_mode="reflect")), "pads with reflect"),
    "dilation": (conv(dilation=2, padding=2), "changes the size or is dilated"),
    "control flow": (
        Net(lambda m, x: m.a(x) if x.shape[2] > 5 else x, **A), "cannot be traced"
    ),
    "global pooling": (
        Net(lambda m, x: x * torch.sigmoid(m.pool(x)), pool=nn.AdaptiveAvgPool2d(1)),
        "AdaptiveAvgPool2d",
    ),
    "mean": (Net(lambda m, x: x - x.mean(dim=(2, 3), keepdim=True)), "calls mean"),
    "interpolate": (Net(lambda m, x: F.interpolate(x, scale_factor=1.0)), "interpolate"),
    "no statistics": (
        nn.Sequential(conv(), nn.BatchNorm2d(3, track_running_stats=False)), "statistics of its"
    ),
    "unknown module": (nn.Sequential(conv(), nn.InstanceNorm2d(3)), "InstanceNorm2d"),
    "unknown function": (Net(lambda m, x: torch.flip(x, (2,))), "calls flip"),
    "unknown method": (Net(lambda m, x: m.a(x).clamp(0, 1), **A), "calls clamp"),
    "concatenated rows": (
        Net(lambda m, x: torch.cat([m.a(x), x], dim=2), **A), "another axis than the channels"
    ),
    "its input": (Net(lambda m, x: x), "returns its input"),
    "one channel for all": (
        Net(lambda m, x: x * torch.sigmoid(m.a(x)), a=conv(3, 1)), "broadcasts channels"
    ),
    "one channel and many, added": (
        Net(lambda m, x: m.a(x) + m.b(x), a=conv(3, 1, 1), b=conv()), "broadcasts channels"
    ),
    "many and one channel, added": (
        Net(lambda m, x: m.b(x) + m.a(x), a=conv(3, 1), b=conv(3, 3, 1)), "broadcasts channels"
    ),
    "one channel by constants": (
        Net(lambda m, x: m.a(x) * torch.arange(3.0)[:, None, None], a=conv(3, 1)),
        "broadcasts channels",
    ),
    "a picture of constants": (
        Net(lambda m, x: x * torch.arange(9.0)[:, None]), "differ from pixel to pixel"
    ),
    "weight from the picture": (
        Net(lambda m, x: F.conv2d(x, m.a(x)[:, :, :3, :3], padding=1), a=conv(3, 3)),
        "(weight|getitem)",
    ),
    "by keyword": (Net(lambda m, x: m.a(input=x), **A), "keyword"),
    "a hook": (hooked(), "differ from the whole"),
    "changed in place, read later": (Net(_in_place_then_read, **AB), "in place"),
    "changed by a method": (Net(_method_in_place, **AB), "in place"),
    "changed by a sum": (Net(_sum_in_place, **AB), "in place"),
    "changed by a module": (Net(_pre_activation, **AB, relu=nn.ReLU(inplace=True)), "in place"),
    "changed under another name": (
        Net(_through_another_name, **AB, same=nn.Identity()), "in place"
    ),
}  # fmt: skip

CHANGE_SIZE: dict[str, tuple[nn.Module, str]] = {
    "stride": (conv(stride=2), "changes the size"),
    "no padding": (conv(padding=0), "changes the size"),
    "even kernel": (conv(kernel=4), "changes the size"),
    "transposed, inexact": (grown(3, 3, 3, stride=2), "multiply the size exactly"),
    "transposed, oblong": (
        grown(3, 3, (4, 6), stride=2, padding=1), "multiply the size exactly"
    ),
    "transposed, two factors": (
        grown(3, 3, 4, stride=(2, 4), padding=1), "multiply the size exactly"
    ),
    "transposed, dilated": (
        grown(3, 3, 4, stride=2, padding=1, dilation=2), "multiply the size exactly"
    ),
    "different sizes": (
        Net(lambda m, x: torch.cat([m.up(m.a(x)), x], 1), a=conv(3, 12), up=nn.PixelShuffle(2)),
        "different sizes",
    ),
    "several results": (Net(lambda m, x: (m.a(x), x), **A), "network's input"),
    "two inputs": (TwoInputs(), "more than one input"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*KEEP_SIZE, *CHANGE_SIZE])
def test_refused_with_its_reason(name: str) -> None:
    module, said = (KEEP_SIZE | CHANGE_SIZE)[name]
    with pytest.raises(NotStreamable, match=said):
        plan_rows(module.eval(), torch.float32)


def test_a_network_in_training_mode_is_refused() -> None:
    module = nn.Sequential(conv(), nn.BatchNorm2d(3)).eval()
    module[1].train()
    with pytest.raises(ValueError, match="evaluation mode"):
        plan_rows(module)


def test_bsrn_decides_by_the_picture_s_size() -> None:
    with pytest.raises(NotStreamable, match="cannot be traced"):
        plan_rows(build_backbone("bsrn", nf=8, blocks=1).eval(), torch.float32)


@pytest.mark.parametrize(
    "name", sorted(set(KEEP_SIZE) - {"concatenated rows", "weight from the picture"})
)
def test_goes_another_way_then(name: str) -> None:
    module, x = KEEP_SIZE[name][0].eval(), torch.rand(1, 3, 9, 6)
    with torch.inference_mode():
        source = feature_rows(module, None, x.clone(), torch.float32)
        assert isinstance(source, TiledRows)
        parts = [feat_1rwD for _, feat_1rwD in source.strips(4)]
        expected = module(x.clone()).permute(0, 2, 3, 1)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected)


def test_a_result_that_is_not_the_last_thing_computed() -> None:
    module, x = Net(_unused, a=conv()).eval(), torch.rand(1, 3, 9, 6)
    with torch.inference_mode():
        source = feature_rows(module, None, x, torch.float32)
        parts = [feat_1rwD.clone() for _, feat_1rwD in source.strips(4)]
        torch.testing.assert_close(torch.cat(parts, dim=1), module(x).permute(0, 2, 3, 1))
