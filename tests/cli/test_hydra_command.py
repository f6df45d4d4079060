"""What the Hydra commands share: paths taken literally, and Hydra's messages in one line."""

import os
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException

from pcsr_lightning.cli.hydra_command import literal_path
from pcsr_lightning.cli.routing_group import register_routing
from pcsr_lightning.settings.known_keys import in_one_line


@pytest.mark.parametrize(
    "name", ["a b", "(1)", "a=b", "a,b", "{x}", "it's", "back\\slash'", "end\\", "x:y", "$HOME"]
)
def test_paths_reach_hydra_as_they_are(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.mkdir()
    parser = OverridesParser.create()
    [override] = parser.parse_overrides([literal_path(f"data.root={path}")])
    assert override.key_or_group == "data.root"
    assert override.value() == str(path)


@pytest.mark.parametrize(
    "argument",
    [
        "scale=4",
        "routing=default",
        "data.root",
        "--cfg",
        "--x=a/b",
        "data.root=",
        "a=no/such (path)",
    ],
)
def test_all_else_is_left_alone(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("4", "default", "a/b"):
        os.makedirs(name)  # noqa: PTH103
    assert literal_path(argument) == argument


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("sclae", "sclae: there is no such setting; did you mean scale?"),
        ("data.rot", "data.rot: there is no such setting; did you mean data.root?"),
        ("data", "data: there is no such setting, but a group of them: data.root"),
        (
            "routing.k",
            "routing.k: there is no such setting with what else was chosen (only some choices of "
            "routing know it)",
        ),
    ],
)
def test_unknown_keys(key: str, says: str) -> None:
    register_routing()
    error = ConfigCompositionException(f"Could not override '{key}'.\nTo append use +{key}=1")
    assert in_one_line(error, "evaluate") == says
    assert in_one_line(error) == f"{key}: there is no such setting"


def test_a_config_group_is_suggested() -> None:
    error = ConfigCompositionException("Could not override 'stag'.\n")
    assert in_one_line(error, "train") == "stag: there is no such setting; did you mean stage?"


def test_what_a_target_takes_is_known() -> None:
    error = ConfigCompositionException("Could not override 'optimizer.momentum'.\n")
    words = ["optimizer._target_=torch.optim.SGD", "optimizer.momentum=0.9"]
    assert "write +optimizer.momentum=VALUE" in in_one_line(error, "train", words)
    assert "momentum=VALUE" not in in_one_line(error, "train")
