"""Kernels that numba compiles give what PyTorch's operators give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.streaming.nets import Net
from torch import Tensor, nn

from pcsr_lightning.inference.features import StreamedRows, feature_rows
from pcsr_lightning.networks.backbones.carn import CARN
from pcsr_lightning.streaming import RowPlan, RowStream, plan_rows, planar, with_planar_kernels
from pcsr_lightning.streaming.planar import PlanarConvolve, PlanarMix, ToPixels, ToPlanar
from pcsr_lightning.streaming.steps import Convolve, Step

pytest.importorskip("numba")


def small() -> nn.Module:
    """All layers that have a kernel, between and beside some that have none."""

    def run(net: Any, x: Tensor) -> Tensor:
        a = net.entry(x)
        b = net.narrow(a).relu()
        c = net.residual(b) + a
        d = net.merge(torch.cat([a, b, c.relu()], 1)).relu()
        return net.last(net.wide(d) + net.narrow(d).relu())

    torch.manual_seed(0)
    return Net(
        run,
        entry=nn.Conv2d(3, 26, 3, padding=1),
        narrow=nn.Conv2d(26, 26, 3, padding=1, groups=2),
        residual=nn.Conv2d(26, 26, 1),
        merge=nn.Conv2d(78, 26, 1, bias=False),
        wide=nn.Conv2d(26, 26, 5, padding=2),
        last=nn.Conv2d(26, 26, 3, padding=1, groups=2),
    ).eval()


def streamed(plan: RowPlan, x_hwC: Tensor, rows: int) -> Tensor:
    h, w, _ = x_hwC.shape
    stream = RowStream(plan, w, rows)
    return torch.cat(
        [
            out.clone()
            for top in range(0, h, rows)
            for out in stream.push(x_hwC[top : top + rows], last=top + rows >= h)
        ]
    )


@pytest.fixture(scope="module")
def plans() -> tuple[RowPlan, RowPlan]:
    plan = plan_rows(small())
    return plan, with_planar_kernels(plan)


@pytest.mark.parametrize(("h", "w", "rows"), [(1, 1, 1), (7, 5, 3), (6, 16, 4), (9, 50, 9)])
@pytest.mark.parametrize("threads", [1, 3])
def test_results_are_those_of_pytorch(
    plans: tuple[RowPlan, RowPlan], h: int, w: int, rows: int, threads: int
) -> None:
    x_hw3 = torch.rand(h, w, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found, expected = (streamed(plan, x_hw3, rows) for plan in reversed(plans))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_nan_and_infinity_pass_a_relu_as_in_pytorch(plans: tuple[RowPlan, RowPlan]) -> None:
    x_hw3 = torch.rand(9, 20, 3)
    x_hw3[2, 3], x_hw3[7, 19] = torch.nan, torch.inf
    found, expected = (streamed(plan, x_hw3, 4) for plan in reversed(plans))
    assert expected.isnan().any()
    assert torch.equal(found.isnan(), expected.isnan())


def kinds(plan: RowPlan) -> list[type[Step]]:
    return [type(step) for step in plan.steps]


def test_all_layers_of_carn_but_the_first_are_planar() -> None:
    found = kinds(with_planar_kernels(plan_rows(CARN().eval())))
    assert found[:2] == [Convolve, ToPlanar]
    assert found[-1] is ToPixels
    assert set(found[2:-1]) == {PlanarConvolve, PlanarMix}


def test_a_plan_without_narrow_convolutions_stays() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU())
    plan = plan_rows(net.eval())
    assert with_planar_kernels(plan) is plan


def test_kernels_that_do_not_work_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_rows(small())
    kernels = planar.planar_kernels()
    assert kernels is not None
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "conv3", lambda *given: None)
        assert with_planar_kernels(plan) is plan
        assert "numba is not used: its results differ" in caplog.text

        def fails(*given: object) -> None:
            raise RuntimeError("no such instruction")

        patch.setattr(kernels, "conv3", fails)
        assert with_planar_kernels(plan) is plan
        assert "no such instruction" in caplog.text
    monkeypatch.setattr(planar, "planar_kernels", lambda: None)
    assert with_planar_kernels(plan) is plan


@pytest.mark.parametrize(
    ("dtype", "wanted", "expected"),
    [(torch.float32, True, True), (torch.float32, False, False), (torch.float64, True, False)],
)
def test_they_are_used_in_fp32_if_wanted(dtype: torch.dtype, wanted: bool, expected: bool) -> None:
    x_13hw = torch.rand(1, 3, 8, 9, dtype=dtype)
    source = feature_rows(small().to(dtype), None, x_13hw, dtype, planar=wanted)
    assert isinstance(source, StreamedRows)
    assert (PlanarConvolve in kinds(source.plan)) == expected
