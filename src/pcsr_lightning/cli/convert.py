"""``pcsr convert IN.pth OUT``: model files of other formats."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pcsr_lightning.atomic_io import check_writable
from pcsr_lightning.cli.command import path_argument, program, run_command
from pcsr_lightning.errors import ModelFileError

_EXAMPLES = """\
examples:
  %(prog)s carn-pcsr-phase1.pth carn-pcsr
  %(prog)s runs/2026-01-31/checkpoints/last.ckpt mine.safetensors --force

The weights stay under the terms they were published under.

exit codes: 0 done, 1 an error (one line on stderr), 2 wrong usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=program("convert"),
        description="Convert a published checkpoint (.pth), or a training's, to OUT.safetensors\n"
        "with its architecture in OUT.json. Nothing in the file is ever executed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "input", metavar="IN", type=path_argument, help="a .pth or .ckpt file, or a run folder"
    )
    p.add_argument(
        "output",
        metavar="OUT",
        type=path_argument,
        help="what to write, with or without .safetensors; its folder must exist",
    )
    p.add_argument("--force", action="store_true", help="replace files that exist")
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    return run_command(lambda: _run(args.input, args.output, args.force), args.debug)


def _run(source: Path, target: Path, force: bool) -> str:
    target = _check_target(target, force)
    # Heavy libraries are imported here: --help and wrong usage answer at once.
    from pcsr_lightning import weights

    model, metadata = weights.load_model_file(weights.find_model(source))
    written = weights.save(model, target, metadata)
    config = model.config()
    classes = f", {len(config['upsamplers'])} classes" if config["kind"] == "pcsr" else ""
    parameters = sum(p.numel() for p in model.parameters())
    return (
        f"{written} and {written.with_suffix('.json').name}: {config['backbone']['name']} "
        f"{config['kind']}{classes}, {parameters:,} parameters"
    )


def _check_target(target: Path, force: bool) -> Path:
    """The output without a suffix, if it can be written."""
    if target.suffix in (".safetensors", ".json"):
        target = target.with_suffix("")
    check_writable(target, ModelFileError)
    for path in (Path(f"{target}.safetensors"), Path(f"{target}.json")):
        if path.exists() and not force:
            raise ModelFileError(f"{path}: exists already; choose another name, or add --force")
    return target
