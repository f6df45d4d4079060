"""What a run was made of: pictures, code, and what two runs have in common."""

import subprocess
from pathlib import Path

import pytest

from pcsr_lightning.training.ending import trial_run
from pcsr_lightning.training.provenance import changed_pictures, commit_of, commits, data_hashes
from pcsr_lightning.training.replay import differences

PICTURES = {"train": {"a.png": "1", "b.png": "2"}, "valid": {"c.png": "3"}}


def test_pictures_that_changed_are_named() -> None:
    now = {"train": {"a.png": "9", "d.png": "2"}, "valid": {"c.png": "3"}}
    assert changed_pictures(PICTURES, PICTURES) == []
    assert changed_pictures(PICTURES, now) == [
        "b.png (train) is missing", "d.png (train) is new", "a.png (train) has changed",
    ]  # fmt: skip
    assert changed_pictures(PICTURES, {})[-1] == "c.png (valid) is missing"


def test_what_the_pictures_of_two_runs_have_in_common() -> None:
    settings = {"root": "x", "batch_size": 4}
    found = data_hashes(PICTURES, settings)
    assert found == data_hashes(PICTURES, {"root": "y", "batch_size": 8})
    other = data_hashes({**PICTURES, "valid": {}}, settings)
    assert (other["train"] == found["train"], other["valid"] == found["valid"]) == (True, False)
    renamed = {**PICTURES, "train": {"a.png": "1", "z.png": "2"}}
    assert data_hashes(renamed, settings)["train"] != found["train"]
    blurred = {**settings, "degradation": {"_target_": "my.Blur"}}
    assert data_hashes(PICTURES, blurred)["train"] != found["train"]
    # A data module from elsewhere cannot tell its pictures: its settings stand for them.
    assert data_hashes(None, settings) == data_hashes(None, dict(settings))
    assert data_hashes(None, settings) != data_hashes(None, {"root": "y", "batch_size": 4})


def test_commits_and_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert commit_of(tmp_path) is None
    repository = tmp_path / "mine"
    (repository / "inside").mkdir(parents=True)
    file = repository / "train.sh"
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        file.write_text("first\n")
        name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(repository), *name, *words], check=True)
    head = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    expected = {"folder": str(repository), "commit": head, "dirty": False}
    assert commit_of(repository / "inside") == expected
    (repository / "outputs.txt").write_text("not part of the code")
    assert commit_of(repository) == expected
    file.write_text("changed\n")
    monkeypatch.chdir(repository)
    assert {**expected, "dirty": True} in commits()
    monkeypatch.setenv("PATH", "")  # no git
    assert commits() == []


def test_what_differs_in_words() -> None:
    before = {
        "git": [{"folder": "/a/pcsr", "commit": "1" * 40, "dirty": True}],
        "versions": {"torch": "2.12"}, "device": "cpu", "cwd": "/a",
    }  # fmt: skip
    now = {
        "git": [{"folder": "/b/pcsr", "commit": "2" * 40, "dirty": False}],
        "versions": {"torch": "2.13"}, "device": "cpu", "cwd": "/b",
    }  # fmt: skip
    assert differences(before, before) == []
    assert differences(before, now) == [
        "torch was 2.12, is 2.13",
        "the commit of pcsr was 111111111111 with changes, is 222222222222",
    ]


@pytest.mark.parametrize(
    ("settings", "trial"),
    [
        ({"max_steps": 4, "limit_train_batches": 1.0, "fast_dev_run": False}, None),
        ({"overfit_batches": 0}, None),
        ({"limit_train_batches": None}, None),
        ({"fast_dev_run": True}, "trainer.fast_dev_run=true"),
        ({"limit_train_batches": 1}, "trainer.limit_train_batches=1"),  # a single batch
        ({"limit_train_batches": 0.5}, "trainer.limit_train_batches=0.5"),
        ({"overfit_batches": 0.1}, "trainer.overfit_batches=0.1"),
    ],
)
def test_trials_by_their_settings(settings: dict[str, object], trial: str | None) -> None:
    assert trial_run(settings) == trial
