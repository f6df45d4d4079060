"""Where memory runs out, the run goes on in smaller strips, and nobody sees it in the result."""

from __future__ import annotations

import gc
import logging
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pcsr_lightning.errors import PCSRError
from pcsr_lightning.inference import UpscaleResult, upscale
from pcsr_lightning.inference.engine import is_out_of_memory
from pcsr_lightning.inference.kernels import FractionalScale, IntegerScale
from pcsr_lightning.inference.result import Output
from pcsr_lightning.networks import PCSR
from pcsr_lightning.streaming import RowStream

MakeNetwork = Callable[..., PCSR]


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting the garbage of all tests so far takes longer than the runs here."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


ERRORS: list[Exception] = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"
    ),
    RuntimeError("std::bad_alloc"),
    RuntimeError("could not create a primitive"),
]
ROUTINGS: list[dict[str, Any]] = [
    {}, {"adaptive": True}, {"budget": 0.6}, {"fixed_class": 1}, {"refine": False}
]  # fmt: skip


class Scarce:
    """Lets the parts of a run fail at will.

    Args:
        monkeypatch: to put failing parts in.
        fails: asked with the part's name and the LR rows it is to work on.
        error: what a failure raises.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        fails: Callable[[str, int], bool],
        error: Exception,
    ) -> None:
        self.failures = 0

        def check(part: str, rows: int) -> None:
            if fails(part, rows):
                self.failures += 1
                raise error

        push = RowStream.push

        def scarce_push(stream: RowStream, rows_rwC: Tensor, last: bool) -> Iterator[Tensor]:
            check("push", len(rows_rwC))
            yield from push(stream, rows_rwC, last)

        def scarce(part: str, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def checked(branches: Any, feat_BrwD: Tensor, *args: Any) -> Tensor:
                check(part, feat_BrwD.shape[1])
                return run(branches, feat_BrwD, *args)

            return checked

        monkeypatch.setattr(RowStream, "push", scarce_push)
        for kind in (IntegerScale, FractionalScale):
            monkeypatch.setattr(kind, "residual", scarce("residual", kind.residual))
            monkeypatch.setattr(kind, "logits", scarce("logits", kind.logits))


def assert_same(found: UpscaleResult, expected: UpscaleResult) -> None:
    assert torch.equal(found.assignment, expected.assignment)
    assert (found.image - expected.image).abs().max() <= 1e-5
    assert found.shares == expected.shares


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: str(e)[-20:] or "MemoryError")
@pytest.mark.parametrize("part", ["push", "residual"])
def test_strips_become_lower(
    make_network: MakeNetwork,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    part: str,
    error: Exception,
) -> None:
    model, lr = make_network(), torch.rand(1, 3, 31, 8)
    expected = upscale(model, lr, 2.5)
    scarce = Scarce(monkeypatch, lambda where, rows: where == part and rows > 5, error)
    with caplog.at_level(logging.WARNING):
        found = upscale(model, lr, 2.5)
    # 31 rows, 15, 7, and then 3, which is few enough.
    assert scarce.failures == 3
    said = [r.getMessage() for r in caplog.records if "out of memory" in r.getMessage()]
    assert said == [f"out of memory: continuing with {n} rows at a time" for n in (15, 7, 3)]
    assert_same(found, expected)


@pytest.mark.parametrize("scale", [3, 2.3])
@pytest.mark.parametrize("routing", ROUTINGS, ids=str)
def test_failures_anywhere(
    make_network: MakeNetwork,
    monkeypatch: pytest.MonkeyPatch,
    routing: dict[str, Any],
    scale: float,
) -> None:
    """Also in the middle of a picture, in either pass, and several times."""
    dice, failed = random.Random(str((routing, scale))), 0
    for backbone in ("fsrcnn", "bsrn"):
        model, lr = make_network(backbone), torch.rand(1, 3, 21, 6)
        expected = upscale(model, lr, scale, **routing)
        for _ in range(2):
            chance, left = dice.uniform(0.1, 0.6), [3]

            def fails(part: str, rows: int, chance: float = chance, left: list[int] = left) -> bool:
                # 16 rows can be halved four times.
                left[0] -= (hit := left[0] > 0 and dice.random() < chance)
                return hit

            with monkeypatch.context() as patch:
                scarce = Scarce(patch, fails, MemoryError())
                found = upscale(model, lr, scale, tile_rows=16, **routing)
            failed += scarce.failures
            assert_same(found, expected)
    assert failed > 3


def test_with_features_that_cannot_be_kept(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Between two passes they are computed again; strips need not become lower for it."""
    model, lr = make_network(), torch.rand(1, 3, 21, 6)
    expected = upscale(model, lr, adaptive=True)
    new_empty, refused = Tensor.new_empty, []

    def scarce(like: Tensor, *size: Any, **options: Any) -> Tensor:
        if size == (1, 21, 6, model.backbone.out_channels):
            refused.append(size)
            raise MemoryError
        return new_empty(like, *size, **options)

    monkeypatch.setattr(Tensor, "new_empty", scarce)
    assert_same(upscale(model, lr, adaptive=True, tile_rows=5), expected)
    assert refused
    assert not [r for r in caplog.records if "out of memory" in r.getMessage()]


