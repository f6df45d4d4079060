"""Whether the released models still give the same results, to the last bit.

Every released model, ten pictures, every routing, several precisions, scales and strip heights: a
digest of each result's pixels and classes, and its cost. Write them with one checkout, compare with
another on the same machine (another processor may round differently):

    python benchmarks/output_digests.py before.json
    python benchmarks/output_digests.py after.json --against before.json
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.data import SAMPLE_FOLDER

PICTURES = 10
FIXED = (
    "fixed_class"
    if "fixed_class" in inspect.signature(pcsr_lightning.upscale).parameters
    else "only"
)
ROUTINGS: list[dict[str, Any]] = [
    {},
    {"k": -0.5},
    {"k": 0.3, "refine": False},
    {"k": 0.1, "cost": "proportional"},
    {"adaptive": True},
    {"budget": 0.6},
    {"budget": 1.0},
    {FIXED: 0},
    {FIXED: 1},
]
"""What PCSR models are asked for; a model of three classes is also asked for its third."""


def pictures() -> list[Tensor]:
    """Ten crops ``(1, 3, h, w)`` in [0, 1] of odd sizes from the shipped photographs."""
    from PIL import Image

    files = sorted(p for p in Path(SAMPLE_FOLDER).rglob("*") if p.suffix in (".png", ".jpg"))
    crops = []
    for i in range(PICTURES):
        with Image.open(files[i % len(files)]) as image:
            h, w = 41 + 7 * i, 97 - 5 * i
            top, left = (13 * i) % (image.height - h), (29 * i) % (image.width - w)
            data = image.convert("RGB").crop((left, top, left + w, top + h)).tobytes()
        rgb = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(h, w, 3)
        crops.append(rgb.permute(2, 0, 1)[None].float() / 255)
    return crops


def cases(model: Any) -> Iterator[dict[str, Any]]:
    """The options of each call, the scale included."""
    own = getattr(model, "scale", None)
    if own is not None:  # an original model has one scale and one class
        yield from ({"scale": own}, {"scale": own, "bits": 8}, {"scale": own, "tile_rows": 9})
        return
    routings = [*ROUTINGS, *({FIXED: j} for j in range(2, model.num_classes))]
    for routing in routings:
        yield {"scale": 4, **routing}
        yield {"scale": 4, "tile_rows": 7, "bits": 8, **routing}
        yield {"scale": 4, "max_memory": 2**20, "bits": 16, **routing}
        yield {"scale": 2.3, **routing}
    yield {"scale": (3, 1.5), "adaptive": True}
    yield {"size": (150, 170), "budget": 0.5}


def digest(result: Any) -> list[Any]:
    """A result as few characters."""
    parts = [
        hashlib.sha256(t.contiguous().numpy().tobytes()) for t in (result.image, result.assignment)
    ]
    return [p.hexdigest()[:16] for p in parts] + [result.flops.gmacs, result.flops.gflops_published]


def normalised(item: tuple[str, list[Any]]) -> tuple[str, list[Any]]:
    """A result's key with its options sorted, whichever name a fixed class had."""
    (model, picture, options), found = item[0].split(" | "), item[1]
    return " | ".join([model, picture, json.dumps(json.loads(options), sort_keys=True)]), found


def main() -> int:
    """Runs everything; 1 where a result differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path, help="what another checkout wrote")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[Any]] = {}
    crops = pictures()
    for name in pcsr_lightning.list_models():
        model = pcsr_lightning.load(name)
        for i, lr in enumerate(crops):
            for options in cases(model):
                named = {key.replace("only", "fixed_class"): v for key, v in options.items()}
                key = f"{name} | picture {i} | {json.dumps(named, sort_keys=True)}"
                found[key] = digest(pcsr_lightning.upscale(model, lr, **options))
        print(f"{name}: {len(found)} results so far", flush=True)
    args.out.write_text(json.dumps(found, indent=0, sort_keys=True))
    if args.against is None:
        return 0
    before = dict(map(normalised, json.loads(args.against.read_text()).items()))
    wrong = [key for key in sorted({*before, *found}) if before.get(key) != found.get(key)]
    print(f"{len(found)} results, {len(wrong)} differ", *wrong[:20], sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
