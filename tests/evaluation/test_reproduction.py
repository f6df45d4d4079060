"""``pcsr reproduce``: rows, sets and weights; what is not here; the tables in four formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from tests.commands import run_command
from tests.small import small_original, small_pcsr, write_textures

from pcsr_lightning.errors import ConfigError, PictureError
from pcsr_lightning.evaluation.published import PublishedPoint, published_points
from pcsr_lightning.evaluation.reproduction.measuring import Measurer
from pcsr_lightning.evaluation.reproduction.picture_sets import (
    PictureSet,
    check_set,
    known_set,
    mean_cost,
    prepare_set,
)
from pcsr_lightning.evaluation.reproduction.rows import (
    distance_of,
    protocol_of,
    target_of,
    wanted_points,
    weights_of,
    where_from,
)
from pcsr_lightning.evaluation.reproduction.settings import ReproductionConfig
from pcsr_lightning.images import bicubic, list_pictures, read_rgb8
from pcsr_lightning.weights import save


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """A folder of sets with two small pictures each."""
    root = tmp_path / "sets"
    for name in ("Set14", "set5"):
        write_textures(root / name, {"a.png": (136, 140), "b.png": (244, 256)})
    return root


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, ...]:
    """Settings that name a model for each row of CARN."""
    pcsr = save(small_pcsr("carn"), tmp_path / "pcsr")
    original = save(small_original("carn"), tmp_path / "original")
    return (f"models.carn-pcsr={pcsr}", f"models.carn={original}", f"models.classsr={original}")


def points(table: str, *words: str) -> list[PublishedPoint]:
    return wanted_points(ReproductionConfig.of(table, words))


def test_a_table_of_what_is_here(
    sets: Path, models: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Paper, model, oracle; a rival by its own protocol; what is not here; one figure a set."""
    words = (
        "table1", "row=carn", "sets=Set14,Set5,Test2K", f"data.root={sets}", *models,
        "oracle=true", "curve=[-1,1]", "output=out", "threads=1",
    )  # fmt: skip
    done = run_command("reproduce", *words, cwd=tmp_path, code=0)
    folder = tmp_path / "out" / "table1"
    assert {path.name for path in folder.iterdir()} == {
        "table.md", "table.csv", "table.tex", "table.png", "table.pdf", "measured.json",
        "psnr_flops_Set14.png", "psnr_flops_Set14.pdf", "psnr_flops_Set5.png",
        "psnr_flops_Set5.pdf",
    }  # fmt: skip
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    names = ["CARN", "CARN-ClassSR", "CARN-ARM", "CARN-PCSR"]
    with_oracle = [*names, *["CARN-PCSR, oracle"] * 2]
    assert [(row["model"], row["pictures"]) for row in rows] == [
        *((name, "Set14") for name in with_oracle),
        *((name, "Set5") for name in with_oracle),
        *((name, "Test2K") for name in names),
    ]
    original, rival, missing, pcsr, same, best = rows[:6]
    assert (original["psnr_paper"], original["gflops_paper"]) == ("26.52", "13.53")
    difference = float(original["psnr_ours"]) - 26.52
    assert float(original["psnr_difference"]) == pytest.approx(difference)
    # In patches every pixel of the overlap is paid for twice.
    assert float(rival["gflops_ours"]) > float(original["gflops_ours"])
    assert missing["psnr_ours"] == ""
    assert "stage=arm (docs/rivals.md) and give models.carn-arm=RUN" in missing["remark"]
    # Other weights than the published are compared with the rival that is measured beside them.
    assert f"{float(rival['psnr_ours']):.2f} dB" in pcsr["remark"]
    assert float(same["gflops_ours"]) <= float(pcsr["gflops_ours"]) + 1e-9
    assert float(best["psnr_ours"]) >= float(same["psnr_ours"])
    assert rows[9]["psnr_difference"] == ""  # the paper has nothing on Set5
    assert "not here: CARN on Test2K: get Test2K from https://" in done.out
    assert "Set14 has 14 pictures, this folder 2" in caplog.text
    text = (folder / "table.md").read_text()
    assert "| CARN-PCSR | Set14 | given | 26.48 |" in text
    assert "- CARN-ARM on Set14: train backbone=carn stage=arm" in text
    assert (folder / "table.tex").read_text().count(r"\midrule") == 3
    content = json.loads((folder / "measured.json").read_text())
    assert content["lines"][3]["measured"]["psnr"] == float(pcsr["psnr_ours"])


