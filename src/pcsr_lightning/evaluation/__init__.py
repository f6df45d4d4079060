"""Benchmarks: quality, cost and time of a model on a folder of pictures, as tables and figures."""

from pcsr_lightning.distributed import ALONE, ProcessGroup, connected_group
from pcsr_lightning.evaluation.benchmark import (
    Benchmark,
    PictureScore,
    Score,
    benchmark,
    check_fits,
    score_pair,
)
from pcsr_lightning.evaluation.metrics import build_lpips, psnr, psnr_y, ssim
from pcsr_lightning.evaluation.pairs import Pair, Protocol, make_pair, scale_pair, shaved_border
from pcsr_lightning.evaluation.patches import Layout, restore
from pcsr_lightning.evaluation.published import PublishedPoint, published_points
from pcsr_lightning.evaluation.reader import Skipped
from pcsr_lightning.evaluation.report import build_table, metrics, print_table, write_metrics
from pcsr_lightning.evaluation.sweep import Sweep, SweepPoint, sweep
from pcsr_lightning.evaluation.target import Found, check_target, find_k

__all__ = [
    "ALONE",
    "Benchmark",
    "Found",
    "Layout",
    "Pair",
    "PictureScore",
    "ProcessGroup",
    "Protocol",
    "PublishedPoint",
    "Score",
    "Skipped",
    "Sweep",
    "SweepPoint",
    "benchmark",
    "build_lpips",
    "build_table",
    "check_fits",
    "check_target",
    "connected_group",
    "find_k",
    "make_pair",
    "metrics",
    "print_table",
    "psnr",
    "psnr_y",
    "published_points",
    "restore",
    "scale_pair",
    "score_pair",
    "shaved_border",
    "ssim",
    "sweep",
    "write_metrics",
]
