"""``pcsr upscale IN [OUT]``: upscales picture files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pcsr_lightning.batch import values
from pcsr_lightning.batch.terminal import sign_of_life
from pcsr_lightning.cli.command import name_argument, path_argument, program, run_command
from pcsr_lightning.cli.startup import quick_imports
from pcsr_lightning.errors import EMPTY, exit_at_once_on_signal
from pcsr_lightning.routing import RULES

_EXAMPLES = """\
examples:
  %(prog)s photo.jpg                    makes photo_x4.jpg
  %(prog)s photo.jpg big.png --budget 50%%
  %(prog)s photo.jpg big.png --scale 2.5 --adaptive --class-map classes.png
  %(prog)s photos/ large/ --size 3840x2160 --format webp --quality 90
  %(prog)s 'photos/**/*.png' large/ --suffix _x4
  cat a.png | %(prog)s - - --format png > b.png
  torchrun --nproc-per-node 2 -m pcsr_lightning.upscale photos/ large/

Results that exist are skipped: repeat a command that was stopped, and it does the rest. Any number
of processes and machines may work on one folder. A file that cannot be read or written is reported
at the end, and does not stop the others.

exit codes: 0 all done or there already, 1 an error (one line on stderr for each), 2 wrong usage,
130 interrupted (Ctrl-C), 143 terminated (SIGTERM)
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=program("upscale"),
        usage="%(prog)s IN [IN ...] [OUT] [options]",
        description="Upscale pictures. Every pixel is sent to an upsampler that fits its\n"
        "difficulty, so that plain areas cost little.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "paths",
        metavar="IN [OUT]",
        type=name_argument,
        nargs="*",
        help="IN: a picture, a folder (its tree is kept), a quoted pattern such as 'a/**/*.png', "
        "or - for standard input. OUT, the last of several arguments: a file for one picture (its "
        "suffix chooses the format), a folder for more, made if missing (a new one for one "
        "picture ends in /), or - for standard output. Without OUT, the result is written beside "
        "the input, with _x4 added to its name",
    )
    p.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        type=name_argument,
        help="OUT; every other argument is then an input",
    )
    _add_size(p)
    _add_files(p)
    _add_work(p)
    _add_reporting(p)
    return p


def _add_size(p: argparse.ArgumentParser) -> None:
    size = p.add_mutually_exclusive_group()
    size.add_argument(
        "--scale",
        type=float,
        help="factor for width and height, from 1 to 16, fractions too (default: 4; an original "
        "model's own)",
    )
    size.add_argument(
        "--size",
        metavar="WxH",
        type=values.wanted_size,
        help="the result's size, such as 3840x2160, 3840x or x2160; the picture's shape is kept, "
        "and the box filled as far as it goes",
    )
    fit = p.add_mutually_exclusive_group()
    fit.add_argument("--fit", action="store_true", help="with --size: keep the shape (the default)")
    fit.add_argument(
        "--exact", action="store_true", help="with --size: stretch to exactly that size"
    )


def _add_files(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--suffix",
        metavar="TEXT",
        help="added to the results' names, before the dot (default: nothing in an output folder, "
        "_x4 or the like beside the inputs)",
    )
    p.add_argument(
        "--format",
        type=values.format_name,
        metavar="|".join(values.FORMATS),
        help="of the results (default: the input's own where it can be written, else png)",
    )
    p.add_argument(
        "--quality",
        type=values.quality,
        metavar="N",
        help="1 to 100, for lossy formats",
    )
    p.add_argument("--overwrite", action="store_true", help="make results again that exist")
    p.add_argument(
        "--class-map",
        metavar="FILE",
        type=path_argument,
        help="also write a picture of each pixel's class, red (heaviest) to blue (lightest); for "
        "several pictures, a folder",
    )


