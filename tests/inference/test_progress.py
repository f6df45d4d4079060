"""The progress callback: what it is told, and that what it raises ends the work."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import pcsr_lightning
from pcsr_lightning.networks import PCSR, build_network, default_config

MakeNetwork = Callable[..., PCSR]


@pytest.mark.parametrize(
    ("options", "strips"),
    [
        ({}, 5),
        ({"fixed_class": 1}, 5),
        ({"adaptive": True}, 10),
        ({"budget": 0.5}, 10),
        ({"adaptive": True, "max_memory": 1}, 36),
    ],
)
def test_rises_to_one(make_network: MakeNetwork, options: dict[str, Any], strips: int) -> None:
    model, lr = make_network(), torch.rand(1, 3, 18, 9)
    told: list[float] = []
    rows = {} if "max_memory" in options else {"tile_rows": 4}
    result = pcsr_lightning.upscale(model, lr, 2, progress=told.append, **rows, **options)
    assert told == pytest.approx([(i + 1) / strips for i in range(strips)], abs=0.1)
    assert told[-1] == 1.0
    assert all(a < b for a, b in itertools.pairwise(told))
    silent = pcsr_lightning.upscale(model, lr, 2, **rows, **options)
    assert torch.equal(result.image, silent.image)


def test_over_a_batch_of_large_pictures(make_network: MakeNetwork) -> None:
    told: list[float] = []
    lr = torch.rand(3, 3, 170, 100)  # too large to go together
    pcsr_lightning.upscale(make_network(), lr, 1, progress=told.append)
    assert told[-1] == 1.0
    assert sorted(set(told)) == told
    assert any(abs(part - 1 / 3) < 1e-9 for part in told)


def test_original_models(make_network: MakeNetwork) -> None:
    model = build_network(default_config("fsrcnn", original=True) | {"scale": 3})
    told: list[float] = []
    lr = torch.rand(1, 3, 18, 9)
    pcsr_lightning.upscale(model.eval(), lr, 3, tile_rows=4, progress=told.append)  # type: ignore[arg-type]
    assert told[-1] == 1.0
    assert len(told) > 2
    assert sorted(set(told)) == told


class Enough(Exception):
    pass


@pytest.mark.parametrize(
    "error", [Enough, KeyboardInterrupt, RuntimeError("not enough memory"), MemoryError]
)
@pytest.mark.parametrize("adaptive", [False, True])
def test_what_it_raises_comes_out_at_once(
    make_network: MakeNetwork, error: type[BaseException] | BaseException, adaptive: bool
) -> None:
    """Errors that look like a lack of memory too: the strip must not be done again."""
    told: list[float] = []

    def stop(part: float) -> None:
        told.append(part)
        if len(told) == 2:
            raise error

    model, lr = make_network(), torch.rand(1, 3, 18, 9)
    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind):
        pcsr_lightning.upscale(model, lr, 2, adaptive=adaptive, tile_rows=4, progress=stop)
    assert len(told) == 2
    # Nothing of it lingers.
    again = pcsr_lightning.upscale(model, lr, 2, adaptive=adaptive, tile_rows=4)
    assert torch.equal(again.image, pcsr_lightning.upscale(model, lr, 2, adaptive=adaptive).image)
