"""Model files made to do harm: refused in one line, nothing run, no memory or time taken."""

from __future__ import annotations

import copy
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pcsr_lightning.errors import ModelFileError
from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.upscale import main as upscale
from pcsr_lightning.weights import load, load_model_file, read_checkpoint, save

MORE_MEMORY = 2**28
"""Bytes that refusing a file may take at most, all of them small."""
SECONDS = 5.0
SMALL = {"name": "fsrcnn", "d": 8, "s": 4, "m": 1}
HARM = "harm-was-done"


@pytest.fixture(autouse=True)
def nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In an empty folder, where every payload here would leave a file."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(HARM).exists()


@pytest.fixture
def model(tmp_path: Path) -> PCSR:
    torch.manual_seed(0)
    built = build_network(
        default_config("fsrcnn", 2) | {"backbone": SMALL, "upsamplers": [[8, 8], [4]]}
    )
    assert isinstance(built, PCSR)
    return built


@pytest.fixture
def file(model: PCSR, tmp_path: Path) -> Path:
    return save(model, tmp_path / "m")


@pytest.fixture
def content(model: PCSR) -> dict[str, Any]:
    """What a stage's checkpoint holds."""
    facts = {"network": model.config(), "stage": "2", "backbone": "fsrcnn", "num_classes": 2}
    state = {f"network.{key}": value for key, value in model.state_dict().items()}
    return {"hyper_parameters": facts, "state_dict": state, "pytorch-lightning_version": "2.6.0"}


def refused(path: str | Path, says: str = "", reader: Callable[[Any], Any] = load) -> str:
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelFileError, match=says or None) as caught:
        reader(path)
    message = str(caught.value)
    assert time.monotonic() - start < SECONDS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (peak - before) * 1024 < MORE_MEMORY
    assert str(path) in message
    assert message.isprintable(), "more than a line, or signs that steer a terminal"
    assert len(message) < 1000
    return message


# Pickles that call something


