"""What kernels of our own would gain: CARN-PCSR's backbone layers in C beside PyTorch's operators.

    python benchmarks/planar_kernels.py      # needs a C compiler and AVX-512; one thread

A trial, no part of the library. PyTorch's operators keep pixels channels last, where 13 or 52
outputs fill 16 or 64 lanes of vectors. ``planar_kernels.c`` puts pixels in the lanes, with sum and
ReLU by the way, and adds in the same order. CPU seconds; also says whether the bits are the same.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _measure import interleaved, markdown, matrix_products, matrix_rate, run_script
from torch import Tensor
from torch.nn import functional as F

ROWS, COLUMNS, WIDTH, GROUPS = 35, 420, 52, 4
EDGE = 16
STRIDE = EDGE + -(-COLUMNS // 16) * 16 + EDGE
PEAK = 10**6
Call = Callable[[], object]


def compiled(folder: Path) -> ctypes.CDLL:
    """The kernels, compiled for this processor."""
    source, library = Path(__file__).with_suffix(".c"), folder / "kernels.so"
    flags = ["-O3", "-march=native", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def planar(x_rwC: Tensor) -> Tensor:
    """The same image with rows of each channel, ``(r, C, S)``, zeros around it."""
    return F.pad(x_rwC.permute(0, 2, 1), (EDGE, STRIDE - EDGE - COLUMNS)).contiguous()


def at(x: Tensor, offset: int = EDGE) -> ctypes.c_void_p:
    """The address of its first pixel, or of its first number."""
    return ctypes.c_void_p(x.data_ptr() + 4 * offset)


def conv3(kernels: ctypes.CDLL, out: Tensor) -> tuple[Call, Call, float]:
    """PyTorch's 3x3 convolution with ReLU, ours, and its GFLOPs."""
    x_rwC = torch.rand(ROWS + 2, COLUMNS, WIDTH) - 0.5
    weight, bias = torch.rand(WIDTH, WIDTH // GROUPS, 3, 3) - 0.5, torch.rand(WIDTH) - 0.5
    last = weight.contiguous(memory_format=torch.channels_last)
    group = WIDTH // GROUPS
    own = weight.view(GROUPS, group, group, 3, 3).permute(0, 3, 4, 2, 1).contiguous()
    x = planar(x_rwC)
    size = ctypes.c_size_t(STRIDE)

    def torch_way() -> object:
        y = F.conv2d(x_rwC.permute(2, 0, 1)[None], last, bias, padding=(0, 1), groups=GROUPS)
        return y.clamp_min_(0)[0].permute(1, 2, 0)

    def own_way() -> object:
        kernels.conv3(at(x), at(out), ROWS, GROUPS, COLUMNS, size, at(own, 0), at(bias, 0))
        return None

    return torch_way, own_way, 2e-9 * 9 * WIDTH * group * ROWS * COLUMNS


def conv1(kernels: ctypes.CDLL, out: Tensor, parts: int) -> tuple[Call, Call, float]:
    """The same of a sum of 1x1 convolutions; that of one image is added to another."""
    shape = (ROWS, COLUMNS, WIDTH)
    images, added = [torch.rand(shape) - 0.5 for _ in range(parts)], torch.rand(shape) - 0.5
    weight, bias = torch.rand(parts, WIDTH, WIDTH) - 0.5, torch.rand(WIDTH) - 0.5
    made = torch.empty(ROWS * COLUMNS, WIDTH)
    planes, added_plane = [planar(x) for x in images], planar(added)
    inputs = (ctypes.c_void_p * parts)(*(at(x).value for x in planes))
    plus = at(added_plane) if parts == 1 else None
    size = ctypes.c_size_t(STRIDE)

    def torch_way() -> object:
        first, *others = [x.view(-1, WIDTH) for x in images]
        torch.addmm(bias, first, weight[0], out=made)
        for x, w in zip(others, weight[1:], strict=True):
            made.addmm_(x, w)
        if parts == 1:
            made.add_(added.view(-1, WIDTH))
        return made.clamp_min_(0).view(shape)

    def own_way() -> object:
        kernels.conv1(inputs, parts, at(out), plus, ROWS, COLUMNS, size, at(weight, 0), at(bias, 0))
        return planes, added_plane  # ctypes does not keep them

    return torch_way, own_way, 2e-9 * WIDTH * WIDTH * parts * ROWS * COLUMNS


def run(rounds: int) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    out = torch.zeros(ROWS, WIDTH, STRIDE)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        kernels = compiled(Path(folder))
        cases = {"3x3 in 4 groups, ReLU": conv3(kernels, out)}
        for parts in (1, 2, 3, 4):
            name = "sum and ReLU" if parts == 1 else "ReLU"
            cases[f"1x1, {parts * WIDTH} to {WIDTH}, {name}"] = conv1(kernels, out, parts)
        calls: dict[str, Call] = {"products": matrix_products("fp32")}
        calls["peak"] = lambda: kernels.peak(ctypes.c_long(PEAK))
        same = {}
        for name, (theirs, ours, _) in cases.items():
            expected = theirs()
            ours()
            found = out[:, :, EDGE : EDGE + COLUMNS].permute(0, 2, 1)
            assert isinstance(expected, Tensor)
            same[name] = torch.equal(found, expected)
            calls[f"{name}|theirs"], calls[f"{name}|ours"] = theirs, ours
        times = interleaved(calls, rounds, clock=time.process_time)
    rows = []
    for name, (_, _, gflops) in cases.items():
        theirs, ours = (times[f"{name}|{way}"].median for way in ("theirs", "ours"))
        cells = [f"{1e3 * theirs:.2f}", f"{1e3 * ours:.2f}", f"{gflops / theirs:.0f}"]
        bits = "yes" if same[name] else "no"
        rows.append([name, *cells, f"{gflops / ours:.0f}", f"{theirs / ours:.2f}", bits])
    header = ["layer", "PyTorch: ms", "planar: ms", "PyTorch: GFLOP/s", "planar: GFLOP/s"]
    print(markdown([*header, "times as fast", "same bits"], rows))
    rate = 2 * matrix_rate(times["products"])
    most = 2e-9 * 16 * 48 * PEAK / times["peak"].median
    print(f"\nMatrix products: {rate:.0f} GFLOP/s; fused multiply-adds alone: {most:.0f}.")


if __name__ == "__main__":
    sys.exit(run_script("planar_kernels.py", 15, run))