def test_a_rival_beyond_reach_is_no_measure(sets: Path, tmp_path: Path) -> None:
    """Then a model is compared as far below all heavy as the paper's is below the original."""
    pcsr, rival = small_pcsr("carn"), small_original("carn")
    with torch.no_grad():
        for weight in rival.parameters():
            weight.mul_(3)
    words = (
        "table1", "row=carn", "sets=Set14", f"data.root={sets}", "curve=[]", "threads=1",
        f"models.carn-classsr={save(rival, tmp_path / 'rival')}",
        f"models.carn-pcsr={save(pcsr, tmp_path / 'pcsr')}", "output=out",
    )  # fmt: skip
    run_command("reproduce", *words, cwd=tmp_path, code=0)
    text = (tmp_path / "out" / "table1" / "table.csv").read_text()
    rows = {row["model"]: row for row in csv.DictReader(text.splitlines()) if row["psnr_ours"]}
    lower, own = (float(rows[name]["psnr_ours"]) for name in ("CARN-ClassSR", "CARN-PCSR"))
    assert lower < own - 3
    assert f"{lower:.2f} dB" not in rows["CARN-PCSR"]["remark"]


def test_published_weights(shared: Path, tmp_path: Path) -> None:
    """At the paper's PSNR where it has one; else k = 0."""
    words = (
        "table1", "row=fsrcnn", "sets=Set5", f"data.root={shared / 'images'}", "ours=false",
        f"weights={shared / 'reference'}", "curve=[]", "threads=1", "output=out",
    )  # fmt: skip
    run_command("reproduce", *words, cwd=tmp_path, code=0)
    text = (tmp_path / "out" / "table1" / "table.csv").read_text()
    original, *_, pcsr = csv.DictReader(text.splitlines())
    assert (original["weights"], pcsr["weights"], pcsr["remark"]) == (
        "published", "published", "k = 0",
    )  # fmt: skip
    for row, psnr, gflops in ((original, 28.340, 2.393), (pcsr, 28.407, 1.280)):
        assert float(row["psnr_ours"]) == pytest.approx(psnr, abs=5e-4)
        assert float(row["gflops_ours"]) == pytest.approx(gflops, abs=5e-4)


def test_rows_that_are_not_here_end_with_one_line(tmp_path: Path) -> None:
    done = run_command("reproduce", "table1", "row=carn-arm", "sets=Test8K", cwd=tmp_path, code=1)
    [line] = done.err.splitlines()
    assert line.startswith("error: nothing of this is here: CARN-ARM on Test8K: train backbone=")
    assert "get Test8K from https://github.com/XPixelGroup/ClassSR" in line
    assert not (tmp_path / "outputs").exists()
    # Of a whole table it is no error.
    done = run_command("reproduce", "appendix2", cwd=tmp_path, code=0)
    assert done.out.count("get Urban100 from") == 3
    assert "19072" in done.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["table9"], "there is no table9: choose one of table1, "),
        (["table1", "row=vdsr"], "row=vdsr: Table 1 has the rows FSRCNN, "),
        (["table1", "carn"], "carn: settings are given as KEY=VALUE"),
        (["table1", "rows=carn"], "rows: there is no such setting; did you mean row?"),
        (["table1", "oracle=maybe"], "oracle=maybe: must be true or false"),
        (["table1", "threads=0"], "threads=0: must be a whole number of 1 at least"),
        (["table1", "curve=[a]"], "curve=[a]: must be numbers"),
        (["table1", "data.root=nowhere"], "data.root=nowhere: no such folder"),
        (["table1", "data.Set14=nowhere"], "data.Set14=nowhere: no such folder"),
        (["table1", "weights=nowhere"], "weights=nowhere: no such folder"),
        (["table1", "weights="], "weights is empty"),
        (["table1", "device=tpu"], "device=tpu: must be auto, cpu, cuda"),
    ],
)
def test_mistakes(words: list[str], says: str, tmp_path: Path) -> None:
    done = run_command("reproduce", *words, cwd=tmp_path, code=1)
    [line] = done.err.splitlines()
    assert says in line


