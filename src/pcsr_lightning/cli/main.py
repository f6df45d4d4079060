"""The command ``pcsr``: starts the sub-command that is named, and imports no other."""

from __future__ import annotations

import argparse
import difflib
import runpy
import sys
from collections.abc import Sequence
from importlib import import_module

import pcsr_lightning
from pcsr_lightning.cli.command import run_command

COMMANDS = {
    "train": "train one stage, all stages, or the model that PCSR is compared with",
    "evaluate": "measure a model on a folder of pictures: PSNR, SSIM, cost, sweeps over k",
    "upscale": "upscale pictures, also whole folders",
    "models": "list the released models, and what each is best for",
    "devices": "list what there is to compute with, and how fast models are on it",
    "app": "serve the demo page",
    "demo": "upscale a photograph in five ways and compare them",
    "export": "write a model as an ONNX file",
    "convert": "convert a published checkpoint, or a training's, to a model file",
    "release": "train a released model stage by stage, and write its card",
    "replay": "train a run again and check that the weights are the same",
    "reproduce": "measure a table of the paper again, beside what the paper prints",
    "figures": "draw the paper's figures for a picture of yours",
}
"""Sub-commands, and what each does."""
HYDRA_COMMANDS = ("train", "evaluate")
"""Those whose arguments are Hydra's KEY=VALUE."""


def parser() -> argparse.ArgumentParser:
    """The command line in front of a sub-command's own."""
    width = max(map(len, COMMANDS))
    p = argparse.ArgumentParser(
        prog="pcsr",
        usage="%(prog)s COMMAND [ARGUMENTS]",
        description="Super-resolution that sorts pixels by difficulty (PCSR).\n\ncommands:\n"
        + "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items()),
        epilog="%(prog)s COMMAND --help explains a command. %(prog)s NAME is the same as\n"
        "python -m pcsr_lightning.NAME.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--version", action="version", version=f"%(prog)s {pcsr_lightning.__version__}")
    p.add_argument(
        "--completion",
        choices=["bash"],
        help='print a script that completes commands: eval "$(pcsr --completion bash)"',
    )
    p.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    p = parser()
    if words and not words[0].startswith("-"):
        name, *arguments = words
        if name in COMMANDS:
            return _run(name, arguments)
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        p.error(f"no command is called {name!r}; {hint}")
    args = p.parse_args(words)
    if args.completion is None:
        p.error(f"name a command: {', '.join(COMMANDS)}")
    from pcsr_lightning.cli.completion import bash_script

    return run_command(bash_script, args.debug)


def _run(name: str, words: list[str]) -> int:
    if name not in HYDRA_COMMANDS:
        return int(import_module(f"pcsr_lightning.cli.{name}").main(words))
    if {"-sc", "--shell-completion"} & set(words):
        from pcsr_lightning.cli.completion import complete_hydra

        complete_hydra(name, words)
        return 0
    if {"-h", "--help"} & set(words):
        words = [*words, f"hydra.help.app_name='pcsr {name}'"]
    # Hydra reads sys.argv, and Lightning starts a training's other processes by the name of the
    # main module: both meet here what they meet under python -m.
    sys.argv[1:] = words
    runpy.run_module(f"pcsr_lightning.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
