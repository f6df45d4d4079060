"""The whole way from pictures to a model with its card."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import pcsr_lightning
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation import benchmark
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.releasing.card import ModelCard, learning_curve, write_card
from pcsr_lightning.releasing.measure import Measured, draw_curve, measure
from pcsr_lightning.releasing.recipe import Recipe
from pcsr_lightning.releasing.run_stages import run_stages
from pcsr_lightning.weights import load, save
from pcsr_lightning.whole_files import write_whole


@dataclass(frozen=True)
class Sources:
    """The pictures of a release.

    Attributes:
        train: folder to learn from.
        valid: folder to watch the training by; ``None`` holds some of ``train`` out.
        test: folders to report on.
        about_data: a Markdown file on what they are; ``None`` leaves that open.
    """

    train: Path
    valid: Path | None = None
    test: tuple[Path, ...] = ()
    about_data: Path | None = None

    def check(self) -> None:
        """Looks for everything before hours are spent.

        Raises:
            ConfigError: names the first folder or file that is not there.
        """
        folders = [self.train, *([self.valid] if self.valid else []), *self.test]
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(f"{folder}: no such folder; name a folder of pictures")
        if self.about_data is not None and not self.about_data.is_file():
            raise ConfigError(f"{self.about_data}: no such file; name a Markdown file")

    def words(self) -> list[str]:
        """As words of the training command."""
        found = ["data=folder", f"data.root={self.train}"]
        return found if self.valid is None else [*found, f"data.val_root={self.valid}"]

    def about(self) -> str:
        """For the card."""
        if self.about_data is not None:
            return self.about_data.read_text(encoding="utf-8")
        return f"The pictures in `{self.train.name}`. Their origin and licences were not stated."


def release(
    recipe: Recipe, sources: Sources, output: Path, words: Sequence[str] = (), command: str = ""
) -> list[Path]:
    """Trains what is not trained yet, measures the model, and writes it with its card.

    Args:
        recipe: how.
        sources: on what.
        output: every model gets a folder below.
        words: more words of the training command, for every stage.
        command: for the card.

    Returns:
        The files: the weights, the architecture, the card, the measurements, and a curve for each
        test set.

    Raises:
        PCSRError: a folder, a recipe, a setting or a training failed; the message says which.
    """
    sources.check()
    runs = run_stages(recipe, [*sources.words(), *words], output)
    settings = _settings(runs[-1].folder)
    low, high = _scales(settings["data"]["scale"])
    trained = load(runs[-1].folder)
    facts = {
        "stage": settings["stage"]["name"],
        "backbone": settings["backbone"]["name"],
        "num_classes": trained.num_classes if isinstance(trained, PCSR) else 1,
        "scales": [low] if low == high else [low, high],
        "steps": {f"{r.folder.parent.name}/{r.stage.label}": _steps(r.folder) for r in runs},
        "seed": settings["seed"],
        "commit": code(),
    }
    folder = output / recipe.name
    # Half precision turns the class of a pixel here and there: the file is measured, not the run.
    model = load(save(trained, folder / recipe.name, facts, half=True))
    measured = measure(model, sources.test, _tested(low, high))
    facts["golden"] = golden(model, high)
    weights = save(model, folder / recipe.name, facts, half=True)
    card = ModelCard(
        recipe.name, model, facts["scales"], runs, sources.about(), facts["commit"],
        facts["seed"], command, measured,
    )  # fmt: skip
    files = [weights, weights.with_suffix(".json"), folder / f"{recipe.name}.md"]
    write_whole(files[-1], write_card(card).encode())
    files.append(folder / "measured.json")
    rows = {
        "measured": [asdict(m) for m in measured],
        "validation": {run.stage.label: learning_curve(run.folder) for run in runs},
    }
    write_whole(files[-1], (json.dumps(rows, indent=2) + "\n").encode())
    return [*files, *_curves(measured, recipe.name, folder)]


def golden(model: PCSR | Original, scale: float) -> dict[str, Any]:
    """What anyone can check of the model: its mean on the photographs that ship for validation."""
    mean = benchmark(model, SAMPLE_FOLDER / "valid", scale).mean
    return {
        "data": f"the shipped validation photographs, x{scale:g}, k = 0, whole pictures",
        "psnr": round(mean.psnr, 4),
        "heavy": round(mean.share[0], 4),
    }


def code() -> str:
    """The commit of a checkout, else the version of the package."""
    version = f"pcsr_lightning {pcsr_lightning.__version__}"
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--short=12", "HEAD"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:  # no git
        return version
    return f"{version}, commit {found.stdout.strip()}" if found.returncode == 0 else version


def _settings(run: Path) -> dict[str, Any]:
    """What Hydra composed for a run."""
    path = run / ".hydra" / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: missing, though the stage is finished; train it again")
    plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(plain, dict)
    # ${...} of Hydra's own cannot be resolved here, and nothing asked for below has any but these.
    return {str(key): value for key, value in plain.items()}


def _scales(scale: float | Sequence[float]) -> tuple[float, float]:
    return (scale[0], scale[-1]) if isinstance(scale, Sequence) else (scale, scale)


def _tested(low: float, high: float) -> list[float]:
    return [high] if low == high else [float(s) for s in range(int(low), int(high) + 1)]


def _steps(run: Path) -> int:
    return int(json.loads((run / "run.json").read_text(encoding="utf-8"))["steps"])


def _curves(measured: Sequence[Measured], name: str, folder: Path) -> list[Path]:
    paths = []
    for key in dict.fromkeys((m.dataset, m.scale) for m in measured):
        found = [m for m in measured if (m.dataset, m.scale) == key]
        if len(found) > 1:  # an original model is a single point
            paths.append(folder / f"{key[0]}-x{key[1]:g}.png")
            draw_curve(found, name, paths[-1])
    return paths