def test_pictures_are_cut_as_in_the_paper(sets: Path, tmp_path: Path) -> None:
    folder = prepare_set(known_set("set14"), {"root": str(sets)}, tmp_path)
    assert folder is not None
    for path, size in zip(list_pictures(folder), [(132, 132), (240, 252)], strict=True):
        cut, whole = read_rgb8(path), read_rgb8(sets / "Set14" / path.name)
        assert cut.shape[1:] == size
        assert torch.equal(cut, whole[:, : size[0], : size[1]])
    # Another folder of a set: small pictures beside it, no cutting.
    write_textures(tmp_path / "2K", {"HR/1201.png": (40, 48), "LR/1201.png": (16, 16)})
    found = prepare_set(known_set("Test2K"), {"test2k": str(tmp_path / "2K")}, tmp_path)
    assert found == tmp_path / "2K" / "HR"
    assert prepare_set(known_set("B100"), {"root": str(sets)}, tmp_path) is None


def test_sets_made_from_div8k(tmp_path: Path) -> None:
    large = write_textures(
        tmp_path / "DIV8K",
        {"1200.png": (64, 64), "1201.png": (67, 80), "1301.png": (64, 80), "1401.png": (64, 96)},
    )
    data = {"DIV8K": str(large)}
    sizes = {"Test2K": (16, 20), "Test4K": (32, 40), "Test8K": (64, 96)}
    for name, size in sizes.items():
        folder = prepare_set(known_set(name), data, tmp_path / "made")
        assert folder is not None
        [path] = list_pictures(folder)
        assert read_rgb8(path).shape[1:] == size
    [path] = list_pictures(tmp_path / "made" / "Test2K")
    whole = read_rgb8(large / "1201.png")[:, :64].float()
    expected = bicubic(whole, (16, 20)).round().clamp(0, 255)
    assert torch.equal(read_rgb8(path).float(), expected)
    (large / "1401.png").unlink()
    with pytest.raises(PictureError, match="none of the pictures 1401 to 1500"):
        prepare_set(known_set("Test8K"), data, tmp_path / "again")


def test_a_set_is_known_by_its_count_and_by_the_cost_that_the_paper_prints(
    shared: Path, tmp_path: Path
) -> None:
    """Set14 as it is costs the original CARN 13.80 GFLOPs, cut to multiples of 12 13.53."""
    raw = shared / "images" / "Set14"
    assert mean_cost(list_pictures(raw)) == pytest.approx(13.796, abs=1e-3)
    [wrong] = check_set(known_set("Set14"), raw)
    assert "13.80 GFLOPs on pictures of these sizes, in the paper 13.53" in wrong
    cut = prepare_set(known_set("Set14"), {"Set14": str(raw)}, tmp_path)
    assert cut is not None
    assert check_set(known_set("Set14"), cut) == []
    assert check_set(PictureSet("Mine", 0, ""), raw) == []


def test_rows_and_sets_of_a_table() -> None:
    assert len(points("table1")) == 48
    assert {p.model for p in points("table1", "row=carn")} == {
        "CARN", "CARN-ClassSR", "CARN-ARM", "CARN-PCSR",
    }  # fmt: skip
    assert [p.dataset for p in points("table4", "row=carn-pcsr-3class", "sets=test4k")] == [
        "Test4K"
    ]
    # A further set has the numbers of the table that knows it, or none.
    [known] = points("table1", "row=carn-pcsr", "sets=Set14")
    assert (known.source, known.psnr) == ("Appendix Table 1", 26.48)
    unknown = points("table1", "row=fsrcnn-pcsr", "sets=Set14") + points(
        "table1", "row=fsrcnn-pcsr", "data.mine=somewhere", "sets=mine"
    )
    assert [(p.dataset, p.psnr, p.gflops) for p in unknown] == [
        ("Set14", None, None),
        ("mine", None, None),
    ]


def test_targets_are_those_of_the_paper() -> None:
    """At the PSNR of the rivals; times and refinement at that of Table 1."""
    [row] = points("appendix2", "row=carn-pcsr", "sets=Test4K")
    assert target_of(row) == 27.42
    assert distance_of(row) == pytest.approx(0.03)
    assert {target_of(p) for p in points("appendix3")} == {26.01}
    patches = points("table3", "row=carn-pcsr")
    assert [target_of(p) for p in patches] == [26.03, 26.12, 26.16, 26.17]
    assert [round(distance_of(p) or 0, 2) for p in patches] == [0.01, 0.01, 0.02, 0.03]
    assert {str(protocol_of(p)) for p in patches} == {"patches"}
    [blank] = points("table1", "row=fsrcnn-pcsr", "sets=Set5")
    assert target_of(blank) is distance_of(blank) is None


