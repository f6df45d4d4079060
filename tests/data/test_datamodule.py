"""The data module: what it trains and validates on, what it says, and exact resuming."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor

from pcsr_lightning.data import (
    BicubicDegradation,
    DIV2KDataModule,
    SampleDataModule,
    SRDataModule,
    TrainBatch,
    ValPicture,
)
from pcsr_lightning.data.picture_buffer import _fits
from pcsr_lightning.errors import ConfigError, DataError, PictureError
from pcsr_lightning.settings.instantiation import instantiate as settings_instantiate

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def valid(make_pictures: Any) -> Path:
    return Path(make_pictures({"v1.png": (66, 90), "v2.png": (40, 40)}, "valid"))


def ready(root: Path, **options: Any) -> SRDataModule:
    options.setdefault("cache_dir", root.parent / "caches")
    data = SRDataModule(root, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def sources(data: SRDataModule) -> tuple[set[str], set[str]]:
    """Names trained and validated on."""
    assert data.split is not None
    train = {data.split.cache.pictures[n].source for n in data.split.numbers}
    loaders = data.val_dataloader()
    loaders = loaders if isinstance(loaders, dict) else {"": loaders}
    return train, {raw.name for loader in loaders.values() for raw in loader}


def test_trains_on_one_folder_and_validates_on_another(folder: Path, valid: Path) -> None:
    data = ready(folder, val_root=valid, batch_size=2)
    assert sources(data) == ({"a.png", "sub/b.bmp", "c.png"}, {"v1.png", "v2.png"})
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert isinstance(batch, TrainBatch)
    assert batch.lr_B3hw.shape == (2, 3, 32, 32)
    assert batch.hr_B3HW.shape == (2, 3, 128, 128)
    assert batch.hr_B3HW.dtype == torch.float32
    pair = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert isinstance(pair, ValPicture)
    assert (pair.name, pair.lr.shape, pair.hr.shape) == ("v1.png", (1, 3, 16, 22), (1, 3, 64, 88))


def test_says_what_it_found(folder: Path, valid: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "broken.jpg").write_bytes(b"nonsense")
    (valid / "cut.png").write_bytes(b"\x89PNG")
    with caplog.at_level(logging.INFO):
        data = ready(folder, val_root=valid, lr_crop=40, scale=4, stride=64)
    lines = [r.getMessage() for r in caplog.records if not r.name.endswith("picture_cache")]
    assert data.split is not None
    assert lines == [
        "Skipped 1 unreadable: broken.jpg",
        "Skipped 1 unreadable in validation: cut.png",
        "Skipped 2 smaller than a crop of 160 x 160 pixels: c.png, sub/b.bmp",
        f"Data: 1 pictures, {len(data.split.index)} crops of 160 x 160; validation on 2 pictures; "
        f"skipped 2 unreadable, 2 too small; cache {data.split.cache.folder}",
    ]


def test_holds_pictures_out_and_says_so(
    make_pictures: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_pictures({f"{n}.png": (128, 130) for n in range(7)} | {"small.png": (16, 16)})
    with caplog.at_level(logging.INFO):
        train, val = sources(ready(root, val_count=2))
    assert len(val) == 2
    assert train | val == {f"{n}.png" for n in range(7)}
    assert not train & val
    assert "2 of 7 pictures are held out for validation" in caplog.text
    assert sources(ready(root, val_count=2)) == (train, val)
    assert len(sources(ready(root, val_count=8))[1]) == 3  # never more than half


def test_digests_say_what_is_trained_on_and_what_is_held_out(make_pictures: Any) -> None:
    root = make_pictures({f"{n}.png": (200, 200) for n in range(4)})
    data = ready(root, val_count=1)
    train, valid = sources(data)
    digests = data.digests()
    assert (digests["train"].keys(), digests["valid"].keys()) == (train, valid)
    assert len(set(digests["train"].values()) | set(digests["valid"].values())) == 4


def test_a_new_picture_does_not_reshuffle_what_is_held_out(make_pictures: Any) -> None:
    names = {f"{n}.png": (128, 128) for n in range(6)}
    before = sources(ready(make_pictures(names), val_count=3))[1]
    after = sources(ready(make_pictures({**names, "new.png": (128, 128)}), val_count=3))[1]
    assert len(before & after) >= 2


def test_a_validation_folder_inside_the_training_folder(folder: Path) -> None:
    train, val = sources(ready(folder, val_root=folder / "sub"))
    assert (train, val) == ({"a.png", "c.png"}, {"b.bmp"})


def test_validation_is_limited_evenly(make_pictures: Any, folder: Path) -> None:
    valid = make_pictures({f"{n}.png": (8, 8) for n in range(5)}, "many")
    assert sources(ready(folder, val_root=valid, val_limit=3))[1] == {"0.png", "2.png", "4.png"}


def test_several_validation_sets(
    folder: Path, valid: Path, make_pictures: Any, caplog: pytest.LogCaptureFixture
) -> None:
    more = make_pictures({"w.png": (40, 40), "x.png": (50, 40)}, "more")
    with caplog.at_level(logging.INFO):
        data = ready(folder, val_root={"more": str(more), "mine": valid}, val_limit=1)
    loaders = data.val_dataloader()
    assert isinstance(loaders, dict)
    found = {name: [raw.name for raw in loader] for name, loader in loaders.items()}
    assert found == {"more": ["w.png"], "mine": ["v1.png"]}
    assert "validation on 2 pictures" in caplog.text


COPY = r"Skipped {} that show the same as a validation picture: {}"


def copied(source: Path, target: Path) -> None:
    """The same pixels in another file: another format, or one with another text in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as picture:
        picture.save(target)
    assert source.read_bytes() != target.read_bytes()


