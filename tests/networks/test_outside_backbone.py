"""Backbones from outside the package: made known, measured, saved, loaded, and never trusted."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pcsr_lightning
from pcsr_lightning.errors import ConfigError, ModelFileError
from pcsr_lightning.inference.features import TiledRows, feature_rows
from pcsr_lightning.networks import (
    BACKBONES,
    PCSR,
    Backbone,
    DefaultSizes,
    Original,
    PixelMLP,
    UnknownBackboneError,
    backbone_class,
    branch_macs,
    build_backbone,
    build_network,
    default_config,
    import_backbone,
    register_backbone,
)
from pcsr_lightning.networks.backbones.probe import measure
from pcsr_lightning.weights import save

SMALL = {
    "fsrcnn": {"d": 8, "s": 4, "m": 3},
    "carn": {"nf": 8, "group": 4},
    "srresnet": {"nf": 6, "blocks": 5},
    "bsrn": {"nf": 8, "blocks": 1},
}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Backbones and modules that a test makes known are forgotten after it."""
    known, modules = dict(BACKBONES), set(sys.modules)
    yield
    BACKBONES.clear()
    BACKBONES.update(known)
    for name in set(sys.modules) - modules:
        if name.startswith("their_"):
            del sys.modules[name]


def conv(channels: int, out: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    options.setdefault("padding", kernel // 2)
    return nn.Conv2d(channels, out, kernel, **options)


class Tiny(Backbone):
    """The least that a backbone needs."""

    name = "tiny"

    def __init__(self, width: int = 8, kernels: tuple[int, ...] = (3, 5)) -> None:
        super().__init__()
        channels = [3, *(width for _ in kernels)]
        self.layers = nn.Sequential(
            *(conv(c, width, k) for c, k in zip(channels, kernels, strict=False))
        )

    def forward(self, picture: Tensor) -> Tensor:
        features: Tensor = self.layers(picture)
        return features


# What is measured


class Odd(Backbone):
    """A backbone that is one of several kinds of trouble."""

    name = "odd"

    def __init__(self, kind: str = "dilated") -> None:
        super().__init__()
        self.kind = kind
        self.head = conv(3, 8)
        self.body = {
            "dilated": conv(8, 8, dilation=3, padding=3),
            "starts at zero": nn.Sequential(conv(8, 8, 7), conv(8, 8)),
            "strided": conv(8, 32, stride=2),
            "reflecting": conv(8, 8, 5, padding_mode="reflect"),
            "dead": conv(8, 8, 9),
        }.get(kind, conv(8, 8))
        if kind == "starts at zero":
            nn.init.zeros_(self.body[1].weight)
        if kind == "dead":
            nn.init.constant_(self.head.bias, -1e3)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.head(picture)
        h, w = x.shape[-2:]
        if h > 10**6:  # no trace answers this
            raise ValueError
        if self.kind == "strided":
            y = F.pixel_shuffle(self.body(F.pad(x, (0, w % 2, 0, h % 2))), 2)
            return x + y[:, :, :h, :w]
        if self.kind == "average":
            return x * torch.sigmoid(self.body(x).mean(dim=(2, 3), keepdim=True))
        if self.kind == "place":
            return x + torch.linspace(0, 1, 64)[torch.arange(h) % 64, None]
        if self.kind == "attention":
            rows = x.mean(dim=3).transpose(1, 2)
            mixed = F.scaled_dot_product_attention(rows, rows, rows)
            return x + mixed.transpose(1, 2)[..., None]
        if self.kind == "pooled":
            return x + F.avg_pool2d(self.body(x), 5, stride=1, padding=2)
        if self.kind == "hides NaN":
            return self.body(x.nan_to_num())
        return self.body(x.relu())


REACH = {
    "dilated": 4,
    "starts at zero": 5,
    "reflecting": 3,
    "dead": 5,
    "pooled": 4,
    "strided": None,
    "average": None,
    "attention": None,
    "place": None,
    "hides NaN": None,
}


@pytest.mark.parametrize("name", SMALL)
def test_what_is_measured_of_ours_is_what_they_say(name: str) -> None:
    backbone = build_backbone(name, **SMALL[name])
    assert measure(backbone, name) == (backbone.out_channels, backbone.halo)


@pytest.mark.parametrize("kind", REACH)
def test_reach_is_measured(kind: str) -> None:
    register_backbone(Odd)
    backbone = build_backbone("odd", kind=kind)
    assert (backbone.out_channels, backbone.halo) == (8, REACH[kind])


@pytest.mark.parametrize("kind", REACH)
def test_strips_of_any_height_are_the_whole(kind: str) -> None:
    torch.manual_seed(0)
    register_backbone(Odd)
    backbone = build_backbone("odd", kind=kind).eval()
    x_13hw = torch.rand(1, 3, 31, 9)
    with torch.inference_mode():
        whole = backbone(x_13hw).permute(0, 2, 3, 1)
        source = feature_rows(backbone, backbone.halo, x_13hw, torch.float32)
        assert isinstance(source, TiledRows)
        for rows in (1, 2, 5):
            parts = [feat.clone() for _, feat in source.strips(rows)]
            assert (torch.cat(parts, dim=1) - whole).abs().max() <= 1e-5


def test_measuring_leaves_no_trace() -> None:
    backbone = Odd("starts at zero")
    backbone.head.eval()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    random = torch.get_rng_state()
    measure(backbone, "it")
    assert torch.equal(torch.get_rng_state(), random)
    assert backbone.training
    assert not backbone.head.training
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in backbone.parameters())


class Claims(Tiny):
    """Says of itself what may not be so."""

    name = "claims"

    def __init__(self, halo: int = 3, channels: int = 8) -> None:
        super().__init__()
        self.halo, self.out_channels = halo, channels


def test_a_claim_is_checked() -> None:
    register_backbone(Claims)
    assert build_backbone("claims").halo == 3
    assert build_backbone("claims", halo=7).halo == 7  # costs time only
    with pytest.raises(ConfigError, match=r"says halo=2; measured is 3.*Leave it out"):
        build_backbone("claims", halo=2)
    with pytest.raises(ConfigError, match="out_channels=16 and gives 8"):
        build_backbone("claims", channels=16)
    with pytest.raises(ConfigError, match="says halo=2"):  # made by hand as well
        PCSR(Claims(halo=2), [PixelMLP(8, (4,), 3)], None)


class Faulty(Backbone):
    name = "faulty"

    def __init__(self, fault: str = "smaller") -> None:
        super().__init__()
        self.fault, self.layer = fault, conv(3, 8, padding=0 if fault == "smaller" else 1)

    def forward(self, picture: Tensor) -> Any:
        if self.fault == "even":
            return self.layer(picture.reshape(1, 3, -1, 2, picture.shape[3])[:, :, :, 0])
        return (self.layer(picture), 1) if self.fault == "two" else self.layer(picture)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("smaller", r"gives \(1, 8, 15, 10\) for a picture \(1, 3, 17, 12\).*\(1, D, 17, 12\)"),
        ("two", "gives tuple"),
        ("even", "fails on a picture of 17 x 12 pixels"),
    ],
)
def test_a_fault_is_named_at_once(fault: str, says: str) -> None:
    register_backbone(Faulty)
    with pytest.raises(ConfigError, match=says):
        build_backbone("faulty", fault=fault)


