"""``pcsr release MODEL --train DIR``: from pictures to a released model."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pcsr_lightning.cli.command import name_argument, path_argument, program, run_command

_EXAMPLES = """\
examples:
  %(prog)s fsrcnn-pcsr-x4 --train photos --valid more-photos
  %(prog)s carn-pcsr-x4 --train DIV2K/train --valid DIV2K/valid \\
      --test Set5 Set14 --about-data about.md
  %(prog)s carn-pcsr-x4 --on gpu --train photos
  %(prog)s my-model.yaml --train photos -- data.val_limit=20 threads=2
  %(prog)s my-model --weights model.safetensors --made how.md --test Set5

Overrides after -- go to every stage's training, see python -m pcsr_lightning.train --help.
Repeat a command that was stopped or killed, and it continues where it was. A finished release
is not overwritten.

exit codes: 0 done, 1 an error (one line on stderr), 2 wrong usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=program("release"),
        usage="%(prog)s MODEL --train DIR [--valid DIR] [--test DIR ...] [options] [-- OVERRIDES]\n"
        "       %(prog)s MODEL --weights FILE --made FILE.md [--test DIR ...] [options]",
        description="Train a model stage by stage (or take one trained in another way), check it\n"
        "on pictures unlike photographs, measure it, and write it with its card to\n"
        "OUT/MODEL: MODEL.safetensors, MODEL.json, MODEL.md and its curves.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "model",
        metavar="MODEL",
        type=name_argument,
        help="an experiment's name (conf/experiment/release), or a .yaml file",
    )
    p.add_argument(
        "--on",
        choices=["cpu", "gpu"],
        default="cpu",
        help="the recipe: for a CPU, in hours, or for a GPU, nine minutes by the clock "
        "(default: %(default)s)",
    )
    p.add_argument("--train", metavar="DIR", type=path_argument, help="pictures to train on")
    p.add_argument(
        "--weights", metavar="FILE", type=path_argument, help="a trained model: nothing is trained"
    )
    p.add_argument(
        "--made",
        metavar="FILE",
        type=path_argument,
        help="with --weights: Markdown on how it was trained",
    )
    p.add_argument(
        "--scales",
        metavar="X",
        type=float,
        nargs="+",
        default=[4.0],
        help="with --weights: the scale it was trained for, or the lowest and the highest "
        "(default: 4)",
    )
    p.add_argument(
        "--valid",
        metavar="DIR",
        type=path_argument,
        help="pictures to validate on (default: some of --train are held out)",
    )
    p.add_argument(
        "--test",
        metavar="DIR",
        type=path_argument,
        nargs="+",
        default=[],
        help="pictures to measure on",
    )
    p.add_argument(
        "--out",
        type=path_argument,
        default=Path("outputs/release"),
        help="folder (default: %(default)s)",
    )
    p.add_argument(
        "--about-data",
        metavar="FILE",
        type=path_argument,
        help="Markdown for the card: what the pictures are and under which licences",
    )
    p.add_argument(
        "--allow-unsound",
        action="store_true",
        help="write the model even if it fails on pictures unlike photographs",
    )
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    split = given.index("--") if "--" in given else len(given)
    overrides = given[split + 1 :]
    p = parser()
    args = p.parse_args(given[:split])
    if (args.weights is None) == (args.train is None) or (args.weights is None) != (
        args.made is None
    ):
        p.error("expected either --train DIR, or --weights FILE with --made FILE.md")
    if args.weights is not None and args.on == "gpu":
        p.error("--on gpu chooses a recipe, and with --weights nothing is trained: leave out one")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command = shlex.join(["python", "-m", "pcsr_lightning.release", *given])
    return run_command(lambda: _run(args, overrides, command), args.debug)


def _run(args: argparse.Namespace, overrides: list[str], command: str) -> str:
    # Heavy libraries are imported here: --help and wrong usage answer at once.
    from pcsr_lightning.cli.run_folder import check_release_folder
    from pcsr_lightning.release.experiment import model_name
    from pcsr_lightning.release.make_release import Sources, release, release_weights
    from pcsr_lightning.settings.known_keys import check_given

    check_given(overrides)
    name = args.model if args.weights is not None else model_name(args.model)
    check_release_folder(args.out / name)
    sources = Sources(args.train, args.valid, tuple(args.test), args.about_data)
    if args.weights is not None:
        written = release_weights(
            args.model, args.weights, args.made, args.scales, sources, args.out, args.allow_unsound
        )
    else:
        written = release(
            args.model, sources, args.out, overrides, command, args.allow_unsound, args.on == "gpu"
        )
    return "\n".join(str(path) for path in written)
