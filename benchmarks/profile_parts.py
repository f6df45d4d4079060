"""Where the time goes, and why fewer multiply-adds are not always less time.

    python benchmarks/profile_parts.py

Prints two tables: the parts of one run, and single layers as wide as those of CARN-PCSR (52
channels in 4 groups of 13) beside those of the original CARN (64 in 4 groups of 16).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from _inputs import SCALE, find_models, find_photograph, load_pcsr, shared_folder
from _measure import DTYPES, interleaved, run_script
from torch import Tensor
from torch.nn import functional as F

import pcsr_lightning
from pcsr_lightning.inference import Execution, RoutingConfig, Session
from pcsr_lightning.inference.execution import has_bf16

LR_SIZE = (276, 420)
ROWS, COLUMNS = 36, 420
WIDTHS = (52, 64)
GROUPS = 4


def _run(rounds: int) -> None:
    precisions = ["fp32", "bf16"] if has_bf16("cpu") else ["fp32"]
    _parts(precisions, rounds)
    _layers(precisions, rounds)


def _parts(precisions: list[str], rounds: int) -> None:
    """Seconds of the backbone, the classifier and the rest."""
    shared = shared_folder()
    model = load_pcsr(find_models(shared, None, None).pcsr)
    lr_13hw, _ = find_photograph(shared).pair(LR_SIZE)
    routing = RoutingConfig(cost="proportional")
    calls: dict[str, Callable[[], object]] = {}
    for precision in precisions:
        execution = Execution(precision)
        known = Session(model, lr_13hw, SCALE, execution=execution)
        _ = known.logits

        def backbone(execution: Execution = execution) -> object:
            return Session(model, lr_13hw, SCALE, execution=execution)

        def rest(known: Session = known) -> object:
            return known.run(routing)

        def all_of_it(precision: str = precision) -> object:
            return pcsr_lightning.upscale(
                model, lr_13hw, SCALE, cost="proportional", precision=precision
            )

        calls[f"backbone|{precision}"] = backbone
        calls[f"upsamplers, refinement, result|{precision}"] = rest
        calls[f"all, with the classifier|{precision}"] = all_of_it
    times = interleaved(calls, rounds)
    print(f"Seconds of the parts, LR {LR_SIZE[0]} x {LR_SIZE[1]}, k = 0\n")
    print("| part | " + " | ".join(precisions) + " |\n|---" + "|---" * len(precisions) + "|")
    for part in dict.fromkeys(name.split("|")[0] for name in calls):
        row = [f"{times[f'{part}|{precision}'].median:.3f}" for precision in precisions]
        print(f"| {part} | " + " | ".join(row) + " |")


def _layers(precisions: list[str], rounds: int) -> None:
    """Milliseconds of single layers, and what the time follows."""
    calls: dict[str, Callable[[], object]] = {}
    for precision in precisions:
        for width in WIDTHS:
            for kind, call in _layer(width, DTYPES[precision]).items():
                calls[f"{kind}|{precision}|{width}"] = call
    times = interleaved(calls, 5 * rounds)
    kinds = list(dict.fromkeys(name.split("|")[0] for name in calls))
    print(f"\nMilliseconds of single layers on {ROWS} x {COLUMNS} pixels\n")
    print("| layer | precision | 52 channels | 64 channels | times | multiply-adds |")
    print("|---|---|---|---|---|---|")
    for kind in kinds:
        for precision in precisions:
            few, many = (times[f"{kind}|{precision}|{width}"].median for width in WIDTHS)
            print(
                f"| {kind} | {precision} | {1e3 * few:.2f} | {1e3 * many:.2f} | {few / many:.2f} "
                f"| {(WIDTHS[0] / WIDTHS[1]) ** 2:.2f} |"
            )


def _layer(width: int, dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    x = torch.rand(1, width, ROWS, COLUMNS).to(dtype).contiguous(memory_format=torch.channels_last)
    three = (torch.rand(width, width // GROUPS, 3, 3) - 0.5).to(dtype)
    three = three.contiguous(memory_format=torch.channels_last)
    bias = torch.rand(width).to(dtype)
    x_PC = x.permute(0, 2, 3, 1).reshape(-1, width)
    one_CN = (torch.rand(width, width) - 0.5).to(dtype)
    out_PN = torch.empty_like(x_PC)

    def grouped() -> Tensor:
        with torch.inference_mode():
            return F.conv2d(x, three, bias, padding=1, groups=GROUPS)

    def mixing() -> Tensor:
        with torch.inference_mode():
            return torch.addmm(bias, x_PC, one_CN, out=out_PN)

    return {"3x3 in 4 groups": grouped, "1x1": mixing}


if __name__ == "__main__":
    sys.exit(run_script("profile_parts.py", 7, _run))
