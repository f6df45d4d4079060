"""What kernels that numba compiles would gain: CARN-PCSR's backbone layers beside PyTorch's.

    python benchmarks/planar_numba.py      # needs numba; one thread

As planar_kernels.py, which has the same in C, but rows lie in blocks of one vector of pixels:
``(row, block, channel, pixel)``, so that what a tile reads is one piece of memory. A block of zeros
on either side of each row is the convolution's padding.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from _measure import interleaved, markdown, matrix_products, matrix_rate, run_script
from torch import Tensor
from torch.nn import functional as F

start = time.perf_counter()
from pcsr_lightning.streaming import planar_kernels as tiles  # noqa: E402

IMPORT = time.perf_counter() - start
ROWS, COLUMNS, WIDTH, GROUPS = 35, 420, 52, 4
LANES = tiles.LANES
BLOCKS = -(-COLUMNS // LANES)
Call = Callable[[], object]


def planar(x_rwC: Tensor) -> Tensor:
    """The same image in blocks of pixels, ``(r, X + 2, C, lanes)``."""
    r, w, C = x_rwC.shape
    x = F.pad(x_rwC, (0, 0, LANES, (BLOCKS + 1) * LANES - w))
    return x.view(r, BLOCKS + 2, LANES, C).permute(0, 1, 3, 2).contiguous()


def pixels(x: Tensor) -> Tensor:
    """The inverse of :func:`planar`, without its zeros."""
    x = x.permute(0, 1, 3, 2).reshape(len(x), -1, x.shape[2])
    return x[:, LANES : LANES + COLUMNS]


def flat(x: Tensor) -> object:
    """Its numbers as numba takes them."""
    return x.view(-1).numpy()


def conv3(out: Tensor) -> tuple[Call, Call, float]:
    """PyTorch's 3x3 convolution with ReLU, ours, and its GFLOPs."""
    x_rwC = torch.rand(ROWS + 2, COLUMNS, WIDTH) - 0.5
    weight, bias = torch.rand(WIDTH, WIDTH // GROUPS, 3, 3) - 0.5, torch.rand(WIDTH) - 0.5
    last = weight.contiguous(memory_format=torch.channels_last)
    group = WIDTH // GROUPS
    own = weight.view(GROUPS, group, group, 3, 3).permute(0, 3, 4, 2, 1).contiguous()
    x = planar(x_rwC)

    def torch_way() -> object:
        y = F.conv2d(x_rwC.permute(2, 0, 1)[None], last, bias, padding=(0, 1), groups=GROUPS)
        return y.clamp_min_(0)[0].permute(1, 2, 0)

    def own_way() -> object:
        tiles.conv3(flat(x), flat(out), 0, ROWS, COLUMNS, GROUPS, group, flat(own), flat(bias))
        return None

    return torch_way, own_way, 2e-9 * 9 * WIDTH * group * ROWS * COLUMNS


def conv1(out: Tensor, parts: int) -> tuple[Call, Call, float]:
    """The same of a sum of 1x1 convolutions; that of one image is added to another."""
    shape = (ROWS, COLUMNS, WIDTH)
    images, added = [torch.rand(shape) - 0.5 for _ in range(parts)], torch.rand(shape) - 0.5
    weight, bias = torch.rand(parts, WIDTH, WIDTH) - 0.5, torch.rand(WIDTH) - 0.5
    made = torch.empty(ROWS * COLUMNS, WIDTH)
    planes, plus = [planar(x) for x in images], planar(added)
    own = weight.view(parts, WIDTH, -1, tiles.OUTPUTS).permute(2, 0, 1, 3).contiguous()

    def torch_way() -> object:
        first, *others = [x.view(-1, WIDTH) for x in images]
        torch.addmm(bias, first, weight[0], out=made)
        for x, w in zip(others, weight[1:], strict=True):
            made.addmm_(x, w)
        if parts == 1:
            made.add_(added.view(-1, WIDTH))
        return made.clamp_min_(0).view(shape)

    def own_way() -> object:
        given = [flat(x) for x in planes]
        given += given[:1] * (4 - parts)
        sum_with = flat(plus) if parts == 1 else given[0]
        tiles.conv1(*given, parts, sum_with, flat(out), 0, ROWS, COLUMNS, flat(own), flat(bias))
        return None

    return torch_way, own_way, 2e-9 * WIDTH * WIDTH * parts * ROWS * COLUMNS


def run(rounds: int) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    out = torch.zeros(ROWS, BLOCKS + 2, WIDTH, LANES)
    with torch.inference_mode():
        cases = {"3x3 in 4 groups, ReLU": conv3(out)}
        for parts in (1, 2, 3, 4):
            name = "sum and ReLU" if parts == 1 else "ReLU"
            cases[f"1x1, {parts * WIDTH} to {WIDTH}, {name}"] = conv1(out, parts)
        calls: dict[str, Call] = {"products": matrix_products("fp32")}
        same, first = {}, {}
        for name, (theirs, ours, _) in cases.items():
            expected = theirs()
            begin = time.process_time()
            ours()
            first[name] = time.process_time() - begin
            found = pixels(out)
            assert isinstance(expected, Tensor)
            error = float((found - expected).abs().max())
            same[name] = "yes" if error == 0 else f"{error:.1e}"
            calls[f"{name}|theirs"], calls[f"{name}|ours"] = theirs, ours
        times = interleaved(calls, rounds, clock=time.process_time)
    rows = []
    for name, (_, _, gflops) in cases.items():
        theirs, ours = (times[f"{name}|{way}"].median for way in ("theirs", "ours"))
        cells = [f"{1e3 * theirs:.2f}", f"{1e3 * ours:.2f}", f"{gflops / theirs:.0f}"]
        cells += [f"{gflops / ours:.0f}", f"{theirs / ours:.2f}", same[name], f"{first[name]:.2f}"]
        rows.append([name, *cells])
    header = ["layer", "PyTorch: ms", "planar: ms", "PyTorch: GFLOP/s", "planar: GFLOP/s"]
    print(markdown([*header, "times as fast", "same bits", "first call: s"], rows))
    print(f"\nMatrix products: {2 * matrix_rate(times['products']):.0f} GFLOP/s.")
    print(f"Import of numba: {IMPORT:.2f} s; {LANES} lanes.")


if __name__ == "__main__":
    sys.exit(run_script("planar_numba.py", 15, run))
