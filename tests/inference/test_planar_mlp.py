"""Pixel-level MLPs in numba's kernels give what PyTorch's operators give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small import SMALL_BACKBONES
from torch import Tensor

from pcsr_lightning.inference import planar_mlp, planar_refine
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.features import NUMBA_PIXELS, uses_numba
from pcsr_lightning.inference.fused_queries import query_kernels
from pcsr_lightning.inference.kernels import MLPKernel, QueryKernels, Strip
from pcsr_lightning.inference.upscaling import upscale_by
from pcsr_lightning.networks import PCSR, QueryGrid, build_network, default_config
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.routing.refine import refine
from pcsr_lightning.streaming import numba_runtime

WIDTHS = {"wide": [[74, 74], [20, 20]], "other": [[29, 29, 29, 29], [10]], "light": [[3], []]}
LR, SIZES = (9, 21), {"4": (36, 84), "2.5": (23, 52), "1 x 3.2": (9, 67)}


def network(upsamplers: list[list[int]], classifier: list[int] | None = None) -> PCSR:
    torch.manual_seed(3)
    config = default_config("fsrcnn", len(upsamplers)) | {"backbone": SMALL_BACKBONES["fsrcnn"]}
    config |= {
        "upsamplers": upsamplers,
        "classifier": [10, 10] if classifier is None else classifier,
    }
    model = build_network(config)
    assert isinstance(model, PCSR)
    return model.eval()


def both(
    model: PCSR, size: tuple[int, int], dtype: torch.dtype = torch.float32
) -> list[QueryKernels]:
    """In numba, and by PyTorch."""
    grid = QueryGrid.make(LR, size)
    return [query_kernels(model, grid, dtype, planar=planar) for planar in (True, False)]


def strip_of(size: tuple[int, int]) -> Strip:
    return Strip(0, LR[0], 0, size[0])


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.5


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The classes that kernels were asked for, -1 for all pixels."""
    found: list[int] = []
    run = planar_mlp.PlanarMLP.run

    def counted(
        mlp: Any, feat: Any, lines: Any, out: Any, wanted: int = -1, given: Any = None
    ) -> None:
        found.append(wanted)
        run(mlp, feat, lines, out, wanted, given)

    monkeypatch.setattr(planar_mlp.PlanarMLP, "run", counted)
    return found


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("batch", [1, 2])
def test_residuals_and_logits(
    widths: list[list[int]], size: tuple[int, int], batch: int, calls: list[int]
) -> None:
    model, strip = network(widths), strip_of(size)
    feat_BrwD = drawn(batch, *LR, model.backbone.out_channels)
    class_BQ = (drawn(batch, size[0] * size[1]) > 0.1).to(torch.uint8)
    found, expected = (k.residual(feat_BrwD, strip, class_BQ) for k in both(model, size))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert calls.count(0) == 1
    assert widths[-1] == [] or calls[-1] == 1
    found, expected = (k.logits(feat_BrwD, strip) for k in both(model, size))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert calls[-1] == -1


