"""What is put into model files to do harm, and how they are to be refused."""

from __future__ import annotations

import json
import os
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import SMALL_BACKBONES

from pcsr_lightning.errors import ModelFileError
from pcsr_lightning.weights import load

MORE_MEMORY = 2**28
"""Bytes that refusing a file may take at most, all of them small."""
SECONDS = 5.0
SMALL = SMALL_BACKBONES["fsrcnn"]
HARM = "harm-was-done"


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


TARGETS: list[dict[str, Any]] = [
    {"_target_": "os.system", "command": f"touch {HARM}", "_args_": [f"touch {HARM}"]},
    {"_target_": "pathlib.Path.touch", "_args_": [HARM]},
    {"name": "${oc.env:HOME}", "_target_": "builtins.open", "file": HARM, "mode": "w"},
    {"name": "os.system", "class": "os.system"},
    {"name": "harmful", "class": "harmful.Net"},
    {"name": "fsrcnn", "class": "harmful.Net", "d": 8, "s": 4, "m": 1, "_target_": "harmful.Net"},
]


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
    "upsamplers": {"upsamplers": [[1]] * 10**5},
    "free classes": {"upsamplers": [[]] * 10**5},
    "layers": {"upsamplers": [[4] * 10**5, [4]]},
    "wide layers": {"upsamplers": [[10**5, 10**5], [4]]},
    "a wide classifier": {"classifier": [10**9, 10**9]},
    "a long mean": {"mean": [0.5] * 10**5},
    "original": {"kind": "original", "scale": 10**9},
}
