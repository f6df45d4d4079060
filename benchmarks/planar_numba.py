"""What kernels that numba compiles gain: layers of CARN-PCSR and of CARN beside PyTorch's.

    python benchmarks/planar_numba.py                # needs numba; one thread, CPU seconds
    python benchmarks/planar_numba.py --threads 2    # pictures alone, seconds: for an idle machine

Rows lie in blocks of one vector of pixels, ``(row, block, channel, pixel)``, so that what a tile
reads is one piece of memory. PyTorch's operators have channels in the lanes of vectors.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from _inputs import find_models, find_photograph, load_original, load_pcsr, shared_folder
from _measure import DTYPES, interleaved, markdown, matrix_products, matrix_rate, run_script
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.kernels import QueryKernels, Strip
from pcsr_lightning.inference.session import Session
from pcsr_lightning.inference.upscaling import upscale_by
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.routing import RoutingConfig

start = time.perf_counter()
from pcsr_lightning.streaming import planar_kernels as tiles  # noqa: E402

IMPORT = time.perf_counter() - start
ROWS, COLUMNS, GROUPS = 35, 420, 4
LR, PRECISIONS = (276, 420), ("fp32", "bf16")
HEAVY = 0.35
TIMES = ["precision", "without", "with", "times as fast"]
"""Of a strip milliseconds, of a picture seconds."""
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


def conv3(out: Tensor, channels: int) -> tuple[Call, Call, float]:
    """PyTorch's 3x3 convolution with ReLU, ours, and its GFLOPs."""
    group = channels // GROUPS
    x_rwC = torch.rand(ROWS + 2, COLUMNS, channels) - 0.5
    weight, bias = torch.rand(channels, group, 3, 3) - 0.5, torch.rand(channels) - 0.5
    last = weight.contiguous(memory_format=torch.channels_last)
    tile = tiles.best_tile(group)
    own = weight.view(-1, len(tile[0]), group, 3, 3).permute(0, 3, 4, 2, 1).contiguous()
    x = planar(x_rwC)

    def torch_way() -> object:
        y = F.conv2d(x_rwC.permute(2, 0, 1)[None], last, bias, padding=(0, 1), groups=GROUPS)
        return y.clamp_min_(0)[0].permute(1, 2, 0)

    def own_way() -> object:
        images, weights = (flat(x), flat(out)), (flat(own), flat(bias))
        tiles.conv3(*images, 0, ROWS, COLUMNS, GROUPS, group, *weights, tile)
        return None

    return torch_way, own_way, 2e-9 * 9 * channels * group * ROWS * COLUMNS


def conv1(out: Tensor, C: int, parts: int) -> tuple[Call, Call, float]:
    """The same of a sum of 1x1 convolutions; that of one image is added to another."""
    shape = (ROWS, COLUMNS, C)
    images, added = [torch.rand(shape) - 0.5 for _ in range(parts)], torch.rand(shape) - 0.5
    weight, bias = torch.rand(parts, C, C) - 0.5, torch.rand(C) - 0.5
    made = torch.empty(ROWS * COLUMNS, C)
    planes, plus = [planar(x) for x in images], planar(added)
    tile = tiles.best_tile(C)
    own = weight.view(parts, C, -1, len(tile[0])).permute(2, 0, 1, 3).contiguous()

    def torch_way() -> object:
        first, *others = [x.view(-1, C) for x in images]
        torch.addmm(bias, first, weight[0], out=made)
        for x, w in zip(others, weight[1:], strict=True):
            made.addmm_(x, w)
        if parts == 1:
            made.add_(added.view(-1, C))
        return made.clamp_min_(0).view(shape)

    def own_way() -> object:
        given = [flat(x) for x in planes]
        given += given[:1] * (4 - parts)
        out_array, weights = flat(out), (flat(own), flat(bias))
        others = (out_array, 0, ROWS, COLUMNS, C, *weights, tile)
        if parts == 1:
            tiles.conv1(*given, parts, flat(plus), *others)
        else:
            tiles.conv1_in_turn(*given, parts, *others)
        return None

    return torch_way, own_way, 2e-9 * C * C * parts * ROWS * COLUMNS


