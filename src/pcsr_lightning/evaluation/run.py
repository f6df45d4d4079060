"""A whole evaluation: measures, prints, writes and logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pcsr_lightning.distributed import ProcessGroup, connected_group
from pcsr_lightning.evaluation.benchmark import Benchmark, benchmark
from pcsr_lightning.evaluation.config import EvaluationConfig
from pcsr_lightning.evaluation.curves import psnr_flops
from pcsr_lightning.evaluation.figures import save_for_papers
from pcsr_lightning.evaluation.log_results import (
    log_benchmark,
    log_overview,
    log_points,
    overview_rows,
)
from pcsr_lightning.evaluation.loggers import Loggers, RunLoggers, group_name
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.picture_metrics import build_metrics
from pcsr_lightning.evaluation.prepared import PreparedEvaluation, model_name, prepare
from pcsr_lightning.evaluation.report import (
    FIGURE,
    METRICS,
    SWEEP,
    benchmark_table,
    measured_points,
    metrics,
    sweep_content,
    sweep_table,
    write_json,
)
from pcsr_lightning.evaluation.saved_pictures import save_pictures, save_regret
from pcsr_lightning.evaluation.sweep import OnOracle, Sweep, sweep
from pcsr_lightning.evaluation.tables import print_path, print_table
from pcsr_lightning.evaluation.target import KForTarget, find_k
from pcsr_lightning.inference import RoutingConfig, UpscaleResult
from pcsr_lightning.networks import PCSR, AnyNetwork, Original

_log = logging.getLogger(__name__)


def run_evaluation(
    config: EvaluationConfig,
    run_dir: Path,
    console: Console | None = None,
    log_group: str | None = None,
) -> dict[str, Any]:
    """Measures a model on a folder of pictures.

    Args:
        config: what, on which pictures, how.
        run_dir: where ``metrics.json``, and with ``save_images`` the folder ``pictures``, go.
        console: where the table goes; stdout if not given.
        log_group: of the W&B runs that are to be compared with this one.

    Returns:
        What ``metrics.json`` holds, see :func:`~pcsr_lightning.evaluation.metrics`; with
        ``sweep=k`` what ``sweep.json`` holds. Of processes that torchrun or srun started all
        return it, and the first prints and writes.

    Raises:
        PCSRError: a setting, the model or the pictures cannot be used.
    """
    group = connected_group()
    run_dir = group.broadcast(run_dir)
    prepared = group.run_collectively(lambda: prepare(config, run_dir, group))
    config = prepared.config
    loggers = None
    if config.logger and prepared.first:
        tags = [prepared.model.backbone.name, config.data_name, f"x{config.scale}"]
        log_group = log_group or (None if config.sweep is None else group_name(run_dir))
        loggers = RunLoggers(config.logger, asdict(config), log_group, tags)
    console = (console or Console()) if prepared.first else Console(quiet=True)
    if config.sweep is not None:
        return _evaluate_sweep(prepared, loggers, console)
    return _evaluate_routing(prepared, loggers, console)


def _evaluate_routing(
    prepared: PreparedEvaluation, loggers: RunLoggers | None, console: Console
) -> dict[str, Any]:
    """Measures one routing, or the one that meets a target; returns what ``metrics.json`` holds."""
    config, model, [routing] = prepared.config, prepared.model, prepared.routings
    with _logged(prepared, loggers, _routing_name(prepared, routing)) as run:
        found: KForTarget | None = None
        if config.target_psnr is not None and isinstance(model, PCSR):
            found = find_k(
                model, config.folder, config.target_psnr, config.scale_pair, routing,
                config.protocol, config.patch_size, progress=True,
            )  # fmt: skip
            routing = routing.replace(k=found.k)
        result = prepared.measure(partial(run_benchmark, config, routing, prepared.pictures))
        bound = _oracle(prepared, routing)
        content = metrics(result, _metadata(prepared), bound)
        if prepared.first:
            path = write_json(content, prepared.run_dir / METRICS)
            label = f"{model_name(config.model)} ({_routing_name(prepared, routing, found)})"
            title, published = _title(prepared, result), prepared.published
            table = benchmark_table(result, label, config.per_image, title, published, bound)
            print_table(table, console)
            for written in (*table.write(prepared.run_dir), path):
                print_path(written, console)
            warn_if_worse(config.model, [result.mean])
        log_benchmark(run, result, result.mean.k, prepared.pictures)
    return content


def _evaluate_sweep(
    prepared: PreparedEvaluation, loggers: RunLoggers | None, console: Console
) -> dict[str, Any]:
    """Measures every value of a sweep; returns what ``sweep.json`` holds."""
    config, run_dir, published = prepared.config, prepared.run_dir, prepared.published
    with _logged(prepared, loggers, "all", "overview") as overview:
        found = prepared.measure(partial(run_sweep, config, prepared.routings))
        content = sweep_content(found, _metadata(prepared))
        if prepared.first:
            path = write_json(content, run_dir / SWEEP)
            name, how = model_name(config.model), f"x{config.scale}, protocol {config.protocol}"
            title = f"{name}, {config.data.root}: {found.pictures} pictures, {how}"
            # A line of its own: the table is too narrow for it.
            console.print(title, soft_wrap=True, highlight=False, markup=False)
            table = sweep_table(found, published)
            print_table(table, console)
            title_of_figure = f"{config.data_name}, {how}"
            figure = psnr_flops(found.points, published, name, title_of_figure, bound=found.oracle)
            files = [*replace(table, title=title).write(run_dir), path]
            for written in (*files, *save_for_papers(figure, run_dir / FIGURE)):
                print_path(written, console)
            warn_if_worse(config.model, found.points)
        if overview:
            log_overview(
                overview, overview_rows(measured_points(content), published), [run_dir / FIGURE]
            )
    if loggers is not None:
        log_points(loggers, prepared.name, found.points)
    return content


def _oracle(prepared: PreparedEvaluation, routing: RoutingConfig) -> Sweep | None:
    """The routing beside the oracle, if that was asked for; with maps where pictures are kept."""
    config, folder = prepared.config, prepared.pictures
    if not config.oracle:
        return None
    keep = None if folder is None else partial(save_regret, routing, folder)
    return prepared.measure(partial(run_sweep, config, (routing,), on_oracle=keep, warn=False))


def warn_if_worse(model: str, points: Sequence[Measurement]) -> None:
    """Says in one line where a model is worse than bicubic upscaling."""
    worse = [point for point in points if point.psnr < point.bicubic.psnr]
    if not worse:
        return
    which = ", ".join(point.routing_name for point in worse)
    what = "" if len(worse) == len(points) else f" with {which}"
    best = max(point.psnr for point in worse)
    _log.warning(
        "%s is worse than bicubic on these pictures%s: %.2f dB against %.2f dB",
        model, what, best, worse[0].bicubic.psnr,
    )  # fmt: skip


@contextmanager
def _logged(
    prepared: PreparedEvaluation, loggers: RunLoggers | None, what: str, kind: str = "evaluation"
) -> Iterator[Loggers]:
    """The run's loggers in the process that logs; where one cannot be made, all processes fail."""
    with ExitStack() as stack:
        yield prepared.group.run_collectively(
            lambda: (
                stack.enter_context(loggers.run(f"{prepared.name}, {what}", kind))
                if loggers
                else ()
            )
        )


