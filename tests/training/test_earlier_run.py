"""Which run a stage builds on: records of runs that agree, nearly agree, or do not."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.training.earlier_run import Need, agreeing, best_below
from pcsr_lightning.weights import RunRecord, is_finished, last_checkpoint, newest_finished

NETWORK = {
    "kind": "pcsr", "backbone": {"name": "carn", "nf": 8}, "upsamplers": [[8, 8]],
    "classifier": None, "mean": [0.4, 0.4, 0.4],
}  # fmt: skip
RECORD = RunRecord(
    "1", "carn", 2, 10, 100.0, 25.0, seed=0, scale=[4.0, 4.0], network=NETWORK,
    data={"train": "aa"}, settings={"optimizer.lr": 1e-3, "seed": 0},
)  # fmt: skip


def need(**other: Any) -> Need:
    fields = {"stage": "1", "network": NETWORK, "seed": 0, "scale": [4.0, 4.0]}
    return Need(**{**fields, "data": lambda: "aa", **other})


def run(folder: Path, weights: str = "w", **other: Any) -> Path:
    """A run folder with a record, and something in place of weights."""
    folder.mkdir()
    replace(RECORD, **other).write(folder)
    (folder / "model.safetensors").write_text(weights)
    return folder


def test_of_the_same_weights_the_newest_run_is_taken(tmp_path: Path) -> None:
    run(tmp_path / "a")
    newest = run(tmp_path / "b", finished=200.0)
    run(tmp_path / "c", finished=150.0, num_classes=3)  # M alone: the network is the same
    run(tmp_path / "d", finished=300.0, stage="2")
    assert agreeing(tmp_path, need()) == newest
    found = newest_finished(tmp_path, "1", "carn", 2)
    assert found is not None
    assert found[0] == newest
    assert newest_finished(tmp_path, "1", "carn", 4) is None


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"seed": 1}, "seed is 1, here 0"),
        ({"scale": [2.0, 2.0]}, "data.scale is 2, here 4"),
        ({"scale": [2.0, 4.0]}, "data.scale is [2,4], here 4"),
        ({"data": {"train": "bb"}}, "it was trained on other pictures"),
        ({"network": NETWORK | {"backbone": {"name": "bsrn"}}}, "backbone is bsrn, here carn"),
        (
            {"network": NETWORK | {"upsamplers": [[9]]}},
            "backbone.upsamplers is [[9]], here [[8, 8]]",
        ),
        (
            {"complete": False, "ended": "stopped by a callback at step 3 of 10"},
            "it is not finished (stopped by a callback at step 3 of 10)",
        ),
    ],
)
def test_a_run_that_differs_is_not_built_on_but_named(
    other: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = run(tmp_path / "a", **other)
    with pytest.raises(ConfigError) as refused:
        agreeing(tmp_path, need())
    text = str(refused.value)
    assert f"Nearest: {folder}: {says}. Train one" in text
    assert "pcsr_lightning.train stage=1 backbone=carn data.scale=4 seed=0, or name a run" in text
    wanted = run(tmp_path / "b", "of another", seed=0)
    assert agreeing(tmp_path, need()) == wanted


def test_the_nearest_runs_come_first(tmp_path: Path) -> None:
    run(tmp_path / "a", seed=1, scale=[2.0, 2.0])
    for name in "bcd":
        run(tmp_path / name, seed=1)
    with pytest.raises(ConfigError) as refused:
        agreeing(tmp_path, need())
    found = re.findall(r"/([a-d]): ", str(refused.value))
    assert sorted(found) == ["b", "c", "d"]


def test_several_different_models_are_an_error_that_lists_them(tmp_path: Path) -> None:
    run(tmp_path / "a", val_psnr=25.5)
    run(tmp_path / "b", "other", settings={"optimizer.lr": 2e-3, "seed": 0}, val_psnr=26.0)
    run(tmp_path / "c", "other", settings={"optimizer.lr": 2e-3, "seed": 0}, finished=200.0)
    with pytest.raises(ConfigError) as refused:
        agreeing(tmp_path, need())
    text = str(refused.value)
    assert f"{tmp_path / 'a'} (25.5 dB, optimizer.lr=0.001)" in text
    assert f"{tmp_path / 'c'} (25 dB, optimizer.lr=0.002)" in text
    assert str(tmp_path / "b") not in text  # the same model as the newer one
    assert "seed=0" not in text  # not what tells them apart
    assert f"init=FOLDER, or take the best with init=best:{tmp_path}" in text


def test_the_best_of_those_that_fit(tmp_path: Path) -> None:
    run(tmp_path / "a", "a", val_psnr=25.5)
    best = run(tmp_path / "b", "b", val_psnr=26.0, seed=7)
    run(tmp_path / "c", "c", val_psnr=None)
    run(tmp_path / "d", "d", val_psnr=35.0, scale=[2.0, 2.0])  # an easier task
    run(tmp_path / "e", "e", val_psnr=27.0, complete=False)
    run(tmp_path / "f", "f", val_psnr=27.0, stage="2")
    assert best_below(tmp_path, need(seed=None)) == best
    with pytest.raises(ConfigError, match=r"init=best:.*no finished run of stage 3 below"):
        best_below(tmp_path, need(stage="3"))


def test_records_of_earlier_versions(tmp_path: Path) -> None:
    """They say nothing of scale and pictures; the network stands in the model's file."""
    old = '"backbone": "carn", "num_classes": 2, "steps": 10, "finished": 1.0, "val_psnr": null'
    for name, network in (("a", NETWORK), ("b", NETWORK | {"upsamplers": [[9]]})):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text('{"stage": "1", ' + old + "}")
        (folder / "model.safetensors").write_text(name)
        (folder / "model.json").write_text(
            f'{{"network": {network!r}}}'.replace("'", '"').replace("None", "null")
        )
        assert is_finished(folder)
    assert agreeing(tmp_path, need()) == tmp_path / "a"


def test_what_is_no_record_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = run(tmp_path / "a")
    for name, text in {"b": "{half a rec", "c": "[]", "d": "{}"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
        (tmp_path / name / "model.safetensors").touch()
        assert not is_finished(tmp_path / name)
    assert agreeing(tmp_path, need()) == wanted
    assert "b/run.json: not a readable run record" in caplog.text
    (wanted / "model.safetensors").unlink()
    assert not is_finished(wanted)
    with pytest.raises(ConfigError, match=r"no finished run of stage 1"):
        agreeing(tmp_path / "nowhere", need())


def test_the_last_checkpoint_of_a_folder(tmp_path: Path) -> None:
    inside = tmp_path / "run" / "checkpoints"
    inside.mkdir(parents=True)
    for name in ("best.ckpt", "last.ckpt"):
        (inside / name).touch()
    for path in (tmp_path / "run", inside, inside / "last.ckpt"):
        assert last_checkpoint(path) == inside / "last.ckpt"
    assert last_checkpoint(inside / "best.ckpt") == inside / "best.ckpt"
    with pytest.raises(ConfigError, match=r"no checkpoints/last.ckpt .* name one of run/checkp"):
        last_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match="no such file or folder"):
        last_checkpoint(tmp_path / "nowhere")