def run(rounds: int) -> None:
    """Prints the tables."""
    if torch.get_num_threads() == 1:
        layers(rounds)
    strips(rounds)
    pictures(rounds)


def layers(rounds: int) -> None:
    """The table of single layers."""
    tiles.keep_compiled()
    with torch.inference_mode():
        cases, outs = {}, {}
        for C in (52, 64):
            out = torch.zeros(ROWS, BLOCKS + 2, C, LANES)
            cases[f"3x3 in {GROUPS} groups of {C // GROUPS}, ReLU"] = conv3(out, C)
            for parts in (1, 2, 3, 4):
                name = "sum and ReLU" if parts == 1 else "ReLU"
                cases[f"1x1, {parts * C} to {C}, {name}"] = conv1(out, C, parts)
            outs |= dict.fromkeys(cases.keys() - outs.keys(), out)
        calls: dict[str, Call] = {"products": matrix_products("fp32")}
        same, first = {}, {}
        for name, (theirs, ours, _) in cases.items():
            expected = theirs()
            begin = time.process_time()
            ours()
            first[name] = time.process_time() - begin
            found = pixels(outs[name])
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


def strips(rounds: int) -> None:
    """The table of a strip's classifier and upsamplers, without the kernel and with it."""
    names, calls = find_models(shared_folder(), None, None), {}
    model, (h, w) = load_pcsr(names.pcsr), (ROWS, COLUMNS)
    strip, grid = Strip(0, h, 0, 4 * h), model.grid((h, w), (4 * h, 4 * w))
    draw = torch.Generator().manual_seed(0)
    feat_1rwD = torch.rand(1, h, w, model.backbone.out_channels, generator=draw)
    class_1Q = (torch.rand(1, 16 * h * w, generator=draw) >= HEAVY).to(torch.uint8)
    for precision in PRECISIONS:
        x = feat_1rwD.to(DTYPES[precision])
        for planar in (False, True):
            kernels = QueryKernels.of(model, grid, x.dtype, planar)
            calls[f"classifier|{precision}|{planar}"] = partial(kernels.logits, x, strip)
            calls[f"upsamplers|{precision}|{planar}"] = partial(
                kernels.residual, x, strip, class_1Q
            )
    with torch.inference_mode():
        print(markdown([f"strip, {HEAVY:.0%} heavy", *TIMES], _compared(calls, rounds, 1e3)))


def pictures(rounds: int) -> None:
    """The table of whole pictures and their backbones, without the kernels and with them."""
    shared = shared_folder()
    names = find_models(shared, None, None)
    lr_13hw, _ = find_photograph(shared).pair(LR)
    pcsr = load_pcsr(names.pcsr)
    calls: dict[str, Call] = {}
    for precision in PRECISIONS:
        for planar in (False, True):
            execution = Execution(precision, planar=planar)
            way = f"{precision}|{planar}"
            calls[f"backbone|{way}"] = partial(
                Session, pcsr, lr_13hw, size=(4 * LR[0], 4 * LR[1]), execution=execution
            )
            models: dict[str, PCSR | Original] = {"k = 0": pcsr}
            if names.original is not None:
                models["original"] = load_original(names.original)
            for name, model in models.items():
                calls[f"{name}|{way}"] = partial(
                    upscale_by, model, lr_13hw, RoutingConfig(), execution
                )
    print(markdown(["picture", *TIMES], _compared(calls, rounds, 1)))


def _compared(calls: dict[str, Call], rounds: int, unit: float) -> list[list[str]]:
    """Rows of a table of what has names ``what|precision|with kernels``."""
    for call in calls.values():
        call()
    one = torch.get_num_threads() == 1
    times = interleaved(calls, rounds, clock=time.process_time if one else time.perf_counter)
    rows = []
    for name in calls:
        if name.endswith("False"):
            before, after = (times[name.replace("False", way)] for way in ("False", "True"))
            what, precision, _ = name.split("|")
            cells = [f"{unit * timing.median:.3g}" for timing in (before, after)]
            rows.append([what, precision, *cells, f"{before.median / after.median:.2f}"])
    return rows


if __name__ == "__main__":
    sys.exit(run_script("planar_numba.py", 9, run))
