"""``pcsr devices``: what there is to compute with, and how fast models were measured to be."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pcsr_lightning.cli.command import name_argument, program, run_command

if TYPE_CHECKING:
    from pcsr_lightning.inference.time_model import TimeModel


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=program("devices"),
        description="List the devices, and the times of models that --seconds goes by.",
    )
    p.add_argument(
        "--measure",
        metavar="MODEL",
        type=name_argument,
        help="measure this model again, a name or a file (some seconds)",
    )
    p.add_argument("--scale", type=float, default=4.0, help="to measure at (default: 4)")
    p.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: cpu")
    p.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    return run_command(lambda: _run(args), args.debug)


def _run(args: argparse.Namespace) -> str:
    from pcsr_lightning.inference import kept_times

    measured = [] if args.measure is None else [_measure(args)]
    times = measured or kept_times()
    table = "no times are kept yet: --measure MODEL, or the first use of --seconds, measures them"
    return "\n".join([*_devices(), "", *(_times(times) if times else [table])])


def _devices() -> list[str]:
    import torch

    from pcsr_lightning.distributed import available_cores
    from pcsr_lightning.inference.execution import has_bf16
    from pcsr_lightning.inference.time_model import device_name

    def answer(known: bool) -> str:
        return "bfloat16" if known else "no fast bfloat16"

    lines = [
        f"cpu     {device_name(torch.device('cpu'))}: {available_cores()} cores, "
        f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, "
        f"{answer(has_bf16('cpu'))}"
    ]
    for i in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(i).total_memory / 2**30
        name = device_name(torch.device("cuda", i))
        lines.append(f"cuda:{i}  {name}: {memory:.0f} GiB, {answer(has_bf16('cuda'))}")
    return lines if len(lines) > 1 else [*lines, "no CUDA device"]


def _measure(args: argparse.Namespace) -> TimeModel:
    import torch

    from pcsr_lightning.errors import ConfigError
    from pcsr_lightning.inference import Execution, output_size, times_of
    from pcsr_lightning.networks import PCSR
    from pcsr_lightning.weights import load

    output_size((100, 100), args.scale)  # checks it
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is available here; leave out --device cuda")
    if args.threads is not None:
        if args.threads < 1:
            raise ConfigError(f"--threads must be at least 1, not {args.threads}")
        torch.set_num_threads(args.threads)
    model = load(args.measure, args.device)
    if not isinstance(model, PCSR):
        raise ConfigError(f"{args.measure}: an original model has one cost; name a PCSR model")
    return times_of(model, (args.scale, args.scale), Execution(args.precision), again=True)


def _times(times: Sequence[TimeModel]) -> list[str]:
    """A block for each model, device, precision and scale."""
    lines = ["seconds for a megapixel: the backbone's of the input, the rest of the result"]
    for each in times:
        scale = "x".join(f"{s:g}" for s in dict.fromkeys(each.scale))
        now = f", now {each.factor:.2f} times that" if abs(each.factor - 1) > 0.01 else ""
        classes = " / ".join(f"{1e6 * seconds:.4g}" for seconds in each.classes_M)
        lines += [
            f"{each.model}, x{scale}, {each.precision}, {each.threads} threads, {each.device}{now}",
            f"  backbone {1e6 * each.backbone:.4g}, classifier {1e6 * each.classifier:.4g}, "
            f"classes heavy to light {classes}, and {1000 * each.overhead:.3g} ms a picture",
        ]
    return lines