class Calls:
    """Pickled, it is a call of ``function(*args)``."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


PAYLOADS: dict[str, Callable[[], Any]] = {
    "os.system": lambda: Calls(os.system, (f"touch {HARM}",)),
    "Path.touch": lambda: Calls(Path.touch, (Path(HARM),)),
    "eval": lambda: Calls(eval, (f"open({HARM!r}, 'w')",)),
    "exec": lambda: Calls(exec, (f"open({HARM!r}, 'w')",)),
    "open": lambda: Calls(open, (HARM, "w")),
    "state": lambda: Calls(dict, (), None, None, iter([(1, Calls(os.system, (f"touch {HARM}",)))])),
    "getattr": lambda: Calls(getattr, (Calls(__import__, ("os",)), "system")),
    "torch.load": lambda: Calls(torch.load, ("raw.bin", None, None)),
    "run": lambda: Calls(__import__("subprocess").run, (["touch", HARM],)),
}


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


TARGETS: list[dict[str, Any]] = [
    {"_target_": "os.system", "command": f"touch {HARM}", "_args_": [f"touch {HARM}"]},
    {"_target_": "pathlib.Path.touch", "_args_": [HARM]},
    {"name": "${oc.env:HOME}", "_target_": "builtins.open", "file": HARM, "mode": "w"},
    {"name": "os.system", "class": "os.system"},
    {"name": "harmful", "class": "harmful.Net"},
    {"name": "fsrcnn", "class": "harmful.Net", "d": 8, "s": 4, "m": 1, "_target_": "harmful.Net"},
]


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


# Headers that lie


def safetensors(header: bytes, length: int | None = None, body: bytes = bytes(64)) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def one(**fields: Any) -> bytes:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | fields
    return json.dumps({"mean": entry}).encode()


HEADERS = {
    "2^40": safetensors(one(), 2**40),
    "2^63": safetensors(one(), 2**63),
    "2^64 - 1": safetensors(one(), 2**64 - 1),
    "the file's": safetensors(one(), len(one()) + 65),
    "nothing": b"",
    "seven bytes": bytes(7),
    "zero": safetensors(b""),
    "no JSON": safetensors(b"{" * 100),
    "a list": safetensors(b"[]"),
    "deep": safetensors(b'{"a":' + b"[" * 10**6 + b"]" * 10**6 + b"}"),
    "deep keys": safetensors(b'{"a":' * 10**5 + b"1" + b"}" * 10**5),
    "twice": safetensors(one()[:-1] + b", " + one()[1:]),
    "not UTF-8": safetensors(b'{"\xff\xfe": 1}'),
    "negative": safetensors(one(shape=[-4])),
    "negative offsets": safetensors(one(data_offsets=[-16, 0])),
    "backwards": safetensors(one(data_offsets=[16, 0])),
    "huge": safetensors(one(shape=[2**62, 4])),
    "overflow": safetensors(one(shape=[2**32, 2**32])),
    "beyond": safetensors(one(shape=[2**38], data_offsets=[0, 2**40])),
    "other type": safetensors(one(dtype="Z99")),
    "overlapping": safetensors(
        json.dumps(
            {k: {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]} for k in "ab"}
        ).encode()
    ),
    "holes": safetensors(one(data_offsets=[48, 64])),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_lies(kind: str, file: Path) -> None:
    file.write_bytes(HEADERS[kind])
    says = "cannot be read as safetensors" if kind != "twice" else ""
    refused(file, says)


@pytest.mark.parametrize(
    "text",
    [b"", b"\0", b"\xff\xfe", b"[" * 10**6, b'{"a":' * 10**5, b"1" * 10**6, b"null", b"NaN",
     b'{"format": 1}', b'{"format": 1, "network": ' + b"9" * 10**5 + b"}",
     b'{"format": 1, "network": {"kind": "pcsr", "\\u001b[2J\\n": 1}}'],
    ids=lambda text: f"{len(text)} bytes {text[:12]!r}",
)  # fmt: skip
def test_a_config_that_is_none(text: bytes, file: Path) -> None:
    file.with_suffix(".json").write_bytes(text)
    refused_beside(file)


def refused_beside(file: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        load(file)
    message = str(caught.value)
    assert str(file.with_suffix("")) in message
    assert message.isprintable()
    assert len(message) < 1000


def test_a_key_named_twice_counts_once(file: Path, model: PCSR) -> None:
    beside = file.with_suffix(".json")
    text = beside.read_text().rstrip()[:-1]
    beside.write_text(text + ', "network": {"kind": "os.system"}}')
    refused(file, "kind is 'pcsr' or 'original'")


# Sizes out of all proportion


LARGE: dict[str, dict[str, Any]] = {
    "channels": {"backbone": SMALL | {"d": 10**9}},
    "2^63 channels": {"backbone": SMALL | {"d": 2**63}},
    "10^30 channels": {"backbone": SMALL | {"d": 10**30}},
    "channels that would fit into memory": {"backbone": SMALL | {"d": 20_000, "s": 20_000}},
    "carn": {"backbone": {"name": "carn", "nf": 10**9, "group": 1}},
    "a carn that would fit into memory": {"backbone": {"name": "carn", "nf": 5000, "group": 4}},
    "srresnet blocks": {"backbone": {"name": "srresnet", "nf": 8, "blocks": 10**9}},
    "bsrn blocks": {"backbone": {"name": "bsrn", "nf": 8, "blocks": 10**9}},
    "small blocks": {"backbone": {"name": "srresnet", "nf": 1, "blocks": 10**9}},
    "fsrcnn layers": {"backbone": SMALL | {"m": 10**9}},
    "upsamplers": {"upsamplers": [[]] * 10**5},
    "layers": {"upsamplers": [[4] * 10**5, [4]]},
    "wide layers": {"upsamplers": [[10**5, 10**5], [4]]},
    "a wide classifier": {"classifier": [10**9, 10**9]},
    "a long mean": {"mean": [0.5] * 10**5},
    "original": {"kind": "original", "scale": 10**9},
}


@pytest.mark.parametrize("kind", LARGE)
def test_sizes_are_checked_before_memory_is_taken(
    kind: str, file: Path, content: dict[str, Any]
) -> None:
    whole = json.loads(file.with_suffix(".json").read_text())
    network = whole["network"] | copy.deepcopy(LARGE[kind])
    if network["kind"] == "original":
        network = {k: network[k] for k in ("kind", "backbone", "scale", "mean")}
    file.with_suffix(".json").write_text(json.dumps(whole | {"network": network}))
    says = "" if kind in ("a long mean", "original") else "sizes are not its weights'"
    refused(file, says)
    content["hyper_parameters"]["network"] = network
    torch.save(content, "x.ckpt")
    refused("x.ckpt", says)


@pytest.mark.parametrize("m", [-1, 1.0, True, "1", None, [1], float("inf")], ids=repr)
def test_sizes_that_are_none(m: Any, file: Path) -> None:
    whole = json.loads(file.with_suffix(".json").read_text())
    whole["network"]["backbone"]["m"] = m
    file.with_suffix(".json").write_text(json.dumps(whole))
    refused(file, "m must be a whole number")


def test_an_ordinary_network_is_not_in_the_way(tmp_path: Path) -> None:
    for backbone, original in (("carn", False), ("fsrcnn", False), ("bsrn", True)):
        model = build_network(default_config(backbone, 2, original))
        assert load(save(model, tmp_path / backbone, half=True)).config() == model.config()


# Checkpoints that grow


def test_checkpoints_that_grow(content: dict[str, Any]) -> None:
    with zipfile.ZipFile("bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        with archive.open("archive/data/0", "w") as part:
            for _ in range(256):
                part.write(bytes(2**20))
    refused("bomb.ckpt", "is compressed")
    state = content["state_dict"]
    for name, large in {"dense": torch.ones(1).expand(10**10), "none": torch.ones(0)}.items():
        content["state_dict"] = state | {"network.mean": large}
        torch.save(content, f"{name}.ckpt")
        refused(f"{name}.ckpt", "claim" if name == "dense" else "size mismatch")
    call = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + struct.pack("<Q", 2**32)[:5] + b"\x85R."
    Path("call.ckpt").write_bytes(call)
    refused("call.ckpt", "bytearray")
    preamble = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    Path("call.ckpt").write_bytes(b"".join(pickle.dumps(x, 2) for x in preamble) + call)
    refused("call.ckpt", "bytearray")
    for claim in (b"X\xff\xff\xff\xff", b"\x8b\xff\xff\xff\x7f", b"}r\xff\xff\xff\xff"):
        Path("claim.ckpt").write_bytes(b"\x80\x02" + claim + b"xx.")
        refused("claim.ckpt")


@pytest.mark.parametrize(
    "change",
    [
        {"state_dict": {1: torch.ones(1)}},
        {"state_dict": {"network.mean": "abc"}},
        {"state_dict": [1, 2]},
        {"state_dict": {"network.mean": torch.ones(3).to_sparse()}},
        {"hyper_parameters": {}},
        {"hyper_parameters": [("network", 1)]},
        {"hyper_parameters": {"network": "x" * 10**6, "stage": 1, "backbone": 1, "num_classes": 1}},
    ],
    ids=lambda change: str(change)[:50],
)
def test_checkpoints_of_another_make(change: dict[str, Any], content: dict[str, Any]) -> None:
    torch.save(content | change, "x.ckpt")
    refused("x.ckpt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["mean", "backbone.head.0.weight", "upsamplers.1.project.bias"])
def test_weights_that_are_no_numbers(
    name: str, value: float, file: Path, content: dict[str, Any]
) -> None:
    tensors = load_file(file)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, file)
    refused(file, f"{name} holds NaN or infinite")
    content["state_dict"][f"network.{name}"].view(-1)[0] = value
    torch.save(content, "x.ckpt")
    refused("x.ckpt", f"{name} holds NaN or infinite")
    # Numbers of more bits than the network's may become infinite on the way.
    tensors[name] = tensors[name].double().fill_(1e300)
    save_file(tensors, file)
    refused(file, f"{name} holds NaN or infinite")


# Paths that are no files


def test_paths_that_are_no_files(file: Path) -> None:
    for suffix in (".safetensors", ".ckpt", ".pth"):
        pipe, loop, folder, empty = (f"{what}{suffix}" for what in ("pipe", "loop", "dir", "empty"))
        os.mkfifo(pipe)
        refused(pipe, "pipe, socket or device")
        refused(Path(pipe), "pipe, socket or device", load_model_file)
        Path(loop).symlink_to(loop)
        refused(loop, "symbolic links")
        refused(Path(loop), "symbolic links", load_model_file)
        Path(folder).mkdir()
        refused(folder, "a folder without")
        refused(Path(folder), "folder", load_model_file)
        Path(empty).touch()
        if suffix == ".safetensors":
            Path("empty.json").write_bytes(file.with_suffix(".json").read_bytes())
        refused(empty, "cannot be read as")
        refused(f"missing{suffix}", "no such file")
    refused("/dev/zero", "pipe, socket or device")
    refused("~there-is-no-such-user/m.pth", "home directory")
    refused("x" * 300, "too long")
    with pytest.raises(ModelFileError, match="null byte"):
        load("a\0b")
    with pytest.raises(ModelFileError, match="pipe, socket or device"):
        read_checkpoint(Path("pipe.ckpt"))


def test_a_config_that_never_ends(file: Path) -> None:
    beside = file.with_suffix(".json")
    beside.unlink()
    os.mkfifo(beside)
    with pytest.raises(ModelFileError, match="pipe, socket or device"):
        load(file)
    for target in ("/dev/zero", beside.name):
        beside.unlink()
        beside.symlink_to(target)
        with pytest.raises(ModelFileError, match=r"pipe, socket or device|symbolic links"):
            load(file)
    beside.unlink()
    with beside.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(ModelFileError, match="too large for an architecture"):
        load(file)
    beside.unlink()
    beside.touch()
    with pytest.raises(ModelFileError, match="cannot be read as JSON"):
        load(file)


# Through the commands


def hostile(file: Path, content: dict[str, Any]) -> dict[str, Path]:
    """One of each kind."""
    made = {name: Path(f"{name}.ckpt") for name in ("pickle", "target", "large", "pipe", "loop")}
    torch.save(content | {"callbacks": PAYLOADS["os.system"]()}, made["pickle"])
    facts, network = content["hyper_parameters"], content["hyper_parameters"]["network"]
    for name, backbone in (("target", TARGETS[0]), ("large", LARGE["channels"]["backbone"])):
        changed = facts | {"network": network | {"backbone": backbone}}
        torch.save(content | {"hyper_parameters": changed}, made[name])
    os.mkfifo(made["pipe"])
    made["loop"].symlink_to(made["loop"])
    made["published"] = Path("published.pth")
    torch.save({"model": PAYLOADS["eval"]()}, made["published"])
    made["header"] = file
    file.write_bytes(HEADERS["2^40"])
    return made


def test_upscale_with_hostile_models(
    file: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (4, 4)).save("in.png")
    for path in hostile(file, content).values():
        start = time.monotonic()
        assert upscale(["in.png", "out.png", "--model", str(path)]) == 1
        told = capsys.readouterr()
        assert told.out == ""
        [line] = told.err.splitlines()
        assert line.startswith("error: ")
        assert path.name in line
        assert time.monotonic() - start < SECONDS
        assert not Path("out.png").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "data.root=.", "model={}"),
        pytest.param(
            (
                "train",
                "data=folder",
                "data.root=.",
                "trainer.accelerator=cpu",
                "stage=2",
                "init={}",
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("train", "data=folder", "data.root=.", "trainer.accelerator=cpu", "ckpt_path={}"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda words: words[0] + words[-1],
)
def test_hydra_doors_with_hostile_models(words: tuple[str, ...], content: dict[str, Any]) -> None:
    Image.new("RGB", (96, 96)).save("in.png")
    torch.save(content | {"callbacks": PAYLOADS["os.system"]()}, "pickle.ckpt")
    done = subprocess.run(
        [sys.executable, "-m", f"pcsr_lightning.{words[0]}", "threads=1"]
        + [word.format("pickle.ckpt") for word in words[1:]],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "pickle.ckpt: holds objects other than weights" in done.stderr.splitlines()[-1]
