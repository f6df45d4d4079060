"""The network of a stage, and the weights that it starts from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import (
    PCSR,
    AnyNetwork,
    build_network,
    check_widths,
    default_config,
    patch_routed_config,
)
from pcsr_lightning.settings.instantiation import in_plain_values
from pcsr_lightning.training.earlier_run import BEST, agreeing, best_below, need
from pcsr_lightning.weights import RunRecord, find_model, load_model_file

log = logging.getLogger(__name__)

KINDS = {
    "original": "original", "classsr_branches": "classsr", "classsr": "classsr", "arm": "arm",
}  # fmt: skip
"""The kind of the network of each stage that is not one of PCSR's own."""
BEFORE = {"classsr": "classsr_branches"}
"""Of those stages the ones that build on another; the others start from nothing."""
_NAMES = {"pcsr": "a PCSR", "original": "an original", "classsr": "a ClassSR", "arm": "an ARM"}


def stage_network(
    stage: str,
    backbone: str,
    num_classes: int,
    args: Mapping[str, Any] | None = None,
    upsamplers: Sequence[Sequence[int]] | None = None,
    classifier: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    scale: int = 4,
    denoise: bool = False,
    widths: Sequence[int] | None = None,
) -> AnyNetwork:
    """The untrained network of a stage: PCSR with its first upsamplers, or a rival of it.

    Args:
        stage: its number, 1 to ``num_classes``; ``original``, or a stage of ClassSR or ARM.
        backbone: its name.
        num_classes: ``M`` of the finished model.
        args: the backbone's own arguments; ``None``, here and below, keeps the paper's sizes.
        upsamplers: hidden widths of each upsampler of the finished model, heaviest first.
        classifier: hidden widths of the classifier.
        mean: RGB mean taken off the input.
        scale: of all but PCSR models; PCSR serves any scale.
        denoise: whether the network is told how much to clean, see
            :func:`~pcsr_lightning.networks.add_bias_shifts`.
        widths: of the networks of ClassSR or ARM, widest first.

    Raises:
        ConfigError: the stage does not exist for this ``M``, or the sizes do not fit.
    """
    kind = KINDS.get(stage, "pcsr")
    if kind in ("pcsr", "original"):
        config = default_config(backbone, num_classes, original=kind == "original")
    else:
        config = patch_routed_config(kind, backbone)
        config["widths"] = config["widths"] if widths is None else list(widths)
    if args is not None:
        config["backbone"] = {"name": backbone, **args}
    if mean is not None:
        config["mean"] = list(mean)
    if kind != "pcsr":
        return build_network({**config, "scale": scale})
    number = stage_number(stage, num_classes)
    if upsamplers is not None:
        if len(upsamplers) != num_classes:
            raise ConfigError(
                f"backbone.upsamplers lists {len(upsamplers)} upsamplers where "
                f"num_classes={num_classes}"
            )
        check_widths(upsamplers)
        config["upsamplers"] = [list(hidden) for hidden in upsamplers]
    if classifier is not None and config["classifier"] is not None:
        config["classifier"] = list(classifier)
    config["upsamplers"] = config["upsamplers"][:number]
    if number == 1:
        config["classifier"] = None
    return build_network({**config, "denoise": True} if denoise else config)


def network_of(cfg: DictConfig) -> AnyNetwork:
    """The untrained network that a training's config describes, see :func:`stage_network`.

    Raises:
        ConfigError: the sizes do not fit, or an original model is to have several scales.
    """
    name, backbone = cfg.stage.name, in_plain_values(cfg.backbone, "backbone")
    sizes = {
        key: backbone.get(key) for key in ("args", "upsamplers", "classifier", "mean", "widths")
    }
    scale = in_plain_values(cfg.data, "data").get("scale", 4)
    if name in KINDS and (not isinstance(scale, int | float) or scale != int(scale)):
        what = _NAMES[KINDS[name]]
        raise ConfigError(f"data.scale={scale}: {what} model is made for one integer scale")
    return stage_network(
        name, cfg.backbone.name, cfg.num_classes, **sizes,
        scale=int(scale) if name in KINDS else 4,
        denoise=cfg.denoise,
    )  # fmt: skip


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
            f"stage={stage} does not exist for num_classes={num_classes}: the stages are "
            f"{', '.join(KINDS)} and 1 to {num_classes}"
            + (f"; add num_classes={number} for a model of {number} classes" if number else "")
        )
    return number


