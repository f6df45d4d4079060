"""Several models and several sets of pictures: one table, one figure, whichever way is chosen."""

import csv
import json
from pathlib import Path

import pytest
from tests.commands import run_command
from tests.small import small_original, small_pcsr, write_textures

from pcsr_lightning.weights import save


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``one``, ``two`` and ``original``: models; ``Set5``, ``more``: pictures."""
    root = tmp_path_factory.mktemp("files")
    save(small_pcsr(), root / "one")
    save(small_pcsr("carn"), root / "two")
    save(small_original(), root / "original")
    write_textures(root / "Set5", {"a.png": (64, 48), "b.png": (48, 64)})
    write_textures(root / "more", {"c.png": (48, 48)})
    return root


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("way", ["multirun", "list"])
def test_models_in_one_table_and_one_figure(way: str, files: Path, tmp_path: Path) -> None:
    models = [f"{files}/{name}.safetensors" for name in ("one", "two")]
    words = [f"data.root={files}/Set5", "sweep=k", "sweep_values=[-1,0,1]", "threads=1"]
    if way == "multirun":
        words = ["-m", f"model={','.join(models)}", "hydra.sweep.dir=all", *words]
    else:
        words = [f"model=[{','.join(models)}]", "hydra.run.dir=all", *words]
    done = run_command("evaluate", *words, cwd=tmp_path, code=0)
    rows = read(tmp_path / "all" / "table.csv")
    assert [(r["model"], r["routing"]) for r in rows] == [
        ("bicubic", ""),
        *((name, f"k = {k}") for name in ("one", "two") for k in (-1, 0, 1)),
    ]
    for n, name in enumerate(("one", "two")):
        content = json.loads((tmp_path / "all" / str(n) / "sweep.json").read_text())
        psnrs = [float(r["psnr"]) for r in rows if r["model"] == name]
        assert psnrs == [p["psnr"] for p in content["points"]]
    [bd] = read(tmp_path / "all" / "bd.csv")
    assert (bd["model"], bd["against"]) == ("two", "one")
    for file in ("table.tex", "bd.tex", "psnr_flops.png", "psnr_flops.pdf"):
        assert (tmp_path / "all" / file).stat().st_size > 100
        assert f"all/{file}" in done.out
    done = run_command("evaluate", *words, cwd=tmp_path, code=1)
    holds = {
        "multirun": "all/0 holds results (sweep.json)",
        "list": "all holds results (table.csv)",
    }
    assert holds[way] in done.err


def test_an_original_is_a_point_beside_the_curves(files: Path, tmp_path: Path) -> None:
    models = ",".join(f"{files}/{name}.safetensors" for name in ("one", "original"))
    words = [f"model=[{models}]", f"data.root={files}/Set5", "sweep=k", "sweep_values=[0,1]"]
    done = run_command("evaluate", *words, "hydra.run.dir=all", cwd=tmp_path, code=0)
    assert "original.safetensors has one class only: measured once, not swept" in done.err
    rows = read(tmp_path / "all" / "table.csv")
    assert [r["routing"] for r in rows] == ["", "k = 0", "k = 1", "original"]
    assert not {"ssim", "psnr_y"} & set(rows[0])  # of the original alone
    assert (tmp_path / "all" / "psnr_flops.pdf").is_file()
    assert not (tmp_path / "all" / "bd.csv").exists()


def test_named_sets_of_pictures(files: Path, tmp_path: Path) -> None:
    sets = f"data.root={{small:{files}/Set5,large:{files}/more}}"
    words = [f"model=[{files}/one.safetensors,{files}/original.safetensors]", sets, "threads=1"]
    done = run_command("evaluate", *words, "output=o", cwd=tmp_path, code=0)
    [folder] = (tmp_path / "o" / "evaluate").glob("*/*")
    assert folder.parent.name == "one_original"
    rows = read(folder / "table.csv")
    assert [(r["model"], r["pictures"]) for r in rows] == [
        *((name, "small") for name in ("bicubic", "one", "original")),
        *((name, "large") for name in ("bicubic", "one", "original")),
    ]
    content = json.loads((folder / "2" / "metrics.json").read_text())
    assert (content["data_name"], content["data_root"]) == ("large", f"{files}/more")
    assert float(rows[4]["psnr"]) == content["psnr"]
    assert "large" in done.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model=[]"], "model is empty"),
        (["data.root={}"], "data.root is empty"),
        (["model=[ONE,nobody]"], "no model is called 'nobody'"),
        (["data.root=[SET,nowhere]"], "data.root=nowhere: no such folder"),
        (["model=[ONE,TWO]", "reference=TWO,x"], "reference"),
        (["model=[ONE,TWO]", "reference=three"], "reference=three: must be one of "),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(
    words: list[str], says: str, files: Path, tmp_path: Path
) -> None:
    names = {"ONE": "one.safetensors", "TWO": "two.safetensors", "SET": "Set5"}
    given = [f"model={files}/one.safetensors", f"data.root={files}/Set5", *words]
    for short, name in names.items():
        given = [word.replace(short, f"{files}/{name}") for word in given]
    keys = {word.split("=")[0] for word in words}
    given = [w for w in given[:2] if w.split("=")[0] not in keys] + given[2:]
    done = run_command("evaluate", *given, cwd=tmp_path, code=1)
    assert says in done.err
    assert len(done.err.splitlines()) == 1
    assert not list(tmp_path.rglob("metrics.json"))


def test_one_model_of_a_list_is_one_evaluation(files: Path, tmp_path: Path) -> None:
    words = [f"model=[{files}/one.safetensors]", f"data.root={files}/Set5", "hydra.run.dir=o"]
    run_command("evaluate", *words, cwd=tmp_path, code=0)
    assert (tmp_path / "o" / "metrics.json").is_file()
