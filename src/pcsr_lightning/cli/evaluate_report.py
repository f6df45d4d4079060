"""The steps of an evaluation once it is prepared: measuring, printing, writing, logging."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from pcsr_lightning.distributed import ProcessGroup
from pcsr_lightning.evaluation.benchmark import Benchmark
from pcsr_lightning.evaluation.config import EvaluateSettings
from pcsr_lightning.evaluation.figures import save_figure
from pcsr_lightning.evaluation.job import Job, spread
from pcsr_lightning.evaluation.measurement import describe_routing
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.plots import psnr_flops
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.report import (
    FIGURE,
    METRICS,
    SWEEP,
    benchmark_table,
    metrics,
    sweep_content,
    sweep_points,
    sweep_table,
    write_json,
)
from pcsr_lightning.evaluation.tables import print_path, print_table
from pcsr_lightning.evaluation.target import Found, find_k
from pcsr_lightning.evaluation.wandb_report import (
    WandbRuns,
    log_benchmark,
    log_overview,
    log_points,
    overview_rows,
)
from pcsr_lightning.inference import Routing
from pcsr_lightning.networks import PCSR, Original

UNTELLING = {"model", "last", "best", "checkpoints"}
"""Names that every training's run folder has inside."""

T = TypeVar("T")


@dataclass(frozen=True)
class Ready:
    """An evaluation that nothing stands against any more.

    Attributes:
        settings: checked.
        job: what is measured.
        model: on its device; on the CPU where each device gets a process and a model of its own.
        devices: one for each process to start; one alone where none is started.
        processes: those that share the work, started from outside.
        beside: the paper's numbers, if they were asked for.
        run_dir: where results go.
    """

    settings: EvaluateSettings
    job: Job
    model: PCSR | Original
    devices: list[torch.device]
    processes: ProcessGroup
    beside: list[PublishedPoint]
    run_dir: Path

    @property
    def first(self) -> bool:
        """Whether this process prints and writes."""
        return self.processes.rank == 0

    @property
    def threads(self) -> int:
        """Of torch, in each of the processes."""
        given, shared = self.settings.threads, torch.get_num_threads() // len(self.devices)
        return max(1, shared) if given is None else given

    @property
    def name(self) -> str:
        """What is measured, on which pictures, in a few words."""
        s = self.settings
        return f"{model_name(s.model)} on {self.job.folder.resolve().name} x{s.scale}"

    def measure(self, work: Callable[[PCSR | Original, ProcessGroup], T]) -> T:
        """What ``work`` of all processes together found."""
        if len(self.devices) == 1:
            return work(self.model, self.processes)
        s = self.settings
        return spread(work, s.model, s.backbones, self.devices, self.threads)


def evaluate_one(ready: Ready, runs: WandbRuns | None, console: Console) -> dict[str, Any]:
    """Scores one routing, or the one that meets a target; returns what ``metrics.json`` holds."""
    settings, model, job = ready.settings, ready.model, ready.job
    with ExitStack() as stack:
        words = _words(ready, job.routing)
        run = ready.processes.run_collectively(
            lambda: stack.enter_context(runs.run(f"{ready.name}, {words}")) if runs else None
        )
        found: Found | None = None
        if settings.target_psnr is not None and isinstance(model, PCSR):
            found = find_k(
                model, job.folder, settings.target_psnr, job.scale, job.routing, job.protocol,
                job.patch_size, progress=True,
            )  # fmt: skip
            job = replace(job, routing=replace(job.routing, k=found.k))
        result = ready.measure(job.benchmark)
        content = metrics(result, _facts(ready))
        if ready.first:
            path = write_json(content, ready.run_dir / METRICS)
            label = f"{model_name(settings.model)} ({_words(ready, job.routing, found)})"
            title = _title(ready, result)
            table = benchmark_table(result, label, settings.per_image, title, ready.beside)
            print_table(table, console)
            print_path(path, console)
        if run is not None:
            log_benchmark(run, result, content["k"], job.pictures)
    return content


def _facts(ready: Ready) -> dict[str, Any]:
    s = ready.settings
    return {
        "model": s.model,
        "target_psnr": s.target_psnr,
        "data_root": s.data.root,
        "device": str(ready.devices[0].type if len(ready.devices) > 1 else ready.devices[0]),
        "processes": max(len(ready.devices), ready.processes.size),
        "threads": ready.threads,
        "published": [asdict(point) for point in ready.beside],
    }


def _words(ready: Ready, routing: Routing, found: Found | None = None) -> str:
    if isinstance(ready.model, Original):
        return "original"
    if found is not None:
        nearness = " for" if found.reached else ", nearest to"
        return f"{describe_routing(routing)}{nearness} {found.target:g} dB"
    target = ready.settings.target_psnr
    return describe_routing(routing) if target is None else f"{target:g} dB"


def _title(ready: Ready, result: Benchmark) -> str:
    s, layout = ready.settings, Layout.of(ready.job.protocol, ready.job.patch_size)
    count = f"{len(result.images)} picture{'s' * (len(result.images) != 1)}"
    left_out = f", {len(result.skipped)} left out" if result.skipped else ""
    patches = f" of {layout.side}, one every {layout.step}" if layout else ""
    return f"{s.data.root}: {count}{left_out}, x{s.scale}, protocol {s.protocol}{patches}"


def evaluate_sweep(ready: Ready, runs: WandbRuns | None, console: Console) -> dict[str, Any]:
    """Scores every value of a sweep, with the network run once a picture.

    Returns:
        What ``sweep.json`` holds, see :func:`sweep_content`.
    """
    s, run_dir = ready.settings, ready.run_dir
    with ExitStack() as stack:
        overview = ready.processes.run_collectively(
            lambda: (
                stack.enter_context(runs.run(f"{ready.name}, all", "overview")) if runs else None
            )
        )
        found = ready.measure(ready.job.sweep_points)
        facts = {"model": s.model, "scale": s.scale, "data_root": s.data.root}
        content = sweep_content(found, facts)
        if ready.first:
            write_json(content, run_dir / SWEEP)
            name, words = model_name(s.model), f"x{s.scale}, protocol {s.protocol}"
            title = f"{name}, {s.data.root}: {found.pictures} pictures, {words}"
            # A line of its own: the table is too narrow for it.
            console.print(title, soft_wrap=True, highlight=False, markup=False)
            print_table(sweep_table(found, ready.beside), console)
            caption = f"{ready.job.folder.resolve().name}, {words}"
            figure = psnr_flops(found.points, ready.beside, name, caption)
            save_figure(figure, run_dir / FIGURE)
            for path in (run_dir / SWEEP, run_dir / FIGURE):
                print_path(path, console)
        if overview is not None:
            rows = overview_rows(sweep_points(content), ready.beside)
            log_overview(overview, rows, [run_dir / FIGURE])
    if runs is not None:
        log_points(runs, ready.name, found.points)
    return content


def model_name(name_or_file: str | None) -> str:
    """A model's name for a folder: a file's stem, with its run's name where that says nothing."""
    path = Path(str(name_or_file)).expanduser()
    parts = [path.stem if path.suffix in (".safetensors", ".ckpt", ".pth") else path.name]
    if parts[0] in UNTELLING:
        parts = [p for p in (*path.resolve().parts[-3:-1], parts[0]) if p != "checkpoints"][-2:]
    return re.sub(r"[^\w.=-]+", "_", "-".join(parts)).strip("._") or "model"