def test_not_even_one_row(make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    model, lr = make_network(), torch.rand(1, 3, 9, 8)
    upscale(model, lr)
    scarce = Scarce(monkeypatch, lambda part, rows: part == "residual", MemoryError("no more"))
    with pytest.raises(PCSRError, match=r"not enough memory even for one row .*no more") as caught:
        upscale(model, lr)
    assert scarce.failures == 4, "9 rows, 4, 2, 1"
    assert isinstance(caught.value.__cause__, MemoryError)


@pytest.mark.parametrize("part", ["push", "residual"])
def test_other_errors_pass_through(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    model, lr = make_network(), torch.rand(1, 3, 9, 8)
    upscale(model, lr)
    other = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    scarce = Scarce(monkeypatch, lambda where, rows: where == part, other)
    with pytest.raises(RuntimeError, match=re.escape(str(other))) as caught:
        upscale(model, lr)
    assert caught.value is other
    assert scarce.failures == 1


@pytest.mark.parametrize("call", [0, 1, 2])
def test_a_sink_s_failure_ends_the_run(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Rows that a sink may have taken already must not reach it a second time."""
    put, calls = Output.put, []

    def scarce(output: Output, top: int, rows_B3nW: Tensor) -> None:
        put(output, top, rows_B3nW)
        calls.append(top)
        if len(calls) == call + 1:
            raise MemoryError("the sink")

    monkeypatch.setattr(Output, "put", scarce)
    with pytest.raises(MemoryError, match="the sink"):
        upscale(make_network(), torch.rand(1, 3, 20, 8), tile_rows=4)
    assert len(calls) == call + 1


def test_what_is_out_of_memory() -> None:
    assert all(is_out_of_memory(error) for error in ERRORS)
    for error in (RuntimeError("shape mismatch"), ValueError("can't allocate memory"), OSError()):
        assert not is_out_of_memory(error)


SCRIPT = """
import logging, os, resource, sys
import torch
torch.set_num_threads(1)
import pcsr_lightning
from pcsr_lightning.errors import PCSRError

said = []
class Ear(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger("pcsr_lightning.inference.engine").addHandler(Ear())
model = pcsr_lightning.load("fsrcnn-pcsr-x4")
torch.manual_seed(0)
lr = torch.rand(1, 3, 64, 1200)
expected = pcsr_lightning.upscale(model, lr, tile_rows=2, bits=8)
assert not said
words = next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()
for spare in (400, 90, 50):
    child = os.fork()
    if child == 0:
        limit = int(words[1]) * 1024 + spare * 2**20
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            found = pcsr_lightning.upscale(model, lr, tile_rows=64, bits=8)
        except (MemoryError, RuntimeError, PCSRError):
            os._exit(2)  # too little for the picture itself
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        assert torch.equal(found.assignment, expected.assignment)
        assert (found.image.int() - expected.image.int()).abs().max() <= 1  # by rounding
        os._exit(7 if said else 0)
    print(spare, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_real_want_of_memory() -> None:
    """With ever less of it: undisturbed, then in smaller strips; always right if it ends at all."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    ends = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert set(ends) <= {0, 2, 7}, (done.stdout, done.stderr)
    assert ends[0] == 0, done.stdout
    assert 7 in ends, done.stdout