@settings(deadline=None, max_examples=60)
@given(
    lines=st.integers(1, 9),
    columns=st.integers(1, 70),
    threads=st.integers(1, 3),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_any_queries(lines: int, columns: int, threads: int, share: float, seed: int) -> None:
    """A kernel finds its own queries wherever they are, and leaves the others alone."""
    draw = torch.Generator().manual_seed(seed)
    P, D, C = 11, 5, 20
    project_CD, rows_RC = torch.rand(C, D, generator=draw) - 0.5, torch.rand(6, C, generator=draw)
    cols_WC = torch.rand(columns, C, generator=draw) - 0.5
    layers = [
        (torch.rand(n, C, generator=draw) - 0.5, torch.rand(n, generator=draw)) for n in (C, 3)
    ]
    where = planar_mlp.Lines(
        torch.randint(0, P, (lines,), generator=draw),
        torch.randint(0, 6, (lines,), generator=draw),
        torch.zeros(columns, dtype=torch.int64),
        by_column=True,
    )
    mine_LW = torch.rand(lines, columns, generator=draw) < share
    feat_PD = torch.rand(P, D, generator=draw)
    x_LWC = (
        (feat_PD @ project_CD.T)[where.pixel_L][:, None] + rows_RC[where.row_L][:, None] + cols_WC
    )
    for weight, bias in layers:
        x_LWC = x_LWC.relu() @ weight.T + bias
    expected = torch.where(mine_LW[..., None], x_LWC, 7.0).flatten(0, 1).T
    found, before = torch.full((3, lines * columns), 7.0), torch.get_num_threads()
    mlp = planar_mlp.PlanarMLP.of(project_CD, rows_RC, cols_WC, layers)
    assert mlp is not None
    torch.set_num_threads(threads)
    try:
        mlp.run(feat_PD, where, found, 2, torch.where(mine_LW, 2, 1).to(torch.uint8))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_do_not_depend_on_cuts_and_threads(size: tuple[int, int], threads: int) -> None:
    model, before = network(WIDTHS["wide"]), torch.get_num_threads()
    (H, W), kernels = size, both(model, size)[0]
    feat_1hwD = drawn(1, *LR, model.backbone.out_channels)
    class_1HW = (drawn(1, H, W) > 0.1).to(torch.uint8)
    whole = computed(kernels, feat_1hwD, strip_of(size), class_1HW)
    first_rows = torch.searchsorted(kernels.grid.rows_H, torch.arange(LR[0] + 1)).tolist()
    torch.set_num_threads(threads)
    try:
        for top, bottom in ((0, LR[0]), (0, 4), (4, 7), (7, LR[0])):
            strip = Strip(top, bottom, first_rows[top], first_rows[bottom])
            rows = slice(strip.hr_top, strip.hr_bottom)
            found = computed(kernels, feat_1hwD[:, top:bottom], strip, class_1HW[:, rows])
            assert all(torch.equal(x, y[:, :, rows]) for x, y in zip(found, whole, strict=True))
    finally:
        torch.set_num_threads(before)


def computed(
    kernels: QueryKernels, feat_1rwD: Tensor, strip: Strip, class_1nW: Tensor
) -> list[Tensor]:
    """Rows of logits and residuals."""
    class_1Q = kernels.to_subpixel_major(class_1nW[:, None], strip)[:, 0]
    values = kernels.logits(feat_1rwD, strip), kernels.residual(feat_1rwD, strip, class_1Q)
    return [kernels.to_rows(value, strip) for value in values]


BF16 = pytest.mark.skipif(
    "not numba_runtime.multiplies(torch.bfloat16)", reason="this processor has no bfloat16"
)


@BF16
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_in_bf16_errors_are_no_larger_than_those_of_pytorch(
    widths: list[list[int]], size: tuple[int, int]
) -> None:
    model, strip = network(widths), strip_of(size)
    feat_1rwD = drawn(1, *LR, model.backbone.out_channels).bfloat16()
    class_1Q = (drawn(1, size[0] * size[1]) > 0.1).to(torch.uint8)
    exact = both(model, size)[1].residual(feat_1rwD.float(), strip, class_1Q)
    ours, theirs = (
        (k.residual(feat_1rwD, strip, class_1Q) - exact).square().mean()
        for k in both(model, size, torch.bfloat16)
    )
    assert 0 < ours <= 1.05 * theirs


@pytest.mark.parametrize("widths", [[[8, 12], [4, 6]], [[8, 8, 12], [12, 8]]], ids=str)
def test_layers_of_several_widths_run_in_pytorch(widths: list[list[int]], calls: list[int]) -> None:
    model, size = network(widths, []), SIZES["4"]
    feat_1rwD = drawn(1, *LR, model.backbone.out_channels)
    class_1Q = torch.zeros(1, size[0] * size[1], dtype=torch.uint8)
    found, expected = (k.residual(feat_1rwD, strip_of(size), class_1Q) for k in both(model, size))
    assert torch.equal(found, expected)
    both(model, size)[0].logits(feat_1rwD, strip_of(size))
    assert not calls


@pytest.mark.parametrize(
    "shape", [(1, 1, 5), (2, 2, 3), (1, 3, 1), (1, 3, 3), (2, 7, 33), (3, 9, 64)]
)
@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("threads", [1, 3])
def test_refined_pixels_are_the_same(
    shape: tuple[int, int, int], num_classes: int, threads: int
) -> None:
    B, H, W = shape
    draw = torch.Generator().manual_seed(7)
    sr_B3HW = torch.rand(B, 3, H, W, generator=draw)
    sr_B3HW[0, 0, 0, 0] = torch.nan
    class_BHW = torch.randint(0, num_classes + 4, shape, generator=draw).clamp(max=num_classes - 1)
    class_BHW, before = class_BHW.to(torch.uint8), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = planar_refine.refine(sr_B3HW, class_BHW, num_classes)
    finally:
        torch.set_num_threads(before)
    expected = refine(sr_B3HW, class_BHW, num_classes)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_so_many_classes_do_not_fit_the_registers() -> None:
    kernels = numba_runtime.loaded_kernels()
    assert kernels.mlp_tiles(20, 14) is not None
    assert kernels.mlp_tiles(20, 15) is None


@pytest.mark.parametrize("pair", [1, 2])
@pytest.mark.parametrize("width", range(1, 200))
def test_tiles_fit_the_registers_and_the_layer(width: int, pair: int) -> None:
    kernels = numba_runtime.loaded_kernels()
    for outputs, vectors in kernels.mlp_tiles(width, 3, pair):
        assert len(outputs) * len(vectors) + len(vectors) + 1 <= kernels.REGISTERS
    full, rest, last = (len(outputs) for outputs, _ in kernels.mlp_tiles(width, 3, pair))
    assert (width - rest) % full == 0
    assert rest <= full
    assert full == width or full % pair == 0
    assert last == 3


def test_a_kernel_that_does_not_work_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, calls: list[int]
) -> None:
    kernels = numba_runtime.loaded_kernels()
    monkeypatch.setattr(kernels, "compile_anew", lambda: None)
    monkeypatch.setattr(kernels, "mlp", lambda *given: None)
    planar_mlp._works.cache_clear()
    numba_runtime._warn_once.cache_clear()
    try:
        model, lr = network([[6, 6], [6, 6]], [6]), drawn(1, 3, 8, 9) + 0.5
        found, expected = (
            upscale_by(model, lr, RoutingConfig(), Execution(planar=planar), size=(32, 36))
            for planar in (True, False)
        )
    finally:
        planar_mlp._works.cache_clear()
    assert torch.equal(found.image, expected.image)
    assert not [wanted for wanted in calls if wanted < 0 or wanted == 0]
    assert [record.getMessage() for record in caplog.records] == [
        "numba is not used: its results differ by 1.0e+00 on this processor"
    ]


def test_without_numba(monkeypatch: pytest.MonkeyPatch, calls: list[int]) -> None:
    monkeypatch.setattr(numba_runtime, "planar_kernels", lambda: None)
    model, lr, execution = network([[8], [8]]), drawn(1, 3, 8, 9) + 0.5, Execution(planar=True)
    assert not uses_numba(model.backbone, execution)
    assert not uses_numba(model.backbone, Execution(), NUMBA_PIXELS)
    found = upscale_by(model, lr, RoutingConfig(), execution, size=(32, 36))
    assert torch.equal(found.image, upscale_by(model, lr, RoutingConfig(), size=(32, 36)).image)
    assert not calls


@pytest.mark.parametrize("planar", [True, False])
def test_kernels_are_for_those_who_want_them(
    planar: bool, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[str] = []
    monkeypatch.setattr(
        MLPKernel, "finish", lambda mlp, x: finished.append("") or x.new_zeros(3, len(x))
    )
    lr = drawn(1, 3, 8, 9) + 0.5
    upscale_by(
        network(WIDTHS["wide"]), lr, RoutingConfig(k=0), Execution(planar=planar), size=(32, 36)
    )
    assert bool(calls) == planar
    assert bool(finished) != planar
