"""What the Hydra commands share: paths taken literally, and Hydra's messages in one line."""

import os
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import OmegaConf
from tests.commands import SMALL_TRAINING, run_command

from pcsr_lightning.cli.hydra_command import literal_path
from pcsr_lightning.cli.routing_group import register_routing
from pcsr_lightning.settings.known_keys import in_one_line
from pcsr_lightning.settings.overrides import split_options, with_logger_names, with_plus


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
        ("data", "data: there is no such setting, but a group of them: data.name, data.root"),
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


EXPERIMENTS = (
    "Could not find 'experiment/paper/carn_x5'\n\nAvailable options in 'experiment/paper':"
)


def test_an_unknown_choice_is_named_with_the_nearest_and_the_list() -> None:
    said = in_one_line(MissingConfigException(EXPERIMENTS, "experiment/paper/carn_x5"), "train")
    assert said.startswith("experiment=paper/carn_x5: there is no such choice; did you mean ")
    assert "did you mean experiment=paper/carn_x4? " in said
    assert "quick/fsrcnn_x4" in said
    error = MissingConfigException("Could not find 'hydra/launcher/slrm'\n\nAvailable:\n\tslurm")
    assert "hydra/launcher=slrm: there is no such choice" in in_one_line(error, "train")


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("train", "experiment=paper/carn_x5"),
        ("train", "experiment=papr/carn_x4"),
        ("train", "hparams_search=psnrr"),
        ("train", "callbacks=defalt"),
        ("train", "logger=[csv,wndb]"),
        ("train", "hydra/launcher=slrm"),
        ("evaluate", "logger=wndb"),
    ],
)
def test_a_typing_error_in_a_choice_trains_nothing(command: str, word: str, tmp_path: Path) -> None:
    for options in ((), ("-m",)):
        done = run_command(command, *options, word, "data.root=x", cwd=tmp_path, code=1)
        [line] = done.err.splitlines()
        choice = word.partition("=")[2].strip("[]").split(",")[-1]
        assert f"={choice}: there is no such choice; " in line
        assert "here are " in line


@pytest.mark.parametrize(
    ("words", "options", "settings"),
    [
        (("stage=1", "-m", "seed=1,2"), ["-m"], ["stage=1", "seed=1,2"]),
        (("-cn", "train", "a=1", "--multirun"), ["-cn", "train", "--multirun"], ["a=1"]),
        (("a=-1", "--cfg", "job", "~b"), ["--cfg", "job"], ["a=-1", "~b"]),
        (("a=1", "--config-dir"), ["--config-dir"], ["a=1"]),
    ],
)
def test_options_may_stand_between_settings(
    words: tuple[str, ...], options: list[str], settings: list[str]
) -> None:
    assert split_options(words) == (options, settings)


def test_settings_on_both_sides_of_m_are_read(tmp_path: Path) -> None:
    run_command(
        "train", *SMALL_TRAINING, "-m", "seed=1,2", "trainer.max_steps=1", "hydra.sweep.dir=all",
        "logger=none", cwd=tmp_path, code=0,
    )  # fmt: skip
    seeds = [OmegaConf.load(tmp_path / f"all/{n}/.hydra/config.yaml").seed for n in (0, 1)]
    assert seeds == [1, 2]
    assert (tmp_path / "all" / "1" / "run.json").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trainer.min_steps=1"], ["++trainer.min_steps=1"]),
        (["trainer.accumulate_grad_batches=2"], ["++trainer.accumulate_grad_batches=2"]),
        (["trainer.acumulate_grad_batches=2"], ["trainer.acumulate_grad_batches=2"]),
        (["+trainer.min_steps=1"], ["+trainer.min_steps=1"]),
        (["+trainer.max_time=1"], ["++trainer.max_time=1"]),  # in conf/ now
        (["trainer.max_steps=1"], ["trainer.max_steps=1"]),
        (
            ["optimizer._target_=torch.optim.SGD", "optimizer.momentum=0.9"],
            ["optimizer._target_=torch.optim.SGD", "++optimizer.momentum=0.9"],
        ),
        (["optimizer.momentum=0.9"], ["optimizer.momentum=0.9"]),
        (
            ["loss._target_=torch.nn.HuberLoss", "loss.delta=0.1,0.2"],
            ["loss._target_=torch.nn.HuberLoss", "++loss.delta=0.1,0.2"],
        ),
        (["callbacks.last.save_last=true"], ["++callbacks.last.save_last=true"]),
        (
            ["logger.mine._target_=lightning.pytorch.loggers.CSVLogger", "logger.mine.save_dir=x"],
            [
                "++logger.mine._target_=lightning.pytorch.loggers.CSVLogger",
                "++logger.mine.save_dir=x",
            ],
        ),
        (["experiment=quick/carn_x4", "seed=1,2", "trainer.fast_dev_run=true"], None),
        (
            ["experiment=no/such", "trainer.min_steps=1"],
            ["experiment=no/such", "trainer.min_steps=1"],
        ),
    ],
)
def test_what_a_target_takes_needs_no_plus(words: list[str], expected: list[str] | None) -> None:
    if expected is None:
        expected = [*words[:-1], f"++{words[-1]}"]
    assert with_plus(words, "train") == expected


