"""The stages as plain LightningModules: without Hydra, a trainer of one's own, checkpoints."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tests.small import small_first_stage, small_original, small_pcsr, write_textures
from torch import Tensor
from torch.utils.data import DataLoader

from pcsr_lightning import upscale
from pcsr_lightning.data import SRDataModule, TrainBatch, ValPicture
from pcsr_lightning.errors import ConfigError, ModelFileError
from pcsr_lightning.images import read
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.training import (
    FirstStage,
    LaterStage,
    OriginalStage,
    SRStage,
    cosine,
    init_from_previous_stage,
)
from pcsr_lightning.weights import load_model_file

ADAM = partial(torch.optim.Adam, lr=1e-3)
MAKERS = {FirstStage: small_first_stage, LaterStage: small_pcsr, OriginalStage: small_original}


def drawn(seed: int, size: int = 32) -> tuple[Tensor, Tensor]:
    hr = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(hr, 4), hr


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    crops = [TrainBatch(*drawn(n)) for n in range(4)]
    pictures = [ValPicture(*drawn(n), f"{n}") for n in range(2)]
    return DataLoader(crops, batch_size=None), DataLoader(pictures, batch_size=None)  # type: ignore[arg-type]


def trainer(folder: Path, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(accelerator="cpu", default_root_dir=folder, **{**quiet, **options})


@pytest.fixture(params=list(MAKERS), ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_fit_checkpoint_and_load(kind: Any, tmp_path: Path) -> None:
    stage = kind(MAKERS[kind](), optimizer=ADAM, scheduler=cosine)
    before = {k: v.clone() for k, v in stage.network.state_dict().items()}
    kept = ModelCheckpoint(tmp_path, "kept")
    fitted = trainer(tmp_path, max_epochs=2, callbacks=[kept])
    fitted.fit(stage, *loaders())
    assert fitted.global_step == 8
    moved = {k for k, v in stage.network.state_dict().items() if not torch.equal(v, before[k])}
    if kind is LaterStage:  # what earlier stages trained is frozen, without a word of the user's
        assert all(key.startswith(("upsamplers.1.", "classifier.")) for key in moved)
    assert moved
    path = Path(kept.best_model_path)
    for cls in (SRStage, kind):
        loaded = cls.load_from_checkpoint(path)
        assert type(loaded) is kind
        assert not loaded.training
        state = loaded.network.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in stage.network.state_dict().items())
        assert loaded.hparams["stage"] == stage.hparams["stage"]
    network, metadata = load_model_file(path)
    assert metadata["backbone"] == "fsrcnn"
    assert isinstance(network, PCSR | Original)
    # and trained on, with everything that a stage takes
    again = kind.load_from_checkpoint(path, optimizer=ADAM, loss=torch.nn.MSELoss())
    assert isinstance(again.loss, torch.nn.MSELoss)
    trainer(tmp_path, max_steps=1, enable_checkpointing=False).fit(again, *loaders())


def test_a_checkpoint_of_another_kind(tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path, "kept")
    fitted = trainer(tmp_path, max_steps=1, callbacks=[kept])
    fitted.fit(OriginalStage(small_original(), optimizer=ADAM), *loaders())
    with pytest.raises(ConfigError, match="stage original, which FirstStage is not"):
        FirstStage.load_from_checkpoint(kept.best_model_path)
    fitted.fit(LaterStage(small_pcsr(), optimizer=ADAM), *loaders())
    fitted.save_checkpoint(tmp_path / "later.ckpt")
    with pytest.raises(ConfigError, match="one upsampler, and this network has 2"):
        FirstStage.load_from_checkpoint(tmp_path / "later.ckpt")
    with pytest.raises(ModelFileError):
        SRStage.load_from_checkpoint(tmp_path / "nothing.ckpt")


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_nothing_in_a_checkpoint_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "hyper_parameters": {"network": Hostile()}}, "bad.ckpt")
    with pytest.raises(ModelFileError):
        SRStage.load_from_checkpoint("bad.ckpt", weights_only=True)
    with pytest.raises(ConfigError, match="without running code"):
        SRStage.load_from_checkpoint("bad.ckpt", weights_only=False)
    assert not (tmp_path / "executed").exists()


def test_forward_upscales_whole_pictures(kind: Any) -> None:
    stage, (lr, _) = kind(MAKERS[kind]()), drawn(0)
    result = upscale(stage.network.eval(), lr, 4)
    stage.train()
    assert torch.allclose(stage(lr), result.image.clamp(0, 1), atol=1e-5)
    assert stage.network.training
    if kind is OriginalStage:
        return
    assert stage(lr, 2.5).shape == (2, 3, 20, 20)
    assert stage(lr, size=(17, 30)).shape == (2, 3, 17, 30)
    with pytest.raises(ConfigError, match="scale"):
        stage(lr, 0.5)


def test_predictions(kind: Any, tmp_path: Path) -> None:
    stage, (lr, _) = kind(MAKERS[kind]()), drawn(0)
    loader = DataLoader([lr], batch_size=None)  # type: ignore[arg-type]
    [found] = trainer(tmp_path).predict(stage, loader)
    assert torch.equal(found["image"], stage(lr))
    assert (found["classes"] is None) == (kind is not LaterStage)


def test_a_stage_without_an_optimizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no optimizer: give it one"):
        trainer(tmp_path, max_steps=1).fit(FirstStage(small_first_stage()), *loaders())


def test_a_first_stage_has_one_upsampler() -> None:
    with pytest.raises(ConfigError, match="has 2"):
        FirstStage(small_pcsr())


def test_stages_build_on_each_other(tmp_path: Path) -> None:
    first = FirstStage(small_first_stage(), optimizer=ADAM)
    trainer(tmp_path, max_steps=2, enable_checkpointing=False).fit(first, *loaders())
    second = LaterStage(small_pcsr(), optimizer=ADAM)
    init_from_previous_stage(first.network, second.network)
    trainer(tmp_path, max_steps=2, enable_checkpointing=False).fit(second, *loaders())
    trained = first.network.backbone.state_dict()
    found = second.network.backbone.state_dict()
    assert all(torch.equal(v, found[k]) for k, v in trained.items())


@pytest.mark.parametrize("name", ["cosine", "OneCycleLR", "ReduceLROnPlateau", "StepLR"])
def test_schedules_without_hydra(name: str, tmp_path: Path) -> None:
    schedules = torch.optim.lr_scheduler
    scheduler = {
        "cosine": cosine,
        "OneCycleLR": partial(schedules.OneCycleLR, max_lr=1e-2, total_steps=-1),
        "ReduceLROnPlateau": partial(
            schedules.ReduceLROnPlateau, mode="max", patience=0, threshold=1e3
        ),
        "StepLR": partial(schedules.StepLR, step_size=4, gamma=0.1),
    }[name]
    stage = FirstStage(small_first_stage(), optimizer=ADAM, scheduler=scheduler)
    fitted = trainer(tmp_path, max_epochs=3, enable_checkpointing=False)
    fitted.fit(stage, *loaders())
    if name == "OneCycleLR":
        assert fitted.lr_scheduler_configs[0].scheduler.total_steps == 12  # type: ignore[union-attr]
        return
    rate = fitted.optimizers[0].param_groups[0]["lr"]
    expected = {"cosine": 1e-7, "ReduceLROnPlateau": 1e-5, "StepLR": 1e-6}
    assert rate == pytest.approx(expected[name], rel=0.1)


def test_tests_and_predictions_of_folders(kind: Any, tmp_path: Path) -> None:
    valid = write_textures(tmp_path / "valid", {"a.png": (64, 48), "b.png": (48, 64)})
    small = write_textures(tmp_path / "small", {"c.png": (24, 16), "more/d.png": (16, 24)})
    write_textures(tmp_path / "train", {"e.png": (96, 96)})
    folders = {"root": tmp_path / "train", "val_root": valid, "cache_dir": tmp_path / "cache"}
    stage = kind(MAKERS[kind]())
    [measured] = trainer(tmp_path).validate(
        stage, datamodule=SRDataModule(lr_crop=8, **folders), verbose=False
    )
    assert measured["val/psnr"] > 0
    expected = {key.replace("val/", "test/"): value for key, value in measured.items()}
    # A test needs no pictures to train on; without test_root it takes those of validation.
    for own in ({"test_root": valid, "root": tmp_path / "nowhere"}, {}):
        data = SRDataModule(lr_crop=8, **{**folders, **own})
        assert trainer(tmp_path).test(stage, datamodule=data, verbose=False) == [expected]
    data = SRDataModule(tmp_path / "nowhere", predict_root=small)
    found = trainer(tmp_path).predict(stage, datamodule=data)
    assert [one["name"] for one in found] == ["c.png", "more/d.png"]
    for one, file in zip(found, ("c.png", "more/d.png"), strict=True):
        assert torch.allclose(one["image"], stage(read(small / file).rgb[None]), atol=1e-6)
    with pytest.raises(ConfigError, match="predict_root"):
        trainer(tmp_path).predict(stage, datamodule=SRDataModule(tmp_path / "nowhere"))
