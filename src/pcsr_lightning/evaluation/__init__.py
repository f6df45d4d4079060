"""Benchmarks: quality, cost and time of a model on a folder of pictures, as tables and figures."""

from pcsr_lightning.evaluation.benchmark import (
    Benchmark,
    PictureScore,
    Score,
    Skipped,
    benchmark,
    check_fits,
    score_pair,
)
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.pairs import Pair, Protocol, make_pair, scale_pair, shaved_border
from pcsr_lightning.evaluation.report import build_table, metrics, print_table, write_metrics

__all__ = [
    "Benchmark",
    "Pair",
    "PictureScore",
    "Protocol",
    "Score",
    "Skipped",
    "benchmark",
    "build_table",
    "check_fits",
    "make_pair",
    "metrics",
    "print_table",
    "psnr",
    "scale_pair",
    "score_pair",
    "shaved_border",
    "write_metrics",
]
