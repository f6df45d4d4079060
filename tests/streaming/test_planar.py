"""Kernels that numba compiles give what PyTorch's operators give."""

from __future__ import annotations

import copy
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest
import torch
from tests.streaming.nets import Net
from torch import Tensor, nn

from pcsr_lightning.cli.startup import WAIT_POLICY
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.features import NUMBA_PIXELS, StreamedRows, feature_rows, uses_numba
from pcsr_lightning.networks.backbones.carn import CARN
from pcsr_lightning.streaming import (
    RowPlan,
    RowStream,
    is_planar,
    numba_runtime,
    plan_rows,
    planar,
    with_planar_kernels,
)
from pcsr_lightning.streaming.planar_steps import (
    Layout,
    PlanarConvolve,
    PlanarMix,
    ToPixels,
    ToPlanar,
)
from pcsr_lightning.streaming.steps import Convolve, Step


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
    stream = RowStream(plan, w, rows, x_hwC.dtype)
    return torch.cat(
        [
            out.clone()
            for top in range(0, h, rows)
            for out in stream.push(x_hwC[top : top + rows], last=top + rows >= h)
        ]
    )


@pytest.fixture(autouse=True)
def as_in_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_runtime, "_SLEEPS", True)


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


BF16 = pytest.mark.skipif(
    "not numba_runtime.multiplies(torch.bfloat16)",
    reason="this processor does not multiply bfloat16",
)


@BF16
@pytest.mark.parametrize("nf", [52, 64])
def test_in_bf16_errors_are_no_larger_than_those_of_pytorch(nf: int) -> None:
    torch.manual_seed(0)
    net = CARN(nf, 4).eval()
    x_hw3 = torch.rand(12, 50, 3).bfloat16()
    with torch.inference_mode():
        exact = copy.deepcopy(net).double()(x_hw3.double().permute(2, 0, 1)[None])[0]
    plan = plan_rows(net, torch.bfloat16)
    fast = with_planar_kernels(plan)
    assert is_planar(fast)
    theirs, ours = (
        (streamed(p, x_hw3, 5).double().permute(2, 0, 1) - exact).square().mean()
        for p in (plan, fast)
    )
    assert ours <= theirs


@BF16
def test_nan_passes_in_bf16() -> None:
    plan = plan_rows(small(), torch.bfloat16)
    x_hw3 = torch.rand(9, 20, 3).bfloat16()
    x_hw3[2, 3] = torch.nan
    found, expected = (streamed(p, x_hw3, 4) for p in (with_planar_kernels(plan), plan))
    assert expected.isnan().any()
    assert not expected.isnan().all()
    assert torch.equal(found.isnan(), expected.isnan())


def kinds(plan: RowPlan) -> list[type[Step]]:
    return [type(step) for step in plan.steps]


@pytest.mark.parametrize("nf", [52, 64])
def test_all_layers_of_carn_but_the_first_are_planar(nf: int) -> None:
    found = kinds(with_planar_kernels(plan_rows(CARN(nf, 4).eval())))
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
    kernels = numba_runtime.planar_kernels()
    assert kernels is not None
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "compile_anew", lambda: None)
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


@pytest.mark.parametrize(
    ("threads", "sleeps", "expected"),
    [
        (1, False, True),
        (2, False, False),
        (2, True, True),
        (numba_runtime.MOST_THREADS + 1, True, False),
    ],
)
def test_they_are_used_with_threads_that_pay(
    threads: int, sleeps: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba_runtime, "_SLEEPS", sleeps)
    net, before = small(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert uses_numba(net, Execution()) == expected
        assert uses_numba(net, Execution(planar=True)) == expected
        assert not uses_numba(net, Execution(planar=False))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("lr_pixels", "expected"), [(NUMBA_PIXELS - 1, False), (NUMBA_PIXELS, True)]
)
def test_large_pictures_need_no_narrow_convolutions(lr_pixels: int, expected: bool) -> None:
    net = nn.Conv2d(3, 4, 3, padding=1).eval()
    assert uses_numba(net, Execution(), lr_pixels) == expected


