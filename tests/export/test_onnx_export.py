"""ONNX files do in onnxruntime what the library does, on pictures of any size and at any k."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import pcsr_lightning
from pcsr_lightning import images
from pcsr_lightning.data.sample_pictures import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError, ModelFileError, PCSRError
from pcsr_lightning.export.onnx_export import export_onnx
from pcsr_lightning.inference import upscale
from pcsr_lightning.networks import PCSR, Original, build_network, default_config

MakeNetwork = Callable[..., PCSR]
SIZES = [(1, 1), (3, 5), (2, 33), (37, 52), (61, 40)]


@dataclass(frozen=True)
class Exported:
    model: PCSR | Original
    path: Path
    scale: int
    options: dict[str, Any]

    def run(self, lr_13hw: Tensor, k: float | None) -> tuple[Tensor, Tensor]:
        session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        feed = {"image": lr_13hw.numpy()}
        if k is not None:
            feed["k"] = np.array(k, np.float32)
        enlarged, classes = session.run(["enlarged", "classes"], feed)
        return torch.from_numpy(enlarged), torch.from_numpy(classes)

    def agrees(self, lr_13hw: Tensor, k: float | None = None) -> tuple[float, ...]:
        """Compares with the library; returns the share of each class."""
        enlarged, classes = self.run(lr_13hw, k)
        expected = upscale(self.model, lr_13hw, self.scale, k or 0.0, **self.options)
        assert enlarged.shape == expected.image.shape
        assert (classes.dtype, enlarged.dtype) == (torch.uint8, torch.float32)
        assert classes.shape == expected.assignment.shape
        other = classes != expected.assignment
        assert other.double().mean() <= 0.0005
        H, W = other.shape[1:]
        safe = torch.ones(H, W, dtype=torch.bool)
        for _, i, j in other.nonzero().tolist():
            safe[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2] = False
        apart = (enlarged - expected.image).abs().amax(dim=(0, 1))
        assert apart[safe].max() <= 1e-5
        return expected.shares


def build(make_network: MakeNetwork, name: str) -> tuple[PCSR | Original, int, dict[str, Any]]:
    """The model, the scale and the options of a case."""
    torch.manual_seed(1)
    match name:
        case "released":
            return pcsr_lightning.load("fsrcnn-pcsr-x4"), 4, {}
        case "carn, 3 classes":
            return make_network("carn", 3), 4, {}
        case "x3, proportional, no refinement":
            return make_network("fsrcnn", 2), 3, {"cost": "proportional", "refine": False}
        case "x2":
            return make_network("fsrcnn", 2), 2, {}
        case "bsrn":
            config = default_config("bsrn", 2)
            config["backbone"]["blocks"] = 2
            return build_network(config).eval(), 4, {}
        case "one class":
            return make_network("fsrcnn", 1), 4, {}
        case "original":
            return build_network(default_config("carn", original=True)).eval(), 4, {}
    raise AssertionError(name)


@pytest.fixture(scope="session")
def exported(
    make_network: MakeNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Exported]:
    """``exported(case)``, each written once."""

    def get(name: str) -> Exported:
        model, scale, options = build(make_network, name)
        path = tmp_path_factory.mktemp("onnx") / "model.onnx"
        assert export_onnx(model, path, scale, name=name, **options) == path
        return Exported(model, path, scale, options)

    return cache(get)


@pytest.fixture(scope="session")
def photo() -> Tensor:
    """A photograph with plain and busy parts, ``(1, 3, h, w)``."""
    return images.read(SAMPLE_FOLDER / "valid" / "chelsea.png").rgb[None]


def crop(photo: Tensor, size: tuple[int, int]) -> Tensor:
    return photo[:, :, 100 : 100 + size[0], 150 : 150 + size[1]].contiguous()


ROUTED = ["released", "carn, 3 classes", "x3, proportional, no refinement", "x2", "bsrn"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTED)
def test_routed(exported: Callable[[str], Exported], photo: Tensor, name: str) -> None:
    file = exported(name)
    # Noise is what the random networks' classifiers are balanced on: seams at the borders, too.
    generator = torch.Generator().manual_seed(0)
    seen = []
    for size in SIZES:
        for lr in (crop(photo, size), torch.rand(1, 3, *size, generator=generator)):
            seen += [file.agrees(lr, k) for k in (-1.0, 0.0, 1.0)]
    if name != "bsrn":
        assert max(min(shares) for shares in seen) > 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", ["released", "carn, 3 classes"])
def test_any_class_may_stay_empty(
    exported: Callable[[str], Exported], photo: Tensor, name: str
) -> None:
    file, lr = exported(name), crop(photo, (13, 22))
    assert isinstance(file.model, PCSR)
    for k, j in ((-1000.0, 0), (1000.0, file.model.num_classes - 1)):
        assert file.agrees(lr, k)[j] == 1
        enlarged, classes = file.run(lr, k)
        assert bool((classes == j).all())
        alone = upscale(file.model, lr, 4, fixed_class=j).image
        torch.testing.assert_close(enlarged, alone, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_photograph_meets_both_upsamplers(
    exported: Callable[[str], Exported], photo: Tensor
) -> None:
    shares = exported("released").agrees(photo, 0.0)
    assert min(shares) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one class", "original"])
def test_without_a_choice(exported: Callable[[str], Exported], photo: Tensor, name: str) -> None:
    file = exported(name)
    session = onnxruntime.InferenceSession(file.path)
    assert [i.name for i in session.get_inputs()] == ["image"]
    for size in SIZES:
        assert file.agrees(crop(photo, size)) == (1.0,)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["fsrcnn", "carn"])
def test_published_weights(
    shared: Path, tmp_path: Path, exported: Callable[[str], Exported], backbone: str
) -> None:
    reference = shared / "reference"
    model = pcsr_lightning.load(reference / f"{backbone}-pcsr-phase1.pth")
    path = export_onnx(model, tmp_path / "published.onnx", cost="proportional")
    file = Exported(model, path, 4, {"cost": "proportional"})
    with np.load(reference / "golden.npz") as golden:
        for name in ("a", "b"):
            lr = torch.from_numpy(golden[f"{name}/bicubic_x4"])[None]
            for k in (-1.0, 0.0, 1.0):
                enlarged, classes = file.run(lr, k)
                heavy = torch.from_numpy(golden[f"{backbone}/{name}/x4/k{k:g}/heavy"]).bool()
                assert ((classes[0] == 0) != heavy).double().mean() < 0.0005
                file.agrees(lr, k)
                image = torch.from_numpy(golden[f"{backbone}/{name}/x4/k{k:g}/image"]).clamp(0, 1)
                assert (enlarged[0] - image).abs().mean() < 1e-5


@pytest.mark.slow
def test_file(exported: Callable[[str], Exported], make_network: MakeNetwork) -> None:
    file = exported("x3, proportional, no refinement")
    assert [p.name for p in file.path.parent.iterdir()] == ["model.onnx"]
    proto = onnx.load(file.path, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    found = {p.key.removeprefix("pcsr_lightning."): p.value for p in proto.metadata_props}
    assert json.loads(found.pop("network")) == file.model.config()
    assert found == {
        "version": pcsr_lightning.__version__,
        "name": "x3, proportional, no refinement",
        "scale": "3",
        "cost": "proportional",
        "refine": "false",
    }
    # Every class is gathered and scattered, and nothing tells of the machine it was made on.
    kinds = [node.op_type for node in proto.graph.node]
    assert (kinds.count("NonZero"), kinds.count("ScatterND")) == (2, 2)
    assert "GridSample" not in kinds
    content = file.path.read_bytes()
    for folder in (Path(pcsr_lightning.__file__).parent, Path(torch.__file__).parent):
        assert str(folder).encode() not in content


@pytest.mark.slow
def test_the_model_is_left_as_it_is(tmp_path: Path) -> None:
    config = default_config("bsrn", 2)
    config["backbone"]["blocks"] = 1
    model = build_network(config).train().bfloat16()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shape = str(model)
    export_onnx(model, tmp_path / "x.onnx")
    assert all(part.training for part in model.modules())
    assert all(p.requires_grad and p.dtype == torch.bfloat16 for p in model.parameters())
    assert str(model) == shape
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_refusals(make_network: MakeNetwork, tmp_path: Path) -> None:
    path, model = tmp_path / "x.onnx", make_network()
    original = build_network(default_config("fsrcnn", original=True))
    bad: Any
    for bad in (2.5, 0, 17, -4, True, "4", None, float("nan")):
        with pytest.raises(ConfigError, match="one integer scale from 1 to 16"):
            export_onnx(model, path, bad)
    with pytest.raises(ConfigError, match="made for scale 4 only, not 3"):
        export_onnx(original, path, 3)
    with pytest.raises(ConfigError, match="softmax or proportional"):
        export_onnx(model, path, cost="cheap")
    with pytest.raises(ConfigError, match="true or false"):
        export_onnx(model, path, refine="no")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"not Linear.*pcsr_lightning\.load"):
        export_onnx(nn.Linear(1, 1), path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_whole_or_not_at_all(make_network: MakeNetwork, tmp_path: Path) -> None:
    (tmp_path / "taken.onnx").mkdir()
    with pytest.raises(ModelFileError, match=r"taken\.onnx: cannot be written"):
        export_onnx(make_network(num_classes=1), tmp_path / "taken.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["taken.onnx"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_missing_package(
    make_network: MakeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    # This is how Python itself marks what cannot be imported.
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"package {package}, .*pip install -e '\.\[onnx\]'"
    with pytest.raises(PCSRError, match=said):
        export_onnx(make_network(), tmp_path / "x.onnx")