def earlier_model(cfg: DictConfig, network: AnyNetwork) -> tuple[AnyNetwork, Path] | None:
    """What a stage builds on, and its file: ``init``, else the run of the stage before that agrees.

    First stages and the original start from nothing, unless ``init`` names a model to
    continue from: for other pictures, say, or more scales.

    Args:
        cfg: of the training.
        network: of the stage, untrained.

    Raises:
        ConfigError: there is no such run, or several different ones, see
            :mod:`pcsr_lightning.training.earlier_run`. Or ``init`` is a PCSR model where the stage
            needs an original one, or the other way round.
    """
    stage, init = cfg.stage.name, cfg.init
    first = stage == "1" or (stage in KINDS and stage not in BEFORE)
    if first and init is None:
        return None
    before = stage if first else BEFORE.get(stage)
    if before is None:
        before = str(stage_number(stage, cfg.num_classes) - 1)
    if init is None:
        init = agreeing(Path(cfg.output), need(cfg, network, before))
    elif str(init).startswith(BEST):
        folder = Path(str(init).removeprefix(BEST)).expanduser()
        init = best_below(folder, replace(need(cfg, network, before), seed=None))
    path = find_model(init)
    model, _ = load_model_file(path)
    kinds = [_NAMES[one.config()["kind"]] for one in (model, network)]
    if kinds[0] != kinds[1]:
        raise ConfigError(f"init={init} is {kinds[0]} model; stage={stage} needs {kinds[1]} model")
    record = RunRecord.read(path.parent)
    if record is not None and not record.complete:
        log.warning("init=%s is not a finished run: it was %s", init, record.ended)
    log.info("stage %s builds on %s", stage, init)
    return model, path


def initialize(network: AnyNetwork, earlier: AnyNetwork) -> None:
    """Starts a stage's network from a trained model, in place.

    Raises:
        ConfigError: they do not fit each other; the message names both.
    """
    if isinstance(network, PCSR) and network.num_classes > 1:
        assert isinstance(earlier, PCSR)
        init_from_previous_stage(earlier, network)
    else:
        warm_start(earlier, network)


def warm_start(earlier: AnyNetwork, network: AnyNetwork) -> None:
    """Starts a first stage, or an original model, from the same parts of a trained model, in place.

    Raises:
        ConfigError: the networks do not fit each other; the message names both.
    """
    before, after = earlier.config(), network.config()
    if isinstance(earlier, PCSR):
        before = {**before, "upsamplers": before["upsamplers"][:1], "classifier": None}
        before = {"denoise": after["denoise"], **before} if "denoise" in after else before
    if before != after:
        raise ConfigError(
            f"init is a model of {_describe(before)}; this stage's is of {_describe(after)}"
        )
    mine = network.state_dict()
    # A model without bias shifts leaves them at 0: the same at every strength.
    network.load_state_dict(mine | {k: v for k, v in earlier.state_dict().items() if k in mine})


def _describe(config: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in config.items() if value is not None)


def init_from_previous_stage(earlier: PCSR, network: PCSR) -> None:
    """Copies what an earlier stage trained into the next stage's network, in place.

    Backbone and upsamplers are taken over whole; the classifier's hidden layers too, and the rows
    of its last layer for the classes it already knew (it gains an output with each class).

    Raises:
        ConfigError: the networks do not fit each other; the message names both.
    """
    before, after = earlier.config(), network.config()
    known = before["upsamplers"]
    same = all(before.get(key) == after.get(key) for key in ("backbone", "mean", "denoise"))
    if not same or after["upsamplers"][: len(known)] != known or len(known) >= network.num_classes:
        raise ConfigError(
            "the model to start from does not fit this stage: it has backbone "
            f"{before['backbone']} and upsamplers {known}, the stage needs backbone "
            f"{after['backbone']} and upsamplers that start {after['upsamplers'][:-1]}"
        )
    network.backbone.load_state_dict(earlier.backbone.state_dict())
    for j in range(earlier.num_classes):
        network.upsampler(j).load_state_dict(earlier.upsampler(j).state_dict())
    if earlier.classifier is None or network.classifier is None:
        return
    if before["classifier"] != after["classifier"]:
        raise ConfigError(
            f"the classifier to start from has hidden layers {before['classifier']}, "
            f"this stage's {after['classifier']}"
        )
    grown = network.classifier.state_dict()
    for name, old in earlier.classifier.state_dict().items():
        # Only layers that end in the classes differ in shape, and only in their first dimension.
        grown[name][: old.shape[0]] = old
    network.classifier.load_state_dict(grown)
