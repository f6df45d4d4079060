"""Hydra's config group ``routing``: made from the rules, so that no file lists them again."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from pcsr_lightning.routing import RULES, routing_defaults


def routing_help() -> str:
    """A line for each setting ``routing.*``."""
    lines = {
        "mode": f"{', '.join(RULES)}; null for the one that has a value below, or else k",
        **{name: rule.help for name, rule in RULES.items() if rule.parameter is not None},
        "cost": "for k and budget: softmax (Eq. 9), or proportional as the published code has it",
        "refine": "smooth light pixels beside heavy ones; null: for scales from 4 up",
    }
    return "\n".join(f"    routing.{name}: {text}" for name, text in lines.items())


def register_routing() -> None:
    """Makes the group ``routing`` and its help known to Hydra."""
    ConfigStore.instance().store(group="routing", name="default", node=routing_defaults())
    OmegaConf.register_new_resolver("routing_help", routing_help, replace=True)