# The rest of the house


def model_of(name: str = "tiny", num_classes: int = 2, **args: Any) -> PCSR:
    torch.manual_seed(0)
    config = default_config(name, num_classes)
    model = build_network({**config, "backbone": {"name": name, **args}}).eval()
    assert isinstance(model, PCSR)
    return model


def test_it_takes_generic_sizes_or_its_own() -> None:
    register_backbone(Tiny)
    assert default_config("tiny", 2)["upsamplers"] == [[74] * 4, [20] * 3]
    three = model_of(num_classes=3)
    assert [three.upsampler(j).hidden for j in (0, 2)] == [(74,) * 4, (20,) * 3]

    @register_backbone
    class Own(Tiny):
        name = "own"
        sizes = DefaultSizes(heavy=(9, 9), light=(2,), classifier=(), mean=(0.5, 0.25, 0.125))

    config = default_config("own", 2)
    assert (config["upsamplers"], config["classifier"]) == ([[9, 9], [2]], [])
    assert config["mean"] == [0.5, 0.25, 0.125]
    assert build_network(config).config() == config


def test_its_cost_is_counted() -> None:
    register_backbone(Tiny)
    assert branch_macs(model_of()).backbone == 9 * 3 * 8 + 25 * 8 * 8
    register_backbone(Odd)
    # A 3x3; and 16 rows of width 8 with 16, two products, over 16 x 16 pixels.
    assert branch_macs(model_of("odd", kind="attention")).backbone == 9 * 3 * 8 + 2 * 8


@pytest.mark.parametrize("scale", [2, 2.5])
def test_pictures_in_strips(scale: float) -> None:
    register_backbone(Tiny)
    model, lr = model_of(), torch.rand(1, 3, 29, 11)
    whole = pcsr_lightning.upscale(model, lr, scale)
    for tile_rows in (1, 6):
        found = pcsr_lightning.upscale(model, lr, scale, tile_rows=tile_rows)
        assert (found.image - whole.image).abs().max() <= 1e-5


