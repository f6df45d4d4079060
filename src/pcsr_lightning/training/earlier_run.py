"""Which finished run a stage builds on: the one that agrees with it, and never just any."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import AnyNetwork
from pcsr_lightning.settings.instantiation import in_plain_values, instantiate
from pcsr_lightning.training.provenance import data_hashes, digests_of
from pcsr_lightning.weights import RunRecord, file_hash, runs_below

log = logging.getLogger(__name__)

BEST = "best:"
"""``init=best:FOLDER``: the finished run below a folder with the highest validation PSNR."""
MODEL, CONFIG = "model.safetensors", "model.json"
_NEAREST, _LISTED = 3, 8  # how many runs a message describes


@dataclass(frozen=True)
class Run:
    """A run folder and its record."""

    folder: Path
    record: RunRecord

    @cached_property
    def network(self) -> dict[str, Any] | None:
        """The config of its network; of older records, which lack it, from the model's file."""
        if self.record.network is not None or not (self.folder / CONFIG).is_file():
            return self.record.network
        try:
            found = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))["network"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            log.warning("%s: its network is not known (%s)", self.folder / CONFIG, error)
            return None
        return found if isinstance(found, dict) else None

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 of its model's weights."""
        return file_hash(self.folder / MODEL)

    def describe(self, more: str = "") -> str:
        """Folder and PSNR in a message."""
        psnr = "no validation" if self.record.val_psnr is None else f"{self.record.val_psnr:g} dB"
        return f"{self.folder} ({psnr}{more})"


@dataclass(frozen=True)
class Need:
    """What an earlier run must agree in.

    Attributes:
        stage: its stage.
        network: the config of its network, as far as this stage's contains it.
        seed: of its training; ``None`` for any.
        scale: the lowest and the highest.
        data: computes ``train`` of :func:`data_hashes`; called only where all else agrees.
    """

    stage: str
    network: dict[str, Any]
    seed: int | None
    scale: list[float]
    data: Callable[[], str]

    def differences(self, run: Run) -> list[str]:
        """In what a run does not fit; of what its record does not say nothing is known."""
        record = run.record
        found = [] if record.complete else [f"it is not finished ({record.ended})"]
        if run.network is not None:
            found += different_sizes(run.network, self.network)
        if None not in (self.seed, record.seed) and record.seed != self.seed:
            found.append(f"seed is {record.seed}, here {self.seed}")
        if record.scale is not None and record.scale != self.scale:
            found.append(f"data.scale is {scale_name(record.scale)}, here {scale_name(self.scale)}")
        if not found and record.data is not None and record.data["train"] != self.data():
            found.append("it was trained on other pictures")
        return found


def need(cfg: DictConfig, network: AnyNetwork, stage: str) -> Need:
    """What ``stage`` must have been for a stage with this config and network to start from it.

    ``M`` counts only as far as the earlier network depends on it: a first stage serves every
    number of classes with the same heaviest upsampler.
    """
    config = json.loads(json.dumps(network.config()))  # tuples as the lists that files hold
    if config["kind"] == "pcsr":
        config["upsamplers"] = config["upsamplers"][: int(stage)]
        config["classifier"] = None if stage == "1" else config["classifier"]
    return Need(stage, config, cfg.seed, scales(cfg), lambda: _data_hash(cfg))


def agreeing(output: Path, wanted: Need) -> Path:
    """The run below ``output`` that agrees; of several with the same weights the newest.

    Raises:
        ConfigError: none agrees, or several different models do; the message says what there is
            and what to write.
    """
    runs = [Run(*found) for found in runs_below(output) if found[1].stage == wanted.stage]
    differences = [wanted.differences(run) for run in runs]
    fitting = [run for run, found in zip(runs, differences, strict=True) if not found]
    fitting = [run for run in fitting if (run.folder / MODEL).is_file()]
    models = _newest_of_each_model(fitting)
    if not models:
        raise ConfigError(_none_agrees(output, wanted, runs, differences))
    if len(models) > 1:
        models.sort(key=lambda run: -(run.record.val_psnr or 0.0))
        told = [
            run.describe(f", {', '.join(differing)}" if differing else "")
            for run, differing in zip(models, differing_settings(models), strict=True)
        ]
        more = [f"and {len(told) - _LISTED} more"] if len(told) > _LISTED else []
        listed = "; ".join([*told[:_LISTED], *more])
        raise ConfigError(
            f"{len(models)} different models of stage {wanted.stage} agree with this stage: "
            f"{listed}. Name one with init=FOLDER, or take the best with init={BEST}{output}"
        )
    return models[0].folder


def best_below(folder: Path, wanted: Need) -> Path:
    """The finished run below ``folder`` with the highest validation PSNR, of those that fit.

    Seeds may differ; scale and pictures may not, since their PSNRs do not compare.

    Raises:
        ConfigError: there is none.
    """
    runs = [Run(*found) for found in runs_below(folder) if found[1].stage == wanted.stage]
    differences = [wanted.differences(run) for run in runs]
    fitting = [
        run
        for run, found in zip(runs, differences, strict=True)
        if not found and run.record.val_psnr is not None and (run.folder / MODEL).is_file()
    ]
    if not fitting:
        raise ConfigError(f"init={BEST}{folder}: {_none_agrees(folder, wanted, runs, differences)}")
    best = max(fitting, key=lambda run: (run.record.val_psnr or 0.0, run.record.finished))
    log.info("the best of %d runs below %s is %s", len(fitting), folder, best.describe())
    return best.folder


def differing_settings(runs: Iterable[Run]) -> list[list[str]]:
    """Of each run the settings that are not the same in all of them."""
    all_settings = [run.record.settings for run in runs]
    keys = dict.fromkeys(key for settings in all_settings for key in settings)
    differ = [
        key
        for key in keys
        if any(settings.get(key) != all_settings[0].get(key) for settings in all_settings)
    ]
    return [[f"{key}={settings.get(key)}" for key in differ] for settings in all_settings]


def scales(cfg: DictConfig) -> list[float]:
    """The lowest and the highest scale of a training."""
    scale = in_plain_values(cfg.data, "data").get("scale", 4)
    found = scale if isinstance(scale, list) else [scale]
    return [float(found[0]), float(found[-1])]


def scale_name(scale: list[float]) -> str:
    """As ``data.scale`` is written."""
    names = dict.fromkeys(f"{one:g}" for one in scale)
    return next(iter(names)) if len(names) == 1 else f"[{','.join(names)}]"


def different_sizes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In what the config of a network differs from another, in words."""
    names = [config["backbone"]["name"] for config in (found, wanted)]
    if names[0] != names[1]:
        return [f"backbone is {names[0]}, here {names[1]}"]
    keys = {"backbone": "backbone.args", "scale": "data.scale"}
    return [
        f"{keys.get(key, f'backbone.{key}')} is {found.get(key)}, here {value}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]


def _data_hash(cfg: DictConfig) -> str:
    data = instantiate(cfg.data, "data")
    data.prepare_data()
    settings: Mapping[str, Any] = in_plain_values(cfg.data, "data")
    return data_hashes(digests_of(data), settings)["train"]


def _newest_of_each_model(runs: list[Run]) -> list[Run]:
    newest: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (run.record.finished, str(run.folder))):
        newest[run.model_hash] = run
    return list(newest.values())


def _none_agrees(output: Path, wanted: Need, runs: list[Run], differences: list[list[str]]) -> str:
    backbone, stage = wanted.network["backbone"]["name"], wanted.stage
    seed = "" if wanted.seed is None else f" seed={wanted.seed}"
    words = f"stage={stage} backbone={backbone} data.scale={scale_name(wanted.scale)}{seed}"
    pairs = list(zip(runs, differences, strict=True))
    pairs.sort(key=lambda pair: (len(pair[1]), -pair[0].record.finished))
    found = "; ".join(f"{run.folder}: {', '.join(why)}" for run, why in pairs[:_NEAREST] if why)
    nearest = f". Nearest: {found}" if found else ""
    return (
        f"no finished run of stage {stage} below {output.resolve()} agrees in backbone, sizes, "
        f"scale, pictures and seed{nearest}. Train one with the settings of this command: "
        f"python -m pcsr_lightning.train {words}, or name a run or a model with init=PATH"
    )
