"""Benchmarks: quality, cost and time of a model on a folder of pictures, as tables and figures."""

from pcsr_lightning.distributed import ALONE, ProcessGroup, connected_group
from pcsr_lightning.evaluation.benchmark import (
    Benchmark,
    benchmark,
    check_fits,
    measure_pair,
)
from pcsr_lightning.evaluation.bjontegaard import bjontegaard_difference
from pcsr_lightning.evaluation.measurement import Measurement, Quality
from pcsr_lightning.evaluation.metrics import build_lpips, psnr, psnr_y, ssim, ssim_y
from pcsr_lightning.evaluation.pairs import Pair, Protocol, make_pair, scale_pair, shaved_border
from pcsr_lightning.evaluation.patches import Layout, upscale_patches
from pcsr_lightning.evaluation.published import PublishedPoint, published_points
from pcsr_lightning.evaluation.reader import Skipped
from pcsr_lightning.evaluation.report import benchmark_table, metrics, sweep_table, write_json
from pcsr_lightning.evaluation.sweep import Sweep, sweep
from pcsr_lightning.evaluation.tables import print_table
from pcsr_lightning.evaluation.target import KForTarget, check_target, find_k

__all__ = [
    "ALONE",
    "Benchmark",
    "KForTarget",
    "Layout",
    "Measurement",
    "Pair",
    "ProcessGroup",
    "Protocol",
    "PublishedPoint",
    "Quality",
    "Skipped",
    "Sweep",
    "benchmark",
    "benchmark_table",
    "bjontegaard_difference",
    "build_lpips",
    "check_fits",
    "check_target",
    "connected_group",
    "find_k",
    "make_pair",
    "measure_pair",
    "metrics",
    "print_table",
    "psnr",
    "psnr_y",
    "published_points",
    "scale_pair",
    "shaved_border",
    "ssim",
    "ssim_y",
    "sweep",
    "sweep_table",
    "upscale_patches",
    "write_json",
]