class Tailed(Tiny):
    name = "tailed"

    def __init__(self, reach: int = 1, channels: int = 3) -> None:
        super().__init__()
        self.reach, self.channels = reach, channels

    def forward(self, picture: Tensor) -> Tensor:
        if picture.shape[2] > 10**6:
            raise ValueError
        return super().forward(picture)

    def make_tail(self, scale: int) -> nn.Module:
        layer = conv(8, self.channels * scale**2, 2 * self.reach + 1)
        return nn.Sequential(layer, nn.PixelShuffle(scale))


def test_a_tail_that_looks_far_is_not_cut() -> None:
    register_backbone(Tailed)
    for reach, halo in ((1, 3), (8, 3), (9, None)):
        config = {**default_config("tailed", original=True), "scale": 2}
        config["backbone"]["reach"] = reach
        model = build_network(config).eval()
        assert isinstance(model, Original)
        assert model.backbone.halo == halo
        lr = torch.rand(1, 3, 40, 7)
        with torch.no_grad():
            whole = model(lr).clamp(0, 1)
        found = pcsr_lightning.upscale(model, lr, 2, tile_rows=3)
        assert (found.image - whole).abs().max() <= 1e-5


def test_an_original_that_there_is_not() -> None:
    register_backbone(Tiny)
    with pytest.raises(ConfigError, match=r"no original model of x4: Tiny does not define make_ta"):
        build_network(default_config("tiny", original=True))
    register_backbone(Tailed)
    config = default_config("tailed", original=True)
    config["backbone"]["channels"] = 4
    with pytest.raises(ConfigError, match=r"gives \(1, 4, 68, 48\).*expected \(1, 3, 68, 48\)"):
        build_network(config)


# Making known


def test_a_cell_run_twice_takes_its_own_place() -> None:
    def cell() -> type[Backbone]:
        class Again(Tiny):
            name = "again"

        return register_backbone(Again)

    first, second = cell(), cell()
    assert first is not second
    assert backbone_class("again") is second


def _class(name: Any = "their", **methods: Any) -> type[Backbone]:
    return type("Their", (Tiny,), {"name": name, **methods})


def _no_default(self: Any, width: int) -> None: ...


def _anything(self: Any, **args: int) -> None: ...


def _takes_name(self: Any, name: str = "") -> None: ...


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (nn.Conv2d, "Conv2d is not a backbone: expected a class derived from"),
        (Tiny.forward, "not a backbone"),
        (5, "5 is not a backbone"),
        (type("Half", (Backbone,), {"name": "half"}), "Half does not define forward"),
        (type("No", (Backbone,), {"forward": Tiny.forward}), "No needs a name"),
        (_class("a/b"), "needs a name of letters.*not 'a/b'"),
        (_class(7), "needs a name"),
        (_class("carn"), "its name 'carn' is pcsr_lightning.*CARN's; give it another"),
        (_class("tiny"), "its name 'tiny' is .*Tiny's; give it another"),
        (_class(__init__=_no_default), "argument width needs a default, such as width=16"),
        (_class(__init__=_anything), "argument args cannot be given by name"),
        (_class(__init__=_takes_name), "argument name means another"),
    ],
)
def test_what_cannot_be_registered(cls: Any, says: str) -> None:
    register_backbone(Tiny)
    known = dict(BACKBONES)
    with pytest.raises(ConfigError, match=says):
        register_backbone(cls)
    assert known == BACKBONES


MODULE = """
from pathlib import Path
from torch import nn
from pcsr_lightning.networks import Backbone, DefaultSizes

Path(__file__).with_suffix(".imported").touch()

class Net(Backbone):
    name = "their-net"
    sizes = DefaultSizes((6, 6), (3,), (4,))

    def __init__(self, width=4, slopes=(0.1, 0.2)):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(slopes[0]))

    def forward(self, picture):
        return self.layers(picture)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of somebody else's, which leaves a mark where it is imported."""
    path = tmp_path / "their_module.py"
    path.write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return path


@pytest.mark.parametrize(
    ("dotted", "says"),
    [
        ("their_module.Nothing", "module their_module has no class Nothing"),
        ("their_module.Path", "is not a backbone"),
        ("their_module", "expected module and class, such as"),
        ("their_module.", "does not name a backbone"),
        ("../their_module.Net", "does not name a backbone"),
        ("their_absent.deep.Net", "there is no module their_absent in"),
        ("their_module.deep.Net", "there is no module their_module.deep"),
        ("their_needy.Net", "importing their_needy failed: ModuleNotFoundError.*'their_absent'"),
        ("their_broken.Net", "importing their_broken failed: SyntaxError"),
        ("os.path.join", "join is not a backbone"),
    ],
)
def test_what_cannot_be_imported(module: Path, dotted: str, says: str) -> None:
    module.with_name("their_needy.py").write_text("import their_absent")
    module.with_name("their_broken.py").write_text("class Net(")
    with pytest.raises(ConfigError, match=says):
        import_backbone(dotted)