def _add_work(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        metavar="NAME_OR_FILE",
        type=name_argument,
        help="a released model's name, a .safetensors, .ckpt or published .pth file (PCSR's, or "
        "Real-ESRGAN's SRVGGNetCompact), or a training's run folder (default: the released model "
        "for clean pictures or the one for photographs, by each picture's noise and compression)",
    )
    p.add_argument(
        "--backbone",
        metavar="PACKAGE.CLASS",
        type=name_argument,
        action="append",
        default=[],
        help="import a backbone of your own that the model was trained with (may be repeated)",
    )
    _add_routing(p)
    p.add_argument(
        "--refine",
        action=argparse.BooleanOptionalAction,
        help="smooth the seams between upsamplers (default: from scale 4 up)",
    )
    p.add_argument(
        "--precision",
        choices=["fp32", "tf32", "bf16"],
        default="fp32",
        help="bf16 is about twice as fast where the processor multiplies such numbers, for a few "
        "thousandths of a dB; tf32 is for NVIDIA GPUs from Ampere on (default: fp32)",
    )
    p.add_argument(
        "--max-memory",
        metavar="SIZE",
        type=values.byte_count,
        help="working memory beside the pictures themselves, such as 200M or 1G (default: what is "
        "fastest)",
    )
    p.add_argument(
        "--max-pixels",
        metavar="N",
        type=values.count,
        help="refuse to read pictures with more pixels, before memory is taken for them "
        "(default: 268435456)",
    )
    p.add_argument(
        "--denoise",
        type=float,
        metavar="S",
        help="how much noise and compression is taken away, from 0 (none) to 1 (default), by a "
        "model that was trained for it; without --model, the released one for photographs",
    )
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: cpu")
    p.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")


def _add_routing(p: argparse.ArgumentParser) -> None:
    """An option for every rule, and what they share."""
    choice = p.add_mutually_exclusive_group()
    for rule in RULES.values():
        flag, text = f"--{rule.name.replace('_', '-')}", rule.help.replace("%", "%%")
        if rule.parameter is None:
            choice.add_argument(flag, action="store_true", help=text)
        else:
            kind, metavar = values.of_rule(rule.parameter), rule.parameter.metavar
            choice.add_argument(flag, type=kind, metavar=metavar, help=text)
    fixed = RULES["fixed_class"].parameter
    assert fixed is not None
    # The name that --fixed-class had.
    choice.add_argument("--only-class", type=values.of_rule(fixed), help=argparse.SUPPRESS)
    p.add_argument(
        "--cost",
        choices=["softmax", "proportional"],
        default="softmax",
        help="how FLOPs weigh in the choice by k or budget; proportional is the published code's "
        "way (default: softmax)",
    )


def _add_reporting(p: argparse.ArgumentParser) -> None:
    output = p.add_mutually_exclusive_group()
    output.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per picture on stdout, one a line, and a summary at the end",
    )
    output.add_argument("--quiet", action="store_true", help="print nothing but errors")
    output.add_argument(
        "--verbose",
        action="store_true",
        help="print all that is known of each picture: sizes, classes, multiply-adds",
    )
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's values, with ``inputs`` and ``out`` separated; exits on wrong usage."""
    p = parser()
    words = list(sys.argv[1:] if argv is None else argv)
    # Intermixed: OUT may come after options. It would take what follows -- for options, too.
    end = words.index("--") if "--" in words else len(words)
    args = p.parse_intermixed_args(words[:end])
    args.inputs = [*args.paths, *words[end + 1 :]]
    if not args.inputs:
        p.error("name a picture, a folder or a quoted pattern")
    if not all(word.strip() for word in words[end + 1 :]):
        p.error(f"argument IN [OUT]: {EMPTY}: name a file or folder, or leave it out")
    if args.out is None and len(args.inputs) > 1:
        args.out = args.inputs.pop()
    if args.size is None and (args.exact or args.fit):
        p.error("--fit and --exact go with --size")
    if args.exact:
        if None in (args.size.width, args.size.height):
            p.error("--exact needs a --size with both width and height, such as 3840x2160")
        args.size = args.size._replace(exact=True)
    # Python has None for what was closed before it began.
    if args.inputs == ["-"] and sys.stdin is None:
        p.error("standard input is closed")
    if args.inputs == ["-"] and sys.stdin.isatty():
        p.error("standard input is a terminal; try: cat a.png | ... or < a.png")
    to_stdout = args.out == "-" or (args.out is None and args.inputs == ["-"])
    if to_stdout and args.json:
        p.error("--json writes to standard output, which takes the picture here")
    if (to_stdout or args.json) and sys.stdout is None:
        p.error("standard output is closed")
    if to_stdout and sys.stdout.isatty():
        p.error(
            "a picture cannot be shown in a terminal: redirect it (> file), or name an output file"
        )
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parse(argv)

    def task() -> int:
        # All heavy imports, before there is any work that an interrupt could leave half done.
        with sign_of_life("starting ...", args.quiet), exit_at_once_on_signal(), quick_imports():
            from pcsr_lightning.batch import command
        return command.run(args)

    return run_command(task, args.debug)
