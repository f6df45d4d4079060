"""From the command line's values to a run over pictures."""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pcsr_lightning import images, weights
from pcsr_lightning.batch.inputs import STREAM, Inputs, find_inputs
from pcsr_lightning.batch.models import RunModels, model_names
from pcsr_lightning.batch.one_picture import UpscaleOptions, dry_run
from pcsr_lightning.batch.outputs import Job, OutputOptions, plan_jobs
from pcsr_lightning.batch.records import Settings, compared, settings_by_model
from pcsr_lightning.batch.report import Reporter
from pcsr_lightning.batch.run import Batch
from pcsr_lightning.batch.sizes import check_scale
from pcsr_lightning.batch.tally import Tally
from pcsr_lightning.batch.terminal import sign_of_life
from pcsr_lightning.distributed import ALONE, ProcessGroup, connected_group, launched_group
from pcsr_lightning.errors import DONE, FAILED, ConfigError, PCSRError
from pcsr_lightning.routing import RULES, RoutingConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Plan:
    """What all processes of a run share.

    Attributes:
        inputs: what was found.
        jobs: what is to be done.
        settings: what the results of each model depend on, by its name.
        run: the run's name.
    """

    inputs: Inputs
    jobs: list[Job]
    settings: Mapping[str, Settings]
    run: str


def run(args: argparse.Namespace) -> int:
    """Carries out the command; returns its exit code.

    Args:
        args: from :func:`pcsr_lightning.cli.upscale.parse`.

    Raises:
        PCSRError: nothing could be begun; with ``--json`` it is reported here.
    """
    with _warnings_on_stderr(args.quiet):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    group = ALONE
    try:
        # Processes of other launchers share the folder by claims alone.
        if launched_group().launcher != "other":
            group = connected_group()

        def prepare() -> tuple[RunModels, UpscaleOptions, _Plan]:
            with sign_of_life("loading the model ...", args.quiet or group.rank > 0):
                models, options = _load(args, group)
                settings = settings_by_model(models.networks, options)
                return models, options, _make_plan(args, options, settings)

        models, options, plan = group.run_collectively(prepare)
        # One plan for all, so that they mean the same by "was there before".
        plan = group.broadcast(plan)
    except PCSRError as error:
        # torchrun ends all processes once one ends with an error: the first reports it, and fails
        # for all.
        if group.rank > 0:
            return DONE
        if not args.json:
            raise
        if args.debug:
            traceback.print_exception(error)
        Reporter(0, as_json=True, bars=False).finish(Tally(stopped=str(error)))
        return FAILED
    reporter = Reporter(
        len(plan.jobs),
        as_json=args.json,
        quiet=args.quiet,
        verbose=args.verbose,
        bars=group.rank == 0 and not args.debug,
        left_out=plan.inputs.left_out,
        to_stderr=any(job.target == STREAM for job in plan.jobs),
        single=plan.inputs.single,
    )
    if group.rank == 0:
        reporter.settings(_settings(args, models, options))
        for folder, reason in plan.inputs.unreadable:
            reporter.failed(folder, None, f"{folder}: {reason}")
        if plan.inputs.doubles:
            link, path = plan.inputs.doubles[0]
            _log.warning(
                "links to pictures that are upscaled under their own names are left out: %d, the "
                "first %s (to %s)", len(plan.inputs.doubles), link, path,
            )  # fmt: skip
    batch = Batch(
        models=models,
        jobs=plan.jobs,
        options=options,
        settings=plan.settings,
        overwrite=args.overwrite,
        run=plan.run,
        group=group,
        reporter=reporter,
        threads=args.threads,
        debug=args.debug,
    )
    return batch.work()


def _load(args: argparse.Namespace, group: ProcessGroup) -> tuple[RunModels, UpscaleOptions]:
    """The models and how to use them, tried out."""
    if args.scale is not None:
        check_scale(args.scale)
    device = _device(args, group)
    for dotted in args.backbone:
        from pcsr_lightning.networks import import_backbone

        import_backbone(dotted)
    names, reason = model_names(args.model, args.denoise, args.scale)
    models = RunModels({n: weights.load(n, device, args.denoise) for n in names}, reason)
    name, model = models.first
    scale = args.scale
    if scale is None:
        scale = model.scale or 4
    options = UpscaleOptions(
        scale=scale,
        size=args.size,
        routing=_routing(args),
        precision=args.precision,
        max_memory=args.max_memory,
        format=None if args.format is None else f".{args.format}",
        quality=args.quality,
        max_pixels=args.max_pixels or images.MAX_PIXELS,
    )
    for network in models.networks.values():
        dry_run(network, options)
    if args.size is None:
        warning = weights.scale_warning(model, name, (scale, scale))
        if warning is not None and group.rank == 0:
            _log.warning("%s", warning)
    return models, options


def _settings(args: argparse.Namespace, models: RunModels, options: UpscaleOptions) -> str:
    """In one line, for ``--verbose``."""
    scale = f"--size {args.size}" if args.size is not None else f"x{options.scale:g}"
    return (
        f"{' or '.join(models.networks)}, {scale}, {options.routing.description}, "
        f"{options.precision}, {args.device}, {torch.get_num_threads()} threads"
    )


def _routing(args: argparse.Namespace) -> RoutingConfig:
    """Who decides a pixel's class.

    Raises:
        ConfigError: the value that the rule was given is out of range.
    """
    if args.only_class is not None:
        _log.warning("--only-class is deprecated: use --fixed-class")
        args.fixed_class = args.only_class
    rules = {name: getattr(args, name) for name in RULES}
    return RoutingConfig(cost=args.cost, refine=args.refine, **rules)


def _make_plan(
    args: argparse.Namespace, options: UpscaleOptions, settings: Mapping[str, Settings]
) -> _Plan:
    suffixes = images.SUFFIXES
    if options.format is not None and options.format not in suffixes:
        raise ConfigError(
            f"--format {args.format}: the picture library here cannot write it; it can write "
            f"{', '.join(suffixes)}"
        )
    name_suffix = f"_{args.size}" if args.size is not None else f"_x{options.scale:g}"
    outputs = OutputOptions(
        args.out,
        args.suffix,
        name_suffix,
        options.format,
        args.class_map,
        args.overwrite,
        suffixes,
    )
    inputs = find_inputs(args.inputs, outputs.folders)
    jobs = plan_jobs(inputs, outputs)
    if not args.overwrite:
        jobs = compared(jobs, next(iter(settings.values())))
    return _Plan(inputs, jobs, settings, secrets.token_hex(8))


def _device(args: argparse.Namespace, group: ProcessGroup) -> str:
    if args.threads is not None:
        if args.threads < 1:
            raise ConfigError(f"--threads must be at least 1, not {args.threads}")
        torch.set_num_threads(args.threads)
    if args.device != "cuda":
        return str(args.device)
    if not torch.cuda.is_available():
        raise ConfigError("no CUDA device is available here; leave out --device cuda")
    return f"cuda:{group.local_rank % torch.cuda.device_count()}"


class _Stderr(logging.Handler):
    """Writes to the present ``sys.stderr``: progress bars replace it while they are drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


@contextmanager
def _warnings_on_stderr(quiet: bool) -> Iterator[None]:
    handler = _Stderr(logging.ERROR if quiet else logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