def test_a_target_in_a_file_of_ones_own_counts(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\noptimizer: {_target_: torch.optim.SGD}\n"
    )
    words = ["experiment=mine", "optimizer.momentum=0.9"]
    expected = ["experiment=mine", "++optimizer.momentum=0.9"]
    assert with_plus(words, "train", ["--config-dir", str(tmp_path)]) == expected


def test_a_setting_that_the_chosen_optimizer_ignores_is_refused(tmp_path: Path) -> None:
    words = ("optimizer._target_=torch.optim.SGD", "optimizer.betas=[0.9,0.9]")
    done = run_command("train", *SMALL_TRAINING, *words, cwd=tmp_path, code=1)
    assert done.err == "error: optimizer.betas: torch.optim.SGD takes no such setting\n"


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "NAdam"])
def test_weight_decay_of_every_optimizer(name: str, tmp_path: Path) -> None:
    words = (f"optimizer._target_=torch.optim.{name}", "optimizer.weight_decay=0.03")
    more = ("trainer.max_steps=1", "logger=none", "hydra.run.dir=run")
    run_command("train", *SMALL_TRAINING, *words, *more, cwd=tmp_path, code=0)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.03


@pytest.mark.parametrize(
    ("words", "expected", "warns"),
    [
        (
            ["logger=wandb", "logger.offline=true"],
            ["logger=wandb", "logger.wandb.offline=true"],
            True,
        ),
        (["logger=[csv,wandb]", "+logger.entity=us"], ["+logger.wandb.entity=us"], True),
        (["logger.flush_logs_every_n_steps=9"], ["logger.csv.flush_logs_every_n_steps=9"], True),
        (["logger.wandb.offline=true"], ["logger.wandb.offline=true"], False),
        (
            ["logger._target_=a.Logger", "logger.uri=x"],
            ["logger.own._target_=a.Logger", "logger.own.uri=x"],
            False,
        ),
        (["logger=none", "logger.offline=true"], ["logger.offline=true"], False),
    ],
)
def test_settings_of_a_logger_without_its_name(
    words: list[str], expected: list[str], warns: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert with_logger_names(words, "train")[-len(expected) :] == expected
    assert ("warning: " in capsys.readouterr().err) == warns


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optimizer: {lr: 1e-3\nseed: 1\n", "mine.yaml"),
        ("seed: 1\nseed: 2\n", "seed"),
        ("\tseed: 1\n", "mine.yaml"),
        ("optimzer: {lr: 1e-3}\n", "optimzer: there is no such setting; did you mean optimizer?"),
    ],
)
def test_an_experiment_file_that_cannot_be_read(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    words = ("--config-dir", str(tmp_path), "experiment=mine")
    done = run_command("train", *words, *SMALL_TRAINING, cwd=tmp_path, code=1)
    [line] = done.err.splitlines()
    assert line.startswith("error: ")
    assert says in line


@pytest.mark.parametrize("word", ["callbacks=null", "callbacks=none", "logger=null", "logger=none"])
def test_no_callbacks_and_no_logger(word: str, tmp_path: Path) -> None:
    # without `callbacks.progress=null`, which is about a callback
    words = (*SMALL_TRAINING[:-1], word, "trainer.max_steps=1", "hydra.run.dir=run")
    run_command("train", *words, "trainer.enable_progress_bar=false", cwd=tmp_path, code=0)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert "run.json" in left
    assert ("logs" in left) == word.startswith("callbacks")
    checkpoints = {path.name for path in (tmp_path / "run").rglob("*.ckpt")}
    assert checkpoints == ({"last.ckpt"} if "callbacks" in word else {"best.ckpt", "last.ckpt"})
