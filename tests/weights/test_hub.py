"""Folders of ``save_pretrained``: what is written is what is read, without a connection."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard

import pcsr_lightning
from pcsr_lightning.errors import ConfigError, ModelFileError
from pcsr_lightning.networks import PCSR, Original, build_network, default_config
from pcsr_lightning.weights import from_pretrained, load_model_file, save, save_pretrained

NETWORKS = {
    "fsrcnn M=2": default_config("fsrcnn", 2),
    "carn M=3": default_config("carn", 3),
    "original fsrcnn": default_config("fsrcnn", original=True),
    "original srresnet": default_config("srresnet", original=True),
}


def network(which: str = "fsrcnn M=2") -> PCSR | Original:
    """With every parameter and buffer away from its first value."""
    torch.manual_seed(0)
    model = build_network(NETWORKS[which])
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.01 * torch.rand_like(tensor)
    return model


def assert_same(found: PCSR | Original, wanted: PCSR | Original) -> None:
    assert type(found) is type(wanted)
    assert not found.training
    state, again = wanted.state_dict(), found.state_dict()
    assert list(again) == list(state)
    for name, tensor in state.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor), name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("which", NETWORKS)
def test_round_trip_bit_for_bit(tmp_path: Path, which: str) -> None:
    model = network(which)
    place = tmp_path / "a" / "b"
    assert model.save_pretrained(place) is None
    assert {p.name for p in place.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    for found in (
        type(model).from_pretrained(place),
        type(model).from_pretrained(str(place)),
        from_pretrained(place),
        pcsr_lightning.load(place),
        pcsr_lightning.load(place / "model.safetensors"),
    ):
        assert_same(found, model)
        # The mean is kept to six digits there, in full among the tensors.
        assert found.config() == model.config()
    save_pretrained(from_pretrained(place), tmp_path / "again")
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (place / name).read_bytes()


def test_saving_again_replaces_the_weights_and_keeps_the_card(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    other = network("original fsrcnn")
    other.save_pretrained(folder)
    assert_same(Original.from_pretrained(folder), other)
    assert (folder / "README.md").read_text() == "mine"


def test_a_run_folder_is_read_and_never_written(tmp_path: Path) -> None:
    model = network()
    save(model, tmp_path / "model", {"psnr": 25.0})
    assert_same(PCSR.from_pretrained(tmp_path), model)
    with pytest.raises(ModelFileError, match=r"already holds a model\.json"):
        network("carn M=3").save_pretrained(tmp_path)
    assert_same(PCSR.from_pretrained(tmp_path), model)
    assert load_model_file(tmp_path / "model.safetensors")[1] == {"psnr": 25.0}


def test_a_folder_with_half_precision_weights_is_read_as_float32(folder: Path) -> None:
    save(network(), folder / "half", half=True)
    (folder / "half.safetensors").replace(folder / "model.safetensors")
    dtypes = {p.dtype for p in PCSR.from_pretrained(folder).state_dict().values()}
    assert dtypes == {torch.float32}


def test_the_card_names_library_and_architecture(folder: Path) -> None:
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "pcsr_lightning"
    assert card.data.pipeline_tag == "image-to-image"
    assert set(card.data.tags or []) == {"pcsr", "super-resolution"}
    assert "PCSR on fsrcnn" in card.text
    assert "24,502" in card.text
    assert json.dumps(network().config()) in card.text


_OFFLINE = """
import os
import sys

# Not all of `socket`: older clients bind a local one at import to see whether there is IPv6.
TALK = {"connect", "getaddrinfo", "gethostbyname", "sendto", "sendmsg"}

def no_connection(event, args):
    if event.startswith("socket.") and event.removeprefix("socket.") in TALK:
        sys.stderr.write(f"{event} {args}\\n")
        raise SystemExit(3)