# Files


def forget(module: Path) -> None:
    """As in a new process."""
    BACKBONES.pop("their-net", None)
    sys.modules.pop("their_module", None)
    module.with_suffix(".imported").unlink(missing_ok=True)


@pytest.fixture
def file(module: Path, tmp_path: Path) -> Path:
    """A model file whose backbone is not known any more."""
    assert import_backbone("their_module.Net") is backbone_class("their-net")
    network = default_config("their-net", 2)
    network["backbone"] |= {"width": 5, "slopes": [0.5, 0.2]}
    path = save(build_network(network), tmp_path / "model")
    forget(module)
    return path


def test_a_file_alone_imports_nothing(file: Path, module: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        pcsr_lightning.load(file)
    said = str(caught.value)
    assert "\n" not in said
    for way in ('import_backbone("their_module.Net")', "backbones=[their_module.Net]"):
        assert way in said
    assert "their_module" not in sys.modules
    assert not module.with_suffix(".imported").exists()


def test_a_file_and_the_users_word(file: Path, tmp_path: Path) -> None:
    import_backbone("their_module.Net")
    model = pcsr_lightning.load(file)
    assert isinstance(model, PCSR)
    assert model.backbone.args == {"width": 5, "slopes": [0.5, 0.2]}
    assert model.backbone.layers[1].negative_slope == 0.5
    model.save_pretrained(tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert 'import_backbone("their_module.Net")\nmodel = ' in card
    again = PCSR.from_pretrained(tmp_path / "hub")
    assert again.config() == model.config()
    lr = torch.rand(1, 3, 12, 9)
    images = [pcsr_lightning.upscale(m, lr, 3).image for m in (model, again)]
    assert torch.equal(*images)


@pytest.mark.parametrize(
    "noted",
    ["os.system", "their_module.Net\n\nrm -rf", "x" * 300 + ".Y", ["their_module.Net"], 7, None],
)
def test_a_note_is_never_obeyed(file: Path, module: Path, noted: Any) -> None:
    config = json.loads(file.with_suffix(".json").read_text())
    config["network"]["backbone"]["class"] = noted
    config["network"]["backbone"]["_target_"] = "their_module.Net"
    file.with_suffix(".json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="no backbone is called 'their-net'") as caught:
        pcsr_lightning.load(file)
    assert "rm -rf" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert not module.with_suffix(".imported").exists()


@pytest.mark.parametrize("name", ["their_module.Net", "../x", "", 7, None, ["carn"], {"a": 1}])
def test_a_name_is_no_path(file: Path, module: Path, name: Any) -> None:
    config = json.loads(file.with_suffix(".json").read_text())
    config["network"]["backbone"]["name"] = name
    file.with_suffix(".json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="no backbone is called"):
        pcsr_lightning.load(file)
    assert not module.with_suffix(".imported").exists()


def announce(folder: Path, name: str, place: str) -> None:
    """What ``pip install`` of a package with an entry point leaves behind."""
    info = folder / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pcsr_lightning.backbones]\n{name} = {place}\n")


def test_an_installed_package_is_found_by_name(file: Path, module: Path) -> None:
    announce(module.parent, "their-net", "their_module:Net")
    with pytest.raises(UnknownBackboneError):
        backbone_class("another")
    assert not module.with_suffix(".imported").exists()
    assert pcsr_lightning.load(file).backbone.name == "their-net"
    assert module.with_suffix(".imported").exists()


@pytest.mark.parametrize(
    ("name", "place", "says"),
    [
        ("their-net", "their_gone:Net", "there is no module their_gone"),
        ("another", "their_module:Net", "announces backbone 'another'.* called 'their-net'"),
    ],
)
def test_a_wrong_announcement(module: Path, name: str, place: str, says: str) -> None:
    announce(module.parent, name, place)
    with pytest.raises(ConfigError, match=says):
        backbone_class(name)


def test_arguments_that_no_file_can_hold() -> None:
    register_backbone(Tiny)
    backbone = build_backbone("tiny", kernels=(3, 3, 3))
    assert backbone.args == {"width": 8, "kernels": [3, 3, 3]}
    assert backbone.halo == 3
    with pytest.raises(ConfigError, match=r"argument width=.* cannot be kept"):
        build_backbone("tiny", width=torch.tensor(8))
    with pytest.raises(ConfigError, match="takes width, kernels, not depth"):
        build_backbone("tiny", depth=1)


def test_made_by_hand_it_has_to_know_its_arguments() -> None:
    model = PCSR(Tiny(4), [PixelMLP(4, (4,), 3)], None)
    with pytest.raises(ConfigError, match=r"build_backbone\('tiny', ...\), or keep them in self.a"):
        model.config()