def test_a_network_without_weights_needs_no_kernels() -> None:
    assert not uses_numba(nn.Identity(), Execution(), NUMBA_PIXELS)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, False),
        ("linux", WAIT_POLICY, True),
        ("darwin", WAIT_POLICY, True),
        ("linux", {"OMP_WAIT_POLICY": "PASSIVE"}, True),
        ("linux", {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "INFINITE"}, False),
        ("linux", {"GOMP_SPINCOUNT": "300000"}, False),
        ("linux", {"KMP_BLOCKTIME": "1"}, False),
    ],
)
def test_how_the_threads_of_openmp_wait(
    platform: str, variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    assert numba_runtime.openmp_sleeps(variables) == expected


@pytest.mark.parametrize("outputs", range(1, 65))
def test_a_tile_fits_the_registers(outputs: int) -> None:
    kernels = numba_runtime.planar_kernels()
    assert kernels is not None
    tile = kernels.best_tile(outputs)
    if tile is not None:
        o, v = map(len, tile)
        assert outputs % o == 0
        assert o * v + v + 1 <= kernels.REGISTERS


def test_without_a_folder_kernels_are_compiled_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(numba.config, "CACHE_LOCATOR_CLASSES", "UserProvidedCacheLocator")
        patch.setattr(numba.config, "CACHE_DIR", "")
        numba_runtime.planar_kernels.cache_clear()
        assert numba_runtime.planar_kernels() is not None
    (record,) = caplog.records
    assert record.getMessage().startswith("no folder to keep numba's kernels in: ")


_DAMAGED = """
from pathlib import Path
from tests.streaming.test_planar import small
from pcsr_lightning.streaming import is_planar, numba_runtime, plan_rows, with_planar_kernels

kept = [Path(k._cache._cache_file._index_path) for k in numba_runtime.planar_kernels().KERNELS]
for path in kept:
    path.write_bytes(b"damaged")
assert is_planar(with_planar_kernels(plan_rows(small())))
assert all(path.read_bytes() != b"damaged" for path in kept)
"""


def test_what_is_kept_and_damaged_is_compiled_anew(tmp_path: Path) -> None:
    environ = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _DAMAGED], env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


_AVX2 = """
import torch
from tests.streaming.test_planar import small
from pcsr_lightning.inference import planar_mlp, planar_refine
from pcsr_lightning.streaming import is_planar, numba_runtime, plan_rows, with_planar_kernels

assert numba_runtime.loaded_kernels().LANES == 8
assert is_planar(with_planar_kernels(plan_rows(small())))
assert all(planar_mlp._works(width, 2, 3, torch.float32) for width in (20, 74))
assert planar_refine._works()
assert not numba_runtime.multiplies(torch.bfloat16)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="it has no AVX2")
def test_vectors_of_eight(tmp_path: Path) -> None:
    """Of processors without AVX-512; kernels are compared with PyTorch before they are used."""
    features = "+avx,+avx2,+bmi,+bmi2,+fma,+lzcnt,+popcnt,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3"
    environ = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": features}
    environ["NUMBA_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _AVX2], env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_starts_threads_of_its_own() -> None:
    step = ToPlanar((0,), 1, 13, layout=Layout(torch.float32, 13))
    x_rwC, before = torch.rand(6, 20, 13), torch.get_num_threads()

    def compute() -> Tensor:
        return step.run(lambda *_: x_rwC, 0, 6, None, 6, 20)

    torch.set_num_threads(2)
    try:
        expected = compute()
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # it would wait for threads that it does not have
            os._exit(0 if torch.equal(compute(), expected) else 1)
    finally:
        torch.set_num_threads(before)
    assert os.waitpid(child, 0)[1] == 0