def test_copies_of_validation_pictures_are_not_trained_on(
    make_pictures: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_pictures({f"{n}.png": (128, 136) for n in range(4)})
    valid = make_pictures({"v.png": (40, 40)}, "valid")
    copied(root / "0.png", valid / "other-name.bmp")
    with caplog.at_level(logging.WARNING):
        data = ready(root, val_root=valid)
    assert sources(data) == ({"1.png", "2.png", "3.png"}, {"v.png", "other-name.bmp"})
    assert COPY.format(1, "0.png (as other-name.bmp)") in caplog.text
    # What is watched decides nothing of what is trained on.
    assert sources(ready(root, val_root=valid, val_limit=1))[0] == {"1.png", "2.png", "3.png"}
    several = {"v": make_pictures({"v.png": (40, 40)}, "first"), "w": valid}
    assert sources(ready(root, val_root=several))[0] == {"1.png", "2.png", "3.png"}


def test_copies_of_held_out_pictures_are_not_trained_on(
    make_pictures: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_pictures({f"{n}.png": (128, 136) for n in range(6)})
    held_out = sources(ready(root, val_count=3))[1]
    for n in range(6):
        copied(root / f"{n}.png", root / "copies" / f"{n}.bmp")
    with caplog.at_level(logging.WARNING):
        train, val = sources(ready(root, val_count=3))
    assert len(val) == 3
    contents = [{Path(name).stem for name in names} for names in (train, val)]
    assert len(contents[1]) == 3  # no picture twice
    assert not contents[0] & contents[1]
    assert len(train) == 6
    assert COPY.format(3, "") in caplog.text
    assert len(held_out) == 3


def test_links_and_checkpoints_change_nothing(make_pictures: Any) -> None:
    root = make_pictures({f"{n}.png": (128, 136) for n in range(6)})
    before = sources(ready(root, val_count=3))
    (root / "self").symlink_to(".")
    (root / "again.png").symlink_to("0.png")
    (root / ".ipynb_checkpoints").mkdir()
    copied(root / "1.png", root / ".ipynb_checkpoints" / "1-checkpoint.bmp")
    assert sources(ready(root, val_count=3)) == before


def test_a_copy_of_the_training_folder_to_validate_on(make_pictures: Any) -> None:
    root = make_pictures({"a.png": (128, 136), "b.png": (130, 136)})
    for name in ("a", "b"):
        copied(root / f"{name}.png", root.parent / "copy" / f"{name}.bmp")
    with pytest.raises(DataError, match="every picture here is also a validation picture"):
        ready(root, val_root=root.parent / "copy")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"root": ""}, r"data\.root is empty.*write data\.root=DIR"),
        ({"root": " "}, r"data\.root is empty"),
        ({"root": "x", "val_root": ""}, r"data\.val_root is empty"),
        ({"root": "x", "val_root": {"a": "x", "b": ""}}, r"data\.val_root\.b is empty"),
        ({"root": "x", "val_root": {}}, r"data\.val_root=\{\}: name a folder"),
        ({"root": "x", "cache_dir": ""}, r"data\.cache_dir is empty"),
    ],
)
def test_empty_paths(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SRDataModule(**options)


def test_setup_alone_builds_what_is_missing(folder: Path, valid: Path, tmp_path: Path) -> None:
    data = SRDataModule(folder, val_root=valid, cache_dir=tmp_path / "caches")
    data.setup("fit")
    assert data.split is not None
    assert len(data.train_dataloader()) == -(-len(data.split.index) // 16)


# Errors


def test_nothing_to_train_on(make_pictures: Any, valid: Path) -> None:
    root = make_pictures({"a.png": (100, 300), "b.png": (127, 127)}, "small")
    (root / "broken.png").write_bytes(b"nonsense")
    message = (
        r"small: nothing to train on\. Of 3 pictures 2 are smaller than a crop of 128 x 128 "
        r"pixels and 1 cannot be read\. Use larger pictures or a smaller data\.lr_crop"
    )
    with pytest.raises(DataError, match=message):
        ready(root, val_root=valid)


def test_too_few_to_hold_one_out(make_pictures: Any) -> None:
    root = make_pictures({"a.png": (128, 128), "b.png": (16, 16)})
    with pytest.raises(DataError, match=r"1 pictures of at least 128 x 128.*data\.val_root=DIR"):
        ready(root)


def test_same_folder_twice(folder: Path) -> None:
    with pytest.raises(DataError, match="every picture here is also a validation picture"):
        ready(folder, val_root=folder)


def test_missing_and_empty_folders(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for bad, message in [("nowhere", "no such folder"), ("empty", "no picture in this folder")]:
        with pytest.raises(PictureError, match=f"{bad}: {message}"):
            ready(tmp_path / bad)
        with pytest.raises(PictureError, match=f"{bad}: {message}"):
            ready(folder, val_root=tmp_path / bad)


def test_loaders_before_setup(folder: Path) -> None:
    data = SRDataModule(folder)
    for loader in (data.train_dataloader, data.val_dataloader):
        with pytest.raises(DataError, match="not set up"):
            loader()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("scale", 0.5),
        ("scale", (4, 2)),
        ("scale", (2, 3, 4)),
        ("batch_size", 0),
        ("lr_crop", 0),
        ("stride", 0),
        ("min_rest", -1),
        ("val_count", 0),
        ("val_limit", 0),
        ("val_scale", 0),
        ("num_workers", -1),
        ("downscale_factors", ()),
        ("downscale_factors", (1, 1.5)),
    ],
)
def test_settings_out_of_range(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{option}=.*must be"):
        SRDataModule("x", **{option: value})


# With a trainer


class Watcher(L.LightningModule):
    """Keeps a fingerprint of every training batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 1, 1)
        self.seen: list[str] = []
        self.validated = 0

    def training_step(self, batch: TrainBatch, _: int) -> Tensor:
        data = b"".join(t.cpu().numpy().tobytes() for t in batch if t is not None)
        self.seen.append(hashlib.md5(data).hexdigest()[:8])
        return self.layer(batch.lr_B3hw).mean()

    def validation_step(self, batch: ValPicture, _: int) -> None:
        self.validated += len(batch.hr)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


def run(
    root: Path, ckpt: Path | None = None, data: dict[str, Any] | None = None, **trainer: Any
) -> Watcher:
    keep = ModelCheckpoint(root.parent / "ckpt", "{step}", every_n_train_steps=6, save_top_k=-1)
    watcher = Watcher()
    L.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[keep],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **trainer,
    ).fit(
        watcher,
        SRDataModule(
            root,
            root.parent / "valid",
            batch_size=2,
            scale=(2, 4),
            cache_dir=root.parent / "caches",
            **(data or {}),
        ),
        ckpt_path=ckpt,
    )
    return watcher


@pytest.fixture
def checkpoint(folder: Path, valid: Path) -> Path:
    return folder.parent / "ckpt" / "step=6.ckpt"


def test_a_run_in_steps_is_one_epoch_and_resumes_exactly(folder: Path, checkpoint: Path) -> None:
    whole = run(folder, max_steps=10)
    assert len(whole.seen) == len(set(whole.seen)) == 10
    assert whole.validated == 2  # once, at the end
    assert run(folder, max_steps=10).seen == whole.seen
    assert run(folder, checkpoint, max_steps=10).seen == whole.seen[6:]
    assert run(folder, checkpoint, max_steps=13).seen[:4] == whole.seen[6:]


@pytest.mark.filterwarnings("error:.*dataloader is not resumable")
def test_lightning_knows_the_loader_resumes(folder: Path, checkpoint: Path) -> None:
    run(folder, max_steps=8)
    run(folder, checkpoint, max_steps=8)


def test_resumes_with_accumulation_and_validation_on_the_way(
    folder: Path, checkpoint: Path
) -> None:
    how = {"max_steps": 8, "accumulate_grad_batches": 2, "val_check_interval": 4}
    whole = run(folder, **how)
    assert len(whole.seen) == 16
    assert whole.validated == 4 * 2
    assert run(folder, checkpoint, **how).seen == whole.seen[12:]


def test_epochs_are_passes_and_resume_exactly(folder: Path, checkpoint: Path) -> None:
    whole = run(folder, max_epochs=3)
    one_pass = len(whole.seen) // 3
    assert one_pass % 6  # the checkpoint lies amid an epoch
    assert len(set(whole.seen)) == 3 * one_pass
    assert run(folder, checkpoint, max_epochs=3).seen == whole.seen[6:]


def test_resuming_on_other_data_is_said(
    folder: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(folder, max_steps=7)
    assert "Resuming on other data" not in caplog.text
    run(folder, checkpoint, {"seed": 1}, max_steps=7)
    assert "Resuming on other data than before" in caplog.text


def test_worker_processes_give_the_same(folder: Path, checkpoint: Path) -> None:
    """Also after libvips has run in this process, which forked workers must not touch."""
    alone = run(folder, max_steps=3)
    with_workers = run(folder, data={"num_workers": 1}, max_steps=3)
    assert with_workers.seen == alone.seen
    assert with_workers.validated == 2


@pytest.mark.parametrize("mix_scales", [False, True])
def test_pictures_on_the_device_give_the_same(
    folder: Path, checkpoint: Path, mix_scales: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cut = run(folder, data={"on_device": False, "mix_scales": mix_scales}, max_steps=8)
    with caplog.at_level(logging.INFO, "pcsr_lightning.data.picture_buffer"):
        kept = {"on_device": True, "mix_scales": mix_scales, "num_workers": 1}
        assert run(folder, data=kept, max_steps=8).seen == cut.seen
    said = [r.getMessage() for r in caplog.records if r.name.endswith("picture_buffer")]
    assert said == ["Data: 0.0 GB of pictures, kept on cpu"]
    content = torch.load(checkpoint, weights_only=True)
    assert checkpoint.stat().st_size < 50_000  # the pictures are no part of it
    assert content["global_step"] == 6
    assert run(folder, checkpoint, kept, max_steps=8).seen == cut.seen[6:]


def test_pictures_stay_in_the_cache_by_default(folder: Path, valid: Path) -> None:
    data = ready(folder, val_root=valid)
    assert next(iter(data.train_dataloader())).window_B3SS is not None


def test_room_on_a_gpu(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What is said and done where pictures fit and where they do not."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8_000_000_000, 80_000_000_000))
    gpu = torch.device("cuda", 0)
    with caplog.at_level(logging.INFO):
        assert _fits(None, 4_000_000_000, gpu)
        assert not _fits(None, 4_100_000_000, gpu)
        assert _fits(True, 4_100_000_000, gpu)
        assert not _fits(False, 1, gpu)
        assert not _fits(None, 1, torch.device("cpu"))
    assert [record.getMessage() for record in caplog.records] == [
        "Data: 4.0 GB of pictures, kept on cuda:0",
        "Data: 4.1 GB of pictures, more than half of the 8.0 GB free on cuda:0: crops are cut on "
        "the CPU",
        "Data: 4.1 GB of pictures, kept on cuda:0",
    ]
    message = r"data\.on_device=true: .* 9\.0 GB of pictures, and cuda:0 has 8\.0 GB free"
    with pytest.raises(ConfigError, match=message):
        _fits(True, 9_000_000_000, gpu)


def test_a_batch_that_cannot_be_shared_out(folder: Path, valid: Path) -> None:
    data = ready(folder, val_root=valid, batch_size=16)

    class ThreeDevices:
        global_rank, world_size, max_steps, accumulate_grad_batches = 0, 3, 10, 1
        max_epochs = None

    data.trainer = ThreeDevices()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"data\.batch_size=16 .* over 3\. Use a multiple of 3"):
        data.train_dataloader()


# Configurations


@pytest.mark.parametrize(
    ("name", "kind"),
    [("folder", SRDataModule), ("div2k", DIV2KDataModule), ("sample", SampleDataModule)],
)
def test_configurations_build_their_class(name: str, kind: type, tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            overrides=[
                f"+data={name}",
                "+seed=7",
                *([f"data.root={tmp_path}"] if name == "folder" else []),
                "data.scale=[2,4]",
            ]
        )
    data = instantiate(config.data)
    assert type(data) is kind
    assert data.seed == 7
    assert data.scale == (2.0, 4.0)
    assert type(data.degradation) is BicubicDegradation
    defaults = SRDataModule("x")
    assert (data.batch_size, data.stride, data.min_rest, data.downscale_factors) == (
        defaults.batch_size,
        defaults.stride,
        defaults.min_rest,
        defaults.downscale_factors,
    )


class Other(L.LightningDataModule):
    """A data module of a user's own, which knows none of the group's settings."""

    def __init__(self, batches: int = 1) -> None:
        super().__init__()
        self.batches = batches


def test_another_data_module_gets_none_of_the_settings() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=["+data=sample", "+seed=7", "+data.batches=3"])
    config.data._target_ = f"{__name__}.Other"
    made = settings_instantiate(config.data, "data")
    assert isinstance(made, Other)
    assert made.batches == 3


def test_the_sample_is_ready_to_train_on(tmp_path: Path) -> None:
    data = SampleDataModule(cache_dir=tmp_path, downscale_factors=(1.0,))
    data.prepare_data()
    data.setup("fit")
    train, val = sources(data)
    assert (len(train), len(val)) == (6, 2)
    assert data.split is not None
    assert len(data.split.index) > 300


def test_every_sample_picture_has_its_licence() -> None:
    from pcsr_lightning.data import SAMPLE_FOLDER
    from pcsr_lightning.images import list_pictures

    files = list_pictures(SAMPLE_FOLDER)
    text = (SAMPLE_FOLDER / "LICENCES.md").read_text()
    assert all(f"`{f.relative_to(SAMPLE_FOLDER).as_posix()}`" in text for f in files)
    assert sum(f.stat().st_size for f in files) < 2_500_000
