"""``stage.reparameterized=true``: trained with parallel branches, saved as the plain network."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.commands import SMALL_TRAINING, run_command
from tests.small import small_first_stage
from torch import Tensor

from pcsr_lightning.networks import folded_state, is_reparameterized
from pcsr_lightning.training import FirstStage
from pcsr_lightning.weights import load_model_file
from pcsr_lightning.weights.plain_pickles import read_plain

ON = "stage.reparameterized=true"


def train(folder: Path, name: str, *settings: str, code: int = 0) -> Path:
    words = {w.partition("=")[0]: w for w in (*SMALL_TRAINING, "logger=none", *settings)}
    if "stage=original" in settings:
        del words["stage.queries"]
    done = run_command("train", *words.values(), f"hydra.run.dir={name}", cwd=folder)
    assert done.code == code, done.err
    (folder / f"{name}.err").write_text(done.err)
    return folder / name


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model.safetensors")


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("stage", ["1", "original"])
def test_the_model_file_is_the_plain_network(stage: str, tmp_path: Path) -> None:
    words = (f"stage={stage}", "trainer.max_steps=3")
    on, off = (train(tmp_path, name, *words, *more) for name, more in (("on", [ON]), ("off", [])))
    assert {k: v.shape for k, v in weights(on).items()} == {
        k: v.shape for k, v in weights(off).items()
    }
    states = [read_plain(run / "checkpoints/last.ckpt")["state_dict"] for run in (on, off)]
    assert [is_reparameterized(state) for state in states] == [True, False]
    plain = {k.removeprefix("network."): v for k, v in folded_state(states[0]).items()}
    assert same(weights(on), plain)
    assert same(weights(on), load_model_file(on / "checkpoints/last.ckpt")[0].state_dict())
    records = [json.loads((run / "run.json").read_text()) for run in (on, off)]
    assert [r["settings"]["stage.reparameterized"] for r in records] == [True, False]
    assert records[0]["network"] == records[1]["network"]
    if stage == "1":
        second = train(tmp_path, "second", "stage=2", "trainer.max_steps=1", f"init={on}")
        found = weights(second)
        assert all(torch.equal(found[k], v) for k, v in weights(on).items() if "backbone" in k)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    words = ("stage=1", ON, "optimizer=muon", "optimizer.lr=1e-3", "scheduler.steps=4")
    whole = train(tmp_path, "whole", *words, "trainer.max_steps=4")
    half = train(tmp_path, "half", *words, "trainer.max_steps=2")
    rest = train(tmp_path, "rest", *words, "trainer.max_steps=4", f"ckpt_path={half}")
    assert same(weights(whole), weights(rest))
    assert not same(weights(whole), weights(half))
    captured = train(tmp_path, "captured", *words, "trainer.max_steps=4", "stage.captured=true")
    assert "is not captured" not in (captured / "train.log").read_text()
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(captured)[name], tensor, atol=1e-5, rtol=0)


def test_a_checkpoint_resumes_with_its_own_setting(tmp_path: Path) -> None:
    for name, first, second in (("on", "true", "false"), ("off", "false", "true")):
        words = ("stage=1", "trainer.max_steps=1", f"stage.reparameterized={first}")
        begun = train(tmp_path, name, *words)
        more = ("stage=1", "trainer.max_steps=2", f"stage.reparameterized={second}")
        train(tmp_path, f"{name}-2", *more, f"ckpt_path={begun}", code=1)
        said = (tmp_path / f"{name}-2.err").read_text()
        assert f"was begun with stage.reparameterized={first}: resume it" in said
    # A warm start takes either for what it runs as.
    slow = ("optimizer.lr=1e-9", "scheduler.lr_min=0")
    train(tmp_path, "warm", *more, *slow, f"init={tmp_path / 'on'}")
    warm, begun = weights(tmp_path / "warm"), weights(tmp_path / "on")
    assert max(float((warm[k] - begun[k]).abs().max()) for k in begun) < 1e-6


def test_a_trained_network_starts_as_it_is() -> None:
    network, x = small_first_stage().eval(), torch.rand(1, 3, 8, 8)
    expected = network(x, (16, 16)).mixed()
    stage = FirstStage(network, reparameterized=True)
    assert is_reparameterized(stage.state_dict())
    assert torch.equal(network(x, (16, 16)).mixed(), expected)
