"""How high strips should be, and what memory layout and streaming bring: the engine's own choices.

    python benchmarks/strips.py
    python benchmarks/strips.py --threads 1 --repeats 9

Prints two tables: the whole of ``upscale`` over the height of strips, for PCSR and the original;
and the backbone alone over the ways to run it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from _inputs import SCALE, find_models, find_photograph, load_original, load_pcsr, shared_folder
from _measure import interleaved, run_script
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.inference.execution import Execution, has_bf16
from pcsr_lightning.inference.features import TiledRows, feature_rows
from pcsr_lightning.networks import PCSR, Original

LR_SIZE = (276, 420)
ROWS = (6, 12, 18, 24, 36, 48, 72, 138)


def _run(rounds: int) -> None:
    shared = shared_folder()
    models = find_models(shared, None, None)
    lr_13hw, _ = find_photograph(shared).pair(LR_SIZE)
    model = load_pcsr(models.pcsr)
    precisions = ["fp32", "bf16"] if has_bf16("cpu") else ["fp32"]
    networks: dict[str, PCSR | Original] = {"PCSR, k = 0": model}
    if models.original is not None:
        networks["original"] = load_original(models.original)
    calls: dict[str, Callable[[], object]] = {}
    for name, network in networks.items():
        for precision in precisions:
            for rows in ROWS:
                calls[f"{name}|{precision}|{rows}"] = _upscale(network, lr_13hw, precision, rows)
    times = interleaved(calls, rounds)
    print(f"Seconds of `upscale`, LR {LR_SIZE[0]} x {LR_SIZE[1]}, by rows of a strip\n")
    print("| model | precision | " + " | ".join(str(rows) for rows in ROWS) + " |")
    print("|---" * (len(ROWS) + 2) + "|")
    for name in networks:
        for precision in precisions:
            row = [times[f"{name}|{precision}|{rows}"].median for rows in ROWS]
            print(f"| {name} | {precision} | " + " | ".join(f"{s:.3f}" for s in row) + " |")
    print("\nSeconds of the backbone alone, fp32\n\n| way | seconds |\n|---|---|")
    for name, timing in interleaved(_backbone_ways(model, lr_13hw), rounds).items():
        print(f"| {name} | {timing.text()} |")


def _upscale(
    network: PCSR | Original, lr_13hw: Tensor, precision: str, rows: int
) -> Callable[[], object]:
    return lambda: pcsr_lightning.upscale(
        network, lr_13hw, SCALE, precision=precision, tile_rows=rows
    )


def _backbone_ways(model: PCSR, lr_13hw: Tensor) -> dict[str, Callable[[], object]]:
    x_13hw = lr_13hw - model.mean[:, None, None]
    backbone, halo = model.backbone.eval(), model.backbone.halo
    last = x_13hw.contiguous(memory_format=torch.channels_last)
    dtype = Execution().dtype(model)

    def whole(x: Tensor) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return backbone(x)

        return run

    def strips(streamed: bool, rows: int) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                if streamed:
                    source = feature_rows(backbone, halo, x_13hw, dtype)
                else:
                    source = TiledRows(backbone, halo, x_13hw, dtype)
                return sum(1 for _ in source.strips(rows))

        return run

    ways: dict[str, Callable[[], object]] = {
        "whole picture, default layout": whole(x_13hw.contiguous()),
        "whole picture, channels last": whole(last),
    }
    for rows in (36, 72):
        ways[f"tiles of {rows} rows that overlap by the halo of {halo}"] = strips(False, rows)
        ways[f"stream, {rows} rows at a time"] = strips(True, rows)
    return ways


if __name__ == "__main__":
    sys.exit(run_script("strips.py", 5, _run))
