"""The rule ``quantile``: that share of the pixels is heavy, and no light LR pixel is harder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.cli.upscale import main
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.routing.adm import difficulty


def network(num_classes: int) -> PCSR:
    torch.manual_seed(num_classes)
    model = build_network(default_config("fsrcnn", num_classes)).eval()
    assert isinstance(model, PCSR)
    return model


def means(values_HW: Tensor, group_HW: Tensor) -> Tensor:
    """Each group's mean at all of its pixels."""
    group, values = group_HW.flatten(), values_HW.flatten().double()
    total = torch.zeros(int(group.max()) + 1, dtype=torch.float64).index_add(0, group, values)
    return (total / torch.bincount(group))[group].view(values_HW.shape).float()


MODELS = {num_classes: network(num_classes) for num_classes in (2, 3)}


@given(share=st.floats(0, 1), num_classes=st.sampled_from([2, 3]), scale=st.sampled_from([2, 2.7]))
@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("counted", [False, True])
def test_the_hardest_share_is_heavy(
    share: float, num_classes: int, scale: float, counted: bool
) -> None:
    model, lr = MODELS[num_classes], torch.rand(1, 3, 14, 11)
    routing = RoutingConfig(quantile=share)
    with pytest.MonkeyPatch.context() as patch:
        if counted:  # as for a picture whose scores do not fit into memory
            patch.setattr("pcsr_lightning.routing.scores.SCORE_BYTES", 0)
        result = pcsr_lightning.upscale(model, lr, scale, routing=routing, tile_rows=5)
    heavy_HW = result.assignment[0] == 0
    most = math.ceil(scale) ** 2  # HR pixels of an LR pixel
    assert 0 <= round(share * heavy_HW.numel()) - int(heavy_HW.sum()) < most
    assert set(result.assignment.unique().tolist()) <= {0, num_classes - 1}
    with torch.no_grad():
        grid = model.grid((14, 11), tuple(result.assignment.shape[1:]))
        d_HW = difficulty(model.logits(model.features(lr), grid))[0]
    lr_pixel_HW = grid.rows_H[:, None] * 11 + grid.cols_W
    d_HW = means(d_HW, lr_pixel_HW)
    assert torch.equal(means(heavy_HW.float(), lr_pixel_HW), heavy_HW.float())
    if 0 < int(heavy_HW.sum()) < heavy_HW.numel():
        # Counted, difficulties of one bin are alike.
        assert d_HW[heavy_HW].min() >= d_HW[~heavy_HW].max() - (1e-3 if counted else 1e-5)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, out = SAMPLE_FOLDER / "valid" / "coffee.png", tmp_path / "out.png"
    words = [str(photo), str(out), "--model", "fsrcnn-pcsr-x4", "--quantile", "30%", "--json"]
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["shares"][0] == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "much"])
def test_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="quantile must be a share of the pixels"):
        RoutingConfig(quantile=value)