sys.addaudithook(no_connection)
import pcsr_lightning
from pcsr_lightning.weights import PCSR
folder = sys.argv[1]
model = PCSR.from_pretrained(folder)
model.save_pretrained(folder + "-again")
pcsr_lightning.load(folder + "-again")
assert "huggingface_hub" not in sys.modules
assert not os.path.exists(os.environ["HF_HOME"])
print("nothing asked so far", flush=True)
PCSR.from_pretrained("somebody/something")
"""


def test_no_connection_for_a_local_folder(folder: Path, tmp_path: Path) -> None:
    unset = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
    env = {k: v for k, v in os.environ.items() if k not in unset}
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, str(folder)],
        capture_output=True, text=True, env={**env, "HF_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.stdout == "nothing asked so far\n", done.stderr
    # The hook does see a connection where there is one.
    assert (done.returncode, done.stderr[:7]) == (3, "socket."), done.stderr


def test_a_name_on_the_hub_is_found_in_the_cache(folder: Path, tmp_path: Path) -> None:
    cached = tmp_path / "cache" / "models--somebody--something"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    shutil.copytree(folder, cached / "snapshots" / commit)
    options: dict[str, Any] = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    assert_same(PCSR.from_pretrained("somebody/something", **options), network())
    with pytest.raises(
        ModelFileError, match="somebody/else: no such file or folder here, and no such"
    ) as e:
        PCSR.from_pretrained("somebody/else", **options)
    assert "\n" not in str(e.value)
    with pytest.raises(ModelFileError, match="no such folder"):
        PCSR.from_pretrained(Path("somebody/something"), **options)


def test_load_takes_a_name_on_the_hub(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def downloaded(repo_id: str, **options: Any) -> str:
        asked.append(repo_id)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", downloaded)
    monkeypatch.chdir(tmp_path)
    assert_same(pcsr_lightning.load("somebody/something"), network())
    # What is here, a file's name and a path are never looked up.
    Path("somebody").mkdir()
    folder.rename("somebody/here")
    assert_same(pcsr_lightning.load("somebody/here"), network())
    for name in (
        "somebody/gone.safetensors",
        "somebody/gone.ckpt",
        Path("somebody/something"),
        "somebody/gone",
    ):
        with pytest.raises(ModelFileError, match="no such file exists"):
            pcsr_lightning.load(name)
    assert asked == ["somebody/something"]


def test_publishing_creates_the_repository_and_uploads_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []

    def create_repo(self: HfApi, repo_id: str, *, private: bool | None, exist_ok: bool) -> Any:
        done.append((self.token, repo_id, private, exist_ok))
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def upload_folder(self: HfApi, *, folder_path: str, **options: Any) -> str:
        done.append(options)
        assert_same(from_pretrained(folder_path), network())
        assert "PCSR on fsrcnn" in Path(folder_path, "README.md").read_text()
        return "https://hub/commit"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    assert network().push_to_hub("mine", token="secret", branch="next") == "https://hub/commit"
    assert done[0] == ("secret", "mine", None, True)
    assert (done[1]["repo_id"], done[1]["revision"]) == ("me/mine", "next")
    place = tmp_path / "named"
    commit = network().save_pretrained(place, push_to_hub=True, private=True)
    assert (commit, done[2]) == ("https://hub/commit", (None, "named", True, True))
    assert_same(from_pretrained(place), network())


def test_missing_folders_and_files_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    # The last looks like a name on the Hub, but is a file here.
    for place in (tmp_path / "nowhere", str(tmp_path / "nowhere"), "nowhere", "saved/README.md"):
        with pytest.raises(ModelFileError, match="no such folder; expected one") as caught:
            PCSR.from_pretrained(place)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelFileError, match="nowhere"):
        pcsr_lightning.load(tmp_path / "nowhere")
    (folder / "config.json").rename(tmp_path / "config.json")
    for read in (PCSR.from_pretrained, pcsr_lightning.load):
        with pytest.raises(ModelFileError, match=r"expected in model\.json or config\.json"):
            read(folder)
    (tmp_path / "config.json").rename(folder / "config.json")
    (folder / "model.safetensors").unlink()
    for read in (PCSR.from_pretrained, pcsr_lightning.load):
        with pytest.raises(ModelFileError, match=r"without model\.safetensors"):
            read(folder)


def test_the_wrong_class_is_named(folder: Path) -> None:
    with pytest.raises(ModelFileError, match=r"holds PCSR, not Original; use PCSR\.from_pre"):
        Original.from_pretrained(folder)


def changed(**values: Any) -> str:
    content = {"format": 1, "network": {**default_config("fsrcnn", 2), **values}}
    return json.dumps(content)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"pcsr"',
        "[" * 100_000,
        '{"format": ' + "9" * 5000 + "}",
        '{"format": 2, "network": {}}',
        '{"format": 1}',
        '{"format": 1, "network": []}',
        '{"format": 1, "network": {"kind": "pcsr"}}',
        json.dumps({"backbone": "carn", "upsamplers": [], "mean": 0}),
        changed(kind=["pcsr"]),
        changed(kind="Original"),
        changed(_target_="os.system"),
        changed(backbone="fsrcnn"),
        changed(backbone=None),
        changed(backbone={"name": ["fsrcnn"]}),
        changed(backbone={"name": "os.system", "command": "true"}),
        changed(backbone={"name": "fsrcnn", "d": "48", "s": 12, "m": 4}),
        changed(backbone={"name": "fsrcnn", "d": 0, "s": 12, "m": 4}),
        changed(backbone={"name": "fsrcnn", "d": -1, "s": 12, "m": 4}),
        changed(backbone={"name": "fsrcnn", "d": 10**30, "s": 12, "m": 4}),
        changed(backbone={"name": "carn", "nf": 52, "group": 0}),
        changed(backbone={"name": "fsrcnn", "d": 48, "s": 12, "m": 4, "m2": 1}),
        changed(upsamplers=None),
        changed(upsamplers=[]),
        changed(upsamplers=2),
        changed(upsamplers=[[0.5], [1]]),
        changed(upsamplers=[["__import__('os')"], [1]]),
        changed(upsamplers=[[10**12, 10**12], [1]]),
        changed(classifier="()"),
        changed(mean=None),
        changed(mean="abc"),
        changed(mean=[[0.0], [0.0], [0.0]]),
        changed(mean=[0.0]),
        changed(mean=[10**400, 0, 0]),
    ],
    ids=lambda text: text[:70],
)
def test_a_malformed_config_is_refused_in_one_line(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    for read in (PCSR.from_pretrained, pcsr_lightning.load):
        with pytest.raises(ModelFileError, match="saved") as caught:
            read(folder)
        assert "\n" not in str(caught.value)


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm-was-done"),))


def test_nothing_is_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ModelFileError, match="cannot be read as safetensors"):
        PCSR.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.pt"):
        torch.save(Harm(), folder / name)
    with pytest.raises(ModelFileError, match=r"without model\.safetensors"):
        PCSR.from_pretrained(folder)
    assert not Path("harm-was-done").exists()


def test_arguments_are_not_swallowed(folder: Path, tmp_path: Path) -> None:
    model = network()
    with pytest.raises(TypeError, match="unexpected keyword argument 'scale'"):
        PCSR.from_pretrained(folder, scale=2)
    with pytest.raises(ConfigError, match="takes config only together with push_to_hub"):
        model.save_pretrained(tmp_path / "new", config={"psnr": 1})
    with pytest.raises(ConfigError, match="private, repo_id only together with push_to_hub"):
        model.save_pretrained(tmp_path / "new", repo_id="a/b", private=True)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ModelFileError, match="a file; save_pretrained writes to a folder"):
        model.save_pretrained(folder / "README.md")
