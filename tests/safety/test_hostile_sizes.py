"""Model files that lie about sizes, or grow: refused in one line, no memory or time taken."""

from __future__ import annotations

import copy
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.safety.hostile import (
    HEADERS,
    LARGE,
    refused,
)

from pcsr_lightning.errors import ModelFileError
from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.weights import load, save

pytestmark = pytest.mark.usefixtures("nothing_happens")


# Headers that lie


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
    refused(file, "kind is 'pcsr', 'original'")


# Sizes out of all proportion


@pytest.mark.parametrize("kind", LARGE)
def test_sizes_are_checked_before_memory_is_taken(
    kind: str, file: Path, content: dict[str, Any]
) -> None:
    whole = json.loads(file.with_suffix(".json").read_text())
    network = whole["network"] | copy.deepcopy(LARGE[kind])
    if network["kind"] == "original":
        network = {k: network[k] for k in ("kind", "backbone", "scale", "mean")}
    file.with_suffix(".json").write_text(json.dumps(whole | {"network": network}))
    other = kind in ("a long mean", "original", "free classes")
    says = "" if other else "sizes are not its weights'"
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
