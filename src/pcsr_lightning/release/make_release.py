"""The whole way from pictures to a model with its card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pcsr_lightning
from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation import Measurement, benchmark
from pcsr_lightning.evaluation.tables import scale_text
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.release.card import ModelCard, learning_curve, schedule, write_card
from pcsr_lightning.release.experiment import model_name, train_experiment
from pcsr_lightning.release.measure import draw_curve, measure
from pcsr_lightning.release.robustness import check_robustness, robustness
from pcsr_lightning.training.provenance import commit_of
from pcsr_lightning.weights import load, save

MEASURED = "measured.json"


@dataclass(frozen=True)
class Sources:
    """The pictures of a release.

    Attributes:
        train: folder to learn from; ``None`` for a model that is trained already.
        valid: folder to watch the training by; ``None`` holds some of ``train`` out.
        test: folders to report on.
        about_data: a Markdown file on what they are; ``None`` leaves that open.
    """

    train: Path | None
    valid: Path | None = None
    test: tuple[Path, ...] = ()
    about_data: Path | None = None

    def check(self) -> None:
        """Looks for everything before hours are spent.

        Raises:
            ConfigError: names the first folder or file that is not there.
        """
        for folder in (self.train, self.valid, *self.test):
            if folder is not None and not folder.is_dir():
                raise ConfigError(f"{folder}: no such folder; name a folder of pictures")
        if self.about_data is not None and not self.about_data.is_file():
            raise ConfigError(f"{self.about_data}: no such file; name a Markdown file")

    def overrides(self) -> list[str]:
        """As settings of the training command."""
        found = ["data=folder", f"data.root={self.train}"]
        return found if self.valid is None else [*found, f"data.val_root={self.valid}"]

    def about(self) -> str:
        """For the card."""
        if self.about_data is not None:
            return self.about_data.read_text(encoding="utf-8")
        if self.train is None:
            return "Not stated."
        return f"The pictures in `{self.train.name}`. Their origin and licences were not stated."


def release(
    experiment: str,
    sources: Sources,
    output: Path,
    overrides: Sequence[str] = (),
    command: str = "",
    allow_unsound: bool = False,
    on_gpu: bool = False,
) -> list[Path]:
    """Trains what is not trained yet, measures the model, and writes it with its card.

    Args:
        experiment: how: its name in ``conf/experiment/release``, or a YAML file.
        sources: on what.
        output: every model gets a folder below.
        overrides: further settings of every stage's training.
        command: for the card.
        allow_unsound: write it even if it breaks on pictures unlike photographs; its card says so.
        on_gpu: by the experiment of that name for a GPU.

    Returns:
        The files: the weights, the architecture, the card, the measurements, and a curve for each
        test set.

    Raises:
        PCSRError: a folder, an experiment, a setting or a training failed, or the model breaks on
            pictures unlike photographs; the message says which.
    """
    sources.check()
    runs = train_experiment(experiment, [*sources.overrides(), *overrides], output, on_gpu)
    config, name = runs[-1].config, model_name(experiment)
    low, high = _scales(config.data.scale)
    metadata = {
        "scales": [low] if low == high else [low, high],
        "steps": {f"{name}/{run.label}": run.record["steps"] for run in runs},
        "seed": config.seed,
        "commit": code(),
    }
    made = schedule(runs, metadata["commit"], metadata["seed"], command)
    validation = {run.label: learning_curve(run.folder) for run in runs}
    model = load(runs[-1].folder)
    return write_release(model, output / name, metadata, made, sources, validation, allow_unsound)


def release_weights(
    name: str,
    weights: Path,
    made: Path,
    scales: Sequence[float],
    sources: Sources,
    output: Path,
    allow_unsound: bool = False,
) -> list[Path]:
    """Measures a model that was trained in another way, and writes it with its card.

    Args:
        name: the model's.
        weights: its file.
        made: a Markdown file: how it was trained, word for word for the card.
        scales: it was trained for: one, or the lowest and the highest.
        sources: test sets, and what the card says of the data.
        output: the model gets a folder below.
        allow_unsound: as of :func:`release`.

    Returns:
        As :func:`release`.

    Raises:
        PCSRError: a file or folder cannot be used, or the model breaks on pictures unlike
            photographs.
    """
    sources.check()
    if not made.is_file():
        raise ConfigError(f"{made}: no such file; name a Markdown file on how it was trained")
    if len(scales) > 2 or list(scales) != sorted(scales) or not 1 <= scales[0] <= scales[-1] <= 16:
        given = " ".join(f"{scale:g}" for scale in scales)
        raise ConfigError(f"--scales {given}: expected one scale, or two rising ones, from 1 to 16")
    metadata = {"scales": list(scales)}
    text = made.read_text(encoding="utf-8")
    return write_release(
        load(weights), output / name, metadata, text, sources, allow_unsound=allow_unsound
    )


def write_release(
    model: PCSR | Original,
    folder: Path,
    metadata: dict[str, Any],
    made: str,
    sources: Sources,
    validation: dict[str, Any] | None = None,
    allow_unsound: bool = False,
) -> list[Path]:
    """Checks and measures a model, and writes weights, architecture, card and curves.

    Args:
        model: trained.
        folder: its name is the model's.
        metadata: to keep beside the weights, ``scales`` among them.
        made: Markdown for the card.
        sources: of the test sets and of what is said of the data.
        validation: learning curves to keep beside the measurements.
        allow_unsound: as of :func:`release`.

    Raises:
        TrainingError: the model breaks on pictures unlike photographs.
    """
    name, scales = folder.name, metadata["scales"]
    tested = _tested(scales[0], scales[-1])
    metadata = {
        "stage": "original" if isinstance(model, Original) else str(model.num_classes),
        "backbone": model.backbone.name,
        "num_classes": model.num_classes,
        **metadata,
    }
    # Half precision turns the class of a pixel here and there: the file is measured, not the run.
    with TemporaryDirectory() as unchecked:
        model = load(save(model, Path(unchecked) / name, half=True))
    robust = robustness(model, tested)
    if not allow_unsound:
        check_robustness(robust, name)
    measured = measure(model, name, sources.test, tested)
    metadata["golden"] = golden(model, scales[-1])
    folder.mkdir(parents=True, exist_ok=True)
    weights = save(model, folder / name, metadata, half=True)
    card = ModelCard(name, model, scales, made, sources.about(), measured, robust)
    files = [weights, weights.with_suffix(".json"), folder / f"{name}.md"]
    atomic_write(files[-1], write_card(card).encode())
    files += _curves(measured, folder)
    rows = {
        "measured": [m.to_json() for m in measured],
        "robustness": [asdict(r) for r in robust],
        "validation": validation or {},
    }
    path = folder / MEASURED  # last: with it the release is complete
    atomic_write(path, (json.dumps(rows, indent=2) + "\n").encode())
    return [*files, path]


def golden(model: PCSR | Original, scale: float) -> dict[str, Any]:
    """A figure that anyone can check: the mean on the photographs that ship for validation."""
    mean = benchmark(model, SAMPLE_FOLDER / "valid", scale).mean
    return {
        "data": f"the shipped validation photographs, x{scale:g}, k = 0, whole pictures",
        "psnr": round(mean.psnr, 4),
        "heavy": round(mean.share[0], 4),
    }


def code() -> str:
    """The commit of a checkout, else the version of the package."""
    version = f"pcsr_lightning {pcsr_lightning.__version__}"
    found = commit_of(Path(__file__).parent)
    return version if found is None else f"{version}, commit {found['commit'][:12]}"


def _scales(scale: float | Sequence[float]) -> tuple[float, float]:
    return (scale[0], scale[-1]) if isinstance(scale, Sequence) else (scale, scale)


def _tested(low: float, high: float) -> list[float]:
    if low == high:
        return [high]
    # At x1 the LR picture of a clean one is the ground truth itself.
    return [float(s) for s in range(max(2, int(low)), int(high) + 1)]


def _curves(measured: Sequence[Measurement], folder: Path) -> list[Path]:
    paths = []
    for (dataset, scale), rows in groupby(measured, lambda m: (m.dataset, m.scale)):
        found = list(rows)
        if len(found) > 1:  # an original model is a single point
            paths.append(folder / f"{dataset}-x{scale_text(scale)}.png")
            draw_curve(found, paths[-1])
    return paths