def run_benchmark(
    config: EvaluationConfig,
    routing: RoutingConfig,
    pictures: Path | None,
    model: AnyNetwork,
    group: ProcessGroup,
) -> Benchmark:
    """What one process does of an evaluation; all of them get the whole result."""

    def keep(measured: Measurement, result: UpscaleResult) -> None:
        if pictures is not None:
            save_pictures(measured.name, result, pictures)

    return benchmark(
        model,
        config.folder,
        config.scale_pair,
        routing,
        config.protocol,
        on_picture=keep,
        progress=True,
        patch_size=config.patch_size,
        lpips=config.lpips,
        metrics=group.run_collectively(lambda: build_metrics(config.metrics)),
        processes=group,
    )


def run_sweep(
    config: EvaluationConfig,
    routings: tuple[RoutingConfig, ...],
    model: AnyNetwork,
    group: ProcessGroup,
    on_oracle: OnOracle | None = None,
    warn: bool = True,
) -> Sweep:
    """Likewise of a sweep."""
    assert not isinstance(model, Original)  # prepare() refuses models of one class
    return sweep(
        model,
        config.folder,
        routings,
        config.scale_pair,
        config.protocol,
        config.patch_size,
        progress=True,
        processes=group,
        oracle=config.oracle,
        on_oracle=on_oracle,
        warn=warn,
    )


def _metadata(prepared: PreparedEvaluation) -> dict[str, Any]:
    config, devices = prepared.config, prepared.devices
    return {
        "model": config.model,
        "target_psnr": config.target_psnr,
        "data_root": config.data.root,
        "data_name": config.data.name or "",
        "device": str(devices[0].type if len(devices) > 1 else devices[0]),
        "processes": max(len(devices), prepared.group.size),
        "threads": prepared.threads,
        "published": [asdict(point) for point in prepared.published],
    }


def _routing_name(
    prepared: PreparedEvaluation, routing: RoutingConfig, found: KForTarget | None = None
) -> str:
    if isinstance(prepared.model, Original):
        return "original"
    if found is not None:
        nearness = " for" if found.reached else ", nearest to"
        return f"{routing.description}{nearness} {found.target:g} dB"
    target = prepared.config.target_psnr
    return routing.description if target is None else f"{target:g} dB"


def _title(prepared: PreparedEvaluation, result: Benchmark) -> str:
    config, layout = prepared.config, prepared.layout
    count = f"{len(result.images)} picture{'s' * (len(result.images) != 1)}"
    left_out = f", {len(result.skipped)} left out" if result.skipped else ""
    patches = f" of {layout.side}, one every {layout.step}" if layout else ""
    return (
        f"{config.data.root}: {count}{left_out}, x{config.scale}, protocol {config.protocol}"
        f"{patches}"
    )
