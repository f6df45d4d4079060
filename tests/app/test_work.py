"""A request's picture: the library's own, computed once, stopped when another is wanted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pcsr_lightning
from pcsr_lightning.app import result_files, texts, work
from pcsr_lightning.app.choices import BY_K, Choices
from pcsr_lightning.app.loading import Loaded, RefusedError, Remedy
from pcsr_lightning.app.measure import Meter
from pcsr_lightning.app.visitors import Visitor
from pcsr_lightning.errors import ConfigError, PCSRError, PictureError
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.images import Metadata, Picture, bicubic, read
from pcsr_lightning.inference import Execution, RoutingConfig, upscaled_alpha
from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.weights import save

MODEL = "fsrcnn-pcsr-x4"
LIMIT = 10**7


def quiet(_: float, __: str) -> None:
    """Tells nobody."""


def ask(visitor: Visitor, **changes: object) -> work.Run:
    chosen = Choices(**{"model": MODEL, "scale": 4.0, **changes})  # type: ignore[arg-type]
    visitor.wanted = (visitor.number, chosen)
    return work.upscale(visitor, visitor.wanted, LIMIT, quiet)


def by_api(visitor: Visitor, budget: float, scale: float = 4.0) -> torch.Tensor:
    model = pcsr_lightning.load(MODEL)
    assert isinstance(model, PCSR)
    assert visitor.loaded is not None
    return pcsr_lightning.upscale(
        model, visitor.loaded.picture.rgb[None], scale, budget=budget
    ).image[0]


def test_first_run_and_rerouting(visitor: Visitor) -> None:
    first = ask(visitor)
    assert not first.reused
    assert first.result.image.shape == (1, 3, 400, 600)
    session = visitor.session
    again = ask(visitor, compute=30.0)
    assert again.reused
    assert visitor.session is session
    assert float((again.result.image[0] - by_api(visitor, 0.3)).abs().max()) <= 1e-6
    assert visitor.first is not None
    assert visitor.first.seconds > first.seconds > 0
    if visitor.first.peak is not None:
        assert visitor.session is not None
        assert visitor.first.peak > visitor.session.feature_bytes + 12 * 400 * 600
    other = ask(visitor, scale=1.5)
    assert not other.reused
    assert visitor.session is not session
    assert other.result.image.shape == (1, 3, 150, 225)
    assert ask(visitor, scale=1.5, way=BY_K, k=1.0).reused


def test_all_heavy(visitor: Visitor) -> None:
    ask(visitor)
    assert visitor.wanted is not None
    heavy = work.all_heavy(visitor, visitor.wanted, quiet)
    assert float((heavy.image_3HW - by_api(visitor, 1.0)).abs().max()) <= 1e-6
    assert visitor.session is not None
    upsamplers = visitor.heavy_run.seconds
    assert upsamplers > 0
    assert heavy.seconds == visitor.session.feature_seconds + upsamplers
    assert work.all_heavy(visitor, visitor.wanted, quiet) is heavy


def test_a_newer_request_stops_the_work_between_strips(visitor: Visitor) -> None:
    """Really: no more than one strip is computed after it."""
    assert visitor.loaded is not None
    tall = Loaded("tall.png", Picture(torch.rand(3, 500, 60)))
    visitor.show(tall)
    ticket = (visitor.number, Choices(MODEL, 1.0))
    visitor.wanted = ticket
    told: list[str] = []

    def newer_after_first(_: float, said: str) -> None:
        told.append(said)
        visitor.wanted = (visitor.number, Choices(MODEL, 2.0))

    with pytest.raises(work.Stopped):
        work.upscale(visitor, ticket, LIMIT, newer_after_first)
    assert len(told) == 1
    assert visitor.run is visitor.session is None
    # One that is old before it has begun does nothing at all.
    with pytest.raises(work.Stopped):
        work.upscale(visitor, ticket, LIMIT, newer_after_first)
    assert len(told) == 1
    visitor.wanted = ticket

    def newer_at_last(_: float, said: str) -> None:
        if said == "Upscaling":
            visitor.wanted = None

    with pytest.raises(work.Stopped):
        work.upscale(visitor, ticket, LIMIT, newer_at_last)
    visitor.wanted, in_vain = ticket, visitor.spent
    run = work.upscale(visitor, ticket, LIMIT, quiet)
    assert visitor.first is not None
    assert in_vain > 0
    assert visitor.first.seconds == visitor.features.seconds + in_vain + run.seconds

    def gone_after_first(_: float, said: str) -> None:
        told.append(said)
        visitor.wanted = None

    told.clear()
    with pytest.raises(work.Stopped):
        work.all_heavy(visitor, ticket, gone_after_first)
    assert len(told) == 1
    assert visitor.heavy is None


def test_refusals(visitor: Visitor, tmp_path: Path) -> None:
    ticket = (visitor.number, Choices(MODEL, 4.0))
    visitor.wanted = ticket
    with pytest.raises(PictureError, match="at most 1,000: this picture is too large"):
        work.upscale(visitor, ticket, 1_000, quiet)
    with pytest.raises(PCSRError, match="no model is called"):
        ask(visitor, model="nobody")
    original = save(build_network(default_config("fsrcnn", original=True)), tmp_path / "original")
    with pytest.raises(ConfigError, match="two classes or more"):
        ask(visitor, model=str(original))
    with pytest.raises(PCSRError, match="no result yet"):
        result_files.save_result(Visitor(tmp_path), "PNG", 90)


def test_files(visitor: Visitor) -> None:
    run = ask(visitor)
    after = result_files.save_view(visitor, "after", run.result.image[0])
    with Image.open(after) as image:
        seen = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    expected = run.result.image[0].mul(255).round().to(torch.uint8)
    assert torch.equal(seen, expected)
    with Image.open(result_files.save_map(visitor, run.result.assignment[0])) as image:
        assert image.mode == "P"
        assert torch.equal(torch.from_numpy(np.array(image)), run.result.assignment[0])
        red, blue = torch.tensor([[215, 25, 28], [44, 123, 182]])
        expected_HW3 = torch.where(run.result.assignment[0, ..., None] == 0, red, blue)
        assert torch.equal(torch.from_numpy(np.array(image.convert("RGB"))), expected_HW3.byte())
    plain = work.bicubic_result(visitor)
    assert visitor.loaded is not None
    assert torch.equal(plain, bicubic(visitor.loaded.picture.rgb, (400, 600)).clamp(0, 1))


def test_result_keeps_depth_alpha_and_profile(visitor: Visitor, tmp_path: Path) -> None:
    import pyvips

    profile = pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb")
    icc = profile.icc_transform("srgb").get("icc-profile-data")
    alpha = torch.linspace(0, 1, 12).expand(1, 10, 12)
    source = Picture(
        torch.rand(3, 10, 12), alpha, bits=16, metadata=Metadata(icc=icc, resolution=(2.0, 2.0))
    )
    visitor.show(Loaded("deep.png", source))
    run = ask(visitor)
    first = result_files.save_result(visitor, "PNG", 90)
    result = read(first)
    assert (result.bits, result.metadata.icc, result.rgb.shape) == (16, icc, (3, 40, 48))
    assert result.alpha is not None
    with upscaled_alpha(
        work.model_named(MODEL), alpha, (40, 48), RoutingConfig(), Execution(), bits=16
    ) as rows:
        assert torch.equal(result.alpha, rows.take(40).float() / 65535)
    assert result.metadata.resolution is not None
    assert result.metadata.resolution[0] == pytest.approx(8, abs=0.01)
    assert float((result.rgb - run.result.image[0]).abs().max()) <= 0.51 / 65535
    with Image.open(result_files.save_view(visitor, "after", run.result.image[0])) as view:
        assert (view.mode, view.info["icc_profile"]) == ("RGBA", icc)
    assert first.name == "deep_x4.png"
    ask(visitor, scale=2.5)
    assert result_files.save_result(visitor, "PNG", 90).name == "deep_x2.5.png"
    result_files.save_result(visitor, "PNG", 90)
    result_files.save_result(visitor, "PNG", 90)
    assert not first.exists()


@pytest.mark.parametrize(("format", "suffix"), list(result_files.FORMATS.items()))
def test_formats_of_the_result(visitor: Visitor, format: str, suffix: str) -> None:
    run = ask(visitor, compute=100.0)
    fine, coarse = (result_files.save_result(visitor, format, quality) for quality in (95, 30))
    assert fine.name == f"coffee_x4{suffix}"
    with Image.open(fine) as image:
        assert (image.format, image.size) == (format.upper(), (600, 400))
    off = (read(fine).rgb - run.result.image[0]).abs().mean()
    assert float(off) < 0.02
    assert (coarse.stat().st_size < fine.stat().st_size) == (format != "PNG")


def test_a_format_that_is_too_small_for_a_picture(visitor: Visitor) -> None:
    visitor.show(Loaded("long.png", Picture(torch.rand(3, 4, 9000))))
    ask(visitor, scale=2.0)
    with pytest.raises(RefusedError, match="WebP holds at most 16,383") as refused:
        result_files.save_result(visitor, "WebP", 90)
    assert refused.value.remedy == Remedy("Use PNG", format="PNG")
    assert result_files.save_result(visitor, "PNG", 90).exists()


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("holiday.jpg", "holiday"),
        ("../../etc/passwd", "passwd"),
        ('a"b\n<c>.png', "a_b__c_"),
        ("Ärger (2).tar.png", "Ärger (2).tar"),
        ("...", "picture"),
        ("x" * 300 + ".png", "x" * 60),
    ],
)
def test_plain_names(name: str, plain: str) -> None:
    assert result_files.plain_name(name) == plain


@pytest.mark.parametrize("scale", [1.0, 2.5, 4.0])
def test_psnr_is_the_benchmarks(scale: float) -> None:
    torch.manual_seed(0)
    hr = (torch.rand(3, 40, 50) * 255).round().to(torch.uint8)
    sr = (hr.float() / 255 + 0.05 * torch.randn(3, 40, 50)).clamp(0, 1)
    expected = psnr(sr[None], hr[None].float() / 255, math.ceil(scale))
    assert work.psnr(sr, hr, scale) == pytest.approx(expected, abs=1e-4)
    assert work.psnr(hr.float() / 255, hr, scale) == math.inf


def test_meter() -> None:
    with Meter() as meter:
        held = torch.zeros(60 * 2**20, dtype=torch.uint8).add_(1)
        del held
    assert meter.seconds > 0
    if Path("/proc/self/clear_refs").exists():
        assert meter.peak is not None
        assert 55 * 2**20 < meter.peak < 200 * 2**20
        with Meter() as small:
            pass
        assert small.peak is not None
        assert small.peak < 20 * 2**20


def test_the_peak_of_two_steps() -> None:
    assert work._highest(100, 60, 50) == 110
    assert work._highest(100, 20, 50) == 100
    assert work._highest(None, 0, 50) == 50


def test_words(visitor: Visitor) -> None:
    assert texts.details(visitor) == ""
    assert "coffee.png" in texts.picture_line(visitor)
    heavy, light = ask(visitor, compute=30.0).result.shares
    before = texts.details(visitor)
    assert f'width:{100 * heavy:.2f}%;background:#d7191c"' in before
    assert f'background:#d7191c"></i>heavy {100 * heavy:.0f} %' in before
    assert f'background:#2c7bb6"></i>light {100 * light:.0f} %' in before
    assert before.count(" dB") == 2  # all-heavy was not asked for
    assert visitor.wanted is not None
    work.all_heavy(visitor, visitor.wanted, quiet)
    after = texts.details(visitor)
    assert "30 %" in after
    assert after.count(" dB") == 3
    assert "4 pixels of the border left out" in after
    assert "Re-routed" not in after
    run = ask(visitor, compute=100.0)
    assert "ceiling" in texts.details(visitor)
    assert "Re-routed" in texts.details(visitor)
    assert visitor.first is not None
    assert f"{100 * run.seconds / visitor.first.seconds:.0f} % of first" in texts.details(visitor)
    lightest = ask(visitor, compute=1.0)
    assert lightest.choices.compute == lightest.floor == 9
    assert lightest.result.shares[0] == 0
    assert "150 x 100 → 600 x 400 pixels" in texts.picture_line(visitor)


def test_a_scale_that_the_model_was_not_trained_for_is_noted(visitor: Visitor) -> None:
    ask(visitor)
    assert "trained for" not in texts.details(visitor)
    ask(visitor, scale=3.0)
    said = f"{MODEL} was trained for x4, not x3: bicubic may be better; carn-pcsr-multi"
    assert texts.details(visitor).count(said) == 1


def test_no_psnr_with_another_size(visitor: Visitor) -> None:
    ask(visitor)
    visitor.reference = ("<b>other</b>.png", torch.zeros(3, 10, 10, dtype=torch.uint8))
    said = texts.details(visitor)
    assert " dB" not in said
    assert "No PSNR: the reference &lt;b&gt;other&lt;/b&gt;.png has 10 x 10 pixels" in said
    visitor.reference = ("right.png", torch.zeros(3, 400, 600, dtype=torch.uint8))
    assert " dB" in texts.details(visitor)
    assert visitor.loaded is not None
    visitor.show(visitor.loaded)
    assert visitor.reference is None  # it was the old picture's


def test_nothing_from_outside_is_html(visitor: Visitor) -> None:
    name = '<img src=x onerror="alert(1)">.png'
    visitor.show(Loaded(name, Picture(torch.rand(3, 5, 5))))
    visitor.refused = name
    status = texts.status(visitor)
    for said in (texts.picture_line(visitor), status, texts.alert(name), texts.note(name)):
        assert "<img" not in said
        assert "&lt;img" in said
