"""What can be asked for: rules, their values, and the words they had before."""

from __future__ import annotations

import json
import sys
from subprocess import run
from typing import Any

import pytest

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.routing import RULES, CostRule, RoutingConfig


def test_the_rule_is_the_one_that_has_a_value() -> None:
    assert (RoutingConfig().mode, RoutingConfig().value) == ("k", 0.0)
    assert RoutingConfig(k=1).value == 1.0
    assert RoutingConfig(budget=0.5) == RoutingConfig("budget", budget=0.5)
    assert RoutingConfig(fixed_class=1).fixed_class == 1
    assert RoutingConfig(adaptive=True) == RoutingConfig(" Adaptive ")
    assert RoutingConfig("adaptive", k=0.0, budget=None, adaptive=False).value is None
    assert RoutingConfig(cost="proportional").cost is CostRule.PROPORTIONAL
    assert (RoutingConfig(budget=1).fixed_class, RoutingConfig(budget=0.5).fixed_class) == (0, None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "heavy"}, r"routing mode must be .*adaptive.* or \w+, not 'heavy'"),
        ({"mode": ""}, "routing mode must be"),
        ({"mode": "-1"}, "routing mode must be"),
        ({"mode": "²"}, "routing mode must be"),
        ({"mode": "budget"}, r"needs budget: .* such as 0\.5"),
        ({"mode": "k", "budget": 0.5}, "budget=0.5 is for .*'budget', not for 'k'.*leave budget"),
        ({"mode": "adaptive", "k": 1.0}, "k=1.0 is for .*'k', not for 'adaptive'"),
        ({"mode": "k", "adaptive": True}, "adaptive is for the routing mode 'adaptive'"),
        ({"k": 1.0, "budget": 0.5}, "k=1.0 and budget=0.5 exclude each other"),
        ({"fixed_class": 0, "adaptive": True}, "fixed_class=0 and adaptive exclude each other"),
        ({"k": float("nan")}, "k must be a finite number, not nan"),
        ({"k": True}, "k must be a finite number, not True"),
        ({"fixed_class": -1}, "fixed_class must be the number of a class.*not -1"),
        ({"fixed_class": 0.5}, "fixed_class must be the number of a class.*not 0.5"),
        ({"budget": 0}, "above 0 and up to 1, not 0"),
        ({"budget": 1.5}, "up to 1, not 1.5"),
        ({"budget": float("nan")}, "not nan"),
        ({"budget": True}, "not True"),
        ({"budget": "half"}, "not 'half'"),
        ({"budget": 0.5, "adaptive": True}, "exclude each other"),
        ({"budget": 0.5, "fixed_class": 0}, "exclude each other"),
        ({"fixed_class": 1, "k": 1.0}, "exclude each other"),
        ({"k": float("inf")}, "finite"),
        ({"k": "0"}, "finite number"),
        ({"adaptive": 0.5}, "adaptive takes no value, only true or false, not 0.5"),
        ({"luck": 7}, "no routing rule 'luck'; there are adaptive, "),
        ({"cost": "free"}, "softmax or proportional, not 'free'"),
        ({"refine": 1}, "refine must be true, false, or None"),
    ],
)
def test_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RoutingConfig(**options)


@pytest.mark.parametrize(
    "config",
    [
        RoutingConfig(),
        RoutingConfig(k=-0.5, cost="proportional"),
        RoutingConfig("adaptive", refine=True),
        RoutingConfig(budget=0.25),
        RoutingConfig(fixed_class=0, refine=False),
    ],
    ids=lambda config: config.description,
)
def test_records_can_be_read_back(config: RoutingConfig) -> None:
    record = json.loads(json.dumps(config.to_dict()))
    assert RoutingConfig(**record) == config
    assert config.replace(refine=None).replace(refine=config.refine) == config


def test_class_numbers_as_modes_still_work() -> None:
    for mode in ("1", 1):
        with pytest.warns(DeprecationWarning, match="use fixed_class=1"):
            assert RoutingConfig(mode) == RoutingConfig(fixed_class=1)  # type: ignore[arg-type]
    old = {"mode": "0", "k": 0.0, "cost": "softmax", "refine": True, "budget": None}
    with pytest.warns(DeprecationWarning, match="use fixed_class=0"):
        assert RoutingConfig(**old) == RoutingConfig(fixed_class=0, refine=True)


def test_the_name_that_it_had() -> None:
    from pcsr_lightning import inference

    with pytest.warns(DeprecationWarning, match="RoutingConfig"):
        assert inference.Routing is RoutingConfig


def test_rules_are_known_without_torch() -> None:
    """Command lines are made from them."""
    code = "import sys, pcsr_lightning.routing; print('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_every_rule_says_what_it_is() -> None:
    for name, rule in RULES.items():
        assert rule.name == name
        assert rule.help
        assert rule.__doc__
