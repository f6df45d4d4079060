"""Model files that call something, or name what is to be called: nothing is run."""

from __future__ import annotations

import json
import os
import pickle
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.safety.hostile import (
    HARM,
    PAYLOADS,
    TARGETS,
    Calls,
    refused,
)

from pcsr_lightning.errors import ModelFileError
from pcsr_lightning.networks import PCSR
from pcsr_lightning.weights import load, load_model_file, save

pytestmark = pytest.mark.usefixtures("nothing_happens")


# Pickles that call something


def test_the_payloads_would_work() -> None:
    for name in ("os.system", "Path.touch", "eval", "exec", "open", "state", "run"):
        pickle.loads(pickle.dumps(PAYLOADS[name]()))
        assert Path(HARM).exists(), name
        Path(HARM).unlink()


@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_pickle_is_run(payload: str, suffix: str, content: dict[str, Any]) -> None:
    Path("raw.bin").write_bytes(pickle.dumps(Calls(os.system, (f"touch {HARM}",))))
    path, harm = Path(f"x{suffix}"), PAYLOADS[payload]()
    for protocol in (0, 2, 4, 5):
        path.write_bytes(pickle.dumps(harm, protocol))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # PyTorch's would come before our one line
            refused(path)
    for holder in (
        harm,
        {"model": harm},
        {"model": {"name": "srresnet", "args": {}, "sd": {"a": harm}}},
        content | {"hyper_parameters": content["hyper_parameters"] | {"network": harm}},
        content | {"state_dict": content["state_dict"] | {"network.x": harm}},
        content | {"callbacks": harm},
    ):
        for zipped in (True, False):
            torch.save(holder, path, _use_new_zipfile_serialization=zipped)
            refused(path, "was not opened")


def test_a_payload_behind_a_good_checkpoint(content: dict[str, Any]) -> None:
    """Into the archive of a checkpoint that is right, as a second ``data.pkl`` and beside it."""
    torch.save(content, "good.ckpt")
    assert isinstance(load("good.ckpt"), PCSR)
    harm = pickle.dumps(PAYLOADS["os.system"](), 2)
    for name in ("{root}/data.pkl", "{root}/other.pkl", "{root}/code/x.py", "constants.pkl"):
        torch.save(content, "x.ckpt")
        with zipfile.ZipFile("x.ckpt", "a") as archive:
            root = archive.namelist()[0].split("/")[0]
            archive.writestr(name.format(root=root), harm)
        with suppress(ModelFileError):
            load("x.ckpt")


# Names of things to make


@pytest.mark.parametrize("node", TARGETS, ids=str)
def test_no_name_in_a_file_is_called(
    node: dict[str, Any], file: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("harmful.py").write_text(f"open({HARM!r}, 'w')\n")
    monkeypatch.syspath_prepend(".")
    beside, whole = file.with_suffix(".json"), json.loads(file.with_suffix(".json").read_text())
    for network in (
        node,
        whole["network"] | {"backbone": node},
        whole["network"] | {"classifier": node},
        whole["network"] | {"upsamplers": [node]},
        whole["network"] | node,
    ):
        beside.write_text(json.dumps(whole | {"network": network}))
        refused(file)
        facts = content["hyper_parameters"] | {"network": network}
        torch.save(content | {"hyper_parameters": facts}, "x.ckpt")
        refused("x.ckpt")
    # Beside the architecture it is a fact like any other.
    beside.write_text(json.dumps(whole | node))
    _, facts = load_model_file(file)
    assert facts == node


def test_other_places_for_a_target(file: Path, model: PCSR) -> None:
    node = TARGETS[0]
    save_file(load_file(file), file, metadata={k: str(v) for k, v in node.items()})
    assert load(file).config() == model.config()
    run = Path("run")
    (run / ".hydra").mkdir(parents=True)
    save(model, run / "model")
    lines = [f"{k}: {json.dumps(v)}" for k, v in node.items()]
    lines.append(f"x: !!python/object/apply:os.system ['touch {HARM}']")
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        (run / ".hydra" / name).write_text("\n".join(lines) + "\n")
    assert load(run).config() == model.config()
