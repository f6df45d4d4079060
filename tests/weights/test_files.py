"""Model files: what is written is what is read, and nothing else is believed."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import ModelFileError
from pcsr_lightning.images import read_rgb8
from pcsr_lightning.inference import upscale
from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.weights import find_model, list_models, load, load_model_file, save
from pcsr_lightning.weights.files import stored


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save(build_network(default_config("fsrcnn")), tmp_path / "m", {"psnr": 25.0})


@pytest.mark.parametrize(("backbone", "original"), [("carn", False), ("carn", True)])
def test_a_saved_model_comes_back_bit_for_bit(
    tmp_path: Path, backbone: str, original: bool
) -> None:
    model = build_network(default_config(backbone, original=original))
    path = save(model, tmp_path / "some.model")
    assert path.name == "some.model.safetensors"
    again = load(path)
    assert not again.training
    assert again.config() == model.config()
    state = again.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


@pytest.mark.parametrize(
    ("backbone", "classes", "original"),
    [("fsrcnn", 2, False), ("carn", 3, False), ("bsrn", 2, True)],
)
def test_half_precision_halves_the_file_and_loads_as_float32(
    tmp_path: Path, backbone: str, classes: int, original: bool
) -> None:
    model = build_network(default_config(backbone, classes, original))
    full, half = save(model, tmp_path / "full"), save(model, tmp_path / "half", half=True)
    assert 0.45 < half.stat().st_size / full.stat().st_size < 0.58
    assert full.with_suffix(".json").read_bytes() == half.with_suffix(".json").read_bytes()
    inside, again = load_file(half), load(half).state_dict()
    for name, tensor in model.state_dict().items():
        assert again[name].dtype == tensor.dtype
        if tensor.ndim < 2:
            assert inside[name].dtype == tensor.dtype
            assert torch.equal(again[name], tensor)
        else:
            assert inside[name].dtype == torch.float16
            assert torch.equal(again[name], tensor.half().float())
    # Stored once more, nothing changes.
    assert save(load(half), tmp_path / "more", half=True).read_bytes() == half.read_bytes()


def test_half_precision_does_not_show(tmp_path: Path) -> None:
    model = load("fsrcnn-pcsr-x4")
    assert isinstance(model, PCSR)
    torch.manual_seed(0)
    with torch.no_grad():
        # The released weights may be stored in half precision already: away from its numbers.
        for parameter in model.parameters():
            parameter.mul_(1 + 1e-3 * torch.rand_like(parameter))
    again = load(save(model, tmp_path / "half", half=True))
    path = sorted((SAMPLE_FOLDER / "valid").iterdir())[0]
    lr = read_rgb8(path)[None, :, :64, :80] / 255
    # Refinement would show a neighbour's change of class in pixels that keep theirs.
    wanted, found = (upscale(m, lr, 4, k=0.0, refine=False) for m in (model, again))
    off = (wanted.image - found.image).abs()
    # A pixel on the edge between two classes may change sides, and then changes by more.
    same = (wanted.assignment == found.assignment).expand_as(off)
    assert same.double().mean() > 0.995
    assert 0 < off[same].max() < 1e-3
    assert off.square().mean().sqrt() < 2e-4


def test_what_half_precision_cannot_hold_stays_as_it_is() -> None:
    plain = torch.linspace(-2, 2, 24).reshape(4, 6)
    assert stored(plain).dtype == torch.float16
    assert stored(torch.zeros(2, 3)).dtype == torch.float16
    assert stored(torch.empty(0, 3)).dtype == torch.float16
    assert stored(plain.reshape(4, 3, 2, 1)).dtype == torch.float16
    for row in (7e4, 1e39, 3e-6, 1e-9, float("inf"), float("nan")):
        odd = plain.clone()
        odd[2] *= row
        assert stored(odd) is odd
    for other in (plain[0], plain.bfloat16(), plain.int(), torch.tensor(1.0)):
        assert stored(other) is other


@given(st.integers(0, 2**31), st.floats(-9, 6))
def test_stored_loses_at_most_half_a_unit(seed: int, exponent: float) -> None:
    tensor = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)) * 10**exponent
    kept = stored(tensor)
    if kept.dtype == torch.float16:
        moved = (kept.double() - tensor.double()).norm(dim=1)
        assert bool((moved <= 2**-11 * tensor.double().norm(dim=1)).all())
    else:
        assert kept is tensor
        assert tensor.abs().max() > 65504 or tensor.abs().min() < 2**-14


def test_facts_are_kept(model_file: Path) -> None:
    assert load_model_file(model_file)[1] == {"psnr": 25.0}


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(ModelFileError, match="no model is called 'nonsense'"):
        load("nonsense")
    for name in list_models():
        assert find_model(name).is_file()


def test_a_missing_or_damaged_architecture_is_named(model_file: Path) -> None:
    config = model_file.with_suffix(".json")
    text = config.read_text()
    config.unlink()
    with pytest.raises(ModelFileError, match=r"m\.json beside it"):
        load(model_file)
    for broken in ("", "[]", "{", json.dumps({"format": 99}), json.dumps({"format": 1})):
        config.write_text(broken)
        with pytest.raises(ModelFileError, match="m\\."):
            load(model_file)
    content = json.loads(text)
    content["network"]["upsamplers"][0] = [7, 7]
    config.write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match="do not fit"):
        load(model_file)
    content["network"]["_target_"] = "os.system"
    config.write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match="_target_"):
        load(model_file)


def test_damaged_weights_are_named(model_file: Path) -> None:
    whole = model_file.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"\xff" * 64):
        model_file.write_bytes(broken)
        with pytest.raises(ModelFileError, match="cannot be read as safetensors"):
            load(model_file)


def test_nan_weights_are_refused(model_file: Path) -> None:
    tensors = load_file(model_file)
    tensors["backbone.head.0.weight"][0, 0, 0, 0] = float("nan")
    save_file(tensors, model_file)
    with pytest.raises(ModelFileError, match=r"backbone\.head\.0\.weight holds NaN"):
        load(model_file)


def test_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ModelFileError, match="not a checkpoint of a pcsr_lightning stage"):
        load(tmp_path / "foreign.ckpt")
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(ModelFileError, match=r"expected a \.safetensors"):
        load(tmp_path / "text.txt")
    with pytest.raises(ModelFileError, match="run folder"):
        load(tmp_path)
