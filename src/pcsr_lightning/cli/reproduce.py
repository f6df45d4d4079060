"""``pcsr reproduce``: the paper's tables measured again, beside what the paper prints."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from pcsr_lightning.cli.command import program, run_command
from pcsr_lightning.errors import exit_at_once_on_signal

_EPILOG = """
settings:
  row=carn                 rows of the table, by model or by backbone: row=carn,fsrcnn-pcsr
  sets=Set14,Test2K        sets of pictures; those of the table if left out
  data.root=DIR            the folder that holds a folder for each set
  data.Set14=DIR           the folder of one set; data.DIV8K=DIR makes Test2K, Test4K and Test8K
  weights=DIR              published weights: fsrcnn-x4.pth, carn-pcsr-phase1.pth, ...
  models.carn-pcsr=RUN     a model of yours for a row; models.classsr=RUN for a rival's rows
  ours=false               leaves out the released models
  oracle=true              the best choice of classes as well
  curve=[-1,0,1]           values of k in the figure; curve=[] for single points
  device=cuda threads=4 output=DIR
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=program("reproduce"),
        description="Measures a table of the paper again: prints the paper's numbers, ours and the "
        "difference, and writes them as Markdown, CSV, LaTeX and PDF.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("table", metavar="TABLE", help="table1 to table5, or appendix1 to appendix5")
    p.add_argument("settings", metavar="KEY=VALUE", nargs="*", help="see below")
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)

    def task() -> int:
        # Heavy libraries are imported here: --help and wrong usage answer at once.
        with exit_at_once_on_signal():
            from pcsr_lightning.evaluation.reproduction import ReproductionConfig, reproduce

        logging.basicConfig(format="%(levelname)s: %(message)s")
        reproduce(ReproductionConfig.of(args.table, args.settings))
        return 0

    return run_command(task, args.debug)
