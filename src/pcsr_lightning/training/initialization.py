"""The stage that a config asks for, standing on what earlier stages trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR, Original, build_network, default_config
from pcsr_lightning.training.distillation import Teacher
from pcsr_lightning.training.modules.base import SRStage
from pcsr_lightning.training.modules.original import OriginalStage
from pcsr_lightning.training.modules.upsampling import FirstStage, LaterStage, go_on, grow
from pcsr_lightning.training.optim.schedule import Schedule
from pcsr_lightning.weights import find_model, load_model_file, newest_finished

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sizes:
    """Departures from the paper's sizes; ``None`` keeps them."""

    args: dict[str, Any] | None = None
    upsamplers: Sequence[Sequence[int]] | None = None
    classifier: Sequence[int] | None = None
    mean: Sequence[float] | None = None


def stage_network(
    stage: str, backbone: str, num_classes: int, sizes: Sizes = Sizes(), scale: int = 4
) -> PCSR | Original:
    """The untrained network of a stage: the original model, or PCSR with its first upsamplers.

    Args:
        stage: ``original`` or the stage's number, 1 to ``num_classes``.
        backbone: its name.
        num_classes: ``M`` of the finished model.
        sizes: departures from the paper's sizes.
        scale: of the original model; PCSR serves any.

    Raises:
        ConfigError: the stage does not exist for this ``M``, or the sizes do not fit.
    """
    config = default_config(backbone, num_classes, original=stage == "original")
    if sizes.args is not None:
        config["backbone"] = {"name": backbone, **sizes.args}
    if sizes.mean is not None:
        config["mean"] = list(sizes.mean)
    if stage == "original":
        return build_network({**config, "scale": scale})
    number = stage_number(stage, num_classes)
    if sizes.upsamplers is not None:
        if len(sizes.upsamplers) != num_classes:
            raise ConfigError(
                f"backbone.upsamplers lists {len(sizes.upsamplers)} upsamplers where "
                f"num_classes={num_classes}"
            )
        config["upsamplers"] = [list(hidden) for hidden in sizes.upsamplers]
    if sizes.classifier is not None and config["classifier"] is not None:
        config["classifier"] = list(sizes.classifier)
    config["upsamplers"] = config["upsamplers"][:number]
    if number == 1:
        config["classifier"] = None
    return build_network(config)


def stage_number(stage: str, num_classes: int) -> int:
    """The number of a PCSR stage.

    Raises:
        ConfigError: not a whole number from 1 to ``num_classes``.
    """
    if num_classes < 2:
        raise ConfigError(f"num_classes={num_classes}: PCSR needs at least 2 classes")
    number = int(stage) if stage.isdecimal() else 0
    if not 1 <= number <= num_classes:
        raise ConfigError(
            f"stage={stage} does not exist for num_classes={num_classes}: the stages are original "
            f"and 1 to {num_classes}"
            + (f"; add num_classes={number} for a model of {number} classes" if number else "")
        )
    return number


def earlier_model(
    stage: str, backbone: str, num_classes: int, init: str | None, output: Path
) -> PCSR | Original | None:
    """What the stage builds on: ``init``, else the newest finished run of the stage before.

    The first stage and the original start from nothing, unless ``init`` names a model to go on
    with: for other pictures, say, or more scales.

    Raises:
        ConfigError: there is no such run; the message has the command that makes one. Or ``init``
            is a PCSR model where the stage needs an original one, or the other way round.
    """
    if stage in ("original", "1") and init is None:
        return None
    if init is None:
        before = str(stage_number(stage, num_classes) - 1)
        found = newest_finished(output, before, backbone, num_classes)
        if found is None:
            wanted = f"python -m pcsr_lightning.train stage={before} backbone={backbone}"
            raise ConfigError(
                f"stage={stage} builds on a finished stage {before} with backbone={backbone} and "
                f"num_classes={num_classes}, and there is none under {output.resolve()}. Make one: "
                f"{wanted} num_classes={num_classes}, or name a model with init=PATH"
            )
        init = str(found[0])
    model, _ = load_model_file(find_model(init))
    if isinstance(model, Original) != (stage == "original"):
        kinds = (
            ("an original", "a PCSR") if isinstance(model, Original) else ("a PCSR", "an original")
        )
        raise ConfigError(f"init={init} is {kinds[0]} model; stage={stage} needs {kinds[1]} model")
    log.info("stage %s builds on %s", stage, init)
    return model


def make_stage(
    network: PCSR | Original,
    earlier: PCSR | Original | None,
    schedule: Schedule,
    facts: dict[str, Any],
    queries: int | None = None,
    seed: int = 0,
    weights: tuple[float, float] = (1000.0, 3.0),
    recon: str = "l1",
    teacher: Teacher | None = None,
    revive: int | None = None,
) -> SRStage:
    """The LightningModule of a stage.

    Args:
        network: from :func:`stage_network`.
        earlier: from :func:`earlier_model`.
        schedule: learning rate and length.
        facts: plain values for the checkpoint.
        queries: HR pixels drawn a step, ``None`` for all.
        seed: of that draw.
        weights: ``w_recon`` and ``w_avg`` of Eq. 8.
        recon: kind of the reconstruction loss.
        teacher: of a first stage; others learn the truth.
        revive: steps from one start of a first stage's dead units to the next.
    """
    if isinstance(network, Original):
        if earlier is not None:
            go_on(earlier, network)
        return OriginalStage(network, schedule, facts, recon)
    if network.num_classes == 1:
        if earlier is not None:
            go_on(earlier, network)
        return FirstStage(network, schedule, queries, seed, facts, recon, teacher, revive)
    assert isinstance(earlier, PCSR)
    grow(earlier, network)
    return LaterStage(network, schedule, queries, seed, facts, recon, *weights)


__all__ = ["Sizes", "earlier_model", "make_stage", "stage_network", "stage_number"]
