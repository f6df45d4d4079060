"""``python -m pcsr_lightning.evaluate sweep=k``: many values of ``k`` in one go."""

import csv
import json
import time
from pathlib import Path

import pytest
from tests.commands import Done, run_command
from tests.small import write_textures

from pcsr_lightning.data import SAMPLE_FOLDER

PICTURES = SAMPLE_FOLDER / "valid"


def evaluate(*settings: str, cwd: Path, code: int = 0) -> Done:
    return run_command("evaluate", *settings, "threads=1", cwd=cwd, code=code)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting that names two small pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    return f"data.root={write_textures(folder, {'a.png': (96, 128), 'b.png': (80, 64)})}"


def test_a_sweep_and_its_single_values(root: str, tmp_path: Path) -> None:
    done = evaluate(root, "sweep=k", "sweep_values=[-1,0,0.5]", "published=false", cwd=tmp_path)
    folder = next((tmp_path / "outputs" / "evaluate").glob("*/*"))
    found = json.loads((folder / "sweep.json").read_text())
    assert [p["routing"]["k"] for p in found["points"]] == [-1, 0, 0.5]
    assert (folder / "psnr_flops.png").stat().st_size > 5_000
    assert (folder / "psnr_flops.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "table.csv").read_text().count("\n") == 5
    assert (folder / "table.tex").read_text().count(r"\\") == 5
    for line in ("bicubic", " k = -1 ", " k = 0 ", " k = 0.5 ", str(folder / "sweep.json")):
        assert line in done.out
    evaluate(root, "routing.k=0.5", "hydra.run.dir=alone", cwd=tmp_path)
    alone = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    assert found["points"][2]["psnr"] == pytest.approx(alone["psnr"], abs=2e-4)
    assert found["points"][2]["gmacs"] == pytest.approx(alone["gmacs"], rel=1e-9)
    assert found["points"][2]["share"] == pytest.approx(alone["share"])
    assert found["bicubic"]["psnr"] == pytest.approx(alone["bicubic"]["psnr"], abs=1e-6)


@pytest.mark.slow
def test_twenty_values_cost_at_most_twice_one(tmp_path: Path) -> None:
    values = ",".join(f"{(n - 10) / 10:g}" for n in range(20))

    def seconds(*settings: str) -> float:
        start = time.perf_counter()
        evaluate(f"data.root={PICTURES}", *settings, cwd=tmp_path)
        return time.perf_counter() - start

    # The least of two: what disturbs a measurement only ever adds to it.
    one = min(seconds("routing.k=0") for _ in range(2))
    twenty = min(seconds("sweep=k", f"sweep_values=[{values}]") for _ in range(2))
    assert twenty < 2 * one


def test_a_multirun_ends_in_one_table_and_one_figure(root: str, tmp_path: Path) -> None:
    done = evaluate("-m", root, "routing.k=0,0.5,1", "hydra.sweep.dir=all", cwd=tmp_path)
    jobs = [json.loads((tmp_path / "all" / f"{n}/metrics.json").read_text()) for n in range(3)]
    table = done.out[done.out.index(f"{Path(root).name}, x4 ") :].splitlines()
    bicubic, *rows = table[2:]
    assert f"{jobs[0]['bicubic']['psnr']:.2f}" in bicubic
    for row, k, job in zip(rows[:3], ("0", "0.5", "1"), jobs, strict=True):
        assert f"k = {k} " in row
        assert f"{job['psnr']:.2f}" in row
        assert f"{job['gmacs']:.3f}" in row
    assert (tmp_path / "all" / "psnr_flops.png").stat().st_size > 5_000
    with (tmp_path / "all" / "table.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["routing"] for row in written] == ["", "k = 0", "k = 0.5", "k = 1"]
    assert [float(row["psnr"]) for row in written[1:]] == [job["psnr"] for job in jobs]


def test_a_multirun_of_failures_says_so(tmp_path: Path) -> None:
    done = evaluate(
        "-m", "data.root=nowhere", "routing.k=0,1", "hydra.sweep.dir=all", cwd=tmp_path, code=1
    )
    assert "error: data.root=nowhere: no such folder" in done.err
    assert "bicubic" not in done.out


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("sweep=m",), "sweep=m: must be budget, k, "),
        (("sweep=k", "sweep_values=[]"), "sweep_values is empty"),
        (("sweep=k", "sweep_values=[high]"), "sweep_values"),
        (("sweep=k", "routing.mode=adaptive"), "routing.mode must be k"),
        (("sweep=k", "lpips=true"), "lpips"),
        (("sweep=k", "per_image=true"), "per_image"),
        (("sweep=k", "save_images=true"), "save_images"),
    ],
)
def test_mistakes_are_one_line(settings: tuple[str, ...], says: str, tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    from pcsr_lightning import conf_dir
    from pcsr_lightning.cli.routing_group import register_routing
    from pcsr_lightning.errors import PCSRError
    from pcsr_lightning.evaluation.config import EvaluationConfig

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        register_routing()
        cfg = compose("evaluate", [f"data.root={PICTURES}", *settings])
    with pytest.raises(PCSRError, match=says):
        EvaluationConfig.of(cfg).check()
