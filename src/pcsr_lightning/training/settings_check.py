"""Refuses a training's settings before anything is read or trained."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pcsr_lightning.errors import ConfigError, check_path
from pcsr_lightning.networks import UnknownBackboneError, backbone_class, import_backbone
from pcsr_lightning.settings.instantiation import configured, in_plain_values
from pcsr_lightning.settings.known_keys import check_top_level
from pcsr_lightning.settings.signatures import check_integer, check_type, parameters
from pcsr_lightning.training.initialization import stage_network
from pcsr_lightning.training.optim.factories import check_follows_time
from pcsr_lightning.training.parts import loss_factory, schedule_factory
from pcsr_lightning.training.run_length import check_length
from pcsr_lightning.weights import last_checkpoint


def check_settings(cfg: DictConfig) -> None:
    """Whether all keys are known and all values usable, as far as can be told at once.

    Raises:
        ConfigError: names the first one that is not.
    """
    check_top_level(cfg, "train")
    bare = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if str(key) != "hydra"])
    missing = sorted(OmegaConf.missing_keys(bare))
    if missing:
        raise ConfigError(
            f"{missing[0]} has no default: give it on the command line as {missing[0]}=VALUE"
        )
    check_integer("num_classes", cfg.num_classes, 1)
    check_integer("seed", cfg.seed, 0)
    check_integer("threads", cfg.threads, 1, optional=True)
    check_length(cfg.trainer)
    for key, example in (("init", "MODEL"), ("ckpt_path", "FILE"), ("output", "DIR")):
        check_path(key, cfg[key], example)
    check_backbone(cfg.backbone)
    for key in ("data", "optimizer", "stage", "trainer"):
        configured(cfg[key], key)
    loss_factory(cfg.loss)
    schedule = schedule_factory(cfg.scheduler)
    if cfg.trainer.get("max_time") is not None:
        check_follows_time(schedule, cfg.trainer.max_steps)
    if cfg.ckpt_path is not None:
        last_checkpoint(Path(cfg.ckpt_path))


def check_backbone(backbone: DictConfig) -> None:
    """Whether there is such a backbone; imports one from outside the package.

    Raises:
        ConfigError: there is none, it is called something else, or a size is of the wrong type.
    """
    values = in_plain_values(backbone, "backbone")
    target = values.pop("_target_", None)
    name = values.pop("name")
    check_type("backbone.lr", values.pop("lr"), float)
    takes, _ = parameters(stage_network)
    for key, value in values.items():
        if key not in takes:
            raise ConfigError(f"backbone.{key}: there is no such setting")
        check_type(f"backbone.{key}", value, takes[key])
    if target is None:
        try:
            backbone_class(name)
        except UnknownBackboneError as error:
            raise ConfigError(
                f"backbone.name: {error}; for one of your own give backbone._target_, such as "
                "my_package.MyNet"
            ) from None
        return
    own = import_backbone(target).name
    if name != own:
        raise ConfigError(
            f"backbone.name={name}: {target} is called {own!r}; write backbone.name={own}"
        )