def test_every_row_has_weights_or_says_where_they_are(tmp_path: Path) -> None:
    for name in ("carn-x4", "carn-pcsr-phase1"):
        (tmp_path / f"{name}.pth").touch()
    (tmp_path / "srresnet-x4").mkdir()
    (tmp_path / "srresnet-x4" / "iter_last.pth").touch()
    config = ReproductionConfig.of("table1", [f"weights={tmp_path}", "ours=false"])
    found = {p.model: weights_of(p, config) for p in wanted_points(config)}
    here = {name for name, weights in found.items() if weights}
    assert here == {"CARN", "CARN-PCSR", "SRResNet"}
    for table, row, says in (
        ("table1", "srresnet-pcsr", "srresnet-pcsr-phase1 of https://github.com/3587jjh/PCSR"),
        ("table2", "fsrcnn-mga", "MGA is not part of this library"),
        ("table4", "carn-pcsr-3class", "train experiment=paper/carn_x4_m3 and give models.carn-"),
        ("table5", "carn-original", "experiment=paper/carn_original_x2"),
        ("table5", "carn-pcsr", "experiment=paper/carn_multi"),
        ("appendix5", "bsrn-pcsr", "experiment=paper/bsrn_x4"),
    ):
        [point, *_] = points(table, f"row={row}")
        assert says in where_from(point, ReproductionConfig.of(table, []))
    recipes = Path(__file__).parents[2] / "conf" / "experiment" / "paper"
    for table in ("Table 1", "Table 4", "Table 5", "Appendix Table 5"):
        for point in published_points(scale=None, table=table):
            if point.method in ("original", "PCSR"):
                text = where_from(point, ReproductionConfig(table))
                name = text.partition("experiment=paper/")[2].split()[0]
                assert (recipes / f"{name}.yaml").is_file(), name


@pytest.mark.parametrize(
    ("table", "cases"),
    [
        ("table5", ["Test2K x2", "Test2K", "Test2K x8"]),
        ("appendix3", ["Test2K, #h = 0", "Test2K, #h = 9"]),
        ("appendix4", ["Test2K"]),
    ],
)
def test_other_ways_of_measuring(table: str, cases: list[str], tmp_path: Path) -> None:
    write_textures(tmp_path / "Test2K", {"a.png": (256, 264)})
    pcsr = save(small_pcsr(), tmp_path / "pcsr")
    words = (
        table, "row=carn-pcsr-max" if table == "appendix4" else "row=carn-pcsr", "sets=Test2K",
        f"models.pcsr={pcsr}", f"data.root={tmp_path}", "curve=[]", "threads=1", "output=out",
    )  # fmt: skip
    run_command("reproduce", *words, cwd=tmp_path, code=0)
    rows = list(csv.DictReader((tmp_path / "out" / table / "table.csv").read_text().splitlines()))
    measured = {row["pictures"]: row for row in rows}
    assert set(cases) <= set(measured)
    assert all(row["psnr_ours"] for row in rows)
    if table == "appendix4":
        assert rows[0]["remark"] == "k = -1000"
    if table == "appendix3":
        values = [float(row["psnr_ours"]) for row in rows]
        assert len(set(values)) > 2


def test_patches_of_table_3(tmp_path: Path) -> None:
    write_textures(tmp_path, {"a.png": (512, 520)})
    point = points("table3", "row=carn-pcsr")[-1]
    found = Measurer().measure(small_pcsr(), point, tmp_path, None, curve=[0.0])
    assert (found.mean.protocol, found.mean.patch_size, found.sweep) == ("patches", 128, None)


def test_config_lists() -> None:
    config = ReproductionConfig.of("Appendix1", ["row=[a, b]", "sets=c", "curve=[]", "ours=False"])
    assert (config.table, config.row, config.sets) == ("Appendix Table 1", ["a", "b"], ["c"])
    assert (config.curve, config.ours) == ([], False)
    with pytest.raises(ConfigError, match=r"did you mean data\.root"):
        ReproductionConfig.of("table1", ["data=DIR"])
